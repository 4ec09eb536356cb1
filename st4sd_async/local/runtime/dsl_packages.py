"""
What a definition in DSL 2.0 tells about its experiment, and the package that fits it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha1
from typing import Any

from st4sd_async.local.engine.interface import PackageFacts
from st4sd_async.local.runtime.definitions import DEFINITION
from st4sd_async.local.runtime.dsl import Dsl, Problem, find
from st4sd_async.local.runtime.schema import read
from st4sd_async.local.runtime.store import register

KEYWORD = "internal-experiment"
"""What packages are marked with that were made for a DSL."""


def dsl_facts(dsl: Dsl) -> PackageFacts:
    """What a push of a valid definition learns: the parameters of its first template are all there is to choose."""
    entrypoint = dsl["entrypoint"]
    found = find(dsl, entrypoint["entry-instance"])
    parameters = found[2]["signature"]["parameters"] if found else []
    given = entrypoint["execute"][0]["args"]
    values = {one["name"]: given.get(one["name"], one["default"]) for one in parameters}
    names = {kind: tuple(_after(kind, values)) for kind in ("input.", "data.")}
    variables = {name: str(value) for name, value in values.items() if not name.startswith(("input.", "data."))}
    return PackageFacts(
        version=sha1(json.dumps(dsl, sort_keys=True).encode()).hexdigest(),
        inputs=names["input."],
        data=names["data."],
        outputs=tuple(str(output.get("name")) for output in entrypoint["output"]),
        variables={"default": variables},
        interface=entrypoint["interface"] or {},
    )


def _after(beginning: str, names: Mapping[str, Any]) -> list[str]:
    return sorted(name.removeprefix(beginning) for name in names if name.startswith(beginning))


def generated(dsl: Dsl, template: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[Problem]]:
    """The package for a valid definition, and what became of the template."""
    package: dict[str, Any] = read(
        DEFINITION, {"base": {"packages": [{"source": {}}]}, "metadata": {"package": {"name": "anonymous"}}}
    )
    register(package, dsl_facts(dsl))
    registry = package["metadata"]["registry"]
    del registry["createdOn"]
    if template is None:
        return package, []
    package["metadata"]["package"] = dict(template["metadata"]["package"])
    keywords = package["metadata"]["package"]["keywords"]
    package["metadata"]["package"]["keywords"] = [*keywords, *([] if KEYWORD in keywords else [KEYWORD])]
    changes = [
        _change("Erased base.packages", "base", "packages"),
        _change("Updated metadata.registry", "metadata", "registry"),
        _change("Inherited metadata.package from template", "metadata", "package"),
    ]
    known = {
        "variables": {one["name"] for one in registry["executionOptionsDefaults"]["variables"]},
        "data": {one["name"] for one in registry["data"]},
    }
    for kind, names in known.items():
        for part in ("presets", "executionOptions"):
            changes += _inherit(package, template, part, kind, names)
    return package, changes


def _inherit(
    package: dict[str, Any], template: Mapping[str, Any], part: str, kind: str, known: set[str]
) -> list[Problem]:
    """Take over what fits of a part of the template's parameterisation; what became of each item."""
    changes = []
    for index, option in enumerate(template["parameterisation"][part][kind]):
        where = ("parameterisation", part, kind, index)
        what = f"{part} for {kind.rstrip('s')} {option.get('name')}"
        if option.get("name") in known:
            package["parameterisation"][part][kind].append(option)
            changes.append(_change(f"Inherited {what} from template", *where))
        else:
            changes.append(_change(f"Removed {what}", *where))
    return changes


def _change(message: str, *location: str | int) -> Problem:
    return {"message": message, "location": list(location)}
