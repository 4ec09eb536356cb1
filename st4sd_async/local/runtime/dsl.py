"""
Checks on definitions in DSL 2.0, in the words of the orchestrator's own.

They follow the steps of workflows and the parameters that are handed down. What they do not do: the types of
values, references to the outputs of other steps, and all that comes of turning the DSL into FlowIR.

Source:
    st4sd-runtime-core, ``experiment/model/frontends/dsl.py``; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from st4sd_async.local.runtime.dsl_schema import NAMESPACE
from st4sd_async.local.runtime.schema import Invalid, read

Dsl = dict[str, Any]
Problem = dict[str, Any]
KINDS = {"workflows": "Workflow", "components": "Component"}
"""The lists of templates, and what an item of them is called."""
_REFERENCE = re.compile(r"%\(([^)]+)\)s")
_FILES = ("input.", "data.")
"""How the names of parameters begin that stand for files of the experiment, which need no value at the entrypoint."""


class InvalidDsl(Exception):
    """A definition that makes no sense; it has the problems as replies carry them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(str(problems))
        self.problems = problems


def parse(value: Any) -> Dsl:
    """A definition with all that was left out; raises `InvalidDsl` if it does not fit the schema."""
    try:
        return read(NAMESPACE, value, nulls=True)
    except Invalid as error:
        raise InvalidDsl(error.entries) from error


def validated(value: Any) -> Dsl:
    """A definition with all that was left out; raises `InvalidDsl` if it makes no sense."""
    dsl = parse(value)
    problems = [*semantic_problems(dsl)]
    if not problems:
        problems = [*_unrunnable(dsl)]
    if problems:
        raise InvalidDsl(problems)
    return dsl


def semantic_problems(dsl: Dsl, arguments: Mapping[str, Any] | None = None) -> Iterator[Problem]:
    """
    What is wrong with a definition that fits the schema.

    Args:
        dsl: The definition.
        arguments: Arguments of the entrypoint in place of its own.
    """
    entrypoint = dsl["entrypoint"]
    if entrypoint is None:
        yield _problem("Missing entrypoint", "entrypoint")
        return
    doubles = [*_doubles(dsl)]
    yield from doubles
    if doubles:
        return
    if len(entrypoint["execute"]) != 1:
        yield _problem("List should have exactly 1 item after validation", "entrypoint", "execute")
        return
    name = entrypoint["entry-instance"]
    found = find(dsl, name)
    if found is None:
        yield _problem(f"No template with name {name}", "entrypoint", "entry-instance")
        return
    given = entrypoint["execute"][0]["args"] if arguments is None else arguments
    kind, index, template = found
    values, unknown, missing = _bound(template, given, is_entry=True)
    for parameter in unknown:
        yield _problem(f"Unknown parameter {parameter}", "entrypoint", "execute", 0)
    for position, parameter in missing:
        told = f"The parameter {parameter} in location entry-instance does not have a value or default"
        yield _problem(told, kind, index, "signature", "parameters", position)
    if not unknown and not missing:
        yield from _Visit(dsl).template(name, values, ("entry-instance",), ("entrypoint", "execute", 0))


