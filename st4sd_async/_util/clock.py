"""The source of time, which tests replace."""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """The source of time for all pauses and deadlines of the library."""

    def now(self) -> float:
        """Return seconds that never run backwards; only differences have a meaning."""

    async def sleep(self, seconds: float, /) -> None:
        """Return after that many seconds of this clock."""

    def wall(self) -> float:
        """Return seconds since 1970 in UTC; they continue while no process runs, and may jump."""


class SystemClock:
    """The clock of this machine: `time.monotonic`, `anyio.sleep` and `time.time`."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(anyio.sleep)
    wall = staticmethod(time.time)

    def __repr__(self) -> str:
        return "SystemClock()"
