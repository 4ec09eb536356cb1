"""The parts of the real engine that are tested without running anything long."""

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


def test_slots_below_one_are_refused(tmp_path: Path) -> None:
    """An engine that could run nothing is not made."""
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        ElaunchEngine(tmp_path, slots=0)


def test_unknown_instance_has_nothing(tmp_path: Path) -> None:
    """Asking for an instance that was never started is not an error."""
    engine = ElaunchEngine(tmp_path)

    assert engine.status("ghost") is None
    assert engine.listed_status("ghost") is None
    assert engine.outputs("ghost") == {}
    assert engine.directory("ghost") is None
    engine.delete("ghost")


def test_missing_orchestrator_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without elaunch.py the error says what to install."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ImportError, match=r'pip install "st4sd_async\[engine\]"'):
        find_orchestrator()


def test_orchestrator_on_path_runs_with_its_own_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An elaunch.py elsewhere on PATH goes with the interpreter beside it."""
    for name in ("elaunch.py", "python3"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", f"/nowhere{os.pathsep}{tmp_path}")

    assert find_orchestrator() == Orchestrator(str(tmp_path / "python3"), str(tmp_path / "elaunch.py"))


def test_command_line_has_the_order_of_the_operator() -> None:
    """Files, name, options, metadata, package: as recorded from the cluster's operator."""
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
    ("on_disk", "on_the_wire"),
    [
        ("plain", "plain"),
        (r"Stage 0 failed.\n1 job", "Stage 0 failed.\n1 job"),
        (r"Stage 0 failed.\\n1 job", r"Stage 0 failed.\n1 job"),
        (r"caf\xe9 \u03b1 \U0001f600", "caf\xe9 \u03b1 \U0001f600"),
        ("caf\xe9", "caf\xe9"),
        ("a\\", "a\\"),
    ],
)
def test_one_level_of_escapes_is_taken_off(on_disk: str, on_the_wire: str) -> None:
    """Descriptions come with real ends of lines at first and with two characters finally."""
    assert files.unescape(on_disk) == on_the_wire


@pytest.mark.parametrize("text", ["", "experiment-state=run", "stages=[\n"])
def test_half_written_status_is_no_status(tmp_path: Path, text: str) -> None:
    """Whatever is in the file, reading it is not an error."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "status.txt").write_text(text)

    assert files.read_status(tmp_path, None) is None
    assert files.read_outputs(tmp_path) is None


def test_killed_run_gets_its_output_from_the_shadow(tmp_path: Path) -> None:
    """The folder that a killed orchestrator left elsewhere is moved into place."""
    shadow = tmp_path / "x.shadow" / "output"
    shadow.mkdir(parents=True)
    (shadow / "output.json").write_text('{"A": {"version": 1}}')
    instance = tmp_path / "x.instance"
    instance.mkdir()
    (instance / "output").symlink_to(shadow)

    files.copy_shadow(instance)

    assert files.read_outputs(instance) == {"A": {"version": "1"}}
    assert not (instance / "output").is_symlink()


def test_children_that_take_too_long_are_killed() -> None:
    """A helper process has a time limit, which also ends what it started."""
    before = time.monotonic()

    with pytest.raises(subprocess.TimeoutExpired):
        ChildProcesses().run(["sh", "-c", "sleep 30 & wait"], timeout=0.05)

    assert time.monotonic() - before < 15


def test_closing_ends_children_and_refuses_more() -> None:
    """After close nothing is running, and nothing can be started."""
    children = ChildProcesses()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(children.run(["sleep", "30"], timeout=30).returncode))
    thread.start()
    while not children._running:
        time.sleep(0.01)

    children.close()
    thread.join(15)

    assert codes == [-9]
    with pytest.raises(GitFailed, match="git cannot be started: closed"):
        git("version", run=children.run, timeout=1)
