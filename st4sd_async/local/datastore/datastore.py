"""
The routes of the datastore's proxy: queries for documents about instances, which outlive the instances.

Queries are those of MongoDB. For speed, rest-uids, paths and types in a query select the documents that are compared
with the query.

Source:
    st4sd-datastore, ``drivers/mongo_proxy.py``; st4sd-runtime-core, ``experiment/service/db.py`` (``Mongo``).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from st4sd_async.local.datastore.gateway import find_instance
from st4sd_async.local.engine.documents import EXPERIMENT, TYPES, identity, instance_uri
from st4sd_async.local.engine.interface import Engine
from st4sd_async.local.http.messages import (
    STRINGIFY_NAN,
    InternalServerError,
    Request,
    Response,
    Route,
    TrailingSlash,
    json_response,
)
from st4sd_async.local.runtime.properties import read_properties
from st4sd_async.local.state import State

Document = dict[str, Any]
UID_KEYS = ("metadata.userMetadata.rest-uid", "rest-uid")
"""The keys of the rest-uid in documents about an experiment and in those about the user's metadata."""


class Datastore:
    """The handlers of the proxy, and the documents written by clients. Safe to use from any thread."""

    def __init__(self, engine: Engine, state: State) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._written: MutableMapping[tuple[Any, ...], Sequence[Any]] = state.table("documents")
        """identity -> the engine's document at the time when a client replaced it, and the client's document."""

    def routes(self) -> list[Route]:
        """Return the routes."""
        path = "/ds-mongodb-proxy/documents/api/v1.0"
        return [
            Route(f"{path}/query", TrailingSlash.FORBIDDEN, POST=self.query),
            Route(f"{path}/upsert", TrailingSlash.FORBIDDEN, POST=self.upsert),
            Route(f"{path}/may-insert", TrailingSlash.FORBIDDEN, POST=self.may_insert),
        ]

    def query(self, request: Request) -> Response:
        """Return matching documents; if requested, those about experiments have a table of properties."""
        stringify = request.boolean("stringifyNaN", STRINGIFY_NAN)
        columns = request.query.get("includeProperties")
        found = self._find(request.parse_json())
        if columns is not None:
            found = [self._with_properties(document, columns.lower(), stringify) for document in found]
        return json_response({"document-descriptors": found})

    def upsert(self, request: Request) -> Response:
        """Write documents. Each replaces the document with the same identity."""
        try:
            documents = {identity(document): document for document in request.parse_json()["documents"]}
        except (KeyError, TypeError) as error:
            raise InternalServerError from error
        self._write(documents)
        return json_response("OK")

    def may_insert(self, request: Request) -> Response:
        """Write a document if ``update`` is true or if the query finds no document."""
        try:
            payload = request.parse_json()
            document, query, update = payload["doc"], payload["query"], payload["update"]
            key = identity(document)
        except (KeyError, TypeError) as error:
            raise InternalServerError from error
        written = bool(update) or not self._find(query)
        if written:
            self._write({key: document})
        return json_response({"updated": written})

    def _write(self, documents: Mapping[tuple[Any, ...], Document]) -> None:
        locations = {instance_uri(location): uid for location, uid in self._engine.locations().items()}
        for key, document in documents.items():
            known = self._engine.documents(locations.get(document["instance"], ""), [document["type"]])
            current = next((reported for reported in known if identity(reported) == key), None)
            with self._lock:
                self._written[key] = (current, document)

    def _find(self, query: Any) -> list[Document]:
        """Return the documents that match a query; raise `InternalServerError` if the query is invalid."""
        if not isinstance(query, Mapping):
            raise InternalServerError
        matches = _matcher()
        types = [kind for kind in TYPES if "type" not in query or matches({"type": query["type"]}, {"type": kind})]
        documents = self._documents(self._candidates(query), types)
        return [document for document in documents if matches(query, document)]

    def _candidates(self, query: Mapping[str, Any]) -> Iterable[str]:
        """Return the rest-uids of the instances whose documents may match."""
        for key in UID_KEYS:
            condition = query.get(key)
            if isinstance(condition, str):
                return [condition]
            if isinstance(condition, Mapping) and isinstance(condition.get("$in"), list):
                return [uid for uid in condition["$in"] if isinstance(uid, str)]
        locations, condition = self._engine.locations(), query.get("instance")
        if isinstance(condition, str):
            pattern = f"^{re.escape(condition)}$"
        elif isinstance(condition, Mapping) and list(condition) == ["$regex"]:
            pattern = condition["$regex"]
        else:
            return locations.values()
        try:
            search = re.compile(pattern).search
        except (TypeError, re.error) as error:
            raise InternalServerError from error
        return [uid for location, uid in locations.items() if search(instance_uri(location))]

    def _documents(self, uids: Iterable[str], types: Collection[str]) -> Iterator[Document]:
        """Yield the latest documents about instances, and the documents that only a client wrote."""
        with self._lock:
            written = dict(self._written)
        for uid in uids:
            for document in self._engine.documents(uid, types):
                base, replacement = written.get(identity(document), (None, document))
                # A later report of the orchestrator replaces the document of a client.
                yield replacement if base == document else document
        yield from (document for base, document in written.values() if base is None)

    def _with_properties(self, document: Document, columns: str, stringify: bool) -> Document:
        """Return a document, with the measured properties if it is about an experiment that has properties."""
        interface = document.get("interface") or {}
        tables = [path for path in interface.get("outputFiles") or () if Path(path).name == "properties.csv"]
        instance = find_instance(self._engine, document["instance"])
        if document["type"] != EXPERIMENT or len(tables) != 1 or instance is None:
            return document
        try:
            table = read_properties(instance / tables[0], columns, stringify=stringify, infinity=True)
        except OSError:
            return document
        return {**document, "interface": {**interface, "propertyTable": table}}


def _matcher() -> Callable[[Mapping[str, Any], Document], bool]:
    """Return a function that compares a query of MongoDB with a document. The first call takes 0.3 s for an import."""
    from mongomock.filtering import filter_applies

    def matches(query: Mapping[str, Any], document: Document) -> bool:
        try:
            return bool(filter_applies(query, document))  # type: ignore[no-untyped-call]  # has no types
        except Exception as error:  # of many classes; the service handles none of them
            raise InternalServerError from error

    return matches
