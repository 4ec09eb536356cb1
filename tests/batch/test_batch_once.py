"""A key is started once, however often and by however many tasks or threads it is added."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Batch, Client, Config, Item, Launch, LaunchConflict, Run, St4sdError
from st4sd_async._batch.runner import WATCH_DELAY
from st4sd_async.local import Delay, DropAfter, DropBefore, LocalServer, Reply
from st4sd_async.sync import Client as BlockingClient
from tests.tries import tries

from .batches import (
    HANGS,
    START,
    QuickClock,
    connect,
    launch,
    launches,
    once,
    run_all,
    run_until_started,
    started_numbers,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

JSON = {"Content-Type": "application/json"}


def with_file(number: int, file: Path) -> Launch:
    """Return a launch that takes a while to add, because its input is read from a file."""
    inputs = [{"filename": "molecules.csv", "content": file}]
    return Launch(f"mol {number}", "demo", {"inputs": inputs, "metadata": {"number": number}})


async def add_repeatedly(batch: Batch, file: Path, calls: list[int], seed: int) -> None:
    """Add the same launches again and again, some at a time, in another order each time."""
    order = random.Random(seed)
    for _ in range(tries(10, 5)):
        some = order.sample(range(30), order.choice([1, 3, 30]))
        calls.append(await batch.add([with_file(number, file) for number in some]))
        await anyio.sleep(order.choice([0.0, 0.003, 0.01]))


@pytest.mark.parametrize("is_on_disk", [True, False], ids=["on disk", "in memory"])
async def test_a_key_that_many_tasks_add_is_started_once(
    server: LocalServer, client: Client, tmp_path: Path, is_on_disk: bool
) -> None:
    """While the batch runs, while answers are lost, and while other calls are still reading files."""
    server.faults.add(START, Delay(0.01), times=10)
    server.faults.add(START, DropBefore(), times=2)
    server.faults.add(START, DropAfter(), times=2)
    file = tmp_path / "molecules.csv"
    await anyio.Path(file).write_text("smiles\nCO\n")
    calls: list[int] = []
    async with client.batch(tmp_path / "campaign.db" if is_on_disk else None) as batch:
        await batch.add([launch(30)])
        async with anyio.create_task_group() as tasks:
            for seed in range(5):
                tasks.start_soon(add_repeatedly, batch, file, calls, seed)
            items = await run_all(batch)
        items |= await run_all(batch)
        counts = batch.counts

    assert sum(calls) == 30
    assert (len(items), counts["succeeded"]) == (31, 31)
    assert await started_numbers(client) == once(31)


async def test_of_two_launches_with_the_same_key_one_is_started(server: LocalServer, client: Client) -> None:
    """The other call raises `LaunchConflict`, whichever comes first, and the run continues."""
    outcomes: list[Any] = []

    async def add(batch: Batch, scale: int) -> None:
        try:
            outcomes.append(await batch.add([launch(0, variables={"scale": scale})]))
        except LaunchConflict as error:
            outcomes.append(error)

    async with client.batch() as batch:
        await batch.add([launch(1)])
        async with anyio.create_task_group() as tasks:
            for scale in range(8):
                tasks.start_soon(add, batch, scale)
            await run_all(batch)
        await run_all(batch)
        assert batch.counts["succeeded"] == 2

    assert [one for one in outcomes if isinstance(one, int)] == [1]
    assert sum("variables.scale was" in str(one) for one in outcomes) == 7
    assert server.traffic[START].requests == 2


async def test_threads_of_the_blocking_client_start_a_key_once(server: LocalServer, client: Client) -> None:
    """While another thread loops over `run`."""
    config = Config(settle=30.0, poll_interval=1.0, grace=5.0, clock=QuickClock())

    def work() -> tuple[int, int]:
        blocking = BlockingClient(server.url, api_key=server.api_key, config=config)
        with blocking, blocking.batch() as batch, ThreadPoolExecutor(6) as threads:
            batch.add(launches(1))
            calls = [threads.submit(batch.add, launches(20)) for _ in range(12)]
            keys = [item.key for item in batch.run()]
            added = sum(call.result() for call in calls)
            keys += [item.key for item in batch.run()]
        assert sorted(keys) == sorted(one.key for one in launches(20))
        return added, len(keys)

    assert await anyio.to_thread.run_sync(work) == (19, 20)
    assert await started_numbers(client) == once(20)


async def test_concurrent_calls_of_run_start_a_key_once(server: LocalServer, client: Client) -> None:
    """One of them takes over, and the others raise an error that says so."""
    server.faults.add(START, Delay(0.02), times=None)
    keys: list[str] = []
    errors: list[St4sdError] = []

    async def run(batch: Batch) -> None:
        try:
            keys.extend([item.key async for item in batch.run()])
        except St4sdError as error:
            errors.append(error)

    async with client.batch() as batch:
        await batch.add(launches(12))
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(run, batch)
        await run_all(batch)

    assert {str(error) for error in errors} <= {"another run() of this batch took over"}
    assert sorted(keys) == sorted(one.key for one in launches(12))
    assert await started_numbers(client) == once(12)


async def test_a_cancelled_add_was_done_completely_or_not_at_all(client: Client, tmp_path: Path) -> None:
    """By `Task.cancel()`, which no scope shields against. Memory equals the disk, and adding again works."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        for number in range(40):
            task = asyncio.ensure_future(batch.add([launch(number)]))
            for _ in range(number % 20):
                await asyncio.sleep(0.0002)
            task.cancel()
            await asyncio.wait([task])
        await batch.add(launches(40))
        await run_all(batch)

    assert await started_numbers(client) == once(40)


