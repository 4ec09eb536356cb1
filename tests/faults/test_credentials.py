"""Credentials go to the deployment they were given for, and nowhere else; what expires is renewed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from st4sd_async import APIError, Client, ConfigError, Unauthorized
from st4sd_async._http.call import Call, nothing
from st4sd_async._http.credentials import may_carry_credentials
from tests.tries import combinations

from .clients import settings
from .exceptions import assert_ours
from .raw import SIGN_IN, Exchange, RawServer, Seen, head, raw, reply, sign_in

pytestmark = pytest.mark.anyio

KEY, TOKEN = "fake-key-0001", "fake-token-0002"
CREDENTIALS = [pytest.param({"api_key": KEY}, id="key"), pytest.param({"auth_token": TOKEN}, id="token")]


def _carried(seen: Seen) -> tuple[str | None, str | None]:
    """Bearer and cookie of a request."""
    return seen.headers.get("authorization"), seen.headers.get("cookie")


def _is_clean(seen: Seen) -> bool:
    """Whether a request holds no credential anywhere."""
    whole = f"{seen}"
    return KEY not in whole and TOKEN not in whole and _carried(seen) == (None, None)


@pytest.mark.parametrize(
    ("given", "carried"),
    [
        ({"api_key": KEY}, (f"Bearer {KEY}", None)),
        ({"auth_token": TOKEN}, (None, f"oauth-proxy={TOKEN}")),
        ({"api_key": KEY, "auth_token": TOKEN}, (f"Bearer {KEY}", None)),
        ({"auth_token": f'"{TOKEN}"\n'}, (None, f"oauth-proxy={TOKEN}")),
        ({}, (None, None)),
    ],
    ids=["key", "token", "both", "token pasted with quotes", "none"],
)
async def test_a_key_is_a_bearer_a_token_a_cookie_and_the_key_wins(
    given: dict[str, Any], carried: tuple[str | None, str | None]
) -> None:
    """Exactly one credential is sent, in its own form."""
    async with RawServer([reply(200, [])]) as server, Client(server.url, config=settings(), **given) as client:
        await client.instances.list()

    assert _carried(server.requests[0]) == carried


@pytest.mark.parametrize("given", CREDENTIALS)
async def test_credentials_do_not_reach_another_port(given: dict[str, Any]) -> None:
    """Another port of the same machine is another origin."""
    async with (
        RawServer([reply(200, [])]) as server,
        RawServer([reply(200, [])]) as other,
        Client(server.url, config=settings(), **given) as client,
    ):
        await client._session.send(Call("GET", "files/", nothing, base_url=f"{other.url}/"))
        await client.instances.list()

    assert _is_clean(other.requests[0])
    assert not _is_clean(server.requests[0])


@pytest.mark.parametrize("given", CREDENTIALS)
async def test_credentials_do_not_reach_another_name_of_the_same_machine(given: dict[str, Any]) -> None:
    """Two names may belong to different servers, so only the given name counts."""
    async with RawServer([reply(200, [])]) as server, Client(server.url, config=settings(), **given) as client:
        await client._session.send(Call("GET", "files/", nothing, base_url=f"http://localhost:{server.port}/"))

    assert _is_clean(server.requests[0])


@pytest.mark.parametrize("given", CREDENTIALS)
@pytest.mark.parametrize("with_port", [True, False], ids=["name:port", "name"])
async def test_a_trusted_host_is_sent_the_credentials(given: dict[str, Any], with_port: bool) -> None:
    """The user may trust another host."""
    async with RawServer([reply(200, [])]) as server, RawServer([reply(200, [])]) as other:
        trusted = (f"127.0.0.1:{other.port}" if with_port else "127.0.0.1",)
        async with Client(server.url, config=settings(trusted_hosts=trusted), **given) as client:
            await client._session.send(Call("GET", "files/", nothing, base_url=f"{other.url}/"))

    assert not _is_clean(other.requests[0])


@pytest.mark.parametrize("given", CREDENTIALS)
async def test_a_refusal_elsewhere_does_not_bring_the_credentials_out(given: dict[str, Any]) -> None:
    """The sign-in page of an untrusted host is an error, and no reason to send credentials."""
    async with (
        RawServer([reply(200, [])]) as server,
        RawServer([sign_in()]) as other,
        Client(server.url, config=settings(), **given) as client,
    ):
        with pytest.raises(Unauthorized):
            await client._session.send(Call("GET", "files/", nothing, base_url=f"{other.url}/"))

    assert [_is_clean(seen) for seen in other.requests] == [True]


WAYS = [f"{name} {where}" for name in ("api_key", "auth_token") for where in ("elsewhere", "here")]


@pytest.mark.parametrize(("way", "status"), combinations(WAYS, ["301", "302", "303", "307", "308"]))
async def test_a_redirect_is_not_followed_with_or_without_credentials(way: str, status: str) -> None:
    """Its target gets no request, on another server or the same one."""
    name, where = way.split()
    given: dict[str, Any] = {name: KEY}
    async with RawServer([reply(200, [])]) as other, RawServer([reply(200, [])]) as server:
        target = other.url if where == "elsewhere" else server.url
        server.answers = [raw(head(int(status), {"Location": f"{target}/next", "Content-Length": "0"}))]
        async with Client(server.url, config=settings(), **given) as client:
            with pytest.raises(APIError) as caught:
                await client.instances.list()

    assert caught.value.status == int(status)
    assert len(server.requests) == 1
    assert other.requests == []


@pytest.mark.parametrize("given", [*CREDENTIALS, pytest.param({}, id="none")])
async def test_cookies_of_the_server_are_never_sent_back(given: dict[str, Any]) -> None:
    """Neither a session nor the deletion of our own cookie changes what is sent next."""
    async with (
        RawServer(
            [
                reply(200, [], set_cookie="session=abc; Path=/"),
                reply(200, [], set_cookie="oauth-proxy=theirs; Path=/; Max-Age=1000"),
                reply(200, [], set_cookie="oauth-proxy=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
                reply(200, []),
            ]
        ) as server,
        Client(server.url, config=settings(), **given) as client,
    ):
        for _ in range(4):
            await client.instances.list()

    assert len({_carried(seen) for seen in server.requests}) == 1
    assert not any("abc" in f"{seen}" or "theirs" in f"{seen}" for seen in server.requests)


@pytest.mark.parametrize(
    "given",
    [
        *CREDENTIALS,
        pytest.param({"api_key": lambda: KEY}, id="provider"),
        pytest.param({"auth_token": Path("token.txt")}, id="file"),
        pytest.param({"api_key": KEY, "config": settings(trusted_hosts=("st4sd.example",))}, id="trusted"),
    ],
)
@pytest.mark.parametrize("url", ["http://st4sd.example", "http://10.0.0.7:8080/rs", "http://127.0.0.1.example"])
def test_credentials_are_not_given_to_a_client_in_clear_text(given: dict[str, Any], url: str) -> None:
    """Plain http to another machine is refused when the client is made; the error says what to do."""
    with pytest.raises(ConfigError, match="https") as caught:
        Client(url, **given)

    assert KEY not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:8080/rs"])
@pytest.mark.parametrize("given", CREDENTIALS)
def test_credentials_may_go_to_this_machine_in_clear_text(given: dict[str, Any], url: str) -> None:
    """Plain http within this machine is allowed."""
    assert Client(url, **given)


def test_a_client_without_credentials_may_use_clear_text() -> None:
    """There is nothing to protect."""
    assert Client("http://st4sd.example")


HOME = "https://st4sd.example/"


@pytest.mark.parametrize(
    ("url", "home", "trusted", "may"),
    [
        (f"{HOME}rs/instances/", HOME, (), True),
        ("https://st4sd.example:443/rs/", HOME, (), True),
        ("https://ST4SD.example/rs/", HOME, (), True),
        ("http://st4sd.example/rs/", HOME, (), False),
        ("http://st4sd.example:443/rs/", HOME, (), False),
        ("https://st4sd.example:8443/rs/", HOME, (), False),
        ("https://st4sd.example.evil/rs/", HOME, (), False),
        ("https://evil.example/rs/", HOME, (), False),
        ("https://st4sd.example@evil.example/rs/", HOME, (), False),
        ("https://evil.example/st4sd.example/", HOME, (), False),
        ("https://sub.st4sd.example/", HOME, (), False),
        ("https://gateway.example/", HOME, ("gateway.example",), True),
        ("https://gateway.example:8443/", HOME, ("gateway.example",), True),
        ("https://gateway.example/", HOME, ("gateway.example:443",), True),
        ("https://gateway.example:8443/", HOME, ("gateway.example:8443",), True),
        ("https://gateway.example:8443/", HOME, ("gateway.example:443",), False),
        ("https://gateway.example/", HOME, ("Gateway.Example",), True),
        ("https://sub.gateway.example/", HOME, ("gateway.example",), False),
        ("https://gateway.example.evil/", HOME, ("gateway.example",), False),
        ("http://gateway.example/", HOME, ("gateway.example",), False),
        ("http://gateway.example/", HOME, ("gateway.example:80",), False),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/", (), True),
        ("http://127.0.0.1:8001/", "http://127.0.0.1:8000/", (), False),
        ("http://localhost:8000/", "http://127.0.0.1:8000/", (), False),
        ("http://[::1]:8000/", "http://[::1]:8000/", (), True),
        ("http://127.0.0.1:8000/", HOME, (), False),
        ("https://127.0.0.1:8000/", "http://127.0.0.1:8000/", (), False),
    ],
)
def test_credentials_belong_to_one_origin(url: str, home: str, trusted: tuple[str, ...], may: bool) -> None:
    """Scheme, host and port must be those of the deployment, or the host must be trusted; never unencrypted."""
    assert may_carry_credentials(urlsplit(url), urlsplit(home), trusted) is may


@pytest.mark.parametrize("name", ["api_key", "auth_token"])
async def test_a_file_is_read_again(name: str, tmp_path: Path) -> None:
    """A mounted secret may be rotated at any time."""
    file = tmp_path / "secret"
    file.write_text("fake-one\n")
    async with (
        RawServer([reply(200, [])]) as server,
        Client(server.url, config=settings(), **{name: file}) as client,
    ):
        await client.instances.list()
        file.write_text("fake-two\n")
        await client.instances.list()

    assert ["fake-one" in f"{seen}" for seen in server.requests] == [True, False]
    assert ["fake-two" in f"{seen}" for seen in server.requests] == [False, True]


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Nothing is sent; the error says which file."""
    async with (
        RawServer([reply(200, [])]) as server,
        Client(server.url, api_key=tmp_path / "nowhere", config=settings()) as client,
    ):
        with pytest.raises(ConfigError, match="nowhere") as caught:
            await client.instances.list()

    assert server.requests == []
    assert_ours(caught.value)


