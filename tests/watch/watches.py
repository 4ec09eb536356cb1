"""What the tests of watching share: services with one run or with many, and tasks that watch them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from st4sd_async._watch.poller import Poller
from tests.watch.service import HASTY, RUNNING, SUCCESS, Life, Service, Watcher

MAX_RUNS_WITHOUT_LIST = 5
"""Up to this many runs are requested one by one."""
MAX_DETAIL_REQUESTS = 3
"""Requests for single runs in a round in which the list is read."""
MAX_LIST_ITEMS_PER_RUN = 50
"""Items in the list for each watched run, above which the list is not used."""
MAX_PARALLEL_REQUESTS = 5
"""Requests for single runs in flight at once."""
MAX_FAILURES_IN_A_ROW = 8
"""Failures that end a round."""
MAX_LIST_FAILURES = 3
"""Failures in a row after which the list is not used."""
ROUNDS_WITHOUT_LIST = 10
"""Rounds for which the list is not used then."""
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
MAX_ROUND = 120.0
"""Seconds above which a round was suspended with its machine."""
MAX_REST = 60.0
"""Seconds of rest after a failed round, at most."""

RUN = "demo-1"
LONGEST_PAUSE = MAX_PAUSE * (1 + JITTER)
A_FEW = 4
"""Rounds."""


@pytest.fixture
def anyio_backend() -> Any:
    return HASTY


@pytest.fixture(autouse=True)
def same_pauses() -> None:
    """The draws of the pauses are those of every run of the tests."""
    random.seed(4)


def alone(*steps: tuple[Any, ...]) -> Service:
    """A service with one run."""
    return Service({RUN: Life(*steps)})


def crowd(count: int, end: float = 1e9, /, **others: Life) -> Service:
    """Healthy runs, which succeed at some moment, and others."""
    return Service({**{f"run-{n}": Life((0, RUNNING), (end, SUCCESS)) for n in range(count)}, **others})


async def until(service: Service, seconds: float) -> None:
    """Wait for a moment."""
    await anyio.sleep(seconds - service.seconds)


@asynccontextmanager
async def watching(*watchers: Watcher) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that watch inside the block, and are cancelled at its end."""
    tasks = [asyncio.ensure_future(watcher()) for watcher in watchers]
    try:
        await asyncio.sleep(0)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def assert_nothing_is_left(poll: Poller) -> None:
    """Nobody is known any more."""
    assert poll._runs == {}
    assert poll._election._sleeping == {}
    assert poll._election._leader is None
    assert not any(poll._schedule._intervals.values())


def kept(service: Service, poll: Poller, rest_uids: Iterable[str], **options: float | None) -> list[Watcher]:
    """For each run a watcher of its own."""
    return [Watcher(service, poll, [rest_uid], **options) for rest_uid in rest_uids]
