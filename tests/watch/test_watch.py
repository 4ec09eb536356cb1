"""Watching one run on a clock that the test controls: its updates, timeouts and pauses."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from st4sd_async import ConnectFailed, Status, WaitTimeout
from st4sd_async._util.clock import SystemClock
from tests.conftest import FakeClock
from tests.watch.helpers import FIRST_PAUSE, MAX_PAUSE
from tests.watch.recorded_runs import FOREVER, RECORDED_RUNS, RecordedRun
from tests.watch.scripted_service import (
    FAILED,
    KILLED,
    NULLS,
    RUNNING,
    SILENCE,
    SUCCESS,
    Watcher,
    assert_valid_updates,
    follow,
    page,
    poller,
)

from .helpers import LONGEST_PAUSE, RUN, single_run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("course", RECORDED_RUNS, ids=lambda course: course.fact)
async def test_every_recorded_run_is_watched_to_its_end(course: RecordedRun) -> None:
    """The first status comes at once, then changes, then the final one, soon after the run is over and never before."""
    first = course.moments[0]
    steps = [(moment, (state, exit_status, text)) for moment, state, exit_status, text in course.moments]
    service = single_run((0, steps[0][1]), *steps[1:])
    watcher = Watcher(service, poller(service), [RUN], timeout=FOREVER)

    await watcher()

    assert watcher.updates[0].moment == 0
    assert watcher.updates[0].words == first[1:3]
    assert_valid_updates(watcher.updates, is_over=course.over is not None)
    if course.over is None:
        assert isinstance(watcher.error, WaitTimeout)
    else:
        assert course.over - first[0] <= watcher.updates[-1].moment <= course.over + 2 * LONGEST_PAUSE
        assert watcher.updates[-1].status.is_success is course.success
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
    """Only the last status is final."""
    updates = await follow(single_run(*script))

    assert updates[-1].status.is_success is success
    assert updates[-1].words == script[-1][1]
    assert updates[-1].moment >= script[-1][0]


@pytest.mark.parametrize("pair", [("failed", ""), ("Failed", ""), ("running", "Failed"), ("finished", "N/A")], ids=str)
async def test_a_run_whose_other_field_never_becomes_final_ends_after_the_grace_period(pair: Any) -> None:
    """Killed orchestrators and failed init containers are over, although the service never says so."""
    service = single_run((0, RUNNING), (10, pair))

    updates = await follow(service)

    assert not updates[-1].status.is_success
    began = next(moment for moment in service.request_times if moment >= 10)
    assert updates[-1].moment == pytest.approx(began + 60)


async def test_the_grace_period_is_a_setting() -> None:
    """With 0, a pair with one final field is final at once."""
    updates = await follow(single_run((0, KILLED)), grace=0.0)

    assert updates[-1].moment == 0


async def test_a_changing_description_does_not_restart_the_grace_period() -> None:
    """Only the two fields count. Changes of the description are delivered."""
    service = single_run((0, ("failed", "", "0")), *((10.0 * n, ("failed", "", str(n))) for n in range(1, 7)))

    updates = await follow(service)

    assert updates[-1].moment == pytest.approx(60)
    assert len(updates) > 3


async def test_success_in_the_exit_status_alone_is_success() -> None:
    """If the other field never becomes final."""
    updates = await follow(single_run((0, ("running", "Success"))))

    assert updates[-1].status.is_success


async def test_an_image_pull_that_fails_repeatedly_is_not_final() -> None:
    """The cluster tries again for minutes, and each time the run shows a failure."""
    pull = ("failed", "", "initContainer failure: failed to pull image x")
    steps = [step for n in range(8) for step in ((100 * n, pull), (100 * n + 70, NULLS))]

    updates = await follow(single_run(*steps, (800, RUNNING), (810, SUCCESS)))

    assert updates[-1].words == SUCCESS


async def test_the_timeout_is_for_the_whole_wait() -> None:
    """However many requests it takes; the last pause is cut to the remaining time."""
    service = single_run((0, RUNNING))

    with pytest.raises(WaitTimeout) as caught:
        await follow(service, timeout=100)

    assert service.seconds == pytest.approx(100)
    assert max(service.request_times) <= 100
    assert caught.value.last_statuses[RUN].experiment_state == "running"
    assert "the runs continue: return to one with client.run(rest_uid).wait()" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("trouble", [page(502), SILENCE, ConnectFailed("GET", "x", "refused")], ids=str)
async def test_the_timeout_includes_a_wait_without_answers(trouble: Any) -> None:
    """A service that is down or does not answer cannot extend it."""
    service = single_run((0, trouble))

    with pytest.raises(WaitTimeout) as caught:
        await follow(service, timeout=100)

    assert service.seconds == pytest.approx(100)
    assert caught.value.last_statuses[RUN].is_pending


async def test_the_timeout_is_measured_by_the_clock() -> None:
    """Not by the event loop, for the leader and for the other waiters."""
    service = single_run((0, RUNNING))
    clock = service.clock = FakeClock()
    poll = poller(service)
    watchers = [Watcher(service, poll, [RUN], timeout=timeout) for timeout in (100, 60, 80)]

    async with anyio.create_task_group() as tasks:
        for watcher in watchers:
            tasks.start_soon(watcher)

    assert all(isinstance(watcher.error, WaitTimeout) for watcher in watchers)
    assert clock.now() == pytest.approx(1100)
    assert 60 in [round(sum(clock.slept[:count]), 6) for count in range(len(clock.slept))]


async def test_a_timeout_of_0_sends_no_request() -> None:
    """It is over at once."""
    service = single_run((0, RUNNING))

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=0)

    assert service.requests == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_request_is_cut_to_the_remaining_time() -> None:
    """In real time too: a service that never answers cannot extend the wait."""
    service = single_run((0, SILENCE))
    service.clock = SystemClock()
    began = time.monotonic()

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=0.02)

    assert 0.02 <= time.monotonic() - began < 5


async def test_pauses_are_short_after_a_change_and_long_otherwise() -> None:
    """From half a second to half a minute, and back after a change."""
    service = single_run((0, RUNNING), (1000, ("suspended", "N/A")), (1100, SUCCESS))

    await follow(service)

    pauses = [after - before for before, after in zip(service.request_times, service.request_times[1:], strict=False)]
    assert pauses[0] == pytest.approx(FIRST_PAUSE, rel=0.11)
    assert max(pauses) == pytest.approx(MAX_PAUSE, rel=0.11)
    changed = next(index for index, moment in enumerate(service.request_times) if moment >= 1000)
    assert pauses[changed] == pytest.approx(FIRST_PAUSE, rel=0.11)
    assert len(service.request_times) < 80


async def test_the_interval_may_be_fixed() -> None:
    """A fixed interval is neither random nor growing."""
    service = single_run((0, RUNNING), (20, SUCCESS))

    await follow(service, interval=5.0)

    assert service.request_times == pytest.approx([0, 5, 10, 15, 20])


async def test_a_fixed_interval_does_not_delay_the_final_status() -> None:
    """A run that may be over is requested when that can be confirmed."""
    service = single_run((0, KILLED))

    updates = await follow(service, interval=1000.0)

    assert updates[-1].moment == pytest.approx(60)
    assert len(service.requests) == 3


async def test_the_generator_can_be_stepped_from_any_task_and_dropped() -> None:
    """No task group and no cancel scope is open while the consumer handles a status."""
    service = single_run((0, RUNNING), (5, SUCCESS))
    changes = poller(service).watch({RUN: RUN}, 50, None)
    seen: list[Status] = []

    async def step() -> None:
        seen.append((await anext(changes))[1])

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step)
    await changes.aclose()

    assert len(seen) == 2


async def test_a_slow_consumer_receives_the_latest_status() -> None:
    """Older ones are never delivered."""
    service = single_run((0, RUNNING), *((n, ("running", "N/A", str(n))) for n in range(1, 100)), (100, SUCCESS))
    watch = poller(service)
    quick, slow = (Watcher(service, watch, [RUN], slowness=slowness) for slowness in (0, 70))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(quick)
        tasks.start_soon(slow)

    newest = [one.status for one in quick.updates if one.moment < 70][-1]
    assert len(quick.updates) > 10
    assert [one.status for one in slow.updates[1:]] == [newest, quick.updates[-1].status]
    assert slow.updates[-1].status.is_final
