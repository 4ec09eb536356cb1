"""
When is a run over? Pure rules on the pair (experiment-state, exit-status).

The two fields become final in either order, seconds apart, and some runs never get an exit-status
at all (a failed init container, a killed orchestrator). So a run is over when both fields are
final, or when one is and the pair was seen to stand still for a grace period.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FINAL_STATES = frozenset({"finished", "failed"})
FINAL_EXITS = frozenset({"success", "failed", "stopped"})

IMAGE_PULL = re.compile(r"(?:failed|unable) to pull images?\b|ErrImagePull|ImagePullBackOff", re.IGNORECASE)
"""How texts speak of an image that could not be pulled: the service in its own words, the cluster in its."""

LONGEST_GAP = 0.5
"""
Share of the grace that the time between two looks counts for at most.

What a pair did while nobody looked is not known: a laptop slept, a clock jumped, many other runs had
their turn. With a half, three looks must have shown the same pair.
"""

GRACES_FOR_IMAGES = 10
"""
How many times the grace a pair must stand if an image could not be pulled.

The cluster tries again, with pauses that grow to 300 s, and somebody can repair the image meanwhile: ten
times the usual 60 s are longer than two such pauses.
"""

ROUNDING = 1e-5
"""Share of the time needed that may be missing: a sum of moments is not exact."""

Pair = tuple[str | None, str | None]
"""experiment-state and exit-status, as the service words them."""


def _final_fields(pair: Pair) -> int:
    """How many of the two fields are final; words are compared without regard to case."""
    state, exit_status = ((word or "").casefold() for word in pair)
    return (state in FINAL_STATES) + (exit_status in FINAL_EXITS)


def is_final(pair: Pair) -> bool:
    """Whether this one reply proves that the run is over: both fields are final."""
    return _final_fields(pair) == 2


@dataclass
class Judge:
    """
    Decides, look by look, whether one run is over; it remembers how long a half-final pair was seen to stand.

    A pair with one final field may still change: the orchestrator's container can end seconds before
    its last status is written, and a failed image pull can be repaired.
    """

    grace: float
    """Seconds that a half-final pair must stand unchanged before the run counts as over; 0: none."""

    _pair: Pair | None = None
    _finals: int = 0
    """How many of the two words are final."""
    _looked: float = 0.0
    """When the last look was taken."""
    _stood: float = 0.0
    """Seconds that the pair was seen to stand, long gaps cut."""
    _needed: float = 0.0
    """Seconds that it must stand, by the text of the last look."""

    def is_over(self, pair: Pair, now: float, text: str | None = "") -> bool:
        """
        Take one look and tell whether the run is over.

        Args:
            pair: The two words; another pair than at the last look starts the grace anew.
            now: When the look was taken, in seconds of any clock; one that runs backwards counts as standing still.
            text: The run's error-description, which may ask for more patience; it does not start anything anew.
        """
        if pair == self._pair:
            self._stood += min(self._since(now), self.grace * LONGEST_GAP)
        else:
            self._pair, self._finals, self._stood = pair, _final_fields(pair), 0.0
        self._looked = now
        self._needed = self.grace * (GRACES_FOR_IMAGES if text and IMAGE_PULL.search(text) else 1)
        return self._finals == 2 or (self._finals == 1 and self._missing() == 0)

    def patience(self, now: float) -> float | None:
        """Seconds until the next look that is of use to a half-final pair; None if the pair seen last is not one."""
        if self._finals != 1:
            return None
        return max(0.0, min(self.grace * LONGEST_GAP, self._missing()) - self._since(now))

    def _since(self, now: float) -> float:
        return max(0.0, now - self._looked)

    def _missing(self) -> float:
        missing = self._needed - self._stood
        return missing if missing > self._needed * ROUNDING else 0.0
