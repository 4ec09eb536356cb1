"""When to ask again: quick after a start or a change, slow when nothing moves, never a burden."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from math import inf

QUICKEST = 0.5
"""Seconds between the first rounds after a start or a change."""

SLOWEST = 30.0
"""Seconds between two rounds when nothing has moved for long."""

GROWTH = 1.5
"""How much longer each pause is than the one before while nothing moves."""

JITTER = 0.1
"""Share by which a pause is drawn longer or shorter, so that many clients do not ask at once."""

LEISURE = 10
"""A pause is at least so many times as long as the round before it took: a big list slows itself down."""

LONGEST_ROUND = 120.0
"""Seconds; a round that seems to have taken longer slept with its machine, for the proxy gives up after 60 s."""

LONGEST_REST = 60.0
"""Longest pause in seconds after a round that failed, whatever it took and whatever the service asks for."""


@dataclass
class Schedule:
    """
    When the next round is due: all runs, quick after a change, slow when nothing moves.

    A few runs, such as new ones, can be asked for between two rounds.
    """

    _intervals: Counter[float | None] = field(default_factory=Counter)
    ready: float = -inf
    """Before that nothing is asked."""
    _rested: float = -inf
    """Before that there is no round."""
    _began: float = -inf
    _adaptive: float = -inf
    _pause: float = QUICKEST

    def join(self, interval: float | None) -> None:
        """Somebody watches who wants such pauses, in seconds; None: adaptive."""
        self._intervals[interval] += 1

    def leave(self, interval: float | None) -> None:
        """Somebody who joined watches no longer."""
        self._intervals[interval] -= 1

    @property
    def due(self) -> float:
        """When the next round is due."""
        intervals = [interval for interval, count in self._intervals.items() if count]
        wanted = [self._adaptive if interval is None else self._began + interval for interval in intervals]
        return max(self._rested, min(wanted, default=-inf))

    def may_begin(self, now: float) -> bool:
        """Whether a round may begin, due or not."""
        return now >= self._rested

    def moved(self, now: float) -> None:
        """Something changed: have the next round soon."""
        self._pause = QUICKEST
        self._adaptive = min(self._adaptive, now + self._drawn())

    def looked(self, began: float, now: float) -> None:
        """A few runs were asked for."""
        self.ready = max(self.ready, now + _rest(began, now))

    def ended(self, began: float, now: float, *, has_moved: bool) -> None:
        """A round is done."""
        self._pause = QUICKEST if has_moved else self._pause
        self._began, self._rested = began, max(self._rested, now + _rest(began, now))
        self._adaptive = now + self._drawn()

    def failed(self, began: float, now: float) -> None:
        """Nothing could be asked: leave the service alone for a while."""
        self._began, self._adaptive = began, now + self._drawn()
        self.spare(_rest(began, now), now)

    def spare(self, seconds: float, now: float) -> None:
        """Ask nothing for so many seconds, or for the longest rest if that is less."""
        rested = now + min(seconds, LONGEST_REST)
        self.ready, self._rested = max(self.ready, rested), max(self._rested, rested)

    def _drawn(self) -> float:
        pause, self._pause = self._pause, min(SLOWEST, self._pause * GROWTH)
        return pause * random.uniform(1 - JITTER, 1 + JITTER)


def _rest(began: float, now: float) -> float:
    took = now - began
    return LEISURE * took if took < LONGEST_ROUND else 0.0
