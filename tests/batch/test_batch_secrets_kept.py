"""Credentials of a launch stay out of the journal, however many other credentials the process has used since."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from st4sd_async._util.redact import keep_secrets
from st4sd_async.local import LocalServer

from .batches import all_bytes, connect, launch, run_all, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SECRET = "correct-horse-battery"


async def test_a_status_that_quotes_a_credential_is_masked_in_the_journal(tmp_path: Path) -> None:
    """Whatever other secrets the process gave to runs since."""
    problem = f"set-up failed: using the value {SECRET}"
    ended = {"experiment-state": "failed", "exit-status": "Failed", "error-description": problem}
    with LocalServer(speed=0) as server:
        async with connect(server) as client:
            await client.push(server.example("demo"))
            server.outcome("demo", [(0.0, {"experiment-state": "running", "exit-status": "N/A"}), (5.0, ended)])
            async with client.batch(tmp_path / "campaign.db") as batch, anyio.create_task_group() as tasks:
                await batch.add([launch(0, environmentVariables={"PLAIN": SECRET})])
                tasks.start_soon(run_all, batch)
                await until(lambda: batch.counts["started"] == 1)
                keep_secrets(f"another-secret-{number}" for number in range(1000))
                await server.advance(10)
            (item,) = batch.items

    assert item.state == "failed"
    assert "set-up failed" in str(item.error)
    assert SECRET not in str(item.error)
    assert SECRET.encode() not in all_bytes(tmp_path)
