"""
Relationships between experiments, the experiments that are synthesized from them, and their routes.

A synthesized experiment has the base packages and the variables of both. No package is read: links are made between
variables of the same name, and inputs, data and key-outputs are those of the output graph's experiment. The service
looks at the components too, and rejects what does not match.

Source:
    st4sd-runtime-service, ``apis/relationships.py`` and ``apis/models/relationships.py``. Synthesis from an unknown
    relationship is 400 with its bare name, although the routes intend 404.
"""

from __future__ import annotations

import copy
import pprint
import re
import threading
from collections.abc import Mapping
from typing import Any, Self

from pydantic import StrictBool, model_validator

from st4sd_async.local.engine.interface import PackageFacts
from st4sd_async.local.http.messages import (
    HTTPError,
    InternalServerError,
    Request,
    Response,
    Route,
    TrailingSlash,
    json_response,
)
from st4sd_async.local.runtime.dsl_packages import dsl_from_package
from st4sd_async.local.runtime.models import (
    BasePackage,
    Model,
    Parameterisation,
    ParameterisedPackage,
    SchemaError,
    Text,
    validate,
)
from st4sd_async.local.runtime.registry import Definition, Registry, default_variables, full_identifier, register

POLICIES = ("outputGraphOverridesInputGraph", "inputGraphOverridesOutputGraph")
"""Which experiment's variables win; the first is the default."""
DSL_VERSIONS = ("2.0.0_0.1.0", "1")
_COMPONENT = re.compile(r"(?:stage\d+\.)?[^./]+")


def full_reference(name: str) -> str:
    """Return the reference of a component with its stage, which is ``stage0`` by default."""
    return name if re.match(r"stage\d+\.", name) else f"stage0.{name}"


class GraphValue(Model):
    name: Text | None = None
    value: Text | None = None


class GraphDescription(Model):
    package: BasePackage | None = None
    identifier: Text
    components: list[Text] = []

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if not self.identifier:
            raise ValueError("Identifier cannot be empty")
        for name in self.components:
            if not _COMPONENT.fullmatch(name):
                raise ValueError(f'invalid [stage<index>.]<componentName> = "{name}"')
        references = [full_reference(name) for name in self.components]
        duplicates = [name for name in dict.fromkeys(references) if references.count(name) > 1]
        if duplicates:
            raise ValueError(f"multiple references to components {duplicates}")
        return self


class RelationshipParameters(Model):
    outputGraphParameter: GraphValue | None = None
    inputGraphParameter: GraphValue | None = None


class RelationshipResults(Model):
    outputGraphResult: GraphValue | None = None
    inputGraphResult: GraphValue | None = None


class TransformRelationship(Model):
    graphParameters: list[RelationshipParameters] = []
    graphResults: list[RelationshipResults] = []
    inferParameters: StrictBool = True
    inferResults: StrictBool = True
    variablesMergePolicy: Text = POLICIES[0]

    @model_validator(mode="after")
    def _check_policy(self) -> Self:
        if self.variablesMergePolicy not in POLICIES:
            raise ValueError(f"{self.variablesMergePolicy!r} is not a valid VariablesMergePolicy")
        return self


class Transform(Model):
    outputGraph: GraphDescription
    inputGraph: GraphDescription
    relationship: TransformRelationship = TransformRelationship()

    @model_validator(mode="after")
    def _check_graphs(self) -> Self:
        if full_identifier(self.inputGraph.identifier) == full_identifier(self.outputGraph.identifier):
            raise ValueError("Identifiers of inputGraph and outputGraph must be different")
        return self


class Relationship(Model):
    """What a push sends and what is stored."""

    identifier: Text
    description: Text | None = None
    transform: Transform | None = None


class SynthesizeOptions(Model):
    generateParameterisation: StrictBool = True


class PayloadSynthesize(Model):
    parameterisation: Parameterisation = Parameterisation()
    options: SynthesizeOptions = SynthesizeOptions()


