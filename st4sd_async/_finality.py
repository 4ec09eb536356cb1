"""
When is a run over? Pure rules on the pair (experiment-state, exit-status).

The two fields become final in either order, seconds apart, and some runs never get an exit-status
at all (a failed init container, a killed orchestrator). So a run is over when both fields are
final, or when one is and the pair has stood still for a grace period.
"""

from __future__ import annotations

from dataclasses import dataclass

FINAL_STATES = frozenset({"finished", "failed"})
FINAL_EXITS = frozenset({"success", "failed", "stopped"})

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
    Decides, status by status, whether one run is over; it remembers how long a half-final pair has stood.

    A pair with one final field may still change: the orchestrator's container can end seconds before
    its last status is written, and a failed image pull can be repaired.
    """

    grace: float
    """Seconds that a half-final pair must stand unchanged before the run counts as over."""

    _pair: Pair | None = None
    _since: float = 0.0

    def is_over(self, pair: Pair, now: float) -> bool:
        """Take one observation made at ``now`` (seconds) and tell whether the run is over."""
        if pair != self._pair:
            self._pair, self._since = pair, now
        finals = _final_fields(pair)
        return finals == 2 or (finals == 1 and now >= self._since + self.grace)

    def patience(self, now: float) -> float | None:
        """Seconds until a half-final pair counts as over; None if the pair seen last is not half-final."""
        if self._pair is None or _final_fields(self._pair) != 1:
            return None
        return max(0.0, self._since + self.grace - now)
