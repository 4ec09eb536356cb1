"""
Decide when a run has ended, by the pair (experiment-state, exit-status). Pure rules, no I/O.

The two fields become final in either order, seconds apart. Some runs never get an exit-status: their init container
failed, or their orchestrator was killed. So a run has ended when both fields are final, or when one is final and the
pair has not changed for a grace period.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FINAL_STATES = frozenset({"finished", "failed"})
FINAL_EXITS = frozenset({"success", "failed", "stopped"})

IMAGE_PULL = re.compile(r"(?:failed|unable) to pull images?\b|ErrImagePull|ImagePullBackOff", re.IGNORECASE)
"""Matches an error-description about an image that cannot be pulled, written by the service or by the cluster."""

MAX_GAP_SHARE = 0.5
"""
The time between two observations counts for at most this share of the grace period.

The pair may have changed in between: a laptop slept, a clock jumped, or many other runs were polled. With a half, three
observations must agree.
"""

IMAGE_PULL_GRACES = 10
"""
Grace periods for which a pair must not change if an image cannot be pulled.

The cluster tries again, with pauses that grow to 300 s, and the image may be repaired in between. Ten times the usual
60 s are longer than two such pauses.
"""

ROUNDING_SHARE = 1e-5
"""Share of the time needed that may be missing, because a sum of times is not exact."""

Pair = tuple[str | None, str | None]
"""experiment-state and exit-status, as the service writes them."""


def _count_final(pair: Pair) -> int:
    """Return how many of the two fields are final, without regard to case."""
    state, exit_status = ((word or "").casefold() for word in pair)
    return (state in FINAL_STATES) + (exit_status in FINAL_EXITS)


def is_final(pair: Pair) -> bool:
    """Return whether both fields are final, so that this one response proves that the run is over."""
    return _count_final(pair) == 2


@dataclass
class FinalityTracker:
    """
    Decides from one observation to the next whether a run is over.

    A pair with one final field may still change: the orchestrator's container can end seconds before its last status
    is written, and a failed image pull can be repaired. So the tracker adds up how long such a pair has not changed.
    """

    grace: float
    """Seconds for which a pair with one final field must not change until the run counts as over; 0 means at once."""

    _pair: Pair | None = None
    _final_count: int = 0
    _observed_at: float = 0.0
    _unchanged: float = 0.0
    """Seconds for which the pair has not changed, with long gaps cut."""
    _needed: float = 0.0
    """Seconds for which it must not change, by the text of the last observation."""

    def observe(self, pair: Pair, now: float, text: str | None = "") -> bool:
        """
        Take an observation into account, and return whether the run is over.

        Args:
            pair: The two fields. If they changed, the grace period starts anew.
            now: Time of the observation in seconds of any clock; if the clock runs backwards, no time has passed.
            text: The run's error-description. It may extend the grace period, but does not start it anew.
        """
        if pair == self._pair:
            self._unchanged += min(self._passed(now), self.grace * MAX_GAP_SHARE)
        else:
            self._pair, self._final_count, self._unchanged = pair, _count_final(pair), 0.0
        self._observed_at = now
        self._needed = self.grace * (IMAGE_PULL_GRACES if text and IMAGE_PULL.search(text) else 1)
        return self._final_count == 2 or (self._final_count == 1 and self._missing() == 0)

    def poll_delay(self, now: float) -> float | None:
        """Return the seconds until another observation is useful; None if not exactly one field is final."""
        if self._final_count != 1:
            return None
        return max(0.0, min(self.grace * MAX_GAP_SHARE, self._missing()) - self._passed(now))

    def _passed(self, now: float) -> float:
        return max(0.0, now - self._observed_at)

    def _missing(self) -> float:
        missing = self._needed - self._unchanged
        return missing if missing > self._needed * ROUNDING_SHARE else 0.0
