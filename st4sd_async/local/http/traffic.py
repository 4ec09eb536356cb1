"""
The log of requests: their number, and their cost for the server.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_LOGGED_REQUESTS = 10_000
"""Number of requests whose method and path are kept. Older requests are only counted."""


@dataclass(frozen=True)
class Cost:
    """
    The cost of requests of one kind.

    Attributes:
        requests: Number of requests, including rejected requests and those hit by a fault.
        sent: Bytes sent in response bodies.
        seconds: CPU time of the handlers in seconds, without waiting.
    """

    requests: int = 0
    sent: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Traffic(Cost):
    """
    A snapshot of the cost of all requests, in total and by kind.

    Examples::

        server.traffic.requests                      # number of requests
        server.traffic["GET /instances/"].sent       # bytes of all lists
        server.traffic["GET /instances/*/status"]    # ids become asterisks, /rs is left out
        server.traffic.kinds                         # kind -> `Cost`; "GET *" counts paths without a route

    Attributes:
        requests, sent, seconds: The total of all kinds, as in `Cost`.
        kinds: Cost by kind, in the order of the first requests.
    """

    kinds: Mapping[str, Cost] = field(default_factory=dict)

    def __getitem__(self, kind: str) -> Cost:
        """Return the cost of a kind of requests; zero if there were none."""
        return self.kinds.get(kind, Cost())

    def __contains__(self, kind: str) -> bool:
        """Return whether there were requests of a kind."""
        return kind in self.kinds


class RequestLog:
    """Counts requests and their cost. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: deque[tuple[str, str]] = deque(maxlen=MAX_LOGGED_REQUESTS)
        self._kinds: dict[str, Cost] = {}

    def record_request(self, method: str, path: str, kind: str) -> None:
        """Count a received request."""
        with self._lock:
            self._requests.append((method, path))
            self._add(kind, Cost(requests=1))

    def record_cost(self, kind: str, *, sent: int = 0, seconds: float = 0.0) -> None:
        """Add to the cost of a request."""
        with self._lock:
            self._add(kind, Cost(0, sent, seconds))

    def requests(self) -> list[tuple[str, str]]:
        """Return method and path of the last `MAX_LOGGED_REQUESTS` requests."""
        with self._lock:
            return list(self._requests)

    def traffic(self) -> Traffic:
        """Return a snapshot of all costs."""
        with self._lock:
            kinds = dict(self._kinds)
        costs = kinds.values()
        seconds = sum(cost.seconds for cost in costs)
        return Traffic(sum(cost.requests for cost in costs), sum(cost.sent for cost in costs), seconds, kinds)

    def _add(self, kind: str, more: Cost) -> None:
        cost = self._kinds.get(kind, Cost())
        self._kinds[kind] = Cost(cost.requests + more.requests, cost.sent + more.sent, cost.seconds + more.seconds)