async def doubtful(server: LocalServer, batch: Batch, count: int = 1) -> Run:
    """Put launches in doubt, one of which started a run that never shows its token."""
    server.outcome("demo", "setup-failure", times=1)
    server.faults.add(START, DropAfter())
    for _ in range(count - 1):
        server.faults.add(START, DropBefore())
    await batch.add(launches(count))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_all, batch)
        await until(lambda: batch.counts["unknown"] == count)
        tasks.cancel_scope.cancel()
    instances = await batch._client.instances.list()
    return batch._client.run(instances[0].id)


async def test_concurrent_tasks_adopt_a_run_once(server: LocalServer, client: Client) -> None:
    """For one launch or for two. The others are refused as if they had come later."""
    errors: list[ValueError] = []

    async def adopt(batch: Batch, key: str, run: Run) -> None:
        try:
            await batch.adopt(key, run.id)
        except ValueError as error:
            errors.append(error)

    async with client.batch() as batch:
        run = await doubtful(server, batch, 2)
        async with anyio.create_task_group() as tasks:
            for key in ("mol 0", "mol 0", "mol 1"):
                tasks.start_soon(adopt, batch, key, run)
        owners = [item.key for item in batch.items if item.run == run]
        counts = batch.counts

    assert len(owners) == 1
    assert (len(errors), counts["started"], counts["unknown"]) == (2, 1, 1)
    assert all("belongs to 'mol" in str(error) or "is not in doubt but started" in str(error) for error in errors)


async def test_a_doubt_is_forgotten_once(server: LocalServer, client: Client) -> None:
    """By concurrent tasks, while the batch searches for the run."""
    errors: list[ValueError] = []

    async def forget(batch: Batch) -> None:
        try:
            await batch.forget("mol 0")
        except ValueError as error:
            errors.append(error)

    async with client.batch() as batch:
        await doubtful(server, batch)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(forget, batch)
            items = await run_all(batch)
        items |= await run_all(batch)

    assert len(errors) == 2
    assert items["mol 0"].state == "succeeded"
    assert server.traffic[START].requests == 2


