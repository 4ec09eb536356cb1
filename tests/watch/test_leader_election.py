"""One works for all who wait, in a time of the test's own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from st4sd_async import ServerError, St4sdError, WaitTimeout
from st4sd_async._watch.leader_election import Turns
from st4sd_async._watch.subscription import Deadline, Follower
from tests.watch.service import HASTY, LoopClock

pytestmark = pytest.mark.anyio

STEP = 1.0
"""Seconds that a piece of work takes."""


@pytest.fixture
def anyio_backend() -> Any:
    return HASTY


class Workshop:
    """Work that takes a while, and those who wait until so much of it is done."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.begun: list[Follower] = []
        """Who led each piece of work."""
        self.done = 0
        self.at_work = 0
        self.errors: list[Exception] = []
        """Raised by the next pieces of work."""
        self.raised: list[Exception] = []

    def follower(self, timeout: float | None = None) -> Follower:
        return Follower(Deadline(timeout, LoopClock()), None)

    async def work(self) -> None:
        self.at_work += 1
        assert self.at_work == 1, "two lead"
        try:
            await anyio.sleep(STEP)
            if self.errors:
                raise self.errors.pop(0)
            self.done += 1
        finally:
            self.at_work -= 1

    async def wait(self, follower: Follower, pieces: int) -> None:
        """Until so many pieces are done in all; as the poller does it."""

        def led() -> Awaitable[None]:
            self.begun.append(follower)
            return self.work()

        try:
            while self.done < pieces:
                follower.check()
                await self.turns.wait(follower, led)
                for other in list(self.turns._asleep) if self.done else ():
                    self.turns.rouse(other)
        except St4sdError as error:
            self.raised.append(error)
        finally:
            self.turns.hand_over()


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


async def started(waiting: Callable[..., Any], *arguments: Any) -> asyncio.Task[None]:
    """A task that has begun to wait."""
    task: asyncio.Task[None] = asyncio.ensure_future(waiting(*arguments))
    await anyio.sleep(0.001)
    return task


async def ended(*tasks: asyncio.Task[None]) -> None:
    """All are over, or the test fails in no time."""
    with anyio.fail_after(100):
        for task in tasks:
            await asyncio.wait([task])


async def test_one_works_for_all(shop: Workshop) -> None:
    """However many wait, each piece is done once."""
    tasks = [await started(shop.wait, shop.follower(), 1) for _ in range(100)]

    await ended(*tasks)

    assert shop.done == 1


async def test_while_nobody_waits_nothing_is_done(shop: Workshop) -> None:
    """There is no task in the background."""
    before = asyncio.all_tasks()

    await shop.wait(shop.follower(), 1)
    await anyio.sleep(100 * STEP)

    assert len(shop.begun) == 1
    assert asyncio.all_tasks() == before


async def test_the_work_goes_on_when_the_leader_has_enough(shop: Workshop) -> None:
    """Who needs more does it."""
    tasks = [await started(shop.wait, shop.follower(), pieces) for pieces in (1, 2, 3)]

    await ended(*tasks)

    assert shop.done == 3
    assert len(set(shop.begun)) == 3


async def test_a_cancelled_leader_hands_over(shop: Workshop) -> None:
    """At once, and the piece is begun anew."""
    leader, *others = [await started(shop.wait, shop.follower(), 1) for _ in range(3)]

    leader.cancel()
    await ended(leader, *others)

    assert shop.done == 1
    assert len(shop.begun) == 2


async def test_a_leader_whose_time_is_over_hands_over(shop: Workshop) -> None:
    """It takes no longer than a piece of work from then on."""
    leader = await started(shop.wait, shop.follower(STEP / 2), 1)
    other = await started(shop.wait, shop.follower(), 1)
    began = LoopClock().now()

    await ended(leader, other)

    assert [type(error) for error in shop.raised] == [WaitTimeout]
    assert LoopClock().now() - began == pytest.approx(1.5 * STEP, abs=0.01)


async def test_who_has_most_time_is_asked_to_lead(shop: Workshop) -> None:
    """So that the work is not begun in vain."""
    leader = await started(shop.wait, shop.follower(), 1)
    short, long, middle = (shop.follower(time) for time in (1.1 * STEP, None, 3 * STEP))
    tasks = [await started(shop.wait, one, 1) for one in (short, long, middle)]

    leader.cancel()
    await ended(leader, *tasks)

    assert shop.begun[-1] is long


