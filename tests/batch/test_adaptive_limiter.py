"""How many starts may be in flight."""

from __future__ import annotations

from st4sd_async._batch.sender import AdaptiveLimiter


def test_it_begins_where_it_is_told_to() -> None:
    """And leaves room for what is not in flight."""
    limiter = AdaptiveLimiter(8)

    assert [limiter.available(count, 0.0) for count in (0, 7, 8, 9)] == [8, 1, 0, 0]


def test_it_grows_by_one_a_round_while_latency_holds() -> None:
    """Eight good answers in a row are one more in flight; never more than the bound."""
    limiter = AdaptiveLimiter(8)
    for _ in range(9):
        limiter.on_answer(0.05)
    assert int(limiter.limit) == 9

    for _ in range(10_000):
        limiter.on_answer(0.05)
    assert limiter.limit == 64


def test_it_stands_while_answers_take_long() -> None:
    """More in flight than the service handles at once only makes each wait."""
    limiter = AdaptiveLimiter(8)
    limiter.on_answer(0.012)
    limit = limiter.limit
    for _ in range(20):
        limiter.on_answer(0.05)

    assert limiter.limit == limit


def test_it_halves_once_for_those_that_were_in_flight_together() -> None:
    """Eight time-outs of one moment are one trouble; one of a later start is another."""
    limiter = AdaptiveLimiter(8)
    for _ in range(8):
        limiter.on_overload(sent_at=1.0, now=2.0)
    assert limiter.limit == 4
    limiter.on_overload(sent_at=2.5, now=3.0)
    assert limiter.limit == 2
    for moment in range(10, 20):
        limiter.on_overload(sent_at=moment, now=moment)
    assert limiter.limit == 1


def test_it_pauses_longer_while_trouble_goes_on() -> None:
    """From a fraction of a second to half a minute; an answer ends it."""
    limiter, now, pauses = AdaptiveLimiter(8), 0.0, []
    for _ in range(12):
        limiter.on_overload(sent_at=now, now=now)
        assert limiter.available(0, now) == 0
        pauses.append(limiter.resume_at - now)
        now = limiter.resume_at
    assert [round(pause, 6) for pause in pauses[:3]] == [0.2, 0.4, 0.8]
    assert round(pauses[-1], 6) == 30.0

    limiter.on_answer(1.0)
    limiter.on_overload(sent_at=now, now=now)
    assert round(limiter.resume_at - now, 6) == 0.2


def test_it_waits_as_long_as_it_is_asked_to() -> None:
    """Retry-After counts even among those that are one trouble."""
    limiter = AdaptiveLimiter(8)
    limiter.on_overload(sent_at=0.0, now=1.0)
    limiter.on_overload(sent_at=0.0, now=1.0, retry_after=7.0)

    assert limiter.resume_at == 8.0
    limiter.on_overload(sent_at=0.0, now=1.0, retry_after=1e9)
    assert limiter.resume_at == 301.0
    limiter.resume_at = 8.0
    assert (limiter.available(0, 7.9), limiter.available(0, 8.0)) == (0, 4)
