"""
The routes of the runtime service that concern experiments, its addresses and its tokens.
"""

from __future__ import annotations

import copy
import pprint
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from st4sd_async.local._access import COOKIE
from st4sd_async.local._checks import launch, new_rest_uid
from st4sd_async.local._definitions import DEFINITION
from st4sd_async.local._engines import Engine, Launch, PackageProblem
from st4sd_async.local._http import Abort, Answer, Request, Route, Slash, page, reply
from st4sd_async.local._instances import Instances
from st4sd_async.local._schema import Invalid, read, summary
from st4sd_async.local._skeleton import skeleton
from st4sd_async.local._store import LatestNeeded, Store, UnknownDefinition, register

SERVICES = {
    "consumable-computing": "/rs",
    "cdb-rest": "/ds-mongodb-proxy",
    "cdb-gateway-registry": "/ds-registry",
}
"""The names in the url-map, and where this server has them."""
_BETA_OF_BASE = ("connections", "includePaths", "output", "interface")


class Experiments:
    """The handlers of ``/experiments/``."""

    def __init__(self, store: Store, engine: Engine, accept: Callable[[Launch], None]) -> None:
        self._store = store
        self._engine = engine
        self._accept = accept

    def routes(self) -> list[Route]:
        """The routes, the more special ones first."""
        return [
            Route("/experiments", Slash.NEEDED, GET=self.index, POST=self.push),
            Route("/experiments/{}/start/payload", Slash.NEEDED, GET=self.skeleton),
            Route("/experiments/{}/start", Slash.NEVER, POST=self.start),
            Route("/experiments/{}/tag", Slash.NEVER, PUT=self.tag),
            Route("/experiments/{}/history", Slash.EITHER, GET=self.history),
            Route("/experiments/{}", Slash.EITHER, GET=self.get, DELETE=self.delete),
        ]

    def index(self, request: Request) -> Answer:
        """All definitions."""
        return reply({"entries": [_shown(entry, request) for entry in self._store.all()], "problems": []})

    def push(self, request: Request) -> Answer:
        """Check a definition, read its package, keep it."""
        value = request.json()
        try:
            definition = read(DEFINITION, value)
            _need_a_package(value)
        except Invalid as error:
            keys = {"invalidVirtualExperimentDefinition": str(error)}
            raise Abort(400, "Invalid parameterised package", **keys) from error
        try:
            self._inspect(definition)
        except PackageProblem as error:
            raise Abort(400, f"Invalid payload, reason: {error}", problem=str(error)) from error
        self._store.push(definition)
        return reply({"result": definition})

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

    def get(self, request: Request, identifier: str) -> Answer:
        """One definition."""
        full = _full(identifier, f"Run into internal error while querying for {identifier}")
        entry = self._store.get(full)
        if entry is None:
            message = f'Cannot find Parameterised Virtual Experiment Package "{full}"'
            raise Abort(404, message, packageNotFound=identifier)
        return reply({"entry": _shown(entry, request), "problems": []})

    def delete(self, _request: Request, identifier: str) -> Answer:
        """Delete one definition; others of the same name stay."""
        deleted = self._store.delete(_full(identifier, "Could not delete experiment due to internal error"))
        if not deleted:
            raise Abort(404, f"Experiment {identifier} is unknown", unknownExperiment=identifier)
        return reply({"deleted": deleted})

    def tag(self, request: Request, identifier: str) -> Answer:
        """Replace the tags of a definition."""
        tags = request.query.get("newTags")
        if tags is None:
            raise Abort(400, "Invalid tags")
        full = _full(identifier, "Internal error while updating database - please inform your ST4SD admins")
        try:
            self._store.retag(full, tags.split(","))
        except LatestNeeded as error:
            message = f"Cannot untag the latest tag from {identifier}"
            raise Abort(400, message, cannotUntagLatestFrom=identifier) from error
        except UnknownDefinition as error:
            message = f"Unknown parameterised package {identifier}"
            raise Abort(404, message, unknownExperiment=identifier) from error
        return reply("OK")

    def history(self, _request: Request, name: str) -> Answer:
        """The tags and untagged digests of a name, none for an unknown one."""
        return reply(self._store.history(name))

    def skeleton(self, _request: Request, identifier: str) -> Answer:
        """What to fill in to start this experiment."""
        return reply(skeleton(self._known(identifier)))

    def start(self, request: Request, identifier: str) -> Answer:
        """Start an instance; the reply is its id."""
        definition = self._known(identifier)
        accepted = launch(definition, request.json())
        metadata = definition["metadata"]
        self._accept(accepted)
        self._store.count_execution(metadata["package"]["name"], metadata["registry"]["digest"])
        return reply(accepted.rest_uid)

    def _known(self, identifier: str) -> dict[str, Any]:
        full = _full(identifier, f"Exception when creating instance {identifier}")
        definition = self._store.get(full)
        if definition is None:
            raise Abort(404, f"No parameterised package {full}", unknownExperiment=full)
        return definition


