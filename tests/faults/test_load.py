"""Many requests at once: bounded at the service, cancellable, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings

import anyio
import pytest

from st4sd_async import OutcomeUnknown, RequestTimeout, RetryPolicy, St4sdError
from tests.tries import tries

from .clients import SILENCE, StandingClock, connect
from .exceptions import assert_ours
from .raw import Answer, Exchange, RawServer, after, never, reply

pytestmark = pytest.mark.anyio


def slow(answer: Answer) -> Answer:
    """Answer after a moment, so that requests meet at the server."""

    async def late(exchange: Exchange) -> None:
        await asyncio.sleep(0.002)
        await answer(exchange)

    return late


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_no_more_than_so_many_are_in_flight(concurrency: int) -> None:
    """Many callers at once put no more on the service than the setting says, and all are answered."""
    count = tries(100, 30)
    async with (
        RawServer([slow(reply(200, []))]) as server,
        connect(server.url, concurrency=concurrency) as client,
    ):
        found = await asyncio.gather(*(client.instances.list() for _ in range(count)))

    assert found == [[]] * count
    assert len(server.requests) == count
    assert server.most_in_flight == concurrency
    assert server.connections <= concurrency


async def test_waiting_for_a_place_is_no_silence() -> None:
    """A request that queues longer than ``Config.timeout`` is not given up: its time begins when it is sent."""
    async with (
        RawServer([never(), reply(200, [])]) as server,
        connect(server.url, concurrency=1, retry=RetryPolicy(attempts=1), timeout=2 * SILENCE) as client,
    ):
        silent = asyncio.create_task(client.instances.list())
        await server.until(lambda: len(server.requests) == 1)
        assert await client.with_options(timeout=SILENCE).instances.list() == []
        with pytest.raises(RequestTimeout):
            await silent

    assert len(server.requests) == 2


async def test_clients_made_from_a_client_share_its_bound() -> None:
    """``with_options`` opens no second door."""
    async with RawServer([slow(reply(200, []))]) as server, connect(server.url, concurrency=3) as client:
        others = [client, client.with_options(timeout=4), client.with_options(retry=RetryPolicy(attempts=1))]
        await asyncio.gather(*(other.instances.list() for other in others * 10))

    assert server.most_in_flight == 3
    assert server.connections <= 3


async def test_a_pause_between_attempts_holds_no_place() -> None:
    """Who waits to try again lets others go first."""

    async def answer(exchange: Exchange) -> None:
        await (reply(503, {}) if "busy" in exchange.seen.path else reply(200, {}))(exchange)

    async with (
        RawServer([answer]) as server,
        connect(server.url, StandingClock(), concurrency=1) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.outputs, "busy")
        await server.until(lambda: len(server.requests) == 1)
        assert await client.outputs("free") == {}
        tasks.cancel_scope.cancel()

    assert [seen.path for seen in server.requests] == ["/rs/instances/busy/outputs", "/rs/instances/free/outputs"]


async def test_a_client_of_which_half_was_cancelled_is_usable() -> None:
    """Cancelled callers, queued or in flight, give their places back; the others are answered."""
    release = asyncio.Event()
    async with RawServer([after(release, reply(200, []))]) as server, connect(server.url) as client:
        tasks = [asyncio.create_task(client.instances.list()) for _ in range(100)]
        await server.until(lambda: server.in_flight == 8)
        for task in tasks[::2]:
            task.cancel()
        release.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[1::2] == [[]] * 50
        assert all(isinstance(one, asyncio.CancelledError) for one in found[::2])

        server.most_in_flight, server.answers = 0, [slow(reply(200, []))]
        assert await asyncio.gather(*(client.instances.list() for _ in range(20))) == [[]] * 20
        assert server.most_in_flight == 8


async def test_an_answer_that_was_not_wanted_any_more_reaches_nobody_else() -> None:
    """The connection of a cancelled request is not used again: its late answer would be taken for another's."""
    release = asyncio.Event()
    answers = [after(release, reply(200, "first-c52cd4-00000001")), reply(200, "second-c52cd4-00000002")]
    async with RawServer(answers) as server, connect(server.url) as client:
        first = asyncio.create_task(client.start("first"))
        await server.until(lambda: len(server.requests) == 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        release.set()
        run = await client.start("second")

    assert run.id == "second-c52cd4-00000002"
    assert server.requests[0].connection != server.requests[1].connection


async def test_closing_leaves_no_connection_and_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    """The service sees the end of all connections, and nothing is reported as unclosed."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with RawServer([slow(reply(200, []))]) as server:
            async with connect(server.url) as client:
                await asyncio.gather(*(client.instances.list() for _ in range(20)))
                assert server.open_connections == 8
            await server.until(lambda: server.open_connections == 0)
        del client
        gc.collect()

    assert not [one for one in warned if "nclosed" in str(one.message)]
    assert "nclosed" not in caplog.text


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_leaving_by_an_error_closes_too(how: str) -> None:
    """An exception or a cancellation in the block closes the connections like its end."""
    async with RawServer([reply(200, []), never()]) as server:
        with anyio.CancelScope() as scope:
            try:
                async with connect(server.url) as client:
                    await client.instances.list()
                    if how == "error":
                        raise LookupError
                    scope.cancel()
                    await client.instances.list()
            except LookupError:
                assert how == "error"
        await server.until(lambda: server.open_connections == 0)

    assert len(server.requests) == 1


async def test_a_client_that_cannot_enter_leaves_no_connection() -> None:
    """If the login cannot be proven, nothing stays open, and the client can be tried again."""
    answers = [reply(404, b"", media="text/html"), reply(200, {"runtime": "x"}), reply(200, [])]
    async with RawServer(answers) as server:
        client = connect(server.url, validate=True)
        with pytest.raises(St4sdError):
            await client.__aenter__()
        await server.until(lambda: server.open_connections == 0)
        async with client:
            assert await client.instances.list() == []


async def test_closing_under_requests_ends_them_with_our_errors() -> None:
    """Starts in flight are in doubt, all others fail by an error of ours; none hangs, none is sent afterwards."""
    async with RawServer([never()]) as server:
        client = await connect(server.url, concurrency=4).__aenter__()
        starts = [asyncio.create_task(client.start("demo")) for _ in range(2)]
        await server.until(lambda: server.in_flight == 2)
        reads = [asyncio.create_task(client.instances.list()) for _ in range(6)]
        await server.until(lambda: server.in_flight == 4)
        await client.__aexit__(None, None, None)
        async with asyncio.timeout(15):
            found = await asyncio.gather(*starts, *reads, return_exceptions=True)
        await server.until(lambda: server.open_connections == 0)

    for error in found:
        assert isinstance(error, St4sdError)
        assert_ours(error)
    assert all(isinstance(error, OutcomeUnknown) for error in found[:2])
    assert len(server.requests) == 4


async def test_a_client_may_be_opened_again() -> None:
    """Closed is not gone: another ``async with`` connects anew."""
    async with RawServer([reply(200, [])]) as server:
        client = connect(server.url)
        for _ in range(2):
            async with client:
                await client.instances.list()
        with pytest.raises(St4sdError):
            await client.instances.list()

    assert [seen.connection for seen in server.requests] == [0, 1]
