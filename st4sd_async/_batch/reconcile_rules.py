"""
Decide whether a launch in doubt was started. Pure rules, based on what the service shows.

Absence is proven, never assumed. A candidate is an instance that may be the run. An observation is evidence if the list
showed every instance that it must show, the datastore responded, and no candidate was open. The launch was not started
if the evidence spans a settle window. Any other observation is ignored; it does not reset the evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

from ..models.runs import is_of_package, version_of
from .state import LaunchRecord

MAX_WINDOWS = 3
"""Settle windows after which a launch that is still in doubt is reported."""

MIN_EVIDENCE = 5
"""Minimum number of observations that are evidence."""

MAX_GAP_SHARE = 0.5
"""The time between two pieces of evidence counts for at most this share of the settle window."""

ROUNDING_SHARE = 1e-5
"""Share of the window that may be missing, because sums of times are not exact."""


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """What the service showed of one instance."""

    rest_uid: str
    package: str | None
    """Name of its package. None means unknown."""
    token: str | None = None
    """The token in its metadata. None means no token."""
    has_metadata: bool = False
    """Whether it has metadata. Without metadata it may be the run of any launch."""
    is_over: bool = False
    """Whether a request for it showed that it has ended, by the rules of finality."""
    has_executed: bool | None = None
    """
    Whether it has executed a component. None means unknown.

    False means that a request for it showed neither stages nor metadata, and that the datastore responded and has no
    document of it.
    """


@dataclass(frozen=True)
class InstanceList:
    """What the list of instances shows."""

    instances: Mapping[str, ObservedInstance]
    """By rest-uid."""
    is_readable: bool = True
    """Whether all items could be read. An item without a rest-uid may be any instance."""


@dataclass(frozen=True)
class KnownInstances:
    """What the journal knows of instances."""

    owners: Mapping[str, str]
    """rest-uid -> key of the launch that started it."""
    seen: Mapping[str, int]
    """rest-uid -> the first opening in which it existed before anything was sent."""
    deleted: Set[str] = frozenset()
    """rest-uids of instances that a request showed to be deleted."""


@dataclass(frozen=True)
class Observation:
    """What the service showed at one moment."""

    at: float
    """When the list was requested, by the monotonic clock of this process."""
    instances: Mapping[str, ObservedInstance]
    """By rest-uid, from the list or elsewhere."""
    is_evidence: bool
    """Whether the list showed every instance that it must show, and the datastore responded."""
    _without_metadata: dict[tuple[str, str | None, bool], list[str]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def tokens(self) -> Mapping[str, list[str]]:
        """token -> rest-uids of the instances that carry it."""
        found: dict[str, list[str]] = {}
        for uid, instance in self.instances.items():
            if instance.token is not None:
                found.setdefault(instance.token, []).append(uid)
        return found

    @cached_property
    def _anonymous(self) -> list[ObservedInstance]:
        return [instance for instance in self.instances.values() if not instance.has_metadata]

    def without_metadata(self, package: str, version: str | None, *, has_policy: bool) -> list[str]:
        """Return the instances without metadata that may be of a package and version. The result is cached."""
        wanted = package, version, has_policy
        if wanted not in self._without_metadata:
            self._without_metadata[wanted] = [
                instance.rest_uid for instance in self._anonymous if _may_be_of(instance, *wanted)
            ]
        return self._without_metadata[wanted]


def _may_be_of(instance: ObservedInstance, package: str, version: str | None, has_policy: bool) -> bool:
    """Return whether an instance may be of a package. It is not if both its id and its label name another one."""
    if has_policy:
        return True  # the service may have chosen any other package
    its_version = version_of(instance.rest_uid)
    if version is not None and its_version is not None and its_version != version:
        return False
    if is_of_package(instance.rest_uid, package):
        return True
    return its_version is None if instance.package is None else instance.package == package


@dataclass
class SettleWindow:
    """The evidence that this process has collected about one launch in doubt."""

    length: float
    """Seconds that the evidence must span."""
    began: float
    """When this process put the launch in doubt. Earlier observations do not count."""
    evidence: int = 0
    """Number of observations that were evidence."""
    _observations: int = 0
    _last: float = 0.0
    _span: float = 0.0
    """Seconds from the first piece of evidence to the last, with long gaps cut."""

    def add(self, at: float, *, is_evidence: bool) -> None:
        """Add an observation."""
        self._observations += 1
        if not is_evidence or at < self.began:
            return
        if self.evidence:
            self._span += min(max(0.0, at - self._last), self.length * MAX_GAP_SHARE)
        self._last = at
        self.evidence += 1

    @property
    def missing(self) -> float:
        """Seconds that the evidence still has to span."""
        missing = self.length - self._span
        return missing if missing > self.length * ROUNDING_SHARE else 0.0

    @property
    def proves_absence(self) -> bool:
        """Whether the evidence proves that the launch was not started."""
        return self.evidence >= MIN_EVIDENCE and self.missing == 0

    def has_lasted(self, windows: float, now: float) -> bool:
        """Return whether the doubt has lasted this many windows, with enough observations."""
        return self._observations >= MIN_EVIDENCE and now - self.began >= windows * self.length


@dataclass(frozen=True)
class Found:
    """It was started."""

    rest_uid: str


@dataclass(frozen=True)
class Absent:
    """It was not started and never will be, or its run ended before it executed anything."""

    never_executed: tuple[str, ...] = ()
    """rest-uids of instances that may have been its run, and never executed anything."""


@dataclass(frozen=True)
class Undecided:
    """Nothing is proven yet."""

    candidates: tuple[str, ...] = ()
    """rest-uids of instances that may be its run."""
    never_executed: tuple[str, ...] = ()
    """rest-uids of current and former candidates that had executed nothing when they were last requested."""


@dataclass(frozen=True)
class Undecidable(Undecided):
    """Nothing is proven, and more observations will not help."""


Verdict = Found | Absent | Undecided


def candidates(
    record: LaunchRecord, observation: Observation, known: KnownInstances, *, has_policy: bool = False
) -> tuple[str, ...]:
    """
    Return the instances that may be the run of a launch in doubt.

    A candidate is of its package and version, has no metadata and no owner, and did not exist before the launch was
    sent. A former candidate that the observation does not show remains one.

    Args:
        record: The launch.
        observation: What was seen.
        known: What the journal knows.
        has_policy: Whether the payload has a runtime policy, which may choose another package.
    """
    listed = observation.without_metadata(record.package, record.version, has_policy=has_policy)
    found = [uid for uid in listed if known.seen.get(uid, inf) > record.opening]
    missing = [uid for uid in record.candidates if uid not in observation.instances]
    return tuple(dict.fromkeys(uid for uid in (*found, *missing) if uid not in known.owners))


def decide(
    record: LaunchRecord,
    token: str,
    observation: Observation,
    known: KnownInstances,
    window: SettleWindow,
    *,
    has_policy: bool = False,
    can_be_absent: bool = True,
) -> Verdict:
    """
    Return the verdict on one launch in doubt.

    Args:
        record: The launch, whose state is ``unknown``.
        token: The token that its run carries.
        observation: What was seen now.
        known: What the journal knows.
        window: The evidence so far, to which this observation is added.
        has_policy: Whether the payload has a runtime policy.
        can_be_absent: Whether its absence may be proven. False means that it was sent before any list had come.
    """
    with_token = observation.tokens.get(token, [])
    unowned = [uid for uid in with_token if uid not in known.owners]
    if len(unowned) == 1:
        return Found(unowned[0])
    if unowned:
        return Undecidable(tuple(unowned), record.never_executed)
    possible = candidates(record, observation, known, has_policy=has_policy)
    idle = tuple(
        uid for uid in dict.fromkeys((*record.never_executed, *possible)) if _is_idle(uid, record, observation)
    )
    # A run with the token was started, even if another launch owns it.
    blocking = (
        *with_token,
        *(uid for uid in possible if not (uid in idle and _is_over(uid, observation, known))),
    )
    window.add(observation.at, is_evidence=observation.is_evidence and not blocking)
    if not blocking and observation.is_evidence and window.proves_absence:
        return Absent(idle) if can_be_absent else Undecidable((), idle)
    # A candidate that executed something and ended without metadata will never show whose run it was.
    is_lost = any(_is_over(uid, observation, known) and _has_executed(uid, idle, observation) for uid in blocking)
    if window.has_lasted(1 if is_lost else MAX_WINDOWS, observation.at):
        return Undecidable(blocking, idle)
    return Undecided(blocking, idle)


def _is_over(uid: str, observation: Observation, known: KnownInstances) -> bool:
    instance = observation.instances.get(uid)
    return uid in known.deleted if instance is None else instance.is_over


def _is_idle(uid: str, record: LaunchRecord, observation: Observation) -> bool:
    """Return whether an instance had executed nothing when it was last requested."""
    instance = observation.instances.get(uid)
    if instance is None or (instance.has_executed is None and not instance.has_metadata):
        return uid in record.never_executed
    return instance.has_executed is False


def _has_executed(uid: str, idle: Collection[str], observation: Observation) -> bool:
    """Return whether an instance executed something, or is gone and may have."""
    instance = observation.instances.get(uid)
    return uid not in idle if instance is None else instance.has_executed is True
