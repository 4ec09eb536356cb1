"""What the tests of killed processes ask the server without the client."""

from __future__ import annotations

from typing import Any

import httpx

from st4sd_async.local import LocalServer


def push(server: LocalServer) -> None:
    """Push the example ``demo``."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    definition = server.example("demo")
    httpx.post(f"{server.url}/rs/experiments/", json=definition, headers=headers, trust_env=False).raise_for_status()


def instances(server: LocalServer) -> list[dict[str, Any]]:
    """The list of instances."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/rs/instances/", headers=headers, trust_env=False).json()
    return found
