"""What all tests share: a clean environment, one event loop, a clock of their own, a guard against blocking it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import anyio
import pandas  # noqa: F401 -- imported here, because an import under the guard counts as blocking
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

from st4sd_async import Client, Config
from st4sd_async.local import LocalServer

# Neither the machine's speed nor chance decides: `--hypothesis-profile=default` looks for examples of its own.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


class FakeClock:
    """A clock whose time passes only in `sleep`, at once."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        """What happens during the next pause."""

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        meanwhile, self.meanwhile = self.meanwhile, None
        await (meanwhile() if meanwhile else anyio.lowlevel.checkpoint())

    def wall(self) -> float:
        return self.time


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ST4SD_") or name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """By the processes that tests start too: what runs in the background of a script begins with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def nothing_blocks(request: pytest.FixtureRequest) -> Iterator[BlockBuster | None]:
    """Fail when the library blocks the event loop; servers and their threads are not looked at."""
    if "anyio_backend" not in request.fixturenames:
        yield None
        return
    with blockbuster_ctx("st4sd_async", excluded_modules=["st4sd_async.local"]) as guard:
        # Where threads are traced, coverage has a lock of its own, which it takes in the middle of anything.
        guard.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield guard


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[Client]:
    async with Client(server.url, api_key=server.api_key, config=Config(poll_interval=0.02)) as opened:
        yield opened


@pytest.fixture
def deadline() -> float:
    """A moment, on the monotonic clock, after which a test has hung that may take a minute."""
    return time.monotonic() + 50
