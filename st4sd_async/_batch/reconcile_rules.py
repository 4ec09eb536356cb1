"""
Was it started? A pure verdict on what the service showed after a start whose outcome is unknown.

Absence is proven, never assumed. A piece of evidence is a look whose list showed every instance that it must show,
in which the datastore answered, and that showed no open candidate: an instance that may be the run. The start is
absent if the evidence spans a settle window. Other looks count for nothing, and reset nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

from ..models.rest_uid import is_of_package, version_of
from .state import Row

PATIENCE = 3
"""Settle windows after which a launch that is still in doubt is reported."""

PIECES = 5
"""Pieces of evidence that a settle window takes at least."""

LONGEST_GAP = 0.5
"""Share of the settle window that the time between two pieces of evidence counts for at most."""

ROUNDING = 1e-5
"""Share of the window that may be missing: a sum of moments is not exact."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of one instance."""

    rest_uid: str
    package: str | None
    """Name of its package; None means unknown."""
    token: str | None = None
    """The token in its metadata; None means that it has none."""
    has_metadata: bool = False
    """Whether it has metadata: without, it may be the run of any launch."""
    is_over: bool = False
    """Whether a request for it showed that it has ended, by the rules of `_finality`."""
    has_executed: bool | None = None
    """
    Whether it has executed a component.

    False: a request for it showed neither stages nor metadata, and the datastore answered that it has no document
    of it. None means unknown.
    """


@dataclass(frozen=True)
class Listed:
    """What the list of instances shows."""

    sightings: Mapping[str, Sighting]
    """rest-uid -> what it shows of that instance."""
    is_readable: bool = True
    """Whether all its items could be read: one that has no rest-uid may be any instance."""


@dataclass(frozen=True)
class Known:
    """What the journal knows of instances."""

    owners: Mapping[str, str]
    """rest-uid -> the key that started it."""
    seen: Mapping[str, int]
    """rest-uid -> the first opening in which it was there before anything was sent."""
    gone: Set[str] = frozenset()
    """rest-uids of instances that a request for them showed to be deleted."""


