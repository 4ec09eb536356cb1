"""The state machine of a watched run, and the choice of runs to request: pure, with literals."""

from __future__ import annotations

from math import inf
from typing import Any

import pydantic
import pytest

from st4sd_async import Status, UnknownRun
from st4sd_async._watch.watched_run import WatchedRun, choose_runs
from st4sd_async.models.finality import FinalityTracker
from tests.watch.scripted_service import FAILED, KILLED, NULLS, RUNNING, SUCCESS, status

GRACE = 60.0
ALL_NULL = {"experiment-state": None, "exit-status": None, "stages": None, "meta": None}
BLANK = {"experiment-state": "unscheduled", "exit-status": "", "stages": [], "meta": {}, "total-progress": 0.0}


@pytest.fixture
def run() -> WatchedRun:
    return WatchedRun("demo-1", FinalityTracker(GRACE))


def some(count: int, **facts: Any) -> list[WatchedRun]:
    """Return healthy runs that were requested one after the other."""
    return [
        WatchedRun(
            f"run-{n}",
            FinalityTracker(GRACE),
            status=answer(RUNNING),
            is_new=False,
            changed_at=0.0,
            requested_at=float(n),
            **facts,
        )
        for n in range(count)
    ]


def answer(words: tuple[str | None, ...] | dict[str, Any]) -> Status:
    return Status.model_validate(status(words))


def ask(run: WatchedRun, words: Any, now: float, *, after_list: bool = True) -> bool:
    """Apply a reply, right after a list or without one."""
    return run.apply_status(answer(words), now, after_list=after_list)


def take(run: WatchedRun, kind: str, what: Any, now: float) -> bool:
    """Apply one step; return whether it is news."""
    if kind == "miss":
        run.mark_unlisted()
        return False
    return run.apply_listed(what, now) if kind == "entry" else ask(run, what, now, after_list=kind == "answer")


def words(run: WatchedRun) -> tuple[str | None, ...]:
    assert run.status is not None
    return run.status.pair


Step = tuple[str, Any, bool, Any]
"""
What is applied ("entry": an item in the list, "miss": no item, "answer": a reply right after a list, "alone": a reply
without a list), its status, whether it is news, and the status of the run after it.
"""

