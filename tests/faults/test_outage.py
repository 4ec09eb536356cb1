"""A service that is away for a minute is waited for, and the user sees it."""

from __future__ import annotations

import logging
import random
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import anyio
import pytest

from st4sd_async import (
    APIError,
    Client,
    Config,
    ConnectFailed,
    ConnectionLost,
    ProgressUpdate,
    RetryPolicy,
    ServerError,
)
from st4sd_async._http.engine import translate_connect_error
from st4sd_async._http.retry import Replay, with_retries
from st4sd_async.local import Html, LocalServer, Reply
from tests.batch.batches import FACTOR, launches, once, run_all, started_numbers
from tests.batch.batches import connect as connect_quickly
from tests.conftest import FakeClock
from tests.tries import combinations, tries

from .clients import StandingClock, connect, settings
from .raw import Answer, Exchange, RawServer, cut, reply

pytestmark = pytest.mark.anyio

RESTART = 60.0
"""Seconds for which a service is away that is restarted."""
RUN = "demo-abcdef-12345678"
PACKAGE = {"result": {"base": {}, "metadata": {"package": {"name": "demo"}, "registry": {}}, "parameterisation": {}}}
CALLS: dict[str, tuple[Callable[[Client], Awaitable[Any]], Any]] = {
    "read": (lambda client: client.instances.list(), []),
    "push": (lambda client: client.push({"metadata": {"package": {"name": "demo"}}}), PACKAGE),
    "tag": (lambda client: client.experiments.tag("demo", ["latest"]), {}),
    "delete": (lambda client: client.delete(RUN), "OK"),
    "open": (lambda client: client._session.services(), {}),
}
"""Calls that may be repeated, and a good answer to each."""


