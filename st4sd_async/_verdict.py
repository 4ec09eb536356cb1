"""
Was it started? A pure verdict on what was seen of the service after a start whose outcome is unknown.

Never guess: absence is believed only after the settle window, of a list that shows what it must show,
and while no instance is there that may be the one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from ._moves import Row

PATIENCE = 3
"""Settle windows that a candidate, or a list that proves something, is waited for."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of one instance."""

    rest_uid: str
    package: str | None
    """Name of its package; None: it cannot be told."""
    token: str | None = None
    """What it carries of ours in its metadata."""
    has_metadata: bool = False
    """Whether it has metadata: without, it may be anybody's."""
    is_over: bool = False
    """Whether it has ended, so that no metadata will come."""


@dataclass(frozen=True)
class Known:
    """What the journal knows of instances."""

    owners: Mapping[str, str]
    """rest-uid -> the key that started it."""
    seen: Mapping[str, int]
    """rest-uid -> the first opening in which it was there before anything was sent."""


@dataclass(frozen=True)
class Look:
    """One look at the service."""

    at: float
    """When the list was asked for, in seconds of the wall clock."""
    sightings: Mapping[str, Sighting]
    """rest-uid -> what was seen of it, in the list or elsewhere."""
    is_evidence: bool
    """Whether what the list does not show is not there."""


@dataclass(frozen=True)
class Found:
    """It was started."""

    rest_uid: str


@dataclass(frozen=True)
class Absent:
    """It was not started, and never will be."""


@dataclass(frozen=True)
class Wait:
    """It cannot be told yet."""

    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class CannotTell:
    """It cannot be told, now or later."""

    candidates: tuple[str, ...] = ()


Verdict = Found | Absent | Wait | CannotTell


def is_evidence(shown: Iterable[str], alive: Iterable[str], baseline: int) -> bool:
    """
    Whether a list is to be believed about what it does not show: the service leaves out what it fails to read.

    Args:
        shown: rest-uids in the list.
        alive: rest-uids of the runs that the journal started and has not seen deleted.
        baseline: How long the list was before the journal's first send.
    """
    listed, started = set(shown), set(alive)
    return started <= listed if started else len(listed) >= baseline


def candidates(doubt: Row, look: Look, known: Known) -> tuple[str, ...]:
    """The instances that may be the one: of its package, of nobody, without metadata, and not there before."""
    found = {
        uid: None
        for uid, seen in look.sightings.items()
        if not seen.has_metadata
        and seen.package in (None, doubt.package)
        and uid not in known.owners
        and known.seen.get(uid, inf) > doubt.opening
    }
    # One that was a candidate and is gone never showed whose it was.
    for uid in doubt.candidates:
        if uid not in look.sightings and uid not in known.owners:
            found[uid] = None
    return tuple(found)


def judge(doubt: Row, token: str, look: Look, known: Known, waited: Mapping[str, float], settle: float) -> Verdict:
    """
    The verdict on one launch.

    Args:
        doubt: The launch, whose state is ``unknown``.
        token: What its run carries.
        look: What was seen now.
        known: What the journal knows.
        waited: rest-uid -> how many seconds ago it was first seen to be a candidate; and under "" how many
            seconds ago the first look was that was answered.
        settle: The settle window in seconds.
    """
    ours = [uid for uid, seen in look.sightings.items() if seen.token == token and uid not in known.owners]
    if len(ours) == 1:
        return Found(ours[0])
    if ours:
        return CannotTell(tuple(ours))
    possible = candidates(doubt, look, known)
    if look.at - doubt.since < settle:
        return Wait(possible)
    patience = PATIENCE * settle
    if possible:
        hopeful = [uid for uid in possible if not _is_over(uid, look) and waited.get(uid, 0.0) < patience]
        return Wait(possible) if hopeful else CannotTell(possible)
    if look.is_evidence:
        return Absent()
    return Wait() if waited.get("", 0.0) < patience else CannotTell()


def _is_over(uid: str, look: Look) -> bool:
    """Whether a candidate has ended; one that only the list fails to show may still be there."""
    seen = look.sightings.get(uid)
    return look.is_evidence if seen is None else seen.is_over
