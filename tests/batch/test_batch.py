"""Batches against the embedded server: started, watched, cancelled and retried."""

from __future__ import annotations

import asyncio
import re
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
    RequestEvent,
    Run,
    RunDeleted,
    RunFailed,
    ServerError,
    St4sdError,
    Unauthorized,
    UnknownExperiment,
)
from st4sd_async._batch.runner import WATCH_DELAY
from st4sd_async.local import Delay, DropAfter, Html, LocalServer, Reply
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


async def test_a_batch_starts_watches_and_yields_each_launch_once(client: Client, tmp_path: Path) -> None:
    """The contract, without results."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        assert await batch.add(launches(20)) == 20
        assert batch.counts == {**dict.fromkeys(batch.counts, 0), "planned": 20}
        items = await run_all(batch)
        assert batch.counts["succeeded"] == sum(batch.counts.values()) == 20
        assert [item.key for item in batch.items] == [one.key for one in launches(20)]
        assert batch.failures() == []

    assert all(item.status and item.status.is_success and item.error is None for item in items.values())
    assert all(isinstance(item.run, Run) and item.files == () for item in items.values())
    assert await started_numbers(client) == once(20)


async def test_a_task_that_sent_a_launch_sends_the_next_one(server: LocalServer, tmp_path: Path) -> None:
    """A task for each start would cost more than to write it to the journal."""
    senders: list[asyncio.Task[Any] | None] = []

    def note_sender(event: RequestEvent) -> None:
        if event.method == "POST":
            senders.append(asyncio.current_task())

    async with (
        connect(server, concurrency=2, on_request=note_sender) as client,
        client.batch(tmp_path / "campaign.db") as batch,
    ):
        await batch.add(launches(30))
        await run_all(batch)

    assert len(senders) == 30
    assert len(set(senders)) <= 15  # the batch increases the number of starts in flight, by about one in ten starts


async def test_the_same_script_again_starts_and_yields_nothing(client: Client, tmp_path: Path) -> None:
    """Launches that an earlier process settled are in `items`, with their statuses."""
    for _ in range(2):
        async with client.batch(tmp_path / "campaign.db") as batch:
            added = await batch.add(launches(5))
            items = await run_all(batch)
            known = batch.items

    assert (added, items) == (0, {})
    assert [item.state for item in known] == ["succeeded"] * 5
    assert all(item.status and item.status.is_success and item.run for item in known)
    assert await started_numbers(client) == once(5)


async def test_a_refused_launch_fails_alone(client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is yielded with the error of the service, also by a later process. It is retried only on demand."""
    bad = [Launch("no input", "demo"), Launch("no experiment", "other")]
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([*bad, *launches(3)])
        items = await run_all(batch)
        assert isinstance(items["no input"].error, MissingInputs)
        assert isinstance(items["no experiment"].error, UnknownExperiment)
        assert (batch.counts["refused"], batch.counts["succeeded"]) == (2, 3)

    async with client.batch(tmp_path / "campaign.db") as batch:
        failures = batch.failures()
        again = await run_all(batch)
        count = await batch.retry_failed()
        retried = await run_all(batch)

    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "launches that failed earlier: 2; batch.retry_failed() plans another attempt for each"
    assert [type(item.error) for item in failures] == [MissingInputs, UnknownExperiment]
    assert "molecules.csv" in str(failures[0].error)
    assert (again, count) == ({}, 2)
    assert [item.attempt for item in retried.values()] == [2, 2]


async def test_a_refused_launch_is_corrected_under_its_key(client: Client, tmp_path: Path) -> None:
    """Only on demand, with the complete list of launches. Launches that are fine or new are left as they are."""
    bad, good = [Launch("mol 7", "dem0"), Launch("mol 8", "demo")], launches(2)
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([*bad, *good])
        await run_all(batch)

    mended = [launch(7), launch(8), *good, launch(9)]
    async with client.batch(tmp_path / "campaign.db") as batch:
        with pytest.raises(
            LaunchConflict,
            match=r"was 'dem0' and is 'demo'.* retry_failed\(corrected=...\) if it failed or was not sent$",
        ):
            await batch.add(mended)
        counts = batch.counts
        planned = await batch.retry_failed(corrected=mended)
        new = await batch.add(mended)
        items = await run_all(batch)

    assert (counts["refused"], counts["planned"], planned, new) == (2, 0, 2, 1)
    assert {key: (item.state, item.attempt) for key, item in items.items()} == {
        "mol 7": ("succeeded", 2),
        "mol 8": ("succeeded", 2),
        "mol 9": ("succeeded", 1),
    }
    assert await started_numbers(client) == {"0": 1, "1": 1, "7": 1, "8": 1, "9": 1}


