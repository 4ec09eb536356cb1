"""Every status that a client returns names its run."""

from __future__ import annotations

import pytest

from st4sd_async import Client, Status, UnknownRun, WaitTimeout
from st4sd_async.local import LocalServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

OUTCOMES = ("success", "component-failure", "success", "stopped")


async def test_a_list_of_statuses_is_an_answer(client: Client, server: LocalServer) -> None:
    """After a wait for many runs, those that failed can be named without counting places."""
    await client.push(server.example("demo"))
    runs = [server.populate("demo", 1, outcome)[0] for outcome in OUTCOMES]

    statuses = await client.wait(runs)
    bad = [status.rest_uid for status in statuses if not status.is_success]

    assert [status.rest_uid for status in statuses] == runs
    assert bad == [runs[1], runs[3]]
    assert Status.model_validate_json(statuses[1].model_dump_json()) == statuses[1]
    assert {run.id: status.rest_uid async for run, status in client.watch_many(runs)} == {run: run for run in runs}
    assert [status.rest_uid async for status in client.watch(runs[0])] == [runs[0]]
    assert (await client.wait(runs[0])).rest_uid == runs[0]
    assert (await client.status(runs[0])).rest_uid == runs[0]
    assert {one.id: one.status.rest_uid for one in await client.instances.list()} == {run: run for run in runs}
    assert (await client.instances.get(runs[0])).status.rest_uid == runs[0]
    failure = await client.failure(runs[1])
    assert failure is not None
    assert failure.status.rest_uid == runs[1]


async def test_a_run_without_a_status_is_named(client: Client, server: LocalServer) -> None:
    """A run that waits, one that never existed, and one that was deleted while it was watched."""
    await client.push(server.example("demo"))
    (over,) = server.populate("demo", 1)
    waiting, missing = server.populate("demo", 1, "stuck")[0], "demo-abcdef-12345678"

    with pytest.raises(WaitTimeout) as caught:
        await client.wait([waiting], timeout=0)
    assert [status.rest_uid for status in caught.value.last_statuses.values()] == [waiting]
    await client.delete(over)
    runs = [over, missing, server.populate("demo", 1)[0]]
    assert [status.rest_uid for status in await client.wait(runs)] == runs
    with pytest.raises(UnknownRun):
        await client.status(missing)
