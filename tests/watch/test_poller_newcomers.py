"""A consumer that joins others receives its first updates soon, at little cost."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from st4sd_async import RequestTimeout
from tests.tries import combinations, tries
from tests.watch.helpers import FIRST_PAUSE, JITTER, MAX_DETAIL_REQUESTS, REST_FACTOR
from tests.watch.scripted_service import NULLS, RUNNING, SUCCESS, Script, Service, Watcher, page, poller, reply

from .helpers import A_FEW, many_runs, one_watcher_each, until, watching

pytestmark = pytest.mark.anyio


async def assert_first_updates(service: Service, watcher: Watcher, within: float) -> None:
    """Check that a consumer receives a status of each of its runs within some seconds."""
    async with watching(watcher):
        await anyio.sleep(within)
        assert {one.rest_uid for one in watcher.updates} == set(watcher.rest_uids)


@pytest.mark.parametrize("interval", [None, 600.0])
@pytest.mark.parametrize("count", [1, 3, 50])
async def test_a_newcomer_receives_a_status_at_once(count: int, interval: float | None) -> None:
    """Although the others sleep for long, and whether they watch the same run or not."""
    service = many_runs(count, other=Script((0, RUNNING)))
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(count)], interval=interval)

    async with watching(crew):
        for moment, rest_uid in ((400, "run-0"), (440, "other")):
            await until(service, moment)
            asked = len(service.requests)
            await assert_first_updates(service, Watcher(service, poll, [rest_uid], interval=interval), 0.01)
            assert len(service.requests) == asked + 1


async def test_requests_for_newcomers_are_spread_out() -> None:
    """One after the other, they do not overload a slow service."""
    service = many_runs(30)
    service.latency = (0.2, 0.0)
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"], interval=600)
    newcomers = one_watcher_each(service, poll, list(service.scripts)[1:5], interval=600)

    async with watching(crew):
        await until(service, 100)
        for newcomer in newcomers:
            async with watching(newcomer):
                await anyio.sleep(5)
            assert newcomer.updates
        for number in range(5, 30):
            with anyio.move_on_after(0.3):
                await Watcher(service, poll, [f"run-{number}"], interval=600)()

    asked = [moment for moment in service.request_times if moment > 120]
    assert all(after - before >= REST_FACTOR * 0.2 for before, after in pairwise(asked))
    assert len(asked) >= 3


async def test_the_runs_of_newcomers_are_requested_a_few_at_a_time_soon_after_a_long_list() -> None:
    """It is too early for another list, and they are too many to be requested at once."""
    service = many_runs(60)
    service.latency = (0.1, 0.02)
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(20)], interval=600)
    newcomers = Watcher(service, poll, [f"run-{n}" for n in range(20, 60)], interval=600)

    async with watching(crew):
        await until(service, 3)
        async with watching(newcomers):
            await until(service, 30)

    assert len({one.rest_uid for one in newcomers.updates}) == 40
    assert max(service.request_times.count(moment) for moment in service.request_times) <= MAX_DETAIL_REQUESTS
    assert service.list_count == 2


async def test_the_first_status_of_a_newcomer_shortens_the_pause() -> None:
    """It is a change like any other."""
    service = many_runs(1, other=Script((0, RUNNING), (400.4, SUCCESS)))
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"])
    newcomer = Watcher(service, poll, ["other"])

    async with watching(crew):
        await until(service, 400)
        async with watching(newcomer):
            await anyio.sleep(FIRST_PAUSE * (1 + JITTER))

    assert newcomer.ends


async def test_the_runs_of_many_newcomers_are_read_from_one_list() -> None:
    """They are not requested one by one."""
    service = many_runs(100)
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(10)])

    async with watching(crew):
        await until(service, 400)
        asked = len(service.requests)
        await assert_first_updates(service, Watcher(service, poll, service.scripts), 0.01)

    assert len(service.requests) - asked <= 1 + MAX_DETAIL_REQUESTS


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_newcomer_does_not_wait_for_a_round_if_the_leader_leaves(how: str) -> None:
    """While the leader requested the newcomer's run."""
    service = many_runs(3)
    service.latency = (0.1, 0.0)
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"], interval=600)
    leader = Watcher(service, poll, ["run-1"], interval=600, timeout=20.05 if how == "timed out" else None)
    newcomer = Watcher(service, poll, ["run-2"], interval=600)

    async with watching(leader) as tasks, watching(crew):
        await until(service, 20)
        async with watching(newcomer):
            await until(service, 20.05)
            tasks[0].cancel(how)
            await until(service, 25)

    assert [one.rest_uid for one in newcomer.updates] == ["run-2"]


