"""Lists that are read item by item as they arrive, from servers that break."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from st4sd_async import Client, ConnectionLost, DecodeError, RequestTimeout, ServerError
from st4sd_async._api.instances import list_call
from st4sd_async._api.status_list import StatusList
from st4sd_async._batch.observer import instance_list_call
from st4sd_async._http.call import Call
from st4sd_async._http.json_list import MAX_ITEM_BYTES, MAX_LIST_BYTES
from tests.tries import combinations, sample

from .clients import connect, settings
from .exceptions import assert_ours
from .raw import Answer, Exchange, RawServer, close, cut, head, reply

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STATUS = {"experiment-state": "running", "stage-state": "running", "exit-status": "N/A"}
DEFINITION = {"base": {"packages": []}, "metadata": {"package": {"name": "demo", "description": "x" * 1000}}}
COUNT = 200
CHUNKED = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
JSON = {"Content-Type": "application/json"}


def item(number: int) -> bytes:
    """An instance as the service lists it."""
    rest_uid = f"demo-c52cd4-{number:08}"
    return json.dumps({"id": rest_uid, "experiment": DEFINITION, "status": STATUS, "outputs": {}}).encode()


ITEMS = [item(number) for number in range(COUNT)]
LIST = b"[" + b", ".join(ITEMS) + b"]\n"
IDS = [json.loads(one)["id"] for one in ITEMS]

CALLS: dict[str, tuple[Callable[[], Call[Any]], Callable[[Any], Any]]] = {
    "statuses": (lambda: StatusList().call(IDS[5:8]), lambda found: [found.total, list(found.statuses)]),
    "batch": (instance_list_call, lambda found: list(found.instances)),
    "instances": (list_call, lambda found: [one.id for one in found]),
}
"""What reads the list, and the ids in what it returns."""
EXPECTED = {"statuses": [COUNT, IDS[5:8]], "batch": IDS, "instances": IDS}


def chunked(body: bytes, size: int) -> Answer:
    """A response in chunks of this many bytes."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(head(200, CHUNKED))
        for begin in range(0, len(body), size):
            piece = body[begin : begin + size]
            await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await exchange.send(b"0\r\n\r\n")

    return answer


@pytest.fixture(params=list(CALLS))
def kind(request: pytest.FixtureRequest) -> str:
    """What reads the list."""
    name: str = request.param
    return name


async def send(client: Client, kind: str) -> Any:
    """Read the list; return the ids in it."""
    call, ids = CALLS[kind]
    return ids(await client._session.send_once(call()))


WHOLE = {
    "length": reply(200, LIST),
    "small chunks": chunked(LIST, 1000),
    "chunks": chunked(LIST, 70_001),
    "one chunk": chunked(LIST, len(LIST)),
}


@pytest.mark.parametrize(("kind", "answer"), combinations(CALLS, WHOLE))
async def test_a_list_is_read_however_it_is_sent(kind: str, answer: str) -> None:
    """With or without a length, in any pieces."""
    async with RawServer([WHOLE[answer]]) as server, connect(server.url) as client:
        assert await send(client, kind) == EXPECTED[kind]


