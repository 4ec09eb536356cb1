"""How far downloads are: a bar in a terminal, otherwise nothing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .._util.printable import one_line
from .._util.progress import SECONDS, ProgressUpdate
from .._util.progress import Progress as ProgressCallback
from ._board import is_live

COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[more]}", markup=False),
)
"""What the line shows: the work, its bar, how much of it is done, and what came."""
NOTHING = ProgressUpdate("", 0, 0, "", 0, False)
"""Where some work is before its first update."""


@contextmanager
def bar() -> Generator[ProgressCallback | None]:
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
        self._updates: dict[str, ProgressUpdate] = {}
        self._done = self._total = self._received = 0
        self._task = progress.add_task("", total=None, visible=False, more="")

    def __call__(self, update: ProgressUpdate, /) -> None:
        """Move it by what is new of some work; of a service that is waited for there is a warning already."""
        if update.unit == SECONDS:
            return
        before = self._updates.get(update.work, NOTHING)
        self._updates[update.work] = update
        self._done += update.done - before.done
        self._total += update.total - before.total
        self._received += update.received - before.received
        count = len(self._updates)
        self._progress.update(
            self._task,
            description=one_line(update.work) if count == 1 else f"{update.unit} of {count} runs",
            completed=self._done,
            total=self._total,
            visible=True,
            more=f"{update.unit}, {decimal(self._received)}",
        )
