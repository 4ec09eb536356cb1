"""
A user's script with a batch on a machine whose clock is wrong. Tests kill it at any moment.

Its only argument is the JSON of a `Task`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from st4sd_async import Batch, Client, Config, Item, Launch
from st4sd_async._util.clock import SystemClock

ADDERS = 3
"""Number of tasks that add the same launches."""


@dataclass(frozen=True)
class Task:
    """What one process does, and the clock of its machine."""

    url: str
    api_key: str
    folder: str
    """Folder of the journal and of ``report.json``."""
    keys: int
    settle: float
    """`Config.settle`."""
    timeout: float
    """`Config.timeout`."""
    poll: float
    """`Config.poll_interval`."""
    clock_error: float
    """Initial error of the wall clock in seconds."""
    later_error: float
    """Its error after it was set."""
    set_after: float
    """Seconds after which it is set."""
    seed: int

    def to_json(self) -> str:
        """Return the argument of the script."""
        return json.dumps(asdict(self))


class WrongClock(SystemClock):
    """A wall clock that is wrong, and is set to another wrong time once. The monotonic clock is real."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._began = time.monotonic()

    def wall(self) -> float:
        is_set = time.monotonic() - self._began >= self._task.set_after
        return time.time() + (self._task.later_error if is_set else self._task.clock_error)


def launches(count: int) -> list[Launch]:
    """Return the launches that every process adds."""
    return [
        Launch(
            f"mol {number}",
            "demo:latest",
            {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}], "metadata": {"number": number}},
        )
        for number in range(count)
    ]


async def add_again(batch: Batch, wanted: Sequence[Launch], dice: random.Random, is_added: asyncio.Event) -> None:
    """Add all launches in random order, a few at a time, again and again."""
    while True:
        shuffled = dice.sample(wanted, len(wanted))
        while shuffled:
            count = dice.randint(1, max(2, len(wanted) // 5))
            await batch.add(shuffled[:count])
            shuffled = shuffled[count:]
            await asyncio.sleep(dice.uniform(0.0, 0.02))
        is_added.set()
        await asyncio.sleep(0.3)


async def run_all(batch: Batch, task: Task) -> list[Item]:
    """Run the batch until everything is settled that several tasks add at the same time. Return what it yielded."""
    wanted, yielded = launches(task.keys), list[Item]()
    are_added = [asyncio.Event() for _ in range(ADDERS)]
    async with asyncio.TaskGroup() as tasks:
        adders = [
            tasks.create_task(add_again(batch, wanted, random.Random(f"{task.seed} {index}"), is_added))
            for index, is_added in enumerate(are_added)
        ]
        is_last = False
        while not is_last:
            # A run that ends before everything is added is followed by another.
            is_last = all(is_added.is_set() for is_added in are_added)
            async for item in batch.run():
                yielded.append(item)
            await asyncio.sleep(0.01)
        for adder in adders:
            adder.cancel()
    return yielded


def to_dicts(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Return launches as in the report."""
    return [
        {
            "key": item.key,
            "state": item.state,
            "run": item.run and item.run.id,
            "error": item.error and f"{type(item.error).__name__}: {item.error}",
        }
        for item in items
    ]


async def main(task: Task) -> None:
    """Resume the batch, run it to its end, and write a report on every launch."""
    config = Config(
        settle=task.settle, poll_interval=task.poll, grace=0.3, timeout=task.timeout, clock=WrongClock(task)
    )
    folder = Path(task.folder)
    async with Client(task.url, api_key=task.api_key, config=config) as client:
        print("ready", flush=True)  # noqa: T201 -- the test may kill it now
        async with client.batch(folder / "campaign.db", max_running=None) as batch:
            report = {"yielded": to_dicts(await run_all(batch, task)), "items": to_dicts(batch.items)}
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(main(Task(**json.loads(sys.argv[1]))))
