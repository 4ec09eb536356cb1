"""Certificates are checked unless the user says in so many words that they are not."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from st4sd_async import Client, ConfigError, ConnectFailed, RetryPolicy
from tests.conftest import FakeClock

from .clients import settings
from .exceptions import assert_ours
from .raw import RawServer, reply

pytestmark = pytest.mark.anyio

KEY = "fake-key-0001"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority that nobody knows."""
    return trustme.CA()


def _server(authority: trustme.CA, *names: str) -> RawServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
    return RawServer([reply(200, "demo-c52cd4-00000001")], tls=context)


async def _start(server: RawServer, verify: Any, clock: FakeClock) -> str:
    config = settings(clock, verify=verify, retry=RetryPolicy(attempts=5))
    async with Client(server.url, api_key=KEY, config=config) as client:
        return (await client.start("demo")).id


async def test_an_unknown_authority_is_refused_by_default(authority: trustme.CA, clock: FakeClock) -> None:
    """Verification is the default; a failure is not retried, and the error says what to do."""
    async with _server(authority) as server:
        with pytest.raises(ConnectFailed) as caught:
            await _start(server, True, clock)

    assert server.requests == []
    assert server.connections <= 1
    assert clock.slept == []
    assert caught.value.sent is False
    assert caught.value.attempts == 1
    assert caught.value.reason == (
        "certificate verification failed: unable to get local issuer certificate; "
        "name the authority that signed it with Config(verify='ca.pem') or ST4SD_CA_FILE"
    )
    assert_ours(caught.value)


async def test_another_authority_does_not_help(authority: trustme.CA, tmp_path: Path, clock: FakeClock) -> None:
    """A given authority replaces the default ones."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    async with _server(authority) as server:
        with pytest.raises(ConnectFailed) as caught:
            await _start(server, tmp_path / "other.pem", clock)

    assert server.requests == []
    assert clock.slept == []
    assert_ours(caught.value)


@pytest.mark.parametrize("form", ["text", "path", "context"])
async def test_a_named_authority_is_accepted(
    form: str, authority: trustme.CA, tmp_path: Path, clock: FakeClock
) -> None:
    """A file by its name, a file as a path, or a context of the user's own."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    verify = {"text": str(file), "path": file, "context": ssl.create_default_context(cafile=str(file))}[form]

    async with _server(authority) as server:
        assert await _start(server, verify, clock) == "demo-c52cd4-00000001"

    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_the_authority_may_come_from_the_environment(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ST4SD_CA_FILE`` is heeded by ``Client.from_env``."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with _server(authority) as server:
        monkeypatch.setenv("ST4SD_URL", server.url)
        monkeypatch.setenv("ST4SD_API_KEY", KEY)
        monkeypatch.setenv("ST4SD_CA_FILE", str(tmp_path / "ca.pem"))
        async with Client.from_env(config=settings()) as client:
            await client.start("demo")

    assert len(server.requests) == 1


async def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, tmp_path: Path, clock: FakeClock
) -> None:
    """A valid signature is not enough if the name is wrong."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with _server(authority, "other.example") as server:
        with pytest.raises(ConnectFailed) as caught:
            await _start(server, tmp_path / "ca.pem", clock)

    assert server.requests == []
    assert clock.slept == []
    assert caught.value.attempts == 1
    assert "certificate verification failed: " in str(caught.value)
    assert caught.value.reason.endswith(
        "; use the host name of the certificate, or ask the administrator of the server"
    )
    assert_ours(caught.value)


async def test_not_checking_works_and_warns_once(
    authority: trustme.CA, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """``verify=False`` accepts anything, and says so once, however many requests follow."""
    async with _server(authority, "other.example") as server:
        config = settings(clock, verify=False)
        async with Client(server.url, api_key=KEY, config=config) as client:
            for _ in range(3):
                await client.start("demo")

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].name == "st4sd_async"
    assert "verif" in warnings[0].getMessage()
    assert len(server.requests) == 3


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "not a certificate"])
async def test_a_file_that_holds_no_authority_is_named(content: str | None, tmp_path: Path) -> None:
    """It is found when the client is opened, before anything is sent."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    client = Client("https://127.0.0.1:9", config=settings(verify=file))
    with pytest.raises(ConfigError, match=r"ca\.pem") as caught:
        await client.__aenter__()

    assert_ours(caught.value)


@asynccontextmanager
async def _greeting(answer: bytes | None) -> AsyncIterator[str]:
    """An address whose server answers the TLS greeting with these bytes; None: with silence."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is not None:
            writer.write(answer)
        else:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_plain_http_where_tls_is_due_is_a_failed_connection() -> None:
    """A server that does not speak TLS has seen no request."""
    async with (
        _greeting(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as url,
        Client(url, api_key=KEY, config=settings()) as client,
    ):
        with pytest.raises(ConnectFailed) as caught:
            await client.start("demo")

    assert caught.value.sent is False
    assert_ours(caught.value)


@pytest.mark.slow(seconds=5)
async def test_silence_while_tls_is_made_proves_that_nothing_was_sent() -> None:
    """A connection that was not ready in time carried no request, so the outcome is known."""
    # Takes the five seconds that a connection may take, in real time.
    async with (
        _greeting(None) as url,
        Client(url, api_key=KEY, config=settings(retry=RetryPolicy(attempts=1))) as client,
    ):
        with pytest.raises(ConnectFailed) as caught:
            await client.start("demo")

    assert caught.value.sent is False
    assert_ours(caught.value)
