"""A batch resumes a journal of an earlier version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Launch, Run
from st4sd_async.local import LocalServer

from .batches import run_all
from .journals import FORMAT_1, copied

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FILES = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
TOKENS = {
    "unknown, candidates": "abe1b1c7a6791a33aaf4d2014899dcf0782d62c2",
    "unknown": "2d5ef1dcb390d9491e6f28a30571043e446d3637",
    "sending": "fa285e5ca4d0e61939226bfa0fe494ea96bfce34",
}
"""What the runs of the launches in doubt carry in their metadata."""
EXPERIMENTS = {"planned, ended": "broken", "unknown, candidates": "doubtful"}
SETTLED = {
    "failed": "failed",
    "stopped": "stopped",
    "refused": "refused",
    "refused too": "refused",
    "deleted": "deleted",
    "deleted unseen": "deleted",
    "started": "deleted",
}
"""Launches that come to something else than success; the run of the last is not at the new server."""


def launch_with_credentials(key: str) -> Launch:
    """Return a launch whose credentials are not in the journal, as it was added when the journal was created."""
    bucket = {"accessKeyID": "a", "secretAccessKey": "b", "bucket": "mine", "endpoint": "http://s3"}
    payload: dict[str, Any] = {"inputs": FILES, "metadata": {"name": key.split()[0]}, "s3": bucket}
    return Launch(key, EXPERIMENTS.get(key, "demo"), {**payload, "environmentVariables": {"PASSWORD": "c"}})


WITHHELD = [
    launch_with_credentials(f"planned, {what}") for what in ("ended", "not sent", "by hand", "absent", "withheld")
]


async def start_by_hand(client: Client, key: str) -> Run:
    """Start the run that a launch in doubt may have started."""
    metadata = {"st4sd-async-key": TOKENS[key]}
    return await client.start(EXPERIMENTS.get(key, "demo"), {"inputs": FILES, "metadata": metadata})


async def test_a_batch_resumes_a_journal_of_format_1(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Planned launches are started once, runs of launches in doubt are recognised, and the rest stays as it is."""
    definition = server.example("demo")
    for name in ("broken", "doubtful"):
        await client.push({**definition, "metadata": {"package": {"name": name, "tags": ["latest"]}}})
    path = await anyio.to_thread.run_sync(copied, FORMAT_1, tmp_path, f"{server.url}/")
    runs = {key: (await start_by_hand(client, key)).id for key in TOKENS}

    async with client.batch(path) as batch:
        assert await batch.add(WITHHELD) == 0
        items = await run_all(batch)
        everything = {item.key: item for item in batch.items}

    assert set(items) == {"started", "planned", *TOKENS, *(one.key for one in WITHHELD)}
    assert {key: str(items[key].run) for key in TOKENS} == runs
    assert {key: item.state for key, item in everything.items() if item.key in SETTLED} == SETTLED
    assert all(item.state in ("succeeded", "collected") for key, item in everything.items() if key not in SETTLED)
    assert len(await client.instances.list()) == len(runs) + len(WITHHELD) + len(["planned"])
