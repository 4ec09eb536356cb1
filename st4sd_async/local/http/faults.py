"""
Faults to inject into the embedded server: the kinds of faults, the requests that they hit, and how often.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Delay:
    """
    The delay comes before the request is handled. It is handled even if the client has closed the connection by then.

    Attributes:
        seconds: The delay in real seconds.
    """

    seconds: float


@dataclass(frozen=True)
class Reply:
    """
    This response is sent instead of the server's response.

    Attributes:
        status: The HTTP status.
        headers: The headers, such as ``{"Retry-After": "1"}``.
        body: The body. Its type is text/html unless the headers contain another type.
        handled: Whether to handle the request first, and discard its response. The service fails in this way if it
            has created a run but cannot create the objects that the run needs.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    handled: bool = False


@dataclass(frozen=True)
class DropBefore:
    """The connection is closed before the request is handled."""


@dataclass(frozen=True)
class DropAfter:
    """The request is handled, then the connection is closed without a response."""


@dataclass(frozen=True)
class CutBody:
    """
    The request is handled; the connection is closed in the middle of the response body.

    Attributes:
        after_bytes: Bytes of the body that are sent.
    """

    after_bytes: int


@dataclass(frozen=True)
class Html:
    """
    The request is not handled; the response is a page of the proxy.

    Attributes:
        status: The HTTP status, such as 502 or 504.
    """

    status: int = 502


@dataclass(frozen=True)
class BadJson:
    """The request is handled; the response is valid HTTP, but contains only the first half of the JSON."""


@dataclass(frozen=True)
class ShortList:
    """
    The request is handled; items are silently missing from the list in the response.

    In the service, this happens to the list of instances if an error is ignored while the list is created.

    Attributes:
        missing: Ids of the missing items, or the share of missing items, from 0 to 1.
        at_random: Whether the share consists of random items, chosen anew for each response, instead of evenly spread
            ones.
    """

    missing: Collection[str] | float
    at_random: bool = False

    def __post_init__(self) -> None:
        """Check that ``missing`` is ids or a share."""
        if isinstance(self.missing, str) or (isinstance(self.missing, int | float) and not 0 <= self.missing <= 1):
            raise ValueError(f"missing must be ids or a share from 0 to 1, not {self.missing!r}")

    def left(self, items: list[Any]) -> list[Any]:
        """Return the items that are not missing."""
        return [item for index, item in enumerate(items) if not self._lacks(index, item["id"])]

    def _lacks(self, index: int, rest_uid: str) -> bool:
        if not isinstance(self.missing, int | float):
            return rest_uid in self.missing
        if self.at_random:
            return random.random() < self.missing
        return int((index + 1) * self.missing) > int(index * self.missing)


@dataclass(frozen=True)
class BreakOff:
    """
    The request is handled; the list in the response ends before an item, with status 200.

    In the service, this happens to the list of instances if it fails to read an instance. Later ones are missing too.

    Attributes:
        at: Id of the first missing item, or the share of items that remain, from 0 to 1. An unknown id has no effect.
    """

    at: str | float

    def __post_init__(self) -> None:
        """Check that a share is in range."""
        if not isinstance(self.at, str) and not 0 <= self.at <= 1:
            raise ValueError(f"at must be an id or a share from 0 to 1, not {self.at!r}")

    def left(self, items: list[Any]) -> list[Any]:
        """Return the items before the end."""
        if not isinstance(self.at, str):
            return items[: int(len(items) * self.at)]
        ids = [item["id"] for item in items]
        return items[: ids.index(self.at)] if self.at in ids else items


def shorten(body: bytes, fault: ShortList | BreakOff) -> bytes:
    """Return a JSON list without the items that the fault removes; return other JSON unchanged."""
    items = json.loads(body)
    if not isinstance(items, list):
        return body
    return json.dumps(fault.left(items)).encode() + b"\n"


Fault = Delay | Reply | DropBefore | DropAfter | CutBody | Html | BadJson | ShortList | BreakOff


@dataclass
class _InjectedFault:
    method: str
    match: str
    pattern: str
    fault: Fault
    remaining: float
    every: int
    chance: float
    matched: int = 0
    """Number of requests that matched."""

    def matches(self, method: str, path: str) -> bool:
        if self.remaining <= 0 or self.method not in ("*", method):
            return False
        return _path_matches(self.pattern, path) or _path_matches(self.pattern, path.removeprefix("/rs"))

    def hits(self) -> bool:
        """Count a matching request, and return whether the fault hits it."""
        self.matched += 1
        return self.matched % self.every == 0 and random.random() < self.chance


class Faults:
    """
    The faults of one server. Safe to use from any thread.

    Examples::

        server.faults.add("POST /experiments/*/start", DropAfter())          # once
        server.faults.add("GET /instances/$", Html(502), times=3)            # the list, not its items
        server.faults.add("* /", Reply(503, {"Retry-After": "1"}), times=2)  # any method, any path
        server.faults.add("* /ds-", Html(503), times=None, every=3)          # every third request
        server.faults.add("POST /", DropAfter(), times=None, chance=0.2)     # one in five, at random
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._injected: list[_InjectedFault] = []
        self._hits: Counter[str] = Counter()

    @property
    def hits(self) -> dict[str, int]:
        """A snapshot of the number of hits: match, a space and class of a fault -> number of requests."""
        with self._lock:
            return dict(self._hits)

    def add(self, match: str, fault: Fault, times: int | None = 1, *, every: int = 1, chance: float = 1.0) -> None:
        """
        Inject a fault into the next matching requests. Faults that were added earlier are used up first.

        Args:
            match: A method (or ``*``), a space, and the beginning of a path, a whole path followed by ``$``, or a
                pattern with ``*``, ``?`` and ``[...]``. The path may omit ``/rs``.
            fault: The fault.
            times: Number of requests. None means all, until `clear` is called.
            every: Hit only every n-th matching request: 3 hits the third, the sixth, and so on.
            chance: Probability of a hit, 0 to 1.

        Raises:
            ValueError: The match is malformed, times or every is below 1, or chance is out of range.
        """
        method, _, pattern = match.partition(" ")
        if not method or not pattern.startswith(("/", "*")):
            raise ValueError(f"match must look like 'GET /instances/', not {match!r}")
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1 or None, not {times!r}")
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every!r}")
        if not 0 <= chance <= 1:
            raise ValueError(f"chance must be a number from 0 to 1, not {chance!r}")
        remaining = float("inf") if times is None else times
        with self._lock:
            self._injected.append(_InjectedFault(method.upper(), match, pattern, fault, remaining, every, chance))

    def clear(self, match: str | None = None) -> None:
        """Remove the faults that were added for a match; None means all faults."""
        with self._lock:
            self._injected = [injected for injected in self._injected if match not in (None, injected.match)]

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault for a request, and count it as used; None if no fault hits the request."""
        with self._lock:
            for injected in self._injected:
                if injected.matches(method, path) and injected.hits():
                    injected.remaining -= 1
                    self._hits[f"{injected.match} {type(injected.fault).__name__}"] += 1
                    return injected.fault
        return None


def _path_matches(pattern: str, path: str) -> bool:
    if any(character in pattern for character in "*?["):
        return fnmatchcase(path, pattern.removesuffix("$"))
    if pattern.endswith("$"):
        return path == pattern[:-1]
    return path.startswith(pattern)
