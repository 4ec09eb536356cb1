"""Batches, against the embedded server: started, watched, stopped, tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import (
    Batch,
    Client,
    ExitStatus,
    InvalidPayload,
    Launch,
    LaunchConflict,
    MissingInputs,
    Run,
    RunDeleted,
    RunFailed,
    ServerError,
    St4sdError,
    Unauthorized,
    UnknownExperiment,
)
from st4sd_async.local import Delay, DropAfter, Html, LocalServer, Reply

from .batches import START, connect, launch, launches, numbers, once, until, worked_off
from .batches import client as client
from .batches import server as server

pytestmark = pytest.mark.anyio


async def test_a_batch_starts_watches_and_tells_each_launch_once(client: Client, tmp_path: Path) -> None:
    """The contract, without results."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        assert await batch.add(launches(20)) == 20
        assert batch.counts == {**dict.fromkeys(batch.counts, 0), "planned": 20}
        items = await worked_off(batch)
        assert batch.counts["succeeded"] == sum(batch.counts.values()) == 20
        assert [item.key for item in batch.items] == [one.key for one in launches(20)]
        assert batch.failures() == []

    assert all(item.status and item.status.is_success and item.error is None for item in items.values())
    assert all(isinstance(item.run, Run) and item.files == () for item in items.values())
    assert await numbers(client) == once(20)


async def test_the_same_script_again_starts_nothing_and_tells_nothing(client: Client, tmp_path: Path) -> None:
    """What ended in an earlier process is in `items`, statuses included."""
    for _ in range(2):
        async with client.batch(tmp_path / "campaign.db") as batch:
            added = await batch.add(launches(5))
            items = await worked_off(batch)
            known = batch.items

    assert (added, items) == (0, {})
    assert [item.state for item in known] == ["succeeded"] * 5
    assert all(item.status and item.status.is_success and item.run for item in known)
    assert await numbers(client) == once(5)