async def test_a_launch_that_was_planned_again_can_still_be_corrected(client: Client, tmp_path: Path) -> None:
    """Until it is sent, and only while the batch is not running."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([Launch("mol 0", "dem0"), Launch("mol 1", "dem0")])
        await run_all(batch)
        assert await batch.retry_failed() == 2
        assert await batch.retry_failed([launch(0)]) == 1
        assert await batch.retry_failed([launch(0)]) == 0
        items = await run_all(batch)
        with pytest.raises(LaunchConflict):
            await batch.add([launch(0, variables={"scale": 3})])

        assert await batch.retry_failed([launch(0, variables={"scale": 3}), launch(1)]) == 1
        last = await run_all(batch)

    assert {key: (item.state, item.attempt) for key, item in items.items()} == {
        "mol 0": ("succeeded", 2),
        "mol 1": ("refused", 2),
    }
    assert [(item.key, item.state, item.attempt) for item in last.values()] == [("mol 1", "succeeded", 3)]
    assert await started_numbers(client) == once(2)


async def test_a_correction_may_leave_out_the_credentials(client: Client) -> None:
    """The credentials of the earlier payload are forgotten."""
    bucket = {"accessKeyID": "a", "secretAccessKey": "b", "bucket": "c", "endpoint": "https://s3.example"}
    async with client.batch() as batch:
        await batch.add([launch(0, s3=bucket, environmentVariables={"A": "b"}, variables={"scael": 2})])
        refused = await run_all(batch)
        await batch.retry_failed([launch(0)])
        items = await run_all(batch)

    assert refused["mol 0"].state == "refused"
    assert (items["mol 0"].state, items["mol 0"].attempt) == ("succeeded", 2)


async def test_a_misspelt_entry_is_reported_with_a_suggestion(server: LocalServer, client: Client) -> None:
    """As for a single start. The experiment is requested once for all launches, and later processes show it too."""
    bad = [launch(number, variables={"scael": number}) for number in range(12)]
    before = server.traffic["GET /experiments/*"].requests
    async with client.batch() as batch:
        await batch.add([*bad, launch(12)])
        items = await run_all(batch)
        message = str(batch.items[0].error)

    assert "did you mean 'scale'?" in message
    assert all("did you mean 'scale'?" in str(items[one.key].error) for one in bad)
    assert items["mol 12"].state == "succeeded"
    assert server.traffic["GET /experiments/*"].requests == before + 1


async def test_an_invalid_correction_plans_nothing(client: Client) -> None:
    """Neither its launch nor any other."""
    async with client.batch() as batch:
        await batch.add([Launch("a", "dem0"), Launch("b", "dem0")])
        await run_all(batch)
        with pytest.raises(InvalidPayload, match="'b' was not added"):
            await batch.retry_failed([Launch("a", "demo"), Launch("b", "demo", {"variabels": {}})])
        with pytest.raises(TypeError, match="iterable of Launch"):
            await batch.retry_failed(Launch("a", "demo"))  # type: ignore[arg-type]

        assert batch.counts["refused"] == 2


async def test_a_failed_run_is_retried_only_on_demand(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """The new attempt is counted, and the error of the earlier one survives the process."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([launch()])
        first = (await run_all(batch))["mol 0"]
        assert await run_all(batch) == {}
    async with client.batch(tmp_path / "campaign.db") as batch:
        failure = batch.failures()[0]
        assert await batch.retry_failed() == 1
        second = (await run_all(batch))["mol 0"]
        assert await batch.retry_failed() == 0

    assert isinstance(first.error, RunFailed)
    assert isinstance(failure.error, RunFailed)
    assert failure.error.status.error_description == first.error.status.error_description
    assert (first.attempt, second.attempt, second.state) == (1, 2, "succeeded")
    assert first.run != second.run
    assert await started_numbers(client) == {"0": 2}


