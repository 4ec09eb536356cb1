"""Memory is bounded whatever a server sends."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import APIError, Client, Config, ConfigError, DecodeError, ServerError, StartOutcomeUnknown
from st4sd_async._http.call import Call, nothing
from st4sd_async._http.retry import Replay
from tests.tries import combinations, tries

from .clients import connect
from .exceptions import assert_ours
from .raw import Answer, Exchange, RawServer, head, raw, reply

pytestmark = pytest.mark.anyio

BOUND = 100_000
"""Bytes; far above what is honest in these tests, and above what the client reads at once."""

ENERGIES = {"creationtime": "1", "description": "", "filename": "a.csv", "filepath": "a.csv", "type": "csv"}
"""A key-output."""

Verb = Callable[[Client], Awaitable[Any]]

READS: dict[str, Verb] = {
    "list": lambda client: client.instances.list(),
    "status": lambda client: client.status("demo-c52cd4-00000001"),
    "output": lambda client: client.output("demo-c52cd4-00000001", "Energies"),
}


def bomb(size: int) -> bytes:
    """A JSON text that is a thousandth of its size when packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return (
        packer.compress(b'["') + b"".join(packer.compress(b" " * (1 << 20)) for _ in range(size >> 20)) + packer.flush()
    )


def endless(status: int = 200, media: str = "application/json", *, is_chunked: bool = True) -> Answer:
    """A body that never ends; the server counts what it could send."""

    async def answer(exchange: Exchange) -> None:
        lead = {"Content-Type": media, **({"Transfer-Encoding": "chunked"} if is_chunked else {})}
        await exchange.send(head(status, lead) + (b'1\r\n"\r\n' if is_chunked else b'"'))
        piece = b"x" * 0x4000
        for _ in range(64 << 20 >> 14):
            await exchange.send(b"4000\r\n" + piece + b"\r\n" if is_chunked else piece)
        raise AssertionError("64 MiB were read")

    return answer


ENDLESS = {
    f"{media}, {'chunked' if is_chunked else 'plain'}": endless(media=media, is_chunked=is_chunked)
    for media in ("application/json", "application/octet-stream", "text/html")
    for is_chunked in (True, False)
}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("verb", "encoding"),
    combinations(READS, ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "what"]),
)
async def test_an_encoding_that_was_not_asked_for_is_refused(verb: str, encoding: str) -> None:
    """It is named, and the body is not unpacked; it is not asked for again."""
    answer = reply(200, gzip.compress(b"[]"), content_encoding=encoding)
    async with RawServer([answer]) as server, connect(server.url) as client:
        with pytest.raises(DecodeError, match="which was not requested") as caught:
            await READS[verb](client)

    assert len(server.requests) == 1
    assert_ours(caught.value)


async def test_a_body_that_says_identity_is_read() -> None:
    """That is what was asked for."""
    async with RawServer([reply(200, [], content_encoding="identity")]) as server, connect(server.url) as client:
        assert await client.instances.list() == []


@pytest.mark.slow
async def test_a_packed_bomb_takes_no_memory() -> None:
    """128 MiB of blanks in 128 KiB, or 32 MiB in a sample."""
    packed = bomb(tries(1 << 27, 1 << 25))
    async with (
        RawServer([reply(200, packed, content_encoding="gzip")]) as server,
        connect(server.url) as client,
    ):
        tracemalloc.start()
        with pytest.raises(DecodeError):
            await client.instances.list()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert most < 20 << 20


@pytest.mark.parametrize("encoding", ["gzip", "what"])
async def test_a_packed_answer_to_a_start_is_a_doubt(encoding: str) -> None:
    """It was answered, and the answer is unreadable."""
    answer = reply(200, gzip.compress(b'"demo-c52cd4-00000001"'), content_encoding=encoding)
    async with RawServer([answer]) as server, connect(server.url) as client:
        with pytest.raises(StartOutcomeUnknown, match="which was not requested") as caught:
            await client.start("demo")

    assert server.methods == ["POST"]
    assert_ours(caught.value)


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_packed_refusal_keeps_its_status(status: int) -> None:
    """Its body is not read, and the message says so."""
    answer = reply(status, gzip.compress(json.dumps({"message": "no"}).encode()), content_encoding="gzip")
    async with RawServer([answer]) as server, connect(server.url) as client:
        with pytest.raises(APIError, match="a body in the encoding gzip, which was not requested") as caught:
            await client.status("demo-c52cd4-00000001")

    assert caught.value.status == status
    assert caught.value.detail == {}


