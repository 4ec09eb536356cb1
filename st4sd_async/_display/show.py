"""Runs, shown while they go on; and bars for whatever else takes its time."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import anyio

from .._errors import UnknownRun
from .._render.cards import Bar, Card, Summary, Table, Tone, counted, format_size, runs_card
from .screens import PAUSE, Screen, screen_here

if TYPE_CHECKING:
    from .._util.clock import Clock
    from .._util.progress import ProgressUpdate
    from ..models import Status

log = logging.getLogger("st4sd_async")

GOODBYE = "not shown any more, and not over: the runs go on; show() comes back to them"


class Handle(Protocol):
    """A run of which the statuses are shown."""

    @property
    def id(self) -> str: ...


async def show(order: Sequence[str], changes: AsyncGenerator[tuple[Handle, Status]], clock: Clock) -> list[Status]:
    """Show runs until they are over and return their final statuses, in the order given; see `Client.show`."""
    view, failure = View(order, screen_here()), None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(view.keep_drawing, clock)
            try:
                async with aclosing(changes):
                    async for run, status in changes:
                        view.take(run.id, status)
            except Exception as error:  # else it would come in a group
                failure = error
            tasks.cancel_scope.cancel()
    finally:
        # Of those that are nowhere nothing goes on.
        view.close(note="" if isinstance(failure, UnknownRun) else GOODBYE)
    if failure is not None:
        raise failure
    return [view.statuses[rest_uid] for rest_uid in order]


class View:
    """What is shown of some runs, and where."""

    def __init__(self, rest_uids: Iterable[str], screen: Screen) -> None:
        self._summaries = dict.fromkeys(rest_uids, Summary())
        self.statuses: dict[str, Status] = {}
        """rest-uid -> the newest status."""
        self._screen: Screen | None = screen
        self._news = anyio.Event()
        self._news.set()

    def take(self, rest_uid: str, status: Status) -> None:
        """Take note of a status."""
        self.statuses[rest_uid], self._summaries[rest_uid] = status, status._summary()
        self._news.set()

    async def keep_drawing(self, clock: Clock) -> None:
        """Draw whenever there are news, but not all the time."""
        while self._screen is not None:
            await self._news.wait()
            self._news = anyio.Event()
            self._draw(self.card)
            await clock.sleep(self._screen.pause if self._screen else 0.0)

    @property
    def card(self) -> Card:
        """What is to be shown now."""
        if len(self._summaries) == len(self.statuses) == 1:
            rest_uid, status = next(iter(self.statuses.items()))
            return status._card(rest_uid)
        card = runs_card(self._summaries)
        return card if self.statuses else replace(card, table=None)

    def close(self, note: str = GOODBYE) -> None:
        """Draw a last time, with a word on runs that are not over."""
        is_over = all(rest_uid in self.statuses and self.statuses[rest_uid].is_final for rest_uid in self._summaries)
        self._draw(self.card if is_over else replace(self.card, notes=(note,) if note else ()))
        if self._screen is not None:
            self._screen.close()

    def _draw(self, told: Card) -> None:
        try:
            if self._screen is not None:
                self._screen.draw(told)
        except Exception:  # whatever is wrong with the display, the runs are watched
            log.warning("the runs are not shown any more", exc_info=True)
            self._screen = None


class Steps:
    """Draws works while any of them goes on."""

    def __init__(self) -> None:
        self._screen: Screen | None = None
        self._updates: dict[str, ProgressUpdate] = {}
        self._drawn = 0.0

    def take(self, update: ProgressUpdate) -> None:
        """Draw it, if it is the last of its work or enough time has passed."""
        self._updates[update.work] = update
        self._screen = self._screen or screen_here()
        if update.is_over or time.monotonic() - self._drawn >= PAUSE:
            self._screen.draw(progress_card(self._updates.values()))
            self._drawn = time.monotonic()
        if all(one.is_over for one in self._updates.values()):
            self._screen.close()
            self._screen, self._updates = None, {}


def progress_card(updates: Iterable[ProgressUpdate]) -> Card:
    """What to say of works that go on or have just ended."""
    rows = tuple(
        (
            one.work,
            _bar(one),
            f"{one.done:,} of {one.total:,} {one.unit}",
            format_size(one.received) if one.received else "",
        )
        for one in updates
    )
    return Card(counted(len(rows), "task"), table=Table(("", "", "done", "received"), rows))


def _bar(update: ProgressUpdate) -> Bar:
    is_whole = update.done >= update.total
    tone = (Tone.GOOD if is_whole else Tone.BAD) if update.is_over else Tone.BUSY
    return Bar(1.0 if is_whole else update.done / update.total, tone)
