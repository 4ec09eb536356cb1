"""Fixtures of the tests of integrations."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_shared_client_is_left() -> Iterator[None]:
    """Close the clients that chunks of runs share in this process; nothing else closes them before its end."""
    yield
    chunks = sys.modules.get("st4sd_async.integrations.chunks")
    clients = {} if chunks is None else chunks._clients
    for client in clients.values():
        client.close()
    clients.clear()
