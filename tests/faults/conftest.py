"""What the tests of faults are given."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything is logged: all loggers at DEBUG."""
    caplog.set_level(logging.DEBUG)
    for name in ("st4sd_async", "httpx", "httpcore", "aiohttp.client", "aiohttp.internal", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog
