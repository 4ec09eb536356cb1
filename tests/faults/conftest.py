"""Fixtures of the tests of faults: an event loop without haste, all logs, a server for all tests of a file, scenes."""

from __future__ import annotations

import asyncio
import gc
import logging
import selectors
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client
from st4sd_async.local import LocalServer

from .clients import settings
from .gateways import finished
from .scenes import Scene, staged

STALL = 0.05
"""Seconds that the event loop was stopped for at most, as it sees it."""


class _Patient(selectors.DefaultSelector):
    """Counts the seconds that the event loop waits in vain, and a little of those that it is busy or stopped."""

    def __init__(self) -> None:
        super().__init__()
        self._counted = self._last = time.monotonic()

    def now(self) -> float:
        return self._counted + min(time.monotonic() - self._last, STALL)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began = self.now()
        self._last = time.monotonic()
        ready = super().select(timeout)
        most = STALL if ready or not timeout else timeout
        self._counted, self._last = began + min(time.monotonic() - self._last, most), time.monotonic()
        return ready


class PatientLoop(asyncio.SelectorEventLoop):
    """
    An event loop for which no time passes while the machine has none for it.

    A client and a server that both live in it have the same time: an answer that is under way is never late.
    """

    def __init__(self) -> None:
        self._patient = _Patient()
        super().__init__(self._patient)

    def time(self) -> float:
        return self._patient.now()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": PatientLoop}


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything is logged: all loggers at DEBUG."""
    caplog.set_level(logging.DEBUG)
    for name in ("st4sd_async", "httpx", "httpcore", "aiohttp.client", "aiohttp.internal", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@pytest.fixture(scope="module")
def module_server() -> Iterator[LocalServer]:
    """A server for all tests of a file, whose clock stands still, and which has answered requests for a run before."""
    with LocalServer(speed=0) as running:
        asyncio.run(_warm_up(running))
        gc.collect()
        gc.freeze()  # so that tests that search for open resources skip older objects
        yield running
        gc.unfreeze()


async def _warm_up(server: LocalServer) -> None:
    async with Client(server.url, api_key=server.api_key, config=settings()) as client:
        await (await finished(client, server)).components()


@pytest.fixture
def shared_server(module_server: LocalServer) -> Iterator[LocalServer]:
    """The server of the file, without faults."""
    yield module_server
    module_server.faults.clear()


@pytest.fixture
async def scene(shared_server: LocalServer, tmp_path: Path) -> AsyncIterator[Scene]:
    """A run that is over, and a client."""
    async with staged(shared_server, tmp_path) as scene:
        yield scene
