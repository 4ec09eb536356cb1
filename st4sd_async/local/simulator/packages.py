"""
The packages of simulated runs, and the files that the runs produce.

A package is an example, was described with `LocalServer.describe`, was read, or is unknown. Runs of examples execute
the programs of the example; other runs produce files with fixed content.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from st4sd_async.local.engine import flowir as language
from st4sd_async.local.engine.dsl_to_flowir import flowir_from_dsl
from st4sd_async.local.engine.flowir import Reference, parse_reference
from st4sd_async.local.engine.interface import (
    AcceptedStart,
    Content,
    PackageContent,
    PackageFacts,
    PackageProblem,
    write_content,
)
from st4sd_async.local.engine.packages import USER_INFO, ClonedPackages, clone_problem
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed
from st4sd_async.local.examples.examples import Component, Example, Examples, input_ids, load_examples, write_reports
from st4sd_async.local.examples.programs import ProgramRunner
from st4sd_async.local.simulator.components import STDOUT, RunComponent, standard_output
from st4sd_async.local.simulator.reader import (
    UNUSABLE,
    UnsupportedPackage,
    made_up_parts,
    package_folders,
    read_content,
    read_package,
)

log: logging.Logger = logging.getLogger("st4sd_async.local")

MAX_READ_PACKAGES = 100
"""Size of the cache of packages that were read; expanding the components of a package takes milliseconds."""
FAILURE = "Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.Compute. Returncode 1. Reason KnownIssue\n"
"""The error description of a failed component of a package that is not an example."""
STDERR_OF_FAILURE = """Traceback (most recent call last):
  File "<simulator>", line 1, in {name}
RuntimeError: the failure of {reference} is simulated
"""
"""The standard error of a failed component whose program is not executed."""
_FIRST = Component(stage=0, name="Compute", script="bin/compute.py")
_LAST = replace(_FIRST, stage=1, arguments=(f"{{instance}}/{_FIRST.directory}/out.stdout",))
_COPIES = ("copy", "copyout", "link", "extract")
"""Methods of references that place the files in the directory of the component."""
_MUST_BE_USED = {"ref": "", "output": " "}
"""Methods whose references must be in the command line -> whether the orchestrator's message has a space there."""
_PERFORMANCE = (
    "component-launch-time, can-consume, output-available, delta-last-task, task-run-time, data-produced, "
    "task-production-rate, component-production-rate, exit-code, scheduler-id, epoch-submitted, epoch-started, "
    "epoch-finished\n"
)
EXPANDED_EXAMPLES = 128
"""Size of the cache of components of examples; expanding them takes a millisecond."""
COMPONENTS = (_FIRST, _LAST)
"""The components of an unknown package; its key-outputs are in the directory of the last component."""


@dataclass(frozen=True)
class PackageDescription:
    """The content of a package, as described by `LocalServer.describe`."""

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
    """The content of ``output/properties.csv``. None means that there are no properties."""
    problem: str | None = None
    """Why a push of the package is rejected. None means that it is accepted."""


