"""Whether and when a request is sent again."""

from __future__ import annotations

import math

import anyio
import pytest

from st4sd_async import (
    APIError,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    RateLimited,
    RequestTimeout,
    RetryPolicy,
    ServerError,
    Unauthorized,
    UnknownRun,
)
from st4sd_async._http.retry import Replay, may_have_arrived, pause_seconds, should_retry, with_retries
from tests.conftest import FakeClock

UNSENT = ConnectFailed("POST", "http://x", "refused")
REFUSED_CERTIFICATE = ConnectFailed("POST", "http://x", "certificate", permanent=True)
SILENT = RequestTimeout("POST", "http://x", "silence")
LOST = ConnectionLost("POST", "http://x", "reset")
UNREADABLE = DecodeError("POST", "http://x", "html")
LIMITED = RateLimited("m", status=429)
LIMITED_FOR = RateLimited("m", status=429, retry_after=3.0)


def server(status: int) -> APIError:
    return (ServerError if status >= 500 else APIError)("m", status=status)


ANYTHING_BUT_STARTS = [Replay.READ, Replay.REPEAT, Replay.DELETE]

# The table of the documentation: error, retried for reads/repeats/deletes, retried for starts, may have arrived.
TABLE = [
    (UNSENT, True, True, False),
    (REFUSED_CERTIFICATE, False, False, False),
    (SILENT, True, False, True),
    (LOST, True, False, True),
    (server(502), True, False, True),
    (server(504), True, False, True),
    (server(503), True, False, True),
    (server(500), False, False, True),
    (server(507), False, False, True),
    (server(408), True, False, True),
    (LIMITED, True, False, False),
    (LIMITED_FOR, True, True, False),
    (UNREADABLE, False, False, True),
    (server(302), False, False, False),
    (server(404), False, False, False),
    (Unauthorized("m", status=403), False, False, False),
    (ValueError("ours"), False, False, False),
]


@pytest.mark.parametrize(("error", "others", "start", "arrived"), TABLE, ids=lambda value: repr(value)[:40])
def test_the_retry_table_holds(error: Exception, others: bool, start: bool, arrived: bool) -> None:
    """Each row of the documented table, for each kind of call."""
    assert {should_retry(replay, error) for replay in ANYTHING_BUT_STARTS} == {others}
    assert should_retry(Replay.ONCE, error) is start
    assert may_have_arrived(error) is arrived


def test_pauses_double_up_to_a_cap_and_are_drawn_evenly() -> None:
    """Full jitter: anything between nothing and the bound."""
    policy = RetryPolicy(first_wait=0.2, longest_wait=1.0)

    bounds = [max(pause_seconds(policy, attempt, SILENT) for _ in range(500)) for attempt in (1, 2, 3, 4, 50)]

    for bound, limit in zip(bounds, (0.2, 0.4, 0.8, 1.0, 1.0), strict=True):
        assert 0.9 * limit < bound <= limit
    assert min(pause_seconds(policy, 1, SILENT) for _ in range(500)) < 0.02


def test_the_service_may_ask_for_a_pause_up_to_a_cap() -> None:
    """Retry-After is honoured, but not for ever."""
    policy = RetryPolicy(longest_retry_after=60)

    assert pause_seconds(policy, 1, LIMITED_FOR) == 3.0
    assert pause_seconds(policy, 1, RateLimited("m", retry_after=3600)) == 60


def test_a_retry_after_of_zero_does_not_shorten_the_pauses() -> None:
    """Otherwise the number of attempts would be unlimited."""
    policy, error = RetryPolicy(first_wait=0.2, longest_wait=10), RateLimited("m", retry_after=0.0)

    waited = [sum(pause_seconds(policy, attempt, error) for attempt in range(1, 41)) for _ in range(20)]

    assert min(waited) > 60


