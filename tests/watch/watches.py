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
from st4sd_async._watch.schedule import JITTER, SLOWEST
from tests.watch.service import HASTY, RUNNING, SUCCESS, Life, Service, Watcher

RUN = "demo-1"
LONGEST_PAUSE = SLOWEST * (1 + JITTER)
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
    assert poll._turns._asleep == {}
    assert poll._turns._leader is None
    assert not any(poll._schedule._intervals.values())


def kept(service: Service, poll: Poller, rest_uids: Iterable[str], **options: float | None) -> list[Watcher]:
    """For each run a watcher of its own."""
    return [Watcher(service, poll, [rest_uid], **options) for rest_uid in rest_uids]
