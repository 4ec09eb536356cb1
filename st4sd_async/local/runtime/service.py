"""
The runtime service of one server: its routes, and the instances that the simulator adds without a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from st4sd_async.local.http.pages import page_routes
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
from st4sd_async.local.state import State

SERVICES = {
    "consumable-computing": "/rs",
    "cdb-rest": "/ds-mongodb-proxy",
    "cdb-gateway-registry": "/ds-registry",
}
"""Name in the url-map -> path on this server."""
_REGISTRY_PAGE = (
    '<!doctype html>\n<html lang="en">\n<head><title>ST4SD Registry</title></head>\n<body></body>\n</html>\n'
)


class RuntimeService:
    """The runtime service of one server."""

    def __init__(self, engine: Engine, folder: Path, state: State, restored: Iterable[AcceptedStart] = ()) -> None:
        """
        Args:
            engine: Executes the instances.
            folder: The folder for fetched files of starts.
            state: The state of the server.
            restored: The starts of the instances that the engine restored and that were not deleted.
        """
        self._registry = Registry(engine.content, state)
        cluster = Cluster(state)
        self.storage: Storage = Storage(folder, cluster.dataset)
        self._instances = Instances(self._registry, engine, self.storage)
        self._instances.add(restored)
        relationships = Relationships(self._registry, state)
        experiments = Experiments(self._registry, engine, self._instances.accept, relationships)
        self._groups = (
            Lambdas(self._instances.accept),
            experiments,
            self._instances,
            relationships,
            Library(state),
            DslPackages(self._registry),
            cluster,
            RegistryPages(experiments),
        )

    def routes(self) -> list[Route]:
        """Return all routes."""
        return [
            *page_routes("runtime-service"),
            Route("/url-map", TrailingSlash.REQUIRED, GET=url_map),
            Route("/url-map/{}", TrailingSlash.OPTIONAL, GET=url_of),
            Route("/authorisation/token", TrailingSlash.OPTIONAL, GET=token),
            *(route for group in self._groups for route in group.routes()),
        ]

    def accepted_starts(self, experiment: str, count: int, payload: Mapping[str, Any]) -> list[AcceptedStart]:
        """
        Return `count` starts of an experiment with the same payload; inputs that the payload lacks are blank.

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
            is_known = self._registry.is_known(definition)
            first = accepted_start(definition, {"inputs": blank, **payload}, any_inputs=not is_known)
        except HTTPError as error:
            raise ValueError(f"the payload is refused: {error}") from error
        name, digest = definition["metadata"]["package"]["name"], registry["digest"]
        return [replace(first, rest_uid=new_rest_uid(name, digest)) for _ in range(count)]

    def add_instances(self, starts: Sequence[AcceptedStart]) -> None:
        """Add instances that the engine already has to the list."""
        self._instances.add(starts)
        for start in starts:
            self._registry.count_execution(*start.identifier.split("@"))


def url_map(request: Request) -> Response:
    """Show the addresses of the services, with the host by which the client addressed this server."""
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


class RegistryPages:
    """
    The handlers of ``/registry-ui/``, the web pages of the registry, and of their backend.

    Source:
        st4sd-registry-backend, ``apis/experiments.py``, forwards queries to the runtime service, sorts the keys of the
        responses and drops the messages of errors. In st4sd-deployment, nginx serves the same page for all other paths.
    """

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments

    def routes(self) -> list[Route]:
        """Return the routes, specific routes first."""
        backend = f"{REGISTRY_PREFIX}backend/experiments"
        return [
            Route(backend, TrailingSlash.REQUIRED, GET=self.index),
            Route(f"{backend}/{{}}/history", TrailingSlash.FORBIDDEN, GET=_forwarded(self._experiments.history)),
            Route(f"{backend}/{{}}", TrailingSlash.FORBIDDEN, GET=_forwarded(self._experiments.get)),
            Route(REGISTRY_PREFIX.removesuffix("/"), TrailingSlash.REQUIRED, GET=self.page),
            Route(f"{REGISTRY_PREFIX}{{path}}", TrailingSlash.OPTIONAL, GET=self.page),
        ]

    def index(self, request: Request) -> Response:
        """List all experiments, or those that contain the text of the query."""
        words = {name: request.query.get(name, "").lower() for name in ("searchQuery", "searchSelector")}
        listed = json.loads(self._experiments.index(replace(request, query={})).body)
        if not all(words.values()):
            return _sorted_response(listed)
        texts = _SEARCHED_TEXTS.get(words["searchSelector"])
        if texts is None:
            return _sorted_response({})
        found = [
            entry for entry in listed["entries"] if any(words["searchQuery"] in text.lower() for text in texts(entry))
        ]
        return _sorted_response({"entries": found})

    def page(self, _request: Request, _path: str = "") -> Response:
        """Show the page, for any path."""
        return html_response(200, _REGISTRY_PAGE, "text/html")


def _property_names(entry: Mapping[str, Any]) -> list[str]:
    # Empty if the experiment has several platforms, because the service loses its interface.
    specs = entry["metadata"]["registry"]["interface"].get("propertiesSpec", ())
    return [spec.get("name", "") for spec in specs]


def _package_text(field: str) -> Callable[[Mapping[str, Any]], list[str]]:
    return lambda entry: [entry["metadata"]["package"].get(field, "")]


_SEARCHED_TEXTS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    **{field: _package_text(field) for field in ("name", "description", "maintainer")},
    "property_name": _property_names,
}
"""Selector of a search in the registry -> function that returns the strings of an experiment to search."""


def _forwarded(handler: Handler) -> Handler:
    """Return a handler that forwards to another one; it sorts the keys of responses, and drops error messages."""

    def forward(request: Request, identifier: str) -> Response:
        try:
            return _sorted_response(json.loads(handler(request, identifier).body))
        except HTTPError as abort:
            return json_response({}, abort.response.status)

    return forward


def _sorted_response(value: Any) -> Response:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return Response(200, (text + "\n").encode())
