"""Parts of the engine, tested without the orchestrator."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from st4sd_async.local.engine import instance_files as files
from st4sd_async.local.engine.elaunch import ElaunchEngine
from st4sd_async.local.engine.interface import AcceptedStart
from st4sd_async.local.engine.orchestrator import Orchestrator, find_orchestrator
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed, git


def test_slots_below_one_are_rejected(tmp_path: Path) -> None:
    """The error names the number."""
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        ElaunchEngine(tmp_path, slots=0)


def test_unknown_instance_has_no_status_or_files(tmp_path: Path) -> None:
    """A request for an unknown instance is no error."""
    engine = ElaunchEngine(tmp_path)

    assert engine.status("ghost") is None
    assert engine.listed_status("ghost") is None
    assert engine.outputs("ghost") == {}
    assert engine.directory("ghost") is None
    engine.delete("ghost")


def test_missing_orchestrator_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without elaunch.py, the error contains the command that installs it."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ImportError, match=r'pip install "st4sd_async\[engine\]"'):
        find_orchestrator()


def test_orchestrator_on_path_runs_with_its_own_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An elaunch.py on PATH is called with the interpreter beside it."""
    for name in ("elaunch.py", "python3"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", f"/nowhere{os.pathsep}{tmp_path}")

    assert find_orchestrator() == Orchestrator(str(tmp_path / "python3"), str(tmp_path / "elaunch.py"))


def test_command_line_has_the_order_of_the_operator() -> None:
    """Files, name, options, metadata, package: as recorded from the operator."""
    start = AcceptedStart(
        rest_uid="demo-abcdef-12345678",
        identifier="demo@sha256x0",
        package={},
        platform="hasty",
        inputs={"molecules.csv": ""},
        data={"weights.csv": ""},
        variables={"scale": "2"},
        metadata={"campaign": "x y"},
        environment={},
        options=("--registerWorkflow=no",),
    )

    line = Orchestrator("python", "elaunch.py").command_line(start, "demo-abcdef-T", Path("/p/demo"), Path("/r:1"))

    assert line == [
        *("python", "elaunch.py", "-i", "/r\\:1/start/input/molecules.csv"),
        *("-a", "/r:1/start/input/st4sd-variables.yaml", "-d", "/r\\:1/start/data/weights.csv"),
        *("-l15", "--nostamp", "--instanceName", "demo-abcdef-T", "--failSafeDelays=no"),
        *("--registerWorkflow=y", "--discovererMonitorDir=/r:1/monitor", "--datastoreLabel=example-cluster"),
        *("--platform=hasty", "--registerWorkflow=no"),
        *("-mcampaign:x y", "-mrest-uid:demo-abcdef-12345678", "-mworkflow:demo-abcdef-12345678"),
        *("-mexperiment-id:demo@sha256x0", "-mst4sd-package-name:demo", "-mst4sd-package-digest:sha256x0"),
        "/p/demo",
    ]


@pytest.mark.parametrize(
    ("on_disk", "in_status"),
    [
        ("plain", "plain"),
        (r"Stage 0 failed.\n1 job", "Stage 0 failed.\n1 job"),
        (r"Stage 0 failed.\\n1 job", r"Stage 0 failed.\n1 job"),
        (r"caf\xe9 \u03b1 \U0001f600", "caf\xe9 \u03b1 \U0001f600"),
        ("caf\xe9", "caf\xe9"),
        ("a\\", "a\\"),
    ],
)
def test_one_level_of_escapes_is_removed(on_disk: str, in_status: str) -> None:
    """Error descriptions have real line feeds at first, and escaped ones in the final status."""
    assert files.unescape(on_disk) == in_status


@pytest.mark.parametrize("text", ["", "experiment-state=run", "stages=[\n"])
def test_half_written_status_is_ignored(tmp_path: Path, text: str) -> None:
    """Reading a truncated file is no error."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "status.txt").write_text(text)

    assert files.read_status(tmp_path, None) is None
    assert files.read_outputs(tmp_path) is None


def test_output_of_a_killed_run_is_copied_from_its_shadow(tmp_path: Path) -> None:
    """The folder replaces the link in the instance directory."""
    shadow = tmp_path / "x.shadow" / "output"
    shadow.mkdir(parents=True)
    (shadow / "output.json").write_text('{"A": {"version": 1}}')
    instance = tmp_path / "x.instance"
    instance.mkdir()
    (instance / "output").symlink_to(shadow)

    files.copy_shadow(instance)

    assert files.read_outputs(instance) == {"A": {"version": "1"}}
    assert not (instance / "output").is_symlink()


def test_child_processes_that_take_too_long_are_killed() -> None:
    """The time limit also applies to processes that they started."""
    before = time.monotonic()

    with pytest.raises(subprocess.TimeoutExpired):
        ChildProcesses().run(["sh", "-c", "sleep 30 & wait"], timeout=0.05)

    assert time.monotonic() - before < 15


def test_closing_kills_child_processes_and_rejects_new_ones() -> None:
    """After close none is running, and none can be started."""
    processes = ChildProcesses()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(processes.run(["sleep", "30"], timeout=30).returncode))
    thread.start()
    while not processes._running:
        time.sleep(0.01)

    processes.close()
    thread.join(15)

    assert codes == [-9]
    with pytest.raises(GitFailed, match="git cannot be started: closed"):
        git("version", processes=processes, timeout=1)
