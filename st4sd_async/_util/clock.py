"""Where time comes from, so that tests can own it."""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """A source of time; the library asks nothing else for it."""

    def now(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds of this clock."""

    def wall(self) -> float:
        """Seconds since 1970 in UTC, which go on while no process runs; they may jump."""


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep in the event loop; cancellation passes."""
        await anyio.sleep(seconds)

    def wall(self) -> float:
        """Seconds of `time.time`."""
        return time.time()

    def __repr__(self) -> str:
        return "SystemClock()"