COURSES: dict[str, list[Step]] = {
    "the list alone": [
        ("entry", status(RUNNING), True, RUNNING),
        ("entry", status(RUNNING), False, RUNNING),
        ("entry", status(("running", "Failed")), True, ("running", "Failed")),
    ],
    "nothing, nulls and no status are the same": [
        ("entry", None, True, NULLS),
        ("entry", ALL_NULL, False, NULLS),
        ("answer", {"message": "no status yet"}, False, NULLS),
        ("answer", {"warning": "no Pod"}, False, NULLS),
    ],
    "a new text is news": [
        ("answer", ("failed", "", "one"), True, ("failed", "")),
        ("answer", ("failed", "", "two"), True, ("failed", "")),
        ("answer", ("failed", "", "two"), False, ("failed", "")),
    ],
    "the answer holds until the entry changes": [
        ("entry", status(RUNNING), True, RUNNING),
        ("answer", KILLED, True, KILLED),
        ("entry", status(RUNNING), False, KILLED),
        ("entry", status(RUNNING), False, KILLED),
        ("entry", status(("suspended", "N/A")), True, ("suspended", "N/A")),
    ],
    "an init container that failed": [
        ("entry", ALL_NULL, True, NULLS),
        ("answer", ("failed", ""), True, ("failed", "")),
        ("entry", ALL_NULL, False, ("failed", "")),
        ("entry", None, True, NULLS),
    ],
    "an answer before the first entry holds if they differ": [
        ("answer", KILLED, True, KILLED),
        ("entry", status(RUNNING), False, KILLED),
        ("entry", status(RUNNING), False, KILLED),
        ("answer", KILLED, False, KILLED),
        ("entry", status(RUNNING), False, KILLED),
    ],
    "an answer before the first entry that is the older one": [
        ("answer", RUNNING, True, RUNNING),
        ("entry", status(("running", "Failed")), False, RUNNING),
        ("answer", ("running", "Failed"), True, ("running", "Failed")),
        ("entry", status(("running", "Failed")), False, ("running", "Failed")),
    ],
    "an answer before the first entry that agrees": [
        ("answer", RUNNING, True, RUNNING),
        ("entry", status(RUNNING), False, RUNNING),
        ("entry", status(("suspended", "N/A")), True, ("suspended", "N/A")),
    ],
    "the list catches up": [
        ("entry", status(RUNNING), True, RUNNING),
        ("answer", ("running", "Success"), True, ("running", "Success")),
        ("entry", status(RUNNING), False, ("running", "Success")),
        ("entry", status(("running", "Success")), False, ("running", "Success")),
        ("entry", status(SUCCESS), True, SUCCESS),
    ],
    "an answer between two lists, and an entry that may have changed before it": [
        ("entry", status(("Initialising", "N/A")), True, ("Initialising", "N/A")),
        ("alone", RUNNING, True, RUNNING),
        ("alone", KILLED, True, KILLED),
        ("entry", status(RUNNING), False, KILLED),
        ("answer", KILLED, False, KILLED),
        ("entry", status(RUNNING), False, KILLED),
        ("entry", status(("suspended", "N/A")), True, ("suspended", "N/A")),
    ],
    "a list that lacks it, and an entry that may have changed before it was asked for": [
        ("entry", status(("Initialising", "N/A")), True, ("Initialising", "N/A")),
        ("miss", None, False, ("Initialising", "N/A")),
        ("answer", KILLED, True, KILLED),
        ("entry", status(RUNNING), False, KILLED),
        ("answer", KILLED, False, KILLED),
        ("entry", status(RUNNING), False, KILLED),
    ],
    "an answer between two lists that agrees": [
        ("entry", status(("Initialising", "N/A")), True, ("Initialising", "N/A")),
        ("alone", RUNNING, True, RUNNING),
        ("entry", status(RUNNING), False, RUNNING),
        ("entry", status(FAILED), True, FAILED),
    ],
    "only another way to write it": [
        ("answer", BLANK, True, ("unscheduled", "")),
        ("entry", {**BLANK, "meta": None, "stages": None, "error-description": None}, False, ("unscheduled", "")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("course", COURSES.values(), ids=COURSES)
def test_which_status_holds_and_which_is_news(course: list[Step], run: WatchedRun) -> None:
    """A reply holds until the item in the list changes; only a status that says something else is news."""
    for now, (kind, what, is_news, shown) in enumerate(course):
        updates = take(run, kind, what, now)

        assert (updates, words(run)) == (is_news, shown)


@pytest.mark.parametrize("entry", [5, "odd", [1], {"experiment-state": 7}, {"exit-status": []}], ids=repr)
def test_an_unreadable_item_changes_nothing(entry: Any, run: WatchedRun) -> None:
    """It raises an error, and the status stays."""
    run.apply_listed(status(RUNNING), 1.0)

    with pytest.raises(pydantic.ValidationError):
        run.apply_listed(entry, 2.0)

    assert words(run) == RUNNING
    assert run.seen_at == 1.0
    assert not run.apply_listed(status(RUNNING), 3.0)


@pytest.mark.parametrize("entry", [status(("running", "Failed")), None], ids=["half-final", "nothing"])
@pytest.mark.parametrize("before", [None, status(("Initialising", "N/A"))], ids=["no list before", "a list before"])
def test_a_contradiction_of_list_and_reply_is_settled_by_one_request(before: Any, entry: Any, run: WatchedRun) -> None:
    """Either may be the newer one; the next reply is."""
    if before:
        run.apply_listed(before, 0.0)
    ask(run, RUNNING, 1.0, after_list=False)
    run.apply_listed(entry, 2.0)
    assert run.is_doubtful(2.0)

    ask(run, RUNNING, 3.0)

    for now in (4.0, 5.0):
        assert not run.is_doubtful(now)
        assert not run.apply_listed(entry, now)


def test_a_contradiction_lasts_until_the_run_is_requested(run: WatchedRun) -> None:
    """The list may show the same status again before."""
    ask(run, RUNNING, 1.0, after_list=False)

    for now in (2.0, 3.0):
        run.apply_listed(status(SUCCESS), now)

        assert run.final is None
        assert run.is_doubtful(now)


@pytest.mark.parametrize("source", ["answer", "entry"])
@pytest.mark.parametrize("pair", [SUCCESS, FAILED, ("failed", "Failed"), ("Failed", "stopped")], ids=str)
def test_two_final_fields_are_final(source: str, pair: tuple[str, str], run: WatchedRun) -> None:
    """In the list or in a reply, at the first observation."""
    is_news = ask(run, pair, 0.0) if source == "answer" else run.apply_listed(status(pair), 0.0)

    assert is_news
    assert run.final is not None
    assert run.final.is_final
    assert not run.final.is_deleted


def test_one_final_field_in_the_list_is_final_after_the_grace_period(run: WatchedRun) -> None:
    """Each list is an observation."""
    news = [run.apply_listed(status(("running", "Failed")), moment) for moment in (0.0, 20.0, 40.0, 60.0)]

    assert news == [True, False, False, True]
    assert run.final is not None
    assert run.final.is_final


def test_an_overridden_item_in_the_list_is_no_observation(run: WatchedRun) -> None:
    """A killed orchestrator is over by replies, not by a list in which it runs."""
    run.apply_listed(status(RUNNING), 0.0)
    for moment in (10.0, 40.0):
        ask(run, KILLED, moment)
    for moment in (50.0, 70.0, 1000.0):
        assert not run.apply_listed(status(RUNNING), moment)

    assert run.final is None
    assert ask(run, KILLED, 1001.0)
    assert run.final is not None


@pytest.mark.parametrize(
    ("known", "last_word", "shown"),
    [(None, None, NULLS), (RUNNING, None, RUNNING), (RUNNING, SUCCESS, SUCCESS), (None, SUCCESS, SUCCESS)],
    ids=str,
)
def test_a_deleted_run_has_a_final_status(known: Any, last_word: Any, shown: Any, run: WatchedRun) -> None:
    """That of the datastore, or the last one seen, or a pending one."""
    if known:
        ask(run, known, 0.0)

    run.mark_deleted(answer(last_word) if last_word else None, UnknownRun("m", status=404), 0.0)

    assert run.final is not None
    assert run.final.pair == shown
    assert run.final.is_deleted
    assert run.final.is_final


def test_a_new_run_is_urgent_until_it_has_a_status(run: WatchedRun) -> None:
    """A consumer that came for it should not wait."""
    assert run.seconds_until_urgent(0.0) == 0

    run.apply_listed(status(RUNNING), 0.0)

    assert run.seconds_until_urgent(0.0) == inf


def test_a_run_with_one_final_field_is_urgent_when_its_end_can_be_confirmed(run: WatchedRun) -> None:
    """After half the grace period, and not again while there is no reply."""
    ask(run, KILLED, 10.0)
    assert (run.seconds_until_urgent(10.0), run.seconds_until_urgent(30.0), run.seconds_until_urgent(50.0)) == (
        30.0,
        10.0,
        0.0,
    )

    run.requested_at = 50.0

    assert run.seconds_until_urgent(50.0) == inf


def test_doubtful_runs_are_requested_first() -> None:
    """No status, not in the list, or perhaps over; then the one requested longest ago."""
    runs = some(10)
    runs[7].is_in_doubt = True
    runs[8].status = None
    ask(runs[9], KILLED, 0.0)

    assert [run.rest_uid for run in choose_runs(runs, 100.0, 4)] == ["run-7", "run-8", "run-9", "run-0"]


def test_one_place_is_always_for_the_quietest_run() -> None:
    """However many are in doubt, a killed orchestrator is found at some point."""
    runs = some(10)
    for run in runs[1:]:
        run.is_in_doubt = True

    chosen = [run.rest_uid for run in choose_runs(runs, 0.0, 3)]

    assert chosen == ["run-1", "run-2", "run-0"]


@pytest.mark.parametrize(("count", "most", "found"), [(0, 3, 0), (2, 3, 2), (3, 3, 3), (9, 3, 3), (9, 1, 1)])
@pytest.mark.parametrize("doubtful", [0, 1, 100])
def test_no_more_than_the_limit_are_chosen(count: int, most: int, found: int, doubtful: int) -> None:
    """And none twice."""
    runs = some(count)
    for run in runs[:doubtful]:
        run.is_in_doubt = True

    chosen = choose_runs(runs, 0.0, most)

    assert len(chosen) == len({run.rest_uid for run in chosen}) == found


def test_every_run_has_its_turn() -> None:
    """Three at a time, all of them before one for the second time."""
    runs, asked = some(30), []
    for now in range(100, 110):
        for run in choose_runs(runs, now, 3):
            run.requested_at = now
            asked.append(run.rest_uid)

    assert sorted(asked) == sorted(run.rest_uid for run in runs)


def test_a_run_that_just_changed_is_not_quiet() -> None:
    """The list shows its changes; a run that never changes may be dead."""
    runs = some(3)
    runs[0].changed_at = 50.0

    assert [run.rest_uid for run in choose_runs(runs, 60.0, 1)] == ["run-1"]


def test_of_equally_quiet_runs_a_pending_one_comes_first() -> None:
    """The list never shows a start-up failure."""
    runs = [WatchedRun(f"run-{n}", FinalityTracker(GRACE), changed_at=1.0, is_new=False) for n in range(3)]
    for run, pair in zip(runs, (RUNNING, NULLS, RUNNING), strict=True):
        run.status = answer(pair)

    assert [run.rest_uid for run in choose_runs(runs, 60.0, 1)] == ["run-1"]
