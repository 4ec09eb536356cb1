"""The engine that executes runs; slow tests start the orchestrator."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local.engine import instance_files as files
from st4sd_async.local.engine.elaunch import ElaunchEngine
from st4sd_async.local.engine.interface import AcceptedStart, PackageProblem
from st4sd_async.local.engine.processes import ChildProcesses, git
from st4sd_async.local.examples.examples import Examples, load_examples

pytestmark = pytest.mark.slow

FINAL = {"finished", "failed", "Failed"}
LONG = """
variables:
  default:
    global: {seconds: 60}
  hasty:
    global: {seconds: 1}
platforms: [default, hasty]
components:
- name: Sleep
  command: {executable: sleep, arguments: "%(seconds)s"}
output:
  Nothing: {data-in: "stage0.Sleep/out.stdout:copy"}
"""
BROKEN = """
components:
- name: A
  command: {executable: echo, arguments: "stage0.DoesNotExist:ref"}
  references: ["stage0.DoesNotExist:ref"]
"""


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    """Return examples in a temporary folder."""
    return Examples(tmp_path / "examples")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ElaunchEngine]:
    """Return an engine, which is closed after the test."""
    engine = ElaunchEngine(tmp_path / "engine")
    yield engine
    engine.close()


@pytest.fixture
def package(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Return a function that creates a repository with FlowIR and returns its definition."""

    def make(flowir: str) -> dict[str, Any]:
        repository = tmp_path / "repositories" / "custom"
        (repository / "conf").mkdir(parents=True)
        (repository / "conf" / "flowir_package.yaml").write_text(flowir)
        processes = ChildProcesses()
        git("init", "--quiet", "--initial-branch=main", folder=repository, processes=processes, timeout=50)
        git("add", "--all", folder=repository, processes=processes, timeout=50)
        git("commit", "--quiet", "--message=x", folder=repository, processes=processes, timeout=50)
        return definition_of({"url": repository.as_uri(), "branch": "main"})

    return make


def definition_of(location: dict[str, str]) -> dict[str, Any]:
    """Return a definition with a git location."""
    return {"base": {"packages": [{"name": "main", "source": {"git": {"location": location}}}]}}


def accepted_start(package: dict[str, Any], rest_uid: str = "demo-abcdef-12345678", **changes: Any) -> AcceptedStart:
    """Return a start that is empty except for `changes`."""
    empty: dict[str, Any] = {"platform": None, "inputs": {}, "data": {}, "variables": {}, "metadata": {}}
    empty |= {"environment": {}, "options": ()}
    return AcceptedStart(rest_uid=rest_uid, identifier="demo@sha256x0", package=package, **{**empty, **changes})


