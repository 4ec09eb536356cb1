"""What worker processes do. This module imports little, because each of them imports it."""

from __future__ import annotations

import asyncio

from st4sd_async import Client, Item, Run, Status, sync


def work(client: Client, found: Item, runs: list[Run]) -> tuple[list[Status], Run, Item]:
    """What a worker does: bind a run and use it."""

    async def ask() -> list[Status]:
        async with client:
            run = client.run(runs[0])
            watched = [(run.is_bound, status) async for run, status in client.watch_many(runs)]
            return [await run.status(), await client.status(runs[0]), *(status for _, status in watched)]

    statuses = asyncio.run(ask())
    return statuses, client.run(runs[0]), found


def ask(client: sync.Client, run: sync.Run) -> tuple[sync.Run, Status]:
    """What a worker does without async."""
    bound = client.run(run)
    return bound, bound.status()