@pytest.mark.parametrize("interval", [None, 600.0])
async def test_a_newcomer_receives_a_status_when_the_service_is_back(interval: float | None) -> None:
    """A failed request does not make it wait for minutes."""
    service = many_runs(2)
    service.faults = [(400, 401, page(502))]
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"], interval=interval)

    async with watching(crew):
        await until(service, 400)
        await assert_first_updates(service, Watcher(service, poll, ["run-1"]), 61)


async def test_a_newcomer_does_not_wait_for_the_interval_of_others() -> None:
    """Even if their interval is long and their last round failed."""
    service = many_runs(2)
    service.faults = [(600, 601, page(502))]
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"], interval=600)

    async with watching(crew):
        await until(service, 700)
        await assert_first_updates(service, Watcher(service, poll, ["run-1"]), 1)


@pytest.mark.parametrize("is_alone", [True, False], ids=["nobody is there", "one is busy elsewhere"])
async def test_a_newcomer_does_not_send_requests_of_a_round_that_others_gave_up(is_alone: bool) -> None:
    """The service did not answer when they left, long ago."""
    service = many_runs(20, busy=Script((0, RUNNING)))
    poll = poller(service)
    busy = poll.watch({"busy": "busy"}, None, None)
    if not is_alone:
        await anext(busy)
    service.faults = [(10, 100, RequestTimeout("GET", "x", "silence"))]
    await until(service, 10)
    await Watcher(service, poll, [f"run-{n}" for n in range(20)], timeout=25)()
    await until(service, 5000)

    await assert_first_updates(service, Watcher(service, poll, ["run-0"]), 0.01)

    assert service.times_of("run-0")[-1] >= 5000
    assert not any(moment >= 5000 for n in range(1, 20) for moment in service.times_of(f"run-{n}"))
    await busy.aclose()


COUNTS, INTERVALS = {"singly": 2, "by list": 20}, {"adaptive": None, "fixed": 60.0}


@pytest.mark.parametrize(("counted", "paused"), combinations(COUNTS, INTERVALS))
async def test_newcomers_whose_run_cannot_be_read_do_not_delay_the_round(counted: str, paused: str) -> None:
    """However many there are, the others receive their updates in time."""
    count, interval = COUNTS[counted], INTERVALS[paused]
    service = many_runs(count, 300, broken=Script((0, reply(500, {"message": "boom"}), RUNNING)))
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(count)], interval=interval)

    async with watching(crew):
        for _ in range(40):
            await Watcher(service, poll, ["broken"], timeout=10, interval=interval)()

    assert len(crew.ends) == count


@pytest.mark.slow
async def test_a_newcomer_receives_statuses_that_the_list_does_not_show() -> None:
    """They are known from earlier requests."""
    waiting = {f"waiting-{n}": Script((0, ("unscheduled", ""), NULLS)) for n in range(10)}
    service = many_runs(tries(200, 100), **waiting)
    service.latency = (0.01, 0.0005)
    poll = poller(service)
    crew = Watcher(service, poll, service.scripts)

    async with watching(crew):
        await until(service, tries(4000, 2000))
        lists = service.list_count
        await assert_first_updates(service, Watcher(service, poll, waiting), 10)
        await anyio.sleep(20)

    assert service.list_count - lists <= A_FEW


async def test_runs_that_the_list_does_not_have_yet_are_requested_in_turn() -> None:
    """Of a hundred new runs each receives a status, without a storm of lists."""
    service = many_runs(200)
    service.hidden = {f"run-{n}" for n in range(100)}
    service.latency = (0.01, 0.0005)
    watcher = Watcher(service, poller(service), service.scripts, interval=30)

    async with watching(watcher):
        await until(service, 300)

    assert service.list_count <= 300 / 30 + A_FEW
    assert len({one.rest_uid for one in watcher.updates}) == 200