def _full(identifier: str, failure: str) -> str:
    """The identifier with the tag or digest that it implies; with both, the service breaks."""
    if ":" in identifier and "@" in identifier:
        raise Abort(500, failure)
    return identifier if ":" in identifier or "@" in identifier else f"{identifier}:latest"


def _need_a_package(value: Any) -> None:
    if value.get("base", {}).get("packages", True) == []:
        problem = (
            "base.packages\n  Value error, There must be at least 1 base package [type=value_error, "
            "input_value=[], input_type=list]\n    For further information visit https://errors.pydantic.dev/2.14/v/value_error"
        )
        raise Invalid(summary("ParameterisedPackage", [problem]))


def _shown(entry: dict[str, Any], request: Request) -> Any:
    """A definition as the parameters of a request want to see it."""
    if request.query.get("hideNone", "y") != "y":
        entry = read(DEFINITION, entry, nulls=True)
    if request.query.get("hideMetadataRegistry") == "y":
        del entry["metadata"]["registry"]
    if request.query.get("hideBeta", "y") == "y":
        for key in _BETA_OF_BASE:
            entry["base"].pop(key, None)
        for package in entry["base"]["packages"]:
            package.pop("graphs", None)
    form = request.query.get("outputFormat", "json")
    if form == "python":
        return str(entry)
    return pprint.pformat(entry, width=120) if form == "python-pretty" else entry


def url_map(request: Request) -> Answer:
    """Where the services are, as seen by this client."""
    return reply({name: request.origin + path for name, path in SERVICES.items()})


def url_of(request: Request, service: str) -> Answer:
    """Where one service is."""
    if service not in SERVICES:
        raise Abort(404, f"Unknown service {service}, valid options {', '.join(SERVICES)}")
    return reply(request.origin + SERVICES[service])


def token(request: Request) -> Answer:
    """The token in the cookie; whoever came with a bearer key has none, which breaks the service."""
    if COOKIE not in request.cookies:
        raise Abort(500, "Exception while retrieving token")
    return reply(request.cookies[COOKIE])


def home(_request: Request) -> Answer:
    """The page at the root of the service, which proves that somebody is signed in."""
    title = "Runtime Service of the Simulation Toolkit for Scientific Discovery (ST4SD)"
    head = f"<head>\n    <title>{title}</title>\n</head>"
    return page(200, f"<!DOCTYPE html>\n<html>\n{head}\n<body></body>\n</html>\n")


ADDRESSES = [
    Route("/", Slash.EITHER, GET=home),
    Route("/url-map", Slash.NEEDED, GET=url_map),
    Route("/url-map/{}", Slash.EITHER, GET=url_of),
    Route("/authorisation/token", Slash.EITHER, GET=token),
]
"""The routes that need no state."""


class Runtime:
    """The runtime service of one server; it knows no experiment at first."""

    def __init__(self, engine: Engine) -> None:
        self._store = Store()
        self._instances = Instances(self._store, engine)
        self._experiments = Experiments(self._store, engine, self._instances.accept)

    def routes(self) -> list[Route]:
        """All routes."""
        return [*ADDRESSES, *self._experiments.routes(), *self._instances.routes()]

    def launches(self, experiment: str, count: int, payload: Mapping[str, Any]) -> list[Launch]:
        """
        Starts of an experiment with the same payload, in which inputs that are not named are blank.

        Raises:
            ValueError: There is no such experiment, count is below 1, or the payload is refused.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        definition = self._store.get(experiment)
        if definition is None:
            raise ValueError(f"no experiment {experiment!r} was pushed")
        registry = definition["metadata"]["registry"]
        blank = [{"filename": entry["name"], "content": "\n"} for entry in registry["inputs"]]
        try:
            first = launch(definition, {"inputs": blank, **payload})
        except Abort as error:
            raise ValueError(f"the payload is refused: {error}") from error
        name, digest = definition["metadata"]["package"]["name"], registry["digest"]
        return [replace(first, rest_uid=new_rest_uid(name, digest)) for _ in range(count)]

    def adopt(self, launches: Sequence[Launch]) -> None:
        """Show instances that the engine knows already."""
        self._instances.adopt(launches)
        for one in launches:
            self._store.count_execution(*one.identifier.split("@"))