class _Visit:
    """A walk from the entrypoint to all templates that it leads to."""

    def __init__(self, dsl: Dsl) -> None:
        self._dsl = dsl
        self._open: list[str] = []
        """Names of the workflows on the way to where the walk is."""

    def template(
        self, name: str, values: Mapping[str, Any], path: tuple[str, ...], caller: tuple[str | int, ...]
    ) -> Iterator[Problem]:
        """What is wrong with a template and those below it, called from a place with these values."""
        found = find(self._dsl, name)
        if found is None:
            yield _problem(f"Node {list(path)} has no matching template", *caller)
        elif name in self._open:
            yield _problem("The computational graph contains a cycle", *caller)
        elif found[0] == "components":
            yield from _references(found[2], found[1], values, caller)
        else:
            self._open.append(name)
            yield from self._workflow(found[2], found[1], values, path)
            self._open.pop()

    def _workflow(
        self, workflow: Mapping[str, Any], index: int, values: Mapping[str, Any], path: tuple[str, ...]
    ) -> Iterator[Problem]:
        executed = []
        for number, call in enumerate(workflow["execute"]):
            step = call["target"].strip("<>")
            executed.append(step)
            where = ("workflows", index, "execute", number)
            if step not in workflow["steps"]:
                yield _problem(f"Node {[*path, step]} has no matching step", *where)
                continue
            name = workflow["steps"][step]
            unknown = [key for key in _referred(call["args"]) if key not in values]
            for parameter in unknown:
                yield _problem(f"{workflow['signature']['name']} does not contain parameter {parameter}", *where)
            handed = {key: _filled(value, values) for key, value in call["args"].items()}
            inner, problems = self._call(name, handed, where)
            yield from problems
            if not problems and not unknown:
                yield from self.template(name, inner, (*path, step), where)
        for step in workflow["steps"]:
            if step not in executed:
                told = f"Workflow [] does not contain an execute entry for its step {step}"
                yield _problem(told, "workflows", index, "execute")

    def _call(
        self, name: str, given: Mapping[str, Any], where: tuple[str | int, ...]
    ) -> tuple[dict[str, Any], list[Problem]]:
        """The values that the parameters of a template get, and what is wrong with the arguments."""
        found = find(self._dsl, name)
        if found is None:
            return {}, []
        values, unknown, missing = _bound(found[2], given)
        problems = [_problem(f"{name} does not contain parameter {parameter}", *where) for parameter in unknown]
        problems += [
            _problem(
                f"The parameter {parameter} of {name} does not have a default value and is not given a value",
                *where,
                "args",
            )
            for _, parameter in missing
        ]
        return values, problems


def find(dsl: Mapping[str, Any], name: str) -> tuple[str, int, dict[str, Any]] | None:
    """The list that has a template, its index there, and the template; None if there is none."""
    for kind in KINDS:
        for index, template in enumerate(dsl[kind]):
            if template["signature"]["name"] == name:
                return kind, index, template
    return None


def _doubles(dsl: Dsl) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for kind, title in KINDS.items():
        for index, template in enumerate(dsl[kind]):
            name = template["signature"]["name"]
            if name in seen:
                told = f"There already is a {seen[name]} template called {name}"
                yield _problem(told, kind, index, "signature", "name")
            seen.setdefault(name, title)


def _bound(
    template: Mapping[str, Any], given: Mapping[str, Any], *, is_entry: bool = False
) -> tuple[dict[str, Any], list[str], list[tuple[int, str]]]:
    """The values of a template's parameters, arguments that are none of them, and those without a value."""
    parameters = template["signature"]["parameters"]
    values = {one["name"]: one["default"] for one in parameters} | dict(given)
    unknown = [name for name in given if name not in {one["name"] for one in parameters}]
    missing = [
        (index, one["name"])
        for index, one in enumerate(parameters)
        if values[one["name"]] is None and not (is_entry and one["name"].startswith(_FILES))
    ]
    return values, unknown, missing


def _references(
    component: Mapping[str, Any], index: int, values: Mapping[str, Any], caller: tuple[str | int, ...]
) -> Iterator[Problem]:
    """References to parameters in the command line of a component that it does not have."""
    place = "/".join(str(part) for part in caller)
    for field in ("executable", "arguments"):
        for name in _referred({field: component["command"][field]}):
            if name not in values and name not in component["variables"]:
                told = f'Reference to unknown parameter "{name}". Known parameters are {dict(values)}'
                text = f"The component was instantiated at {place}. Error: {told}"
                yield _problem(text, "components", index, "command", field)


def _unrunnable(dsl: Dsl) -> Iterator[Problem]:
    """What FlowIR would not take of components that are used."""
    for workflow in dsl["workflows"]:
        for step, name in workflow["steps"].items():
            found = find(dsl, name)
            if found and found[0] == "components" and found[2]["command"]["executable"] is None:
                choices = "valid choices are [\"<class 'str'>\"]"
                yield {"problem": f"Invalid value stage0.{step}.command.executable=None - {choices}"}


def _referred(arguments: Mapping[str, Any]) -> list[str]:
    """Names of the parameters that texts refer to: ``%(name)s``."""
    return [name for value in arguments.values() if isinstance(value, str) for name in _REFERENCE.findall(value)]


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """A text with the values of the parameters that it refers to."""
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda found: str(values.get(found[1], found[0])), value)


def _problem(message: str, *location: str | int) -> Problem:
    return {"message": message, "location": list(location)}
