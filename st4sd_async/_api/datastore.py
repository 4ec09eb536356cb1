"""
Documents about runs: ``documents/api/v1.0/`` of the datastore's MongoDB proxy.

The functions build requests as data. `Datastore` sends them, and waits for documents, which lag behind the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from .. import models
from .._errors import APIError, DecodeError, NotFound, NotReady, TransportError, Unauthorized, UnknownRun
from .._http.call import MAX_REQUEST_BYTES, Call, Response, json_body
from .._http.retry import Replay
from .._util.progress import ProgressReporter
from ..models import Status
from ..models.runs import check_rest_uid
from .group import Group, check_text, properties_params
from .instances import status_call

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .._util.clock import Clock
    from .._util.progress import Progress
    from ..models import ComponentDocument, Document, ExperimentDocument, UserMetadata

    About = Document | Mapping[str, Any]
    """A document, which names the run that it is about."""

DATASTORE = "cdb-rest"
"""Name of the datastore among the services."""
PATH_PREFIX = "documents/api/v1.0"
EXPERIMENT, COMPONENT, USER_METADATA = "experiment", "component", "user-metadata"
"""The types of documents."""
REST_UID_FIELDS = {EXPERIMENT: "metadata.userMetadata.rest-uid", USER_METADATA: "rest-uid"}
"""The field with the rest-uid of the run, by document type. Component documents have none."""
RESERVED_TAGS = frozenset({"_id", "instance", "rest-uid", "type", "uid"})
"""Fields that identify documents, which no tag may replace."""
MAX_UPSERT_BYTES = MAX_REQUEST_BYTES - 1000
"""Bytes of documents in one request."""
DOCUMENT_TIMEOUT = 30.0
"""Default number of seconds to wait for a document."""
MAX_LAG = 20.0
"""Seconds after which the datastore has the end of a run; 10 to 20 were measured."""
MIN_DOCUMENT_PAUSE, MAX_DOCUMENT_PAUSE, DOCUMENT_PAUSE_GROWTH = 0.5, 5.0, 1.5
"""Pause between two requests for a document: the first and the longest in seconds, and its growth."""
MAX_TAGGED_AT_ONCE = 100
"""Runs whose documents are read and written together by `Datastore.tag`."""

_REFERENCE = re.compile(r"stage([0-9]+)\.(.*)", re.DOTALL)

D = TypeVar("D", "ExperimentDocument", "ComponentDocument", "UserMetadata")
T = TypeVar("T")
Query = Mapping[str, Any]
"""A MongoDB filter: a text matches exactly, ``{"$regex": ...}`` is an expression, dots in keys lead to inner fields."""


def datastore_url(services: Mapping[str, str]) -> str:
    """Return the root of the datastore; raise `NotFound` if the deployment has none."""
    if DATASTORE not in services:
        raise NotFound(f"this deployment has no datastore: its url-map/ has {sorted(services)}, but not {DATASTORE!r}")
    return services[DATASTORE]


def build_query(
    kind: str,
    query: Query | None = None,
    *,
    rest_uid: str | None = None,
    instance: str | None = None,
    stage: int | None = None,
    component: str | None = None,
    filename: str | None = None,
) -> dict[str, Any]:
    """Return the query for documents of a type; raise ValueError or TypeError for invalid filters."""
    stage, name = _split_reference(stage, component)
    wanted: dict[str, Any] = {"type": kind}
    if rest_uid is not None:
        wanted[REST_UID_FIELDS[kind]] = check_rest_uid(check_text("rest_uid", rest_uid))
    if instance is not None:
        wanted["instance"] = _expression("instance", instance)
    if name is not None:
        wanted["name"] = _expression("component", name)
    if stage is not None:
        wanted["stage"] = stage
    if filename is not None:
        wanted["files"] = {"$elemMatch": _expression("filename", filename)}
    for key, value in check_query(query or {}).items():
        if wanted.setdefault(key, value) != value:
            raise ValueError(f"the query has {value!r} for {key!r}, but the other filters have {wanted[key]!r}")
    return wanted


def _split_reference(stage: int | None, component: str | None) -> tuple[int | None, str | None]:
    """Return the stage and name of a component, given separately or as a reference."""
    if stage is not None and (not isinstance(stage, int) or stage < 0):
        raise ValueError(f"stage must be a whole number from 0, not {stage!r}")
    reference = _REFERENCE.fullmatch(component) if isinstance(component, str) else None
    if reference is None:
        return stage, component
    if stage is not None:
        raise ValueError(f"the reference {component!r} names a stage: leave out stage={stage!r}")
    return int(reference[1]), reference[2]


def _expression(what: str, text: str) -> dict[str, str]:
    try:
        re.compile(check_text(what, text))
    except re.error as error:
        raise ValueError(f"{what} is not a regular expression: {text!r}: {error}") from None
    return {"$regex": text}


def check_query(query: Query) -> Query:
    """Return the query; raise TypeError if it is not a mapping."""
    if not isinstance(query, Mapping):
        raise TypeError(f"a query is a mapping, not {query!r}")
    return query


def query_call(base: str, query: Query, params: Mapping[str, str] | None = None) -> Call[list[dict[str, Any]]]:
    """Return the request for the documents that match, unchanged."""
    return _query(base, query, _descriptors, params)


def documents_call(base: str, model: type[D], query: Query, params: Mapping[str, str] | None = None) -> Call[list[D]]:
    """Return the request for the documents that match, all of one type."""
    return _query(base, query, lambda response: [model.model_validate(one) for one in _descriptors(response)], params)


def final_status_call(base: str, rest_uid: str) -> Call[Status | None]:
    """Return the request for the final status of a run; None if its document is missing or has none yet."""
    return _query(base, build_query(EXPERIMENT, rest_uid=rest_uid), _final)


def _query(
    base: str, query: Query, decode: Callable[[Response], T], params: Mapping[str, str] | None = None
) -> Call[T]:
    content = json_body(dict(query))
    return Call("POST", f"{PATH_PREFIX}/query", decode, params=params, content=content, is_slow=True, base_url=base)


def _descriptors(response: Response) -> list[dict[str, Any]]:
    found = response.json()["document-descriptors"]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("not a list of documents")
    return found


def _final(response: Response) -> Status | None:
    found = [models.ExperimentDocument.model_validate(document).status for document in _descriptors(response)]
    return next((status for status in found if status.is_final), None)


def instances_of(documents: Iterable[About]) -> list[str]:
    """Return the locations of the runs that documents are about, each once; raise ValueError for a missing one."""
    if isinstance(documents, Mapping | pydantic.BaseModel | str) or not isinstance(documents, Iterable):
        raise TypeError(f"documents must be a list, not {type(documents).__name__}")
    found = {_instance(document): None for document in documents}
    return list(found)


def _instance(document: About) -> str:
    if not isinstance(document, Mapping | models.Document):
        example = "such as one of client.datastore.user_metadata(rest_uid=...)"
        raise TypeError(f"tag takes documents, {example}, not {type(document).__name__}")
    instance = document.get("instance") if isinstance(document, Mapping) else document.instance
    if not isinstance(instance, str) or not instance:
        raise ValueError(f"a document needs the location of its run under 'instance', not {instance!r}")
    return instance


def check_tags(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tags; raise ValueError if a name is invalid."""
    for name in check_query(tags):
        if not isinstance(name, str) or not name or name.startswith("$") or "." in name:
            raise ValueError(f"the name of a tag must be a string without dots and without a leading $, not {name!r}")
        if name in RESERVED_TAGS:
            raise ValueError(f"the tag name {name!r} is reserved: {sorted(RESERVED_TAGS)} identify documents")
    return dict(tags)


