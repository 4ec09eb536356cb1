"""When to ask again: pure, on literal times."""

from __future__ import annotations

from math import inf

import pytest

from st4sd_async._watch.schedule import (
    GROWTH,
    JITTER,
    LEISURE,
    LONGEST_REST,
    LONGEST_ROUND,
    QUICKEST,
    SLOWEST,
    Schedule,
)

SPREAD = JITTER + 0.001
"""Share by which a drawn pause may differ from what is expected."""


@pytest.fixture
def adaptive() -> Schedule:
    schedule = Schedule()
    schedule.join(None)
    return schedule


def fixed(*intervals: float | None) -> Schedule:
    schedule = Schedule()
    for interval in intervals:
        schedule.join(interval)
    return schedule


def test_at_first_all_is_due() -> None:
    """Nothing holds up the first round, whatever the interval."""
    for schedule in (fixed(None), fixed(600.0), fixed(None, 600.0)):
        assert schedule.due == -inf
        assert schedule.ready == -inf
        assert schedule.may_begin(-1e9)


def test_the_pauses_grow_while_nothing_moves(adaptive: Schedule) -> None:
    """From half a second to half a minute, and no further."""
    now, pauses = 0.0, []
    for _ in range(20):
        adaptive.ended(now, now, has_moved=False)
        pauses.append(adaptive.due - now)
        now = adaptive.due

    expected = [min(SLOWEST, QUICKEST * GROWTH**n) for n in range(20)]
    assert pauses == pytest.approx(expected, rel=SPREAD)
    assert pauses[-1] == pytest.approx(SLOWEST, rel=SPREAD)


def test_a_change_makes_them_short_again(adaptive: Schedule) -> None:
    """In a round, and between two."""
    for _ in range(20):
        adaptive.ended(0.0, 0.0, has_moved=False)
    slow = adaptive.due

    adaptive.moved(1.0)
    between = adaptive.due
    adaptive.ended(2.0, 2.0, has_moved=True)

    assert slow > 20
    assert between == pytest.approx(1.0 + QUICKEST, abs=QUICKEST * SPREAD)
    assert adaptive.due == pytest.approx(2.0 + QUICKEST, abs=QUICKEST * SPREAD)


def test_a_change_never_puts_the_next_round_off(adaptive: Schedule) -> None:
    """Who moves often is not asked less."""
    adaptive.ended(0.0, 0.0, has_moved=True)
    due = adaptive.due

    for tenth in range(1, 5):
        adaptive.moved(tenth / 10)

    assert adaptive.due <= due


def test_pauses_are_drawn(adaptive: Schedule) -> None:
    """Many clients do not ask at once."""
    dues = set()
    for _ in range(20):
        adaptive.ended(0.0, 0.0, has_moved=True)
        dues.add(adaptive.due)

    assert len(dues) > 10
    assert max(dues) - min(dues) > QUICKEST * JITTER / 2


def test_a_fixed_interval_is_neither_drawn_nor_grown() -> None:
    """Whether something moves or not."""
    schedule = fixed(7.0)

    for now in (0.0, 10.0, 20.0):
        schedule.ended(now, now, has_moved=False)
        schedule.moved(now)
        assert schedule.due == now + 7.0


@pytest.mark.parametrize(
    ("intervals", "due"),
    [([3.0, 7.0], 3.0), ([7.0, 3.0], 3.0), ([7.0, 7.0], 7.0), ([None, 0.01], 0.01), ([600.0, None], QUICKEST)],
    ids=str,
)
def test_the_shortest_interval_counts(intervals: list[float | None], due: float) -> None:
    """Who wants to wait longer is told more often than he asked for."""
    schedule = fixed(*intervals)

    schedule.ended(0.0, 0.0, has_moved=True)

    assert schedule.due == pytest.approx(due, rel=SPREAD)


def test_who_left_counts_no_longer() -> None:
    """And of two with the same interval one remains."""
    schedule = fixed(3.0, 3.0, 7.0)
    schedule.ended(0.0, 0.0, has_moved=False)

    schedule.leave(3.0)
    assert schedule.due == 3.0
    schedule.leave(3.0)
    assert schedule.due == 7.0