def _door(good: str) -> Callable[[Exchange], Awaitable[None]]:
    """A sign-in proxy that lets one credential pass."""

    async def answer(exchange: Exchange) -> None:
        await (reply(200, []) if good in f"{_carried(exchange.seen)}" else sign_in())(exchange)

    return answer


class _Provider:
    """Gives a stale credential first and a good one later, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def sync(self) -> str:
        """Blocking."""
        self.calls += 1
        return "fake-stale" if self.calls == 1 else "fake-fresh"

    async def coroutine(self) -> str:
        """In the event loop."""
        await anyio.sleep(0.005)
        return self.sync()

    def awaitable(self) -> Awaitable[str]:
        """A plain function whose result must be awaited."""
        return self.coroutine()


@pytest.mark.parametrize("kind", ["sync", "coroutine", "awaitable"])
@pytest.mark.parametrize("name", ["api_key", "auth_token"])
async def test_an_expired_credential_is_renewed_within_the_same_call(kind: str, name: str) -> None:
    """The provider is called once more, the call succeeds, and the new credential is kept."""
    provider = _Provider()
    source = getattr(provider, kind)
    async with (
        RawServer([_door("fake-fresh")]) as server,
        Client(server.url, config=settings(), **{name: source}) as client,
    ):
        assert await client.instances.list() == []
        assert await client.instances.list() == []

    assert provider.calls == 2
    assert len(server.requests) == 3


@pytest.mark.parametrize("kind", ["sync", "coroutine"])
async def test_many_calls_refused_at_once_ask_the_provider_once_more(kind: str) -> None:
    """Twenty calls with the same expired credential need one new one, not twenty."""
    provider, all_in = _Provider(), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if server.in_flight == 20:
            all_in.set()
        await all_in.wait()
        await _door("fake-fresh")(exchange)

    async with RawServer([answer]) as server:
        config = settings(concurrency=20)
        async with Client(server.url, api_key=getattr(provider, kind), config=config) as client:
            found = await asyncio.gather(*(client.instances.list() for _ in range(20)))

    assert found == [[]] * 20
    assert provider.calls == 2
    assert len(server.requests) == 40


async def test_a_provider_is_not_asked_for_what_it_gave() -> None:
    """A provider is called once until its credential is refused."""
    provider = _Provider()
    async with (
        RawServer([reply(200, [])]) as server,
        Client(server.url, api_key=provider.sync, config=settings()) as client,
    ):
        await asyncio.gather(*(client.instances.list() for _ in range(10)))

    assert provider.calls == 1


SOURCES: dict[str, Any] = {"text": TOKEN, "provider": lambda: TOKEN}


@pytest.mark.parametrize(("source", "suffix"), combinations(SOURCES, ["", "/", "/rs", "/rs/"]))
async def test_a_credential_that_cannot_be_renewed_is_told_with_the_page_that_gives_one(
    source: str, suffix: str
) -> None:
    """The error names the page at the root of the deployment; nothing is sent twice."""
    async with (
        RawServer([sign_in()]) as server,
        Client(f"{server.url}{suffix}", auth_token=SOURCES[source], config=settings()) as client,
    ):
        with pytest.raises(Unauthorized) as caught:
            await client.instances.list()

    assert f"{server.url}/authorisation/token" in str(caught.value)
    assert caught.value.status == 403
    assert len(server.requests) == 1
    assert_ours(caught.value)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [SIGN_IN, b""], ids=["page", "nothing"])
async def test_entering_proves_the_login(status: int, body: bytes) -> None:
    """A refused login is an error on entering, and the connections are closed."""
    async with RawServer([reply(status, body, media="text/html")]) as server:
        client = Client(server.url, auth_token=TOKEN, config=settings(validate=True))
        with pytest.raises(Unauthorized):
            await client.__aenter__()
        await server.until(lambda: server.open_connections == 0)

    assert [seen.path for seen in server.requests] == ["/rs/url-map/"]