async def test_a_launch_is_running_until_its_outputs_are_on_the_disk(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """A display shows it also if the service goes away after the run succeeded."""
    server.faults.add("GET */outputs/*", Delay(30.0))
    async with client.batch() as batch:
        await batch.add(launches(1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run_all(batch, outputs=["Energies"], to=tmp_path / "results"))
            await until(lambda: [item.state for item in batch.running] == ["succeeded"])
            tasks.cancel_scope.cancel()


async def test_cancel_deletes_running_runs_and_starts_nothing_more(server: LocalServer, client: Client) -> None:
    """Launches that were not started stay planned. Until then `running` has the latest statuses."""
    server.outcome("demo", "stuck")
    async with client.batch(max_running=3) as batch:
        await batch.add(launches(5))
        assert batch.running == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_all, batch)
            await until(lambda: len(batch.running) == 3)
            assert [item.state for item in batch.running] == ["started"] * 3
            assert not any(item.status is None or item.status.is_final for item in batch.running)
            assert await batch.cancel() == 3
        assert batch.running == []
        assert (batch.counts["deleted"], batch.counts["planned"]) == (3, 2)
        assert {type(item.error) for item in batch.failures()} == {RunDeleted}

    assert await client.instances.list() == []
    assert server.traffic[START].requests == 3


async def test_no_more_than_max_running_runs_are_in_progress(server: LocalServer, client: Client) -> None:
    """The next one is started when one is over."""
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


async def test_a_second_loop_continues_after_the_first_was_left(client: Client) -> None:
    """In the same block. Nothing is started twice or lost."""
    async with client.batch() as batch:
        await batch.add(launches(8))
        async for _ in batch.run():
            break
        rest = await run_all(batch)
        assert batch.counts["succeeded"] == 8

    assert len(rest) == 7
    assert await started_numbers(client) == once(8)


async def test_launches_may_be_added_while_a_batch_runs(client: Client) -> None:
    """They are run too, even if they are added when the last item is yielded."""
    async with client.batch() as batch:
        await batch.add(launches(1))
        seen = []
        async for item in batch.run():
            seen.append(item.key)
            if len(seen) < 4:
                await anyio.sleep(0.02)
                await batch.add(launches(len(seen) + 1))

    assert seen == [one.key for one in launches(4)]


async def test_a_second_run_ends_the_first(client: Client) -> None:
    """Two at once would start everything twice. What the first did not yield, the second yields."""
    async with client.batch() as batch:
        await batch.add(launches(4))
        first = batch.run()
        keys = {(await anext(first)).key}
        keys |= {key async for key in _keys(batch)}
        with pytest.raises(St4sdError, match="another run"):
            await anext(first)

    assert keys == {one.key for one in launches(4)}
    assert await started_numbers(client) == once(4)


async def _keys(batch: Batch) -> AsyncIterator[str]:
    async for item in batch.run():
        yield item.key


async def test_an_error_of_the_block_is_raised_unchanged(client: Client) -> None:
    """Whatever the batch is doing at that moment."""
    with pytest.raises(KeyError):  # noqa: PT012 -- the block is what it is about
        async with client.batch() as batch:
            await batch.add(launches(4))
            async for item in batch.run():
                raise KeyError(item.key)


async def test_a_batch_must_be_entered(client: Client) -> None:
    """The error says how. A batch cannot be entered twice at once."""
    batch = client.batch()
    with pytest.raises(St4sdError, match=r"inside 'async with client\.batch"):
        await batch.add([launch()])
    with pytest.raises(St4sdError, match=r"inside 'async with client\.batch"):
        await anext(batch.run())
    async with batch:
        with pytest.raises(St4sdError, match="already open"):
            await batch.__aenter__()


@pytest.mark.parametrize("most", [0, -1, 1.5])
def test_an_invalid_max_running_is_refused(most: Any) -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match="max_running must be a whole number"):
        Client("http://127.0.0.1:1").batch(max_running=most)


class _PatientClock(QuickClock):
    """Takes very long for the pause in which new runs are collected."""

    async def sleep(self, seconds: float) -> None:
        await (anyio.sleep(2 * HANGS) if seconds == WATCH_DELAY else super().sleep(seconds))


async def test_new_runs_are_watched_as_soon_as_no_other_can_join(server: LocalServer) -> None:
    """If all slots are taken or all launches are started, nothing is gained by waiting."""
    async with connect(server, clock=_PatientClock()) as client:
        await client.push(server.example("demo"))
        async with client.batch(max_running=2) as batch:
            await batch.add(launches(6))
            items = await run_all(batch)

    assert {item.state for item in items.values()} == {"succeeded"}
    assert len(items) == 6


