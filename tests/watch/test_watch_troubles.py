"""Errors while one run is watched: which are survived, and which end the wait."""

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
from tests.watch.helpers import FINAL_STATUS_TIMEOUT, MAX_REST, UNREADABLE_TIMEOUT
from tests.watch.scripted_service import GONE, NULLS, RUNNING, SILENCE, SUCCESS, Update, follow, page, reply

from .helpers import LONGEST_PAUSE, RUN, single_run

pytestmark = pytest.mark.anyio


def words(updates: list[Update]) -> list[tuple[str | None, str | None]]:
    return [one.words for one in updates]


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
async def test_transient_errors_do_not_end_the_wait(trouble: Any) -> None:
    """Whatever a proxy or a network may do for a while, no update shows it."""
    service = single_run((0, RUNNING), (70, SUCCESS))
    service.faults = [(10, 10 + UNREADABLE_TIMEOUT - 15, trouble)]

    updates = await follow(service)

    assert words(updates) == [RUNNING, SUCCESS]
    assert any(10 <= moment < 55 for moment in service.request_times)


@pytest.mark.parametrize("trouble", [page(502), page(503), page(429), ConnectFailed("GET", "x", "refused")], ids=str)
async def test_a_service_may_be_down_at_first(trouble: Any) -> None:
    """The first status may take a while."""
    service = single_run((0, RUNNING), (200, SUCCESS))
    service.faults = [(0, 100, trouble)]

    updates = await follow(service)

    assert words(updates) == [RUNNING, SUCCESS]


RESTS = {
    "429": (429, "40", 40),
    "503": (503, "40", 40),
    "longer than is borne": (429, "3600", MAX_REST),
    "for ever": (503, "inf", MAX_REST),
    "a date that is past": (503, "Mon, 01 Jan 2001 00:00:00 GMT", 0),
    "nonsense": (503, "soon", 0),
    "no number": (503, "nan", 0),
}


@pytest.mark.parametrize(("code", "retry_after", "rest"), RESTS.values(), ids=RESTS)
async def test_retry_after_is_obeyed(code: int, retry_after: str, rest: float) -> None:
    """Up to a minute; a value that is not a time is ignored."""
    service = single_run((0, RUNNING), (5, SUCCESS))
    service.faults = [(0.1, 2, reply(code, {"message": "slow down"}, retry_after=retry_after))]

    await follow(service, interval=1)

    refused = next(moment for moment in service.request_times if moment > 0.1)
    pause = next(moment for moment in service.request_times if moment > refused) - refused
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
async def test_permanent_errors_are_raised_at_once(trouble: Any, kind: type[Exception], moment: float) -> None:
    """At the first request or later, and no request follows."""
    service = single_run((0, RUNNING))
    service.faults = [(moment, 1e9, trouble)]

    with pytest.raises(kind) as caught:
        await follow(service)

    assert type(caught.value) is kind
    assert sum(look >= moment for look in service.request_times) == 1


FIRST: dict[str, tuple[Any, type[Exception]]] = {
    "a web page": (page(200), DecodeError),
    "no JSON": (reply(200, "odd"), DecodeError),
    "404 of a proxy": (page(404), NotFound),
    "a redirect": (page(308), APIError),
}


@pytest.mark.parametrize(("trouble", "kind"), FIRST.values(), ids=FIRST)
async def test_a_wrong_address_is_an_error_at_once(trouble: Any, kind: type[Exception]) -> None:
    """These errors are transient only once the service has answered."""
    service = single_run((0, trouble), (5, SUCCESS))

    with pytest.raises(kind):
        await follow(service)

    assert len(service.requests) == 1


async def test_replies_that_are_unreadable_for_a_minute_are_an_error() -> None:
    """A changed service is not waited for without end."""
    service = single_run((0, RUNNING), (10, reply(200, "odd")))

    with pytest.raises(DecodeError):
        await follow(service, interval=2)

    assert 10 + UNREADABLE_TIMEOUT <= service.request_times[-1] <= 10 + UNREADABLE_TIMEOUT + LONGEST_PAUSE


async def test_replies_that_are_unreadable_now_and_then_are_no_error() -> None:
    """A readable one between them starts the minute again."""
    odd = reply(200, "odd")
    service = single_run((0, RUNNING), (10, odd), (30, RUNNING), (60, odd), (100, SUCCESS))

    updates = await follow(service, interval=2)

    assert words(updates) == [RUNNING, SUCCESS]


async def test_the_error_for_refused_credentials_has_the_last_status() -> None:
    """If the credentials cannot be renewed."""
    service = single_run((0, RUNNING), (5, page(403)))

    with pytest.raises(Unauthorized) as caught:
        await follow(service)

    last = caught.value.last_statuses[RUN]
    assert last is not None
    assert last.experiment_state == "running"


async def test_the_error_for_credentials_refused_at_first_has_no_status() -> None:
    """It names the run with None."""
    with pytest.raises(Unauthorized) as caught:
        await follow(single_run((0, page(403))))

    assert caught.value.last_statuses == {RUN: None}


async def test_a_run_that_never_existed_is_unknown() -> None:
    """A 404 in JSON at first, and nothing in the datastore."""
    with pytest.raises(UnknownRun):
        await follow(single_run((0, GONE)))


DELETIONS: dict[str, tuple[list[tuple[float, Any]], Any, Any]] = {
    "last seen": ([(0, RUNNING), (5, GONE)], None, RUNNING),
    "the datastore knows": ([(0, RUNNING), (5, GONE)], ("finished", "Stopped"), ("finished", "Stopped")),
    "only the datastore knows": ([(0, GONE)], SUCCESS, SUCCESS),
    "no status ever": ([(0, None), (5, GONE)], None, NULLS),
    "the datastore is silent": ([(0, RUNNING), (5, GONE)], SILENCE, RUNNING),
}


@pytest.mark.parametrize(("script", "last_word", "last"), DELETIONS.values(), ids=DELETIONS)
async def test_a_deleted_run_ends_with_its_last_known_status(script: list[Any], last_word: Any, last: Any) -> None:
    """That of the datastore, or the last one seen. It is final and deleted, and comes within seconds."""
    service = single_run(*script)
    service.final_statuses[RUN] = last_word

    updates = await follow(service)

    assert updates[-1].status.is_deleted
    assert updates[-1].words == last
    assert updates[-1].moment <= service.request_times[-1] + FINAL_STATUS_TIMEOUT + 0.001
    assert all(not one.status.is_deleted for one in updates[:-1])


async def test_a_404_of_a_proxy_is_not_a_deletion() -> None:
    """Only the service itself knows that a run is gone."""
    service = single_run((0, RUNNING), (5, page(404)), (300, RUNNING), (310, GONE))

    updates = await follow(service)

    assert updates[-1].status.is_deleted
    assert updates[-1].moment >= 310


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
async def test_which_errors_are_transient(error: Exception, at_first: bool, later: bool, for_all: bool) -> None:
    """And which concern all runs. An error of the service itself, in JSON, is believed."""
    assert is_transient(error, has_responded=False) is at_first
    assert is_transient(error, has_responded=True) is later
    assert concerns_all_runs(error) is for_all
