"""Starts with an unknown outcome: found, proven absent, settled by the user, or reported."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

from st4sd_async import Batch, Client, RunFailed, StartOutcomeUnknown, UnknownRun
from st4sd_async._batch import runner
from st4sd_async.local import Delay, DropAfter, DropBefore, Html, LocalServer, Reply, ShortList
from tests.tries import sample

from .batches import FACTOR, HANGS, START, connect, launch, launches, once, run_all, started_numbers, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FAULTS = [
    DropBefore(),
    Reply(500),
    DropAfter(),
    Html(502),
    Reply(503, {"Retry-After": "1"}, handled=True),
    Reply(500, handled=True),
    Reply(429, {"Retry-After": "1"}),
    Reply(429),
    Delay(0.05),
]


@pytest.mark.parametrize("fault", sample(FAULTS, 5), ids=str)
async def test_whatever_happens_to_a_start_there_is_one_run(
    server: LocalServer, client: Client, tmp_path: Path, fault: Any
) -> None:
    """A start that arrived is found, one that did not is sent again."""
    server.faults.add(START, fault, times=3)

    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(6))
        items = await run_all(batch)

    assert {item.state for item in items.values()} == {"succeeded"}
    assert len(items) == 6
    assert await started_numbers(client) == once(6)


async def test_a_start_in_doubt_is_not_sent_again_before_the_settle_window(server: LocalServer, client: Client) -> None:
    """The service may handle it late."""
    server.faults.add(START, DropBefore())
    began = time.monotonic()

    async with client.batch() as batch:
        await batch.add([launch()])
        await run_all(batch)

    assert time.monotonic() - began >= 30.0 / FACTOR
    assert server.traffic[START].requests == 2


async def test_the_search_for_lost_starts_is_logged_once(
    server: LocalServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Which starts, what is done about them, and the minimum duration."""
    server.faults.add(START, DropBefore(), times=3)
    server.faults.add("GET /instances/$", Delay(0.0))
    server.faults.add("GET /instances/$", Delay(0.2))  # the first look for them, which so finds all three in doubt
    async with client.batch() as batch:
        await batch.add(launches(3))
        items = await run_all(batch)

    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert {item.state for item in items.values()} == {"succeeded"}
    assert "whether 3 of the starts arrived ('mol 0', 'mol 1', 'mol 2')" in message
    seconds = int(re.findall("in ([0-9]+) s at the earliest", message)[0])
    assert 0 <= seconds <= 30


async def test_a_short_list_proves_nothing(server: LocalServer, client: Client) -> None:
    """While the list lacks runs that were started, a start that it does not show is not sent again."""
    async with client.batch() as batch:
        await batch.add(launches(4))
        await run_all(batch)
        server.faults.add(START, DropAfter())
        server.faults.add("GET /instances/$", ShortList(1.0), times=12)
        await batch.add([launch(4)])
        items = await run_all(batch)

    server.faults.clear()
    assert items["mol 4"].state == "succeeded"
    assert await started_numbers(client) == once(5)


async def test_launches_in_doubt_make_no_other_start_expensive(server: LocalServer) -> None:
    """The batch does not look at all of them at each event: its loop calls as few functions for each turn."""
    calls: list[Counter[str]] = []

    def count_call(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == runner.__file__:
            calls[-1][frame.f_code.co_name] += 1

    async def start_others(batch: Batch, doubts: int) -> None:
        def are_sent() -> bool:
            return not batch.counts["planned"] + batch.counts["sending"]

        await batch.add(launches(doubts))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(run_all, batch, until=anyio.Event()))
            await until(are_sent)
            assert batch.counts["unknown"] == doubts
            calls.append(Counter())
            sys.setprofile(count_call)
            try:
                await batch.add(launch(1000 + number) for number in range(20))
                await until(are_sent)
            finally:
                sys.setprofile(None)
            tasks.cancel_scope.cancel()

    async with connect(server, settle=1e6) as client:
        await client.push(server.example("demo"))
        async with client.batch() as batch:
            await start_others(batch, 0)
        server.faults.add(START, Reply(500), times=50)
        async with client.batch() as batch:
            await start_others(batch, 50)

    quiet, busy = (found.total() / found["_send_planned"] for found in calls)
    assert busy < 2 * quiet, calls


