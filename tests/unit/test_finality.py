"""When is a run over?"""

from __future__ import annotations

import pytest

from st4sd_async._finality import Judge, Pair, is_final

GRACE = 60.0

OVER = [
    ("finished", "Success"),
    ("finished", "Failed"),
    ("failed", "Failed"),
    ("finished", "Stopped"),
    ("FINISHED", "success"),
]
HALF = [
    ("running", "Success"),
    ("running", "Failed"),
    ("finished", "N/A"),
    ("failed", ""),
    ("Failed", ""),
    ("finished", None),
]
OPEN = [
    (None, None),
    ("", ""),
    ("Initialising", "N/A"),
    ("running", "N/A"),
    ("running", None),
    ("unscheduled", ""),
    ("unschedulable", ""),
    ("waiting_on_resource", "N/A"),
    ("suspended", "N/A"),
    ("thawing", "Melted"),
]


@pytest.mark.parametrize("pair", OVER, ids=str)
def test_both_fields_final_is_over_at_once(pair: Pair) -> None:
    """No grace is needed when both fields agree, whatever their case."""
    assert is_final(pair)
    assert Judge(GRACE).is_over(pair, 0.0)


@pytest.mark.parametrize("pair", HALF, ids=str)
def test_one_final_field_is_over_after_the_grace_period(pair: Pair) -> None:
    """A run that never gets its other field is over when the pair has stood still long enough."""
    judge = Judge(GRACE)

    assert not is_final(pair)
    assert not judge.is_over(pair, 100.0)
    assert judge.patience(130.0) == 30.0
    assert not judge.is_over(pair, 159.9)
    assert judge.is_over(pair, 160.0)


@pytest.mark.parametrize("pair", OPEN, ids=str)
def test_no_final_field_is_never_over(pair: Pair) -> None:
    """However long it stands: waiting, unknown words and no status at all can still change."""
    judge = Judge(GRACE)

    assert not any(judge.is_over(pair, moment) for moment in (0.0, 60.0, 1e6))
    assert judge.patience(1e6) is None


def test_a_pair_that_flaps_starts_its_grace_anew() -> None:
    """A failed image pull that comes and goes is not the end."""
    judge = Judge(GRACE)

    seen = [
        judge.is_over(pair, moment)
        for moment, pair in [
            (0.0, ("failed", "")),
            (50.0, (None, None)),
            (55.0, ("failed", "")),
            (110.0, ("failed", "")),
            (115.0, ("failed", "")),
        ]
    ]

    assert seen == [False, False, False, False, True]


def test_without_a_look_nothing_was_seen() -> None:
    """A judge that has seen nothing has no patience to tell."""
    assert Judge(GRACE).patience(0.0) is None
