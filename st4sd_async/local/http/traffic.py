"""
What a server is asked and what that costs it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

REMEMBERED_REQUESTS = 10_000
"""How many of the requests that arrived are remembered one by one."""


@dataclass(frozen=True)
class Cost:
    """What some requests cost the server."""

    requests: int = 0
    """How many arrived, refused and faulted ones included."""
    sent: int = 0
    """Bytes of the bodies of their answers, as far as they were sent."""
    seconds: float = 0.0
    """Processor time of their handlers in seconds; what waits costs nothing."""


@dataclass(frozen=True)
class Traffic(Cost):
    """
    What all requests cost, and each kind of them; a snapshot.

    Examples::

        server.traffic.requests                      # how many there were
        server.traffic["GET /instances/"].sent       # bytes of all lists; 0 if nobody asked for one
        server.traffic["GET /instances/*/status"]    # ids are asterisks, /rs is left out
        server.traffic.kinds                         # kind -> `Cost`; "GET *" is a path that leads nowhere
    """

    kinds: Mapping[str, Cost] = field(default_factory=dict)
    """The kinds that there were, in the order of their first requests."""

    def __getitem__(self, kind: str) -> Cost:
        """What a kind of requests cost."""
        return self.kinds.get(kind, Cost())

    def __contains__(self, kind: str) -> bool:
        """Whether there were requests of a kind."""
        return kind in self.kinds


class Log:
    """Counts what arrives and what it costs. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrived: deque[tuple[str, str]] = deque(maxlen=REMEMBERED_REQUESTS)
        self._kinds: dict[str, Cost] = {}

    def arrive(self, method: str, path: str, kind: str) -> None:
        """Note a request."""
        with self._lock:
            self._arrived.append((method, path))
            self._add(kind, Cost(requests=1))

    def spend(self, kind: str, *, sent: int = 0, seconds: float = 0.0) -> None:
        """Note what a request costs."""
        with self._lock:
            self._add(kind, Cost(0, sent, seconds))

    def requests(self) -> list[tuple[str, str]]:
        """Method and path of the last requests."""
        with self._lock:
            return list(self._arrived)

    def traffic(self) -> Traffic:
        """All costs until now."""
        with self._lock:
            kinds = dict(self._kinds)
        costs = kinds.values()
        seconds = sum(cost.seconds for cost in costs)
        return Traffic(sum(cost.requests for cost in costs), sum(cost.sent for cost in costs), seconds, kinds)

    def _add(self, kind: str, more: Cost) -> None:
        known = self._kinds.get(kind, Cost())
        self._kinds[kind] = Cost(known.requests + more.requests, known.sent + more.sent, known.seconds + more.seconds)
