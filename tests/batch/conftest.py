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


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[Client]:
    async with connect(server) as opened:
        await opened.push(server.example("demo"))
        yield opened
