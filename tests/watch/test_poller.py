"""How many requests the poller sends for many runs, on a clock that the test controls."""

from __future__ import annotations

import re
from itertools import pairwise
from math import ceil
from typing import Any

import anyio
import pytest

from st4sd_async import ConnectionLost, RequestTimeout, WaitTimeout
from tests.watch.helpers import (
    FAILING_LIST_PAUSE,
    FIRST_PAUSE,
    MAX_DETAIL_REQUESTS,
    MAX_FAILURES_IN_A_ROW,
    MAX_LIST_FAILURES,
    MAX_LIST_ITEMS_PER_RUN,
    MAX_PARALLEL_REQUESTS,
    MAX_PAUSE,
    MAX_REST,
    MAX_RUNS_WITHOUT_LIST,
    MAX_SINGLE_REQUESTS,
    REST_FACTOR,
)
from tests.watch.scripted_service import RUNNING, SUCCESS, Script, Watcher, follow, jump, page, poller, reply

from .helpers import many_runs, until, watching

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("count", [MAX_RUNS_WITHOUT_LIST + 1, 50, 300])
async def test_many_runs_cost_one_list_and_three_requests_a_round(count: int) -> None:
    """From the first round on, however many runs there are."""
    service = many_runs(count)

    with pytest.raises(WaitTimeout) as caught:
        await follow(service, timeout=101, interval=5)

    assert service.list_count == 21
    assert service.max_details() <= MAX_DETAIL_REQUESTS
    assert len(caught.value.last_statuses) == count


@pytest.mark.parametrize("count", [1, 2, MAX_RUNS_WITHOUT_LIST])
async def test_a_few_runs_are_requested_one_by_one(count: int) -> None:
    """Each once in a round; the list is never read."""
    service = many_runs(count)
    service.old_items = 20_000

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=101, interval=5)

    assert service.list_count == 0
    assert service.detail_count == 21 * count


@pytest.mark.parametrize(
    ("count", "old", "by_list"),
    [
        (10, 10 * MAX_LIST_ITEMS_PER_RUN - 10, True),
        (10, 10 * MAX_LIST_ITEMS_PER_RUN - 9, False),
        (MAX_RUNS_WITHOUT_LIST, 0, False),
        (40, 5000, False),
    ],
)
async def test_the_list_is_used_only_if_it_costs_less(count: int, old: int, by_list: bool) -> None:
    """If the service has many old instances, the list is read once, and then each run is requested."""
    service = many_runs(count)
    service.old_items = old

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=51, interval=5)

    assert service.list_count == (11 if by_list else count > MAX_RUNS_WITHOUT_LIST)
    assert (service.detail_count >= 10 * count) is not by_list


@pytest.mark.parametrize("interval", [None, 1.0])
@pytest.mark.parametrize("old", [0, 1900], ids=["singly after all", "by list"])
async def test_slow_rounds_are_rare(interval: float | None, old: int) -> None:
    """A pause is at least ten times as long as the round before it, even with a fixed interval."""
    service = many_runs(100 if old else MAX_RUNS_WITHOUT_LIST, 200)
    service.old_items = old
    service.latency = (0.3, 0.001)

    await follow(service, interval=interval)

    took = 2.0 + 0.3 if old else 0.3 * ceil(MAX_RUNS_WITHOUT_LIST / MAX_PARALLEL_REQUESTS)
    firsts = service.times_of(None if old else "run-0")
    pauses = [after - before - took for before, after in pairwise(firsts)]
    assert min(pauses) >= REST_FACTOR * took - 0.01
    assert interval is None or max(pauses) <= REST_FACTOR * took + 0.1


async def test_a_list_that_is_too_long_does_not_slow_down_single_requests() -> None:
    """Its duration does not count for the rounds after it."""
    service = many_runs(10)
    service.old_items, service.latency = 20_000, (0.01, 0.001)

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=60, interval=5)

    assert service.list_count == 1
    assert service.detail_count > 60


