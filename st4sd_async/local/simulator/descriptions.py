"""
What the simulator knows about packages without reading them, and the files their runs leave behind.
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

from st4sd_async.local.engine.interface import AcceptedStart, Content, PackageFacts, PackageProblem, put
from st4sd_async.local.examples.examples import Examples
from st4sd_async.local.examples.facts import Component
from st4sd_async.local.simulator.reports import write_reports

FAILURE = "Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.Compute. Returncode 1. Reason KnownIssue\n"
"""The error description of a failed component of any package."""
_SOURCE = Component(stage=0, name="Compute", script="bin/compute.py")
COMPONENTS = (
    _SOURCE,
    replace(_SOURCE, stage=1, arguments=(f"{{instance}}/{_SOURCE.directory}/out.stdout",)),
)
"""The components of a package that is not an example; its key-outputs are in the directory of the last one."""


@dataclass(frozen=True)
class Description:
    """What a package that is never read is said to contain."""

    inputs: Sequence[str] = ()
    """Names of the input files that a start must bring."""
    data: Sequence[str] = ()
    """Names of the data files."""
    outputs: Mapping[str, bytes | Mapping[str, bytes]] = field(default_factory=dict)
    """key-output -> its content: a file, or a folder as path -> content."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """variable -> default on every platform."""
    interface: Mapping[str, Any] = field(default_factory=dict)
    """The virtual experiment interface."""
    properties: str | None = None
    """The text of ``output/properties.csv``; None: nothing is measured."""
    problem: str | None = None
    """Why a push of the package is refused; None: it is accepted."""


class Results:
    """The packages of one server: examples, described ones and unknown ones. Safe to use from any thread."""

    def __init__(self, examples: Examples, folder: Path) -> None:
        """Know no package but the examples, whose runs are kept in a folder."""
        self._examples = examples
        self._folder = folder
        self._described: dict[str, Description] = {}
        self._made: dict[str, Path] = {}
        self._lock = threading.Lock()

    def describe(self, name_or_url: str, description: Description) -> None:
        """Remember what the package of an experiment (or at a url) contains."""
        self._described[name_or_url] = description

    def facts(self, package: Mapping[str, Any]) -> PackageFacts:
        """
        What a push learns about a package.

        Raises:
            PackageProblem: Its description says so, or it is a local repository that does not exist.
        """
        described, example = self._described_as(package), self._example(package)
        if example is not None:
            return self._examples.facts(example)
        location = _location(package)
        if described is None:
            _need_local_repository(location)
        if described is not None and described.problem is not None:
            raise PackageProblem(described.problem)
        options = package["parameterisation"]["executionOptions"]
        preset = package["parameterisation"]["presets"].get("platform")
        platforms = [preset] if preset else options["platform"]
        known = described or Description(data=[option["name"] for option in options["data"]])
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

    def usual_outcome(self, launch: AcceptedStart) -> str:
        """How runs of a package go if nobody asked for something else."""
        example = self._example(launch.package)
        return "component-failure" if example and self._examples.failure(example) else "success"

    def stages(self, launch: AcceptedStart) -> list[str]:
        """The stages of a package."""
        return sorted({f"stage{component.stage}" for component in self.components(launch)})

    def components(self, launch: AcceptedStart) -> tuple[Component, ...]:
        """The components of a package."""
        example = self._example(launch.package)
        return self._examples.components(example) if example else COMPONENTS

    def interface(self, launch: AcceptedStart, *, measured: bool) -> dict[str, Any]:
        """The interface of a package, and what came of it in a run: the input ids, and the files that hold results."""
        described, example = self._described_as(launch.package), self._example(launch.package)
        registry = launch.package["metadata"]["registry"]  # which lost it if there are several platforms
        interface = dict(described.interface if described else registry["interface"])
        ids = self._examples.input_ids(example, launch) if example else None
        files = ["output/input-ids.json"] if ids is not None else []
        if measured and (ids is not None or (described and described.properties is not None)):
            files.append("output/properties.csv")
        came = {"inputs": ids, "additionalInputData": {}} if ids is not None else {}
        return {**interface, **came, "outputFiles": files} if interface else {}

    def failure(self, launch: AcceptedStart) -> str:
        """The error description when a component of a package fails."""
        example = self._example(launch.package)
        return (example and self._examples.failure(example)) or FAILURE

    def outputs(self, launch: AcceptedStart) -> Mapping[str, str]:
        """key-output -> its path in the instance directory; nothing is made for that."""
        described, example = self._described_as(launch.package), self._example(launch.package)
        if example is not None:
            return self._examples.outputs(example)
        names = (described or Description()).outputs if launch.flowir is None else launch.flowir.get("output") or {}
        return {name: f"{COMPONENTS[-1].directory}/{name}" for name in names}

    def make(self, launch: AcceptedStart, directory: Path) -> None:
        """Fill an instance directory with what a run leaves behind, which takes a moment."""
        described, example = self._described_as(launch.package), self._example(launch.package)
        if example is not None:
            self._run_example(example, launch, directory)
            return
        self.lay_out(launch, directory)
        _begin(COMPONENTS[-1], directory)
        write_reports(dict.fromkeys(COMPONENTS, "finished"), directory / "output")
        known = described or Description()
        if known.properties is not None:
            (directory / "output" / "properties.csv").write_text(known.properties)
        made = known.outputs if launch.flowir is None else dict.fromkeys(self.outputs(launch), b"\n")
        for name, content in made.items():
            _write(directory / COMPONENTS[-1].directory / name, content)

    def lay_out(self, launch: AcceptedStart, directory: Path) -> None:
        """Make an instance directory with what the start brought and a first component, if there is none yet."""
        brought: dict[str, Mapping[str, Content]] = {"input": launch.inputs, "data": launch.data}
        for folder in ("input", "data", "output", "stages"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
            for name, content in brought.get(folder, {}).items():
                put(content, directory / folder / Path(name).name)
        if not self._example(launch.package):
            _begin(COMPONENTS[0], directory)

    def _run_example(self, example: str, launch: AcceptedStart, directory: Path) -> None:
        # The same input gives the same files: many runs of one test need the programs only once.
        content = [example, dict(launch.inputs), dict(launch.data), dict(launch.variables)]
        key = json.dumps(content, sort_keys=True, default=str)
        with self._lock:
            known = self._made.get(key)
        if known is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            known = Path(tempfile.mkdtemp(dir=self._folder))
            self._examples.simulate(example, launch, known)
            with self._lock:
                self._made[key] = known
        shutil.copytree(known, directory, dirs_exist_ok=True)

    def _described_as(self, package: Mapping[str, Any]) -> Description | None:
        named = self._described.get(package["metadata"]["package"]["name"])
        return named or self._described.get(_location(package).get("url", ""))

    def _example(self, package: Mapping[str, Any]) -> str | None:
        """The example that a package is, None if it is another one or was described as something else."""
        source = self._examples.source(_location(package).get("url", ""))
        return source.name if source and self._described_as(package) is None else None


def _location(package: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the package of a definition is: the location in git, or in whatever it names instead."""
    source = package["base"]["packages"][0]["source"]
    first: Mapping[str, Any] = next(iter(source.values()), {})
    return first.get("location") or {}


def _need_local_repository(location: Mapping[str, Any]) -> None:
    url = urlsplit(location.get("url", ""))
    path = unquote(url.path)
    if url.scheme == "file" and not Path(path).exists():
        raise PackageProblem(
            f"Cannot git-clone with location {dict(location)} without using any oauth credentials. Double "
            "check that the location is correct and set to public. Underlying error: Unable to clone - "
            f"git-stderr: fatal: '{path}' does not appear to be a git repository\n"
        )


def _begin(component: Component, directory: Path) -> None:
    folder = directory / component.directory
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "out.stdout").write_text(f"This is {component.reference}\n")
    (folder / "out.stderr").write_text("")


def _write(target: Path, content: bytes | Mapping[str, bytes]) -> None:
    parts = {"": content} if isinstance(content, bytes) else content
    for path, part in parts.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(part)
