"""
A program that checks a package with the orchestrator's libraries and prints JSON. It runs in its own process.

The libraries log whole components, and take a second and 150 MB to import. The hooks of the package, which are the
user's own code, are imported too, as the orchestrator does before a run.

    python -m st4sd_async._package.inspection PACKAGE [MANIFEST]

The output has ``problems`` (each [where, what]; ``where`` is an entry of the definition, or "") and, unless the
definition cannot be loaded, ``variables``, ``data``, ``platforms`` (sorted names) and ``outputs``.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import logging
import os
import re
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .._payload.lambda_check import Located, find_cycle, problems_in
from .._util.did_you_mean import DID_YOU_MEAN, did_you_mean

HOOKS_TIMEOUT = 20.0
"""Seconds until the process that imports the hooks is killed."""
MAX_MEMORY = 2 << 30
"""Bytes of memory that reading a package may take."""
_UNDERLYING = re.compile(r"\nUnderlying error:\n \(\w+\) ?(?:Found \d+ errors with configuration at .*\n)?")
"""Separator of an error and its cause in messages of the libraries."""
_UNKNOWN_VARIABLE = re.compile(r'Attempted to resolve "(?P<name>[^"]+)".* Context: (?P<known>\[.*\])', re.DOTALL)
"""Message of the libraries for an unknown variable. They list the variables that the component has."""
_UNKNOWN_REFERENCE = re.compile(
    r"Unknown reference to (?P<name>.+) in the command-line .* Component references (?P<known>\[.*?\]), all ",
    re.DOTALL,
)
"""Message of the libraries for a reference in arguments that is not in the references of the component."""
_UNKNOWN_OUTPUT = re.compile(
    r"Invalid value \S+\.keyOutput=(?P<name>.*?)(?:, did you mean (?P<close>.+)\?)? - valid choices"
)
"""Message of the libraries for a property of an unknown key-output."""
_NO_METHOD = re.compile(
    r"Invalid (?:reference '(?P<name>[^']*)' - missing reference method"
    r"|value \S+=(?P<output>\S+) - valid choices are .*FlowIR\.ParseDataReference)"
)
"""Messages of the libraries for a reference that does not end with a method, such as ``:ref``."""
_INPUT = "input/"
"""Prefix of a path to an input."""
_VARIABLE = "%("
"""Prefix of a reference to a variable. A path with such a reference is unknown until a run starts."""

_STAGE = re.compile(r"^stage\d+\.")
"""Prefix of a reference to a component; arguments may omit it."""
_TEXTUAL = ("ref", "output", "loopref", "loopoutput")
"""The methods of references that the orchestrator replaces in arguments. It refuses to run one that is not there."""


def inspect(package: str, manifest: str | None = None) -> dict[str, Any]:
    """Return the problems of a package, and the facts that it declares."""
    importlib.import_module("experiment.model.storage")
    _limit_memory()
    try:
        # Errors in the definition are collected below, for all platforms.
        configuration = _load(package, manifest, validate=False)
        concrete = configuration.get_flowir_concrete()
        folders = configuration.top_level_folders
    except MemoryError:
        raise
    except Exception as error:  # of any class: the definition cannot be loaded
        return {"problems": [in_plain_words(("", _reason(error, package, manifest)))]}
    problems = dict.fromkeys(_definition_problems(concrete, folders))
    if not problems:  # only a valid component has arguments to search
        problems |= dict.fromkeys(_unused_references(concrete))
    folder = Path(package)
    if folder.is_dir():
        problems |= dict.fromkeys(_file_problems(concrete, folder))
        if not any(where.startswith("interface") for where, _ in problems):
            problems |= dict.fromkeys(_apart(lambda: _interface_problems(concrete, folder)))
    data = folder / "data"
    variables = {str(name) for platform in concrete.platforms for name in _globals(concrete, platform)}
    return {
        "problems": [*map(with_reason, problems)],
        "variables": sorted(variables),
        "data": sorted(path.name for path in data.iterdir() if path.is_file()) if data.is_dir() else [],
        "platforms": sorted(concrete.platforms),
        "outputs": sorted(concrete.get_output()),
    }


def with_reason(problem: Located) -> Located:
    """Return a problem with a text, even if the libraries have none, as for an error of memory in a component."""
    where, what = problem
    return where, what or f"the libraries give no reason; they may need more than {MAX_MEMORY >> 30} GiB of memory"


def in_plain_words(problem: Located) -> Located:
    """Return a problem with a short text, if its text is one of the libraries' that list all that is known."""
    where, what = problem
    if found := _UNKNOWN_VARIABLE.match(what):
        name, known = found["name"], sorted(ast.literal_eval(found["known"]))
        return (
            where,
            f"there is no variable {name!r}{did_you_mean(name, known) or (f', only {known}' if known else '')}",
        )
    if found := _UNKNOWN_REFERENCE.match(what):
        name, known = found["name"], ast.literal_eval(found["known"])
        return where, f"the references of the component do not contain {name!r}{did_you_mean(name, known)}"
    if found := _UNKNOWN_OUTPUT.match(what):
        advice = f": {DID_YOU_MEAN} {found['close']!r}?" if found["close"] else ""
        return where, f"there is no key-output {found['name']!r}{advice}"
    if found := _NO_METHOD.match(what):
        name = found["name"] or found["output"]
        advice = f"'{name}:copy'" if found["output"] else f"'{name}:ref' or ':copy'"
        return where, f"the reference {name!r} has no method: write {advice}"
    return problem


