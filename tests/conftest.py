"""What all tests share: a clean environment, one event loop, a clock of their own, a guard against blocking it."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache
from types import FrameType
from typing import Any

import anyio
import pandas  # noqa: F401 -- imported here, because an import under the guard counts as blocking
import pydantic
import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

import st4sd_async
from st4sd_async import Client, Config, RetryPolicy
from st4sd_async.local import LocalServer
from tests.tries import tries

# Neither the machine's speed nor chance decides: `--hypothesis-profile=default` looks for examples of its own.
settings.register_profile(
    "steady",
    max_examples=tries(100, 30),
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")

pydantic.TypeAdapter(int)  # the first one looks for plugins in all installed distributions, which blocks

# A third of the time to collect the tests went into garbage collections, which found nothing.
gc.disable()

# Without compiled files, each worker and each process that a test starts would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = "/dev/shm"
"""A file system in memory, where files are created ten times as fast as on some disks."""


def _use_memory_for_temporary_files() -> None:
    """Unless the user has chosen a folder, or the memory has too little space or executes no programs."""
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK):
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize > 4 << 30 and not found.f_flag & os.ST_NOEXEC:
            os.environ["TMPDIR"] = tempfile.tempdir = MEMORY  # for the processes that tests start too


_use_memory_for_temporary_files()

LIBRARY = st4sd_async.__path__[0]

TOGETHER = "tests/local/incumbent/"
"""The folder of the tests that share real runs, see the fixture `finished`."""


class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Send the tests of a file to one worker, as `loadfile` does, and those of `TOGETHER` too."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    config.option.loadscopereorder = False  # the order of `pytest_collection_modifyitems`
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that at the end no worker waits for another."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for item in items:
        for marker in item.iter_markers("slow"):
            seconds[_scope(item.nodeid)] += marker.kwargs.get("seconds", 0)
    items.sort(key=lambda item: -seconds[_scope(item.nodeid)])


def _scope(nodeid: str) -> str:
    """Return the file of a test, or the folder of tests that share real runs."""
    return TOGETHER if nodeid.startswith(TOGETHER) else nodeid.split("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()  # what was imported stays, and is not looked through again
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Collect what is left, for warnings about it. pytest does it again five times, for up to 10 s."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(NamesFailures(config.pluginmanager.get_plugin("terminalreporter")))


class NamesFailures:
    """Names each failed test at once, because the whole run takes minutes and the reports come at its end."""

    def __init__(self, terminal: pytest.TerminalReporter | None) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self._terminal is not None:
            self._terminal.write_line(f"\nfailed: {report.nodeid} ({report.when}, {report.duration:.1f} s)")


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


class ServersClock(FakeClock):
    """A clock that moves the server's clock too."""

    server: LocalServer

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.server.advance(seconds)


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


@pytest.fixture(scope="session")
def guard() -> BlockBuster:
    """Return the guard of `nothing_blocks`; creating one for each test would take longer than most tests."""
    guard = BlockBuster("st4sd_async", excluded_modules=["st4sd_async.local"])
    acquire, lock = guard.functions["threading.Lock.acquire"], _lock_of_coverage()
    may_block = acquire.can_block_predicate
    acquire.can_block_predicate = lambda one, *args, **options: one is lock or may_block(one, *args, **options)
    for function in guard.functions.values():
        function.can_block_predicate = _if_called_by_the_library(function.can_block_predicate)
    return guard


@pytest.fixture(autouse=True)
def nothing_blocks(request: pytest.FixtureRequest) -> Iterator[BlockBuster | None]:
    """Fail when the library blocks the event loop; servers and their threads are not looked at."""
    if "anyio_backend" not in request.fixturenames:
        yield None
        return
    guard: BlockBuster = request.getfixturevalue("guard")
    guard.activate()
    try:
        yield guard
    finally:
        guard.deactivate()


def _if_called_by_the_library(may_block: Callable[..., bool]) -> Callable[..., bool]:
    """Allow what the library does not call: the guard compares file names of the whole stack, which takes 0.1 ms."""

    def may_block_there(*args: Any, **options: Any) -> bool:
        frame: FrameType | None = sys._getframe()
        while frame is not None and not _is_of_the_library(frame.f_code.co_filename):
            frame = frame.f_back
        return frame is None or may_block(*args, **options)

    return may_block_there


@cache
def _is_of_the_library(filename: str) -> bool:
    return filename.startswith(LIBRARY) and not filename.startswith(f"{LIBRARY}/local")


def _lock_of_coverage() -> Any:
    """Return the lock that coverage's tracer takes in the middle of anything, where an error would break anything."""
    coverage = sys.modules.get("coverage")
    current = coverage and coverage.Coverage.current()
    return getattr(getattr(current, "_collector", None), "data_lock", None)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[Client]:
    async with Client(server.url, api_key=server.api_key, config=Config(poll_interval=0.02)) as opened:
        yield opened


@pytest.fixture
def still_server() -> Iterator[LocalServer]:
    """A server whose clock stands still until it is moved."""
    with LocalServer(speed=0, slots=64) as running:
        yield running


@pytest.fixture
def servers_clock(still_server: LocalServer) -> ServersClock:
    """A clock of both sides."""
    clock = ServersClock()
    clock.server = still_server
    return clock


@pytest.fixture
async def demo_client(still_server: LocalServer, servers_clock: ServersClock) -> AsyncIterator[Client]:
    """A client whose waits take no time, connected to `still_server` with its demo."""
    config = Config(clock=servers_clock, retry=RetryPolicy(attempts=2))
    async with Client(still_server.url, api_key=still_server.api_key, config=config) as opened:
        await opened.push(still_server.example("demo"))
        yield opened


@pytest.fixture
def deadline() -> float:
    """A moment, on the monotonic clock, after which a test has hung that may take a minute."""
    return time.monotonic() + 50
