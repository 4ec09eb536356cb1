"""When the next requests are due: pure, with literal times."""

from __future__ import annotations

from math import inf

import pytest

from st4sd_async._watch.poller import Schedule
from tests.watch.helpers import FIRST_PAUSE, JITTER, MAX_PAUSE, MAX_REST, PAUSE_GROWTH, REST_FACTOR

SPREAD = JITTER + 0.001
"""Share by which a random pause may differ from its mean."""


@pytest.fixture
def adaptive() -> Schedule:
    schedule = Schedule()
    schedule.add_interval(None)
    return schedule


def fixed(*intervals: float | None) -> Schedule:
    schedule = Schedule()
    for interval in intervals:
        schedule.add_interval(interval)
    return schedule


def test_the_first_round_is_due_at_once() -> None:
    """Whatever the interval."""
    for schedule in (fixed(None), fixed(600.0), fixed(None, 600.0)):
        assert schedule.next_round_at == -inf
        assert schedule.next_request_at == -inf
        assert schedule.may_begin_round(-1e9)


def test_pauses_grow_while_nothing_changes(adaptive: Schedule) -> None:
    """From half a second to half a minute, and no further."""
    now, pauses = 0.0, []
    for _ in range(20):
        adaptive.round_ended(now, now, has_changes=False)
        pauses.append(adaptive.next_round_at - now)
        now = adaptive.next_round_at

    expected = [min(MAX_PAUSE, FIRST_PAUSE * PAUSE_GROWTH**n) for n in range(20)]
    assert pauses == pytest.approx(expected, rel=SPREAD)
    assert pauses[-1] == pytest.approx(MAX_PAUSE, rel=SPREAD)


def test_a_change_makes_pauses_short_again(adaptive: Schedule) -> None:
    """Whether it is found in a round or between two."""
    for _ in range(20):
        adaptive.round_ended(0.0, 0.0, has_changes=False)
    slow = adaptive.next_round_at

    adaptive.begin_round_soon(1.0)
    between = adaptive.next_round_at
    adaptive.round_ended(2.0, 2.0, has_changes=True)

    assert slow > 20
    assert between == pytest.approx(1.0 + FIRST_PAUSE, abs=FIRST_PAUSE * SPREAD)
    assert adaptive.next_round_at == pytest.approx(2.0 + FIRST_PAUSE, abs=FIRST_PAUSE * SPREAD)


def test_a_change_never_delays_the_next_round(adaptive: Schedule) -> None:
    """However often a status changes."""
    adaptive.round_ended(0.0, 0.0, has_changes=True)
    due = adaptive.next_round_at

    for tenth in range(1, 5):
        adaptive.begin_round_soon(tenth / 10)

    assert adaptive.next_round_at <= due


def test_pauses_are_random(adaptive: Schedule) -> None:
    """Many clients do not send at once."""
    dues = set()
    for _ in range(20):
        adaptive.round_ended(0.0, 0.0, has_changes=True)
        dues.add(adaptive.next_round_at)

    assert len(dues) > 10
    assert max(dues) - min(dues) > FIRST_PAUSE * JITTER / 2


def test_a_fixed_interval_is_neither_random_nor_growing() -> None:
    """Whether something changes or not."""
    schedule = fixed(7.0)

    for now in (0.0, 10.0, 20.0):
        schedule.round_ended(now, now, has_changes=False)
        schedule.begin_round_soon(now)
        assert schedule.next_round_at == now + 7.0


@pytest.mark.parametrize(
    ("intervals", "due"),
    [([3.0, 7.0], 3.0), ([7.0, 3.0], 3.0), ([7.0, 7.0], 7.0), ([None, 0.01], 0.01), ([600.0, None], FIRST_PAUSE)],
    ids=str,
)
def test_the_shortest_interval_counts(intervals: list[float | None], due: float) -> None:
    """Other consumers receive updates more often than they asked for."""
    schedule = fixed(*intervals)

    schedule.round_ended(0.0, 0.0, has_changes=True)

    assert schedule.next_round_at == pytest.approx(due, rel=SPREAD)


def test_a_removed_interval_does_not_count() -> None:
    """If two consumers have the same interval, one of them remains."""
    schedule = fixed(3.0, 3.0, 7.0)
    schedule.round_ended(0.0, 0.0, has_changes=False)

    schedule.remove_interval(3.0)
    assert schedule.next_round_at == 3.0
    schedule.remove_interval(3.0)
    assert schedule.next_round_at == 7.0


