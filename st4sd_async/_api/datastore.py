"""What the datastore keeps of runs, and waiting for it: it is always a little behind."""

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

PATIENCE = 30.0
"""Seconds for which the documents of a run are looked for again."""
LAG = 20.0
"""Seconds until the datastore knows what a run shows; 10 to 20 were seen."""
FIRST_PAUSE = 0.5
"""Seconds before a document is looked for a second time."""
PAUSE_GROWTH = 1.5
"""Factor by which each pause is longer than the one before."""
LONGEST_PAUSE = 5.0
"""Seconds between two looks for a document."""
RUNS_AT_ONCE = 100
"""Runs whose documents are read together in order to tag them."""


class Datastore(Group):
    """
    What the datastore keeps of runs: of each an experiment document, user metadata, and a document a component.

    Documents come 10 to 20 s after what they tell, and stay when the run is deleted; a run that
    failed while it was set up never has any. A search finds what fits all its filters, and without
    filters all there is, in one reply.

    ``instance``, ``component`` and ``filename`` are regular expressions that need to fit somewhere in
    the text: ``"Compute"`` finds ``Compute2`` too, ``"^Compute$"`` does not. ``query`` is any filter of
    MongoDB, where a text is just that text; ``rest_uid`` is exact.

    All methods raise `NotFound` if the deployment has no datastore, and `TransportError` or another `APIError`
    when it cannot be asked or refuses. Searches raise ValueError, before anything is sent, for filters that
    contradict each other and for an expression that is none.
    """

    def __init__(self, session: ClientSession) -> None:
        super().__init__(session)
        self._clock = session.config.clock
        self._given_up: set[str] = set()
        """Runs that nobody knows and that were waited for in vain."""

    async def _root(self) -> str:
        return documents.root(await self._session.services())

    async def is_healthy(self) -> bool:
        """
        Whether the datastore answers; False if it cannot be reached or fails.

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
        The documents that match a query of MongoDB, as they came; [] if none does.

        Args:
            query: The filter, as ``{"type": "experiment", "status.exit-status": "Success"}``.
            include_properties: Columns of measured properties in any case, ``["*"]`` for all, None for none. They
                are in ``interface.propertyTable`` of experiment documents: column -> values, with lower-case
                names, and always ``input-id``. A column that was not measured is left out.
            stringify_nan: Whether missing and infinite numbers come as texts (``"NaN"``) and not as floats.

        Source: ``POST documents/api/v1.0/query``.
        """
        params = documents.properties_params(include_properties, stringify_nan=stringify_nan)
        wanted = documents.checked(query)
        return await self._session.send(documents.query_call(await self._root(), wanted, params))

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
        The experiment documents that match, one a run; [] if none does, or not yet.

        Args:
            instance: Expression for the location of the run.
            rest_uid: The run's id.
            query: More to match.
            include_properties: As in `query`; each document has them as ``property_table``.
            stringify_nan: As in `query`.
        """
        wanted = filters(EXPERIMENT, query, rest_uid=rest_uid, instance=instance)
        params = documents.properties_params(include_properties, stringify_nan=stringify_nan)
        return await self._session.send(
            documents.documents_call(await self._root(), models.ExperimentDocument, wanted, params)
        )

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
        The component documents that match; [] if none does, or not yet.

        Args:
            instance: Expression for the location of the run.
            stage: Index of the stage.
            component: Expression for the name; or a reference, which is ``stage0.`` and the same.
            filename: Expression for the absolute path of one of the files.
            rest_uid: The run's id, in place of its location, which is then asked for first.
            query: More to match.
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
        The user metadata that match, one document a run; [] if none does, or not yet.

        Args:
            instance: Expression for the location of the run.
            rest_uid: The run's id.
            query: More to match, as ``{"campaign": "first"}``.
        """
        wanted = filters(USER_METADATA, query, rest_uid=rest_uid, instance=instance)
        return await self._session.send(documents.documents_call(await self._root(), models.UserMetadata, wanted))

    async def tag(self, about: Iterable[About], tags: Mapping[str, Any]) -> list[UserMetadata]:
        """
        Add tags to the user metadata of runs, and to the copy of them in their experiment documents.

        Not atomic: documents are read, changed and written whole, up to 100 runs at a time, so that
        what somebody else writes meanwhile is lost; after an error some runs may have the tags. To
        tag again does no harm. Tag runs that are over: what the orchestrator of a running one reports
        later replaces its documents, tags and all.

        Args:
            about: Documents of any type, as found or as dictionaries; only their ``instance`` counts.
            tags: name -> value, texts mostly; one that is there already gets the new value.

        Returns:
            The user metadata as written, one of each run, in the order given.

        Raises:
            NotFound: The datastore does not have both documents of a run; of those read with it, none has the tags.
            ValueError: A document has no ``instance``, or a tag a name that would hide what documents are found by.

        Source: ``POST documents/api/v1.0/upsert``.
        """
        instances, added = documents.instances_of(about), documents.checked_tags(tags)
        written: list[UserMetadata] = []
        for first in range(0, len(instances), RUNS_AT_ONCE):
            written += await self._tag(instances[first : first + RUNS_AT_ONCE], added)
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

    async def document(self, rest_uid: str, *, timeout: float = PATIENCE) -> ExperimentDocument:
        """
        The experiment document of a run, which is waited for if it is late.

        While the run goes on, it is what the datastore has now. Once the run is over or deleted, it is the one
        that tells the end; if that does not come within 20 s, as for a run that was killed, the last there is.

        Args:
            rest_uid: The run's id.
            timeout: Seconds to look again for; 0: one look. A request under way is not cut short.

        Raises:
            NotReady: There is none in time, but it may still come.
            NotFound: There is none, and the run is over for 20 s, as after a failed set-up.
            UnknownRun: There is none in time, and the service does not know the run. Asked again, it is not waited for.
        """
        patience = _Patience(self._clock, timeout)
        while True:
            found = await self.experiments(rest_uid=rest_uid)
            document = found[-1] if found else None  # of several the one that was written last
            if document is not None and document.status.is_final:
                return document
            run = await self._run(rest_uid)
            goes_on = isinstance(run, Status) and not run.is_final
            if document is not None and goes_on:
                return document
            if document is None and (_never_registers(run) or rest_uid in self._given_up):
                break
            if not await patience.pause(goes_on=goes_on):
                break
        if document is not None:
            return document
        if isinstance(run, UnknownRun):
            self._given_up.add(rest_uid)
            raise run
        raise patience.verdict(rest_uid, run)

    async def components_of(self, rest_uid: str, *, timeout: float = PATIENCE) -> list[ComponentDocument]:
        """
        The documents of all components of a run, never []; they are waited for as the run's `document` is.

        Raises:
            NotReady, NotFound, UnknownRun: There are none, for the reasons that `document` tells.
        """
        document = await self.document(rest_uid, timeout=timeout)
        found = await self.components(query={"instance": document.instance})
        if not found:
            raise NotReady(f"the datastore has a document of run {rest_uid!r}, but none of its components yet")
        return found

    async def _run(self, rest_uid: str) -> Status | UnknownRun:
        """What the service knows of a run."""
        try:
            return await self._session.send(status_call(rest_uid))
        except UnknownRun as error:
            error.advice = f"the datastore has no document of it either; {error.advice}"
            return error


