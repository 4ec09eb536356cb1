"""
The example experiments: their entries in ``examples.json``, runs without an orchestrator, and git repositories.

The package of an example is the folder with its name. A test compares its FlowIR with ``examples.json``. A run without
an orchestrator produces the same files at the same paths.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter

from st4sd_async.local.engine.instance_files import output_entry
from st4sd_async.local.engine.interface import AcceptedStart, PackageFacts, write_content
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed, git
from st4sd_async.local.examples.programs import run_program

TAG = "1.0.0"
COMPONENT_TIMEOUT = 60.0
"""Timeout of a program in seconds. Programs of the examples take 0.1 s."""
GIT_TIMEOUT = 30.0
"""Timeout of a git command in seconds. The repositories contain a few small files."""
_FOLDER = Path(__file__).parent
_NOT_COMMITTED = shutil.ignore_patterns("__pycache__", "*.pyc")

RunProgram = Callable[[Path, Sequence[str], Path, float], int | None]
"""Runs a Python program: its path, arguments, working directory and timeout -> its exit code; see `run_program`."""


@dataclass(frozen=True)
class Component:
    """A component of an example: its program and its command line."""

    stage: int
    """The index of its stage; stages run one after another."""
    name: str
    """Its name, which is also the name of its directory."""
    script: str
    """Path of the program, relative to the instance directory."""
    arguments: tuple[str, ...] = ()
    """Arguments. ``{instance}`` stands for the instance directory, ``{NAME}`` for the value of a variable."""
    copies: tuple[str, ...] = ()
    """Files of the instance directory that are copied into the component's directory before it runs."""

    @property
    def directory(self) -> str:
        """Its directory relative to the instance directory: ``stages/stage0/Compute``."""
        return f"stages/stage{self.stage}/{self.name}"

    @property
    def reference(self) -> str:
        """Its reference: ``stage0.Compute``."""
        return f"stage{self.stage}.{self.name}"

    @property
    def references(self) -> list[str]:
        """The files that it uses as references of FlowIR: ``stage0.Compute/energies.csv:ref``."""
        references = [_reference(argument) for argument in self.arguments]
        copies = [f"{path}:copy" for path in self.copies]
        return [f"{self.script}:ref", *copies, *(reference for reference in references if reference)]

    @property
    def producers(self) -> dict[str, list[str]]:
        """Reference of each component that it depends on -> the files that it uses."""
        producers: dict[str, list[str]] = {}
        for reference in self.references:
            producer, _, path = reference.rpartition(":")[0].partition("/")
            if producer.startswith("stage"):
                producers.setdefault(producer, []).append(path)
        return producers

    def command_line(self, variables: Mapping[str, str]) -> str:
        """Return its program and arguments as in FlowIR, with the values of variables."""
        arguments = [_reference(argument) or argument.format_map(variables) for argument in self.arguments]
        return " ".join([f"{self.script}:ref", *arguments])

    def run(self, variables: Mapping[str, str], instance: Path, run: RunProgram) -> bool:
        """Execute the program in the component's directory; return whether it exits with 0."""
        directory = instance / self.directory
        directory.mkdir(parents=True, exist_ok=True)
        for path in self.copies:
            shutil.copy(instance / path, directory)
        values = {"instance": str(instance), **variables}
        arguments = [argument.format_map(values) for argument in self.arguments]
        return run(instance / self.script, arguments, directory, COMPONENT_TIMEOUT) == 0


def _reference(argument: str) -> str | None:
    """Return an argument as a reference of FlowIR; None if it is not a file of the instance."""
    path = argument.removeprefix("{instance}/")
    return re.sub(r"^stages/(stage\d+)/", r"\1.", path) + ":ref" if path != argument else None


