"""Batches, against the embedded server."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import (
    Batch,
    Client,
    Config,
    InvalidPayload,
    Item,
    JournalError,
    JournalLocked,
    Launch,
    MissingInputs,
    Run,
    RunDeleted,
    RunFailed,
    ServerError,
    St4sdError,
    StartOutcomeUnknown,
    Unauthorized,
    UnknownExperiment,
    UnknownRun,
)
from st4sd_async.local import Delay, DropAfter, DropBefore, Html, LocalServer, Reply, ShortList

pytestmark = pytest.mark.anyio

FACTOR = 100.0
"""How many times faster than the machine's clock the client's and the server's run."""
START = "POST /experiments/*/start"


class QuickClock:
    """The machine's clock, a hundred times faster."""

    def __init__(self) -> None:
        self._origin = time.time()

    def now(self) -> float:
        return time.monotonic() * FACTOR

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds / FACTOR)

    def wall(self) -> float:
        return self._origin + (time.time() - self._origin) * FACTOR


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(speed=FACTOR, slots=1000) as running:
        yield running


def connect(server: LocalServer, **changes: Any) -> Client:
    settings = {"settle": 30.0, "poll_interval": 1.0, "grace": 5.0, "clock": QuickClock(), **changes}
    return Client(server.url, api_key=server.api_key, config=Config(**settings))


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[Client]:
    async with connect(server) as opened:
        await opened.push(server.example("demo"))
        yield opened


def launch(number: int = 0, **parts: Any) -> Launch:
    files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
    return Launch(f"mol {number}", "demo", {"inputs": files, "metadata": {"number": number}, **parts})


def launches(count: int) -> list[Launch]:
    return [launch(number) for number in range(count)]


async def worked_off(batch: Batch, *, within: float = 10.0, **options: Any) -> dict[str, Item]:
    """What a batch yields until it is done: key -> item."""
    items: dict[str, Item] = {}
    with anyio.fail_after(within):
        async for item in batch.run(**options):
            assert item.key not in items
            items[item.key] = item
    return items


async def numbers(client: Client) -> Counter[str]:
    """How often which launch was started, by what the service knows of its runs."""
    with anyio.fail_after(5):
        while True:
            found = [one.status.meta for one in await client.instances.list()]
            if all(found):
                return Counter(meta.user_metadata["number"] for meta in found if meta)
            await anyio.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    """Return as soon as it holds."""
    with anyio.fail_after(5):
        while not holds():  # noqa: ASYNC110 -- nobody tells
            await anyio.sleep(0.005)


def all_bytes(folder: Path) -> bytes:
    """What stands in the files of a folder."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


def once(count: int) -> dict[str, int]:
    return {str(number): 1 for number in range(count)}


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


FAULTS = [
    DropBefore(),
    DropAfter(),
    Reply(500, handled=True),
    Reply(500),
    Html(502),
    Reply(503, {"Retry-After": "1"}, handled=True),
    Reply(429, {"Retry-After": "1"}),
    Reply(429),
    Delay(0.05),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_whatever_becomes_of_a_start_there_is_one_run(
    server: LocalServer, client: Client, tmp_path: Path, fault: Any
) -> None:
    """A start that was made is found, one that was not is made."""
    server.faults.add(START, fault, times=3)

    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(6))
        items = await worked_off(batch)

    assert {item.state for item in items.values()} == {"succeeded"}
    assert len(items) == 6
    assert await numbers(client) == once(6)


async def test_a_start_in_doubt_is_not_sent_again_before_the_settle_window(server: LocalServer, client: Client) -> None:
    """The service may handle it late."""
    server.faults.add(START, DropBefore())
    began = time.monotonic()

    async with client.batch() as batch:
        await batch.add([launch()])
        await worked_off(batch)

    assert time.monotonic() - began >= 30.0 / FACTOR
    assert server.traffic[START].requests == 2


async def test_a_short_list_proves_nothing(server: LocalServer, client: Client) -> None:
    """While the list lacks runs that were started, a start that it does not show is not made again."""
    async with client.batch() as batch:
        await batch.add(launches(4))
        await worked_off(batch)
        server.faults.add(START, DropAfter())
        server.faults.add("GET /instances/$", ShortList(1.0), times=12)
        await batch.add([launch(4)])
        items = await worked_off(batch)

    server.faults.clear()
    assert items["mol 4"].state == "succeeded"
    assert await numbers(client) == once(5)


async def doubtful(server: LocalServer, batch: Batch) -> StartOutcomeUnknown:
    """Have the first launch fail at set-up, so that nothing shows whose run it is, and its answer be lost."""
    server.outcome("demo", "setup-failure", times=1)
    server.faults.add(START, DropAfter())
    await batch.add([launch(0)])
    item = (await worked_off(batch))["mol 0"]
    assert isinstance(item.error, StartOutcomeUnknown)
    return item.error


async def test_what_cannot_be_told_is_reported_and_blocks_nothing_else(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """It names the key, the candidates and the ways out; other launches go on; it is told by the next run again."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        error = await doubtful(server, batch)
        await batch.add([launch(1)])
        items = await worked_off(batch)
        counts = batch.counts

    (instance,) = [one.id for one in await client.instances.list() if one.status.meta is None]
    assert (error.key, error.candidates) == ("mol 0", (instance,))
    assert f"if it is {instance!r}: batch.adopt('mol 0', rest_uid); if none: batch.forget('mol 0')" in str(error)
    assert items["mol 1"].state == "succeeded"
    assert isinstance(items["mol 0"].error, StartOutcomeUnknown)
    assert (counts["unknown"], counts["succeeded"]) == (1, 1)
    assert server.traffic[START].requests == 2


