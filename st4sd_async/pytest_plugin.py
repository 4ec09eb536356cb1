"""
pytest fixtures for testing applications that use `st4sd_async`; no cluster is needed.

Examples are in ``docs/testing.md``.

Once the package is installed, pytest imports it in every run. The extras are imported only when a fixture is used. To
turn the plugin off: ``-p no:st4sd_async``.
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

POLL_INTERVAL = 0.02
"""Seconds between two polls of a run."""
NO_EVENT_LOOP = "this test has no event loop: mark it with pytest.mark.anyio, or use st4sd_sync_client"


@pytest.fixture
def st4sd_server() -> Iterator[LocalServer]:
    """Return a `LocalServer` for one test. Its runs are simulated; its method `advance` lets them end."""
    try:
        from st4sd_async.local import LocalServer

        server = LocalServer()
    except ImportError as error:  # fail: if the test were skipped, it would go unnoticed
        pytest.fail(str(error), pytrace=False)
    with server:
        yield server


@pytest.fixture
def st4sd_client(request: pytest.FixtureRequest) -> Client:
    """Return an open `Client` of the server, in the event loop of anyio's plugin (asyncio) or of pytest-asyncio."""
    runner = "anyio" if "anyio_backend" in request.fixturenames else "asyncio"
    if runner == "asyncio" and not _has_pytest_asyncio(request.config):
        pytest.fail(NO_EVENT_LOOP, pytrace=False)
    client: Client = request.getfixturevalue(f"_st4sd_client_of_{runner}")
    return client


@pytest.fixture
def st4sd_sync_client(st4sd_server: LocalServer) -> Iterator[BlockingClient]:
    """Return an open blocking `Client` of the server."""
    from st4sd_async import Config
    from st4sd_async.sync import Client

    config = Config(poll_interval=POLL_INTERVAL)
    with Client(st4sd_server.url, api_key=st4sd_server.api_key, config=config) as client:
        yield client


def _make_fixture() -> Callable[..., AsyncIterator[Client]]:
    """Return a new function for an asynchronous fixture; each plugin marks its own."""

    async def client_of(st4sd_server: LocalServer) -> AsyncIterator[Client]:
        from st4sd_async import Client, Config

        config = Config(poll_interval=POLL_INTERVAL)
        async with Client(st4sd_server.url, api_key=st4sd_server.api_key, config=config) as client:
            yield client

    return client_of


_st4sd_client_of_anyio = pytest.fixture(_make_fixture(), name="_st4sd_client_of_anyio")


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixture for pytest-asyncio, which has its own decorator, if that plugin is in use."""
    if _has_pytest_asyncio(config):
        import pytest_asyncio

        module = ModuleType("_st4sd_async_pytest_asyncio")
        vars(module)["client"] = pytest_asyncio.fixture(_make_fixture(), name="_st4sd_client_of_asyncio")
        config.pluginmanager.register(module, module.__name__)


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    """Return whether pytest-asyncio is in use, found by pytest itself or named on the command line."""
    return any(map(config.pluginmanager.hasplugin, ("asyncio", "pytest_asyncio.plugin")))
