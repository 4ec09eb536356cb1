"""Many who wait: one asks for all, hands over when it goes, and readers keep their own pace."""

from __future__ import annotations

import asyncio
import random

import anyio
import pytest

from st4sd_async import WaitTimeout
from tests.watch.service import FAILED, LIST, NULLS, RUNNING, SUCCESS, Life, Service, Watcher, assert_well_told, poller
from tests.watch.watches import MAX_DETAIL_REQUESTS, MAX_RUNS_WITHOUT_LIST

from .watches import anyio_backend as anyio_backend
from .watches import assert_nothing_is_left, crowd, kept, until, watching
from .watches import same_pauses as same_pauses

pytestmark = pytest.mark.anyio


async def test_a_thousand_who_wait_cost_as_much_as_one() -> None:
    """Within three requests, with the same script."""
    asked = []
    for is_one in (True, False):
        random.seed(7)
        lives = {f"run-{n}": Life((0, None, NULLS), (1, RUNNING), (50 + 20 * (n % 5), SUCCESS)) for n in range(1000)}
        service = Service(lives)
        poll = poller(service)
        watchers = [Watcher(service, poll, lives)] if is_one else kept(service, poll, lives)
        async with anyio.create_task_group() as tasks:
            for watcher in watchers:
                tasks.start_soon(watcher)
        assert sum(len(watcher.ends) for watcher in watchers) == 1000
        assert_nothing_is_left(poll)
        asked.append((service.lists, service.details))

    assert abs(asked[0][0] - asked[1][0]) + abs(asked[0][1] - asked[1][1]) <= 3


async def test_a_few_who_wait_for_the_same_run_ask_once() -> None:
    """Each is told the same at the same time."""
    service = Service({"run": Life((0, RUNNING), (5, ("suspended", "N/A")), (20, SUCCESS))})
    poll = poller(service)
    watchers = [Watcher(service, poll, ["run"], interval=2) for _ in range(5)]

    async with watching(*watchers):
        await until(service, 30)

    assert service.details == 11
    assert all(watcher.told == watchers[0].told for watcher in watchers)
    assert len(watchers[0].told) == 3


async def led(count: int, leave: float | None, how: str) -> Service:
    """What is asked when the first of many, who does all the work, goes at some moment."""
    service = crowd(count, 30)
    service.cost = (0.05, 0.01)
    poll = poller(service)
    first = Watcher(service, poll, ["run-0"], interval=2, timeout=leave if how == "timed out" else None)
    others = kept(service, poll, list(service.lives)[1:], interval=2)

    async with watching(first) as tasks:
        await until(service, 1)
        async with watching(*others):
            if leave is not None:
                await until(service, leave - 0.005)
                assert poll._election._leader is not None
                assert "run-0" in poll._election._leader.open
                await until(service, leave)
                tasks[0].cancel(how)
            await until(service, 35)

    assert first.told[-1].status.is_final is (leave is None)
    assert all(30 <= watcher.told[-1].moment <= 33 for watcher in others)
    for watcher in others:
        assert_well_told(watcher.told)
    assert_nothing_is_left(poll)
    return service


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
@pytest.mark.parametrize(
    ("count", "path", "later"),
    [(20, LIST, -0.5), (20, LIST, 0.1), (20, "", 0.02), (4, "", 0.02), (4, "", -0.5), (2, "", 0.02)],
    ids=["in the nap", "in a list", "beside a list", "in a request", "in the nap between", "in the request of one"],
)
async def test_a_leader_who_goes_hands_over(count: int, path: str, later: float, how: str) -> None:
    """Wherever he is in his work: the others lose nothing, and at most one round is asked again."""
    undisturbed = await led(count, None, how)
    leave = next(moment for moment, one in undisturbed.asked if moment > 10 and (one == path or path + one != LIST))

    service = await led(count, round(leave + later, 6), how)

    assert service.lists <= undisturbed.lists + 1
    assert service.details <= undisturbed.details + MAX_DETAIL_REQUESTS + 1


