"""
Decide whether a round reads the list of all instances, and how many runs it requests one by one. Pure, no I/O.

    few runs, or a long list      the list costs the service more than the runs: each run is requested
    the list succeeds             one list a round, and 1 % of the runs beside it
    the list fails, again and again, while runs can be read
                                  the list is spared for a minute; twice as many requests as before rotate over the runs
    the list is about to fail, because the service has too many instances
                                  the list is spared for ten minutes; a few hundred requests rotate over the runs

Where the list ends, computed for items of 5 KB, for which the service needs 0.6 to 1.3 ms each (see `MAX_LIST_ITEMS`):

    46,000 instances    60 s: the proxy gives up, and so does this client, if nothing has arrived
    200,000 instances   1 GiB, the longest list that is read; 50,000 of them have 256 MiB
    15,000 instances    20 s, the default of ``Config.timeout``, which does not apply to the list unless it is changed
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

MAX_RUNS_WITHOUT_LIST = 5
"""Up to this many runs are always requested one by one."""

MAX_LIST_ITEMS_PER_RUN = 50
"""
Items in the list for each watched run, above which one request for each run is better.

Measured: a request for one run costs the service as much as 10 to 25 items. The limit is higher, because the list is a
single request and shows all runs.
"""

MAX_LIST_ITEMS = 37_000
"""
Items in a list after which the list is spared, as it may soon fail: 80 % of what the service lists in 60 s.

Measured on the real service: 408 queued instances take 0.13 to 0.27 s and 1.06 MB, 116 others 0.05 s and 228 KB, so a
megabyte takes up to 0.25 s, and an item of a finished run with its 5 KB up to 1.3 ms.
"""

MAX_LIST_SECONDS_SHARE = 0.8
"""Share of the read timeout after which a list is spared too, however few items it has."""

MAX_LIST_FAILURES = 3
"""Consecutive failures of the list, while single runs can be read, after which it is spared."""

FAILING_LIST_PAUSE = 60.0
"""Seconds for which a list that fails is spared. If it fails again after that, it is spared again."""

LONG_LIST_PAUSE = 600.0
"""Seconds for which a list that is too long is spared: ten times what it may take."""

MAX_DETAIL_REQUESTS = 3
"""Requests for single runs in a round, or between two rounds, while the list is used."""

DETAIL_SHARE = 0.01
"""
Share of the runs that are requested in a round if that is more.

A killed orchestrator, which the list never shows, is so found within 100 rounds, among however many runs. It adds a
tenth to the cost of the list, because a request costs as much as ten items.
"""

MAX_SINGLE_REQUESTS = 300
"""Requests in a round without the list: the service needs 3 s for them, and rests for the longest pause, 30 s."""


class RequestLimits(NamedTuple):
    """How many runs may be requested one by one."""

    in_round: int
    """In a round, beside the list or in its place."""
    between: int | None
    """Between two rounds, in all; None without a limit. If the list is used, new runs do not count."""


class ListUse:
    """
    Whether the list is used, by its newest size and the results of the newest requests for it.

    Args:
        read_timeout: Longest silence in seconds before the list fails.
    """

    def __init__(self, read_timeout: float) -> None:
        self._max_seconds = MAX_LIST_SECONDS_SHARE * read_timeout
        self._size = 0
        """Items in the newest list; 0 before the first."""
        self._failures = 0
        self._is_too_long = False
        self._spared_until = -inf

    def is_used(self, count: int, now: float) -> bool:
        """Return whether to read the list to know the statuses of this many runs."""
        return not self._is_needless(count) and now >= self._spared_until

    @property
    def is_on_trial(self) -> bool:
        """Whether the list was spared, and did not succeed since."""
        return self._is_too_long or self._failures >= MAX_LIST_FAILURES

    def is_failing(self, count: int, now: float) -> bool:
        """Return whether the list would be used if it did not fail."""
        return now < self._spared_until and not self._is_needless(count) and not self._is_too_long

    def request_limits(self, count: int, now: float) -> RequestLimits:
        """Return how many of this many runs may be requested one by one."""
        if count <= MAX_RUNS_WITHOUT_LIST:
            return RequestLimits(count, None)
        details = max(MAX_DETAIL_REQUESTS, int(count * DETAIL_SHARE))
        if self.is_used(count, now):
            return RequestLimits(details, MAX_DETAIL_REQUESTS)
        if self.is_failing(count, now):
            # With those between the rounds at most twice as many as with the list.
            return RequestLimits(2 * (1 + details) - MAX_DETAIL_REQUESTS, MAX_DETAIL_REQUESTS)
        return RequestLimits(MAX_SINGLE_REQUESTS, MAX_SINGLE_REQUESTS)

    def arrived(self, size: int, seconds: float, now: float) -> bool:
        """
        Note a list. Return whether it is spared from now on, because it is too long.

        Args:
            size: Number of its items.
            seconds: How long the service took.
            now: The time.
        """
        self._size, self._failures = size, 0
        self._is_too_long = size > MAX_LIST_ITEMS or seconds > self._max_seconds
        if self._is_too_long:
            self._spared_until = now + LONG_LIST_PAUSE
        return self._is_too_long

    def failed(self, now: float) -> None:
        """Note that the list failed, while single runs could be read."""
        self._failures += 1
        if self.is_on_trial:
            self._spared_until = now + (LONG_LIST_PAUSE if self._is_too_long else FAILING_LIST_PAUSE)

    def _is_needless(self, count: int) -> bool:
        return count <= MAX_RUNS_WITHOUT_LIST or self._size > MAX_LIST_ITEMS_PER_RUN * count
