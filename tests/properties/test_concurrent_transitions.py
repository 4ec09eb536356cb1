"""However many tasks change launches at the same time, and whichever are cancelled, memory equals the disk."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from st4sd_async import JournalError
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.state import LaunchRecord, Proof, State
from st4sd_async._util.clock import SystemClock
from tests.tries import sample

pytestmark = pytest.mark.anyio

FAILURES = {State.REFUSED, State.FAILED, State.STOPPED, State.DELETED}
SERVER = "https://st4sd.example/"
KEYS = [f"mol {number}" for number in range(12)]
NOW = 2.0


class Tasks:
    """Concurrent tasks that change the launches of one journal."""

    def __init__(self, journal: Journal, seed: int) -> None:
        self.journal, self.dice = journal, random.Random(seed)
        self.sent: Counter[tuple[str, int]] = Counter()
        """key and attempt -> how often it was sent without a proof that it may be sent again."""
        self.added: Counter[str] = Counter()

    async def add(self) -> None:
        rows = [LaunchRecord(key, "demo", "0", since=1.0) for key in self.dice.sample(KEYS, self.dice.randrange(1, 6))]
        await asyncio.sleep(self.dice.random() / 2000)  # as if it read files
        await self.journal.add(rows, {"0": "{}"}, lambda row: self.added.update([row.key]))

    async def send(self) -> None:
        if not self.journal.records:
            return
        was = self.journal.records[self.dice.choice([*self.journal.records])]
        if was.state is not State.PLANNED:
            return
        await asyncio.sleep(self.dice.random() / 2000)  # as if it read the payload
        await self.journal.replace(was, was.to_sending(self.journal.opening, NOW), self._count)

    def _count(self, row: LaunchRecord) -> None:
        self.sent[row.key, row.attempt] += 1

    async def move(self) -> None:
        if self.journal.records:
            await self.journal.update(self.dice.choice([*self.journal.records]), self._next)

    def _next(self, row: LaunchRecord) -> LaunchRecord | None:
        lucky = self.dice.random() < 0.5
        if row.state is State.SENDING:
            uid = f"demo-{self.dice.randrange(30)}"
            return row.to_started(uid, NOW) if lucky else row.to_unknown("lost", NOW)
        if row.state is State.UNKNOWN and lucky:
            self.sent[row.key, row.attempt] -= 1
            return row.to_planned(Proof.ABSENT, NOW)
        if row.state is State.STARTED:
            return row.to_ended(State.FAILED if lucky else State.SUCCEEDED, "{}", NOW)
        if row.state in FAILURES and lucky:
            return row.to_planned(Proof.ENDED, NOW)
        if row.state is State.PLANNED and self.dice.random() < 0.1:
            return row.to_refused("BadRequest", "no", NOW)
        return None

    async def one(self) -> None:
        for _ in range(12):
            try:
                await self.dice.choice([self.add, self.send, self.send, self.move, self.move])()
            except JournalError as error:
                assert "no longer" in str(error) or "belongs to" in str(error)  # noqa: PT017 -- others are not expected


async def some_are_cancelled(tasks: list[asyncio.Task[None]], dice: random.Random) -> None:
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.002)
        dice.choice(tasks).cancel()


@pytest.mark.parametrize("seed", sample(range(12), 4))
async def test_memory_equals_the_disk(tmp_path: Path, seed: int) -> None:
    """No launch is sent twice without proof, none is added twice, and no run has two owners."""
    path = tmp_path / "campaign.db"
    journal = Journal(path, SystemClock())
    await journal.open(SERVER)
    work = Tasks(journal, seed)
    tasks = [asyncio.ensure_future(work.one()) for _ in range(25)]
    with anyio.fail_after(30):
        if seed % 2:
            await some_are_cancelled(tasks, random.Random(seed))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await journal.close()

    again = Journal(path, SystemClock())
    await again.open(SERVER)
    await again.close()
    there = again.records
    expected = {
        key: row.to_unknown(there[key].error or "", NOW) if row.state is State.SENDING else row
        for key, row in journal.records.items()
    }
    assert not [one for one in outcomes if isinstance(one, Exception)]
    assert {key: replace(row, since=NOW) for key, row in there.items()} == {
        key: replace(row, since=NOW) for key, row in expected.items()
    }
    assert again.owners == journal.owners
    assert Counter(row.state for row in journal.records.values()) == +journal.counts
    assert set(work.added.values()) <= {1}
    assert set(work.sent.values()) <= {0, 1}