class Package:
    """A package whose content is unknown or was described; the base class of all other packages."""

    usual_outcome: str = "success"
    failure: str = FAILURE
    examples: tuple[Component, ...] = COMPONENTS
    """Its components, in the form of those of examples."""

    def __init__(self, description: PackageDescription | None) -> None:
        self._description = description or PackageDescription()
        self._is_described = description is not None

    def components(self, start: AcceptedStart) -> Sequence[RunComponent]:
        """Return the components of a run in the order of their stages."""
        return [RunComponent.from_example(component, start.all_variables) for component in self.examples]

    @property
    def stages(self) -> list[str]:
        """The names of the stages."""
        return sorted({f"stage{component.stage}" for component in self.examples})

    @property
    def setup_problem(self) -> str | None:
        """Why the orchestrator rejects the package when the run begins; None if it accepts the package."""
        return None

    def variables(self, start: AcceptedStart) -> dict[str, Any]:
        """Return the variables of a run: ``global``, and those of each ``stage``."""
        users = dict(start.variables)
        return {"global": start.all_variables, "stage": {str(index): users for index in range(len(self.stages))}}

    @property
    def outputs(self) -> dict[str, str]:
        """key-output -> its path in the instance directory."""
        return {name: f"{_LAST.directory}/{name}" for name in self._description.outputs}

    def interface(self, start: AcceptedStart, *, succeeded: bool) -> dict[str, Any]:
        """Return the interface with the files that the run added to it; {} if the package has no interface."""
        # The registry stores no interface if the package has several platforms.
        registry = start.package["metadata"]["registry"]
        interface = dict(self._description.interface if self._is_described else registry["interface"])
        files = ["output/properties.csv"] if succeeded and self._description.properties is not None else []
        return {**interface, "outputFiles": files} if interface else {}

    def write_inputs(self, start: AcceptedStart, directory: Path) -> None:
        """Create the instance directory with the files of the start and of the first component, unless they exist."""
        _write_start_files(start, directory)
        _write_logs(_FIRST, directory)

    def write_results(self, start: AcceptedStart, directory: Path) -> None:
        """Add the files of a finished run to the instance directory."""
        self.write_inputs(start, directory)
        _write_logs(_LAST, directory)
        write_reports(dict.fromkeys(COMPONENTS, "finished"), directory / "output")
        if self._description.properties is not None:
            (directory / "output" / "properties.csv").write_text(self._description.properties)
        for name, content in self._description.outputs.items():
            _write_output(directory / _LAST.directory / name, content)

    def write_failure(self, start: AcceptedStart, directory: Path) -> None:
        """Add the files of a run whose first component failed to the instance directory."""
        self.write_inputs(start, directory)
        failed, *others = self.components(start)
        _write_logs(failed, directory)
        stderr = STDERR_OF_FAILURE.format(name=failed.name, reference=failed.reference)
        write_content(stderr, directory / failed.directory / "out.stderr")
        write_reports({failed: "failed"} | dict.fromkeys(others, "component_shutdown"), directory / "output")


class ExamplePackage(Package):
    """The package of an example."""

    def __init__(self, example: Example, results: _ExampleResults, description: PackageDescription | None) -> None:
        super().__init__(None)
        self._described = description or PackageDescription()
        self._example = example
        self._results = results
        self.examples = example.components
        if example.failure is not None:
            self.usual_outcome, self.failure = "component-failure", example.failure

    def components(self, start: AcceptedStart) -> Sequence[RunComponent]:
        """Return the components of a run in the order of their stages."""
        return _example_components(self._example.name, start.platform, tuple(sorted(start.variables.items())))

    def variables(self, start: AcceptedStart) -> dict[str, Any]:
        """Return the variables of a run: ``global``, and those of each ``stage``."""
        flowir = example_content(self._example.name).flowir
        return _variables(flowir, start.platform or language.DEFAULT, self.stages, start.variables)

    @property
    def outputs(self) -> dict[str, str]:
        """key-output -> its path in the instance directory; {} if runs of the example fail."""
        return {} if self._example.failure else dict(self._example.outputs)

    def interface(self, start: AcceptedStart, *, succeeded: bool) -> dict[str, Any]:
        """Return the interface with the input ids and the files that the run added; {} if there is no interface."""
        interface, ids = super().interface(start, succeeded=succeeded), self._example.input_ids(start)
        if not interface or ids is None:
            return interface
        files = ["output/input-ids.json", *(["output/properties.csv"] if succeeded else [])]
        return {**interface, "inputs": ids, "additionalInputData": {}, "outputFiles": files}

    def write_inputs(self, start: AcceptedStart, directory: Path) -> None:
        """Create the instance directory with the files of the start, unless they exist."""
        _write_start_files(start, directory)

    def write_results(self, start: AcceptedStart, directory: Path) -> None:
        """
        Execute the programs of the example in the instance directory, or copy the files of an equal run.

        Described key-outputs and properties replace those of the programs.
        """
        self._results.write(self._example, start, directory)
        for name, path in self.outputs.items():
            if name in self._described.outputs:
                _write_output(directory / path, self._described.outputs[name])
        if self._described.properties is not None:
            (directory / "output" / "properties.csv").write_text(self._described.properties)


