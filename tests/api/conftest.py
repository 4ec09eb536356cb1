"""Fixtures of the tests of endpoints: a server whose clock stands still, and a clock that moves it."""

from __future__ import annotations

import pytest

from st4sd_async.local import LocalServer
from tests.conftest import ServersClock


@pytest.fixture
def server(still_server: LocalServer) -> LocalServer:
    """A server whose clock stands still until it is moved."""
    return still_server


@pytest.fixture
def clock(servers_clock: ServersClock) -> ServersClock:
    """A clock of both sides."""
    return servers_clock
