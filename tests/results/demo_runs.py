"""Runs of the demo on a server whose clock stands still, and the files they leave."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from st4sd_async import Client, Download, DownloadFailed, Run
from st4sd_async._api.datastore import datastore_url, upsert_calls
from st4sd_async.local import LocalServer

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
"""Files of the components of the demo."""


async def start(client: Client, server: LocalServer, outcome: str = "success", inputs: Any = INPUTS) -> Run:
    """Start a run of the demo."""
    server.outcome("demo", outcome, times=1)
    return await client.start("demo", {"inputs": inputs})


async def finished(client: Client, server: LocalServer, outcome: str = "success", inputs: Any = INPUTS) -> Run:
    """Return a run that is over in both services."""
    run = await start(client, server, outcome, inputs)
    await server.advance(100)
    return run


async def running(client: Client, server: LocalServer) -> Run:
    """Return a run that does not end, and that the datastore knows."""
    return await finished(client, server, "stuck")


async def described(client: Client, server: LocalServer, **outputs: bytes | dict[str, bytes]) -> Run:
    """Return a finished run of an experiment without an interface and with these key-outputs."""
    server.describe("toy", outputs=outputs)
    return await ended(client, server, "toy")


async def ended(client: Client, server: LocalServer, name: str, platforms: Sequence[str] = ()) -> Run:
    """Return a finished run of a described experiment that has these platforms."""
    location = {"url": f"https://git.example/{name}.git", "tag": "1"}
    options = {"executionOptions": {"platform": list(platforms)}}
    package = {"base": {"packages": [{"source": {"git": {"location": location}}}]}, "parameterisation": options}
    await client.push({**package, "metadata": {"package": {"name": name}}})
    run = await client.start(name)
    await server.advance(100)
    return run


async def upsert(client: Client, document: dict[str, Any]) -> None:
    """Add a document to the datastore."""
    for call in upsert_calls(datastore_url(await client._session.services()), [document]):
        await client._session.send(call)


def directory(server: LocalServer, run: Run) -> Path:
    """Return the instance directory at the server."""
    found = server.directory(run.id)
    assert found is not None
    return found


def uri(server: LocalServer, run: Run) -> str:
    """Return the location of the run as documents have it."""
    return f"file://{GATEWAY}{directory(server, run)}"


def tree(target: Path) -> dict[str, bytes]:
    """Return all files below a folder but the manifest; incomplete ones would be among them."""
    found = {str(path.relative_to(target)): path for path in sorted(target.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != MANIFEST}


def listed(target: Path) -> list[str]:
    """Return the names in a folder, hidden ones too."""
    return sorted(path.name for path in target.iterdir())


def names(outcomes: list[Download | DownloadFailed], target: Path) -> list[str]:
    """Return the paths of files, relative to the folder."""
    return [str(one.path.relative_to(target)) for one in whole(outcomes)]


def whole(outcomes: list[Download | DownloadFailed]) -> list[Download]:
    """Return the downloads; fail if one failed, or differs from its file on disk."""
    for one in outcomes:
        assert isinstance(one, Download), one
        content = one.path.read_bytes()
        assert (one.size, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    return [one for one in outcomes if isinstance(one, Download)]


def failures(outcomes: list[Download | DownloadFailed]) -> list[DownloadFailed]:
    """Return the failures."""
    return [one for one in outcomes if isinstance(one, DownloadFailed)]


async def count_requests(server: LocalServer, kind: str, action: Awaitable[Any]) -> int:
    """Return how many requests of a kind an action sends."""
    before = server.traffic[kind].requests
    await action
    return server.traffic[kind].requests - before
