"""Fixtures of the tests of results: a server whose clock stands still, a client without pauses, targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from st4sd_async import Client
from st4sd_async._results import directory as _directory
from st4sd_async.local import LocalServer
from tests.conftest import ServersClock
from tests.results.blind_disk import BlindDisk


@pytest.fixture
def server(still_server: LocalServer) -> LocalServer:
    """A server whose clock stands still until it is moved."""
    return still_server


@pytest.fixture
def clock(servers_clock: ServersClock) -> ServersClock:
    """A clock of both sides."""
    return servers_clock


@pytest.fixture
def client(demo_client: Client) -> Client:
    """A client whose waits take no time."""
    return demo_client


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
