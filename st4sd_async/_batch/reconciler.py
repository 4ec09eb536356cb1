"""Settle launches in doubt (start with unknown outcome): observe the service, apply the rules, record the verdict."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from pydantic_core import SchemaValidator, core_schema

from .._errors import APIError, DecodeError, NotFound, St4sdError, TransportError, UnknownRun
from .._http.call import Call, Response
from .._util.printable import shorten
from .._watch.poller import FIRST_PAUSE, ROUND_PAUSE_GROWTH
from .._watch.status_reader import is_transient
from ..models.finality import FinalityTracker, is_final
from ..models.hints import Reason
from ..models.runs import is_rest_uid
from .journal import Journal, list_keys
from .reconcile_rules import (
    MIN_EVIDENCE,
    Absent,
    Found,
    InstanceList,
    KnownInstances,
    Observation,
    ObservedInstance,
    SettleWindow,
    Undecidable,
    Verdict,
    candidates,
    decide,
)
from .state import METADATA_KEY, LaunchRecord, Proof, State

if TYPE_CHECKING:
    from .._api.datastore import Query
    from .._http.session import ClientSession
    from ..models import Instance, Status, UserMetadata
    from .client import BatchClient

log = logging.getLogger("st4sd_async")

MAX_OBSERVATION_PAUSE = 15.0
"""Maximum number of seconds between two observations."""
OBSERVATIONS_PER_WINDOW = MIN_EVIDENCE + 1
"""Minimum number of observations in a settle window."""
WINDOW_FACTOR_WITHOUT_DATASTORE = 2
"""Factor for the settle window if the deployment has no datastore, because there is less evidence."""

LIST_TIMEOUT = 120.0
"""Seconds after which a list request is abandoned. The proxy gives up after 60 s."""
MAX_CANDIDATE_REQUESTS = 100
"""Maximum number of requests for single candidates in an observation."""
MAX_MISSING_REQUESTS = 1000
"""
Maximum number of requests in an observation for instances that the list lacks.

The service answers about this many in `PART_TIMEOUT`. With fewer, the 10,000 deleted runs of a large campaign could
not be confirmed within three settle windows.
"""
REQUESTS_IN_FLIGHT = 2
"""Maximum number of requests of an observation in flight. More would not increase the service's throughput."""
PART_TIMEOUT = 10.0
"""Seconds for each part of an observation other than the list."""
MAX_QUERY_TERMS = 5000
"""Maximum number of tokens and ids in one query of the datastore, whose requests may have 1 MiB."""
MAX_CANDIDATES_LENGTH = 2000
"""Maximum number of characters for the candidates in a log message."""

UNDECIDABLE = (
    "cannot tell whether %d of the starts arrived (%s), because each may be one of the instances %s: "
    "delete those that executed nothing with client.delete(rest_uid), or call batch.adopt(key, rest_uid) if you know "
    "which launch one belongs to; then run again"
)

T = TypeVar("T")


