"""How far downloads are: a bar in a terminal, otherwise nothing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .._util.printable import one_line
from .._util.progress import SECONDS, Step
from .._util.progress import Progress as Told
from ._board import is_live

COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[more]}", markup=False),
)
"""What the line shows: the work, its bar, how much of it is done, and what came."""
NOTHING = Step("", 0, 0, "", 0, False)
"""Where some work is before its first step."""


@contextmanager
def bar() -> Generator[Told | None]:
    """Show what it gives is told while the block goes on, if standard error is a terminal; else it gives None."""
    if not is_live():
        yield None
        return
    with Progress(*COLUMNS, console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress)


class Bar:
    """One bar for all that goes on: a bar for each of hundreds of runs says nothing."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: dict[str, Step] = {}
        self._done = self._total = self._received = 0
        self._task = progress.add_task("", total=None, visible=False, more="")

    def __call__(self, step: Step, /) -> None:
        """Move it by what is new of some work; of a service that is waited for there is a warning already."""
        if step.unit == SECONDS:
            return
        before = self._steps.get(step.work, NOTHING)
        self._steps[step.work] = step
        self._done += step.done - before.done
        self._total += step.total - before.total
        self._received += step.received - before.received
        count = len(self._steps)
        self._progress.update(
            self._task,
            description=one_line(step.work) if count == 1 else f"{step.unit} of {count} runs",
            completed=self._done,
            total=self._total,
            visible=True,
            more=f"{step.unit}, {decimal(self._received)}",
        )
