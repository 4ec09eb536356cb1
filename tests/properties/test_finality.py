"""What holds for every life of a run, likely or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st4sd_async import ExitStatus, ExperimentState, Status
from st4sd_async.models.finality import Judge
from st4sd_async.models.hints import LONGEST_LINE, explain

GRACE = 60.0
SLACK = 1e-4
"""Share of the grace by which a sum of moments may be wrong."""

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


class Look(NamedTuple):
    """What was seen, and how many seconds after the look before."""

    passed: float
    state: str | None
    exit_status: str | None
    text: str


# Few pairs of words, so that they often stand.
looks = st.lists(
    st.builds(
        Look,
        st.one_of(st.floats(-50, 100), st.sampled_from([0.0, 15.0, 20.0, 30.0, 60.0])),
        st.sampled_from(["running", "failed", "finished", None]),
        st.sampled_from(["", "Failed", None]),
        texts,
    ),
    min_size=1,
    max_size=40,
)


def finals(look: Look) -> int:
    return (look.state in FINAL_STATES) + (look.exit_status in FINAL_EXITS)


def stood(seen: Sequence[Look], grace: float) -> float:
    """How long the pair of the last look was seen to stand, added up from the end."""
    gaps: list[float] = []
    for later, earlier in zip(reversed(seen), reversed(seen[:-1]), strict=False):
        if (later.state, later.exit_status) != (earlier.state, earlier.exit_status):
            break
        gaps.append(min(max(later.passed, 0.0), grace / 2))
    return math.fsum(gaps)


@given(looks, graces)
def test_a_run_is_over_exactly_when_it_was_seen_to_stand_long_enough(script: list[Look], grace: float) -> None:
    """Never by fields that can still change, always when both are final, whatever came before."""
    judge, now = Judge(grace), 1000.0
    for count, look in enumerate(script, start=1):
        now += look.passed
        over = judge.is_over((look.state, look.exit_status), now, look.text)

        needed = grace * (1 if look.text in ("", "boom") else 10)
        missing = needed - stood(script[:count], grace)
        if finals(look) != 1:
            assert over == (finals(look) == 2)
            assert judge.patience(now) is None
        elif missing <= 0 or missing > needed * SLACK:
            assert over == (missing <= 0)
            assert judge.patience(now) == pytest.approx(max(0.0, min(grace / 2, missing)), abs=grace * SLACK)


@given(half_final, texts, graces, st.floats(0, 1e6))
def test_looking_when_asked_ends_a_pair_that_stands(
    pair: tuple[str | None, str | None], text: str, grace: float, began: float
) -> None:
    """Within the grace, or ten times that with an image, and by a handful of looks."""
    judge, now, looked = Judge(grace), began, 1

    while not judge.is_over(pair, now, text):
        patience = judge.patience(now)
        assert patience is not None
        now += patience
        looked += 1
        assert looked <= 22

    graces_needed = 1 if text in ("", "boom") else 10
    assert now - began == pytest.approx(grace * graces_needed, rel=SLACK)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.sampled_from(OTHER_STATES), st.sampled_from(OTHER_EXITS), texts)))
def test_a_pair_without_a_final_word_is_never_over_by_time(
    script: list[tuple[float, str | None, str | None, str]],
) -> None:
    """However long it stands, whatever its text, even without any grace."""
    judges, now = (Judge(0.0), Judge(GRACE)), 0.0
    for passed, state, exit_status, text in script:
        now += passed
        for judge in judges:
            assert not judge.is_over((state, exit_status), now, text)
            assert judge.patience(now) is None


@given(states, exits, st.text(max_size=20))
def test_strange_words_neither_raise_nor_end_a_run(state: str | None, exit_status: str | None, word: str) -> None:
    """A word that is not final never is, beside whatever."""
    strange = f"{word}?"

    assert not Judge(GRACE).is_over((state, strange), 0)
    assert not Judge(GRACE).is_over((strange, exit_status), 0)


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
    """It never raises, fits a line, shows no control character, and needs no text."""
    words = {"experiment-state": state, "exit-status": exit_status, "stage-state": stage_state}
    status = Status.model_validate({**words, "error-description": text})

    for hint in (explain(state, exit_status, stage_state, text), status.hint, status.concluded(deleted=True).hint):
        if hint is not None:
            line = str(hint)
            assert line.isprintable()
            assert len(line.splitlines()) == 1
            assert len(line) <= LONGEST_LINE
            assert line.startswith(f"{hint.reason.replace('_', ' ')}: {hint.advice}")
    assert len(str(status).splitlines()) <= 1


@given(st.text(max_size=30))
def test_a_word_never_raises_and_is_kept(word: str) -> None:
    """Whatever a service says, it compares without regard to case and is shown as it came or as documented."""
    for cls in (ExperimentState, ExitStatus):
        parsed = cls(word)

        assert parsed == word
        assert str(parsed).casefold() == word.casefold()
        assert hash(parsed) == hash(cls(word))
        assert parsed.is_known == (word.casefold() in {str(one).casefold() for one in cls})
