"""Whether and when a request is sent again: a pure decision, carried out by tenacity."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, TypeVar

from .._errors import (
    APIError,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    RateLimited,
    ServerError,
    TransportError,
)
from .._util.field_docs import document_fields
from .outage import Outage, Waiting

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .._util.clock import Clock
    from .._util.progress import Progress

T = TypeVar("T")

log = logging.getLogger("st4sd_async")

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
"""HTTP statuses that may pass."""


UNREACHED = 10.0
"""Seconds for which a host is asked again that was not reached: patience is for one that answered or refused."""
CUTS = 5
"""Attempts that may end with an answer that is cut short: the service is there, and asking again costs it the whole."""
ENDLESS = frozenset({"total", "longest_retry_after"})
"""Times of a policy that may be infinite."""


def check_seconds(name: str, value: object, *, above: bool = False, or_forever: bool = False) -> None:
    """
    Check a setting that is a number of seconds.

    Args:
        name: The setting, for the message.
        value: Its value.
        above: Whether it must be above 0, and not 0.
        or_forever: Whether it may be infinite.

    Raises:
        ConfigError: It is negative, NaN, infinite or no number.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and value >= 0 and not (above and value == 0) and (or_forever or value < inf):  # type: ignore[operator]
        return
    raise ConfigError(f"{name} must be a number of seconds{' above 0' if above else ''}, not {value!r}")


@document_fields
@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    How a request is repeated; both limits always hold.

    RetryPolicy()               for up to 120 s, however many attempts: outlasts a service that restarts for 60 s
    RetryPolicy(total=10)       for up to 10 s
    RetryPolicy(attempts=1)     never repeat anything
    RetryPolicy(first_wait=1)   the first pause is at most 1 s, each next at most twice as long

    A host whose name does not resolve, or that never answered and is silent, is given up after 10 s. An answer that
    is cut short is asked for 5 times. After 5 s of waiting there is a warning in the log, once for all calls that
    wait, and ``Config.progress`` is told.
    """

    attempts: int | None = None
    """Attempts in all, at least 1; None means as many as begin within ``total``."""
    total: float = 120.0
    """Seconds from the first attempt after which no other begins; may be infinite."""
    first_wait: float = 0.2
    """Longest first pause in seconds; the next ones double. Pauses are drawn between 0 and that."""
    longest_wait: float = 10.0
    """Longest pause in seconds."""
    longest_retry_after: float = 60.0
    """Longest pause in seconds that the service may ask for by ``Retry-After``; may be infinite."""

    def __post_init__(self) -> None:
        if self.attempts is not None and not (isinstance(self.attempts, int) and self.attempts >= 1):
            told = f"attempts must be a whole number of at least 1 or None, not {self.attempts!r}"
            raise ConfigError(f"a retry policy needs limits that make sense: {told}")
        for name in ("total", "first_wait", "longest_wait", "longest_retry_after"):
            told = f"a retry policy needs limits that make sense: {name}"
            check_seconds(told, getattr(self, name), or_forever=name in ENDLESS)


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

    The pause is drawn evenly between 0 and a bound that doubles, so that many clients do not come back together. A
    longer ``Retry-After`` of the service is honoured up to the policy's cap; a shorter one is not, because a service
    that always asks for 0 s would be sent requests without a pause.
    """
    bound = min(policy.longest_wait, policy.first_wait * 2.0 ** min(attempt - 1, 30))
    drawn, asked = random.uniform(0, bound), getattr(error, "retry_after", None)
    return drawn if asked is None else max(drawn, min(float(asked), policy.longest_retry_after))


def is_unreached(error: BaseException | None, *, has_answered: bool) -> bool:
    """
    Return whether an attempt ended without a sign of the service.

    A host whose name does not resolve is mistyped, or this machine is offline; so is one that is silent, unless it has
    answered before. One that refuses a connection, and a proxy that answers 502 or 503, say that the service restarts.
    """
    return isinstance(error, ConnectFailed) and (error.is_unresolved or (error.is_silent and not has_answered))


async def repeated(
    operation: Callable[[int], Awaitable[T]],
    *,
    policy: RetryPolicy,
    replay: Replay,
    clock: Clock,
    what: str,
    outage: Outage,
    progress: Progress | None = None,
) -> T:
    """
    Await ``operation(attempt)`` until it succeeds, must not be repeated, or the policy's limits are reached.

    Args:
        operation: Makes one attempt.
        policy: The limits.
        replay: What repeating it would do.
        clock: Where time comes from.
        what: The request, for the log.
        outage: What is known of the service that it is sent to.
        progress: What is told of a long wait.

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
    attempts, cuts = itertools.count(first), 0
    unreached: float | None = began  # since when; None if the last attempt reached the service

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

    def patience() -> float:
        """Seconds from the first attempt after which no other begins, given how the last ones ended."""
        return policy.total if unreached is None else min(policy.total, unreached - began + UNREACHED)

    def stop(state: RetryCallState) -> bool:
        nonlocal cuts, unreached
        error = _error(state)
        if not is_unreached(error, has_answered=outage.has_answered):
            unreached = None
        elif unreached is None:
            unreached = clock.now()
        cuts += isinstance(error, ConnectionLost) and error.is_cut
        if cuts >= CUTS or (policy.attempts is not None and state.attempt_number >= policy.attempts):
            return True
        return clock.now() - began + state.upcoming_sleep > patience()

    def tell(state: RetryCallState) -> None:
        told = "%s: attempt %d failed, next in %.2f s: %s"
        log.info(told, what, state.attempt_number, state.upcoming_sleep, _error(state))
        waiting.pause(state.upcoming_sleep, patience(), _error(state))

    from tenacity import AsyncRetrying, retry_if_exception  # not with the package: where tornado is, it imports that

    retrying = AsyncRetrying(
        sleep=clock.sleep,
        stop=stop,
        wait=wait,
        retry=retry_if_exception(lambda error: decide(replay, error)),
        before_sleep=tell,
        reraise=True,
    )
    with Waiting(outage, progress, clock, began) as waiting:
        return await retrying(attempt)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
