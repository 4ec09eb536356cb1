"""One of several waiting tasks works for all, on a clock that the test controls."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from st4sd_async import ServerError, St4sdError, WaitTimeout
from st4sd_async._watch.poller import LeaderElection
from st4sd_async._watch.watched_run import Deadline, Subscription
from tests.watch.scripted_service import LoopClock

pytestmark = pytest.mark.anyio

WORK_SECONDS = 1.0
"""How long one piece of work takes."""


class Workshop:
    """Work that takes a while, and tasks that wait until enough of it is done."""

    def __init__(self) -> None:
        self.election = LeaderElection()
        self.leaders: list[Subscription] = []
        """The leader of each piece of work."""
        self.done = 0
        self.at_work = 0
        self.errors: list[Exception] = []
        """Raised by the next pieces of work."""
        self.raised: list[Exception] = []

    def waiter(self, timeout: float | None = None) -> Subscription:
        return Subscription(Deadline(timeout, LoopClock()), None)

    async def work(self) -> None:
        self.at_work += 1
        assert self.at_work == 1, "two tasks lead"
        try:
            await anyio.sleep(WORK_SECONDS)
            if self.errors:
                raise self.errors.pop(0)
            self.done += 1
        finally:
            self.at_work -= 1

    async def wait(self, waiter: Subscription, pieces: int) -> None:
        """Wait until this many pieces are done in all, as the poller does."""

        def lead() -> Awaitable[None]:
            self.leaders.append(waiter)
            return self.work()

        try:
            while self.done < pieces:
                waiter.raise_if_over()
                await self.election.lead_or_sleep(waiter, lead)
                for other in self.election.sleeping() if self.done else ():
                    other.wake.set()
        except St4sdError as error:
            self.raised.append(error)
        finally:
            self.election.hand_over()


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


async def started(waiting: Callable[..., Any], *arguments: Any) -> asyncio.Task[None]:
    """Return a task that has begun to wait."""
    task: asyncio.Task[None] = asyncio.ensure_future(waiting(*arguments))
    await anyio.sleep(0.001)
    return task


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Return when all tasks have ended, or fail."""
    with anyio.fail_after(100):
        for task in tasks:
            await asyncio.wait([task])


async def test_one_task_works_for_all(shop: Workshop) -> None:
    """Each piece of work is done once, however many tasks wait."""
    tasks = [await started(shop.wait, shop.waiter(), 1) for _ in range(100)]

    await ended(*tasks)

    assert shop.done == 1


async def test_no_work_is_done_if_no_task_waits(shop: Workshop) -> None:
    """There is no background task."""
    before = asyncio.all_tasks()

    await shop.wait(shop.waiter(), 1)
    await anyio.sleep(100 * WORK_SECONDS)

    assert len(shop.leaders) == 1
    assert asyncio.all_tasks() == before


async def test_another_task_leads_when_the_leader_is_done(shop: Workshop) -> None:
    """Until all have what they wait for."""
    tasks = [await started(shop.wait, shop.waiter(), pieces) for pieces in (1, 2, 3)]

    await ended(*tasks)

    assert shop.done == 3
    assert len(set(shop.leaders)) == 3


async def test_a_cancelled_leader_hands_over(shop: Workshop) -> None:
    """At once; the piece of work is begun again."""
    leader, *others = [await started(shop.wait, shop.waiter(), 1) for _ in range(3)]

    leader.cancel()
    await ended(leader, *others)

    assert shop.done == 1
    assert len(shop.leaders) == 2


async def test_a_leader_that_times_out_hands_over(shop: Workshop) -> None:
    """The others wait no longer than for one piece of work from then on."""
    leader = await started(shop.wait, shop.waiter(WORK_SECONDS / 2), 1)
    other = await started(shop.wait, shop.waiter(), 1)
    began = LoopClock().now()

    await ended(leader, other)

    assert [type(error) for error in shop.raised] == [WaitTimeout]
    assert LoopClock().now() - began == pytest.approx(1.5 * WORK_SECONDS, abs=0.01)


async def test_the_successor_is_the_waiter_with_the_most_time(shop: Workshop) -> None:
    """So that work is rarely begun in vain."""
    leader = await started(shop.wait, shop.waiter(), 1)
    short, long, middle = (shop.waiter(timeout) for timeout in (1.1 * WORK_SECONDS, None, 3 * WORK_SECONDS))
    tasks = [await started(shop.wait, waiter, 1) for waiter in (short, long, middle)]

    leader.cancel()
    await ended(leader, *tasks)

    assert shop.leaders[-1] is long


