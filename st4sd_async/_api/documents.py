"""Queries for documents of the datastore, and what is written to it, as data: ``documents/api/v1.0/`` of its proxy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from .. import models
from .._errors import NotFound
from .._http.call import MAX_REQUEST_BYTES, Call, Response, json_body
from .._http.retry import Replay
from ..models.rest_uid import check_rest_uid

if TYPE_CHECKING:
    from ..models import ComponentDocument, Document, ExperimentDocument, Status, UserMetadata

    About = Document | Mapping[str, Any]
    """A document, which tells what run it is about."""

SERVICE = "cdb-rest"
"""Name of the datastore among the services."""
DOCUMENTS = "documents/api/v1.0"
EXPERIMENT, COMPONENT, USER_METADATA = "experiment", "component", "user-metadata"
"""The types of documents."""
REST_UID = {EXPERIMENT: "metadata.userMetadata.rest-uid", USER_METADATA: "rest-uid"}
"""Where documents of a type have the id of their run; those of components do not have it."""
IDENTITY = frozenset({"_id", "instance", "rest-uid", "type", "uid"})
"""Fields by which documents are found, which no tag may replace."""
ROOM = MAX_REQUEST_BYTES - 1000
"""Bytes of documents in one request."""

_REFERENCE = re.compile(r"stage([0-9]+)\.(.*)", re.DOTALL)

D = TypeVar("D", "ExperimentDocument", "ComponentDocument", "UserMetadata")
T = TypeVar("T")
Query = Mapping[str, Any]
"""A filter of MongoDB: a text is the text itself, ``{"$regex": ...}`` an expression; keys lead down with dots."""


def root(services: Mapping[str, str]) -> str:
    """The root of the datastore; raises `NotFound` if it is not among the services."""
    if SERVICE not in services:
        raise NotFound(f"this deployment has no datastore: its url-map/ names {sorted(services)} and not {SERVICE!r}")
    return services[SERVICE]


def filters(
    kind: str,
    query: Query | None = None,
    *,
    rest_uid: str | None = None,
    instance: str | None = None,
    stage: int | None = None,
    component: str | None = None,
    filename: str | None = None,
) -> dict[str, Any]:
    """The query for documents of a type; raises ValueError or TypeError for filters that will not do."""
    stage, name = _place(stage, component)
    wanted: dict[str, Any] = {"type": kind}
    if rest_uid is not None:
        wanted[REST_UID[kind]] = check_rest_uid(_text("rest_uid", rest_uid))
    if instance is not None:
        wanted["instance"] = _expression("instance", instance)
    if name is not None:
        wanted["name"] = _expression("component", name)
    if stage is not None:
        wanted["stage"] = stage
    if filename is not None:
        wanted["files"] = {"$elemMatch": _expression("filename", filename)}
    for key, value in checked(query or {}).items():
        if wanted.setdefault(key, value) != value:
            raise ValueError(f"the query says {key!r} is {value!r}, but the filters beside it say {wanted[key]!r}")
    return wanted


def _place(stage: int | None, component: str | None) -> tuple[int | None, str | None]:
    """The stage and the name that a stage, a component or its reference stand for."""
    if stage is not None and (not isinstance(stage, int) or stage < 0):
        raise ValueError(f"stage is a whole number from 0, not {stage!r}")
    reference = _REFERENCE.fullmatch(component) if isinstance(component, str) else None
    if reference is None:
        return stage, component
    if stage is not None:
        raise ValueError(f"the reference {component!r} names a stage: leave out stage={stage!r}")
    return int(reference[1]), reference[2]


def _text(what: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} is a text, not {text!r}")
    return text


def _expression(what: str, text: str) -> dict[str, str]:
    try:
        re.compile(_text(what, text))
    except re.error as error:
        raise ValueError(f"{what} is no regular expression: {text!r}: {error}") from None
    return {"$regex": text}


def checked(query: Query) -> Query:
    """The query, if it is one; raises TypeError if not."""
    if not isinstance(query, Mapping):
        raise TypeError(f"a query is a mapping, not {query!r}")
    return query


def properties_params(columns: Iterable[str] | None, *, stringify_nan: bool) -> dict[str, str]:
    """How a query asks for measured properties."""
    names = [columns] if isinstance(columns, str) else list(columns or ())
    for name in names:
        if not _text("a column", name) or "," in name:
            raise ValueError(f"the name of a column is a text without commas, not {name!r}")
    params = {"stringifyNaN": "true"} if stringify_nan else {}
    return {"includeProperties": "*" if "*" in names else ",".join(names).lower(), **params} if names else params


def query_call(base: str, query: Query, params: Mapping[str, str] | None = None) -> Call[list[dict[str, Any]]]:
    """The documents that match, as they are."""
    return _query(base, query, _descriptors, params)


def documents_call(base: str, model: type[D], query: Query, params: Mapping[str, str] | None = None) -> Call[list[D]]:
    """The documents that match, which are all of one type."""
    return _query(base, query, lambda response: [model.model_validate(one) for one in _descriptors(response)], params)


def final_status_call(base: str, rest_uid: str) -> Call[Status | None]:
    """
    Return the final status of a run from its experiment document; None if the document has none, or lags behind.
    """
    return _query(base, filters(EXPERIMENT, rest_uid=rest_uid), _final)


def _query(
    base: str, query: Query, decode: Callable[[Response], T], params: Mapping[str, str] | None = None
) -> Call[T]:
    content = json_body(dict(query))
    return Call("POST", f"{DOCUMENTS}/query", decode, params=params, content=content, is_slow=True, base_url=base)


def _descriptors(response: Response) -> list[dict[str, Any]]:
    found = response.json()["document-descriptors"]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("no documents")
    return found


def _final(response: Response) -> Status | None:
    found = [models.ExperimentDocument.model_validate(document).status for document in _descriptors(response)]
    return next((status for status in found if status.is_final), None)


def instances_of(documents: Iterable[About]) -> list[str]:
    """The locations of the runs that documents are about, each once; raises ValueError for one that tells none."""
    if isinstance(documents, Mapping | pydantic.BaseModel | str) or not isinstance(documents, Iterable):
        raise TypeError(f"documents are a list of them, not {type(documents).__name__}")
    found = {_instance(document): None for document in documents}
    return list(found)


def _instance(document: About) -> str:
    if not isinstance(document, Mapping | models.Document):
        told = "as client.datastore.user_metadata(rest_uid=...) finds it"
        raise TypeError(f"what is tagged is a document, {told}, not {type(document).__name__}")
    instance = document.get("instance") if isinstance(document, Mapping) else document.instance
    if not isinstance(instance, str) or not instance:
        raise ValueError(f"a document has the location of its run under 'instance', not {instance!r}")
    return instance


def checked_tags(tags: Mapping[str, Any]) -> dict[str, Any]:
    """The tags, if they will do; raises ValueError if not."""
    for name in checked(tags):
        if not isinstance(name, str) or not name or name.startswith("$") or "." in name:
            raise ValueError(f"the name of a tag is a text without dots and a leading $, not {name!r}")
        if name in IDENTITY:
            raise ValueError(f"no tag may be called {name!r}: documents are found by {sorted(IDENTITY)}")
    return dict(tags)


def tagged(document: Mapping[str, Any], tags: Mapping[str, Any]) -> dict[str, Any]:
    """A document with tags where its type has them, in place of those of the same name."""
    if document["type"] == USER_METADATA:
        return {**document, **tags}
    metadata = document.get("metadata") or {}
    return {**document, "metadata": {**metadata, "userMetadata": {**(metadata.get("userMetadata") or {}), **tags}}}


def upsert_calls(base: str, documents: Iterable[Mapping[str, Any]]) -> Iterator[Call[None]]:
    """Documents to write, each in place of the one with its instance and type, in requests that the proxy lets pass."""
    part: list[bytes] = []
    for document in documents:
        body = json_body(document)
        if part and sum(map(len, part)) + len(part) + len(body) > ROOM:
            yield _upsert(base, part)
            part = []
        part.append(body)
    if part:
        yield _upsert(base, part)


def _upsert(base: str, documents: Iterable[bytes]) -> Call[None]:
    content = b'{"documents": [' + b",".join(documents) + b"]}"
    return Call(
        "POST", f"{DOCUMENTS}/upsert", _written, replay=Replay.REPEAT, content=content, is_slow=True, base_url=base
    )


def _written(response: Response) -> None:
    if response.json() != "OK":
        raise ValueError("not written")


def hello_call(base: str) -> Call[bool]:
    """Whether a service of the datastore greets as it should."""
    return Call("GET", "hello/", lambda response: bool(response.json() == "hello"), base_url=base)
