"""Read the statuses of watched runs from the service, and decide which errors are transient."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import anyio

from .._api import instances
from .._api.datastore import final_status
from .._api.status_list import StatusList
from .._errors import APIError, DecodeError, RateLimited, ServerError, TransportError, Unauthorized, UnknownRun
from .._http.retry import WARN_AFTER_SECONDS
from ..models import Status

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .watched_run import WatchedRun

log = logging.getLogger("st4sd_async")

MAX_RUNS_WITHOUT_LIST = 5
"""Up to this many runs are always requested one by one."""

MAX_LIST_ITEMS_PER_RUN = 50
"""
Items in the list for each watched run, above which one request for each run is better.

Measured: a request for one run costs the service as much as 10 to 25 items. The limit is higher, because the list is a
single request and shows all runs.
"""

MAX_PARALLEL_REQUESTS = 5
"""Requests for single runs in flight at once. So a few runs are all requested at the same time."""

MAX_FAILED_STATUSES_IN_A_ROW = 8
"""Consecutive failures after which the remaining runs are not requested in this round."""

FINAL_STATUS_TIMEOUT = 5.0
"""Seconds that the datastore has to return the final status of a deleted run."""

MAX_LIST_FAILURES = 3
"""Consecutive failures of the list, while single runs can be read, after which it is not used for a while."""

ROUNDS_WITHOUT_LIST = 10
"""Number of rounds without the list after that."""


class StatusReader:
    """
    Reads the statuses of runs, round after round, and hands them to the runs.

    It logs transient errors and continues. An error of a single run ends only the subscriptions to that run. All other
    errors are raised. The attributes describe the round that `begin` began.

    Attributes:
        last_error: The last error, if no reply came after it; otherwise None.
        has_changes: Whether a status changed in this round.
        retry_after: Longest ``Retry-After`` of this round, in seconds.
        excluded_seconds: Seconds spent on the datastore and on failed requests. They say nothing about the load of the
            service.
    """

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._clock = session.config.clock
        self._list = StatusList()
        self._list_size = 0
        """Items in the newest list; 0 before the first."""
        self._list_failures = self._rounds_without_list = 0
        self._has_answered = False
        self._silent_since: float | None = None
        self.last_error: Exception | None = None
        self.begin()

    def begin(self) -> None:
        """Begin a round."""
        self.has_changes = False
        self.retry_after = self.excluded_seconds = 0.0
        self._replies = self._failures = 0
        self._has_list = self._has_list_failed = False
        self._rounds_without_list = max(0, self._rounds_without_list - 1)

    def end(self) -> bool:
        """End a round; return False if it failed, so that the next one must wait longer."""
        if self._has_list_failed and self._replies:
            self._list_failures += 1
            if self._list_failures >= MAX_LIST_FAILURES:
                self._rounds_without_list, self._list_failures = ROUNDS_WITHOUT_LIST, MAX_LIST_FAILURES - 1
        return not self._has_list_failed and (self._replies > 0 or self._failures == 0)

    def prefers_list(self, count: int) -> bool:
        """Return whether the list is cheaper than requesting this many runs one by one."""
        return (
            count > MAX_RUNS_WITHOUT_LIST
            and self._rounds_without_list == 0
            and self._list_size <= MAX_LIST_ITEMS_PER_RUN * count
        )

    async def read_list(self, runs: Sequence[WatchedRun]) -> None:
        """Read the statuses of runs from the list of all instances."""
        try:
            items = await self._session.send_once(self._list.call())
        except Exception as error:  # raised again unless it is transient
            self._survive(error)
            self._has_list_failed = True
            return
        now = self._note_reply()
        self._list_size, self._list_failures, self._has_list = len(items), 0, True
        for run in runs:
            try:
                self.has_changes |= run.apply_listed(items[run.rest_uid], now)
            except (KeyError, ValueError):
                run.mark_unlisted()

    async def read_each(self, runs: Sequence[WatchedRun]) -> None:
        """Request the status of each of these runs."""
        queue = iter(runs)
        errors: list[Exception] = []

        async def work() -> None:
            for run in queue:
                try:
                    if run.subscriptions and run.final is None:
                        await self._read(run)
                except Exception as error:  # raised below, outside the task group
                    errors.append(error)
                if errors or self._failures >= MAX_FAILED_STATUSES_IN_A_ROW:
                    return

        if len(runs) == 1:
            await work()
        else:
            async with anyio.create_task_group() as tasks:
                for _ in range(min(MAX_PARALLEL_REQUESTS, len(runs))):
                    tasks.start_soon(work)
        if errors:
            raise errors[0]

    async def _read(self, run: WatchedRun) -> None:
        run.requested_at = self._clock.now()
        try:
            status = await self._session.send_once(instances.status_call(run.rest_uid))
        except Exception as error:  # raised again unless it is transient or concerns this run alone
            run.is_new = False
            self.excluded_seconds += self._clock.now() - run.requested_at
            if isinstance(error, UnknownRun) and error.detail:
                self._note_reply()
                await self._read_final(run, error)
            elif concerns_all_runs(error) or not self._is_fatal(run, error):
                self._survive(error)
            else:
                run.fail(error)
            return
        now = self._note_reply()
        self.has_changes |= run.apply_reply(status, now, after_list=self._has_list)

    async def _read_final(self, run: WatchedRun, error: UnknownRun) -> None:
        """Read the final status of a deleted run from the datastore, and end the run as deleted."""
        final: Status | None = None
        began = self._clock.now()
        with anyio.move_on_after(FINAL_STATUS_TIMEOUT):
            final = await final_status(self._session, run.rest_uid)
        now = self._clock.now()
        self.excluded_seconds += now - began
        run.mark_deleted(final, error, now)
        self.has_changes = True

    def _is_fatal(self, run: WatchedRun, error: Exception) -> bool:
        """Return whether an error ends the watching of this run."""
        if isinstance(error, DecodeError):
            return run.mark_unreadable(self._clock.now()) or not self._has_answered
        return not is_transient(error, has_answered=self._has_answered)

    def _note_reply(self) -> float:
        """Note that the service replied; return the time."""
        self._has_answered, self._silent_since, self.last_error = True, None, None
        self._replies += 1
        self._failures = 0
        return self._clock.now()

    def _survive(self, error: Exception) -> None:
        """Note a transient error; raise any other."""
        if not is_transient(error, has_answered=self._has_answered):
            raise error
        self._failures += 1
        self.last_error = error
        now = self._clock.now()
        if isinstance(error, APIError):
            self.retry_after = max(self.retry_after, error.retry_after or 0.0)
        if self._silent_since is None:
            self._silent_since = now
        log.info("watching continues after: %s", error)
        silence = now - self._silent_since
        if silence >= WARN_AFTER_SECONDS:
            self._silent_since = inf
            log.warning("still watching, but without an answer for %.0f s: %s", silence, error)


def is_transient(error: Exception, *, has_answered: bool) -> bool:
    """
    Return whether to continue polling after an error, because the next request may succeed.

    Args:
        error: The error that came in place of a reply.
        has_answered: Whether the service has answered before. If so, a page of the proxy that is neither a sign-in
            page nor JSON is transient too.
    """
    if isinstance(error, TransportError):
        return not error.permanent
    if isinstance(error, ServerError | RateLimited):
        return True
    if isinstance(error, APIError):
        return error.status == 408 or (has_answered and not error.detail and not isinstance(error, Unauthorized))
    return has_answered and isinstance(error, DecodeError)


def concerns_all_runs(error: Exception) -> bool:
    """Return whether an error that ends the watching of one run would recur for any other."""
    return not isinstance(error, APIError | DecodeError) or isinstance(error, Unauthorized)
