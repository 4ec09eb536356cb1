"""The limit for starts in flight."""

from __future__ import annotations

from st4sd_async._batch.sender import AdaptiveLimiter


def test_it_begins_with_the_initial_limit() -> None:
    """Starts in flight use it up."""
    limiter = AdaptiveLimiter(8)

    assert [limiter.available(count, 0.0) for count in (0, 7, 8, 9)] == [8, 1, 0, 0]


def test_it_grows_by_one_per_round_of_quick_answers() -> None:
    """Eight quick answers add one start in flight, up to the maximum."""
    limiter = AdaptiveLimiter(8)
    for _ in range(9):
        limiter.on_response(0.05)
    assert int(limiter.limit) == 9

    for _ in range(10_000):
        limiter.on_response(0.05)
    assert limiter.limit == 64


def test_it_does_not_grow_while_answers_are_slow() -> None:
    """More starts in flight than the service can handle only make each one wait."""
    limiter = AdaptiveLimiter(8)
    limiter.on_response(0.012)
    limit = limiter.limit
    for _ in range(20):
        limiter.on_response(0.05)

    assert limiter.limit == limit


def test_starts_in_flight_together_halve_it_once() -> None:
    """Eight time-outs of the same moment count once; a time-out of a later start counts again."""
    limiter = AdaptiveLimiter(8)
    for _ in range(8):
        limiter.on_overload(sent_at=1.0, now=2.0)
    assert limiter.limit == 4
    limiter.on_overload(sent_at=2.5, now=3.0)
    assert limiter.limit == 2
    for moment in range(10, 20):
        limiter.on_overload(sent_at=moment, now=moment)
    assert limiter.limit == 1


def test_it_pauses_longer_while_the_overload_goes_on() -> None:
    """From a fraction of a second to half a minute. An answer resets the pause."""
    limiter, now, pauses = AdaptiveLimiter(8), 0.0, []
    for _ in range(12):
        limiter.on_overload(sent_at=now, now=now)
        assert limiter.available(0, now) == 0
        pauses.append(limiter.resume_at - now)
        now = limiter.resume_at
    assert [round(pause, 6) for pause in pauses[:3]] == [0.2, 0.4, 0.8]
    assert round(pauses[-1], 6) == 30.0

    limiter.on_response(1.0)
    limiter.on_overload(sent_at=now, now=now)
    assert round(limiter.resume_at - now, 6) == 0.2


def test_it_honours_retry_after() -> None:
    """Also for starts that were in flight together."""
    limiter = AdaptiveLimiter(8)
    limiter.on_overload(sent_at=0.0, now=1.0)
    limiter.on_overload(sent_at=0.0, now=1.0, retry_after=7.0)

    assert limiter.resume_at == 8.0
    limiter.on_overload(sent_at=0.0, now=1.0, retry_after=1e9)
    assert limiter.resume_at == 301.0
    limiter.resume_at = 8.0
    assert (limiter.available(0, 7.9), limiter.available(0, 8.0)) == (0, 4)
