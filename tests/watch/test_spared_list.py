"""The list fails, or is about to become too long: it is spared, and a bounded number of runs is requested in turn."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from st4sd_async import ConnectFailed, RequestTimeout, WaitTimeout
from st4sd_async._watch.list_use import ListUse
from tests.tries import combinations, tries
from tests.watch.helpers import (
    FAILING_LIST_PAUSE,
    LONG_LIST_PAUSE,
    MAX_DETAIL_REQUESTS,
    MAX_LIST_FAILURES,
    MAX_LIST_ITEMS,
    MAX_RUNS_WITHOUT_LIST,
    MAX_SINGLE_REQUESTS,
    REST_FACTOR,
    many_runs,
    one_watcher_each,
    until,
    watching,
)
from tests.watch.scripted_service import (
    KILLED,
    LIST,
    RUNNING,
    SUCCESS,
    Script,
    Service,
    Watcher,
    follow,
    page,
    poller,
    reply,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COUNT = 400
"""Runs, of which four are requested in a round beside the list."""
BAD_LISTS = {
    "504": page(504),
    "a page": page(200),
    "no JSON": reply(200, "odd"),
    "silence": RequestTimeout("GET", "x", "s"),
}
INTERVALS = {"adaptive": None, "fixed": 20.0}


def failing_list() -> ListUse:
    """Return the use of a list that just failed for the last time before it is spared."""
    use = ListUse(60.0)
    for _ in range(MAX_LIST_FAILURES):
        assert use.is_used(COUNT, 0.0)
        use.failed(0.0)
    return use


def test_a_list_that_fails_is_spared_for_a_minute() -> None:
    """By the clock. Another failure spares it for another minute, and a success ends that."""
    use = failing_list()

    assert not use.is_used(COUNT, FAILING_LIST_PAUSE - 1)
    assert use.is_used(COUNT, FAILING_LIST_PAUSE)
    use.failed(100.0)
    assert not use.is_used(COUNT, 100.0 + FAILING_LIST_PAUSE - 1)
    assert use.is_used(COUNT, 100.0 + FAILING_LIST_PAUSE)
    assert not use.arrived(COUNT, 1.0, 200.0)
    use.failed(200.0)
    assert use.is_used(COUNT, 200.0)


@pytest.mark.parametrize(("size", "seconds"), [(MAX_LIST_ITEMS + 1, 1.0), (1000, 49.0)], ids=["items", "seconds"])
def test_a_list_that_is_too_long_is_spared_for_ten_minutes(size: int, seconds: float) -> None:
    """If there are too many items, or 80 % of the read timeout were needed. A list of normal length ends that."""
    use = ListUse(60.0)

    assert not use.arrived(MAX_LIST_ITEMS, 48.0, 0.0)
    assert use.arrived(size, seconds, 0.0)
    assert not use.is_used(1000, LONG_LIST_PAUSE - 1)
    assert use.is_used(1000, LONG_LIST_PAUSE)
    use.failed(LONG_LIST_PAUSE)
    assert not use.is_used(1000, 2 * LONG_LIST_PAUSE - 1)
    assert not use.arrived(1000, 1.0, 2 * LONG_LIST_PAUSE)
    assert use.is_used(1000, 2 * LONG_LIST_PAUSE)


@pytest.mark.parametrize("count", [6, 100, 1000, 20_000])
def test_a_failing_list_costs_at_most_twice_the_requests(count: int) -> None:
    """Of a round, and of those between two rounds."""
    healthy, failing = ListUse(60.0).request_limits(count, 0.0), failing_list().request_limits(count, 0.0)

    assert healthy.in_round == max(MAX_DETAIL_REQUESTS, count // 100)
    assert healthy.between is not None
    assert failing.between is not None
    assert failing.in_round + failing.between == 2 * (1 + healthy.in_round)


def test_few_runs_are_requested_without_limit() -> None:
    """The list is never used for them."""
    for use in (ListUse(60.0), failing_list()):
        for count in range(1, MAX_RUNS_WITHOUT_LIST + 1):
            assert use.request_limits(count, 0.0) == (count, None)


def requests_by_minute(service: Service, begin: float, end: float) -> list[int]:
    """Return the number of requests in each minute of a period."""
    minutes = Counter(int((moment - begin) // 60) for moment in service.request_times if begin <= moment < end)
    return [minutes[minute] for minute in range(int((end - begin) // 60))]


@pytest.mark.parametrize(("trouble", "interval"), combinations(BAD_LISTS, INTERVALS))
async def test_while_the_list_fails_runs_are_requested_in_turn(trouble: str, interval: str) -> None:
    """With at most twice the requests a minute of a healthy service; the list is tried again every minute."""
    service = many_runs(COUNT)
    fails, period = tries(700, 420), tries(600, 300)
    begin, end = fails + 60, fails + 60 + period  # the first minute shows whether single runs can be read
    service.list_faults = [(fails, end, BAD_LISTS[trouble])]

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=end + 140, interval=INTERVALS[interval])

    healthy = requests_by_minute(service, fails - 300, fails)
    failing = requests_by_minute(service, begin, end)
    assert max(failing) <= 2 * max(healthy)
    assert sum(failing) / len(failing) <= 2 * sum(healthy) / len(healthy)
    lists = [moment for moment in service.times_of() if begin <= moment < end]
    assert period / (2 * FAILING_LIST_PAUSE + 30) - 1 <= len(lists) <= period / FAILING_LIST_PAUSE
    assert min(moment for moment in service.times_of() if moment >= end) <= end + 2 * FAILING_LIST_PAUSE
    asked = Counter(path for moment, path in service.requests if begin <= moment < end and path != LIST)
    assert max(asked.values()) == 1


async def test_rounds_are_as_rare_as_with_the_list_that_fails() -> None:
    """Requests for single runs are quick, but not more frequent for that."""
    service = many_runs(COUNT)
    service.latency = (0.01, 0.0005)
    fails = 60 + tries(120, 60)
    ends = fails + 60 + tries(180, 60)
    service.list_faults = [(fails, ends, page(504))]

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=ends, interval=1)

    assert max(requests_by_minute(service, fails + 60, ends)) <= 2 * min(requests_by_minute(service, 60, fails))


async def test_a_run_that_ends_while_the_list_fails_is_found_in_turn() -> None:
    """Every run is requested once before any is twice."""
    service = many_runs(300, last=Script((0, RUNNING), (120, SUCCESS)))
    service.list_faults = [(100, 1e9, page(504))]
    watcher = Watcher(service, poller(service), service.scripts, interval=10)

    async with watching(watcher):
        await until(service, 120 + 10 * (301 / 5 + 12))

    assert "last" in watcher.ends


async def test_new_runs_are_requested_a_few_at_a_time_while_the_list_fails() -> None:
    """They do not all begin a request of their own."""
    service = many_runs(200)
    service.list_faults = [(100, 1e9, page(504))]
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(100)], interval=10)

    async with watching(crew):
        await until(service, 200)
        asked = len(service.requests)
        async with watching(*one_watcher_each(service, poll, [f"run-{n}" for n in range(100, 200)], interval=10)):
            await until(service, 260)

    assert len(service.requests) - asked <= 7 * 2 * (1 + MAX_DETAIL_REQUESTS)


async def test_a_list_that_is_too_long_is_spared_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """A few hundred runs are requested in a round, in turn. One warning says so, and what to do."""
    end = tries(100, 30)
    service = many_runs(800, end)
    service.old_items = MAX_LIST_ITEMS

    updates = await follow(service, interval=10)

    assert service.list_count == 1
    assert max(Counter(service.request_times).values()) <= MAX_SINGLE_REQUESTS
    assert sum(one.status.is_success for one in updates) == 800
    assert max(one.moment for one in updates) <= end + 10 * (800 / MAX_SINGLE_REQUESTS + 1)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert f"{MAX_LIST_ITEMS + 800} items" in warning
    assert "one by one, at most 300 in a round" in warning
    assert "delete instances that are no longer needed" in warning


async def test_a_list_that_is_no_longer_too_long_is_used_again(caplog: pytest.LogCaptureFixture) -> None:
    """Ten minutes after it was too long."""
    service = many_runs(800)
    service.old_items = MAX_LIST_ITEMS
    watcher = Watcher(service, poller(service), service.scripts, interval=210)

    async with watching(watcher):
        await until(service, 50)
        service.old_items = 0
        await until(service, 1270)

    assert service.times_of() == [0, 630, 840, 1050, 1260]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("interval", [None, 5.0, 600.0])
async def test_runs_that_join_in_an_outage_do_not_ask_a_dead_service(interval: float | None) -> None:
    """However many join, they wait for the same pauses as the others."""
    count = tries(200, 100)
    service = many_runs(10 + count)
    service.faults = [(100, 1e9, ConnectFailed("GET", "x", "refused"))]
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(10)], interval=interval)
    newcomers = one_watcher_each(service, poll, [f"run-{n}" for n in range(10, 10 + count)], interval=interval)

    async with watching(crew):
        await until(service, 101)
        asked = len(service.requests)
        tasks = []
        for newcomer in newcomers:
            tasks.append(asyncio.ensure_future(newcomer()))
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    rounds = tries(10, 7)  # in 20 s or 10 s, even if no pause were longer than 5 s
    assert len(service.requests) - asked <= rounds * (1 + 2 * MAX_DETAIL_REQUESTS)


async def test_runs_that_join_after_an_outage_are_requested_soon() -> None:
    """Within the longest pause."""
    service = many_runs(20, new=Script((0, RUNNING)))
    service.faults = [(100, 1000, page(502))]
    poll = poller(service)
    crew, newcomer = Watcher(service, poll, [f"run-{n}" for n in range(20)]), Watcher(service, poll, ["new"])

    async with watching(crew):
        await until(service, 990)
        async with watching(newcomer):
            await until(service, 1000 + 34)

    assert newcomer.updates


async def test_a_killed_run_is_found_among_hundreds() -> None:
    """One per cent of the runs is requested in a round: within a hundred rounds and the grace period."""
    service = many_runs(COUNT, victim=Script((0, RUNNING), (300, KILLED, RUNNING)))
    timeout = 300 + (100 + 60 / 30 + 4) * 30
    watcher = Watcher(service, poller(service), service.scripts, ["victim"], interval=30, timeout=timeout)

    await watcher()

    assert "victim" in watcher.ends
    assert service.max_details() <= 4 + MAX_DETAIL_REQUESTS


@pytest.mark.parametrize("decoding_seconds", [0.0, 3.0])
async def test_the_time_that_the_client_needs_for_a_list_does_not_delay_the_next(decoding_seconds: float) -> None:
    """Only the time of the service counts."""
    service = many_runs(100)
    service.latency, service.decoding_seconds = (0.0, 0.002), decoding_seconds
    watcher = Watcher(service, poller(service), service.scripts, interval=1)

    async with watching(watcher):
        await until(service, 100)

    period = 0.2 * (1 + REST_FACTOR) + decoding_seconds
    assert service.list_count == pytest.approx(100 / period, abs=2)