class QueryRelationshipTransformGraph(Model):
    identifier: Text | None = None


class QueryRelationshipTransform(Model):
    inputGraph: QueryRelationshipTransformGraph | None = None
    outputGraph: QueryRelationshipTransformGraph | None = None


class QueryRelationship(Model):
    identifier: Text | None = None
    transform: QueryRelationshipTransform | None = None


class SynthesisError(Exception):
    """A relationship or its synthesis is impossible; the text says why."""

    @classmethod
    def unknown(cls, identifier: str) -> Self:
        """Return the error for an experiment that does not exist."""
        return cls(f'Cannot find Parameterised Virtual Experiment Package "{identifier}"')


class Relationships:
    """The relationships of one server by identifier, and their handlers. Safe to use from any thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._relationships: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[Route]:
        """Return the routes, specific ones first."""
        return [
            Route("/relationships", TrailingSlash.REQUIRED, GET=self.index, POST=self.push),
            Route("/relationships/{}/preview/synthesize/dsl", TrailingSlash.OPTIONAL, GET=self.preview),
            Route("/relationships/{}/synthesize/{}", TrailingSlash.OPTIONAL, POST=self.synthesize),
            Route("/relationships/{}", TrailingSlash.OPTIONAL, GET=self.get, DELETE=self.delete),
            Route("/query/relationships", TrailingSlash.OPTIONAL, POST=self.query),
        ]

    def find(self, identifier: str) -> dict[str, Any] | None:
        """Return a relationship with all of its fields; None if there is no such relationship."""
        with self._lock:
            return self._relationships.get(identifier)

    def index(self, request: Request) -> Response:
        """List all relationships."""
        nulls = request.query.get("hideNone", "y") != "y"
        with self._lock:
            relationships = list(self._relationships.values())
        entries: list[Any] = [validate(Relationship, relationship, nulls=nulls) for relationship in relationships]
        form = request.query.get("outputFormat", "json")
        if form != "json":
            entries = [str(entry) if form == "python" else pprint.pformat(entry, width=120) for entry in entries]
        return json_response({"entries": entries, "problems": []})

    def push(self, request: Request) -> Response:
        """Check a relationship, resolve the experiments that it names, and store it."""
        try:
            relationship = validate(Relationship, request.json(), nulls=True)
        except SchemaError as error:
            raise HTTPError(400, "Relationship is invalid", problems=error.problems) from error
        if relationship["transform"] is None:
            raise HTTPError(500, "Internal error while registering relationship")
        try:
            resolve(relationship["transform"], self._registry)
        except SynthesisError as error:
            raise HTTPError(400, "Invalid relationship", problem=str(error)) from error
        with self._lock:
            self._relationships[relationship["identifier"]] = relationship
        return json_response({"entry": relationship})

    def get(self, _request: Request, identifier: str) -> Response:
        """Show one relationship."""
        return json_response({"entry": self._existing(identifier), "problems": []})

    def delete(self, _request: Request, identifier: str) -> Response:
        """Delete one relationship."""
        self._existing(identifier)
        with self._lock:
            self._relationships.pop(identifier, None)
        return json_response({"deleted": 1})

    def _existing(self, identifier: str) -> dict[str, Any]:
        relationship = self.find(identifier)
        if relationship is None:
            raise HTTPError(404, "Unknown relationship", unknownRelationship=identifier)
        return relationship

    def synthesize(self, request: Request, identifier: str, name: str) -> Response:
        """Create the experiment of a relationship and store it in the registry."""
        try:
            payload = validate(PayloadSynthesize, request.json())
        except SchemaError as error:
            message = f"Invalid synthesize payload, problems are {error.problems}"
            raise HTTPError(400, message, problems=error.problems) from error
        relationship = self.find(identifier)
        if relationship is None:
            raise HTTPError(400, identifier)
        generate = payload["options"]["generateParameterisation"]
        try:
            definition = synthesize(relationship, self._registry, name, payload["parameterisation"], generate=generate)
        except SynthesisError as error:
            raise HTTPError(400, str(error)) from error
        except SchemaError as error:
            raise HTTPError(400, f"Package {name} is invalid", problems=error.problems) from error
        self._registry.push(definition)
        return json_response(
            {
                "result": validate(ParameterisedPackage, definition, nulls=True),
                "package-inheritance": inheritance(definition, self._registry),
                "problems": [],
            }
        )

    def preview(self, request: Request, identifier: str) -> Response:
        """Show what a synthesis would give, with the DSL of the output graph's experiment."""
        version = request.query.get("dslVersion", DSL_VERSIONS[0])
        if version not in DSL_VERSIONS:
            message = f"DSL version to return The value '{version}' is not a valid choice for 'dslVersion'."
            raise HTTPError(400, "Input payload validation failed", errors={"dslVersion": message})
        relationship = self.find(identifier)
        if relationship is None:
            raise HTTPError(400, f"Invalid payload, reason: {identifier}", problem=identifier)
        try:
            parameterisation = validate(Parameterisation, {})
            definition = synthesize(relationship, self._registry, "synthetic", parameterisation, generate=True)
        except SynthesisError as error:
            raise HTTPError(400, f"Invalid payload, reason: {error}", problem=str(error)) from error
        dsl = dsl_from_package(definition)
        return json_response(
            {
                "dsl": dsl if version == DSL_VERSIONS[0] else {"components": dsl["components"]},
                "experiment": validate(ParameterisedPackage, definition, nulls=True),
                "package-inheritance": inheritance(definition, self._registry),
                "problems": [],
            }
        )

    def query(self, request: Request) -> Response:
        """List the relationships whose identifiers match regular expressions from their beginning."""
        try:
            query = validate(QueryRelationship, request.json())
        except SchemaError as error:
            message = f"Invalid query payload, problems are {error.problems}"
            raise HTTPError(400, message, problems=error.problems) from error
        transform = query.get("transform") or {}
        patterns = {"": query.get("identifier")}
        patterns |= {graph: (transform.get(graph) or {}).get("identifier") for graph in ("inputGraph", "outputGraph")}
        try:
            compiled = {graph: re.compile(pattern) for graph, pattern in patterns.items() if pattern}
        except re.error as error:
            raise InternalServerError from error
        if not compiled:
            raise InternalServerError  # the service fails on a query without expressions
        with self._lock:
            relationships = list(self._relationships.values())
        return json_response(
            [
                relationship
                for relationship in relationships
                if all(pattern.match(_identifier(relationship, graph)) for graph, pattern in compiled.items())
            ]
        )


