"""Decide whether and when to repeat a request, and report while a service is down."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, TypeVar

from .._config import RetryPolicy
from .._errors import (
    APIError,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    RateLimited,
    ServerError,
    TransportError,
)
from .._util.progress import SECONDS, ProgressReporter

if TYPE_CHECKING:
    from types import TracebackType

    from tenacity import RetryCallState

    from .._util.clock import Clock
    from .._util.progress import Progress

T = TypeVar("T")

log = logging.getLogger("st4sd_async")

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
"""HTTP statuses of temporary failures."""

UNREACHABLE_SECONDS = 10.0
"""How long an unreachable host is retried. A host that answers or refuses connections gets the whole policy."""

MAX_CUT_RESPONSES = 5
"""Maximum number of attempts whose response is cut short: the service is up, and each costs it a whole response."""

WARN_AFTER_SECONDS = 5.0
"""How long a call waits, or a watch gets no response, before a warning is logged."""


class Replay(Enum):
    """What happens if a request is repeated."""

    READ = "nothing: it only reads"
    REPEAT = "the same again: push, tags"
    DELETE = "a repeated delete that finds nothing has succeeded"
    ONCE = "it may happen twice: start, create"


def may_have_arrived(error: Exception) -> bool:
    """Return whether a request that failed in this way may have been carried out."""
    if isinstance(error, TransportError):
        return error.sent is not False
    if isinstance(error, APIError):
        # The service starts an instance before it responds, and a proxy that gives up does not recall the request.
        return error.status is not None and (error.status >= 500 or error.status in (408, 499) or error.status < 200)
    return isinstance(error, DecodeError)


def should_retry(replay: Replay, error: BaseException) -> bool:
    """Return whether a request that failed in this way may be sent again, limits aside."""
    if isinstance(error, TransportError) and error.sent is False:
        return not error.permanent
    if isinstance(error, RateLimited):
        return replay is not Replay.ONCE or error.retry_after is not None
    if replay is Replay.ONCE:
        return False
    if isinstance(error, TransportError):
        return True
    return isinstance(error, ServerError | APIError) and error.status in RETRIED_STATUSES


def pause_seconds(policy: RetryPolicy, attempt: int, error: BaseException | None) -> float:
    """
    Return the pause after an attempt, counted from 1.

    Exponential back-off with full jitter, so that many clients do not return at the same moment. A longer
    ``Retry-After`` is honoured up to the limit of the policy; a shorter one is ignored, because a service that always
    asks for 0 s would get requests without a pause.
    """
    bound = min(policy.longest_wait, policy.first_wait * 2.0 ** min(attempt - 1, 30))
    pause, retry_after = random.uniform(0, bound), getattr(error, "retry_after", None)
    return pause if retry_after is None else max(pause, min(float(retry_after), policy.longest_retry_after))


class Outage:
    """The state of one service, shared by all calls to it, so that an outage is reported once."""

    def __init__(self, url: str) -> None:
        self.url = url
        """Root of the service."""
        self.has_answered = False
        """Whether the service ever answered."""
        self.waiting = 0
        """How many calls wait for it now."""
        self.is_warned = False
        """Whether the current outage was logged."""
        self.is_shown = False
        """Whether one of the waiting calls shows its progress."""

    def record_response(self, status: int) -> None:
        """Note that a response arrived. It ends the current outage unless it reports a temporary failure."""
        self.has_answered = True
        if status not in RETRIED_STATUSES and not self.waiting:
            self.is_warned = False

    def is_unreachable(self, error: BaseException | None) -> bool:
        """
        Return whether an attempt failed without reaching any host.

        The host name does not resolve, so that it is mistyped or this machine is offline; or the host is silent and
        never answered. A refused connection, and a proxy that answers 502 or 503, mean that the service restarts.
        """
        return isinstance(error, ConnectFailed) and (error.is_unresolved or (error.is_silent and not self.has_answered))


class _Retries:
    """The retries of one call: their limits and their reports. A context manager."""

    def __init__(
        self, policy: RetryPolicy, clock: Clock, outage: Outage, progress: Progress | None, request: str
    ) -> None:
        self._policy, self._clock, self._outage, self._progress = policy, clock, outage, progress
        self._request = request
        self._began = clock.now()
        self._unreachable_since: float | None = self._began
        """When the service became unreachable. None means that the last attempt reached it."""
        self._cut_responses = 0
        self._is_waiting = False
        self._reporter: ProgressReporter | None = None
        self._reported_seconds = 0

    def __enter__(self) -> _Retries:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        if not self._is_waiting:
            return
        outage = self._outage
        outage.waiting -= 1
        if self._reporter is not None:
            outage.is_shown = False
            self._reporter.__exit__(kind, None, None)
        if kind is None and outage.is_warned and not outage.waiting:
            outage.is_warned = False
            log.info("%s answers again after %.0f s", outage.url, self._clock.now() - self._began)

    def should_stop(self, state: RetryCallState) -> bool:
        """Return whether a limit is reached after a failed attempt; called once per attempt."""
        error = _error_of(state)
        if not self._outage.is_unreachable(error):
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = self._clock.now()
        self._cut_responses += isinstance(error, ConnectionLost) and error.is_cut
        if self._cut_responses >= MAX_CUT_RESPONSES or state.attempt_number == self._policy.attempts:
            return True
        return self._clock.now() - self._began + state.upcoming_sleep > self._total_seconds

    def before_pause(self, state: RetryCallState) -> None:
        """Log a failed attempt; after `WARN_AFTER_SECONDS`, warn once for all waiting calls and show the progress."""
        outage, error, pause = self._outage, _error_of(state), state.upcoming_sleep
        if not self._is_waiting:
            self._is_waiting = True
            outage.waiting += 1
        log.info("%s: attempt %d failed, next in %.2f s: %s", self._request, state.attempt_number, pause, error)
        waited, total = self._clock.now() - self._began, self._total_seconds
        if waited + pause < WARN_AFTER_SECONDS:
            return
        if not outage.is_warned:
            outage.is_warned = True
            message = "waiting for %s, since %.0f s and for up to %.0f s in all: %s"
            log.warning(message, outage.url, waited, total, error)
        if not outage.is_shown and self._progress is not None and isfinite(total):
            outage.is_shown = True
            self._reporter = ProgressReporter(
                self._progress, f"waiting for {outage.url}", round(total), SECONDS
            ).__enter__()
        if self._reporter is not None:
            self._reporter.finish(int(waited) - self._reported_seconds)
            self._reported_seconds = int(waited)

    @property
    def _total_seconds(self) -> float:
        """Seconds from the first attempt after which no other begins; fewer while the host is unreachable."""
        if self._unreachable_since is None:
            return self._policy.total
        return min(self._policy.total, self._unreachable_since - self._began + UNREACHABLE_SECONDS)


async def with_retries(
    operation: Callable[[], Awaitable[T]],
    *,
    policy: RetryPolicy,
    replay: Replay,
    clock: Clock,
    request: str,
    outage: Outage,
    progress: Progress | None = None,
) -> T:
    """
    Await ``operation()`` until it succeeds, must not be repeated, or a limit of the policy is reached.

    Args:
        operation: Makes one attempt.
        policy: The limits.
        replay: What happens if the operation is repeated.
        clock: Source of time.
        request: Method and URL, for the log.
        outage: The state of the service.
        progress: Called during a long wait.

    Raises:
        St4sdError: The last error, with ``attempts`` set. Cancellation and other exceptions are raised at once.
    """
    retries = _Retries(policy, clock, outage, progress, request)
    try:
        # Not by tenacity, which would add a sixth to the CPU time of the many requests that succeed at once.
        return await operation()
    except (TransportError, APIError) as error:
        if policy.attempts == 1 or not should_retry(replay, error):
            raise
        first_failure = error

    from tenacity import AsyncRetrying, retry_if_exception  # lazily: if tornado is installed, tenacity imports it

    numbers = itertools.count(1)

    async def attempt() -> T:
        number = next(numbers)
        if number == 1:
            raise first_failure
        try:
            return await operation()
        except (TransportError, APIError) as error:
            error.attempts = number
            raise

    with retries:
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: should_retry(replay, error)),
            wait=lambda state: pause_seconds(policy, state.attempt_number, _error_of(state)),
            stop=retries.should_stop,
            before_sleep=retries.before_pause,
            sleep=clock.sleep,
            reraise=True,
        )
        return await retrying(attempt)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
