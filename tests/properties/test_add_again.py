"""Whatever several tasks do to a batch at the same time, each launch is sent once and each run has one owner."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from st4sd_async import Batch, Config, ConnectFailed, InvalidPayload, Launch, StartOutcomeUnknown
from st4sd_async._batch.client import BatchClient
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.sender import AdaptiveLimiter, Sender
from st4sd_async._batch.state import Proof, State, token
from st4sd_async._http.call import Call
from st4sd_async._http.session import ClientSession
from st4sd_async._results.downloads import Downloads
from tests.tries import tries

pytestmark = pytest.mark.slow

URL = "https://st4sd.example"
KEYS = tuple("abcd")
FATES = ("answered", "answered", "lost", "vanished", "not sent", "refused", "another's answer")
"""What becomes of a start."""


def launch(key: str) -> Launch:
    return Launch(key, "demo", {"metadata": {"name": key}})


class FakeSession:
    """A session whose calls are answered by a function."""

    url = f"{URL}/"
    config = Config()

    def __init__(self, send_once: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self.send_once = send_once


class Tasks(RuleBasedStateMachine):
    """Concurrent tasks that change the launches of one journal."""

    keys = st.sampled_from(KEYS)
    several = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True)
    operations = st.one_of(
        st.tuples(st.just("add"), several),
        st.tuples(st.just("add"), several),
        st.tuples(st.just("add and cancel"), several, st.integers(0, 6)),
        st.tuples(st.just("send"), keys, st.sampled_from(FATES), st.integers(0, 4)),
        st.tuples(st.just("send"), keys, st.sampled_from(FATES), st.integers(0, 4)),
        st.tuples(st.just("settle"), keys),
        st.tuples(st.just("forget"), keys),
        st.tuples(st.just("end"), keys),
        st.tuples(st.just("retry")),
    )

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.runs: dict[str, list[str]] = {}
        """token -> the runs that carry it."""
        self.fates: dict[str, tuple[str, int]] = {}
        """key -> what becomes of its next start, and how many turns of the event loop that takes."""
        self.added: set[str] = set()
        self.loop.run(self._open())

    def teardown(self) -> None:
        try:
            self.loop.run(self.journal.close())
        finally:
            self.loop.close()
            self.folder.cleanup()

    async def _open(self) -> None:
        session = cast(ClientSession, FakeSession(self._start))
        path = Path(self.folder.name) / "campaign.db"
        self.batch = Batch(cast(BatchClient, None), session, cast(Downloads, None), path=path)
        self.journal: Journal = self.batch._journal
        self.sender = Sender(self.journal, session, AdaptiveLimiter(8))
        await self.batch.__aenter__()

    # The service.

    async def _start(self, call: Call[Any]) -> Any:
        metadata = json.loads(cast(bytes, call.content))["metadata"]
        its, (fate, turns) = metadata["st4sd-async-key"], self.fates[metadata["name"]]
        for _ in range(turns):
            await asyncio.sleep(0)
        if fate == "not sent":
            raise ConnectFailed("POST", URL, "refused")
        if fate == "refused":
            raise InvalidPayload("no")
        if fate == "vanished":
            raise StartOutcomeUnknown("start", "lost")
        assert its not in self.runs, f"{metadata['name']!r} was started twice"
        others = sorted(self.journal.owners)
        self.runs[its] = [f"demo-abcdef-{len(self.runs):08d}"]
        if fate == "lost":
            raise StartOutcomeUnknown("start", "lost")
        return others[0] if fate == "another's answer" and others else self.runs[its][0]

    # What a task does.

    async def _add(self, keys: list[str]) -> None:
        await self.batch.add([launch(key) for key in keys])
        self.added |= set(keys)

    async def _add_and_cancel(self, keys: list[str], turns: int) -> None:
        adding = asyncio.ensure_future(self._add(keys))
        for _ in range(turns):
            await asyncio.sleep(0)
        adding.cancel()
        await asyncio.wait([adding])

    async def _send(self, key: str, fate: str, turns: int) -> None:
        row = self.journal.records.get(key)
        if row is None or row.state is not State.PLANNED or self.journal.is_stale(row):
            return
        if key not in self.fates:  # one task of a batch sends a launch
            self.fates[key] = fate, turns
            await self.sender.send(key)

    async def _settle(self, key: str) -> None:
        """Act on what is known of a launch in doubt, as a reconciler does."""
        row = self.journal.records.get(key)
        if row is None or row.state is not State.UNKNOWN or self.journal.is_stale(row):
            return
        found = self.runs.get(self.journal.token_of(row))
        after = row.to_started(found[0], 0.0) if found else row.to_planned(Proof.ABSENT, 0.0)
        await self.journal.replace(row, after)

    async def _forget(self, key: str) -> None:
        row = self.journal.records.get(key)
        if row is not None and row.state is State.UNKNOWN and self.journal.token_of(row) not in self.runs:
            with suppress(ValueError):  # another task was quicker
                await self.batch.forget(key)

    async def _end(self, key: str) -> None:
        row = self.journal.records.get(key)
        if row is not None and row.state is State.STARTED and not self.journal.is_stale(row):
            await self.journal.replace(row, row.to_ended(State.FAILED, None, 0.0))

    async def _together(self, operations: list[tuple[Any, ...]]) -> None:
        works: dict[str, Callable[..., Any]] = {
            "add": self._add,
            "add and cancel": self._add_and_cancel,
            "send": self._send,
            "settle": self._settle,
            "forget": self._forget,
            "end": self._end,
            "retry": self.batch.retry_failed,
        }
        async with asyncio.TaskGroup() as tasks:
            for name, *arguments in operations:
                tasks.create_task(works[name](*arguments))

    @rule(operations=st.lists(operations, min_size=2, max_size=6))
    def several_tasks_work_together(self, operations: list[tuple[Any, ...]]) -> None:
        self.fates.clear()
        self.loop.run(self._together(operations))

    @rule(keys=several)
    def add_again_while_all_are_sent(self, keys: list[str]) -> None:
        """Three tasks add the same launches while all planned ones are sent."""
        self.fates.clear()
        sends = [("send", key, "answered", 2) for key in KEYS]
        self.loop.run(self._together([("add", keys), *sends, ("add", keys[::-1]), ("add", keys)]))

    @rule()
    def the_process_crashes(self) -> None:
        """Another process reads the disk."""
        before = dict(self.journal.records)
        self.loop.run(self.journal.close())
        self.loop.run(self._open())

        assert self.journal.records.keys() == before.keys()
        for key, row in self.journal.records.items():
            assert (row.state, row.attempt, row.rest_uid) == (
                before[key].state,
                before[key].attempt,
                before[key].rest_uid,
            )

    # What holds between two moments.

    @invariant()
    def what_was_added_is_there(self) -> None:
        assert self.added <= self.journal.records.keys()
        assert self.journal.counts == Counter(row.state for row in self.journal.records.values())

    @invariant()
    def every_run_has_the_owner_whose_token_it_carries(self) -> None:
        for uid, key in self.journal.owners.items():
            attempts = range(1, self.journal.records[key].attempt + 1)
            assert any(uid in self.runs.get(self._token(key, attempt), ()) for attempt in attempts)

    @invariant()
    def what_was_started_is_owned_or_in_doubt(self) -> None:
        for key, row in self.journal.records.items():
            for uid in self.runs.get(self.journal.token_of(row), ()):
                assert row.state is State.UNKNOWN or self.journal.owners.get(uid) == key

    def _token(self, key: str, attempt: int) -> str:
        return token(self.journal._token, key, attempt)


# Threads write to the disk, so a failure may not be reproducible, and shrinking is off.
Tasks.TestCase.settings = settings(
    max_examples=tries(60, 15), stateful_step_count=15, deadline=None, phases=[Phase.explicit, Phase.generate]
)
TestAddAgain = pytest.mark.slow(pytest.mark.timeout(180)(Tasks.TestCase))
