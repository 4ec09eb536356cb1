"""
What comes of a relationship: an experiment with the base packages of both, whose variables come from both.

No package is read: links are found between variables of the same name, and the new experiment has the inputs, data
and key-outputs of its output graph's. The service would look at the components, and refuse what does not fit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from st4sd_async.local.engine.interface import PackageFacts
from st4sd_async.local.runtime.definitions import DEFINITION
from st4sd_async.local.runtime.schema import read
from st4sd_async.local.runtime.store import Definition, Store, register


class NotMade(Exception):
    """Nothing can be made of a relationship; the text says why."""

    @classmethod
    def unknown(cls, identifier: str) -> Self:
        """Because an experiment is not there."""
        return cls(f'Cannot find Parameterised Virtual Experiment Package "{identifier}"')


def full_identifier(identifier: str) -> str:
    """An identifier with the tag that it implies."""
    return identifier if ":" in identifier or "@" in identifier else f"{identifier}:latest"


def links(transform: dict[str, Any], store: Store) -> None:
    """Add the links between variables that both experiments have, unless that is not wanted."""
    relationship = transform["relationship"]
    if not relationship["inferParameters"]:
        return
    known = [store.get(transform[graph]["identifier"]) for graph in ("inputGraph", "outputGraph")]
    first, second = (_variables(definition) if definition else {} for definition in known)
    linked = {(one["inputGraphParameter"] or {}).get("name") for one in relationship["graphParameters"]}
    for name in sorted(set(first) & set(second) - linked):
        value = {"name": name, "value": None}
        relationship["graphParameters"].append(
            {"outputGraphParameter": dict(value), "inputGraphParameter": dict(value)}
        )


def synthesized(
    relationship: Mapping[str, Any],
    store: Store,
    name: str,
    parameterisation: Mapping[str, Any],
    *,
    generate: bool,
) -> Definition:
    """
    The definition of the experiment that a relationship gives, as the registry would have it.

    Args:
        relationship: The relationship, complete.
        store: The experiments there are.
        name: Name of the new one.
        parameterisation: What wins over what is generated.
        generate: Whether the rest comes from the output graph's experiment.

    Raises:
        NotMade: An experiment is gone.
        Invalid: The name will not do.
    """
    transform = relationship["transform"]
    replaced, replacement = (_experiment(store, transform[graph]) for graph in ("outputGraph", "inputGraph"))
    packages = [
        {**transform[graph]["package"], "name": transform[graph]["identifier"]}
        for graph in ("outputGraph", "inputGraph")
    ]
    options = _layered(replaced["parameterisation"], parameterisation) if generate else dict(parameterisation)
    definition = read(
        DEFINITION,
        {"base": {"packages": packages}, "metadata": {"package": {"name": name}}, "parameterisation": options},
    )
    registry = replaced["metadata"]["registry"]
    register(
        definition,
        PackageFacts(
            version="",
            inputs=_names(registry["inputs"]),
            data=_names(registry["data"]),
            outputs=_names(registry["output"]),
            platforms=tuple(registry["platforms"]),
            variables={"default": _merged(transform, _variables(replacement), _variables(replaced))},
            interface=registry["interface"],
        ),
    )
    # Of several packages none is the one that was cloned.
    definition["base"] = copy.deepcopy({**definition["base"], "packages": read_packages(packages)})
    return definition


def read_packages(packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Base packages as definitions have them."""
    found: list[dict[str, Any]] = read(DEFINITION, {"base": {"packages": packages}})["base"]["packages"]
    return found


def inheritance(definition: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Where the variables have their values from that both experiments of a synthesized one have."""
    packages = [package["name"] for package in definition["base"]["packages"]]
    known = {name: _variables(found) for name in packages if (found := store.get(name))}
    if len(known) != 2:
        return {"variables": {}}
    values = _variables(definition)
    first, second = known.values()
    names = list(known)
    variables = {}
    for name in sorted(set(first) & set(second)):
        winner, loser = (names[0], names[1]) if values.get(name) == first[name] else (names[1], names[0])
        overridden = [{"fromBasePackage": loser, "value": known[loser][name]}]
        value = {"value": values.get(name), "platform": "default", "overrides": overridden}
        variables[name] = {"fromBasePackage": winner, "values": [value]}
    return {"variables": variables}


def _experiment(store: Store, graph: Mapping[str, Any]) -> Definition:
    definition = store.get(graph["identifier"])
    if definition is None:
        raise NotMade.unknown(graph["identifier"])
    return definition


def _variables(definition: Mapping[str, Any]) -> dict[str, str]:
    known = definition["metadata"]["registry"]["executionOptionsDefaults"]["variables"]
    return {one["name"]: one["valueFrom"][0]["value"] for one in known if one["valueFrom"]}


def _merged(
    transform: Mapping[str, Any], replacement: Mapping[str, str], replaced: Mapping[str, str]
) -> dict[str, str]:
    """The variables of both experiments; the policy says which of them win."""
    if transform["relationship"]["variablesMergePolicy"].startswith("input"):
        return {**replaced, **replacement}
    return {**replacement, **replaced}


def _layered(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A parameterisation over another: of the options for one name only those above count."""
    result = copy.deepcopy(dict(below))
    taken = {
        kind: {option["name"] for part in ("presets", "executionOptions") for option in above[part][kind]}
        for kind in ("variables", "data")
    }
    for part in ("presets", "executionOptions"):
        for kind, names in taken.items():
            kept = [option for option in below[part][kind] if option["name"] not in names]
            result[part][kind] = [*kept, *above[part][kind]]
        if above[part].get("platform"):
            result[part]["platform"] = above[part]["platform"]
    return result


def _names(entries: list[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(entry["name"] for entry in entries)
