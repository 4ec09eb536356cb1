"""
What the simulator knows about packages without reading them, and the files that their runs leave.

A package is an example, was described with `LocalServer.describe`, or is unknown. Runs of examples execute its
programs; other runs get files with fixed content.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from st4sd_async.local.engine.interface import AcceptedStart, Content, PackageFacts, PackageProblem, write_content
from st4sd_async.local.examples.examples import Component, Example, Examples, write_reports

FAILURE = "Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.Compute. Returncode 1. Reason KnownIssue\n"
"""The error description of a failed component of a package that is not an example."""
_FIRST = Component(stage=0, name="Compute", script="bin/compute.py")
_LAST = replace(_FIRST, stage=1, arguments=(f"{{instance}}/{_FIRST.directory}/out.stdout",))
COMPONENTS = (_FIRST, _LAST)
"""The components of a package that is not an example; its key-outputs are in the directory of the last one."""


@dataclass(frozen=True)
class PackageDescription:
    """The content of a package, which is not read."""

    inputs: Sequence[str] = ()
    """Names of the input files that a start must provide."""
    data: Sequence[str] = ()
    """Names of the data files."""
    outputs: Mapping[str, bytes | Mapping[str, bytes]] = field(default_factory=dict)
    """key-output -> its content: a file, or a folder as path -> content."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """variable -> default on every platform."""
    interface: Mapping[str, Any] = field(default_factory=dict)
    """The virtual experiment interface."""
    properties: str | None = None
    """The text of ``output/properties.csv``; None means that nothing is measured."""
    problem: str | None = None
    """Why a push of the package is rejected; None means that it is accepted."""


class Package:
    """The package of a start that is not an example."""

    usual_outcome = "success"
    failure = FAILURE
    components: tuple[Component, ...] = COMPONENTS

    def __init__(self, description: PackageDescription | None, flowir: Mapping[str, Any] | None) -> None:
        self._description = description or PackageDescription()
        self._is_described = description is not None
        self._flowir = flowir

    @property
    def stages(self) -> list[str]:
        """The names of the stages."""
        return sorted({f"stage{component.stage}" for component in self.components})

    @property
    def outputs(self) -> dict[str, str]:
        """key-output -> its path in the instance directory."""
        return {name: f"{_LAST.directory}/{name}" for name in self._output_contents()}

    def interface(self, start: AcceptedStart, *, succeeded: bool) -> dict[str, Any]:
        """Return the interface with the files of results that a run added to it; {} if there is none."""
        # The registry has no interface if there are several platforms.
        registry = start.package["metadata"]["registry"]
        interface = dict(self._description.interface if self._is_described else registry["interface"])
        files = ["output/properties.csv"] if succeeded and self._description.properties is not None else []
        return {**interface, "outputFiles": files} if interface else {}

    def write_inputs(self, start: AcceptedStart, directory: Path) -> None:
        """Create an instance directory with the files of the start and a first component, unless they exist."""
        _write_start_files(start, directory)
        _write_logs(_FIRST, directory)

    def write_results(self, start: AcceptedStart, directory: Path) -> None:
        """Fill an instance directory with the files of a finished run."""
        self.write_inputs(start, directory)
        _write_logs(_LAST, directory)
        write_reports(dict.fromkeys(COMPONENTS, "finished"), directory / "output")
        if self._description.properties is not None:
            (directory / "output" / "properties.csv").write_text(self._description.properties)
        for name, content in self._output_contents().items():
            _write_output(directory / _LAST.directory / name, content)

    def _output_contents(self) -> Mapping[str, bytes | Mapping[str, bytes]]:
        return (
            self._description.outputs
            if self._flowir is None
            else dict.fromkeys(self._flowir.get("output") or (), b"\n")
        )


class ExamplePackage(Package):
    """The package of an example."""

    def __init__(self, example: Example, results: _ExampleResults) -> None:
        super().__init__(None, None)
        self._example = example
        self._results = results
        self.components = example.components
        if example.failure is not None:
            self.usual_outcome, self.failure = "component-failure", example.failure

    @property
    def outputs(self) -> dict[str, str]:
        """key-output -> its path in the instance directory; {} if runs of the example fail."""
        return {} if self._example.failure else dict(self._example.outputs)

    def interface(self, start: AcceptedStart, *, succeeded: bool) -> dict[str, Any]:
        """Return the interface with the input ids and the files of results of a run; {} if there is none."""
        interface, ids = super().interface(start, succeeded=succeeded), self._example.input_ids(start)
        if not interface or ids is None:
            return interface
        files = ["output/input-ids.json", *(["output/properties.csv"] if succeeded else [])]
        return {**interface, "inputs": ids, "additionalInputData": {}, "outputFiles": files}

    def write_inputs(self, start: AcceptedStart, directory: Path) -> None:
        """Create an instance directory with the files of the start, unless they exist."""
        _write_start_files(start, directory)

    def write_results(self, start: AcceptedStart, directory: Path) -> None:
        """Execute the programs of the example in an instance directory, or copy the files of an equal run."""
        self._results.write(self._example, start, directory)


class Packages:
    """The packages of one server. Safe to use from any thread."""

    def __init__(self, examples: Examples, folder: Path) -> None:
        """
        Args:
            examples: The examples of the server.
            folder: The folder in which examples are executed.
        """
        self._examples = examples
        self._results = _ExampleResults(folder)
        self._descriptions: dict[str, PackageDescription] = {}

    def describe(self, name_or_url: str, description: PackageDescription) -> None:
        """Set the content of the package of an experiment, or at a URL."""
        self._descriptions[name_or_url] = description

    def find(self, start: AcceptedStart) -> Package:
        """Return the package of a start."""
        description = self._description(start.package)
        example = None if description else self._examples.find(_location(start.package).get("url", ""))
        return ExamplePackage(example, self._results) if example else Package(description, start.flowir)

    def facts(self, definition: Mapping[str, Any]) -> PackageFacts:
        """
        Return what a push reads from the package of a definition.

        Raises:
            PackageProblem: Its description has a problem, or it is a local repository that does not exist.
        """
        location, description = _location(definition), self._description(definition)
        if description is None:
            if example := self._examples.find(location.get("url", "")):
                return self._examples.facts(example.name)
            _check_local_repository(location)
        elif description.problem is not None:
            raise PackageProblem(description.problem)
        options = definition["parameterisation"]["executionOptions"]
        preset = definition["parameterisation"]["presets"].get("platform")
        platforms = [preset] if preset else options["platform"]
        known = description or PackageDescription(data=[option["name"] for option in options["data"]])
        text = json.dumps(location, sort_keys=True)
        return PackageFacts(
            version=location.get("commit") or hashlib.sha1(text.encode()).hexdigest(),
            inputs=tuple(known.inputs),
            data=tuple(known.data),
            outputs=tuple(known.outputs),
            platforms=tuple(sorted({*platforms, "default"})),
            variables={"default": dict(known.variables)},
            interface=known.interface,
        )

    def _description(self, definition: Mapping[str, Any]) -> PackageDescription | None:
        by_name = self._descriptions.get(definition["metadata"]["package"]["name"])
        return by_name or self._descriptions.get(_location(definition).get("url", ""))


class _ExampleResults:
    """Files of executed examples: equal starts of one server execute the programs only once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._executed: dict[str, Path] = {}
        self._lock = threading.Lock()

    def write(self, example: Example, start: AcceptedStart, directory: Path) -> None:
        content = [example.name, dict(start.inputs), dict(start.data), dict(start.variables)]
        key = json.dumps(content, sort_keys=True, default=str)
        with self._lock:
            executed = self._executed.get(key)
        if executed is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            executed = Path(tempfile.mkdtemp(dir=self._folder))
            example.run(start, executed)
            with self._lock:
                self._executed[key] = executed
        shutil.copytree(executed, directory, dirs_exist_ok=True)


