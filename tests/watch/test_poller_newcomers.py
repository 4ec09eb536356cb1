"""Who comes to watch while others do is told soon, at little cost."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from st4sd_async import RequestTimeout
from tests.watch.service import NULLS, RUNNING, SUCCESS, Life, Service, Watcher, page, poller, reply
from tests.watch.watches import FIRST_PAUSE, JITTER, MAX_DETAIL_REQUESTS, REST_FACTOR

from .watches import A_FEW, crowd, kept, until, watching
from .watches import anyio_backend as anyio_backend
from .watches import same_pauses as same_pauses

pytestmark = pytest.mark.anyio


async def told_first(service: Service, watcher: Watcher, within: float) -> None:
    """The watcher has been told of each of its runs so soon."""
    async with watching(watcher):
        await anyio.sleep(within)
        assert {one.rest_uid for one in watcher.told} == set(watcher.rest_uids)


@pytest.mark.parametrize("interval", [None, 600.0])
@pytest.mark.parametrize("count", [1, 3, 50])
async def test_a_newcomer_is_told_at_once(count: int, interval: float | None) -> None:
    """Though those who are there sleep for long, and whether they watch the run or not."""
    service = crowd(count, other=Life((0, RUNNING)))
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(count)], interval=interval)

    async with watching(crew):
        for moment, rest_uid in ((400, "run-0"), (440, "other")):
            await until(service, moment)
            asked = len(service.asked)
            await told_first(service, Watcher(service, poll, [rest_uid], interval=interval), 0.01)
            assert len(service.asked) == asked + 1


async def test_newcomers_are_asked_for_at_leisure() -> None:
    """One after the other, they are no burden on a service that is slow."""
    service = crowd(30)
    service.cost = (0.2, 0.0)
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"], interval=600)
    newcomers = kept(service, poll, list(service.lives)[1:5], interval=600)

    async with watching(crew):
        await until(service, 100)
        for newcomer in newcomers:
            async with watching(newcomer):
                await anyio.sleep(5)
            assert newcomer.told
        for number in range(5, 30):
            with anyio.move_on_after(0.3):
                await Watcher(service, poll, [f"run-{number}"], interval=600)()

    asked = [moment for moment in service.looks if moment > 120]
    assert all(after - before >= REST_FACTOR * 0.2 for before, after in pairwise(asked))
    assert len(asked) >= 3


async def test_newcomers_soon_after_a_long_list_are_asked_for_a_few_at_a_time() -> None:
    """It is too early for another list, and they are too many to be asked for all at once."""
    service = crowd(60)
    service.cost = (0.1, 0.02)
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(20)], interval=600)
    newcomers = Watcher(service, poll, [f"run-{n}" for n in range(20, 60)], interval=600)

    async with watching(crew):
        await until(service, 3)
        async with watching(newcomers):
            await until(service, 30)

    assert len({one.rest_uid for one in newcomers.told}) == 40
    assert max(service.looks.count(moment) for moment in service.looks) <= MAX_DETAIL_REQUESTS
    assert service.lists == 2


async def test_what_a_newcomer_brings_to_light_makes_the_pace_quick() -> None:
    """His first status is a change like any other."""
    service = crowd(1, other=Life((0, RUNNING), (400.4, SUCCESS)))
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"])
    newcomer = Watcher(service, poll, ["other"])

    async with watching(crew):
        await until(service, 400)
        async with watching(newcomer):
            await anyio.sleep(FIRST_PAUSE * (1 + JITTER))

    assert newcomer.ends


async def test_many_newcomers_are_read_from_one_list() -> None:
    """Not asked for one by one."""
    service = crowd(100)
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(10)])

    async with watching(crew):
        await until(service, 400)
        asked = len(service.asked)
        await told_first(service, Watcher(service, poll, service.lives), 0.01)

    assert len(service.asked) - asked <= 1 + MAX_DETAIL_REQUESTS


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_newcomer_does_not_wait_for_a_round_when_the_leader_goes(how: str) -> None:
    """While he asked for the newcomer's run."""
    service = crowd(3)
    service.cost = (0.1, 0.0)
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"], interval=600)
    leader = Watcher(service, poll, ["run-1"], interval=600, timeout=20.05 if how == "timed out" else None)
    newcomer = Watcher(service, poll, ["run-2"], interval=600)

    async with watching(leader) as tasks, watching(crew):
        await until(service, 20)
        async with watching(newcomer):
            await until(service, 20.05)
            tasks[0].cancel(how)
            await until(service, 25)

    assert [one.rest_uid for one in newcomer.told] == ["run-2"]


