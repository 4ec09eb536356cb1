"""A transport, headers and hooks of the user's: none makes a start happen twice, or shows a secret."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from st4sd_async import (
    APIError,
    Client,
    Config,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    RequestEvent,
    RequestTimeout,
    ResponseEvent,
    RetryEvent,
    RetryPolicy,
    StartOutcomeUnknown,
    TransportError,
)
from st4sd_async._http.call import Call, nothing
from tests.conftest import FakeClock

from .clients import SILENCE, connect, settings
from .exceptions import assert_ours
from .marks import KEY, all_texts, logged
from .raw import Answer, RawServer, close, cut, head, never, raw, reply, sign_in
from .test_start_once import DOUBTFUL, PATIENT

pytestmark = pytest.mark.anyio

RUN = "demo-c52cd4-00000001"
URL = "https://st4sd.example"
SECRET = "QHEADZ-secret-value"


def over_httpx() -> httpx.AsyncHTTPTransport:
    """Without certificates, which would be read in the event loop."""
    return httpx.AsyncHTTPTransport(verify=False)


class Subclass(httpx.AsyncHTTPTransport):
    """A transport that may do anything."""


class Bridge:
    """A transport that is no subclass, as a bridge to another library."""

    def __init__(self, error: Exception) -> None:
        self.error, self.calls, self.is_closed = error, 0, False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        raise self.error

    async def aclose(self) -> None:
        self.is_closed = True


def mock(handler: Callable[[httpx.Request], httpx.Response]) -> Callable[[], httpx.MockTransport]:
    return lambda: httpx.MockTransport(handler)


"""Exactly once."""


@pytest.mark.parametrize("answer", DOUBTFUL)
async def test_a_start_over_httpx_that_may_have_arrived_is_sent_once(answer: Answer, clock: FakeClock) -> None:
    """The same failures as over our own transport, with the same result."""
    answers = [answer, reply(200, "demo-second")]
    changes: dict[str, Any] = {"retry": PATIENT, "timeout": SILENCE, "transport": over_httpx}
    async with RawServer(answers) as server, connect(server.url, clock, **changes) as client:
        with pytest.raises(StartOutcomeUnknown) as caught:
            await client.start("demo", {"variables": {"scale": 2}})

    assert server.methods == ["POST"]
    assert clock.slept == []
    assert_ours(caught.value)


async def test_a_start_over_httpx_is_repeated_while_nobody_listens(clock: FakeClock) -> None:
    """httpx raises a connect error before it writes, which proves that nothing was sent."""
    async with RawServer([reply(200, RUN)], listening=False) as server:
        clock.meanwhile = server.listen
        async with connect(server.url, clock, retry=PATIENT, transport=over_httpx) as client:
            run = await client.start("demo")

    assert (run.id, server.methods, len(clock.slept)) == (RUN, ["POST"], 1)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.PoolTimeout("busy"),
        ConnectFailed("POST", "https://elsewhere.example", "refused"),
        ConnectionRefusedError("refused"),
        TimeoutError(),
        KeyError("mistake"),
        ExceptionGroup("several", [ValueError("one")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_error_of_another_transport_proves_that_a_start_was_not_sent(
    error: Exception, clock: FakeClock
) -> None:
    """A bridge may raise the same for a broken connection, and an application that of a request of its own."""
    bridge = Bridge(error)
    async with connect(URL, clock, retry=PATIENT, transport=lambda: bridge) as client:
        with pytest.raises(StartOutcomeUnknown):
            await client.start("demo")

    assert (bridge.calls, clock.slept, bridge.is_closed) == (1, [], True)


async def test_a_subclass_of_a_transport_of_httpx_proves_nothing(clock: FakeClock) -> None:
    """It may repeat requests, or send them elsewhere first."""
    async with (
        RawServer([reply(200, RUN)], listening=False) as server,
        connect(server.url, clock, retry=PATIENT, transport=lambda: Subclass(verify=False)) as client,
    ):
        with pytest.raises(StartOutcomeUnknown):
            await client.start("demo")

    assert clock.slept == []


async def test_the_failure_of_an_application_in_this_process_leaves_a_start_in_doubt(clock: FakeClock) -> None:
    """It had the request, even if it raises a connect error of its own."""

    async def start(request: Request) -> Response:
        started.append(await request.json())
        raise httpx.ConnectError("its database is down")

    started: list[Any] = []
    app = Starlette(routes=[Route("/rs/experiments/{name}/start", start, methods=["POST"])])
    async with connect(URL, clock, retry=PATIENT, transport=lambda: httpx.ASGITransport(app)) as client:
        with pytest.raises(StartOutcomeUnknown, match="its database is down"):
            await client.start("demo")

    assert len(started) == 1


async def test_a_cancelled_start_over_another_transport_is_reported() -> None:
    """It counts as sent from the moment that the transport has it."""
    arrived = asyncio.Event()

    class Silent(Bridge):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            arrived.set()
            await asyncio.sleep(0.02)
            return httpx.Response(200, json=RUN)

    async with connect(URL, transport=lambda: Silent(ValueError())) as client:
        task = asyncio.create_task(client.start("demo"))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert RUN in "".join(caught.value.__notes__)


"""Other requests."""


async def test_a_mock_transport_answers() -> None:
    """With the body, the headers and the credential of a request."""

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=RUN)

    seen: list[httpx.Request] = []
    config = settings(transport=mock(answer))
    async with Client(URL, api_key="fake-key-0001", config=config) as client:
        run = await client.start("demo", {"variables": {"scale": 2}})

    assert run.id == RUN
    assert str(seen[0].url) == f"{URL}/rs/experiments/demo/start"
    assert seen[0].headers["authorization"] == "Bearer fake-key-0001"
    assert b'"scale":2' in seen[0].content


async def test_reads_are_repeated_after_network_errors_only(clock: FakeClock) -> None:
    """An exception that is no network error is a mistake in the transport, and is reported at once with its cause."""

    def answer(request: httpx.Request) -> httpx.Response:
        error = errors.pop(0)
        if error is not None:
            raise error
        return httpx.Response(200, json=[])

    errors: list[Exception | None] = [httpx.ReadError("reset"), httpx.ConnectError("refused"), None]
    async with connect(URL, clock, retry=PATIENT, transport=mock(answer)) as client:
        await client.instances.list()
        assert (len(clock.slept), errors) == (2, [])

        errors.append(mistake := AssertionError("no such route"))
        with pytest.raises(TransportError, match=r"Config\.transport raised AssertionError: no such route") as caught:
            await client.instances.list()

    assert (caught.value.__cause__, caught.value.permanent, len(clock.slept)) == (mistake, True, 2)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (close(), ConnectionLost),
        (never(), RequestTimeout),
        (cut(b"[{"), ConnectionLost),
        (raw(head(200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}) + b"x"), DecodeError),
        (reply(200, [{"name": "x" * 2000}]), DecodeError),
        (raw(head(302, {"Location": "http://[::1", "Content-Length": "0"})), APIError),
        (sign_in(), APIError),
    ],
    ids=["closed", "silent", "cut", "encoded", "too long", "redirect", "sign-in"],
)
async def test_responses_over_httpx_mean_the_same(answer: Answer, expected: type[Exception]) -> None:
    """The limits and the errors are those of our own transport, and no error holds the request."""
    errors = []
    for transport in (None, over_httpx):
        config = settings(transport=transport, timeout=SILENCE, max_body_bytes=1000, retry=RetryPolicy(attempts=1))
        async with RawServer([answer]) as server, Client(server.url, api_key="fake-key-0001", config=config) as client:
            with pytest.raises(expected) as caught:
                await client.instances.list()
        errors.append(caught.value)
        assert "fake-key-0001" not in all_texts(caught.value)
        assert_ours(caught.value)

    assert type(errors[0]) is type(errors[1])


async def test_downloads_stream_over_an_application() -> None:
    """A file without a length is whole at its end, because an application ends its bodies explicitly."""

    async def file(request: Request) -> Response:
        async def pieces() -> Any:
            for number in range(3):
                yield f"{number}\n".encode()

        return StreamingResponse(pieces(), media_type="application/octet-stream")

    async def handler(headers: Any, body: Any) -> None:
        arrived.extend([piece async for piece in body])

    arrived: list[bytes] = []
    app = Starlette(routes=[Route("/rs/file", file)])
    async with connect(URL, transport=lambda: httpx.ASGITransport(app)) as client:
        await client._session.stream(Call("GET", "file", nothing), handler)

    assert b"".join(arrived) == b"0\n1\n2\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"transport": httpx.MockTransport(lambda _: httpx.Response(200))},
            r"pass a function that returns it, such as",
        ),
        ({"transport": 3}, "transport must be a function or None, not 3"),
        ({"on_request": "log"}, "on_request must be a function or None, not 'log'"),
        ({"on_retry": asyncio.sleep}, "on_retry must be a plain function, not an async one"),
        ({"headers": {"Authorization": SECRET}}, "'Authorization': give api_key or auth_token instead"),
        ({"headers": {"host": SECRET}}, "headers must not contain 'host': the client sets it"),
        ({"headers": {"X Y": SECRET}}, "headers must have valid names, not 'X Y'"),
        ({"headers": {"X": f"{SECRET}\r\nY: z"}}, "the value of the header 'X' must be a string of printable ASCII"),
        ({"headers": {"X": SECRET, "x": "1"}}, "headers must have different names"),
        ({"headers": [SECRET]}, "headers must be a mapping of names to values, not list"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
async def test_an_invalid_setting_is_named(given: dict[str, Any], message: str) -> None:
    """The message has no value of a header."""
    with pytest.raises(ConfigError, match=message) as caught:
        Config(**given)

    assert SECRET not in str(caught.value)


async def test_a_factory_must_return_an_asynchronous_transport() -> None:
    """A client of httpx, or its blocking transport, is none."""
    client = Client(URL, config=settings(transport=object))

    with pytest.raises(ConfigError, match=r"must return a httpx\.AsyncBaseTransport, not an object of type 'object'"):
        await client.open()


"""Headers."""


async def test_headers_are_sent_only_where_credentials_are_sent() -> None:
    """To the deployment, and to no other origin."""
    async with (
        RawServer([reply(200, [])]) as server,
        RawServer([reply(200, [])]) as other,
        Client(server.url, config=settings(headers={"X-Tenant": SECRET})) as client,
    ):
        await client.instances.list()
        await client._session.send(Call("GET", "files/", nothing, base_url=f"{other.url}/"))

    assert server.requests[0].headers["x-tenant"] == SECRET
    assert SECRET not in f"{other.requests}"
    with pytest.raises(ConfigError, match="in clear text: use https"):
        Client("http://st4sd.example", config=settings(headers={"X-Tenant": SECRET}))


@pytest.mark.parametrize("status", [200, 302, 400, 500])
async def test_values_of_headers_are_masked(status: int, watched: pytest.LogCaptureFixture) -> None:
    """In messages, logs, reprs, copies and pickles, even if the service quotes them."""
    config = settings(headers={"X-Tenant": SECRET}, retry=RetryPolicy(attempts=1))
    lead = {"Location": f"https://login.example/?{SECRET}", "Content-Length": str(len(SECRET)), "X-Echo": SECRET}
    async with (
        RawServer([raw(head(status, lead) + SECRET.encode())]) as server,
        Client(server.url, config=config) as client,
    ):
        with pytest.raises((APIError, DecodeError)) as caught:
            await client.instances.list()
        logging.getLogger("st4sd_async").warning("quoted: %s", SECRET)
        shown = f"{config!r} {client!r} {replace(config, timeout=3)!r} {asdict(config)!r} {copy.deepcopy(config)!r}"

    assert SECRET not in shown + all_texts(caught.value) + logged(watched)
    assert "X-Tenant" in shown
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(config)
    assert pickle.loads(pickle.dumps(Config())) == Config()
    assert hash(Config()) == hash(Config())


"""Hooks."""


async def test_hooks_see_requests_responses_and_retries(clock: FakeClock) -> None:
    """Each request has one event at its beginning and one at its end, which name one another."""
    events: list[Any] = []
    hooks: dict[str, Any] = dict.fromkeys(("on_request", "on_response", "on_retry"), events.append)
    answers = [reply(503, b""), close(), reply(200, [])]
    config = settings(clock, retry=PATIENT, **hooks)
    async with RawServer(answers) as server, Client(server.url, api_key=KEY.replace('"', ""), config=config) as client:
        await client.instances.list()

    kinds = [RequestEvent, ResponseEvent, RetryEvent]
    assert [type(one) for one in events] == [*kinds, *kinds, *kinds[:2]]
    assert [one.attempt for one in events[::3]] == [1, 2, 3]
    assert [(one.status, type(one.error)) for one in events[1::3]] == [
        (503, type(None)),
        (None, ConnectionLost),
        (200, type(None)),
    ]
    assert all(end.request is begin and end.seconds > 0 for begin, end in zip(events[::3], events[1::3], strict=True))
    assert [(one.attempt, one.pause) for one in events[2::3]] == list(enumerate(clock.slept, 1))
    assert {one.url for one in (*events[::3], *events[2::3])} == {f"{server.url}/rs/instances/"}
    assert "QKEYX" not in "".join(map(all_texts, events))


async def test_a_hook_that_raises_loses_no_start(watched: pytest.LogCaptureFixture, clock: FakeClock) -> None:
    """The error is logged, and the start goes on."""

    def broken(event: object) -> None:
        raise ValueError("broken hook")

    hooks: dict[str, Any] = dict.fromkeys(("on_request", "on_response", "on_retry"), broken)
    async with RawServer([reply(200, RUN)], listening=False) as server:
        clock.meanwhile = server.listen
        async with connect(server.url, clock, retry=PATIENT, **hooks) as client:
            run = await client.start("demo")

    assert (run.id, server.methods) == (RUN, ["POST"])
    assert "a hook of the client raised an error at RequestEvent" in watched.text
    assert "broken hook" in watched.text


async def test_a_cancelled_request_has_an_end() -> None:
    """Without a status and without an error, so that a span can be closed."""
    events: list[ResponseEvent] = []
    async with RawServer([never()]) as server, connect(server.url, on_response=events.append) as client:
        task = asyncio.create_task(client.instances.list())
        await server.until(lambda: bool(server.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert [(one.status, one.error) for one in events] == [(None, None)]
