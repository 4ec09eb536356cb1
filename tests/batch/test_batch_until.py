"""A batch of a service: it waits for launches that are added later, until an event is set."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

from st4sd_async import Client, sync
from st4sd_async.local import Delay, LocalServer

from .batches import HANGS, START, launch, launches, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.mark.parametrize("event", [asyncio.Event, anyio.Event, threading.Event], ids=["asyncio", "anyio", "threading"])
async def test_launches_that_are_added_later_are_yielded_until_the_event(client: Client, event: Any) -> None:
    """Also after all earlier ones are done. The loop then ends without an error."""
    stop = event()
    async with client.batch() as batch:
        seen: list[str] = []

        async def work() -> None:
            async for item in batch.run(until=stop):
                seen.append(f"{item.key} {item.state}")  # noqa: PERF401 -- read meanwhile

        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work)
                await batch.add([launch(1)])
                await until(lambda: len(seen) == 1)
                await batch.add([launch(2)])
                await until(lambda: len(seen) == 2)
                stop.set()

    assert seen == ["mol 1 succeeded", "mol 2 succeeded"]


async def test_starts_in_flight_are_recorded_when_the_event_is_set(client: Client, server: LocalServer) -> None:
    """No others are started; the next call starts them."""
    server.faults.add(START, Delay(0.3), times=None)
    stop = asyncio.Event()
    async with client.batch(max_running=3) as batch:
        await batch.add(launches(5))
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:

                async def work() -> None:
                    async for _ in batch.run(until=stop):
                        pass

                tasks.start_soon(work)
                await until(lambda: batch.counts["sending"] == 3)
                stop.set()

        assert batch.counts["sending"] == batch.counts["unknown"] == 0
        assert batch.counts["planned"] == 2


async def test_an_event_that_is_set_already_ends_the_loop_at_once(client: Client) -> None:
    """Nothing is started."""
    stop = asyncio.Event()
    stop.set()
    async with client.batch() as batch:
        await batch.add([launch()])

        assert [item.key async for item in batch.run(until=stop)] == []
        assert batch.counts["planned"] == 1


def test_a_blocking_batch_waits_for_an_event_of_threads(server: LocalServer) -> None:
    """Another thread adds launches and sets it."""
    stop = threading.Event()
    with sync.Client(server.url, api_key=server.api_key) as client, client.batch() as batch:
        client.push(server.example("demo"))

        def serve() -> None:
            batch.add([launch()])
            while not batch.counts["succeeded"]:
                stop.wait(0.02)
            stop.set()

        thread = threading.Thread(target=serve)
        thread.start()
        seen = [item.key for item in batch.run(until=stop)]
        thread.join()

    assert seen == ["mol 0"]
