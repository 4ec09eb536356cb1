"""
The routes of the registry of gateways, and of the only gateway, which serves the files of instances.

Source:
    st4sd-datastore, ``drivers/gateway_registry.py`` and ``drivers/cluster_gateway.py``.
"""

from __future__ import annotations

import os
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

SERVICES = ("/ds-mongodb-proxy", "/ds-registry", "/ds-gateway")
MAX_BYTES = 32 * 1024 * 1024
"""Total size of the files in one response."""
MAX_FILES = 1000
"""Number of files in one response."""
_SCHEME = "file://"


def find_instance(engine: Engine, uri: str) -> Path | None:
    """Return the directory of an instance in the datastore by its URI or path; None if it is unknown."""
    path = f"/{uri.removeprefix(_SCHEME).partition('/')[2]}" if uri.startswith(_SCHEME) else uri
    uid = engine.locations().get(str(_normalized(Path(path))))
    return engine.directory(uid) if uid is not None and engine.documents(uid, [USER_METADATA]) else None


class Gateway:
    """The handlers of the registry and the gateway."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/ds-registry/gateways/api/v1.0/unique_ids", TrailingSlash.FORBIDDEN, POST=self.resolve_all),
            Route("/ds-registry/gateway/api/v1.0/unique_id/{}", TrailingSlash.FORBIDDEN, GET=self.resolve),
            *(Route(f"{service}/hello", TrailingSlash.REQUIRED, GET=self.hello) for service in SERVICES),
            Route("/ds-gateway/experiment", TrailingSlash.REQUIRED, GET=self.exists),
            Route("/ds-gateway/experiment/download", TrailingSlash.FORBIDDEN, GET=self.download),
            Route("/ds-gateway/files/api/v1.1", TrailingSlash.FORBIDDEN, POST=self.files),
        ]

    def hello(self, _request: Request) -> Response:
        """Answer clients that check whether a service is reachable."""
        return json_response("hello")

    def resolve_all(self, request: Request) -> Response:
        """Return the addresses of gateways; leave out unknown ids."""
        ids = request.parse_json()
        if not isinstance(ids, list):
            raise InternalServerError
        return json_response({GATEWAY: _entry(request)} if GATEWAY in ids else {})

    def resolve(self, request: Request, unique_id: str) -> Response:
        """Return the address of a gateway; an unknown id is an internal server error."""
        if unique_id != GATEWAY:
            raise InternalServerError
        return json_response(_entry(request))

    def exists(self, request: Request) -> Response:
        """Return ``"True"`` if a component has a directory, else ``"False"``; false if the experiment is unknown."""
        folder = self._component(request)
        return json_response(False if folder is None else str(folder.is_dir()))

    def download(self, request: Request) -> Response:
        """Return the working directory of a component as an archive; ``""`` or false if it does not exist."""
        folder = self._component(request)
        if folder is None or not folder.is_dir():
            return json_response(False if folder is None else "")
        return file_response(zipped(files_below(folder)), "files.zip", "application/zip")

    def files(self, request: Request) -> Response:
        """Return files as an archive under the requested names; leave out those that do not exist or do not fit."""
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
        instance = find_instance(self._engine, f"/{experiment.removeprefix('/')}")
        if instance is None:
            return None
        folder = _normalized(instance / "stages" / f"stage{request.query.get('stage')}" / component)
        # The service also serves directories outside of the instance.
        return folder if folder.is_relative_to(instance / "stages") else Path(os.devnull)

    def _allowed(self, uri: str, paths: Iterable[str]) -> Iterator[str]:
        """Return the paths that exist in an instance, with a leading slash."""
        if not uri.startswith(_SCHEME):
            raise ValueError(uri)
        instance = find_instance(self._engine, uri)
        for path in [f"/{path.removeprefix('/')}" for path in paths]:
            if instance is not None and instance in _normalized(Path(path)).parents and os.path.exists(path):  # noqa: PTH110 -- does not raise if it is too long
                yield path


def _normalized(path: Path) -> Path:
    """Return a path without dots; links in it stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100 -- would follow them


def _entry(request: Request) -> dict[str, str]:
    return {"unique_id": GATEWAY, "host": f"{request.origin}/ds-gateway", "label": GATEWAY}


def _fitting(paths: Iterable[str]) -> Iterator[str]:
    """Return the files that fit into one response, in order; a smaller file may follow one that does not fit."""
    count = size = 0
    for path in paths:
        file_size = Path(path).stat().st_size
        if size + file_size <= MAX_BYTES and count < MAX_FILES:
            count, size = count + 1, size + file_size
            yield path
