"""A batch whose service works but never returns the list of instances: it begins without, and starts nothing twice."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import anyio
import pytest

from st4sd_async import Client, Item, StartOutcomeUnknown
from st4sd_async.local import DropAfter, DropBefore, Html, LocalServer, Reply

from .batches import HANGS, START, QuickClock, connect, launch, launches, once, run_all, started_numbers, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LIST = "GET /instances/$"
WARNING = "beginning without the list of existing instances, which the service has not returned for 30 s"


@pytest.mark.parametrize("fault", [Reply(504), Html(502)], ids=str)
async def test_a_new_batch_begins_without_a_list_that_never_comes(
    server: LocalServer, caplog: pytest.LogCaptureFixture, fault: Reply | Html
) -> None:
    """After the settle window, with a warning. Each launch is started once and watched to its end."""
    clock = QuickClock()
    async with connect(server, clock=clock) as client:
        await client.push(server.example("demo"))
        server.faults.add(LIST, fault, times=None)
        began = clock.now()
        async with client.batch() as batch:
            await batch.add(launches(3))
            items = await run_all(batch)
        took = clock.now() - began

        server.faults.clear()
        assert {item.state for item in items.values()} == {"succeeded"}
        assert await started_numbers(client) == once(3)
    assert took >= 30
    assert [record.getMessage() for record in caplog.records if WARNING in record.getMessage()]


async def test_a_lost_start_is_never_sent_again_if_no_list_ever_comes(server: LocalServer, client: Client) -> None:
    """It is reported after three windows, whether it arrived or not. The others succeed."""
    server.faults.add(LIST, Reply(504), times=None)
    server.faults.add(START, DropBefore())
    server.faults.add(START, DropAfter())
    async with client.batch() as batch:
        await batch.add(launches(4))
        items = await run_all(batch)

    assert sorted(item.state for item in items.values()) == ["succeeded", "succeeded", "unknown", "unknown"]
    assert server.traffic[START].requests == 4


async def _run_with_list_after_first_start(server: LocalServer, client: Client, path: Path) -> dict[str, Item]:
    """Run a batch of one launch, whose list comes as soon as the start was sent."""
    server.faults.add(LIST, Reply(504), times=None)
    items: dict[str, Item] = {}

    async def run() -> None:
        async with client.batch(path) as batch:
            await batch.add([launch()])
            items.update(await run_all(batch))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: server.traffic[START].requests == 1)
        server.faults.clear()
    return items


async def test_a_start_that_was_lost_before_any_list_came_is_never_sent_again(
    server: LocalServer, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by later complete lists, nor by another process. What that process loses itself is sent again."""
    server.faults.add(START, DropBefore())
    first = await _run_with_list_after_first_start(server, client, tmp_path / "campaign.db")
    async with client.batch(tmp_path / "campaign.db") as batch:
        second = await run_all(batch)
        requests = server.traffic[START].requests
        server.faults.add(START, DropBefore())
        await batch.add([launch(1)])
        third = await run_all(batch)

    assert isinstance(first["mol 0"].error, StartOutcomeUnknown)
    assert isinstance(second["mol 0"].error, StartOutcomeUnknown)
    assert requests == 1
    assert third["mol 1"].state == "succeeded"
    assert server.traffic[START].requests == 3
    assert "they are not started again, because they were sent before the service returned any list" in caplog.text


async def test_a_run_that_was_started_before_any_list_came_is_found(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """By its token, as soon as the list comes."""
    server.faults.add(START, DropAfter())

    items = await _run_with_list_after_first_start(server, client, tmp_path / "campaign.db")

    assert items["mol 0"].state == "succeeded"
    assert await started_numbers(client) == once(1)


async def test_a_batch_does_not_begin_without_a_list_in_an_outage(server: LocalServer) -> None:
    """Every start would be in doubt for good. After the outage, the list is read, and a lost start is sent again."""
    clock = QuickClock()
    async with connect(server, clock=clock) as client:
        await client.push(server.example("demo"))
        server.faults.add("* /", Reply(503), times=None)
        async with client.batch() as batch, anyio.create_task_group() as tasks:
            await batch.add(launches(2))
            began = clock.now()
            tasks.start_soon(partial(run_all, batch))
            await until(lambda: clock.now() - began > 90)
            assert server.traffic[START].requests == 0
            server.faults.clear()
            server.faults.add(START, DropBefore())
            await until(lambda: batch.counts["succeeded"] == 2)
        assert await started_numbers(client) == once(2)
    assert server.traffic[START].requests == 3


async def test_an_old_copy_of_a_journal_starts_nothing_again_without_a_list(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The datastore has the runs that are missing from the copy."""
    path, copy = tmp_path / "campaign.db", tmp_path / "copy.db"
    async with client.batch(path) as batch:
        await batch.add(launches(3))
    await anyio.to_thread.run_sync(shutil.copy, path, copy)
    async with client.batch(path) as batch:
        await run_all(batch)
    with anyio.fail_after(HANGS):
        while len(await client.datastore.user_metadata()) < 3:  # noqa: ASYNC110 -- there is no event
            await anyio.sleep(0.01)
    server.faults.add(LIST, Reply(504), times=None)
    async with client.batch(copy) as batch:
        items = await run_all(batch)

    assert {item.state for item in items.values()} == {"succeeded"}
    assert server.traffic[START].requests == 3


async def test_an_old_copy_of_a_journal_waits_for_a_list_or_the_datastore(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """Without either, nothing shows what it has started."""
    path = tmp_path / "campaign.db"
    async with client.batch(path) as batch:
        await batch.add([launch()])
    server.faults.add(LIST, Reply(504), times=None)
    server.faults.add("* /ds-", Reply(400), times=None)
    async with client.batch(path) as batch, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(run_all, batch))
        await until(lambda: server.traffic[LIST.removesuffix("$")].requests > 12)
        assert server.traffic[START].requests == 0
        tasks.cancel_scope.cancel()
