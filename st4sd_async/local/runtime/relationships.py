"""
Relationships between experiments, and their routes.

If the components of an experiment are unknown, a synthesized experiment gets the inputs, data files and key-outputs of
the output graph's experiment.

Source:
    st4sd-runtime-service, ``apis/relationships.py`` and ``apis/models/relationships.py``. Synthesis from an unknown
    relationship is 400 with only its name as the message, although the routes intend 404.
"""

from __future__ import annotations

import copy
import pprint
import re
import threading
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import StrictBool, model_validator

from st4sd_async.local.engine.interface import PackageContent, PackageProblem
from st4sd_async.local.http.messages import (
    HTTPError,
    InternalServerError,
    Request,
    Response,
    Route,
    TrailingSlash,
    json_response,
)
from st4sd_async.local.runtime.dsl_packages import experiment_dsl
from st4sd_async.local.runtime.models import (
    BasePackage,
    Model,
    Parameterisation,
    ParameterisedPackage,
    SchemaError,
    Text,
    validate,
)
from st4sd_async.local.runtime.registry import (
    Definition,
    Registry,
    allowed_platforms,
    default_variables,
    full_identifier,
    register,
)
from st4sd_async.local.runtime.synthesis import (
    KEYWORDS,
    Graph,
    Synthesis,
    SynthesisError,
    UnexpectedError,
    constant_variables,
    infer_links,
    merge_parameterisation,
    without_nulls,
)
from st4sd_async.local.state import State

POLICIES = ("outputGraphOverridesInputGraph", "inputGraphOverridesOutputGraph")
"""Policies that decide whose variables win. The first policy is the default."""
DSL_VERSIONS = ("2.0.0_0.1.0", "1")
OUTPUT_FORMATS = ("json", "python", "python-pretty")
"""Forms of an experiment or relationship in responses. The first form is the default."""
_UNEXPECTED = "Internal error while registering relationship"
_NO_INHERITANCE = {"message": "Unable to explain package inheritance"}
_GRAPHS = ("inputGraph", "outputGraph")
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
    """A relationship, as pushed and as stored."""

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


def _shown(relationship: Mapping[str, Any], request: Request) -> Any:
    """Return a relationship in the form that the query parameters request."""
    form = request.choice("outputFormat", OUTPUT_FORMATS, "Output format")
    nulls = request.choice("hideNone", ("y", "n"), "Whether to hide fields whose value is None") == "n"
    entry = validate(Relationship, relationship, nulls=nulls)
    if form == "python":
        return str(entry)
    return pprint.pformat(entry, width=120) if form == "python-pretty" else entry


