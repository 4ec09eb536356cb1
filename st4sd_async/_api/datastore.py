"""Documents about runs: searches, tags, and waiting for documents, which lag behind the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from .. import models
from .._errors import APIError, DecodeError, NotFound, NotReady, TransportError, Unauthorized, UnknownRun
from ..models import Status
from . import documents
from ._base import Group
from .documents import COMPONENT, EXPERIMENT, USER_METADATA, Query, filters
from .instances import status_call

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .._util.clock import Clock
    from ..models import ComponentDocument, ExperimentDocument, UserMetadata
    from .documents import About

DOCUMENT_TIMEOUT = 30.0
"""Default number of seconds to wait for a document."""
MAX_LAG = 20.0
"""Seconds after which the datastore has the end of a run; 10 to 20 were measured."""
MIN_PAUSE, MAX_PAUSE, PAUSE_GROWTH = 0.5, 5.0, 1.5
"""Pause between two requests for a document: the first and the longest in seconds, and its growth."""
MAX_TAGGED_AT_ONCE = 100
"""Runs whose documents are read and written together by `Datastore.tag`."""


class Datastore(Group):
    """
    Documents about runs: one of each experiment, of its user metadata, and of each component.

    Documents lag 10 to 20 s behind the run, and stay when the run is deleted. A run that failed during set-up never
    has any. A search returns what matches all its filters, or everything without filters, in one reply.

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

    async def _root(self) -> str:
        return documents.root(await self._session.services())

    async def is_healthy(self) -> bool:
        """
        Return whether the datastore responds. False if it cannot be reached or fails.

        Raises:
            Unauthorized: The credentials were refused, which says nothing about the datastore.
        """
        base = await self._root()
        try:
            return await self._session.send(documents.hello_call(base))
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
        params = documents.properties_params(include_properties, stringify_nan=stringify_nan)
        checked = documents.checked(query)
        return await self._session.send(documents.query_call(await self._root(), checked, params))

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
        wanted = filters(EXPERIMENT, query, rest_uid=rest_uid, instance=instance)
        params = documents.properties_params(include_properties, stringify_nan=stringify_nan)
        call = documents.documents_call(await self._root(), models.ExperimentDocument, wanted, params)
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
        wanted = filters(COMPONENT, query, instance=instance, stage=stage, component=component, filename=filename)
        if rest_uid is not None:
            if "instance" in wanted:
                raise ValueError(f"rest_uid={rest_uid!r} names the run: leave out instance={wanted['instance']!r}")
            runs = await self.user_metadata(rest_uid=rest_uid)
            if not runs:
                return []
            wanted["instance"] = runs[-1].instance
        return await self._session.send(documents.documents_call(await self._root(), models.ComponentDocument, wanted))

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
        wanted = filters(USER_METADATA, query, rest_uid=rest_uid, instance=instance)
        return await self._session.send(documents.documents_call(await self._root(), models.UserMetadata, wanted))

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
        instances, added = documents.instances_of(about), documents.checked_tags(tags)
        written: list[UserMetadata] = []
        for first in range(0, len(instances), MAX_TAGGED_AT_ONCE):
            written += await self._tag(instances[first : first + MAX_TAGGED_AT_ONCE], added)
        return written

    async def _tag(self, instances: list[str], tags: Mapping[str, Any]) -> list[UserMetadata]:
        base = await self._root()
        wanted = {"type": {"$in": [EXPERIMENT, USER_METADATA]}, "instance": {"$in": instances}}
        found = await self._session.send(documents.query_call(base, wanted))
        changed = {(one["instance"], one["type"]): documents.tagged(one, tags) for one in found}
        order = [(instance, kind) for instance in instances for kind in (USER_METADATA, EXPERIMENT)]
        missing = [key for key in order if key not in changed]
        if missing:
            raise NotFound(f"the tags were not written: the datastore has no {missing[0][1]} of {missing[0][0]!r}")
        for call in documents.upsert_calls(base, (changed[key] for key in order)):
            await self._session.send(call)
        return [models.UserMetadata.model_validate(changed[instance, USER_METADATA]) for instance in instances]

    async def document(self, rest_uid: str, *, timeout: float = DOCUMENT_TIMEOUT) -> ExperimentDocument:
        """
        Return the experiment document of a run, and wait for it if it is late.

        While the run is in progress, this is the current document. Once the run is over or deleted, this is the
        document with its end. If that does not appear within 20 s, as for a run that was killed, it is the last
        document.

        Args:
            rest_uid: The run.
            timeout: Seconds to wait for the document. 0 means one request. A request in progress is not interrupted.

        Raises:
            NotReady: There is no document in time, but it may still appear.
            NotFound: There is no document, and the run has been over for 20 s, as after a failed set-up.
            UnknownRun: There is no document in time, and the service does not know the run. The next call does not
                wait for it again.
        """
        wait = _DocumentWait(self._clock, timeout)
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
        base = documents.root(await session.services())
        return await session.send_once(documents.final_status_call(base, rest_uid))
    return None


class _DocumentWait:
    """The pauses of one wait for a document: until a timeout, and once the run is over until documents are late."""

    def __init__(self, clock: Clock, timeout: float) -> None:
        if not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
        self._clock = clock
        self._deadline = clock.now() + timeout
        self._over_since = inf
        """When the run was first seen to be over."""
        self._pause = MIN_PAUSE

    async def pause(self, *, is_running: bool) -> bool:
        """Sleep before the next request; return False if there is no point in one."""
        now = self._clock.now()
        self._over_since = inf if is_running else min(self._over_since, now)
        left = min(self._deadline, self._over_since + MAX_LAG) - now
        if left <= 0:
            return False
        await self._clock.sleep(min(self._pause, left))
        self._pause = min(MAX_PAUSE, self._pause * PAUSE_GROWTH)
        return True

    def error(self, rest_uid: str, run: Status) -> NotReady | NotFound:
        """Return the error for a known run without a document."""
        if _never_registers(run) or self._clock.now() >= self._over_since + MAX_LAG:
            return NotFound(f"run {rest_uid!r} is over and left no document in the datastore, as after a failed set-up")
        return NotReady(f"the datastore has no document of run {rest_uid!r} yet: they come 10 to 20 s late")


def _never_registers(run: Status | UnknownRun) -> bool:
    """Return whether a run failed before it began: one that is over without meta never registers [3, 12]."""
    return isinstance(run, Status) and run.is_final and run.meta is None
