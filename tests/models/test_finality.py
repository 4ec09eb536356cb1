"""When a run is over, by the observed behaviour of the servers; each row of the table names its fact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import pytest

from st4sd_async import Status
from st4sd_async.models.finality import FinalityTracker, Pair, is_final

from ..watch.recorded_runs import (
    FOREVER,
    GRACE,
    NO_IMAGE,
    NO_POD,
    NO_STATUS,
    NOT_CLONED,
    RECORDED_RUNS,
    Moment,
    RecordedRun,
)


def every_second(course: RecordedRun) -> Iterator[Moment]:
    """Yield an observation at each change and each second after it."""
    ends = [moment for moment, *_ in course.moments[1:]] + [FOREVER]
    for (began, state, exit_status, text), end in zip(course.moments, ends, strict=True):
        passed = 0
        while began + passed < end:
            yield began + passed, state, exit_status, text
            passed += 1


def moment_at(course: RecordedRun, now: float) -> Moment:
    return [moment for moment in course.moments if moment[0] <= now][-1]


def end_by_delays(course: RecordedRun) -> float | None:
    """Return when a course ends if it is observed at each change, and otherwise only when the tracker asks for it."""
    tracker, now = FinalityTracker(GRACE), course.moments[0][0]
    while True:
        _, state, exit_status, text = moment_at(course, now)
        if tracker.observe((state, exit_status), now, text):
            return now
        delay = tracker.poll_delay(now)
        nexts = [moment for moment, *_ in course.moments if moment > now]
        if delay is not None:
            nexts.append(now + delay)
        if not nexts:
            return None
        now = min(nexts)


by_fact = pytest.mark.parametrize("course", RECORDED_RUNS, ids=lambda course: course.fact)


@by_fact
def test_every_course_ends_when_the_run_is_over(course: RecordedRun) -> None:
    """At the first final pair, or when a pair with one final field has not changed for the grace period; else never."""
    tracker = FinalityTracker(GRACE)

    ended = [now for now, *pair, text in every_second(course) if tracker.observe((pair[0], pair[1]), now, text)]

    assert next(iter(ended), None) == pytest.approx(course.over)


@by_fact
def test_observations_when_the_tracker_asks_are_enough(course: RecordedRun) -> None:
    """Together with those at changes, they lead to the same end at the same time."""
    assert end_by_delays(course) == pytest.approx(course.over)


@cache
def status_of(state: str | None, exit_status: str | None, text: str | None) -> Status:
    return Status.model_validate({"experiment-state": state, "exit-status": exit_status, "error-description": text})


@by_fact
def test_the_model_agrees_with_the_plain_words(course: RecordedRun) -> None:
    """`Status` gives the same result, and its exit-status alone decides about success."""
    plain, typed = FinalityTracker(GRACE), FinalityTracker(GRACE)

    for now, state, exit_status, text in every_second(course):
        status = status_of(state, exit_status, text)
        over = plain.observe((state, exit_status), now, text)

        assert status.is_final == is_final((state, exit_status))
        assert typed.observe(status.pair, now, status.error_description) == over
        assert typed.poll_delay(now) == plain.poll_delay(now)
        if over:
            assert status.concluded().is_success == course.success
            break


def cases(word: str) -> list[str]:
    return [word.lower(), word.upper(), word.capitalize(), word.capitalize().swapcase()]


@pytest.mark.parametrize("words", list(product(["finished", "failed"], ["Success", "Failed", "Stopped"])), ids=str)
def test_words_are_compared_without_regard_to_case(words: tuple[str, str]) -> None:
    """The service writes both `failed` and `Failed`."""
    for pair in product(cases(words[0]), cases(words[1])):
        status = Status.model_validate({"experiment-state": pair[0], "exit-status": pair[1]})

        assert is_final(pair)
        assert FinalityTracker(GRACE).observe(pair, 0.0)
        assert status.is_final
        assert status.is_success == (words[1] == "Success")


@pytest.mark.parametrize("word", [None, "", "None", "none", "N/A", "n/a", "null", "thawing"], ids=repr)
def test_a_word_that_is_not_final_never_ends_a_run(word: str | None) -> None:
    """Neither alone nor beside a final one."""
    assert not is_final((word, word))
    assert not is_final(("finished", word))
    assert not is_final((word, "Success"))


@pytest.mark.parametrize("raw", [{"warning": NO_POD}, {"message": NO_STATUS}, {}], ids=["warning", "400", "null"])
def test_no_status_at_all_is_pending(raw: dict[str, str]) -> None:
    """[3]: the first 0.3 s, but a warning may stay for ever; time alone does not end such a run."""
    status, tracker = Status.model_validate(raw), FinalityTracker(GRACE)

    assert status.is_pending
    assert not status.is_final
    assert not any(tracker.observe(status.pair, second) for second in range(int(FOREVER)))
    assert tracker.poll_delay(FOREVER) is None


def test_words_in_another_case_do_not_restart_the_grace_period() -> None:
    """[3]: `failed` of an init container and `Failed` of the orchestrator are equal in the models."""
    tracker = FinalityTracker(GRACE)

    seen = [
        tracker.observe(Status.model_validate({"experiment-state": state, "exit-status": ""}).pair, now)
        for now, state in [(0, "failed"), (30, "Failed"), (60, "FAILED")]
    ]

    assert seen == [False, False, True]


def test_a_pair_that_comes_back_restarts_the_grace_period() -> None:
    """Only the time since it came back counts."""
    tracker, seen = FinalityTracker(GRACE), []

    for now, pair in [
        (0, ("failed", "")),
        (29, ("failed", "")),
        (58, (None, None)),
        (59, ("failed", "")),
        (89, ("failed", "")),
        (118, ("failed", "")),
        (119, ("failed", "")),
    ]:
        seen.append(tracker.observe(pair, now))

    assert seen == [False] * 6 + [True]


def test_a_gap_without_observations_counts_for_half_the_grace_at_most() -> None:
    """A laptop that slept for a day does not know what happened."""
    tracker, pair = FinalityTracker(GRACE), ("failed", "")

    seen = [tracker.observe(pair, now) for now in (0, 86_400, 86_410, 86_430)]

    assert seen == [False, False, False, True]
    assert tracker.poll_delay(86_430) == 0


def test_at_least_three_observations_are_needed() -> None:
    """However far apart they are."""
    for grace in (0.001, 1.0, GRACE):
        tracker = FinalityTracker(grace)

        assert [tracker.observe(("failed", ""), now) for now in (0, 1e6, 2e6)] == [False, False, True]


def test_a_clock_that_runs_backwards_counts_as_no_time() -> None:
    """It neither ends a run nor delays its end: time goes on from the new value."""
    tracker, pair = FinalityTracker(GRACE), ("finished", None)

    assert not tracker.observe(pair, 1000)
    assert not tracker.observe(pair, 1020)
    assert not tracker.observe(pair, 5)
    assert tracker.poll_delay(0) == 30
    assert not tracker.observe(pair, 35)
    assert tracker.poll_delay(35) == pytest.approx(10)
    assert tracker.observe(pair, 45)


def test_a_grace_period_of_0_ends_a_run_at_the_first_observation() -> None:
    """Also if an image cannot be pulled; a pair without a final field still does not end."""
    assert FinalityTracker(0).observe(("failed", ""), 0)
    assert FinalityTracker(0).observe(("failed", ""), 0, NO_IMAGE)
    assert not FinalityTracker(0).observe(("running", "N/A"), 0)


@pytest.mark.parametrize(
    "text", [NO_IMAGE, "Failed To Pull Image x", "unable to pull images x, y", "errimagepull", "is ImagePullBackOff"]
)
def test_an_image_that_cannot_be_pulled_extends_the_grace_period(text: str) -> None:
    """Ten times the grace period, with observations as far apart as usual; then the run is over."""
    tracker, now, observations = FinalityTracker(GRACE), 0.0, 0

    while not tracker.observe(("failed", ""), now, text):
        observations += 1
        now += tracker.poll_delay(now) or 0.0

    assert now == pytest.approx(10 * GRACE)
    assert observations == 20


def test_the_last_text_counts() -> None:
    """An error after the image was pulled has the usual grace period."""
    tracker = FinalityTracker(GRACE)

    assert not any(tracker.observe(("failed", ""), now, NO_IMAGE) for now in range(0, 50, 10))
    assert not tracker.observe(("failed", ""), 50, NOT_CLONED)
    assert tracker.poll_delay(50) == pytest.approx(10)
    assert tracker.observe(("failed", ""), 60, NOT_CLONED)


@pytest.mark.parametrize("grace", [60.0, 0.1, 0.3, 0.7, 1.1, 1e-3, 123.456])
@pytest.mark.parametrize("began", [0.0, 0.1, 1000.0, 123456.789, 1e7])
def test_three_observations_are_enough_at_the_times_asked_for(grace: float, began: float) -> None:
    """However the sums of times are rounded."""
    tracker, now, seen = FinalityTracker(grace), began, []

    for _ in range(3):
        seen.append(tracker.observe(("failed", ""), now))
        delay = tracker.poll_delay(now)
        assert delay is not None
        now += delay

    assert seen == [False, False, True]
    assert now == pytest.approx(began + grace, abs=grace * 1e-4)


def test_the_delay_is_the_time_until_an_observation_is_useful() -> None:
    """Half the grace period, or the rest of it if that is less, minus the time since the last observation."""
    tracker, pair = FinalityTracker(GRACE), ("running", "Failed")
    tracker.observe(pair, 100)

    assert [tracker.poll_delay(now) for now in (100, 110, 130, 140)] == [30, 20, 0, 0]
    assert not tracker.observe(pair, 120)
    assert tracker.poll_delay(120) == 30
    assert not tracker.observe(pair, 149)
    assert tracker.poll_delay(149) == pytest.approx(11)
    assert tracker.poll_delay(155) == pytest.approx(5)


@pytest.mark.parametrize("pair", [(None, None), ("running", "N/A"), ("finished", "Success")], ids=str)
def test_there_is_a_delay_only_if_one_field_is_final(pair: Pair) -> None:
    """Neither before the first observation, nor with a pair about which time decides nothing."""
    tracker = FinalityTracker(GRACE)

    assert tracker.poll_delay(0) is None
    tracker.observe(("failed", ""), 0)
    assert tracker.poll_delay(0) == 30
    tracker.observe(pair, 10)
    assert tracker.poll_delay(10) is None
