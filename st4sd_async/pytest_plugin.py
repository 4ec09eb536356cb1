"""
Fixtures for the tests of applications that use `st4sd_async`, which need no cluster.

Examples are in ``docs/testing.md``.

pytest imports this module, and with it the package, in every run on a machine where the package is installed, but none
of its extras before a fixture is used. Where that is too much: ``-p no:st4sd_async``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from st4sd_async import Client
    from st4sd_async.local import LocalServer
    from st4sd_async.sync import Client as BlockingClient

POLL = 0.02
"""Seconds between two looks at a run."""
NO_LOOP = "nothing runs an event loop for this test: mark it with pytest.mark.anyio, or use st4sd_sync_client"


@pytest.fixture
def st4sd_server() -> Iterator[LocalServer]:
    """An ST4SD on this machine, for one test: a `LocalServer` whose runs are simulated; its `advance` ends them."""
    try:
        from st4sd_async.local import LocalServer

        server = LocalServer()
    except ImportError as error:  # a test that is skipped for that would never be missed
        pytest.fail(str(error), pytrace=False)
    with server:
        yield server


@pytest.fixture
def st4sd_client(request: pytest.FixtureRequest) -> Client:
    """An open `Client` of the server, in the loop that anyio's plugin (asyncio) or pytest-asyncio runs."""
    runner = "anyio" if "anyio_backend" in request.fixturenames else "asyncio"
    if runner == "asyncio" and not _has_pytest_asyncio(request.config):
        pytest.fail(NO_LOOP, pytrace=False)
    client: Client = request.getfixturevalue(f"_st4sd_client_of_{runner}")
    return client


@pytest.fixture
def st4sd_sync_client(st4sd_server: LocalServer) -> Iterator[BlockingClient]:
    """An open blocking `Client` of the server."""
    from st4sd_async import Config
    from st4sd_async.sync import Client

    with Client(st4sd_server.url, api_key=st4sd_server.api_key, config=Config(poll_interval=POLL)) as client:
        yield client


def _opening() -> Callable[..., AsyncIterator[Client]]:
    """The function of an asynchronous fixture, a new one each time, because plugins mark theirs."""

    async def opened(st4sd_server: LocalServer) -> AsyncIterator[Client]:
        from st4sd_async import Client, Config

        async with Client(st4sd_server.url, api_key=st4sd_server.api_key, config=Config(poll_interval=POLL)) as client:
            yield client

    return opened


_st4sd_client_of_anyio = pytest.fixture(_opening(), name="_st4sd_client_of_anyio")


def pytest_configure(config: pytest.Config) -> None:
    """Have the fixture of pytest-asyncio, which wants its own decorator, if it is in use."""
    if _has_pytest_asyncio(config):
        import pytest_asyncio

        more = ModuleType("_st4sd_async_pytest_asyncio")
        vars(more)["opened"] = pytest_asyncio.fixture(_opening(), name="_st4sd_client_of_asyncio")
        config.pluginmanager.register(more, more.__name__)


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    """Whether it is in use, found by pytest itself or named on the command line."""
    return any(map(config.pluginmanager.hasplugin, ("asyncio", "pytest_asyncio.plugin")))