@pytest.mark.parametrize(
    "options",
    [{"attempts": 0}, {"total": -1}, {"first_wait": -0.1}, {"longest_wait": -1}, {"longest_retry_after": -1},
     *({name: math.nan} for name in ("attempts", "total", "first_wait", "longest_wait", "longest_retry_after")),
     {"attempts": 2.5}, {"attempts": math.inf}, {"first_wait": math.inf}, {"longest_wait": math.inf}, {"total": "5"}],
    ids=str,
)  # fmt: skip
def test_an_invalid_policy_is_refused(options: dict[str, float]) -> None:
    """At least one attempt, no negative times or NaN; the message names the setting."""
    with pytest.raises(ValueError, match=f"invalid retry policy: {next(iter(options))} must be"):
        RetryPolicy(**options)  # type: ignore[arg-type] # a table of both kinds


def test_a_policy_may_have_no_end() -> None:
    """Infinite limits are allowed, for the total and for Retry-After."""
    policy = RetryPolicy(total=math.inf, longest_retry_after=math.inf)

    assert policy.attempts is None
    assert pause_seconds(policy, 1, RateLimited("m", retry_after=1e6)) == 1e6


class Failing:
    """An operation that fails with given errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0

    async def __call__(self) -> str:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def run(operation: Failing, clock: FakeClock, *, replay: Replay = Replay.READ, **policy: float) -> str:
    settings = RetryPolicy(**policy)  # type: ignore[arg-type] # numbers of both kinds
    return await with_retries(
        operation, policy=settings, replay=replay, clock=clock, request="GET x", has_responded=lambda: False
    )


@pytest.mark.anyio
async def test_it_goes_on_until_it_succeeds(clock: FakeClock) -> None:
    """The caller does not see temporary errors; the pauses use the given clock."""
    operation = Failing(LOST, LIMITED_FOR)

    assert await run(operation, clock) == "done"

    assert operation.attempts == 3
    assert clock.slept[1] == 3.0


@pytest.mark.anyio
async def test_the_number_of_attempts_is_a_limit(clock: FakeClock) -> None:
    """The last error is raised, with the number of attempts."""
    operation = Failing(*[ConnectionLost("GET", "http://x", "reset") for _ in range(9)])

    with pytest.raises(ConnectionLost) as caught:
        await run(operation, clock, attempts=3)

    assert operation.attempts == 3
    assert caught.value.attempts == 3
    assert "attempt 3" in str(caught.value)


@pytest.mark.anyio
async def test_the_total_time_is_a_limit(clock: FakeClock) -> None:
    """No attempt begins after it, and no pause begins that would end after it."""
    operation = Failing(*[RateLimited("m", status=429, retry_after=50) for _ in range(9)])

    with pytest.raises(RateLimited):
        await run(operation, clock, total=120)

    assert operation.attempts == 3
    assert clock.slept == [50, 50]


@pytest.mark.anyio
async def test_what_must_not_be_repeated_is_not(clock: FakeClock) -> None:
    """A start is sent again only if it was not sent, or was rate limited with a Retry-After."""
    lost = Failing(LOST)
    refused = Failing(UNSENT, LIMITED_FOR)

    with pytest.raises(ConnectionLost):
        await run(lost, clock, replay=Replay.ONCE)

    assert lost.attempts == 1
    assert await run(refused, clock, replay=Replay.ONCE) == "done"
    assert refused.attempts == 3


@pytest.mark.anyio
async def test_other_errors_are_raised_at_once(clock: FakeClock) -> None:
    """If another attempt cannot help, there is none."""
    for error in (KeyError("a bug"), UnknownRun("m", status=404)):
        operation = Failing(error)
        with pytest.raises(type(error)):
            await run(operation, clock)
        assert operation.attempts == 1
    assert clock.slept == []


@pytest.mark.anyio
async def test_cancellation_passes_at_once(clock: FakeClock) -> None:
    """A cancelled attempt is not an error to retry."""
    attempts = 0

    async def hang() -> None:
        nonlocal attempts
        attempts += 1
        await anyio.sleep_forever()

    with anyio.move_on_after(0.02) as scope:
        policy = RetryPolicy()
        await with_retries(
            hang, policy=policy, replay=Replay.READ, clock=clock, request="GET x", has_responded=lambda: False
        )

    assert scope.cancelled_caught
    assert attempts == 1
