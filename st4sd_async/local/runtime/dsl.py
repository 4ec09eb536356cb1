"""
DSL 2.0: pydantic models with all defaults, and checks that follow the steps of workflows.

If st4sd-runtime-core is installed, it checks definitions. Otherwise, the checks of this module are used. They have the
same messages, but do not cover the form of names, the types of values, references to the outputs of other steps, or
the conversion to FlowIR.

Source:
    st4sd-runtime-core, ``experiment/model/frontends/dsl.py``; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from st4sd_async.local.engine.core_checks import find_dsl_problems
from st4sd_async.local.runtime.models import Model, SchemaError, Text, build

Dsl = dict[str, Any]
Problem = dict[str, Any]
Location = tuple[str | int, ...]


class Parameter(Model):
    name: Text
    default: Any = None


class Signature(Model):
    name: Text
    description: Text | None = None
    parameters: list[Parameter] = []


class ExecuteStep(Model):
    target: Text
    args: dict[str, Any] = {}


class ExecuteStepEntryInstance(ExecuteStep):
    target: Literal["<entry-instance>"] = "<entry-instance>"


class Entrypoint(Model):
    entry_instance: Text = Field(alias="entry-instance")
    execute: list[ExecuteStepEntryInstance] = []
    output: list[Any] = []
    interface: Any = None


class Workflow(Model):
    signature: Signature
    steps: dict[str, Text] = {}
    execute: list[ExecuteStep] = []


class CCommand(Model):
    executable: Any = None
    interpreter: Any = None
    arguments: Any = None
    environment: Any = None
    resolvePath: Any = False
    expandArguments: Any = "double-quote"


class CMemoizationDisable(Model):
    strong: Any = False
    fuzzy: Any = False


class CMemoization(Model):
    embeddingFunction: Text | None = None
    disable: CMemoizationDisable = CMemoizationDisable()


class COptimizer(Model):
    disable: Any = False
    exploitChance: Any = 0.9
    exploitTarget: Any = 0.75
    exploitTargetLow: Any = 0.25
    exploitTargetHigh: Any = 0.5


class CWorkflowAttributes(Model):
    stage: Any = None
    restartHookFile: Any = None
    restartHookOn: list[Any] = ["ResourceExhausted"]
    aggregate: Any = False
    replicate: Any = None
    repeatInterval: Any = None
    shutdownOn: list[Any] = []
    maxRestarts: Any = None
    repeatRetries: Any = None
    memoization: CMemoization = CMemoization()
    isMigratable: Any = False
    isMigrated: Any = False
    isRepeat: Any = False
    optimizer: COptimizer = COptimizer()


class CResourceRequest(Model):
    numberProcesses: Any = 1
    ranksPerNode: Any = 1
    numberThreads: Any = 1
    threadsPerCore: Any = 1
    memory: Any = None
    gpus: Any = None


class CResourceManagerConfig(Model):
    backend: Any = "local"
    walltime: Any = 60.0


class CResourceManagerLSF(Model):
    statusRequestInterval: Any = 20
    queue: Any = "normal"
    resourceString: Any = None
    reservation: Any = None
    dockerImage: Any = None
    dockerProfileApp: Any = None
    dockerOptions: Any = None


class CResourceManagerKubernetes(Model):
    image: Any = None
    qos: Any = None
    cpuUnitsPerCore: Any = None
    gracePeriod: Any = None
    podSpec: Any = None
    image_pull_secret: Any = Field(None, alias="image-pull-secret")
    namespace: Any = "default"
    api_key_var: Any = Field(None, alias="api-key-var")
    host: Any = "http://localhost:8080"


class CResourceManagerDocker(Model):
    image: Any = None
    imagePullPolicy: Any = "Always"
    platform: Any = None


class CResourceManager(Model):
    config: CResourceManagerConfig = CResourceManagerConfig()
    lsf: CResourceManagerLSF = CResourceManagerLSF()
    kubernetes: CResourceManagerKubernetes = CResourceManagerKubernetes()
    docker: CResourceManagerDocker = CResourceManagerDocker()


class Component(Model):
    signature: Signature
    command: CCommand
    workflowAttributes: CWorkflowAttributes = CWorkflowAttributes()
    resourceRequest: CResourceRequest = CResourceRequest()
    resourceManager: CResourceManager = CResourceManager()
    variables: dict[str, Any] = {}


class Namespace(Model):
    """A definition in DSL 2.0."""

    entrypoint: Entrypoint | None = None
    workflows: list[Workflow] = []
    components: list[Component] = []


TEMPLATES = {"workflows": "Workflow", "components": "Component"}
"""Field of a definition with a list of templates -> the class of its items."""
FILE_PREFIXES = ("input.", "data.")
"""Prefixes of parameters that are files of the experiment, and need no value at the entrypoint."""
_PARAMETER = re.compile(r"%\(([^)]+)\)s")


class InvalidDsl(Exception):
    """An invalid definition, with its problems in the form of the service's responses."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(str(problems))
        self.problems = problems