async def test_a_stopped_batch_records_the_starts_in_flight(
    server: LocalServer, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ctrl-C: no new start, the answers to those in flight are awaited, and the log says how to resume."""
    server.faults.add(START, Delay(0.2), times=None)
    async with anyio.create_task_group() as tasks:

        async def script() -> None:
            async with client.batch(tmp_path / "campaign.db") as batch:
                await batch.add(launches(30))
                await run_all(batch)

        tasks.start_soon(script)
        await until(lambda: server.traffic[START].requests > 0)
        tasks.cancel_scope.cancel()
    sent = server.traffic[START].requests

    server.faults.clear()
    async with client.batch(tmp_path / "campaign.db") as batch:
        counts = batch.counts
        await run_all(batch)
    assert (counts["started"], counts["planned"]) == (sent, 30 - sent)
    assert f"a batch was left with {30 - sent} planned, {sent} started" in caplog.text
    assert "run the same script again to resume" in caplog.text
    assert await started_numbers(client) == once(30)


async def test_refused_credentials_end_run_and_leave_launches_planned(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The starts were turned away before the service saw them."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(3))
        server.renew()
        with pytest.raises(Unauthorized):
            await run_all(batch)
        assert batch.counts["planned"] == 3

    async with connect(server) as renewed, renewed.batch(tmp_path / "campaign.db") as batch:
        await run_all(batch)
        assert batch.counts["succeeded"] == 3
        assert await started_numbers(renewed) == once(3)


async def test_runs_that_were_deleted_are_reported(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """One among others, and one that was deleted while nothing watched it."""
    server.outcome("demo", "stuck")
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(7))
        await run_until_started(batch, 7)
        runs = [item.run for item in batch.items if item.run]
        assert len(runs) == 7
    for run in runs[:6]:
        await client.delete(run)
    async with client.batch(tmp_path / "campaign.db") as batch:
        yielded = []
        with anyio.fail_after(HANGS):
            async for item in batch.run():
                yielded.append(item)
                if len(yielded) == 6:
                    break

    assert {item.key for item in yielded} == {f"mol {number}" for number in range(6)}
    assert all(item.state == "deleted" and isinstance(item.error, RunDeleted) for item in yielded)


@pytest.mark.timeout(60)  # hundreds, on a machine that is busy
async def test_many_runs_are_watched_with_few_requests(server: LocalServer, client: Client) -> None:
    """Many runs are read from one list."""
    count = tries(60, 30)
    server.outcome("demo", "success", stretch=20)
    async with client.batch(max_running=None) as batch:
        await batch.add(launches(count))
        await run_all(batch, within=50)

    lists = server.traffic["GET /instances/"].requests
    # Each perhaps once when it is new, and a few beside each list, however many lists there is time for.
    assert server.traffic["GET /instances/*/status"].requests <= count + 6 * lists
    assert await asyncio.to_thread(lambda: server.traffic[START].requests) == count


async def test_a_batch_waits_for_a_service_that_is_unavailable(
    server: LocalServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Before anything is sent (which is logged once), while runs are watched, and while launches are in doubt."""
    server.faults.add("GET /instances/", Html(502), times=4)
    server.faults.add(START, DropAfter(), times=2)
    server.faults.add("POST /ds-mongodb-proxy/", Html(502), times=None)
    async with client.batch() as batch:
        await batch.add(launches(3))
        await run_all(batch)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(r"no answer from \S+/rs/ for \d+ s: HTTP status 502, .*; trying again", warnings[0])
    assert await started_numbers(client) == once(3)


async def test_a_failed_deletion_does_not_stop_the_others(server: LocalServer, client: Client) -> None:
    """The error is raised unchanged, and cancelling again deletes the rest."""
    server.outcome("demo", "stuck")
    async with client.batch() as batch:
        await batch.add(launches(3))
        await run_until_started(batch, 3)
        server.faults.add("DELETE /instances/*", Reply(500))
        with pytest.raises(ServerError):
            await batch.cancel()
        assert (batch.counts["deleted"], batch.counts["started"]) == (2, 1)
        assert await batch.cancel() == 1
        assert await batch.cancel() == 0