class Meanwhile(FakeClock):
    """Time that passes at once, and in which something happens at one moment."""

    def __init__(self, after: float, event: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__()
        self.moment, self._event = self.time + after, event

    @property
    def has_come(self) -> bool:
        """Whether the moment has passed."""
        return self.time >= self.moment

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self.has_come and self._event is not None:
            event, self._event = self._event, None
            await event()


def away(status: int, clock: Meanwhile, then: Answer, **headers: str) -> Answer:
    """Answer with the proxy's page until the moment has come, then as the service does."""

    async def answer(exchange: Exchange) -> None:
        page = reply(status, b"<html>no backend</html>", media="text/html", **headers)
        await (then if clock.has_come else page)(exchange)

    return answer


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the user was warned of."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def steady_pauses() -> Iterator[None]:
    """The same pauses in each run."""
    state = random.getstate()
    random.seed(1)
    yield
    random.setstate(state)


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_outlasts_a_minute_of_refused_connections(call: str) -> None:
    """With the default settings."""
    verb, answer = CALLS[call]
    server = RawServer([reply(200, answer)], listening=False)
    clock = Meanwhile(RESTART, server.listen)
    async with server, connect(server.url, clock, retry=RetryPolicy()) as client:
        await verb(client)

    assert len(server.requests) == 1
    assert clock.has_come


@pytest.mark.parametrize(("call", "status"), combinations(CALLS, ["502", "503"]))
async def test_a_call_outlasts_a_minute_of_a_proxy_without_a_backend(call: str, status: str) -> None:
    """With the default settings, and with few requests."""
    clock = Meanwhile(RESTART)
    verb, answer = CALLS[call]
    async with (
        RawServer([away(int(status), clock, reply(200, answer))]) as server,
        connect(server.url, clock, retry=RetryPolicy()) as client,
    ):
        await verb(client)

    assert 8 < len(server.requests) < 40


async def test_a_call_outlasts_a_minute_that_it_is_asked_to_wait() -> None:
    """By repeated Retry-After."""
    clock = Meanwhile(RESTART)
    async with (
        RawServer([away(503, clock, reply(200, []), retry_after="59")]) as server,
        connect(server.url, clock, retry=RetryPolicy()) as client,
    ):
        assert await client.instances.list() == []

    assert clock.slept == [59, 59]


async def test_a_start_outlasts_refused_connections_and_is_sent_once() -> None:
    """A refused connection proves that nothing was sent."""
    server = RawServer([reply(200, RUN)], listening=False)
    clock = Meanwhile(RESTART, server.listen)
    async with server, connect(server.url, clock, retry=RetryPolicy()) as client:
        assert str(await client.start("demo")) == RUN

    assert server.methods == ["POST"]


async def test_a_client_is_opened_while_the_service_restarts() -> None:
    """So a batch script may begin at any time."""
    server = RawServer([reply(200, {"cdb-rest": "https://st4sd.example/ds"})], listening=False)
    clock = Meanwhile(RESTART, server.listen)
    async with server, Client(server.url, config=Config(clock=clock)):
        assert len(server.requests) == 1


async def test_a_batch_script_begins_while_the_service_restarts() -> None:
    """Opened in the middle of a spell of 503 and worked off, each launch started once."""
    with LocalServer(speed=FACTOR, slots=1000) as server:
        async with connect_quickly(server) as opened:
            await opened.push(server.example("demo"))
        server.faults.add("* /", Html(503), times=9)
        async with connect_quickly(server) as client, client.batch() as batch:
            await batch.add(launches(4))
            items = await run_all(batch)

            assert all(item.error is None for item in items.values())
            assert await started_numbers(client) == once(4)


@pytest.mark.parametrize("seed", range(tries(100, 20)))
async def test_a_minute_is_outlasted_whatever_the_jitter(seed: int) -> None:
    """Only the time limit ends it, whatever the random pauses; and it does end if the service does not return."""
    random.seed(seed)
    for end in (RESTART, 1e9):
        clock, attempts = Meanwhile(end), 0

        async def operation(clock: Meanwhile = clock) -> str:
            nonlocal attempts
            attempts += 1
            if not clock.has_come:
                raise ConnectFailed("GET", "http://x/y", "Connection refused")
            return "done"

        policy = RetryPolicy()
        given = {
            "policy": policy,
            "replay": Replay.READ,
            "clock": clock,
            "request": "GET x",
            "has_responded": lambda: False,
        }
        if end == RESTART:
            assert await with_retries(operation, **given) == "done"  # type: ignore[arg-type]
        else:
            with pytest.raises(ConnectFailed) as caught:
                await with_retries(operation, **given)  # type: ignore[arg-type]
            assert 110 <= clock.time - 1000 <= 120
            assert caught.value.attempts == attempts < 60


async def test_a_permanent_error_is_told_at_once(clock: FakeClock) -> None:
    """Whatever the policy."""
    answers = [reply(status, {"message": "no"}) for status in (400, 401, 403, 404, 409, 500)]
    async with RawServer(answers) as server, connect(server.url, clock, retry=RetryPolicy()) as client:
        for _ in answers:
            with pytest.raises(APIError):
                await client.instances.list()

    assert clock.slept == []


@pytest.mark.parametrize("status", [302, 403, 407])
async def test_a_proxy_that_refuses_for_good_is_told_at_once(
    status: int, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only 502 and 503 mean that its backend may return."""
    async with RawServer([reply(status, b"no", media="text/html")]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with connect("https://st4sd.invalid", clock, retry=RetryPolicy()) as client:
            with pytest.raises(ConnectFailed, match=f"it refused .{status}.") as caught:
                await client.instances.list()

    assert caught.value.permanent
    assert clock.slept == []


async def test_a_name_that_does_not_resolve_is_given_up_after_10_s(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a host that answered, or a port that refused, is retried for longer."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with connect("http://st4sd.example", clock, retry=RetryPolicy()) as client:
        with pytest.raises(ConnectFailed) as caught:
            await client.instances.list()

    assert caught.value.is_unresolved
    assert caught.value.attempts > 1
    assert clock.time - 1000 <= 10


@pytest.mark.parametrize("returns_after", [5.0, RESTART])
async def test_a_name_that_no_longer_resolves_is_given_10_s_of_its_own(clock: FakeClock, returns_after: float) -> None:
    """Names may come and go while a cluster restarts: what was waited before counts for the service, not for them."""
    policy = RetryPolicy(longest_wait=1)  # so that a pause never reaches beyond the 10 s
    unresolved: list[float] = []

    async def operation() -> str:
        if unresolved and clock.time >= unresolved[0] + returns_after:
            return "done"
        failure = ConnectFailed("GET", "http://x/y", "Name or service not known")
        failure.is_unresolved = clock.time - 1000 > 30
        unresolved.extend([clock.time] * failure.is_unresolved)
        raise failure

    work = with_retries(
        operation, policy=policy, replay=Replay.READ, clock=clock, request="GET x", has_responded=lambda: False
    )
    if returns_after < 10:
        assert await work == "done"
    else:
        with pytest.raises(ConnectFailed, match="Name or service not known"):
            await work
        assert 9 <= clock.time - unresolved[0] <= 10


@pytest.mark.parametrize("has_responded", [False, True])
async def test_a_silent_host_is_waited_for_if_it_has_responded_before(has_responded: bool) -> None:
    """A node that is replaced drops packets for a while; an address at which nothing ever was is mistyped."""
    clock = Meanwhile(RESTART)

    async def operation() -> str:
        if not clock.has_come:
            raise translate_connect_error(aiohttp.ConnectionTimeoutError(), "GET", "http://x/y")
        return "done"

    work = with_retries(
        operation,
        policy=RetryPolicy(),
        replay=Replay.READ,
        clock=clock,
        request="GET http://x/y",
        has_responded=lambda: has_responded,
    )
    if has_responded:
        assert await work == "done"
    else:
        with pytest.raises(ConnectFailed, match="no connection in time"):
            await work
        assert clock.time - 1000 <= 10


async def test_an_answer_that_is_cut_each_time_is_not_fetched_for_minutes(clock: FakeClock) -> None:
    """The service is there; five attempts are enough to say so."""
    async with RawServer([cut()]) as server, connect(server.url, clock, retry=RetryPolicy()) as client:
        with pytest.raises(ConnectionLost, match="cut short") as caught:
            await client.instances.list()

    assert caught.value.attempts == len(server.requests) == 5


@pytest.mark.slow
async def test_many_calls_that_wait_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    """After five seconds, saying which service and why; and `Config.progress` shows it until it is over."""
    updates: list[tuple[float, ProgressUpdate]] = []
    server = RawServer([reply(200, [])], listening=False)
    clock = Meanwhile(RESTART, server.listen)

    def progress(update: ProgressUpdate) -> None:
        updates.append((clock.time - 1000, update))

    async with (
        server,
        connect(server.url, clock, retry=RetryPolicy(), progress=progress) as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(tries(100, 40)):
            tasks.start_soon(client.instances.list)

    (warning,) = warnings(caplog)
    assert re.fullmatch(rf"no answer from {server.url}/rs/ for \d s: Connection refused; trying again", warning)
    assert {update.work for _, update in updates} == {f"connection to {server.url}/rs/"}
    assert {(update.unit, update.total) for _, update in updates} == {("seconds", 0)}
    assert updates[0][0] <= 10
    assert [update.done for _, update in updates] == sorted(update.done for _, update in updates)
    assert {update.problem for _, update in updates[:-1]} == {"Connection refused"}
    assert (updates[-1][1].is_over, updates[-1][1].problem) == (True, "")


async def test_each_outage_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """The second one counts because the service answered in between; a short one does not count."""
    clock = Meanwhile(RESTART)
    async with (
        RawServer([away(503, clock, reply(200, []))]) as server,
        connect(server.url, clock, retry=RetryPolicy()) as client,
    ):
        await client.instances.list()
        assert len(warnings(caplog)) == 1
        clock.moment = clock.time + 1
        await client.instances.list()
        assert len(warnings(caplog)) == 1
        clock.moment = clock.time + RESTART
        await client.instances.list()
        assert len(warnings(caplog)) == 2
        clock.moment = clock.time + 1e9
        for _ in range(3):
            with pytest.raises(ServerError):
                await client.instances.list()

    assert len(warnings(caplog)) == 3


async def test_a_long_wait_ends_at_once_when_it_is_cancelled() -> None:
    """Whatever the service asks for."""
    async with (
        RawServer([reply(503, {"message": "busy"}, retry_after="60")]) as server,
        connect(server.url, StandingClock(), retry=RetryPolicy()) as client,
    ):
        began = time.monotonic()
        with anyio.move_on_after(0.3) as scope:
            await client.instances.list()

    assert scope.cancelled_caught
    assert time.monotonic() - began < 5


async def test_a_short_outage_in_real_time_is_outlasted() -> None:
    """A port that refuses for some tenths of a second."""
    server = RawServer([reply(200, [])], listening=False)
    client = Client(server.url, config=Config(validate=False, retry=RetryPolicy(total=20, longest_wait=0.05)))
    async with server, client, anyio.create_task_group() as tasks:

        async def restart() -> None:
            for _ in range(8):
                await anyio.sleep(0.05)
            await server.listen()

        tasks.start_soon(restart)
        assert await client.instances.list() == []


def test_a_refusal_is_told_from_silence() -> None:
    """By what the operating system says."""
    for code, is_silent in ((111, False), (104, False), (113, True), (101, True), (110, True)):
        error: Any = aiohttp.ClientConnectorError(
            aiohttp.client_reqrep.ConnectionKey("x", 80, False, True, None, None, None), OSError(code, "words")
        )
        assert translate_connect_error(error, "GET", "http://x").is_silent is is_silent


async def test_a_watch_warns_once_within_ten_seconds_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """As a call does; the warning says for how long the service was silent."""
    async with LocalServer(speed=0) as server:

        async def back() -> None:
            server.faults.clear()
            await server.advance(60)

        clock = Meanwhile(RESTART, back)
        async with Client(server.url, api_key=server.api_key, config=settings(clock)) as client:
            await client.push(server.example("demo"))
            run = await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]})
            statuses = []
            async for status in client.watch(run):
                statuses.append(status)
                if len(statuses) == 1:
                    server.faults.add("* /", Reply(503), times=None)

    assert statuses[-1].is_success
    (warning,) = warnings(caplog)
    silence = re.match(r"no answer from \S+ for (\d+) s: HTTP status 503, .*; trying again", warning)
    assert silence, warning
    assert 5 <= int(silence[1]) <= 10


async def test_a_watch_does_not_warn_of_what_is_over_within_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """Single failures between successes are not reported."""
    async with LocalServer(speed=0) as server:
        config = settings(Meanwhile(RESTART, lambda: server.advance(60)))
        async with Client(server.url, api_key=server.api_key, config=config) as client:
            await client.push(server.example("demo"))
            run = await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]})
            server.faults.add("GET /instances/*/status", Reply(503), times=None, every=2)
            assert (await run.wait()).is_success

    assert warnings(caplog) == []
