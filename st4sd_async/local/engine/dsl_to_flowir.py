"""
Convert definitions in DSL 2.0 to FlowIR, as the orchestrator does before it runs them.

Each step that executes a component becomes a component of FlowIR with the values of its parameters. Definitions need
no check beforehand: a missing field or a value of the wrong type raises an error.

Source:
    st4sd-runtime-core, ``experiment/model/frontends/dsl.py`` (``namespace_to_flowir``); a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from st4sd_async.local.engine.flowir import Component, Flowir

Path = tuple[str, ...]
_ENTRY = "entry-instance"
_PARAMETER = re.compile(r"%\(([a-zA-Z0-9_.-]+)\)s")
_METHOD = r":(?P<method>ref|copy|output|link|extract)"
_OUTPUT = re.compile(rf'"?<(?P<steps>[^<>:"]+?)/?>"?(?:/(?P<path>[.A-Za-z0-9_/-]+))?(?:{_METHOD})?')
"""An output of a step: ``<step>/file.csv:ref``, ``<step/file.csv>:ref``, ``"<step>"/file.csv:ref``."""
_FILE = re.compile(rf'"?(?P<path>[.A-Za-z0-9_/-]+)"?{_METHOD}')
"""A file, or an output after its conversion: ``input/molecules.csv:copy``."""
_NAME = re.compile(r"(?:stage(?P<stage>\d+)\.)?(?P<name>.+)")
_FILE_PREFIXES = ("input.", "data.")
_NUMERALS = ((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))


@dataclass(frozen=True)
class _Step:
    """A step that executes a component."""

    path: Path
    """The names of the enclosing steps and of the step."""
    template: Mapping[str, Any]
    """The template of the component."""
    values: Mapping[str, Any]
    """parameter -> value, in which outputs of steps have full paths."""


def flowir_from_dsl(dsl: Mapping[str, Any], users: Mapping[str, Any] | None = None) -> Flowir:
    """
    Return the FlowIR of a definition in DSL 2.0.

    Args:
        dsl: The definition in DSL 2.0.
        users: Arguments that replace those of the entrypoint. None means no arguments.

    Raises:
        AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError: The definition is invalid.
    """
    entrypoint = dsl["entrypoint"]
    templates = {
        template["signature"]["name"]: template
        for kind in ("workflows", "components")
        for template in dsl.get(kind) or ()
    }
    entry = templates[entrypoint[_ENTRY]]
    arguments = {**(entrypoint["execute"][0].get("args") or {}), **(users or {})}
    values = {**_defaults(entry, is_entry=True), **arguments}
    steps = [*_steps(templates, entry, values, (_ENTRY,))]
    names = _component_names(steps)
    environments: dict[str, dict[str, Any]] = {}
    components = [_component(step, names, environments) for step in steps]
    global_variables = {
        name: value for name, value in values.items() if value is not None and not isinstance(value, dict)
    }
    outputs = {output["name"]: _key_output(output, names) for output in entrypoint.get("output") or ()}
    interface = {"interface": entrypoint["interface"]} if entrypoint.get("interface") else {}
    return {
        "variables": {"default": {"global": global_variables}},
        "environments": {"default": environments},
        "components": components,
        "output": outputs,
        **interface,
    }


def _defaults(template: Mapping[str, Any], *, is_entry: bool = False) -> dict[str, Any]:
    """Return the default values of parameters; in the entry template, files have their paths as defaults."""
    parameters = template["signature"].get("parameters") or ()
    files = {
        parameter["name"]: parameter["name"].replace(".", "/", 1)
        for parameter in parameters
        if is_entry and parameter["name"].startswith(_FILE_PREFIXES)
    }
    return {**files, **{parameter["name"]: parameter["default"] for parameter in parameters if "default" in parameter}}


def _steps(
    templates: Mapping[str, Any], template: Mapping[str, Any], values: Mapping[str, Any], path: Path
) -> Iterator[_Step]:
    """Yield the steps below a template: its components in reverse order, then the components of nested workflows."""
    if "execute" not in template and "steps" not in template:
        yield _Step(path, template, values)
        return
    workflows: list[tuple[Mapping[str, Any], dict[str, Any], Path]] = []
    components: list[tuple[Mapping[str, Any], dict[str, Any], Path]] = []
    for call in template["execute"]:
        name = call["target"].strip("<>")
        child = templates[template["steps"][name]]
        arguments = {key: _argument(value, values, path) for key, value in (call.get("args") or {}).items()}
        entry = (child, {**_defaults(child), **arguments}, (*path, name))
        if "execute" in child:
            workflows.append(entry)
        else:
            components.insert(0, entry)
    for child, arguments, child_path in [*components, *workflows]:
        yield from _steps(templates, child, arguments, child_path)


def _argument(value: Any, values: Mapping[str, Any], path: Path) -> Any:
    """Return an argument with the values of the workflow's parameters and with full paths for outputs of steps."""
    if not isinstance(value, str):
        return value
    return _replace_parameters(_OUTPUT.sub(lambda match: _with_full_path(match, path), value), values)


