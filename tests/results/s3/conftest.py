"""A real S3 service, shared by all tests of a session, and buckets of one's own in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import obstore  # noqa: F401 -- imported here, because an import under the guard counts as blocking
import pytest

from st4sd_async import Client, Config, RetryPolicy
from st4sd_async.local import LocalServer
from tests.results.s3.storage import KEY_ID, Storage

ROOT = Path(__file__).parents[3]
END = 5.0
"""Seconds that the service may take to end."""


@contextmanager
def serving() -> Iterator[str]:
    """The address of a service that ends with the block."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.results.s3.service"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        port = next(line.split()[1] for line in child.stdout if line.startswith("port "))
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stdin.close()
        try:
            child.wait(END)
        except subprocess.TimeoutExpired:  # pragma: no cover -- a busy machine
            child.kill()
            child.wait(END)
        child.stdout.close()


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of the service; it takes about a second to start."""
    with serving() as url:
        yield url


@pytest.fixture
def storage(s3_url: str) -> Iterator[Storage]:
    """A new bucket."""
    # To strangers the service shows nothing of what others made; who it is it does not check.
    somebody = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1/s3/aws4_request, SignedHeaders=, Signature="
    with httpx.Client(base_url=s3_url, timeout=30, headers={"Authorization": somebody}) as web:
        storage = Storage(s3_url, f"bucket-{uuid4().hex}", web)
        web.put(f"/{storage.name}").raise_for_status()
        yield storage


@pytest.fixture
async def client(server: LocalServer, pushed: set[str]) -> AsyncIterator[Client]:
    """A client that repeats nothing more than once, and the demo to start."""
    config = Config(retry=RetryPolicy(attempts=2, first_wait=0.01), poll_interval=0.02)
    async with Client(server.url, api_key=server.api_key, config=config) as opened:
        if "demo" not in pushed:
            await opened.push(server.example("demo"))
            pushed.add("demo")
        yield opened
