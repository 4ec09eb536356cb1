"""
The routes of the runtime service for experiments: the registry, queries for base packages, and starts.

Source:
    st4sd-runtime-service, ``apis/experiments.py`` and ``apis/kernel/experiments.py``.
"""

from __future__ import annotations

import copy
import pprint
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import StrictBool, ValidationError

from st4sd_async.local.engine.interface import AcceptedStart, Engine, PackageFacts, PackageProblem
from st4sd_async.local.http.messages import HTTPError, Request, Response, Route, TrailingSlash, json_response
from st4sd_async.local.runtime.dsl_packages import experiment_dsl, yaml_text
from st4sd_async.local.runtime.models import BasePackage, Model, ParameterisedPackage, SchemaError, Text, validate
from st4sd_async.local.runtime.registry import (
    Definition,
    LatestTagRequired,
    Registry,
    UnknownDefinition,
    full_identifier,
    register,
)
from st4sd_async.local.runtime.relationships import OUTPUT_FORMATS, Relationships
from st4sd_async.local.runtime.starts import accepted_start, skeleton

_HIDDEN = {
    "hideMetadataRegistry": (("n", "y"), "Whether to hide hte registry metadata or not"),
    "hideNone": (("y", "n"), "Whether to hide fields whose value is None"),
    "hideBeta": (("y", "n"), "Whether to hide Beta fields"),
}
"""Query parameter -> its values, the default first, and its description, which the service returns in errors."""
_BETA_FIELDS = ("connections", "includePaths", "output", "interface")
"""Fields of ``base`` that responses omit by default."""


class Experiments:
    """The handlers of ``/experiments/``."""

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        accept: Callable[[AcceptedStart], None],
        relationships: Relationships,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._accept = accept
        self._relationships = relationships

    def routes(self) -> list[Route]:
        """Return the routes, specific routes first."""
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
        try:
            _form(request)
        except HTTPError as error:
            raise HTTPError(400, "Invalid document formatting arguments") from error
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
            facts = self._inspect(definition)
        except PackageProblem as error:
            raise HTTPError(400, f"Invalid payload, reason: {error}", problem=str(error)) from error
        self._registry.push(definition, is_known=facts.is_known)
        return json_response({"result": definition})

    def _inspect(self, definition: dict[str, Any]) -> PackageFacts:
        """Read the package of a definition, record its facts in the definition, and return them."""
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
        return facts

    def get(self, request: Request, identifier: str) -> Response:
        """Show one definition."""
        full = _full(identifier, f"Run into internal error while querying for {identifier}")
        entry = self._registry.get(full)
        if entry is None:
            message = f'Cannot find Parameterised Virtual Experiment Package "{full}"'
            raise HTTPError(404, message, packageNotFound=identifier)
        return json_response({"entry": _shown(entry, request), "problems": []})

    def delete(self, _request: Request, identifier: str) -> Response:
        """Delete one definition. Other definitions of the same name stay."""
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
        """List the tags and untagged digests of a name; both lists are empty if the name is unknown."""
        return json_response(self._registry.history(name))

    def dsl(self, request: Request, identifier: str) -> Response:
        """Show the DSL 2.0 of an experiment, as JSON or as YAML text."""
        definition = self._registered(identifier)
        try:
            dsl = experiment_dsl(definition, self._registry.content(definition))
        except PackageProblem as error:
            return json_response({"dsl": None, "problems": [str(error)]}, 400)
        is_text = request.choice("outputFormat", ("json", "yaml"), "Output format") == "yaml"
        return json_response({"dsl": yaml_text(dsl) if is_text else dsl, "problems": []})

    def inheritance(self, _request: Request, identifier: str) -> Response:
        """Show the origin of the variables of an experiment with several base packages."""
        definition = self._registered(identifier)
        if len(definition["base"]["packages"]) == 1:
            raise HTTPError(400, "Experiment has a single base package, there is no inheritance to explain")
        inheritance = self._relationships.inheritance(definition)
        if inheritance is None:
            full = full_identifier(identifier)
            raise HTTPError(500, f"Run into internal error while explaining package-inheritance in {full}")
        return json_response({"result": inheritance})

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
        """Start an instance and return its rest-uid."""
        definition = self._startable(identifier)
        start = accepted_start(definition, request.json(), any_inputs=not self._registry.is_known(definition))
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
    """Return an identifier with its tag or digest; the service fails if it has both."""
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
    """Return a definition in the form that the query parameters request."""
    form, hidden = _form(request)
    if not hidden["hideNone"]:
        entry = validate(ParameterisedPackage, entry, nulls=True)
    if hidden["hideMetadataRegistry"]:
        del entry["metadata"]["registry"]
    if hidden["hideBeta"]:
        for key in _BETA_FIELDS:
            entry["base"].pop(key, None)
        for package in entry["base"]["packages"]:
            package.pop("graphs", None)
    if form == "python":
        return str(entry)
    return pprint.pformat(entry, width=120) if form == "python-pretty" else entry


def _form(request: Request) -> tuple[str, dict[str, bool]]:
    """Return the requested output format, and query parameter -> whether it hides its fields."""
    form = request.choice("outputFormat", OUTPUT_FORMATS, "Output format")
    return form, {name: request.choice(name, *options) == "y" for name, options in _HIDDEN.items()}


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
    Return the definitions that match a query; all definitions if the query is empty.

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
    """Return whether a value contains all fields and items of a pattern."""
    if isinstance(pattern, Mapping):
        fields = value if isinstance(value, Mapping) else {}
        return all(_contains(fields.get(key), item) for key, item in pattern.items())
    return bool(value == pattern)
