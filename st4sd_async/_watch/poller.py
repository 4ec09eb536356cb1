"""
One poll loop for all runs that are watched through a client.

`Poller` decides what to request, `LeaderElection` decides which waiting task sends it, and `Schedule` decides when. A
`StatusReader` sends the requests; each `WatchedRun` notifies its subscriptions.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeVar

import anyio.lowlevel

from .._util.interrupts import interruptible
from ..models.finality import FinalityTracker
from .list_use import MAX_DETAIL_REQUESTS
from .status_reader import StatusReader
from .watched_run import Deadline, Subscription, WatchedRun, choose_runs

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from ..models import Status

R = TypeVar("R")

FIRST_PAUSE = 0.5
"""Seconds between the first rounds after a start or a change."""

MAX_ROUND_PAUSE = 30.0
"""Seconds between two rounds when nothing has changed for long."""

ROUND_PAUSE_GROWTH = 1.5
"""Factor by which each pause is longer than the one before while nothing changes."""

CONFIRMATION_PAUSE = 3.0
"""
Longest interval in seconds after the first request that failed, so that a single failure is over before an outage is
reported.
"""

JITTER = 0.1
"""Share by which a pause is randomly longer or shorter, so that many clients do not send at once."""

REST_FACTOR = 10
"""A pause is at least this many times as long as the round before it, so that a slow service gets fewer requests."""

MAX_REST = 60.0
"""Longest pause in seconds that ``Retry-After`` can require."""

UPDATES_AT_ONCE = 200
"""How many updates a consumer receives before other tasks run, if it does not wait itself. Each takes 0.01 ms."""


class Poller:
    """
    The newest status of every watched run, kept up to date by the tasks that wait for updates.

    If there are more than a few runs, each round reads them from one list and adds a few single requests. If the list
    costs more, fails, or is about to become too long, runs are requested in turn instead; see list_use.py.
    """

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._clock = session.config.clock
        self.progress = session.config.progress
        self._runs: dict[str, WatchedRun] = {}
        self._reader = StatusReader(session)
        self._election = LeaderElection()
        self._schedule = Schedule()
        self._pause_scope: anyio.CancelScope | None = None
        self._round: Round | None = None
        """The round whose list was read, and whose single requests are still to be sent."""
        self._requests_between = 0
        """Requests since the last complete round, without those for new runs while the list was used."""

    def watch(
        self, runs: Mapping[str, R], timeout: float | None, interval: float | None
    ) -> AsyncGenerator[tuple[R, Status]]:
        """
        Yield the updates of runs until all have ended: for each run the first status, every change, and the final
        status once.

        No task group and no cancel scope is open while the consumer handles an update, so that the generator may be
        stepped from any task and dropped at any time.

        Args:
            runs: rest-uid -> the object that stands for the run in the updates.
            timeout: Seconds for the whole wait. None means no limit.
            interval: Seconds between two rounds. None means ``Config.poll_interval``.

        Raises:
            ValueError: ``timeout`` or ``interval`` is invalid.
            UnknownRun: None of the runs exists, or existed while it was watched.
            WaitTimeout: Not all runs ended in time.
            Unauthorized: The credentials were refused and could not be renewed.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds or None, not {timeout!r}")
        if interval is not None and not interval > 0:
            raise ValueError(f"interval must be a number of seconds above 0 or None, not {interval!r}")
        return self._updates(runs, timeout, self._session.config.poll_interval if interval is None else interval)

    async def _updates(
        self, runs: Mapping[str, R], timeout: float | None, interval: float | None
    ) -> AsyncGenerator[tuple[R, Status]]:
        self._session.check()
        subscription = Subscription(Deadline(timeout, self._clock), interval)
        self._subscribe(subscription, runs)
        try:
            with interruptible(lambda: _continuing(runs, subscription.open)), self._session.waiting():
                for number in itertools.count(1):
                    if not subscription.open:
                        break
                    rest_uid, status = await self._next(subscription)
                    yield runs[rest_uid], status
                    if number % UPDATES_AT_ONCE == 0:
                        await anyio.lowlevel.checkpoint()
        finally:
            self._unsubscribe(subscription)

    def _subscribe(self, subscription: Subscription, rest_uids: Iterable[str]) -> None:
        now = self._clock.now()
        self._schedule.add_interval(subscription.interval)
        for rest_uid in rest_uids:
            run = self._runs.get(rest_uid)
            if run is None:
                run = self._runs[rest_uid] = WatchedRun(rest_uid, FinalityTracker(self._session.config.grace))
            subscription.add(run)
            if run.final is not None or now - run.seen_at <= FIRST_PAUSE:
                subscription.notify(run)
            else:
                run.is_new = run.is_awaited = True
        if self._pause_scope is not None:
            self._pause_scope.cancel()

    def _unsubscribe(self, subscription: Subscription) -> None:
        self._schedule.remove_interval(subscription.interval)
        for run in list(subscription.open.values()):
            subscription.remove(run)
            self._forget_unwatched(run)
        if not self._runs:
            self._round = None
            self._reader.forget_list()

    def _forget_unwatched(self, run: WatchedRun) -> None:
        if not run.subscriptions:
            self._runs.pop(run.rest_uid, None)

    async def _next(self, subscription: Subscription) -> tuple[str, Status]:
        try:
            while not subscription.pending:
                self._session.check()
                subscription.raise_if_over(self._reader.last_error)
                await self._election.lead_or_sleep(subscription, partial(self._poll, subscription))
        finally:
            self._election.hand_over()
        run, status = subscription.take()
        self._forget_unwatched(run)
        return run.rest_uid, status

    async def _poll(self, leader: Subscription) -> None:
        """Wait until requests are due, and send them. The leader receives updates from the list first."""
        if self._round is None:
            # Consumers that begin at the same moment subscribe before the first request is chosen.
            await anyio.lowlevel.checkpoint()
            while (pause := self._seconds_until_requests()) > 0:
                await self._sleep(min(pause, self._election.time_remaining()))
                if self._election.time_remaining() == 0:
                    return
            self._round = await self._begin_round()
        if not leader.pending:
            await self._finish_round(self._round)
            self._round = None

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the time is over or a consumer subscribes."""
        try:
            with anyio.CancelScope() as self._pause_scope:
                await self._clock.sleep(max(seconds, 1e-6))
        finally:
            self._pause_scope = None

    def _seconds_until_requests(self) -> float:
        now, runs = self._clock.now(), self._unfinished()
        new, left = self._requests_left(len(runs))
        urgent = min((run.seconds_until_urgent(now) for run in runs if left or (new and run.is_new)), default=inf)
        return min(self._schedule.next_round_at - now, max(urgent, self._schedule.next_request_at - now))

    def _unfinished(self) -> list[WatchedRun]:
        return [run for run in self._runs.values() if run.final is None]

    def _requests_left(self, count: int) -> tuple[int, int]:
        """Return how many of ``count`` runs may be requested before the next round: if they are new, and others."""
        between = self._reader.request_limits(count).between
        left = count if between is None else max(0, between - self._requests_between)
        return count if self._reader.uses_list(count) else left, left

    async def _begin_round(self) -> Round:
        """Choose the runs to request. If the list is used and this round is complete, read it first."""
        began, runs, reader = self._clock.now(), self._unfinished(), self._reader
        uses_list = reader.uses_list(len(runs))
        urgent = self._urgent_runs(runs, began)
        is_complete = began >= self._schedule.next_round_at or (
            uses_list and len(urgent) > MAX_DETAIL_REQUESTS and self._schedule.may_begin_round(began)
        )
        reader.begin()
        if not is_complete:
            chosen, list_seconds = urgent[:MAX_DETAIL_REQUESTS] if uses_list else urgent, 0.0
            self._requests_between += sum(not (uses_list and run.is_new) for run in chosen)
        else:
            self._requests_between = 0
            chosen, list_seconds = await self._read_list(runs) if uses_list else self._rotate(runs)
        return Round(sorted(chosen, key=lambda run: run.requested_at), list_seconds, self._clock.now(), is_complete)

    async def _read_list(self, runs: list[WatchedRun]) -> tuple[list[WatchedRun], float]:
        """Read the list. Return the runs to request besides, and the seconds by which the next round is delayed."""
        reader, count = self._reader, len(runs)
        limit = reader.request_limits(count).in_round
        await reader.read_list(runs)
        if reader.has_list_failed:
            limit = MAX_DETAIL_REQUESTS
        # If the list will not be used again, its duration does not predict the next round.
        list_seconds = reader.list_seconds if reader.has_list_failed or reader.uses_list(count) else 0.0
        return choose_runs(self._unfinished(), self._clock.now(), limit, limit // 3), list_seconds

    def _rotate(self, runs: list[WatchedRun]) -> tuple[list[WatchedRun], float]:
        """Return the runs to request in place of the list, and the seconds by which the next round is delayed."""
        reader, count = self._reader, len(runs)
        limit = reader.request_limits(count).in_round
        # Rounds are as rare as they were with the list.
        list_seconds = reader.newest_list_seconds if reader.is_list_failing(count) else 0.0
        return choose_runs(runs, self._clock.now(), limit, limit // 2), list_seconds

    async def _finish_round(self, current: Round) -> None:
        """Request the chosen runs. Schedule the next requests according to the duration and result of these."""
        began, reader, schedule = self._clock.now(), self._reader, self._schedule
        await reader.read_each(current.runs)
        now = self._clock.now()
        has_failed = not reader.end()
        seconds = now - began if has_failed else reader.request_seconds
        list_seconds = current.list_seconds
        if reader.was_suspended:
            seconds = list_seconds = 0.0
        schedule.back_off(reader.retry_after, now)
        schedule.requests_ended(now - seconds, now)
        is_first_failure = schedule.count_failures(has_failures=reader.has_failures)
        # Exclude the time that the leader spent on its own updates between the list and the single requests.
        ended = now - (began - current.list_read_at)
        if current.is_complete and has_failed:
            schedule.round_failed(ended - seconds - list_seconds, ended, is_outage=reader.is_silent)
        elif current.is_complete:
            schedule.round_ended(ended - seconds - list_seconds, ended, has_changes=reader.has_changes)
        else:
            if has_failed:
                schedule.requests_failed(now)
            if reader.has_changes or is_first_failure:
                schedule.begin_round_soon(now)

    def _urgent_runs(self, runs: list[WatchedRun], now: float) -> list[WatchedRun]:
        """Return the runs that should not wait for the next round: new ones, then some that may have ended."""
        urgent = [run for run in runs if run.seconds_until_urgent(now) == 0]
        urgent.sort(key=lambda run: not run.is_new)
        new, left = self._requests_left(len(runs))
        return urgent[: max(left, min(new, sum(run.is_new for run in urgent)))]


@dataclass(frozen=True)
class Round:
    """A round whose list was read. Between two complete rounds, there may be rounds for a few urgent runs only."""

    runs: list[WatchedRun]
    """The runs that are still to be requested."""
    list_seconds: float
    """Seconds that the list took, if that delays the next round."""
    list_read_at: float
    """When the list was read."""
    is_complete: bool
    """Whether it covers all unfinished runs."""


class LeaderElection:
    """
    Let one waiting task do the work for all, so that no background task is needed. All tasks share one event loop.

    The first waiter becomes the leader and does the work; the others sleep until their subscription wakes them. When a
    leader finishes, times out or is cancelled, it hands over to a successor. If no task waits, no work is done.
    """

    def __init__(self) -> None:
        self._leader: Subscription | None = None
        self._successor: Subscription | None = None
        """The waiter that was woken to lead and has not run yet."""
        self._sleeping: dict[Subscription, None] = {}

    async def lead_or_sleep(self, subscription: Subscription, work: Callable[[], Awaitable[None]]) -> None:
        """
        Do the work once, or sleep while another task does it. Return when there may be an update, or at the deadline.

        If the work fails, its error is raised by all waiting subscriptions, not here.
        """
        with anyio.move_on_after(subscription.deadline.remaining):
            await (self._sleep(subscription) if self._leader else self._lead(subscription, work))

    async def _sleep(self, subscription: Subscription) -> None:
        subscription.wake = anyio.Event()
        self._sleeping[subscription] = None
        try:
            await subscription.wake.wait()
        finally:
            self._sleeping.pop(subscription, None)
            if self._successor is subscription:
                self._successor = None

    async def _lead(self, subscription: Subscription, work: Callable[[], Awaitable[None]]) -> None:
        self._leader = subscription
        try:
            await work()
        except Exception as error:  # each waiter raises a copy of it
            for waiter in (subscription, *self.sleeping()):
                waiter.fail(error)
        finally:
            self._leader = None
            for waiter in self.sleeping():
                if waiter.deadline.remaining == 0:
                    waiter.wake.set()
            self.hand_over()

    def sleeping(self) -> list[Subscription]:
        """Return the sleeping subscriptions that were not woken."""
        self._sleeping = {waiter: None for waiter in self._sleeping if not waiter.wake.is_set()}
        return list(self._sleeping)

    def hand_over(self) -> None:
        """
        If there is no leader, wake the sleeping waiter with the latest deadline to become it.

        Every task calls this when it stops waiting, for whatever reason.
        """
        if self._leader is None and self._successor is None and (sleeping := self.sleeping()):
            self._successor = max(sleeping, key=lambda waiter: waiter.deadline.remaining)
            self._successor.wake.set()

    def time_remaining(self) -> float:
        """Return the seconds until the first deadline of a waiter; infinite if none has one."""
        waiting = [*self.sleeping(), self._leader] if self._leader else self.sleeping()
        return min((waiter.deadline.remaining for waiter in waiting), default=inf)


@dataclass
class Schedule:
    """
    When the next round is due: soon after a change, rarely if nothing changes, and never in quick succession.

    A complete round reads all runs. A few runs, such as new ones, may be requested between two rounds.
    """

    _intervals: Counter[float | None] = field(default_factory=Counter)
    next_request_at: float = -inf
    """When the next request between two rounds may be sent."""
    _earliest_round_at: float = -inf
    _round_began_at: float = -inf
    _adaptive_round_at: float = -inf
    _pause: float = FIRST_PAUSE
    _failures: int = 0
    """How many times in a row requests failed."""
    _pause_before_failures: float = FIRST_PAUSE

    def add_interval(self, interval: float | None) -> None:
        """Add the pause in seconds that a consumer wants between two rounds. None means adaptive."""
        self._intervals[interval] += 1

    def remove_interval(self, interval: float | None) -> None:
        """Remove a pause that was added."""
        self._intervals[interval] -= 1

    @property
    def next_round_at(self) -> float:
        """When the next round is due."""
        intervals = [interval for interval, count in self._intervals.items() if count]
        wanted = [
            self._adaptive_round_at if interval is None else self._round_began_at + self._pause_of(interval)
            for interval in intervals
        ]
        return max(self._earliest_round_at, min(wanted, default=-inf))

    def _pause_of(self, interval: float) -> float:
        return min(interval, CONFIRMATION_PAUSE) if self._failures == 1 else interval

    def may_begin_round(self, now: float) -> bool:
        """Return whether a round may begin, due or not."""
        return now >= self._earliest_round_at

    def count_failures(self, *, has_failures: bool) -> bool:
        """
        Note whether requests failed. Return whether that is the first time since none did.

        Then the next round is due soon, however long the interval, and shows whether there is an outage. Once none
        fails, pauses are as long as before.
        """
        if self._failures and not has_failures:
            self._pause = max(self._pause, self._pause_before_failures)
        self._failures = self._failures + 1 if has_failures else 0
        if self._failures == 1:
            self._pause_before_failures, self._pause = self._pause, FIRST_PAUSE
        return self._failures == 1

    def begin_round_soon(self, now: float) -> None:
        """Begin the next round soon, because a status has changed or a request has failed."""
        self._pause = FIRST_PAUSE
        self._adaptive_round_at = min(self._adaptive_round_at, now + self._next_pause())

    def requests_ended(self, began: float, now: float) -> None:
        """Delay further requests between rounds by how long these took."""
        self.next_request_at = max(self.next_request_at, now + _rest(began, now))

    def round_ended(self, began: float, now: float, *, has_changes: bool) -> None:
        """Schedule the next round after one that succeeded."""
        self._pause = FIRST_PAUSE if has_changes else self._pause
        self._round_began_at = began
        self._earliest_round_at = max(self._earliest_round_at, now + _rest(began, now))
        self._adaptive_round_at = now + self._next_pause()

    def requests_failed(self, now: float) -> None:
        """Delay further requests between rounds after some to which there was no response."""
        self.next_request_at = max(self.next_request_at, now + self._next_pause())

    def round_failed(self, began: float, now: float, *, is_outage: bool = False) -> None:
        """Schedule the next round after one that failed. In an outage, requests for new runs wait as long."""
        self._round_began_at, self._adaptive_round_at = began, now + self._next_pause()
        if is_outage:
            self.next_request_at = max(self.next_request_at, self._adaptive_round_at)
        # Shorter than after a round that succeeded, so that the end of an outage is noticed soon.
        self.back_off(min(_rest(began, now), MAX_ROUND_PAUSE), now)

    def back_off(self, seconds: float, now: float) -> None:
        """Send nothing for this many seconds, or for `MAX_REST` if that is less."""
        until = now + min(seconds, MAX_REST)
        self.next_request_at = max(self.next_request_at, until)
        self._earliest_round_at = max(self._earliest_round_at, until)

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(MAX_ROUND_PAUSE, self._pause * ROUND_PAUSE_GROWTH)
        return pause * random.uniform(1 - JITTER, 1 + JITTER)


def _rest(began: float, now: float) -> float:
    """Return the seconds of rest after requests that began and ended at these times."""
    return REST_FACTOR * (now - began)


def _continuing(runs: Collection[str], unfinished: Collection[str]) -> str:
    """Return that the runs whose watching was interrupted continue."""
    if len(runs) == 1:
        return f"the run {next(iter(runs))} continues; call this again to follow it"
    return f"{len(unfinished):,} of {len(runs):,} runs continue; call this again to follow them"
