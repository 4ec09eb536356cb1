"""Watching one run, in a time of the test's own: to its end, in its time, at its pace."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from st4sd_async import ConnectFailed, Status, WaitTimeout
from st4sd_async._util.clock import SystemClock
from tests.conftest import FakeClock
from tests.watch.courses import COURSES, FOR_EVER, Course
from tests.watch.service import (
    FAILED,
    KILLED,
    NULLS,
    RUNNING,
    SILENCE,
    SUCCESS,
    Watcher,
    assert_well_told,
    follow,
    page,
    poller,
)
from tests.watch.watches import FIRST_PAUSE, MAX_PAUSE

from .watches import LONGEST_PAUSE, RUN, alone
from .watches import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.fact)
async def test_every_recorded_course_is_told_to_its_end(course: Course) -> None:
    """The first status at once, changes, the final one last, soon after the run is over and never before."""
    first = course.moments[0]
    steps = [(moment, (state, exit_status, text)) for moment, state, exit_status, text in course.moments]
    service = alone((0, steps[0][1]), *steps[1:])
    watcher = Watcher(service, poller(service), [RUN], timeout=FOR_EVER)

    await watcher()

    assert watcher.told[0].moment == 0
    assert watcher.told[0].words == first[1:3]
    assert_well_told(watcher.told, is_over=course.over is not None)
    if course.over is None:
        assert isinstance(watcher.error, WaitTimeout)
    else:
        assert course.over - first[0] <= watcher.told[-1].moment <= course.over + 2 * LONGEST_PAUSE
        assert watcher.told[-1].status.is_success is course.success
        assert watcher.error is None


SCRIPTS: dict[str, tuple[list[tuple[float, Any]], bool]] = {
    "success": (
        [(0, None), (0.3, NULLS), (2.4, RUNNING), (14.4, ("running", "Success")), (18.4, SUCCESS)],
        True,
    ),
    "state first": ([(0, RUNNING), (5, ("finished", "N/A")), (9, SUCCESS)], True),
    "component failure": ([(0, RUNNING), (30, ("running", "Failed")), (35, FAILED)], False),
    "set-up failure": ([(0, None), (4, ("failed", "Failed"))], False),
    "unscheduled": ([(0, ("unscheduled", "")), (500, RUNNING), (510, SUCCESS)], True),
    "unschedulable": ([(0, ("unschedulable", "")), (900, RUNNING), (910, SUCCESS)], True),
    "flapping": ([(0, ("failed", "")), (20, NULLS), (25, ("failed", "")), (45, RUNNING), (50, SUCCESS)], True),
    "unknown words": ([(0, ("thawing", "melted")), (100, SUCCESS)], True),
}


@pytest.mark.parametrize(("script", "success"), SCRIPTS.values(), ids=SCRIPTS)
async def test_every_sequence_ends_when_the_run_is_over(script: list[tuple[float, Any]], success: bool) -> None:
    """The first status at once, changes, the final one last; only the last is final."""
    told = await follow(alone(*script))

    assert told[-1].status.is_success is success
    assert told[-1].words == script[-1][1]
    assert told[-1].moment >= script[-1][0]


@pytest.mark.parametrize("pair", [("failed", ""), ("Failed", ""), ("running", "Failed"), ("finished", "N/A")], ids=str)
async def test_a_run_that_never_gets_its_other_field_ends_after_the_grace(pair: Any) -> None:
    """Killed orchestrators and failed init containers are over, though the service never says so."""
    service = alone((0, RUNNING), (10, pair))

    told = await follow(service)

    assert not told[-1].status.is_success
    began = next(moment for moment in service.looks if moment >= 10)
    assert told[-1].moment == pytest.approx(began + 60)


async def test_the_grace_is_that_of_the_settings() -> None:
    """Who sets none believes a half-final pair at once."""
    told = await follow(alone((0, KILLED)), grace=0.0)

    assert told[-1].moment == 0


async def test_a_changing_text_does_not_restart_the_grace() -> None:
    """Only the two words count; the change of another field is still shown."""
    service = alone((0, ("failed", "", "0")), *((10.0 * n, ("failed", "", str(n))) for n in range(1, 7)))

    told = await follow(service)

    assert told[-1].moment == pytest.approx(60)
    assert len(told) > 3


async def test_success_by_exit_status_alone_is_success() -> None:
    """The judgement by time takes the exit-status for what it says."""
    told = await follow(alone((0, ("running", "Success"))))

    assert told[-1].status.is_success


async def test_an_image_pull_that_flaps_is_not_the_end() -> None:
    """The cluster tries again for minutes, and each time the run says that it failed."""
    pull = ("failed", "", "initContainer failure: failed to pull image x")
    steps = [step for n in range(8) for step in ((100 * n, pull), (100 * n + 70, NULLS))]

    told = await follow(alone(*steps, (800, RUNNING), (810, SUCCESS)))

    assert told[-1].words == SUCCESS


async def test_the_timeout_bounds_the_whole_wait() -> None:
    """However many looks it takes, and the last pause is cut to what is left."""
    service = alone((0, RUNNING))

    with pytest.raises(WaitTimeout) as caught:
        await follow(service, timeout=100)

    assert service.seconds == pytest.approx(100)
    assert max(service.looks) <= 100
    assert caught.value.last_statuses[RUN].experiment_state == "running"
    assert "the runs go on: return to one with client.run(rest_uid).wait()" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("trouble", [page(502), SILENCE, ConnectFailed("GET", "x", "refused")], ids=str)
async def test_the_timeout_bounds_a_wait_without_answers(trouble: Any) -> None:
    """A service that is away or silent cannot make a wait longer."""
    service = alone((0, trouble))

    with pytest.raises(WaitTimeout) as caught:
        await follow(service, timeout=100)

    assert service.seconds == pytest.approx(100)
    assert caught.value.last_statuses[RUN].is_pending


async def test_the_timeout_is_that_of_the_clock() -> None:
    """Whatever the event loop's time is, for who leads and for who follows."""
    service = alone((0, RUNNING))
    clock = service.clock = FakeClock()
    poll = poller(service)
    watchers = [Watcher(service, poll, [RUN], timeout=timeout) for timeout in (100, 60, 80)]

    async with anyio.create_task_group() as tasks:
        for watcher in watchers:
            tasks.start_soon(watcher)

    assert all(isinstance(watcher.error, WaitTimeout) for watcher in watchers)
    assert clock.now() == pytest.approx(1100)
    assert 60 in [round(sum(clock.slept[:count]), 6) for count in range(len(clock.slept))]