@dataclass(frozen=True)
class Look:
    """One look at the service."""

    at: float
    """When the list was asked for, in seconds of the monotonic clock of this process."""
    sightings: Mapping[str, Sighting]
    """rest-uid -> what was seen of it, in the list or elsewhere."""
    is_evidence: bool
    """Whether the list showed every instance that it must show, and the datastore answered."""
    _without: dict[tuple[str, str | None, bool], list[str]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def tokens(self) -> Mapping[str, list[str]]:
        """token -> the rest-uids of the instances that carry it."""
        found: dict[str, list[str]] = {}
        for uid, seen in self.sightings.items():
            if seen.token is not None:
                found.setdefault(seen.token, []).append(uid)
        return found

    @cached_property
    def _anonymous(self) -> list[Sighting]:
        return [seen for seen in self.sightings.values() if not seen.has_metadata]

    def without_metadata(self, package: str, version: str | None, *, has_policy: bool) -> list[str]:
        """The instances without metadata that may be of a package and version; the same list at each call."""
        wanted = package, version, has_policy
        if wanted not in self._without:
            self._without[wanted] = [seen.rest_uid for seen in self._anonymous if _may_be_of(seen, *wanted)]
        return self._without[wanted]


def _may_be_of(seen: Sighting, package: str, version: str | None, has_policy: bool) -> bool:
    """Return whether an instance may be of a package; False only if its id and its label agree that it is not."""
    if has_policy:
        return True  # the service may have chosen any other package
    its = version_of(seen.rest_uid)
    if version is not None and its is not None and its != version:
        return False
    if is_of_package(seen.rest_uid, package):
        return True
    return its is None if seen.package is None else seen.package == package


@dataclass
class Window:
    """The settle window of one doubt: the evidence that this process has collected."""

    length: float
    """Seconds that the evidence must span."""
    began: float
    """When the doubt began in this process; no earlier look counts."""
    pieces: int = 0
    """Pieces of evidence."""
    _looks: int = 0
    _last: float = 0.0
    _span: float = 0.0
    """Seconds from the first piece to the last, long gaps cut."""

    def take(self, at: float, *, is_evidence: bool) -> None:
        """Take note of a look."""
        self._looks += 1
        if not is_evidence or at < self.began:
            return
        if self.pieces:
            self._span += min(max(0.0, at - self._last), self.length * LONGEST_GAP)
        self._last = at
        self.pieces += 1

    @property
    def missing(self) -> float:
        """Seconds that the evidence does not span yet."""
        missing = self.length - self._span
        return missing if missing > self.length * ROUNDING else 0.0

    @property
    def is_proof(self) -> bool:
        """Whether the evidence proves absence."""
        return self.pieces >= PIECES and self.missing == 0

    def has_lasted(self, windows: float, now: float) -> bool:
        """Return whether the doubt is at least so many windows old, and was looked into at all."""
        return self._looks >= PIECES and now - self.began >= windows * self.length


@dataclass(frozen=True)
class Found:
    """It was started."""

    rest_uid: str


@dataclass(frozen=True)
class Absent:
    """It was not started, and never will be; or its run was over before it executed anything."""

    never_executed: tuple[str, ...] = ()
    """rest-uids of instances that may have been its run, and never executed anything."""


@dataclass(frozen=True)
class Wait:
    """It cannot be told yet."""

    candidates: tuple[str, ...] = ()
    """rest-uids of instances that may be its run."""
    never_executed: tuple[str, ...] = ()
    """rest-uids of instances that are, or were, candidates and had executed nothing when last asked for."""


@dataclass(frozen=True)
class CannotTell(Wait):
    """It cannot be told, now or later."""


Verdict = Found | Absent | Wait


def candidates(doubt: Row, look: Look, known: Known, *, has_policy: bool = False) -> tuple[str, ...]:
    """
    Return the instances that may be the run of a launch in doubt.

    They are of its package and version, have no metadata, are owned by no launch, and were not there before it was
    sent. A candidate that the look does not show stays one.

    Args:
        doubt: The launch.
        look: What was seen.
        known: What the journal knows.
        has_policy: Whether the payload has a runtime policy, which may choose another package.
    """
    listed = look.without_metadata(doubt.package, doubt.version, has_policy=has_policy)
    found = [uid for uid in listed if known.seen.get(uid, inf) > doubt.opening]
    missing = [uid for uid in doubt.candidates if uid not in look.sightings]
    return tuple(dict.fromkeys(uid for uid in (*found, *missing) if uid not in known.owners))


def judge(doubt: Row, token: str, look: Look, known: Known, window: Window, *, has_policy: bool = False) -> Verdict:
    """
    Return the verdict on one launch in doubt.

    Args:
        doubt: The launch, whose state is ``unknown``.
        token: The token that its run carries.
        look: What was seen now.
        known: What the journal knows.
        window: The evidence so far, to which this look is added.
        has_policy: Whether the payload has a runtime policy.
    """
    ours = look.tokens.get(token, [])
    free = [uid for uid in ours if uid not in known.owners]
    if len(free) == 1:
        return Found(free[0])
    if free:
        return CannotTell(tuple(free), doubt.never_executed)
    possible = candidates(doubt, look, known, has_policy=has_policy)
    idle = tuple(uid for uid in dict.fromkeys((*doubt.never_executed, *possible)) if _is_idle(uid, doubt, look))
    # One of ours that another launch owns was started all the same.
    blocking = (*ours, *(uid for uid in possible if not (uid in idle and _is_over(uid, look, known))))
    window.take(look.at, is_evidence=look.is_evidence and not blocking)
    if not blocking and look.is_evidence and window.is_proof:
        return Absent(idle)
    # One that executed something and ended without metadata will never show whose it was.
    is_lost = any(_is_over(uid, look, known) and _has_executed(uid, idle, look) for uid in blocking)
    if window.has_lasted(1 if is_lost else PATIENCE, look.at):
        return CannotTell(blocking, idle)
    return Wait(blocking, idle)


def _is_over(uid: str, look: Look, known: Known) -> bool:
    seen = look.sightings.get(uid)
    return uid in known.gone if seen is None else seen.is_over


def _is_idle(uid: str, doubt: Row, look: Look) -> bool:
    """Return whether an instance had executed nothing when it was last asked for."""
    seen = look.sightings.get(uid)
    if seen is None or (seen.has_executed is None and not seen.has_metadata):
        return uid in doubt.never_executed
    return seen.has_executed is False


def _has_executed(uid: str, idle: Collection[str], look: Look) -> bool:
    """Return whether an instance executed something, or is gone and may have."""
    seen = look.sightings.get(uid)
    return uid not in idle if seen is None else seen.has_executed is True
