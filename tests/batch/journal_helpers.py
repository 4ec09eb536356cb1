"""Helpers of the tests that use a journal without a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from st4sd_async._batch.journal import Journal
from st4sd_async._batch.state import LaunchRecord

SERVER = "https://st4sd.example/"
NOW = 1_700_000_000.25
"""Wall-clock time at which journals are opened."""


class SettableClock:
    """A monotonic and a wall clock that tests set."""

    def __init__(self, wall: float = NOW) -> None:
        self.time = 100.0
        self.offset = wall - self.time
        """Wall-clock time minus monotonic time."""

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await anyio.lowlevel.checkpoint()

    def wall(self) -> float:
        return self.offset + self.time


async def open_journal(path: Path | None, wall: float = NOW, server: str = SERVER) -> Journal:
    """Open a journal at a wall-clock time."""
    journal = Journal(path, SettableClock(wall))
    await journal.open(server)
    return journal


async def read_journal(path: Path, wall: float = NOW, server: str = SERVER) -> Journal:
    """Open and close a journal. Memory still has what it held."""
    journal = await open_journal(path, wall, server)
    await journal.close()
    return journal


async def change(journal: Journal, *after: LaunchRecord) -> None:
    """Replace the current records of launches by these, at the same time."""
    async with anyio.create_task_group() as tasks:
        for record in after:
            tasks.start_soon(journal.replace, journal.records[record.key], record)


def record(key: str = "mol", **fields: Any) -> LaunchRecord:
    """Return a planned launch."""
    return LaunchRecord(key, "demo:latest", "digest", **{"since": NOW, **fields})
