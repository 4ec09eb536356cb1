"""The contract, word for word, against both engines."""

from __future__ import annotations

import os
from typing import Any

import pytest

from st4sd_async import Client, Experiment, KeyOutput, Output, Run, Status
from st4sd_async.local import LocalServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ENGINES = [
    pytest.param("simulator", marks=pytest.mark.timeout(60)),
    pytest.param("elaunch", marks=[pytest.mark.slow(seconds=7), pytest.mark.timeout(120)]),
]


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_contract_runs_as_written(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Push, start, watch, collect and delete with the code that people use against a cluster."""
    seen: list[Any] = []

    async with LocalServer(engine=engine) as server:  # type: ignore[arg-type] # noqa: SIM117 -- as in the contract
        async with Client(server.url, api_key=server.api_key) as client:
            experiment = await client.push(server.example("demo"))
            run = await client.start(
                "demo:latest",
                {
                    "inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\nCCO\n"}],
                    "variables": {"scale": 2},
                    "metadata": {"campaign": "first", "source": "https://lab.example:8443/42"},
                },
            )
            async for status in client.watch(run):
                print(status.experiment_state, status.exit_status, status.total_progress)  # noqa: T201 -- the contract
                seen.append(status)
            assert status.is_final and status.is_success  # noqa: PT018 -- the contract
            outputs = await client.outputs(run)
            output = await client.output(run, "Energies")
            print(output.filename, output.text(), output.content, output.dataframe())  # noqa: T201 -- the contract
            inside = await client.output(run, "Folder", "sub/b.bin")
            folder = await client.output(run, "Folder")
            properties = await client.instances.properties(run.id)
            await client.delete(run)

    assert isinstance(experiment, Experiment)
    assert (experiment.name, experiment.tags) == ("demo", ["latest"])
    assert experiment.identifier == f"demo@{experiment.digest}"
    assert isinstance(run, Run)
    assert str(run) == run.id
    assert run.id.startswith(f"demo-{(experiment.digest or '')[len('sha256x') :][:6]}-")
    assert all(isinstance(one, Status) for one in seen)
    assert [one.is_final for one in seen] == [False] * (len(seen) - 1) + [True]
    assert "finished Success 1.0" in capsys.readouterr().out
    assert status.meta is not None
    assert status.meta.user_metadata["campaign"] == "first"
    assert status.meta.user_metadata["source"] == "https://lab.example:8443/42"
    assert status.meta.variables["global"]["scale"] == "2"
    assert {"Energies", "Folder"} <= set(outputs)
    assert isinstance(outputs["Energies"], KeyOutput)
    assert outputs["Energies"].filename == "energies.csv"
    assert isinstance(output, Output)
    assert output.dataframe()["smiles"].tolist() == ["CO", "CCO"]
    # -1.5 an atom, hydrogens included or not as the example has it, times the scale
    assert output.dataframe()["energy"].tolist() == [-1.5 * 2 * 2, -1.5 * 3 * 2]
    assert properties["input-id"] == ["CCO", "CO"]
    assert properties["energy"] == [-9.0, -6.0]
    assert len(inside.content) > 0
    assert folder.is_folder
    assert folder.filename == "results.zip"
    assert folder.content[:2] == b"PK"


@pytest.mark.timeout(120)
async def test_closing_the_server_leaves_no_process_behind() -> None:
    """Runs that are going on when the server closes are ended with it."""
    async with LocalServer(engine="elaunch") as server, Client(server.url, api_key=server.api_key) as client:
        await client.push(server.example("demo"))
        files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
        run = await client.start("demo", {"inputs": files})
        async for status in client.watch(run, timeout=60):
            if status.meta is not None and status.meta.pid:
                break
        assert status.meta is not None
        pid = status.meta.pid
        assert pid
        os.kill(pid, 0)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
