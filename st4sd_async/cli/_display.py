"""How the runs are doing, on standard error: a live table in a terminal, else a line for each change."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ._campaign import Attempt
from ._exits import Exit, say

REFRESHES = 8
"""How often a second the live table is drawn."""
WIDEST_STATE = len("Initialising")
"""Characters of the widest usual state, so that the columns behind it stay where they are."""
COLUMNS = ("run", "state", "exit-status", "progress", "seconds")


class Display(Protocol):
    """Shows attempts while it is entered."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def changed(self, attempt: Attempt) -> None:
        """Show that an attempt has changed."""


def display_for(attempts: Sequence[Attempt]) -> Display:
    """The display that suits standard error."""
    console = Console(stderr=True, highlight=False)
    animated = sys.stderr.isatty() and not console.is_dumb_terminal
    return LiveTable(attempts, console) if animated else Lines()


def cells(attempt: Attempt) -> tuple[str, str, str, str, str]:
    """What to say of an attempt, in the order of `COLUMNS`."""
    status = attempt.status
    if attempt.error is not None:
        state = "error"
    elif status is None or status.is_pending:
        state = "starting"
    else:
        state = str(status.experiment_state) or "-"
    exit_status = str(status.exit_status or "-") if status is not None else "-"
    progress = (status.total_progress if status is not None else None) or 0.0
    return attempt.name, state, exit_status, f"{progress:.0%}", f"{attempt.seconds:.1f}"


class LiveTable:
    """A table that stays in its place, its seconds running."""

    def __init__(self, attempts: Sequence[Attempt], console: Console) -> None:
        self._attempts = attempts
        self._live = Live(
            console=console, get_renderable=self._table, refresh_per_second=REFRESHES, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw a last time and give the cursor back; the table stays."""
        self._live.stop()

    def changed(self, attempt: Attempt) -> None:
        """Draw at once, so that no change is missed."""
        self._live.refresh()

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in COLUMNS:
            side: Literal["left", "right"] = "right" if column in ("progress", "seconds") else "left"
            table.add_column(
                column, justify=side, overflow="fold", min_width=WIDEST_STATE if column == "state" else None
            )
        for attempt in self._attempts:
            table.add_row(*(Text(cell) for cell in cells(attempt)), style=_style(attempt))
        return table


def _style(attempt: Attempt) -> str:
    if attempt.ended is None:
        return ""
    return "green" if attempt.exit is Exit.DONE else "red"


class Lines:
    """A line for each change that shows, without control characters."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to clear away."""

    def changed(self, attempt: Attempt) -> None:
        """Say it, unless only the time is new."""
        name, state, exit_status, progress, seconds = cells(attempt)
        news = (name, state, exit_status, progress)
        if self._said.get(attempt.label) != news:
            self._said[attempt.label] = news
            say(f"{seconds:>6} s  {name}  {state}  {exit_status}  {progress}")
