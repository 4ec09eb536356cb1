"""``st4sd-async serve --state DIR``, killed and restarted."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Config, Launch
from st4sd_async.local import LocalServer
from tests.forks import Forked

from .conftest import MOLECULES, Command, Shell
from .test_serve import serving

pytestmark = [pytest.mark.timeout(90), pytest.mark.slow]  # processes that import all of it anew, on a busy machine

INPUTS = {"inputs": [{"filename": "molecules.csv", "content": MOLECULES}]}


def free_port() -> str:
    """Return a port that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def connect(settings: Mapping[str, str]) -> Client:
    """Return a client for the settings that the server printed."""
    config = Config(poll_interval=0.1)
    return Client(settings["ST4SD_URL"], api_key=settings["ST4SD_API_KEY"], config=config)


def kill(process: Forked | subprocess.Popen[str]) -> None:
    """Kill the server as hard as possible."""
    process.send_signal(signal.SIGKILL)
    process.wait(40)


async def _start_some(settings: Mapping[str, str], journal: Path, results: Path) -> list[str]:
    """Run a batch until two of its runs have ended, and return the done keys."""
    done = []
    async with connect(settings) as client, client.batch(journal) as batch:
        await batch.add(Launch(key=f"k{number}", experiment="demo", payload=INPUTS) for number in range(5))
        async for item in batch.run(["Energies"], results):
            done.append(item.key)
            if len(done) == 2:
                break
    return done


async def _resume(settings: Mapping[str, str], journal: Path, results: Path) -> dict[str, Any]:
    """Resume the batch to its end, and return what the client sees."""
    async with connect(settings) as client, client.batch(journal) as batch:
        resumed = [item.key async for item in batch.run(["Energies"], results)]
        instances = await client.instances.list()
        table = await client.properties([item.run for item in batch.items if item.run])
        return {
            "resumed": resumed,
            "states": {item.key: str(item.state) for item in batch.items},
            "runs": len(instances),
            "experiments": [entry.identifier.partition("@")[0] for entry in await client.experiments.list()],
            "properties": table.columns,
        }


def test_a_batch_resumes_after_the_server_was_killed(command: Command, tmp_path: Path) -> None:
    """
    The address, key, experiments and runs are the same, and nothing is started twice.

    A run that is collected while the first batch is being left is not yielded again.
    """
    arguments = ("--engine", "simulator", "--speed", "10", "--slots", "2", "--state", "state")
    journal, results = tmp_path / "campaign.db", tmp_path / "results"
    with serving(command, *arguments) as (process, settings):
        done = anyio.run(_start_some, settings, journal, results)
        kill(process)

    with serving(command, *arguments[2:]) as (process, again):
        seen = anyio.run(_resume, again, journal, results)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)

    keys = {f"k{number}" for number in range(5)}
    assert again == settings
    assert not {*seen["resumed"]} & {*done}
    assert seen["states"] == dict.fromkeys(keys, "collected")
    assert (seen["runs"], seen["experiments"]) == (5, ["demo", "fail"])
    assert "energy" in seen["properties"]
    assert err.startswith("engine simulator, because it wrote the state in state\n")
    assert "state in state: 2 experiments, " in err


SLEEPER = {"components": [{"name": "sleep", "command": {"executable": "sleep", "arguments": "300"}}]}
FETCHED = {"data": [{"filename": "a.csv"}], "s3": {"dataset": "unknown"}}
"""A payload whose files cannot be fetched, so that its run needs a slot, but no orchestrator."""


async def _start_real(settings: Mapping[str, str]) -> list[str]:
    """Start a run that goes on for long, and one that waits for it; return them when the first one is running."""
    async with connect(settings) as client:
        first = await client.start_lambda(SLEEPER, validate=False)
        second = await client.start_lambda(SLEEPER, FETCHED, validate=False)
        async for status in client.watch(first):
            if status.experiment_state == "running":
                break
        assert (await client.status(second)).experiment_state == "unscheduled"
        return [first.id, second.id]


async def _look(settings: Mapping[str, str], uids: list[str]) -> list[Any]:
    """Return the statuses of the runs, their list, and the log of the first one."""
    async with connect(settings) as client:
        statuses = [await client.status(uid) for uid in uids]
        return [*statuses, [instance.id for instance in await client.instances.list()], await client.log(uids[0])]


def test_real_runs_that_were_killed_with_the_server_have_failed(command: Command) -> None:
    """As if the pod of the orchestrator had been killed. A run that waited gets its slot."""
    arguments = ("--engine", "elaunch", "--slots", "1", "--state", "state", "--port", free_port())
    with serving(command, *arguments) as (process, settings):
        uids = anyio.run(_start_real, settings)
        kill(process)

    with serving(command, *arguments) as (process, again):
        interrupted, waited, listed, log = anyio.run(_look, again, uids)

    assert again == settings
    assert (interrupted.experiment_state, str(interrupted.exit_status)) == ("failed", "")
    assert interrupted.error_description == "elaunch-primary exitCode: 137, reason: Error"
    assert waited.error_description.startswith("initContainer failure: s3-fetch failed")
    assert listed == uids
    assert "stage0.sleep" in log


def test_a_state_in_use_is_wrong_usage(shell: Shell, tmp_path: Path) -> None:
    """The message says what to do, before an engine is chosen and after."""
    with LocalServer(state=tmp_path / "state"):
        refused = [shell("serve", "--state", tmp_path / "state", *more) for more in ((), ("--engine", "simulator"))]

    for done in refused:
        assert (done.status, done.out) == (2, "")
        assert f"state in {str(tmp_path / 'state')!r} is in use by another server: stop it, or use another" in done.err
