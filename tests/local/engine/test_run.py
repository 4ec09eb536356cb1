"""One run of the engine with stand-ins for the orchestrator that misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local.datastore.documents import TYPES
from st4sd_async.local.engine import instance_files as files
from st4sd_async.local.engine.elaunch import ElaunchRun
from st4sd_async.local.engine.guard import Guard
from st4sd_async.local.engine.interface import AcceptedStart, PackageProblem
from st4sd_async.local.engine.orchestrator import Orchestrator
from st4sd_async.local.engine.packages import ClonedPackages, _checked_platforms
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed, git

COMMIT = "0" * 40
METADATA = {"package": {"name": "demo"}, "registry": {"interface": {}}}
STUBBORN = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("ready").touch()
time.sleep(30)
"""
WRITTEN = """
import pathlib
output = pathlib.Path("demo.instance", "output")
output.mkdir(parents=True)
(output.parent / "elaunch.yaml").write_text("userMetadata: {n: 1}\\nversion: 2.7.0\\n")
(output / "output.json").write_text('{"A": {"version": 1, "creationtime": 0.5}}')
(output / "status.txt").write_text('''completed-on=N/A
cost=0
created-on=2026-11-22 14:52:24.171523
current-stage=stage1
exit-status=Stopped
experiment-state=finished
stage-progress=1.0
stage-state=failed
stages=['stage0', 'stage1']
total-progress=1.0
updated=2026-11-22 14:52:32.179244
updated-on=2026-11-22 14:52:32.179244
''')
"""


class Stage:
    """A run of a script that stands in for the orchestrator."""

    def __init__(self, folder: Path, script: str) -> None:
        """Prepare everything, run nothing."""
        (folder / "elaunch.py").write_text(script)
        source = {"git": {"location": {"url": "file:///x/demo"}, "version": COMMIT}}
        launch = AcceptedStart(
            rest_uid="demo-abcdef-12345678",
            identifier="demo@sha256x0",
            package={"base": {"packages": [{"name": "main", "source": source}]}, "metadata": METADATA},
            platform=None,
            inputs={"../a.csv": "a"},
            data={},
            variables={},
            metadata={},
            environment={},
            options=(),
        )
        self.folder = folder / "run"
        self.folder.mkdir()
        self._orchestrator = Orchestrator(sys.executable, str(folder / "elaunch.py"))
        self._packages = ClonedPackages(folder / "packages", self._orchestrator, ChildProcesses().run)
        (folder / "packages" / COMMIT / "demo").mkdir(parents=True)
        self._guard = Guard()
        self.run = ElaunchRun(launch, self.folder, ChildProcesses().run, self._guard)

    def execute(self) -> None:
        """Run to the end."""
        self.run.execute(self._orchestrator, self._packages)
        self._guard.close()


def report(step: object, *documents: dict[str, Any]) -> str:
    """A piece of a script that reports documents to the datastore."""
    text = json.dumps({"upsert-documents": documents})
    path = f"pathlib.Path('monitor/x-{step}.json')"
    return f"\n{path}.parent.mkdir(exist_ok=True)\n{path}.write_text({text!r})\n"


def test_status_before_the_turn_of_a_run(tmp_path: Path) -> None:
    """Nothing at first, unscheduled in the queue, nulls once it has left it."""
    run = Stage(tmp_path, "").run

    assert run.status() is None
    run.enter_queue()
    assert run.status() == files.unscheduled()
    run.leave_queue()
    assert run.status() == dict(files.NO_STATUS)


def test_orchestrator_that_gives_up_without_a_status_failed_at_set_up(tmp_path: Path) -> None:
    """Its last line is the error, in detail and in the list."""
    stage = Stage(tmp_path, "print('first'); raise SystemExit('no way\\n')")

    stage.execute()

    status = stage.run.status()
    assert status == files.setup_failure("no way")
    assert stage.run.listed_status() == status
    assert stage.run.outputs() == {}
    assert (stage.folder / "start" / "input" / "a.csv").read_text() == "a"


def test_orchestrator_that_ignores_a_stop_is_killed(tmp_path: Path) -> None:
    """After its grace a run is killed, and then seen as a killed container."""
    stage = Stage(tmp_path, STUBBORN)
    thread = threading.Thread(target=stage.execute)
    thread.start()
    while not (stage.folder / "ready").exists():
        time.sleep(0.01)

    stage.run.stop(30)
    stage.run.stop(0.1)
    thread.join(10)

    assert not thread.is_alive()
    assert stage.run.status() == files.killed(137)
    assert stage.run.listed_status() == dict(files.NO_STATUS)


def test_run_that_is_stopped_before_it_begins_never_does(tmp_path: Path) -> None:
    """A deleted run that was just getting its turn is not started."""
    stage = Stage(tmp_path, "open('began', 'w')")
    stage.run.stop(1)

    stage.execute()

    assert not (stage.folder / "began").exists()
    assert stage.run.status() is None