async def test_a_sleeping_task_times_out_while_another_leads(shop: Workshop) -> None:
    """It does not wait for the end of the work."""
    leader = await started(shop.wait, shop.waiter(), 1)
    short = await started(shop.wait, shop.waiter(WORK_SECONDS / 4), 1)

    await ended(short)

    assert shop.done == 0
    assert [type(error) for error in shop.raised] == [WaitTimeout]
    await ended(leader)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("count", [3, 4, 10])
async def test_the_work_goes_on_if_leader_and_successor_are_cancelled_together(
    order: tuple[int, int], count: int, shop: Workshop
) -> None:
    """In one iteration of the event loop, in either order."""
    tasks = [await started(shop.wait, shop.waiter(), 1) for _ in range(count)]

    for index in order:
        tasks[index].cancel()
    await ended(*tasks)

    assert shop.done == 1


async def test_all_but_the_last_task_may_be_cancelled_one_after_the_other(shop: Workshop) -> None:
    """Each iteration of the loop cancels the task that leads, or is about to."""
    tasks = [await started(shop.wait, shop.waiter(), 1) for _ in range(20)]

    for task in tasks[:-1]:
        task.cancel()
        await asyncio.sleep(0)
    await ended(*tasks)

    assert shop.done == 1


async def test_only_one_successor_is_woken(shop: Workshop) -> None:
    """Although both the work and the wait of the leader end."""
    leader, *others = [await started(shop.wait, shop.waiter(), 1) for _ in range(10)]

    leader.cancel()
    await asyncio.sleep(0)

    assert len(shop.election.sleeping()) == len(others) - 1
    await ended(leader, *others)


async def test_a_successor_that_is_cancelled_before_it_runs_is_replaced(shop: Workshop) -> None:
    """It was woken to lead, and never did."""
    tasks = [await started(shop.wait, shop.waiter(), 1) for _ in range(4)]

    tasks[0].cancel()
    await asyncio.sleep(0)
    tasks[1].cancel()
    await ended(*tasks)

    assert shop.done == 1


async def test_a_newcomer_may_lead_before_the_successor_does(shop: Workshop) -> None:
    """The successor sleeps again, and is woken again."""
    leader = await started(shop.wait, shop.waiter(), 2)
    successor = await started(shop.wait, shop.waiter(), 2)

    leader.cancel()
    newcomer = asyncio.ensure_future(shop.wait(shop.waiter(), 1))
    await ended(leader, newcomer, successor)

    assert shop.done == 2


async def test_each_waiter_raises_an_error_of_the_work(shop: Workshop) -> None:
    """As an object of its own, and the work ends."""
    shop.errors = [ServerError("boom")]
    tasks = [await started(shop.wait, shop.waiter(), 1) for _ in range(5)]

    await ended(*tasks)

    assert [str(error) for error in shop.raised] == ["boom"] * 5
    assert len({id(error) for error in shop.raised}) == 5
    assert len(shop.leaders) == 1


async def test_each_waiter_raises_a_copy_of_a_programming_error(shop: Workshop) -> None:
    """A traceback that all share would grow with each waiter that raises it."""
    shop.errors = [LookupError("boom")]
    waiters = [shop.waiter() for _ in range(3)]

    raised = await asyncio.gather(*(shop.wait(waiter, 1) for waiter in waiters), return_exceptions=True)

    assert [type(error) for error in raised] == [LookupError] * 3
    assert len({id(error) for error in raised}) == 3


async def test_a_later_waiter_does_not_raise_an_earlier_error(shop: Workshop) -> None:
    """It begins the work again."""
    shop.errors = [ServerError("boom")]
    await shop.wait(shop.waiter(), 1)

    await shop.wait(shop.waiter(), 1)

    assert shop.done == 1
    assert len(shop.raised) == 1


async def test_the_remaining_time_is_that_of_the_first_deadline(shop: Workshop) -> None:
    """Of all waiters, whichever leads."""
    election = shop.election
    assert election.time_remaining() == float("inf")

    tasks = [await started(shop.wait, shop.waiter(timeout), 1) for timeout in (5.0, None, 3.0)]

    assert election.time_remaining() == pytest.approx(3.0, abs=0.01)
    await ended(*tasks)
    assert election.time_remaining() == float("inf")


async def test_nothing_is_kept_of_waiters_that_left(shop: Workshop) -> None:
    """However they left."""
    tasks = [await started(shop.wait, shop.waiter(timeout), 3) for timeout in (None, 1.5, None, None)]
    tasks[0].cancel()
    await anyio.sleep(WORK_SECONDS / 2)
    tasks[2].cancel()

    await ended(*tasks)
    gc.collect()

    assert shop.election._sleeping == {}
    assert shop.election._leader is None
    assert shop.election._successor is None