async def test_concurrent_tasks_plan_a_new_attempt_once(server: LocalServer, client: Client) -> None:
    """With corrections and without, while a run begins. Each attempt is sent once."""
    counts: list[int] = []

    async def retry(batch: Batch, *corrected: Launch) -> None:
        counts.append(await batch.retry_failed(corrected))

    async with client.batch() as batch:
        await batch.add([Launch(f"mol {number}", "dem0") for number in range(4)])
        await run_all(batch)
        requests = server.traffic[START].requests
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(retry, batch, *launches(4))
            await anyio.sleep(0.005)
            items = await run_all(batch)
        items |= await run_all(batch)

    assert sum(counts) == 4
    assert {(item.state, item.attempt) for item in items.values()} == {("succeeded", 2)}
    assert server.traffic[START].requests == requests + 4
    assert await started_numbers(client) == once(4)


async def test_cancel_while_another_run_sees_the_ends(server: LocalServer, client: Client) -> None:
    """Deleted runs are recorded as deleted, whichever task records them first."""
    server.outcome("demo", "stuck")
    async with client.batch() as batch:
        await batch.add(launches(6))
        await run_until_started(batch, 6)
        server.faults.add("DELETE /instances/*", Delay(0.05), times=None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(batch.cancel)
            tasks.start_soon(batch.cancel)
            await anyio.sleep(0.01)
            await run_all(batch)
        assert batch.counts["deleted"] == 6


class ClockOfWatches(QuickClock):
    """A clock that does something in the pause before new runs are watched."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def sleep(self, seconds: float) -> None:
        if self.meanwhile is not None and seconds == WATCH_DELAY:
            with anyio.CancelScope(shield=True):  # the pause is cut short when no start is in flight
                await self.meanwhile()
        await super().sleep(seconds)


async def test_runs_that_are_deleted_before_they_are_watched_are_done(server: LocalServer) -> None:
    """By `cancel`, which began before `run`: the pass yields them and ends."""
    server.outcome("demo", "stuck")
    server.faults.add("DELETE /instances/*", Delay(0.05), times=None)
    clock = ClockOfWatches()
    async with connect(server, clock=clock) as client, client.batch() as batch:
        await client.push(server.example("demo"))
        await batch.add(launches(3))
        await run_until_started(batch, 3)
        clock.meanwhile = lambda: until(lambda: batch.counts["deleted"] == 3)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(batch.cancel)
            await anyio.sleep(0.01)
            items = await run_all(batch)

    assert [item.state for item in items.values()] == ["deleted"] * 3


async def test_a_run_of_another_launch_that_is_being_deleted_is_done(server: LocalServer) -> None:
    """By `cancel`, which is writing that while `run` sees that the run carries the token of another launch."""
    server.outcome("demo", "stuck")
    async with connect(server) as client, client.batch() as other, client.batch() as batch:
        await client.push(server.example("demo"))
        await batch.add(launches(1))
        await run_until_started(batch, 1)
        await batch.cancel()
        await other.add([launch(9)])
        await run_until_started(other, 1)
        (rest_uid,) = [str(item.run) for item in other.items]
        await batch.add(launches(2))
        server.faults.add(START, Reply(200, JSON, f'"{rest_uid}"'.encode()))
        server.faults.add("GET /instances/*", Delay(HANGS), times=None)  # the token is not seen yet
        await run_until_started(batch, 1)
        server.faults.clear()
        server.faults.add("DELETE /instances/*", Reply(200, JSON, b"{}"))
        journal = batch._journal
        await journal.mark_deleted([rest_uid])
        async with anyio.create_task_group() as tasks:
            with journal._thread_lock:  # the disk is slow
                tasks.start_soon(batch.cancel)
                await until(lambda: journal.is_stale(journal.records["mol 1"]))
                items: dict[str, Item] = {}

                async def run() -> None:
                    items.update(await run_all(batch))

                seen = server.traffic["GET /instances/*/status"].requests
                tasks.start_soon(run)
                await until(lambda: server.traffic["GET /instances/*/status"].requests >= seen + 3)

    assert {key: item.state for key, item in items.items()} == {"mol 1": "deleted"}
