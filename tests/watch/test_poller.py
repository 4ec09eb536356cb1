"""How much is asked of a service for many runs, in a time of the test's own."""

from __future__ import annotations

import re
from itertools import pairwise
from math import ceil
from typing import Any

import anyio
import pytest

from st4sd_async import ConnectionLost, RequestTimeout, WaitTimeout
from tests.watch.service import RUNNING, SUCCESS, Life, Watcher, follow, jump, page, poller, reply
from tests.watch.watches import (
    FIRST_PAUSE,
    MAX_DETAIL_REQUESTS,
    MAX_FAILURES_IN_A_ROW,
    MAX_LIST_FAILURES,
    MAX_LIST_ITEMS_PER_RUN,
    MAX_PARALLEL_REQUESTS,
    MAX_PAUSE,
    MAX_REST,
    MAX_RUNS_WITHOUT_LIST,
    REST_FACTOR,
    ROUNDS_WITHOUT_LIST,
)

from .watches import anyio_backend as anyio_backend
from .watches import crowd, until, watching
from .watches import same_pauses as same_pauses

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("count", [MAX_RUNS_WITHOUT_LIST + 1, 50, 300])
async def test_many_runs_cost_one_list_and_three_requests_a_round(count: int) -> None:
    """From the first round on, however many there are."""
    service = crowd(count)

    with pytest.raises(WaitTimeout) as caught:
        await follow(service, timeout=101, interval=5)

    assert service.lists == 21
    assert service.most_details() <= MAX_DETAIL_REQUESTS
    assert len(caught.value.last_statuses) == count


@pytest.mark.parametrize("count", [1, 2, MAX_RUNS_WITHOUT_LIST])
async def test_a_few_runs_are_asked_singly(count: int) -> None:
    """Each once a round, and never by the list."""
    service = crowd(count)
    service.old_items = 20_000

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=101, interval=5)

    assert service.lists == 0
    assert service.details == 21 * count


@pytest.mark.parametrize(
    ("count", "old", "by_list"),
    [
        (10, 10 * MAX_LIST_ITEMS_PER_RUN - 10, True),
        (10, 10 * MAX_LIST_ITEMS_PER_RUN - 9, False),
        (MAX_RUNS_WITHOUT_LIST, 0, False),
        (40, 20_000, False),
    ],
)
async def test_the_list_is_used_only_if_it_costs_less(count: int, old: int, by_list: bool) -> None:
    """A service with many old instances is listed once, and then each run is asked for."""
    service = crowd(count)
    service.old_items = old

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=51, interval=5)

    assert service.lists == (11 if by_list else count > MAX_RUNS_WITHOUT_LIST)
    assert (service.details >= 10 * count) is not by_list


@pytest.mark.parametrize("interval", [None, 1.0])
@pytest.mark.parametrize("old", [0, 1900], ids=["singly after all", "by list"])
async def test_what_takes_long_is_done_rarely(interval: float | None, old: int) -> None:
    """A pause is at least ten times as long as the round before it, a fixed one too."""
    service = crowd(100 if old else MAX_RUNS_WITHOUT_LIST, 200)
    service.old_items = old
    service.cost = (0.3, 0.001)

    await follow(service, interval=interval)

    took = 2.0 + 0.3 if old else 0.3 * ceil(MAX_RUNS_WITHOUT_LIST / MAX_PARALLEL_REQUESTS)
    firsts = service.moments(None if old else "run-0")
    pauses = [after - before - took for before, after in pairwise(firsts)]
    assert min(pauses) >= REST_FACTOR * took - 0.01
    assert interval is None or max(pauses) <= REST_FACTOR * took + 0.1


async def test_a_list_that_is_too_long_does_not_slow_down_the_runs_that_are_asked_singly() -> None:
    """It is no measure for what comes after it."""
    service = crowd(10)
    service.old_items, service.cost = 20_000, (0.01, 0.001)

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=60, interval=5)

    assert service.lists == 1
    assert service.details > 60


async def test_the_pace_is_quick_after_a_change_and_slow_when_nothing_moves() -> None:
    """For all runs together: from half a second to half a minute, and back."""
    service = crowd(20, 1500, mover=Life((0, RUNNING), (1000, ("suspended", "N/A")), (1500, SUCCESS)))

    await follow(service)

    lists = service.moments()
    pauses = [after - before for before, after in pairwise(lists)]
    changed = next(index for index, moment in enumerate(lists) if moment >= 1000)
    assert pauses[0] == pytest.approx(FIRST_PAUSE, rel=0.11)
    assert pauses[changed - 1] == pytest.approx(MAX_PAUSE, rel=0.11)
    assert pauses[changed] == pytest.approx(FIRST_PAUSE, rel=0.11)


