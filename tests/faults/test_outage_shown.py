"""An outage is a state of the client, whatever waits for the service: over sockets, in time that passes quickly."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Config, Outage, ProgressUpdate, RetryPolicy, StartOutcomeUnknown, sync
from st4sd_async._http import availability
from st4sd_async.local import Delay, LocalServer, Reply
from tests.batch.batches import launches
from tests.tries import combinations, tries

from .raw import Answer, Exchange, RawServer, never, reply

pytestmark = pytest.mark.slow

FACTOR = 20.0
"""How many times faster than real time the client's clock runs: 8 s of silence take 0.4 s."""
INPUTS = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]}


class FastClock:
    """The clock of the event loop, but faster. No time passes while the machine has none for the loop."""

    def now(self) -> float:
        try:
            return asyncio.get_running_loop().time() * FACTOR
        except RuntimeError:  # a thread without a loop
            return time.monotonic() * FACTOR

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds / FACTOR)

    def wall(self) -> float:
        return time.time()


@pytest.fixture(autouse=True)
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer ticks in real time, because a request hangs in real time."""
    monkeypatch.setattr(availability, "TICK_SECONDS", 0.02)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(speed=100) as running:
        yield running


def connect(url: str, api_key: str | None = None, **changes: Any) -> Client:
    given = {"validate": False, "clock": FastClock(), **changes}
    return Client(url, api_key=api_key, config=Config(**given))


async def outage_of(client: Any, within: float = 5.0) -> Outage:
    """Return the outage of a client as soon as there is one."""
    with anyio.fail_after(within):
        while (outage := client.outage) is None:  # noqa: ASYNC110 -- it is read, not waited for
            await anyio.sleep(0.01)
    assert isinstance(outage, Outage)
    return outage


async def end_of(outage: Outage, within: float = 10.0) -> str:
    """Return the text of an outage that is over."""
    with anyio.fail_after(within):
        while not outage.is_over:  # noqa: ASYNC110 -- it is read, not waited for
            await anyio.sleep(0.01)
    return str(outage)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the levels of what the client logged."""
    return [record.levelname for record in caplog.records if record.name == "st4sd_async"]


CALLS: dict[str, Callable[[Client, str], Coroutine[Any, Any, object]]] = {
    "list": lambda client, _: client.experiments.list(),
    "status": lambda client, run: client.status(run),
    "watch": lambda client, run: anext(client.watch(run)),
    "watch_many": lambda client, run: anext(client.watch_many([run])),
    "wait": lambda client, run: client.wait(run),
    "show": lambda client, run: client.show([run]),
}
TROUBLES: dict[str, Delay | Reply] = {"hangs": Delay(1.5), "503": Reply(503)}


