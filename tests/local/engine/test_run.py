"""Single runs, with scripts that replace the orchestrator and misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local.engine import instance_files as files
from st4sd_async.local.engine.documents import TYPES
from st4sd_async.local.engine.elaunch import ElaunchRun
from st4sd_async.local.engine.guard import Guard
from st4sd_async.local.engine.interface import AcceptedStart
from st4sd_async.local.engine.orchestrator import Orchestrator
from st4sd_async.local.engine.packages import ClonedPackages
from st4sd_async.local.engine.processes import ChildProcesses

pytestmark = pytest.mark.slow

COMMIT = "0" * 40
"""The commit that was pushed; runs get the newest one."""
IDENTITY = ("-c", "user.name=tests", "-c", "user.email=tests@example.com")
EMPTY_COMMIT = ("commit", "-q", "--allow-empty", "--message=empty")
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


class ScriptedRun:
    """A run of a script instead of the orchestrator."""

    def __init__(
        self, folder: Path, script: str, pod_delay: float = 0.0, environment: Mapping[str, str] | None = None
    ) -> None:
        """Prepare the run without starting it."""
        (folder / "elaunch.py").write_text(script)
        repository = folder / "demo"
        for command in (["init", "-q", str(repository)], ["-C", str(repository), *IDENTITY, *EMPTY_COMMIT]):
            subprocess.run(["git", *command], check=True)
        source = {"git": {"location": {"url": repository.as_uri()}, "version": COMMIT}}
        start = AcceptedStart(
            rest_uid="demo-abcdef-12345678",
            identifier="demo@sha256x0",
            package={"base": {"packages": [{"name": "main", "source": source}]}, "metadata": METADATA},
            platform=None,
            inputs={"../a.csv": "a"},
            data={},
            variables={},
            metadata={},
            environment=environment or {},
            options=(),
        )
        self.folder = folder / "run"
        self.folder.mkdir()
        self._orchestrator = Orchestrator(sys.executable, str(folder / "elaunch.py"))
        processes = ChildProcesses()
        read = partial(self._orchestrator.read_package, folder=folder, processes=processes)
        self._packages = ClonedPackages(folder / "packages", read, processes)
        self._guard = Guard()
        self.run = ElaunchRun(start, self.folder, ChildProcesses(), self._guard, pod_delay=pod_delay)

    def execute(self) -> None:
        """Execute the run to its end."""
        self.run.execute(self._orchestrator, self._packages)
        self._guard.close()


def report(step: object, *documents: dict[str, Any]) -> str:
    """Return a part of a script that reports documents to the datastore."""
    text = json.dumps({"upsert-documents": documents})
    path = f"pathlib.Path('monitor/x-{step}.json')"
    return f"\n{path}.parent.mkdir(exist_ok=True)\n{path}.write_text({text!r})\n"


def test_status_of_a_run_before_it_is_executed(tmp_path: Path) -> None:
    """Unscheduled in the queue, nulls after it; the list shows nulls in both cases."""
    run = ScriptedRun(tmp_path, "").run

    run.enter_queue()
    assert (run.status(), run.listed_status()) == (files.unscheduled(), dict(files.NO_STATUS))
    run.leave_queue()
    assert (run.status(), run.listed_status()) == (dict(files.NO_STATUS), dict(files.NO_STATUS))


def test_run_has_no_status_before_its_pod(tmp_path: Path) -> None:
    """Not even in the queue, and not if it has failed already."""
    waiting = ScriptedRun(tmp_path, "", pod_delay=60).run

    waiting.enter_queue()

    assert (waiting.status(), waiting.listed_status()) == (None, None)


def test_status_is_shown_together_with_its_meta(tmp_path: Path) -> None:
    """The orchestrator writes its description of the run a moment later than its status."""
    scripted = ScriptedRun(tmp_path, "")
    instance = scripted.folder / "demo.instance"
    (instance / "output").mkdir(parents=True)
    (instance / "output" / "status.txt").write_text(
        "current-stage=stage0\nexit-status=N/A\nexperiment-state=running\nstage-progress=0.0\nstage-state=running\n"
        "stages=['stage0']\ntotal-progress=0.0\n"
    )

    before = scripted.run.status()
    (instance / "elaunch.yaml").write_text("pid: 1\nversion: 2.7.0\n")
    after = scripted.run.status()

    assert before == dict(files.NO_STATUS)
    assert after is not None
    assert (after["experiment-state"], after["meta"]) == ("running", {"pid": 1, "version": "2.7.0"})


def test_orchestrator_that_exits_without_a_status_is_a_set_up_failure(tmp_path: Path) -> None:
    """The last line of its output is the error, also in the list."""
    scripted = ScriptedRun(tmp_path, "print('first'); raise SystemExit('no way\\n')")

    scripted.execute()

    status = scripted.run.status()
    assert status == files.setup_failure("no way")
    assert scripted.run.listed_status() == status
    assert scripted.run.outputs() == {}
    assert (scripted.folder / "start" / "input" / "a.csv").read_text() == "a"


@pytest.mark.parametrize("environment", [{}, {"PYTHONOPTIMIZE": "1"}], ids=["forked", "started"])
def test_variables_of_a_start_apply_to_the_orchestrator(tmp_path: Path, environment: dict[str, str]) -> None:
    """Even those that Python reads when it starts."""
    scripted = ScriptedRun(tmp_path, "import sys\nprint(sys.flags.optimize, sys.argv[1:3])", environment=environment)

    scripted.execute()

    log = (scripted.folder / "elaunch.log").read_text()
    assert log == f"{len(environment)} ['-i', '{scripted.folder}/start/input/a.csv']\n"


def test_orchestrator_that_ignores_a_signal_is_killed(tmp_path: Path) -> None:
    """The run is killed after its grace period, and has the status of a killed container."""
    scripted = ScriptedRun(tmp_path, STUBBORN)
    thread = threading.Thread(target=scripted.execute)
    thread.start()
    while not (scripted.folder / "ready").exists():
        time.sleep(0.01)

    scripted.run.stop(30)
    scripted.run.stop(0.1)
    thread.join(10)

    assert not thread.is_alive()
    assert scripted.run.status() == files.killed(137)
    assert scripted.run.listed_status() == dict(files.NO_STATUS)


def test_run_that_is_stopped_before_it_begins_is_not_started(tmp_path: Path) -> None:
    """This happens if a run is deleted just before it is executed."""
    scripted = ScriptedRun(tmp_path, "open('began', 'w')")
    scripted.run.stop(1)

    scripted.execute()

    assert not (scripted.folder / "began").exists()
    assert scripted.run.status() == dict(files.NO_STATUS)


def test_unregistered_run_has_no_documents(tmp_path: Path) -> None:
    """This does not depend on the other files that the orchestrator writes."""
    scripted = ScriptedRun(tmp_path, WRITTEN)

    scripted.execute()

    assert scripted.run.listed_status() is not None
    assert scripted.run.documents(TYPES) == []


def test_documents_of_a_registered_run_are_read_from_its_files(tmp_path: Path) -> None:
    """Before the first report, status, times and key-outputs come from the files."""
    scripted = ScriptedRun(tmp_path, WRITTEN + report("begin"))

    scripted.execute()

    experiment, metadata = scripted.run.documents(TYPES)
    assert experiment["instance"] == f"file://example-cluster{scripted.folder}/demo.instance"
    assert (experiment["name"], experiment["metadata"]["userMetadata"]) == ("demo", {"n": 1})
    assert (experiment["status"]["exit-status"], experiment["status"]["stages"]) == ("Stopped", "['stage0', 'stage1']")
    assert experiment["status"]["created-on"] == "2026-11-22T14:52:24.171523"
    assert experiment["output"]["A"]["version"] == 1
    assert (metadata["type"], metadata["n"]) == ("user-metadata", 1)
    assert experiment["uid"] == f"file://{scripted.folder}/demo.instance"


def test_later_reports_replace_earlier_ones(tmp_path: Path) -> None:
    """Reports are ordered by number; each document replaces the one with the same identity."""
    component = {"type": "component", "name": "A", "stage": 0, "instance": "i"}
    reports = [
        report("begin"),
        report(10, {**component, "state": "third"}),
        report(9, {**component, "state": "second"}, {**component, "stage": 1, "state": "only"}),
        report(0, {**component, "state": "first"}),
    ]
    scripted = ScriptedRun(tmp_path, "".join([WRITTEN, *reports]))

    scripted.execute()

    assert [document["state"] for document in scripted.run.documents(["component"])] == ["third", "only"]
    assert [document["type"] for document in scripted.run.documents(TYPES)] == [*TYPES, "component"]
