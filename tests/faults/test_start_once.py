"""A start reaches the service at most once, unless the service proves that it did nothing with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import pytest

from st4sd_async import (
    APIError,
    BadRequest,
    Client,
    Conflict,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    RateLimited,
    RetryPolicy,
    StartOutcomeUnknown,
    Unauthorized,
)
from st4sd_async._http.call import Call, nothing
from st4sd_async._http.retry import Replay
from tests.conftest import FakeClock
from tests.tries import sample

from .clients import SILENCE, connect, settings
from .exceptions import assert_ours
from .raw import SIGN_IN, Answer, RawServer, close, cut, cut_chunk, head, never, raw, reply, reset, sign_in, then_close

pytestmark = pytest.mark.anyio

PATIENT = RetryPolicy(attempts=5)
"""Would repeat a start four times, if it were allowed to."""

HTML = b"<html><body>Gateway</body></html>"


def _failure(status: int) -> Answer:
    return reply(status, HTML, media="text/html")


DOUBTFUL = [
    pytest.param(close(), id="closed"),
    pytest.param(reset(), id="reset"),
    pytest.param(never(), id="never answered"),
    pytest.param(cut(), id="body cut short"),
    pytest.param(cut(then=reset()), id="body reset"),
    pytest.param(cut_chunk(), id="chunk cut short"),
    pytest.param(raw(b"SSH-2.0\r\n"), id="not HTTP"),
    *(
        pytest.param(_failure(status), id=str(status))
        for status in sample((500, 501, 502, 503, 504, 507, 520, 524, 408), 5)
    ),
    pytest.param(reply(503, {"message": "busy"}, retry_after="1"), id="503 with Retry-After"),
    pytest.param(reply(500, {"message": "cannot create the ConfigMap"}), id="500 with a message"),
    pytest.param(reply(200, b"demo-c52cd4-00000001"), id="200 not JSON"),
    pytest.param(reply(200, b"\xff\xfe\x00"), id="200 not text"),
    pytest.param(reply(200, {"uid": "demo-c52cd4-00000001"}), id="200 another shape"),
    pytest.param(reply(200, b'""'), id="200 empty id"),
    pytest.param(reply(200, SIGN_IN, media="text/html"), id="200 a page"),
    pytest.param(reply(204, b""), id="204"),
]
"""What can become of a start that the server has read, without telling what it did."""


@pytest.mark.parametrize("answer", DOUBTFUL)
async def test_a_start_that_may_have_arrived_is_sent_once(answer: Answer, clock: FakeClock) -> None:
    """The service sees one POST, and the caller gets `StartOutcomeUnknown` at once."""
    answers = [answer, reply(200, "demo-second")]
    async with RawServer(answers) as server, connect(server.url, clock, retry=PATIENT, timeout=SILENCE) as client:
        with pytest.raises(StartOutcomeUnknown) as caught:
            await client.start("demo", {"variables": {"scale": 2}})

    assert server.methods == ["POST"]
    assert clock.slept == []
    assert "demo" in str(caught.value)
    assert_ours(caught.value)


@pytest.mark.parametrize("answer", DOUBTFUL[:6])
async def test_other_calls_that_create_are_sent_once_too(answer: Answer) -> None:
    """Every call that must not be repeated is sent once, with an error of its own."""
    call = Call("POST", "datasets/s3/mine", nothing, replay=Replay.ONCE, content=b"{}")
    async with RawServer([answer]) as server, connect(server.url, retry=PATIENT, timeout=SILENCE) as client:
        with pytest.raises(OutcomeUnknown):
            await client._session.send(call)

    assert server.methods == ["POST"]


async def test_a_start_is_repeated_while_nobody_listens(clock: FakeClock) -> None:
    """A refused connection proves that nothing was sent; once the port is open, the start is sent once."""
    async with RawServer([reply(200, "demo-c52cd4-00000001")], listening=False) as server:
        clock.meanwhile = server.listen
        async with connect(server.url, clock, retry=PATIENT) as client:
            run = await client.start("demo")

    assert run.id == "demo-c52cd4-00000001"
    assert server.methods == ["POST"]
    assert len(clock.slept) == 1


async def test_a_start_that_breaks_after_refused_connections_is_in_doubt(clock: FakeClock) -> None:
    """What an earlier attempt proved does not hold for the last one."""
    async with RawServer([close(), reply(200, "demo-c52cd4-00000001")], listening=False) as server:
        clock.meanwhile = server.listen
        async with connect(server.url, clock, retry=PATIENT) as client:
            with pytest.raises(StartOutcomeUnknown):
                await client.start("demo")

    assert server.methods == ["POST"]


@pytest.mark.parametrize("name", ["api_key", "auth_token"])
async def test_a_start_refused_at_the_door_is_sent_again_with_a_new_credential(name: str) -> None:
    """The sign-in page proves that the service never saw the start: the provider is asked, the start made once more."""
    given = iter(["fake-old", "fake-new"])
    async with (
        RawServer([sign_in(), reply(200, "demo-c52cd4-00000001")]) as server,
        Client(server.url, config=settings(), **{name: lambda: next(given)}) as client,
    ):
        run = await client.start("demo", {"variables": {"scale": 2}})

    header = "authorization" if name == "api_key" else "cookie"
    assert run.id == "demo-c52cd4-00000001"
    assert [seen.headers[header].split("=")[-1].split(" ")[-1] for seen in server.requests] == ["fake-old", "fake-new"]
    assert server.requests[0].body == server.requests[1].body


async def test_a_start_that_breaks_with_the_new_credential_is_in_doubt() -> None:
    """Only the refused attempt is proven absent; the one with the new credential may have arrived."""
    given = iter(["fake-old", "fake-new"])
    async with (
        RawServer([sign_in(), close(), reply(200, "demo-c52cd4-00000001")]) as server,
        Client(server.url, api_key=lambda: next(given), config=settings(retry=PATIENT)) as client,
    ):
        with pytest.raises(StartOutcomeUnknown):
            await client.start("demo")

    assert server.methods == ["POST", "POST"]


async def test_a_start_refused_twice_is_not_sent_a_third_time() -> None:
    """If the new credential is refused too, that is an error."""
    given = iter(["fake-old", "fake-new", "fake-newer"])
    async with (
        RawServer([sign_in()]) as server,
        Client(server.url, api_key=lambda: next(given), config=settings(retry=PATIENT)) as client,
    ):
        with pytest.raises(Unauthorized):
            await client.start("demo")

    assert server.methods == ["POST", "POST"]


async def test_a_start_refused_at_the_door_is_not_repeated_with_the_same_credential() -> None:
    """If the provider returns the same credential, there is no retry."""
    async with (
        RawServer([sign_in(), reply(200, "demo-c52cd4-00000001")]) as server,
        Client(server.url, api_key=lambda: "fake-same", config=settings(retry=PATIENT)) as client,
    ):
        with pytest.raises(Unauthorized):
            await client.start("demo")

    assert server.methods == ["POST"]


async def test_a_start_that_the_service_itself_forbids_is_not_repeated() -> None:
    """A 403 with a JSON message comes from the service itself, which saw the start."""
    given = iter(["fake-old", "fake-new"])
    async with (
        RawServer([reply(403, {"message": "not yours"}), reply(200, "demo-c52cd4-00000001")]) as server,
        Client(server.url, api_key=lambda: next(given), config=settings(retry=PATIENT)) as client,
    ):
        with pytest.raises(Unauthorized):
            await client.start("demo")

    assert server.methods == ["POST"]


async def test_a_start_waits_the_seconds_it_is_asked_to(clock: FakeClock) -> None:
    """429 with Retry-After means that nothing was started; the start is sent again after that time."""
    answers = [reply(429, {"message": "slow down"}, retry_after="7"), reply(200, "demo-c52cd4-00000001")]
    async with RawServer(answers) as server, connect(server.url, clock, retry=PATIENT) as client:
        run = await client.start("demo")

    assert run.id == "demo-c52cd4-00000001"
    assert server.methods == ["POST", "POST"]
    assert clock.slept == [7.0]


async def test_a_start_waits_until_the_date_it_is_given(clock: FakeClock) -> None:
    """Retry-After may be a date."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    answers = [reply(429, {"message": "slow down"}, retry_after=date), reply(200, "demo-c52cd4-00000001")]
    async with RawServer(answers) as server, connect(server.url, clock, retry=PATIENT) as client:
        await client.start("demo")

    assert server.methods == ["POST", "POST"]
    assert len(clock.slept) == 1
    assert 20 < clock.slept[0] <= 30


