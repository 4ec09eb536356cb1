"""
The routes of the datastore's proxy: queries for documents about instances, which outlive the instances.

Queries are those of MongoDB. For speed, ids, paths and types in a query select the instances whose documents are
compared with it.

Source:
    st4sd-datastore, ``drivers/mongo_proxy.py``; st4sd-runtime-core, ``experiment/service/db.py`` (``Mongo``).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from st4sd_async.local.datastore.gateway import find_instance
from st4sd_async.local.engine.documents import EXPERIMENT, TYPES, identity, instance_uri
from st4sd_async.local.engine.interface import Engine
from st4sd_async.local.http.messages import InternalServerError, Request, Response, Route, TrailingSlash, json_response
from st4sd_async.local.runtime.properties import read_properties

Document = dict[str, Any]
UID_KEYS = ("metadata.userMetadata.rest-uid", "rest-uid")
"""The keys of an instance's id in documents about the experiment and about the user's metadata."""


class Datastore:
    """The handlers of the proxy, and the documents that clients wrote. Safe to use from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._written: dict[tuple[Any, ...], tuple[Document | None, Document]] = {}
        """identity -> the engine's document when a client wrote another, and the client's."""

    def routes(self) -> list[Route]:
        """Return the routes."""
        path = "/ds-mongodb-proxy/documents/api/v1.0"
        return [
            Route(f"{path}/query", TrailingSlash.FORBIDDEN, POST=self.query),
            Route(f"{path}/upsert", TrailingSlash.FORBIDDEN, POST=self.upsert),
            Route(f"{path}/may-insert", TrailingSlash.FORBIDDEN, POST=self.may_insert),
        ]

    def query(self, request: Request) -> Response:
        """Return matching documents, with a table of properties in those about experiments if requested."""
        stringify, columns = request.boolean("stringifyNaN"), request.query.get("includeProperties")
        found = self._find(request.parse_json())
        if columns is not None:
            found = [self._with_properties(document, columns.lower(), stringify) for document in found]
        return json_response({"document-descriptors": found})

    def upsert(self, request: Request) -> Response:
        """Write documents; each replaces the one with the same identity."""
        try:
            documents = {identity(document): document for document in request.parse_json()["documents"]}
        except (KeyError, TypeError) as error:
            raise InternalServerError from error
        self._write(documents)
        return json_response("OK")

    def may_insert(self, request: Request) -> Response:
        """Write a document if it may replace others, or if a query finds none."""
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
        """Return the documents that match a query; raise `InternalServerError` if it is invalid."""
        if not isinstance(query, Mapping):
            raise InternalServerError
        matches = _matcher()
        types = [kind for kind in TYPES if "type" not in query or matches({"type": query["type"]}, {"type": kind})]
        documents = self._documents(self._candidates(query), types)
        return [document for document in documents if matches(query, document)]

    def _candidates(self, query: Mapping[str, Any]) -> Iterable[str]:
        """Return the ids of the instances whose documents may match."""
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
        """Return the latest documents about instances, and those that only a client knows."""
        with self._lock:
            written = dict(self._written)
        for uid in uids:
            for document in self._engine.documents(uid, types):
                base, replacement = written.get(identity(document), (None, document))
                # A later report of the orchestrator replaces the client's document.
                yield replacement if base == document else document
        yield from (document for base, document in written.values() if base is None)

    def _with_properties(self, document: Document, columns: str, stringify: bool) -> Document:
        """Add the measured properties to a document, if it is about an experiment that has some."""
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
    """Return a function that compares a query of MongoDB with a document. The import takes 0.3 s."""
    from mongomock.filtering import filter_applies

    def matches(query: Mapping[str, Any], document: Document) -> bool:
        try:
            return bool(filter_applies(query, document))  # type: ignore[no-untyped-call]  # has no types
        except Exception as error:  # there are many kinds, and the service handles none
            raise InternalServerError from error

    return matches