def _identifier(relationship: Mapping[str, Any], graph: str) -> str:
    """Return the identifier of a relationship, or of one of its graphs."""
    return str((relationship["transform"][graph] if graph else relationship)["identifier"])


def resolve(transform: dict[str, Any], registry: Registry) -> None:
    """Complete a transform: identifiers, references, base packages, and links between common variables."""
    for name in ("inputGraph", "outputGraph"):
        graph = transform[name]
        graph["identifier"] = full_identifier(graph["identifier"])
        graph["components"] = [full_reference(component) for component in graph["components"]]
        if graph["package"] is None:
            packages = _experiment(registry, graph)["base"]["packages"]
            if len(packages) != 1:
                raise SynthesisError(
                    f"{name} must point to a parameterised virtual experiment package with exactly 1 base package, "
                    f"however it points to a package with {len(packages)} base packages"
                )
            graph["package"] = packages[0]
    if transform["relationship"]["inferParameters"]:
        _link_variables(transform, registry)


def _link_variables(transform: dict[str, Any], registry: Registry) -> None:
    """Add a link for each variable that both experiments have."""
    parameters = transform["relationship"]["graphParameters"]
    definitions = [registry.get(transform[graph]["identifier"]) for graph in ("inputGraph", "outputGraph")]
    first, second = (default_variables(definition) if definition else {} for definition in definitions)
    linked = {(link["inputGraphParameter"] or {}).get("name") for link in parameters}
    for name in sorted(set(first) & set(second) - linked):
        value = {"name": name, "value": None}
        parameters.append({"outputGraphParameter": dict(value), "inputGraphParameter": dict(value)})


