"""From every reachable state, for every reply, and with a crash at every commit: no key is sent twice without proof."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from st4sd_async._batch.reconcile_rules import (
    Absent,
    Found,
    KnownInstances,
    Observation,
    ObservedInstance,
    SettleWindow,
    Undecided,
    Verdict,
    candidates,
    decide,
)
from st4sd_async._batch.state import LaunchRecord, Proof, State, token
from tests.tries import tries

pytestmark = pytest.mark.slow

FAILURES = {State.REFUSED, State.FAILED, State.STOPPED, State.DELETED}
SETTLE = 180.0
KEYS = ("a", "b", "c")
PACKAGES = {"a": "demo", "b": "demo", "c": "other"}
DAY = 24 * 3600.0


@dataclass
class Instance:
    """A run as it really is."""

    package: str
    token: str | None
    shows: float
    """When its metadata shows. Infinite if it never has any."""
    begins: float
    """When it executes something. Infinite if it fails before."""
    ends: float
    """When it is over."""
    is_deleted: bool = False

    def has_begun(self, now: float) -> bool:
        """Return whether it has executed something."""
        return now >= self.begins

    def can_execute(self, now: float) -> bool:
        """Return whether it has executed something, or still may."""
        return self.has_begun(now) or (self.begins < inf and not self.is_deleted)


@dataclass
class Request:
    """A start on its way. What becomes of it is decided when its answer is no longer awaited."""

    key: str
    token: str
    handled_at: float | None = None
    """When the service handles it. None means undecided, or never."""
    is_decided: bool = False


class Batch(RuleBasedStateMachine):
    """A service with its network and users on one side, and the pure parts of a batch on the other."""

    seconds = st.sampled_from([3.0, SETTLE / 5, SETTLE / 5, SETTLE / 2, 4 * SETTLE])
    delays = st.sampled_from([None, 0.0, 0.0, 1.0, SETTLE / 2, SETTLE - 1.0])
    lives = st.sampled_from(
        [
            (10.0, 10.0, 15.0),
            (5 * SETTLE, 5 * SETTLE, 6 * SETTLE),
            (5 * SETTLE, 5 * SETTLE, inf),
            (inf, inf, 5.0),
            (inf, 5.0, 10.0),
        ]
    )
    """When a run shows its metadata, executes something, and is over, in seconds after its start."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        """By the monotonic clock."""
        self.wall = 0.0
        """Wall-clock time minus monotonic time."""
        self.service: dict[str, Instance] = {}
        self.requests: list[Request] = []
        self.records = {key: LaunchRecord(key, f"{PACKAGES[key]}:latest", "0") for key in KEYS}
        """On disk. Memory is the same after each commit."""
        self.owners: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.seen: dict[str, int] = {}
        self.opening, self.has_baseline = 1, False
        self.in_flight: dict[str, Request] = {}
        """Launches that wait for an answer in this process."""
        self.in_doubt_since: dict[str, float] = {}
        """Launches in doubt -> since when this process knows."""
        self.windows: dict[str, SettleWindow] = {}
        self.adopted: set[str] = set()
        """Runs that the user adopted by mistake."""
        self.verdicts: list[tuple[LaunchRecord, Verdict]] = []
        """Verdicts of the last observation that were not applied yet."""
        self.names = 0

    # The world.

    def _create(self, package: str, run_token: str | None, life: tuple[float, float, float]) -> str:
        self.names += 1
        uid = f"{package}-{self.names}"
        shows, begins, ends = (self.now + seconds for seconds in life)
        self.service[uid] = Instance(package, run_token, shows, begins, ends)
        return uid

    def _runs(self, run_token: str) -> list[str]:
        """Return the runs of an attempt that executed something, or still may."""
        return [uid for uid, one in self.service.items() if one.token == run_token and one.can_execute(self.now)]

    def _handle(self, request: Request, life: tuple[float, float, float]) -> str:
        self.requests.remove(request)
        assert not self._runs(request.token), f"{request.key} was started twice"
        return self._create(PACKAGES[request.key], request.token, life)

    def _abandon(self, request: Request, delay: float | None) -> None:
        """Stop waiting for the answer: the service handles the start within the settle window, or never."""
        request.is_decided = True
        request.handled_at = None if delay is None else self.now + delay
        if delay is None:
            self.requests.remove(request)

    def _advance(self, seconds: float, life: tuple[float, float, float]) -> None:
        until = self.now + seconds
        due = [one for one in self.requests if one.handled_at is not None and one.handled_at <= until]
        for request in sorted(due, key=lambda one: one.handled_at or 0.0):
            self.now = request.handled_at or 0.0
            self._handle(request, life)
        self.now = until

    def _existing(self) -> dict[str, Instance]:
        return {uid: one for uid, one in self.service.items() if not one.is_deleted}

    @precondition(lambda self: len(self.service) < 8)
    @rule(package=st.sampled_from(["demo", "other"]), life=lives)
    def another_client_starts(self, package: str, life: tuple[float, float, float]) -> None:
        self._create(package, None, life)

    @precondition(lambda self: len(self.service) < 8)
    @rule(package=st.sampled_from(["demo", "other"]))
    def an_unrelated_run_fails(self, package: str) -> None:
        self._create(package, None, (inf, inf, 0.0))

    @precondition(lambda self: self._existing())
    @rule(data=st.data())
    def an_instance_is_deleted(self, data: Any) -> None:
        """Any but those that began to execute since they were seen idle: no rule can handle that."""
        idle = {uid for record in self.records.values() for uid in record.never_executed}
        known = [uid for uid, one in self._existing().items() if uid not in idle or not one.has_begun(self.now)]
        if known:
            self.service[data.draw(st.sampled_from(known))].is_deleted = True

    @rule(seconds=st.sampled_from([-DAY, -SETTLE, SETTLE, DAY]))
    def the_clock_is_set(self, seconds: float) -> None:
        self.wall += seconds

    # The batch, commit by commit.

    def _in(self, *states: State) -> list[str]:
        return [key for key, record in self.records.items() if record.state in states]

    def _note_baseline(self) -> None:
        if not self.has_baseline:
            for uid in self._existing():
                if uid not in self.owners:
                    self.seen.setdefault(uid, self.opening)
            self.has_baseline = True

    def _wall_time(self) -> float:
        return self.now + self.wall

    def _put_in_doubt(self, record: LaunchRecord) -> None:
        self.records[record.key] = record
        self.in_doubt_since[record.key] = self.now
        self.windows[record.key] = SettleWindow(SETTLE, self.now)

    @precondition(lambda self: self._in(State.PLANNED))
    @rule(data=st.data(), is_sent=st.sampled_from([True, True, True, False]))
    def send(self, data: Any, is_sent: bool) -> None:
        """Record it, and send it unless the process dies in between."""
        self._note_baseline()
        key = data.draw(st.sampled_from(self._in(State.PLANNED)))
        self.records[key] = self.records[key].to_sending(self.opening, self._wall_time())
        if not is_sent:
            self.crash(None)
            return
        run_token = token("journal", key, self.records[key].attempt)
        assert not self._runs(run_token), f"{key} was sent though it runs"
        assert not any(one.token == run_token for one in self.requests), f"{key} was sent while it was on its way"
        self.in_flight[key] = Request(key, run_token)
        self.requests.append(self.in_flight[key])

    @precondition(lambda self: self.in_flight)
    @rule(
        data=st.data(),
        what=st.sampled_from(["answer", "lose", "lose", "lose", "lose", "refuse", "turn away"]),
        life=lives,
        delay=delays,
    )
    def answer(self, data: Any, what: str, life: tuple[float, float, float], delay: float | None) -> None:
        """Decide what becomes of a start in flight."""
        key = data.draw(st.sampled_from(sorted(self.in_flight)))
        request, record = self.in_flight.pop(key), self.records[key]
        if what == "answer":
            self._give_run(record.to_started(self._handle(request, life), self._wall_time()))
        elif what == "lose":
            self._abandon(request, delay)
            self._put_in_doubt(record.to_unknown("lost", self._wall_time()))
        else:
            self.requests.remove(request)
            no = record.to_refused("InvalidPayload", "no", self._wall_time())
            self.records[key] = no if what == "refuse" else record.to_planned(Proof.NOT_SENT, self._wall_time())

    @precondition(lambda self: self.in_flight or self.verdicts or self.windows)
    @rule(delay=delays)
    def crash(self, delay: float | None) -> None:
        """The process is killed, and another opens the journal."""
        for request in self.in_flight.values():
            self._abandon(request, delay)
        self.in_flight, self.verdicts = {}, []
        self.has_baseline = False
        self.opening += 1
        for record in self.records.values():
            if record.state is State.SENDING:
                self._put_in_doubt(record.to_unknown("died", self._wall_time()))
            elif record.state is State.UNKNOWN:
                self._put_in_doubt(record)

    def _give_run(self, record: LaunchRecord) -> None:
        assert record.rest_uid is not None
        assert record.rest_uid not in self.owners
        self.records[record.key] = record
        self.owners[record.rest_uid] = record.key

    # Settling doubts.

    def _sighting(self, uid: str) -> ObservedInstance:
        one = self.service[uid]
        shows = self.now >= one.shows
        return ObservedInstance(uid, one.package, one.token if shows else None, has_metadata=shows)

    def _request(self, uid: str, *, has_documents: bool) -> ObservedInstance:
        """Return what a request for a candidate shows."""
        one, seen = self.service[uid], self._sighting(uid)
        has_executed = True if one.has_begun(self.now) else False if has_documents else None
        return ObservedInstance(uid, one.package, seen.token, seen.has_metadata, self.now >= one.ends, has_executed)

    def _documents(self) -> dict[str, ObservedInstance]:
        """Return what the datastore has, deleted runs included. It lags by some seconds."""
        found = [uid for uid, one in self.service.items() if self.now >= one.shows + 10.0]
        return {uid: ObservedInstance(uid, self.service[uid].package, self.service[uid].token, True) for uid in found}

    def _observe(self, hidden: set[str], *, has_documents: bool, requests_candidates: bool) -> Observation:
        existing = self._existing()
        expected = {*self.owners, *self.seen} - self.deleted
        # A list that lacks what was never shown, and shows all that was, is beyond anybody.
        if not hidden & expected & set(existing):
            hidden = set()
        listed = {uid: self._sighting(uid) for uid in existing if uid not in hidden}
        for uid in listed:
            if uid not in self.owners:
                self.seen.setdefault(uid, self.opening + self.has_baseline)
        if requests_candidates:
            self.deleted |= {uid for uid in expected if uid not in existing}
        known, nothing = self._known(), Observation(self.now, listed, is_evidence=False)
        wanted = {uid for record in self._in_doubt() for uid in candidates(record, nothing, known)}
        found = dict(listed)
        if requests_candidates:
            found |= {uid: self._request(uid, has_documents=has_documents) for uid in wanted if uid in listed}
        if has_documents:
            found |= {uid: seen for uid, seen in self._documents().items() if uid not in listed or uid in wanted}
        return Observation(self.now, found, has_documents and expected - self.deleted <= set(listed))

    def _known(self) -> KnownInstances:
        return KnownInstances(self.owners, self.seen, self.deleted)

    def _in_doubt(self) -> list[LaunchRecord]:
        return [record for record in self.records.values() if record.state is State.UNKNOWN]

    @precondition(lambda self: self._in_doubt())
    @rule(
        data=st.data(),
        lacks=st.sampled_from(["nothing", "nothing", "one", "rest", "rest"]),
        has_documents=st.sampled_from([True, True, True, False]),
        requests_candidates=st.sampled_from([True, True, True, False]),
        seconds=seconds,
        count=st.sampled_from([1, 2, 6, 6, 6]),
        life=lives,
        acts=st.sampled_from([True, True, False]),
    )
    def observe(
        self,
        data: Any,
        lacks: str,
        has_documents: bool,
        requests_candidates: bool,
        seconds: float,
        count: int,
        life: tuple[float, float, float],
        acts: bool,
    ) -> None:
        """Observe the service some times, and act on the verdicts at once or later."""
        hidden: set[str] = set()
        if lacks == "one" and self.service:
            hidden = {data.draw(st.sampled_from(sorted(self.service)))}
        breaks_off = data.draw(st.integers(0, len(self.service))) if lacks == "rest" else 0
        for _ in range(count):
            self._advance(seconds, life)
            rest = list(self.service)[breaks_off:] if lacks == "rest" else []
            seen = self._observe(
                hidden | set(rest), has_documents=has_documents, requests_candidates=requests_candidates
            )
            self._take_back(seen)
            self.verdicts = [
                (
                    record,
                    decide(
                        record,
                        token("journal", record.key, record.attempt),
                        seen,
                        self._known(),
                        self.windows[record.key],
                    ),
                )
                for record in self._in_doubt()
            ]
            while acts and self.verdicts:
                self.act_on_a_verdict()

    def _take_back(self, look: Observation) -> None:
        """Take back runs that carry the token of another launch than their owner."""
        for uid, seen in look.instances.items():
            record = self.records.get(self.owners.get(uid, ""))
            if record is None or record.state is not State.STARTED or record.rest_uid != uid or seen.token is None:
                continue
            if seen.token != token("journal", record.key, record.attempt):
                del self.owners[uid]
                self.seen.setdefault(uid, self.opening + 1)
                self._put_in_doubt(record.to_unknown_without_run("another's", self._wall_time()))

    @precondition(lambda self: self.verdicts)
    @rule()
    def act_on_a_verdict(self) -> None:
        record, verdict = self.verdicts.pop(0)
        if self.records[record.key] is not record:
            return
        if isinstance(verdict, Found):
            if verdict.rest_uid not in self.owners:
                self._give_run(record.to_started(verdict.rest_uid, self._wall_time()))
        elif isinstance(verdict, Absent):
            self.records[record.key] = record.to_planned(Proof.ABSENT, self._wall_time())
        else:
            assert isinstance(verdict, Undecided)
            self.records[record.key] = record.with_candidates(verdict.candidates, verdict.never_executed)

    @precondition(lambda self: self._in(State.UNKNOWN))
    @rule(data=st.data())
    def settle_by_hand(self, data: Any) -> None:
        """The user settles a launch, correctly."""
        record = self.records[data.draw(st.sampled_from(self._in(State.UNKNOWN)))]
        if any(one.key == record.key for one in self.requests):
            return
        found = [uid for uid in self._runs(token("journal", record.key, record.attempt)) if uid not in self.owners]
        if found:
            self._give_run(record.to_started(found[0], self._wall_time()))
        elif not self._runs(token("journal", record.key, record.attempt)):
            self.records[record.key] = record.to_planned(Proof.BY_HAND, self._wall_time())

    @precondition(lambda self: self._in(State.UNKNOWN))
    @rule(data=st.data())
    def adopt_the_wrong_run(self, data: Any) -> None:
        """The user is wrong: it is a candidate, and may be the run of another launch."""
        record = self.records[data.draw(st.sampled_from(self._in(State.UNKNOWN)))]
        free = [uid for uid in record.candidates if uid in self._existing() and uid not in self.owners]
        if free:
            uid = data.draw(st.sampled_from(free))
            self.adopted.add(uid)
            self._give_run(record.to_started(uid, self._wall_time()))

    @precondition(lambda self: self._in(State.STARTED))
    @rule(data=st.data(), state=st.sampled_from(sorted(FAILURES - {State.REFUSED})))
    def end(self, data: Any, state: State) -> None:
        key = data.draw(st.sampled_from(self._in(State.STARTED)))
        self.records[key] = self.records[key].to_ended(state, None, self._wall_time())

    @precondition(lambda self: self._in(*FAILURES))
    @rule(data=st.data(), correct=st.booleans())
    def retry(self, data: Any, correct: bool) -> None:
        """With the same payload, or with another one of another experiment."""
        record = self.records[data.draw(st.sampled_from(self._in(*FAILURES)))]
        other = LaunchRecord(record.key, data.draw(st.sampled_from(["demo", "other"])), "other payload")
        again = (
            record.to_corrected(other, self._wall_time())
            if correct
            else record.to_planned(Proof.ENDED, self._wall_time())
        )
        self.records[record.key] = again

    @invariant()
    def each_attempt_is_executed_once_at_most(self) -> None:
        tokens = [one.token for one in self.service.values() if one.token is not None and one.can_execute(self.now)]
        assert len(tokens) == len(set(tokens))

    @invariant()
    def what_is_owned_is_ours(self) -> None:
        for uid, key in self.owners.items():
            attempts = range(1, self.records[key].attempt + 1)
            tokens = [token("journal", key, attempt) for attempt in attempts]
            assert self.service[uid].token in tokens or uid in self.adopted


Batch.TestCase.settings = settings(
    max_examples=tries(400, 40), stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStartOnce = pytest.mark.slow(pytest.mark.timeout(180)(Batch.TestCase))
