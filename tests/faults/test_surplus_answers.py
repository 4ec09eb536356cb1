"""No answer is taken for that to another request, though a server or a proxy sends one too many."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
import trustme

from st4sd_async import Client, RetryPolicy, StartOutcomeUnknown
from tests.tries import combinations

from .clients import connect, settings
from .exceptions import assert_ours
from .raw import Answer, Exchange, RawServer, encoded, head, reply

pytestmark = pytest.mark.anyio

INPUTS = {"inputs": [{"filename": "a.csv", "content": "x"}]}


def uid(number: int, package: str = "demo") -> str:
    """A rest-uid of a package."""
    return f"{package}-c52cd4-{number:08}"


def whole(body: Any) -> bytes:
    """A whole answer."""
    data = encoded(body)
    return head(200, {"Content-Type": "application/json", "Content-Length": str(len(data))}) + data


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority."""
    return trustme.CA()


@pytest.fixture(scope="module")
def certified(authority: trustme.CA) -> ssl.SSLContext:
    """TLS of a server with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["plain", "tls"])
def served(request: pytest.FixtureRequest, certified: ssl.SSLContext) -> Callable[[list[Answer]], RawServer]:
    """Makes a server, with TLS and without."""
    return RawServer if request.param == "plain" else lambda answers: RawServer(answers, tls=certified)


@pytest.fixture
def connected(authority: trustme.CA) -> Callable[[RawServer], Client]:
    """Makes a client that trusts the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return lambda server: Client(server.url, config=settings(verify=context))


async def with_the_answer(exchange: Exchange, answer: bytes, surplus: bytes) -> None:
    """Both at once."""
    await exchange.send(answer + surplus)


async def after_the_headers(exchange: Exchange, answer: bytes, surplus: bytes) -> None:
    """The end of the answer and the surplus at once, when the client reads the body already."""
    lead, body = answer.split(b"\r\n\r\n")
    await exchange.send(lead + b"\r\n\r\n")
    await asyncio.sleep(0.02)
    await exchange.send(body + surplus)


async def a_moment_later(exchange: Exchange, answer: bytes, surplus: bytes) -> None:
    """The surplus comes while the connection is idle."""
    await exchange.send(answer)
    await asyncio.sleep(0.02)
    await exchange.send(surplus)


MOMENTS = [with_the_answer, after_the_headers, a_moment_later]
Moment = Callable[[Exchange, bytes, bytes], Awaitable[None]]


def doubled(moment: Moment, body: Callable[[int], Any], surplus: Callable[[int], Any]) -> Answer:
    """Answer each request, counted from 0, and say one thing more; only the first time."""
    count = iter(range(1000))

    async def answer(exchange: Exchange) -> None:
        number = next(count)
        if number:
            await exchange.send(whole(body(number)))
        else:
            await moment(exchange, whole(body(0)), whole(surplus(0)))

    return answer


@pytest.mark.parametrize("moment", MOMENTS)
async def test_no_read_gets_the_answer_to_another(
    moment: Moment, served: Callable[[list[Answer]], RawServer], connected: Callable[[RawServer], Client]
) -> None:
    """If the surplus answer arrives before the next request, each request gets its own answer."""
    answer = doubled(moment, lambda n: {f"out{n}": {}}, lambda _: {"surplus": {}})
    async with served([answer]) as server, connected(server) as client:
        found = []
        for _ in range(4):
            found += list(await client.outputs("demo"))
            await asyncio.sleep(0.04)

    assert found == ["out0", "out1", "out2", "out3"]
    assert [seen.connection for seen in server.requests] == [0, 1, 1, 1]


async def test_what_waits_in_the_socket_is_noticed_too(
    served: Callable[[list[Answer]], RawServer], connected: Callable[[RawServer], Client]
) -> None:
    """Bytes that the event loop had no turn to read yet end a connection as well as those that it has read."""
    held: list[Exchange] = []

    async def answer(exchange: Exchange) -> None:
        held.append(exchange)
        await exchange.send(whole({f"out{len(held)}": {}}))

    async with served([answer]) as server, connected(server) as client:
        assert list(await client.outputs("demo")) == ["out1"]
        held[0].writer.write(whole({"surplus": {}}))
        assert list(await client.outputs("demo")) == ["out2"]

    assert [seen.connection for seen in server.requests] == [0, 1]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_no_start_gets_the_answer_to_another(
    moment: Moment, served: Callable[[list[Answer]], RawServer], connected: Callable[[RawServer], Client]
) -> None:
    """A proxy that sends the first start twice gives two answers; each later start gets its own id."""
    async with served([doubled(moment, uid, lambda _: uid(99))]) as server, connected(server) as client:
        found = []
        for _ in range(4):
            found.append((await client.start("demo")).id)
            await asyncio.sleep(0.04)

    assert found == [uid(0), uid(1), uid(2), uid(3)]


