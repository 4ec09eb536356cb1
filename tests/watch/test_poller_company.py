"""Many consumers: one task polls for all and hands over when it leaves, and each reads at its own speed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import anyio
import pytest

from st4sd_async import WaitTimeout
from tests.tries import combinations, tries
from tests.watch.helpers import MAX_DETAIL_REQUESTS, MAX_RUNS_WITHOUT_LIST
from tests.watch.scripted_service import (
    FAILED,
    LIST,
    NULLS,
    RUNNING,
    SUCCESS,
    Script,
    Service,
    Watcher,
    assert_valid_updates,
    poller,
)

from .helpers import assert_nothing_is_left, many_runs, one_watcher_each, until, watching

pytestmark = pytest.mark.anyio

COUNT = tries(400, 200)
"""Runs, of which three or four are requested in a round beside the list."""


@pytest.mark.slow
async def test_hundreds_of_consumers_cost_as_much_as_one() -> None:
    """The number of requests differs by three at most."""
    asked = []
    for is_one in (True, False):
        random.seed(7)
        lives = {f"run-{n}": Script((0, None, NULLS), (1, RUNNING), (50 + 20 * (n % 5), SUCCESS)) for n in range(COUNT)}
        service = Service(lives)
        poll = poller(service)
        watchers = [Watcher(service, poll, lives)] if is_one else one_watcher_each(service, poll, lives)
        async with anyio.create_task_group() as tasks:
            for watcher in watchers:
                tasks.start_soon(watcher)
        assert sum(len(watcher.ends) for watcher in watchers) == COUNT
        assert_nothing_is_left(poll)
        asked.append((service.list_count, service.detail_count))

    assert abs(asked[0][0] - asked[1][0]) + abs(asked[0][1] - asked[1][1]) <= 3


async def test_consumers_of_the_same_run_share_its_requests() -> None:
    """All receive the same updates at the same time."""
    service = Service({"run": Script((0, RUNNING), (5, ("suspended", "N/A")), (20, SUCCESS))})
    poll = poller(service)
    watchers = [Watcher(service, poll, ["run"], interval=2) for _ in range(5)]

    async with watching(*watchers):
        await until(service, 30)

    assert service.detail_count == 11
    assert all(watcher.updates == watchers[0].updates for watcher in watchers)
    assert len(watchers[0].updates) == 3


async def test_the_event_loop_turns_while_a_consumer_takes_many_updates_without_a_pause() -> None:
    """Other tasks wait for a few hundred updates at most. The time of the loop differs in each of its iterations."""
    service = many_runs(1000, 1)
    changes = poller(service).watch({rest_uid: rest_uid for rest_uid in service.scripts}, None, None)

    taken = Counter([service.clock.now() async for _ in changes])

    assert taken.total() == 2000
    assert max(taken.values()) <= 200


async def led(count: int, leave: float | None, how: str) -> Service:
    """Return the requests when the first of many consumers, which leads, leaves at some moment."""
    service = many_runs(count, 30)
    service.latency = (0.05, 0.01)
    poll = poller(service)
    first = Watcher(service, poll, ["run-0"], interval=2, timeout=leave if how == "timed out" else None)
    others = one_watcher_each(service, poll, list(service.scripts)[1:], interval=2)

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

    assert first.updates[-1].status.is_final is (leave is None)
    assert all(30 <= watcher.updates[-1].moment <= 33 for watcher in others)
    for watcher in others:
        assert_valid_updates(watcher.updates)
    assert_nothing_is_left(poll)
    return service


POINTS = {
    "in the nap": (20, LIST, -0.5),
    "in a list": (20, LIST, 0.1),
    "beside a list": (20, "", 0.02),
    "in a request": (4, "", 0.02),
    "in the nap between": (4, "", -0.5),
    "in the request of one": (2, "", 0.02),
}
"""Number of runs, path of a request, and seconds after it."""


@pytest.mark.parametrize(("point", "how"), combinations(POINTS, ["cancelled", "timed out"]))
async def test_a_leader_that_leaves_hands_over(point: str, how: str) -> None:
    """At whatever point: the others lose no update, and at most one round is sent again."""
    count, path, later = POINTS[point]
    undisturbed = await led(count, None, how)
    leave = next(moment for moment, one in undisturbed.requests if moment > 10 and (one == path or path + one != LIST))

    service = await led(count, round(leave + later, 6), how)

    assert service.list_count <= undisturbed.list_count + 1
    assert service.detail_count <= undisturbed.detail_count + MAX_DETAIL_REQUESTS + 1


async def test_a_leader_can_be_cancelled_while_another_task_joins() -> None:
    """A newcomer ends the pause, but not the cancellation."""
    for order in ("join first", "cancel first"):
        service = many_runs(3)
        poll = poller(service)
        first, second, third = one_watcher_each(service, poll, service.scripts, interval=50)
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


async def test_a_consumer_that_stops_reading_does_not_stop_the_others() -> None:
    """It took a status and does something else."""
    service = many_runs(10, 30)
    poll = poller(service)
    busy = poll.watch({"run-0": "run-0"}, None, 2)
    await anext(busy)
    others = one_watcher_each(service, poll, service.scripts, interval=2)

    async with watching(*others):
        await until(service, 35)

    assert all(30 <= watcher.updates[-1].moment <= 33 for watcher in others)
    assert (await anext(busy))[1].is_final
    assert [one async for one in busy] == []
    assert_nothing_is_left(poll)


async def test_a_sleeping_consumer_times_out_by_itself() -> None:
    """While another task polls. The error has the statuses of its own runs."""
    service = many_runs(3, 100)
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


async def test_a_slow_consumer_does_not_slow_down_another() -> None:
    """Nor does it get a backlog."""
    changes = [(n, ("running", "N/A", str(n))) for n in range(60)]
    service = Service({"run": Script(*changes, (60, SUCCESS))})
    poll = poller(service)
    quick = Watcher(service, poll, ["run"], interval=1)
    slow = Watcher(service, poll, ["run"], interval=1, slowness=25)

    async with watching(slow, quick):
        await until(service, 200)

    assert len(quick.updates) == 61
    assert [one.status.error_description for one in slow.updates] == ["0", "24", "49", None]
    assert_valid_updates(slow.updates)
    assert_valid_updates(quick.updates)


@pytest.mark.parametrize("count", [1, MAX_RUNS_WITHOUT_LIST, 20])
async def test_a_consumer_that_returns_late_does_not_wait_for_an_interval(count: int) -> None:
    """The statuses from before are too old to be used."""
    service = many_runs(count, 100)
    changes = poller(service).watch({rest_uid: rest_uid for rest_uid in service.scripts}, None, 600)
    await anext(changes)
    await until(service, 3000)

    statuses = [status async for _, status in changes]

    assert sum(status.is_final for status in statuses) == count
    assert service.seconds < 3001


async def test_a_slow_consumer_does_not_receive_the_same_status_twice() -> None:
    """A run that changed and changed back did not change for it."""
    service = Service({"run": Script((0, NULLS), (10, RUNNING), (15, NULLS), (100, SUCCESS))})
    poll = poller(service)
    quick = Watcher(service, poll, ["run"], interval=1)
    slow = Watcher(service, poll, ["run"], interval=1, slowness=25)

    async with watching(slow, quick):
        await until(service, 150)

    assert [one.words for one in quick.updates] == [NULLS, RUNNING, NULLS, SUCCESS]
    assert [one.words for one in slow.updates] == [NULLS, SUCCESS]


async def test_one_update_of_each_run_is_pending_at_most() -> None:
    """A slow consumer receives the newest status of every run."""
    service = Service({f"run-{n}": Script((0, RUNNING), (5 + n, FAILED)) for n in range(20)})
    poll = poller(service)
    quick = Watcher(service, poll, service.scripts, interval=1)
    slow = Watcher(service, poll, service.scripts, interval=1, slowness=2)

    async with watching(slow, quick):
        await until(service, 200)

    assert_valid_updates(slow.updates)
    assert len(slow.ends) == 20
    assert len(slow.updates) <= 40
