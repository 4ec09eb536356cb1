"""
The state machine of a watched run, and the subscriptions that receive its updates. Nothing here does I/O.

An item in the list of instances costs the service a tenth of a request for one run, but the list never consults the
cluster: it shows no start-up failure and no killed orchestrator, and it may be incomplete. So the response to a request
for one run holds until the run's item in the list changes, and every run is requested in turn.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import anyio

from .._errors import Unauthorized, UnknownRun, WaitTimeout
from .._util.clock import Clock
from ..models import Status
from ..models.finality import FinalityTracker
from ..models.runs import is_same_item, of_run

UNREADABLE_TIMEOUT = 60.0
"""Seconds after which a run whose responses cannot be read is no longer watched."""

_UNLISTED = object()


class Deadline:
    """The deadline of a whole wait. It limits every request and every pause."""

    def __init__(self, timeout: float | None, clock: Clock) -> None:
        self.timeout = timeout
        self._clock = clock
        self._end = inf if timeout is None else clock.now() + timeout

    @property
    def remaining(self) -> float:
        """Seconds that remain; infinite without a limit."""
        return max(0.0, self._end - self._clock.now())


class Subscription:
    """
    One consumer of the updates of some runs, and the updates that it has not received yet.

    The newest status of a run replaces older ones: a slow consumer receives the latest status and never a backlog.
    """

    def __init__(self, deadline: Deadline, interval: float | None) -> None:
        self.deadline = deadline
        """When the consumer stops waiting."""
        self.interval = interval
        """Seconds that it wants between two rounds. None means adaptive."""
        self.open: dict[str, WatchedRun] = {}
        """rest-uid -> the run, for each run whose final status was not delivered."""
        self.pending: OrderedDict[str, None] = OrderedDict()  # a dict takes ever longer to find its first key
        """rest-uids of runs with an undelivered update, the oldest first."""
        self.error: Exception | None = None
        """The error that ended the subscription. It is raised after the pending updates."""
        self.wake = anyio.Event()
        """Set when the consumer has something to do. Each sleep uses an event of its own."""
        self._delivered: dict[str, Status] = {}
        self._existing = 0
        """Number of its runs that are known to exist, or not known to be missing."""

    def add(self, run: WatchedRun) -> None:
        """Subscribe to a run."""
        self.open[run.rest_uid] = run
        run.subscriptions[self] = None
        self._existing += 1

    def remove(self, run: WatchedRun) -> None:
        """Unsubscribe from a run."""
        del self.open[run.rest_uid]
        self._delivered.pop(run.rest_uid, None)
        run.subscriptions.pop(self, None)

    def notify(self, run: WatchedRun, *, is_news: bool = True) -> bool:
        """
        Take the newest status of a run, and wake the consumer if it has something to receive.

        Args:
            run: The run.
            is_news: Whether its status changed. If not, it is delivered only to a consumer that has no status of the
                run yet.

        Returns:
            Whether there is something to receive, an update of this run or an error.
        """
        if self.error is None:
            rest_uid, delivered = run.rest_uid, self._delivered.get(run.rest_uid)
            if delivered is None or (is_news and rest_uid not in self.pending):
                self.pending[rest_uid] = None
            elif is_news and run.final is None and run.status and delivered.says_like(run.status):
                del self.pending[rest_uid]  # it changed and changed back before the consumer received it
            if rest_uid not in self.pending:
                return False
        self.wake.set()
        return True

    def mark_unknown(self, error: Exception) -> None:
        """Note that a run never existed while it was watched. The subscription fails if none of its runs did."""
        self._existing -= 1
        if self._existing == 0:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End the subscription with an error, unless it has one, and wake the consumer."""
        self.error = self.error or _copy_of(error)
        self.wake.set()

    def take(self) -> tuple[WatchedRun, Status]:
        """Return the next pending update; unsubscribe from the run if the update is its final one."""
        rest_uid, _ = self.pending.popitem(last=False)
        run = self.open[rest_uid]
        status = self._delivered[rest_uid] = run.final or run.last_status
        if run.final is not None:
            self.remove(run)
        return run, status

    def raise_if_over(self, last_error: Exception | None = None) -> None:
        """
        Raise the error that ended the subscription, or `WaitTimeout` at its deadline.

        Args:
            last_error: The last error, if no response came after it; otherwise None. It becomes the cause of a
                `WaitTimeout`.

        Raises:
            WaitTimeout: The deadline has passed. The error has the last status of each unfinished run.
            Unauthorized: The credentials were refused. The error has these statuses too.
        """
        if isinstance(self.error, Unauthorized):
            self.error.last_statuses = {rest_uid: run.status for rest_uid, run in self.open.items()}
        if self.error is not None:
            raise self.error
        if self.deadline.remaining == 0:
            last = {rest_uid: run.last_status for rest_uid, run in self.open.items()}
            raise WaitTimeout(self.deadline.timeout or 0.0, last) from last_error


