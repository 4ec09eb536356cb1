"""
The routes of the runtime service that concern experiments: the registry, queries for base packages, and starts.

Source:
    st4sd-runtime-service, ``apis/experiments.py`` and ``apis/kernel/experiments.py``.
"""

from __future__ import annotations

import copy
import json
import pprint
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import StrictBool, ValidationError

from st4sd_async.local.engine.interface import AcceptedStart, Engine, PackageProblem
from st4sd_async.local.http.messages import HTTPError, Request, Response, Route, TrailingSlash, json_response
from st4sd_async.local.runtime.dsl_packages import DslPackages
from st4sd_async.local.runtime.models import BasePackage, Model, ParameterisedPackage, SchemaError, Text, validate
from st4sd_async.local.runtime.registry import (
    Definition,
    LatestTagRequired,
    Registry,
    UnknownDefinition,
    full_identifier,
    register,
)
from st4sd_async.local.runtime.relationships import Relationships, inheritance
from st4sd_async.local.runtime.starts import accepted_start, skeleton

_BETA_FIELDS = ("connections", "includePaths", "output", "interface")
"""Fields of ``base`` that replies hide by default."""


class Experiments:
    """The handlers of ``/experiments/``."""

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        accept: Callable[[AcceptedStart], None],
        relationships: Relationships,
        dsl_packages: DslPackages,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._accept = accept
        self._relationships = relationships
        self._dsl_packages = dsl_packages

    def routes(self) -> list[Route]:
        """Return the routes, specific ones first."""
        return [
            Route("/experiments", TrailingSlash.REQUIRED, GET=self.index, POST=self.push),
            Route("/experiments/{}/start/payload", TrailingSlash.REQUIRED, GET=self.skeleton),
            Route("/experiments/{}/start", TrailingSlash.FORBIDDEN, POST=self.start),
            Route("/experiments/{}/tag", TrailingSlash.FORBIDDEN, PUT=self.tag),
            Route("/experiments/{}/history", TrailingSlash.OPTIONAL, GET=self.history),
            Route("/experiments/{}/dsl", TrailingSlash.OPTIONAL, GET=self.dsl),
            Route("/experiments/{}/package-inheritance", TrailingSlash.OPTIONAL, GET=self.inheritance),
            Route("/query/experiments", TrailingSlash.OPTIONAL, POST=self.query),
            Route("/experiments/{}", TrailingSlash.OPTIONAL, GET=self.get, DELETE=self.delete),
        ]

    def index(self, request: Request) -> Response:
        """List all definitions."""
        return json_response({"entries": [_shown(entry, request) for entry in self._registry.all()], "problems": []})

    def query(self, request: Request) -> Response:
        """List the definitions that contain a base package."""
        found = matching(self._registry.all(), request.json(), self._relationships)
        return json_response({"entries": [_shown(entry, request) for entry in found], "problems": []})

    def push(self, request: Request) -> Response:
        """Check a definition, inspect its package, and store it."""
        value = request.json()
        try:
            definition = validate(ParameterisedPackage, value)
            _check_packages(value)
        except SchemaError as error:
            keys = {"invalidVirtualExperimentDefinition": str(error)}
            raise HTTPError(400, "Invalid parameterised package", **keys) from error
        try:
            self._inspect(definition)
        except PackageProblem as error:
            raise HTTPError(400, f"Invalid payload, reason: {error}", problem=str(error)) from error
        self._registry.push(definition)
        return json_response({"result": definition})

    def _inspect(self, definition: dict[str, Any]) -> None:
        if not definition["metadata"]["package"].get("name"):
            raise PackageProblem("The virtual experiment does not have a name")
        packages = definition["base"]["packages"]
        if len(packages) != 1:
            raise PackageProblem(f"Virtual experiment does not contain exactly 1 base package but {len(packages)}")
        facts = self._engine.inspect(copy.deepcopy(definition))
        for index, option in enumerate(definition["parameterisation"]["executionOptions"]["data"]):
            if option.get("name") not in facts.data:
                raise PackageProblem(
                    "Invalid parameterised package due to The data file parameterisation.executionOptions."
                    f"data[{index}].name={option.get('name')} is not part of metadata.registry.data"
                )
        register(definition, facts)

    def get(self, request: Request, identifier: str) -> Response:
        """Show one definition."""
        full = _full(identifier, f"Run into internal error while querying for {identifier}")
        entry = self._registry.get(full)
        if entry is None:
            message = f'Cannot find Parameterised Virtual Experiment Package "{full}"'
            raise HTTPError(404, message, packageNotFound=identifier)
        return json_response({"entry": _shown(entry, request), "problems": []})

    def delete(self, _request: Request, identifier: str) -> Response:
        """Delete one definition; others of the same name stay."""
        deleted = self._registry.delete(_full(identifier, "Could not delete experiment due to internal error"))
        if not deleted:
            raise HTTPError(404, f"Experiment {identifier} is unknown", unknownExperiment=identifier)
        return json_response({"deleted": deleted})

    def tag(self, request: Request, identifier: str) -> Response:
        """Replace the tags of a definition."""
        tags = request.query.get("newTags")
        if tags is None:
            raise HTTPError(400, "Invalid tags")
        full = _full(identifier, "Internal error while updating database - please inform your ST4SD admins")
        try:
            self._registry.retag(full, tags.split(","))
        except LatestTagRequired as error:
            message = f"Cannot untag the latest tag from {identifier}"
            raise HTTPError(400, message, cannotUntagLatestFrom=identifier) from error
        except UnknownDefinition as error:
            message = f"Unknown parameterised package {identifier}"
            raise HTTPError(404, message, unknownExperiment=identifier) from error
        return json_response("OK")

    def history(self, _request: Request, name: str) -> Response:
        """List the tags and untagged digests of a name; both lists are empty for an unknown name."""
        return json_response(self._registry.history(name))

    def dsl(self, request: Request, identifier: str) -> Response:
        """Show the DSL 2.0 of an experiment, as JSON or as text that is valid YAML."""
        dsl = self._dsl_packages.dsl_of(self._registered(identifier))
        is_text = request.query.get("outputFormat") == "yaml"
        return json_response({"dsl": json.dumps(dsl, indent=2) if is_text else dsl, "problems": []})

    def inheritance(self, _request: Request, identifier: str) -> Response:
        """Show the origin of the variables of an experiment with several base packages."""
        definition = self._registered(identifier)
        if len(definition["base"]["packages"]) == 1:
            raise HTTPError(400, "Experiment has a single base package, there is no inheritance to explain")
        return json_response({"result": inheritance(definition, self._registry)})

    def _registered(self, identifier: str) -> Definition:
        full = _full(identifier, f"Run into internal error while querying for {identifier}")
        definition = self._registry.get(full)
        if definition is None:
            raise HTTPError(404, f"There is no entry in the experiment registry that matches {full}")
        return definition

    def skeleton(self, _request: Request, identifier: str) -> Response:
        """Show the payload to fill in for a start of this experiment."""
        return json_response(skeleton(self._startable(identifier)))

    def start(self, request: Request, identifier: str) -> Response:
        """Start an instance and reply with its id."""
        definition = self._startable(identifier)
        start = accepted_start(definition, request.json())
        metadata = definition["metadata"]
        self._accept(start)
        self._registry.count_execution(metadata["package"]["name"], metadata["registry"]["digest"])
        return json_response(start.rest_uid)

    def _startable(self, identifier: str) -> Definition:
        full = _full(identifier, f"Exception when creating instance {identifier}")
        definition = self._registry.get(full)
        if definition is None:
            raise HTTPError(404, f"No parameterised package {full}", unknownExperiment=full)
        return definition


