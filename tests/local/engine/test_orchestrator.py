"""Finding the orchestrator, its command line, and the inspection script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local.engine.interface import AcceptedStart
from st4sd_async.local.engine.orchestrator import OPTIONS, Orchestrator, find_orchestrator, unknown_option
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed, git


class TimedOutProcesses(ChildProcesses):
    """Processes that take too long."""

    def run(self, command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        """Raise the error of a timeout."""
        raise subprocess.TimeoutExpired(command, 1)


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
        *("--platform=hasty", "--registerWorkflow=no", "--useMemoization=no"),
        *("-mcampaign:x y", "-mrest-uid:demo-abcdef-12345678", "-mworkflow:demo-abcdef-12345678"),
        *("-mexperiment-id:demo@sha256x0", "-mst4sd-package-name:demo", "-mst4sd-package-digest:sha256x0"),
        "/p/demo",
    ]


def test_failed_inspection_names_the_file(tmp_path: Path) -> None:
    """Errors, timeouts and missing interpreters are the same kind of error."""

    orchestrator = Orchestrator(sys.executable, "")

    with pytest.raises(RuntimeError, match="reading '/ghost' failed"):
        orchestrator.inspect("nope", "/ghost", folder=tmp_path, processes=ChildProcesses())
    with pytest.raises(RuntimeError, match="reading '/ghost' took over"):
        orchestrator.inspect("nope", "/ghost", folder=tmp_path, processes=TimedOutProcesses())
    with pytest.raises(RuntimeError, match="cannot read '/ghost'"):
        Orchestrator("/ghost", "").inspect("nope", "/ghost", folder=tmp_path, processes=ChildProcesses())
    with pytest.raises(GitFailed, match="git took longer than 1 s"):
        git("version", processes=TimedOutProcesses(), timeout=1)


def test_options_are_those_of_the_orchestrator() -> None:
    """The simulator rejects others, as the orchestrator does."""
    pytest.importorskip("experiment")
    program = Path(find_orchestrator().script).read_text(encoding="utf-8")
    parser = program[program.index("def build_parser") :]

    assert set(re.findall(r"add_option\([^)]*?[\"']--(\w+)[\"']", parser)) | {"help", "version"} == set(OPTIONS)


@pytest.mark.parametrize(
    ("options", "unknown"),
    [
        ((), None),
        (("--registerWorkflow=yes", "-l15", "--mongo", "value", "--"), None),
        (("--nostamp", "--no-such-option"), "--no-such-option"),
        (("--nope=1",), "--nope"),
    ],
)
def test_unknown_options_are_found(options: tuple[str, ...], unknown: str | None) -> None:
    """Only long ones, which may be abbreviated."""
    assert unknown_option(options) == unknown