async def test_a_start_asked_to_slow_down_without_a_time_is_refused(clock: FakeClock) -> None:
    """429 without Retry-After is raised at once."""
    async with (
        RawServer([reply(429, {"message": "slow down"})]) as server,
        connect(server.url, clock, retry=PATIENT) as client,
    ):
        with pytest.raises(RateLimited) as caught:
            await client.start("demo")

    assert caught.value.retry_after is None
    assert server.methods == ["POST"]
    assert clock.slept == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadRequest), (404, NotFound), (405, APIError), (409, Conflict), (413, PayloadTooLarge), (415, BadRequest)],
    ids=str,
)
@pytest.mark.parametrize("words", ["json", "html"])
async def test_a_start_that_was_refused_is_not_repeated(
    status: int, kind: type[APIError], words: str, clock: FakeClock
) -> None:
    """The service looked at it and said no, or the proxy did: nothing was started, nothing is in doubt."""
    answer = reply(status, {"message": "no"}) if words == "json" else reply(status, HTML, media="text/html")
    async with RawServer([answer]) as server, connect(server.url, clock, retry=PATIENT) as client:
        with pytest.raises(kind) as caught:
            await client.start("demo")

    assert caught.value.status == status
    # The list is for the name that was probably meant.
    assert server.methods == (["POST", "GET"] if (status, words) == (404, "json") else ["POST"])
    assert clock.slept == []


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirected_start_is_an_error_and_not_followed(status: int) -> None:
    """A redirect would turn a start into a GET, or send it elsewhere, so it is neither followed nor retried."""
    async with RawServer([reply(200, "demo-c52cd4-00000001")]) as elsewhere:
        lead = head(status, {"Location": f"{elsewhere.url}/rs/experiments/demo/start", "Content-Length": "0"})
        async with RawServer([raw(lead)]) as server, connect(server.url, retry=PATIENT) as client:
            with pytest.raises(APIError) as caught:
                await client.start("demo")

    assert caught.value.status == status
    assert server.methods == ["POST"]
    assert elsewhere.requests == []