async def test_the_time_of_a_sleeper_ends_while_another_leads(shop: Workshop) -> None:
    """He does not wait for the end of the work."""
    leader = await started(shop.wait, shop.follower(), 1)
    short = await started(shop.wait, shop.follower(STEP / 4), 1)

    await ended(short)

    assert shop.done == 0
    assert [type(error) for error in shop.raised] == [WaitTimeout]
    await ended(leader)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("count", [3, 4, 10])
async def test_leader_and_heir_cancelled_together_leave_nobody_waiting(
    order: tuple[int, int], count: int, shop: Workshop
) -> None:
    """In one iteration of the event loop, in either order."""
    tasks = [await started(shop.wait, shop.follower(), 1) for _ in range(count)]

    for index in order:
        tasks[index].cancel()
    await ended(*tasks)

    assert shop.done == 1


async def test_all_but_the_last_cancelled_one_after_the_other(shop: Workshop) -> None:
    """In each iteration of the loop the one who leads, or is about to."""
    tasks = [await started(shop.wait, shop.follower(), 1) for _ in range(20)]

    for task in tasks[:-1]:
        task.cancel()
        await asyncio.sleep(0)
    await ended(*tasks)

    assert shop.done == 1


async def test_one_heir_is_roused_and_the_others_sleep_on(shop: Workshop) -> None:
    """Though both the work and the wait of the leader end."""
    leader, *others = [await started(shop.wait, shop.follower(), 1) for _ in range(10)]

    leader.cancel()
    await asyncio.sleep(0)

    assert len(shop.turns._asleep) == len(others) - 1
    await ended(leader, *others)


async def test_an_heir_who_does_not_begin_is_replaced(shop: Workshop) -> None:
    """He was roused to lead, and cancelled before he ran."""
    tasks = [await started(shop.wait, shop.follower(), 1) for _ in range(4)]

    tasks[0].cancel()
    await asyncio.sleep(0)
    tasks[1].cancel()
    await ended(*tasks)

    assert shop.done == 1


async def test_a_newcomer_may_lead_before_the_heir_does(shop: Workshop) -> None:
    """The heir sleeps again, and is roused again."""
    leader = await started(shop.wait, shop.follower(), 2)
    heir = await started(shop.wait, shop.follower(), 2)

    leader.cancel()
    newcomer = asyncio.ensure_future(shop.wait(shop.follower(), 1))
    await ended(leader, newcomer, heir)

    assert shop.done == 2


async def test_an_error_is_raised_by_each_who_waits(shop: Workshop) -> None:
    """As an object of his own, and the work ends."""
    shop.errors = [ServerError("boom")]
    tasks = [await started(shop.wait, shop.follower(), 1) for _ in range(5)]

    await ended(*tasks)

    assert [str(error) for error in shop.raised] == ["boom"] * 5
    assert len({id(error) for error in shop.raised}) == 5
    assert len(shop.begun) == 1


async def test_a_defect_is_raised_by_each_as_an_object_of_his_own(shop: Workshop) -> None:
    """Whatever the error: a traceback that all share grows with each who raises it."""
    shop.errors = [LookupError("boom")]
    followers = [shop.follower() for _ in range(3)]

    raised = await asyncio.gather(*(shop.wait(one, 1) for one in followers), return_exceptions=True)

    assert [type(error) for error in raised] == [LookupError] * 3
    assert len({id(error) for error in raised}) == 3


async def test_who_comes_after_an_error_is_not_told_of_it(shop: Workshop) -> None:
    """He finds out himself."""
    shop.errors = [ServerError("boom")]
    await shop.wait(shop.follower(), 1)

    await shop.wait(shop.follower(), 1)

    assert shop.done == 1
    assert len(shop.raised) == 1


async def test_the_time_left_is_that_of_whose_time_ends_first(shop: Workshop) -> None:
    """Of those who wait, whoever leads."""
    turns = shop.turns
    assert turns.time_left() == float("inf")

    tasks = [await started(shop.wait, shop.follower(time), 1) for time in (5.0, None, 3.0)]

    assert turns.time_left() == pytest.approx(3.0, abs=0.01)
    await ended(*tasks)
    assert turns.time_left() == float("inf")


async def test_nothing_is_kept_of_those_who_left(shop: Workshop) -> None:
    """However they left."""
    tasks = [await started(shop.wait, shop.follower(time), 3) for time in (None, 1.5, None, None)]
    tasks[0].cancel()
    await anyio.sleep(STEP / 2)
    tasks[2].cancel()

    await ended(*tasks)
    gc.collect()

    assert shop.turns._asleep == {}
    assert shop.turns._leader is None
    assert shop.turns._heir is None
