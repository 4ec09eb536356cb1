"""Who watches what until when."""

from __future__ import annotations

import pytest

from st4sd_async import DecodeError, ServerError, Status
from st4sd_async._watch.subscription import Deadline, Follower
from st4sd_async._watch.watched_run import Watched
from st4sd_async.models.finality import FinalityTracker
from tests.conftest import FakeClock

from .watches import RUN
from .watches import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


def running(text: str = "", state: str = "running") -> Status:
    return Status.model_validate({"experiment-state": state, "error-description": text})


@pytest.fixture
def follower() -> Follower:
    return Follower(Deadline(10, FakeClock()), None)


@pytest.fixture
def watched() -> Watched:
    return Watched(RUN, FinalityTracker(60))


async def test_a_follower_keeps_one_status_of_each_run(follower: Follower, watched: Watched) -> None:
    """However many there were, and the oldest news first."""
    other = Watched("demo-2", FinalityTracker(60), status=running())
    for one in (watched, other):
        follower.join(one)

    follower.tell(other)
    for number in range(1000):
        watched.status = running(str(number))
        assert follower.tell(watched)

    assert [follower.take()[1].error_description for _ in range(2)] == [None, "999"]
    assert not follower.news


async def test_a_follower_is_not_told_what_he_knows(follower: Follower, watched: Watched) -> None:
    """Nor what changed and changed back before he came for it."""
    watched.status = running()
    follower.join(watched)
    assert follower.tell(watched)
    follower.take()

    for text, is_news, is_told in (("", False, False), ("changed", True, True), ("", True, False)):
        watched.status = running(text)
        assert follower.tell(watched, is_news=is_news) is is_told

    assert not follower.news


async def test_an_end_is_told_though_it_says_what_was_told(follower: Follower, watched: Watched) -> None:
    """It may come while something else waits to be told."""
    watched.status = told = running()
    follower.join(watched)
    follower.tell(watched)
    follower.take()
    watched.status = running("changed")
    follower.tell(watched)

    watched.status, watched.final = told, told.concluded()

    assert follower.tell(watched)
    assert follower.take()[1].is_final


async def test_a_follower_leaves_a_run_with_its_end(follower: Follower, watched: Watched) -> None:
    """Though it says what he was told before; nothing binds them any more."""
    watched.status = running(state="finished")
    follower.join(watched)
    follower.tell(watched)
    follower.take()

    watched.final = watched.status.concluded()
    assert follower.tell(watched)

    assert follower.take()[1].is_final
    assert follower.open == {}
    assert watched.followers == {}


async def test_the_first_error_is_the_one_that_is_raised(follower: Follower) -> None:
    """As an object of his own that says the same."""
    first = ServerError("boom", status=500, detail={"message": "boom"}, url="x")

    follower.end(first)
    follower.end(DecodeError("GET", "x", "odd"))

    with pytest.raises(ServerError) as caught:
        follower.check()
    assert caught.value is not first
    assert (str(caught.value), caught.value.status, caught.value.detail) == (str(first), 500, {"message": "boom"})


def test_a_deadline_tells_what_is_left() -> None:
    """None means no end."""
    clock = FakeClock()
    deadline, never = Deadline(10, clock), Deadline(None, clock)
    clock.time += 4

    assert deadline.left == 6
    assert never.left == float("inf")
    clock.time += 7
    assert deadline.left == 0
