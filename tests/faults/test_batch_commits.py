"""A batch whose journal stops at each of its commits, just before or just after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Batch, Launch
from st4sd_async._batch.journal import Journal
from st4sd_async._util.clock import Clock
from st4sd_async.local import DropAfter, DropBefore, LocalServer, Reply
from st4sd_async.local.http.faults import Fault
from tests.batch.batches import FACTOR, START, connect, launch, run_all, started_numbers
from tests.tries import tries

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COUNT = 4
FAULTS: list[Fault] = [DropAfter(), DropBefore(), Reply(500, handled=True)]


class Crashed(Exception):
    """From here on nothing is written."""


class CrashingJournal(Journal):
    """A journal that crashes after a number of commits."""

    def __init__(self, path: Path, clock: Clock, commits: float, *, is_last_written: bool) -> None:
        super().__init__(path, clock)
        self.commits_left = commits
        self._is_last_written = is_last_written

    def _commit_in_thread(self, transaction: Any) -> None:
        self.commits_left -= 1
        if self.commits_left > 0 or (self.commits_left == 0 and self._is_last_written):
            super()._commit_in_thread(transaction)
        if self.commits_left <= 0:
            raise Crashed


async def _run_until_crash(batch: Batch, wanted: list[Launch], journal: CrashingJournal) -> bool:
    """Run a batch until its journal crashes. Returns True if it does not."""
    batch._journal = journal
    try:
        async with batch:
            await batch.add(wanted)
            await run_all(batch)
    except Crashed:
        return False
    return True


@pytest.mark.timeout(120)
@pytest.mark.parametrize("is_last_written", [True, False], ids=["after", "before"])
async def test_a_crash_at_any_commit_starts_nothing_twice(tmp_path: Path, is_last_written: bool) -> None:
    """
    Commit by commit: a batch that resumes from the disk brings every launch to exactly one run.

    In a sample, it crashes after each third commit, and before the one that follows it.
    """
    step = tries(1, 3)
    commits = 1 if is_last_written else tries(1, 2)
    with LocalServer(speed=FACTOR) as server:
        async with connect(server, settle=12.0, poll_interval=2.0) as client:
            await client.push(server.example("demo"))
            while True:
                wanted = [launch(100 * commits + number) for number in range(COUNT)]
                for fault in FAULTS:
                    server.faults.add(START, fault)
                path = tmp_path / f"{commits}.db"
                journal = CrashingJournal(path, client._config.clock, commits, is_last_written=is_last_written)
                survives = await _run_until_crash(client.batch(), wanted, journal)
                async with client.batch(path) as batch:
                    await batch.add(wanted)
                    await run_all(batch)
                    assert batch.counts["succeeded"] == COUNT
                started = await started_numbers(client)
                own = {number: count for number, count in started.items() if int(number) // 100 == commits}
                assert own == {f"{100 * commits + number}": 1 for number in range(COUNT)}, f"after {commits} commits"
                await anyio.lowlevel.checkpoint()
                if survives:
                    break
                commits += step

    assert commits > 8
