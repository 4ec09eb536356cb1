"""Fixtures of the tests of watching: time passes at once, and pauses are the same in each run of the tests."""

from __future__ import annotations

import random
from typing import Any

import pytest

from st4sd_async import Status
from tests.watch.scripted_service import INSTANT

Status.model_rebuild()  # in a thread when a client opens, which these tests do without; it would block the event loop


@pytest.fixture
def anyio_backend() -> Any:
    return INSTANT


@pytest.fixture(autouse=True)
def same_pauses() -> None:
    """Seed the random numbers that the pauses depend on."""
    random.seed(4)
