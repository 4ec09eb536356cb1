"""Time is bounded whatever a server sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, ConnectFailed, RequestTimeout, RetryPolicy, StartOutcomeUnknown
from tests.tries import combinations

from .clients import connect
from .raw import Answer, Exchange, RawServer, head, reply

pytestmark = pytest.mark.anyio

SILENCE = 0.1
"""Read timeout in seconds."""
RUN = "demo-c52cd4-00000001"
OUTPUT = {"creationtime": "1", "description": "", "filename": "a.csv", "filepath": "a.csv", "type": "csv"}


def dripping(lead: bytes, piece: bytes, *, pieces: int = 10_000, end: bytes = b"") -> Answer:
    """Send a small piece again and again, so that the connection is never silent."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(lead)
        for _ in range(pieces):
            await exchange.send(piece)
            await asyncio.sleep(SILENCE / 5)
        await exchange.send(end)

    return answer


CHUNKED = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
ENDLESS = {
    "a body": dripping(head(200, CHUNKED), b"1\r\n \r\n"),
    "a refusal": dripping(head(500, CHUNKED), b"1\r\n \r\n"),
    "interim responses": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a header": dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
}


VERBS: dict[str, tuple[Callable[[Client], Awaitable[Any]], type[Exception]]] = {
    "status": (lambda client: client.status(RUN), RequestTimeout),
    "start": (lambda client: client.start("demo"), StartOutcomeUnknown),
}


@pytest.mark.parametrize(("name", "answer"), combinations(VERBS, ENDLESS))
async def test_an_answer_that_never_ends_is_given_up(name: str, answer: str) -> None:
    """After ten times the read timeout, although the connection was never silent for that long."""
    verb, error = VERBS[name]
    patience = RetryPolicy(attempts=1)
    async with RawServer([ENDLESS[answer]]) as server, connect(server.url, timeout=SILENCE, retry=patience) as client:
        with pytest.raises(error, match="took more than 1 s in all"):
            await verb(client)
        await server.until(lambda: server.open_connections == 0)

    assert len(server.requests) == 1


async def test_a_connection_that_is_not_made_in_time_proves_that_nothing_was_sent() -> None:
    """However short the read timeout: the bound on the whole answer is not reached before there is a connection."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # the handshake of TLS never comes
        writer.close()

    silent = await asyncio.start_server(accept, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with silent, connect(url, timeout=SILENCE, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(ConnectFailed, match="no connection in time") as caught:
            await client.start("demo")

    assert caught.value.sent is False


async def test_a_file_may_take_any_time(tmp_path: Path) -> None:
    """A large file on a slow network takes hours, and something of it arrives all the time."""
    count = 100  # of pieces, which takes twice as long as an answer in memory may
    lead = head(200, {"Content-Type": "application/octet-stream", "Content-Length": str(count)})
    slow = dripping(lead, b"x", pieces=count)

    async def either(exchange: Exchange) -> None:
        await (slow if exchange.seen.path.endswith("Energies") else reply(200, {"Energies": OUTPUT}))(exchange)

    async with RawServer([either]) as server, connect(server.url, timeout=SILENCE) as client:
        (found,) = await client.download_outputs(RUN, tmp_path, strict=True)

    assert found.path.read_bytes() == b"x" * count
