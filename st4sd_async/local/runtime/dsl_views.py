"""
The definition of a stored experiment in DSL 2.0, in the manner in which the service makes it from FlowIR.

Packages are not read for that: the components of the example experiments are known, and of any other
package two stand for all it may have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from st4sd_async.local.examples.facts import EXAMPLES, Component
from st4sd_async.local.runtime.dsl import parse
from st4sd_async.local.simulator.descriptions import COMPONENTS

_NAME = re.compile(r"\{(\w+)\}")


def dsl_view(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition of an experiment, complete."""
    registry = definition["metadata"]["registry"]
    variables = _variables(registry)
    inputs = [entry["name"] for entry in registry["inputs"]]
    data = {f"data.{entry['name']}": f"data/{entry['name']}" for entry in registry["data"]}
    defaults = [{"name": name, "default": value} for name, value in {**data, **variables}.items()]
    parts = _components(definition)
    steps = [_step(part, variables, {f"input.{name}" for name in inputs} | set(data)) for part in parts]
    signature = {"name": "main", "parameters": [*({"name": f"input.{name}"} for name in inputs), *defaults]}
    arguments = {**variables, **{f"input.{name}": f"input/{name}" for name in inputs}, **data}
    return parse(
        {
            "entrypoint": {
                "entry-instance": "main",
                "execute": [{"target": "<entry-instance>", "args": arguments}],
            },
            "workflows": [
                {
                    "signature": signature,
                    "steps": {part.reference: part.reference for part in parts},
                    "execute": [step for step, _ in steps],
                }
            ],
            "components": [component for _, component in steps],
        }
    )


def _variables(registry: Mapping[str, Any]) -> dict[str, str]:
    known = registry["executionOptionsDefaults"]["variables"]
    return {one["name"]: one["valueFrom"][0]["value"] for one in known if one["valueFrom"]}


def _components(definition: Mapping[str, Any]) -> Sequence[Component]:
    source = definition["base"]["packages"][0]["source"]
    url = urlsplit((source.get("git") or {}).get("location", {}).get("url", ""))
    name = PurePosixPath(unquote(url.path)).name
    return EXAMPLES[name].components if url.scheme == "file" and name in EXAMPLES else COMPONENTS


def _step(part: Component, variables: Mapping[str, str], files: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The call of a component, and the component: what it refers to is handed to it as parameters."""
    arguments: dict[str, str] = {}
    words: list[str] = []
    for word in part.arguments:
        name = _NAME.fullmatch(word)
        if name and name[1] in variables:
            arguments[name[1]] = f"%({name[1]})s"
            words.append(f"%({name[1]})s")
        elif word.startswith("{instance}/"):
            key = f"param{len(arguments)}"
            arguments[key] = _reference(word.removeprefix("{instance}/"), files, "ref")
            words.append(f"%({key})s")
        else:
            words.append(word)
    for path in part.copies:
        arguments[f"param{len(arguments)}"] = _reference(path, files, "copy")
    call = {"target": f"<{part.reference}>", "args": arguments}
    signature = {"name": part.reference, "parameters": [{"name": name} for name in arguments]}
    command = {"executable": part.script, "arguments": " ".join(words)}
    return call, {"signature": signature, "command": command}


def _reference(path: str, files: set[str], method: str) -> str:
    """A file of the instance directory as workflows refer to it."""
    step = re.fullmatch(r"stages/(stage\d+)/([^/]+)/(.+)", path)
    if step:
        return f"<{step[1]}.{step[2]}>/{step[3]}:{method}"
    parameter = path.replace("/", ".", 1)
    return f"%({parameter})s:{method}" if parameter in files else f"{path}:{method}"
