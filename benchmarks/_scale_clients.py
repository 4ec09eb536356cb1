"""
The clients of `bench_scale.py`, each in its own process, which prints what it measured in JSON.

    python benchmarks/_scale_clients.py CLIENT TASK

TASK is JSON: the address of the service, and what the client needs to know.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import resource
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from _downloaders import peak
from _scale_server import LIVE, uids

from st4sd_async import Client, Config, Launch, St4sdError, WaitTimeout

KEY = "benchmark"
LIST_ITEM_SECONDS, STATUS_SECONDS = 0.001, 0.01
"""What an item of the list and a status cost the real service, about."""
TICK = 0.005
"""Real seconds between two checks."""

Result = dict[str, Any]
Task = dict[str, Any]


def tell(url: str, path: str, **changes: Any) -> Result:
    """Change options of the service, or read its tally."""
    with urllib.request.urlopen(f"{url}{path}", json.dumps(changes).encode() if changes else None) as reply:
        result: Result = json.load(reply)
        return result


def memory() -> float:
    """Return the memory of this process now, in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


class ServiceClock:
    """A clock that advances by pauses, which take no time, and by what requests would cost the real service."""

    def __init__(self, listed: int, limit: int) -> None:
        self.time = 0.0
        self.limit = limit
        """Number of requests after which the measurement ends."""
        self.is_enough = asyncio.Event()
        self.requests: list[tuple[float, str]] = []
        """When each request ended, and "list" or "status"."""
        self._listed = listed

    def now(self) -> float:
        """Return the seconds so far."""
        return self.time

    def wall(self) -> float:
        """Return the same seconds."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.time += seconds
        await asyncio.sleep(0)

    def charge(self, path: str) -> None:
        """Add the cost of a request, a failed list included."""
        is_list = path.endswith("/instances/")
        self.time += self._listed * LIST_ITEM_SECONDS if is_list else STATUS_SECONDS
        self.requests.append((self.time, "list" if is_list else "status"))
        if len(self.requests) == self.limit:
            self.is_enough.set()


class ChargingTransport(httpx.AsyncHTTPTransport):
    """Adds the cost of each request to a clock when it is sent."""

    def __init__(self, clock: ServiceClock) -> None:
        super().__init__()
        self._clock = clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        self._clock.charge(request.url.path)
        return await super().handle_async_request(request)


class FastClock:
    """The clock of this machine, faster by a factor."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def now(self) -> float:
        """Return `time.monotonic`, faster."""
        return time.monotonic() * self._factor

    def wall(self) -> float:
        """Return the same."""
        return self.now()

    async def sleep(self, seconds: float) -> None:
        """Sleep for a part of the seconds."""
        await asyncio.sleep(seconds / self._factor)


class Stalls:
    """
    The longest time for which the event loop did nothing else.

    The CPU seconds of the process between two ticks, if they are fewer than the real ones: on a busy machine other
    processes delay the ticks too.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Measure until cancelled."""
        wall, cpu = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(TICK)
            now, spent = time.perf_counter(), time.process_time()
            self.longest = max(self.longest, min(now - wall - TICK, spent - cpu))
            wall, cpu = now, spent


