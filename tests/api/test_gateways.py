"""Gateways through sockets: how they are found, what they are asked, and over how many streams."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Config, ConfigError, Download, DownloadFailed, NotFound, ServerError, Unauthorized
from st4sd_async.local import Delay, Html, LocalServer, Reply
from tests.conftest import ServersClock
from tests.faults.raw import Exchange, RawServer, after, reply
from tests.results.demo_runs import DEMO, GATEWAY, JSON, REGISTRY, finished, upsert, uri, whole

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def client(demo_client: Client) -> Client:
    """A client whose waits take no time."""
    return demo_client


async def test_gateways_are_resolved_in_one_request(client: Client, server: LocalServer, clock: ServersClock) -> None:
    """One request for any number of tasks and gateways, cached for ten minutes."""
    hosts = {name: {"unique_id": name, "host": f"http://127.0.0.1:1/{name}"} for name in "abc"}
    server.faults.add(REGISTRY, Reply(200, JSON, json.dumps(hosts).encode()), times=None)
    found: list[dict[str, str]] = []

    async def resolve(*ids: str) -> None:
        found.append(await client.gateways.resolve(ids))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(resolve, "c", "a")
    assert server.traffic[REGISTRY].requests == 1
    assert [list(one.items()) for one in found] == [
        [("c", "http://127.0.0.1:1/c/"), ("a", "http://127.0.0.1:1/a/")]
    ] * 20

    await resolve("b", "a")  # the registry told of b too, although nobody asked
    clock.time += 600
    await resolve("a")
    assert server.traffic[REGISTRY].requests == 1
    clock.time += 1
    await resolve("a", "b")
    await resolve("a")
    await client.with_options(timeout=9).gateways.resolve(("a", "b"))
    assert server.traffic[REGISTRY].requests == 2


async def test_one_request_is_in_flight_while_others_wait(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Many runs' files are read at once; all of them wait for the same answer."""
    run = await finished(client, server)
    server.faults.add(REGISTRY, Delay(0.03))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(run.read_file, DEMO[number % 8])

    assert server.traffic[REGISTRY].requests == 1


async def test_an_unknown_gateway_is_named(client: Client, server: LocalServer) -> None:
    """Known ones beside it are cached; it may be registered at any time, so it is requested again."""
    for _ in range(2):
        with pytest.raises(NotFound, match=r"\['ghost'\]"):
            await client.gateways.resolve([GATEWAY, "ghost"])
    assert server.traffic[REGISTRY].requests == 2

    assert await client.gateways.resolve(GATEWAY) == {GATEWAY: f"{server.url}/ds-gateway/"}
    assert await client.gateways.resolve([]) == {}
    assert server.traffic[REGISTRY].requests == 2


async def test_tasks_that_want_an_unknown_gateway_share_the_answer(client: Client, server: LocalServer) -> None:
    """One request serves all who waited for it, whatever it says."""
    errors: list[Exception] = []

    async def resolve() -> None:
        try:
            await client.gateways.resolve(["ghost"])
        except NotFound as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(resolve)

    assert len(errors) == 10
    assert server.traffic[REGISTRY].requests == 1


