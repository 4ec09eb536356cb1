"""
Which simulated runs go on at the same time, and which have to wait.
"""

from __future__ import annotations

import heapq
from collections import deque

from st4sd_async.local.simulator.simulated_run import NEVER, SimulatedRun


class Slots:
    """
    Places to run in, given to those that wait in the order of their starts. Not safe to share.

    No timer is behind it: whoever looks at a run lets it catch up with the time first.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[SimulatedRun] = deque()
        self._running: set[SimulatedRun] = set()
        self._ends: list[tuple[float, int, SimulatedRun]] = []

    def settle(self, now: float) -> None:
        """Pass on the slots that were given back until now."""
        while self._ends and self._ends[0][0] <= now:
            end, _, run = heapq.heappop(self._ends)
            self._give_back(run, end)

    def enter(self, run: SimulatedRun) -> None:
        """Let a run begin when it is started, or when there is a slot."""
        self._waiting.append(run)
        self._fill(run.started)

    def leave(self, run: SimulatedRun) -> None:
        """A run was deleted just now; its slot, if it has one, is free at once."""
        self._give_back(run, run.deleted)

    def _give_back(self, run: SimulatedRun, at: float) -> None:
        if run in self._running:
            self._running.remove(run)
            self._free += 1
            self._fill(at)

    def _fill(self, at: float) -> None:
        while self._free and self._waiting:
            run = self._waiting.popleft()
            if run.deleted == NEVER:
                self._free -= 1
                self._running.add(run)
                run.begun = at
                heapq.heappush(self._ends, (run.end, run.number, run))
