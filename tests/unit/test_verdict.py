"""Was it started? The verdict, with literals."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async._moves import Row, State
from st4sd_async._verdict import Absent, CannotTell, Found, Known, Look, Sighting, Wait, is_evidence, judge

SETTLE = 180.0
SINCE = 1000.0
EARLY, LATE = SINCE + SETTLE - 1, SINCE + SETTLE
NOBODY = Known({}, {})


def doubt(**parts: Any) -> Row:
    given = {"state": State.UNKNOWN, "since": SINCE, "opening": 2, **parts}
    return Row("mol", "demo:latest", "0", **given)


def ours(uid: str = "demo-1") -> Sighting:
    return Sighting(uid, "demo", "token", has_metadata=True)


def bare(uid: str = "demo-1", package: str | None = "demo", *, is_over: bool = False) -> Sighting:
    return Sighting(uid, package, is_over=is_over)


def theirs(uid: str = "demo-1", its: str | None = None) -> Sighting:
    return Sighting(uid, "demo", its, has_metadata=True)


def verdict(at: float, *seen: Sighting, proves: bool = True, known: Known = NOBODY, **parts: Any) -> object:
    waited = parts.pop("waited", {})
    look = Look(at, {one.rest_uid: one for one in seen}, proves)
    return judge(doubt(**parts), "token", look, known, waited, SETTLE)


TABLE = [
    ("found at once", EARLY, [ours()], True, {}, Found("demo-1")),
    ("found in a list that proves nothing", EARLY, [ours()], False, {}, Found("demo-1")),
    ("found beside a candidate", LATE, [ours(), bare("demo-2")], True, {}, Found("demo-1")),
    ("nothing, too early", EARLY, [], True, {}, Wait()),
    ("nothing", LATE, [], True, {}, Absent()),
    ("others' only", LATE, [theirs(), theirs("demo-2", "other")], True, {}, Absent()),
    ("nothing in a short list", LATE, [], False, {"": 1.0}, Wait()),
    ("nothing in short lists for three windows", LATE, [], False, {"": 3 * SETTLE}, CannotTell()),
    ("a candidate, too early", EARLY, [bare()], True, {}, Wait(("demo-1",))),
    ("a candidate that waits", LATE, [bare()], True, {"demo-1": 1.0}, Wait(("demo-1",))),
    ("a candidate for three windows", LATE, [bare()], True, {"demo-1": 3 * SETTLE}, CannotTell(("demo-1",))),
    ("a candidate that ended, too early", EARLY, [bare(is_over=True)], True, {}, Wait(("demo-1",))),
    ("a candidate that ended", LATE, [bare(is_over=True)], True, {}, CannotTell(("demo-1",))),
    (
        "one that ended, one that waits",
        LATE,
        [bare(is_over=True), bare("demo-2")],
        True,
        {},
        Wait(("demo-1", "demo-2")),
    ),
    ("another package's", LATE, [bare("other-1", "other")], True, {}, Absent()),
    ("nobody knows whose package", LATE, [bare("x-1", None)], True, {}, Wait(("x-1",))),
    ("two of ours", LATE, [ours(), ours("demo-2")], True, {}, CannotTell(("demo-1", "demo-2"))),
]


@pytest.mark.parametrize(
    ("seen", "at", "proves", "waited", "expected"),
    [pytest.param(seen, at, proves, waited, expected, id=name) for name, at, seen, proves, waited, expected in TABLE],
)
def test_the_verdict(seen: list[Sighting], at: float, proves: bool, waited: dict[str, float], expected: object) -> None:
    """Row by row."""
    assert verdict(at, *seen, proves=proves, waited=waited) == expected


def test_runs_that_the_journal_owns_are_no_candidates() -> None:
    """They are other launches'."""
    assert verdict(LATE, bare(), known=Known({"demo-1": "other"}, {})) == Absent()
    assert verdict(LATE, ours(), known=Known({"demo-1": "other"}, {})) == Absent()


@pytest.mark.parametrize(("opening", "expected"), [(1, Absent()), (2, Absent()), (3, Wait(("demo-1",)))])
def test_what_was_there_before_it_was_sent_is_no_candidate(opening: int, expected: object) -> None:
    """It was sent in the second opening; what was seen first before the third may be it."""
    assert verdict(LATE, bare(), known=Known({}, {"demo-1": opening})) == expected


def test_a_candidate_that_vanished_never_showed_whose_it_was() -> None:
    """Gone is not absent; only a list that proves something says that it is gone."""
    assert verdict(LATE, candidates=("demo-1",)) == CannotTell(("demo-1",))
    assert verdict(LATE, candidates=("demo-1",), proves=False) == Wait(("demo-1",))
    assert verdict(LATE, theirs(), candidates=("demo-1",)) == Absent()
    assert verdict(LATE, candidates=("demo-1",), known=Known({"demo-1": "other"}, {})) == Absent()


@pytest.mark.parametrize(
    ("shown", "alive", "baseline", "expected"),
    [
        (["a", "b"], ["a"], 9, True),
        (["b"], ["a"], 0, False),
        ([], [], 0, True),
        ([], [], 1, False),
        (["x"], [], 1, True),
    ],
)
def test_a_list_is_evidence(shown: list[str], alive: list[str], baseline: int, expected: bool) -> None:
    """If it shows all that it must show; with nothing of ours, if it is not shorter than at the beginning."""
    assert is_evidence(shown, alive, baseline) is expected
