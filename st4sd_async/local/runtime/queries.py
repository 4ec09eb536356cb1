"""
Finding experiments by a base package: ``/query/experiments/``, and ``package-inheritance`` of those that have several.

Source:
    st4sd-runtime-service, ``apis/kernel/experiments.py`` (``api_query_experiments``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from st4sd_async.local.http.messages import Abort
from st4sd_async.local.runtime.definitions import BASE_PACKAGE
from st4sd_async.local.runtime.schema import REQUIRED, TEXT, Invalid, Model, Plain, Slot, read
from st4sd_async.local.runtime.store import Definition

_MATCH = Model(
    "QueryRelationshipTransform",
    {"matchInputGraph": Slot(Plain(bool), False), "matchOutputGraph": Slot(Plain(bool), False)},
)
_QUERY = Model(
    "QueryExperiment",
    {
        "relationship": Slot(
            Model("QueryRelationship", {"identifier": Slot(TEXT, REQUIRED), "transform": Slot(_MATCH)})
        ),
        "package": Slot(Model("QueryPackage", {"definition": Slot(BASE_PACKAGE, {})})),
        "common": Slot(
            Model(
                "QueryCommonConfig",
                {"matchPackageVersion": Slot(Plain(bool), False), "mustHaveOnePackage": Slot(Plain(bool), True)},
            ),
            {},
        ),
    },
)
Find = Callable[[str], Mapping[str, Any] | None]
"""Finds a relationship."""


def matching(everything: list[Definition], value: Any, find: Find) -> list[Definition]:
    """
    The definitions that a query finds; all of them if it asks for nothing.

    Raises:
        Abort: The query makes no sense, or names a relationship that is not there.
    """
    if not value:
        return everything
    try:
        query = read(_QUERY, value)
    except Invalid as error:
        raise Abort(400, f"Invalid request, problems: {error.json()}") from error
    package = _wanted(query, find)
    common = query["common"]
    wanted = {key: _given(package.get(key) or {}) for key in ("source", "config")}
    if not common["matchPackageVersion"]:
        wanted["source"].get("git", {}).pop("version", None)
    return [
        one
        for one in everything
        if (len(one["base"]["packages"]) == 1 or not common["mustHaveOnePackage"])
        and any(_covers(package, wanted) for package in one["base"]["packages"])
    ]


def _wanted(query: Mapping[str, Any], find: Find) -> Mapping[str, Any]:
    """The base package that a query is about."""
    if query.get("package"):
        definition: Mapping[str, Any] = query["package"]["definition"]
        return definition
    asked = query.get("relationship")
    if asked:
        relationship = find(asked["identifier"])
        if relationship is None:
            raise Abort(400, f'Unknown relationship "{asked["identifier"]}"')
        match = asked.get("transform") or {}
        for graph in ("inputGraph", "outputGraph"):
            if match.get(f"match{graph[0].upper()}{graph[1:]}"):
                package: Mapping[str, Any] = relationship["transform"][graph]["package"]
                return package
    raise Abort(400, f"Invalid query for parameterised virtual experiments {dict(query)}")


def _given(value: Any) -> Any:
    """What a base package really says."""
    if isinstance(value, Mapping):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return value


def _covers(value: Any, wanted: Any) -> bool:
    """Whether a value has all that is wanted."""
    if isinstance(wanted, Mapping):
        known = value if isinstance(value, Mapping) else {}
        return all(_covers(known.get(key), item) for key, item in wanted.items())
    return bool(value == wanted)
