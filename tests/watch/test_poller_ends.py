"""How watching ends: with an error for all who wait, or with nothing left of who leaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from st4sd_async import DecodeError, St4sdError, Unauthorized
from tests.watch.service import RUNNING, SUCCESS, Life, Service, Watcher, follow, page, poller

from .watches import anyio_backend as anyio_backend
from .watches import assert_nothing_is_left, crowd, kept, until, watching
from .watches import same_pauses as same_pauses

pytestmark = pytest.mark.anyio


async def test_an_error_is_raised_by_all_who_wait() -> None:
    """Each has an error of its own, with the last statuses of its own open runs."""
    service = Service({**crowd(9).lives, "over": Life((0, RUNNING), (5, SUCCESS)), "new": Life((0, RUNNING))})
    service.troubles = [(10, 1e9, page(403))]
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
    assert sum(moment >= 10 for moment in service.looks) == 1
    assert_nothing_is_left(poll)


async def test_who_was_busy_finds_out_later() -> None:
    """What ended the wait of others is asked again when he comes back; perhaps it has passed."""
    service = crowd(2, 100)
    service.troubles = [(10, 20, page(403)), (200, 1e9, page(403))]
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


async def test_who_was_busy_gets_an_error_of_his_own() -> None:
    """If it has not passed."""
    service = crowd(1)
    service.troubles = [(10, 1e9, page(403))]
    poll = poller(service)
    busy = Watcher(service, poll, ["run-0"], interval=2, slowness=30)
    waiting = Watcher(service, poll, ["run-0"], interval=2)

    async with watching(waiting, busy):
        await until(service, 100)

    assert isinstance(busy.error, Unauthorized)
    assert isinstance(waiting.error, Unauthorized)
    assert busy.error is not waiting.error
    assert len([moment for moment in service.looks if moment >= 10]) == 2


async def test_what_is_known_is_told_before_an_error() -> None:
    """A final status that has come is not lost to an error that comes after it."""
    service = Service({"over": Life((0, RUNNING), (10, SUCCESS)), "other": Life((0, RUNNING), (10, page(403)))})
    poll = poller(service)
    watcher = Watcher(service, poll, service.lives, interval=2)

    async with watching(watcher):
        await until(service, 20)

    assert isinstance(watcher.error, Unauthorized)
    assert set(watcher.error.last_statuses) == {"other"}
    assert set(watcher.ends) == {"over"}


async def test_a_first_list_that_is_a_web_page_is_told_at_once() -> None:
    """The address is wrong."""
    service = crowd(20)
    service.troubles = [(0, 1e9, page(200))]

    with pytest.raises(DecodeError):
        await follow(service)

    assert len(service.asked) == 1


@pytest.mark.parametrize("error", [St4sdError("this client is not open"), RuntimeError("a defect")], ids=repr)
async def test_whatever_else_goes_wrong_ends_it_for_all(error: Exception) -> None:
    """Nobody waits for ever, not even for a defect."""
    service = crowd(20)
    service.troubles = [(10, 1e9, error)]
    poll = poller(service)
    watchers = kept(service, poll, service.lives, interval=2)

    async with watching(*watchers):
        await until(service, 20)

    assert all(type(watcher.error) is type(error) for watcher in watchers)
    assert_nothing_is_left(poll)


async def test_watching_can_go_on_after_an_error() -> None:
    """Nothing of it stays."""
    service = crowd(8, 50)
    service.troubles = [(10, 20, page(403))]
    poll = poller(service)
    first, second = (Watcher(service, poll, service.lives, interval=2) for _ in range(2))

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
    """The reference goes with the frame."""


async def _last(changes: Any) -> None:
    async for _ in changes:
        pass


ENDS: dict[str, Callable[[Any], Awaitable[None]]] = {
    "aclose": aclosed, "break": broken_off, "cancellation": cancelled, "time-out": timed_out, "garbage": dropped,
}  # fmt: skip


@pytest.mark.parametrize("company", [0, 1, 30], ids=["alone", "with one", "with many"])
@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_who_leaves_leaves_nothing(end: Callable[[Any], Awaitable[None]], steps: int, company: int) -> None:
    """No run, no task, no warning; and those who stay are told what comes."""
    service = crowd(10, 50)
    poll = poller(service)
    watchers = [Watcher(service, poll, service.lives, interval=5) for _ in range(company)]
    before = asyncio.all_tasks()

    async with watching(*watchers):
        changes = poll.watch({"run-0": 0, "run-1": 1, "mine": 2}, None, None)
        service.lives["mine"] = Life((0, RUNNING))
        for _ in range(steps):
            await anext(changes)
        await end(changes)
        del changes
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


async def test_leader_and_heir_who_go_together_leave_nobody_waiting() -> None:
    """In one iteration of the event loop."""
    for going in ((0, 1), (1, 0), (0, 1, 2), (2, 1, 0), (0, 2), (0, 1, 2, 3, 4, 5, 6)):
        service = crowd(8, 30)
        poll = poller(service)
        watchers = kept(service, poll, service.lives, interval=2)
        async with watching(*watchers) as tasks:
            await until(service, 11)
            assert poll._election._leader is not None
            order = [next(iter(one.open)) for one in (poll._election._leader, *poll._election._sleeping)]
            assert len(order) == 8
            for index in going:
                tasks[int(order[index].removeprefix("run-"))].cancel()
            await until(service, 40)

        assert sum(len(watcher.ends) for watcher in watchers) == 8 - len(going)


async def test_an_heir_whose_time_is_over_hands_on() -> None:
    """He was roused to lead in the moment in which he gave up."""
    service = crowd(3, 30)
    poll = poller(service)
    leader, heir, other = kept(service, poll, service.lives, interval=20)

    async with watching(leader, heir, other) as tasks:
        await until(service, 5)
        tasks[0].cancel()
        await asyncio.sleep(0)
        tasks[1].cancel()
        await until(service, 45)

    assert other.ends