async def test_a_list_is_read_over_the_transport_of_a_user(kind: str) -> None:
    """As over the own one."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=JSON, content=LIST))
    async with Client("http://127.0.0.1", config=settings(transport=lambda: transport)) as client:
        assert await send(client, kind) == EXPECTED[kind]


async def reset_later(exchange: Exchange) -> None:
    """Reset the connection once the client has read what was sent."""
    await asyncio.sleep(0.01)
    exchange.reset()


CUT = {
    f"{name}, then {end}": cut(body, missing=1000, then=then)
    for end, then in (("close", close()), ("reset", reset_later))
    for name, body in (("half", LIST[: len(LIST) // 2]), ("all but the end of the response", LIST))
}


@pytest.mark.parametrize(("kind", "answer"), combinations(CALLS, CUT))
async def test_a_cut_list_is_a_lost_connection(kind: str, answer: str) -> None:
    """Even if all of the list has arrived; the next one is read."""
    async with (
        RawServer([CUT[answer], reply(200, LIST)]) as server,
        connect(server.url) as client,
    ):
        with pytest.raises(ConnectionLost) as caught:
            await send(client, kind)
        assert await send(client, kind) == EXPECTED[kind]

    assert_ours(caught.value)


async def test_a_cut_text_that_is_no_list_is_a_lost_connection_too(kind: str) -> None:
    """What is not a list is read like any other body."""
    async with RawServer([cut(b"x" * 1_000_000, missing=10)]) as server, connect(server.url) as client:
        with pytest.raises(ConnectionLost):
            await send(client, kind)


@pytest.mark.parametrize("kind", sample(CALLS, 2))
async def test_a_list_that_trickles_for_ever_is_given_up(kind: str) -> None:
    """After ten times the read timeout, although there was never silence."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(head(200, CHUNKED) + b"1\r\n[\r\n")
        while True:
            await exchange.send(b"2\r\n1,\r\n")
            await asyncio.sleep(0.01)

    async with RawServer([answer]) as server, connect(server.url, timeout=0.1) as client:
        with pytest.raises(RequestTimeout):
            await send(client, kind)


LONG = b" " * 100_000
BAD = {
    "an object": (JSON, json.dumps({"message": "x" * 100_000}).encode()),
    "a page": ({"Content-Type": "text/html"}, b"<html>" + LONG),
    "a page as JSON": (JSON, b"<html>" + LONG),
    "blanks": (JSON, LONG),
    "half a list": (JSON, LIST[: len(LIST) // 2]),
    "something after it": (JSON, LIST + b"x"),
    "an error in the middle": (JSON, LIST.replace(b'"id": "demo-c52cd4-00000100"', b'"id": demo')),
    "an error at the end": (JSON, LIST.replace(ITEMS[-1], ITEMS[-1][:-3] + b"]")),
    "other items": (JSON, b"[" + b", ".join([b'"x"' + LONG] * 3) + b"]"),
}


@pytest.mark.parametrize(("kind", "what"), combinations(CALLS, BAD))
async def test_what_is_not_a_list_of_instances_is_an_error(kind: str, what: str) -> None:
    """The error has the beginning of the body, and the next list is read."""
    headers, body = BAD[what]
    bad = reply(200, body, media=headers["Content-Type"])
    async with RawServer([bad, reply(200, LIST)]) as server, connect(server.url) as client:
        with pytest.raises(DecodeError, match=r"HTML instead of JSON|something other than the expected") as caught:
            await send(client, kind)
        assert await send(client, kind) == EXPECTED[kind]

    assert body.decode().startswith(caught.value.body)
    assert_ours(caught.value)


async def test_a_long_refusal_keeps_its_words(kind: str) -> None:
    """It is not read as a list."""
    refusal = reply(500, {"message": "broken", "more": "x" * 100_000})
    async with RawServer([refusal]) as server, connect(server.url) as client:
        with pytest.raises(ServerError, match="broken"):
            await send(client, kind)


async def test_a_list_that_is_too_long_is_refused_at_once() -> None:
    """If only wanted items are kept, ``Config.max_body_bytes`` does not limit the list; another number does."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(head(200, {**JSON, "Content-Length": str(MAX_LIST_BYTES + 1)}))
        await exchange.reader.read()

    calls: list[Call[Any]] = [StatusList().call([]), instance_list_call()]
    for call in calls:
        async with (
            RawServer([reply(200, LIST), answer]) as server,
            connect(server.url, max_body_bytes=len(LIST) // 2) as client,
        ):
            await client._session.send_once(call)
            with pytest.raises(DecodeError, match=f"more than {MAX_LIST_BYTES} bytes"):
                await client._session.send_once(call)
            await server.until(lambda: server.open_connections == 0)


async def test_an_item_that_never_ends_is_given_up() -> None:
    """It is the only one in memory, so it may not be long."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(head(200, CHUNKED) + b'3\r\n[["\r\n')
        for _ in range(4 * MAX_ITEM_BYTES >> 16):
            await exchange.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        raise AssertionError("all was read")

    async with RawServer([answer]) as server, connect(server.url) as client:
        with pytest.raises(DecodeError, match=f"an item of more than {MAX_ITEM_BYTES} bytes"):
            await client._session.send_once(StatusList().call([]))


async def test_a_cancelled_list_leaves_nothing_behind(kind: str) -> None:
    """Its connection is closed, and the next list is read."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(head(200, {**JSON, "Content-Length": str(len(LIST))}) + LIST[:-1000])
        await exchange.reader.read()

    async with RawServer([answer, reply(200, LIST)]) as server, connect(server.url) as client:
        task = asyncio.create_task(send(client, kind))
        await server.until(lambda: len(server.requests) == 1)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda: server.open_connections == 0)

        assert await send(client, kind) == EXPECTED[kind]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
async def test_the_memory_of_watching_follows_what_is_watched() -> None:
    """A list of 40 MB of which ten runs are watched takes little, and nothing is kept afterwards."""
    template = (
        item(0).replace(b"00000000", b"%08d").replace(b'"outputs": {}', b'"outputs": {"x": "%b"}' % (b"x" * 2_700))
    )

    def pieces() -> Iterator[bytes]:
        for first in range(0, 10_000, 100):
            yield (b", " if first else b"[") + b", ".join(template % number for number in range(first, first + 100))
        yield b"]"

    async def answer(exchange: Exchange) -> None:
        if exchange.seen.path.endswith("/status"):
            await reply(200, STATUS)(exchange)
        else:
            await exchange.send(head(200, CHUNKED))
            for piece in pieces():
                await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await exchange.send(b"0\r\n\r\n")

    async with RawServer([answer]) as server:
        done = await anyio.run_process([sys.executable, "-m", "tests.faults.long_list_child", server.url], check=False)

    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result["grown"] < 24 << 20
    assert result["kept"] == 0


async def test_only_the_instances_of_a_filter_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """All others are neither parsed nor warned of; what is not an object is left out with a warning."""
    others = [b'{"id": "../x"}', b'{"status": 1}', b"1"]
    body = LIST.replace(b"]\n", b", " + b", ".join(others) + b"]\n")
    async with RawServer([reply(200, body)]) as server, connect(server.url, max_body_bytes=len(LIST) // 2) as client:
        found = await client._session.send(list_call(lambda raw: raw.get("id") in IDS[5:8]))

    assert [one.id for one in found] == IDS[5:8]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"left out 1 of {COUNT + len(others)} instances")