@pytest.mark.parametrize("count", [2, 20])
async def test_a_clock_that_jumps_in_a_round_does_not_make_a_pause_of_hours(count: int) -> None:
    """The machine slept in the middle of a request."""
    service = crowd(count, 5000)
    service.cost = (0.1, 0.01)
    watcher = Watcher(service, poller(service), service.lives, interval=10)

    async with watching(watcher):
        await until(service, 60)
        await service.next_request()
        jump(5 * 3600.0)
        await anyio.sleep(100)

    assert watcher.has_ended
    assert watcher.error is None


@pytest.mark.parametrize("count", [1, MAX_RUNS_WITHOUT_LIST, 50])
@pytest.mark.parametrize("trouble", [page(502), ConnectionLost("GET", "x", "reset")], ids=["502", "reset"])
async def test_a_service_that_is_down_is_asked_less_and_less(count: int, trouble: Any) -> None:
    """A round that failed is followed by a pause; nothing is lost."""
    service = crowd(count, 700)
    service.troubles = [(50, 650, trouble)]

    await follow(service)

    down = [moment for moment in service.looks if 50 <= moment < 650]
    assert len(set(down)) <= 600 / MAX_PAUSE + 12
    assert len(down) <= len(set(down)) * (count if count <= MAX_RUNS_WITHOUT_LIST else 1 + MAX_DETAIL_REQUESTS)


async def test_a_service_that_is_down_is_not_asked_for_each_run() -> None:
    """When all are asked for singly: a few failures in a row are enough for a round."""
    service = crowd(100)
    service.old_items, service.cost = 20_000, (0.01, 0.0)
    service.troubles = [(100, 1e9, page(502))]

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=200, interval=10)

    assert len([moment for moment in service.looks if moment >= 100]) <= 10 * (
        MAX_FAILURES_IN_A_ROW + MAX_PARALLEL_REQUESTS
    )


@pytest.mark.parametrize("count", [1, 20])
async def test_a_service_that_is_silent_does_not_make_a_pause_of_minutes(count: int) -> None:
    """What took long has failed; a minute is the longest rest."""
    service = crowd(count, 300)
    service.troubles = [(50, 200, RequestTimeout("GET", "x", "silence"))]

    await follow(service, interval=5)

    lists = service.moments(None if count > MAX_RUNS_WITHOUT_LIST else "run-0")
    assert max(after - before for before, after in pairwise(lists)) <= 2 * 20 + MAX_REST + 0.01


async def test_who_waits_for_a_service_that_is_away_is_warned_once(caplog: pytest.LogCaptureFixture) -> None:
    """By the first look after five seconds without any answer, and again if it comes back and goes again."""
    service = crowd(3, 900)
    service.troubles = [(50, 80, page(502)), (100, 300, page(502)), (500, 700, page(502))]

    await follow(service)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    silent = [int(re.findall(r"without an answer for (\d+) s", warning)[0]) for warning in warnings]
    assert all(5 <= seconds <= 30 for seconds in silent)  # quiet runs are looked at every 30 s


async def test_the_list_is_left_out_for_a_while_if_it_alone_fails() -> None:
    """Runs are asked for singly meanwhile; the list is tried again now and then."""
    service = crowd(20, 2000)
    service.list_troubles = [(100, 1000, page(502))]

    told = await follow(service, interval=10)

    lists = [moment for moment in service.moments() if 100 <= moment < 1000]
    assert MAX_LIST_FAILURES <= len(lists) <= 900 / 10 / ROUNDS_WITHOUT_LIST + MAX_LIST_FAILURES + 1
    assert {one.rest_uid for one in told if one.status.is_final} == set(service.lives)
    assert len(service.moments()) > 90


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("count", [MAX_RUNS_WITHOUT_LIST, 20], ids=["singly", "by list"])
async def test_a_service_that_answers_some_and_asks_for_rest_gets_it(count: int, code: int) -> None:
    """A limit on requests lets some of them through."""
    service = crowd(count)
    refusal = reply(code, {"message": "slow down"}, retry_after="40")
    for rest_uid in list(service.lives)[1:]:
        service.lives[rest_uid] = Life((0, RUNNING), (20, refusal, RUNNING), (30, RUNNING))

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=100, interval=2)

    refused = next(moment for moment in service.looks if moment >= 20)
    resumed = next(moment for moment in service.looks if moment > refused)
    assert resumed - refused >= 40
