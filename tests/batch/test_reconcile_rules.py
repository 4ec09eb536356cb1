"""Was it started? The verdict, with literals."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest

from st4sd_async._batch.reconcile_rules import (
    Absent,
    Found,
    KnownInstances,
    Observation,
    ObservedInstance,
    SettleWindow,
    Undecidable,
    Undecided,
    Verdict,
    decide,
)
from st4sd_async._batch.state import LaunchRecord, State

SETTLE = 180.0
BEGAN = 1000.0
NOBODY = KnownInstances({}, {})
EVERY_30_S = range(0, 181, 30)
"""Seconds after the doubt began at which there are looks, over one settle window."""
THREE_WINDOWS = range(0, 541, 30)


def doubt(**parts: Any) -> LaunchRecord:
    given = {"state": State.UNKNOWN, "opening": 2, "experiment": "demo:latest", **parts}
    return LaunchRecord(key="mol", payload="0", **given)


def ours(uid: str = "demo-1") -> ObservedInstance:
    return ObservedInstance(uid, "demo", "token", has_metadata=True)


def bare(uid: str = "demo-1", package: str | None = "demo") -> ObservedInstance:
    """One that waits, or whose list entry shows nothing of it."""
    return ObservedInstance(uid, package, has_executed=False)


def failed(uid: str = "demo-1") -> ObservedInstance:
    """One that failed at set-up."""
    return ObservedInstance(uid, "demo", is_over=True, has_executed=False)


def spent(uid: str = "demo-1") -> ObservedInstance:
    """One that executed something, and ended without metadata."""
    return ObservedInstance(uid, "demo", is_over=True, has_executed=True)


def theirs(uid: str = "demo-1", its: str | None = None) -> ObservedInstance:
    return ObservedInstance(uid, "demo", its, has_metadata=True)


def verdict(
    looks: Iterable[float],
    *seen: ObservedInstance,
    proves: bool = True,
    known: KnownInstances = NOBODY,
    has_policy: bool = False,
    window: SettleWindow | None = None,
    **parts: Any,
) -> Verdict:
    """The verdict after looks at these moments, all of which show the same."""
    window = window or SettleWindow(SETTLE, BEGAN)
    last: Verdict | None = None
    for seconds in looks:
        look = Observation(BEGAN + seconds, {one.rest_uid: one for one in seen}, proves)
        last = decide(doubt(**parts), "token", look, known, window, has_policy=has_policy)
    assert last is not None
    return last


IDLE, BOTH = ("demo-1",), ("demo-1", "demo-2")
TABLE: list[tuple[str, Iterable[float], list[ObservedInstance], bool, Verdict]] = [
    ("found at once", [0], [ours()], True, Found("demo-1")),
    ("found in a list that proves nothing", [0], [ours()], False, Found("demo-1")),
    ("found beside a candidate", EVERY_30_S, [ours(), bare("demo-2")], True, Found("demo-1")),
    ("found late", THREE_WINDOWS, [ours()], True, Found("demo-1")),
    ("nothing, one look", [180], [], True, Undecided()),
    ("nothing, too early", range(0, 180, 30), [], True, Undecided()),
    ("nothing", EVERY_30_S, [], True, Absent()),
    ("others' only", EVERY_30_S, [theirs(), theirs("demo-2", "other")], True, Absent()),
    ("nothing in a short list", EVERY_30_S, [], False, Undecided()),
    ("nothing in short lists for three windows", THREE_WINDOWS, [], False, Undecidable()),
    ("one that waits", EVERY_30_S, [bare()], True, Undecided(IDLE, IDLE)),
    ("one that waits for three windows", THREE_WINDOWS, [bare()], True, Undecidable(IDLE, IDLE)),
    ("one that never executed", EVERY_30_S, [failed()], True, Absent(IDLE)),
    ("one that never executed, too early", range(0, 180, 30), [failed()], True, Undecided((), IDLE)),
    ("one that executed, too early", range(0, 180, 30), [spent()], True, Undecided(IDLE)),
    ("one that executed", EVERY_30_S, [spent()], True, Undecidable(IDLE)),
    ("one idle, one that waits", EVERY_30_S, [failed(), bare("demo-2")], True, Undecided(("demo-2",), BOTH)),
    ("another package's", EVERY_30_S, [bare("other-1", "other")], True, Absent()),
    ("nobody knows whose package", EVERY_30_S, [bare("x-1", None)], True, Undecided(("x-1",), ("x-1",))),
    ("two of ours", [0], [ours(), ours("demo-2")], True, Undecidable(("demo-1", "demo-2"))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("looks", "seen", "proves", "expected"),
    [pytest.param(looks, seen, proves, expected, id=name) for name, looks, seen, proves, expected in TABLE],
)
def test_the_verdict(looks: Iterable[float], seen: list[ObservedInstance], proves: bool, expected: Verdict) -> None:
    """Row by row."""
    assert verdict(looks, *seen, proves=proves) == expected


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([0, 45, 90, 135, 180], True),
        ([0, 90, 180], False),
        ([0, 1, 2, 3, 180], False),
        ([0, 1, 2, 3, 4, 5, 6], False),
        ([0, 30, 60, 5000], False),
        ([0, 30, 60, 5000, 5001, 5031], True),
        ([-200, -150, -100, -50, 0], False),
    ],
)
def test_absence_takes_five_pieces_of_evidence_spread_over_a_window(looks: list[float], expected: bool) -> None:
    """Half a window counts between two of them at most, and nothing before the doubt began."""
    window = SettleWindow(SETTLE, BEGAN)
    for at in looks:
        window.add(BEGAN + at, is_evidence=True)

    assert window.proves_absence is expected


def test_a_look_without_evidence_counts_for_nothing_and_resets_nothing() -> None:
    """Neither a short list, nor one that shows a candidate whose metadata turns out to be another's."""
    window = SettleWindow(SETTLE, BEGAN)
    for at in (0, 30, 60):
        assert verdict([at], window=window) == Undecided()
    for at in (70, 80):
        assert verdict([at], proves=False, window=window) == Undecided()
    assert verdict([90], bare(), window=window) == Undecided(IDLE, IDLE)
    assert window.evidence == 3

    for at in (120, 150):
        assert verdict([at], theirs(), window=window) == Undecided()
    assert verdict([180], theirs(), window=window) == Absent()