def test_the_datastore_knows_nothing_of_a_run_that_does_not_register(tmp_path: Path) -> None:
    """Without a report to the datastore there are no documents, whatever else is written."""
    stage = Stage(tmp_path, WRITTEN)

    stage.execute()

    assert stage.run.listed_status() is not None
    assert stage.run.documents(TYPES) == []


def test_what_is_registered_is_known_from_its_files(tmp_path: Path) -> None:
    """Until something is reported, status, times and key-outputs come from the files."""
    stage = Stage(tmp_path, WRITTEN + report("begin"))

    stage.execute()

    experiment, metadata = stage.run.documents(TYPES)
    assert experiment["instance"] == f"file://example-cluster{stage.folder}/demo.instance"
    assert (experiment["name"], experiment["metadata"]["userMetadata"]) == ("demo", {"n": "1"})
    assert (experiment["status"]["exit-status"], experiment["status"]["stages"]) == ("Stopped", "['stage0', 'stage1']")
    assert experiment["status"]["created-on"] == "2026-11-22T14:52:24.171523"
    assert experiment["output"]["A"]["version"] == 1
    assert (metadata["type"], metadata["n"]) == ("user-metadata", "1")


def test_what_was_reported_last_is_what_the_datastore_knows(tmp_path: Path) -> None:
    """Reports count in the order of their numbers; each replaces documents about the same thing."""
    component = {"type": "component", "name": "A", "stage": 0, "instance": "i"}
    reports = [
        report("begin"),
        report(10, {**component, "state": "third"}),
        report(9, {**component, "state": "second"}, {**component, "stage": 1, "state": "only"}),
        report(0, {**component, "state": "first"}),
    ]
    stage = Stage(tmp_path, "".join([WRITTEN, *reports]))

    stage.execute()

    assert [one["state"] for one in stage.run.documents(["component"])] == ["third", "only"]
    assert [one["type"] for one in stage.run.documents(TYPES)] == [*TYPES, "component"]


@pytest.mark.parametrize("answer", [None, [], {"pid": 1}], ids=["empty", "list", "cut"])
def test_half_written_description_of_a_run_is_not_taken(answer: Any) -> None:
    """Only a complete elaunch.yaml becomes the meta of a status."""
    assert files.parse_meta(answer) is None


def test_values_of_variables_are_texts_on_the_wire() -> None:
    """Variables are texts whatever YAML made of them; the process id stays a number."""
    answer = {"pid": 1, "variables": {"global": {"scale": 1}, "stage": {0: {}}}, "version": "2.7.0"}

    assert files.parse_meta(answer) == {
        "pid": 1,
        "variables": {"global": {"scale": "1"}, "stage": {"0": {}}},
        "version": "2.7.0",
    }


def platform(*inputs: str, errors: tuple[str, ...] = ()) -> dict[str, Any]:
    """One platform as the inspection tells of it."""
    return {"errors": list(errors), "inputs": list(inputs), "variables": {}}


def test_broken_platform_counts_only_if_it_may_be_used() -> None:
    """A definition that keeps to the platforms that work is fine."""
    answer = {"platforms": {"default": platform("a"), "bad": platform(errors=("broken",))}}
    options = {"executionOptions": {"platform": ["default"]}}

    assert _checked_platforms(answer, {"parameterisation": options}, "main") == {"default": platform("a")}
    with pytest.raises(PackageProblem, match=r"Invalid platform bad in base package main\. .* - broken"):
        _checked_platforms(answer, {}, "main")
    with pytest.raises(PackageProblem, match="Invalid platform bad"):
        _checked_platforms(answer, {"parameterisation": {"presets": {"platform": "bad"}}}, "main")


def test_platforms_must_exist_and_agree_on_inputs() -> None:
    """An unknown platform is a problem, and so are platforms that want different files."""
    answer = {"platforms": {"default": platform("a"), "other": platform("b")}}

    with pytest.raises(PackageProblem, match=r"no platforms \['ghost'\]"):
        _checked_platforms(answer, {"parameterisation": {"presets": {"platform": "ghost"}}}, "main")
    with pytest.raises(PackageProblem, match="do not agree"):
        _checked_platforms(answer, {}, "main")


def test_question_that_fails_says_what_was_read(tmp_path: Path) -> None:
    """Errors, endless answers and missing interpreters are one kind of error."""

    def endless(*_: Any, **__: Any) -> subprocess.CompletedProcess[bytes]:
        raise subprocess.TimeoutExpired("x", 1)

    orchestrator = Orchestrator(sys.executable, "")

    with pytest.raises(RuntimeError, match="reading '/ghost' failed"):
        orchestrator.inspect("yaml", "/ghost", folder=tmp_path, run=ChildProcesses().run)
    with pytest.raises(RuntimeError, match="reading '/ghost' took over"):
        orchestrator.inspect("yaml", "/ghost", folder=tmp_path, run=endless)
    with pytest.raises(RuntimeError, match="reading '/ghost' was not possible"):
        Orchestrator("/ghost", "").inspect("yaml", "/ghost", folder=tmp_path, run=ChildProcesses().run)
    with pytest.raises(GitFailed, match="git took longer than 1 s"):
        git("version", run=endless, timeout=1)
