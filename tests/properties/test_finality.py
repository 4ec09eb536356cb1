"""Properties of every course of a run, likely or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st4sd_async import ExitStatus, ExperimentState, Status
from st4sd_async.models.finality import FinalityTracker
from st4sd_async.models.hints import explain
from tests.tries import tries

pytestmark = pytest.mark.slow

GRACE = 60.0
SLACK = 1e-4
"""Share of the grace period by which a sum of times may be wrong."""

FINAL_STATES = ["finished", "failed", "Failed"]
OTHER_STATES = [None, "", "None", "Initialising", "running", "unscheduled", "unschedulable", "odd"]
FINAL_EXITS = ["Success", "Failed", "Stopped", "success"]
OTHER_EXITS = [None, "", "None", "N/A", "odd"]
IMAGE = "initContainer failure: Failed to pull image x"

states = st.sampled_from(FINAL_STATES + OTHER_STATES)
exits = st.sampled_from(FINAL_EXITS + OTHER_EXITS)
texts = st.sampled_from(["", "boom", IMAGE, "errimagepull", "ImagePullBackOff"])
half_final = st.one_of(
    st.tuples(st.sampled_from(FINAL_STATES), st.sampled_from(OTHER_EXITS)),
    st.tuples(st.sampled_from(OTHER_STATES), st.sampled_from(FINAL_EXITS)),
)
graces = st.one_of(st.just(0.0), st.just(GRACE), st.floats(0.01, 1000))


class Observation(NamedTuple):
    """What was observed, and how many seconds after the observation before."""

    passed: float
    state: str | None
    exit_status: str | None
    text: str


# Only few pairs, so that they often stay the same.
observations = st.lists(
    st.builds(
        Observation,
        st.one_of(st.floats(-50, 100), st.sampled_from([0.0, 15.0, 20.0, 30.0, 60.0])),
        st.sampled_from(["running", "failed", "finished", None]),
        st.sampled_from(["", "Failed", None]),
        texts,
    ),
    min_size=1,
    max_size=40,
)


def count_final(seen: Observation) -> int:
    return (seen.state in FINAL_STATES) + (seen.exit_status in FINAL_EXITS)


def unchanged(seen: Sequence[Observation], grace: float) -> float:
    """Return for how long the last pair has not changed, added up from the end."""
    gaps: list[float] = []
    for later, earlier in zip(reversed(seen), reversed(seen[:-1]), strict=False):
        if (later.state, later.exit_status) != (earlier.state, earlier.exit_status):
            break
        gaps.append(min(max(later.passed, 0.0), grace / 2))
    return math.fsum(gaps)


@settings(max_examples=tries(100, 15))
@given(observations, graces)
def test_a_run_is_over_exactly_when_it_has_not_changed_for_long_enough(script: list[Observation], grace: float) -> None:
    """Never because of fields that can still change, always when both are final, whatever came before."""
    tracker, now = FinalityTracker(grace), 1000.0
    for count, seen in enumerate(script, start=1):
        now += seen.passed
        over = tracker.observe((seen.state, seen.exit_status), now, seen.text)

        needed = grace * (1 if seen.text in ("", "boom") else 10)
        missing = needed - unchanged(script[:count], grace)
        if count_final(seen) != 1:
            assert over == (count_final(seen) == 2)
            assert tracker.poll_delay(now) is None
        elif missing <= 0 or missing > needed * SLACK:
            assert over == (missing <= 0)
            assert tracker.poll_delay(now) == pytest.approx(max(0.0, min(grace / 2, missing)), abs=grace * SLACK)


@settings(max_examples=tries(100, 15))
@given(half_final, texts, graces, st.floats(0, 1e6))
def test_observations_when_asked_end_a_pair_with_one_final_field(
    pair: tuple[str | None, str | None], text: str, grace: float, began: float
) -> None:
    """Within the grace period, or ten times that for an image, and with few observations."""
    tracker, now, count = FinalityTracker(grace), began, 1

    while not tracker.observe(pair, now, text):
        delay = tracker.poll_delay(now)
        assert delay is not None
        now += delay
        count += 1
        assert count <= 22

    graces_needed = 1 if text in ("", "boom") else 10
    assert now - began == pytest.approx(grace * graces_needed, rel=SLACK)


@settings(max_examples=tries(100, 15))
@given(st.lists(st.tuples(st.floats(0, 1e6), st.sampled_from(OTHER_STATES), st.sampled_from(OTHER_EXITS), texts)))
def test_time_never_ends_a_pair_without_a_final_field(
    script: list[tuple[float, str | None, str | None, str]],
) -> None:
    """However long it stays the same, whatever the text, even with a grace period of 0."""
    trackers, now = (FinalityTracker(0.0), FinalityTracker(GRACE)), 0.0
    for passed, state, exit_status, text in script:
        now += passed
        for tracker in trackers:
            assert not tracker.observe((state, exit_status), now, text)
            assert tracker.poll_delay(now) is None


@given(states, exits, st.text(max_size=20))
def test_strange_words_neither_raise_nor_end_a_run(state: str | None, exit_status: str | None, word: str) -> None:
    """Whatever word stands beside it."""
    strange = f"{word}?"

    assert not FinalityTracker(GRACE).observe((state, strange), 0)
    assert not FinalityTracker(GRACE).observe((strange, exit_status), 0)


some_words = st.one_of(
    states, exits, st.text(max_size=20), st.sampled_from(["waiting_on_resource", "suspended", "N/A", "thawing"])
)
some_texts = st.one_of(
    st.none(),
    st.text(),
    st.text(max_size=20).map(lambda text: text * 30),
    st.lists(
        st.sampled_from(
            [IMAGE, "\\n", "\n", "git-sync-package failed with exit code 1 and message ", "nodes are available: ",
             " preemption:", "elaunch-primary ", "exitCode: 137", "OOMKilled", "Job: ", "there is no Pod for it"]
        )
    ).map("".join),
)  # fmt: skip


@given(some_words, some_words, some_words, some_texts)
def test_a_hint_is_one_line_whatever_the_service_says(
    state: str | None, exit_status: str | None, stage_state: str | None, text: str | None
) -> None:
    """It never raises, fits on a line, has no control characters, and needs no text."""
    words = {"experiment-state": state, "exit-status": exit_status, "stage-state": stage_state}
    status = Status.model_validate({**words, "error-description": text})

    for hint in (explain(state, exit_status, stage_state, text), status.hint, status.concluded(deleted=True).hint):
        if hint is not None:
            line = str(hint)
            assert line.isprintable()
            assert len(line.splitlines()) == 1
            assert len(line) <= 200
            assert line.startswith(f"{hint.reason.replace('_', ' ')}: {hint.advice}")
    assert len(str(status).splitlines()) <= 1


@given(st.text(max_size=30))
def test_a_word_never_raises_and_is_kept(word: str) -> None:
    """It is compared without regard to case, and its text is that of the service or the documented one."""
    for cls in (ExperimentState, ExitStatus):
        parsed = cls(word)

        assert parsed == word
        assert str(parsed).casefold() == word.casefold()
        assert hash(parsed) == hash(cls(word))
        assert parsed.is_known == (word.casefold() in {str(member).casefold() for member in cls})
