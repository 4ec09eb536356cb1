"""
The runtime service of one server: all of its routes, and the instances that the simulator adds without a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart, Engine
from st4sd_async.local.http.credentials import COOKIE, REGISTRY_PREFIX
from st4sd_async.local.http.messages import (
    Handler,
    HTTPError,
    Request,
    Response,
    Route,
    TrailingSlash,
    html_response,
    json_response,
)
from st4sd_async.local.runtime.cluster import Cluster
from st4sd_async.local.runtime.dsl_packages import DslPackages
from st4sd_async.local.runtime.experiments import Experiments
from st4sd_async.local.runtime.instances import Instances
from st4sd_async.local.runtime.lambdas import Lambdas
from st4sd_async.local.runtime.library import Library
from st4sd_async.local.runtime.registry import Registry
from st4sd_async.local.runtime.relationships import Relationships
from st4sd_async.local.runtime.starts import accepted_start, new_rest_uid
from st4sd_async.local.runtime.storage import Storage

SERVICES = {
    "consumable-computing": "/rs",
    "cdb-rest": "/ds-mongodb-proxy",
    "cdb-gateway-registry": "/ds-registry",
}
"""Names in the url-map -> paths on this server."""
_REGISTRY_PAGE = (
    '<!doctype html>\n<html lang="en">\n<head><title>ST4SD Registry</title></head>\n<body></body>\n</html>\n'
)


class RuntimeService:
    """The runtime service of one server, at first without experiments."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        """
        Args:
            engine: Executes the instances.
            folder: Where the files of starts are fetched to.
        """
        self._registry = Registry()
        cluster = Cluster()
        self.storage = Storage(folder, cluster.dataset)
        self._instances = Instances(self._registry, engine, self.storage)
        relationships, dsl_packages = Relationships(self._registry), DslPackages(self._registry)
        experiments = Experiments(self._registry, engine, self._instances.accept, relationships, dsl_packages)
        self._groups = (
            Lambdas(self._instances.accept),
            experiments,
            self._instances,
            relationships,
            Library(),
            dsl_packages,
            cluster,
            RegistryPages(experiments.get),
        )

    def routes(self) -> list[Route]:
        """Return all routes."""
        return [
            Route("/", TrailingSlash.OPTIONAL, GET=home),
            Route("/url-map", TrailingSlash.REQUIRED, GET=url_map),
            Route("/url-map/{}", TrailingSlash.OPTIONAL, GET=url_of),
            Route("/authorisation/token", TrailingSlash.OPTIONAL, GET=token),
            *(route for group in self._groups for route in group.routes()),
        ]

    def accepted_starts(self, experiment: str, count: int, payload: Mapping[str, Any]) -> list[AcceptedStart]:
        """
        Return starts of an experiment with the same payload; inputs that it does not name are blank.

        Raises:
            ValueError: The experiment is unknown, count is below 1, or the payload is rejected.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        definition = self._registry.get(experiment)
        if definition is None:
            raise ValueError(f"no experiment {experiment!r} was pushed")
        registry = definition["metadata"]["registry"]
        blank = [{"filename": entry["name"], "content": "\n"} for entry in registry["inputs"]]
        try:
            first = accepted_start(definition, {"inputs": blank, **payload})
        except HTTPError as error:
            raise ValueError(f"the payload is refused: {error}") from error
        name, digest = definition["metadata"]["package"]["name"], registry["digest"]
        return [replace(first, rest_uid=new_rest_uid(name, digest)) for _ in range(count)]

    def add_instances(self, starts: Sequence[AcceptedStart]) -> None:
        """Show instances that the engine already knows."""
        self._instances.add(starts)
        for start in starts:
            self._registry.count_execution(*start.identifier.split("@"))


def url_map(request: Request) -> Response:
    """Show the addresses of the services, as this client sees them."""
    return json_response({name: request.origin + path for name, path in SERVICES.items()})


def url_of(request: Request, service: str) -> Response:
    """Show the address of one service."""
    if service not in SERVICES:
        raise HTTPError(404, f"Unknown service {service}, valid options {', '.join(SERVICES)}")
    return json_response(request.origin + SERVICES[service])


def token(request: Request) -> Response:
    """Show the token in the cookie; the service fails if the client sent a bearer key instead."""
    if COOKIE not in request.cookies:
        raise HTTPError(500, "Exception while retrieving token")
    return json_response(request.cookies[COOKIE])


def home(_request: Request) -> Response:
    """Show the page at the root of the service."""
    title = "Runtime Service of the Simulation Toolkit for Scientific Discovery (ST4SD)"
    head = f"<head>\n    <title>{title}</title>\n</head>"
    return html_response(200, f"<!DOCTYPE html>\n<html>\n{head}\n<body></body>\n</html>\n")


class RegistryPages:
    """
    The handlers of ``/registry-ui/``, the web pages of the registry.

    Source:
        st4sd-registry-backend, ``apis/experiments.py``, which forwards a query to the runtime service and drops the
        text of an error; st4sd-deployment, whose nginx answers every other path with the same page.
    """

    def __init__(self, get_experiment: Handler) -> None:
        self._get_experiment = get_experiment

    def routes(self) -> list[Route]:
        """Return the routes, specific ones first."""
        return [
            Route(f"{REGISTRY_PREFIX}backend/experiments/{{}}", TrailingSlash.FORBIDDEN, GET=self.experiment),
            Route(REGISTRY_PREFIX.removesuffix("/"), TrailingSlash.REQUIRED, GET=self.page),
            Route(f"{REGISTRY_PREFIX}{{path}}", TrailingSlash.OPTIONAL, GET=self.page),
        ]

    def experiment(self, request: Request, identifier: str) -> Response:
        """Show one experiment; errors have no text."""
        try:
            return self._get_experiment(request, identifier)
        except HTTPError as abort:
            return json_response({}, abort.response.status)

    def page(self, _request: Request, _path: str = "") -> Response:
        """Show the page, whatever the path."""
        return html_response(200, _REGISTRY_PAGE, "text/html")
