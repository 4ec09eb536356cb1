"""The example of the contract, as written, against both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, Launch
from st4sd_async.local import DropAfter, LocalServer
from tests.tries import tries

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

REAL_RUNS = tries(20, 6)
"""How many runs the orchestrator executes. Two of them lose the response to their start."""

ENGINES = [
    pytest.param("simulator", tries(20, 6), marks=pytest.mark.timeout(60)),
    pytest.param("elaunch", REAL_RUNS, marks=[pytest.mark.slow(seconds=26), pytest.mark.timeout(600)]),
]


@pytest.mark.parametrize(("engine", "count"), ENGINES)
async def test_the_contract_runs_as_written(
    engine: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Add, run, count. The second time everything is known, nothing is started and nothing is yielded."""
    payload: dict[str, Any] = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\nCCO\n"}]}
    launches = [Launch(key=f"mol-{i}", experiment="demo:latest", payload=payload) for i in range(count)]

    speed: dict[str, Any] = {"speed": 10} if engine == "simulator" else {}
    async with LocalServer(engine=engine, **speed) as server:  # type: ignore[arg-type] # noqa: SIM117 -- as in the contract
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))
            server.faults.add("POST /experiments/*/start", DropAfter(), times=2)
            for _ in range(2):
                async with client.batch(tmp_path / "campaign.db") as batch:
                    await batch.add(launches)
                    async for item in batch.run(outputs=["Energies"], to=tmp_path / "results"):
                        print(item.key, item.run, item.status, item.error, item.files)  # noqa: T201 -- the contract
                    print(batch.counts)  # noqa: T201 -- the contract
            runs = await client.instances.list()

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == count + 2
    assert lines[-1] == lines[-2]
    assert f"'collected': {count}}}" in lines[-1]
    assert sorted(line.split()[0] for line in lines[:count]) == sorted(launch.key for launch in launches)
    assert all("succeeded None" in line for line in lines[:count])
    assert len(runs) == count
    for launch in launches:
        path = tmp_path / "results" / launch.key / "Energies" / "energies.csv"
        assert "CCO" in path.read_text()