def tagged(document: Mapping[str, Any], tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with tags added, in the place of its type. They replace tags of the same name."""
    if document["type"] == USER_METADATA:
        return {**document, **tags}
    metadata = document.get("metadata") or {}
    return {**document, "metadata": {**metadata, "userMetadata": {**(metadata.get("userMetadata") or {}), **tags}}}


def upsert_calls(base: str, documents: Iterable[Mapping[str, Any]]) -> Iterator[Call[None]]:
    """Yield the requests that write documents in place of those of the same run, in bodies that the proxy accepts."""
    batch: list[bytes] = []
    for document in documents:
        body = json_body(document)
        if batch and sum(map(len, batch)) + len(batch) + len(body) > MAX_UPSERT_BYTES:
            yield _upsert(base, batch)
            batch = []
        batch.append(body)
    if batch:
        yield _upsert(base, batch)


def _upsert(base: str, documents: Iterable[bytes]) -> Call[None]:
    content = b'{"documents": [' + b",".join(documents) + b"]}"
    return Call(
        "POST", f"{PATH_PREFIX}/upsert", _written, replay=Replay.REPEAT, content=content, is_slow=True, base_url=base
    )


def _written(response: Response) -> None:
    if response.json() != "OK":
        raise ValueError("the documents were not written")


def hello_call(base: str) -> Call[bool]:
    """Return the request that checks whether a service of the datastore responds."""
    return Call("GET", "hello/", lambda response: bool(response.json() == "hello"), base_url=base)


class Datastore(Group):
    """
    Documents about runs: one of each experiment, of its user metadata, and of each component.

    Documents lag 10 to 20 s behind the run, and stay when the run is deleted. A run that failed during set-up never
    has any. A search returns what matches all its filters, or everything without filters, in one response.

    ``instance``, ``component`` and ``filename`` are regular expressions, searched for in the text: ``"Compute"`` also
    finds ``Compute2``, ``"^Compute$"`` does not. ``query`` is any MongoDB filter, in which a text matches exactly.
    ``rest_uid`` matches exactly.

    All methods raise `NotFound` if the deployment has no datastore, and `TransportError` or another `APIError` if it
    cannot be reached or refuses the request. Searches raise ValueError, before anything is sent, for filters that
    contradict each other and for an invalid expression.
    """

    def __init__(self, session: ClientSession) -> None:
        super().__init__(session)
        self._clock = session.config.clock
        self._never_documented: set[str] = set()
        """Unknown runs for whose documents a call has already waited in vain."""

    async def _url(self) -> str:
        return datastore_url(await self._session.services())

    async def is_healthy(self) -> bool:
        """
        Return whether the datastore responds. False if it cannot be reached or fails.

        Raises:
            Unauthorized: The credentials were refused, which says nothing about the datastore.
        """
        base = await self._url()
        try:
            return await self._session.send(hello_call(base))
        except Unauthorized:
            raise
        except (APIError, TransportError, DecodeError):
            return False

    async def query(
        self, query: Query, *, include_properties: Iterable[str] | None = None, stringify_nan: bool = False
    ) -> list[dict[str, Any]]:
        """
        Return the documents that match a MongoDB query, unchanged. [] if none matches.

        Args:
            query: The filter, such as ``{"type": "experiment", "status.exit-status": "Success"}``.
            include_properties: Columns of measured properties, in any case. ``["*"]`` means all, None means none.
                They are in ``interface.propertyTable`` of experiment documents: column -> values, with lower-case
                names, and always ``input-id``. A column that was not measured is left out.
            stringify_nan: Return missing and infinite numbers as texts (``"NaN"``) and not as floats.

        Source: ``POST documents/api/v1.0/query``.
        """
        params = properties_params(include_properties, stringify_nan=stringify_nan)
        query = check_query(query)
        return await self._session.send(query_call(await self._url(), query, params))

    async def experiments(
        self,
        *,
        instance: str | None = None,
        rest_uid: str | None = None,
        query: Query | None = None,
        include_properties: Iterable[str] | None = None,
        stringify_nan: bool = False,
    ) -> list[ExperimentDocument]:
        """
        Return the experiment documents that match, one for each run. [] if none matches, or not yet.

        Args:
            instance: Regular expression for the location of the run.
            rest_uid: The run.
            query: Further conditions.
            include_properties: As in `query`. Each document has them as ``property_table``.
            stringify_nan: As in `query`.
        """
        wanted = build_query(EXPERIMENT, query, rest_uid=rest_uid, instance=instance)
        params = properties_params(include_properties, stringify_nan=stringify_nan)
        call = documents_call(await self._url(), models.ExperimentDocument, wanted, params)
        return await self._session.send(call)

    async def components(
        self,
        *,
        instance: str | None = None,
        stage: int | None = None,
        component: str | None = None,
        filename: str | None = None,
        rest_uid: str | None = None,
        query: Query | None = None,
    ) -> list[ComponentDocument]:
        """
        Return the component documents that match. [] if none matches, or not yet.

        Args:
            instance: Regular expression for the location of the run.
            stage: Index of the stage.
            component: Regular expression for the name. Or a reference: ``stage0.`` and such an expression.
            filename: Regular expression for the absolute path of one of the files.
            rest_uid: The run, instead of its location, which is then requested first.
            query: Further conditions.
        """
        wanted = build_query(COMPONENT, query, instance=instance, stage=stage, component=component, filename=filename)
        if rest_uid is not None:
            if "instance" in wanted:
                raise ValueError(f"rest_uid={rest_uid!r} names the run: leave out instance={wanted['instance']!r}")
            runs = await self.user_metadata(rest_uid=rest_uid)
            if not runs:
                return []
            wanted["instance"] = runs[-1].instance
        return await self._session.send(documents_call(await self._url(), models.ComponentDocument, wanted))

    async def user_metadata(
        self, *, instance: str | None = None, rest_uid: str | None = None, query: Query | None = None
    ) -> list[UserMetadata]:
        """
        Return the user metadata documents that match, one for each run. [] if none matches, or not yet.

        Args:
            instance: Regular expression for the location of the run.
            rest_uid: The run.
            query: Further conditions, such as ``{"campaign": "first"}``.
        """
        wanted = build_query(USER_METADATA, query, rest_uid=rest_uid, instance=instance)
        return await self._session.send(documents_call(await self._url(), models.UserMetadata, wanted))

    async def tag(self, about: Iterable[About], tags: Mapping[str, Any]) -> list[UserMetadata]:
        """
        Add tags to the user metadata of runs, and to the copy in their experiment documents.

        Not atomic: documents are read, changed and written as a whole, up to 100 runs at a time. A concurrent change
        by another program is lost. After an error, some runs may have the tags. Repeating the call is safe. Tag runs
        that are over: the orchestrator of a running one overwrites its documents, tags included.

        Args:
            about: Documents of any type, as found or as dictionaries. Only their ``instance`` is used.
            tags: name -> value, usually text. An existing tag gets the new value.

        Returns:
            The user metadata as written, one for each run, in the given order.

        Raises:
            NotFound: The datastore lacks one of the two documents of a run. None of the runs read with it was tagged.
            ValueError: A document has no ``instance``, or a tag has the name of a field that identifies documents.

        Source: ``POST documents/api/v1.0/upsert``.
        """
        instances, added = instances_of(about), check_tags(tags)
        written: list[UserMetadata] = []
        for first in range(0, len(instances), MAX_TAGGED_AT_ONCE):
            written += await self._tag(instances[first : first + MAX_TAGGED_AT_ONCE], added)
        return written

    async def _tag(self, instances: list[str], tags: Mapping[str, Any]) -> list[UserMetadata]:
        base = await self._url()
        wanted = {"type": {"$in": [EXPERIMENT, USER_METADATA]}, "instance": {"$in": instances}}
        found = await self._session.send(query_call(base, wanted))
        changed = {(one["instance"], one["type"]): tagged(one, tags) for one in found}
        order = [(instance, kind) for instance in instances for kind in (USER_METADATA, EXPERIMENT)]
        missing = [key for key in order if key not in changed]
        if missing:
            raise NotFound(f"the tags were not written: the datastore has no {missing[0][1]} of {missing[0][0]!r}")
        for call in upsert_calls(base, (changed[key] for key in order)):
            await self._session.send(call)
        return [models.UserMetadata.model_validate(changed[instance, USER_METADATA]) for instance in instances]

    async def document(self, rest_uid: str, *, timeout: float = DOCUMENT_TIMEOUT) -> ExperimentDocument:
        """
        Return the experiment document of a run, and wait for it if it is late.

        While the run is in progress, this is the current document. Once the run is over or deleted, this is the
        document with its end. If that does not appear within 20 s, as for a run that was killed, it is the last
        document. A wait is reported to ``Config.progress``, such as `ProgressBars`.

        Args:
            rest_uid: The run.
            timeout: Seconds to wait for the document. 0 means one request. A request in progress is not interrupted.

        Raises:
            NotReady: There is no document in time, but it may still appear.
            NotFound: There is no document, and the run has been over for 20 s, as after a failed set-up.
            UnknownRun: There is no document in time, and the service does not know the run. The next call does not
                wait for it again.
        """
        wait = _DocumentWait(self._clock, timeout, rest_uid, self._session.config.progress)
        with wait.reported():
            while True:
                found = await self.experiments(rest_uid=rest_uid)
                document = found[-1] if found else None  # if there are several, the newest
                if document is not None and document.status.is_final:
                    return document
                run = await self._run(rest_uid)
                is_running = isinstance(run, Status) and not run.is_final
                if document is not None and is_running:
                    return document
                if document is None and (_never_registers(run) or rest_uid in self._never_documented):
                    break
                if not await wait.pause(is_running=is_running):
                    break
        if document is not None:
            return document
        if isinstance(run, UnknownRun):
            self._never_documented.add(rest_uid)
            raise run
        raise wait.error(rest_uid, run)

    async def components_of(self, rest_uid: str, *, timeout: float = DOCUMENT_TIMEOUT) -> list[ComponentDocument]:
        """
        Return the documents of all components of a run, never []. Waits for them as `document` does.

        Raises:
            NotReady, NotFound, UnknownRun: There are no documents, as in `document`.
        """
        document = await self.document(rest_uid, timeout=timeout)
        found = await self.components(query={"instance": document.instance})
        if not found:
            raise NotReady(f"the datastore has a document of run {rest_uid!r}, but none of its components yet")
        return found

    async def _run(self, rest_uid: str) -> Status | UnknownRun:
        """Return the status of a run, or the error that the runtime service does not know it."""
        try:
            return await self._session.send(status_call(rest_uid))
        except UnknownRun as error:
            error.advice = f"the datastore has no document of it either; {error.advice}"
            return error


async def final_status(session: ClientSession, rest_uid: str) -> Status | None:
    """Return the final status of a deleted run, without retries. None if the datastore does not have it or fails."""
    with suppress(APIError, TransportError, DecodeError):
        base = datastore_url(await session.services())
        return await session.send_once(final_status_call(base, rest_uid))
    return None


class _DocumentWait:
    """The pauses of one wait for a document: until a timeout, and once the run is over until documents are late."""

    def __init__(self, clock: Clock, timeout: float, rest_uid: str, progress: Progress | None) -> None:
        if not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
        self._clock = clock
        self._deadline = clock.now() + timeout
        self._over_since = inf
        """When the run was first seen to be over."""
        self._pause = MIN_DOCUMENT_PAUSE
        self._reporter = ProgressReporter(progress, f"waiting for the document of {rest_uid}", 1, "documents")
        self._stack = ExitStack()
        self._is_reported = self._is_futile = False

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Report the wait, if there is one, as progress."""
        with self._stack:
            yield
            if self._is_reported and not self._is_futile:
                self._reporter.finish()

    async def pause(self, *, is_running: bool) -> bool:
        """Sleep before the next request. Return False if no further request is useful."""
        now = self._clock.now()
        self._over_since = inf if is_running else min(self._over_since, now)
        left = min(self._deadline, self._over_since + MAX_LAG) - now
        if left <= 0:
            self._is_futile = True
            return False
        if not self._is_reported:
            self._is_reported = True
            self._stack.enter_context(self._reporter)
        await self._clock.sleep(min(self._pause, left))
        self._pause = min(MAX_DOCUMENT_PAUSE, self._pause * DOCUMENT_PAUSE_GROWTH)
        return True

    def error(self, rest_uid: str, run: Status) -> NotReady | NotFound:
        """Return the error for a known run without a document."""
        if _never_registers(run) or self._clock.now() >= self._over_since + MAX_LAG:
            return NotFound(f"run {rest_uid!r} is over and left no document in the datastore, as after a failed set-up")
        return NotReady(f"the datastore has no document of run {rest_uid!r} yet: they come 10 to 20 s late")


def _never_registers(run: Status | UnknownRun) -> bool:
    """Return whether a run failed before it began: one that ended without ``meta`` never registers."""
    return isinstance(run, Status) and run.is_final and run.meta is None
