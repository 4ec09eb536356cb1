"""A run whose replies cannot be read is reported and does not block others."""

from __future__ import annotations

from pathlib import Path

import pytest

from st4sd_async import Client, DecodeError
from st4sd_async.local import LocalServer, Reply

from .batches import START, launches, once, run_all, started_numbers

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

UNREADABLE = Reply(200, {"Content-Type": "application/json"}, b'{"experiment-state": ')
"""The status of a run, cut off. A run that has just been started could have an error of the service in its place."""


async def test_a_run_that_cannot_be_read_frees_its_slot(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """It is yielded with the error and stays started. The others follow, and the next call watches it again."""
    path = tmp_path / "campaign.db"
    async with client.batch(path, max_running=1) as batch:
        await batch.add(launches(3))
        server.faults.add("GET /instances/*/status", UNREADABLE, times=None)
        items = await run_all(batch)
        states = [item.state for item in items.values()]
        server.faults.clear()
        again = await run_all(batch)

    assert states == ["started"] * 3
    assert [type(item.error) for item in items.values()] == [DecodeError] * 3
    assert {key: item.state for key, item in again.items()} == dict.fromkeys(items, "succeeded")
    assert server.traffic[START].requests == 3
    assert await started_numbers(client) == once(3)


async def test_a_run_that_cannot_be_read_is_watched_by_the_next_process(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The journal has it as started, without an error."""
    path = tmp_path / "campaign.db"
    server.faults.add("GET /instances/*/status", UNREADABLE, times=None)
    async with client.batch(path, max_running=1) as batch:
        await batch.add(launches(1))
        await run_all(batch)
    server.faults.clear()
    async with client.batch(path) as batch:
        (before,) = batch.items
        (after,) = (await run_all(batch)).values()

    assert (before.state, before.error) == ("started", None)
    assert (after.state, after.error) == ("succeeded", None)
