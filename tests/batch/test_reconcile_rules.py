"""The rules for launches in doubt."""

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
NOTHING_KNOWN = KnownInstances({}, {})
EVERY_30_S = range(0, 181, 30)
"""Seconds after the doubt began at which there are looks, over one settle window."""
THREE_WINDOWS = range(0, 541, 30)


def doubt(**parts: Any) -> LaunchRecord:
    fields = {"state": State.UNKNOWN, "opening": 2, "experiment": "demo:latest", **parts}
    return LaunchRecord(key="mol", payload="0", **fields)


def ours(uid: str = "demo-1") -> ObservedInstance:
    return ObservedInstance(uid, "demo", "token", has_metadata=True)


def bare(uid: str = "demo-1", package: str | None = "demo") -> ObservedInstance:
    """Return an instance that waits, or whose list entry shows nothing about it."""
    return ObservedInstance(uid, package, has_executed=False)


def failed(uid: str = "demo-1") -> ObservedInstance:
    """Return an instance that failed at set-up."""
    return ObservedInstance(uid, "demo", is_over=True, has_executed=False)


def spent(uid: str = "demo-1") -> ObservedInstance:
    """Return an instance that executed something and ended without metadata."""
    return ObservedInstance(uid, "demo", is_over=True, has_executed=True)


def theirs(uid: str = "demo-1", its: str | None = None) -> ObservedInstance:
    return ObservedInstance(uid, "demo", its, has_metadata=True)


def verdict(
    looks: Iterable[float],
    *seen: ObservedInstance,
    proves: bool = True,
    known: KnownInstances = NOTHING_KNOWN,
    has_policy: bool = False,
    can_be_absent: bool = True,
    window: SettleWindow | None = None,
    **parts: Any,
) -> Verdict:
    """Return the verdict after observations at these times, which all show the same."""
    window = window or SettleWindow(SETTLE, BEGAN)
    last: Verdict | None = None
    for seconds in looks:
        look = Observation(BEGAN + seconds, {one.rest_uid: one for one in seen}, proves)
        last = decide(doubt(**parts), "token", look, known, window, has_policy=has_policy, can_be_absent=can_be_absent)
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
    ("package unknown", EVERY_30_S, [bare("x-1", None)], True, Undecided(("x-1",), ("x-1",))),
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
def test_absence_needs_five_pieces_of_evidence_over_a_window(looks: list[float], expected: bool) -> None:
    """A gap counts for at most half a window, and nothing counts before the doubt began."""
    window = SettleWindow(SETTLE, BEGAN)
    for at in looks:
        window.add(BEGAN + at, is_evidence=True)

    assert window.proves_absence is expected


def test_an_observation_without_evidence_counts_for_nothing_and_resets_nothing() -> None:
    """A short list, or a candidate whose metadata later turns out to belong to another launch."""
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


def test_a_late_open_candidate_prevents_a_verdict_of_absence() -> None:
    """However much evidence there is."""
    window = SettleWindow(SETTLE, BEGAN)
    assert verdict(range(0, 179, 30), window=window) == Undecided()

    assert verdict([180], bare(), window=window) == Undecided(IDLE, IDLE)


def test_a_minimum_of_observations_is_needed_to_give_up() -> None:
    """A process that slept for three windows does not give up at once, nor does a window of length 0."""
    assert verdict([1000], proves=False) == Undecided()
    assert verdict([0] * 4, window=SettleWindow(0.0, BEGAN)) == Undecided()
    assert verdict([0] * 5, window=SettleWindow(0.0, BEGAN)) == Absent()


@pytest.mark.parametrize("seen", [[], [theirs()], [failed()]])
def test_a_launch_sent_before_any_list_came_is_never_absent(seen: list[ObservedInstance]) -> None:
    """When others would be proven absent, it is reported. Its run is found at any time."""
    idle = tuple(one.rest_uid for one in seen if one.is_over)

    assert verdict(range(0, 180, 30), *seen, can_be_absent=False) == Undecided((), idle)
    assert verdict(EVERY_30_S, *seen, can_be_absent=False) == Undecidable((), idle)
    assert verdict(EVERY_30_S, ours(), can_be_absent=False) == Found("demo-1")


def test_owned_runs_are_not_candidates() -> None:
    """They belong to other launches."""
    owned = KnownInstances({"demo-1": "other"}, {})
    assert verdict(EVERY_30_S, bare(), known=owned) == Absent()


def test_an_instance_with_the_token_is_never_absent() -> None:
    """Even if another launch owns it by mistake, or its id is reused."""
    owned = KnownInstances({"demo-1": "other"}, {}, {"demo-1"})
    assert verdict(EVERY_30_S, ours(), known=owned) == Undecided(IDLE)
    assert verdict(THREE_WINDOWS, ours(), known=owned) == Undecidable(IDLE)


@pytest.mark.parametrize(("opening", "expected"), [(1, Absent()), (2, Absent()), (3, Undecided(IDLE, IDLE))])
def test_instances_from_before_the_send_are_not_candidates(opening: int, expected: Verdict) -> None:
    """It was sent in the second opening. An instance first seen before the third may be its run."""
    assert verdict(EVERY_30_S, bare(), known=KnownInstances({}, {"demo-1": opening})) == expected


GONE = KnownInstances({}, {}, {"demo-1"})


@pytest.mark.parametrize(
    ("known", "idle", "expected"),
    [
        pytest.param(GONE, IDLE, Absent(IDLE), id="deleted, never executed"),
        pytest.param(GONE, (), Undecidable(IDLE), id="deleted, may have executed"),
        pytest.param(NOTHING_KNOWN, IDLE, Undecided(IDLE, IDLE), id="only the list lacks it"),
        pytest.param(KnownInstances({"demo-1": "other"}, {}), (), Absent(), id="found to be another's"),
    ],
)
def test_a_candidate_that_the_list_lacks(known: KnownInstances, idle: tuple[str, ...], expected: Verdict) -> None:
    """A request shows whether it was deleted. If it never executed anything, it blocks nothing then."""
    assert verdict(EVERY_30_S, known=known, candidates=IDLE, never_executed=idle) == expected


def test_what_was_seen_of_an_instance_holds_until_something_else_is_seen() -> None:
    """An observation without a request or without the datastore changes nothing; metadata does."""
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
    """As far as the id and label show. A runtime policy may choose any other package."""
    found = verdict([0], bare(uid, label), experiment=experiment, has_policy=has_policy)

    assert found == (Undecided((uid,), (uid,)) if expected else Undecided())


def test_a_thousand_launches_are_decided_quickly_among_thousands_of_instances() -> None:
    """Shared work is done once per observation."""
    seen = [theirs(f"demo-{number}") for number in range(5000)] + [bare(f"demo-{number}x") for number in range(200)]
    look = Observation(BEGAN, {one.rest_uid: one for one in seen}, is_evidence=True)

    first = look.without_metadata("demo", None, has_policy=False)
    assert len(first) == 200
    for one, other in pairwise(look.without_metadata("demo", None, has_policy=False) for _ in range(3)):
        assert one is other is first
