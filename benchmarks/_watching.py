"""The measurements of `bench_watch.py`; each function returns plain values, in seconds and megabytes."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from _crowd import crowd, fetch_list, life, service_seconds, spent
from _shared import HERE, serving
from _watchers import READY, CpuClock, VirtualClock

from st4sd_async import Client, Config, WaitTimeout
from st4sd_async.local import Delay, LocalServer

PAUSE, GROUP = 30.0, 500
"""Virtual seconds between two rounds, and the number of runs of which one changes per second: 6 % in a round."""
OLD = 20_000
"""Length of the list of a service on which few runs are watched."""
LISTED = 1000
"""Number of runs watched when CPU is measured."""
COLD = 2
"""Rounds in which every run is new."""
INTERVAL = 0.5
"""Real seconds between two rounds, when the time to notice is measured."""
CHANGES, LONGEST_GAP = 50, 0.2
"""Number of changes, of a run each, and the maximum seconds from one to the next."""
LISTS = 5
"""Number of lists that are timed."""
FOR_EVER = 10_000

Result = dict[str, Any]


def cost(who: str, count: int, rounds: int) -> Result:
    """Return the cost of a round of watching: "watch_many", "watch apart" or "incumbent"."""
    with crowd(count, life(GROUP, 0, 500, 1000, 1250), GROUP) as (server, runs):
        before, statuses = server.traffic, None
        if who == "incumbent":
            with _watcher(who, server, runs, 0.0, rounds) as output:
                output.read()
        else:
            statuses = asyncio.run(_watch(server, runs, rounds, apart=who == "watch apart"))
        return {"rounds": rounds, "statuses": statuses, **spent(before, server.traffic, rounds, count)}


async def _watch(server: LocalServer, runs: list[str], rounds: int, *, apart: bool = False) -> int:
    """Watch runs for some rounds, together or each in its own task, and return the number of statuses."""

    async def count(statuses: AsyncGenerator[object]) -> int:
        number = 0
        with suppress(WaitTimeout):
            async for _ in statuses:
                number += 1
        return number

    timeout = rounds * PAUSE
    config = Config(clock=VirtualClock(server), poll_interval=PAUSE)
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        if apart:
            return sum(await asyncio.gather(*(count(client.watch(run, timeout=timeout)) for run in runs)))
        return await count(client.watch_many(runs, timeout=timeout))


@contextmanager
def _watcher(who: str, server: LocalServer, runs: list[str], interval: float, rounds: int) -> Iterator[IO[str]]:
    """Yield the output of a watcher in its own process, complete at its end, once it has seen each run."""
    options = (server.url, server.api_key, str(interval), str(rounds))
    command = [sys.executable, str(HERE / "_watchers.py"), who, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{json.dumps(runs)}\n")
            process.stdin.flush()
            if process.stdout.readline() != READY:
                raise RuntimeError(f"{who} ended before it had seen all runs")
            yield process.stdout
        finally:
            process.terminate()


def few(counts: tuple[int, ...], rounds: int) -> Result:
    """Return the cost of watching few runs on a service with many old ones, and the seconds of their list."""
    result: Result = {}
    with crowd(OLD, "success", OLD) as (server, _):
        for count in counts:
            runs, before = server.populate("demo", count, "stuck"), server.traffic
            asyncio.run(_watch(server, runs, rounds))
            result[str(count)] = spent(before, server.traffic, rounds, OLD)
        walls = _time_lists(server)
    result["list"] = {
        "median_s": statistics.median(walls),
        "minimum_s": min(walls),
        "service_s": service_seconds(OLD, 0),
    }
    return result


def _time_lists(server: LocalServer) -> list[float]:
    """Return the seconds of some lists."""
    walls = []
    for _ in range(LISTS):
        began = time.perf_counter()
        fetch_list(server.url, server.api_key)
        walls.append(time.perf_counter() - began)
    return walls


def cpu(share: float, rounds: int, *, collects: bool) -> Result:
    """
    Return the CPU seconds of a round of the client and, measured alternately, of `json.loads` of the list.

    Args:
        share: Share of the list that differs from the list before, 0-1.
        rounds: How many.
        collects: Whether the garbage collector is on.
    """
    with serving(0.0, LISTED, share) as port:
        gc.collect()
        if not collects:
            gc.disable()
        try:
            clock = asyncio.run(_burn(f"http://127.0.0.1:{port}", rounds + COLD))
        finally:
            gc.enable()
    ours, theirs = clock.rounds[COLD:], clock.parses[COLD:]
    return {
        "median_s": statistics.median(ours),
        "minimum_s": min(ours),
        "loads_median_s": statistics.median(theirs),
        "loads_minimum_s": min(theirs),
        "x_median": statistics.median(ours) / statistics.median(theirs),
        "x_minimum": min(ours) / min(theirs),
    }


async def _burn(url: str, rounds: int) -> CpuClock:
    """Watch the recorded list, and return the clock that measured it."""
    clock = CpuClock(fetch_list(url, "benchmark"))
    async with Client(url, api_key="benchmark", config=Config(clock=clock, poll_interval=PAUSE)) as client:
        with suppress(WaitTimeout):
            await client.wait([f"demo-{index:08}" for index in range(LISTED)], timeout=rounds * PAUSE)
    return clock


def notice(who: str, delay: float) -> Result:
    """
    Return the seconds from random changes until they were noticed, and the cost.

    Args:
        who: "st4sd_async" or "incumbent".
        delay: Seconds that each response is delayed.
    """
    with crowd(CHANGES, life(CHANGES, 0, 10 * CHANGES), CHANGES) as (server, runs):
        server.faults.add("GET /instances", Delay(delay), times=None)
        lists = _time_lists(server)
        with _watcher(who, server, runs, INTERVAL, FOR_EVER) as output:
            began, before = time.monotonic(), server.traffic
            changed = _change(server, runs)
            costs = spent(before, server.traffic, 1, CHANGES)
            seconds = time.monotonic() - began
            server.advance(20 * CHANGES)
            result = json.load(output)
    seen: dict[str, float] = {}
    for rest_uid, progress, when in result["seen"]:
        if progress:
            seen.setdefault(rest_uid, when)
    return {
        "noticed_s": [seen[run] - when for run, when in changed.items()],
        "pauses_s": result["pauses"],
        "rounds_s": result["rounds"],
        "list_s": statistics.median(lists),
        "seconds": seconds,
        **costs,
    }


def _change(server: LocalServer, runs: list[str]) -> dict[str, float]:
    """Change one run after the other, and return when."""
    changed = {}
    for run in runs:
        time.sleep(random.uniform(0, LONGEST_GAP))
        changed[run] = time.monotonic()
        server.advance(1)
    return changed
