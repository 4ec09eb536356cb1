"""
pytest fixtures for testing applications that use `st4sd_async`; no cluster is needed.

Examples are in ``docs/testing.md``.

Once the package is installed, pytest imports this module in every run. The rest of the package is imported only when a
fixture is used. To turn the plugin off: ``-p no:st4sd_async``.
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
    is_of_anyio = "anyio_backend" in request.fixturenames
    is_of_asyncio = _has_pytest_asyncio(request.config) and (
        # In the mode "auto", pytest-asyncio marks and runs the tests of anyio too.
        not is_of_anyio or request.node.get_closest_marker("asyncio") is not None
    )
    if not (is_of_anyio or is_of_asyncio):
        pytest.fail(NO_EVENT_LOOP, pytrace=False)
    runner = "anyio" if not is_of_asyncio else "asyncio_beside_anyio" if is_of_anyio else "asyncio"
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
        async with _client_of(st4sd_server) as client:
            yield client

    return client_of


def _client_beside_anyio(st4sd_server: LocalServer) -> Iterator[Client]:
    """Open a client in the event loop of pytest-asyncio. In an async function, anyio would open it in its own loop."""
    import asyncio

    loop, client = asyncio.get_event_loop(), _client_of(st4sd_server)
    loop.run_until_complete(client.open())
    yield client
    loop.run_until_complete(client.close())


def _client_of(server: LocalServer) -> Client:
    from st4sd_async import Client, Config

    return Client(server.url, api_key=server.api_key, config=Config(poll_interval=POLL_INTERVAL))


_st4sd_client_of_anyio = pytest.fixture(_make_fixture(), name="_st4sd_client_of_anyio")


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixtures for pytest-asyncio, which has its own decorator, if that plugin is in use."""
    if _has_pytest_asyncio(config):
        from pytest_asyncio import fixture

        module = ModuleType("_st4sd_async_pytest_asyncio")
        vars(module)["client"] = fixture(_make_fixture(), name="_st4sd_client_of_asyncio")
        vars(module)["other"] = fixture(_client_beside_anyio, name="_st4sd_client_of_asyncio_beside_anyio")
        config.pluginmanager.register(module, module.__name__)


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    """Return whether pytest-asyncio is in use, found by pytest itself or named on the command line."""
    return any(map(config.pluginmanager.hasplugin, ("asyncio", "pytest_asyncio.plugin")))
