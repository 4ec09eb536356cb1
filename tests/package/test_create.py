"""A new folder with an experiment that runs as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from st4sd_async import Client, Config, check
from st4sd_async._package.create import create_experiment
from st4sd_async.local import LocalServer

from .conftest import Git

pytestmark = pytest.mark.anyio


@pytest.mark.slow(seconds=13)
async def test_a_new_experiment_runs_as_it_is(folder: Path, git: Git) -> None:
    """Nothing is found by `check`; its run has the key-outputs and measures the property."""
    git("add", "--all")
    git("commit", "--quiet", "--message=Add the experiment")

    assert await check(folder) == []
    assert git("status", "--porcelain", "--ignored") == ""
    with LocalServer(engine="elaunch") as server:
        config = Config(poll_interval=0.2)
        async with Client(server.url, api_key=server.api_key, config=config) as client:
            experiment = await client.push(folder)
            files = [{"filename": "molecules.csv", "content": folder / "inputs" / "molecules.csv"}]
            run = await client.start(experiment, {"inputs": files, "variables": {"scale": 2}})
            status = await run.wait(timeout=50)
            assert (experiment.name, str(status.exit_status)) == ("energies", "Success")
            assert sorted(await run.outputs()) == ["Energies", "Summary"]
            assert (await run.properties())["energy"] == [-9.0, -6.0, -3.0]
            assert (await run.output("Summary")).text() == "CCO has the lowest energy of 3: -9.0\n"


def test_a_folder_in_a_repository_stays_in_it(folder: Path) -> None:
    """A repository within a repository would not be pushed with it."""
    assert not create_experiment(folder / "second")
    assert not (folder / "second" / ".git").exists()
    assert "name: second" in (folder / "second" / "definition.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "advice"),
    [("My Energies", "'my-energies'"), ("-", "'energies'"), ("a" * 41, repr("a" * 40)), ("a_b", "'a-b'")],
)
def test_a_name_that_no_run_could_have_is_refused(tmp_path: Path, name: str, advice: str) -> None:
    """The message shows a similar name; nothing is written."""
    with pytest.raises(ValueError, match="is not a valid name") as caught:
        create_experiment(tmp_path / name)

    assert advice in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "energies").mkdir()
    (tmp_path / "energies" / "mine.txt").write_text("mine")

    with pytest.raises(ValueError, match="is not empty"):
        create_experiment(tmp_path / "energies")

    assert [path.name for path in (tmp_path / "energies").iterdir()] == ["mine.txt"]
