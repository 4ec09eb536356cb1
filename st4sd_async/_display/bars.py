"""Progress as bars, without a line of code by the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._util.progress import Step
    from .show import Steps


class ProgressBars:
    """
    Shows how far downloads, batches and waits are, where the program runs: a `Progress`.

        client = Client("https://st4sd.example", config=Config(progress=ProgressBars()))

    In a notebook and in a terminal (there with rich, which the extra ``cli`` brings) there are bars that stay in
    their place; elsewhere a line on standard error for each work that begins or ends.
    """

    def __init__(self) -> None:
        self._steps: Steps | None = None

    def __call__(self, step: Step, /) -> None:
        """Show a step."""
        if self._steps is None:
            from .show import Steps

            self._steps = Steps()
        self._steps.take(step)
