"""What passes while one run is watched, and what ends it."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import (
    APIError,
    BadRequest,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerError,
    St4sdError,
    TransportError,
    Unauthorized,
    UnknownRun,
)
from st4sd_async._watch.status_reader import concerns_all_runs, is_transient
from tests.watch.service import GONE, NULLS, RUNNING, SILENCE, SUCCESS, Told, follow, page, reply
from tests.watch.watches import FINAL_STATUS_TIMEOUT, MAX_REST, UNREADABLE_TIMEOUT

from .watches import LONGEST_PAUSE, RUN, alone
from .watches import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


def words(told: list[Told]) -> list[tuple[str | None, str | None]]:
    return [one.words for one in told]


PASSING = {
    "a spell of 502": page(502),
    "500": reply(500, {"message": "boom"}),
    "503": page(503),
    "504": page(504),
    "408": page(408),
    "429": page(429),
    "lost connection": ConnectionLost("GET", "x", "reset"),
    "refused connection": ConnectFailed("GET", "x", "refused"),
    "time-out": RequestTimeout("GET", "x", "silence"),
    "a web page": page(200),
    "no JSON": reply(200, "odd"),
    "a JSON list": reply(200, [1, 2]),
    "404 of a proxy": page(404),
    "a redirect": page(302),
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING)
async def test_what_passes_does_not_end_it(trouble: Any) -> None:
    """A spell of whatever a proxy or network may do is waited out, and nothing is told of it."""
    service = alone((0, RUNNING), (70, SUCCESS))
    service.troubles = [(10, 10 + UNREADABLE_TIMEOUT - 15, trouble)]

    told = await follow(service)

    assert words(told) == [RUNNING, SUCCESS]
    assert any(10 <= moment < 55 for moment in service.looks)


@pytest.mark.parametrize("trouble", [page(502), page(503), page(429), ConnectFailed("GET", "x", "refused")], ids=str)
async def test_a_service_that_is_down_at_first_is_waited_for(trouble: Any) -> None:
    """The first status may take a while."""
    service = alone((0, RUNNING), (200, SUCCESS))
    service.troubles = [(0, 100, trouble)]

    told = await follow(service)

    assert words(told) == [RUNNING, SUCCESS]


RESTS = {
    "429": (429, "40", 40),
    "503": (503, "40", 40),
    "longer than is borne": (429, "3600", MAX_REST),
    "for ever": (503, "inf", MAX_REST),
    "a date that is past": (503, "Mon, 01 Jan 2001 00:00:00 GMT", 0),
    "nonsense": (503, "soon", 0),
    "no number": (503, "nan", 0),
}


@pytest.mark.parametrize(("code", "asked", "rest"), RESTS.values(), ids=RESTS)
async def test_a_service_that_asks_for_rest_gets_it(code: int, asked: str, rest: float) -> None:
    """Up to a minute; what is no time is no reason to wait."""
    service = alone((0, RUNNING), (5, SUCCESS))
    service.troubles = [(0.1, 2, reply(code, {"message": "slow down"}, retry_after=asked))]

    await follow(service, interval=1)

    refused = next(moment for moment in service.looks if moment > 0.1)
    pause = next(moment for moment in service.looks if moment > refused) - refused
    assert pause == pytest.approx(max(rest, 1.0))


ENDING: dict[str, tuple[Any, type[Exception]]] = {
    "certificate": (ConnectFailed("GET", "x", "certificate", permanent=True), ConnectFailed),
    "sign-in page": (page(403), Unauthorized),
    "401": (page(401), Unauthorized),
    "client is not open": (St4sdError("not open"), St4sdError),
    "400 in JSON": (reply(400, {"message": "odd"}), BadRequest),
}


@pytest.mark.parametrize("moment", [0, 5])
@pytest.mark.parametrize(("trouble", "kind"), ENDING.values(), ids=ENDING)
async def test_what_cannot_pass_is_told_at_once(trouble: Any, kind: type[Exception], moment: float) -> None:
    """At the first look or later, and nothing is asked after it."""
    service = alone((0, RUNNING))
    service.troubles = [(moment, 1e9, trouble)]

    with pytest.raises(kind) as caught:
        await follow(service)

    assert type(caught.value) is kind
    assert sum(look >= moment for look in service.looks) == 1


FIRST: dict[str, tuple[Any, type[Exception]]] = {
    "a web page": (page(200), DecodeError),
    "no JSON": (reply(200, "odd"), DecodeError),
    "404 of a proxy": (page(404), NotFound),
    "a redirect": (page(308), APIError),
}


@pytest.mark.parametrize(("trouble", "kind"), FIRST.values(), ids=FIRST)
async def test_a_wrong_address_is_told_at_once(trouble: Any, kind: type[Exception]) -> None:
    """What passes later is a mistake of the user while the service has never answered."""
    service = alone((0, trouble), (5, SUCCESS))

    with pytest.raises(kind):
        await follow(service)

    assert len(service.asked) == 1


async def test_answers_that_cannot_be_read_for_a_minute_are_told() -> None:
    """A service that has changed is not waited for without end."""
    service = alone((0, RUNNING), (10, reply(200, "odd")))

    with pytest.raises(DecodeError):
        await follow(service, interval=2)

    assert 10 + UNREADABLE_TIMEOUT <= service.looks[-1] <= 10 + UNREADABLE_TIMEOUT + LONGEST_PAUSE


async def test_answers_that_cannot_be_read_now_and_then_are_not_told() -> None:
    """A good answer between two bad ones starts the minute anew."""
    odd = reply(200, "odd")
    service = alone((0, RUNNING), (10, odd), (30, RUNNING), (60, odd), (100, SUCCESS))

    told = await follow(service, interval=2)

    assert words(told) == [RUNNING, SUCCESS]


async def test_credentials_that_cannot_be_renewed_end_it_with_the_last_status() -> None:
    """Whoever catches it knows where things stood."""
    service = alone((0, RUNNING), (5, page(403)))

    with pytest.raises(Unauthorized) as caught:
        await follow(service)

    last = caught.value.last_statuses[RUN]
    assert last is not None
    assert last.experiment_state == "running"


async def test_credentials_refused_at_first_leave_no_status() -> None:
    """The run is named, but nothing was seen of it."""
    with pytest.raises(Unauthorized) as caught:
        await follow(alone((0, page(403))))

    assert caught.value.last_statuses == {RUN: None}


async def test_a_run_that_never_was_is_unknown() -> None:
    """A 404 in JSON at first, and nothing in the datastore."""
    with pytest.raises(UnknownRun):
        await follow(alone((0, GONE)))


DELETIONS: dict[str, tuple[list[tuple[float, Any]], Any, Any]] = {
    "last seen": ([(0, RUNNING), (5, GONE)], None, RUNNING),
    "the datastore knows": ([(0, RUNNING), (5, GONE)], ("finished", "Stopped"), ("finished", "Stopped")),
    "only the datastore knows": ([(0, GONE)], SUCCESS, SUCCESS),
    "no status ever": ([(0, None), (5, GONE)], None, NULLS),
    "the datastore is silent": ([(0, RUNNING), (5, GONE)], SILENCE, RUNNING),
}


@pytest.mark.parametrize(("script", "last_word", "last"), DELETIONS.values(), ids=DELETIONS)
async def test_a_run_that_is_deleted_ends_with_what_is_known(script: list[Any], last_word: Any, last: Any) -> None:
    """Its end as the datastore has it, or its last status; final and deleted either way, within seconds."""
    service = alone(*script)
    service.words[RUN] = last_word

    told = await follow(service)

    assert told[-1].status.is_deleted
    assert told[-1].words == last
    assert told[-1].moment <= service.looks[-1] + FINAL_STATUS_TIMEOUT + 0.001
    assert all(not one.status.is_deleted for one in told[:-1])


async def test_a_page_of_a_proxy_is_not_a_deletion() -> None:
    """Only the service itself knows that a run is gone."""
    service = alone((0, RUNNING), (5, page(404)), (300, RUNNING), (310, GONE))

    told = await follow(service)

    assert told[-1].status.is_deleted
    assert told[-1].moment >= 310


ERRORS: list[tuple[Exception, bool, bool, bool]] = [
    # error, survived at first, survived later, concerns all runs
    (ConnectFailed("GET", "x", "refused"), True, True, True),
    (ConnectFailed("GET", "x", "certificate", permanent=True), False, False, True),
    (ConnectionLost("GET", "x", "reset"), True, True, True),
    (RequestTimeout("GET", "x", "silence"), True, True, True),
    (TransportError("GET", "x", "odd"), True, True, True),
    (ServerError("m", status=500, detail={"message": "m"}), True, True, False),
    (ServerError("m", status=502), True, True, False),
    (RateLimited("m", status=429), True, True, False),
    (BadRequest("m", status=408), True, True, False),
    (BadRequest("m", status=408, detail={"message": "m"}), True, True, False),
    (BadRequest("m", status=400), False, True, False),
    (BadRequest("m", status=400, detail={"message": "m"}), False, False, False),
    (NotFound("m", status=404), False, True, False),
    (UnknownRun("m", status=404, detail={"message": "m"}), False, False, False),
    (APIError("m", status=302), False, True, False),
    (Unauthorized("m", status=403), False, False, True),
    (Unauthorized("m", status=401, detail={"message": "m"}), False, False, True),
    (DecodeError("GET", "x", "odd"), False, True, False),
    (St4sdError("not open"), False, False, True),
    (RuntimeError("a defect"), False, False, True),
]


@pytest.mark.parametrize(("error", "at_first", "later", "for_all"), ERRORS, ids=repr)
async def test_what_is_survived(error: Exception, at_first: bool, later: bool, for_all: bool) -> None:
    """What passes by itself; what the service itself says is believed."""
    assert is_transient(error, has_answered=False) is at_first
    assert is_transient(error, has_answered=True) is later
    assert concerns_all_runs(error) is for_all
