"""Fixtures: an embedded server whose clock stands still, and an authenticated plain HTTP client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from tests.local.helpers import definition


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """Return a server whose virtual clock is moved only by `advance`."""
    with LocalServer(speed=0, slots=2) as running:
        yield running


@pytest.fixture
def web(server: LocalServer) -> Iterator[httpx.Client]:
    """Return a client of its runtime service."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=f"{server.url}/rs", headers=headers, timeout=30, verify=False) as client:
        yield client


@pytest.fixture
def push(server: LocalServer, web: httpx.Client) -> Any:
    """Return a function that pushes an experiment whose package is not an example."""

    def push_package(name: str = "toy", **options: Any) -> dict[str, Any]:
        reply = web.post("/experiments/", json=definition(name, options))
        assert reply.status_code == 200, reply.text
        result: dict[str, Any] = reply.json()["result"]
        return result

    return push_package
