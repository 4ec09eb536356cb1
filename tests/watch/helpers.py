"""Services with one run or many, tasks that watch them, and the constants of the poller as literals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from st4sd_async._watch.poller import Poller
from tests.watch.scripted_service import RUNNING, SUCCESS, Script, Service, Watcher

MAX_RUNS_WITHOUT_LIST = 5
"""Up to this many runs are requested one by one."""
MAX_DETAIL_REQUESTS = 3
"""Requests for single runs in a round in which the list is read, if at most 300 are watched."""
MAX_LIST_ITEMS_PER_RUN = 50
"""Items in the list for each watched run, above which the list is not used."""
MAX_PARALLEL_REQUESTS = 5
"""Requests for single runs in flight at once."""
MAX_FAILURES_IN_A_ROW = 8
"""Failures that end a round."""
MAX_LIST_FAILURES = 3
"""Failures in a row after which the list is not used."""
FAILING_LIST_PAUSE = 60.0
"""Seconds for which the list is not used then."""
MAX_LIST_ITEMS = 37_000
"""Items in a list that is too long to be read again soon."""
LONG_LIST_PAUSE = 600.0
"""Seconds for which it is not used then."""
MAX_SINGLE_REQUESTS = 300
"""Requests in a round without the list."""
FINAL_STATUS_TIMEOUT = 5.0
"""Seconds that the datastore has to return a final status."""
UNREADABLE_TIMEOUT = 60.0
"""Seconds of unreadable replies after which a run is given up."""
FIRST_PAUSE = 0.5
"""Seconds between the first rounds."""
MAX_PAUSE = 30.0
"""Seconds between rounds when nothing changes."""
PAUSE_GROWTH = 1.5
"""Factor by which pauses grow."""
JITTER = 0.1
"""Share by which pauses are random."""
REST_FACTOR = 10
"""A pause is at least this many times as long as the round before it."""
MAX_REST = 60.0
"""Seconds of rest after a failed round, at most."""

RUN = "demo-1"
LONGEST_PAUSE = MAX_PAUSE * (1 + JITTER)
A_FEW = 4
"""Rounds."""


def single_run(*steps: tuple[Any, ...]) -> Service:
    """Return a service with one run."""
    return Service({RUN: Script(*steps)})


def many_runs(count: int, end: float = 1e9, /, **others: Script) -> Service:
    """Return a service with healthy runs, which succeed after ``end`` seconds, and others."""
    return Service({**{f"run-{n}": Script((0, RUNNING), (end, SUCCESS)) for n in range(count)}, **others})


async def until(service: Service, seconds: float) -> None:
    """Sleep until the service has run for this many seconds."""
    await anyio.sleep(seconds - service.seconds)


@asynccontextmanager
async def watching(*watchers: Watcher) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run tasks that watch inside the block, and cancel them at its end."""
    tasks = [asyncio.ensure_future(watcher()) for watcher in watchers]
    try:
        await asyncio.sleep(0)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def assert_nothing_is_left(poll: Poller) -> None:
    """Check that the poller keeps no run, no consumer and no interval."""
    assert poll._runs == {}
    assert poll._election._sleeping == {}
    assert poll._election._leader is None
    assert not any(poll._schedule._intervals.values())


def one_watcher_each(
    service: Service, poll: Poller, rest_uids: Iterable[str], **options: float | None
) -> list[Watcher]:
    """Return one consumer for each run."""
    return [Watcher(service, poll, [rest_uid], **options) for rest_uid in rest_uids]