async def test_no_start_gets_an_answer_that_came_while_it_was_in_flight(
    served: Callable[[list[Answer]], RawServer], connected: Callable[[RawServer], Client]
) -> None:
    """A surplus answer that comes after the next start was sent reaches nobody: each start has its own connection."""
    held: list[Exchange] = []

    async def answer(exchange: Exchange) -> None:
        number = len(held)
        held.append(exchange)
        if number:
            with suppress(OSError, AttributeError):  # it is closed already
                await held[number - 1].send(whole(uid(90 + number)))
            await asyncio.sleep(0.02)
        await exchange.send(whole(uid(number)))

    async with served([reply(200, []), answer]) as server, connected(server) as client:
        await client.instances.list()
        found = [(await client.start("demo")).id for _ in range(4)]

    assert found == [uid(0), uid(1), uid(2), uid(3)]
    assert len({seen.connection for seen in server.requests}) == 5


async def test_a_connection_at_its_end_is_not_used(
    served: Callable[[list[Answer]], RawServer], connected: Callable[[RawServer], Client]
) -> None:
    """Also if the event loop had no turn to notice the end: a change is sent once, on another connection."""
    held: list[Exchange] = []

    async def answer(exchange: Exchange) -> None:
        held.append(exchange)
        await exchange.send(whole({}))

    async with served([answer]) as server, connected(server) as client:
        await client.outputs("demo")
        held[0].writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        await client.with_options(retry=RetryPolicy(attempts=1)).outputs("demo")

    assert [seen.connection for seen in server.requests] == [0, 1]


NOT_OF_DEMO = [
    "demo-1",
    "other-c52cd4-00000001",
    "demo-two-c52cd4-00000001",
    "demo2-c52cd4-00000001",
    "demo-c52cd4-00000001/../x",
    "../../x",
    "demo-c52cd4-00000001\n",
    "",
]


@pytest.mark.parametrize(
    ("identifier", "answer"), combinations(["demo", "demo:latest", "demo@sha256xc52cd4"], NOT_OF_DEMO)
)
async def test_an_answer_that_is_no_id_of_the_package_is_a_doubt(identifier: str, answer: str) -> None:
    """An instance may have been started, but no caller gets another's run."""
    async with RawServer([reply(200, answer)]) as server, connect(server.url) as client:
        with pytest.raises(StartOutcomeUnknown) as caught:
            await client.start(identifier, INPUTS)

    assert server.methods == ["POST"]
    assert str(caught.value).isprintable()
    assert_ours(caught.value)


@pytest.mark.parametrize("answer", ["other-c52cd4-00000001", "demo-1"])
async def test_a_runtime_policy_may_choose_another_package(answer: str) -> None:
    """So the id need only have the form of a rest-uid."""
    async with RawServer([reply(200, answer)]) as server, connect(server.url) as client:
        run = await client.start("demo", {"runtimePolicy": {"name": "prefer-surrogate"}})

    assert run.id == answer


@pytest.mark.parametrize(("answer", "is_good"), [("lambda-0a1b2c3d", True), ("../../x", False), ("", False)])
async def test_the_answer_to_a_lambda_start_is_a_rest_uid(answer: str, is_good: bool) -> None:
    """The names of such runs are the service's own, so only the form is checked."""
    async with RawServer([reply(200, answer)]) as server, connect(server.url) as client:
        if is_good:
            run = await client.start_lambda({"components": []}, validate=False)
            assert run.id == answer
        else:
            with pytest.raises(StartOutcomeUnknown):
                await client.start_lambda({"components": []}, validate=False)


@pytest.mark.parametrize(
    ("package", "answer"),
    [
        ("My_Own demo.v2", "My-Own-demo.v2-c52cd4-0000000a"),
        ("My_Own demo.v2", "my-own-demo.v2-c52cd4-0000000a"),
        ("a-b", "a-b-c52cd4-0000000a"),
        ("x", "x-c52cd4-zzzzzzzz"),
    ],
)
async def test_no_honest_id_is_refused(package: str, answer: str) -> None:
    """Whatever the case of letters, and with dashes where the name has spaces and underscores."""
    async with RawServer([reply(200, answer)]) as server, connect(server.url) as client:
        run = await client.start(package)

    assert run.id == answer


@pytest.mark.slow
async def test_a_hundred_starts_at_once_get_their_own_ids() -> None:
    """Of a proxy that answers each of them twice."""
    count = iter(range(1000))

    async def answer(exchange: Exchange) -> None:
        number = next(count)
        await exchange.send(whole(uid(number)) + whole(uid(500 + number)))

    async with RawServer([answer]) as server, connect(server.url) as client:
        found: list[str] = []

        async def start() -> None:
            found.append((await client.start("demo")).id)

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(start)

    assert sorted(found) == [uid(number) for number in range(100)]
    assert len(server.requests) == 100