@asynccontextmanager
async def background(*works: Any) -> AsyncIterator[None]:
    """Run coroutines during the block, and cancel them at its end."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def launches(count: int) -> list[Launch]:
    """Return launches that differ in a variable."""
    return [Launch(f"mol-{index}", "demo:latest", {"variables": {"scale": str(index)}}) for index in range(count)]


async def exhaust(items: AsyncGenerator[Any]) -> int:
    """Return the number of items."""
    return len([None async for _ in items])


async def doubt(task: Task) -> Result:
    """Start some of the launches of a large batch, and return the CPU seconds of each start."""
    url, first = task["url"], task["first"]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with Client(url, api_key=KEY) as client, client.batch(f"{folder}/campaign.db", max_running=None) as batch:
            await batch.add(launches(task["launches"]))
            async with background(exhaust(batch.run())):
                await _until(lambda: batch.counts["started"] >= first)
                gc.collect()
                began, cpu = batch.counts["started"], time.process_time()
                await _until(lambda: batch.counts["started"] >= first + task["starts"])
                spent, started = time.process_time() - cpu, batch.counts["started"] - began
                in_doubt = batch.counts["unknown"]
    return {"cpu_s": spent / started, "in_doubt": in_doubt}


async def _until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 -- what it waits for has no event
        await asyncio.sleep(TICK)


async def quiet(task: Task) -> Result:
    """Watch runs that never change for some virtual seconds or requests, and return when these were sent."""
    clock = ServiceClock(task["runs"], task["limit"])
    config = Config(clock=clock, transport=lambda: ChargingTransport(clock))

    async def watch() -> None:
        with suppress(WaitTimeout):
            await client.wait(list(uids(LIVE, task["runs"])), timeout=task["seconds"])
        clock.is_enough.set()

    async with Client(task["url"], api_key=KEY, config=config) as client, background(watch()):
        await clock.is_enough.wait()
    return {"requests": clock.requests, "seconds": clock.time}


async def old(task: Task) -> Result:
    """Watch some runs among many old ones for some rounds; return memory above the import, and the longest stall."""
    imported, stalls = memory(), Stalls()
    config = Config(max_body_bytes=1 << 30, poll_interval=0.1)
    async with Client(task["url"], api_key=KEY, config=config) as client:
        async with background(stalls.watch()):
            watching = asyncio.create_task(client.wait(list(uids(LIVE, task["runs"]))))
            while len((await asyncio.to_thread(tell, task["url"], "/tally"))["lists"]) < task["lists"]:
                await asyncio.sleep(0.2)
                if watching.done():
                    await watching
            await asyncio.sleep(task["rest"])
            during = peak()
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        gc.collect()
        unwatched = memory()
    gc.collect()
    return {
        "peak_mib": during - imported,
        "unwatched_mib": unwatched - imported,
        "closed_mib": memory() - imported,
        "stall_s": stalls.longest,
    }


async def never(task: Task) -> Result:
    """Run a batch whose list never comes, and return the virtual seconds until its first start; None if too many."""
    clock = FastClock(task["factor"])
    config = Config(clock=clock)
    async with Client(task["url"], api_key=KEY, config=config) as client, client.batch() as batch:
        await batch.add(launches(10))
        began = time.monotonic()
        async with background(exhaust(batch.run())):
            with suppress(TimeoutError):
                async with asyncio.timeout(task["windows"] * config.settle / task["factor"]):
                    await _until(lambda: batch.counts["started"])
            started, seconds = batch.counts["started"], (time.monotonic() - began) * task["factor"]
    return {"seconds": seconds if started else None, "settle": config.settle}


async def outage(task: Task) -> Result:
    """Watch runs, and more and more of them during an outage; return the requests a second to the dead service."""
    url, runs = task["url"], list(uids(LIVE, task["runs"] + task["joining"] * task["seconds"]))
    watched, others = runs[: task["runs"]], iter(runs[task["runs"] :])
    counts: list[Result] = []
    async with Client(url, api_key=KEY) as client, background(client.wait(watched)):
        await asyncio.sleep(1)
        await asyncio.to_thread(tell, url, "/set", is_down=True)
        counts.append((await asyncio.to_thread(tell, url, "/tally"))["counts"])
        async with background(*(_join(client, run, index / task["joining"]) for index, run in enumerate(others))):
            await asyncio.sleep(task["seconds"])
        counts.append((await asyncio.to_thread(tell, url, "/tally"))["counts"])
    before, after = (one.get("list", 0) + one.get("status", 0) for one in counts)
    return {"requests_s": (after - before) / task["seconds"]}


async def _join(client: Client, run: str, delay: float) -> None:
    await asyncio.sleep(delay)
    with suppress(St4sdError):
        await client.wait(run)


async def pause(task: Task) -> Result:
    """Watch many changing runs in a program that is busy, and return the pauses after the lists."""

    async def toil() -> None:
        while True:
            began = time.perf_counter()
            while time.perf_counter() - began < task["toil"]:
                pass
            await asyncio.sleep(0)

    url = task["url"]
    async with (
        Client(url, api_key=KEY, config=Config(poll_interval=0.2)) as client,
        background(toil(), client.wait(list(uids(LIVE, task["runs"])))),
    ):
        lists: list[list[float]] = []
        while len(lists) < task["lists"]:
            await asyncio.sleep(0.1)
            lists = (await asyncio.to_thread(tell, url, "/tally"))["lists"]
    return {"pauses_s": [later - before for (_, before), (later, _) in pairwise(lists[1:])]}


async def many(task: Task) -> Result:
    """Run a batch of many launches, and return its time and memory."""
    imported = peak()
    url = task["url"]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with Client(url, api_key=KEY) as client, client.batch(f"{folder}/campaign.db") as batch:
            await batch.add(launches(task["launches"]))
            before = await asyncio.to_thread(tell, url, "/tally")
            wall, cpu = time.perf_counter(), time.process_time()
            done = await exhaust(batch.run())
            seconds, spent = time.perf_counter() - wall, time.process_time() - cpu
            after = await asyncio.to_thread(tell, url, "/tally")
    if done != task["launches"] or after["started"] != task["launches"]:
        raise RuntimeError(f"{done} launches ended, {after['started']} were started")
    return {
        "seconds": seconds,
        "cpu_s": spent,
        "server_s": after["cpu_s"] - before["cpu_s"],
        "counts": after["counts"],
        "above_import_mib": peak() - imported,
    }


async def bare(task: Task) -> Result:
    """Send the requests that `many` sent with aiohttp, as it did, and return the seconds; nothing is decoded."""
    import aiohttp

    counts, starts, sent = task["counts"], iter(range(task["counts"]["start"])), {"list": 0, "status": 0}
    instances = f"{task['url']}/rs/instances/"
    # As ours do, each start has a connection of its own.
    alone, pooled = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=alone) as once, aiohttp.ClientSession(connector=pooled) as session:

        async def work() -> None:
            for index in starts:
                payload = {"variables": {"scale": str(index)}}
                async with once.post(f"{task['url']}/rs/experiments/demo:latest/start", json=payload) as reply:
                    run = json.loads(await reply.read())
                for kind, url in (("list", instances), ("status", f"{instances}{run}/status")):
                    while sent[kind] < (index + 1) * counts.get(kind, 0) // counts["start"]:
                        sent[kind] += 1
                        async with session.get(url) as reply:
                            await reply.read()

        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work() for _ in range(task["in_flight"])))
        return {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


async def inputs(task: Task) -> Result:
    """Return the CPU seconds of the child processes of the simulator that write the files of some runs."""
    from st4sd_async.local import LocalServer

    async with LocalServer(speed=0) as server, Client(server.url, api_key=server.api_key) as client:
        await client.push(server.example("demo"))
        wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        for index in range(task["runs"]):
            content = f"index,smiles\n0,{'C' * (index % 50 + 1)}\n1,{index}\n"
            payload = {"inputs": [{"filename": "molecules.csv", "content": content}]}
            (run,) = server.populate("demo", 1, payload=payload)
            assert server.directory(run)
            seconds = time.perf_counter() - wall
            if seconds > task["seconds"]:
                break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # of processes that have ended
    return {
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "seconds": seconds,
        "runs": index + 1,
    }


SERVER = "http://127.0.0.1/"
"""The deployment of a journal that is only opened."""


async def write_journal(task: Task) -> Result:
    """Write a journal of many planned launches, each with its own payload, which is left out."""
    from st4sd_async._batch.journal import Journal
    from st4sd_async._batch.schema import digest
    from st4sd_async._batch.state import LaunchRecord
    from st4sd_async._util.clock import SystemClock

    journal, count, step = Journal(task["journal"], SystemClock()), task["launches"], 10_000
    await journal.open(SERVER)
    for first in range(0, count, step):
        numbers = range(first, min(first + step, count))
        await journal.add(
            [LaunchRecord(f"mol-{each}", "demo:latest", digest(str(each)), since=time.time()) for each in numbers], {}
        )
    await journal.close()
    return {"launches": len(journal.records)}


async def open_journal(task: Task) -> Result:
    """Return the CPU seconds to open a journal, and the peak memory of the process."""
    from st4sd_async._batch.journal import Journal
    from st4sd_async._util.clock import SystemClock

    journal, cpu = Journal(task["journal"], SystemClock()), time.process_time()
    await journal.open(SERVER)
    spent = time.process_time() - cpu
    if len(journal.records) != task["launches"]:
        raise RuntimeError(f"the journal has {len(journal.records)} launches")
    await journal.close()
    return {"cpu_s": spent, "peak_mib": peak()}


async def fetch_journal(task: Task) -> Result:
    """Return the CPU seconds to fetch all rows of a journal."""
    cpu = time.process_time()
    database = sqlite3.connect(task["journal"])
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    rows = [database.execute(f"SELECT * FROM {name}").fetchall() for name in tables]
    spent = time.process_time() - cpu
    database.close()
    return {"cpu_s": spent, "rows": sum(map(len, rows))}


CLIENTS = {
    "doubt": doubt,
    "quiet": quiet,
    "old": old,
    "never": never,
    "outage": outage,
    "pause": pause,
    "many": many,
    "bare": bare,
    "inputs": inputs,
    "write_journal": write_journal,
    "open_journal": open_journal,
    "fetch_journal": fetch_journal,
}

if __name__ == "__main__":
    gc.collect()
    sys.stdout.write(json.dumps(asyncio.run(CLIENTS[sys.argv[1]](json.loads(sys.argv[2])))))