async def test_a_refused_launch_fails_alone(client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told with the service's error, in a later process too; another attempt is made on demand."""
    bad = [Launch("no input", "demo"), Launch("no experiment", "other")]
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([*bad, *launches(3)])
        items = await worked_off(batch)
        assert isinstance(items["no input"].error, MissingInputs)
        assert isinstance(items["no experiment"].error, UnknownExperiment)
        assert (batch.counts["refused"], batch.counts["succeeded"]) == (2, 3)

    async with client.batch(tmp_path / "campaign.db") as batch:
        failures = batch.failures()
        again = await worked_off(batch)
        count = await batch.retry_failed()
        retried = await worked_off(batch)

    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == "2 launches failed earlier: batch.retry_failed() plans another attempt for each"
    assert [type(item.error) for item in failures] == [MissingInputs, UnknownExperiment]
    assert "molecules.csv" in str(failures[0].error)
    assert (again, count) == ({}, 2)
    assert [item.attempt for item in retried.values()] == [2, 2]


async def test_what_was_refused_is_corrected_under_its_key(client: Client, tmp_path: Path) -> None:
    """On demand only, by the list that is added anyway; what is well, or not there yet, is as it was."""
    bad, good = [Launch("mol 7", "dem0"), Launch("mol 8", "demo")], launches(2)
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([*bad, *good])
        await worked_off(batch)

    mended = [launch(7), launch(8), *good, launch(9)]
    async with client.batch(tmp_path / "campaign.db") as batch:
        with pytest.raises(LaunchConflict, match=r"was 'dem0' and is 'demo'.* retry_failed\(corrected=...\)$"):
            await batch.add(mended)
        counts = batch.counts
        planned = await batch.retry_failed(corrected=mended)
        new = await batch.add(mended)
        items = await worked_off(batch)

    assert (counts["refused"], counts["planned"], planned, new) == (2, 0, 2, 1)
    assert {key: (item.state, item.attempt) for key, item in items.items()} == {
        "mol 7": ("succeeded", 2),
        "mol 8": ("succeeded", 2),
        "mol 9": ("succeeded", 1),
    }
    assert await numbers(client) == {"0": 1, "1": 1, "7": 1, "8": 1, "9": 1}


async def test_what_was_planned_anew_as_it_was_can_still_be_corrected(client: Client, tmp_path: Path) -> None:
    """Until it is sent; what is sent already cannot, nor what is planned while the batch works."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([Launch("mol 0", "dem0"), Launch("mol 1", "dem0")])
        await worked_off(batch)
        assert await batch.retry_failed() == 2
        assert await batch.retry_failed([launch(0)]) == 1
        assert await batch.retry_failed([launch(0)]) == 0
        items = await worked_off(batch)
        with pytest.raises(LaunchConflict):
            await batch.add([launch(0, variables={"scale": 3})])

        assert await batch.retry_failed([launch(0, variables={"scale": 3}), launch(1)]) == 1
        last = await worked_off(batch)

    assert {key: (item.state, item.attempt) for key, item in items.items()} == {
        "mol 0": ("succeeded", 2),
        "mol 1": ("refused", 2),
    }
    assert [(item.key, item.state, item.attempt) for item in last.values()] == [("mol 1", "succeeded", 3)]
    assert await numbers(client) == once(2)


async def test_a_correction_may_leave_out_the_credentials(client: Client) -> None:
    """Those of the payload before are forgotten with it."""
    bucket = {"accessKeyID": "a", "secretAccessKey": "b", "bucket": "c", "endpoint": "https://s3.example"}
    async with client.batch() as batch:
        await batch.add([launch(0, s3=bucket, environmentVariables={"A": "b"}, variables={"scael": 2})])
        refused = await worked_off(batch)
        await batch.retry_failed([launch(0)])
        items = await worked_off(batch)

    assert refused["mol 0"].state == "refused"
    assert (items["mol 0"].state, items["mol 0"].attempt) == ("succeeded", 2)


async def test_a_misspelt_entry_is_told_with_what_was_meant(server: LocalServer, client: Client) -> None:
    """As by a single start; the experiment is asked for once, however many are refused; later processes say it too."""
    bad = [launch(number, variables={"scael": number}) for number in range(12)]
    before = server.traffic["GET /experiments/*"].requests
    async with client.batch() as batch:
        await batch.add([*bad, launch(12)])
        items = await worked_off(batch)
        told = str(batch.items[0].error)

    assert "did you mean 'scale'?" in told
    assert all("did you mean 'scale'?" in str(items[one.key].error) for one in bad)
    assert items["mol 12"].state == "succeeded"
    assert server.traffic["GET /experiments/*"].requests == before + 1


async def test_a_correction_that_will_not_do_plans_nothing(client: Client) -> None:
    """Neither its launch nor another that failed."""
    async with client.batch() as batch:
        await batch.add([Launch("a", "dem0"), Launch("b", "dem0")])
        await worked_off(batch)
        with pytest.raises(InvalidPayload, match="'b' was not added"):
            await batch.retry_failed([Launch("a", "demo"), Launch("b", "demo", {"variabels": {}})])
        with pytest.raises(TypeError, match="iterable of Launch"):
            await batch.retry_failed(Launch("a", "demo"))  # type: ignore[arg-type]

        assert batch.counts["refused"] == 2


async def test_a_failed_run_is_tried_again_on_demand_only(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Explicit, counted, and known for what it is."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([launch()])
        first = (await worked_off(batch))["mol 0"]
        assert await worked_off(batch) == {}
    async with client.batch(tmp_path / "campaign.db") as batch:
        failure = batch.failures()[0]
        assert await batch.retry_failed() == 1
        second = (await worked_off(batch))["mol 0"]
        assert await batch.retry_failed() == 0

    assert isinstance(first.error, RunFailed)
    assert isinstance(failure.error, RunFailed)
    assert failure.error.status.error_description == first.error.status.error_description
    assert (first.attempt, second.attempt, second.state) == (1, 2, "succeeded")
    assert first.run != second.run
    assert await numbers(client) == {"0": 2}


async def test_cancel_deletes_what_runs_and_starts_nothing_more(server: LocalServer, client: Client) -> None:
    """What was not started stays planned; what runs is there with its newest status until then."""
    server.outcome("demo", "stuck")
    async with client.batch(max_running=3) as batch:
        await batch.add(launches(5))
        assert batch.running == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worked_off, batch)
            await until(lambda: len(batch.running) == 3)
            assert [item.state for item in batch.running] == ["started"] * 3
            assert not any(item.status is None or item.status.is_final for item in batch.running)
            assert await batch.cancel() == 3
        assert batch.running == []
        assert (batch.counts["deleted"], batch.counts["planned"]) == (3, 2)
        assert {type(item.error) for item in batch.failures()} == {RunDeleted}

    assert await client.instances.list() == []
    assert server.traffic[START].requests == 3


async def test_no_more_than_so_many_runs_are_in_progress(server: LocalServer, client: Client) -> None:
    """The next is started when one is over."""
    server.outcome("demo", "success", stretch=10)
    most = 0
    async with client.batch(max_running=2) as batch:
        await batch.add(launches(5))
        async for _ in batch.run():
            # With an exit-status it is over, although its state may say "running" for some seconds more.
            statuses = [one.status for one in await client.instances.list()]
            running = [one for one in statuses if one.exit_status is not ExitStatus.SUCCESS]
            most = max(most, len(running))
        assert batch.counts["succeeded"] == 5

    assert most <= 2


async def test_leaving_the_loop_and_coming_back_continues(client: Client) -> None:
    """In the same block; nothing is started twice, nothing lost."""
    async with client.batch() as batch:
        await batch.add(launches(8))
        async for _ in batch.run():
            break
        rest = await worked_off(batch)
        assert batch.counts["succeeded"] == 8

    assert len(rest) == 7
    assert await numbers(client) == once(8)


async def test_launches_may_be_added_while_a_batch_runs(client: Client) -> None:
    """They join, even on the news that the last one has ended."""
    async with client.batch() as batch:
        await batch.add(launches(1))
        seen = []
        async for item in batch.run():
            seen.append(item.key)
            if len(seen) < 4:
                await anyio.sleep(0.02)
                await batch.add(launches(len(seen) + 1))

    assert seen == [one.key for one in launches(4)]


async def test_another_pass_ends_the_one_before(client: Client) -> None:
    """Two at once would start everything twice; what the first did not tell, the other tells."""
    async with client.batch() as batch:
        await batch.add(launches(4))
        first = batch.run()
        told = {(await anext(first)).key}
        told |= {key async for key in _keys(batch)}
        with pytest.raises(St4sdError, match="another run"):
            await anext(first)

    assert told == {one.key for one in launches(4)}
    assert await numbers(client) == once(4)


async def started(batch: Batch, count: int) -> None:
    """Work until so many are started, and no longer."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worked_off, batch)
        await until(lambda: batch.counts["started"] == count)
        tasks.cancel_scope.cancel()


async def _keys(batch: Batch) -> AsyncIterator[str]:
    async for item in batch.run():
        yield item.key


async def test_an_error_of_the_block_comes_as_it_is(client: Client) -> None:
    """Whatever the batch is doing meanwhile."""
    with pytest.raises(KeyError):  # noqa: PT012 -- the block is what it is about
        async with client.batch() as batch:
            await batch.add(launches(4))
            async for item in batch.run():
                raise KeyError(item.key)


async def test_a_batch_wants_to_be_entered(client: Client) -> None:
    """And says how; and not twice at once."""
    batch = client.batch()
    with pytest.raises(St4sdError, match=r"inside 'async with client\.batch"):
        await batch.add([launch()])
    with pytest.raises(St4sdError, match=r"inside 'async with client\.batch"):
        await anext(batch.run())
    async with batch:
        with pytest.raises(St4sdError, match="already open"):
            await batch.__aenter__()


@pytest.mark.parametrize("most", [0, -1, 1.5])
def test_a_bound_that_makes_no_sense_is_refused(most: Any) -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match="max_running must be a whole number"):
        Client("http://127.0.0.1:1").batch(max_running=most)


