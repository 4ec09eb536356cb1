"""Thousands of runs on the embedded server that change one after the other, and what watching them costs it."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from st4sd_async import Client
from st4sd_async.local import LocalServer, Traffic

KINDS = "GET /instances/", "GET /instances/*/status", "GET /instances/*"
"""The requests that watching takes; the incumbent asks for all there is to know of a run."""
MONTH = 30 * 24 * 3600.0
"""Seconds since the youngest run of a populated server was started; the others, one a second before it."""
STATUS_SECONDS = (0.005, 0.012)
"""What a status request was seen to cost the real service; an item of the list costs a tenth of it."""

Rows = list[tuple[float, dict[str, Any]]]


def life(count: int, *steps: float) -> Rows:
    """A life in which the oldest of so many runs changes after each of these seconds, the next one a second later."""
    running = {"experiment-state": "running", "stage-state": "running", "exit-status": "N/A", "current-stage": "stage1"}
    exited = {**running, "stage-state": "finished", "exit-status": "Success", "total-progress": 1.0}
    *moves, end = (MONTH + count + step + 0.5 for step in steps)
    progress = [(at, {**running, "total-progress": index / 10}) for index, at in enumerate(moves, 1)]
    return [(0.0, running), *progress, (end, exited), (end + 4, {**exited, "experiment-state": "finished"})]


@contextmanager
def crowd(count: int, outcome: str | Rows, group: int) -> Iterator[tuple[LocalServer, list[str]]]:
    """A server whose time stands still until it is moved, and so many runs, in groups of which one changes a second."""

    async def push() -> None:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))

    with LocalServer(speed=0) as server:
        asyncio.run(push())
        yield server, [run for _ in range(0, count, group) for run in server.populate("demo", group, outcome)]


def spent(before: Traffic, after: Traffic, rounds: int, listed: int) -> dict[str, Any]:
    """What a round has cost a server that lists so many, and what it would cost the real service."""
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
    """What items of lists and requests for single runs would cost the real service, at least and at most."""
    return [seconds * (items / 10 + details) for seconds in STATUS_SECONDS]


def fetch_list(url: str, api_key: str) -> bytes:
    """The list of instances as it comes."""
    request = urllib.request.Request(f"{url}/rs/instances/", headers={"Authorization": f"Bearer {api_key}"})
    with urllib.request.urlopen(request) as reply:
        body: bytes = reply.read()
        return body
