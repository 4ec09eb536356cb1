"""Whether and when a request is sent again: a pure decision, carried out by tenacity."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from ._errors import APIError, DecodeError, RateLimited, ServerError, TransportError

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from ._clock import Clock

T = TypeVar("T")

log = logging.getLogger("st4sd_async")

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
"""HTTP statuses that may pass."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    How patiently a request is repeated; both limits always hold.

    RetryPolicy()               up to 5 attempts within 120 s
    RetryPolicy(attempts=1)     never repeat anything
    RetryPolicy(first_wait=1)   the first pause is at most 1 s, each next at most twice as long
    """

    attempts: int = 5
    """Attempts in all, at least 1."""
    total: float = 120.0
    """Seconds from the first attempt after which no other begins."""
    first_wait: float = 0.2
    """Longest first pause in seconds; the next ones double. Pauses are drawn between 0 and that."""
    longest_wait: float = 10.0
    """Longest pause in seconds."""
    longest_retry_after: float = 60.0
    """Longest pause in seconds that the service may ask for by ``Retry-After``."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.total, self.first_wait, self.longest_wait, self.longest_retry_after) < 0:
            raise ValueError(f"a retry policy needs at least 1 attempt and no negative times: {self!r}")


class Replay(Enum):
    """What repeating a call would do."""

    READ = "changes nothing"
    REPEAT = "does the same again: push, tags"
    DELETE = "done already, if a repeated one is not found"
    ONCE = "might do it twice: start, create"


def may_have_arrived(error: Exception) -> bool:
    """Whether a request that ended so may have been carried out."""
    if isinstance(error, TransportError):
        return error.sent is not False
    if isinstance(error, APIError):
        # A start is made before it is answered, and a proxy that gives up does not take the request back.
        return error.status is not None and (error.status >= 500 or error.status in (408, 499) or error.status < 200)
    return isinstance(error, DecodeError)


def decide(replay: Replay, error: BaseException) -> bool:
    """Whether a call that ended with this error is worth another attempt, limits aside."""
    if isinstance(error, TransportError) and error.sent is False:
        return not error.permanent
    if isinstance(error, RateLimited):
        return replay is not Replay.ONCE or error.retry_after is not None
    if replay is Replay.ONCE:
        return False
    if isinstance(error, TransportError):
        return True
    return isinstance(error, ServerError | APIError) and error.status in RETRIED_STATUSES


def pause(policy: RetryPolicy, attempt: int, error: BaseException | None) -> float:
    """
    Seconds to wait after the attempt with this number (counted from 1).

    The service's ``Retry-After`` is honoured up to the policy's cap; otherwise the pause is drawn
    evenly between 0 and a bound that doubles, so that many clients do not come back together.
    """
    asked = getattr(error, "retry_after", None)
    if asked is not None:
        return min(float(asked), policy.longest_retry_after)
    bound = min(policy.longest_wait, policy.first_wait * 2.0 ** min(attempt - 1, 30))
    return random.uniform(0, bound)


async def repeated(
    operation: Callable[[int], Awaitable[T]], *, policy: RetryPolicy, replay: Replay, clock: Clock, what: str
) -> T:
    """
    Await ``operation(attempt)`` until it succeeds, must not be repeated, or the policy's limits are reached.

    Raises:
        St4sdError: The last error, with ``attempts`` set. Cancellation passes at once.
    """
    # The first attempt is made here: it mostly succeeds, and then there is nothing for tenacity to do.
    began, first = clock.now(), 1
    try:
        return await operation(first)
    except (TransportError, APIError) as error:
        if policy.attempts == first or not decide(replay, error):
            raise
        failure = error
    attempts = itertools.count(first)

    async def attempt() -> T:
        number = next(attempts)
        if number == first:
            raise failure
        try:
            return await operation(number)
        except (TransportError, APIError) as error:
            error.attempts = number
            raise

    def wait(state: RetryCallState) -> float:
        return pause(policy, state.attempt_number, _error(state))

    def stop(state: RetryCallState) -> bool:
        late = clock.now() - began + (state.upcoming_sleep or 0.0) > policy.total
        return state.attempt_number >= policy.attempts or late

    def tell(state: RetryCallState) -> None:
        told = "%s: attempt %d failed, next in %.2f s: %s"
        log.info(told, what, state.attempt_number, state.upcoming_sleep, _error(state))

    from tenacity import AsyncRetrying, retry_if_exception  # not with the package: where tornado is, it imports that

    retrying = AsyncRetrying(
        sleep=clock.sleep,
        stop=stop,
        wait=wait,
        retry=retry_if_exception(lambda error: decide(replay, error)),
        before_sleep=tell,
        reraise=True,
    )
    return await retrying(attempt)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