class BrokenPackage(Package):
    """A package that became unusable after the push. Its runs fail at set-up."""

    def __init__(self, problem: str) -> None:
        super().__init__(None)
        self._problem = problem

    @property
    def setup_problem(self) -> str | None:
        """Why the package is unusable."""
        return self._problem


class FlowirPackage(Package):
    """
    A package whose FlowIR is known, because it was read or is a lambda, for starts with equal platform and variables.

    No program is executed. Components, files and key-outputs have their real names. The content of files is made up,
    except files of the package and of the start, and copies of them. A path without a suffix is a file, unless a
    reference names a path below it.
    """

    def __init__(
        self,
        content: PackageContent,
        folders: Mapping[str, Path],
        start: AcceptedStart,
        description: PackageDescription | None = None,
    ) -> None:
        """
        Args:
            content: The definition of the package.
            folders: Folder of the instance directory -> the folder of the package to copy.
            start: The first of these starts.
            description: The content of key-outputs, and properties. None means that the package was not described.
        """
        super().__init__(description)
        if content.dsl is not None:  # in DSL 2.0, variables are arguments of the entrypoint
            flowir = language.with_defaults(flowir_from_dsl(content.dsl, start.variables), content.folders)
            content = replace(content, flowir=flowir)
        self._flowir = content.flowir
        self._folders = folders
        self._platform = start.platform or language.DEFAULT
        expanded = language.expanded(content.flowir, self._platform, content.folders, start.variables)
        self._components = [RunComponent.from_flowir(component, content.folders) for component in expanded]
        self._outputs = _output_paths(content.flowir["output"], self._components)
        first = self._components[0]
        job = f"Job: {first.reference}. Returncode 1. Reason KnownIssue"
        self.failure = f"Stage {first.stage} failed. Reason:\n1 jobs failed unexpectedly.\n{job}\n"

    def components(self, start: AcceptedStart) -> Sequence[RunComponent]:
        """Return the components in the order of their stages, replicas included."""
        return self._components

    @property
    def stages(self) -> list[str]:
        """The names of the stages."""
        return [f"stage{stage}" for stage in sorted({component.stage for component in self._components})]

    @property
    def outputs(self) -> dict[str, str]:
        """key-output -> its path in the instance directory; those of unknown components are left out."""
        return self._outputs

    @property
    def setup_problem(self) -> str | None:
        """The error if the platform is unknown or a component does not use one of its references; otherwise None."""
        if self._platform not in self._flowir["platforms"]:
            return _unknown_platform(self._flowir, self._platform)
        return next(filter(None, map(_unused_reference, self._components)), None)

    def variables(self, start: AcceptedStart) -> dict[str, Any]:
        """Return the variables of a run: ``global``, and those of each ``stage``."""
        return _variables(self._flowir, self._platform, self.stages, start.variables)

    def interface(self, start: AcceptedStart, *, succeeded: bool) -> dict[str, Any]:
        """Return the interface, with the input ids if an input file has them; {} if there is no interface."""
        interface, files = dict(self._flowir["interface"] or {}), []
        ids = _input_ids(interface, start)
        if ids is not None:
            interface |= {"inputs": ids, "additionalInputData": {}}
            files.append("output/input-ids.json")
        if succeeded and self._description.properties is not None:
            files.append("output/properties.csv")
        return {**interface, "outputFiles": files} if interface else {}

    def write_inputs(self, start: AcceptedStart, directory: Path) -> None:
        """Create the instance directory with the files of the package, of the start and of the first stage."""
        if (directory / "stages").exists():
            return
        for name, folder in self._folders.items():
            if folder.is_dir():
                shutil.copytree(folder, directory / name, symlinks=True, dirs_exist_ok=True)
        _write_start_files(start, directory)
        for name, text in start.scripts.items():
            write_content(text, directory / "bin" / Path(name).name)
        if start.variables:
            text = json.dumps({"global": dict(start.variables)}, indent=2)  # JSON is YAML
            write_content(text, directory / "input" / "variables.yaml")
        for component in self._components:
            if component.stage == self._components[0].stage:
                _write_logs(component, directory)

    def write_results(self, start: AcceptedStart, directory: Path) -> None:
        """Add the files of all components to the instance directory."""
        self.write_inputs(start, directory)
        paths: dict[str, set[str]] = {component.directory: set() for component in self._components}
        by_reference = {component.reference: component.directory for component in self._components}
        for component in self._components:
            for producer, files in component.producers.items():
                if producer in by_reference:
                    paths[by_reference[producer]].update(files)
        for path in self.outputs.values():
            _, stage, component_name, *parts = path.split("/")
            paths[f"stages/{stage}/{component_name}"].add("/".join(parts))
        for component in _in_order(self._components):
            folder = directory / component.directory
            folder.mkdir(parents=True, exist_ok=True)
            _copy_references(component, directory)
            _write_logs(component, directory, standard_output(component, directory))
            write_content(_PERFORMANCE, folder / "component_performance.csv")
            for name, path in self.outputs.items():
                if name in self._description.outputs and path.startswith(f"{component.directory}/"):
                    _write_output(directory / path, self._description.outputs[name])
            _write_made_up_files(folder, paths[component.directory], component.reference)
        write_reports(dict.fromkeys(self._components, "finished"), directory / "output")
        if self._description.properties is not None:
            (directory / "output" / "properties.csv").write_text(self._description.properties)
        ids = _input_ids(self._flowir["interface"] or {}, start)
        if ids is not None:
            write_content(json.dumps(ids, indent=4), directory / "output" / "input-ids.json")
            write_content("{}", directory / "output" / "additional_input_data.json")


