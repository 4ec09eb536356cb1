"""
Faults that a test plants: what goes wrong, for which requests, and how often.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


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
    """The ids of the items that are missing, or what share of all items is: 0 to 1, evenly spread."""

    def __post_init__(self) -> None:
        """Refuse what is neither ids nor a share."""
        if isinstance(self.missing, str) or (isinstance(self.missing, int | float) and not 0 <= self.missing <= 1):
            raise ValueError(f"missing must be ids or a share from 0 to 1, not {self.missing!r}")

    def shorten(self, body: bytes) -> bytes:
        """A list in JSON without the items that are missing; anything else as it is."""
        items = json.loads(body)
        if not isinstance(items, list):
            return body
        left = [item for index, item in enumerate(items) if not self._lacks(index, item["id"])]
        return json.dumps(left).encode() + b"\n"

    def _lacks(self, index: int, rest_uid: str) -> bool:
        if isinstance(self.missing, int | float):
            return int((index + 1) * self.missing) > int(index * self.missing)
        return rest_uid in self.missing


Fault = Delay | Reply | DropBefore | DropAfter | CutBody | Html | BadJson | ShortList


@dataclass
class _Planted:
    method: str
    pattern: str
    fault: Fault
    left: float

    def fits(self, method: str, path: str) -> bool:
        if self.left <= 0 or self.method not in ("*", method):
            return False
        return _fits(self.pattern, path) or _fits(self.pattern, path.removeprefix("/rs"))


class Faults:
    """
    The faults of one server. Safe to use from any thread while the server runs.

    Examples::

        server.faults.add("POST /experiments/*/start", DropAfter())          # once
        server.faults.add("GET /instances/$", Html(502), times=3)            # the list, not its items
        server.faults.add("* /", Reply(503, {"Retry-After": "1"}), times=2)  # any method, any path
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planted: list[_Planted] = []

    def add(self, match: str, fault: Fault, times: int | None = 1) -> None:
        """
        Plant a fault for the next requests that match; earlier faults are used up first.

        Args:
            match: A method (or ``*``), a blank, and the path: its beginning, all of it followed by ``$``,
                or a pattern with ``*``, ``?`` and ``[...]``. The path may leave out ``/rs``.
            fault: What goes wrong.
            times: For how many requests; None: for all, until `clear`.

        Raises:
            ValueError: The match is not of that form, or times is below 1.
        """
        method, _, pattern = match.partition(" ")
        if not method or not pattern.startswith(("/", "*")):
            raise ValueError(f"match must look like 'GET /instances/', not {match!r}")
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1 or None, not {times!r}")
        left = float("inf") if times is None else times
        with self._lock:
            self._planted.append(_Planted(method.upper(), pattern, fault, left))

    def clear(self) -> None:
        """Forget all faults that are still planted."""
        with self._lock:
            self._planted.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, which is used up by asking; None: all goes well."""
        with self._lock:
            for planted in self._planted:
                if planted.fits(method, path):
                    planted.left -= 1
                    return planted.fault
        return None


def _fits(pattern: str, path: str) -> bool:
    if any(character in pattern for character in "*?["):
        return fnmatchcase(path, pattern.removesuffix("$"))
    if pattern.endswith("$"):
        return path == pattern[:-1]
    return path.startswith(pattern)
