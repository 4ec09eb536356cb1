"""A proxy that the environment names sees the address of a deployment, and never a credential."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from st4sd_async import Client, ConfigError, ConnectFailed, St4sdError, StartOutcomeUnknown
from st4sd_async._http import engine as _transport
from tests.tries import combinations

from .clients import SILENCE, connect, settings
from .exceptions import assert_ours, reachable
from .raw import Answer, RawServer, close, never, raw, reply, reset

pytestmark = pytest.mark.anyio

PASSWORD, KEY, TOKEN = "fake-QPROXY-password", "fake-QKEY-0001", "fake-QTOK-0002"
HOME = "https://st4sd.invalid"


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a server between this machine and all others."""

    def put(server: RawServer) -> None:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://user:{PASSWORD}@127.0.0.1:{server.port}")

    return put


TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
NO_TUNNEL: dict[str, Answer] = {
    **{f"{status}": reply(status, b"no", media="text/html") for status in (302, 403, 407, 502, 503)},
    "closed": close(),
    "reset": reset(),
    "silent": never(),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "a page without an end": raw(b"HTTP/1.1 403 Forbidden\r\n\r\n<html>"),
    "half an answer": raw(b"HTTP/1.1 200 Conn"),
    "a header too long": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"),
    "a tunnel that is closed": raw(TUNNEL),
    "a tunnel with no TLS in it": raw(TUNNEL + b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}
"""What a proxy does in place of a tunnel."""


@pytest.mark.parametrize("answer", NO_TUNNEL.values(), ids=NO_TUNNEL)
async def test_a_tunnel_that_is_refused_or_garbled_proves_that_nothing_was_sent(
    answer: Answer, behind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy saw the host and not the request, so the outcome of a start is known and it is retried."""
    monkeypatch.setattr(_transport, "CONNECT_TIMEOUT_SECONDS", SILENCE)
    async with RawServer([answer]) as proxy:
        behind(proxy)
        async with Client(HOME, api_key=KEY, config=settings()) as client:
            with pytest.raises(ConnectFailed) as caught:
                await client.start("demo")

    assert caught.value.sent is False
    assert set(proxy.methods) == {"CONNECT"}
    assert_ours(caught.value)


UNUSABLE = {
    "socks": (f"socks5://user:{PASSWORD}@127.0.0.1:1080", "socks5:// is not supported, only http:// and https:// are"),
    "not Latin-1": (f"http://user:{PASSWORD}\u2603@127.0.0.1:1080", "may contain only Latin-1 characters"),
    "not Latin-1, quoted": (f"http://user:{PASSWORD}%E2%98%83@127.0.0.1:1080", "may contain only Latin-1 characters"),
    "a colon in the user": (f"http://us%3Aer:{PASSWORD}@127.0.0.1:1080", "its user must not contain a colon"),
    "unquoted": (f"http://user:{PASSWORD}#1@127.0.0.1:1080", "invalid URL; write special characters in a password"),
    "no port": (f"http://user:{PASSWORD}@127.0.0.1:99999", "invalid URL"),
    "no host": (f"http://user:{PASSWORD}@a..b:3128", "its host is invalid"),
    "another no host": (f"user:{PASSWORD}@\u2603.net:3128", "its host is invalid"),
}
"""Proxies that cannot be used, and what is wrong with them."""


@pytest.mark.parametrize(("variable", "what"), combinations(["https_proxy", "HTTPS_PROXY", "all_proxy"], UNUSABLE))
async def test_a_proxy_that_cannot_be_used_is_named_and_not_quoted(
    variable: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening the client says which environment variable is wrong, and how, without the password."""
    address, problem = UNUSABLE[what]
    monkeypatch.setenv(variable, address)
    client = Client(HOME, api_key=KEY, config=settings())

    with pytest.raises(ConfigError) as caught:
        await client.open()

    assert f"environment variable {variable} " in str(caught.value)
    assert problem in str(caught.value)
    told = " ".join(f"{one!s} {one!r}" for one in reachable(caught.value))
    assert not any(secret in told for secret in (PASSWORD, KEY, "1080"))


async def test_a_proxy_that_is_not_needed_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting for other hosts is not checked."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "st4sd.invalid")

    async with Client(HOME, config=settings()):
        pass


@pytest.mark.parametrize("given", ["api_key", "auth_token"])
async def test_a_credential_that_no_header_can_hold_is_refused_unquoted(given: str) -> None:
    """Keys and tokens are ASCII; the error names the setting."""
    secret: Any = {given: f"{KEY}\u2603"}
    with pytest.raises(ConfigError, match=given) as caught:
        Client(HOME, **secret)

    assert KEY not in " ".join(f"{one!s} {one!r}" for one in reachable(caught.value))


CREDENTIALS: dict[str, dict[str, Any]] = {"key": {"api_key": KEY}, "token": {"auth_token": TOKEN}}
REFUSALS: dict[str, Answer | None] = {
    "407": reply(407, b""),
    "502": reply(502, b""),
    "closed": close(),
    "reset": reset(),
    "not HTTP": raw(b"SSH-2.0\r\n\r\n"),
    "refused": None,
}


@pytest.mark.parametrize(("given", "refusal"), combinations(CREDENTIALS, REFUSALS))
async def test_no_credential_reaches_the_proxy_and_its_password_nobody(
    given: str, refusal: str, behind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The tunnel is requested without our credentials, and the proxy's password appears in no error or log."""
    answer = REFUSALS[refusal]
    caplog.set_level(logging.DEBUG)
    async with RawServer([answer or close()], listening=answer is not None) as proxy:
        behind(proxy)
        async with Client(HOME, config=settings(), **CREDENTIALS[given]) as client:
            with pytest.raises(St4sdError) as caught:
                await client.start("demo")

    told = " ".join(f"{one!s} {one!r}" for one in reachable(caught.value))
    assert not any(secret in f"{proxy.requests}" for secret in (KEY, TOKEN))
    assert not any(secret in told + caplog.text for secret in (PASSWORD, KEY, TOKEN))


async def test_a_plain_start_through_a_proxy_that_fails_is_in_doubt(behind: Any) -> None:
    """Without a tunnel the proxy gets the whole request, and may have passed it on."""
    async with RawServer([reply(502, b"")]) as proxy:
        behind(proxy)
        async with connect("http://st4sd.invalid") as client:
            with pytest.raises(StartOutcomeUnknown):
                await client.start("demo")

    assert [seen.path for seen in proxy.requests] == ["http://st4sd.invalid/rs/experiments/demo/start"]


async def test_this_machine_is_asked_directly(behind: Any) -> None:
    """Unencrypted requests to this machine do not go through a proxy."""
    async with RawServer([reply(200, [])]) as proxy, RawServer([reply(200, [])]) as server:
        behind(proxy)
        async with Client(server.url, api_key=KEY, config=settings()) as client:
            await client.instances.list()

    assert proxy.requests == []
    assert len(server.requests) == 1
