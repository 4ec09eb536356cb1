"""The words for the state of a run."""

from __future__ import annotations

import re

import pytest

from st4sd_async import Status
from st4sd_async._batch.item import Item
from st4sd_async._batch.state import RUN_ENDS, State
from st4sd_async.models import ExitStatus, ExperimentState
from st4sd_async.models.runs import status_summary

WORDS = [
    (("", ""), "no status yet"),
    (("unscheduled", ""), "unscheduled"),
    (("Initialising", "N/A"), "initialising"),
    (("running", "N/A"), "running"),
    (("running", "Success"), "running"),  # it may still fail
    (("running", "Failed"), "failed"),
    (("finished", "N/A"), "finished"),
    (("finished", "Success"), "succeeded"),
    (("FINISHED", "SUCCESS"), "succeeded"),
    (("finished", "Failed"), "failed"),
    (("failed", ""), "failed"),
    (("failed", "Failed"), "failed"),
    (("finished", "Stopped"), "stopped"),
    (("Thawing", "N/A"), "Thawing"),
]


@pytest.mark.parametrize(("pair", "word"), WORDS, ids=str)
def test_a_status_has_one_word(pair: tuple[str, str], word: str) -> None:
    """Texts, cards and boards show that word; of a deleted run, the text also has the last one."""
    status = Status.model_validate(dict(zip(("experiment-state", "exit-status"), pair, strict=True)))

    assert status.state == word
    assert str(status) == word
    assert status_summary(status).badge.word == word
    assert status.concluded(deleted=True).state == "deleted"
    assert str(status.concluded(deleted=True)).startswith("deleted, last seen ")


@pytest.mark.parametrize("state", ["running", None], ids=str)
def test_the_text_of_a_deleted_run_has_its_last_state(state: str | None) -> None:
    """It did not fail, although it has no exit-status."""
    status = Status.model_validate({"experiment-state": state})

    assert str(status.concluded(deleted=True)) == f"deleted, last seen {state or 'no status yet'}"


def test_a_run_that_ended_without_a_verdict_has_failed() -> None:
    """As in a batch: a run whose orchestrator was killed never gets an exit-status."""
    assert Status.model_validate({"experiment-state": "finished", "exit-status": ""}).concluded().state == "failed"
    assert Status.pending().state == "no status yet"


def documented(text: str | None) -> set[str]:
    return set(re.findall(r"^ *\| ``([^`]+)`` \|", text or "", re.MULTILINE))


def test_the_words_are_documented_where_they_are_read() -> None:
    """In the docstrings of `Status.state` and of `Item`; the ends of runs have the same words in both."""
    of_runs = documented(Status.state.__doc__)
    ends = {Status.model_validate({"experiment-state": "finished", "exit-status": word}).state for word in ExitStatus}

    assert of_runs >= {word.casefold() or "no status yet" for word in ExperimentState} | ends | {"deleted"}
    assert of_runs >= RUN_ENDS - {State.COLLECTED}
    assert documented(Item.__doc__) == set(State)
