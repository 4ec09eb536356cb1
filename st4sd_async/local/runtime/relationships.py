"""
The relationships between experiments and their routes.

Source:
    st4sd-runtime-service, ``apis/relationships.py`` and ``apis/models/relationships.py``. To make something of a
    relationship that is not there is 400 with its bare name, though the routes mean to say 404.
"""

from __future__ import annotations

import pprint
import re
import threading
from collections.abc import Mapping
from typing import Any

from st4sd_async.local.http.messages import Abort, Answer, Broken, Request, Route, Slash, reply
from st4sd_async.local.runtime.definitions import BASE_PACKAGE, DEFINITION, PARAMETERISATION
from st4sd_async.local.runtime.dsl_views import dsl_view
from st4sd_async.local.runtime.schema import REQUIRED, TEXT, TEXTS, Invalid, ListOf, Model, Plain, Slot, read
from st4sd_async.local.runtime.store import Store
from st4sd_async.local.runtime.synthesis import NotMade, full_identifier, inheritance, links, synthesized

POLICIES = ("outputGraphOverridesInputGraph", "inputGraphOverridesOutputGraph")
DSL_VERSIONS = ("2.0.0_0.1.0", "1")
_COMPONENT = re.compile(r"(?:stage\d+\.)?[^./]+")


def _check_graph(graph: Mapping[str, Any]) -> str | None:
    if not graph["identifier"]:
        return "Identifier cannot be empty"
    components = [full_reference(name) for name in graph["components"]]
    double = [name for name in dict.fromkeys(components) if components.count(name) > 1]
    wrong = next((name for name in graph["components"] if not _COMPONENT.fullmatch(name)), None)
    if wrong is not None:
        return f'invalid [stage<index>.]<componentName> = "{wrong}"'
    return f"multiple references to components {double}" if double else None


def full_reference(name: str) -> str:
    """The reference of a component with its stage, which is the first one if it is not named."""
    return name if re.match(r"stage\d+\.", name) else f"stage0.{name}"


def _check_links(links: Mapping[str, Any]) -> str | None:
    policy = links["variablesMergePolicy"]
    return None if policy in POLICIES else f"{policy!r} is not a valid VariablesMergePolicy"


def _check_transform(transform: Mapping[str, Any]) -> str | None:
    names = {full_identifier(transform[graph]["identifier"]) for graph in ("inputGraph", "outputGraph")}
    return None if len(names) == 2 else "Identifiers of inputGraph and outputGraph must be different"


_VALUE = Model("GraphValue", {"name": Slot(TEXT), "value": Slot(TEXT)})
_GRAPH = Model(
    "GraphDescription",
    {"package": Slot(BASE_PACKAGE), "identifier": Slot(TEXT, REQUIRED), "components": Slot(TEXTS, [])},
    _check_graph,
)
_PARAMETERS = Model(
    "RelationshipParameters", {"outputGraphParameter": Slot(_VALUE), "inputGraphParameter": Slot(_VALUE)}
)
_RESULTS = Model("RelationshipResults", {"outputGraphResult": Slot(_VALUE), "inputGraphResult": Slot(_VALUE)})
_LINKS = Model(
    "TransformRelationship",
    {
        "graphParameters": Slot(ListOf(_PARAMETERS), []),
        "graphResults": Slot(ListOf(_RESULTS), []),
        "inferParameters": Slot(Plain(bool), True),
        "inferResults": Slot(Plain(bool), True),
        "variablesMergePolicy": Slot(TEXT, POLICIES[0]),
    },
    _check_links,
)
_TRANSFORM = Model(
    "Transform",
    {
        "outputGraph": Slot(_GRAPH, REQUIRED),
        "inputGraph": Slot(_GRAPH, REQUIRED),
        "relationship": Slot(_LINKS, {}),
    },
    _check_transform,
)
RELATIONSHIP = Model(
    "Relationship",
    {"identifier": Slot(TEXT, REQUIRED), "description": Slot(TEXT), "transform": Slot(_TRANSFORM)},
)
"""What a push takes and what is kept."""
_PAYLOAD = Model(
    "PayloadSynthesize",
    {
        "parameterisation": Slot(PARAMETERISATION, {}),
        "options": Slot(Model("SynthesizeOptions", {"generateParameterisation": Slot(Plain(bool), True)}), {}),
    },
)


