"""Fixtures of the tests of the blocking client."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from st4sd_async import Config
from st4sd_async.local import LocalServer
from st4sd_async.sync import Client

from ..batch.batches import FACTOR, QuickClock

FILES = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
"""The input files of the example."""


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """Start a server whose time passes only in `advance`."""
    with LocalServer(speed=0) as running:
        yield running


@pytest.fixture
def sync_client(server: LocalServer) -> Iterator[Client]:
    with connect(server) as opened:
        opened.push(server.example("demo"))
        yield opened


@pytest.fixture
def quick_client() -> Iterator[Client]:
    """Connect to a server whose time runs, for batches."""
    with LocalServer(speed=FACTOR) as running, hasty(running) as opened:
        opened.push(running.example("demo"))
        yield opened


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Check that the thread of every client ends with its test."""
    yield
    left = loops()
    for thread in left:
        thread.join(10)
    assert not loops()


def connect(server: LocalServer) -> Client:
    return Client(server.url, api_key=server.api_key, config=Config(poll_interval=0.02))


def hasty(server: LocalServer) -> Client:
    """Return a client with short pauses."""
    config = Config(settle=30.0, poll_interval=1.0, clock=QuickClock())
    return Client(server.url, api_key=server.api_key, config=config)


def loops() -> list[threading.Thread]:
    """Return the threads of blocking clients."""
    return [thread for thread in threading.enumerate() if thread.name == "st4sd-async"]