async def test_a_registry_that_fails_is_an_error_of_the_call(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A 500 is not retried, a 503 is; a later call finds the gateway."""
    run = await finished(client, server)
    server.faults.add(REGISTRY, Reply(500, JSON, b'{"message": "Internal Server Error"}'))

    with pytest.raises(ServerError):
        await run.read_file("input/molecules.csv")
    assert server.traffic[REGISTRY].requests == 1

    server.faults.add(REGISTRY, Html(503))
    assert await run.read_file("input/molecules.csv")
    assert server.traffic[REGISTRY].requests == 3


async def test_the_registry_and_a_gateway_are_healthy_or_not(client: Client, server: LocalServer) -> None:
    """Each is requested separately; a refused login says nothing about it."""
    for hello, asked in [("GET /ds-registry/hello", None), ("GET /ds-gateway/hello", GATEWAY)]:
        assert await client.gateways.is_healthy(asked)
        for fault in (Reply(500, JSON, b"{}"), Html(200)):
            server.faults.add(hello, fault)
            assert not await client.gateways.is_healthy(asked)
    with pytest.raises(NotFound, match=r"\['ghost'\]"):
        await client.gateways.is_healthy("ghost")
    server.renew()
    with pytest.raises(Unauthorized):
        await client.gateways.is_healthy(GATEWAY)


async def test_a_deployment_without_gateways(server: LocalServer, tmp_path: Path) -> None:
    """Each method says so."""
    server.faults.add("GET /url-map", Reply(200, JSON, json.dumps({"cdb-rest": server.url}).encode()))
    where = f"file://{GATEWAY}/x"
    async with Client(server.url, api_key=server.api_key) as client:
        for asking in (
            client.gateways.is_healthy(),
            client.gateways.resolve([GATEWAY]),
            client.gateways.has_component(where, 0, "A"),
            client.read_file(where, "x"),
        ):
            with pytest.raises(NotFound, match="this deployment has no gateways"):
                await asking


async def test_whether_a_component_has_a_directory(client: Client, server: LocalServer) -> None:
    """The name is exact; an unknown run has no components."""
    run = await finished(client, server)
    has = client.gateways.has_component

    assert await has(uri(server, run), 0, "Compute")
    assert not await has(uri(server, run), 1, "Compute")
    assert not await has(uri(server, run), 0, "Comp")
    assert not await has(f"file://{GATEWAY}/ghost", 0, "Compute")
    with pytest.raises(NotFound, match="elsewhere"):
        await has("file://elsewhere/ghost", 0, "Compute")
    with pytest.raises(ValueError, match="the uri of an instance"):
        await has(run.id, 0, "Compute")


def archive_of(exchange: Exchange) -> bytes:
    """What a gateway answers that has all files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for paths in json.loads(exchange.seen.body).values():
            for path in paths:
                archive.writestr(zipfile.ZipInfo(path), b"content")
    return buffer.getvalue()


async def send_all(exchange: Exchange) -> None:
    """Answer with all files that were asked for."""
    await reply(200, archive_of(exchange), media="application/zip")(exchange)


async def test_streams_are_bounded_and_delay_nothing_else(server: LocalServer, clock: ServersClock) -> None:
    """At most `Config.downloads` at once reach a gateway, of all tasks and clients together; requests pass them by."""
    release = anyio.Event()
    config = Config(clock=clock, downloads=3, concurrency=1)
    async with (
        RawServer([after(release, send_all)]) as gateway,  # type: ignore[arg-type] # an event is an event
        Client(server.url, api_key=server.api_key, config=config) as client,
    ):
        entry = {"elsewhere": {"unique_id": "elsewhere", "host": gateway.url}}
        server.faults.add(REGISTRY, Reply(200, JSON, json.dumps(entry).encode()), times=None)
        other = client.with_options(timeout=30)
        contents: list[bytes] = []

        async def read(reader: Client, number: int) -> None:
            contents.append(await reader.read_file("file://elsewhere/x", f"f{number}"))

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(read, (client, other)[number % 2], number)
            await gateway.until(lambda: gateway.in_flight == 3)
            with anyio.fail_after(15):
                assert await client.instances.list() == []
            release.set()

    assert contents == [b"content"] * 10
    assert gateway.most_in_flight == 3


@pytest.mark.parametrize("downloads", [1, 2, 5])
async def test_files_of_one_call_come_over_as_many_streams(
    server: LocalServer, clock: ServersClock, tmp_path: Path, downloads: int
) -> None:
    """All of them are used, and no others."""
    release = anyio.Event()
    config = Config(clock=clock, downloads=downloads)
    async with (
        RawServer([after(release, send_all)]) as gateway,  # type: ignore[arg-type] # an event is an event
        Client(server.url, api_key=server.api_key, config=config) as client,
    ):
        entry = {"elsewhere": {"unique_id": "elsewhere", "host": gateway.url}}
        server.faults.add(REGISTRY, Reply(200, JSON, json.dumps(entry).encode()))
        document: dict[str, Any] = {
            "instance": "file://elsewhere/x",
            "type": "component",
            "uid": "file://elsewhere/x&stage0.A",
            "component-identifier": "stage0.A",
            "component-state": "finished",
            "name": "A",
            "stage": 0,
            "location": "/x/stages/stage0/A",
            "files": [f"/x/stages/stage0/A/{number}" for number in range(20)],
        }
        await upsert(client, document)
        found: list[Download | DownloadFailed] = []

        async def fetch() -> None:
            found.extend(await client.download_files("file://elsewhere/x", tmp_path))

        async with anyio.create_task_group() as group:
            group.start_soon(fetch)
            await gateway.until(lambda: gateway.in_flight == downloads)
            release.set()

    assert len(whole(found)) == 20
    assert gateway.most_in_flight == downloads


@pytest.mark.parametrize("downloads", [0, -1, 1.5, "4", None])
def test_the_bound_is_a_whole_number(downloads: Any) -> None:
    """Of at least 1."""
    with pytest.raises(
        ConfigError, match=re.escape(f"downloads must be a whole number of at least 1, not {downloads!r}")
    ):
        Config(downloads=downloads)