def _at(definition: Mapping[str, Any], commit: str) -> dict[str, Any]:
    """Return a definition whose package is at a commit."""
    changed = copy.deepcopy(dict(definition))
    changed["base"]["packages"][0]["source"]["git"]["version"] = commit
    return changed


def _in_order(components: Sequence[RunComponent]) -> Iterable[RunComponent]:
    """Return components in the order of their dependencies, or in the given order if there is a cycle."""
    by_reference = {component.reference: component for component in components}
    graph = {reference: list(component.producers) for reference, component in by_reference.items()}
    try:
        order = [*TopologicalSorter(graph).static_order()]
    except CycleError:
        return components
    return [by_reference[reference] for reference in order if reference in by_reference]


def _output_paths(outputs: Mapping[str, Any], components: Iterable[RunComponent]) -> dict[str, str]:
    """Return key-output -> its path in the instance directory; those of unknown components are left out."""
    directories = {component.reference: component.directory for component in components}
    found = {name: _output_reference(entry) for name, entry in sorted(outputs.items())}
    return {
        name: "/".join(filter(None, [directories[reference.target], _produced_path(reference)]))
        for name, reference in found.items()
        if reference.target in directories
    }


def _output_reference(entry: Mapping[str, Any]) -> Reference:
    """Return the reference of a key-output; if it has several stages, the last one counts."""
    stages = [int(str(stage).removeprefix("stage")) for stage in entry.get("stages") or ()]
    return parse_reference(str(entry["data-in"]), max(stages, default=None))


def _produced_path(reference: Reference) -> str | None:
    return STDOUT if reference.method == "output" else reference.path


def _unknown_platform(flowir: Mapping[str, Any], platform: str) -> str:
    components = flowir["components"]
    reason = f'Unknown platform "{platform}" known platforms {flowir["platforms"]}'
    missing = "Inconsistent FlowIR: unable to get the component definition for component"
    errors = [f"{missing} stage{one['stage']}.{one['name']}. Underlying exception: {reason}" for one in components]
    return "\n".join(
        [
            "ExperimentSetupError Error encountered while setting up experiment.",
            "Package validation failed - cannot deploy",
            "Underlying error: Errors when loading configuration",
            "Underlying error:",
            f" (FlowIRConfigurationErrors) Found {len(errors)} errors with configuration at /tmp/pod/package. Errors:",
            *errors,
        ]
    )


