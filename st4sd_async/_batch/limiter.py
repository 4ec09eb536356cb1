"""How many starts may be in flight: more while the service keeps up, half as many when it does not. Pure."""

from __future__ import annotations

from math import inf

MAX_RUNNING = 200
"""Runs in progress at once, unless told otherwise."""
MOST = 64
"""Starts in flight that are never exceeded."""
STEADY = 2.0
"""How many times the quickest answer an answer may take for the service to keep up."""
FORGETTING = 1.0005
"""By which factor the quickest answer counts for longer with each answer: a service may become slower for good."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds without a start after trouble; they double while trouble goes on."""

LONGEST_ASKED = 300.0
"""Seconds that the service may ask for by ``Retry-After``."""


class Pace:
    """
    Adds one start in flight a round of good answers, halves on trouble, and pauses as long as it is asked to.

    Times are seconds of one clock.
    """

    def __init__(self, begin: int, most: int = MOST) -> None:
        self.limit = float(begin)
        """How many starts may be in flight; whole ones count."""
        self.resume = -inf
        """When the next start may begin."""
        self._most = max(begin, most)
        self._quickest = inf
        self._cut = -inf
        self._troubles = 0

    def room(self, in_flight: int, now: float) -> int:
        """How many starts may begin now."""
        return 0 if now < self.resume else max(0, int(self.limit) - in_flight)

    def answered(self, took: float) -> None:
        """A start was answered after so many seconds, whatever the answer was."""
        self._troubles = 0
        self._quickest = min(took, self._quickest * FORGETTING)
        if took <= STEADY * self._quickest:
            self.limit = min(self._most, self.limit + 1 / self.limit)

    def troubled(self, began: float, now: float, retry_after: float | None = None) -> None:
        """
        The service is not up to it: 429, 503, a time-out or no connection.

        Those that were in flight together count as one trouble: `began` is when this one was sent.
        """
        if began >= self._cut:
            self.limit, self._cut = max(1.0, self.limit / 2), now
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._troubles, 30))
            self._troubles += 1
            self.resume = max(self.resume, now + pause)
        if retry_after is not None:
            self.resume = max(self.resume, now + min(retry_after, LONGEST_ASKED))