async def test_no_time_at_all_asks_nothing() -> None:
    """0 is over at once."""
    service = alone((0, RUNNING))

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=0)

    assert service.asked == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_request_is_cut_to_the_time_left() -> None:
    """In real time too: a service that never answers cannot make a wait longer."""
    service = alone((0, SILENCE))
    service.clock = SystemClock()
    began = time.monotonic()

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=0.02)

    assert 0.02 <= time.monotonic() - began < 5


async def test_the_pace_is_quick_after_a_change_and_slow_when_nothing_moves() -> None:
    """From half a second up to half a minute, and back after a change."""
    service = alone((0, RUNNING), (1000, ("suspended", "N/A")), (1100, SUCCESS))

    await follow(service)

    pauses = [after - before for before, after in zip(service.looks, service.looks[1:], strict=False)]
    assert pauses[0] == pytest.approx(FIRST_PAUSE, rel=0.11)
    assert max(pauses) == pytest.approx(MAX_PAUSE, rel=0.11)
    changed = next(index for index, moment in enumerate(service.looks) if moment >= 1000)
    assert pauses[changed] == pytest.approx(FIRST_PAUSE, rel=0.11)
    assert len(service.looks) < 80


async def test_the_user_may_fix_the_interval() -> None:
    """A fixed interval is neither drawn nor grown."""
    service = alone((0, RUNNING), (20, SUCCESS))

    await follow(service, interval=5.0)

    assert service.looks == pytest.approx([0, 5, 10, 15, 20])


async def test_a_fixed_interval_does_not_delay_the_end() -> None:
    """A half-final pair is looked at when it is worth it."""
    service = alone((0, KILLED))

    told = await follow(service, interval=1000.0)

    assert told[-1].moment == pytest.approx(60)
    assert len(service.asked) == 3


async def test_it_can_be_dropped_and_stepped_from_any_task() -> None:
    """No task group and no cancel scope is open while the caller has a status."""
    service = alone((0, RUNNING), (5, SUCCESS))
    changes = poller(service).watch({RUN: RUN}, 50, None)
    seen: list[Status] = []

    async def step() -> None:
        seen.append((await anext(changes))[1])

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step)
    await changes.aclose()

    assert len(seen) == 2


async def test_a_slow_reader_gets_the_latest() -> None:
    """What was overtaken is never told."""
    service = alone((0, RUNNING), *((n, ("running", "N/A", str(n))) for n in range(1, 100)), (100, SUCCESS))
    watch = poller(service)
    quick, slow = (Watcher(service, watch, [RUN], slowness=slowness) for slowness in (0, 70))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(quick)
        tasks.start_soon(slow)

    newest = [one.status for one in quick.told if one.moment < 70][-1]
    assert len(quick.told) > 10
    assert [one.status for one in slow.told[1:]] == [newest, quick.told[-1].status]
    assert slow.told[-1].status.is_final
