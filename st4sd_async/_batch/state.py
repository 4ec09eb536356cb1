"""
The states of a launch, and the transitions between them. Pure: each transition returns a new record.

    planned -> sending -> started -> succeeded -> collected
       |          |          |-> failed, stopped, deleted
       |          |          |-> unknown, if its run turns out to belong to another launch
       |          |-> refused
       |          |-> planned, with a proof that nothing was started
       |          |-> unknown -> started (found), planned (with a proof), unknown (new candidates)
       |-> refused, if the payload is refused before it is sent
       |-> started, if the journal is an old copy and the run is found at the service

    failed, stopped, deleted, refused -> planned, as a new attempt

A launch is sent only from ``planned``, and returns to ``planned`` only with a `Proof`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple

METADATA_KEY = "st4sd-async-key"
"""Name of the token in a payload's ``metadata``. Must never change: runs of earlier versions are found by it."""

CAMPAIGN_KEY, LAUNCH_KEY, ATTEMPT_KEY = "st4sd-async-campaign", "st4sd-async-launch", "st4sd-async-attempt"
"""Names in the ``metadata`` of a batch with a campaign name: that name, the key of the launch, and its attempt."""
START_KEY = "st4sd-async-start"
"""Name in the ``metadata`` of a start with a key: a digest of its experiment and payload."""
RESERVED_METADATA = (METADATA_KEY, CAMPAIGN_KEY, LAUNCH_KEY, ATTEMPT_KEY, START_KEY)
"""Names that the metadata of a launch cannot have."""

_DIGEST_PREFIX = "sha256x"
"""Prefix of the digest of a package in the ids of its instances."""


class State(StrEnum):
    """The state of a launch."""

    PLANNED = "planned"
    """Not sent yet, or to be sent again."""
    SENDING = "sending"
    """Being sent, or was when the process died."""
    UNKNOWN = "unknown"
    """In doubt: it may or may not have been started."""
    REFUSED = "refused"
    """The service refused it: nothing was started."""
    STARTED = "started"
    """It has a run that is not over."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    DELETED = "deleted"
    COLLECTED = "collected"
    """It succeeded, and its files were downloaded."""


StateName = Literal[
    "planned", "sending", "unknown", "refused", "started", "succeeded", "failed", "stopped", "deleted", "collected"
]
"""A state as plain text, which users get."""


class Proof(StrEnum):
    """Why a launch that was sent may be sent again, or is in doubt again."""

    NOT_SENT = "not sent"
    """No connection was made, or a proxy, the login or a rate limit turned the request away."""
    ABSENT = "absent"
    """Its run was searched for during the settle window and does not exist."""
    BY_HAND = "by hand"
    """The user declared that it was not started."""
    ENDED = "ended"
    """The user asked for another attempt after the previous one was over or refused."""
    NOT_ITS_RUN = "not its run"
    """Its run carries the token of another launch, or the run's id is not a rest-uid."""


