"""How watching ends: with an error for all consumers, or with nothing left of one that leaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from st4sd_async import DecodeError, St4sdError, Unauthorized
from tests.tries import combinations
from tests.watch.scripted_service import RUNNING, SUCCESS, Script, Service, Watcher, follow, page, poller

from .helpers import assert_nothing_is_left, many_runs, one_watcher_each, until, watching

pytestmark = pytest.mark.anyio


async def test_all_waiting_consumers_raise_an_error() -> None:
    """Each raises its own copy, with the last statuses of its own unfinished runs."""
    service = Service({**many_runs(9).scripts, "over": Script((0, RUNNING), (5, SUCCESS)), "new": Script((0, RUNNING))})
    service.faults = [(10, 1e9, page(403))]
    poll = poller(service)
    groups = (["run-0"], ["run-1", "run-2", "over"], ["run-2", "run-3"], [f"run-{n}" for n in range(9)])
    watchers = [Watcher(service, poll, group, interval=2) for group in groups]

    async with watching(*watchers):
        await until(service, 20)

    errors = [watcher.error for watcher in watchers]
    assert len({id(error) for error in errors}) == len(watchers)
    for error, group in zip(errors, groups, strict=True):
        assert isinstance(error, Unauthorized)
        assert set(error.last_statuses) == {*group} - {"over"}
        assert all(status and status.experiment_state == "running" for status in error.last_statuses.values())
    assert sum(moment >= 10 for moment in service.request_times) == 1
    assert_nothing_is_left(poll)


async def test_a_busy_consumer_does_not_get_an_error_that_has_passed() -> None:
    """The request that failed for the others is sent again when it returns."""
    service = many_runs(2, 100)
    service.faults = [(10, 20, page(403)), (200, 1e9, page(403))]
    poll = poller(service)
    busy = Watcher(service, poll, ["run-0", "run-1"], interval=2, slowness=30)
    waiting = Watcher(service, poll, ["run-0"], interval=2)

    async with watching(waiting, busy):
        await until(service, 25)
        assert isinstance(waiting.error, Unauthorized)
        assert busy.error is None
        await until(service, 300)

    assert busy.error is None
    assert set(busy.ends) == {"run-0", "run-1"}


async def test_a_busy_consumer_gets_its_own_error_if_it_has_not_passed() -> None:
    """Later than the others, by its own request."""
    service = many_runs(1)
    service.faults = [(10, 1e9, page(403))]
    poll = poller(service)
    busy = Watcher(service, poll, ["run-0"], interval=2, slowness=30)
    waiting = Watcher(service, poll, ["run-0"], interval=2)

    async with watching(waiting, busy):
        await until(service, 100)

    assert isinstance(busy.error, Unauthorized)
    assert isinstance(waiting.error, Unauthorized)
    assert busy.error is not waiting.error
    assert len([moment for moment in service.request_times if moment >= 10]) == 2


async def test_pending_updates_are_delivered_before_an_error() -> None:
    """A final status is not lost to an error that comes after it."""
    service = Service({"over": Script((0, RUNNING), (10, SUCCESS)), "other": Script((0, RUNNING), (10, page(403)))})
    poll = poller(service)
    watcher = Watcher(service, poll, service.scripts, interval=2)

    async with watching(watcher):
        await until(service, 20)

    assert isinstance(watcher.error, Unauthorized)
    assert set(watcher.error.last_statuses) == {"other"}
    assert set(watcher.ends) == {"over"}


async def test_html_in_place_of_the_first_list_is_an_error() -> None:
    """The address is wrong."""
    service = many_runs(20)
    service.faults = [(0, 1e9, page(200))]

    with pytest.raises(DecodeError):
        await follow(service)

    assert len(service.requests) == 1


@pytest.mark.parametrize("error", [St4sdError("this client is not open"), RuntimeError("a defect")], ids=repr)
async def test_any_other_error_ends_watching_for_all(error: Exception) -> None:
    """No consumer waits forever, even after a programming error."""
    service = many_runs(20)
    service.faults = [(10, 1e9, error)]
    poll = poller(service)
    watchers = one_watcher_each(service, poll, service.scripts, interval=2)

    async with watching(*watchers):
        await until(service, 20)

    assert all(type(watcher.error) is type(error) for watcher in watchers)
    assert_nothing_is_left(poll)


async def test_runs_can_be_watched_again_after_an_error() -> None:
    """The poller keeps nothing of it."""
    service = many_runs(8, 50)
    service.faults = [(10, 20, page(403))]
    poll = poller(service)
    first, second = (Watcher(service, poll, service.scripts, interval=2) for _ in range(2))

    async with watching(first):
        await until(service, 30)
        async with watching(second):
            await until(service, 60)

    assert isinstance(first.error, Unauthorized)
    assert len(second.ends) == 8


async def aclosed(changes: Any) -> None:
    await changes.aclose()


async def broken_off(changes: Any) -> None:
    async for _ in changes:
        break


async def cancelled(changes: Any) -> None:
    task = asyncio.ensure_future(_last(changes))
    await anyio.sleep(1)
    task.cancel()
    await asyncio.wait([task])


async def timed_out(changes: Any) -> None:
    with anyio.move_on_after(1):
        await _last(changes)


async def dropped(changes: Any) -> None:
    """Drop the reference on return."""


async def _last(changes: Any) -> None:
    async for _ in changes:
        pass


ENDS: dict[str, Callable[[Any], Awaitable[None]]] = {
    "aclose": aclosed, "break": broken_off, "cancellation": cancelled, "time-out": timed_out, "garbage": dropped,
}  # fmt: skip
STEPS = {"unused": 0, "after one update": 1, "after two": 2}


@pytest.mark.parametrize("company", [0, 1, 30], ids=["alone", "with one", "with many"])
@pytest.mark.parametrize(("end", "steps"), combinations(ENDS, STEPS))
async def test_nothing_is_left_of_a_consumer_that_leaves(end: str, steps: str, company: int) -> None:
    """No run, no task and no warning. The other consumers receive their updates."""
    service = many_runs(10, 50)
    poll = poller(service)
    watchers = [Watcher(service, poll, service.scripts, interval=5) for _ in range(company)]
    before = asyncio.all_tasks()

    async with watching(*watchers):
        changes = poll.watch({"run-0": 0, "run-1": 1, "mine": 2}, None, None)
        service.scripts["mine"] = Script((0, RUNNING))
        for _ in range(STEPS[steps]):
            await anext(changes)
        await ENDS[end](changes)
        del changes
        if end == "garbage":
            gc.collect()
        await anyio.sleep(1)

        assert "mine" not in poll._runs
        assert all(
            follower.open.keys() != {"run-0", "run-1"} for run in poll._runs.values() for follower in run.subscriptions
        )
        await until(service, 60)

    assert asyncio.all_tasks() == before
    assert all(len(watcher.ends) == 10 for watcher in watchers)
    assert_nothing_is_left(poll)


async def test_leader_and_successor_may_leave_together() -> None:
    """In one iteration of the event loop; the others receive their updates."""
    for going in ((0, 1), (1, 0), (0, 1, 2), (2, 1, 0), (0, 2), (0, 1, 2, 3, 4, 5, 6)):
        service = many_runs(8, 30)
        poll = poller(service)
        watchers = one_watcher_each(service, poll, service.scripts, interval=2)
        async with watching(*watchers) as tasks:
            await until(service, 11)
            assert poll._election._leader is not None
            order = [next(iter(one.open)) for one in (poll._election._leader, *poll._election._sleeping)]
            assert len(order) == 8
            for index in going:
                tasks[int(order[index].removeprefix("run-"))].cancel()
            await until(service, 40)

        assert sum(len(watcher.ends) for watcher in watchers) == 8 - len(going)


async def test_a_successor_that_is_cancelled_hands_over() -> None:
    """It was woken to lead, and cancelled before it did."""
    service = many_runs(3, 30)
    poll = poller(service)
    leader, heir, other = one_watcher_each(service, poll, service.scripts, interval=20)

    async with watching(leader, heir, other) as tasks:
        await until(service, 5)
        tasks[0].cancel()
        await asyncio.sleep(0)
        tasks[1].cancel()
        await until(service, 45)

    assert other.ends
