"""
The life of a launch in a batch, as pure moves from row to row: what may follow what, and on which proof.

    planned -> sending -> started -> succeeded -> collected
                  |          |-> failed, stopped, deleted
                  |          |-> unknown, if its run turns out to be another launch's
                  |-> refused (or from planned, if it is refused here)
                  |-> planned, on the proof that nothing was started
                  |-> unknown -> started (found), planned (on proof), unknown (cannot be told)

A key is sent only out of ``planned``. So there is no way back to there without a `Proof`. One that is planned and
shows up at the service all the same, because the journal is an old copy, becomes started without being sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

METADATA_KEY = "st4sd-async-key"
"""Name under which our token travels in a payload's ``metadata``."""


_HASH = "sha256x"
"""What the digest of a package begins with."""


class State(StrEnum):
    """Where a launch is."""

    PLANNED = "planned"
    """It may be sent."""
    SENDING = "sending"
    """It is being sent, or was when the process died."""
    UNKNOWN = "unknown"
    """It may or may not have been started."""
    REFUSED = "refused"
    """The service refused it: nothing was started."""
    STARTED = "started"
    """It has a run, which is not over."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    DELETED = "deleted"
    COLLECTED = "collected"
    """It succeeded, and what was asked for is on disk."""


class Proof(StrEnum):
    """Why a launch may go back: be sent although it was sent, or about to be, before; or be in doubt again."""

    NOT_SENT = "not sent"
    """No connection was made, or the door or a limit turned the request away."""
    ABSENT = "absent"
    """It was looked for after the settle window, where it must have shown."""
    BY_HAND = "by hand"
    """The user says that it was not started."""
    ENDED = "ended"
    """The attempt before is over or was refused, and the user asked for another, maybe corrected."""
    NOT_ITS_RUN = "not its run"
    """What it had as its run carries the token of another launch, or is no run at all."""


ENDS = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED, State.DELETED, State.COLLECTED})
"""What a run can come to."""
BAD_ENDS = frozenset({State.REFUSED, State.FAILED, State.STOPPED, State.DELETED})
"""What another attempt may follow."""

MOVES: dict[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.SENDING, State.REFUSED, State.STARTED}),
    State.SENDING: frozenset({State.PLANNED, State.UNKNOWN, State.REFUSED, State.STARTED}),
    State.UNKNOWN: frozenset({State.PLANNED, State.UNKNOWN, State.STARTED}),
    State.STARTED: ENDS - {State.COLLECTED} | {State.UNKNOWN},
    State.SUCCEEDED: frozenset({State.SUCCEEDED, State.COLLECTED}),
    State.COLLECTED: frozenset({State.SUCCEEDED, State.COLLECTED}),
    **dict.fromkeys(BAD_ENDS, frozenset({State.PLANNED})),
}
"""State -> the states that may follow."""

PROOFS = {
    State.SENDING: frozenset({Proof.NOT_SENT}),
    State.UNKNOWN: frozenset({Proof.ABSENT, Proof.BY_HAND}),
    **dict.fromkeys(BAD_ENDS, frozenset({Proof.ENDED})),
}
"""State -> the proofs that lead from there back to ``planned``."""


@dataclass(frozen=True, slots=True)
class Row:
    """One launch, as the journal has it."""

    key: str
    """The user's name for it."""
    experiment: str
    """Identifier of the experiment."""
    payload: str
    """Digest of the payload without credentials."""
    state: State = State.PLANNED
    attempt: int = 1
    """Counts the explicit new attempts of what ended badly."""
    opening: int = 0
    """In which opening of the journal it was sent last; 0: never."""
    since: float = 0.0
    """When it came into this state, in seconds of the wall clock."""
    rest_uid: str | None = None
    """Its run."""
    status: str | None = None
    """The last status of its run, as JSON without ``meta``."""
    error_class: str | None = None
    """Name of the class of the error that it came to."""
    error: str | None = None
    """What that error said."""
    candidates: tuple[str, ...] = ()
    """rest-uids that may be its run, while that is unknown."""
    never_executed: tuple[str, ...] = ()
    """rest-uids of instances that may have been its run, and had executed nothing when they were last asked for."""
    files: tuple[str, ...] = ()
    """What was downloaded."""
    request: str | None = None
    """What was to be downloaded when that was done."""
    proof: Proof | None = None
    """Why it went back."""

    @property
    def package(self) -> str:
        """Name of the experiment's package."""
        return self.experiment.partition("@")[0].partition(":")[0]

    @property
    def version(self) -> str | None:
        """The characters of the package's digest that are in the ids of its instances; None if it is not known."""
        _, _, digest = self.experiment.partition("@")
        return digest.removeprefix(_HASH)[:6].lower() if digest.startswith(_HASH) else None

    @property
    def unexecuted(self) -> tuple[str, ...]:
        """The instances in ``never_executed`` that are over; one that is a candidate may still begin."""
        return tuple(uid for uid in self.never_executed if uid not in self.candidates)

    @property
    def is_unsent(self) -> bool:
        """Whether it waits for its first sending in this attempt."""
        return self.state is State.PLANNED and self.opening == 0

    def is_settled(self, request: str | None) -> bool:
        """Whether nothing is left to do, if this is to be downloaded (None: nothing)."""
        if self.state is State.COLLECTED:
            return request is None or self.request == request
        return self.state in BAD_ENDS or (self.state is State.SUCCEEDED and request is None)