@pytest.mark.parametrize("interval", [None, 0.001, 5.0, 600.0])
def test_a_long_round_is_followed_by_a_long_pause(interval: float | None) -> None:
    """Ten times as long, even with a fixed interval."""
    schedule = fixed(interval)

    schedule.round_ended(100.0, 112.0, has_changes=True)

    assert schedule.next_round_at == max(112.0 + REST_FACTOR * 12.0, 100.0 + (interval or 0.0))
    assert not schedule.may_begin_round(112.0 + REST_FACTOR * 12.0 - 0.01)
    assert schedule.may_begin_round(112.0 + REST_FACTOR * 12.0)


def test_requests_between_two_rounds_are_followed_by_a_pause_too() -> None:
    """They delay each other, but not the round."""
    schedule = fixed(5.0)
    schedule.round_ended(0.0, 0.0, has_changes=False)

    schedule.requests_ended(1.0, 1.2)

    assert schedule.next_request_at == pytest.approx(1.2 + REST_FACTOR * 0.2)
    assert schedule.next_round_at == 5.0
    assert schedule.may_begin_round(1.2)


@pytest.mark.parametrize("took", [60.0, 130.0])
def test_a_round_of_minutes_is_a_long_round(took: float) -> None:
    """The proxy gives up after a minute, and many requests may follow."""
    schedule = fixed(1.0)

    schedule.round_ended(0.0, took, has_changes=False)

    assert schedule.next_round_at == took + REST_FACTOR * took


@pytest.mark.parametrize(("took", "rest"), [(0.0, 0.0), (1.0, 10.0), (20.0, MAX_PAUSE)])
def test_a_failed_round_is_followed_by_a_rest(took: float, rest: float) -> None:
    """As after a long round, but for half a minute at most. No other request is sent in that time."""
    schedule = fixed(0.5)

    schedule.round_failed(100.0 - took, 100.0)

    assert schedule.next_request_at == 100.0 + rest
    assert schedule.next_round_at == 100.0 + max(rest, 0.5)
    assert schedule.may_begin_round(100.0 + rest)
    assert not schedule.may_begin_round(100.0 + rest - 0.01)


def test_requests_for_new_runs_wait_in_an_outage(adaptive: Schedule) -> None:
    """As long as the round, and longer after each failure; not if single runs could be read."""
    adaptive.round_failed(0.0, 0.0)
    before = adaptive.next_request_at
    adaptive.round_failed(0.0, 0.0, is_outage=True)
    in_outage = adaptive.next_request_at
    for _ in range(15):
        adaptive.requests_failed(100.0)

    assert before == 0.0
    assert in_outage == adaptive.next_round_at >= FIRST_PAUSE * (1 - SPREAD)
    assert adaptive.next_request_at == pytest.approx(100.0 + MAX_PAUSE, rel=SPREAD)


def test_pauses_are_as_long_as_before_after_a_failure(adaptive: Schedule) -> None:
    """The rounds that show whether there is an outage do not make the following ones frequent."""
    for _ in range(20):
        adaptive.round_ended(0.0, 0.0, has_changes=False)
    adaptive.count_failures(has_failures=True)
    adaptive.round_failed(0.0, 0.0)
    soon = adaptive.next_round_at

    adaptive.count_failures(has_failures=False)
    adaptive.round_ended(1.0, 1.0, has_changes=False)

    assert soon == pytest.approx(FIRST_PAUSE, rel=SPREAD)
    assert adaptive.next_round_at == pytest.approx(1.0 + MAX_PAUSE, rel=SPREAD)


@pytest.mark.parametrize(("seconds", "rest"), [(0.0, 5.0), (40.0, 40.0), (3600.0, MAX_REST), (inf, MAX_REST)], ids=str)
def test_back_off_delays_all_requests(seconds: float, rest: float) -> None:
    """For a minute at most, whether the round failed or not. Later results do not shorten it."""
    schedule = fixed(5.0)

    schedule.back_off(seconds, 100.0)
    schedule.requests_ended(100.0, 100.0)
    schedule.round_ended(100.0, 100.0, has_changes=True)

    assert schedule.next_round_at == 100.0 + rest
    assert schedule.next_request_at == (100.0 + rest if seconds else 100.0)


def test_pauses_between_failed_rounds_grow(adaptive: Schedule) -> None:
    """A service that is down is not overloaded."""
    now, pauses = 0.0, []
    for _ in range(15):
        adaptive.round_failed(now, now)
        pauses.append(adaptive.next_round_at - now)
        now = adaptive.next_round_at

    assert pauses[0] == pytest.approx(FIRST_PAUSE, rel=SPREAD)
    assert pauses[-1] == pytest.approx(MAX_PAUSE, rel=SPREAD)


def test_a_failure_delays_a_newcomer_for_a_minute_at_most() -> None:
    """However long the interval of the other consumers."""
    schedule = fixed(600.0)
    schedule.round_failed(0.0, 0.0)

    schedule.add_interval(None)

    assert schedule.next_request_at <= MAX_REST
    assert schedule.next_round_at <= MAX_REST