def parse(value: Any) -> Dsl:
    """Return a definition with all defaults filled in; raise `InvalidDsl` if it does not match the schema."""
    return shown(value)


def parse_and_check(value: Any) -> Dsl:
    """Return a definition with all defaults filled in; raise `InvalidDsl` if it cannot be executed."""
    problems = find_dsl_problems(value)
    if problems:
        raise InvalidDsl(problems)
    return check_without_core(value) if problems is None else parse(value)


def check_without_core(value: Any) -> Dsl:
    """Do the same as `parse_and_check`, with the checks of this module."""
    dsl = parse(value)
    problems = [*find_problems(dsl)] or [*_missing_executables(dsl)]
    if problems:
        raise InvalidDsl(problems)
    return dsl


def shown(
    value: Any, *, exclude_unset: bool = False, exclude_defaults: bool = False, exclude_none: bool = False
) -> Dsl:
    """
    Return a definition with or without fields that are unset, that equal their defaults, or that are null.

    Raises:
        InvalidDsl: The definition does not match the schema.
    """
    build(Namespace)
    try:
        return Namespace.model_validate(value).model_dump(
            by_alias=True, exclude_unset=exclude_unset, exclude_defaults=exclude_defaults, exclude_none=exclude_none
        )
    except ValidationError as error:
        raise InvalidDsl(SchemaError(error).problems) from error


def find_template(dsl: Mapping[str, Any], name: str) -> tuple[str, int, dict[str, Any]] | None:
    """Return the list that contains a template, its index in the list, and the template; None if it is unknown."""
    for kind in TEMPLATES:
        for index, template in enumerate(dsl[kind]):
            if template["signature"]["name"] == name:
                return kind, index, template
    return None


def find_problems(dsl: Dsl, arguments: Mapping[str, Any] | None = None) -> Iterator[Problem]:
    """
    Yield the problems of a definition that matches the schema.

    Args:
        dsl: The definition.
        arguments: Arguments to use instead of those of the entrypoint. None means those of the entrypoint.
    """
    entrypoint = dsl["entrypoint"]
    if entrypoint is None:
        yield _problem("Missing entrypoint", "entrypoint")
        return
    duplicates = [*_duplicate_names(dsl)]
    yield from duplicates
    if duplicates:
        return
    if len(entrypoint["execute"]) != 1:
        yield _problem("List should have exactly 1 item after validation", "entrypoint", "execute")
        return
    name = entrypoint["entry-instance"]
    found = find_template(dsl, name)
    if found is None:
        yield _problem(f"No template with name {name}", "entrypoint", "entry-instance")
        return
    kind, index, template = found
    if arguments is None:
        arguments = entrypoint["execute"][0]["args"]
    values, unknown, missing = _bind(template, arguments, is_entry=True)
    for parameter in unknown:
        yield _problem(f"Unknown parameter {parameter}", "entrypoint", "execute", 0)
    for position, parameter in missing:
        message = f"The parameter {parameter} in location entry-instance does not have a value or default"
        yield _problem(message, kind, index, "signature", "parameters", position)
    if not unknown and not missing:
        yield from _Traversal(dsl).check_template(name, values, ("entry-instance",), ("entrypoint", "execute", 0))