def token(journal: str, key: str, attempt: int) -> str:
    """What an attempt at a launch carries in its metadata: no colon, and nothing of the key can be read in it."""
    return hashlib.sha256(f"{journal}\0{attempt}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _moved(row: Row, state: State, now: float, proof: Proof | None = None) -> Row:
    if state not in MOVES[row.state]:
        raise ValueError(f"{row.key!r} is {row.state} and cannot become {state}")
    if state is State.PLANNED and proof not in PROOFS[row.state]:
        raise ValueError(f"{row.key!r} is {row.state}: {proof!r} is no proof that it may be sent again")
    if row.state is State.STARTED and state is State.UNKNOWN and proof is not Proof.NOT_ITS_RUN:
        raise ValueError(f"{row.key!r} is {row.state}: {proof!r} is no proof that its run is not its own")
    return replace(row, state=state, since=now, proof=proof)


def sending(row: Row, opening: int, now: float) -> Row:
    """It is about to be sent."""
    return replace(_moved(row, State.SENDING, now), opening=opening, error_class=None, error=None, candidates=())


def planned(row: Row, proof: Proof, now: float) -> Row:
    """It may be sent again."""
    again = _moved(row, State.PLANNED, now, proof)
    if proof is Proof.ENDED:
        return Row(row.key, row.experiment, row.payload, attempt=row.attempt + 1, since=now, proof=proof)
    return replace(again, candidates=(), never_executed=row.unexecuted)


def amended(row: Row, given: Row, now: float) -> Row:
    """It takes the experiment and the payload of another launch, for another attempt or for one not sent yet."""
    fresh = row if row.is_unsent else planned(row, Proof.ENDED, now)
    return replace(fresh, experiment=given.experiment, payload=given.payload)


def doubted(row: Row, why: str, now: float) -> Row:
    """It may have been started at any time until now."""
    return replace(_moved(row, State.UNKNOWN, now), error_class="StartOutcomeUnknown", error=why, candidates=())


def disowned(row: Row, why: str, now: float) -> Row:
    """Its run is not its own: it is in doubt again."""
    moved = _moved(row, State.UNKNOWN, now, Proof.NOT_ITS_RUN)
    return replace(moved, rest_uid=None, error_class="StartOutcomeUnknown", error=why, candidates=())


def suspected(row: Row, candidates: Sequence[str], never_executed: Sequence[str] = ()) -> Row:
    """It is still in doubt, and these may be its run."""
    moved = _moved(row, State.UNKNOWN, row.since)
    return replace(moved, candidates=tuple(candidates), never_executed=tuple(never_executed))


def refused(row: Row, error_class: str, error: str, now: float) -> Row:
    """The service refused it."""
    return replace(_moved(row, State.REFUSED, now), error_class=error_class, error=error)


def started(row: Row, rest_uid: str, now: float) -> Row:
    """It has this run."""
    moved = _moved(row, State.STARTED, now)
    others = tuple(uid for uid in row.unexecuted if uid != rest_uid)
    return replace(moved, rest_uid=rest_uid, error_class=None, error=None, candidates=(), never_executed=others)


def ended(row: Row, state: State, status: str | None, now: float) -> Row:
    """Its run is over."""
    return replace(_moved(row, state, now), status=status)


def collected(row: Row, request: str, files: Sequence[str], now: float) -> Row:
    """What was asked for is on disk."""
    moved = _moved(row, State.COLLECTED, now)
    return replace(moved, request=request, files=tuple(files), error_class=None, error=None)


def uncollected(row: Row, error_class: str, error: str, now: float) -> Row:
    """What was asked for could not be had."""
    return replace(_moved(row, State.SUCCEEDED, now), request=None, error_class=error_class, error=error)