SPENT = [
    (0.0, None),
    (0.5, {"experiment-state": "running", "exit-status": "N/A", "stages": ["stage0"], "meta": None}),
    (1.0, {"experiment-state": "finished", "exit-status": "Failed", "stages": ["stage0"], "meta": None}),
]
"""A run that executes something and ends without ever having metadata, so that nothing shows whose it is."""


async def doubtful(server: LocalServer, batch: Batch) -> StartOutcomeUnknown:
    """Have the first launch never show whose run it is, and its answer be lost."""
    server.outcome("demo", SPENT, times=1)
    server.faults.add(START, DropAfter())
    await batch.add([launch(0)])
    item = (await run_all(batch))["mol 0"]
    assert isinstance(item.error, StartOutcomeUnknown)
    return item.error


async def test_an_undecidable_launch_is_reported_and_blocks_no_other(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The error names the key, the candidates and the ways out. The next run reports it again."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        error = await doubtful(server, batch)
        await batch.add([launch(1)])
        items = await run_all(batch)
        counts = batch.counts

    (instance,) = [one.id for one in await client.instances.list() if one.status.meta is None]
    assert (error.key, error.candidates) == ("mol 0", (instance,))
    assert f"it may be {instance!r}: delete those that executed nothing and run again" in str(error)
    assert (
        "if you know which one is its run: batch.adopt('mol 0', rest_uid); if there is none: batch.forget('mol"
        in str(error)
    )
    assert items["mol 1"].state == "succeeded"
    assert isinstance(items["mol 0"].error, StartOutcomeUnknown)
    assert (counts["unknown"], counts["succeeded"]) == (1, 1)
    assert server.traffic[START].requests == 2


async def test_a_doubt_is_resolved_by_adopting_the_run(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """The run is watched like any other, and the launch is no longer in doubt."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        error = await doubtful(server, batch)
        with pytest.raises(UnknownRun):
            await batch.adopt("mol 0", "demo-none")
        await batch.adopt("mol 0", error.candidates[0])
        with pytest.raises(ValueError, match="'mol 0' is not in doubt but started; no launch is in doubt"):
            await batch.forget("mol 0")
        items = await run_all(batch)

    assert isinstance(items["mol 0"].error, RunFailed)
    assert server.traffic[START].requests == 1
    async with client.batch(tmp_path / "campaign.db") as batch:
        assert batch.items[0].run == client.run(error.candidates[0])


async def test_a_run_of_another_launch_cannot_be_adopted(server: LocalServer, client: Client) -> None:
    """The error names that launch."""
    async with client.batch() as batch:
        await doubtful(server, batch)
        await batch.add([launch(1)])
        items = await run_all(batch)
        with pytest.raises(ValueError, match="belongs to 'mol 1'"):
            await batch.adopt("mol 0", str(items["mol 1"].run))


async def test_a_run_that_was_started_for_something_else_is_not_adopted(server: LocalServer, client: Client) -> None:
    """Its metadata or its experiment shows that. A run that shows neither may be the one."""
    await client.push({**server.example("demo"), "metadata": {"package": {"name": "other", "tags": ["latest"]}}})
    other = await client.start("other", launch().payload)
    foreign = await client.start("demo", launch(7).payload)
    async with client.batch() as batch:
        error = await doubtful(server, batch)
        for run in (other, foreign):
            with pytest.raises(ValueError, match="was not started for 'mol 0'"):
                await batch.adopt("mol 0", run.id)
        await batch.adopt("mol 0", error.candidates[0])


async def test_a_doubt_is_resolved_by_forgetting_it(server: LocalServer, client: Client) -> None:
    """The user says that it was not started, so it is started."""
    async with client.batch() as batch:
        await doubtful(server, batch)
        with pytest.raises(ValueError, match="the batch has no launch 'mol'; in doubt: 'mol 0'"):
            await batch.forget("mol")
        await batch.forget("mol 0")
        assert batch.counts["planned"] == 1
        items = await run_all(batch)

    assert items["mol 0"].state == "succeeded"
    assert server.traffic[START].requests == 2


async def test_an_old_copy_of_a_journal_starts_nothing_again(client: Client, tmp_path: Path) -> None:
    """Launches that are planned in the copy, but have a run at the service, get that run."""
    path, copy = tmp_path / "campaign.db", tmp_path / "copy.db"
    async with client.batch(path) as batch:
        await batch.add(launches(5))
    await anyio.to_thread.run_sync(shutil.copy, path, copy)
    async with client.batch(path) as batch:
        first = await run_all(batch)
    async with client.batch(copy) as batch:
        second = await run_all(batch)

    assert {key: item.run for key, item in second.items()} == {key: item.run for key, item in first.items()}
    assert await started_numbers(client) == once(5)


async def test_an_old_copy_of_a_journal_does_not_restart_deleted_runs(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The list no longer shows them, but the datastore does."""
    path, copy = tmp_path / "campaign.db", tmp_path / "copy.db"
    async with client.batch(path) as batch:
        await batch.add(launches(2))
    await anyio.to_thread.run_sync(shutil.copy, path, copy)
    async with client.batch(path) as batch:
        runs = [item.run for item in (await run_all(batch)).values()]
        with anyio.fail_after(HANGS):
            while len(await client.datastore.user_metadata()) < len(runs):  # noqa: ASYNC110 -- there is no event
                await anyio.sleep(0.01)
        for run in runs:
            assert run is not None
            await run.delete()
    async with client.batch(copy) as batch:
        items = await run_all(batch)

    assert {item.state for item in items.values()} == {"deleted"}
    assert server.traffic[START].requests == 2


async def test_a_run_is_found_in_the_datastore_alone(server: LocalServer, client: Client) -> None:
    """Even if the list never shows it."""
    server.faults.add(START, DropAfter())
    async with client.batch() as batch:
        await batch.add([launch()])
        server.faults.add("GET /instances/$", ShortList(1.0), times=None)
        items = await run_all(batch)
    server.faults.clear()

    assert items["mol 0"].state == "succeeded"
    assert server.traffic[START].requests == 1
    assert await started_numbers(client) == once(1)


async def test_a_launch_is_reported_if_the_lists_prove_nothing(server: LocalServer, client: Client) -> None:
    """After three windows in which nothing was found and nothing proved its absence."""
    async with client.batch() as batch:
        await batch.add(launches(2))
        await run_all(batch)
        server.faults.add(START, DropBefore())
        server.faults.add("GET /instances/$", ShortList(0.5), times=None)
        await batch.add([launch(2)])
        items = await run_all(batch)

    error = items["mol 2"].error
    assert isinstance(error, StartOutcomeUnknown)
    assert error.candidates == ()
    assert "if you know its run: batch.adopt('mol 2', rest_uid); if there is none: batch.forget('mol 2')" in str(error)
    assert server.traffic[START].requests == 3


async def test_candidates_block_only_their_own_package(server: LocalServer, client: Client) -> None:
    """A lost start of another package is proven absent and sent again while the first stays in doubt."""
    definition = server.example("demo")
    definition["metadata"]["package"]["name"] = "other"
    await client.push(definition)
    server.outcome("demo", SPENT, times=1)
    server.faults.add(START, DropAfter())
    server.faults.add(START, DropBefore())
    async with client.batch() as batch:
        await batch.add([launch(0), dataclasses.replace(launch(1), experiment="other")])
        items = await run_all(batch)

    assert isinstance(items["mol 0"].error, StartOutcomeUnknown)
    assert items["mol 1"].state == "succeeded"


async def test_a_list_without_a_deleted_run_is_complete(server: LocalServer, client: Client) -> None:
    """It is evidence once the deletion is known."""
    async with client.batch() as batch:
        await batch.add(launches(2))
        for item in (await run_all(batch)).values():
            await client.delete(item.run or "")
        server.faults.add(START, DropBefore())
        await batch.add([launch(2)])
        items = await run_all(batch)

    assert items["mol 2"].state == "succeeded"
