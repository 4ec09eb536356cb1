"""Why does a run not run, and what does its owner read about it?"""

from __future__ import annotations

import pytest

from st4sd_async import Hint, Instance, Reason, Status
from st4sd_async.models.hints import LONGEST_LINE, explain

from .reasons import BOOM, CASES, NO_POD, NO_ROOM, NOT_CLONED, Case


def status_of(words: tuple[str | None, str | None, str | None], text: str) -> Status:
    names = ("experiment-state", "exit-status", "stage-state")
    return Status.model_validate({**dict(zip(names, words, strict=True)), "error-description": text})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_owner_of_a_run_reads_why_it_does_not_run(case: Case) -> None:
    """One line: the reason, what to do or whom to ask, and the part of the text that matters."""
    hint = explain(*case.words, case.text)

    assert hint is not None
    assert hint.reason is case.reason
    assert str(hint) == case.line
    assert len(str(hint)) <= LONGEST_LINE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_model_agrees_with_the_plain_words(case: Case) -> None:
    """`Status.hint` says the same, letters of any case included."""
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
def test_nothing_is_said_while_all_is_well(words: tuple[str | None, str | None, str | None]) -> None:
    """While it runs as it should, and after Success."""
    assert explain(*words, "") is None
    assert status_of(words, "").hint is None


def test_every_reason_is_told_apart() -> None:
    """The table has all of them, save the one that no word tells."""
    assert {case.reason for case in CASES} == set(Reason) - {Reason.DELETED}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_advice_that_leaves_room_for_a_text(reason: Reason) -> None:
    """Even a long text adds its beginning and its end."""
    hint = Hint(reason, "first " + "word " * 1000 + "last")

    assert hint.advice
    assert str(hint).startswith(f"{reason.replace('_', ' ')}: {hint.advice} (first word ")
    assert str(hint).endswith(" last)")
    assert len(str(hint)) <= LONGEST_LINE
    assert str(Hint(reason, None)) == f"{reason.replace('_', ' ')}: {hint.advice}"


@pytest.mark.parametrize("written", [BOOM, BOOM.replace("\\n", "\n")], ids=["two characters", "real"])
def test_the_text_is_kept_whole_with_real_line_breaks(written: str) -> None:
    """The service writes two characters in place of each in the final status."""
    hint = explain("finished", "Failed", "failed", written)

    assert hint == Hint(
        Reason.COMPONENT_FAILED,
        "Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.Boom. Returncode 1. Reason KnownIssue",
    )


def test_the_gist_is_what_matters_of_the_text() -> None:
    """A text that says no more than the reason has none."""
    assert Hint(Reason.PENDING, "demo-1 does not have a status yet").gist == ""
    assert Hint(Reason.PENDING, None).gist == ""
    assert Hint(Reason.UNSCHEDULED, NO_ROOM).gist == "1 Insufficient cpu"


def test_control_characters_of_a_text_reach_no_terminal() -> None:
    """What a program wrote can neither colour nor clear the screen of who reads it."""
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
def test_what_came_in_place_of_a_status_is_its_text(raw: dict[str, object], text: str | None) -> None:
    """As long as there is no status; a status keeps to its own text."""
    assert Status.model_validate(raw).hint == Hint(Reason.PENDING, text)
    assert Status.pending(raw).hint == Hint(Reason.PENDING, text)
    assert Status.model_validate({**raw, "experiment-state": "failed"}).hint == Hint(Reason.NO_EXIT_STATUS, None)


def test_an_instance_without_status_is_pending() -> None:
    """The list has null in its place."""
    assert Instance.model_validate({"id": "demo-1", "status": None}).status.hint == Hint(Reason.PENDING, None)


def test_a_deleted_run_says_so_whatever_it_did_before() -> None:
    """Its outputs went with it."""
    running = status_of(("running", "N/A", "running"), "").concluded(deleted=True)
    failed = status_of(("failed", "", ""), NOT_CLONED).concluded(deleted=True)

    assert running.hint == Hint(Reason.DELETED, None)
    assert str(running.hint) == "deleted: the service has no such run: it was deleted, or its rest-uid is mistyped"
    assert failed.hint == Hint(Reason.DELETED, NOT_CLONED.strip())


def test_the_hint_does_not_depend_on_the_verdict() -> None:
    """A failed image pull that outlasted all patience is still one that may come back."""
    status = status_of(("failed", "", ""), "initContainer failure: failed to pull image x")

    assert status.concluded().hint == status.hint


def test_a_running_status_tells_its_stage() -> None:
    """That is what changes meanwhile; with an exit-status it tells that."""
    words = {"experiment-state": "running", "stage-state": "running", "current-stage": "stage1"}

    assert str(Status.model_validate({**words, "exit-status": "N/A"})) == "running, stage1"
    assert str(Status.model_validate({**words, "exit-status": "Success"})) == "running, Success"


@pytest.mark.parametrize(
    ("words", "text", "line"),
    [
        ((None, None, None), "", "no status yet"),
        (("", "", ""), "", "no status yet"),
        (("running", "N/A", "running"), "", "running, N/A"),
        (("running", "N/A", "running"), "odd\ntext", "running, N/A: odd text"),
        (("unscheduled", "", ""), NO_ROOM, "unscheduled: 1 Insufficient cpu"),
        (
            ("finished", "Failed", "failed"),
            BOOM,
            "finished, Failed: Job: stage0.Boom. Returncode 1. Reason KnownIssue",
        ),
        (("Failed", "", ""), "elaunch-primary exitCode: 137, reason: Error", "failed: exitCode: 137, reason: Error"),
    ],
    ids=str,
)
def test_a_status_is_one_short_line(words: tuple[str | None, str | None, str | None], text: str, line: str) -> None:
    """The words, and of the text what matters."""
    status = status_of(words, text)

    assert str(status) == line
    assert str(status.concluded(deleted=True)).startswith("deleted, last seen ")
    assert len(str(status_of(words, "long " * 1000))) < LONGEST_LINE
