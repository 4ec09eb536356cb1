"""`Client.shared`: one client for all who ask for the same deployment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from st4sd_async import Client, Config, ConfigError, Unauthorized
from st4sd_async.local import LocalServer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(speed=0) as running:
        yield running


async def test_users_at_the_same_time_get_the_same_client(server: LocalServer) -> None:
    """However the address is written. It is opened for the first and closed after the last."""
    async with Client.shared(server.url, api_key=server.api_key) as first:
        async with Client.shared(f"{server.url}/rs/", api_key=server.api_key) as second:
            assert first is second
        await first.instances.list()
    assert "not open" in repr(first)

    async with Client.shared(server.url, api_key=server.api_key) as third:
        assert third is not first


async def test_it_is_opened_once_for_all(server: LocalServer) -> None:
    """Users that come while it is being opened wait for that."""
    before = server.traffic["GET /url-map/"].requests

    async def use() -> None:
        async with Client.shared(server.url, api_key=server.api_key) as client:
            clients.append(client)
            if len(clients) == 50:
                everyone.set()
            await done.wait()

    clients: list[Client] = []
    everyone, done = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(use)
        await everyone.wait()
        done.set()

    assert len(set(map(id, clients))) == 1
    assert server.traffic["GET /url-map/"].requests == before + 1


async def test_another_credential_is_another_client(server: LocalServer, tmp_path: Path) -> None:
    """A path is the credential that it names, not the key in it."""
    file = tmp_path / "key"
    file.write_text(server.api_key)

    async with (
        Client.shared(server.url, api_key=server.api_key) as one,
        Client.shared(server.url, api_key=file) as two,
        Client.shared(server.url, api_key=Path(file)) as three,
        Client.shared(server.url, api_key=lambda: server.api_key) as four,
    ):
        assert two is three
        assert len({id(one), id(two), id(four)}) == 3


async def test_a_provider_needs_no_hash(server: LocalServer) -> None:
    """Such as a dataclass. The same object is the same credential."""

    @dataclass
    class Vault:
        key: str

        def __call__(self) -> str:
            return self.key

    vault = Vault(server.api_key)
    async with (
        Client.shared(server.url, api_key=vault) as one,
        Client.shared(server.url, api_key=vault) as other,
        Client.shared(server.url, api_key=Vault(server.api_key)) as another,
    ):
        assert one is other
        assert one is not another


async def test_another_config_is_an_error(server: LocalServer) -> None:
    """Those who use it already are not disturbed. An equal one is the same."""
    async with Client.shared(server.url, api_key=server.api_key, config=Config(timeout=7)) as client:
        with pytest.raises(ConfigError, match="shared with another config"):
            async with Client.shared(server.url, api_key=server.api_key):
                pass
        async with Client.shared(server.url, api_key=server.api_key, config=Config(timeout=7)) as same:
            assert same is client
        await client.instances.list()


async def test_a_failure_to_open_leaves_nothing_behind(server: LocalServer) -> None:
    """The next user tries again."""
    with pytest.raises(Unauthorized):
        async with Client.shared(server.url, api_key="wrong-key"):
            pass
    with pytest.raises(Unauthorized):
        async with Client.shared(server.url, api_key="wrong-key", config=Config(timeout=3)):
            pass


async def test_a_cancelled_user_does_not_close_it(server: LocalServer) -> None:
    """The others go on."""
    async with Client.shared(server.url, api_key=server.api_key) as client:
        with anyio.move_on_after(0.01):
            async with Client.shared(server.url, api_key=server.api_key):
                await anyio.sleep_forever()

        await client.instances.list()


def test_each_event_loop_has_its_own(server: LocalServer) -> None:
    """A client cannot be used in another one."""

    async def use() -> Client:
        async with Client.shared(server.url, api_key=server.api_key) as client:
            await client.instances.list()
            return client

    assert anyio.run(use) is not anyio.run(use)


@pytest.mark.slow
async def test_many_waits_cost_one_list_a_tick(server: LocalServer) -> None:
    """Each through a context manager of its own, as the triggers of an orchestrator do."""
    config = Config(poll_interval=0.05)
    async with Client.shared(server.url, api_key=server.api_key, config=config) as client:
        await client.push(server.example("demo"))
        files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
        runs = [await client.start("demo", {"inputs": files}) for _ in range(20)]

    async def wait(rest_uid: str) -> None:
        async with Client.shared(server.url, api_key=server.api_key, config=config) as client:
            await client.wait(rest_uid)

    before = server.traffic["GET /instances/"].requests, server.traffic["GET /instances/*/status"].requests
    async with anyio.create_task_group() as tasks:
        for run in runs:
            tasks.start_soon(wait, run.id)
        while server.traffic["GET /instances/"].requests < before[0] + 5:  # noqa: ASYNC110 -- the server has no event
            await anyio.sleep(0.02)
        singles = server.traffic["GET /instances/*/status"].requests - before[1]
        tasks.cancel_scope.cancel()

    assert singles <= 20  # as in one client with twenty runs
