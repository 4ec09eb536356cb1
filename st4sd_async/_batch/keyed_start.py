"""Start an instance once per key, over all processes and machines that share a memory."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import ceil
from typing import TYPE_CHECKING

import anyio
from pydantic import TypeAdapter, ValidationError

from .._api.experiments import start_call
from .._errors import JournalCorrupt, LaunchConflict, StartOutcomeUnknown
from .._http.call import Call, SendPermitExpired
from .._http.retry import Replay, with_retries
from .._payload.prepare import serialise
from .._results.downloads import for_each
from .._util.printable import shorten
from .._watch.poller import FIRST_PAUSE, ROUND_PAUSE_GROWTH
from ..models.runs import is_rest_uid
from .launch import PreparedLaunch, payload_to_send
from .observer import Doubt, Observer, instance_list_call
from .reconcile_rules import (
    MAX_WINDOWS,
    Absent,
    Found,
    KnownInstances,
    Observation,
    ObservedInstance,
    SettleWindow,
    Undecidable,
    decide,
)
from .reconciler import MAX_OBSERVATION_PAUSE, OBSERVATIONS_PER_WINDOW, WINDOW_FACTOR_WITHOUT_DATASTORE
from .sender import after_error
from .state import START_KEY, LaunchRecord, State, token

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .client import BatchClient
    from .memory import Memory

log = logging.getLogger("st4sd_async")

MIN_PERMIT_SECONDS, PERMIT_SECONDS = 1.0, 30.0
"""Seconds after the record ``sending`` was requested in which a send may begin: ``Config.settle`` between these."""
OBSERVE_AFTER_SECONDS = 2.0
"""Seconds that another process gets to send before the service is searched for its run: no run is found earlier."""
WRITE_GRACE_SECONDS = 5.0
"""Seconds for which the outcome of a start may still be recorded after a cancellation."""
MAX_OWNER_READS = 8
"""Maximum number of records of runs that are read at the same time."""

NO_RESPONSE = "it was being sent, and no response is recorded"
EARLIER_START = (
    "an earlier attempt sent the start with the key %r (%s): searching for its run for up to %d min, or twice as long "
    "without a datastore; if there is none, the start is sent again"
)


@dataclass(frozen=True)
class KeyRecord:
    """What the memory has of a key."""

    url: str
    """Root of the deployment."""
    experiment: str
    """Identifier of the experiment."""
    payload: str
    """Digest of the payload without credentials."""
    has_policy: bool
    """Whether the payload has a runtime policy, which may choose another package."""
    state: State
    """``sending``, ``unknown``, ``started``, or ``planned``: sent, with a proof that nothing was started."""
    generation: int
    """1 for the first send, plus 1 for each later one that was permitted because there is no run."""
    permit: float = PERMIT_SECONDS
    """Seconds for which its writer may begin to send, if it is ``sending``."""
    known: tuple[str, ...] = ()
    """rest-uids without metadata that the list showed before the first send. None of them is its run."""
    rest_uid: str | None = None
    """Its run."""
    error: str = ""
    """Why its outcome is unknown, or why nothing was started."""
    writer: str = ""
    """Random, so that no two records are equal."""

    def to_text(self) -> str:
        """Return the record as JSON."""
        return json.dumps({**asdict(self), "writer": secrets.token_hex(8)})

    @classmethod
    def from_text(cls, key: str, text: str) -> KeyRecord:
        """Return a record from JSON. Raises `JournalCorrupt` if it is not one."""
        try:
            record = _record_reader().validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            problem = ": ".join([*map(str, first["loc"]), first["msg"]])
        else:
            if record.is_consistent:
                return record
            problem = f"its state is {record.state}, and its run is {record.rest_uid!r}"
        raise JournalCorrupt(f"the memory's record of the key {key!r} is damaged: {problem}")

    @property
    def is_consistent(self) -> bool:
        """Whether it has a run if, and only if, it was started."""
        if self.rest_uid is None:
            return self.state in (State.SENDING, State.UNKNOWN, State.PLANNED)
        return self.state is State.STARTED and is_rest_uid(self.rest_uid)


@cache
def _record_reader() -> TypeAdapter[KeyRecord]:
    return TypeAdapter(KeyRecord)


class KeyedStart:
    """
    The start with one key, from the view of one process.

        no record -> sending -> started
                       |  ^
                       |  +---- planned: not sent, or refused
                       v  |
                     unknown, with a proof of absence

    Only the process that wrote ``sending`` may send, and only for its permit; to send later, it writes the record
    again. A record that another process wrote is taken as abandoned once it has not changed for ``Config.settle``, and
    for its permit, by the clock of this process. Then the rules of `reconcile_rules` decide whether it was started.
    """

    def __init__(self, client: BatchClient, session: ClientSession, memory: Memory, key: str) -> None:
        if not hasattr(memory, "compare_and_set"):
            raise TypeError(f"memory must be a Memory, such as FolderMemory(path), not {memory!r}")
        self._client, self._session, self._memory, self._key = client, session, memory, key
        self._clock, self._settle = session.config.clock, session.config.settle
        self._name, self._token = f"key/{key}", token(session.url, key, 1)
        self._text: str | None = None
        """The record as it was last read or written."""
        self._is_ours = False
        """Whether this process wrote it."""
        self._existing: set[str] = set()
        """rest-uids that the list showed before a send."""

    async def start(self, launch: PreparedLaunch) -> str:
        """
        Return the rest-uid of the one run of this key.

        Raises:
            LaunchConflict: The key has another deployment, experiment or payload.
            StartOutcomeUnknown: It cannot be decided whether it was started.
            JournalCorrupt: The record is damaged.
            St4sdError: The start failed, and nothing was started.
        """
        payload = json.loads(launch.content)
        wanted = KeyRecord(
            self._session.url,
            launch.record.experiment,
            launch.record.payload,
            bool(payload.get("runtimePolicy")),
            State.SENDING,
            generation=1,
        )
        body = serialise(payload_to_send(payload, launch.credentials, self._token, {START_KEY: _start_digest(launch)}))
        call = start_call(launch.record.experiment, body.content, body.secrets)
        pause = 0.0
        while True:
            record = await self._read()
            if record is not None:
                self._check_same(record, wanted)
            if record is not None and record.rest_uid is not None:
                log.info("the key %r was started before: it has the run %r", self._key, record.rest_uid)
                return record.rest_uid
            if record is None or record.state is State.PLANNED:
                generation = 1 if record is None else record.generation + 1
                record = await self._before_first_send(replace(wanted, generation=generation), launch)
            else:
                record = await self._resolve(record)
            if record is not None and record.rest_uid is not None:
                if await self._adopt(record, record.rest_uid):
                    log.info("adopted the run %r, which was started with the key %r", record.rest_uid, self._key)
                    return record.rest_uid
            elif record is not None and (permit := await self._permit(record)) is not None:
                uid = await self._send(record, call, permit)
                if uid is not None:
                    log.info("started the run %r with the key %r", uid, self._key)
                    return uid
            await self._clock.sleep(pause)  # a replicated memory may return an old record for a while
            pause = min(MAX_OBSERVATION_PAUSE, max(FIRST_PAUSE, pause * ROUND_PAUSE_GROWTH))

    async def find(self) -> str | None:
        """
        Return the rest-uid of the run; None if nothing was sent, or if it is proven that nothing was started.

        Raises:
            StartOutcomeUnknown: A send is recorded, and its run is not found.
            LaunchConflict: The key has another deployment.
            JournalCorrupt: The record is damaged.
        """
        record = await self._read()
        if record is not None and record.url != self._session.url:
            raise self._conflict("deployment", record.url, self._session.url)
        if record is None or record.state is State.PLANNED:
            return None
        if record.rest_uid is not None:
            return record.rest_uid
        seen = _Seen(self._memory, self._key, record)
        observation = await Observer(self._client, self._session, self._clock, seen).observe([self._doubt(record)])
        uids = set(observation.tokens.get(self._token, ())) | seen.own
        if len(uids) == 1:
            (uid,) = uids
            return uid if await self._adopt(record, uid) else await self.find()  # another process changed it
        raise self._unknown(record.error or NO_RESPONSE, uids)

    # The memory.

    async def _read(self) -> KeyRecord | None:
        text = await self._memory.get(self._name)
        if text != self._text:
            self._text, self._is_ours = text, False
        return None if text is None else KeyRecord.from_text(self._key, text)

    async def _write(self, record: KeyRecord) -> bool:
        """Replace the record that was last read or written; return False if another process changed it."""
        text = record.to_text()
        # A memory that repeats a request may find what it wrote itself.
        is_set = await self._memory.compare_and_set(self._name, self._text, text)
        if not is_set and await self._memory.get(self._name) != text:
            return False
        self._text, self._is_ours = text, True
        return True

    async def _permit(self, record: KeyRecord) -> float | None:
        """Write that it is about to be sent. Return until when that may begin; None if another process was faster."""
        permit = max(MIN_PERMIT_SECONDS, min(PERMIT_SECONDS, self._settle))
        until = self._clock.now() + permit
        return until if await self._write(replace(record, state=State.SENDING, permit=permit, error="")) else None

    async def _adopt(self, record: KeyRecord, uid: str) -> bool:
        """Record its run; return False if the record has changed. Raises `StartOutcomeUnknown` if it is another's."""
        if owner := await self._claim_run(uid):
            raise self._unknown(f"the run {uid!r} belongs to the key {owner!r}")
        return await self._write(replace(record, state=State.STARTED, rest_uid=uid, error=""))

    async def _claim_run(self, uid: str) -> str | None:
        """Record that a run belongs to this key; return the other key if it belongs to one."""
        name = f"run/{uid}"
        if await self._memory.compare_and_set(name, None, self._key):
            return None
        owner = await self._memory.get(name)
        return None if owner == self._key else owner

    def _check_same(self, record: KeyRecord, wanted: KeyRecord) -> None:
        if record.state is State.PLANNED and record.url == wanted.url:
            return  # nothing was started, so that it may be corrected
        for what in ("url", "experiment", "payload"):
            old, new = getattr(record, what), getattr(wanted, what)
            if old != new:
                raise self._conflict("deployment" if what == "url" else what, old, new)

    def _conflict(self, what: str, old: str, new: str) -> LaunchConflict:
        difference = "the payload is another one" if what == "payload" else f"{what} was {old!r} and is {new!r}"
        advice = "use another key, or pass what the key was started with"
        return LaunchConflict(f"the key {self._key!r} was used for another start: {difference}", advice)

    def _unknown(self, reason: str, candidates: Iterable[str] = ()) -> StartOutcomeUnknown:
        found = tuple(sorted(candidates))
        what = f"an instance was started for the key {self._key!r}"
        advice = "call start with the same key again, which searches for it and never starts it twice"
        if found:
            named = shorten(" or ".join(map(repr, found)), 100)
            advice = f"it may be {named}: delete those that executed nothing, then {advice}"
        return StartOutcomeUnknown(what, reason, key=self._key, candidates=found, advice=advice)

    # Sending.

    async def _send(self, record: KeyRecord, call: Call[str], until: float) -> str | None:
        """Send it; return the rest-uid, or None if the record must be read again."""

        async def attempt() -> str:
            nonlocal until
            while True:
                try:
                    return await self._session.send_once(replace(call, not_after=until))
                except SendPermitExpired:
                    renewed = await self._permit(record)
                    if renewed is None:
                        raise
                    until = renewed

        availability = self._session.availability
        try:
            uid = await with_retries(
                attempt,
                policy=self._session.config.retry,
                replay=Replay.ONCE,
                clock=self._clock,
                request=f"start of the key {self._key!r}",
                has_responded=lambda: availability.has_responded,
            )
        except SendPermitExpired:
            return None  # another process took over
        except Exception as error:
            after = after_error(self._launch_record(record, State.SENDING), error, self._clock.wall())
            state = State.UNKNOWN if after.state is State.UNKNOWN else State.PLANNED
            await self._record_outcome(replace(record, state=state, error=after.error or str(error)))
            if state is State.UNKNOWN:
                log.warning("searching for the run of the key %r: %s", self._key, after.error)
                return None
            raise
        except BaseException as error:  # cancelled
            with suppress(Exception), anyio.move_on_after(WRITE_GRACE_SECONDS, shield=True):
                await self._write(replace(record, state=State.UNKNOWN, error="the start was cancelled"))
            raise error
        return await self._after_response(record, uid)

    async def _after_response(self, record: KeyRecord, uid: str) -> str | None:
        problem = ""
        if not is_rest_uid(uid):
            problem = f"the response is not a rest-uid: {shorten(ascii(uid), 80)}"
        elif uid in self._existing or uid in record.known:
            problem = f"the response is the run {uid!r}, which existed before it was sent"
        try:
            with anyio.CancelScope(shield=True):
                if not problem and (owner := await self._claim_run(uid)):
                    problem = f"the response is the run {uid!r}, which belongs to the key {owner!r}"
                if problem:
                    await self._write(replace(record, state=State.UNKNOWN, error=problem))
                    return None
                if await self._write(replace(record, state=State.STARTED, rest_uid=uid, error="")):
                    return uid
                current = await self._read()
        except Exception as error:  # the next start with this key searches for the run
            log.warning("the run %r of the key %r cannot be recorded in %r: %s", uid, self._key, self._memory, error)
            return uid
        if current is not None and current.rest_uid == uid:
            return uid
        # This process was suspended for longer than the settle window, between the check of its permit and the send.
        others = [current.rest_uid] if current is not None and current.rest_uid else []
        raise self._unknown(f"{uid!r} was started, while another process took over", [uid, *others])

    async def _record_outcome(self, record: KeyRecord) -> None:
        with anyio.CancelScope(shield=True):
            await self._write(record)

    # Resolving.

    def _launch_record(self, record: KeyRecord, state: State = State.UNKNOWN) -> LaunchRecord:
        return LaunchRecord(self._key, record.experiment, record.payload, state, opening=1)

    def _doubt(self, record: KeyRecord) -> Doubt:
        return Doubt(self._launch_record(record), self._token, record.has_policy)

    async def _before_first_send(self, wanted: KeyRecord, launch: PreparedLaunch) -> KeyRecord:
        """
        Return the record for a send that no other can have preceded, or one with the run if the memory lost it.

        Raises:
            LaunchConflict: A run of this key was started otherwise, with another memory.
        """
        doubt = self._doubt(wanted)
        listed = (await self._session.send(instance_list_call())).instances
        self._existing.update(listed)
        observation = Observation(self._clock.now(), listed, is_evidence=False)
        uids = observation.tokens.get(self._token, [])
        if len(uids) > 1:
            raise self._unknown("several instances carry its token", uids)
        for uid in uids:
            await self._check_lost(uid, launch)
        record, policy = doubt.record, doubt.has_policy
        known = observation.without_metadata(record.package, record.version, has_policy=policy)
        return replace(wanted, known=tuple(known), rest_uid=uids[0] if uids else None)

    async def _check_lost(self, uid: str, launch: PreparedLaunch) -> None:
        """Raise `LaunchConflict` if a run with the token of this key has another experiment or payload."""
        status = await self._client.status(uid)
        metadata = status.meta.user_metadata if status.meta else {}
        if metadata.get(START_KEY, _start_digest(launch)) != _start_digest(launch):
            problem = f"the run {uid!r} of the key {self._key!r}, which {self._memory!r} does not have"
            advice = "use another key, or the memory with which that run was started"
            raise LaunchConflict(f"{problem}, was started with another experiment or payload", advice)

    async def _resolve(self, record: KeyRecord) -> KeyRecord | None:
        """
        Wait until it is decided whether a start in doubt arrived.

        Returns:
            The record with its run, or one with the next generation if there is none. None if it changed meanwhile.
        """
        seen = _Seen(self._memory, self._key, record)
        observer = Observer(self._client, self._session, self._clock, seen)
        doubt, read_at = self._doubt(record), self._clock.now()
        is_sending_elsewhere = record.state is State.SENDING and not self._is_ours
        # The settle window of its writer may be another one.
        stands = max(self._settle, record.permit) if is_sending_elsewhere else 0
        window = SettleWindow(self._settle, read_at + stands)
        is_announced = self._is_ours  # `_send` did
        text, pause = self._text, 0.0
        longest = min(MAX_OBSERVATION_PAUSE, self._settle / OBSERVATIONS_PER_WINDOW)
        while True:
            pause = min(longest, max(FIRST_PAUSE, pause * ROUND_PAUSE_GROWTH))
            await self._clock.sleep(pause)
            await self._read()
            if self._text != text:
                return None
            if is_sending_elsewhere and self._clock.now() - read_at < OBSERVE_AFTER_SECONDS:
                continue
            if not is_announced:
                minutes = ceil((stands + MAX_WINDOWS * self._settle) / 60)
                log.warning(EARLIER_START, self._key, record.error or NO_RESPONSE, minutes)
                is_announced = True
            observation = await observer.observe([doubt])
            if not observer.has_datastore:
                window.length = self._settle * WINDOW_FACTOR_WITHOUT_DATASTORE
            if len(seen.own) == 1:
                return replace(record, rest_uid=next(iter(seen.own)))
            known = seen.known_instances()
            verdict = decide(doubt.record, self._token, observation, known, window, has_policy=record.has_policy)
            if isinstance(verdict, Found):
                return replace(record, rest_uid=verdict.rest_uid)
            if isinstance(verdict, Absent):
                self._existing.update(seen.expected_instances())
                log.info("the earlier start with the key %r has no run: starting one", self._key)
                return replace(record, generation=record.generation + 1)
            doubt = replace(doubt, record=doubt.record.with_candidates(verdict.candidates, verdict.never_executed))
            if isinstance(verdict, Undecidable):
                reason = record.error or NO_RESPONSE
                raise self._unknown(reason, verdict.candidates)


