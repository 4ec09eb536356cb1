"""
A live display of runs, launches or tasks. It decides which rows and counts to draw, in which order, and how often.

The same display serves notebooks, terminals and log files. `LiveDisplay` decides what to draw; a `Surface` draws it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from .._render.cards import MAX_ROWS, Badge, Card, CardTable, Cell, Summary, Tone, counted, summary_table

if TYPE_CHECKING:
    from .._util.clock import Clock

log = logging.getLogger("st4sd_async")

URGENCY = (Tone.BAD, Tone.STUCK, Tone.QUIET, Tone.BUSY, Tone.WAITING, Tone.GOOD)
"""The order in which rows are shown if not all of them fit."""


@dataclass(frozen=True)
class Row:
    """The state of one run, launch or task."""

    name: str
    badge: Badge
    """The state under which it is counted."""
    details: tuple[Cell, ...] = ()
    """Further cells, in the order of the display's columns."""
    reason: str = ""
    """Why it failed or waits; "" if its state is enough."""


class Surface(Protocol):
    """A place to draw a display in."""

    interval: float
    """Minimum number of seconds between two drawings."""
    shows_time: bool
    """Whether it is redrawn even if nothing changed, because it shows the elapsed time."""

    def draw(self, display: LiveDisplay, /) -> None:
        """Replace the previous drawing with the current one."""

    def close(self, footer: str, /) -> None:
        """Keep the last drawing, with a note below it; "" means no note."""


class LiveDisplay:
    """
    Rows by name, and how many of them are in which state.

    Args:
        noun: What a row stands for, such as ``run``.
        columns: Headers: name, state and details.
        surface: Where to draw. None means not at all.
        count: Returns the number in each state, if not all have a row. None means that the rows are counted.
        running: Returns temporary rows, which are shown only while it returns them.
        single: Returns a card to draw instead of rows, or None.
    """

    def __init__(
        self,
        noun: str,
        columns: Sequence[str],
        surface: Surface | None,
        *,
        count: Callable[[], Mapping[Badge, int]] | None = None,
        running: Callable[[], Iterable[Row]] = tuple,
        single: Callable[[], Card | None] = lambda: None,
    ) -> None:
        self.footer = ""
        """A note for the last drawing."""
        self._noun, self._columns = noun, tuple(columns)
        self._surface = surface
        self._count, self._running, self._single = count or self._count_rows, running, single
        self._rows: dict[str, Row] = {}
        self._undrawn: dict[str, Row] = {}
        self._revisions: dict[str, int] = {}
        self._revision = 0
        self._changed = anyio.Event()
        self._changed.set()
        self._drawn_at = float("-inf")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def update(self, row: Row) -> None:
        """Add a row, or replace the one of its name."""
        if self._rows.get(row.name) == row:
            return
        self._revisions[row.name] = self._revision = self._revision + 1
        self._rows[row.name] = self._undrawn[row.name] = row
        self._changed.set()

    def pop_changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        changes, self._undrawn = list(self._undrawn.values()), {}
        return changes

    def summary(self) -> Card:
        """Return the counts without the rows, or the card that is drawn instead of both."""
        single = self._single()
        if single is not None:
            return single
        counts = {badge: count for badge, count in self._count().items() if count}
        order = sorted(counts, key=lambda badge: (badge.tone is not Tone.GOOD, URGENCY.index(badge.tone), badge.word))
        title = counted(sum(counts.values()), self._noun)
        return Card(title, parts=tuple((counts[badge], badge) for badge in order))

    def table(self, most_rows: int) -> CardTable | None:
        """
        Return the rows as a table.

        If there are more than ``most_rows``, the table has the most urgent ones, the newest first, and counts the
        others. Rows of failed or stuck runs then leave at least half of the space to runs in progress.
        """
        if self._single() is not None:
            return None
        rows = self._all_rows()
        if len(rows) <= most_rows:
            return self._table_of(rows, "")
        order = self._by_urgency(rows, most_rows)
        shown, hidden = order[: most_rows - 1], order[most_rows - 1 :]
        counts = Counter(row.badge.word for row in hidden)
        states = ", ".join(f"{count:,} {word}" for word, count in counts.items())
        return self._table_of(shown, f"... and {len(hidden):,} more: {states}")

    def overview(self) -> CardTable | None:
        """Return a table with a row for each; if there are many, equal states share a row."""
        rows = self._all_rows()
        if len(rows) <= MAX_ROWS:
            return self.table(MAX_ROWS)
        return summary_table(self._noun, {row.name: Summary(row.badge, reason=row.reason) for row in rows})

    def draw(self) -> None:
        """Draw now."""
        if self._surface is not None:
            self._changed = anyio.Event()
            self._call(partial(self._surface.draw, self))
            self._drawn_at = time.monotonic()

    def draw_if_due(self) -> None:
        """Draw, unless the surface's interval since the last drawing has not passed."""
        if self._surface is not None and time.monotonic() - self._drawn_at >= self._surface.interval:
            self.draw()

    def close(self) -> None:
        """Draw pending changes, and release the surface."""
        if self._surface is not None and (self._changed.is_set() or self._surface.shows_time):
            self.draw()
        if self._surface is not None:
            self._call(partial(self._surface.close, self.footer))

    @asynccontextmanager
    async def drawn(self, clock: Clock) -> AsyncGenerator[LiveDisplay]:
        """Keep drawing while the block runs. Errors of the block are raised as they are, not in an exception group."""
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_drawing, clock)
                try:
                    yield self
                except Exception as error:
                    failure = error
                tasks.cancel_scope.cancel()
        finally:
            self.close()
        if failure is not None:
            raise failure

    async def _keep_drawing(self, clock: Clock) -> None:
        while self._surface is not None:
            if not self._surface.shows_time:
                await self._changed.wait()
            interval = self._surface.interval
            self.draw()
            await clock.sleep(interval)

    def _call(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except Exception:  # the displayed work continues
            log.warning("the display failed and is no longer updated", exc_info=True)
            surface, self._surface = self._surface, None
            if surface is not None:
                with suppress(Exception):  # a terminal shows its cursor again
                    surface.close("")

    def _count_rows(self) -> Mapping[Badge, int]:
        return Counter(row.badge for row in self._rows.values())

    def _all_rows(self) -> list[Row]:
        return list({**self._rows, **{row.name: row for row in self._running()}}.values())

    def _by_urgency(self, rows: Iterable[Row], most_rows: int) -> list[Row]:
        newest = sorted(rows, key=lambda row: (URGENCY.index(row.badge.tone), -self._revisions.get(row.name, 0)))
        bad = [row for row in newest if row.badge.tone is Tone.BAD]
        others = newest[len(bad) :]
        unfinished = [row for row in others if row.badge.tone is not Tone.GOOD]
        first, rest = bad[: max(1, most_rows // 2)], bad[max(1, most_rows // 2) :]
        return [*first, *unfinished, *rest, *others[len(unfinished) :]]

    def _table_of(self, rows: Sequence[Row], more: str) -> CardTable | None:
        has_reasons = any(row.reason for row in rows)
        columns = (*self._columns, *(["why"] if has_reasons else []))
        cells = ((row.name, row.badge, *row.details, *([row.reason] if has_reasons else [])) for row in rows)
        return CardTable(columns, tuple(cells), more) if rows else None