class Relationships:
    """The relationships of one server by identifier, and their handlers. Safe to use from any thread."""

    def __init__(self, registry: Registry, state: State) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._relationships: MutableMapping[str, dict[str, Any]] = state.table("relationships")
        self._inheritance: MutableMapping[str, dict[str, Any] | None] = state.table("inheritance")
        """digest of a synthesized experiment -> the origin of its variables."""

    def routes(self) -> list[Route]:
        """Return the routes, specific routes first."""
        return [
            Route("/relationships", TrailingSlash.REQUIRED, GET=self.index, POST=self.push),
            Route("/relationships/{}/preview/synthesize/dsl", TrailingSlash.OPTIONAL, GET=self.preview),
            Route("/relationships/{}/synthesize/{}", TrailingSlash.OPTIONAL, POST=self.synthesize),
            Route("/relationships/{}", TrailingSlash.OPTIONAL, GET=self.get, DELETE=self.delete),
            Route("/query/relationships", TrailingSlash.OPTIONAL, POST=self.query),
        ]

    def find(self, identifier: str) -> dict[str, Any] | None:
        """Return a relationship with all of its fields; None if it is unknown."""
        with self._lock:
            return self._relationships.get(identifier)

    def index(self, request: Request) -> Response:
        """List all relationships."""
        with self._lock:
            relationships = list(self._relationships.values())
        entries = [_shown(relationship, request) for relationship in relationships]
        return json_response({"entries": entries, "problems": []})

    def push(self, request: Request) -> Response:
        """Check a relationship, resolve the experiments that it names, and store it."""
        try:
            relationship = validate(Relationship, request.json(), nulls=True)
        except SchemaError as error:
            raise HTTPError(400, "Relationship is invalid", problems=error.problems) from error
        if relationship["transform"] is None:
            raise HTTPError(500, _UNEXPECTED)
        try:
            resolve(relationship["transform"], self._registry)
            self._synthesized(relationship, "synthetic", validate(PayloadSynthesize, {}))
        except UnexpectedError as error:
            raise HTTPError(500, _UNEXPECTED) from error
        except SynthesisError as error:
            raise HTTPError(400, "Invalid relationship", problem=str(error)) from error
        with self._lock:
            self._relationships[relationship["identifier"]] = relationship
        return json_response({"entry": validate(Relationship, relationship)})

    def get(self, _request: Request, identifier: str) -> Response:
        """Show one relationship."""
        return json_response({"entry": validate(Relationship, self._existing(identifier)), "problems": []})

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
        try:
            result = self._synthesized(relationship, name, payload)
        except SynthesisError as error:
            raise HTTPError(400, str(error)) from error
        except SchemaError as error:
            raise HTTPError(400, f"Package {name} is invalid", problems=error.problems) from error
        self._registry.push(result.definition, result.content)
        with self._lock:
            self._inheritance[result.definition["metadata"]["registry"]["digest"]] = result.inheritance
        problems = [_NO_INHERITANCE] if result.inheritance is None else []
        inheritance = result.inheritance or {}
        return json_response({"result": result.definition, "package-inheritance": inheritance, "problems": problems})

    def _synthesized(self, relationship: dict[str, Any], name: str, payload: dict[str, Any]) -> Synthesized:
        return synthesized(copy.deepcopy(relationship["transform"]), self._registry, name, payload)

    def inheritance(self, definition: Definition) -> dict[str, Any] | None:
        """Return the origin of the variables of a synthesized experiment; None if the service fails to compute it."""
        with self._lock:
            return self._inheritance.get(definition["metadata"]["registry"]["digest"], {"variables": {}})

    def preview(self, request: Request, identifier: str) -> Response:
        """Show the result of a synthesis, with the DSL of the output graph's experiment."""
        version = request.choice("dslVersion", DSL_VERSIONS, "DSL version to return")
        relationship = self.find(identifier)
        if relationship is None:
            raise HTTPError(400, f"Invalid payload, reason: {identifier}", problem=identifier)
        try:
            result = self._synthesized(relationship, "synthetic", validate(PayloadSynthesize, {}))
        except SynthesisError as error:
            raise HTTPError(400, f"Invalid payload, reason: {error}", problem=str(error)) from error
        if version == DSL_VERSIONS[0]:
            dsl = experiment_dsl(result.definition, result.content)
        elif result.content is not None:
            dsl = dict(result.content.flowir)
        else:
            dsl = {"components": experiment_dsl(result.definition, None)["components"]}
        return json_response(
            {
                "dsl": dsl,
                "experiment": result.definition,
                "package-inheritance": _NO_INHERITANCE if result.inheritance is None else result.inheritance,
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
            raise InternalServerError  # the service fails if a query has no expressions
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
    """Add identifiers, references, base packages and links to a transform."""
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
            graph["package"] = validate(BasePackage, packages[0], nulls=True)
        graph["package"]["name"] = graph["identifier"]
    graphs = [_graph(transform[name], registry.get(transform[name]["identifier"]), registry) for name in _GRAPHS]
    infer_links(transform["relationship"], *graphs)


def _graph(graph: Mapping[str, Any], definition: Definition | None, registry: Registry) -> Graph:
    """Return a graph of a relationship, without components if they are unknown."""
    try:
        content = None if definition is None else registry.content(definition)
    except PackageProblem as error:
        raise SynthesisError(str(error)) from error
    if content is not None and content.flowir:
        return Graph(graph["identifier"], graph["components"], content, is_known=True)
    variables = {"default": {"global": default_variables(definition) if definition else {}}}
    return Graph(graph["identifier"], graph["components"], PackageContent({"variables": variables}), is_known=False)


@dataclass(frozen=True)
class Synthesized:
    """An experiment that was synthesized from a relationship."""

    definition: Definition
    """The definition, as stored in the registry."""
    content: PackageContent | None
    """The content of its package; None if its components are unknown."""
    inheritance: dict[str, Any] | None
    """The origin of its variables; None if the service fails to compute it."""


def synthesized(transform: dict[str, Any], registry: Registry, name: str, payload: dict[str, Any]) -> Synthesized:
    """
    Synthesize the experiment of a relationship.

    Args:
        transform: The resolved transform.
        registry: The registry with both experiments.
        name: Name of the new experiment.
        payload: The payload of the synthesis. Its parameterisation overrides the generated parameterisation.

    Raises:
        SynthesisError: An experiment was deleted, or a link is invalid.
        SchemaError: The name is invalid.
    """
    definitions = [_experiment(registry, transform[graph]) for graph in _GRAPHS]
    substitute, base = (
        _graph(transform[graph], definition, registry) for graph, definition in zip(_GRAPHS, definitions, strict=True)
    )
    infer_links(transform["relationship"], substitute, base)
    synthesis = Synthesis(transform["relationship"], substitute, base)
    parameterisation, platforms = _with_platforms(payload["parameterisation"], definitions[1], base)
    content = synthesis.content(platforms)
    if payload["options"]["generateParameterisation"]:
        generated = _generated(Graph(name, [], content, is_known=True), platforms, definitions[1]["parameterisation"])
        parameterisation = merge_parameterisation(generated, parameterisation)
    packages = {transform[graph]["identifier"]: transform[graph]["package"] for graph in _GRAPHS}
    definition = validate(
        ParameterisedPackage,
        {
            "base": without_nulls(synthesis.definition(packages)),
            "metadata": {"package": {"name": name, "keywords": list(KEYWORDS)}},
            "parameterisation": parameterisation,
        },
    )
    facts = synthesis.facts(content)
    if not synthesis.is_known:
        facts = replace(facts, **_assumed_facts(definitions[1]["metadata"]["registry"]))
    register(definition, facts)
    inheritance = synthesis.inheritance(definition["parameterisation"], platforms)
    return Synthesized(definition, content if synthesis.is_known else None, inheritance)


def _with_platforms(
    parameterisation: Mapping[str, Any], target: Definition, base: Graph
) -> tuple[dict[str, Any], list[str]]:
    """Return a parameterisation with platforms (its own, the target's, or those of its package), and the platforms."""
    result = copy.deepcopy(dict(parameterisation))
    presets, options = result["presets"], result["executionOptions"]
    if not allowed_platforms(result):
        presets["platform"] = target["parameterisation"]["presets"].get("platform")
        options["platform"] = list(target["parameterisation"]["executionOptions"]["platform"])
    if not allowed_platforms(result):
        options["platform"] = base.platforms
    return result, allowed_platforms(result)


def _generated(graph: Graph, platforms: list[str], target: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameterisation: the target's options for existing variables, and presets for constant variables."""
    known = graph.all_variables()
    options = {
        part: {"variables": [option for option in target[part]["variables"] if option["name"] in known]}
        for part in ("presets", "executionOptions")
    }
    constants = constant_variables(graph, platforms)
    presets = {"variables": [{"name": name, "value": value} for name, value in constants.items()]}
    generated = {"presets": presets, "executionOptions": {"platform": platforms}}
    return merge_parameterisation(validate(Parameterisation, generated), validate(Parameterisation, options))


def _assumed_facts(registry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about an experiment that are used for a synthesized experiment with unknown components."""
    return {
        "inputs": _names(registry["inputs"]),
        "data": _names(registry["data"]),
        "outputs": _names(registry["output"]),
        "platforms": tuple(registry["platforms"]),
        "interface": registry["interface"],
    }


def _experiment(registry: Registry, graph: Mapping[str, Any]) -> Definition:
    definition = registry.get(graph["identifier"])
    if definition is None:
        raise SynthesisError(f'Cannot find Parameterised Virtual Experiment Package "{graph["identifier"]}"')
    return definition


def _names(entries: list[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(entry["name"] for entry in entries)