def _unused_reference(component: RunComponent) -> str | None:
    arguments = component.flowir["command"]["arguments"]
    for reference in component.references:
        absolute, relative = str(reference), str(reference).removeprefix(f"stage{reference.stage}.")
        if reference.method in _MUST_BE_USED and relative not in arguments:
            place = f"command line{_MUST_BE_USED[reference.method]}("
            return (
                f"UnusedDataReferenceError Reference {absolute} declared by component {component.reference} is not "
                f"used. Reason:\nAll declared references of type '{reference.method}' must be used in component {place}"
                f'could find neither "{absolute}" nor "{relative}" in "{arguments}"'
            )
    return None


def _variables(
    flowir: Mapping[str, Any], platform: str, stages: Sequence[str], users: Mapping[str, str]
) -> dict[str, Any]:
    """Return the variables of a run. Those of the package keep their types, those of the user are strings."""
    known = {**language.global_variables(flowir, platform), **users}
    indexes = [stage.removeprefix("stage") for stage in stages]
    values = {index: {**language.stage_variables(flowir, platform, index), **users} for index in indexes}
    return {
        "global": _filled_in(known, known),
        "stage": {index: _filled_in(own, {**known, **own}) for index, own in values.items()},
    }


def _filled_in(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: language.fill_in(value, known) for name, value in values.items()}


def _input_ids(interface: Mapping[str, Any], start: AcceptedStart) -> list[str] | None:
    """Return the input ids of a start; None if the interface does not read them from a column of an input file."""
    method = (interface.get("inputSpec") or {}).get("inputExtractionMethod") or {}
    source = (method.get("csvColumn") or {}).get("source") or {}
    path, column = source.get("path"), ((method.get("csvColumn") or {}).get("args") or {}).get("column")
    return input_ids(start, Path(path).name, column) if path and column else None


def _write_made_up_files(folder: Path, paths: Iterable[str], reference: str) -> None:
    names = sorted(path.strip("/") for path in paths)
    for name in names:
        target = (folder / name).resolve()
        if not name or target.exists() or not target.is_relative_to(folder.resolve()):
            continue
        if any(other.startswith(f"{name}/") for other in names):
            target.mkdir(parents=True)
        else:
            write_content(f"This is {name} of {reference}\n", target)


def _copy_references(component: RunComponent, instance: Path) -> None:
    """Copy the files that a component refers to into its directory; skip those that do not exist."""
    for reference in component.references:
        producer = reference.producer
        if reference.stage is not None:
            producer = f"stages/stage{reference.stage}/{producer}"
        source = (instance / producer / (reference.path or "")).resolve()
        target = instance / component.directory / source.name
        if reference.method not in _COPIES or not source.is_relative_to(instance.resolve()) or target.exists():
            continue
        if source.is_dir() and not target.resolve().is_relative_to(source):
            shutil.copytree(source, target)
        elif source.is_file():
            shutil.copyfile(source, target)


