"""Each way in which a connection breaks, on a raw socket: which error comes out, and was the request sent?"""

from __future__ import annotations

import asyncio
import traceback

import aiohttp
import pytest

from st4sd_async import (
    APIError,
    Client,
    ConnectFailed,
    ConnectionLost,
    RequestTimeout,
    RetryPolicy,
    StartOutcomeUnknown,
    TransportError,
)
from st4sd_async._http.call import Call, nothing
from st4sd_async._http.engine import translate_error
from tests.conftest import FakeClock

from .clients import SILENCE, connect
from .exceptions import assert_ours
from .raw import Answer, Exchange, RawServer, close, cut, cut_chunk, head, never, raw, reply, reset

pytestmark = pytest.mark.anyio


def cut_by_reset() -> Answer:
    """Promise more bytes than come, then reset the connection."""
    return cut(then=reset())


def garbled() -> Answer:
    """Answer in chunks whose size is no number."""
    return raw(head(200, {"Transfer-Encoding": "chunked"}) + b"zz\r\nhello")


BROKEN = [
    pytest.param(close(), ConnectionLost, id="read, then closed"),
    pytest.param(reset(), ConnectionLost, id="read, then reset"),
    pytest.param(never(), RequestTimeout, id="never answered"),
    pytest.param(cut(), ConnectionLost, id="body cut short"),
    pytest.param(cut_by_reset(), ConnectionLost, id="body cut short by a reset"),
    pytest.param(cut(then=never()), RequestTimeout, id="body stalls"),
    pytest.param(cut_chunk(), ConnectionLost, id="chunk cut short"),
    pytest.param(garbled(), ConnectionLost, id="chunks garbled"),
    pytest.param(raw(b"SSH-2.0-OpenSSH_9.6\r\n"), ConnectionLost, id="not HTTP at all"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Le"), ConnectionLost, id="headers cut short"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), ConnectionLost, id="header too long"),
    pytest.param(raw(b"HTTP/1.1 100 Continue\r\n\r\n"), ConnectionLost, id="only an interim answer"),
]
"""What a server does after it has read a request, and the error that this is."""


@pytest.mark.parametrize(("answer", "kind"), BROKEN)
async def test_a_read_that_breaks_may_have_arrived_and_is_repeated(answer: Answer, kind: type[TransportError]) -> None:
    """The error gives the number of attempts, which the server confirms."""
    async with RawServer([answer]) as server, connect(server.url, timeout=SILENCE) as client:
        with pytest.raises(kind) as caught:
            await client.instances.list()

    assert type(caught.value) is kind
    assert caught.value.sent is None
    assert caught.value.attempts == len(server.requests) == 2
    assert_ours(caught.value)


@pytest.mark.parametrize(("answer", "kind"), BROKEN)
async def test_a_start_that_breaks_is_in_doubt_and_not_repeated(answer: Answer, kind: type[TransportError]) -> None:
    """The server sees it once; the cause of the doubt is the error that the same break is for a read."""
    async with RawServer([answer]) as server, connect(server.url, timeout=SILENCE) as client:
        with pytest.raises(StartOutcomeUnknown) as caught:
            await client.start("demo")

    cause = caught.value.__cause__
    assert isinstance(cause, kind)
    assert cause.sent is None
    assert cause.attempts == len(server.requests) == 1
    assert_ours(caught.value)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_kept_connection_that_closes_under_a_read_is_repeated_by_us_alone(attempts: int) -> None:
    """aiohttp repeats nothing: the server sees as many requests as the policy allows."""
    answers = [reply(200, []), close(), reply(200, [])]
    async with RawServer(answers) as server, connect(server.url, retry=RetryPolicy(attempts=attempts)) as client:
        await client.instances.list()
        if attempts == 1:
            with pytest.raises(ConnectionLost) as caught:
                await client.instances.list()
            assert caught.value.sent is None
        else:
            assert await client.instances.list() == []

    assert len(server.requests) == 1 + attempts
    assert server.requests[1].connection == server.requests[0].connection


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("answer", [close(), reset()], ids=["closed", "reset"])
async def test_a_kept_connection_that_breaks_under_a_change_is_not_repeated_below_us(
    method: str, answer: Answer
) -> None:
    """PUT and DELETE, which aiohttp considers safe to repeat, are sent once if the policy says once."""
    answers = [reply(200, []), answer, reply(200, "OK")]
    async with RawServer(answers) as server, connect(server.url, retry=RetryPolicy(attempts=1)) as client:
        await client.instances.list()
        with pytest.raises(ConnectionLost):
            await client._session.send(Call(method, "experiments/demo/tag", nothing))

    assert server.methods == ["GET", method]
    assert server.requests[1].connection == server.requests[0].connection


@pytest.mark.parametrize("answer", [close(), reset()], ids=["closed", "reset"])
async def test_a_start_that_breaks_after_others_is_in_doubt(answer: Answer) -> None:
    """It has a connection of its own, so that nothing left over from an earlier request can reach it; sent once."""
    answers = [reply(200, []), reply(200, "demo-c52cd4-00000001"), answer, reply(200, "demo-c52cd4-00000002")]
    async with RawServer(answers) as server, connect(server.url) as client:
        await client.instances.list()
        await client.start("demo")
        with pytest.raises(StartOutcomeUnknown) as caught:
            await client.start("demo")

    assert isinstance(caught.value.__cause__, ConnectionLost)
    assert server.methods == ["GET", "POST", "POST"]
    assert [seen.connection for seen in server.requests] == [0, 1, 2]


@pytest.mark.parametrize("operation", ["list", "start"])
async def test_a_refused_connection_proves_that_nothing_was_sent(operation: str, clock: FakeClock) -> None:
    """On a closed port, starts and reads are retried as often as the policy allows."""
    async with RawServer([], listening=False) as server, connect(server.url, clock) as client:
        with pytest.raises(ConnectFailed) as caught:
            await (client.instances.list() if operation == "list" else client.start("demo"))

    assert caught.value.sent is False
    assert caught.value.attempts == 2
    assert len(clock.slept) == 1
    assert_ours(caught.value)


async def test_the_insides_of_engines_are_in_no_traceback(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Only the few frames from the caller to the session; the log has the whole traceback."""
    async with RawServer([], listening=False) as server, connect(server.url, clock) as client:
        with caplog.at_level("DEBUG", "st4sd_async"), pytest.raises(ConnectFailed) as caught:
            await client.start("demo")

    frames = traceback.extract_tb(caught.value.__traceback__)
    assert len(frames) < 10
    assert all("site-packages" not in frame.filename for frame in frames)
    (logged,) = [record for record in caplog.records if record.exc_info and record.levelname == "DEBUG"]
    assert "engine.py" in "".join(traceback.format_exception(*logged.exc_info))  # type: ignore[misc]


async def test_a_doubt_leaves_its_cause_in_the_log(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """With the frames of the engine, which are not in the traceback of the error."""
    async with RawServer([reset()]) as server, connect(server.url, clock) as client:
        with caplog.at_level("DEBUG", "st4sd_async"), pytest.raises(StartOutcomeUnknown) as caught:
            await client.start("demo")

    assert isinstance(caught.value.__cause__, ConnectionLost)
    (logged,) = [record for record in caplog.records if record.exc_info and record.levelname == "DEBUG"]
    assert "engine.py" in "".join(traceback.format_exception(*logged.exc_info))  # type: ignore[misc]


@pytest.mark.parametrize("operation", ["list", "start"])
async def test_an_unknown_host_proves_that_nothing_was_sent(operation: str) -> None:
    """A name that does not exist is a failed connection, not a doubt."""
    async with connect("http://st4sd.invalid") as client:
        with pytest.raises(ConnectFailed) as caught:
            await (client.instances.list() if operation == "list" else client.start("demo"))

    assert caught.value.sent is False
    assert caught.value.attempts == 2
    assert_ours(caught.value)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(head(302, {"Location": "http://[::1", "Content-Length": "0"}), 302, id="redirect to nonsense"),
        pytest.param(head(308, {"Location": "//:x", "Content-Length": "0"}), 308, id="redirect to no host"),
        pytest.param(head(301, {"Content-Length": "0"}), 301, id="redirect to nowhere"),
        pytest.param(
            head(404, {"Content-Type": "application/json; charset=nope", "Content-Length": "2"}) + b"{}",
            404,
            id="unknown character set",
        ),
        pytest.param(
            head(429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 +99999999999999999999", "Content-Length": "0"}),
            429,
            id="impossible date",
        ),
        pytest.param(head(429, {"Retry-After": "nan", "Content-Length": "0"}), 429, id="no number"),
    ],
)
async def test_an_odd_answer_is_still_one_of_our_errors(data: bytes, status: int) -> None:
    """Whatever the headers say, it is our error with the HTTP status."""
    async with RawServer([raw(data)]) as server, connect(server.url) as client:
        with pytest.raises(APIError) as caught:
            await client.instances.list()

    assert caught.value.status == status
    assert_ours(caught.value)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "nonsense"])
async def test_a_body_in_a_coding_nobody_asked_for_is_ours_to_report(coding: str) -> None:
    """A start whose answer is falsely declared as compressed has an unknown outcome; no foreign error is raised."""
    async with RawServer([reply(200, b"garbage", content_encoding=coding)]) as server, connect(server.url) as client:
        with pytest.raises(StartOutcomeUnknown) as caught:
            await client.start("demo")

    assert server.methods == ["POST"]
    assert_ours(caught.value)


async def test_a_body_without_a_length_that_ends_in_a_reset_is_not_complete() -> None:
    """A download that is reset in the middle fails, even if the server sent no length."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(head(200, {"Content-Type": "application/octet-stream"}) + b"the first half")
        await asyncio.sleep(0.02)
        exchange.reset()

    async with RawServer([answer]) as server, connect(server.url) as client:
        with pytest.raises(ConnectionLost):
            await client.output("demo-1", "Energies")


async def test_no_answer_to_a_tls_greeting_is_a_failed_connection() -> None:
    """A server that closes the connection during the TLS handshake saw no request, so it is retried."""
    greeted = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.close()

    plain = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    try:
        async with connect(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}") as client:
            with pytest.raises(ConnectFailed) as caught:
                await client.start("demo")
    finally:
        plain.close()

    assert caught.value.sent is False
    assert caught.value.attempts == greeted == 2
    assert_ours(caught.value)


def _made(kind: type[BaseException]) -> BaseException:
    """An error of the engine without its contents, which ``translate`` must bear."""
    error = kind.__new__(kind)
    error.args = ("words",)
    for name, value in {"message": "words", "status": 500, "_os_error": OSError(1, "words")}.items():
        error.__dict__.setdefault(name, value)
    key = aiohttp.client_reqrep.ConnectionKey("st4sd.example", 443, True, True, None, None, None)
    error.__dict__["_conn_key"] = key
    error.__dict__["_certificate_error"] = error.__dict__["_os_error"]
    error.__dict__["_path"] = "words"
    return error


def _all_of(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind}.union(*(_all_of(sub) for sub in kind.__subclasses__()))


PROVEN_UNSENT = {
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ClientConnectorSSLError",
    "ClientSSLError",
    "ClientConnectorCertificateError",
    "ClientProxyConnectionError",
    "UnixClientConnectorError",
    "ConnectionTimeoutError",
    "ClientHttpProxyError",
    "InvalidURL",
    "InvalidUrlClientError",
    "NonHttpUrlClientError",
}
"""Errors of the engine that come before the first byte of a request."""


@pytest.mark.parametrize(
    "kind",
    sorted((one for one in _all_of(aiohttp.ClientError) if one.__module__.startswith("aiohttp")), key=str),
    ids=lambda kind: kind.__name__,
)
def test_each_error_of_the_engine_claims_no_more_than_it_proves(kind: type[BaseException]) -> None:
    """Only errors from before the first byte prove "never sent"; new classes of aiohttp do not."""
    error = translate_error(_made(kind), "POST", "https://st4sd.example/rs/experiments/demo/start")

    assert isinstance(error, TransportError)
    if kind.__name__ not in PROVEN_UNSENT and not kind.__name__.endswith("RedirectClientError"):
        assert error.sent is None
    assert (error.sent is False) == isinstance(error, ConnectFailed)


def test_a_client_can_be_made_where_no_event_loop_runs() -> None:
    """Making a client touches neither the network nor an event loop."""
    assert "not open" in repr(Client("https://st4sd.example"))