RUN_ENDS = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED, State.DELETED, State.COLLECTED})
"""States of a launch whose run is over."""
FAILURES = frozenset({State.REFUSED, State.FAILED, State.STOPPED, State.DELETED})
"""States that another attempt may follow. If only the downloads fail, a launch stays ``succeeded``, with an error."""
OVER = RUN_ENDS | FAILURES
"""States of a launch that is over: it was refused, or its run is over."""
DISPLAY_ORDER = (
    *(State.COLLECTED, State.SUCCEEDED, State.STARTED, State.SENDING, State.UNKNOWN, State.PLANNED),
    *(State.FAILED, State.STOPPED, State.DELETED, State.REFUSED),
)
"""Order in which cards and reports count states."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.SENDING, State.REFUSED, State.STARTED}),
    State.SENDING: frozenset({State.PLANNED, State.UNKNOWN, State.REFUSED, State.STARTED}),
    State.UNKNOWN: frozenset({State.PLANNED, State.UNKNOWN, State.STARTED}),
    State.STARTED: RUN_ENDS - {State.COLLECTED} | {State.UNKNOWN},
    State.SUCCEEDED: frozenset({State.SUCCEEDED, State.COLLECTED}),
    State.COLLECTED: frozenset({State.SUCCEEDED, State.COLLECTED}),
    **dict.fromkeys(FAILURES, frozenset({State.PLANNED})),
}
"""State -> the states that may follow."""

PROOFS = {
    State.SENDING: frozenset({Proof.NOT_SENT}),
    State.UNKNOWN: frozenset({Proof.ABSENT, Proof.BY_HAND}),
    **dict.fromkeys(FAILURES, frozenset({Proof.ENDED})),
}
"""State -> the proofs that permit the transition back to ``planned``."""


class StateChange(NamedTuple):
    """When a launch entered a state."""

    attempt: int
    state: str
    """A `State`, or ``running``: its run was seen to begin."""
    since: float
    """Wall-clock time in seconds."""


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """One launch, as stored in the journal. The methods are the transitions."""

    key: str
    """The user's name for it."""
    experiment: str
    """Identifier of the experiment."""
    payload: str
    """Digest of the payload without credentials."""
    state: State = State.PLANNED
    attempt: int = 1
    """1, plus 1 for each new attempt after a failure."""
    opening: int = 0
    """The opening of the journal in which it was sent last; 0 means never."""
    since: float = 0.0
    """When it entered its state: wall-clock time in seconds."""
    rest_uid: str | None = None
    """Its run."""
    status: str | None = None
    """The last status of its run, as JSON without ``meta``."""
    error_class: str | None = None
    """Class name of its error."""
    error: str | None = None
    """Message of its error."""
    candidates: tuple[str, ...] = ()
    """rest-uids that may be its run, while it is in doubt."""
    never_executed: tuple[str, ...] = ()
    """rest-uids that may have been its run, and had executed nothing when they were last requested."""
    files: tuple[str, ...] = ()
    """Paths of the downloaded files."""
    request: str | None = None
    """The download request that led to ``files``."""
    proof: Proof | None = None
    """Why it returned to this state."""

    @property
    def package(self) -> str:
        """Name of the experiment's package."""
        return self.experiment.partition("@")[0].partition(":")[0]

    @property
    def version(self) -> str | None:
        """The part of the package's digest that is in the ids of its instances. None means unknown."""
        _, _, digest = self.experiment.partition("@")
        return digest.removeprefix(_DIGEST_PREFIX)[:6].lower() if digest.startswith(_DIGEST_PREFIX) else None

    @property
    def ended_unexecuted(self) -> tuple[str, ...]:
        """The instances in ``never_executed`` that are over. A candidate is left out: it may still begin."""
        return tuple(uid for uid in self.never_executed if uid not in self.candidates)

    @property
    def is_unsent(self) -> bool:
        """Whether this attempt was never sent."""
        return self.state is State.PLANNED and self.opening == 0

    def is_done(self, request: str | None) -> bool:
        """Return whether nothing is left to do. ``request`` is the download request; None means no downloads."""
        if self.state is State.COLLECTED:
            return request is None or self.request == request
        return self.state in FAILURES or (self.state is State.SUCCEEDED and request is None)

    def _to(self, state: State, now: float, proof: Proof | None = None, **changes: Any) -> LaunchRecord:
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"{self.key!r} is {self.state} and cannot become {state}")
        if state is State.PLANNED and proof not in PROOFS[self.state]:
            raise ValueError(f"{self.key!r} is {self.state}: {proof!r} does not prove that it may be sent again")
        if self.state is State.STARTED and state is State.UNKNOWN and proof is not Proof.NOT_ITS_RUN:
            raise ValueError(f"{self.key!r} is {self.state}: {proof!r} does not prove that its run is not its own")
        return replace(self, state=state, since=now, proof=proof, **changes)

    def to_sending(self, opening: int, now: float) -> LaunchRecord:
        """Return the record to write before the launch is sent."""
        return self._to(State.SENDING, now, opening=opening, error_class=None, error=None, candidates=())

    def to_planned(self, proof: Proof, now: float) -> LaunchRecord:
        """Plan the launch again. After `Proof.ENDED` it is a new attempt."""
        planned = self._to(State.PLANNED, now, proof)
        if proof is Proof.ENDED:
            return LaunchRecord(
                self.key, self.experiment, self.payload, attempt=self.attempt + 1, since=now, proof=proof
            )
        return replace(planned, candidates=(), never_executed=self.ended_unexecuted)

    def to_corrected(self, corrected: LaunchRecord, now: float) -> LaunchRecord:
        """Plan the launch with another experiment and payload: a new attempt, or the same one if it was never sent."""
        planned = self if self.is_unsent else self.to_planned(Proof.ENDED, now)
        return replace(planned, experiment=corrected.experiment, payload=corrected.payload)

    def to_unknown(self, reason: str, now: float) -> LaunchRecord:
        """Put the launch in doubt: it may have been started at any time until now."""
        unknown = self._to(State.UNKNOWN, now)
        return replace(unknown, error_class="StartOutcomeUnknown", error=reason, candidates=())

    def to_unknown_without_run(self, reason: str, now: float) -> LaunchRecord:
        """Detach the run, because it belongs to another launch, and put the launch in doubt again."""
        unknown = self._to(State.UNKNOWN, now, Proof.NOT_ITS_RUN)
        return replace(unknown, rest_uid=None, error_class="StartOutcomeUnknown", error=reason, candidates=())

    def with_candidates(self, candidates: Sequence[str], never_executed: Sequence[str] = ()) -> LaunchRecord:
        """Note which instances may be the run of a launch in doubt."""
        unknown = self._to(State.UNKNOWN, self.since)
        return replace(unknown, candidates=tuple(candidates), never_executed=tuple(never_executed))

    def to_refused(self, error_class: str, error: str, now: float) -> LaunchRecord:
        """Note that the service refused it."""
        return replace(self._to(State.REFUSED, now), error_class=error_class, error=error)

    def to_started(self, rest_uid: str, now: float) -> LaunchRecord:
        """Give it a run."""
        others = tuple(uid for uid in self.ended_unexecuted if uid != rest_uid)
        run: dict[str, Any] = {"rest_uid": rest_uid, "candidates": (), "never_executed": others}
        return self._to(State.STARTED, now, error_class=None, error=None, **run)

    def to_ended(self, state: State, status: str | None, now: float) -> LaunchRecord:
        """Note how its run ended."""
        return self._to(state, now, status=status)

    def to_collected(self, request: str, files: Sequence[str], now: float) -> LaunchRecord:
        """Note that its files were downloaded."""
        collected = self._to(State.COLLECTED, now)
        return replace(collected, request=request, files=tuple(files), error_class=None, error=None)

    def to_not_collected(self, error_class: str, error: str, now: float) -> LaunchRecord:
        """Note that its files could not be downloaded, or were removed."""
        return replace(self._to(State.SUCCEEDED, now), request=None, error_class=error_class, error=error)


def campaign_metadata(campaign: str | None, record: LaunchRecord) -> dict[str, str]:
    """Return the metadata by which a run is found without the journal. Empty if the batch has no campaign name."""
    if campaign is None:
        return {}
    return {CAMPAIGN_KEY: campaign, LAUNCH_KEY: record.key, ATTEMPT_KEY: str(record.attempt)}


def token(journal: str, key: str, attempt: int) -> str:
    """
    Return the token that an attempt carries in its metadata. It has no colon and does not reveal the key.

    The derivation must never change: runs of earlier versions are found by it.
    """
    return hashlib.sha256(f"{journal}\0{attempt}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:40]