async def test_a_start_after_the_kept_connection_was_closed_succeeds() -> None:
    """A start is not sent on a connection that the server has closed."""
    async with (
        RawServer([then_close(reply(200, [])), reply(200, "demo-c52cd4-00000001")]) as server,
        connect(server.url) as client,
    ):
        await client.instances.list()
        await server.until(lambda: server.open_connections == 0)
        await anyio.sleep(0.02)
        run = await client.start("demo")

    assert run.id == "demo-c52cd4-00000001"
    assert server.methods == ["GET", "POST"]
    assert [seen.connection for seen in server.requests] == [0, 1]


async def test_no_start_is_sent_on_a_connection_that_was_idle_for_two_seconds() -> None:
    """Proxies close idle connections, so a start does not use one."""
    async with (
        RawServer([reply(200, []), *[reply(200, [])] * 3, reply(200, "demo-c52cd4-00000001")]) as server,
        connect(server.url) as client,
    ):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(client.instances.list)
        # Real time: the limit is the engine's, which keeps time by the event loop.
        await anyio.sleep(2.2)
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(client.start, "demo")

    read, started = server.requests[:4], server.requests[4:]
    assert [seen.method for seen in started] == ["POST"] * 4
    assert {seen.connection for seen in read}.isdisjoint(seen.connection for seen in started)
    assert all(seen.idle is None or seen.idle <= 2 for seen in started)


async def test_a_cancelled_start_was_sent_once() -> None:
    """Cancelling a start that waits for its answer sends nothing more."""
    async with (
        RawServer([never(), reply(200, "demo-c52cd4-00000001")]) as server,
        connect(server.url) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.start, "demo")
        await server.until(lambda: len(server.requests) == 1)
        tasks.cancel_scope.cancel()

    assert server.methods == ["POST"]
