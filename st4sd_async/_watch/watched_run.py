"""
What is known of the runs that are watched, and which of them to ask for by themselves. Nothing here does I/O.

An item of the list of instances costs a tenth of asking for the run, but the list never consults the
cluster: it shows no start-up failure and no killed orchestrator, and it may be short. So what a run says
when it is asked for by itself holds until its entry in the list changes, and every run is asked in turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from ..models import Status
from ..models.finality import FinalityTracker

if TYPE_CHECKING:
    from .subscription import Follower

_UNLISTED = object()


@dataclass(eq=False, slots=True)
class Watched:
    """One run and what is known of it; times are seconds of the clock."""

    rest_uid: str
    judge: FinalityTracker
    status: Status | None = None
    """The newest status; None before the first."""
    final: Status | None = None
    """The last one there will be; None while the run is not over."""
    followers: dict[Follower, None] = field(default_factory=dict)
    """Who watches it."""
    is_new: bool = True
    """Whether somebody came for it who should not have to wait for the next round."""
    is_awaited: bool = True
    """Whether somebody is to be told of its status even if it has not changed."""
    is_in_doubt: bool = False
    """Whether the list lacks it or contradicts what it said; only asking for it settles that."""
    changed: float = -inf
    """When it was last seen to change."""
    asked: float = -inf
    """When it was last asked for by itself, with or without an answer."""
    seen: float = -inf
    """When the newest status came."""
    unreadable: float | None = None
    """Since when its answers cannot be read; None if they can."""
    _entry: Any = _UNLISTED
    """Its status in the list that showed it last."""
    _is_stale: bool = True
    """Whether it was asked for since that entry was read, so that a change of the entry may be the older news."""
    _overrules: bool = False
    """Whether its own answer says something else than its entry in the list, and is the newer one."""

    def take_answer(self, status: Status, now: float, *, beside_list: bool) -> bool:
        """Take what it says by itself; True if that is news. ``beside_list``: whether the list was read just before."""
        self._is_stale = self._is_stale or not beside_list
        self.is_in_doubt, self.unreadable = False, None
        self._overrules = self._entry is _UNLISTED or _read(self._entry).pair != status.pair
        return self._show(status, now)

    def take_entry(self, entry: Any, now: float) -> bool:
        """
        Take its status in the list, None if it has none there; True if that is news.

        Raises:
            ValueError: It cannot be read.
        """
        is_stale, self._is_stale = self._is_stale, False
        if entry is self._entry or entry == self._entry:
            self.unreadable = None
            self.is_in_doubt = self.is_in_doubt and self._overrules
            return not self._overrules and self.status is not None and self._show(self.status, now)
        status, self.unreadable = _read(entry), None
        self._entry = entry
        # Which of the entry and an earlier answer is the newer one cannot be told: if they differ, it is asked again.
        self._overrules = self.is_in_doubt = (
            is_stale and self._overrules and self.status is not None and status.pair != self.status.pair
        )
        return not self.is_in_doubt and self._show(status, now)

    def miss(self) -> None:
        """Take note that the list does not have it, or nothing that can be read."""
        self.is_in_doubt = self._is_stale = True

    def _show(self, status: Status, now: float) -> bool:
        is_news = self.status is None or not self.status.says_like(status)
        self.status, self.seen, self.is_new = status, now, False
        if is_news:
            self.changed = now
        if self.judge.observe(status.pair, now, status.error_description):
            self.final = status.concluded()
        return is_news or self.final is not None

    def delete(self, last_word: Status | None) -> None:
        """It is gone; ``last_word`` is what the datastore knows of its end, None if nothing."""
        self.final = (last_word or self.status or Status.pending()).concluded(deleted=True)

    def presses(self, now: float) -> float:
        """Seconds until it is worth a request between two rounds, being new or about to be judged; infinite if not."""
        if self.is_new:
            return 0.0
        patience = self.judge.poll_delay(now) if self.asked <= self.seen else None
        return inf if patience is None else patience

    def is_doubtful(self, now: float) -> bool:
        """Whether a request for it would settle something."""
        return self.is_in_doubt or self.status is None or self.judge.poll_delay(now) == 0

    @property
    def quiet_since(self) -> tuple[float, bool]:
        """Since when nothing was heard of it; the order in which runs are asked that give no cause for it."""
        is_hidden = self.status is not None and self.status.is_pending
        return max(self.asked, self.changed), not is_hidden


def choose(runs: Iterable[Watched], now: float, most: int) -> list[Watched]:
    """
    The runs to ask for by themselves beside the list.

    Doubtful ones come first, but one place is always for the run of which nothing was heard for
    longest: a killed orchestrator is found so, since its entry in the list stands still.

    Args:
        runs: Those that are not over.
        now: The time.
        most: How many at most.
    """
    doubtful: list[Watched] = []
    others: list[Watched] = []
    for run in runs:
        (doubtful if run.is_doubtful(now) else others).append(run)
    first = heapq.nsmallest(most, doubtful, key=lambda run: run.asked)
    rest = heapq.nsmallest(most, others, key=lambda run: run.quiet_since)
    share = most - 1 if rest else most
    return [*first[:share], *rest, *first[share:]][:most]


def _read(entry: Any) -> Status:
    return Status.model_validate(entry) if entry else Status.pending()
