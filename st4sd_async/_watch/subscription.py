"""Who watches what until when, and what he was not told yet; nothing here asks anything."""

from __future__ import annotations

from math import inf

import anyio

from .._errors import (
    APIError,
    DecodeError,
    RateLimited,
    ServerError,
    TransportError,
    Unauthorized,
    WaitTimeout,
)
from .._util.clock import Clock
from ..models import Status
from .watched_run import Watched


class Deadline:
    """The end of a whole wait: every request and every pause is cut to what is left of it."""

    def __init__(self, timeout: float | None, clock: Clock) -> None:
        self.timeout = timeout
        self._clock = clock
        self._end = inf if timeout is None else clock.now() + timeout

    @property
    def left(self) -> float:
        """Seconds left, infinite if there is no end."""
        return max(0.0, self._end - self._clock.now())


class Follower:
    """
    One who watches some runs, and what he was not told yet.

    Of each run the newest status replaces older ones, so that a slow reader gets the latest and
    never a backlog.
    """

    def __init__(self, deadline: Deadline, interval: float | None) -> None:
        self.deadline = deadline
        self.interval = interval
        self.open: dict[str, Watched] = {}
        """rest-uid -> the run, of those whose end he was not told."""
        self.news: dict[str, None] = {}
        """rest-uids of runs that he is to be told of, the oldest news first."""
        self.error: Exception | None = None
        """What ended it for him."""
        self.wake = anyio.Event()
        """Set when there is something for him to do."""
        self._told: dict[str, Status] = {}
        self._there = 0
        """How many of his runs were there, or may be."""

    def join(self, watched: Watched) -> None:
        """Watch a run."""
        self.open[watched.rest_uid] = watched
        watched.followers[self] = None
        self._there += 1

    def miss(self, error: Exception) -> None:
        """One of his runs was never there while it was watched, which ends it for him if none of them was."""
        self._there -= 1
        if self._there == 0:
            self.end(error)

    def tell(self, watched: Watched, *, is_news: bool = True) -> bool:
        """Take note of a status, news or not; True if it is something to tell him."""
        if self.error is not None:
            return True  # that, and nothing after it
        rest_uid, told = watched.rest_uid, self._told.get(watched.rest_uid)
        if told is None or (is_news and rest_uid not in self.news):
            self.news[rest_uid] = None
        elif is_news and watched.final is None and watched.status and told.says_like(watched.status):
            del self.news[rest_uid]  # it changed, and changed back before he was told
        return rest_uid in self.news

    def take(self) -> tuple[Watched, Status]:
        """The next status to be told; a run is left with its final one."""
        rest_uid = next(iter(self.news))
        del self.news[rest_uid]
        watched = self.open[rest_uid]
        status = self._told[rest_uid] = watched.final or watched.status or Status.pending()
        if watched.final is not None:
            self.leave(watched)
        return watched, status

    def leave(self, watched: Watched) -> None:
        """Watch a run no longer."""
        del self.open[watched.rest_uid]
        self._told.pop(watched.rest_uid, None)
        watched.followers.pop(self, None)

    def end(self, error: Exception) -> None:
        """Have an error end it for him."""
        self.error = self.error or _apart(error)

    def check(self, trouble: Exception | None = None) -> None:
        """
        Raise what ended the wait, if something did.

        Args:
            trouble: What came last in place of an answer, None after an answer.

        Raises:
            WaitTimeout: The time is over; it has the last status of each run that is not over, and the trouble as
                cause.
            Unauthorized: Likewise.
        """
        if isinstance(self.error, Unauthorized):
            self.error.last_statuses = {rest_uid: watched.status for rest_uid, watched in self.open.items()}
        if self.error is not None:
            raise self.error
        if self.deadline.left == 0:
            last = {rest_uid: watched.status or Status.pending() for rest_uid, watched in self.open.items()}
            raise WaitTimeout(self.deadline.timeout or 0.0, last) from trouble


def _apart(error: Exception) -> Exception:
    """An error like this one, so that each who waits raises one of his own."""
    twin: Exception = error.__class__.__new__(error.__class__, *error.args)
    twin.__dict__.update(error.__dict__)
    return twin.with_traceback(error.__traceback__)


def survives(error: Exception, *, is_proven: bool) -> bool:
    """
    Whether waiting goes on after an error: what passes by itself does not end it.

    Args:
        error: What came in place of an answer.
        is_proven: Whether the service has answered before: then a page of the proxy that says neither
            "sign in" nor what JSON says passes too.
    """
    if isinstance(error, TransportError):
        return not error.permanent
    if isinstance(error, ServerError | RateLimited):
        return True
    if isinstance(error, APIError):
        return error.status == 408 or (is_proven and not error.detail and not isinstance(error, Unauthorized))
    return is_proven and isinstance(error, DecodeError)


def concerns_all(error: Exception) -> bool:
    """Whether an error that ends the watching of one run would end that of any other."""
    return not isinstance(error, APIError | DecodeError) or isinstance(error, Unauthorized)
