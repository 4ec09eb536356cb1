"""Whatever several tasks do to a batch at the same moment, each launch is sent once and each run has one owner."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from st4sd_async import Batch, Client, Config, ConnectFailed, InvalidPayload, Launch, StartOutcomeUnknown
from st4sd_async._batch.batch import Deployment
from st4sd_async._batch.limiter import Pace
from st4sd_async._batch.sender import Starts
from st4sd_async._batch.state import METADATA_KEY, Proof, State, ended, planned, started, token
from st4sd_async._batch.store import Book
from st4sd_async._http.session import ClientSession
from st4sd_async._payload.prepare import Prepared

URL = "https://st4sd.example"
KEYS = tuple("abcd")
FATES = ("answered", "answered", "lost", "vanished", "not sent", "refused", "another's answer")
"""What becomes of a start."""


def launch(key: str) -> Launch:
    return Launch(key, "demo", {"metadata": {"name": key}})


async def unused(*_: Any) -> Any:
    raise NotImplementedError


class Tasks(RuleBasedStateMachine):
    """A journal on disk, what a service started, and tasks that work on both at once."""

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
            self.loop.run(self.book.journal.close())
        finally:
            self.loop.close()
            self.folder.cleanup()

    async def _open(self) -> None:
        deployment = Deployment(cast(Client, None), cast(ClientSession, SimpleNamespace(url=URL, config=Config())))
        self.batch = Batch(deployment, Path(self.folder.name) / "campaign.db", None)
        self.book: Book = self.batch._book
        self.starts = Starts(self.book, self._start, Pace(8), unused)
        await self.batch.__aenter__()

    # The service.

    async def _start(self, experiment: str, prepared: Prepared) -> str:
        metadata = json.loads(prepared.content)["metadata"]
        its, (fate, turns) = metadata[METADATA_KEY], self.fates[metadata["name"]]
        for _ in range(turns):
            await asyncio.sleep(0)
        if fate == "not sent":
            raise ConnectFailed("POST", URL, "refused")
        if fate == "refused":
            raise InvalidPayload("no")
        if fate == "vanished":
            raise StartOutcomeUnknown("start", "lost")
        assert its not in self.runs, f"{metadata['name']!r} was started twice"
        others = sorted(self.book.owners)
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
        row = self.book.rows.get(key)
        if row is None or row.state is not State.PLANNED or self.book.is_moving(row):
            return
        if key not in self.fates:  # one task of a batch sends a launch
            self.fates[key] = fate, turns
            await self.starts.send(key)

    async def _settle(self, key: str) -> None:
        """Act on what is known of a launch in doubt, as a look at the service does."""
        row = self.book.rows.get(key)
        if row is None or row.state is not State.UNKNOWN or self.book.is_moving(row):
            return
        found = self.runs.get(self.book.token_of(row))
        after = started(row, found[0], 0.0) if found else planned(row, Proof.ABSENT, 0.0)
        await self.book.put(row, after)

    async def _forget(self, key: str) -> None:
        row = self.book.rows.get(key)
        if row is not None and row.state is State.UNKNOWN and self.book.token_of(row) not in self.runs:
            with suppress(ValueError):  # another task was quicker
                await self.batch.forget(key)

    async def _end(self, key: str) -> None:
        row = self.book.rows.get(key)
        if row is not None and row.state is State.STARTED and not self.book.is_moving(row):
            await self.book.put(row, ended(row, State.FAILED, None, 0.0))

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
        """The same launches by three tasks, while all that are planned are sent."""
        self.fates.clear()
        sends = [("send", key, "answered", 2) for key in KEYS]
        self.loop.run(self._together([("add", keys), *sends, ("add", keys[::-1]), ("add", keys)]))

    @rule()
    def the_process_dies(self) -> None:
        """Another one reads what is on the disk."""
        before = dict(self.book.rows)
        self.loop.run(self.book.journal.close())
        self.loop.run(self._open())

        assert self.book.rows.keys() == before.keys()
        for key, row in self.book.rows.items():
            assert (row.state, row.attempt, row.rest_uid) == (
                before[key].state,
                before[key].attempt,
                before[key].rest_uid,
            )

    # What holds between two moments.

    @invariant()
    def what_was_added_is_there(self) -> None:
        assert self.added <= self.book.rows.keys()
        assert self.book.tally == Counter(row.state for row in self.book.rows.values())

    @invariant()
    def every_run_has_the_owner_whose_token_it_carries(self) -> None:
        for uid, key in self.book.owners.items():
            attempts = range(1, self.book.rows[key].attempt + 1)
            assert any(uid in self.runs.get(self._token(key, attempt), ()) for attempt in attempts)

    @invariant()
    def what_was_started_is_owned_or_in_doubt(self) -> None:
        for key, row in self.book.rows.items():
            for uid in self.runs.get(self.book.token_of(row), ()):
                assert row.state is State.UNKNOWN or self.book.owners.get(uid) == key

    def _token(self, key: str, attempt: int) -> str:
        return token(self.book._token, key, attempt)


# Threads write to the disk, so what fails need not fail again when it is made shorter.
Tasks.TestCase.settings = settings(
    max_examples=60, stateful_step_count=15, deadline=None, phases=[Phase.explicit, Phase.generate]
)
TestAddAgain = pytest.mark.timeout(180)(Tasks.TestCase)
