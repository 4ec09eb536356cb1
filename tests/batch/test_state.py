"""The transitions of a launch."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest

from st4sd_async._batch.state import PROOFS, TRANSITIONS, LaunchRecord, Proof, State, StateName, token

FAILURES = {State.REFUSED, State.FAILED, State.STOPPED, State.DELETED}
PLANNED = LaunchRecord("mol", "demo:latest", "0", since=1.0)


def at(state: State) -> LaunchRecord:
    return replace(PLANNED, state=state)


MAKERS: dict[State, Any] = {
    State.SENDING: lambda row: row.to_sending(3, 2.0),
    State.UNKNOWN: lambda row: (row.to_unknown_without_run if row.state is State.STARTED else row.to_unknown)(
        "lost", 2.0
    ),
    State.REFUSED: lambda row: row.to_refused("BadRequest", "no", 2.0),
    State.STARTED: lambda row: row.to_started("demo-1", 2.0),
    **{
        state: (lambda row, state=state: row.to_ended(state, "{}", 2.0))
        for state in (State.SUCCEEDED, State.FAILED, State.STOPPED, State.DELETED)
    },
    State.COLLECTED: lambda row: row.to_collected("{}", ["a.csv"], 2.0),
}


@pytest.mark.parametrize(("before", "after"), [*product(State, MAKERS)], ids=str)
def test_only_the_transitions_of_the_table_exist(before: State, after: State) -> None:
    """Any other raises an error before it is written."""
    make = MAKERS[after]
    if after in TRANSITIONS[before]:
        moved = make(at(before))
        assert (moved.state, moved.key) == (after, "mol")
    else:
        with pytest.raises(ValueError, match=f"'mol' is {before} and cannot become {after}"):
            make(at(before))


@pytest.mark.parametrize(("state", "proof"), [*product(State, Proof)], ids=str)
def test_a_launch_is_planned_again_only_with_a_fitting_proof(state: State, proof: Proof) -> None:
    """There is no other way back to the state from which launches are sent."""
    if proof in PROOFS.get(state, ()):
        again = at(state).to_planned(proof, 2.0)
        assert (again.state, again.proof) == (State.PLANNED, proof)
    else:
        with pytest.raises(ValueError, match="'mol' is"):
            at(state).to_planned(proof, 2.0)


@pytest.mark.parametrize("state", sorted(FAILURES))
def test_a_new_attempt_begins_afresh(state: State) -> None:
    """It has another token, and nothing of the earlier outcome."""
    row = replace(at(state), rest_uid="demo-1", status="{}", error="no", error_class="RunFailed", opening=4)

    again = row.to_planned(Proof.ENDED, 9.0)

    assert again == LaunchRecord("mol", "demo:latest", "0", attempt=2, since=9.0, proof=Proof.ENDED)
    assert token("j", "mol", again.attempt) != token("j", "mol", row.attempt)


@pytest.mark.parametrize("state", sorted(State))
def test_a_launch_is_corrected_only_before_it_is_sent_or_after_it_failed(state: State) -> None:
    """An attempt that may have been sent never changes."""
    corrected = LaunchRecord("mol", "demo:2", "1")
    if state is State.PLANNED:
        sent = replace(at(state), opening=3, proof=Proof.NOT_SENT)
        again = at(state).to_corrected(corrected, 9.0)
        assert (again.experiment, again.payload, again.attempt, again.proof) == ("demo:2", "1", 1, None)
        with pytest.raises(ValueError, match="'mol' is planned and cannot become planned"):
            sent.to_corrected(corrected, 9.0)
    elif state in FAILURES:
        again = at(state).to_corrected(corrected, 9.0)
        assert again == LaunchRecord("mol", "demo:2", "1", attempt=2, since=9.0, proof=Proof.ENDED)
    else:
        with pytest.raises(ValueError, match="'mol' is"):
            at(state).to_corrected(corrected, 9.0)


def test_tokens_differ_and_reveal_nothing() -> None:
    """They differ by journal, key and attempt, and are valid in metadata, where a colon is not."""
    tokens = [token(*parts) for parts in product(("j", "k"), ("a", "b", "a:1", "\u00fc\0"), (1, 2))]

    assert len(set(tokens)) == len(tokens)
    assert all(one.isalnum() and len(one) == 40 for one in tokens)


@pytest.mark.parametrize(
    ("experiment", "package"), [("demo", "demo"), ("demo:v1", "demo"), ("demo@sha256x1", "demo"), ("a-b:c", "a-b")]
)
def test_the_package_of_an_identifier(experiment: str, package: str) -> None:
    """With any tag or digest."""
    assert replace(PLANNED, experiment=experiment).package == package


DONE = [
    (State.PLANNED, None, None, False),
    (State.SENDING, None, None, False),
    (State.UNKNOWN, None, None, False),
    (State.STARTED, None, None, False),
    (State.REFUSED, None, "energies", True),
    (State.FAILED, None, "energies", True),
    (State.STOPPED, None, None, True),
    (State.DELETED, None, None, True),
    (State.SUCCEEDED, None, None, True),
    (State.SUCCEEDED, None, "energies", False),
    (State.COLLECTED, "energies", "energies", True),
    (State.COLLECTED, "energies", "folder", False),
    (State.COLLECTED, "energies", None, True),
]


@pytest.mark.parametrize(("state", "had", "request_", "is_done"), DONE)
def test_is_done(state: State, had: str | None, request_: str | None, is_done: bool) -> None:
    """By state, earlier download and new request."""
    assert replace(at(state), request=had).is_done(request_) is is_done


def test_a_started_launch_is_in_doubt_again_only_if_its_run_is_not_its_own() -> None:
    """It loses the run, keeps the reason, and stays in the same attempt."""
    has_run = PLANNED.to_sending(1, 2.0).to_started("demo-1", 3.0)
    with pytest.raises(ValueError, match="does not prove that its run is not its own"):
        has_run.to_unknown("lost", 4.0)

    again = has_run.to_unknown_without_run("it is another's", 4.0)
    assert (again.state, again.rest_uid, again.error) == (State.UNKNOWN, None, "it is another's")
    assert (again.attempt, again.proof) == (1, Proof.NOT_ITS_RUN)


def test_instances_that_never_executed_stay_named() -> None:
    """Through the next start, until another attempt is planned."""
    suspected = at(State.UNKNOWN).with_candidates(["demo-1"], ["demo-2"])
    sent = suspected.to_planned(Proof.ABSENT, 6.0).to_sending(2, 7.0)
    assert sent.to_started("demo-3", 8.0).never_executed == ("demo-2",)
    failed = sent.to_started("demo-3", 8.0).to_ended(State.FAILED, None, 9.0)
    assert failed.to_planned(Proof.ENDED, 9.0).never_executed == ()


def test_candidates_do_not_change_when_a_doubt_began() -> None:
    """And they are dropped when it is done."""
    doubt = at(State.SENDING).to_unknown("lost", 5.0)
    suspected = doubt.with_candidates(["demo-1"])

    assert (suspected.since, suspected.candidates) == (5.0, ("demo-1",))
    assert suspected.to_started("demo-1", 6.0).candidates == ()
    assert suspected.to_planned(Proof.ABSENT, 6.0).candidates == ()
    assert at(State.SUCCEEDED).to_not_collected("DownloadError", "cut", 7.0).error == "cut"


def test_the_states_that_users_get_are_typed() -> None:
    """Type checkers know the same words that a launch can have."""
    assert get_args(StateName) == tuple(State)