@pytest.mark.parametrize(("call", "kind"), combinations(CALLS, TROUBLES))
@pytest.mark.anyio
async def test_whatever_waits_shows_the_outage_and_its_end(
    call: str, kind: str, server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    """`Client.outage` and `Config.progress` have it before ten seconds are over; the log has two lines."""
    trouble = TROUBLES[kind]
    caplog.set_level(logging.INFO)
    updates: list[ProgressUpdate] = []
    async with connect(server.url, server.api_key, progress=updates.append) as client:
        await client.push(server.example("demo"))
        run = await client.start("demo", INPUTS)
        server.faults.add("* /", trouble, times=None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(CALLS[call], client, run.id)
            outage = await outage_of(client)
            seconds = outage.seconds
            if isinstance(trouble, Reply):
                server.faults.clear()
            text = await end_of(outage)

    reason = "no response yet" if isinstance(trouble, Delay) else "HTTP status 503"
    assert seconds < 10
    assert outage.reason.startswith(reason)
    assert text.startswith("answers again after ")
    told = [update for update in updates if update.unit == "seconds"]
    assert told[0].problem.startswith(reason)
    assert [(update.is_over, update.problem) for update in told][-1] == (True, "")
    assert logged(caplog)[-2:] == ["WARNING", "INFO"]
    assert logged(caplog).count("WARNING") == 1


@pytest.mark.anyio
async def test_a_batch_shows_the_outage_and_starts_everything_afterwards(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was sent before, so that there is no run to watch, and one warning says why nothing happens."""
    updates: list[ProgressUpdate] = []
    async with connect(server.url, server.api_key, progress=updates.append, poll_interval=1.0) as client:
        await client.push(server.example("demo"))
        server.faults.add("* /", Reply(503), times=None)
        items = []

        async def run() -> None:
            async with client.batch() as batch:
                await batch.add(launches(3))
                items.extend([item async for item in batch.run()])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            outage = await outage_of(client)
            server.faults.clear()
            await end_of(outage)

    assert [item.error for item in items] == [None] * 3
    told = [update for update in updates if update.unit == "seconds"]
    assert told[0].problem.startswith("HTTP status 503")
    assert (told[-1].is_over, told[-1].problem) == (True, "")
    assert logged(caplog).count("WARNING") == 1


@pytest.mark.anyio
async def test_a_start_without_a_response_is_not_said_to_be_tried_again() -> None:
    """It was sent, and is sent once."""
    texts = []
    async with RawServer([never()]) as server, connect(server.url, timeout=1.0) as client:
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                texts.append(str(await outage_of(client)))

            tasks.start_soon(watch)
            with pytest.raises(StartOutcomeUnknown):
                await client.start("demo", INPUTS)

        assert client.outage is None
        assert len(server.requests) == 1

    assert texts[0].endswith(": no response yet; still waiting")


def urls(target: Callable[[], str]) -> Answer:
    """Answer a request for the services with one of the name ``other``."""

    async def answer(exchange: Exchange) -> None:
        await reply(200, {"other": target()})(exchange)

    return answer


@pytest.mark.anyio
async def test_the_outage_of_one_service_is_not_that_of_another(caplog: pytest.LogCaptureFixture) -> None:
    """The text names the service, and the runtime service goes on answering."""
    async with RawServer([never(), reply(200, [])]) as other, RawServer([urls(lambda: other.url)]) as runtime:
        client = connect(runtime.url, timeout=1.0, retry=RetryPolicy(attempts=2))
        async with client, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.request("GET", "x", service="other"))
            outage = await outage_of(client)
            text = str(outage)
            await client.request("GET", "y")
            is_still_out = client.outage is outage
            end = await end_of(outage)

    assert text.startswith(f"no answer from {other.url}/ for ")
    assert is_still_out
    assert end.startswith(f"{other.url}/ answers again after ")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.split(" for ")[0] for text in warnings] == [f"no answer from {other.url}/"]


@pytest.mark.anyio
async def test_many_tasks_share_one_outage(server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    """Of one client and those with other options, each of whose progress is told once a second."""
    caplog.set_level(logging.INFO)
    first: list[ProgressUpdate] = []
    second: list[ProgressUpdate] = []
    async with connect(server.url, server.api_key, progress=first.append) as client:
        other = client.with_options(progress=second.append)
        server.faults.add("* /", Reply(503), times=None)
        async with anyio.create_task_group() as tasks:
            for number in range(tries(40, 16)):
                tasks.start_soon((other if number % 2 else client).instances.list)
            outage = await outage_of(client)
            assert other.outage is outage
            await anyio.sleep(0.2)
            server.faults.clear()
            await end_of(outage)

    assert logged(caplog) == ["WARNING", "INFO"]
    for updates in (first, second):
        seconds = [update.done for update in updates]
        assert len(seconds) <= len(set(seconds)) + 1  # the last says that it is over
        assert [update.is_over for update in updates].count(True) == 1


@pytest.mark.anyio
async def test_a_cancelled_call_leaves_no_outage(server: LocalServer) -> None:
    """Nothing waits any more, and its progress ends with the reason."""
    updates: list[ProgressUpdate] = []
    server.faults.add("* /", Delay(2.0), times=None)
    async with connect(server.url, server.api_key, progress=updates.append) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.instances.list)
            await outage_of(client)
            tasks.cancel_scope.cancel()

        assert client.outage is None
    assert (updates[-1].is_over, updates[-1].problem) == (True, "no response yet")


def test_the_blocking_client_shows_it_to_every_thread(server: LocalServer) -> None:
    """While one thread waits."""
    settings = Config(validate=False, clock=FastClock())
    with sync.Client(server.url, api_key=server.api_key, config=settings) as client:
        server.faults.add("* /", Delay(1.5))
        waiting = threading.Thread(target=client.instances.list)
        waiting.start()
        outage = asyncio.run(outage_of(client))
        text = str(outage)
        waiting.join()

        assert client.outage is None
    assert text.endswith("no response yet; trying again")
    assert str(outage).startswith("answers again after")
