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
from st4sd_async._batch.state import FAILURES, LaunchRecord, Proof, State, token

SETTLE = 180.0
KEYS = ("a", "b", "c")
PACKAGES = {"a": "demo", "b": "demo", "c": "other"}
DAY = 24 * 3600.0


@dataclass
class Instance:
    """A run as the service really has it."""

    package: str
    token: str | None
    shows: float
    """When its metadata shows; infinite for one that never has any."""
    begins: float
    """When it executes something; infinite for one that fails before."""
    ends: float
    """When it is over."""
    is_deleted: bool = False

    def has_begun(self, now: float) -> bool:
        """Whether it has executed something."""
        return now >= self.begins

    def can_execute(self, now: float) -> bool:
        """Whether it has executed something, or still may."""
        return self.has_begun(now) or (self.begins < inf and not self.is_deleted)


@dataclass
class Request:
    """A start on its way: what becomes of it is decided when nobody waits for the answer any more."""

    key: str
    token: str
    handled_at: float | None = None
    """When the service handles it; None: not decided, or never."""
    is_decided: bool = False


class Batch(RuleBasedStateMachine):
    """A service, its network and its users on one side, and the pure parts of a batch on the other."""

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
        """What the wall clock says more."""
        self.service: dict[str, Instance] = {}
        self.requests: list[Request] = []
        self.rows = {key: LaunchRecord(key, f"{PACKAGES[key]}:latest", "0") for key in KEYS}
        """On disk; memory is the same after each commit, and is lost with the process."""
        self.owners: dict[str, str] = {}
        self.gone: set[str] = set()
        self.seen: dict[str, int] = {}
        self.opening, self.has_looked = 1, False
        self.flying: dict[str, Request] = {}
        """Launches whose answers this process waits for."""
        self.doubted: dict[str, float] = {}
        """Launches in doubt, and since when this process knows that."""
        self.windows: dict[str, SettleWindow] = {}
        self.adopted: set[str] = set()
        """Runs that the user gave to a launch without knowing."""
        self.verdicts: list[tuple[LaunchRecord, Verdict]] = []
        """Of the last look, those that were not acted on yet."""
        self.names = 0

    # The world.

    def _create(self, package: str, its: str | None, life: tuple[float, float, float]) -> str:
        self.names += 1
        uid = f"{package}-{self.names}"
        shows, begins, ends = (self.now + seconds for seconds in life)
        self.service[uid] = Instance(package, its, shows, begins, ends)
        return uid

    def _runs(self, its: str) -> list[str]:
        """The runs of an attempt that executed something, or may still do it."""
        return [uid for uid, one in self.service.items() if one.token == its and one.can_execute(self.now)]

    def _handle(self, request: Request, life: tuple[float, float, float]) -> str:
        self.requests.remove(request)
        assert not self._runs(request.token), f"{request.key} was started twice"
        return self._create(PACKAGES[request.key], request.token, life)

    def _abandon(self, request: Request, delay: float | None) -> None:
        """Nobody waits for the answer any more: the service handles it within the settle window, or never."""
        request.is_decided = True
        request.handled_at = None if delay is None else self.now + delay
        if delay is None:
            self.requests.remove(request)

    def _pass(self, seconds: float, life: tuple[float, float, float]) -> None:
        until = self.now + seconds
        due = [one for one in self.requests if one.handled_at is not None and one.handled_at <= until]
        for request in sorted(due, key=lambda one: one.handled_at or 0.0):
            self.now = request.handled_at or 0.0
            self._handle(request, life)
        self.now = until

    def _there(self) -> dict[str, Instance]:
        return {uid: one for uid, one in self.service.items() if not one.is_deleted}

    @precondition(lambda self: len(self.service) < 8)
    @rule(package=st.sampled_from(["demo", "other"]), life=lives)
    def somebody_else_starts(self, package: str, life: tuple[float, float, float]) -> None:
        self._create(package, None, life)

    @precondition(lambda self: len(self.service) < 8)
    @rule(package=st.sampled_from(["demo", "other"]))
    def an_unrelated_run_fails(self, package: str) -> None:
        self._create(package, None, (inf, inf, 0.0))

    @precondition(lambda self: self._there())
    @rule(data=st.data())
    def somebody_deletes(self, data: Any) -> None:
        """Anything but what began to execute since it was seen to have executed nothing: that is beyond anybody."""
        idle = {uid for row in self.rows.values() for uid in row.never_executed}
        known = [uid for uid, one in self._there().items() if uid not in idle or not one.has_begun(self.now)]
        if known:
            self.service[data.draw(st.sampled_from(known))].is_deleted = True

    @rule(seconds=st.sampled_from([-DAY, -SETTLE, SETTLE, DAY]))
    def the_clock_is_set(self, seconds: float) -> None:
        self.wall += seconds

    # The batch, commit by commit.

    def _in(self, *states: State) -> list[str]:
        return [key for key, row in self.rows.items() if row.state in states]

    def _look_before_sending(self) -> None:
        if not self.has_looked:
            for uid in self._there():
                if uid not in self.owners:
                    self.seen.setdefault(uid, self.opening)
            self.has_looked = True

    def _at(self) -> float:
        return self.now + self.wall

    def _doubt(self, row: LaunchRecord) -> None:
        self.rows[row.key] = row
        self.doubted[row.key] = self.now
        self.windows[row.key] = SettleWindow(SETTLE, self.now)

    @precondition(lambda self: self._in(State.PLANNED))
    @rule(data=st.data(), leaves=st.sampled_from([True, True, True, False]))
    def send(self, data: Any, leaves: bool) -> None:
        """Write it down, and send it unless the process dies in between."""
        self._look_before_sending()
        key = data.draw(st.sampled_from(self._in(State.PLANNED)))
        self.rows[key] = self.rows[key].to_sending(self.opening, self._at())
        if not leaves:
            self.die(None)
            return
        its = token("journal", key, self.rows[key].attempt)
        assert not self._runs(its), f"{key} was sent though it runs"
        assert not any(one.token == its for one in self.requests), f"{key} was sent while it was on its way"
        self.flying[key] = Request(key, its)
        self.requests.append(self.flying[key])

    @precondition(lambda self: self.flying)
    @rule(
        data=st.data(),
        what=st.sampled_from(["answer", "lose", "lose", "lose", "lose", "refuse", "turn away"]),
        life=lives,
        delay=delays,
    )
    def land(self, data: Any, what: str, life: tuple[float, float, float], delay: float | None) -> None:
        """What becomes of a start in flight."""
        key = data.draw(st.sampled_from(sorted(self.flying)))
        request, row = self.flying.pop(key), self.rows[key]
        if what == "answer":
            self._own(row.to_started(self._handle(request, life), self._at()))
        elif what == "lose":
            self._abandon(request, delay)
            self._doubt(row.to_unknown("lost", self._at()))
        else:
            self.requests.remove(request)
            no = row.to_refused("InvalidPayload", "no", self._at())
            self.rows[key] = no if what == "refuse" else row.to_planned(Proof.NOT_SENT, self._at())

    @precondition(lambda self: self.flying or self.verdicts or self.windows)
    @rule(delay=delays)
    def die(self, delay: float | None) -> None:
        """The process is crashed_copy, and another opens the journal."""
        for request in self.flying.values():
            self._abandon(request, delay)
        self.flying, self.verdicts = {}, []
        self.has_looked = False
        self.opening += 1
        for row in self.rows.values():
            if row.state is State.SENDING:
                self._doubt(row.to_unknown("died", self._at()))
            elif row.state is State.UNKNOWN:
                self._doubt(row)

    def _own(self, row: LaunchRecord) -> None:
        assert row.rest_uid is not None
        assert row.rest_uid not in self.owners
        self.rows[row.key] = row
        self.owners[row.rest_uid] = row.key

    # Settling doubts.

    def _sighting(self, uid: str) -> ObservedInstance:
        one = self.service[uid]
        shows = self.now >= one.shows
        return ObservedInstance(uid, one.package, one.token if shows else None, has_metadata=shows)

    def _detail(self, uid: str, *, has_documents: bool) -> ObservedInstance:
        """What a request for a candidate shows."""
        one, seen = self.service[uid], self._sighting(uid)
        has_executed = True if one.has_begun(self.now) else False if has_documents else None
        return ObservedInstance(uid, one.package, seen.token, seen.has_metadata, self.now >= one.ends, has_executed)

    def _documents(self) -> dict[str, ObservedInstance]:
        """What the datastore has, of deleted runs too; it is behind by some seconds."""
        found = [uid for uid, one in self.service.items() if self.now >= one.shows + 10.0]
        return {uid: ObservedInstance(uid, self.service[uid].package, self.service[uid].token, True) for uid in found}

    def _look(self, hidden: set[str], *, has_documents: bool, asks: bool) -> Observation:
        there = self._there()
        expected = {*self.owners, *self.seen} - self.gone
        # A list that lacks what was never shown, and shows all that was, is beyond anybody.
        if not hidden & expected & set(there):
            hidden = set()
        listed = {uid: self._sighting(uid) for uid in there if uid not in hidden}
        for uid in listed:
            if uid not in self.owners:
                self.seen.setdefault(uid, self.opening + self.has_looked)
        if asks:
            self.gone |= {uid for uid in expected if uid not in there}
        known, nothing = self._known(), Observation(self.now, listed, is_evidence=False)
        wanted = {uid for row in self._doubts() for uid in candidates(row, nothing, known)}
        found = dict(listed)
        if asks:
            found |= {uid: self._detail(uid, has_documents=has_documents) for uid in wanted if uid in listed}
        if has_documents:
            found |= {uid: seen for uid, seen in self._documents().items() if uid not in listed or uid in wanted}
        return Observation(self.now, found, has_documents and expected - self.gone <= set(listed))

    def _known(self) -> KnownInstances:
        return KnownInstances(self.owners, self.seen, self.gone)

    def _doubts(self) -> list[LaunchRecord]:
        return [row for row in self.rows.values() if row.state is State.UNKNOWN]

    @precondition(lambda self: self._doubts())
    @rule(
        data=st.data(),
        lacks=st.sampled_from(["nothing", "nothing", "one", "rest", "rest"]),
        has_documents=st.sampled_from([True, True, True, False]),
        asks=st.sampled_from([True, True, True, False]),
        seconds=seconds,
        looks=st.sampled_from([1, 2, 6, 6, 6]),
        life=lives,
        acts=st.sampled_from([True, True, False]),
    )
    def look(
        self,
        data: Any,
        lacks: str,
        has_documents: bool,
        asks: bool,
        seconds: float,
        looks: int,
        life: tuple[float, float, float],
        acts: bool,
    ) -> None:
        """The batch looks some times, and acts on what it sees, at once or later."""
        hidden: set[str] = set()
        if lacks == "one" and self.service:
            hidden = {data.draw(st.sampled_from(sorted(self.service)))}
        breaks_off = data.draw(st.integers(0, len(self.service))) if lacks == "rest" else 0
        for _ in range(looks):
            self._pass(seconds, life)
            rest = list(self.service)[breaks_off:] if lacks == "rest" else []
            seen = self._look(hidden | set(rest), has_documents=has_documents, asks=asks)
            self._take_back(seen)
            self.verdicts = [
                (row, decide(row, token("journal", row.key, row.attempt), seen, self._known(), self.windows[row.key]))
                for row in self._doubts()
            ]
            while acts and self.verdicts:
                self.act_on_a_verdict()

    def _take_back(self, look: Observation) -> None:
        """Runs that carry the token of another launch than that which owns them."""
        for uid, seen in look.instances.items():
            row = self.rows.get(self.owners.get(uid, ""))
            if row is None or row.state is not State.STARTED or row.rest_uid != uid or seen.token is None:
                continue
            if seen.token != token("journal", row.key, row.attempt):
                del self.owners[uid]
                self.seen.setdefault(uid, self.opening + 1)
                self._doubt(row.to_unknown_without_run("another's", self._at()))

    @precondition(lambda self: self.verdicts)
    @rule()
    def act_on_a_verdict(self) -> None:
        row, verdict = self.verdicts.pop(0)
        if self.rows[row.key] is not row:
            return
        if isinstance(verdict, Found):
            if verdict.rest_uid not in self.owners:
                self._own(row.to_started(verdict.rest_uid, self._at()))
        elif isinstance(verdict, Absent):
            self.rows[row.key] = row.to_planned(Proof.ABSENT, self._at())
        else:
            assert isinstance(verdict, Undecided)
            self.rows[row.key] = row.with_candidates(verdict.candidates, verdict.never_executed)

    @precondition(lambda self: self._in(State.UNKNOWN))
    @rule(data=st.data())
    def settle_by_hand(self, data: Any) -> None:
        """The user knows better, and is right."""
        row = self.rows[data.draw(st.sampled_from(self._in(State.UNKNOWN)))]
        if any(one.key == row.key for one in self.requests):
            return
        found = [uid for uid in self._runs(token("journal", row.key, row.attempt)) if uid not in self.owners]
        if found:
            self._own(row.to_started(found[0], self._at()))
        elif not self._runs(token("journal", row.key, row.attempt)):
            self.rows[row.key] = row.to_planned(Proof.BY_HAND, self._at())

    @precondition(lambda self: self._in(State.UNKNOWN))
    @rule(data=st.data())
    def adopt_the_wrong_one(self, data: Any) -> None:
        """The user is wrong: it is a candidate, and may be the run of another launch."""
        row = self.rows[data.draw(st.sampled_from(self._in(State.UNKNOWN)))]
        free = [uid for uid in row.candidates if uid in self._there() and uid not in self.owners]
        if free:
            uid = data.draw(st.sampled_from(free))
            self.adopted.add(uid)
            self._own(row.to_started(uid, self._at()))

    @precondition(lambda self: self._in(State.STARTED))
    @rule(data=st.data(), state=st.sampled_from(sorted(FAILURES - {State.REFUSED})))
    def end(self, data: Any, state: State) -> None:
        key = data.draw(st.sampled_from(self._in(State.STARTED)))
        self.rows[key] = self.rows[key].to_ended(state, None, self._at())

    @precondition(lambda self: self._in(*FAILURES))
    @rule(data=st.data(), correct=st.booleans())
    def try_again(self, data: Any, correct: bool) -> None:
        """With the same payload, or with another, which may be of another experiment."""
        row = self.rows[data.draw(st.sampled_from(self._in(*FAILURES)))]
        other = LaunchRecord(row.key, data.draw(st.sampled_from(["demo", "other"])), "other payload")
        again = row.to_corrected(other, self._at()) if correct else row.to_planned(Proof.ENDED, self._at())
        self.rows[row.key] = again

    @invariant()
    def each_attempt_is_executed_once_at_most(self) -> None:
        tokens = [one.token for one in self.service.values() if one.token is not None and one.can_execute(self.now)]
        assert len(tokens) == len(set(tokens))

    @invariant()
    def what_is_owned_is_ours(self) -> None:
        for uid, key in self.owners.items():
            attempts = range(1, self.rows[key].attempt + 1)
            tokens = [token("journal", key, attempt) for attempt in attempts]
            assert self.service[uid].token in tokens or uid in self.adopted


Batch.TestCase.settings = settings(
    max_examples=400, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStartOnce = pytest.mark.timeout(180)(Batch.TestCase)