@dataclass(frozen=True)
class Example:
    """An entry of ``examples.json``."""

    name: str
    """The name of the experiment, and of the folder with its package."""
    description: str
    """Its description in the list of experiments."""
    components: tuple[Component, ...]
    """Its components in the order in which they run."""
    outputs: Mapping[str, str]
    """key-output -> path relative to the instance directory."""
    inputs: tuple[str, ...] = ()
    """Input files that a start must provide."""
    data: tuple[str, ...] = ()
    """Data files that a start may override."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables that a start may set -> defaults."""
    interface: Mapping[str, Any] = field(default_factory=dict)
    """The interface of the virtual experiment; {} if missing."""
    id_column: tuple[str, str] | None = None
    """Input file and column that contain the input ids. None means that the example has no interface."""
    property_table: str | None = None
    """The key-output from which properties are read. None means that there are no properties."""
    failure: str | None = None
    """
    The error description of every run. None means that runs succeed. The orchestrator reports an unknown exit code as
    return code 1 with reason KnownIssue.
    """

    @property
    def package(self) -> Path:
        """The folder with the files of its package."""
        return _FOLDER / self.name

    def input_ids(self, start: AcceptedStart) -> list[str] | None:
        """Return the input ids of a start; None if the example has no interface."""
        return None if self.id_column is None else input_ids(start, *self.id_column)

    def run(self, start: AcceptedStart, instance: Path, run: RunProgram = run_program) -> dict[str, dict[str, str]]:
        """
        Execute the programs in an instance directory, without an orchestrator. Blocks for about 0.1 s.

        Args:
            start: Only inputs, data and variables are used.
            instance: The instance directory; created if missing.
            run: Runs a program, like `run_program`.

        Returns:
            key-output -> its entry in a response of the service. Empty if a program failed; the files written before
            the failure stay.
        """
        self._deploy(start, instance)
        variables = {**self.variables, **start.variables}
        failed = next((component for component in self.components if not component.run(variables, instance, run)), None)
        write_reports(self._final_states(failed), instance / "output")
        outputs = self._existing_outputs(instance) if failed is None else {}
        (instance / "output" / "output.json").write_text(json.dumps(outputs, indent=4), encoding="utf-8")
        if failed is None and self.property_table:
            table = instance / self.outputs[self.property_table]
            _write_interface(self.input_ids(start) or [], table, instance / "output")
        return outputs

    def _deploy(self, start: AcceptedStart, instance: Path) -> None:
        """Create the instance directory: the folders of the package, then the files of the start."""
        for folder in ("bin", "conf", "data", "hooks"):
            if (self.package / folder).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(self.package / folder, instance / folder, ignore=ignored, dirs_exist_ok=True)
        for folder in ("input", "data", "output", "stages"):
            (instance / folder).mkdir(parents=True, exist_ok=True)
        for folder, files in (("input", start.inputs), ("data", start.data)):
            for name, content in files.items():
                # As in the orchestrator, only the last part of a name is used.
                write_content(content, instance / folder / Path(name).name)

    def _final_states(self, failed: Component | None) -> dict[Component, str]:
        """Return the final states of all components. None means that no component failed."""
        finished = self.components if failed is None else self.components[: self.components.index(failed)]
        states = dict.fromkeys(self.components, "component_shutdown") | dict.fromkeys(finished, "finished")
        return states if failed is None else {**states, failed: "failed"}

    def _existing_outputs(self, instance: Path) -> dict[str, dict[str, str]]:
        return {
            name: output_entry(path, (instance / path).stat().st_mtime)
            for name, path in self.outputs.items()
            if (instance / path).exists()
        }


def input_ids(start: AcceptedStart, filename: str, column: str) -> list[str]:
    """Return the values in a column of an input file of a start; [] if the file is missing."""
    content = next((content for name, content in start.inputs.items() if Path(name).name == filename), "")
    text = content.read_text("utf-8", errors="replace") if isinstance(content, Path) else str(content)
    return [(row.get(column) or "").strip() for row in csv.DictReader(io.StringIO(text, newline=""))]


@cache
def load_examples() -> Mapping[str, Example]:
    """Return the examples of ``examples.json`` by name."""
    text = (_FOLDER / "examples.json").read_text(encoding="utf-8")
    return {example.name: example for example in TypeAdapter(list[Example]).validate_json(text)}


