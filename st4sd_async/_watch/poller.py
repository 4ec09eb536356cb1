"""One poll loop for all runs that are watched through a client: when to ask for what, and whom to tell."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeVar

import anyio.lowlevel

from .._api import instances
from .._api.datastore import final_status
from .._api.status_list import StatusList
from ..models.finality import FinalityTracker
from .leader_election import Turns
from .schedule import QUICKEST, Schedule
from .status_reader import Looks
from .subscription import Deadline, Follower
from .watched_run import Watched, choose

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from ..models import Status

R = TypeVar("R")

BESIDE = 3
"""Most requests for single runs in a round, or between two rounds, while the list is used."""


@dataclass(frozen=True)
class Round:
    """A look at all runs, or at a few between two rounds, of which the list was read."""

    runs: list[Watched]
    """Those to be asked for by themselves."""
    count: int
    """How many runs were not over when it began."""
    took: float
    """Seconds that the list took."""
    read: float
    """When it was read."""
    is_whole: bool
    """Whether it is a look at all."""


class Poller:
    """
    What is known of all watched runs, kept up to date by those who wait for news of them.

    More than a few runs are asked for with one list in a round, and few single requests beside it,
    unless the service has so many other instances that asking for each run costs it less.
    """

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self.progress = session.config.progress
        self._grace = session.config.grace
        self._clock = session.config.clock
        self._runs: dict[str, Watched] = {}
        self._turns = Turns()
        self._schedule = Schedule()
        self._nap: anyio.CancelScope | None = None
        self._round: Round | None = None
        self._judged = 0
        """How many requests since the last whole round were to judge an end."""
        listing = StatusList()
        self._looks = Looks(
            lambda: session.send_once(listing.call()),
            lambda rest_uid: session.send_once(instances.status_call(rest_uid)),
            partial(final_status, session),
            self._turns.rouse,
            self._clock,
        )

    def changes(
        self, runs: Mapping[str, R], timeout: float | None, interval: float | None
    ) -> AsyncGenerator[tuple[R, Status]]:
        """
        Statuses of runs until all are over: of each the first, then changes, its final one last and once.

        No task group and no cancel scope is open while the caller has a status, so the generator may
        be stepped from any task and dropped at any time.

        Args:
            runs: rest-uid -> what stands for the run in the result.
            timeout: Seconds for all of it; None: for ever.
            interval: Seconds between two rounds; None: that of the settings, which may be adaptive.

        Raises:
            UnknownRun: None of them is there, or was while it was watched.
            WaitTimeout: Not all are over in time.
            Unauthorized: The credentials were refused and could not be renewed.
            ValueError: A time is invalid.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds or None, not {timeout!r}")
        if interval is not None and not interval > 0:
            raise ValueError(f"interval must be a number of seconds above 0 or None, not {interval!r}")
        return self._changes(runs, timeout, self._session.config.poll_interval if interval is None else interval)

    async def _changes(
        self, runs: Mapping[str, R], timeout: float | None, interval: float | None
    ) -> AsyncGenerator[tuple[R, Status]]:
        self._session.check()
        follower = Follower(Deadline(timeout, self._clock), interval)
        self._join(follower, runs)
        try:
            while follower.open:
                rest_uid, status = await self._next(follower)
                yield runs[rest_uid], status
        finally:
            self._leave(follower)

    def _join(self, follower: Follower, rest_uids: Iterable[str]) -> None:
        now = self._clock.now()
        self._schedule.join(follower.interval)
        for rest_uid in rest_uids:
            watched = self._runs.get(rest_uid)
            if watched is None:
                watched = self._runs[rest_uid] = Watched(rest_uid, FinalityTracker(self._grace))
            follower.join(watched)
            if watched.final is not None or now - watched.seen <= QUICKEST:
                follower.tell(watched)
            else:
                watched.is_new = watched.is_awaited = True
        if self._nap is not None:
            self._nap.cancel()

    def _leave(self, follower: Follower) -> None:
        self._schedule.leave(follower.interval)
        for watched in list(follower.open.values()):
            follower.leave(watched)
            self._forget(watched)
        if not self._runs:
            self._round = None

    def _forget(self, watched: Watched) -> None:
        if not watched.followers:
            self._runs.pop(watched.rest_uid, None)

    async def _next(self, follower: Follower) -> tuple[str, Status]:
        try:
            while not follower.news:
                self._session.check()
                follower.check(self._looks.trouble)
                await self._turns.wait(follower, partial(self._work, follower))
        finally:
            self._turns.hand_over()
        watched, status = follower.take()
        self._forget(watched)
        return watched.rest_uid, status

    async def _work(self, follower: Follower) -> None:
        """Wait until something is to be asked, and ask; news from the list are handed on first."""
        if self._round is None:
            # Whoever begins at the same moment joins before the first request is chosen.
            await anyio.lowlevel.checkpoint()
            while (pause := self._pause()) > 0:
                await self._sleep(min(pause, self._turns.time_left()))
                if self._turns.time_left() == 0:
                    return
            self._round = await self._begin()
        if not follower.news:
            await self._finish(self._round)
            self._round = None

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless somebody joins."""
        try:
            with anyio.CancelScope() as self._nap:
                await self._clock.sleep(max(seconds, 1e-6))
        finally:
            self._nap = None

    def _pause(self) -> float:
        """Seconds until the next requests."""
        now, runs = self._clock.now(), self._unfinished()
        may_judge = self._most_judged(len(runs)) > 0
        pressing = min((run.presses(now) for run in runs if run.is_new or may_judge), default=inf)
        return min(self._schedule.due - now, max(pressing, self._schedule.ready - now))

    def _unfinished(self) -> list[Watched]:
        return [watched for watched in self._runs.values() if watched.final is None]

    def _most_judged(self, count: int) -> int:
        """How many of so many runs may be asked for before the next round because their end is to be judged."""
        return max(0, BESIDE - self._judged) if self._looks.is_list_worth(count) else count

    async def _begin(self) -> Round:
        """Read the list, if it is worth it, and choose whom to ask."""
        began, runs, looks = self._clock.now(), self._unfinished(), self._looks
        is_listed, count = looks.is_list_worth(len(runs)), len(runs)
        pressing = self._pressing(runs, began)
        is_whole = began >= self._schedule.due or (
            is_listed and len(pressing) > BESIDE and self._schedule.may_begin(began)
        )
        looks.begin()
        if is_whole and is_listed:
            await looks.read_list(runs)
            runs = choose(self._unfinished(), self._clock.now(), BESIDE)
        elif not is_whole:
            runs = pressing[:BESIDE] if is_listed else pressing
        self._judged = 0 if is_whole else self._judged + sum(not run.is_new for run in runs)
        now = self._clock.now()
        return Round(sorted(runs, key=lambda run: run.asked), count, now - began, now, is_whole)

    async def _finish(self, turn: Round) -> None:
        """Ask for the chosen runs, and put the next requests on the schedule, by what these took and brought."""
        began, looks, schedule = self._clock.now(), self._looks, self._schedule
        await looks.read_each(turn.runs)
        now = self._clock.now()
        has_failed = not looks.end()
        took = max(0.0, now - began - (0.0 if has_failed else looks.aside))
        schedule.spare(looks.retry_after, now)
        schedule.looked(now - took, now)
        # The time that whoever read the list took for himself has passed already.
        ended = now - (began - turn.read)
        if turn.is_whole and has_failed:
            schedule.failed(ended - took - turn.took, ended)
        elif turn.is_whole:
            # A list that proved too long to be used again is no measure for the next round.
            took += turn.took if looks.is_list_worth(turn.count) else 0.0
            schedule.ended(ended - took, ended, has_moved=looks.has_moved)
        elif looks.has_moved:
            schedule.moved(now)

    def _pressing(self, runs: list[Watched], now: float) -> list[Watched]:
        """Those that should not wait for the next round: new ones first, then some whose end is to be judged."""
        pressing = [run for run in runs if run.presses(now) == 0]
        judged = [run for run in pressing if not run.is_new]
        return [run for run in pressing if run.is_new] + judged[: self._most_judged(len(runs))]
