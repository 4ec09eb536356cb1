"""What holds for every life of a run, likely or not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from st4sd_async import ExitStatus, ExperimentState
from st4sd_async._finality import FINAL_EXITS, FINAL_STATES, Judge, Pair

GRACE = 60.0

states = st.sampled_from([None, "", "Initialising", "running", "unscheduled", "finished", "failed", "Failed", "odd"])
exits = st.sampled_from([None, "", "N/A", "Success", "Failed", "Stopped", "odd"])
looks = st.lists(st.tuples(st.floats(0, 100), states, exits), min_size=1, max_size=30)


def finals(pair: Pair) -> int:
    state, exit_status = pair
    return ((state or "").lower() in FINAL_STATES) + ((exit_status or "").lower() in FINAL_EXITS)


@given(looks)
def test_a_run_is_over_only_with_proof_or_after_the_grace(script: list[tuple[float, str | None, str | None]]) -> None:
    """Never by fields that can still change, always when both agree, whatever came before."""
    judge, now, since, last = Judge(GRACE), 0.0, 0.0, None
    for passed, state, exit_status in script:
        now += passed
        pair = (state, exit_status)
        if pair != last:
            since, last = now, pair

        over = judge.is_over(pair, now)

        assert over == (finals(pair) == 2 or (finals(pair) == 1 and now >= since + GRACE))


@given(looks)
def test_waiting_as_long_as_it_says_is_enough(script: list[tuple[float, str | None, str | None]]) -> None:
    """The patience of a half-final pair is exactly what is left of its grace."""
    judge, now = Judge(GRACE), 0.0
    for passed, state, exit_status in script:
        now += passed
        over = judge.is_over((state, exit_status), now)
        patience = judge.patience(now)

        if patience is not None:
            assert over == (patience == 0)
            assert 0 <= patience <= GRACE + 1e-6


@given(st.text(max_size=30))
def test_a_word_never_raises_and_is_kept(word: str) -> None:
    """Whatever a service says, it compares without regard to case and is shown as it came or as documented."""
    for cls in (ExperimentState, ExitStatus):
        parsed = cls(word)

        assert parsed == word
        assert str(parsed).casefold() == word.casefold()
        assert hash(parsed) == hash(cls(word))
        assert parsed.is_known == (word.casefold() in {str(one).casefold() for one in cls})
