"""A batch whose journal dies at each of its commits, just before or just after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Batch, Client
from st4sd_async._batch.batch import Deployment
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.store import Book
from st4sd_async.local import DropAfter, DropBefore, LocalServer, Reply
from st4sd_async.local.http.faults import Fault
from tests.batch.batches import FACTOR, START, connect, launches, numbers, once, worked_off

pytestmark = pytest.mark.anyio

COUNT = 4
FAULTS: list[Fault] = [DropAfter(), DropBefore(), Reply(500, handled=True)]


class Died(Exception):
    """From here on nothing is written."""


class Mortal(Journal):
    """A journal with so many commits to live."""

    def __init__(self, path: Path, commits: float, *, is_last_written: bool) -> None:
        super().__init__(path)
        self.left = commits
        self._is_last_written = is_last_written

    def _write_down(self, group: Any) -> None:
        self.left -= 1
        if self.left > 0 or (self.left == 0 and self._is_last_written):
            super()._write_down(group)
        if self.left <= 0:
            raise Died


class MortalBatch(Batch):
    """A batch over such a journal."""

    def __init__(self, deployment: Deployment, journal: Journal) -> None:
        super().__init__(deployment, None, None)
        self._journal, self._book = journal, Book(journal, deployment.config.clock)


async def _live(client: Client, journal: Mortal) -> bool:
    """Work off the batch until the journal dies; True if it does not."""
    try:
        async with MortalBatch(client.batch()._deployment, journal) as batch:
            await batch.add(launches(COUNT))
            await worked_off(batch)
    except Died:
        return False
    return True


@pytest.mark.timeout(120)
@pytest.mark.parametrize("is_last_written", [True, False], ids=["after", "before"])
async def test_a_death_at_any_commit_starts_nothing_twice(tmp_path: Path, is_last_written: bool) -> None:
    """Commit by commit: whoever goes on with what is on disk brings every launch to exactly one run."""
    commits, survives = 0, False
    while not survives:
        commits += 1
        with LocalServer(speed=FACTOR) as server:
            async with connect(server, settle=12.0) as client:
                await client.push(server.example("demo"))
                for fault in FAULTS:
                    server.faults.add(START, fault)
                path = tmp_path / f"{commits}.db"
                survives = await _live(client, Mortal(path, commits, is_last_written=is_last_written))
                async with client.batch(path) as batch:
                    await batch.add(launches(COUNT))
                    await worked_off(batch)
                    assert batch.counts["succeeded"] == COUNT
                assert await numbers(client) == once(COUNT), f"after {commits} commits"
                await anyio.lowlevel.checkpoint()

    assert commits > 8
