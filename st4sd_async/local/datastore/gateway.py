"""
The routes of the registry of gateways and of the only gateway, which serves the files of instances.

Source:
    st4sd-datastore, ``drivers/gateway_registry.py`` and ``drivers/cluster_gateway.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from st4sd_async.local.datastore.documents import GATEWAY, USER_METADATA
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
"""Bytes of all files that one request gets."""
MAX_FILES = 1000
"""Files that one request gets."""
_SCHEME = "file://"


def find_instance(engine: Engine, uri: str) -> Path | None:
    """The directory of an instance that the datastore knows, by its uri or path; None if there is none."""
    path = f"/{uri.removeprefix(_SCHEME).partition('/')[2]}" if uri.startswith(_SCHEME) else uri
    uid = engine.locations().get(str(_plain(Path(path))))
    return engine.directory(uid) if uid is not None and engine.documents(uid, [USER_METADATA]) else None


class Gateway:
    """The handlers of the registry and the gateway."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/ds-registry/gateways/api/v1.0/unique_ids", TrailingSlash.FORBIDDEN, POST=self.resolve_all),
            Route("/ds-registry/gateway/api/v1.0/unique_id/{}", TrailingSlash.FORBIDDEN, GET=self.resolve),
            *(Route(f"{service}/hello", TrailingSlash.REQUIRED, GET=self.hello) for service in SERVICES),
            Route("/ds-gateway/experiment", TrailingSlash.REQUIRED, GET=self.exists),
            Route("/ds-gateway/experiment/download", TrailingSlash.FORBIDDEN, GET=self.download),
            Route("/ds-gateway/files/api/v1.1", TrailingSlash.FORBIDDEN, POST=self.files),
        ]

    def hello(self, _request: Request) -> Response:
        """The greeting that clients use to find out whether a service can be reached."""
        return json_response("hello")

    def resolve_all(self, request: Request) -> Response:
        """Where gateways are; unknown ids are left out."""
        asked = request.parse_json()
        if not isinstance(asked, list):
            raise InternalServerError
        return json_response({GATEWAY: _entry(request)} if GATEWAY in asked else {})

    def resolve(self, request: Request, unique_id: str) -> Response:
        """Where a gateway is; an unknown id breaks the service."""
        if unique_id != GATEWAY:
            raise InternalServerError
        return json_response(_entry(request))

    def exists(self, request: Request) -> Response:
        """Whether a component has a working directory: ``"True"``, ``"False"``, or false without an experiment."""
        folder = self._component(request)
        return json_response(False if folder is None else str(folder.is_dir()))

    def download(self, request: Request) -> Response:
        """The working directory of a component in an archive, or what tells that there is none."""
        folder = self._component(request)
        if folder is None or not folder.is_dir():
            return json_response(False if folder is None else "")
        return file_response(zipped(files_below(folder)), "files.zip", "application/zip")

    def files(self, request: Request) -> Response:
        """Files in an archive under the names that were asked for; what cannot be had is left out."""
        try:
            allowed = [path for uri, paths in request.parse_json().items() for path in self._allowed(uri, paths)]
        except (AttributeError, TypeError, ValueError) as error:
            raise InternalServerError from error
        members = [(path, Path(path)) for path in _fitting(allowed)]
        return file_response(zipped(members), "files.zip", "application/zip")

    def _component(self, request: Request) -> Path | None:
        """Where the directory of a component is or would be, None if its experiment is unknown."""
        try:
            experiment, component = (unquote(request.query[name]) for name in ("experiment", "component"))
        except KeyError as error:
            raise InternalServerError from error
        instance = find_instance(self._engine, f"/{experiment.removeprefix('/')}")
        if instance is None:
            return None
        folder = _plain(instance / "stages" / f"stage{request.query.get('stage')}" / component)
        # The service lets a component lead anywhere; that is not repeated here.
        return folder if folder.is_relative_to(instance / "stages") else Path(os.devnull)

    def _allowed(self, uri: str, paths: Iterable[str]) -> Iterator[str]:
        """Those of some paths that exist below an instance, with a slash before them."""
        if not uri.startswith(_SCHEME):
            raise ValueError(uri)
        instance = find_instance(self._engine, uri)
        for path in [f"/{path.removeprefix('/')}" for path in paths]:
            if instance is not None and instance in _plain(Path(path)).parents and os.path.exists(path):  # noqa: PTH110 -- does not raise if it is too long
                yield path


def _plain(path: Path) -> Path:
    """A path without dots; links in it stay as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 -- would follow them


def _entry(request: Request) -> dict[str, str]:
    return {"unique_id": GATEWAY, "host": f"{request.origin}/ds-gateway", "label": GATEWAY}


def _fitting(paths: Iterable[str]) -> Iterator[str]:
    """As many of some files as one request gets, in their order; a file too many does not hide a smaller one."""
    count = size = 0
    for path in paths:
        own = Path(path).stat().st_size
        if size + own <= MAX_BYTES and count < MAX_FILES:
            count, size = count + 1, size + own
            yield path