class Packages:
    """The packages of one server. Safe to use from any thread."""

    def __init__(self, examples: Examples, folder: Path, clones: Path, *, fetch: bool = False) -> None:
        """
        Args:
            examples: The examples of the server.
            folder: The folder for executed examples.
            clones: The folder for clones.
            fetch: Whether to read packages from remote git repositories too, not only from those on this machine.
        """
        self._examples = examples
        self._results = _ExampleResults(folder)
        self._descriptions: dict[str, PackageDescription] = {}
        self._read: dict[tuple[Hashable, ...], FlowirPackage] = {}
        """Cache of the packages that were read, by everything in a start that changes its components."""
        self._processes = ChildProcesses()
        self._clones = ClonedPackages(clones, read_package, self._processes)
        self._fetch = fetch

    def describe(self, name_or_url: str, description: PackageDescription) -> None:
        """Set the content of a package, given by the name of its experiment or by its URL."""
        self._descriptions[name_or_url] = description
        self._read.clear()

    def find(self, start: AcceptedStart) -> Package:
        """Return the package of a start."""
        if start.flowir is not None:
            return _lambda_package(start)
        description = self._description(start.package)
        if self._is_read(start.package):
            try:
                return self._read_package(start, description)
            except UnsupportedPackage:
                return Package(description)
            except PackageProblem as error:
                return BrokenPackage(str(error))
        example = self._examples.find(_location(start.package).get("url", ""))
        return ExamplePackage(example, self._results, description) if example else Package(description)

    def _read_package(self, start: AcceptedStart, description: PackageDescription | None) -> FlowirPackage:
        """Read the package of a start; raise `PackageProblem` if it can no longer be cloned or is unusable."""
        key = (repr(start.package["base"]), start.platform, tuple(sorted(start.variables.items())), id(description))
        package = self._read.get(key)
        if package is None:
            try:
                folders = package_folders(*self._clones.paths(start.package))
                package = FlowirPackage(self._clones.content(start.package), folders, start, description)
            except GitFailed as error:
                raise PackageProblem(str(error)) from error
            except UNUSABLE as error:
                raise PackageProblem(f"{type(error).__name__} {error}") from error
            if len(self._read) >= MAX_READ_PACKAGES:
                self._read.clear()
            self._read[key] = package
        return package

    def facts(self, definition: Mapping[str, Any]) -> PackageFacts:
        """
        Return the facts about a package that a push records in its definition.

        Raises:
            PackageProblem: The description has a problem, or the package was read and is unusable.
        """
        location, description = _location(definition), self._description(definition)
        if description is not None and description.problem is not None:
            raise PackageProblem(description.problem)
        if self._is_read(definition):
            try:
                facts = self._clones.facts(definition)
            except UnsupportedPackage as error:
                log.warning("%s", _not_read(location["url"], str(error)))
            else:
                content = self._clones.content(_at(definition, facts.version))
                known = description or PackageDescription()
                if made_up := made_up_parts(content, known.outputs, has_properties=known.properties is not None):
                    log.info("the simulator executes no programs of %s: %s", location["url"], "; ".join(made_up))
                return facts
        elif example := self._examples.find(location.get("url", "")):
            return self._examples.facts(example.name)
        elif description is None:
            reason = "it is on another machine, and packages are not fetched (serve --fetch)"
            log.warning("%s", _not_read(location.get("url", "?"), reason))
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
            is_known=description is not None,
        )

    def content(self, definition: Mapping[str, Any]) -> PackageContent | None:
        """
        Return the content of the package of a stored definition; None if the package is not read.

        Raises:
            PackageProblem: The package can no longer be cloned, or is unusable.
        """
        if not self._is_read(definition):
            example = self._examples.find(_location(definition).get("url", ""))
            return example_content(example.name) if example else None
        try:
            return self._clones.content(definition)
        except UnsupportedPackage:
            return None
        except GitFailed as error:
            raise PackageProblem(str(error)) from error

    def current(self, start: AcceptedStart) -> AcceptedStart:
        """
        Return a start with the current commit of its package, or with a problem if the package cannot be cloned.

        A cluster clones the package for each run. Packages that are not read never change.
        """
        definition = start.package
        if start.problem is not None or not self._is_read(definition):
            return start
        try:
            _, commit = self._clones.current(definition)
        except GitFailed as error:
            return replace(start, problem=clone_problem(error))
        if commit == definition["base"]["packages"][0]["source"]["git"].get("version"):
            return start
        return replace(start, package=_at(definition, commit))

    def close(self) -> None:
        """Kill running git commands and programs."""
        self._processes.close()
        self._results.close()

    def _is_read(self, definition: Mapping[str, Any]) -> bool:
        """Return whether the package is read: one in git that is no example, and on this machine unless `fetch`."""
        packages = definition["base"]["packages"]
        location = (packages[0]["source"].get("git") or {}).get("location") if len(packages) == 1 else None
        if not location or not location.get("url") or self._examples.find(location["url"]):
            return False
        return self._fetch or _is_local(location["url"])

    def _description(self, definition: Mapping[str, Any]) -> PackageDescription | None:
        by_name = self._descriptions.get(definition["metadata"]["package"]["name"])
        return by_name or self._descriptions.get(_location(definition).get("url", ""))


