"""Why a run does not run, and what its owner reads about it."""

from __future__ import annotations

import pytest

from st4sd_async import Hint, Instance, Reason, Status
from st4sd_async.models.hints import explain

from .reasons import BOOM, CASES, NO_POD, NO_ROOM, NOT_CLONED, Case


def status_of(words: tuple[str | None, str | None, str | None], text: str) -> Status:
    names = ("experiment-state", "exit-status", "stage-state")
    return Status.model_validate({**dict(zip(names, words, strict=True)), "error-description": text})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hint_says_why_a_run_does_not_run(case: Case) -> None:
    """On one line: the reason, what to do or whom to ask, and the most important part of the text."""
    hint = explain(*case.words, case.text)

    assert hint is not None
    assert hint.reason is case.reason
    assert str(hint) == case.line
    assert len(str(hint)) <= 200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_model_agrees_with_the_plain_words(case: Case) -> None:
    """`Status.hint` is the same, for words in any case."""
    upper = tuple(word and word.upper() for word in case.words)

    hint = status_of(case.words, case.text).hint
    other = explain(upper[0], upper[1], upper[2], case.text)

    assert hint == explain(*case.words, case.text)
    assert str(hint) == case.line
    assert other is not None
    assert other.reason is case.reason


@pytest.mark.parametrize(
    "words",
    [
        ("running", "N/A", "running"),
        ("running", None, None),
        ("running", "N/A", "component_shutdown"),
        ("component_shutdown", "N/A", "component_shutdown"),
        ("running", "Success", "finished"),
        ("finished", "Success", "finished"),
        ("Finished", "SUCCESS", ""),
        ("failed", "Success", ""),
    ],
    ids=str,
)
def test_there_is_no_hint_while_a_run_is_normal(words: tuple[str | None, str | None, str | None]) -> None:
    """While it runs, and after Success."""
    assert explain(*words, "") is None
    assert status_of(words, "").hint is None


def test_every_reason_is_in_the_table() -> None:
    """Except for the one that depends on no word."""
    assert {case.reason for case in CASES} == set(Reason) - {Reason.DELETED}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_advice_that_leaves_room_for_a_text(reason: Reason) -> None:
    """Of a long text, at least its beginning and its end are shown."""
    hint = Hint(reason, "first " + "word " * 1000 + "last")

    assert hint.advice
    assert str(hint).startswith(f"{reason.replace('_', ' ')}: {hint.advice} (first word ")
    assert str(hint).endswith(" last)")
    assert len(str(hint)) <= 200
    assert str(Hint(reason, None)) == f"{reason.replace('_', ' ')}: {hint.advice}"


@pytest.mark.parametrize(
    "written",
    [BOOM, BOOM.replace("\\n", "\n"), BOOM.replace("\\n", r"\\\n")],
    ids=["two characters", "real", "escaped again"],
)
def test_the_text_is_complete_and_has_real_line_breaks(written: str) -> None:
    """The final status has two characters instead of each, or more: the orchestrator escapes it at each writing."""
    hint = explain("finished", "Failed", "failed", written)

    assert hint == Hint(
        Reason.COMPONENT_FAILED,
        "Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.Boom. Returncode 1. Reason KnownIssue",
    )


def test_the_gist_is_the_most_important_part_of_the_text() -> None:
    """If the text says no more than the reason, there is none."""
    assert Hint(Reason.PENDING, "demo-1 does not have a status yet").gist == ""
    assert Hint(Reason.PENDING, None).gist == ""
    assert Hint(Reason.UNSCHEDULED, NO_ROOM).gist == "1 Insufficient cpu"


def test_a_hint_has_no_control_characters() -> None:
    """The text of a program can neither colour nor clear a terminal."""
    hint = explain("failed", "Failed", None, "a\x1b[2J\tb\r\nc\x00\u2028d\ud800")

    assert hint is not None
    assert str(hint).endswith(r"(a\x1b[2J b c\x00 d\ud800)")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"warning": NO_POD}, NO_POD),
        ({"message": "demo-1 does not have a status yet"}, "demo-1 does not have a status yet"),
        ({"warning": None}, None),
        ({"warning": ["odd"], "message": 7}, None),
        ({"experiment-state": None, "stages": []}, None),
        ({}, None),
    ],
    ids=["warning", "400", "null warning", "odd warning", "nulls", "nothing"],
)
def test_the_text_sent_instead_of_a_status_is_used(raw: dict[str, object], text: str | None) -> None:
    """Only while there is no status; a status has its own text."""
    assert Status.model_validate(raw).hint == Hint(Reason.PENDING, text)
    assert Status.pending(raw).hint == Hint(Reason.PENDING, text)
    assert Status.model_validate({**raw, "experiment-state": "failed"}).hint == Hint(Reason.NO_EXIT_STATUS, None)


def test_an_instance_without_status_is_pending() -> None:
    """The list has null instead of a status."""
    assert Instance.model_validate({"id": "demo-1", "status": None}).status.hint == Hint(Reason.PENDING, None)


def test_a_deleted_run_says_so_whatever_it_did_before() -> None:
    """Its outputs are deleted too."""
    running = status_of(("running", "N/A", "running"), "").concluded(deleted=True)
    failed = status_of(("failed", "", ""), NOT_CLONED).concluded(deleted=True)

    assert running.hint == Hint(Reason.DELETED, None)
    assert str(running.hint) == "deleted: the service has no such run: it was deleted, or its rest-uid is mistyped"
    assert failed.hint == Hint(Reason.DELETED, NOT_CLONED.strip())


def test_the_hint_does_not_depend_on_finality() -> None:
    """A failed image pull may still be repaired after the grace period."""
    status = status_of(("failed", "", ""), "initContainer failure: failed to pull image x")

    assert status.concluded().hint == status.hint


def test_a_running_status_shows_its_stage() -> None:
    """The stage is what changes while it runs; afterwards it shows the exit-status."""
    words = {"experiment-state": "running", "stage-state": "running", "current-stage": "stage1"}

    assert str(Status.model_validate({**words, "exit-status": "N/A"})) == "running, stage1"
    assert str(Status.model_validate({**words, "exit-status": "Success"})) == "running, stage1"


@pytest.mark.parametrize(
    ("words", "text", "line"),
    [
        ((None, None, None), "", "no status yet"),
        (("", "", ""), "", "no status yet"),
        (("running", "N/A", "running"), "", "running"),
        (("running", "N/A", "running"), "odd\ntext", "running: odd text"),
        (("unscheduled", "", ""), NO_ROOM, "unscheduled: 1 Insufficient cpu"),
        (
            ("finished", "Failed", "failed"),
            BOOM,
            "failed: Job: stage0.Boom. Returncode 1. Reason KnownIssue",
        ),
        (("Failed", "", ""), "elaunch-primary exitCode: 137, reason: Error", "failed: exitCode: 137, reason: Error"),
    ],
    ids=str,
)
def test_a_status_is_one_short_line(words: tuple[str | None, str | None, str | None], text: str, line: str) -> None:
    """The words, and the most important part of the text."""
    status = status_of(words, text)

    assert str(status) == line
    assert str(status.concluded(deleted=True)).startswith("deleted, last seen ")
    assert len(str(status_of(words, "long " * 1000))) < 200