def _location(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the location of the package of a definition, in git or another source."""
    source = definition["base"]["packages"][0]["source"]
    first: Mapping[str, Any] = next(iter(source.values()), {})
    return first.get("location") or {}


def _check_local_repository(location: Mapping[str, Any]) -> None:
    url = urlsplit(location.get("url", ""))
    path = unquote(url.path)
    if url.scheme == "file" and not Path(path).exists():
        raise PackageProblem(
            f"Cannot git-clone with location {dict(location)} without using any oauth credentials. Double "
            "check that the location is correct and set to public. Underlying error: Unable to clone - "
            f"git-stderr: fatal: '{path}' does not appear to be a git repository\n"
        )


def _write_start_files(start: AcceptedStart, directory: Path) -> None:
    files: dict[str, Mapping[str, Content]] = {"input": start.inputs, "data": start.data}
    for folder in ("input", "data", "output", "stages"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.get(folder, {}).items():
            write_content(content, directory / folder / Path(name).name)


def _write_logs(component: Component, directory: Path) -> None:
    folder = directory / component.directory
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "out.stdout").write_text(f"This is {component.reference}\n")
    (folder / "out.stderr").write_text("")


def _write_output(target: Path, content: bytes | Mapping[str, bytes]) -> None:
    files = {"": content} if isinstance(content, bytes) else content
    for path, data in files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)
