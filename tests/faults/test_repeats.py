"""What is safe to repeat is repeated, within limits, and anybody can stop it at any time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest

from st4sd_async import (
    APIError,
    Client,
    ConnectionLost,
    NotFound,
    RateLimited,
    RetryPolicy,
    ServerError,
    UnknownExperiment,
    UnknownRun,
)
from st4sd_async._http.call import Call, nothing
from st4sd_async._http.retry import Replay
from tests.conftest import FakeClock
from tests.tries import combinations, sample

from .clients import SILENCE, StandingClock, connect
from .exceptions import assert_ours
from .raw import Answer, RawServer, close, cut, head, never, raw, reply, reset

pytestmark = pytest.mark.anyio

HTML = b"<html><body>Gateway</body></html>"
GONE = reply(400, {"message": "The browser (or proxy) sent a request that this server could not understand."})
"""What the service answers to the delete of an instance that it does not know."""

PASSING = [
    pytest.param(reply(429, {"message": "slow down"}), id="429"),
    *(pytest.param(reply(status, HTML, media="text/html"), id=str(status)) for status in (502, 503, 504)),
    pytest.param(close(), id="closed"),
    pytest.param(reset(), id="reset"),
    pytest.param(never(), id="never answered"),
    pytest.param(cut(), id="body cut short"),
]
"""What passes by itself."""


@pytest.mark.parametrize("answer", PASSING)
async def test_a_read_survives_what_passes(answer: Answer) -> None:
    """A read is sent again, and its caller sees only the good answer."""
    async with (
        RawServer([answer, answer, reply(200, [])]) as server,
        connect(server.url, retry=RetryPolicy(attempts=3), timeout=SILENCE) as client,
    ):
        assert await client.instances.list() == []

    assert server.methods == ["GET"] * 3


@pytest.mark.parametrize("answer", PASSING)
async def test_a_push_survives_what_passes(answer: Answer) -> None:
    """The same content pushed twice is one entry, so a push is sent again, body and all."""
    package = {"metadata": {"package": {"name": "demo"}}}
    async with (
        RawServer([answer, reply(200, {"result": package})]) as server,
        connect(server.url, timeout=SILENCE) as client,
    ):
        experiment = await client.push(package)

    assert experiment.name == "demo"
    assert server.methods == ["POST", "POST"]
    assert server.requests[0].body == server.requests[1].body != b""


@pytest.mark.parametrize("answer", sample(PASSING, 4))
async def test_a_put_survives_what_passes(answer: Answer) -> None:
    """Setting tags twice has the same result."""
    call = Call("PUT", "experiments/demo/tag", nothing, replay=Replay.REPEAT, params={"newTags": "latest"})
    async with RawServer([answer, reply(200, "OK")]) as server, connect(server.url, timeout=SILENCE) as client:
        await client._session.send(call)

    assert server.methods == ["PUT", "PUT"]
    assert {seen.path for seen in server.requests} == {"/rs/experiments/demo/tag?newTags=latest"}


@pytest.mark.parametrize("answer", sample(PASSING, 4))
async def test_a_delete_survives_what_passes(answer: Answer) -> None:
    """A delete is sent again."""
    async with RawServer([answer, reply(200, "OK")]) as server, connect(server.url, timeout=SILENCE) as client:
        await client.delete("demo-1")

    assert server.methods == ["DELETE", "DELETE"]


FIRST = {"closed": close(), "reset": reset(), "silent": never(), "502": reply(502, HTML), "504": reply(504, HTML)}
MISSING = {"400": GONE, "404": reply(404, {"message": "gone"})}


@pytest.mark.parametrize(("second", "first"), combinations(MISSING, FIRST))
async def test_a_repeated_delete_that_finds_nothing_is_done(first: str, second: str) -> None:
    """If the first delete may have arrived, a 404 means success."""
    async with RawServer([FIRST[first], MISSING[second]]) as server, connect(server.url, timeout=SILENCE) as client:
        await client.delete("demo-1")

    assert server.methods == ["DELETE", "DELETE"]


@pytest.mark.parametrize("answer", MISSING.values(), ids=MISSING)
async def test_a_first_delete_that_finds_nothing_is_an_error(answer: Answer) -> None:
    """A misspelt id is an error."""
    async with RawServer([answer]) as server, connect(server.url) as client:
        with pytest.raises(UnknownRun):
            await client.delete("demo-1")

    assert server.methods == ["DELETE"]


async def test_a_delete_that_never_left_before_does_not_excuse_a_missing_run(clock: FakeClock) -> None:
    """After refused connections the first delete that arrives is the first."""
    async with RawServer([GONE], listening=False) as server:
        clock.meanwhile = server.listen
        async with connect(server.url, clock) as client:
            with pytest.raises(UnknownRun):
                await client.delete("demo-1")


async def test_a_delete_that_was_turned_away_before_does_not_excuse_a_missing_run() -> None:
    """429 says that nothing was done, so what is missing afterwards was missing before."""
    async with RawServer([reply(429, {"message": "slow down"}), GONE]) as server, connect(server.url) as client:
        with pytest.raises(UnknownRun):
            await client.delete("demo-1")


async def test_a_repeated_delete_of_an_experiment_is_done_too() -> None:
    """The registry says 404 for what was deleted a moment ago."""
    async with (
        RawServer([close(), reply(404, {"unknownExperiment": "demo", "message": "no"})]) as server,
        connect(server.url) as client,
    ):
        await client.experiments.delete("demo")
        with pytest.raises(UnknownExperiment):
            await client.experiments.delete("demo")


@pytest.mark.parametrize("status", sample([300, 302, 400, 401, 403, 404, 405, 409, 413, 415], 5))
async def test_a_refusal_is_not_asked_for_twice(status: int, clock: FakeClock) -> None:
    """A permanent error is raised at once."""
    async with (
        RawServer([reply(status, {"message": "no"})]) as server,
        connect(server.url, clock, retry=RetryPolicy(attempts=5)) as client,
    ):
        with pytest.raises(APIError) as caught:
            await client.instances.get("demo-1")

    assert caught.value.attempts == len(server.requests) == 1
    assert clock.slept == []


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_attempts_are_bounded(attempts: int, clock: FakeClock) -> None:
    """As many as the policy says, and the error says how many; pauses grow but stay below their bound."""
    policy = RetryPolicy(attempts=attempts, first_wait=1, longest_wait=3)
    async with (
        RawServer([reply(503, HTML, media="text/html")]) as server,
        connect(server.url, clock, retry=policy) as client,
    ):
        with pytest.raises(ServerError) as caught:
            await client.instances.list()

    assert caught.value.attempts == len(server.requests) == attempts
    assert len(clock.slept) == attempts - 1
    assert all(0 <= pause <= bound for pause, bound in zip(clock.slept, [1, 2, 3, 3], strict=False))
    assert_ours(caught.value)


async def test_the_whole_time_is_bounded(clock: FakeClock) -> None:
    """No attempt begins after ``total`` seconds, however many are left."""
    policy = RetryPolicy(attempts=100, total=10)
    async with (
        RawServer([reply(503, {"message": "busy"}, retry_after="4")]) as server,
        connect(server.url, clock, retry=policy) as client,
    ):
        with pytest.raises(ServerError) as caught:
            await client.instances.list()

    assert clock.slept == [4.0, 4.0]
    assert caught.value.attempts == len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "paused"), [("2.5", 2.5), ("30", 30.0), ("86400", 60.0)])
async def test_what_the_service_asks_to_wait_is_waited_up_to_a_cap(
    status: int, asked: str, paused: float, clock: FakeClock
) -> None:
    """A longer Retry-After replaces the drawn pause, but a day is not waited."""
    answers = [reply(status, {"message": "busy"}, retry_after=asked), reply(200, [])]
    async with RawServer(answers) as server, connect(server.url, clock) as client:
        await client.instances.list()

    assert clock.slept == [paused]


@pytest.mark.parametrize("asked", ["0", "-5", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_a_service_that_asks_for_no_pause_is_spared_all_the_same(asked: str, clock: FakeClock) -> None:
    """Two minutes of it are a few dozen requests, and not as many as the network carries."""
    answers = [*[reply(503, {"message": "busy"}, retry_after=asked)] * 300, reply(200, [])]
    async with RawServer(answers) as server, connect(server.url, clock, retry=RetryPolicy()) as client:
        with pytest.raises(ServerError):
            await client.instances.list()

    assert 10 < len(server.requests) < 60


async def test_a_start_is_not_sent_again_for_a_retry_after_that_is_no_number(clock: FakeClock) -> None:
    """An invalid header counts as missing."""
    answers = [reply(429, {"message": "busy"}, retry_after="nan")]
    async with RawServer(answers) as server, connect(server.url, clock, retry=RetryPolicy()) as client:
        with pytest.raises(RateLimited) as caught:
            await client.start("demo")

    assert caught.value.retry_after is None
    assert server.methods == ["POST"]


@pytest.mark.parametrize("asked", ["soon", "", "inf", "nan", "Fri, 99 Foo 1999", "1e999"])
async def test_nonsense_in_retry_after_hurts_nobody(asked: str, clock: FakeClock) -> None:
    """The read goes on after a bounded pause."""
    answers = [reply(429, {"message": "busy"}, retry_after=asked), reply(200, [])]
    async with RawServer(answers) as server, connect(server.url, clock) as client:
        await client.instances.list()

    assert len(clock.slept) == 1
    assert 0 <= clock.slept[0] <= 60


async def test_no_answer_above_the_limits_hides_the_last_error() -> None:
    """The last error is raised, not the first."""
    answers = [close(), reply(429, {"message": "busy"})]
    async with RawServer(answers) as server, connect(server.url) as client:
        with pytest.raises(RateLimited):
            await client.instances.list()
    async with RawServer([*reversed(answers)]) as server, connect(server.url) as client:
        with pytest.raises(ConnectionLost):
            await client.instances.list()


async def _call(client: Client, operation: str) -> Any:
    return await (client.instances.list() if operation == "list" else client.delete("demo-1"))


MOMENTS = {
    "no answer": never(),
    "in the body": cut(then=never()),
    "in a pause after 503": reply(503, {}),
    "in a pause after a cut": raw(head(200, {"Content-Length": "5"}) + b"["),
}
CANCELLED = [f"{how} of {operation}" for how in ("timeout", "task") for operation in ("list", "delete")]


@pytest.mark.parametrize(("work", "moment"), combinations(CANCELLED, MOMENTS))
async def test_cancellation_passes_at_once(work: str, moment: str) -> None:
    """Cancellation takes effect during a request and during a pause; nothing more is sent."""
    how, operation = work.split(" of ")
    async with RawServer([MOMENTS[moment]]) as server, connect(server.url, StandingClock(), timeout=30) as client:
        began = time.monotonic()
        if how == "task":
            task = asyncio.create_task(_call(client, operation))
            await server.until(lambda: len(server.requests) == 1)
            await anyio.sleep(0.03)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with anyio.move_on_after(0.2) as scope:
                await _call(client, operation)
            assert scope.cancelled_caught
        took = time.monotonic() - began

    assert len(server.requests) == 1
    assert took < 10


async def test_a_deadline_around_several_attempts_holds() -> None:
    """A caller's own time limit cuts attempts and pauses alike."""
    async with (
        RawServer([never()]) as server,
        connect(server.url, timeout=0.05, retry=RetryPolicy(attempts=1000)) as client,
    ):
        began = time.monotonic()
        with anyio.move_on_after(0.4) as scope:
            await client.instances.list()

    assert scope.cancelled_caught
    assert time.monotonic() - began < 10
    assert 1 < len(server.requests) < 20


async def test_a_call_that_is_cancelled_in_the_queue_is_never_sent() -> None:
    """A call that waits for the limiter is not sent later."""
    async with (
        RawServer([never()]) as server,
        connect(server.url, concurrency=1, timeout=30) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.instances.list)
        await server.until(lambda: len(server.requests) == 1)
        with anyio.move_on_after(0.05) as scope:
            await client.start("demo")
        assert scope.cancelled_caught
        tasks.cancel_scope.cancel()

    assert server.methods == ["GET"]


async def test_a_missing_thing_is_not_waited_for(clock: FakeClock) -> None:
    """404 with the key that tells is final."""
    async with (
        RawServer([reply(404, {"unknownRestUID": "demo-1", "message": "no"})]) as server,
        connect(server.url, clock) as client,
    ):
        with pytest.raises(NotFound):
            await client.status("demo-1")

    assert len(server.requests) == 1