class Reconciler:
    """Settles launches in doubt, using everything that this process has observed since its first doubt."""

    def __init__(self, journal: Journal, client: BatchClient, session: ClientSession) -> None:
        self._journal, self._client, self._session = journal, client, session
        self._settle, self._grace = session.config.settle, session.config.grace
        self._began = journal.clock.now()
        self._windows: dict[str, SettleWindow] = {}
        """key -> the evidence about it."""
        self._has_datastore = True
        self._finality: dict[str, FinalityTracker] = {}
        """rest-uid -> the tracker that decides, from single requests, whether a candidate has ended."""
        self._ended: dict[str, ObservedInstance] = {}
        """rest-uid -> what a request showed of a candidate that has ended."""
        self._executed: set[str] = set()
        """rest-uids of candidates that executed something according to a request. A later status may hide that."""
        self._final: set[str] = set()
        """rest-uids of candidates for which one reply proved that they have ended: they need no further request."""
        self._requested_at: dict[str, float] = {}
        """rest-uid -> when a candidate was last requested."""
        self._has_policy: dict[str, bool] = {}
        """Digest of a payload -> whether it has a runtime policy."""
        self._announced: set[str] = set()
        """Keys for which the log has announced a search."""
        self._reported: set[str] = set()
        """Keys that were reported as undecidable."""
        self._pause = 0.0
        self._quiet_until = -inf

    def observe_soon(self) -> None:
        """Shorten the next pause, because there is a new launch in doubt."""
        self._pause = 0.0

    async def pause(self) -> None:
        """Wait before the next observation."""
        longest = min(MAX_OBSERVATION_PAUSE, self._settle / OBSERVATIONS_PER_WINDOW)
        self._pause = min(longest, max(FIRST_PAUSE, self._pause * ROUND_PAUSE_GROWTH))
        await self._journal.clock.sleep(self._pause)

    async def note_baseline(self) -> list[LaunchRecord]:
        """
        Note which instances exist before anything is sent in this opening.

        Returns:
            Launches that were planned but have a run at the service, because the journal is an old copy.

        Raises:
            St4sdError: The list cannot be read, and this journal has never seen one.
        """
        try:
            listed = (await self._session.send_once(instance_list_call())).instances
        except (APIError, TransportError, DecodeError) as error:
            if self._journal.baseline is None:
                raise
            # Once the journal has seen a list, another one only helps.
            log.info("continuing without a list of the existing instances: %s", error)
            self._journal.has_baseline = True
            return []
        planned = [record for record in self._journal.records.values() if record.state is State.PLANNED]
        # The token of a new journal is new too, so there is nothing to find.
        documents = await self._query_datastore(planned, ()) if self._journal.opening > 1 and planned else None
        carriers = {
            instance.token: uid
            for uid, instance in (*(documents or {}).items(), *listed.items())
            if instance.token and uid not in self._journal.owners
        }

        def to_started(record: LaunchRecord) -> LaunchRecord | None:
            # Another task may have given the run to another launch, or this launch another attempt.
            uid = carriers.get(self._journal.token_of(record))
            if record.state is not State.PLANNED or uid is None or self._journal.owner_of(uid) is not None:
                return None
            return record.to_started(uid, self._journal.clock.wall())

        found = [await self._journal.update(record.key, to_started) for record in planned] if carriers else []
        await self._journal.note_baseline(listed)
        return [record for record in found if record is not None]

    async def reconcile(self) -> list[tuple[LaunchRecord, Undecidable | None]]:
        """
        Observe the service once, and resolve the launches in doubt for which that is enough.

        Returns:
            Launches that changed, each with None; and launches that can never be decided, each with its verdict.
        """
        in_doubt = self._journal.in_doubt()
        for record in in_doubt:
            await self._read_policy(record)
        observation = await self._observe(in_doubt)
        settled: list[tuple[LaunchRecord, Undecidable | None]] = []
        for key, uid, token in self._misattributed(observation):
            settled += [(changed, None) for changed in await take_back(self._journal, key, uid, token)]
        self._windows = {record.key: self._window(record) for record in self._journal.in_doubt()}

        errors: list[Exception] = []

        async def conclude(record: LaunchRecord) -> None:
            try:
                verdict = self._decide(record, observation)
                after = await self._apply(record, verdict)
            except Exception as error:  # raised below, outside of the task group
                errors.append(error)
                return
            if after.state is not State.UNKNOWN:
                settled.append((after, None))
            elif isinstance(verdict, Undecidable):
                settled.append((after, verdict))

        # Concurrently, so that they share commits.
        async with anyio.create_task_group() as tasks:
            for record in in_doubt:
                if not self._journal.is_stale(record):
                    tasks.start_soon(conclude, record)
        if errors:
            raise errors[0]
        # The user may have called `adopt` or `forget`.
        settled = [
            (record, verdict)
            for record, verdict in settled
            if verdict is None or self._journal.records[record.key] is record
        ]
        self._announce({record.key for record, _ in settled})
        self._report([(record, verdict) for record, verdict in settled if verdict is not None])
        return settled

    def _window(self, record: LaunchRecord) -> SettleWindow:
        """Return the settle window of a launch in doubt: a new one if it was sent again since."""
        length = self._settle * (1 if self._has_datastore else WINDOW_FACTOR_WITHOUT_DATASTORE)
        began = max(self._journal.in_doubt_since(record), self._began)
        window = self._windows.get(record.key)
        if window is None or window.began != began:
            return SettleWindow(length, began)
        window.length = length
        return window

    def _announce(self, settled: Collection[str]) -> None:
        """Log which launches are searched for: each launch once, at most one line per window."""
        waiting = [record for record in self._journal.in_doubt() if record.key not in settled]
        now = self._journal.clock.now()
        if now < self._quiet_until or self._announced.issuperset(record.key for record in waiting):
            return
        self._quiet_until = now + self._settle
        self._announced.update(record.key for record in waiting)
        log.warning(
            "it is unknown whether %d of the starts arrived (%s): searching for their runs; those that prove to be "
            "absent are started again, in %.0f s at the earliest; all other launches continue",
            *(len(waiting), list_keys(waiting), min(self._window(record).missing for record in waiting)),
        )

    def _report(self, undecidable: Collection[tuple[LaunchRecord, Undecidable]]) -> None:
        """Log in one line which instances may be the runs of undecidable launches, and what to do."""
        new = [
            (record, verdict)
            for record, verdict in undecidable
            if record.key not in self._reported and verdict.candidates
        ]
        self._reported.update(record.key for record, _ in undecidable)
        uids = dict.fromkeys(uid for _, verdict in new for uid in verdict.candidates)
        if uids:
            log.warning(
                UNDECIDABLE,
                *(len(new), list_keys(record for record, _ in new)),
                shorten(", ".join(map(repr, uids)), MAX_CANDIDATES_LENGTH),
            )

    async def _read_policy(self, record: LaunchRecord) -> None:
        if record.payload not in self._has_policy:
            content = await self._journal.payload(record.payload)
            self._has_policy[record.payload] = '"runtimePolicy"' in content and bool(
                json.loads(content).get("runtimePolicy")
            )

    def _known(self) -> KnownInstances:
        return KnownInstances(self._journal.owners, self._journal.seen, self._journal.deleted)

    def _decide(self, record: LaunchRecord, observation: Observation) -> Verdict:
        window, has_policy = self._windows[record.key], self._has_policy[record.payload]
        token = self._journal.token_of(record)
        return decide(record, token, observation, self._known(), window, has_policy=has_policy)

    async def _apply(self, record: LaunchRecord, verdict: Verdict) -> LaunchRecord:
        """Record a verdict, and return the launch after it."""
        after, now = record, self._journal.clock.wall()
        if self._journal.is_stale(record):
            return record
        if isinstance(verdict, Found):
            # An answer may be giving the run to another launch, which returns it when it shows its token.
            is_free = self._journal.owner_of(verdict.rest_uid) is None
            after = record.to_started(verdict.rest_uid, now) if is_free else record
        elif isinstance(verdict, Absent):
            after = record.with_candidates((), verdict.never_executed).to_planned(Proof.ABSENT, now)
        elif (verdict.candidates, verdict.never_executed) != (record.candidates, record.never_executed):
            after = record.with_candidates(verdict.candidates, verdict.never_executed)
        if after is not record:
            await self._journal.replace(record, after)
        return after

    def _misattributed(self, observation: Observation) -> list[tuple[str, str, str]]:
        """Return launches that own a run with the token of another launch: key, rest-uid and that token."""
        found = []
        for uid, instance in observation.instances.items():
            key = self._journal.owners.get(uid)
            if key is None or instance.token is None:
                continue
            if is_misattributed(self._journal, self._journal.records[key], uid, instance.token):
                found.append((key, uid, instance.token))
        return found

    async def _observe(self, in_doubt: Collection[LaunchRecord]) -> Observation:
        at, expected = self._journal.clock.now(), self._journal.expected_instances()
        nothing = Observation(at, {}, is_evidence=False)
        try:
            with anyio.move_on_after(LIST_TIMEOUT) as scope:
                reply = await self._session.send_once(instance_list_call())
            if scope.cancelled_caught:
                return nothing
        except Exception as error:  # raised again unless it is temporary
            if not is_transient(error, has_answered=True):
                raise
            log.info("cannot tell yet whether %d launches were started: %s", len(in_doubt), error)
            return nothing
        listed = reply.instances
        await self._journal.note_listed(listed)
        is_complete = await self._is_complete(listed, expected)
        wanted = self._candidates(in_doubt, Observation(at, listed, is_evidence=False))
        requested = await self._request_candidates([uid for uid in wanted if uid in listed], listed)
        documents = await self._query_datastore(in_doubt, wanted)
        found = {**listed, **requested}
        for uid, instance in (documents or {}).items():
            if uid not in found or not found[uid].has_metadata:
                found[uid] = instance
        if documents is not None:
            for uid, instance in requested.items():
                # Without a datastore nothing would show that it executes something later, unless it is over.
                is_certain = self._has_datastore or instance.is_over
                if is_certain and uid not in documents and not instance.has_metadata and instance.has_executed is None:
                    found[uid] = replace(instance, has_executed=False)
        return Observation(at, found, is_complete and reply.is_readable and documents is not None)

    def _candidates(self, in_doubt: Iterable[LaunchRecord], observation: Observation) -> list[str]:
        """Return all candidates, those first that were not requested for longest."""
        known = self._known()
        found = {
            uid: None
            for record in in_doubt
            for uid in candidates(record, observation, known, has_policy=self._has_policy[record.payload])
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
        await self._journal.mark_deleted(deleted)
        return len(deleted) == len(missing)

    async def _request_candidates(
        self, wanted: Collection[str], listed: Mapping[str, ObservedInstance]
    ) -> dict[str, ObservedInstance]:
        """Return what single requests show of candidates. The list never shows a failure before the first component."""
        found = {uid: self._ended[uid] for uid in wanted if uid in self._ended}

        async def request(uid: str) -> None:
            self._requested_at[uid] = self._journal.clock.now()
            with suppress(St4sdError, ValueError):  # ValueError: an id in the list is not a rest-uid
                status = await self._client.status(uid)
                finality = self._finality.setdefault(uid, FinalityTracker(self._grace))
                is_over = finality.observe(status.pair, self._journal.clock.now(), status.error_description)
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

    async def _query_datastore(
        self, records: Iterable[LaunchRecord], rest_uids: Iterable[str]
    ) -> dict[str, ObservedInstance] | None:
        """
        Return what the datastore has of runs with the tokens of these launches, or with these ids.

        Empty if there is no datastore. None means that it did not answer.
        """
        terms = [(self._journal.token_of(record), "") for record in records] + [("", uid) for uid in rest_uids]
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
            self._has_datastore = False
        except St4sdError as error:
            log.info("the datastore cannot be searched for runs of launches in doubt: %s", error)
            return None
        return None if scope.cancelled_caught else found


async def _for_each(wanted: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Call ``work`` for each item, a few at a time, for at most `PART_TIMEOUT`."""
    queue = iter(wanted)

    async def worker() -> None:
        for one in queue:
            await work(one)

    with anyio.move_on_after(PART_TIMEOUT):
        async with anyio.create_task_group() as tasks:
            for _ in range(REQUESTS_IN_FLIGHT):
                tasks.start_soon(worker)


def is_misattributed(journal: Journal, record: LaunchRecord, rest_uid: str, token: str) -> bool:
    """Return whether a launch owns a run that carries the token of another launch."""
    return record.state is State.STARTED and record.rest_uid == rest_uid and token != journal.token_of(record)


async def take_back(journal: Journal, key: str, rest_uid: str, token: str) -> list[LaunchRecord]:
    """
    Take a run from the launch that owns it, because it carries the token of another. Both are in doubt again.

    Args:
        journal: The launches.
        key: The launch that owns it.
        rest_uid: The run.
        token: The token that it carries.

    Returns:
        The launches that changed, and the other one if it was in doubt already.
    """
    now = journal.clock.wall()
    other = next((record.key for record in journal.records.values() if journal.token_of(record) == token), None)
    whose = "a launch that is not in this journal" if other is None else repr(other)

    def release(record: LaunchRecord) -> LaunchRecord | None:
        if not is_misattributed(journal, record, rest_uid, token):
            return None
        return record.to_unknown_without_run(f"its run {rest_uid!r} carries the token of {whose}", now)

    def claim(record: LaunchRecord) -> LaunchRecord | None:
        if record.state is State.PLANNED:
            return record.to_started(rest_uid, now)
        if record.state is not State.STARTED:
            return None
        reason = f"the run {rest_uid!r}, which was attributed to {key!r}, carries its token"
        return record.to_unknown_without_run(reason, now)

    changed = [await journal.update(key, release)]
    if changed[0] is None:
        return []
    log.warning("the run %r of %r carries the token of %s: it is taken back and searched for", rest_uid, key, whose)
    if other is not None:
        changed.append(await journal.update(other, claim))
        if changed[1] is None and journal.records[other].state is State.UNKNOWN:
            changed.append(journal.records[other])
    return [record for record in changed if record is not None]


# What the replies of the service show of instances.

_FIELD = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
_ITEM = core_schema.typed_dict_schema({"id": _FIELD, "status": _FIELD, "k8s-labels": _FIELD})
_read_list = SchemaValidator(
    core_schema.list_schema(core_schema.with_default_schema(_ITEM, default=None, on_error="default"))
).validate_json
"""Reads three fields of each item. The definition of the experiment, which is most of an item, is skipped."""

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
    return Call("GET", "instances/", _parse_list, is_slow=True)


def _parse_list(response: Response) -> InstanceList:
    items = _read_list(response.body)
    readable = [item for item in items if item is not None and is_rest_uid(item.get("id"))]
    if items and all(item is None for item in items):
        raise ValueError("no list of instances")
    return InstanceList({item["id"]: _parse_item(item) for item in readable}, is_readable=len(readable) == len(items))


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
