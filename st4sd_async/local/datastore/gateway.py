"""
The routes of the registry of gateways, and of this server's gateway, which serves the files of instances.

Source:
    st4sd-datastore, ``drivers/gateway_registry.py``, ``drivers/cluster_gateway.py`` and
    ``st4sd_datastore/experiment_registry.py``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from st4sd_async.local.engine.documents import GATEWAY, USER_METADATA
from st4sd_async.local.engine.interface import Engine
from st4sd_async.local.http.archives import files_below, zipped
from st4sd_async.local.http.messages import (
    InternalServerError,
    Request,
    Response,
    Route,
    TrailingSlash,
    file_response,
    json_response,
)
from st4sd_async.local.http.pages import page_routes

SERVICES = {
    "/ds-mongodb-proxy": "datastore-mongodb-proxy",
    "/ds-registry": "datastore-registry",
    "/ds-gateway": "datastore-gateway",
}
"""Prefix of the paths of a service -> name of its OpenAPI document."""
MAX_BYTES = 32 * 1024 * 1024
"""Maximum total size of the files in one response, in bytes."""
MAX_FILES = 1000
"""Maximum number of files in one response."""
_SCHEME = "file://"


def find_instance(engine: Engine, uri: str) -> Path | None:
    """Return the directory of an instance in the datastore by its URI or path; None if the instance is unknown."""
    uid = engine.locations().get(str(_path(uri)))
    return engine.directory(uid) if uid is not None and engine.documents(uid, [USER_METADATA]) else None


class Gateway:
    """The handlers of the registry and the gateway. Safe to use from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._gateways: dict[str, dict[str, str]] = {}
        """The gateways that clients registered."""
        self._registered: set[Path] = set()
        """Directories of the instances that clients registered. The orchestrator registers the other instances."""

    def routes(self) -> list[Route]:
        """Return the routes."""
        gateways, ids = "/ds-registry/gateways/api/v1.0/unique_ids", "/ds-registry/gateway/api/v1.0/unique_id"
        location = "/ds-gateway/experiment/api/v1.0/location/{path}"
        file = "/ds-gateway/file/api/v1.0/{path}/location/{path}"
        return [
            Route(gateways, TrailingSlash.FORBIDDEN, POST=self.resolve_all),
            Route(f"{ids}/{{}}", TrailingSlash.FORBIDDEN, GET=self.resolve),
            Route(f"{ids}/{{}}/host/{{path}}/label/{{}}", TrailingSlash.FORBIDDEN, POST=self.add_gateway),
            *(Route(f"{service}/hello", TrailingSlash.REQUIRED, GET=self.hello) for service in SERVICES),
            Route("/ds-gateway/experiment", TrailingSlash.REQUIRED, GET=self.exists),
            Route("/ds-gateway/experiment/download", TrailingSlash.FORBIDDEN, GET=self.download),
            Route(location, TrailingSlash.FORBIDDEN, GET=self.is_registered, POST=self.register),
            Route(file, TrailingSlash.FORBIDDEN, GET=self.file),
            Route("/ds-gateway/files/api/v1.1", TrailingSlash.FORBIDDEN, POST=self.files),
            *(route for prefix, document in SERVICES.items() for route in page_routes(document, prefix)),
        ]

    def hello(self, _request: Request) -> Response:
        """Respond to clients that check whether a service is reachable."""
        return json_response("hello")

    def resolve_all(self, request: Request) -> Response:
        """Return the addresses of gateways, without unknown ids."""
        ids, known = request.parse_json(), self._known_gateways(request)
        if not isinstance(ids, list):
            raise InternalServerError
        return json_response({unique_id: known[unique_id] for unique_id in ids if unique_id in known})

    def resolve(self, request: Request, unique_id: str) -> Response:
        """Return the address of a gateway; an unknown id is an internal server error."""
        known = self._known_gateways(request)
        if unique_id not in known:
            raise InternalServerError
        return json_response(known[unique_id])

    def add_gateway(self, _request: Request, unique_id: str, host: str, label: str) -> Response:
        """Store the address of a gateway, or replace it."""
        with self._lock:
            self._gateways[unique_id] = {"unique_id": unique_id, "host": unquote(host), "label": label}
        return json_response("")

    def _known_gateways(self, request: Request) -> dict[str, dict[str, str]]:
        own = {"unique_id": GATEWAY, "host": f"{request.origin}/ds-gateway", "label": GATEWAY}
        with self._lock:
            return {GATEWAY: own, **self._gateways}

    def is_registered(self, _request: Request, location: str) -> Response:
        """Fail for every location, as in the service: the route requires a URI, and its registry refuses URIs."""
        raise InternalServerError

    def register(self, _request: Request, location: str) -> Response:
        """Register the instance at a URI; the response says why a registration failed."""
        uri = unquote(location)
        if not uri.startswith(_SCHEME):
            raise InternalServerError
        path = _path(uri)
        if str(path) not in self._engine.locations() or not path.is_dir():
            return json_response({"error": f"There is no instance directory at {path}", "result": False})
        with self._lock:
            self._registered.add(path)
        return json_response({"result": True, "error": None})

    def file(self, _request: Request, experiment: str, location: str) -> Response:
        """
        Return a text file of an instance as a JSON string.

        Every failure is an internal server error, even a file over `MAX_BYTES`, which the gateway intends to cut.
        """
        path = _normalized(Path(f"/{unquote(location).removeprefix('/')}"))
        instance = self._find(unquote(experiment))
        try:
            if instance is None or instance not in path.parents or path.stat().st_size > MAX_BYTES:
                raise ValueError(str(path))
            return json_response(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InternalServerError from error

    def _find(self, uri: str) -> Path | None:
        """Return the directory of a registered instance by its URI or path."""
        with self._lock:
            is_registered = _path(uri) in self._registered
        return _path(uri) if is_registered else find_instance(self._engine, uri)

    def exists(self, request: Request) -> Response:
        """Return ``"True"`` or ``"False"``: whether a component has a directory; false if the experiment is unknown."""
        folder = self._component(request)
        return json_response(False if folder is None else str(folder.is_dir()))

    def download(self, request: Request) -> Response:
        """Return the working directory of a component as an archive; ``""`` or false if it does not exist."""
        folder = self._component(request)
        if folder is None or not folder.is_dir():
            return json_response(False if folder is None else "")
        return file_response(zipped(files_below(folder)), "files.zip", "application/zip")

    def files(self, request: Request) -> Response:
        """Return an archive of files under the requested names, without those that do not exist or do not fit."""
        try:
            allowed = [path for uri, paths in request.parse_json().items() for path in self._allowed(uri, paths)]
        except (AttributeError, TypeError, ValueError) as error:
            raise InternalServerError from error
        members = [(path, Path(path)) for path in _fitting(allowed)]
        return file_response(zipped(members), "files.zip", "application/zip")

    def _component(self, request: Request) -> Path | None:
        """Return the directory of a component, even if it does not exist; None if its experiment is unknown."""
        try:
            experiment, component = (unquote(request.query[name]) for name in ("experiment", "component"))
        except KeyError as error:
            raise InternalServerError from error
        if not experiment:
            raise InternalServerError
        instance = self._find(f"/{experiment.removeprefix('/')}")
        if instance is None:
            return None
        folder = _normalized(instance / "stages" / f"stage{request.query.get('stage')}" / component)
        # The service also serves directories outside of the instance.
        return folder if folder.is_relative_to(instance / "stages") else Path(os.devnull)

    def _allowed(self, uri: str, paths: Iterable[str]) -> Iterator[str]:
        """Yield the paths that exist in an instance, with a leading slash."""
        if not uri.startswith(_SCHEME) or not all(paths):
            raise ValueError(uri)
        instance = self._find(uri)
        for path in [f"/{path.removeprefix('/')}" for path in paths]:
            if instance is not None and instance in _normalized(Path(path)).parents and os.path.exists(path):  # noqa: PTH110 -- does not raise if it is too long
                yield path


def _normalized(path: Path) -> Path:
    """Return an absolute path without ``.`` and ``..``, without resolving links."""
    return Path(os.path.abspath(path))  # noqa: PTH100 -- would resolve links


def _path(uri: str) -> Path:
    """Return the path in the URI of an instance, or a plain path, without ``.`` and ``..``."""
    return _normalized(Path(f"/{uri.removeprefix(_SCHEME).partition('/')[2]}" if uri.startswith(_SCHEME) else uri))


def _fitting(paths: Iterable[str]) -> Iterator[str]:
    """Yield the files that fit into one response, in order; a smaller file may follow a file that does not fit."""
    count = size = 0
    for path in paths:
        file_size = Path(path).stat().st_size
        if size + file_size <= MAX_BYTES and count < MAX_FILES:
            count, size = count + 1, size + file_size
            yield path
