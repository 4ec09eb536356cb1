"""Observe whether starts with unknown outcome arrived: what the list, single requests and the datastore show."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
from pydantic_core import SchemaValidator

from .._api.status_list import item_schema
from .._errors import NotFound, St4sdError, UnknownRun
from .._http.call import Call, list_call
from .._http.json_list import MAX_LIST_BYTES
from .._results.downloads import for_each
from .._watch.status_reader import is_transient
from ..models.finality import FinalityTracker, is_final
from ..models.hints import Reason
from ..models.runs import is_rest_uid
from .reconcile_rules import InstanceList, KnownInstances, Observation, ObservedInstance, candidates
from .state import METADATA_KEY, LaunchRecord

if TYPE_CHECKING:
    from .._api.datastore import Query
    from .._http.session import ClientSession
    from .._util.clock import Clock
    from ..models import Instance, Status, UserMetadata
    from .client import BatchClient

log = logging.getLogger("st4sd_async")

LIST_TIMEOUT = 120.0
"""Seconds after which a list request is abandoned. The proxy gives up after 60 s."""
MAX_CANDIDATE_REQUESTS = 100
"""Maximum number of requests for single candidates in an observation."""
MAX_MISSING_REQUESTS = 1000
"""
Maximum number of requests in an observation for instances that the list lacks.

The service responds to about this many in `PART_TIMEOUT`. With fewer, the 10,000 deleted runs of a large campaign could
not be confirmed within three settle windows.
"""
REQUESTS_IN_FLIGHT = 2
"""Maximum number of requests of an observation in flight. More would not increase the service's throughput."""
PART_TIMEOUT = 10.0
"""Seconds for each part of an observation other than the list."""
MAX_QUERY_TERMS = 5000
"""Maximum number of tokens and ids in one query of the datastore, whose requests may have 1 MiB."""

T = TypeVar("T")


class SeenInstances(Protocol):
    """What is remembered of instances from one observation to the next."""

    def expected_instances(self) -> list[str]:
        """Return the rest-uids that a complete list must show."""

    def known_instances(self) -> KnownInstances:
        """Return the owners of instances, when each was seen first, and which are deleted."""

    async def note_listed(self, listed: Mapping[str, ObservedInstance], /) -> None:
        """Note the instances in a list."""

    async def mark_deleted(self, rest_uids: Iterable[str], /) -> None:
        """Note that instances are deleted."""


@dataclass(frozen=True)
class Doubt:
    """A start with unknown outcome."""

    record: LaunchRecord
    """The launch."""
    token: str
    """The token that its run carries."""
    has_policy: bool
    """Whether the payload has a runtime policy, which may choose another package."""


