"""Resolve the launches in doubt of a journal: observe the service, apply the rules, record the verdict."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from math import inf
from typing import TYPE_CHECKING

import anyio

from .._api.deployment import services_call
from .._errors import APIError, DecodeError, JournalCorrupt, St4sdError, TransportError
from .._util.printable import shorten
from .._watch.poller import FIRST_PAUSE, ROUND_PAUSE_GROWTH
from .._watch.status_reader import is_transient
from .journal import Journal, list_keys
from .observer import Doubt, Observer, instance_list_call
from .reconcile_rules import (
    MIN_EVIDENCE,
    Absent,
    Found,
    Observation,
    ObservedInstance,
    SettleWindow,
    Undecidable,
    Verdict,
    decide,
)
from .state import LaunchRecord, Proof, State

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .client import BatchClient

log = logging.getLogger("st4sd_async")

MAX_OBSERVATION_PAUSE = 15.0
"""Maximum number of seconds between two observations."""
OBSERVATIONS_PER_WINDOW = MIN_EVIDENCE + 1
"""Minimum number of observations in a settle window."""
WINDOW_FACTOR_WITHOUT_DATASTORE = 2
"""Factor for the settle window if the deployment has no datastore, because there is less evidence."""
MAX_CANDIDATES_LENGTH = 2000
"""Maximum number of characters for the candidates in a log message."""

UNDECIDABLE = (
    "cannot tell whether %d of the starts arrived (%s), because each may be one of the instances %s: "
    "delete those that executed nothing with client.delete(rest_uid), or call batch.adopt(key, rest_uid) if you know "
    "which launch one belongs to; then run again"
)

WITHOUT_LIST = (
    "beginning without the list of existing instances, which the service has not returned for %.0f s: if the response "
    "to a start is lost now, its run is searched for, but the start is never sent again (%s)"
)
SEARCHED_ONLY = (
    "it is unknown whether %d of the starts arrived (%s): searching for their runs; they are not started again, "
    "because they were sent before the service returned any list of instances; all other launches continue"
)


class Reconciler:
    """Resolves launches in doubt, using everything that this process has observed since its first doubt."""

    def __init__(self, journal: Journal, client: BatchClient, session: ClientSession) -> None:
        self._journal, self._session = journal, session
        self._settle = session.config.settle
        self._began = journal.clock.now()
        self._windows: dict[str, SettleWindow] = {}
        """key -> the evidence about it."""
        self._observer = Observer(client, session, journal.clock, journal)
        self._has_policy: dict[str, bool] = {}
        """Digest of a payload -> whether it has a runtime policy."""
        self._announced: set[str] = set()
        """Keys for which the log has announced a search."""
        self._reported: set[str] = set()
        """Keys that were reported as undecidable."""
        self._unlisted_since = self._began
        """Since when the list fails: the begin of the pass, or when the service last did not respond either."""
        self._has_responded = False
        """Whether the service responded when the list failed before."""
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

        If the service works, but no list comes within a settle window, launches are sent without.

        Returns:
            Launches that were planned but have a run at the service, because the journal is an old copy.

        Raises:
            St4sdError: The list cannot be read, and this journal has never seen one.
        """
        listed: Mapping[str, ObservedInstance] | None = None
        failure: St4sdError | None = None
        try:
            listed = (await self._session.send_once(instance_list_call())).instances
        except (APIError, TransportError, DecodeError) as error:
            if not await self._may_begin_without_list(error):
                raise
            failure = error
        planned = [record for record in self._journal.records.values() if record.state is State.PLANNED]
        documents: Mapping[str, ObservedInstance] | None = {}
        if self._journal.opening > 1 and planned:  # the token of a new journal is new too: there is nothing to find
            tokens = [self._journal.token_of(record) for record in planned]
            documents = await self._observer.query_datastore(tokens, ())
        if failure is not None and documents is None and self._journal.baseline is None:
            raise failure  # nothing would show that the journal is an old copy
        carriers = {
            instance.token: uid
            for uid, instance in (*(documents or {}).items(), *(listed or {}).items())
            if instance.token and uid not in self._journal.owners
        }

        def to_started(record: LaunchRecord) -> LaunchRecord | None:
            # Another task may have given the run to another launch, or this launch another attempt.
            uid = carriers.get(self._journal.token_of(record))
            if record.state is not State.PLANNED or uid is None or self._journal.owner_of(uid) is not None:
                return None
            return record.to_started(uid, self._journal.clock.wall())

        found = [await self._journal.update(record.key, to_started) for record in planned] if carriers else []
        if listed is not None:
            await self._journal.note_baseline(listed)
        else:
            if self._journal.baseline is None:
                log.warning(WITHOUT_LIST, self._settle, failure)
            await self._journal.begin_without_baseline()
        return [record for record in found if record is not None]

    async def _may_begin_without_list(self, error: St4sdError) -> bool:
        """Return whether launches may be sent although the list failed. Once a list has come, another only helps."""
        if self._journal.baseline is not None:
            log.info("continuing without a list of the existing instances: %s", error)
            return True
        if not is_transient(error, has_responded=True):
            return False
        now = self._journal.clock.now()
        self._session.availability.failed(error, now)
        if now - self._unlisted_since < self._settle:
            return False  # not asked before, because a response would end the outage that is shown
        if not await self._is_service_up():
            self._unlisted_since, self._has_responded = now, False
            return False
        # An outage may have ended just now: then the next list comes.
        had_responded, self._has_responded = self._has_responded, True
        return had_responded

    async def _is_service_up(self) -> bool:
        """Return whether the service responds to a small request. In an outage, starts would be in doubt for good."""
        try:
            await self._session.send_once(services_call())
        except St4sdError as error:
            return isinstance(error, APIError) and not is_transient(error, has_responded=True)
        return True

    async def reconcile(self) -> list[tuple[LaunchRecord, Undecidable | None]]:
        """
        Observe the service once, and resolve the launches in doubt for which that is enough.

        Returns:
            Launches that changed, each with None; and launches that can never be decided, each with its verdict.
        """
        in_doubt = self._journal.in_doubt()
        for record in in_doubt:
            await self._read_policy(record)
        observation = await self._observer.observe([self._doubt(record) for record in in_doubt])
        decided: list[tuple[LaunchRecord, Undecidable | None]] = []
        for key, uid, token in self._misattributed(observation):
            decided += [(changed, None) for changed in await take_back(self._journal, key, uid, token)]
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
                decided.append((after, None))
            elif isinstance(verdict, Undecidable):
                decided.append((after, verdict))

        # Concurrently, so that they share commits.
        async with anyio.create_task_group() as tasks:
            for record in in_doubt:
                if not self._journal.is_stale(record):
                    tasks.start_soon(conclude, record)
        if errors:
            raise errors[0]
        # The user may have called `adopt` or `forget`.
        decided = [
            (record, verdict)
            for record, verdict in decided
            if verdict is None or self._journal.records[record.key] is record
        ]
        self._announce({record.key for record, _ in decided})
        self._report([(record, verdict) for record, verdict in decided if verdict is not None])
        return decided

    def _window(self, record: LaunchRecord) -> SettleWindow:
        """Return the settle window of a launch in doubt: a new one if it was sent again since."""
        length = self._settle * (1 if self._observer.has_datastore else WINDOW_FACTOR_WITHOUT_DATASTORE)
        began = max(self._journal.in_doubt_since(record), self._began)
        window = self._windows.get(record.key)
        if window is None or window.began != began:
            return SettleWindow(length, began)
        window.length = length
        return window

    def _announce(self, decided: Collection[str]) -> None:
        """Log which launches are searched for: each launch once, at most one line per window."""
        waiting = [record for record in self._journal.in_doubt() if record.key not in decided]
        now = self._journal.clock.now()
        if now < self._quiet_until or self._announced.issuperset(record.key for record in waiting):
            return
        self._quiet_until = now + self._settle
        self._announced.update(record.key for record in waiting)
        if not any(map(self._journal.can_prove_absence, waiting)):
            log.warning(SEARCHED_ONLY, len(waiting), list_keys(waiting))
            return
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
            try:
                payload = await self._journal.payload(record.payload)
            except JournalCorrupt:  # it may have had one; `Sender` reports the damage if the launch is sent again
                payload = {"runtimePolicy": True}
            self._has_policy[record.payload] = bool(payload.get("runtimePolicy"))

    def _doubt(self, record: LaunchRecord) -> Doubt:
        return Doubt(record, self._journal.token_of(record), self._has_policy[record.payload])

    def _decide(self, record: LaunchRecord, observation: Observation) -> Verdict:
        doubt, known = self._doubt(record), self._journal.known_instances()
        window = self._windows[record.key]
        return decide(
            record,
            doubt.token,
            observation,
            known,
            window,
            has_policy=doubt.has_policy,
            can_be_absent=self._journal.can_prove_absence(record),
        )

    async def _apply(self, record: LaunchRecord, verdict: Verdict) -> LaunchRecord:
        """Record a verdict, and return the launch after it."""
        after, now = record, self._journal.clock.wall()
        if self._journal.is_stale(record):
            return record
        if isinstance(verdict, Found):
            # A response may be giving the run to another launch, which returns it when it shows its token.
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
