"""``st4sd-async demo`` as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import shlex
import subprocess
import sys
import zipfile
from typing import Any

import pytest

from tests.tries import tries

from .arithmetic import expected, measured
from .conftest import Command

# Some processes import all of it anew, on a machine that may be busy.
pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]


def check_document(found: dict[str, Any], command: Command, runs: int) -> None:
    """The runs differ and succeeded, and their properties and files follow from their inputs."""
    assert len({run["rest-uid"] for run in found["runs"]}) == runs
    assert len({run["inputs"]["molecules.csv"] for run in found["runs"]}) == runs
    assert len({run["variables"]["scale"] for run in found["runs"]}) == runs
    for run in found["runs"]:
        numbers = expected(run["inputs"]["molecules.csv"], run["variables"]["scale"])
        assert run["is-success"]
        assert run["error"] is None
        assert run["status"] == {
            "experiment-state": "finished",
            "exit-status": "Success",
            "total-progress": 1.0,
            "error-description": run["status"]["error-description"],
        }
        assert measured(run["properties"]) == numbers

        folder = command.folder / "out" / run["rest-uid"]
        assert {name: command.folder / path for name, path in run["files"].items()} == {
            "Energies": folder / "energies.csv",
            "Folder": folder / "results.zip",
        }
        energies = csv.DictReader(io.StringIO((folder / "energies.csv").read_text()))
        assert {row["smiles"]: float(row["energy"]) for row in energies} == {
            name: energy for name, (energy, _) in numbers.items()
        }
        with zipfile.ZipFile(folder / "results.zip") as archive:
            assert sorted(name.lstrip("/") for name in archive.namelist()) == ["sub/b.bin", "summary.json"]


@pytest.mark.slow(seconds=6)
def test_one_json_document_on_standard_output_follows_from_the_inputs(command: Command) -> None:
    """It has all facts about all runs, three of them; progress goes to standard error."""
    done = command("demo", "--engine", "simulator", "--to", "out", "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"] == "simulator"
    assert found["experiment"].startswith("demo@sha256x")
    check_document(found, command, runs=3)
    assert all(f"  succeeded  {run['rest-uid']}  100%" in done.stderr for run in found["runs"])
    assert command.left_behind() == []


def try_next_steps(command: Command, shown: str) -> None:
    """Copy the commands that the demo proposes as they are. The server is the only one that does not end."""
    steps = [line.strip() for line in shown.partition("Look at a result:")[2].splitlines() if line[:2] == "  "]
    (serve,) = (step for step in steps if step.startswith("st4sd-async serve "))
    before = [f'st4sd-async() {{ {sys.executable} -m st4sd_async "$@"; }}', "set -e"]
    others = [step.replace(" --watch", "") for step in steps if step != serve]  # a simulated run takes seconds

    server = command.popen(*shlex.split(serve)[1:], "--engine", "simulator")
    try:
        assert server.stdout is not None
        assert server.stdout.readline()  # it is ready
        tried = subprocess.run(
            ["bash", "-c", "\n".join([*before, *others])],
            cwd=command.folder,
            env=command.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        server.terminate()
        server.communicate()

    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.startswith("input-id,smiles,energy,weight\n")
    assert "\ndemo-" in tried.stdout
    assert (command.folder / "my-experiment").is_dir()


@pytest.mark.slow(seconds=9)
def test_properties_of_all_runs_are_one_table_for_pipes(command: Command) -> None:
    """Without a terminal, rows are tab-separated, and progress is in lines. The commands to try next work."""
    done = command("demo", "--engine", "simulator", "--runs", "2")

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout), delimiter="\t"))
    uids = list(dict.fromkeys(row["rest-uid"] for row in rows))
    assert [row["scale"] for row in rows] == ["1"] * 3 + ["2"] * 3
    for row in rows:
        molecules = f"smiles,name\n{row['input-id']},it\n"
        energy, weight = expected(molecules, int(row["scale"]))[row["input-id"]]
        assert (float(row["energy"]), float(row["weight"])) == (energy, weight)
    assert sorted(path.name for path in (command.folder / "results").iterdir()) == sorted(uids)
    try_next_steps(command, done.stderr)


@pytest.mark.slow(seconds=6)
def test_instance_directories_are_kept_on_request(command: Command) -> None:
    """With ``--keep``, the instance directories remain."""
    done = command("demo", "--engine", "simulator", "--runs", "1", "--keep", "kept")

    assert done.returncode == 0, done.stderr
    [energies] = (command.folder / "kept").glob("**/stages/stage0/Compute/energies.csv")
    assert energies.read_text().startswith("input-id,")


@pytest.mark.slow(seconds=11)
@pytest.mark.timeout(120)
def test_real_runs_end_within_a_minute(command: Command) -> None:
    """
    The default engine executes them at once, and the results follow from their inputs.

    A busy machine has two minutes. By default there is one run, because each takes five seconds of a processor.
    """
    runs = tries(3, 1)
    done = command("demo", "--runs", str(runs), "--to", "out", "--json", timeout=110)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"] == "elaunch"
    check_document(found, command, runs=runs)
    assert command.left_behind() == []
