"""A proxy that the environment names sees the address of a deployment, and never a credential."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from st4sd_async import Client, ConnectFailed, St4sdError, StartOutcomeUnknown

from .raw import Answer, RawServer, close, raw, reply, reset
from .tools import assert_ours, connect, reachable, settings

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


@pytest.mark.parametrize("status", [403, 407, 502, 503])
async def test_a_tunnel_that_is_refused_proves_that_nothing_was_sent(status: int, behind: Any) -> None:
    """The proxy saw who was asked for, not what was asked."""
    async with RawServer([reply(status, b"no", media="text/html")]) as proxy:
        behind(proxy)
        async with Client(HOME, api_key=KEY, config=settings()) as client:
            with pytest.raises(ConnectFailed) as caught:
                await client.start("demo")

    assert caught.value.sent is False
    assert set(proxy.methods) == {"CONNECT"}
    assert_ours(caught.value)


@pytest.mark.parametrize(
    "answer",
    [reply(407, b""), reply(502, b""), close(), reset(), raw(b"SSH-2.0\r\n\r\n"), None],
    ids=["407", "502", "closed", "reset", "not HTTP", "refused"],
)
@pytest.mark.parametrize("given", [{"api_key": KEY}, {"auth_token": TOKEN}], ids=["key", "token"])
async def test_no_credential_reaches_the_proxy_and_its_password_nobody(
    answer: Answer | None, given: dict[str, Any], behind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The tunnel is asked for without our credentials, and the proxy's own stay out of errors and logs."""
    caplog.set_level(logging.DEBUG)
    async with RawServer([answer or close()], listening=answer is not None) as proxy:
        behind(proxy)
        async with Client(HOME, config=settings(), **given) as client:
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
    """What is sent to this machine in clear text does not take the way over a proxy."""
    async with RawServer([reply(200, [])]) as proxy, RawServer([reply(200, [])]) as server:
        behind(proxy)
        async with Client(server.url, api_key=KEY, config=settings()) as client:
            await client.instances.list()

    assert proxy.requests == []
    assert len(server.requests) == 1
