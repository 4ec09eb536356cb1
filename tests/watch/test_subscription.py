"""The updates that a consumer receives, and the errors that end its subscription."""

from __future__ import annotations

import pytest

from st4sd_async import DecodeError, ServerError, Status
from st4sd_async._watch.watched_run import Deadline, Subscription, WatchedRun
from st4sd_async.models.finality import FinalityTracker
from tests.conftest import FakeClock

from .helpers import RUN

pytestmark = pytest.mark.anyio


def running(text: str = "", state: str = "running") -> Status:
    return Status.model_validate({"experiment-state": state, "error-description": text})


@pytest.fixture
def subscription() -> Subscription:
    return Subscription(Deadline(10, FakeClock()), None)


@pytest.fixture
def run() -> WatchedRun:
    return WatchedRun(RUN, FinalityTracker(60))


async def test_one_pending_status_is_kept_for_each_run(subscription: Subscription, run: WatchedRun) -> None:
    """The newest one, however many there were; the run that changed first is delivered first."""
    other = WatchedRun("demo-2", FinalityTracker(60), status=running())
    for each in (run, other):
        subscription.add(each)

    subscription.notify(other)
    for number in range(1000):
        run.status = running(str(number))
        assert subscription.notify(run)

    assert [subscription.take()[1].error_description for _ in range(2)] == [None, "999"]
    assert not subscription.pending


async def test_a_status_is_not_delivered_twice(subscription: Subscription, run: WatchedRun) -> None:
    """Nor is one that changed and changed back before the consumer took it."""
    run.status = running()
    subscription.add(run)
    assert subscription.notify(run)
    subscription.take()

    for text, is_news, is_pending in (("", False, False), ("changed", True, True), ("", True, False)):
        run.status = running(text)
        assert subscription.notify(run, is_news=is_news) is is_pending

    assert not subscription.pending


async def test_a_final_status_is_delivered_even_if_it_equals_the_last_one(
    subscription: Subscription, run: WatchedRun
) -> None:
    """It may come while another update is pending."""
    run.status = delivered = running()
    subscription.add(run)
    subscription.notify(run)
    subscription.take()
    run.status = running("changed")
    subscription.notify(run)

    run.status, run.final = delivered, delivered.concluded()

    assert subscription.notify(run)
    assert subscription.take()[1].is_final


async def test_the_final_status_ends_the_subscription_to_a_run(subscription: Subscription, run: WatchedRun) -> None:
    """Neither keeps a reference to the other."""
    run.status = running(state="finished")
    subscription.add(run)
    subscription.notify(run)
    subscription.take()

    run.final = run.status.concluded()
    assert subscription.notify(run)

    assert subscription.take()[1].is_final
    assert subscription.open == {}
    assert run.subscriptions == {}


async def test_the_first_error_is_raised(subscription: Subscription) -> None:
    """As a copy with the same attributes."""
    first = ServerError("boom", status=500, detail={"message": "boom"}, url="x")

    subscription.fail(first)
    subscription.fail(DecodeError("GET", "x", "odd"))

    with pytest.raises(ServerError) as caught:
        subscription.raise_if_over()
    assert caught.value is not first
    assert (str(caught.value), caught.value.status, caught.value.detail) == (str(first), 500, {"message": "boom"})


def test_a_deadline_has_the_remaining_time() -> None:
    """None means that there is no end."""
    clock = FakeClock()
    deadline, never = Deadline(10, clock), Deadline(None, clock)
    clock.time += 4

    assert deadline.remaining == 6
    assert never.remaining == float("inf")
    clock.time += 7
    assert deadline.remaining == 0
