"""Decide whether and when to repeat a request."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from enum import Enum
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

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .._util.clock import Clock

T = TypeVar("T")

BeforePause = Callable[[int, float, Exception], None]
"""Called with the number of the failed attempt, the seconds of the pause, and the error."""

log = logging.getLogger("st4sd_async")

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
"""HTTP statuses of temporary failures."""

UNREACHABLE_SECONDS = 10.0
"""How long an unreachable host is retried. A host that responds or refuses connections gets the whole policy."""

MAX_CUT_RESPONSES = 5
"""Maximum number of attempts whose response is cut short: the service is up, and each costs it a whole response."""


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
        return not error.permanent
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


def is_unreachable(error: BaseException | None, *, has_responded: bool) -> bool:
    """
    Return whether an attempt failed without reaching any host.

    The host name does not resolve, so that it is mistyped or this machine is offline; or the host is silent and never
    responded. A refused connection, and a proxy that responds with 502 or 503, mean that the service restarts.

    Args:
        error: The error of the attempt. None means that it succeeded.
        has_responded: Whether the host ever responded.
    """
    return isinstance(error, ConnectFailed) and (error.is_unresolved or (error.is_silent and not has_responded))


class _Retries:
    """The limits of the retries of one call."""

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Clock,
        began: float,
        has_responded: Callable[[], bool],
        request: object,
        before_pause: BeforePause | None,
    ) -> None:
        self._policy, self._clock, self._has_responded, self._request = policy, clock, has_responded, request
        self._before_pause = before_pause
        self._began = began
        self._unreachable_since: float | None = began
        """When the service became unreachable. None means that the last attempt reached it."""
        self._cut_responses = 0

    def should_stop(self, state: RetryCallState) -> bool:
        """Return whether a limit is reached after a failed attempt; called once per attempt."""
        error = _error_of(state)
        if not is_unreachable(error, has_responded=self._has_responded()):
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = self._clock.now()
        self._cut_responses += isinstance(error, ConnectionLost) and error.is_cut
        if self._cut_responses >= MAX_CUT_RESPONSES or state.attempt_number == self._policy.attempts:
            return True
        return self._clock.now() - self._began + state.upcoming_sleep > self._total_seconds

    def report_failure(self, state: RetryCallState) -> None:
        """Report a failed attempt that is followed by another."""
        message, error = "%s: attempt %d failed, next in %.2f s: %s", _error_of(state)
        log.debug(message, self._request, state.attempt_number, state.upcoming_sleep, error)
        if self._before_pause is not None and isinstance(error, Exception):
            self._before_pause(state.attempt_number, state.upcoming_sleep, error)

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
    request: object,
    has_responded: Callable[[], bool],
    before_pause: BeforePause | None = None,
) -> T:
    """
    Await ``operation()`` until it succeeds, must not be repeated, or a limit of the policy is reached.

    Args:
        operation: Makes one attempt.
        policy: The limits.
        replay: What happens if the operation is repeated.
        clock: Source of time.
        request: Its text is the method and the URL, for the log.
        has_responded: Returns whether the service ever responded.
        before_pause: Called before each pause; None means no call.

    Raises:
        St4sdError: The last error, with ``attempts`` set. Cancellation and other exceptions are raised at once.
    """
    began = clock.now()
    try:
        # Not by tenacity, which would add a sixth to the CPU time of the many requests that succeed at once.
        return await operation()
    except (TransportError, APIError) as error:
        if policy.attempts == 1 or not should_retry(replay, error):
            raise
        first_failure = error

    retries = _Retries(policy, clock, began, has_responded, request, before_pause)
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

    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda error: should_retry(replay, error)),
        wait=lambda state: pause_seconds(policy, state.attempt_number, _error_of(state)),
        stop=retries.should_stop,
        before_sleep=retries.report_failure,
        sleep=clock.sleep,
        reraise=True,
    )
    return await retrying(attempt)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