async def test_pauses_are_short_after_a_change_and_long_otherwise() -> None:
    """For all runs together: from half a second to half a minute, and back."""
    service = many_runs(20, 1500, mover=Script((0, RUNNING), (1000, ("suspended", "N/A")), (1500, SUCCESS)))

    await follow(service)

    lists = service.times_of()
    pauses = [after - before for before, after in pairwise(lists)]
    changed = next(index for index, moment in enumerate(lists) if moment >= 1000)
    assert pauses[0] == pytest.approx(FIRST_PAUSE, rel=0.11)
    assert pauses[changed - 1] == pytest.approx(MAX_PAUSE, rel=0.11)
    assert pauses[changed] == pytest.approx(FIRST_PAUSE, rel=0.11)


@pytest.mark.parametrize("count", [2, 20])
async def test_a_clock_that_jumps_in_a_round_does_not_cause_a_pause_of_hours(count: int) -> None:
    """The machine was suspended in the middle of a request."""
    service = many_runs(count, 5000)
    service.latency = (0.1, 0.01)
    watcher = Watcher(service, poller(service), service.scripts, interval=10)

    async with watching(watcher):
        await until(service, 60)
        await service.next_request()
        jump(5 * 3600.0)
        await anyio.sleep(100)

    assert watcher.has_ended
    assert watcher.error is None


@pytest.mark.slow
async def test_a_round_of_minutes_is_followed_by_its_rest() -> None:
    """Of many short requests; only a single request that seems to take minutes shows a suspended machine."""
    service = many_runs(MAX_SINGLE_REQUESTS)
    service.old_items, service.latency = 20_000, (2.5, 0.0)

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=1500, interval=5)

    took = 2.5 * MAX_SINGLE_REQUESTS / MAX_PARALLEL_REQUESTS
    assert took > 120
    assert len(service.requests) <= 1 + MAX_DETAIL_REQUESTS + MAX_SINGLE_REQUESTS
    assert max(service.request_times) <= 1500 - REST_FACTOR * 120


@pytest.mark.parametrize("count", [1, MAX_RUNS_WITHOUT_LIST, 50])
@pytest.mark.parametrize("trouble", [page(502), ConnectionLost("GET", "x", "reset")], ids=["502", "reset"])
async def test_a_service_that_is_down_gets_fewer_requests(count: int, trouble: Any) -> None:
    """A failed round is followed by a pause. No update is lost."""
    service = many_runs(count, 700)
    service.faults = [(50, 650, trouble)]

    await follow(service)

    down = [moment for moment in service.request_times if 50 <= moment < 650]
    assert len(set(down)) <= 600 / MAX_PAUSE + 12
    assert len(down) <= len(set(down)) * (count if count <= MAX_RUNS_WITHOUT_LIST else 1 + MAX_DETAIL_REQUESTS)


async def test_a_round_ends_after_a_few_failures_in_a_row() -> None:
    """The remaining runs are not requested."""
    service = many_runs(100)
    service.old_items, service.latency = 6000, (0.01, 0.0)
    service.faults = [(100, 1e9, page(502))]

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=200, interval=10)

    rounds = 100 / 10 + 1  # one more confirms the first failure
    assert len([moment for moment in service.request_times if moment >= 100]) <= rounds * (
        MAX_FAILURES_IN_A_ROW + MAX_PARALLEL_REQUESTS
    )


@pytest.mark.parametrize("count", [1, 20])
async def test_a_service_that_does_not_answer_does_not_cause_a_pause_of_minutes(count: int) -> None:
    """Only successful rounds make long pauses; a failure rests for a minute at most."""
    service = many_runs(count, 300)
    service.faults = [(50, 200, RequestTimeout("GET", "x", "silence"))]

    await follow(service, interval=5)

    lists = service.times_of(None if count > MAX_RUNS_WITHOUT_LIST else "run-0")
    assert max(after - before for before, after in pairwise(lists)) <= 2 * 20 + MAX_REST + 0.01


async def test_one_warning_is_logged_for_each_outage(caplog: pytest.LogCaptureFixture) -> None:
    """Within ten seconds, and one line in the log says for how long it lasted."""
    caplog.set_level("INFO")
    service = many_runs(3, 900)
    service.faults = [(50, 80, page(502)), (100, 300, page(502)), (500, 700, page(502))]

    await follow(service)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    silent = [int(re.findall(r"no answer from \S+ for (\d+) s: HTTP status 502", warning)[0]) for warning in warnings]
    assert all(5 <= seconds <= 10 for seconds in silent)
    ends = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    lasted = [int(re.findall(r"answers again after (\d+) s", end)[0]) for end in ends]
    assert len(silent) == len(lasted)
    assert lasted[-2:] == pytest.approx([200, 200], abs=2 * MAX_PAUSE)  # quiet runs are looked at every 30 s