def _start_digest(launch: PreparedLaunch) -> str:
    """Return a digest of the experiment and payload of a start."""
    return token(launch.record.experiment, launch.record.payload, 1)


class _Seen:
    """What one process remembers of instances while it resolves one key. The owners of runs come from the memory."""

    def __init__(self, memory: Memory, key: str, record: KeyRecord) -> None:
        self._memory, self._key = memory, key
        self._before = dict.fromkeys(record.known, 1)
        self._listed: set[str] = set()
        self._owners: dict[str, str] = {}
        self._deleted: set[str] = set()
        self.own: set[str] = set()
        """rest-uids that the memory attributes to this key."""

    def expected_instances(self) -> list[str]:
        return list(self._listed - self._deleted)

    def known_instances(self) -> KnownInstances:
        return KnownInstances(self._owners, self._before, self._deleted)

    async def note_listed(self, listed: Mapping[str, ObservedInstance], /) -> None:
        self._listed.update(listed)
        unknown = [
            uid
            for uid, instance in listed.items()
            if not instance.has_metadata and uid not in self._owners and uid not in self._before
        ]
        try:
            await for_each(unknown, self._read_owner, MAX_OWNER_READS)
        except BaseExceptionGroup as group:  # a memory may raise anything
            raise group.exceptions[0] from None

    async def _read_owner(self, uid: str) -> None:
        owner = await self._memory.get(f"run/{uid}")
        if owner == self._key:
            self.own.add(uid)
        elif owner is not None:
            self._owners[uid] = owner

    async def mark_deleted(self, rest_uids: Iterable[str], /) -> None:
        self._deleted.update(rest_uids)