async def test_a_stopped_batch_writes_down_what_is_in_flight(
    server: LocalServer, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ctrl-C: no new start, the answers of those in flight are waited for, and the log says how to go on."""
    server.faults.add(START, Delay(0.2), times=None)
    async with anyio.create_task_group() as tasks:

        async def script() -> None:
            async with client.batch(tmp_path / "campaign.db") as batch:
                await batch.add(launches(30))
                await worked_off(batch)

        tasks.start_soon(script)
        await until(lambda: server.traffic[START].requests > 0)
        tasks.cancel_scope.cancel()
    sent = server.traffic[START].requests

    server.faults.clear()
    async with client.batch(tmp_path / "campaign.db") as batch:
        counts = batch.counts
        await worked_off(batch)
    assert (counts["started"], counts["planned"]) == (sent, 30 - sent)
    assert f"a batch was left with {30 - sent} planned, {sent} started" in caplog.text
    assert "run the same script again to resume" in caplog.text
    assert await numbers(client) == once(30)


async def test_a_refused_credential_ends_the_pass_and_harms_nothing(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The door turns starts away unseen: they stay planned."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(3))
        server.renew()
        with pytest.raises(Unauthorized):
            await worked_off(batch)
        assert batch.counts["planned"] == 3

    async with connect(server) as renewed, renewed.batch(tmp_path / "campaign.db") as batch:
        await worked_off(batch)
        assert batch.counts["succeeded"] == 3
        assert await numbers(renewed) == once(3)


async def test_runs_that_were_deleted_meanwhile_are_told(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """One among others; found out although nobody saw it go."""
    server.outcome("demo", "stuck")
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(7))
        await started(batch, 7)
        runs = [item.run for item in batch.items if item.run]
        assert len(runs) == 7
    for run in runs[:6]:
        await client.delete(run)
    async with client.batch(tmp_path / "campaign.db") as batch:
        told = []
        with anyio.fail_after(10):
            async for item in batch.run():
                told.append(item)
                if len(told) == 6:
                    break

    assert {item.key for item in told} == {f"mol {number}" for number in range(6)}
    assert all(item.state == "deleted" and isinstance(item.error, RunDeleted) for item in told)


@pytest.mark.timeout(60)  # hundreds, on a machine that is busy
async def test_many_cost_little_to_watch(server: LocalServer, client: Client) -> None:
    """Hundreds of runs are read from one list."""
    server.outcome("demo", "success", stretch=20)
    async with client.batch(max_running=None) as batch:
        await batch.add(launches(200))
        await worked_off(batch, within=50)

    lists = server.traffic["GET /instances/"].requests
    # Each perhaps once when it is new, and a few beside each list, however many lists there is time for.
    assert server.traffic["GET /instances/*/status"].requests <= 200 + 6 * lists
    assert await asyncio.to_thread(lambda: server.traffic[START].requests) == 200


async def test_a_service_that_is_away_is_waited_for(
    server: LocalServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Before anything is sent, which is said once, while runs are watched, and while doubts are settled."""
    server.faults.add("GET /instances/", Html(502), times=4)
    server.faults.add(START, DropAfter(), times=2)
    server.faults.add("POST /ds-mongodb-proxy/", Html(502), times=None)
    async with client.batch() as batch:
        await batch.add(launches(3))
        await worked_off(batch)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["502" in told for told in warnings if told.startswith("nothing can be started yet")] == [True]
    assert await numbers(client) == once(3)


async def test_nothing_is_lost_when_a_deletion_fails(server: LocalServer, client: Client) -> None:
    """The others are deleted, the error comes as it is, and cancelling again goes on."""
    server.outcome("demo", "stuck")
    async with client.batch() as batch:
        await batch.add(launches(3))
        await started(batch, 3)
        server.faults.add("DELETE /instances/*", Reply(500))
        with pytest.raises(ServerError):
            await batch.cancel()
        assert (batch.counts["deleted"], batch.counts["started"]) == (2, 1)
        assert await batch.cancel() == 1
        assert await batch.cancel() == 0