def _full(identifier: str, failure: str) -> str:
    """Return an identifier with its tag or digest; the service fails on one with both."""
    if ":" in identifier and "@" in identifier:
        raise HTTPError(500, failure)
    return full_identifier(identifier)


def _check_packages(value: Any) -> None:
    if value.get("base", {}).get("packages", True) == []:
        reason = ValueError("There must be at least 1 base package")
        raise SchemaError(
            ValidationError.from_exception_data(
                "ParameterisedPackage",
                [{"type": "value_error", "loc": ("base", "packages"), "input": [], "ctx": {"error": reason}}],
            )
        )


def _shown(entry: Definition, request: Request) -> Any:
    """Return a definition in the form that the query parameters ask for."""
    if request.query.get("hideNone", "y") != "y":
        entry = validate(ParameterisedPackage, entry, nulls=True)
    if request.query.get("hideMetadataRegistry") == "y":
        del entry["metadata"]["registry"]
    if request.query.get("hideBeta", "y") == "y":
        for key in _BETA_FIELDS:
            entry["base"].pop(key, None)
        for package in entry["base"]["packages"]:
            package.pop("graphs", None)
    form = request.query.get("outputFormat", "json")
    if form == "python":
        return str(entry)
    return pprint.pformat(entry, width=120) if form == "python-pretty" else entry


