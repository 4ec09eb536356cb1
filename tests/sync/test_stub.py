"""The type stub of the blocking client is generated, and is the one in the package."""

from __future__ import annotations

import pytest

from .stub import STUB, stub

pytestmark = pytest.mark.slow


def test_the_stub_is_up_to_date() -> None:
    """If this fails, run: python -m tests.sync.stub."""
    assert STUB.read_text("utf-8") == stub()
