"""
Workers that start keys with one memory. Each dies at one of its awaits, and the process dies with the last of them.

Arguments: url, API key, folder of the memory, number of keys, seed, longest life in awaits (0 means that none dies).
Prints one JSON object: how many died, and the keys whose outcome was reported as unknown.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Coroutine, Generator
from typing import Any

from st4sd_async import Client, Config, FolderMemory, StartOutcomeUnknown

from ..batch.batches import QuickClock

SETTLE = 30.0
"""Seconds of a clock that is a hundred times faster."""
KEYS_PER_PAIR = 10
"""Each tenth key has two workers at the same time."""


class Died(BaseException):
    """A worker has died."""


class Mortal:
    """Runs a coroutine up to its n-th await, and never resumes it then: nothing in it is cleaned up."""

    corpses: list[Coroutine[Any, Any, Any]] = []

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaits: int | None) -> None:
        self._coroutine, self._awaits = coroutine, awaits

    def __await__(self) -> Generator[Any, Any, Any]:
        count, failure = 0, None
        while self._awaits is None or count < self._awaits:
            try:
                # An event loop throws the exception of a future into the task that awaits it.
                future = self._coroutine.send(None) if failure is None else self._coroutine.throw(failure)
            except StopIteration as stop:
                return stop.value
            count, failure = count + 1, None
            try:
                yield future
            except BaseException as error:
                failure = error
        self.corpses.append(self._coroutine)
        raise Died


async def main(url: str, api_key: str, folder: str, count: int, seed: int, longest: int) -> None:
    """Start all keys once, with workers that die."""
    dice, memory = random.Random(seed), FolderMemory(folder)
    died = 0
    unknown: dict[str | None, tuple[str, ...]] = {}

    async def start(number: int) -> None:
        files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
        payload = {"inputs": files, "metadata": {"number": number}}
        # Each has a client, because the dead keep their share of what clients limit, and a clock that only it advances.
        config = Config(settle=SETTLE, grace=5.0, clock=QuickClock())
        async with Client(url, api_key=api_key, config=config) as client:
            await client.start("demo", payload, key=f"key {number}", memory=memory)

    async def work(number: int, awaits: int | None) -> None:
        nonlocal died
        try:
            await Mortal(start(number), awaits)
        except Died:
            died += 1
        except StartOutcomeUnknown as error:
            unknown[error.key] = error.candidates

    workers = [
        work(number, dice.randint(0, longest) if longest else None)
        for number in range(count)
        for _ in range(1 + (number % KEYS_PER_PAIR == 0))
    ]
    await asyncio.gather(*workers)
    sys.stdout.write(json.dumps({"died": died, "unknown": unknown}))
    sys.stdout.flush()
    os._exit(0)  # the dead are not cleaned up


if __name__ == "__main__":
    url, api_key, folder, *numbers = sys.argv[1:]
    asyncio.run(main(url, api_key, folder, *map(int, numbers)))
