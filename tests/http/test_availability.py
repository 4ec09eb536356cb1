"""What is known of whether a service answers: begin, report and end of outages, in time that passes at once."""

from __future__ import annotations

import logging

import anyio
import pytest

from st4sd_async import APIError, ConnectFailed, DecodeError, Progress, ProgressUpdate, ServerError, Unauthorized
from st4sd_async._http.availability import Availability
from tests.watch.scripted_service import INSTANT, LoopClock, jump

pytestmark = pytest.mark.anyio

URL = "http://st4sd.example/rs/"
REFUSED = ConnectFailed("GET", f"{URL}x", "Connection refused")
AWAY = ServerError("no backend", status=503)


@pytest.fixture
def anyio_backend() -> object:
    return INSTANT


@pytest.fixture
async def availability() -> Availability:
    return Availability(URL, LoopClock())


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the level and text of what was logged."""
    return [(record.levelname, record.getMessage()) for record in caplog.records]


async def fail_for(availability: Availability, seconds: float) -> None:
    """Send a request that is refused, every second."""
    for _ in range(int(seconds)):
        availability.note_error(REFUSED, LoopClock().now())
        await anyio.sleep(1)


async def test_an_outage_is_reported_after_some_seconds_and_its_end_once(
    availability: Availability, caplog: pytest.LogCaptureFixture
) -> None:
    """One WARNING and one INFO, however often it fails in between; the text shows the time that passes."""
    caplog.set_level(logging.INFO)
    with availability.waiting(None):
        await fail_for(availability, 4)
        early = availability.outage
        await fail_for(availability, 8)
        outage = availability.outage
        during = str(outage)
        availability.responded()
        availability.responded()

    assert early is None
    assert during == "no answer for 12 s: Connection refused; trying again"
    assert outage is not None
    assert str(outage) == "answers again after 12 s"
    assert (outage.is_over, outage.url) == (True, URL)
    assert availability.outage is None
    assert lines(caplog) == [
        ("WARNING", f"no answer from {URL} for 5 s: Connection refused; trying again"),
        ("INFO", f"{URL} answers again after 12 s"),
    ]


async def test_a_single_failure_is_reported_if_no_answer_follows(availability: Availability) -> None:
    """The next request may be a minute away; nothing else happens in that time."""
    with availability.waiting(None):
        availability.note_error(AWAY, LoopClock().now())
        await anyio.sleep(7)
        outage = availability.outage

    assert str(outage) == "no answer for 7 s: HTTP status 503, no backend; trying again"


async def test_silence_is_an_outage(availability: Availability) -> None:
    """From the moment when the request was sent, and reported before ten seconds are over."""
    with availability.waiting(None):
        await anyio.sleep(100)
        availability.request_sent()
        await anyio.sleep(7.5)
        early = availability.outage
        await anyio.sleep(2)
        outage = availability.outage
        text = str(outage)
        availability.request_ended()
        availability.responded()

    assert early is None
    assert text == "no answer for 9 s: no response yet; trying again"
    assert outage is not None
    assert str(outage) == "answers again after 9 s"


async def test_a_blocked_event_loop_is_no_outage(availability: Availability, caplog: pytest.LogCaptureFixture) -> None:
    """The response may have come in the meantime. If there is none, that is reported a second later."""
    with availability.waiting(None):
        for is_silent in (False, True):
            availability.request_sent()
            await anyio.sleep(0.5)
            jump(30)
            await anyio.sleep(0.6)
            assert availability.outage is None
            await anyio.sleep(1.5 * is_silent)
            text = str(availability.outage)
            availability.request_ended()
            availability.responded()

    assert text == "no answer for 32 s: no response yet; trying again"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_one_slow_answer_among_others_is_no_outage(availability: Availability) -> None:
    """The service answers other requests in the meantime. When these end, silence begins."""
    with availability.waiting(None):
        availability.request_sent()
        for _ in range(20):
            availability.request_sent()
            await anyio.sleep(1)
            availability.request_ended()
            availability.responded()
        busy = availability.outage
        await anyio.sleep(9.5)
        silent = availability.outage

    assert busy is None
    assert str(silent).startswith("no answer for 9 s: no response yet")


async def test_what_is_not_repeated_is_not_said_to_be_tried_again(availability: Availability) -> None:
    """A start that was sent only waits for its response; if another call waits too, that one tries again."""
    with availability.waiting(None, is_repeatable=False):
        availability.request_sent()
        await anyio.sleep(10)
        alone = str(availability.outage)
        with availability.waiting(None):
            await anyio.sleep(1)
            both = str(availability.outage)

    assert alone == "no answer for 10 s: no response yet; still waiting"
    assert both == "no answer for 11 s: no response yet; trying again"


@pytest.mark.parametrize(
    ("error", "is_end"),
    [
        (APIError("there is none", status=404, detail={"message": "there is none"}), True),
        (Unauthorized("the sign-in page", status=403), True),
        (APIError("HTML instead of JSON", status=404), False),
        (ServerError("it broke", status=500, detail={"message": "it broke"}), False),
        (DecodeError("GET", URL, "HTML instead of JSON"), False),
        (AWAY, False),
        (ConnectFailed("GET", URL, "no certificate", permanent=True), False),
    ],
    ids=["404 in JSON", "sign-in page", "404 page", "500", "HTML", "503", "certificate"],
)
async def test_which_errors_are_answers(availability: Availability, error: Exception, is_end: bool) -> None:
    """A refusal in the words of the service is one; a page of the proxy in front of it is not."""
    with availability.waiting(None):
        await fail_for(availability, 10)
        availability.note_error(error, LoopClock().now())

        assert (availability.outage is None) == is_end


async def test_progress_is_told_each_second_and_of_the_end(availability: Availability) -> None:
    """Each callable once, however many calls wait with it; after an error of it no more."""
    updates: list[ProgressUpdate] = []
    calls = 0

    def broken(_: ProgressUpdate) -> None:
        nonlocal calls
        calls += 1
        raise OSError("no terminal")

    progress: Progress = updates.append
    with availability.waiting(progress), availability.waiting(progress), availability.waiting(broken):
        await fail_for(availability, 10)
        availability.responded()

    assert {(one.work, one.unit, one.total) for one in updates} == {(f"connection to {URL}", "seconds", 0)}
    assert [one.done for one in updates] == [5, 6, 7, 8, 9, 10, 10]
    assert {one.problem for one in updates[:-1]} == {"Connection refused"}
    assert [one.is_over for one in updates] == [False] * 6 + [True]
    assert updates[-1].problem == ""
    assert calls == 1


async def test_an_outage_that_no_call_waits_for_is_not_shown(
    availability: Availability, caplog: pytest.LogCaptureFixture
) -> None:
    """Progress ends with the problem. The next call that waits shows it again, without another warning."""
    caplog.set_level(logging.INFO)
    updates: list[ProgressUpdate] = []
    with availability.waiting(updates.append):
        await fail_for(availability, 7)
    between = availability.outage
    await anyio.sleep(60)
    with availability.waiting(None):
        availability.note_error(REFUSED, LoopClock().now())
        again = str(availability.outage)
        availability.responded()

    assert between is None
    assert (updates[-1].is_over, updates[-1].problem) == (True, "Connection refused")
    assert again == "no answer for 67 s: Connection refused; trying again"
    assert [level for level, _ in lines(caplog)] == ["WARNING", "INFO"]


async def test_a_failure_that_no_call_waits_for_is_forgotten(availability: Availability) -> None:
    """An hour later, an outage begins anew."""
    with availability.waiting(None):
        availability.note_error(REFUSED, LoopClock().now())
    await anyio.sleep(3600)
    with availability.waiting(None):
        await fail_for(availability, 6)
        text = str(availability.outage)

    assert text == "no answer for 6 s: Connection refused; trying again"


async def test_a_body_that_stalls_is_an_outage(availability: Availability) -> None:
    """Its pieces are answers; the time that their consumer takes is none of the service's."""

    async def body() -> object:
        for pause in (1.0, 1.0, 20.0):
            await anyio.sleep(pause)
            yield b"x"

    seen: list[object] = []
    with availability.waiting(None):
        pieces = availability.pieces(body())  # type: ignore[arg-type] # an iterator of the test's own
        for _ in range(2):
            await anext(pieces)
            await anyio.sleep(30)
            seen.append(availability.outage)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, pieces)
            await anyio.sleep(10)
            seen.append(str(availability.outage))
        await pieces.aclose()

    assert seen == [None, None, "no answer for 10 s: no response yet; trying again"]


@pytest.mark.parametrize(("seconds", "text"), [(119, "119 s"), (120, "2 min"), (3700, "1 h 1 min")])
async def test_long_outages_are_counted_in_minutes(availability: Availability, seconds: int, text: str) -> None:
    """And in hours."""
    with availability.waiting(None):
        availability.note_error(REFUSED, LoopClock().now())
        await anyio.sleep(seconds)

        assert str(availability.outage) == f"no answer for {text}: Connection refused; trying again"