async def test_who_joins_and_who_goes_at_once_do_not_save_the_leader() -> None:
    """The nap that a newcomer ends is not the one who sleeps."""
    for order in ("join first", "cancel first"):
        service = crowd(3)
        poll = poller(service)
        first, second, third = kept(service, poll, service.lives, interval=50)
        async with watching(first) as (leader,), watching(second) as (follower,):
            await until(service, 5)
            assert poll._pause_scope is not None
            if order == "cancel first":
                leader.cancel()
            joining = asyncio.ensure_future(anext(third.changes))
            await asyncio.sleep(0)
            if order == "join first":
                leader.cancel()
            await asyncio.wait([leader], timeout=1)

            assert leader.cancelled()
            assert await asyncio.wait_for(joining, 1)
            assert not follower.done()
            await third.changes.aclose()


async def test_a_leader_whose_reader_does_not_come_back_stops_nobody() -> None:
    """He took a status and does something else."""
    service = crowd(10, 30)
    poll = poller(service)
    busy = poll.watch({"run-0": "run-0"}, None, 2)
    await anext(busy)
    others = kept(service, poll, service.lives, interval=2)

    async with watching(*others):
        await until(service, 35)

    assert all(30 <= watcher.told[-1].moment <= 33 for watcher in others)
    assert (await anext(busy))[1].is_final
    assert [one async for one in busy] == []
    assert_nothing_is_left(poll)


async def test_a_follower_has_his_own_time() -> None:
    """It ends while another does the work, and says where his own runs stand."""
    service = crowd(3, 100)
    poll = poller(service)
    first = Watcher(service, poll, ["run-0", "run-1"], interval=30)
    short = Watcher(service, poll, ["run-1", "run-2"], interval=30, timeout=7.0)

    async with watching(first, short):
        await until(service, 8)
        ended_at = short.has_ended
        await until(service, 130)

    assert ended_at
    assert isinstance(short.error, WaitTimeout)
    assert set(short.error.last_statuses) == {"run-1", "run-2"}
    assert all(status.experiment_state == "running" for status in short.error.last_statuses.values())
    assert set(first.ends) == {"run-0", "run-1"}


async def test_a_slow_reader_of_a_run_does_not_slow_another() -> None:
    """Nor does he get a backlog."""
    changes = [(n, ("running", "N/A", str(n))) for n in range(60)]
    service = Service({"run": Life(*changes, (60, SUCCESS))})
    poll = poller(service)
    quick = Watcher(service, poll, ["run"], interval=1)
    slow = Watcher(service, poll, ["run"], interval=1, slowness=25)

    async with watching(slow, quick):
        await until(service, 200)

    assert len(quick.told) == 61
    assert [one.status.error_description for one in slow.told] == ["0", "24", "49", None]
    assert_well_told(slow.told)
    assert_well_told(quick.told)


@pytest.mark.parametrize("count", [1, MAX_RUNS_WITHOUT_LIST, 20])
async def test_a_reader_who_was_away_does_not_wait_for_an_interval(count: int) -> None:
    """What was asked before he left is old when he comes back."""
    service = crowd(count, 100)
    changes = poller(service).watch({rest_uid: rest_uid for rest_uid in service.lives}, None, 600)
    await anext(changes)
    await until(service, 3000)

    told = [status async for _, status in changes]

    assert sum(status.is_final for status in told) == count
    assert service.seconds < 3001


async def test_a_slow_reader_is_not_told_the_same_twice() -> None:
    """What changed and changed back while he was away is no change to him."""
    service = Service({"run": Life((0, NULLS), (10, RUNNING), (15, NULLS), (100, SUCCESS))})
    poll = poller(service)
    quick = Watcher(service, poll, ["run"], interval=1)
    slow = Watcher(service, poll, ["run"], interval=1, slowness=25)

    async with watching(slow, quick):
        await until(service, 150)

    assert [one.words for one in quick.told] == [NULLS, RUNNING, NULLS, SUCCESS]
    assert [one.words for one in slow.told] == [NULLS, SUCCESS]


async def test_news_of_many_runs_wait_once_each() -> None:
    """A reader that is slow gets every run's newest status."""
    service = Service({f"run-{n}": Life((0, RUNNING), (5 + n, FAILED)) for n in range(20)})
    poll = poller(service)
    quick = Watcher(service, poll, service.lives, interval=1)
    slow = Watcher(service, poll, service.lives, interval=1, slowness=2)

    async with watching(slow, quick):
        await until(service, 200)

    assert_well_told(slow.told)
    assert len(slow.ends) == 20
    assert len(slow.told) <= 40
