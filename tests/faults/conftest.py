"""What the tests of faults are given."""

from __future__ import annotations

import asyncio
import logging
import selectors
import time
from typing import Any

import pytest

STALL = 0.05
"""Seconds that the event loop was stopped for at most, as it sees it."""


class _Patient(selectors.DefaultSelector):
    """Counts the seconds that the event loop waits in vain, and a little of those that it is busy or stopped."""

    def __init__(self) -> None:
        super().__init__()
        self._counted = self._last = time.monotonic()

    def now(self) -> float:
        return self._counted + min(time.monotonic() - self._last, STALL)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began = self.now()
        self._last = time.monotonic()
        ready = super().select(timeout)
        most = STALL if ready or not timeout else timeout
        self._counted, self._last = began + min(time.monotonic() - self._last, most), time.monotonic()
        return ready


class PatientLoop(asyncio.SelectorEventLoop):
    """
    An event loop for which no time passes while the machine has none for it.

    A client and a server that both live in it have the same time: an answer that is under way is never late.
    """

    def __init__(self) -> None:
        self._patient = _Patient()
        super().__init__(self._patient)

    def time(self) -> float:
        return self._patient.now()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": PatientLoop}


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything is logged: all loggers at DEBUG."""
    caplog.set_level(logging.DEBUG)
    for name in ("st4sd_async", "httpx", "httpcore", "aiohttp.client", "aiohttp.internal", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog
