"""Following one run until it is over: which looks to take when, and what to make of them."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import anyio

from ._clock import Clock
from ._errors import (
    APIError,
    RateLimited,
    RunDeleted,
    ServerError,
    St4sdError,
    TransportError,
    Unauthorized,
    UnknownRun,
    WaitTimeout,
)
from ._finality import Judge
from .models import Status

QUICKEST = 0.5
"""Seconds between the first looks after a start or a change."""

SLOWEST = 30.0
"""Seconds between two looks when nothing has moved for long."""

GROWTH = 1.5
"""How much longer each pause is than the one before while nothing moves."""

JITTER = 0.1
"""Share by which a pause is drawn longer or shorter, so that many watchers do not ask at once."""

Look = Callable[[], Awaitable[Status]]
"""Asks the service once for the status of the run."""


@dataclass
class Pace:
    """How long to pause between two looks."""

    fixed: float | None
    """Seconds the user asked for; None: adaptive."""
    _next: float = QUICKEST

    def reset(self) -> None:
        """Something moved: look again soon."""
        self._next = QUICKEST

    def pause(self) -> float:
        """Seconds until the next look."""
        if self.fixed is not None:
            return self.fixed
        bound, self._next = self._next, min(SLOWEST, self._next * GROWTH)
        return bound * random.uniform(1 - JITTER, 1 + JITTER)


class Deadline:
    """The end of a whole wait: every request and every pause is cut to what is left of it."""

    def __init__(self, timeout: float | None, clock: Clock) -> None:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must be a number of seconds or None, not {timeout!r}")
        self.timeout = timeout
        self._clock = clock
        self._end = None if timeout is None else clock.now() + timeout

    @property
    def left(self) -> float | None:
        """Seconds left, None if there is no end."""
        return None if self._end is None else max(0.0, self._end - self._clock.now())

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.left == 0.0


def survives(error: St4sdError) -> bool:
    """Whether a wait goes on after a look ended so: what passes by itself does not end it."""
    if isinstance(error, TransportError):
        return not getattr(error, "permanent", False)
    return isinstance(error, ServerError | RateLimited)


async def watch(
    rest_uid: str, look: Look, *, timeout: float | None, interval: float | None, grace: float, clock: Clock
) -> AsyncGenerator[Status]:
    """
    The statuses of one run: the first at once, then changes, the final one last.

    No task group and no cancel scope is open while the caller has a status, so the generator may
    be stepped from any task and dropped at any time.

    Raises:
        UnknownRun: There is no such run.
        RunDeleted: It was deleted while it was watched.
        WaitTimeout: It is not over in time.
        Unauthorized: The credentials were refused and could not be renewed.
    """
    deadline, pace, judge = Deadline(timeout, clock), Pace(interval), Judge(grace)
    last: Status | None = None
    while True:
        status = await _looked(rest_uid, look, deadline, last)
        if status is not None:
            over = judge.is_over(status.pair, clock.now())
            changed = last is None or status.raw != last.raw
            last = status
            if over:
                yield status.concluded()
                return
            if changed:
                pace.reset()
                yield status
        if deadline.is_over:
            raise _too_late(rest_uid, deadline, last)
        await clock.sleep(_next_pause(pace, judge, deadline, clock))


async def _looked(rest_uid: str, look: Look, deadline: Deadline, last: Status | None) -> Status | None:
    """One look, cut to the time left; None if the service could not be asked for now."""
    with anyio.move_on_after(deadline.left):
        try:
            return await look()
        except UnknownRun:
            if last is None:
                raise
        except Unauthorized as error:
            error.last_statuses = {rest_uid: last}
            raise
        except (TransportError, APIError) as error:
            if not survives(error):
                raise
            return None
        raise RunDeleted(rest_uid, last)
    raise _too_late(rest_uid, deadline, last)


def _next_pause(pace: Pace, judge: Judge, deadline: Deadline, clock: Clock) -> float:
    limits = (pace.pause(), judge.patience(clock.now()), deadline.left)
    return min(limit for limit in limits if limit is not None)


def _too_late(rest_uid: str, deadline: Deadline, last: Status | None) -> WaitTimeout:
    return WaitTimeout(deadline.timeout or 0.0, {rest_uid: last or Status.pending()})
