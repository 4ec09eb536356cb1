"""From every reachable state, on every answer, and with a death at every commit: no key is sent twice without proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from st4sd_async._moves import (
    BAD_ENDS,
    Proof,
    Row,
    State,
    amended,
    doubted,
    ended,
    planned,
    refused,
    sending,
    started,
    suspected,
    token,
)
from st4sd_async._verdict import Absent, CannotTell, Found, Known, Look, Sighting, Verdict, Wait, is_evidence, judge

SETTLE = 180.0
KEYS = ("a", "b", "c")
PACKAGES = {"a": "demo", "b": "demo", "c": "other"}


@dataclass
class Instance:
    """A run as the service really has it."""

    package: str
    token: str | None
    shows: float
    """When its metadata shows; infinite for one that fails before."""
    ends: float
    """When it is over."""


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

    seconds = st.sampled_from([0.0, 3.0, SETTLE / 2, SETTLE, SETTLE, 4 * SETTLE])
    delays = st.sampled_from([None, 0.0, 1.0, SETTLE / 2, SETTLE - 1.0])
    shows = st.sampled_from([None, 0.0, 10.0, 10.0])

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.service: dict[str, Instance] = {}
        self.requests: list[Request] = []
        self.rows = {key: Row(key, f"{PACKAGES[key]}:latest", "0") for key in KEYS}
        """On disk; memory is the same after each commit, and is lost with the process."""
        self.owners: dict[str, str] = {}
        self.gone: set[str] = set()
        self.seen: dict[str, int] = {}
        self.opening, self.baseline, self.has_looked = 1, -1, False
        self.flying: dict[str, Request] = {}
        """Launches whose answers this process waits for."""
        self.first: dict[str, float] = {}
        self.verdicts: list[tuple[Row, Verdict]] = []
        """Of the last look, those that were not acted on yet."""
        self.names = 0

    # The world.

    def _create(self, package: str, its: str | None, shows: float | None) -> str:
        self.names += 1
        uid = f"{package}-{self.names}"
        late = float("inf") if shows is None else self.now + shows
        self.service[uid] = Instance(package, its, late, self.now + 5.0)
        return uid

    def _handle(self, request: Request, shows: float | None) -> str:
        self.requests.remove(request)
        assert not any(one.token == request.token for one in self.service.values()), f"{request.key} was started twice"
        return self._create(PACKAGES[request.key], request.token, shows)

    def _abandon(self, request: Request, delay: float | None) -> None:
        """Nobody waits for the answer any more: the service handles it within the settle window, or never."""
        request.is_decided = True
        request.handled_at = None if delay is None else self.now + delay
        if delay is None:
            self.requests.remove(request)

    def _pass(self, seconds: float, shows: float | None) -> None:
        until = self.now + seconds
        due = [one for one in self.requests if one.handled_at is not None and one.handled_at <= until]
        for request in sorted(due, key=lambda one: one.handled_at or 0.0):
            self.now = request.handled_at or 0.0
            self._handle(request, shows)
        self.now = until

    @precondition(lambda self: len(self.service) < 5)
    @rule(package=st.sampled_from(["demo", "other"]), shows=shows)
    def somebody_else_starts(self, package: str, shows: float | None) -> None:
        self._create(package, None, shows)

    @precondition(lambda self: self.service)
    @rule(data=st.data())
    def somebody_deletes(self, data: Any) -> None:
        # Whoever deletes a run of ours that we do not know of yet leaves nothing to find.
        known = [uid for uid, one in self.service.items() if one.token is None or uid in self.owners]
        if known:
            del self.service[data.draw(st.sampled_from(known))]

    # The batch, commit by commit.

    def _in(self, *states: State) -> list[str]:
        return [key for key, row in self.rows.items() if row.state in states]

    def _look_before_sending(self) -> None:
        if not self.has_looked:
            for uid in self.service:
                if uid not in self.owners:
                    self.seen.setdefault(uid, self.opening)
            self.baseline = len(self.service) if self.baseline < 0 else self.baseline
            self.has_looked = True

    @precondition(lambda self: self._in(State.PLANNED))
    @rule(data=st.data(), leaves=st.sampled_from([True, True, True, False]))
    def send(self, data: Any, leaves: bool) -> None:
        """Write it down, and send it unless the process dies in between."""
        self._look_before_sending()
        key = data.draw(st.sampled_from(self._in(State.PLANNED)))
        self.rows[key] = sending(self.rows[key], self.opening, self.now)
        if not leaves:
            self.die(None)
            return
        its = token("journal", key, self.rows[key].attempt)
        assert not any(one.token == its for one in self.service.values()), f"{key} was sent though it runs"
        assert not any(one.token == its for one in self.requests), f"{key} was sent while it was on its way"
        self.flying[key] = Request(key, its)
        self.requests.append(self.flying[key])

    @precondition(lambda self: self.flying)
    @rule(
        data=st.data(),
        what=st.sampled_from(["answer", "lose", "lose", "lose", "refuse", "turn away"]),
        shows=shows,
        delay=delays,
    )
    def land(self, data: Any, what: str, shows: float | None, delay: float | None) -> None:
        """What becomes of a start in flight."""
        key = data.draw(st.sampled_from(sorted(self.flying)))
        request, row = self.flying.pop(key), self.rows[key]
        if what == "answer":
            self._own(started(row, self._handle(request, shows), self.now))
        elif what == "lose":
            self._abandon(request, delay)
            self.rows[key] = doubted(row, "lost", self.now)
        else:
            self.requests.remove(request)
            no = refused(row, "InvalidPayload", "no", self.now)
            self.rows[key] = no if what == "refuse" else planned(row, Proof.NOT_SENT, self.now)

    @precondition(lambda self: self.flying or self.verdicts or self.first)
    @rule(delay=delays)
    def die(self, delay: float | None) -> None:
        """The process is killed, and another opens the journal."""
        for request in self.flying.values():
            self._abandon(request, delay)
        self.flying, self.first, self.verdicts = {}, {}, []
        self.has_looked = False
        self.opening += 1
        for key, row in self.rows.items():
            if row.state is State.SENDING:
                self.rows[key] = doubted(row, "died", self.now)

    def _own(self, row: Row) -> None:
        assert row.rest_uid is not None
        assert row.rest_uid not in self.owners
        self.rows[row.key] = row
        self.owners[row.rest_uid] = row.key

    # Settling doubts.

    def _listed(self, hidden: set[str]) -> dict[str, Sighting]:
        return {
            uid: Sighting(uid, one.package, one.token, True, self.now >= one.ends)
            if self.now >= one.shows
            else Sighting(uid, one.package, None, False, self.now >= one.ends)
            for uid, one in self.service.items()
            if uid not in hidden
        }

    @precondition(lambda self: self._in(State.UNKNOWN, State.SENDING))
    @rule(
        data=st.data(),
        is_partial=st.booleans(),
        seconds=seconds,
        shows=shows,
        acts=st.sampled_from([True, True, False]),
    )
    def look(self, data: Any, is_partial: bool, seconds: float, shows: float | None, acts: bool) -> None:
        """Some time later the batch looks, and acts on what it sees, at once or later."""
        self._pass(seconds, shows)
        alive = {uid for uid in self.owners if uid not in self.gone}
        hidden: set[str] = set()
        if is_partial and self.service:
            hidden = data.draw(st.sets(st.sampled_from(sorted(self.service))))
            # A list that hides one run, and shows all others that should be there, is beyond anybody.
            if not hidden & alive and (alive or len(self.service) - len(hidden) >= self.baseline):
                hidden = set()
        listed = self._listed(hidden)
        self.gone |= {uid for uid in alive - set(listed) if uid not in self.service}
        proves = is_evidence(listed, [uid for uid in self.owners if uid not in self.gone], max(0, self.baseline))
        seen, known = Look(self.now, listed, proves), Known(self.owners, self.seen)
        self.first.setdefault("", self.now)
        for uid in listed:
            self.first.setdefault(uid, self.now)
        waited = {uid: self.now - first for uid, first in self.first.items()}
        doubts = [row for row in self.rows.values() if row.state is State.UNKNOWN]
        self.verdicts = [
            (row, judge(row, token("journal", row.key, row.attempt), seen, known, waited, SETTLE)) for row in doubts
        ]

        while acts and self.verdicts:
            self.act_on_a_verdict()

    @precondition(lambda self: self.verdicts)
    @rule()
    def act_on_a_verdict(self) -> None:
        row, verdict = self.verdicts.pop(0)
        if self.rows[row.key] is not row:
            return
        if isinstance(verdict, Found):
            if verdict.rest_uid not in self.owners:
                self._own(started(row, verdict.rest_uid, self.now))
        elif isinstance(verdict, Absent):
            self.rows[row.key] = planned(row, Proof.ABSENT, self.now)
        else:
            assert isinstance(verdict, Wait | CannotTell)
            self.rows[row.key] = suspected(row, verdict.candidates)

    @precondition(lambda self: self._in(State.UNKNOWN))
    @rule(data=st.data())
    def settle_by_hand(self, data: Any) -> None:
        """The user knows better, and is right."""
        row = self.rows[data.draw(st.sampled_from(self._in(State.UNKNOWN)))]
        if any(one.key == row.key for one in self.requests):
            return
        its = token("journal", row.key, row.attempt)
        found = [uid for uid, one in self.service.items() if one.token == its]
        if found:
            self._own(started(row, found[0], self.now))
        else:
            self.rows[row.key] = planned(row, Proof.BY_HAND, self.now)

    @precondition(lambda self: self._in(State.STARTED))
    @rule(data=st.data(), state=st.sampled_from(sorted(BAD_ENDS - {State.REFUSED})))
    def end(self, data: Any, state: State) -> None:
        key = data.draw(st.sampled_from(self._in(State.STARTED)))
        self.rows[key] = ended(self.rows[key], state, None, self.now)

    @precondition(lambda self: self._in(*BAD_ENDS))
    @rule(data=st.data(), correct=st.booleans())
    def try_again(self, data: Any, correct: bool) -> None:
        """With the same payload, or with another, which may be of another experiment."""
        row = self.rows[data.draw(st.sampled_from(self._in(*BAD_ENDS)))]
        other = Row(row.key, data.draw(st.sampled_from(["demo", "other"])), "other payload")
        again = amended(row, other, self.now) if correct else planned(row, Proof.ENDED, self.now)
        self.rows[row.key] = again

    @invariant()
    def each_attempt_has_one_run_at_most(self) -> None:
        tokens = [one.token for one in self.service.values() if one.token is not None]
        assert len(tokens) == len(set(tokens))

    @invariant()
    def what_is_owned_is_ours(self) -> None:
        for uid, key in self.owners.items():
            one = self.service.get(uid)
            attempts = range(1, self.rows[key].attempt + 1)
            assert one is None or one.token in [token("journal", key, attempt) for attempt in attempts]


Batch.TestCase.settings = settings(
    max_examples=400, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStartOnce = pytest.mark.timeout(180)(Batch.TestCase)
