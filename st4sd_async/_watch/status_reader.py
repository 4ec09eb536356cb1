"""Read the statuses of watched runs from the service, and decide which errors are transient."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, TypeVar

import anyio.lowlevel

from .._api import instances
from .._api.datastore import final_status
from .._api.status_list import StatusList
from .._errors import APIError, DecodeError, RateLimited, ServerError, TransportError, Unauthorized, UnknownRun
from .._http.session import read_timeout
from ..models import Status
from .list_use import MAX_SINGLE_REQUESTS, ListUse, RequestLimits

if TYPE_CHECKING:
    from .._http.call import Call, Response
    from .._http.session import ClientSession
    from .watched_run import WatchedRun

log = logging.getLogger("st4sd_async")

T = TypeVar("T")

MAX_PARALLEL_REQUESTS = 5
"""Requests for single runs in flight at once. So a few runs are all requested at the same time."""

RUNS_AT_ONCE = 200
"""How many statuses of a list are taken before other tasks get their turn. One that changed takes 0.1 ms."""

MAX_FAILED_STATUSES_IN_A_ROW = 8
"""Consecutive failures after which the remaining runs are not requested in this round."""

FINAL_STATUS_TIMEOUT = 5.0
"""Seconds that the datastore has to return the final status of a deleted run."""

MAX_REQUEST_SECONDS = 120.0
"""If a request seems to take longer, the machine was suspended: the proxy gives up after 60 s."""

LIST_TOO_LONG = (
    "the list of instances at %s has %d items, and may soon be too long to be sent in time: the watched runs are"
    " requested one by one, at most %d in a round, so changes are noticed later; delete instances that are no longer"
    " needed, as with Client.delete"
)
"""Warning, logged once."""


class StatusReader:
    """
    Reads the statuses of runs, round after round, and hands them to the runs.

    It notes transient errors as an outage of the service and continues. An error of a single run ends only the
    subscriptions to that run. All other errors are raised.
    """

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._clock = session.config.clock
        self._list = StatusList()
        self._list_use = ListUse(read_timeout(self._list.call(()), session.config))
        self._has_warned = self._has_responded = False
        self.newest_list_seconds = 0.0
        """How long the service took for the newest list that succeeded."""
        self.last_error: Exception | None = None
        """The last error, if no response came after it; otherwise None."""
        self.begin()

    def begin(self) -> None:
        """Begin a round."""
        self.has_changes = False
        """Whether a status changed in this round."""
        self.retry_after = 0.0
        """Longest ``Retry-After`` of this round, in seconds."""
        self._request_times: list[tuple[float, float]] = []
        """When each request for a run that succeeded in this round was sent, and when its response arrived."""
        self.has_failures = False
        """Whether a request of this round failed, other than one that tries the list again."""
        self.was_suspended = False
        """Whether the machine seems to have been suspended during a request of this round."""
        self.list_seconds = 0.0
        """How long the service took for the list in this round, whether it succeeded or failed."""
        self.has_list_failed = False
        """Whether the list failed in this round."""
        self._responses = self._failures = 0
        self._has_list = False

    def end(self) -> bool:
        """End a round; return False if it failed, so that the next one must wait longer."""
        if self.has_list_failed and self._responses:
            self._list_use.failed(self._clock.now())
        if self._responses:
            self._session.availability.responded()  # if some requests failed, the next round shows whether that goes on
        return not self.has_list_failed and (self._responses > 0 or self._failures == 0)

    @property
    def request_seconds(self) -> float:
        """
        Seconds for which the service worked on requests for single runs in this round.

        Without connecting, and without what a busy client does in the meantime. The datastore and requests that failed
        do not count: they say nothing about the load of the service.
        """
        return covered_seconds(self._request_times)

    @property
    def is_silent(self) -> bool:
        """Whether all requests of this round failed."""
        return self._failures > 0 and self._responses == 0

    def uses_list(self, count: int) -> bool:
        """Return whether to read the list to know the statuses of this many runs."""
        return self._list_use.is_used(count, self._clock.now())

    def is_list_failing(self, count: int) -> bool:
        """Return whether the list would be used if it did not fail."""
        return self._list_use.is_failing(count, self._clock.now())

    def request_limits(self, count: int) -> RequestLimits:
        """Return how many of this many runs may be requested one by one."""
        return self._list_use.request_limits(count, self._clock.now())

    async def read_list(self, runs: Sequence[WatchedRun]) -> None:
        """Read the statuses of runs from the list of all instances."""
        began = self._clock.now()
        try:
            listed, times = await self._send(self._list.call([run.rest_uid for run in runs]))
        except Exception as error:  # raised again unless it is transient
            self._survive(error)
            self.has_list_failed, self.has_failures = True, not self._list_use.is_on_trial
            self.list_seconds = self._clock.now() - began
            self._note_seconds(self.list_seconds)
            return
        now = self._note_response()
        self.list_seconds, self._has_list = covered_seconds([times]), True
        self._note_seconds(self.list_seconds)
        self._note_list(listed.total, now)
        for number, run in enumerate(runs, 1):
            if number % RUNS_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
            try:
                self.has_changes |= run.apply_listed(listed.statuses[run.rest_uid], now)
            except (KeyError, ValueError):
                run.mark_unlisted()

    def forget_list(self) -> None:
        """Drop what is kept of the last list, because no run is watched."""
        self._list.clear()

    def _note_list(self, size: int, now: float) -> None:
        """Note a list; log a warning if it is too long, once."""
        if not self.was_suspended:
            self.newest_list_seconds = self.list_seconds
        if self._list_use.arrived(size, self.newest_list_seconds, now) and not self._has_warned:
            self._has_warned = True
            log.warning(LIST_TOO_LONG, self._session.availability.url, size, MAX_SINGLE_REQUESTS)

    def _note_seconds(self, seconds: float) -> None:
        """Note how long a request took."""
        self.was_suspended = self.was_suspended or seconds >= MAX_REQUEST_SECONDS

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
            status, times = await self._send(instances.status_call(run.rest_uid))
        except Exception as error:  # raised again unless it is transient or concerns this run alone
            run.is_new = False
            self._note_seconds(self._clock.now() - run.requested_at)
            if isinstance(error, UnknownRun) and error.detail:
                self._note_response()
                await self._read_final(run, error)
            elif concerns_all_runs(error) or not self._is_fatal(run, error):
                self._survive(error)
            else:
                run.fail(error)
            return
        now = self._note_response()
        self._request_times.append(times)
        self._note_seconds(now - run.requested_at)
        self.has_changes |= run.apply_status(status, now, after_list=self._has_list)

    async def _read_final(self, run: WatchedRun, error: UnknownRun) -> None:
        """Read the final status of a deleted run from the datastore, and end the run as deleted."""
        final: Status | None = None
        with anyio.move_on_after(FINAL_STATUS_TIMEOUT):
            final = await final_status(self._session, run.rest_uid)
        run.mark_deleted(final, error, self._clock.now())
        self.has_changes = True

    async def _send(self, call: Call[T]) -> tuple[T, tuple[float, float]]:
        """Send a call. Return its result, when it was sent, and when the response arrived."""
        began, times = self._clock.now(), None

        def decode(response: Response) -> T:
            nonlocal times
            times = response.sent_at, response.arrived_at
            return call.decode(response)

        result = await self._session.send_once(replace(call, decode=decode))
        return result, times or (began, self._clock.now())  # an error may stand for a status

    def _is_fatal(self, run: WatchedRun, error: Exception) -> bool:
        """Return whether an error ends the watching of this run."""
        if isinstance(error, DecodeError):
            return run.mark_unreadable(self._clock.now()) or not self._has_responded
        return not is_transient(error, has_responded=self._has_responded)

    def _note_response(self) -> float:
        """Note that the service responded; return the time."""
        self._has_responded, self.last_error = True, None
        self._session.availability.responded()
        self._responses += 1
        self._failures = 0
        return self._clock.now()

    def _survive(self, error: Exception) -> None:
        """Note a transient error; raise any other."""
        if not is_transient(error, has_responded=self._has_responded):
            raise error
        self._failures += 1
        self.has_failures = True
        self.last_error = error
        if isinstance(error, APIError):
            self.retry_after = max(self.retry_after, error.retry_after or 0.0)
        log.debug("watching continues after: %s", error)
        self._session.availability.failed(error, self._clock.now())


def covered_seconds(times: Iterable[tuple[float, float]]) -> float:
    """Return for how many seconds at least one request was at the service, from the begin and end of each."""
    seconds, covered_until = 0.0, -inf
    for began, ended in sorted(times):
        seconds += max(0.0, ended - max(began, covered_until))
        covered_until = max(covered_until, ended)
    return seconds


def is_transient(error: Exception, *, has_responded: bool) -> bool:
    """
    Return whether to continue polling after an error, because the next request may succeed.

    Args:
        error: The error that came in place of a response.
        has_responded: Whether the service has responded before. If so, a page of the proxy that is neither a sign-in
            page nor JSON is transient too.
    """
    if isinstance(error, TransportError):
        return not error.permanent
    if isinstance(error, ServerError | RateLimited):
        return True
    if isinstance(error, APIError):
        return error.status == 408 or (has_responded and not error.detail and not isinstance(error, Unauthorized))
    return has_responded and isinstance(error, DecodeError)


def concerns_all_runs(error: Exception) -> bool:
    """Return whether an error that ends the watching of one run would recur for any other."""
    return not isinstance(error, APIError | DecodeError) or isinstance(error, Unauthorized)
