"""The estimate of the time that a batch takes from now."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from st4sd_async._batch.state import StateChange
from st4sd_async._batch.time_left import seconds_left, time_left


def history(*changes: tuple[str, float], attempt: int = 1) -> list[StateChange]:
    """Return state changes with their times."""
    return [StateChange(attempt, state, since) for state, since in changes]


def planned() -> list[StateChange]:
    return history(("planned", 0))


def started(at: float) -> list[StateChange]:
    return [*planned(), *history(("sending", at), ("started", at))]


def ended(begin: float, end: float, state: str = "succeeded") -> list[StateChange]:
    return [*started(begin), *history((state, end))]


def waves(count: int, at_once: int, duration: float, now: float) -> list[list[StateChange]]:
    """Return launches of which so many at once have run for this duration, one wave after another."""
    found = []
    for number in range(count):
        begin = number // at_once * duration
        if begin + duration <= now:
            found.append(ended(begin, begin + duration))
        else:
            found.append(started(begin) if begin <= now else planned())
    return found


@pytest.mark.parametrize(
    ("now", "left"), [(60, 240), (90, 210), (150, 150), (250, 50), (299, 6)], ids=lambda value: f"{value:g}"
)
def test_waves_of_runs_end_when_they_should(now: float, left: float) -> None:
    """A hundred runs of a minute, 20 at once, take five minutes."""
    assert seconds_left(waves(100, 20, 60, now), now) == pytest.approx(left, abs=7)


def test_runs_that_wait_for_the_cluster_are_not_in_progress() -> None:
    """All are started at once, ten execute at a time. A run is seen to begin when it no longer waits."""
    launches = [
        *([*started(0), *history(("running", 5), ("succeeded", 65))] for _ in range(10)),
        *([*started(0), *history(("running", 65))] for _ in range(10)),
        *(started(0) for _ in range(40)),
    ]

    assert seconds_left(launches, 65) == pytest.approx(300, abs=1)


def test_runs_that_execute_at_once_end_together() -> None:
    """Without waiting, however many are left."""
    launches = [*(ended(0, 300 + number) for number in range(30)), *(started(100) for _ in range(70))]

    assert seconds_left(launches, 330) == pytest.approx(84.5, abs=1)


def test_a_pause_between_two_processes_does_not_count() -> None:
    """Nothing was in progress for a day."""
    day = 86_400.0
    launches = [*(ended(0, 60) for _ in range(4)), *(ended(day, day + 60) for _ in range(4)), *[planned()] * 8]

    assert seconds_left(launches, day + 60) == pytest.approx(120)


@pytest.mark.parametrize(
    "launches",
    [
        [],
        [planned()] * 9,
        [*(ended(0, 60) for _ in range(2)), planned()],
        [ended(0, 60)] * 5,
        [*([ended(0, 60)] * 3), *([started(0)] * 20)],
        [*([history(("planned", 0), ("refused", 1))] * 5), planned()],
        [*([ended(0, 60, "deleted")] * 5), planned()],
        [[], []],
    ],
    ids=[
        "no launches",
        "nothing began",
        "too few",
        "all over",
        "the quickest of many",
        "refused",
        "deleted",
        "old journal",
    ],
)
def test_there_is_no_estimate_without_ground(launches: Sequence[Sequence[StateChange]]) -> None:
    """A wrong number is worse than none."""
    assert seconds_left(launches, 61) is None


def test_a_new_attempt_is_a_launch_that_waits() -> None:
    """Its earlier attempt counts as a run that ended."""
    failed = [*ended(0, 60, "failed"), *history(("planned", 61), attempt=2)]

    assert seconds_left([*([ended(0, 60)] * 2), failed], 61) == pytest.approx(20)


def test_downloads_do_not_end_a_run_again() -> None:
    """A launch whose files were downloaded has one duration."""
    collected = [*ended(0, 60), *history(("collected", 1000))]

    assert seconds_left([*([collected] * 3), planned()], 1000) == pytest.approx(20)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.0, "less than 1 min left"),
        (59.9, "less than 1 min left"),
        (60.0, "about 1 min left"),
        (700.0, "about 12 min left"),
        (5399.0, "about 2 h left"),
        (86_400.0, "about 24 h left"),
        (260_000.0, "about 3 days left"),
    ],
)
def test_an_estimate_is_shown_in_words(seconds: float | None, words: str) -> None:
    """Rounded, because it is no promise."""
    assert time_left(seconds) == words