class Flaky(Script):
    """A run of which some requests fail."""

    FAILING = (5, 9, 20)
    """Their numbers."""

    def __init__(self, trouble: Any, *steps: tuple[Any, ...]) -> None:
        super().__init__(*steps)
        self.requests = 0
        self._trouble = trouble

    def at(self, seconds: float) -> tuple[Any, Any]:
        self.requests += 1
        return (self._trouble, RUNNING) if self.requests in self.FAILING else super().at(seconds)


@pytest.mark.parametrize("interval", [None, 20.0])
@pytest.mark.parametrize("trouble", [page(503), ConnectionLost("GET", "x", "reset")], ids=["503", "reset"])
async def test_a_single_failure_is_no_outage(
    trouble: Any, interval: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether other runs could be read in that round or none: the next round comes soon, and is enough."""
    caplog.set_level("INFO")
    for count in (1, 3):
        service = many_runs(count, 900)
        flaky = service.scripts["run-0"] = Flaky(trouble, (0, RUNNING), (900, SUCCESS))

        await follow(service, interval=interval)

        assert flaky.requests > max(flaky.FAILING)
    assert caplog.records == []


async def test_a_run_that_can_never_be_read_does_not_look_like_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """And it costs no more rounds than others."""
    service = many_runs(3, 900, broken=Script((0, page(503), RUNNING), (900, SUCCESS)))

    await follow(service)

    assert caplog.records == []
    assert len(service.times_of("run-1")) <= 900 / 30 + 25


async def test_an_outage_that_begins_in_the_middle_of_a_round_is_reported_in_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One run could still be read then."""
    service = many_runs(2, 900)
    failed_at: list[float] = []

    class Broken(Script):
        def at(self, seconds: float) -> tuple[Any, Any]:
            is_first = self is service.scripts["run-0"]
            if is_first and 400 <= seconds < 500:
                failed_at.append(seconds)
            is_broken = failed_at and (is_first or seconds > failed_at[0]) and seconds < 500
            return (page(503), RUNNING) if is_broken else super().at(seconds)

    for run in service.scripts:
        service.scripts[run] = Broken((0, RUNNING), (900, SUCCESS))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow, service)
        while not caplog.records:  # noqa: ASYNC110 -- a log wakes nobody
            await anyio.sleep(0.5)
        reported_at = service.seconds

    assert failed_at[0] + 5 <= reported_at <= failed_at[0] + 10


@pytest.mark.slow
async def test_the_list_is_not_used_for_a_while_if_only_the_list_fails() -> None:
    """Runs are requested one by one instead; the list is tried again from time to time."""
    service = many_runs(20, 2000)
    service.list_faults = [(100, 1000, page(502))]

    updates = await follow(service, interval=10)

    lists = [moment for moment in service.times_of() if 100 <= moment < 1000]
    assert MAX_LIST_FAILURES <= len(lists) <= 900 / FAILING_LIST_PAUSE + MAX_LIST_FAILURES
    assert {one.rest_uid for one in updates if one.status.is_final} == set(service.scripts)
    assert len(service.times_of()) > 90


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("count", [MAX_RUNS_WITHOUT_LIST, 20], ids=["singly", "by list"])
async def test_retry_after_is_obeyed_even_if_other_requests_succeed(count: int, code: int) -> None:
    """A rate limit lets some requests pass."""
    service = many_runs(count)
    refusal = reply(code, {"message": "slow down"}, retry_after="40")
    for rest_uid in list(service.scripts)[1:]:
        service.scripts[rest_uid] = Script((0, RUNNING), (20, refusal, RUNNING), (30, RUNNING))

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=100, interval=2)

    refused = next(moment for moment in service.request_times if moment >= 20)
    resumed = next(moment for moment in service.request_times if moment > refused)
    assert resumed - refused >= 40