async def test_a_doubt_is_settled_by_adopting_the_run(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """The run is watched like any other; the doubt is gone for good."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        error = await doubtful(server, batch)
        with pytest.raises(UnknownRun):
            await batch.adopt("mol 0", "demo-none")
        await batch.adopt("mol 0", error.candidates[0])
        with pytest.raises(ValueError, match="is not in doubt but started"):
            await batch.forget("mol 0")
        items = await worked_off(batch)

    assert isinstance(items["mol 0"].error, RunFailed)
    assert server.traffic[START].requests == 1
    async with client.batch(tmp_path / "campaign.db") as batch:
        assert batch.items[0].run == client.run(error.candidates[0])


async def test_a_run_is_adopted_by_one_launch_only(server: LocalServer, client: Client) -> None:
    """What another launch started is not to be had."""
    async with client.batch() as batch:
        await doubtful(server, batch)
        await batch.add([launch(1)])
        items = await worked_off(batch)
        with pytest.raises(ValueError, match="is that of 'mol 1'"):
            await batch.adopt("mol 0", str(items["mol 1"].run))


async def test_a_doubt_is_settled_by_forgetting_it(server: LocalServer, client: Client) -> None:
    """The user says that it was not started: it is started."""
    async with client.batch() as batch:
        await doubtful(server, batch)
        await batch.forget("mol 0")
        assert batch.counts["planned"] == 1
        items = await worked_off(batch)

    assert items["mol 0"].state == "succeeded"
    assert server.traffic[START].requests == 2


async def test_a_refused_launch_fails_alone(client: Client, tmp_path: Path) -> None:
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

    assert [type(item.error) for item in failures] == [MissingInputs, UnknownExperiment]
    assert "molecules.csv" in str(failures[0].error)
    assert (again, count) == ({}, 2)
    assert [item.attempt for item in retried.values()] == [2, 2]


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
    """What was not started stays planned."""
    server.outcome("demo", "stuck")
    async with client.batch(max_running=3) as batch:
        await batch.add(launches(5))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worked_off, batch)
            await until(lambda: batch.counts["started"] == 3)
            assert await batch.cancel() == 3
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
            running = [one for one in await client.instances.list() if not one.status.is_final]
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
        with pytest.raises(St4sdError, match="open already"):
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
    assert "run the same script again to go on" in caplog.text
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
        with anyio.move_on_after(0.5):
            await worked_off(batch)
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


async def test_a_deleted_run_is_no_gap_in_the_list(server: LocalServer, client: Client) -> None:
    """A list without a run that is gone is evidence all the same, once that is known."""
    async with client.batch() as batch:
        await batch.add(launches(2))
        for item in (await worked_off(batch)).values():
            await client.delete(item.run or "")
        server.faults.add(START, DropBefore())
        await batch.add([launch(2)])
        items = await worked_off(batch)

    assert items["mol 2"].state == "succeeded"


async def test_a_journal_has_one_writer(client: Client, tmp_path: Path) -> None:
    """In this process as from another; and is free afterwards."""
    path = tmp_path / "campaign.db"
    async with client.batch(path):
        with pytest.raises(JournalLocked, match=r"campaign\.db' is open elsewhere; leave the other batch"):
            await client.batch(path).__aenter__()
    async with client.batch(path):
        pass


async def test_a_journal_belongs_to_one_server(client: Client, tmp_path: Path) -> None:
    """The keys of one deployment mean nothing at another."""
    async with client.batch(tmp_path / "campaign.db"):
        pass
    other = Client("https://other.example")

    with pytest.raises(JournalError, match=r"is of a batch at http://127.0.0.1:[0-9]+/, not at https://other.example/"):
        await other.batch(tmp_path / "campaign.db").__aenter__()


async def test_a_known_key_with_another_payload_is_an_error_that_shows_the_difference(
    client: Client, tmp_path: Path
) -> None:
    """Whether it was added now or by an earlier process; contents are not quoted."""
    changed = launch(0, variables={"scale": 3}, inputs=[{"filename": "molecules.csv", "content": "smiles\nCCO\n"}])
    told = r"variables.scale was absent and is 3"
    async with client.batch(tmp_path / "campaign.db") as batch:
        with pytest.raises(JournalError, match=told):
            await batch.add([launch(0), changed])
        await batch.add([launch(0)])
        with pytest.raises(JournalError, match="experiment was 'demo' and is 'demo:v2'"):
            await batch.add([dataclasses.replace(launch(0), experiment="demo:v2")])

    async with client.batch(tmp_path / "campaign.db") as batch:
        with pytest.raises(JournalError, match=told) as caught:
            await batch.add([changed])
    assert "inputs.0.content was a text of 10 characters and is a text of 11 characters" in str(caught.value)


async def test_a_payload_that_will_not_do_names_its_launch(client: Client) -> None:
    """Among thousands it is to be found."""
    async with client.batch() as batch:
        with pytest.raises(InvalidPayload) as caught:
            await batch.add([launch(1), launch(2, variables=3)])
        assert caught.value.__notes__ == ["in the launch 'mol 2'"]
        with pytest.raises(InvalidPayload, match="a batch knows its runs by this name"):
            await batch.add([launch(3, metadata={"st4sd-async-key": "mine"})])
        with pytest.raises(TypeError, match="launches are an iterable of Launch, not of str"):
            await batch.add(["mol"])  # type: ignore[list-item] # the mistake


SECRETS = ("KEYID-vM2", "SECRET-x81", "PASSWORD-77q")


def secretive(number: int, password: str = SECRETS[2]) -> Launch:
    return launch(
        number,
        environmentVariables={"PASSWORD": password, "THREADS": 4},
        s3={"accessKeyID": SECRETS[0], "secretAccessKey": SECRETS[1], "bucket": "mine", "endpoint": "http://s3"},
    )


async def test_credentials_are_never_written_down(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Neither while the batch runs, nor in errors, nor after; renewed ones are no change."""
    server.faults.add(
        START, Reply(400, {"Content-Type": "application/json"}, b'{"message": "no KEYID-vM2, PASSWORD-77q"}')
    )
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([secretive(0), secretive(1)])
        await worked_off(batch)
        written = await anyio.to_thread.run_sync(all_bytes, tmp_path)
        assert await batch.add([secretive(0, "PASSWORD-new")]) == 0

    written += await anyio.to_thread.run_sync(all_bytes, tmp_path)
    assert b"mol 1" in written
    assert b"THREADS" in written
    assert not any(secret.encode() in written for secret in (*SECRETS, "PASSWORD-new"))


async def test_a_launch_without_its_credentials_is_not_sent(client: Client, tmp_path: Path) -> None:
    """An earlier process had them; whoever goes on has to bring them again."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([secretive(0), launch(1)])
    async with client.batch(tmp_path / "campaign.db") as batch:
        items = await worked_off(batch)
        assert "add the launch again first" in str(items["mol 0"].error)
        assert (items["mol 0"].state, items["mol 1"].state) == ("planned", "succeeded")
        await batch.add([secretive(0)])
        items = await worked_off(batch)

    assert items["mol 0"].state == "succeeded"
    assert await numbers(client) == once(2)


async def test_a_journal_can_be_read_by_people(client: Client, tmp_path: Path) -> None:
    """Words for states, ISO times, and the payload as it is sent."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([launch()])
        run = (await worked_off(batch))["mol 0"].run

    def read() -> Any:
        with sqlite3.connect(tmp_path / "campaign.db") as database:
            return database.execute(
                "SELECT key, state, rest_uid, since, content FROM item JOIN payload ON payload.digest = item.payload"
            ).fetchall()

    ((key, state, rest_uid, since, content),) = await anyio.to_thread.run_sync(read)
    assert (key, state, rest_uid) == ("mol 0", "succeeded", str(run))
    assert since.endswith("+00:00")
    assert '"filename": "molecules.csv"' in content


async def test_results_are_collected_off_the_runs_that_succeed(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """A folder for each key; what could not be had is told, and had by the next pass."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch(tmp_path / "campaign.db", max_running=None) as batch:
        await batch.add([launch(9)])
        await worked_off(batch)
        await batch.add(launches(3))
        server.faults.add("GET /instances/*/outputs/Energies", Reply(400), times=1)
        first = await worked_off(batch, outputs=["Energies"], to=tmp_path / "results")
        counts = batch.counts
        second = await worked_off(batch, outputs=["Energies"], to=tmp_path / "results")
        assert await worked_off(batch, outputs=["Energies"], to=tmp_path / "results") == {}
        assert batch.counts["collected"] == 3

    assert (counts["collected"], counts["succeeded"], counts["failed"]) == (2, 1, 1)
    (late,) = [item for item in first.values() if item.error]
    assert late.state == "succeeded"
    assert list(second) == [late.key]
    for item in [*second.values(), *(one for one in first.values() if not one.error)]:
        (path,) = item.files
        assert path == tmp_path / "results" / path.parts[-3] / "Energies" / "energies.csv"
        assert "smiles" in await anyio.Path(path).read_text()


@pytest.mark.parametrize("options", [{"outputs": ["Energies"]}, {"to": "results"}, {"outputs": "Energies", "to": "."}])
async def test_outputs_and_a_folder_go_together(client: Client, options: Any) -> None:
    """And outputs are several names."""
    async with client.batch() as batch:
        with pytest.raises(ValueError, match="outputs are names and go with a folder"):
            await anext(batch.run(**options))


async def test_properties_of_all_runs_are_one_table(server: LocalServer, client: Client) -> None:
    """Each row with its key; what a run did not measure is told beside it."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch() as batch:
        await batch.add(launches(3))
        items = await worked_off(batch)
        found = await batch.properties(["energy"])

    good = {key for key, item in items.items() if not item.error}
    (bad,) = items.keys() - good
    assert found.columns == ("key", "rest-uid", "input-id", "energy")
    assert {(row[0], row[1]) for row in found.rows} == {(key, str(items[key].run)) for key in good}
    assert list(found.problems) == [str(items[bad].run)]


async def test_many_cost_little_to_watch(server: LocalServer, client: Client) -> None:
    """Hundreds of runs are read from one list."""
    server.outcome("demo", "success", stretch=20)
    async with client.batch(max_running=None) as batch:
        await batch.add(launches(200))
        await worked_off(batch)

    assert server.traffic["GET /instances/*/status"].requests < 100
    assert await asyncio.to_thread(lambda: server.traffic[START].requests) == 200


async def test_an_old_copy_of_a_journal_starts_nothing_again(client: Client, tmp_path: Path) -> None:
    """What it has as planned, and the service shows, is taken over."""
    path, copy = tmp_path / "campaign.db", tmp_path / "copy.db"
    async with client.batch(path) as batch:
        await batch.add(launches(5))
    await anyio.to_thread.run_sync(shutil.copy, path, copy)
    async with client.batch(path) as batch:
        first = await worked_off(batch)
    async with client.batch(copy) as batch:
        second = await worked_off(batch)

    assert {key: item.run for key, item in second.items()} == {key: item.run for key, item in first.items()}
    assert await numbers(client) == once(5)


async def test_a_run_is_found_in_the_datastore_alone(server: LocalServer, client: Client) -> None:
    """The list may fail to show it for ever."""
    server.faults.add(START, DropAfter())
    async with client.batch() as batch:
        await batch.add([launch()])
        server.faults.add("GET /instances/$", ShortList(1.0), times=None)
        items = await worked_off(batch)
    server.faults.clear()

    assert items["mol 0"].state == "succeeded"
    assert server.traffic[START].requests == 1
    assert await numbers(client) == once(1)


async def test_lists_that_never_prove_anything_end_in_a_report(server: LocalServer, client: Client) -> None:
    """After three windows: nothing was found, and nothing says that it is not there."""
    async with client.batch() as batch:
        await batch.add(launches(2))
        await worked_off(batch)
        server.faults.add(START, DropBefore())
        server.faults.add("GET /instances/$", ShortList(0.5), times=None)
        await batch.add([launch(2)])
        items = await worked_off(batch)

    error = items["mol 2"].error
    assert isinstance(error, StartOutcomeUnknown)
    assert error.candidates == ()
    assert "if it is one that you know of: batch.adopt('mol 2', rest_uid)" in str(error)
    assert server.traffic[START].requests == 3


async def test_candidates_block_their_own_package_only(server: LocalServer, client: Client) -> None:
    """A start of another package that was lost is proven absent, and made, while the first cannot be told."""
    definition = server.example("demo")
    definition["metadata"]["package"]["name"] = "other"
    await client.push(definition)
    server.outcome("demo", "setup-failure", times=1)
    server.faults.add(START, DropAfter())
    server.faults.add(START, DropBefore())
    async with client.batch() as batch:
        await batch.add([launch(0), dataclasses.replace(launch(1), experiment="other")])
        items = await worked_off(batch)

    assert isinstance(items["mol 0"].error, StartOutcomeUnknown)
    assert items["mol 1"].state == "succeeded"


async def test_a_service_that_is_away_is_waited_for(server: LocalServer, client: Client) -> None:
    """Before anything is sent, while runs are watched, and while doubts are settled."""
    server.faults.add("GET /instances/", Html(502), times=4)
    server.faults.add(START, DropAfter(), times=2)
    server.faults.add("POST /ds-mongodb-proxy/", Html(502), times=None)
    async with client.batch() as batch:
        await batch.add(launches(3))
        await worked_off(batch)

    assert await numbers(client) == once(3)


async def test_nothing_is_lost_when_a_deletion_fails(server: LocalServer, client: Client) -> None:
    """The others are deleted, the error comes as it is, and cancelling again goes on."""
    server.outcome("demo", "stuck")
    async with client.batch() as batch:
        await batch.add(launches(3))
        with anyio.move_on_after(0.3):
            await worked_off(batch)
        server.faults.add("DELETE /instances/*", Reply(500))
        with pytest.raises(ServerError):
            await batch.cancel()
        assert (batch.counts["deleted"], batch.counts["started"]) == (2, 1)
        assert await batch.cancel() == 1
        assert await batch.cancel() == 0


async def test_a_journal_that_cannot_be_written_ends_the_pass(client: Client, tmp_path: Path) -> None:
    """As when the disk is full: nothing that is not written down is sent."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(3))
        database = batch._journal._database
        assert database is not None
        await anyio.to_thread.run_sync(database.execute, "PRAGMA query_only = ON")
        with pytest.raises(JournalError, match="cannot be used: attempt to write a readonly database"):
            await worked_off(batch)
        assert batch.counts["planned"] == 3
        await anyio.to_thread.run_sync(database.execute, "PRAGMA query_only = OFF")
        await worked_off(batch)

    assert await numbers(client) == once(3)
