"""
A live display of runs, launches or tasks, for notebooks, terminals and logs.

`LiveDisplay` decides which rows and counts are drawn, in which order, and how often. A `Surface` draws them.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

import anyio

from .._render.cards import MAX_ROWS, Badge, Card, CardTable, Cell, Summary, Tone, counted, summary_table

if TYPE_CHECKING:
    from .._util.clock import Clock
    from .._util.outage import Outage

log = logging.getLogger("st4sd_async")

URGENCY = (Tone.BAD, Tone.STUCK, Tone.QUIET, Tone.BUSY, Tone.WAITING, Tone.GOOD)
"""The order in which rows are shown if not all of them fit."""


ESTIMATE_INTERVAL = 1.0
"""Seconds after which the time left is estimated again."""
NOTICE_INTERVAL = 1.0
"""Seconds between two checks for an outage, by displays that are drawn only if something has changed."""
RECOVERY_SECONDS = 10.0
"""Seconds for which a display shows that the service responds again."""


def is_outage_shown(*, besides: LiveDisplay | None = None) -> bool:
    """Return whether a display currently shows outages, so that messages need not; `besides` is ignored."""
    return any(display is not besides for display in _displays_of_outages)


@dataclass(frozen=True)
class Row:
    """The state of one run, launch or task."""

    name: str
    badge: Badge
    """The state, under which the row is counted."""
    details: tuple[Cell, ...] = ()
    """More cells, in the order of the display's columns."""
    reason: str = ""
    """Why it failed or waits; "" if the state says enough."""
    began_at: float | None = None
    """When it began, in seconds of the wall clock. None means that its elapsed time is not shown."""
    ended_at: float | None = None
    """When it ended. None means that it has not ended."""

    @property
    def elapsed(self) -> str:
        """Time that it has taken so far, as ``1:02:03``; "" if unknown."""
        if self.began_at is None:
            return ""
        return format_elapsed((time.time() if self.ended_at is None else self.ended_at) - self.began_at)