def _limit_memory() -> None:
    """Limit the memory of this process to `MAX_MEMORY` more than it has now, where the system can do that."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        resource = importlib.import_module("resource")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_MEMORY, most))


def _apart(check: Callable[[], Iterator[Located]]) -> list[Located]:
    """
    Return the problems of the interface, which are found in a forked process.

    Hooks are programs of the user. In another process they can neither end the check nor write to its output.
    """
    if not hasattr(os, "fork"):
        return [*check()]
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the threads of the libraries are idle
        process = os.fork()
    if not process:
        try:
            os.close(reader)
            os.dup2(2, 1)
            _write(writer, json.dumps([*check()]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    report = _read(reader, HOOKS_TIMEOUT)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    if report is None:
        return [("interface", f"the hooks took longer than {HOOKS_TIMEOUT:g} s")]
    try:
        return [(str(where), str(what)) for where, what in json.loads(report)]
    except ValueError:
        return [("interface", "the hooks end the process that imports them: they must only define functions")]


def _write(pipe: int, report: bytes) -> None:
    with os.fdopen(pipe, "wb") as file:
        file.write(report)


def _read(pipe: int, timeout: float) -> bytes | None:
    """Return what is written to a pipe until it is closed; None if that takes too long."""
    deadline = time.monotonic() + timeout
    parts: list[bytes] = []
    with os.fdopen(pipe, "rb", buffering=0) as file:
        while select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = file.read(1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None


def _load(package: str, manifest: str | None, *, validate: bool) -> Any:
    """Return the configuration of a package."""
    storage = importlib.import_module("experiment.model.storage")
    return storage.ExperimentPackage.packageFromLocation(
        location=package, manifest=manifest, platform=None, validate=validate, variable_substitute=False
    ).configuration


def _reason(error: Exception, package: str, manifest: str | None) -> str:
    """Return why a package cannot be loaded. Without validation, the libraries drop the reason for some files."""
    if isinstance(error, AttributeError):
        try:
            _load(package, manifest, validate=True)
        except Exception as found:  # of any class, as above
            error = found
    return _UNDERLYING.split(str(error))[-1]


def _globals(concrete: Any, platform: str) -> dict[str, Any]:
    return {**concrete.get_default_global_variables(), **(concrete.get_platform_global_variables(platform) or {})}


def _definition_problems(concrete: Any, folders: list[str]) -> Iterator[Located]:
    """Yield the problems found by the libraries, then cycles and key-outputs of unknown components."""
    flowir = importlib.import_module("experiment.model.frontends.flowir").FlowIR
    for platform in concrete.platforms:
        concrete.configure_platform(platform)
        errors = concrete.validate(folders)
        yield from (in_plain_words(problem) for error in errors for problem in problems_in(error))
    if cycle := find_cycle(flowir, concrete):
        yield f"{cycle[0]}.references", f"the components wait for each other: {' <- '.join(cycle)}"
    yield from _output_problems(flowir, concrete)
    yield from _input_problems(flowir, concrete)


def _output_problems(flowir: Any, concrete: Any) -> Iterator[Located]:
    """Yield a problem for each key-output of an unknown component."""
    known = {f"stage{stage}.{name}" for stage, name in concrete.get_component_identifiers(True)}
    for output, entry in concrete.get_output().items():
        reference, stages = str(entry.get("data-in")), entry.get("stages") or [None]
        if ":" not in reference:  # the libraries have reported it
            continue
        for each in stages:
            number = None if each is None else int(str(each).removeprefix("stage"))
            stage, component, _, _ = flowir.ParseDataReferenceFull(
                reference, number, concrete.get_application_dependencies()
            )
            producer = component if stage is None else f"stage{stage}.{component}"
            if producer not in known and _VARIABLE not in producer:
                what = f"there is no component {producer!r}{did_you_mean(producer, known)}"
                yield f"output.{output}.data-in", what


def _input_problems(flowir: Any, concrete: Any) -> Iterator[Located]:
    """Yield a problem for each input that the interface reads and that a start cannot provide."""
    components = (
        concrete.get_component_configuration(each, raw=True, is_primitive=True)
        for each in concrete.get_component_identifiers(True)
    )
    references = [str(reference) for component in components for reference in component.get("references") or []]
    if any(_VARIABLE in reference for reference in references):
        return
    known = {reference.partition(":")[0] for reference in references if reference.startswith(_INPUT)}
    method = ((concrete.get_interface() or {}).get("inputSpec") or {}).get("inputExtractionMethod") or {}
    for name, entry in method.items():
        path = str(((entry or {}).get("source") or {}).get("path") or "")
        if path.startswith(_INPUT) and path not in known:
            what = f"no component refers to {path!r}, so a start cannot provide it{did_you_mean(path, known)}"
            yield f"interface.inputSpec.inputExtractionMethod.{name}.source.path", what


def _unused_references(concrete: Any) -> Iterator[Located]:
    """
    Yield the references that become text in the arguments of their component, and that these do not contain.

    Source: ``ComponentSpecification.checkDataReferences`` of the orchestrator, which needs the files of an instance.
    """
    flowir = importlib.import_module("experiment.model.frontends.flowir").FlowIR
    for platform in concrete.platforms:
        concrete.configure_platform(platform)
        for stage, name in sorted(concrete.get_component_identifiers(True)):
            component = concrete.get_component_configuration(
                (stage, name), is_primitive=True, include_default=True, ignore_convert_errors=True
            )
            arguments = component["command"].get("arguments")
            if arguments is None:
                continue
            for number, reference in enumerate(component.get("references") or []):
                spellings = (reference, _STAGE.sub("", reference))
                if flowir.ParseDataReference(reference)[2] in _TEXTUAL and not any(
                    spelling in str(arguments) for spelling in spellings
                ):
                    what = f"the arguments do not use {reference!r}: remove it, or use it in them exactly like this"
                    yield f"stage{stage}.{name}.references[{number}]", what


def _file_problems(concrete: Any, folder: Path) -> Iterator[Located]:
    """Yield a problem for each file of the package that a component uses and that is missing or not executable."""
    flowir = importlib.import_module("experiment.model.frontends.flowir").FlowIR
    top = {path.name for path in folder.iterdir() if path.is_dir()} | {"bin", "data", "hooks", "conf"} - {"input"}
    for stage, name in sorted(concrete.get_component_identifiers(True)):
        raw = concrete.get_component_configuration(
            (stage, name), raw=True, is_primitive=True, include_default=True, inject_missing_fields=True
        )
        used = {
            f"references[{number}]": flowir.ParseDataReference(str(reference))[0]
            for number, reference in enumerate(raw.get("references") or [])
        }
        used["command.executable"] = str((raw.get("command") or {}).get("executable") or "")
        for field, path in used.items():
            first, separator, _ = path.partition("/")
            if not separator or first not in top or _VARIABLE in path:
                continue
            file = folder / path
            if not file.exists():
                yield f"stage{stage}.{name}.{field}", f"the package has no file {path!r}{_similar(file)}"
            elif field == "command.executable" and not os.access(file, os.X_OK):
                yield f"stage{stage}.{name}.{field}", f"{path} is not executable: chmod +x {path}, and commit it"


def _similar(file: Path) -> str:
    names = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
    return did_you_mean(file.name, names)


def _interface_problems(concrete: Any, folder: Path) -> Iterator[Located]:
    """Yield the problems of the interface that prevent extraction of input ids and properties and need no run."""
    definition = concrete.get_interface()
    if not definition:
        return
    # A package is not an instance; the checks read only the path of the hooks.
    package = SimpleNamespace(instanceDirectory=SimpleNamespace(hooksDir=str(folder / "hooks")))
    interface = importlib.import_module("experiment.model.hooks.interface").Interface
    try:
        found = interface(definition, "interface")
    except Exception as error:  # of any class
        yield "interface", str(error)
        return
    checks = [("interface.inputSpec.inputExtractionMethod", found.input_extraction_method)]
    checks += [
        (f"interface.propertiesSpec[{number}].propertyExtractionMethod", method)
        for number, method in enumerate(found.properties_extraction_methods)
    ]
    for where, method in checks:
        try:
            method.validate(package, "interface")
        except Exception as error:  # the hooks may raise anything
            yield where, str(error)


def main(*arguments: str) -> None:
    """Print the result for the arguments of the command line."""
    with contextlib.redirect_stdout(sys.stderr):  # the libraries print
        logging.disable()
        try:
            result = inspect(*arguments)
        except MemoryError:
            result = {"problems": [("", f"the libraries need more than {MAX_MEMORY >> 30} GiB of memory to read it")]}
    sys.stdout.write(json.dumps(result, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
