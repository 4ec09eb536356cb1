"""Credentials stay with the deployment when files come from elsewhere, and in no log, error, repr or file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from st4sd_async import Client, DownloadFailed, Run, St4sdError
from st4sd_async.local import LocalServer, Reply
from tests.results.archives import Entry, build
from tests.tries import combinations, sample

from .clients import settings
from .gateways import another, archive, gateway, register
from .marks import KEY, TOKEN, all_texts, leaks, logged, outcome
from .quotings import QUOTINGS, echo
from .raw import Answer, Exchange, RawServer, Seen, reply, sign_in

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SECRET = "QSECXDqsecxd"
KINDS = ["api_key", "auth_token"]


async def everything(client: Client, run: Run, target: Path) -> list[Any]:
    """What each verb that asks a gateway gives: results, or the errors in them, or those that were raised."""
    verbs: list[Callable[[], Any]] = [
        lambda: client.download_files(run, target / "files"),
        lambda: client.download_component(run, 1, "Report", target / "component"),
        lambda: client.download_outputs(run, target / "outputs", unpack=True),
        lambda: client.read_file(run, "output/experiment.log"),
        lambda: client.gateways.has_component(str(run.id), 1, "Report"),
    ]
    errors: list[Any] = [await outcome(verb) for verb in verbs]
    for verb in verbs[:3]:
        with suppress(St4sdError):
            errors += await verb()
    return errors


def written(folder: Path) -> str:
    """All that is in files below a folder, and how they are called."""
    return "".join(f"{path}{path.read_text('latin-1') if path.is_file() else ''}" for path in folder.rglob("*"))


def is_clean(seen: Seen) -> bool:
    """Whether a request carries nothing of the user's."""
    return not {"authorization", "cookie"} & set(seen.headers)


@pytest.mark.parametrize(
    ("kind", "trusted"), combinations(KINDS, ["nobody", "name", "name:port", "another port", "another name"])
)
async def test_a_gateway_elsewhere_is_sent_credentials_only_if_it_is_trusted(
    shared_server: LocalServer, kind: str, trusted: str, tmp_path: Path
) -> None:
    """Another port is elsewhere, for archives, files and questions; the user may vouch for it."""
    secret = getattr(shared_server, kind)
    async with gateway(shared_server) as other:
        hosts = {
            "nobody": (),
            "name": ("127.0.0.1",),
            "name:port": (f"127.0.0.1:{other.port}",),
            "another port": (f"127.0.0.1:{other.port + 1}",),
            "another name": ("localhost",),
        }[trusted]
        async with Client(shared_server.url, config=settings(trusted_hosts=hosts), **{kind: secret}) as client:
            run = await another(client, shared_server)
            await everything(client, run, tmp_path)
            (document,) = await client.datastore.experiments(rest_uid=run.id)
            assert await client.gateways.has_component(document.instance, 1, "Report")

    assert len(other.requests) >= 4
    assert {seen.method for seen in other.requests} == {"GET", "POST"}
    is_sent = trusted in ("name", "name:port")
    assert {is_clean(seen) for seen in other.requests} == {not is_sent}
    assert {secret in f"{seen}" for seen in other.requests} == {is_sent}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_gateway_of_the_deployment_is_sent_them(
    shared_server: LocalServer, kind: str, tmp_path: Path
) -> None:
    """It refuses who has none."""
    async with Client(shared_server.url, config=settings(), **{kind: getattr(shared_server, kind)}) as client:
        run = await another(client, shared_server)
        assert await client.download_component(run, 1, "Report", tmp_path, strict=True)
        assert await client.download_files(run, tmp_path, strict=True)


async def test_a_door_elsewhere_does_not_get_them_out(shared_server: LocalServer, tmp_path: Path) -> None:
    """A sign-in page of a gateway that is not trusted is an error; the provider is not asked anew."""
    given: list[str] = []

    def provide() -> str:
        given.append(shared_server.api_key)
        return shared_server.api_key

    async with (
        gateway(shared_server, sign_in()) as other,
        Client(shared_server.url, api_key=provide, config=settings()) as client,
    ):
        run = await another(client, shared_server)
        found = await client.download_component(run, 1, "Report", tmp_path)

    assert [type(one) for one in found] == [DownloadFailed]
    assert [is_clean(seen) for seen in other.requests] == [True]
    assert len(given) == 1


async def test_a_redirect_of_a_gateway_is_not_followed(shared_server: LocalServer, tmp_path: Path) -> None:
    """Nor is one of the deployment's own: what it leads to sees nothing."""
    async with RawServer([reply(200, b"PK", media="application/zip")]) as elsewhere:
        move = Reply(302, {"Location": f"{elsewhere.url}/next"})
        async with Client(shared_server.url, api_key=shared_server.api_key, config=settings()) as client:
            run = await another(client, shared_server)
            for path in ("POST /ds-gateway/*", "GET /ds-gateway/*", "GET /instances/*/outputs/*"):
                shared_server.faults.add(path, move, times=None)
            assert [error for error in await everything(client, run, tmp_path) if error is None] == [None] * 3

    assert elsewhere.requests == []


