"""Asking the service how runs are doing, and telling those who watch them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from .._errors import APIError, DecodeError, UnknownRun
from .._http.outage import WARN_AFTER
from ..models import Status
from .subscription import concerns_all, survives

if TYPE_CHECKING:
    from .._util.clock import Clock
    from .subscription import Follower
    from .watched_run import Watched

log = logging.getLogger("st4sd_async")

FEW = 5
"""Up to so many runs are always asked for one by one."""

LIST_SHARE = 50
"""
Items in the list for each run that is watched, above which asking for each run is better.

A status request costs the service as much as 10 to 25 items were seen to; the list is preferred a little
longer, because it is one request and tells of all runs.
"""

PARALLEL = 5
"""Requests for single runs in flight at once; few runs are asked for all at the same time."""

ENOUGH = 8
"""Failures in a row after which the other runs are not asked for in this round."""

UNREADABLE = 60.0
"""Seconds after which a run whose answers cannot be read is given up."""

LAST_WORD = 5.0
"""Seconds that the datastore is given to say how a deleted run ended."""

LIST_ATTEMPTS = 3
"""How often in a row the list may fail, while single runs can be asked for, before it is left out."""

LIST_SPARED = 10
"""For how many rounds it is left out then."""

LastWord = Callable[[str], Awaitable[Status | None]]
"""Asks the datastore how a run ended; None: it does not know, or cannot be asked."""


class Looks:
    """
    Looks at runs, round after round.

    Errors that pass by themselves are noted; one that concerns a single run ends the watching of
    that one; any other is raised.
    """

    def __init__(
        self,
        statuses: Callable[[], Awaitable[Mapping[str, Any]]],
        status: Callable[[str], Awaitable[Status]],
        last_word: LastWord,
        rouse: Callable[[Follower], None],
        clock: Clock,
    ) -> None:
        self._statuses = statuses
        self._status = status
        self._last_word = last_word
        self._rouse = rouse
        self._clock = clock
        self._is_proven = False
        self._silent_since: float | None = None
        self._list_failures = self._spared = 0
        self.trouble: Exception | None = None
        """What came last in place of an answer; None after an answer."""
        self._list_size = 0
        """Items in the newest list, 0 before the first."""
        self.begin()

    def begin(self) -> None:
        """A round begins."""
        self.has_moved = False
        """Whether there were news in it."""
        self.retry_after = 0.0
        """Seconds for which the service asked to be left alone."""
        self.aside = 0.0
        """Seconds spent with the datastore and with requests that were lost: no measure of the service."""
        self._answers = self._failures = 0
        self._has_list = self._has_no_list = False
        self._spared = max(0, self._spared - 1)

    def end(self) -> bool:
        """A round is over; False if it failed, so that the service is better left alone for a while."""
        if self._has_no_list and self._answers:
            self._list_failures += 1
            if self._list_failures >= LIST_ATTEMPTS:
                self._spared, self._list_failures = LIST_SPARED, LIST_ATTEMPTS - 1
        return not self._has_no_list and (self._answers > 0 or self._failures == 0)

    def is_list_worth(self, count: int) -> bool:
        """Whether so many runs are better read from the list."""
        return count > FEW and self._spared == 0 and self._list_size <= LIST_SHARE * count

    async def read_list(self, runs: Sequence[Watched]) -> None:
        """Read the statuses of runs from the list of all instances."""
        try:
            entries = await self._statuses()
        except Exception as error:  # raised again unless it passes by itself
            self._survive(error)
            self._has_no_list = True
            return
        now = self._answered()
        self._list_size, self._list_failures, self._has_list = len(entries), 0, True
        for watched in runs:
            try:
                is_news = watched.take_entry(entries[watched.rest_uid], now)
            except (KeyError, ValueError):
                watched.miss()
            else:
                self._tell(watched, now, is_news=is_news)

    async def read_each(self, runs: Sequence[Watched]) -> None:
        """Ask for each of these runs by itself."""
        queue = iter(runs)
        errors: list[Exception] = []

        async def work() -> None:
            for watched in queue:
                try:
                    if watched.followers and watched.final is None:
                        await self._read(watched)
                except Exception as error:  # raised below, out of the task group
                    errors.append(error)
                if errors or self._failures >= ENOUGH:
                    return

        if len(runs) == 1:
            await work()
        else:
            async with anyio.create_task_group() as tasks:
                for _ in range(min(PARALLEL, len(runs))):
                    tasks.start_soon(work)
        if errors:
            raise errors[0]

    async def _read(self, watched: Watched) -> None:
        watched.asked = self._clock.now()
        try:
            status = await self._status(watched.rest_uid)
        except Exception as error:  # raised again unless it passes or is this run's own
            watched.is_new = False
            self.aside += self._clock.now() - watched.asked
            if isinstance(error, UnknownRun) and error.detail:
                self._answered()
                await self._bury(watched, error)
            elif concerns_all(error) or not self._is_lost(watched, error):
                self._survive(error)
            else:
                self._give_up(watched, error)
            return
        now = self._answered()
        self._tell(watched, now, is_news=watched.take_answer(status, now, beside_list=self._has_list))

    async def _bury(self, watched: Watched, error: UnknownRun) -> None:
        """Tell that a run is not there: deleted if it ever was."""
        last_word: Status | None = None
        began = self._clock.now()
        with anyio.move_on_after(LAST_WORD):
            last_word = await self._last_word(watched.rest_uid)
        self.aside += self._clock.now() - began
        if last_word is None and watched.status is None:
            last_word = Status.pending(error.detail)
            for follower in watched.followers:
                follower.miss(error)
        watched.delete(last_word)
        self._tell(watched, self._clock.now(), is_news=True)

    def _is_lost(self, watched: Watched, error: Exception) -> bool:
        """Whether an error ends the watching of this run."""
        if isinstance(error, DecodeError):
            now = self._clock.now()
            watched.unreadable = now if watched.unreadable is None else watched.unreadable
            return not self._is_proven or now - watched.unreadable >= UNREADABLE
        return not survives(error, is_proven=self._is_proven)

    def _give_up(self, watched: Watched, error: Exception) -> None:
        for follower in watched.followers:
            follower.end(error)
            self._rouse(follower)

    def _tell(self, watched: Watched, now: float, *, is_news: bool) -> None:
        if is_news or (watched.is_awaited and watched.seen == now):
            watched.is_awaited = False
            self.has_moved = self.has_moved or is_news
            for follower in watched.followers:
                if follower.tell(watched, is_news=is_news):
                    self._rouse(follower)

    def _answered(self) -> float:
        """The service has answered; the time is the result."""
        self._is_proven, self._silent_since, self.trouble = True, None, None
        self._answers += 1
        self._failures = 0
        return self._clock.now()

    def _survive(self, error: Exception) -> None:
        """Take note of an error and go on; raise it if it does not pass by itself."""
        if not survives(error, is_proven=self._is_proven):
            raise error
        self._failures += 1
        self.trouble = error
        now = self._clock.now()
        if isinstance(error, APIError):
            self.retry_after = max(self.retry_after, error.retry_after or 0.0)
        if self._silent_since is None:
            self._silent_since = now
        log.info("watching goes on after: %s", error)
        silence = now - self._silent_since
        if silence >= WARN_AFTER:
            self._silent_since = inf
            log.warning("still watching, but without an answer for %.0f s: %s", silence, error)