async def final_status(session: ClientSession, rest_uid: str) -> Status | None:
    """Return how a deleted run ended, without retries; None if the datastore does not know or does not answer."""
    with suppress(APIError, TransportError, DecodeError):
        base = documents.root(await session.services())
        return await session.send_once(documents.end_call(base, rest_uid))
    return None


class _Patience:
    """How long a document is waited for: up to a time, and once the run is over only as long as it may be late."""

    def __init__(self, clock: Clock, timeout: float) -> None:
        if not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
        self._clock = clock
        self._until = clock.now() + timeout
        self._ended = inf
        """When the run was first seen not to go on."""
        self._pause = FIRST_PAUSE

    async def pause(self, *, goes_on: bool) -> bool:
        """Sleep before another look; False if there is no use in one."""
        now = self._clock.now()
        self._ended = inf if goes_on else min(self._ended, now)
        left = min(self._until, self._ended + LAG) - now
        if left <= 0:
            return False
        await self._clock.sleep(min(self._pause, left))
        self._pause = min(LONGEST_PAUSE, self._pause * PAUSE_GROWTH)
        return True

    def verdict(self, rest_uid: str, run: Status) -> NotReady | NotFound:
        """Why a run that the service knows has no document."""
        if _never_registers(run) or self._clock.now() >= self._ended + LAG:
            return NotFound(f"run {rest_uid!r} is over and left no document in the datastore, as after a failed set-up")
        return NotReady(f"the datastore has no document of run {rest_uid!r} yet: they come 10 to 20 s late")


def _never_registers(run: Status | UnknownRun) -> bool:
    """Whether a run failed before it began: one that is over without meta never registers [3, 12]."""
    return isinstance(run, Status) and run.is_final and run.meta is None