@pytest.mark.parametrize("interval", [None, 600.0])
async def test_a_newcomer_is_told_when_the_service_is_back(interval: float | None) -> None:
    """One answer that was lost does not make him wait for minutes."""
    service = crowd(2)
    service.troubles = [(400, 401, page(502))]
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"], interval=interval)

    async with watching(crew):
        await until(service, 400)
        await told_first(service, Watcher(service, poll, ["run-1"]), 61)


async def test_a_newcomer_does_not_wait_for_what_others_chose() -> None:
    """Their interval is long, and their last round failed."""
    service = crowd(2)
    service.troubles = [(600, 601, page(502))]
    poll = poller(service)
    crew = Watcher(service, poll, ["run-0"], interval=600)

    async with watching(crew):
        await until(service, 700)
        await told_first(service, Watcher(service, poll, ["run-1"]), 1)


@pytest.mark.parametrize("is_alone", [True, False], ids=["nobody is there", "one is busy elsewhere"])
async def test_a_newcomer_does_not_pay_for_a_round_that_others_gave_up(is_alone: bool) -> None:
    """The service was silent when they left, long ago."""
    service = crowd(20, busy=Life((0, RUNNING)))
    poll = poller(service)
    busy = poll.watch({"busy": "busy"}, None, None)
    if not is_alone:
        await anext(busy)
    service.troubles = [(10, 100, RequestTimeout("GET", "x", "silence"))]
    await until(service, 10)
    await Watcher(service, poll, [f"run-{n}" for n in range(20)], timeout=25)()
    await until(service, 5000)

    await told_first(service, Watcher(service, poll, ["run-0"]), 0.01)

    assert service.moments("run-0")[-1] >= 5000
    assert not any(moment >= 5000 for n in range(1, 20) for moment in service.moments(f"run-{n}"))
    await busy.aclose()


@pytest.mark.parametrize("interval", [None, 60.0])
@pytest.mark.parametrize("count", [2, 20])
async def test_newcomers_whose_run_cannot_be_asked_do_not_put_off_the_round(count: int, interval: float | None) -> None:
    """However many come: those who are there are told of their runs as ever."""
    service = crowd(count, 300, broken=Life((0, reply(500, {"message": "boom"}), RUNNING)))
    poll = poller(service)
    crew = Watcher(service, poll, [f"run-{n}" for n in range(count)], interval=interval)

    async with watching(crew):
        for _ in range(40):
            await Watcher(service, poll, ["broken"], timeout=10, interval=interval)()

    assert len(crew.ends) == count


async def test_a_newcomer_to_runs_that_the_list_is_blind_to_is_told_at_once() -> None:
    """Their own answers are known already."""
    waiting = {f"waiting-{n}": Life((0, ("unscheduled", ""), NULLS)) for n in range(10)}
    service = crowd(200, **waiting)
    service.cost = (0.01, 0.0005)
    poll = poller(service)
    crew = Watcher(service, poll, service.lives)

    async with watching(crew):
        await until(service, 4000)
        lists = service.lists
        await told_first(service, Watcher(service, poll, waiting), 10)
        await anyio.sleep(20)

    assert service.lists - lists <= A_FEW


async def test_runs_that_the_list_does_not_show_yet_are_asked_for_in_turn() -> None:
    """A hundred runs just started: each is told without a storm of lists."""
    service = crowd(200)
    service.hidden = {f"run-{n}" for n in range(100)}
    service.cost = (0.01, 0.0005)
    watcher = Watcher(service, poller(service), service.lives, interval=30)

    async with watching(watcher):
        await until(service, 300)

    assert service.lists <= 300 / 30 + A_FEW
    assert len({one.rest_uid for one in watcher.told}) == 200