def synthesize(
    relationship: Mapping[str, Any],
    registry: Registry,
    name: str,
    parameterisation: Mapping[str, Any],
    *,
    generate: bool,
) -> Definition:
    """
    Return the definition of the experiment that a relationship gives, as the registry would store it.

    Args:
        relationship: The resolved relationship.
        registry: The known experiments.
        name: Name of the new experiment.
        parameterisation: Options that win over generated ones.
        generate: Whether to take the other options from the output graph's experiment.

    Raises:
        SynthesisError: One of the experiments was deleted.
        SchemaError: The name is invalid.
    """
    transform = relationship["transform"]
    replaced, replacement = (_experiment(registry, transform[graph]) for graph in ("outputGraph", "inputGraph"))
    packages = [
        {**transform[graph]["package"], "name": transform[graph]["identifier"]}
        for graph in ("outputGraph", "inputGraph")
    ]
    definition = validate(
        ParameterisedPackage,
        {
            "base": {"packages": packages},
            "metadata": {"package": {"name": name}},
            "parameterisation": _overlay(replaced["parameterisation"], parameterisation)
            if generate
            else parameterisation,
        },
    )
    base = copy.deepcopy(definition["base"])
    facts = replaced["metadata"]["registry"]
    register(
        definition,
        PackageFacts(
            version="",
            inputs=_names(facts["inputs"]),
            data=_names(facts["data"]),
            outputs=_names(facts["output"]),
            platforms=tuple(facts["platforms"]),
            variables={"default": _merge(transform, default_variables(replacement), default_variables(replaced))},
            interface=facts["interface"],
        ),
    )
    definition["base"] = base  # register() sets the version of the first package, but none was cloned
    return definition


def inheritance(definition: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """Return the origin of the variables that both experiments of a synthesized one have."""
    names = [package["name"] for package in definition["base"]["packages"]]
    defaults = {name: default_variables(known) for name in names if (known := registry.get(name))}
    if len(defaults) != 2:
        return {"variables": {}}
    values = default_variables(definition)
    (first, first_values), (second, second_values) = defaults.items()
    variables = {}
    for name in sorted(set(first_values) & set(second_values)):
        winner, loser = (first, second) if values.get(name) == first_values[name] else (second, first)
        overrides = [{"fromBasePackage": loser, "value": defaults[loser][name]}]
        value = {"value": values.get(name), "platform": "default", "overrides": overrides}
        variables[name] = {"fromBasePackage": winner, "values": [value]}
    return {"variables": variables}


def _experiment(registry: Registry, graph: Mapping[str, Any]) -> Definition:
    definition = registry.get(graph["identifier"])
    if definition is None:
        raise SynthesisError.unknown(graph["identifier"])
    return definition


def _merge(transform: Mapping[str, Any], replacement: Mapping[str, str], replaced: Mapping[str, str]) -> dict[str, str]:
    """Merge the variables of both experiments; the policy decides which of them win."""
    if transform["relationship"]["variablesMergePolicy"].startswith("input"):
        return {**replaced, **replacement}
    return {**replacement, **replaced}


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two parameterisations; an option above replaces those of the same name below."""
    result = copy.deepcopy(dict(below))
    replaced = {
        kind: {option["name"] for part in ("presets", "executionOptions") for option in above[part][kind]}
        for kind in ("variables", "data")
    }
    for part in ("presets", "executionOptions"):
        for kind, names in replaced.items():
            kept = [option for option in below[part][kind] if option["name"] not in names]
            result[part][kind] = [*kept, *above[part][kind]]
        if above[part].get("platform"):
            result[part]["platform"] = above[part]["platform"]
    return result


def _names(entries: list[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(entry["name"] for entry in entries)