class _Traversal:
    """Checks all templates that can be reached from the entrypoint."""

    def __init__(self, dsl: Dsl) -> None:
        self._dsl = dsl
        self._stack: list[str] = []
        """Names of the workflows that enclose the current template, to detect cycles."""

    def check_template(
        self, name: str, values: Mapping[str, Any], path: tuple[str, ...], caller: Location
    ) -> Iterator[Problem]:
        """Yield the problems of a template called with these values, and of all templates below it."""
        found = find_template(self._dsl, name)
        if found is None:
            yield _problem(f"Node {list(path)} has no matching template", *caller)
        elif name in self._stack:
            yield _problem("The computational graph contains a cycle", *caller)
        elif found[0] == "components":
            yield from _unknown_references(found[2], found[1], values, caller)
        else:
            self._stack.append(name)
            yield from self._check_workflow(found[2], found[1], values, path)
            self._stack.pop()

    def _check_workflow(
        self, workflow: Mapping[str, Any], index: int, values: Mapping[str, Any], path: tuple[str, ...]
    ) -> Iterator[Problem]:
        executed = []
        for number, call in enumerate(workflow["execute"]):
            step = call["target"].strip("<>")
            executed.append(step)
            location: Location = ("workflows", index, "execute", number)
            if step not in workflow["steps"]:
                yield _problem(f"Node {[*path, step]} has no matching step", *location)
                continue
            name = workflow["steps"][step]
            unknown = [key for key in _referenced_parameters(call["args"]) if key not in values]
            for parameter in unknown:
                yield _problem(f"{workflow['signature']['name']} does not contain parameter {parameter}", *location)
            arguments = {key: _substitute(value, values) for key, value in call["args"].items()}
            inner, problems = self._check_arguments(name, arguments, location)
            yield from problems
            if not problems and not unknown:
                yield from self.check_template(name, inner, (*path, step), location)
        for step in workflow["steps"]:
            if step not in executed:
                message = f"Workflow [] does not contain an execute entry for its step {step}"
                yield _problem(message, "workflows", index, "execute")

    def _check_arguments(
        self, name: str, arguments: Mapping[str, Any], location: Location
    ) -> tuple[dict[str, Any], list[Problem]]:
        """Return the values of a template's parameters, and the problems of the arguments."""
        found = find_template(self._dsl, name)
        if found is None:
            return {}, []
        values, unknown, missing = _bind(found[2], arguments)
        problems = [_problem(f"{name} does not contain parameter {parameter}", *location) for parameter in unknown]
        for _, parameter in missing:
            message = f"The parameter {parameter} of {name} does not have a default value and is not given a value"
            problems.append(_problem(message, *location, "args"))
        return values, problems


def _duplicate_names(dsl: Dsl) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for kind, title in TEMPLATES.items():
        for index, template in enumerate(dsl[kind]):
            name = template["signature"]["name"]
            if name in seen:
                message = f"There already is a {seen[name]} template called {name}"
                yield _problem(message, kind, index, "signature", "name")
            seen.setdefault(name, title)


def _bind(
    template: Mapping[str, Any], arguments: Mapping[str, Any], *, is_entry: bool = False
) -> tuple[dict[str, Any], list[str], list[tuple[int, str]]]:
    """Return the values of a template's parameters, its unknown arguments, and its parameters without a value."""
    parameters = template["signature"]["parameters"]
    values = {parameter["name"]: parameter["default"] for parameter in parameters}
    unknown = [name for name in arguments if name not in values]
    values.update(arguments)
    missing = [
        (index, parameter["name"])
        for index, parameter in enumerate(parameters)
        if values[parameter["name"]] is None and not (is_entry and parameter["name"].startswith(FILE_PREFIXES))
    ]
    return values, unknown, missing


def _unknown_references(
    component: Mapping[str, Any], index: int, values: Mapping[str, Any], caller: Location
) -> Iterator[Problem]:
    """Yield a problem for each reference in a component's command line that is neither parameter nor variable."""
    place = "/".join(str(part) for part in caller)
    for field in ("executable", "arguments"):
        for name in _referenced_parameters({field: component["command"][field]}):
            if name not in values and name not in component["variables"]:
                reason = f'Reference to unknown parameter "{name}". Known parameters are {dict(values)}'
                message = f"The component was instantiated at {place}. Error: {reason}"
                yield _problem(message, "components", index, "command", field)


def _missing_executables(dsl: Dsl) -> Iterator[Problem]:
    """Yield a problem for each component in use that has no executable, which FlowIR rejects."""
    for workflow in dsl["workflows"]:
        for step, name in workflow["steps"].items():
            found = find_template(dsl, name)
            if found and found[0] == "components" and found[2]["command"]["executable"] is None:
                choices = "valid choices are [\"<class 'str'>\"]"
                yield {"problem": f"Invalid value stage0.{step}.command.executable=None - {choices}"}


def _referenced_parameters(arguments: Mapping[str, Any]) -> list[str]:
    """Return the names to which strings refer as ``%(name)s``."""
    return [name for value in arguments.values() if isinstance(value, str) for name in _PARAMETER.findall(value)]


def _substitute(value: Any, values: Mapping[str, Any]) -> Any:
    """Replace the references in a string by their values."""
    if not isinstance(value, str):
        return value
    return _PARAMETER.sub(lambda found: str(values.get(found[1], found[0])), value)


def _problem(message: str, *location: str | int) -> Problem:
    return {"message": message, "location": list(location)}