def _copy_of(error: Exception) -> Exception:
    """Return a copy of an error, because each consumer raises its own: a shared traceback would grow."""
    copy: Exception = error.__class__.__new__(error.__class__, *error.args)
    copy.__dict__.update(error.__dict__)
    return copy.with_traceback(error.__traceback__)


@dataclass(eq=False, slots=True)
class WatchedRun:
    """
    One run, its subscriptions and everything known of it. Times are seconds of the clock.

    Two sources feed it: its item in the list (`apply_listed`, `mark_unlisted`) and the statuses that were requested
    (`apply_status`, `mark_deleted`, `mark_unreadable`). Whatever changes its status notifies its subscriptions.
    """

    rest_uid: str
    finality: FinalityTracker
    """Decides when the run has ended."""
    status: Status | None = None
    """The newest status; None before the first."""
    final: Status | None = None
    """The final status; None until the run has ended."""
    subscriptions: dict[Subscription, None] = field(default_factory=dict)
    """The consumers of its updates."""
    is_new: bool = True
    """Whether a new consumer needs its status before the next round."""
    is_awaited: bool = True
    """Whether a consumer needs its status even if that does not change."""
    is_in_doubt: bool = False
    """Whether the list lacks it or contradicts its last response, so that it must be requested."""
    changed_at: float = -inf
    """When its status last changed."""
    requested_at: float = -inf
    """When it was last requested, with or without a response."""
    seen_at: float = -inf
    """When its newest status arrived."""
    unreadable_since: float | None = None
    """When its responses became unreadable; None if they can be read."""
    _item: Any = _UNLISTED
    """Its status in the last list that had one."""
    _is_item_older: bool = True
    """Whether it was requested after that item was read, so that a changed item may be older than the response."""
    _overrides_item: bool = False
    """Whether its response differs from its item in the list and is the newer of the two."""

    def apply_status(self, status: Status, now: float, *, after_list: bool) -> bool:
        """Take its requested status; return whether that is news. ``after_list``: the list was read just before."""
        self._is_item_older = self._is_item_older or not after_list
        self.is_in_doubt, self.unreadable_since = False, None
        self._overrides_item = self._item is _UNLISTED or self._parse(self._item).pair != status.pair
        return self._update(status, now)

    def apply_listed(self, item: Any, now: float) -> bool:
        """
        Take its status in the list, None if the list has it without a status; return whether that is news.

        Raises:
            ValueError: The status cannot be read.
        """
        is_older, self._is_item_older = self._is_item_older, False
        if item is self._item or is_same_item(item, self._item):
            self.unreadable_since = None
            self.is_in_doubt = self.is_in_doubt and self._overrides_item
            return not self._overrides_item and self.status is not None and self._update(self.status, now)
        status, self.unreadable_since = self._parse(item), None
        self._item = item
        # Either the item or an earlier response may be the newer one: if they differ, the run is requested again.
        self._overrides_item = self.is_in_doubt = (
            is_older and self._overrides_item and self.status is not None and status.pair != self.status.pair
        )
        return not self.is_in_doubt and self._update(status, now)

    def mark_unlisted(self) -> None:
        """Note that the list lacks it, or has nothing that can be read."""
        self.is_in_doubt = self._is_item_older = True

    def mark_unreadable(self, now: float) -> bool:
        """Note that its response cannot be read; return whether that has lasted for `UNREADABLE_TIMEOUT`."""
        self.unreadable_since = now if self.unreadable_since is None else self.unreadable_since
        return now - self.unreadable_since >= UNREADABLE_TIMEOUT

    def mark_deleted(self, final_status: Status | None, error: UnknownRun, now: float) -> None:
        """
        End it as deleted.

        Args:
            final_status: The final status that the datastore has; None if it has none.
            error: The response. Subscriptions of which no run ever existed fail with it.
            now: The time.
        """
        last = final_status or self.status
        if last is None:
            last = Status.pending(error.detail)
            for subscription in self.subscriptions:
                subscription.mark_unknown(error)
        self.final = of_run(last.concluded(deleted=True), self.rest_uid)
        self._publish(now, is_news=True)

    def fail(self, error: Exception) -> None:
        """End the subscriptions to it with an error."""
        for subscription in self.subscriptions:
            subscription.fail(error)

    def _update(self, status: Status, now: float) -> bool:
        is_news = self.status is None or not self.status.says_like(status)
        self.status, self.seen_at, self.is_new = status, now, False
        if is_news:
            self.changed_at = now
        if self.finality.observe(status.pair, now, status.error_description):
            self.final = status.concluded()
            is_news = True
        self._publish(now, is_news=is_news)
        return is_news

    def _publish(self, now: float, *, is_news: bool) -> None:
        if is_news or (self.is_awaited and self.seen_at == now):
            self.is_awaited = False
            for subscription in self.subscriptions:
                subscription.notify(self, is_news=is_news)

    def seconds_until_urgent(self, now: float) -> float:
        """
        Return the seconds until it should be requested between two rounds; infinite if it should not.

        It should if it is new, and as soon as another response may prove that it has ended.
        """
        if self.is_new:
            return 0.0
        seconds = self.finality.poll_delay(now) if self.requested_at <= self.seen_at else None
        return inf if seconds is None else seconds

    def is_doubtful(self, now: float) -> bool:
        """Return whether a request may show more than the list: its status, or that it has ended."""
        return self.is_in_doubt or self.status is None or self.finality.poll_delay(now) == 0

    @property
    def last_status(self) -> Status:
        """The newest status; a pending one before the first."""
        return self.status or self._parse(None)

    def _parse(self, item: Any) -> Status:
        return of_run(Status.model_validate(item) if item else Status.pending(), self.rest_uid)

    @property
    def quiet_since(self) -> tuple[float, bool]:
        """When it was last requested or changed. Runs that are not doubtful are requested in this order."""
        is_start_hidden = self.status is not None and self.status.is_pending
        return max(self.requested_at, self.changed_at), not is_start_hidden


def choose_runs(runs: Iterable[WatchedRun], now: float, limit: int, kept: int = 1) -> list[WatchedRun]:
    """
    Return the runs to request individually beside the list, or in its place.

    Doubtful runs come first, but some places are always for the runs that have been quiet for longest. Only such a
    request finds a killed orchestrator, because its item in the list never changes.

    Args:
        runs: The unfinished runs.
        now: The time.
        limit: The maximum number of runs.
        kept: How many places are for quiet runs.
    """
    doubtful: list[WatchedRun] = []
    others: list[WatchedRun] = []
    for run in runs:
        (doubtful if run.is_doubtful(now) else others).append(run)
    first = heapq.nsmallest(limit, doubtful, key=lambda run: run.requested_at)
    rest = heapq.nsmallest(limit, others, key=lambda run: run.quiet_since)
    share = limit - min(kept, len(rest))
    return [*first[:share], *rest, *first[share:]][:limit]
