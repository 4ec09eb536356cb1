"""Runs that are found by the name of their campaign, without the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, InvalidPayload, Item, Launch, RunDeleted, RunFailed
from st4sd_async.local import LocalServer

from .batches import HANGS, connect, launch, launches, run_all

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def summary(items: list[Item]) -> list[tuple[str, int, str, str]]:
    return [(item.key, item.attempt, str(item.run), item.state) for item in items]


async def test_the_runs_of_a_campaign_are_found_without_its_journal(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """Each run is found once, with its key, attempt and state; runs of other campaigns are not."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch(tmp_path / "campaign.db", campaign="water: first") as batch:
        await batch.add([Launch("b/1: CCO", "demo", launch().payload)])
        (failed,) = (await run_all(batch)).values()
        await batch.retry_failed()
        await batch.add([launch(7)])
        done = await run_all(batch)
    async with client.batch(campaign="water") as other:
        await other.add(launches(1))
        await run_all(other)
    async with client.batch() as unnamed:
        await unnamed.add(launches(1))
        await run_all(unnamed)

    found = await client.find_batch("water: first")

    assert summary(found) == [
        ("b/1: CCO", 1, str(failed.run), "failed"),
        ("b/1: CCO", 2, str(done["b/1: CCO"].run), "succeeded"),
        ("mol 7", 1, str(done["mol 7"].run), "succeeded"),
    ]
    assert isinstance(found[0].error, RunFailed)
    assert [item.error for item in found[1:]] == [None, None]
    assert found[1].experiment.startswith("demo@sha256x")
    assert len(await client.find_batch("water")) == 1
    assert await client.find_batch("nothing") == []


async def test_a_resumed_batch_keeps_the_campaign_of_its_journal(client: Client, tmp_path: Path) -> None:
    """Launches that start after a resume without the name are runs of the campaign too."""
    async with client.batch(tmp_path / "campaign.db", campaign="water") as batch:
        await batch.add([launch(1), launch(2)])
    async with client.batch(tmp_path / "campaign.db") as resumed:
        done = await run_all(resumed)

    found = await client.find_batch("water")

    assert {item.key: item.run for item in found} == {key: item.run for key, item in done.items()}
    assert len(found) == 2


async def test_deleted_runs_are_found() -> None:
    """A run that was over keeps its state; another is deleted, and stopped once the datastore has its last status."""
    with LocalServer(speed=0) as server:
        async with connect(server) as client:
            await client.push(server.example("demo"))
            async with client.batch(campaign="x") as batch:
                await batch.add(launches(1))
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_let_time_pass, server)
                    (item,) = (await run_all(batch)).values()
                    assert item.run is not None
                    await item.run.document()
                    await item.run.delete()
                    tasks.cancel_scope.cancel()
                server.outcome("demo", "stuck", times=1)
                await batch.add([launch(1)])
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(run_all, batch)
                    with anyio.fail_after(HANGS):
                        while len(await client.find_batch("x")) < 2:
                            await server.advance(0.2)
                    running = (await client.find_batch("x"))[1]
                    assert running.run is not None
                    await server.advance(60)
                    await client.datastore.document(running.run.id)
                    await running.run.delete()

            deleted = await client.find_batch("x")
            await server.advance(60)
            stopped = await client.find_batch("x")

    assert (running.state, running.status, running.error) == ("started", None, None)
    assert [(item.key, item.state) for item in deleted] == [("mol 0", "succeeded"), ("mol 1", "deleted")]
    assert isinstance(deleted[1].error, RunDeleted)
    assert [(item.key, item.state) for item in stopped] == [("mol 0", "succeeded"), ("mol 1", "stopped")]


async def _let_time_pass(server: LocalServer) -> None:
    while True:
        await server.advance(1)
        await anyio.sleep(0.01)


@pytest.mark.parametrize("name", ["", "a" * 201, "a\nb", "a\0"])
async def test_a_campaign_name_is_printable(client: Client, name: str) -> None:
    """It is shown in tables, and travels on the command line of the orchestrator."""
    with pytest.raises(ValueError, match="a campaign name has 1 to 200 printable characters, not "):
        client.batch(campaign=name)


async def test_a_campaign_name_is_text(client: Client) -> None:
    """Numbers would not be found again."""
    wrong: Any = 1
    with pytest.raises(TypeError, match="a campaign name must be a string, not 1"):
        await client.find_batch(wrong)


async def test_the_names_of_the_campaign_are_reserved(client: Client) -> None:
    """A payload cannot claim to belong to another campaign."""
    async with client.batch() as batch:
        with pytest.raises(InvalidPayload, match=r"metadata\.st4sd-async-campaign: this name is reserved"):
            await batch.add([launch(metadata={"st4sd-async-campaign": "mine"})])