def quoting_member(name: str) -> Answer:
    """Answer with an archive that quotes the request's credential in the name of a member."""

    async def answer(exchange: Exchange) -> None:
        own = exchange.seen.headers.get("authorization") or exchange.seen.headers.get("cookie", "")
        entry = Entry(name=name.format(own.removeprefix("Bearer ").replace("/", "_")))
        await archive(lambda _: build(entry))(exchange)

    return answer


QUOTED = {
    f"{status} {name}": echo(status, QUOTINGS[name])
    for status in (200, 400, 403, 500)
    for name in ("raw", "repr", "json in a text")
}
OTHERS = {
    "502 a page": echo(502, QUOTINGS["a page"], "text/html"),
    "200 a page": echo(200, QUOTINGS["a page"], "text/html"),
    "no archive": echo(200, QUOTINGS["raw"], "application/zip"),
    "a member": quoting_member("/{}"),
    "a hostile member": quoting_member("/../{}"),
}


@pytest.mark.parametrize(("kind", "quoting"), combinations(KINDS, [*sample(QUOTED, 6), *OTHERS]))
async def test_a_gateway_that_quotes_a_credential(
    kind: str, quoting: str, tmp_path: Path, watched: pytest.LogCaptureFixture
) -> None:
    """It is in no log, no error, no repr and no file, the manifest included."""
    uri = "file://g/w/demo.instance"
    secret = KEY if kind == "api_key" else TOKEN
    address = {"g": {"unique_id": "g", "host": ""}}
    async with RawServer([]) as server:
        address["g"]["host"] = f"{server.url}/gateway"
        documents = [
            {
                "type": "component",
                "instance": uri,
                "stage": 0,
                "name": "A",
                "component-identifier": "stage0.A",
                "component-state": "finished",
                "location": "/w/demo.instance/stages/stage0/A",
                "files": ["/w/demo.instance/stages/stage0/A/a.txt"],
            }
        ]

        async def answer(exchange: Exchange) -> None:
            path = urlsplit(exchange.seen.path).path
            if path.endswith("url-map/"):
                services = {name: f"{server.url}/{name}" for name in ("cdb-gateway-registry", "cdb-rest")}
                await reply(200, services)(exchange)
            elif path.endswith("/unique_ids"):
                await reply(200, address)(exchange)
            elif path.endswith("/query"):
                await reply(200, {"document-descriptors": documents})(exchange)
            else:
                await {**QUOTED, **OTHERS}[quoting](exchange)

        server.answers = [answer]
        async with Client(server.url, config=settings(), **{kind: secret}) as client:
            errors = [
                await outcome(lambda: client.read_file(uri, "stages/stage0/A/a.txt")),
                await outcome(lambda: client.download_files(uri, tmp_path / "x", strict=True)),
                await outcome(lambda: client.download_component(uri, 0, "A", tmp_path / "y", strict=True)),
                await outcome(lambda: client.gateways.has_component(uri, 0, "A")),
            ]
            results = [await client.download_files(uri, tmp_path / "x"), repr(client)]
        assert any(seen.path.startswith("/gateway") and not is_clean(seen) for seen in server.requests)

    assert leaks(logged(watched)) == set()
    for one in [*errors, *results]:
        assert leaks(all_texts(one)) == set()
    assert leaks(written(tmp_path)) == set()


async def test_addresses_that_hold_secrets(
    shared_server: LocalServer, tmp_path: Path, watched: pytest.LogCaptureFixture
) -> None:
    """A gateway that is registered with a user and password, or with a token: not in logs, nor in errors."""
    async with RawServer([reply(502, b"", media="text/html")]) as other:
        register(shared_server, other.url.replace("://", f"://user:{SECRET}@"))
        async with Client(shared_server.url, api_key=shared_server.api_key, config=settings()) as client:
            run = await another(client, shared_server)
            found = await everything(client, run, tmp_path)

    assert leaks(logged(watched)) == set()
    assert all(leaks(all_texts(one)) == set() for one in found)


async def test_uris_that_hold_secrets(
    shared_server: LocalServer, tmp_path: Path, watched: pytest.LogCaptureFixture
) -> None:
    """A user and password in the uri of an instance are in no log."""
    uri = f"file://user:{SECRET}@ghost/w/demo.instance"
    async with Client(shared_server.url, api_key=shared_server.api_key, config=settings()) as client:
        await outcome(lambda: client.read_file(uri, "a"))
        await outcome(lambda: client.download_files(uri, tmp_path))
        await outcome(lambda: client.download_component(uri, 0, "A", tmp_path))

    assert leaks(logged(watched)) == set()


async def test_what_is_left_on_disk_holds_no_credential(
    shared_server: LocalServer, tmp_path: Path, watched: pytest.LogCaptureFixture
) -> None:
    """After success, neither the manifest nor a log contains the key, not even the notes of a slow event loop."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    async with Client(shared_server.url, api_key=shared_server.api_key, config=settings()) as client:
        run = await another(client, shared_server)
        await everything(client, run, tmp_path)
    loop.slow_callback_duration = 10

    assert "took" in watched.text
    assert "Report" in written(tmp_path)
    assert shared_server.api_key not in written(tmp_path)
    assert shared_server.api_key not in logged(watched)
