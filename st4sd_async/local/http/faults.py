"""
Faults that a test plants: what goes wrong, for which requests, and how often.
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
    """The request is handled only after some seconds of real time."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """This is the answer, whatever was asked."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """For instance ``{"Retry-After": "1"}``."""
    body: bytes = b""
    """The body, text/html unless the headers say otherwise."""
    handled: bool = False
    """
    Handle the request first and throw its own answer away: the service fails so after it made a run, when it
    cannot make what belongs to it.
    """


@dataclass(frozen=True)
class DropBefore:
    """The connection breaks before the request is handled."""


@dataclass(frozen=True)
class DropAfter:
    """The request is handled, then the connection breaks without an answer."""


@dataclass(frozen=True)
class CutBody:
    """The request is handled; the connection breaks in the middle of the body of the answer."""

    after_bytes: int


@dataclass(frozen=True)
class Html:
    """The request is not handled; a page of the proxy is the answer, such as 502 or 504."""

    status: int = 502


@dataclass(frozen=True)
class BadJson:
    """The request is handled; the answer is complete as HTTP, but only the first half of its JSON."""


@dataclass(frozen=True)
class ShortList:
    """
    The request is handled; the list that is the answer lacks items, and nothing tells.

    The list of instances is so when the service swallows an error that it meets on the way.
    """

    missing: Collection[str] | float
    """The ids of the items that are missing, or what share of all items is: 0 to 1."""
    at_random: bool = False
    """Whether a share is of items chosen anew for each answer, instead of evenly spread ones."""

    def __post_init__(self) -> None:
        """Refuse what is neither ids nor a share."""
        if isinstance(self.missing, str) or (isinstance(self.missing, int | float) and not 0 <= self.missing <= 1):
            raise ValueError(f"missing must be ids or a share from 0 to 1, not {self.missing!r}")

    def left(self, items: list[Any]) -> list[Any]:
        """The items of a list that are not missing."""
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
    The request is handled; the list that is the answer ends before an item, with status 200.

    The list of instances ends so when the service fails to read one instance. Later instances stand behind it.
    """

    at: str | float
    """The id of the first item that is missing, as long as there is one; or what share of the list is left: 0 to 1."""

    def __post_init__(self) -> None:
        """Refuse a share that is out of range."""
        if not isinstance(self.at, str) and not 0 <= self.at <= 1:
            raise ValueError(f"at must be an id or a share from 0 to 1, not {self.at!r}")

    def left(self, items: list[Any]) -> list[Any]:
        """The items of a list before the break."""
        if not isinstance(self.at, str):
            return items[: int(len(items) * self.at)]
        ids = [item["id"] for item in items]
        return items[: ids.index(self.at)] if self.at in ids else items


def shorten(body: bytes, fault: ShortList | BreakOff) -> bytes:
    """A list in JSON with the items that a fault leaves; anything else as it is."""
    items = json.loads(body)
    if not isinstance(items, list):
        return body
    return json.dumps(fault.left(items)).encode() + b"\n"


Fault = Delay | Reply | DropBefore | DropAfter | CutBody | Html | BadJson | ShortList | BreakOff


@dataclass
class _Planted:
    method: str
    match: str
    pattern: str
    fault: Fault
    left: float
    every: int
    chance: float
    met: int = 0
    """Requests that matched."""

    def fits(self, method: str, path: str) -> bool:
        if self.left <= 0 or self.method not in ("*", method):
            return False
        return _fits(self.pattern, path) or _fits(self.pattern, path.removeprefix("/rs"))

    def hits(self) -> bool:
        """Whether it is the turn of a request that matches."""
        self.met += 1
        return self.met % self.every == 0 and random.random() < self.chance


class Faults:
    """
    The faults of one server. Safe to use from any thread while the server runs.

    Examples::

        server.faults.add("POST /experiments/*/start", DropAfter())          # once
        server.faults.add("GET /instances/$", Html(502), times=3)            # the list, not its items
        server.faults.add("* /", Reply(503, {"Retry-After": "1"}), times=2)  # any method, any path
        server.faults.add("* /ds-", Html(503), times=None, every=3)          # every third request
        server.faults.add("POST /", DropAfter(), times=None, chance=0.2)     # one in five, at random
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planted: list[_Planted] = []
        self._hits: Counter[str] = Counter()

    @property
    def hits(self) -> dict[str, int]:
        """How many requests met which fault so far: its match, a blank and its class -> a number; a snapshot."""
        with self._lock:
            return dict(self._hits)

    def add(self, match: str, fault: Fault, times: int | None = 1, *, every: int = 1, chance: float = 1.0) -> None:
        """
        Plant a fault for the next requests that match; earlier faults are used up first.

        Args:
            match: A method (or ``*``), a blank, and the path: its beginning, all of it followed by ``$``,
                or a pattern with ``*``, ``?`` and ``[...]``. The path may leave out ``/rs``.
            fault: What goes wrong.
            times: For how many requests; None: for all, until `clear`.
            every: Which of the requests that match it hits: 3 is the third, the sixth and so on.
            chance: Probability that it hits one of these, 0 to 1.

        Raises:
            ValueError: The match is not of that form, times or every is below 1, or chance is out of range.
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
        left = float("inf") if times is None else times
        with self._lock:
            self._planted.append(_Planted(method.upper(), match, pattern, fault, left, every, chance))

    def clear(self, match: str | None = None) -> None:
        """Forget the faults that are still planted for a match; None means all of them."""
        with self._lock:
            self._planted = [one for one in self._planted if match not in (None, one.match)]

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, which is used up by asking; None: all goes well."""
        with self._lock:
            for planted in self._planted:
                if planted.fits(method, path) and planted.hits():
                    planted.left -= 1
                    self._hits[f"{planted.match} {type(planted.fault).__name__}"] += 1
                    return planted.fault
        return None


def _fits(pattern: str, path: str) -> bool:
    if any(character in pattern for character in "*?["):
        return fnmatchcase(path, pattern.removesuffix("$"))
    if pattern.endswith("$"):
        return path == pattern[:-1]
    return path.startswith(pattern)
