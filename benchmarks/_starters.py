"""
Many starts, or a journal of many, in its own process, which prints the cost in JSON.

    python benchmarks/_starters.py {st4sd_async,aiohttp,incumbent,add,collect} TASK

TASK is JSON: the address, how many starts, how many in flight at first, and the path of the journal.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from _downloaders import peak
from _shared import incumbent
from _start_server import FINAL

if TYPE_CHECKING:
    from st4sd_async import Batch, Item, Launch

MODULES = {
    "st4sd_async": "st4sd_async",
    "add": "st4sd_async",
    "collect": "st4sd_async",
    "aiohttp": "aiohttp",
    "incumbent": "experiment.service.db",
}
KEY = "benchmark"
EXPERIMENT = "demo:latest"
STATUS = {key: value for key, value in FINAL.items() if key != "meta"}
REQUEST = json.dumps({"outputs": ["Energies"], "to": "/results"})
LEFT = ("planned", "sending", "unknown")
"""States of launches whose response is not recorded yet."""
LOOK = 0.005
"""Seconds between two checks."""

Result = dict[str, Any]
Task = dict[str, Any]


def payload(index: int) -> dict[str, Any]:
    """Return the payload of one start; no two are alike."""
    rows = "".join(f"{index},{row},C{'C' * (index % 20)}O\n" for row in range(20))
    return {
        "inputs": [{"filename": "molecules.csv", "content": f"campaign,row,smiles\n{rows}"}],
        "variables": {"scale": index, "solvent": "water"},
        "metadata": {"campaign": "benchmark"},
    }


def launches(count: int) -> Iterator[Launch]:
    """Return the same starts as launches."""
    from st4sd_async import Launch

    return (Launch(f"mol-{index}", EXPERIMENT, payload(index)) for index in range(count))


async def ours(task: Task, result: Result) -> None:
    """
    Add launches to a batch, and run it.

    The measurement begins with the call of `run` and ends with the last response in the journal. The number of runs
    in progress is not limited.
    """
    from st4sd_async import Client, Config

    count, config = task["count"], Config(concurrency=task["in_flight"])
    async with (
        Client(task["url"], api_key=KEY, config=config) as client,
        client.batch(task["journal"], max_running=None) as batch,
    ):
        began = time.perf_counter()
        await batch.add(launches(count))
        result["added_s"] = time.perf_counter() - began
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_exhaust(batch.run()))
            await _answered(batch)
            result |= {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        result |= {"ended_s": time.perf_counter() - wall, "done": batch.counts["succeeded"]}


async def _exhaust(items: AsyncGenerator[Item]) -> None:
    async for _ in items:
        pass


async def _answered(batch: Batch) -> None:
    """Return when the responses to all starts are recorded."""
    while any(batch.counts[state] for state in LEFT):  # noqa: ASYNC110 -- a batch yields ends, not starts
        await asyncio.sleep(LOOK)


async def bare(task: Task, result: Result) -> None:
    """Send the same requests in a loop, and record nothing."""
    import aiohttp

    url, left = f"{task['url']}/rs/experiments/{EXPERIMENT}/start", iter(range(task["count"]))
    uids = set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            for index in left:
                async with session.post(url, json=payload(index)) as reply:
                    uids.add(json.loads(await reply.read()))

        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work() for _ in range(task["in_flight"])))
        result |= {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "done": len(uids)}


def theirs(task: Task, result: Result) -> None:
    """Start with the incumbent, one after the other."""
    api = incumbent(task["url"], KEY)
    wall, cpu = time.perf_counter(), time.process_time()
    uids = {api.api_experiment_start(EXPERIMENT, payload(index)) for index in range(task["count"])}
    result |= {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "done": len(uids)}


async def add(task: Task, result: Result) -> None:
    """Open a journal and add launches, which it may have already. Nothing is sent."""
    from st4sd_async import Client, Config

    async with Client(task["url"], config=Config(validate=False)) as client:
        gc.collect()
        result["opened_mib"] = peak()
        wall, cpu = time.perf_counter(), time.process_time()
        async with client.batch(task["journal"]) as batch:
            result["open_s"] = time.perf_counter() - wall
            result["new"] = await batch.add(launches(task["count"]))
            result |= {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
            result |= {"done": sum(batch.counts.values()), "collected": batch.counts["collected"]}


async def collect(task: Task, result: Result) -> None:
    """Record in a journal that all of its launches were started, succeeded, and have a file."""
    from st4sd_async._batch.journal import Journal
    from st4sd_async._batch.state import State
    from st4sd_async._util.clock import SystemClock

    journal, now = Journal(task["journal"], SystemClock()), time.time()
    await journal.open(f"{task['url']}/")
    planned = list(journal.records.values())
    sent = [record.to_sending(journal.opening, now) for record in planned]
    started = [record.to_started(f"demo-c52cd4-{index:08}", now) for index, record in enumerate(sent)]
    ended = [record.to_ended(State.SUCCEEDED, json.dumps(STATUS), now) for record in started]
    last = [record.to_collected(REQUEST, [f"/results/{record.key}/energies.csv"], now) for record in ended]
    for before, after in pairwise([planned, sent, started, ended, last]):
        await asyncio.gather(*(journal.replace(*change) for change in zip(before, after, strict=True)))
    await journal.close()
    result["done"] = len(last)


def main(who: str, task: Task) -> None:
    """Run the task, and print its cost."""
    importlib.import_module(MODULES[who])
    result: Result = {"imported_mib": peak()}
    if who == "incumbent":
        theirs(task, result)
    else:
        asyncio.run({"st4sd_async": ours, "aiohttp": bare, "add": add, "collect": collect}[who](task, result))
    result["peak_mib"] = peak()
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