class Observer:
    """Observes the service for starts in doubt, and remembers which candidates have ended."""

    def __init__(self, client: BatchClient, session: ClientSession, clock: Clock, seen: SeenInstances) -> None:
        self._client, self._session, self._clock, self._seen = client, session, clock, seen
        self._grace = session.config.grace
        self.has_datastore = True
        """Whether the deployment has a datastore, as far as is known."""
        self._finality: dict[str, FinalityTracker] = {}
        """rest-uid -> the tracker that decides, from single requests, whether a candidate has ended."""
        self._ended: dict[str, ObservedInstance] = {}
        """rest-uid -> what a request showed of a candidate that has ended."""
        self._executed: set[str] = set()
        """rest-uids of candidates that executed something according to a request. A later status may hide that."""
        self._final: set[str] = set()
        """rest-uids of candidates for which one response proved that they have ended: they need no further request."""
        self._requested_at: dict[str, float] = {}
        """rest-uid -> when a candidate was last requested."""

    async def observe(self, doubts: Collection[Doubt]) -> Observation:
        """
        Return what the service shows now. It is no evidence if the list or the datastore fails for a while.

        Raises:
            St4sdError: The list fails with an error that is not temporary.
        """
        at, expected = self._clock.now(), self._seen.expected_instances()
        nothing = Observation(at, {}, is_evidence=False)
        try:
            with anyio.move_on_after(LIST_TIMEOUT) as scope:
                instance_list = await self._session.send_once(instance_list_call())
            if scope.cancelled_caught:
                return nothing
        except Exception as error:  # raised again unless it is temporary
            if not is_transient(error, has_responded=True):
                raise
            log.debug("cannot tell yet whether %d launches were started: %s", len(doubts), error)
            self._session.availability.failed(error, self._clock.now())
            return nothing
        listed = instance_list.instances
        await self._seen.note_listed(listed)
        is_complete = await self._is_complete(listed, expected)
        wanted = self._candidates(doubts, Observation(at, listed, is_evidence=False))
        requested = await self._request_candidates([uid for uid in wanted if uid in listed], listed)
        documents = await self.query_datastore([doubt.token for doubt in doubts], wanted)
        found = {**listed, **requested}
        for uid, instance in (documents or {}).items():
            if uid not in found or not found[uid].has_metadata:
                found[uid] = instance
        if documents is not None:
            for uid, instance in requested.items():
                # Without a datastore nothing would show that it executes something later, unless it is over.
                is_certain = self.has_datastore or instance.is_over
                if is_certain and uid not in documents and not instance.has_metadata and instance.has_executed is None:
                    found[uid] = replace(instance, has_executed=False)
        return Observation(at, found, is_complete and instance_list.is_readable and documents is not None)

    def _candidates(self, doubts: Iterable[Doubt], observation: Observation) -> list[str]:
        """Return all candidates, those first that were not requested for longest."""
        known = self._seen.known_instances()
        found = {
            uid: None
            for doubt in doubts
            for uid in candidates(doubt.record, observation, known, has_policy=doubt.has_policy)
        }
        return sorted(found, key=lambda uid: self._requested_at.get(uid, -inf))

    async def _is_complete(self, listed: Collection[str], expected: Iterable[str]) -> bool:
        """
        Return whether a list shows every instance that it must show.

        Missing instances are requested until one proves to exist. Deleted ones are noted.
        """
        missing = [uid for uid in expected if uid not in listed]
        deleted: list[str] = []
        is_incomplete = False

        async def confirm(uid: str) -> None:
            nonlocal is_incomplete
            if is_incomplete:
                return
            try:
                await self._client.status(uid)
            except UnknownRun as error:
                if error.detail:
                    deleted.append(uid)
                    return
            except (St4sdError, ValueError):
                pass  # if it cannot be requested, it may exist
            is_incomplete = True

        await _for_each(missing[:MAX_MISSING_REQUESTS], confirm)
        await self._seen.mark_deleted(deleted)
        return len(deleted) == len(missing)

    async def _request_candidates(
        self, wanted: Collection[str], listed: Mapping[str, ObservedInstance]
    ) -> dict[str, ObservedInstance]:
        """Return what single requests show of candidates. The list never shows a failure before the first component."""
        found = {uid: self._ended[uid] for uid in wanted if uid in self._ended}

        async def request(uid: str) -> None:
            self._requested_at[uid] = self._clock.now()
            with suppress(St4sdError, ValueError):  # ValueError: an id in the list is not a rest-uid
                status = await self._client.status(uid)
                finality = self._finality.setdefault(uid, FinalityTracker(self._grace))
                is_over = finality.observe(status.pair, self._clock.now(), status.error_description)
                found[uid] = replace(from_status(uid, listed[uid].package, status), is_over=is_over)
                if found[uid].has_executed:
                    self._executed.add(uid)
                elif uid in self._executed:
                    found[uid] = replace(found[uid], has_executed=True)
                self._ended.pop(uid, None)
                if is_over:
                    self._ended[uid] = found[uid]
                if status.is_final:
                    self._final.add(uid)

        await _for_each([uid for uid in wanted if uid not in self._final][:MAX_CANDIDATE_REQUESTS], request)
        return found

    async def query_datastore(
        self, tokens: Iterable[str], rest_uids: Iterable[str]
    ) -> dict[str, ObservedInstance] | None:
        """
        Return what the datastore has of runs with one of these tokens, or with one of these ids.

        Empty if there is no datastore. None means that it did not respond.
        """
        terms = [(token, "") for token in tokens] + [("", uid) for uid in rest_uids]
        found: dict[str, ObservedInstance] = {}
        try:
            with anyio.move_on_after(PART_TIMEOUT) as scope:
                for begin in range(0, len(terms), MAX_QUERY_TERMS):
                    portion = terms[begin : begin + MAX_QUERY_TERMS]
                    query = documents_query(
                        [token for token, _ in portion if token], [uid for _, uid in portion if uid]
                    )
                    documents = await self._client.datastore.user_metadata(query=query)
                    if not all(document.rest_uid for document in documents):
                        return None  # a document without an id may belong to the run
                    found.update(from_documents(documents))
        except NotFound as error:
            if error.status is not None:
                return None
            self.has_datastore = False
        except St4sdError as error:
            log.info("the datastore cannot be searched for runs of launches in doubt: %s", error)
            return None
        return None if scope.cancelled_caught else found