def test_a_candidate_that_comes_late_and_is_open_stops_a_verdict_of_absence() -> None:
    """However much evidence there is."""
    window = SettleWindow(SETTLE, BEGAN)
    assert verdict(range(0, 179, 30), window=window) == Undecided()

    assert verdict([180], bare(), window=window) == Undecided(IDLE, IDLE)


def test_a_doubt_is_looked_into_before_it_is_given_up() -> None:
    """A process that slept for three windows, or a window of no length, does not end it at the first look."""
    assert verdict([1000], proves=False) == Undecided()
    assert verdict([0] * 4, window=SettleWindow(0.0, BEGAN)) == Undecided()
    assert verdict([0] * 5, window=SettleWindow(0.0, BEGAN)) == Absent()


def test_runs_that_the_journal_owns_are_no_candidates() -> None:
    """They are other launches'."""
    owned = KnownInstances({"demo-1": "other"}, {})
    assert verdict(EVERY_30_S, bare(), known=owned) == Absent()


def test_an_instance_that_carries_the_token_was_started_whoever_owns_it() -> None:
    """A launch may own the run of another by mistake, or an id may come back: that proves no absence."""
    owned = KnownInstances({"demo-1": "other"}, {}, {"demo-1"})
    assert verdict(EVERY_30_S, ours(), known=owned) == Undecided(IDLE)
    assert verdict(THREE_WINDOWS, ours(), known=owned) == Undecidable(IDLE)


