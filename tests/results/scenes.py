"""
What the tests of results share: a server whose time moves on request, runs of its demo, what they leave.

The fixtures are not those of all tests: a file that wants ``client`` imports the three by name; ``downloads`` has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, Config, Download, DownloadFailed, RetryPolicy, Run
from st4sd_async._api.datastore import datastore_url, upsert_calls
from st4sd_async.local import LocalServer
from tests.conftest import FakeClock

INPUTS = [{"filename": "molecules.csv", "content": "index,smiles\n0,CCO\n1,NAN\n2,CCCC\n"}]
JSON = {"Content-Type": "application/json"}
MIB = 1 << 20

FILES, ARCHIVE = "POST /ds-gateway/files/api/v1.1", "GET /ds-gateway/experiment/download"
REGISTRY, QUERY = "POST /ds-registry/gateways/api/v1.0/unique_ids", "POST /ds-mongodb-proxy/documents/api/v1.0/query"
MANIFEST = ".st4sd-downloads.jsonl"
"""The only file of our own in a target."""
OUTPUT = "GET /instances/*/outputs/*"
GATEWAY = "example-cluster"

COMPUTE, REPORT = "stages/stage0/Compute", "stages/stage1/Report"
DEMO = [
    f"{COMPUTE}/energies.csv",
    f"{COMPUTE}/molecules.csv",
    f"{COMPUTE}/out.stderr",
    f"{COMPUTE}/out.stdout",
    f"{REPORT}/out.stderr",
    f"{REPORT}/out.stdout",
    f"{REPORT}/results/sub/b.bin",
    f"{REPORT}/results/summary.json",
]
"""What the components of the demo leave."""


class ServersClock(FakeClock):
    """A clock that takes the server's along."""

    server: LocalServer

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.server.advance(seconds)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server whose time stands still until it is moved."""
    with LocalServer(speed=0, slots=64) as running:
        yield running


@pytest.fixture
def clock(server: LocalServer) -> ServersClock:
    """A clock that both sides go by."""
    clock = ServersClock()
    clock.server = server
    return clock


@pytest.fixture
async def client(server: LocalServer, clock: ServersClock) -> AsyncIterator[Client]:
    """A client whose pauses take no time."""
    config = Config(clock=clock, retry=RetryPolicy(attempts=2))
    async with Client(server.url, api_key=server.api_key, config=config) as opened:
        await opened.push(server.example("demo"))
        yield opened


async def start(client: Client, server: LocalServer, outcome: str = "success", inputs: Any = INPUTS) -> Run:
    """A run of the demo."""
    server.outcome("demo", outcome, times=1)
    return await client.start("demo", {"inputs": inputs})


async def finished(client: Client, server: LocalServer, outcome: str = "success", inputs: Any = INPUTS) -> Run:
    """A run that is over, and known to be."""
    run = await start(client, server, outcome, inputs)
    await server.advance(100)
    return run


async def running(client: Client, server: LocalServer) -> Run:
    """A run that goes on, and is known to the datastore."""
    return await finished(client, server, "stuck")


async def described(client: Client, server: LocalServer, **outputs: bytes | dict[str, bytes]) -> Run:
    """A finished run of an experiment without an interface and with these key-outputs."""
    server.describe("toy", outputs=outputs)
    return await ended(client, server, "toy")


async def ended(client: Client, server: LocalServer, name: str, platforms: Sequence[str] = ()) -> Run:
    """A finished run of an experiment that was described to the server, with these platforms to choose from."""
    location = {"url": f"https://git.example/{name}.git", "tag": "1"}
    options = {"executionOptions": {"platform": list(platforms)}}
    package = {"base": {"packages": [{"source": {"git": {"location": location}}}]}, "parameterisation": options}
    await client.push({**package, "metadata": {"package": {"name": name}}})
    run = await client.start(name)
    await server.advance(100)
    return run


async def upsert(client: Client, document: dict[str, Any]) -> None:
    """Let the datastore have a document."""
    for call in upsert_calls(datastore_url(await client._session.services()), [document]):
        await client._session.send(call)


def directory(server: LocalServer, run: Run) -> Path:
    """The instance directory at the server."""
    found = server.directory(run.id)
    assert found is not None
    return found


def uri(server: LocalServer, run: Run) -> str:
    """What documents call the run."""
    return f"file://{GATEWAY}{directory(server, run)}"


def tree(target: Path) -> dict[str, bytes]:
    """Return all files below a folder but the manifest; incomplete ones would be among them."""
    found = {str(path.relative_to(target)): path for path in sorted(target.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != MANIFEST}


def listed(target: Path) -> list[str]:
    """What is in a folder, hidden things too."""
    return sorted(path.name for path in target.iterdir())


def names(outcomes: list[Download | DownloadFailed], target: Path) -> list[str]:
    """Where files are, below the folder."""
    return [str(one.path.relative_to(target)) for one in whole(outcomes)]


def whole(outcomes: list[Download | DownloadFailed]) -> list[Download]:
    """The outcomes, if all are good and tell the truth."""
    for one in outcomes:
        assert isinstance(one, Download), one
        content = one.path.read_bytes()
        assert (one.size, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    return [one for one in outcomes if isinstance(one, Download)]


def failures(outcomes: list[Download | DownloadFailed]) -> list[DownloadFailed]:
    """Return the failures."""
    return [one for one in outcomes if isinstance(one, DownloadFailed)]


async def asked(server: LocalServer, kind: str, action: Awaitable[Any]) -> int:
    """How many requests of a kind something took."""
    before = server.traffic[kind].requests
    await action
    return server.traffic[kind].requests - before