@pytest.mark.parametrize("interval", [None, 0.001, 5.0, 600.0])
def test_a_long_round_is_followed_by_a_long_pause(interval: float | None) -> None:
    """Ten times what it took, whatever the interval, a fixed one too."""
    schedule = fixed(interval)

    schedule.ended(100.0, 112.0, has_moved=True)

    assert schedule.due == max(112.0 + LEISURE * 12.0, 100.0 + (interval or 0.0))
    assert not schedule.may_begin(112.0 + LEISURE * 12.0 - 0.01)
    assert schedule.may_begin(112.0 + LEISURE * 12.0)


def test_requests_between_two_rounds_are_leisurely_too() -> None:
    """They put off each other, but not the round."""
    schedule = fixed(5.0)
    schedule.ended(0.0, 0.0, has_moved=False)

    schedule.looked(1.0, 1.2)

    assert schedule.ready == pytest.approx(1.2 + LEISURE * 0.2)
    assert schedule.due == 5.0
    assert schedule.may_begin(1.2)


@pytest.mark.parametrize("interval", [None, 5.0])
def test_a_jump_of_the_clock_is_not_taken_for_a_long_round(interval: float | None) -> None:
    """The machine slept; nobody is made to wait hours for that."""
    schedule = fixed(interval)

    schedule.ended(0.0, 10 * 3600.0, has_moved=True)
    schedule.looked(0.0, 10 * 3600.0)

    assert schedule.due - 10 * 3600.0 <= max(QUICKEST * (1 + JITTER), interval or 0.0)
    assert schedule.ready == 10 * 3600.0


def test_a_round_that_took_as_long_as_one_can_is_no_jump() -> None:
    """The proxy gives up after a minute."""
    schedule = fixed(1.0)

    schedule.ended(0.0, 60.0, has_moved=False)

    assert schedule.due == 60.0 + LEISURE * 60.0
    assert LONGEST_ROUND > 60.0


@pytest.mark.parametrize(("took", "rest"), [(0.0, 0.0), (1.0, 10.0), (20.0, LONGEST_REST)])
def test_a_round_that_failed_is_followed_by_a_rest(took: float, rest: float) -> None:
    """For what it took, up to a minute; requests between rounds rest too."""
    schedule = fixed(0.5)

    schedule.failed(100.0 - took, 100.0)

    assert schedule.ready == 100.0 + rest
    assert schedule.due == 100.0 + max(rest, 0.5)
    assert schedule.may_begin(100.0 + rest)
    assert not schedule.may_begin(100.0 + rest - 0.01)


@pytest.mark.parametrize(
    ("asked", "rest"), [(0.0, 5.0), (40.0, 40.0), (3600.0, LONGEST_REST), (inf, LONGEST_REST)], ids=str
)
def test_a_service_that_asks_for_rest_gets_it(asked: float, rest: float) -> None:
    """Up to a minute, whether the round failed or not, and what is planned after that does not shorten it."""
    schedule = fixed(5.0)

    schedule.spare(asked, 100.0)
    schedule.looked(100.0, 100.0)
    schedule.ended(100.0, 100.0, has_moved=True)

    assert schedule.due == 100.0 + rest
    assert schedule.ready == (100.0 + rest if asked else 100.0)


def test_rounds_that_fail_come_at_longer_and_longer_pauses(adaptive: Schedule) -> None:
    """A service that is down is not hammered."""
    now, pauses = 0.0, []
    for _ in range(15):
        adaptive.failed(now, now)
        pauses.append(adaptive.due - now)
        now = adaptive.due

    assert pauses[0] == pytest.approx(QUICKEST, rel=SPREAD)
    assert pauses[-1] == pytest.approx(SLOWEST, rel=SPREAD)


def test_a_failure_holds_up_a_newcomer_for_a_minute_at_most() -> None:
    """However long the interval of those who were there."""
    schedule = fixed(600.0)
    schedule.failed(0.0, 0.0)

    schedule.join(None)

    assert schedule.ready <= LONGEST_REST
    assert schedule.due <= LONGEST_REST