class Relationships:
    """The relationships of one server, by identifier. Safe to use from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[Route]:
        """The routes, the more special ones first."""
        return [
            Route("/relationships", Slash.NEEDED, GET=self.index, POST=self.push),
            Route("/relationships/{}/preview/synthesize/dsl", Slash.EITHER, GET=self.preview),
            Route("/relationships/{}/synthesize/{}", Slash.EITHER, POST=self.synthesize),
            Route("/relationships/{}", Slash.EITHER, GET=self.get, DELETE=self.delete),
            Route("/query/relationships", Slash.EITHER, POST=self.query),
        ]

    def find(self, identifier: str) -> dict[str, Any] | None:
        """A relationship with all its fields; None if there is none."""
        with self._lock:
            return self._known.get(identifier)

    def index(self, request: Request) -> Answer:
        """All relationships."""
        nulls = request.query.get("hideNone", "y") != "y"
        with self._lock:
            entries: list[Any] = [read(RELATIONSHIP, known, nulls=nulls) for known in self._known.values()]
        form = request.query.get("outputFormat", "json")
        if form != "json":
            entries = [str(one) if form == "python" else pprint.pformat(one, width=120) for one in entries]
        return reply({"entries": entries, "problems": []})

    def push(self, request: Request) -> Answer:
        """Check a relationship, look up what it names, keep it."""
        try:
            relationship = read(RELATIONSHIP, request.json(), nulls=True)
        except Invalid as error:
            raise Abort(400, "Relationship is invalid", problems=error.entries) from error
        if relationship["transform"] is None:
            raise Abort(500, "Internal error while registering relationship")
        try:
            _resolve(relationship["transform"], self._store)
        except NotMade as error:
            raise Abort(400, "Invalid relationship", problem=str(error)) from error
        with self._lock:
            self._known[relationship["identifier"]] = relationship
        return reply({"entry": relationship})

    def get(self, _request: Request, identifier: str) -> Answer:
        """One relationship."""
        return reply({"entry": self._need(identifier), "problems": []})

    def delete(self, _request: Request, identifier: str) -> Answer:
        """Forget one relationship."""
        self._need(identifier)
        with self._lock:
            self._known.pop(identifier, None)
        return reply({"deleted": 1})

    def _need(self, identifier: str) -> dict[str, Any]:
        relationship = self.find(identifier)
        if relationship is None:
            raise Abort(404, "Unknown relationship", unknownRelationship=identifier)
        return relationship

    def synthesize(self, request: Request, identifier: str, name: str) -> Answer:
        """Make the experiment of a relationship and keep it."""
        try:
            payload = read(_PAYLOAD, request.json())
        except Invalid as error:
            told = f"Invalid synthesize payload, problems are {error.entries}"
            raise Abort(400, told, problems=error.entries) from error
        relationship = self.find(identifier)
        if relationship is None:
            raise Abort(400, identifier)
        generate = payload["options"]["generateParameterisation"]
        try:
            definition = synthesized(relationship, self._store, name, payload["parameterisation"], generate=generate)
        except NotMade as error:
            raise Abort(400, str(error)) from error
        except Invalid as error:
            raise Abort(400, f"Package {name} is invalid", problems=error.entries) from error
        self._store.push(definition)
        return reply(
            {
                "result": read(DEFINITION, definition, nulls=True),
                "package-inheritance": inheritance(definition, self._store),
                "problems": [],
            }
        )

    def preview(self, request: Request, identifier: str) -> Answer:
        """What a synthesis would give: its definition stands for that of the output graph."""
        version = request.query.get("dslVersion", DSL_VERSIONS[0])
        if version not in DSL_VERSIONS:
            told = f"DSL version to return The value '{version}' is not a valid choice for 'dslVersion'."
            raise Abort(400, "Input payload validation failed", errors={"dslVersion": told})
        relationship = self.find(identifier)
        if relationship is None:
            raise Abort(400, f"Invalid payload, reason: {identifier}", problem=identifier)
        try:
            definition = synthesized(relationship, self._store, "synthetic", read(PARAMETERISATION, {}), generate=True)
        except NotMade as error:
            raise Abort(400, f"Invalid payload, reason: {error}", problem=str(error)) from error
        dsl = dsl_view(definition)
        return reply(
            {
                "dsl": dsl if version == DSL_VERSIONS[0] else {"components": dsl["components"]},
                "experiment": read(DEFINITION, definition, nulls=True),
                "package-inheritance": inheritance(definition, self._store),
                "problems": [],
            }
        )

    def query(self, request: Request) -> Answer:
        """The relationships whose identifiers begin with what expressions fit."""
        try:
            query = read(_QUERY, request.json())
        except Invalid as error:
            raise Abort(400, f"Invalid query payload, problems are {error.entries}", problems=error.entries) from error
        transform = query.get("transform") or {}
        wanted = {"": query.get("identifier")}
        wanted |= {graph: (transform.get(graph) or {}).get("identifier") for graph in ("inputGraph", "outputGraph")}
        expressions = {where: text for where, text in wanted.items() if text}
        try:
            compiled = {where: re.compile(text) for where, text in expressions.items()}
        except re.error as error:
            raise Broken from error
        if not compiled:
            raise Broken  # the service looks for nothing and finds that it cannot
        with self._lock:
            known = list(self._known.values())
        return reply([one for one in known if all(e.match(_at(one, where)) for where, e in compiled.items())])


_IDENTIFIER = Slot(Model("QueryRelationshipTransformGraph", {"identifier": Slot(TEXT)}))
_QUERY = Model(
    "QueryRelationship",
    {
        "identifier": Slot(TEXT),
        "transform": Slot(Model("QueryRelationshipTransform", {"inputGraph": _IDENTIFIER, "outputGraph": _IDENTIFIER})),
    },
)


def _at(relationship: Mapping[str, Any], graph: str) -> str:
    """The identifier of a relationship or of one of its graphs."""
    return str((relationship["transform"][graph] if graph else relationship)["identifier"])


def _resolve(transform: dict[str, Any], store: Store) -> None:
    """Complete a transform: identifiers, references, the base packages, links between what both graphs have."""
    for name in ("inputGraph", "outputGraph"):
        graph = transform[name]
        graph["identifier"] = full_identifier(graph["identifier"])
        graph["components"] = [full_reference(component) for component in graph["components"]]
        if graph["package"] is None:
            definition = store.get(graph["identifier"])
            if definition is None:
                raise NotMade.unknown(graph["identifier"])
            packages = definition["base"]["packages"]
            if len(packages) != 1:
                raise NotMade(
                    f"{name} must point to a parameterised virtual experiment package with exactly 1 base package, "
                    f"however it points to a package with {len(packages)} base packages"
                )
            graph["package"] = packages[0]
    links(transform, store)