class QueryRelationshipTransform(Model):
    matchInputGraph: StrictBool = False
    matchOutputGraph: StrictBool = False


class QueryRelationship(Model):
    identifier: Text
    transform: QueryRelationshipTransform | None = None


class QueryPackage(Model):
    definition: BasePackage = BasePackage()


class QueryCommonConfig(Model):
    matchPackageVersion: StrictBool = False
    mustHaveOnePackage: StrictBool = True


class QueryExperiment(Model):
    relationship: QueryRelationship | None = None
    package: QueryPackage | None = None
    common: QueryCommonConfig = QueryCommonConfig()


def matching(definitions: list[Definition], value: Any, relationships: Relationships) -> list[Definition]:
    """
    Return the definitions that match a query; all of them if it is empty.

    Raises:
        HTTPError: The query is invalid, or names an unknown relationship.
    """
    if not value:
        return definitions
    try:
        query = validate(QueryExperiment, value)
    except SchemaError as error:
        raise HTTPError(400, f"Invalid request, problems: {error.json}") from error
    package = _queried_package(query, relationships)
    common = query["common"]
    pattern = {key: _without_nulls(package.get(key) or {}) for key in ("source", "config")}
    if not common["matchPackageVersion"]:
        pattern["source"].get("git", {}).pop("version", None)
    return [
        definition
        for definition in definitions
        if (len(definition["base"]["packages"]) == 1 or not common["mustHaveOnePackage"])
        and any(_contains(candidate, pattern) for candidate in definition["base"]["packages"])
    ]


def _queried_package(query: Mapping[str, Any], relationships: Relationships) -> Mapping[str, Any]:
    """Return the base package that a query looks for."""
    package: Mapping[str, Any]
    if query.get("package"):
        package = query["package"]["definition"]
        return package
    if reference := query.get("relationship"):
        relationship = relationships.find(reference["identifier"])
        if relationship is None:
            raise HTTPError(400, f'Unknown relationship "{reference["identifier"]}"')
        match = reference.get("transform") or {}
        for graph, flag in (("inputGraph", "matchInputGraph"), ("outputGraph", "matchOutputGraph")):
            if match.get(flag):
                package = relationship["transform"][graph]["package"]
                return package
    raise HTTPError(400, f"Invalid query for parameterised virtual experiments {dict(query)}")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _contains(value: Any, pattern: Any) -> bool:
    """Return whether a value has everything that a pattern has."""
    if isinstance(pattern, Mapping):
        fields = value if isinstance(value, Mapping) else {}
        return all(_contains(fields.get(key), item) for key, item in pattern.items())
    return bool(value == pattern)
