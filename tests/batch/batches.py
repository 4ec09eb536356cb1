"""Helpers of the tests of batches: a fast server, a client, launches, and a function that runs a batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from st4sd_async import Batch, Client, Config, Item, Launch
from st4sd_async.local import LocalServer

FACTOR = 100.0
"""How many times faster the clocks of the server and of the client's pauses run than real time."""

LENGTHENED = 3.0
"""How many times longer than requested a pause of the client is, so that it polls less often, as on a busy machine."""

HANGS = 40.0
"""Seconds after which something hangs. A busy machine takes ten times as long as a quiet one."""

START = "POST /experiments/*/start"


class QuickClock:
    """
    The system clock, but pauses are a hundred times shorter than they seem, and seem longer than requested.

    All other times are real. Otherwise a machine that is busy for half a second would look like a service that took
    most of a minute.
    """

    def __init__(self, *, lengthened: float = LENGTHENED) -> None:
        self._gained, self._lengthened = 0.0, lengthened

    def now(self) -> float:
        return time.monotonic() + self._gained

    async def sleep(self, seconds: float) -> None:
        seconds *= self._lengthened
        end = self.now() + seconds
        await anyio.sleep(seconds / FACTOR)
        self._gained = max(self._gained, end - time.monotonic())

    def wall(self) -> float:
        return time.time() + self._gained


def connect(server: LocalServer, **changes: Any) -> Client:
    settings = {"settle": 30.0, "poll_interval": 1.0, "grace": 5.0, "clock": QuickClock(), **changes}
    return Client(server.url, api_key=server.api_key, config=Config(**settings))


def launch(number: int = 0, **parts: Any) -> Launch:
    files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
    return Launch(f"mol {number}", "demo", {"inputs": files, "metadata": {"number": number}, **parts})


def launches(count: int) -> list[Launch]:
    return [launch(number) for number in range(count)]


async def run_all(batch: Batch, *, within: float = HANGS, **options: Any) -> dict[str, Item]:
    """Run a batch to its end and return the items that it yields by key."""
    items: dict[str, Item] = {}
    with anyio.fail_after(within):
        async for item in batch.run(**options):
            assert item.key not in items
            items[item.key] = item
    return items


async def started_numbers(client: Client) -> Counter[str]:
    """Return how often each launch was started, according to the service."""
    with anyio.fail_after(HANGS):
        while True:
            found = [one.status.meta for one in await client.instances.list()]
            if all(found):
                return Counter(meta.user_metadata["number"] for meta in found if meta)
            await anyio.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    """Return as soon as a condition holds."""
    with anyio.fail_after(HANGS):
        while not holds():  # noqa: ASYNC110 -- there is no event
            await anyio.sleep(0.005)


async def run_until_started(batch: Batch, count: int) -> None:
    """Run a batch until a number of launches is started, and stop it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_all, batch)
        await until(lambda: batch.counts["started"] == count)
        tasks.cancel_scope.cancel()


def all_bytes(folder: Path) -> bytes:
    """Return the contents of all files in a folder."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


def once(count: int) -> dict[str, int]:
    return {str(number): 1 for number in range(count)}