async def test_a_packed_page_of_a_proxy_that_has_no_service_is_waited_out() -> None:
    """A 503 is retried in any encoding."""
    answers = [reply(503, gzip.compress(b"<html>"), media="text/html", content_encoding="gzip"), reply(200, [])]
    async with RawServer(answers) as server, connect(server.url) as client:
        assert await client.instances.list() == []


@pytest.mark.parametrize(("verb", "body"), combinations(READS, ENDLESS))
async def test_a_body_without_end_is_cut_at_the_bound(verb: str, body: str) -> None:
    """However it is sent, and whatever its type; the connection is closed."""
    async with (
        RawServer([ENDLESS[body]]) as server,
        connect(server.url, max_body_bytes=BOUND) as client,
    ):
        with pytest.raises(DecodeError, match=rf"more than {BOUND} bytes \(Config.max_body_bytes\)") as caught:
            await READS[verb](client)
        await server.until(lambda: server.open_connections == 0)

    assert len(server.requests) == 1
    assert_ours(caught.value)


async def test_a_length_over_the_bound_is_refused_at_once() -> None:
    """Before the body is read."""
    lead = head(200, {"Content-Type": "application/json", "Content-Length": str(BOUND + 1)})

    async def answer(exchange: Exchange) -> None:
        await exchange.send(lead)
        await exchange.reader.read()

    async with RawServer([answer]) as server, connect(server.url, max_body_bytes=BOUND) as client:
        with pytest.raises(DecodeError, match="more than"):
            await client.instances.list()


@pytest.mark.parametrize("size", [BOUND - 1, BOUND, BOUND + 1])
async def test_the_bound_is_exact(size: int) -> None:
    """A body of exactly the limit is read."""
    body = b"[" + b" " * (size - 2) + b"]"
    async with RawServer([reply(200, body)]) as server, connect(server.url, max_body_bytes=BOUND) as client:
        if size > BOUND:
            with pytest.raises(DecodeError):
                await client.instances.list()
        else:
            assert await client.instances.list() == []


@pytest.mark.parametrize("status", [400, 500])
async def test_a_refusal_without_end_keeps_its_status(status: int) -> None:
    """Its body is not read."""
    async with RawServer([endless(status)]) as server, connect(server.url, max_body_bytes=BOUND) as client:
        with pytest.raises(APIError, match=f"more than {BOUND} bytes") as caught:
            await client.status("demo-c52cd4-00000001")

    assert caught.value.status == status
    assert isinstance(caught.value, ServerError) == (status == 500)


async def test_an_answer_without_end_to_a_start_is_a_doubt() -> None:
    """A good one may have started an instance."""
    async with RawServer([endless()]) as server, connect(server.url, max_body_bytes=BOUND) as client:
        with pytest.raises(StartOutcomeUnknown, match="more than"):
            await client.start("demo")


@pytest.mark.parametrize("answer", [endless(), endless(500), endless(media="text/html")], ids=["json", "500", "page"])
async def test_words_in_place_of_a_download_are_bounded_too(answer: Answer, tmp_path: Path) -> None:
    """A file may be of any size; a refusal may not."""
    outputs = reply(200, {"Energies": ENERGIES})

    async def either(exchange: Exchange) -> None:
        await (answer if exchange.seen.path.endswith("Energies") else outputs)(exchange)

    async with RawServer([either]) as server, connect(server.url, max_body_bytes=BOUND) as client:
        found = await client.download_outputs("demo-c52cd4-00000001", tmp_path)

    assert len(found) == 1
    assert f"more than {BOUND} bytes" in str(found[0])
    assert files(tmp_path) == []


@pytest.mark.parametrize("line", [b"X: " + b"x" * 100_000 + b"\r\n", b"X: y\r\n" * 10_000], ids=["long", "many"])
async def test_headers_are_bounded(line: bytes) -> None:
    """The engine refuses more than it needs."""
    async with RawServer([raw(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n[]")]) as server, connect(server.url) as client:
        with pytest.raises(StartOutcomeUnknown):
            await client._session.send(
                Call("POST", "x", nothing, replay=Replay.ONCE, outcome_unknown_error=StartOutcomeUnknown)
            )


@pytest.mark.parametrize("bad", [0, -1, 1.5, "1"])
def test_the_bound_is_a_number_of_bytes(bad: Any) -> None:
    """Anything else is named."""
    with pytest.raises(ConfigError, match="max_body_bytes"):
        Config(max_body_bytes=bad)
