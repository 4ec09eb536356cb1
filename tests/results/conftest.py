"""Fixtures of the tests of results: a server whose clock stands still, a client without pauses, targets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from st4sd_async import Client, Config, RetryPolicy
from st4sd_async._results import directory as _directory
from st4sd_async.local import LocalServer
from tests.conftest import ServersClock
from tests.results.blind_disk import BlindDisk


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LocalServer]:
    """A server of all tests of a file; each server starts a process for the programs of the demo."""
    with LocalServer(speed=0, slots=1000) as running:
        yield running


@pytest.fixture(scope="module")
def pushed() -> set[str]:
    """The names of experiments that tests of the file have pushed to the server."""
    return set()


@pytest.fixture
def still_server(shared_server: LocalServer) -> Iterator[LocalServer]:
    """The server of the file, without faults and outcomes of other tests. Its clock stands still until it is moved."""
    yield shared_server
    shared_server.faults.clear()
    shared_server.outcome("demo", "success")


@pytest.fixture
def server(still_server: LocalServer) -> LocalServer:
    """The server of the file."""
    return still_server


@pytest.fixture
def clock(servers_clock: ServersClock) -> ServersClock:
    """A clock of both sides."""
    return servers_clock


@pytest.fixture
async def client(server: LocalServer, servers_clock: ServersClock, pushed: set[str]) -> AsyncIterator[Client]:
    """A client whose waits take no time, connected to a server with the demo."""
    config = Config(clock=servers_clock, retry=RetryPolicy(attempts=2))
    async with Client(server.url, api_key=server.api_key, config=config) as opened:
        if "demo" not in pushed:
            await opened.push(server.example("demo"))
            pushed.add("demo")
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder with a file in it, in a folder with another file."""
    (tmp_path / "outside.txt").write_bytes(b"not yours")
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "kept.txt").write_bytes(b"older")
    return folder


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads go to such a disk. Only the system's functions are replaced."""
    monkeypatch.setattr(_directory, "os", BlindDisk())
