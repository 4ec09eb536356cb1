"""How many starts may be in flight."""

from __future__ import annotations

from st4sd_async._batch.limiter import FIRST_PAUSE, LONGEST_PAUSE, MOST, Pace


def test_it_begins_where_it_is_told_to() -> None:
    """And leaves room for what is not in flight."""
    pace = Pace(8)

    assert [pace.room(count, 0.0) for count in (0, 7, 8, 9)] == [8, 1, 0, 0]


def test_it_grows_by_one_a_round_while_latency_holds() -> None:
    """Eight good answers in a row are one more in flight; never more than the bound."""
    pace = Pace(8)
    for _ in range(9):
        pace.answered(0.05)
    assert int(pace.limit) == 9

    for _ in range(10_000):
        pace.answered(0.05)
    assert pace.limit == MOST


def test_it_stands_while_answers_take_long() -> None:
    """More in flight than the service handles at once only makes each wait."""
    pace = Pace(8)
    pace.answered(0.012)
    limit = pace.limit
    for _ in range(20):
        pace.answered(0.05)

    assert pace.limit == limit


def test_it_halves_once_for_those_that_were_in_flight_together() -> None:
    """Eight time-outs of one moment are one trouble; one of a later start is another."""
    pace = Pace(8)
    for _ in range(8):
        pace.troubled(began=1.0, now=2.0)
    assert pace.limit == 4
    pace.troubled(began=2.5, now=3.0)
    assert pace.limit == 2
    for moment in range(10, 20):
        pace.troubled(began=moment, now=moment)
    assert pace.limit == 1


def test_it_pauses_longer_while_trouble_goes_on() -> None:
    """From a fraction of a second to half a minute; an answer ends it."""
    pace, now, pauses = Pace(8), 0.0, []
    for _ in range(12):
        pace.troubled(began=now, now=now)
        assert pace.room(0, now) == 0
        pauses.append(pace.resume - now)
        now = pace.resume
    assert [round(pause, 6) for pause in pauses[:3]] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert round(pauses[-1], 6) == LONGEST_PAUSE

    pace.answered(1.0)
    pace.troubled(began=now, now=now)
    assert round(pace.resume - now, 6) == FIRST_PAUSE


def test_it_waits_as_long_as_it_is_asked_to() -> None:
    """Retry-After counts even among those that are one trouble."""
    pace = Pace(8)
    pace.troubled(began=0.0, now=1.0)
    pace.troubled(began=0.0, now=1.0, retry_after=7.0)

    assert pace.resume == 8.0
    pace.troubled(began=0.0, now=1.0, retry_after=1e9)
    assert pace.resume == 301.0
    pace.resume = 8.0
    assert (pace.room(0, 7.9), pace.room(0, 8.0)) == (0, 4)