class _ExampleResults:
    """The files of executed examples. Equal starts of one server execute the programs once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._executed: dict[str, Path] = {}
        self._programs = ProgramRunner()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Kill running programs."""
        self._programs.close()

    def write(self, example: Example, start: AcceptedStart, directory: Path) -> None:
        content = [example.name, dict(start.inputs), dict(start.data), dict(start.variables)]
        key = json.dumps(content, sort_keys=True, default=str)
        with self._lock:
            executed = self._executed.get(key)
        if executed is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            executed = Path(tempfile.mkdtemp(dir=self._folder))
            example.run(start, executed, self._programs.run)
            with self._lock:
                self._executed[key] = executed
        shutil.copytree(executed, directory, dirs_exist_ok=True)


def _location(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the location of the package of a definition, in git or another source."""
    source = definition["base"]["packages"][0]["source"]
    first: Mapping[str, Any] = next(iter(source.values()), {})
    return first.get("location") or {}


def _not_read(url: str, reason: str) -> str:
    """Return the message about a package that is not read."""
    made_up = "its runs have two made-up components, any inputs, no key-outputs and no properties"
    return USER_INFO.sub("://***@", f"the simulator does not read the package at {url}: {reason}; {made_up}")


def _lambda_package(start: AcceptedStart) -> Package:
    """Return the package of an unregistered experiment; one with made-up components if its definition is unusable."""
    try:
        flowir = language.with_defaults(json.loads(json.dumps(start.flowir, default=str)), ("hooks",))
        return FlowirPackage(PackageContent(flowir), {}, start)
    except UNUSABLE as error:  # it may be invalid
        log.info("The definition of %s is not used: %s", start.rest_uid, error)
        return Package(None)


def _is_local(url: str) -> bool:
    """Return whether git would read a repository from the disk: ``file:///x``, ``/x``, ``./x``."""
    return url.startswith(("file://", "/", "./", "../"))


@cache
def example_content(name: str) -> PackageContent:
    """Return the content of the package of an example."""
    return read_content(load_examples()[name].package)


def _write_start_files(start: AcceptedStart, directory: Path) -> None:
    files: dict[str, Mapping[str, Content]] = {"input": start.inputs, "data": start.data}
    for folder in ("input", "data", "output", "stages"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.get(folder, {}).items():
            write_content(content, directory / folder / Path(name).name)


def _write_logs(component: Component | RunComponent, directory: Path, stdout: str | None = None) -> None:
    """Write the files of standard output and error. None means a made-up output."""
    folder = directory / component.directory
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STDOUT).write_text(f"This is {component.reference}\n" if stdout is None else stdout)
    (folder / "out.stderr").write_text("")


def _write_output(target: Path, content: bytes | Mapping[str, bytes]) -> None:
    """Write the content of a key-output, a file or a folder, in place of what is there."""
    if target.is_dir():
        shutil.rmtree(target)
    files = {"": content} if isinstance(content, bytes) else content
    for path, data in files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)


@lru_cache(EXPANDED_EXAMPLES)
def _example_components(
    name: str, platform: str | None, variables: tuple[tuple[str, str], ...]
) -> Sequence[RunComponent]:
    """Return the components of a run of an example on a platform, with these variables."""
    content = example_content(name)
    expanded = language.expanded(content.flowir, platform or language.DEFAULT, content.folders, dict(variables))
    return [RunComponent.from_flowir(component, content.folders) for component in expanded]