def wait(engine: ElaunchEngine, rest_uid: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for a status that fulfils a condition, and return it."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        status = engine.status(rest_uid)
        if status is not None and condition(status):
            return status
        time.sleep(0.05)
    raise AssertionError(f"{rest_uid} timed out, its last status was {engine.status(rest_uid)}")


def is_final(status: dict[str, Any]) -> bool:
    """Return whether the experiment-state is final."""
    return status["experiment-state"] in FINAL


def wait_for_sleep(engine: ElaunchEngine, rest_uid: str) -> int:
    """Wait until the component of a run of `LONG` has started; return the process group."""
    # The state is not enough: it may be "Initialising" for another 30 s.
    pid = wait(engine, rest_uid, lambda status: bool(status["meta"]))["meta"]["pid"]
    directory = engine.directory(rest_uid)
    assert directory is not None
    while not (directory / "stages/stage0/Sleep/out.stdout").exists():
        time.sleep(0.05)
    return int(pid)


def group_is_gone(pid: int) -> bool:
    """Return whether the process group ends within 30 s."""
    for _ in range(600):  # the orchestrator may need 3 s after its final status
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


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


def test_platforms_have_different_variables(engine: ElaunchEngine, package: Callable[[str], dict[str, Any]]) -> None:
    """Each platform has the values that it sets."""
    facts = engine.inspect(package(LONG))

    assert facts.platforms == ("default", "hasty")
    assert facts.variables == {"default": {"seconds": "60"}, "hasty": {"seconds": "1"}}
    assert facts.outputs == ("Nothing",)


def test_commit_location_is_fetched_once(
    engine: ElaunchEngine, package: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """A package with a commit in its location is equal, and does not need the repository again."""
    definition = package(LONG)
    facts = engine.inspect(definition)
    url = definition["base"]["packages"][0]["source"]["git"]["location"]["url"]
    by_commit = definition_of({"url": url, "commit": facts.version})

    assert engine.inspect(by_commit) == facts
    (tmp_path / "repositories").rename(tmp_path / "moved")
    assert engine.inspect(by_commit) == facts


def test_failed_clone_is_a_problem_with_the_message_of_the_service(engine: ElaunchEngine) -> None:
    """It contains the location and the output of git, without credentials."""
    definition = definition_of({"url": "file://user:not-a-secret@/nowhere/ghost.git", "tag": "1.0.0"})

    with pytest.raises(PackageProblem) as caught:
        engine.inspect(definition)

    text = str(caught.value)
    assert text.startswith("Cannot git-clone with location {'url': 'file://***@/nowhere/ghost.git', 'tag': '1.0.0'}")
    assert "without using any oauth credentials" in text
    assert "Underlying error: Unable to clone - git-stderr: Cloning into" in text
    assert "not-a-secret" not in text


@pytest.mark.parametrize(
    ("flowir", "expected"),
    [
        (
            BROKEN,
            (
                "Invalid platform default in base package main. Consider updating the parameterisation "
                "configuration to exclude invalid platforms - Unknown reference(s) ['stage0.DoesNotExist'] by "
                "\"stage0.A\". Known components: ['stage0.A']"
            ),
        ),
        ("components: [}", "There is no valid virtual experiment at base.config={}"),
    ],
    ids=["unknown reference", "not YAML"],
)
def test_invalid_package_is_a_problem(
    engine: ElaunchEngine, package: Callable[[str], dict[str, Any]], flowir: str, expected: str
) -> None:
    """A push is rejected if the orchestrator's libraries reject the FlowIR."""
    with pytest.raises(PackageProblem) as caught:
        engine.inspect(package(flowir))

    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    "definition",
    [
        {"base": {"packages": []}},
        {"base": {"packages": [{"name": "main", "source": {"s3": {}}}]}},
        {"base": {"packages": [{"name": "main", "source": {"dataset": {"security": {}}}}]}},
    ],
    ids=["no package", "s3", "dataset"],
)
def test_packages_that_are_not_in_git_are_a_problem(engine: ElaunchEngine, definition: dict[str, Any]) -> None:
    """The engine needs exactly one package, in git."""
    with pytest.raises(PackageProblem, match="This server"):
        engine.inspect(definition)


def test_missing_package_is_a_failed_init_container(engine: ElaunchEngine) -> None:
    """If cloning fails, the status shows it, but the list does not."""
    engine.start(accepted_start(definition_of({"url": "file:///nowhere/ghost.git", "tag": "1.0.0"})))

    status = wait(engine, "demo-abcdef-12345678", is_final)

    assert status["experiment-state"] == "failed"
    assert status["exit-status"] == ""
    assert status["meta"] == {}
    assert status["error-description"].startswith(
        "initContainer failure: git-sync-package failed with exit code 128 and message "
    )
    assert engine.listed_status("demo-abcdef-12345678") == dict(files.NO_STATUS)
    assert engine.directory("demo-abcdef-12345678") is None


def test_closed_engine_rejects_starts(engine: ElaunchEngine, examples: Examples) -> None:
    """Closing it twice is no error."""
    engine.close()
    engine.close()

    with pytest.raises(RuntimeError, match="is closed"):
        engine.start(accepted_start(examples.definition("demo")))


@pytest.mark.slow(seconds=8)
@pytest.mark.timeout(240)
def test_results_follow_from_inputs_and_variables(engine: ElaunchEngine, examples: Examples, tmp_path: Path) -> None:
    """Two runs at a time have the same files as runs without the orchestrator."""
    definition = examples.definition("demo")
    first = accepted_start(
        definition,
        "demo-abcdef-aaaaaaaa",
        inputs={"molecules.csv": "id,smiles\n0,[Xe]\n1,CCO\n2,[Xe]\n"},
        variables={"scale": "2"},
        metadata={"campaign": "x y"},
    )
    second = accepted_start(
        definition,
        "demo-abcdef-bbbbbbbb",
        inputs={"molecules.csv": "smiles\nCO\n CCO\n"},
        data={"weights.csv": "element,weight\nC,12\nO,16\n"},
        options=("--registerWorkflow=yes",),
    )
    engine.start(first)
    engine.start(second)

    for start in (first, second):
        status = wait(engine, start.rest_uid, is_final)
        assert (status["experiment-state"], status["exit-status"]) == ("finished", "Success")
        assert status["stages"] == ["stage0", "stage1"]
        assert status["total-progress"] == 1.0
        assert status["error-description"] == ""
        assert engine.listed_status(start.rest_uid) == status

    for start in (first, second):
        real, simulated = engine.directory(start.rest_uid), tmp_path / start.rest_uid
        assert real is not None
        outputs = load_examples()["demo"].run(start, simulated)
        without_time = {name: {**entry, "creationtime": ""} for name, entry in outputs.items()}
        for name, entry in engine.outputs(start.rest_uid).items():
            assert {**entry, "creationtime": ""} == without_time[name]
            assert float(entry["creationtime"]) > 0
        for path in ("stages/stage0/Compute/energies.csv", "output/properties.csv"):
            assert (real / path).read_text() == (simulated / path).read_text()
        ids = [json.loads((folder / "output/input-ids.json").read_text()) for folder in (real, simulated)]
        assert ids[0] == ids[1]
        assert (real / "stages/stage1/Report/results/sub/b.bin").read_bytes() == bytes(range(256))

    meta = wait(engine, first.rest_uid, is_final)["meta"]
    assert meta["userMetadata"] == {
        "campaign": "x y",
        "rest-uid": "demo-abcdef-aaaaaaaa",
        "workflow": "demo-abcdef-aaaaaaaa",
        "experiment-id": "demo@sha256x0",
        "st4sd-package-name": "demo",
        "st4sd-package-digest": "sha256x0",
    }
    assert meta["userVariables"] == {"global": {"scale": "2"}}
    assert meta["variables"]["global"] == {"scale": "2"}
    assert meta["platform"] == "default"
    directory = engine.directory(first.rest_uid)
    assert directory is not None
    assert "CCO,CCO,-9.0,46.069" in (directory / "stages/stage0/Compute/energies.csv").read_text()


@pytest.mark.slow(seconds=8)
@pytest.mark.timeout(240)
def test_failures_have_the_recorded_statuses(tmp_path: Path, examples: Examples) -> None:
    """A failed component is finished/failed/Failed with its error; a bad option is a failed set-up. Files are kept."""
    keep = tmp_path / "kept"
    engine = ElaunchEngine(tmp_path / "engine", keep=keep)
    engine.start(accepted_start(examples.definition("fail"), "fail-abcdef-12345678"))
    engine.start(accepted_start(examples.definition("fail"), "option-abcdef-12345678", options=("--no-such-option",)))

    option = wait(engine, "option-abcdef-12345678", is_final)
    component = wait(engine, "fail-abcdef-12345678", is_final)
    engine.close()

    assert option == {
        "experiment-state": "failed",
        "stage-state": "Initialising",
        "stages": [],
        "current-stage": "None",
        "exit-status": "Failed",
        "meta": None,
        "total-progress": 0.0,
        "stage-progress": 0.0,
        "error-description": "During argument parsing of sys-args, ran into BadOptionError "
        "no such option: --no-such-option",
    }
    keys = ("experiment-state", "stage-state", "exit-status")
    assert [component[key] for key in keys] == ["finished", "failed", "Failed"]
    failure = load_examples()["fail"].failure or ""
    assert component["error-description"] == failure.replace("\n", r"\n")
    assert engine.outputs("fail-abcdef-12345678") == {}
    kept = engine.directory("fail-abcdef-12345678")
    assert kept is not None
    assert kept.parent == keep / "fail-abcdef-12345678"
    assert "always fails" in (kept / "stages/stage0/Boom/out.stderr").read_text()


@pytest.mark.slow(seconds=7)
@pytest.mark.timeout(240)
def test_second_run_waits_for_the_only_slot_and_delete_frees_it(
    tmp_path: Path, package: Callable[[str], dict[str, Any]]
) -> None:
    """With one slot, the second run is unscheduled until the first is deleted; close kills the second."""
    engine = ElaunchEngine(tmp_path / "engine", slots=1)
    definition = package(LONG)
    engine.start(accepted_start(definition, "long-abcdef-aaaaaaaa"))
    engine.start(accepted_start(definition, "long-abcdef-bbbbbbbb"))
    engine.start(accepted_start(definition, "long-abcdef-cccccccc"))

    waiting = wait(engine, "long-abcdef-bbbbbbbb", bool)
    assert waiting == files.unscheduled()
    assert engine.listed_status("long-abcdef-bbbbbbbb") == dict(files.NO_STATUS)

    pid = wait_for_sleep(engine, "long-abcdef-aaaaaaaa")
    engine.delete("long-abcdef-cccccccc")
    engine.delete("long-abcdef-aaaaaaaa")
    stopped = wait(engine, "long-abcdef-aaaaaaaa", is_final)
    assert stopped["exit-status"] == "Stopped"
    assert group_is_gone(pid)

    pid = wait_for_sleep(engine, "long-abcdef-bbbbbbbb")
    before = time.monotonic()
    engine.close()
    assert time.monotonic() - before < 15
    assert group_is_gone(pid)
    directory = engine.directory("long-abcdef-bbbbbbbb")
    assert directory is not None
    assert not (directory / "output").is_symlink()
    assert not list(Path("/tmp").glob("chpc-*-shadow/long-abcdef-*.shadow"))
    assert engine.directory("long-abcdef-cccccccc") is None


@pytest.mark.timeout(240)
def test_killed_orchestrator_is_not_shown_in_the_list(
    engine: ElaunchEngine, package: Callable[[str], dict[str, Any]]
) -> None:
    """The status is Failed without an exit-status; the list shows the last status of the orchestrator."""
    engine.start(accepted_start(package(LONG), "long-abcdef-aaaaaaaa"))
    pid = wait_for_sleep(engine, "long-abcdef-aaaaaaaa")

    os.kill(pid, signal.SIGKILL)
    status = wait(engine, "long-abcdef-aaaaaaaa", is_final)

    assert (status["experiment-state"], status["exit-status"]) == ("Failed", "")
    assert status["error-description"] == "elaunch-primary exitCode: 137, reason: Error"
    listed = engine.listed_status("long-abcdef-aaaaaaaa")
    assert listed is not None
    assert listed["experiment-state"] in {"Initialising", "running"}
    assert listed["exit-status"] == "N/A"
    assert group_is_gone(pid)


@pytest.mark.slow(seconds=12)
@pytest.mark.timeout(240)
def test_documents_of_a_running_and_a_stopped_run(
    engine: ElaunchEngine, package: Callable[[str], dict[str, Any]]
) -> None:
    """A running component has a document after a while; a deleted run has its final status."""
    definition = {**package(LONG), "metadata": {"package": {"name": "long"}, "registry": {"interface": {}}}}
    engine.start(accepted_start(definition, "long-abcdef-aaaaaaaa"))

    def wait_for(kind: str, state: str = "") -> dict[str, Any]:
        while True:
            for document in engine.documents("long-abcdef-aaaaaaaa", [kind]):
                if not state or document["status"]["experiment-state"] == state:
                    return document
            time.sleep(0.05)

    early, component = wait_for("experiment"), wait_for("component")
    engine.delete("long-abcdef-aaaaaaaa")
    stopped = wait_for("experiment", "finished")

    assert early["status"]["exit-status"] == "N/A"
    assert (component["component-identifier"], component["component-state"]) == ("stage0.Sleep", "running")
    assert stopped["status"]["exit-status"] == "Stopped"
    assert stopped["status"]["created-on"] < stopped["status"]["updated-on"]
    assert early["instance"] == component["instance"] == stopped["instance"]
    assert engine.documents("ghost", ["experiment"]) == []