def format_elapsed(seconds: float) -> str:
    """Return a duration as ``1:02:03``."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class Surface(Protocol):
    """A place to draw a display in."""

    @property
    def interval(self) -> float:
        """Minimum time between the last drawing and the next, in seconds."""

    @property
    def shows_time(self) -> bool:
        """Whether it is redrawn now even if nothing changed, because it shows the elapsed time."""

    def draw(self, display: LiveDisplay, /) -> None:
        """Replace the previous drawing with the current one."""

    def close(self, footer: str, /) -> None:
        """Keep the last drawing, with a note below it; "" means no note."""


class LiveDisplay:
    """
    A display of rows by name, and of the number of rows in each state.

    Args:
        noun: Noun for a row, such as ``run``.
        columns: Headers: name, state and details.
        surface: The surface to draw on. None means that nothing is drawn.
        count: Returns the number of items in each state, if not all have a row. None means that the rows are counted.
        running: Returns temporary rows, which are shown as long as they are returned.
        single: Returns a card to draw instead of rows, or None.
        outage: Returns the current outage of the service, or None. Called for each drawing.
        is_grouped: Whether rows are alike. Then `overview` groups many of them, the newest come first, and a bar shows
            the number in each state. Otherwise, `overview` leaves out those that are done, rows in progress keep the
            order in which they began, and there is no such bar.
        time_left: Returns the estimated time left, such as ``about 12 min left``; "" if it is unknown.
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
        outage: Callable[[], Outage | None] | None = None,
        is_grouped: bool = True,
        time_left: Callable[[], str] = str,
    ) -> None:
        self.footer = ""
        """A note for the last drawing."""
        self._noun, self._columns = noun, tuple(columns)
        self._surface, self._is_grouped = surface, is_grouped
        self._count, self._running, self._single = count or self._count_rows, running, single
        self._estimate, self._time_left, self._estimated_at = time_left, "", float("-inf")
        self._rows: dict[str, Row] = {}
        self._undrawn: dict[str, Row] = {}
        self._revisions: dict[str, int] = {}
        self._revision = 0
        self._last_running: dict[str, Row] = {}
        self._changed = anyio.Event()
        self._changed.set()
        self._drawn_at = float("-inf")
        self._shows_outages, self._read_outage = outage is not None, outage or (lambda: None)
        self._outage: Outage | None = None
        """The last outage that was shown."""
        self._recovered_at: float | None = None
        """When the end of this outage was first seen."""
        self._drawn_notice: Badge | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def update(self, row: Row) -> None:
        """Add a row, or replace the row with its name."""
        if self._rows.get(row.name) == row:
            return
        self._revisions[row.name] = self._revision = self._revision + 1
        self._rows[row.name] = self._undrawn[row.name] = row
        self._changed.set()

    @property
    def changes(self) -> int:
        """How many rows were added or replaced so far."""
        return self._revision

    @property
    def has_clocks(self) -> bool:
        """Whether the elapsed time of a row grows."""
        return any(row.began_at is not None and row.ended_at is None for row in self._all_rows())

    def pop_changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        changes, self._undrawn = list(self._undrawn.values()), {}
        return changes

    def notice(self) -> Badge | None:
        """Return a notice of a current or recent outage; None if there is none."""
        current = self._read_outage()
        if current is not None:
            self._outage, self._recovered_at = current, None
            return Badge(str(current), Tone.STUCK)
        if self._outage is None or not self._outage.is_over:
            return None
        now = time.monotonic()
        self._recovered_at = now if self._recovered_at is None else self._recovered_at
        return Badge(str(self._outage), Tone.GOOD) if now - self._recovered_at < RECOVERY_SECONDS else None

    def time_left(self) -> str:
        """Return the time left, as estimated less than a second ago; "" if it is unknown."""
        now = time.monotonic()
        if now - self._estimated_at >= ESTIMATE_INTERVAL:
            self._time_left, self._estimated_at = self._estimate(), now
        return self._time_left

    def summary(self) -> Card:
        """Return a card with the counts, or the card that replaces rows and counts, with the notice."""
        return replace(self._summary(), notice=self.notice())

    def _summary(self) -> Card:
        single = self._single()
        if single is not None:
            return single
        counts = {badge: count for badge, count in self._count().items() if count}
        order = sorted(counts, key=lambda badge: (badge.tone is not Tone.GOOD, URGENCY.index(badge.tone), badge.word))
        title = counted(sum(counts.values()), self._noun)
        return Card(title, parts=tuple((counts[badge], badge) for badge in order), has_bar=self._is_grouped)

    def table(self, most_rows: int) -> CardTable | None:
        """
        Return the rows as a table.

        If there are more than ``most_rows`` rows, the table has the most urgent rows, the newest first, and counts the
        others. Failed rows take at most half of the space, so that rows in progress remain visible.
        """
        if self._single() is not None:
            return None
        rows = self._all_rows()
        if len(rows) <= most_rows:
            return self._table_of(rows, "")
        order = self._by_urgency(rows, most_rows)
        return self._cut(order, most_rows - 1)

    def _cut(self, order: Sequence[Row], most_rows: int) -> CardTable | None:
        """Return a table with the first rows, which counts the others."""
        shown, hidden = order[:most_rows], order[most_rows:]
        counts = Counter(row.badge.word for row in hidden)
        states = ", ".join(f"{count:,} {word}" for word, count in counts.items())
        return self._table_of(shown, f"... and {len(hidden):,} more: {states}")

    def overview(self) -> CardTable | None:
        """Return a table with all rows; if there are many, one row for each state, or the rows that are not done."""
        rows = self._all_rows()
        if len(rows) <= MAX_ROWS:
            return self.table(MAX_ROWS)
        if not self._is_grouped:
            unfinished = sum(row.badge.tone is not Tone.GOOD for row in rows)
            return self._cut(self._by_urgency(rows, MAX_ROWS), min(unfinished, MAX_ROWS - 1))
        return summary_table(self._noun, {row.name: Summary(row.badge, reason=row.reason) for row in rows})

    def draw(self) -> None:
        """Draw now."""
        if self._surface is not None:
            if self._shows_outages:
                _displays_of_outages.add(self)
            self._changed, self._drawn_notice = anyio.Event(), self.notice()
            self._call(partial(self._surface.draw, self))
            self._drawn_at = time.monotonic()

    def draw_if_due(self) -> float:
        """Draw and return 0 if the surface's interval is over. Otherwise return the seconds until then."""
        if self._surface is None:
            return 0.0
        seconds = self._drawn_at + self._surface.interval - time.monotonic()
        if seconds > 0:
            return seconds
        self.draw()
        return 0.0

    def close(self) -> None:
        """Draw pending changes, and release the surface."""
        if self._surface is not None and (self._surface.shows_time or self._is_outdated()):
            self.draw()
        if self._surface is not None:
            self._call(partial(self._surface.close, self.footer))
        _displays_of_outages.discard(self)

    @asynccontextmanager
    async def drawn(self, clock: Clock) -> AsyncGenerator[LiveDisplay]:
        """Draw repeatedly while the block runs. Errors of the block are raised unchanged, not in an exception group."""
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
            while not (self._surface.shows_time or self._is_outdated()):
                with anyio.move_on_after(NOTICE_INTERVAL):
                    await self._changed.wait()
            self.draw()
            if self._surface is not None:
                await clock.sleep(self._surface.interval)

    def _is_outdated(self) -> bool:
        self._find_running_changes()
        return self._changed.is_set() or self.notice() != self._drawn_notice

    def _find_running_changes(self) -> None:
        running = {row.name: row for row in self._running()}
        changed = sum(self._last_running.get(name) != row for name, row in running.items())
        if changed or running.keys() != self._last_running.keys():
            self._last_running, self._revision = running, self._revision + changed
            self._changed.set()

    def _call(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except Exception:  # an error of a display must not stop the displayed work
            log.warning("the display failed and is no longer updated", exc_info=True)
            surface, self._surface = self._surface, None
            _displays_of_outages.discard(self)
            if surface is not None:
                with suppress(Exception):  # so that a terminal shows its cursor again
                    surface.close("")

    def _count_rows(self) -> Mapping[Badge, int]:
        return Counter(row.badge for row in self._rows.values())

    def _all_rows(self) -> list[Row]:
        return list({**self._rows, **{row.name: row for row in self._running()}}.values())

    def _by_urgency(self, rows: Iterable[Row], most_rows: int) -> list[Row]:
        def place(row: Row) -> tuple[int, int]:
            is_in_order = not self._is_grouped and row.badge.tone is not Tone.GOOD
            return URGENCY.index(row.badge.tone), 0 if is_in_order else -self._revisions.get(row.name, 0)

        newest = sorted(rows, key=place)
        bad = [row for row in newest if row.badge.tone is Tone.BAD]
        others = newest[len(bad) :]
        unfinished = [row for row in others if row.badge.tone is not Tone.GOOD]
        first, rest = bad[: max(1, most_rows // 2)], bad[max(1, most_rows // 2) :]
        return [*first, *unfinished, *rest, *others[len(unfinished) :]]

    def _table_of(self, rows: Sequence[Row], more: str) -> CardTable | None:
        has_reasons = any(row.reason for row in rows)
        has_times = any(row.began_at is not None for row in rows)
        columns = (*self._columns, *(["elapsed"] if has_times else []), *(["why"] if has_reasons else []))
        cells = (
            (
                row.name,
                row.badge,
                *row.details,
                *([row.elapsed] if has_times else []),
                *([row.reason] if has_reasons else []),
            )
            for row in rows
        )
        return CardTable(columns, tuple(cells), more) if rows else None


_displays_of_outages: WeakSet[LiveDisplay] = WeakSet()
"""The open displays that show outages."""