@pytest.mark.parametrize(("opening", "expected"), [(1, Absent()), (2, Absent()), (3, Undecided(IDLE, IDLE))])
def test_what_was_there_before_it_was_sent_is_no_candidate(opening: int, expected: Verdict) -> None:
    """It was sent in the second opening; what was seen first before the third may be it."""
    assert verdict(EVERY_30_S, bare(), known=KnownInstances({}, {"demo-1": opening})) == expected


GONE = KnownInstances({}, {}, {"demo-1"})


@pytest.mark.parametrize(
    ("known", "idle", "expected"),
    [
        pytest.param(GONE, IDLE, Absent(IDLE), id="deleted, never executed"),
        pytest.param(GONE, (), Undecidable(IDLE), id="deleted, may have executed"),
        pytest.param(NOBODY, IDLE, Undecided(IDLE, IDLE), id="only the list lacks it"),
        pytest.param(KnownInstances({"demo-1": "other"}, {}), (), Absent(), id="found to be another's"),
    ],
)
def test_a_candidate_that_the_list_lacks(known: KnownInstances, idle: tuple[str, ...], expected: Verdict) -> None:
    """A request for it says whether it was deleted; one that never executed blocks nothing then."""
    assert verdict(EVERY_30_S, known=known, candidates=IDLE, never_executed=idle) == expected


def test_what_an_instance_was_seen_to_be_lasts_until_it_is_seen_to_be_something_else() -> None:
    """A look in which it was not asked for, or the datastore did not answer, says nothing; metadata says all."""
    unasked = ObservedInstance("demo-1", "demo")
    assert verdict([0], unasked) == Undecided(IDLE)
    assert verdict([0], unasked, never_executed=IDLE) == Undecided(IDLE, IDLE)
    assert verdict([0], spent(), never_executed=IDLE) == Undecided(IDLE)
    assert verdict([0], theirs(), never_executed=IDLE) == Undecided()


VERSION = "demo@sha256xabcdef0123"


@pytest.mark.parametrize(
    ("experiment", "uid", "label", "has_policy", "expected"),
    [
        ("demo", "demo-abcdef-01234567", None, False, True),
        ("demo:mine", "demo-abcdef-01234567", "demo", False, True),
        ("demo", "demo-two-abcdef-01234567", None, False, False),
        ("demo", "other-abcdef-01234567", "other", False, False),
        ("my demo", "my-demo-abcdef-01234567", None, False, True),
        ("a long name", "a-lon-abcdef-01234567", "a long name", False, True),
        (VERSION, "demo-abcdef-01234567", "demo", False, True),
        (VERSION, "demo-fedcba-01234567", "demo", False, False),
        (VERSION, "demo-1", "demo", False, True),
        (VERSION, "demo-1", None, False, True),
        (VERSION, "demo-fedcba-01234567", "demo", True, True),
        ("demo", "other-abcdef-01234567", "other", True, True),
    ],
)
def test_candidates_are_of_the_package_and_version(
    experiment: str, uid: str, label: str | None, has_policy: bool, expected: bool
) -> None:
    """As far as the id and the label of an instance tell; a runtime policy may have chosen any other package."""
    found = verdict([0], bare(uid, label), experiment=experiment, has_policy=has_policy)

    assert found == (Undecided((uid,), (uid,)) if expected else Undecided())


def test_a_thousand_doubts_are_judged_quickly_beside_thousands_of_instances() -> None:
    """What is the same for all of them is worked out once a look."""
    seen = [theirs(f"demo-{number}") for number in range(5000)] + [bare(f"demo-{number}x") for number in range(200)]
    look = Observation(BEGAN, {one.rest_uid: one for one in seen}, is_evidence=True)

    first = look.without_metadata("demo", None, has_policy=False)
    assert len(first) == 200
    for one, other in pairwise(look.without_metadata("demo", None, has_policy=False) for _ in range(3)):
        assert one is other is first
