"""Fixtures of the tests of batches: a fast server and a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from st4sd_async import Client
from st4sd_async.local import LocalServer

from .batches import FACTOR, connect


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(speed=FACTOR, slots=1000) as running:
        yield running


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LocalServer]:
    """A server for the tests of a file that do not set anything on it, and leave no run."""
    with LocalServer(speed=FACTOR, slots=1000) as running:
        yield running


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client of `server` if the test uses that, else of `shared_server`, where all its runs are deleted."""
    is_shared = "server" not in request.fixturenames
    server: LocalServer = request.getfixturevalue("shared_server" if is_shared else "server")
    async with connect(server) as opened:
        if not (is_shared and server.started):
            await opened.push(server.example("demo"))
        yield opened
        if is_shared:
            for instance in await opened.instances.list():
                await opened.delete(instance.id)
