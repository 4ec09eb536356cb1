"""Processes with a user's script, and what their tests ask the server without the client."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx

import st4sd_async
from st4sd_async.local import LocalServer


def spawn(script: str, *words: str, errors: Path | None = None) -> subprocess.Popen[str]:
    """
    Start a script that prints ``ready`` when it may be killed, and wait for that.

    Args:
        script: Path of the script.
        words: Its arguments.
        errors: File to which its stderr is appended; None means a pipe.
    """
    root = str(Path(st4sd_async.__file__).parents[1])
    with nullcontext(subprocess.PIPE) if errors is None else errors.open("a") as stderr:
        child = subprocess.Popen(
            [sys.executable, script, *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n", child.communicate()[1] if errors is None else errors.read_text()
    return child


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