async def _for_each(wanted: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Call ``work`` for each item, a few at a time, for at most `PART_TIMEOUT`."""
    with anyio.move_on_after(PART_TIMEOUT):
        await for_each(wanted, work, REQUESTS_IN_FLIGHT)


# What the responses of the service show of instances.

_read_item = SchemaValidator(item_schema("id", "status", "k8s-labels")).validate_json
"""Reads three fields of an item. The definition of the experiment, which is most of it, is skipped."""

_MAY_PRECEDE_COMPONENTS = frozenset(
    {
        Reason.PENDING,
        Reason.INITIALISING,
        Reason.UNSCHEDULED,
        Reason.UNSCHEDULABLE,
        Reason.SETUP_FAILED,
        Reason.PACKAGE_NOT_FETCHED,
        Reason.INPUTS_NOT_FETCHED,
        Reason.NO_EXIT_STATUS,
    }
)
"""Reasons that leave open whether a component was executed. All others imply that the orchestrator ran."""

_PACKAGE_LABEL = "st4sd-package-name"


def instance_list_call() -> Call[InstanceList]:
    """
    Return the request for the list of instances.

    Source: ``GET instances/`` of the runtime service.
    """
    return list_call("instances/", _InstanceReader, max_list_bytes=MAX_LIST_BYTES, is_slow=True)


class _InstanceReader:
    """Takes the items of one list."""

    def __init__(self) -> None:
        self._found: dict[str, ObservedInstance] = {}
        self._nameless = self._foreign = 0
        """Number of items without a rest-uid, and of those that are not objects."""

    def add(self, text: bytes, /) -> None:
        """Take the next item."""
        item = _read_item(text)
        if item is None:
            self._foreign += 1
        elif is_rest_uid(item.get("id")):
            self._found[item["id"]] = _parse_item(item)
        else:
            self._nameless += 1

    def end(self) -> InstanceList:
        """Return what the list shows."""
        if self._foreign and not self._found and not self._nameless:
            raise ValueError("no list of instances")
        return InstanceList(self._found, is_readable=not self._nameless and not self._foreign)


def _parse_item(item: Mapping[str, Any]) -> ObservedInstance:
    status = _mapping(item.get("status"))
    package = _text(_mapping(item.get("k8s-labels")).get(_PACKAGE_LABEL))
    metadata = _mapping(_mapping(status.get("meta")).get("userMetadata"))
    return ObservedInstance(item["id"], package, _text(metadata.get(METADATA_KEY)), bool(metadata))


def from_status(rest_uid: str, package: str | None, status: Status) -> ObservedInstance:
    """
    Return what the status of an instance shows.

    A status cannot show that the instance executed nothing; only the datastore can. If only one of the two state fields
    is final, one status cannot show that it has ended either.
    """
    metadata = status.meta.user_metadata if status.meta else {}
    return ObservedInstance(
        rest_uid,
        package,
        token=_text(metadata.get(METADATA_KEY)),
        has_metadata=bool(metadata),
        is_over=is_final(status.pair),
        has_executed=True if _may_have_executed(status) else None,
    )


def _may_have_executed(status: Status) -> bool:
    # If the service cannot read the status of a run, it returns a default one without stages.
    if status.stages or status.total_progress or status.experiment_state == "finished":
        return True
    return status.hint is None or status.hint.reason not in _MAY_PRECEDE_COMPONENTS


def from_instance(instance: Instance) -> ObservedInstance:
    """Return what an instance shows, its package included."""
    return from_status(instance.id, instance.labels.get(_PACKAGE_LABEL), instance.status)


def documents_query(tokens: Iterable[str], rest_uids: Iterable[str]) -> Query:
    """Return the query for the user metadata of runs with one of these tokens or rest-uids."""
    with_token, with_id = {METADATA_KEY: {"$in": sorted(tokens)}}, {"rest-uid": {"$in": sorted(rest_uids)}}
    return {"$or": [with_token, with_id]}


def from_documents(documents: Iterable[UserMetadata]) -> dict[str, ObservedInstance]:
    """Return what the datastore shows of instances by rest-uid, deleted ones included."""
    return {
        document.rest_uid: ObservedInstance(
            document.rest_uid, document.package_name, _text(document.raw.get(METADATA_KEY)), has_metadata=True
        )
        for document in documents
        if document.rest_uid
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