class Examples:
    """The git repositories of the examples, below one folder; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        """
        Set the folder of the repositories. A repository is created when it is first needed.

        Args:
            folder: The folder of the repositories; created if missing.
        """
        self._folder = folder.absolute()
        self._lock = threading.Lock()

    def definition(self, name: str) -> dict[str, Any]:
        """
        Return the parameterised virtual experiment package to push.

        Raises:
            KeyError: There is no such example.
            RuntimeError: The ``git`` command is missing or fails.
        """
        if name not in load_examples():
            raise KeyError(f"no example {name!r}: there are {', '.join(load_examples())}")
        example = load_examples()[name]
        location = {"url": self._repository(example).as_uri(), "tag": TAG}
        options = {
            "variables": [{"name": variable} for variable in example.variables],
            "data": [{"name": filename} for filename in example.data],
        }
        return {
            "base": {"packages": [{"name": "main", "source": {"git": {"location": location}}}]},
            "metadata": {
                "package": {
                    "name": name,
                    "tags": ["latest"],
                    "maintainer": "someone@example.com",
                    "description": example.description,
                    "keywords": ["example"],
                }
            },
            "parameterisation": {"presets": {}, "executionOptions": options},
        }

    def find(self, url: str) -> Example | None:
        """Return the example whose repository is at a URL; None for other URLs."""
        parts = urlsplit(url)
        path = Path(unquote(parts.path))
        return load_examples().get(path.name) if parts.scheme == "file" and path.parent == self._folder else None

    def facts(self, name: str) -> PackageFacts:
        """
        Return the facts about the package of an example, for a push.

        Raises:
            RuntimeError: The ``git`` command is missing or fails.
        """
        example = load_examples()[name]
        return PackageFacts(
            version=(self._repository(example) / ".git" / "refs" / "tags" / TAG).read_text(encoding="ascii").strip(),
            inputs=example.inputs,
            data=example.data,
            outputs=tuple(sorted(example.outputs)),
            variables={"default": example.variables} if example.variables else {},
            interface=example.interface,
        )

    def _repository(self, example: Example) -> Path:
        """Return the repository of an example; create it if it is missing."""
        repository = self._folder / example.name
        with self._lock:
            if not repository.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                # Created under another name and renamed, so that it is complete as soon as it is visible.
                with tempfile.TemporaryDirectory(dir=self._folder, prefix=f".{example.name}-") as scratch:
                    _create_repository(example.package, Path(scratch) / example.name)
                    (Path(scratch) / example.name).rename(repository)
        return repository


def _create_repository(package: Path, repository: Path) -> None:
    """Create a repository with one commit and one tag from the files of a package."""
    shutil.copytree(package, repository, ignore=_NOT_COMMITTED)
    for path, content in git_directory(package).items():
        target = repository / ".git" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


@cache
def git_directory(package: Path) -> Mapping[str, bytes]:
    """Return the files of the directory ``.git``. git creates them once for all servers of a process."""
    with tempfile.TemporaryDirectory(prefix="st4sd-") as scratch:
        repository = Path(scratch) / package.name
        shutil.copytree(package, repository, ignore=_NOT_COMMITTED)
        _git("init", "--quiet", "--template=", "--initial-branch=main", folder=repository)
        # With file modes and line ends, the commit id would depend on the machine.
        settings = ("-c", "core.fileMode=false", "-c", "core.autocrlf=false", "-c", "commit.gpgSign=false")
        _git(*settings, "add", "--all", folder=repository)
        _git(*settings, "commit", "--quiet", "--message=Example experiment", folder=repository)
        _git("tag", TAG, folder=repository)
        _git("repack", "-a", "-d", "--quiet", folder=repository)  # two files instead of one per object
        directory = repository / ".git"
        return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _git(*arguments: str, folder: Path) -> str:
    try:
        return git(*arguments, processes=ChildProcesses(), folder=folder, timeout=GIT_TIMEOUT)
    except GitFailed as error:
        raise RuntimeError(f"cannot prepare the example experiments: {error}") from error


def _write_interface(ids: list[str], table: Path, output: Path) -> None:
    """Write the input ids, and the measured properties from the table of a key-output."""
    (output / "input-ids.json").write_text(json.dumps(ids, indent=4), encoding="utf-8")
    (output / "additional_input_data.json").write_text("{}", encoding="utf-8")
    with table.open(newline="", encoding="utf-8") as source:
        columns, *rows = csv.reader(source)
    if rows:  # the orchestrator fails to join tables without rows, and continues without properties
        _write_properties(output / "properties.csv", columns, rows)


def _write_properties(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    """Write a table, whose first column contains the input ids, in the way of the orchestrator."""
    occurrences = Counter(row[0] for row in rows)
    with path.open("w", newline="", encoding="utf-8") as target:
        # The orchestrator uses semicolons as separators, and empty cells for NaN.
        writer = csv.writer(target, delimiter=";", lineterminator="\n")
        writer.writerow(columns)
        for row in sorted(rows):
            values = ["" if value == "nan" else value for value in row]
            # The orchestrator joins the ids with the table of each of the two properties, which sorts the rows. An id
            # that occurs n times has n rows in each of the three tables, and so n * n * n rows in the result.
            writer.writerows([values] * occurrences[row[0]] ** 2)


ComponentT = TypeVar("ComponentT", bound="ReportedComponent")
_COMPONENT_COLUMNS = "rowid; reference; consumesFrom; isAlive; state; engine"
_ENGINE_COLUMNS = (
    "rowid; reference; isAlive; backend; creationDate; isWaitingOnOutput; outputWaitTime; isRunning; runDate; "
    "lastTaskLaunchDate; lastTaskRunTime; lastTaskRunState; lastTaskFinishedDate; lastTaskExitCode; "
    "lastTaskExitReason; engineExitCode; engineExitReason; schedulerId"
)
_EXECUTED = (
    "False; local; {now}; True; 0:00:01.032996; False; {now}; {now}; 0:00:00.133597; {state}; {now}; {exit_columns};"
)
_EXIT_COLUMNS = {"finished": "0; Success; 0; Success", "failed": "3; KnownIssue; 1; KnownIssue"}
_NOT_EXECUTED = "False; local; None; False; N/A; False; None; None; N/A; N/A; None; N/A; N/A; 1; Killed; N/A"


class ReportedComponent(Protocol):
    """The attributes of a component that `write_reports` uses."""

    @property
    def stage(self) -> int:
        """The index of its stage."""

    @property
    def reference(self) -> str:
        """Its reference: ``stage0.Compute``."""

    @property
    def producers(self) -> Mapping[str, list[str]]:
        """Reference of each component that it depends on -> the files that it uses."""


def write_reports(states: Mapping[ComponentT, str], output: Path) -> None:
    """Write ``status_details.json`` and ``experiment.log`` from component -> final state, in the order of execution."""
    now = datetime.now()  # noqa: DTZ005 -- as in the orchestrator
    details: dict[str, dict[str, dict[str, str]]] = {}
    for row, (component, state) in enumerate(states.items(), 1):
        tables = {"componentStates": _COMPONENT_COLUMNS, "engineStates": _ENGINE_COLUMNS}
        stage = details.setdefault(str(component.stage), {"engine": tables})["engine"]
        producers = ", ".join(component.producers)
        stage["componentStates"] += f"\n{row}; {component.reference}; {producers}; False; {state}; engine"
        exit_columns = _EXIT_COLUMNS.get(state)
        engine = _EXECUTED.format(now=now, state=state, exit_columns=exit_columns) if exit_columns else _NOT_EXECUTED
        stage["engineStates"] += f"\n{row}; {component.reference}; {engine}"
    (output / "status_details.json").write_text(json.dumps(details, indent=4), encoding="utf-8")
    lines = [f"INFO      MainThread root: {component.reference} is {state}\n" for component, state in states.items()]
    (output / "experiment.log").write_text("".join(lines), encoding="utf-8")
