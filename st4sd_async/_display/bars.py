"""Progress as bars, without a line of code by the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._util.progress import ProgressUpdate
    from .show import Steps


class ProgressBars:
    """
    Shows how far downloads, batches and waits are, where the program runs: a `Progress`.

        client = Client("https://st4sd.example", config=Config(progress=ProgressBars()))

    In a notebook and in a terminal (there with rich, which the extra ``cli`` brings) there are bars that stay in
    their place; elsewhere a line on standard error for each work that begins or ends.
    """

    def __init__(self) -> None:
        self._updates: Steps | None = None

    def __call__(self, update: ProgressUpdate, /) -> None:
        """Show an update."""
        if self._updates is None:
            from .show import Steps

            self._updates = Steps()
        self._updates.take(update)