def _with_full_path(match: re.Match[str], path: Path) -> str:
    steps = match["steps"].split("/")
    full = steps if steps[0] == _ENTRY else [*path, *steps]
    location = "/".join([*full, *([match["path"]] if match["path"] else [])])
    return f"<{location}>" + (f":{match['method']}" if match["method"] else "")


def _replace_parameters(value: Any, values: Mapping[str, Any]) -> Any:
    """Replace the parameters in all strings of a value; a string that is only a parameter becomes its value."""
    if isinstance(value, str):
        whole = _PARAMETER.fullmatch(value)
        if whole and whole[1] in values:
            return values[whole[1]]
        return _PARAMETER.sub(lambda match: str(values.get(match[1], match[0])), value)
    if isinstance(value, Mapping):
        return {key: _replace_parameters(item, values) for key, item in value.items()}
    return [_replace_parameters(item, values) for item in value] if isinstance(value, list) else value


def _component_names(steps: list[_Step]) -> dict[Path, tuple[int, str]]:
    """Return path of a step -> stage and name of its component; repeated names get a numeral."""
    occurrences: dict[str, int] = {}
    names = {}
    for step in steps:
        name = step.path[-1]
        number = occurrences[name] = occurrences.get(name, -1) + 1
        match = _NAME.fullmatch(f"{name}-{_numeral(number)}" if number else name)
        if match is None:
            raise ValueError(f"{name!r} is not a name of a step")
        names[step.path] = (int(match["stage"] or 0), match["name"])
    return names


def _numeral(number: int) -> str:
    text = ""
    for value, letters in _NUMERALS:
        while number >= value:
            number, text = number - value, text + letters
    return text


def _component(
    step: _Step, names: Mapping[Path, tuple[int, str]], environments: dict[str, dict[str, Any]]
) -> Component:
    """Return the component of a step, and add its environment to `environments`."""
    template = {key: value for key, value in step.template.items() if key != "signature"}
    component: Component = _replace_parameters(template, step.values)
    stage, name = names[step.path]
    command = component["command"] = {"arguments": "", **(component.get("command") or {})}
    command["environment"] = _environment(command.get("environment"), environments)
    # A parameter without a method gets it in the command line: ``%(file)s:ref``.
    texts = [str(command["arguments"]), *(value for value in step.values.values() if isinstance(value, str))]
    texts = [_OUTPUT.sub(lambda match: _reference(match, names), text) for text in texts]
    command["arguments"] = texts[0]
    references = sorted({f"{match['path']}:{match['method']}" for text in texts for match in _FILE.finditer(text)})
    return {"stage": stage, "name": name, **component, "references": references}


def _environment(value: Any, environments: dict[str, dict[str, Any]]) -> str | None:
    """Return the name of an environment; equal environments share it."""
    if value is None:
        return None
    if value in ({}, "none"):
        return "none"
    known = next((name for name, environment in environments.items() if environment == value), None)
    name = known or f"env{len(environments)}"
    environments.setdefault(name, value)
    return name


def _reference(match: re.Match[str], names: Mapping[Path, tuple[int, str]]) -> str:
    """Return an output of a step as a reference to a component; the longest path that is a step counts."""
    parts = tuple(match["steps"].split("/")) + tuple((match["path"] or "").split("/") if match["path"] else ())
    for length in range(len(parts), 0, -1):
        if parts[:length] in names:
            stage, name = names[parts[:length]]
            path = "/".join([f"stage{stage}.{name}", *parts[length:]])
            return path + (f":{match['method']}" if match["method"] else "")
    raise ValueError(f"{match[0]} is not an output of a step")


def _key_output(output: Mapping[str, Any], names: Mapping[Path, tuple[int, str]]) -> dict[str, Any]:
    match = _OUTPUT.fullmatch(output["data-in"])
    if match is None:
        raise ValueError(f"{output['data-in']!r} is not an output of a step")
    full = _OUTPUT.fullmatch(_with_full_path(match, (_ENTRY,)))
    other = {key: value for key, value in output.items() if key not in ("name", "data-in") and value is not None}
    return {**other, "data-in": _reference(full or match, names)}
