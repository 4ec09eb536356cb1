"""Thousands of runs of the embedded server that change one after the other, and the server's cost of watching them."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from st4sd_async import Client
from st4sd_async.local import LocalServer, Traffic

KINDS = "GET /instances/", "GET /instances/*/status", "GET /instances/*"
"""The requests of watching; the incumbent requests everything about a run."""
MONTH = 30 * 24 * 3600.0
"""Age in seconds of the youngest run of a populated server; each other run is a second older."""
STATUS_SECONDS = (0.005, 0.012)
"""Observed cost of a status request at the real service; an item of the list costs a tenth of it."""

Rows = list[tuple[float, dict[str, Any]]]


def life(count: int, *steps: float) -> Rows:
    """Return statuses by which the oldest run changes after each of these seconds, the next one a second later."""
    running = {"experiment-state": "running", "stage-state": "running", "exit-status": "N/A", "current-stage": "stage1"}
    exited = {**running, "stage-state": "finished", "exit-status": "Success", "total-progress": 1.0}
    *moves, end = (MONTH + count + step + 0.5 for step in steps)
    progress = [(at, {**running, "total-progress": index / 10}) for index, at in enumerate(moves, 1)]
    return [(0.0, running), *progress, (end, exited), (end + 4, {**exited, "experiment-state": "finished"})]


@contextmanager
def crowd(count: int, outcome: str | Rows, group: int) -> Iterator[tuple[LocalServer, list[str]]]:
    """Yield a server whose clock stands still, and runs, in groups of which one run changes per second."""

    async def push() -> None:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))

    with LocalServer(speed=0) as server:
        asyncio.run(push())
        yield server, [run for _ in range(0, count, group) for run in server.populate("demo", group, outcome)]


def spent(before: Traffic, after: Traffic, rounds: int, listed: int) -> dict[str, Any]:
    """Return what a round has cost the server, and what it would cost the real service."""
    lists, *details = (after[kind].requests - before[kind].requests for kind in KINDS)
    return {
        "requests": lists + sum(details),
        "lists": lists / rounds,
        "details": sum(details) / rounds,
        "mb": sum(after[kind].sent - before[kind].sent for kind in KINDS) / 1e6 / rounds,
        "server_s": sum(after[kind].seconds - before[kind].seconds for kind in KINDS) / rounds,
        "service_s": service_seconds(lists * listed / rounds, sum(details) / rounds),
    }


def service_seconds(items: float, details: float) -> list[float]:
    """Return the minimum and maximum cost of list items and status requests at the real service."""
    return [seconds * (items / 10 + details) for seconds in STATUS_SECONDS]


def fetch_list(url: str, api_key: str) -> bytes:
    """Return the body of the list of instances."""
    request = urllib.request.Request(f"{url}/rs/instances/", headers={"Authorization": f"Bearer {api_key}"})
    with urllib.request.urlopen(request) as reply:
        body: bytes = reply.read()
        return body
