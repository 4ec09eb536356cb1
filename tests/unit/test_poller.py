"""Watching many runs, by many, in a time of the test's own."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from math import ceil
from typing import Any

import anyio
import pytest

from st4sd_async import ConnectionLost, DecodeError, St4sdError, TimedOut, Unauthorized, UnknownRun, WaitTimeout
from st4sd_async._looks import ENOUGH, FEW, LAST_WORD, LIST_ATTEMPTS, LIST_SHARE, LIST_SPARED, PARALLEL, UNREADABLE
from st4sd_async._poller import BESIDE, Poller
from st4sd_async._schedule import JITTER, LEISURE, LONGEST_REST, QUICKEST, SLOWEST
from tests.unit.service import (
    FAILED,
    GONE,
    HASTY,
    KILLED,
    LIST,
    NULLS,
    RUNNING,
    SILENCE,
    SUCCESS,
    Life,
    Service,
    Watcher,
    assert_well_told,
    follow,
    jump,
    page,
    poller,
    reply,
)

pytestmark = pytest.mark.anyio

LONGEST_PAUSE = SLOWEST * (1 + JITTER)
A_FEW = 4
"""Rounds."""


@pytest.fixture
def anyio_backend() -> Any:
    return HASTY


@pytest.fixture(autouse=True)
def same_pauses() -> None:
    """The draws of the pauses are those of every run of the tests."""
    random.seed(4)


def crowd(count: int, end: float = 1e9, /, **others: Life) -> Service:
    """Healthy runs, which succeed at some moment, and others."""
    return Service({**{f"run-{n}": Life((0, RUNNING), (end, SUCCESS)) for n in range(count)}, **others})


async def until(service: Service, seconds: float) -> None:
    """Wait for a moment."""
    await anyio.sleep(seconds - service.seconds)


@asynccontextmanager
async def watching(*watchers: Watcher) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that watch inside the block, and are cancelled at its end."""
    tasks = [asyncio.ensure_future(watcher()) for watcher in watchers]
    try:
        await asyncio.sleep(0)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def assert_nothing_is_left(poll: Poller) -> None:
    """Nobody is known any more."""
    assert poll._runs == {}
    assert poll._turns._asleep == {}
    assert poll._turns._leader is None
    assert not any(poll._schedule._intervals.values())


# How much is asked


@pytest.mark.parametrize("count", [FEW + 1, 50, 300])
async def test_many_runs_cost_one_list_and_three_requests_a_round(count: int) -> None:
    """From the first round on, however many there are."""
    service = crowd(count)

    with pytest.raises(WaitTimeout) as caught:
        await follow(service, timeout=101, interval=5)

    assert service.lists == 21
    assert service.most_details() <= BESIDE
    assert len(caught.value.last_statuses) == count


@pytest.mark.parametrize("count", [1, 2, FEW])
async def test_a_few_runs_are_asked_singly(count: int) -> None:
    """Each once a round, and never by the list."""
    service = crowd(count)
    service.old_items = 20_000

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=101, interval=5)

    assert service.lists == 0
    assert service.details == 21 * count


@pytest.mark.parametrize(
    ("count", "old", "by_list"),
    [(10, 10 * LIST_SHARE - 10, True), (10, 10 * LIST_SHARE - 9, False), (FEW, 0, False), (40, 20_000, False)],
)
async def test_the_list_is_used_only_if_it_costs_less(count: int, old: int, by_list: bool) -> None:
    """A service with many old instances is listed once, and then each run is asked for."""
    service = crowd(count)
    service.old_items = old

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=51, interval=5)

    assert service.lists == (11 if by_list else count > FEW)
    assert (service.details >= 10 * count) is not by_list


@pytest.mark.parametrize("interval", [None, 1.0])
@pytest.mark.parametrize("old", [0, 1900], ids=["singly after all", "by list"])
async def test_what_takes_long_is_done_rarely(interval: float | None, old: int) -> None:
    """A pause is at least ten times as long as the round before it, a fixed one too."""
    service = crowd(100 if old else FEW, 200)
    service.old_items = old
    service.cost = (0.3, 0.001)

    await follow(service, interval=interval)

    took = 2.0 + 0.3 if old else 0.3 * ceil(FEW / PARALLEL)
    firsts = service.moments(None if old else "run-0")
    pauses = [after - before - took for before, after in pairwise(firsts)]
    assert min(pauses) >= LEISURE * took - 0.01
    assert interval is None or max(pauses) <= LEISURE * took + 0.1


async def test_a_list_that_is_too_long_does_not_slow_down_the_runs_that_are_asked_singly() -> None:
    """It is no measure for what comes after it."""
    service = crowd(10)
    service.old_items, service.cost = 20_000, (0.01, 0.001)

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=60, interval=5)

    assert service.lists == 1
    assert service.details > 60


async def test_the_pace_is_quick_after_a_change_and_slow_when_nothing_moves() -> None:
    """For all runs together: from half a second to half a minute, and back."""
    service = crowd(20, 1500, mover=Life((0, RUNNING), (1000, ("suspended", "N/A")), (1500, SUCCESS)))

    await follow(service)

    lists = service.moments()
    pauses = [after - before for before, after in pairwise(lists)]
    changed = next(index for index, moment in enumerate(lists) if moment >= 1000)
    assert pauses[0] == pytest.approx(QUICKEST, rel=0.11)
    assert pauses[changed - 1] == pytest.approx(SLOWEST, rel=0.11)
    assert pauses[changed] == pytest.approx(QUICKEST, rel=0.11)


@pytest.mark.parametrize("count", [2, 20])
async def test_a_clock_that_jumps_in_a_round_does_not_make_a_pause_of_hours(count: int) -> None:
    """The machine slept in the middle of a request."""
    service = crowd(count, 5000)
    service.cost = (0.1, 0.01)
    watcher = Watcher(service, poller(service), service.lives, interval=10)

    async with watching(watcher):
        await until(service, 60)
        await service.next_request()
        jump(5 * 3600.0)
        await anyio.sleep(100)

    assert watcher.has_ended
    assert watcher.error is None


@pytest.mark.parametrize("count", [1, FEW, 50])
@pytest.mark.parametrize("trouble", [page(502), ConnectionLost("GET", "x", "reset")], ids=["502", "reset"])
async def test_a_service_that_is_down_is_asked_less_and_less(count: int, trouble: Any) -> None:
    """A round that failed is followed by a pause; nothing is lost."""
    service = crowd(count, 700)
    service.troubles = [(50, 650, trouble)]

    await follow(service)

    down = [moment for moment in service.looks if 50 <= moment < 650]
    assert len(set(down)) <= 600 / SLOWEST + 12
    assert len(down) <= len(set(down)) * (count if count <= FEW else 1 + BESIDE)


async def test_a_service_that_is_down_is_not_asked_for_each_run() -> None:
    """When all are asked for singly: a few failures in a row are enough for a round."""
    service = crowd(100)
    service.old_items, service.cost = 20_000, (0.01, 0.0)
    service.troubles = [(100, 1e9, page(502))]

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=200, interval=10)

    assert len([moment for moment in service.looks if moment >= 100]) <= 10 * (ENOUGH + PARALLEL)


@pytest.mark.parametrize("count", [1, 20])
async def test_a_service_that_is_silent_does_not_make_a_pause_of_minutes(count: int) -> None:
    """What took long has failed; a minute is the longest rest."""
    service = crowd(count, 300)
    service.troubles = [(50, 200, TimedOut("GET", "x", "silence"))]

    await follow(service, interval=5)

    lists = service.moments(None if count > FEW else "run-0")
    assert max(after - before for before, after in pairwise(lists)) <= 2 * 20 + LONGEST_REST + 0.01


async def test_who_waits_for_a_service_that_is_away_is_warned_once(caplog: pytest.LogCaptureFixture) -> None:
    """After a minute without any answer, and again if it comes back and goes again."""
    service = crowd(3, 900)
    service.troubles = [(50, 80, page(502)), (100, 300, page(502)), (500, 700, page(502))]

    await follow(service)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert all("without an answer for 60 s" in warning for warning in warnings)


async def test_the_list_is_left_out_for_a_while_if_it_alone_fails() -> None:
    """Runs are asked for singly meanwhile; the list is tried again now and then."""
    service = crowd(20, 2000)
    service.list_troubles = [(100, 1000, page(502))]

    told = await follow(service, interval=10)

    lists = [moment for moment in service.moments() if 100 <= moment < 1000]
    assert LIST_ATTEMPTS <= len(lists) <= 900 / 10 / LIST_SPARED + LIST_ATTEMPTS + 1
    assert {one.rest_uid for one in told if one.status.is_final} == set(service.lives)
    assert len(service.moments()) > 90


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("count", [FEW, 20], ids=["singly", "by list"])
async def test_a_service_that_answers_some_and_asks_for_rest_gets_it(count: int, code: int) -> None:
    """A limit on requests lets some of them through."""
    service = crowd(count)
    refusal = reply(code, {"message": "slow down"}, retry_after="40")
    for rest_uid in list(service.lives)[1:]:
        service.lives[rest_uid] = Life((0, RUNNING), (20, refusal, RUNNING), (30, RUNNING))

    with pytest.raises(WaitTimeout):
        await follow(service, timeout=100, interval=2)

    refused = next(moment for moment in service.looks if moment >= 20)
    resumed = next(moment for moment in service.looks if moment > refused)
    assert resumed - refused >= 40


# What is believed


KILLS: dict[str, tuple[Any, ...]] = {
    "killed orchestrator": (KILLED, RUNNING),
    "killed after a component failed": (("running", "Failed"),),
    "init container failed": (("failed", ""), NULLS),
    "init container failed, and not in the list": (("failed", ""), GONE),
    "init container failed, and unreadable in the list": (("failed", ""), {"experiment-state": 7}),
}


@pytest.mark.parametrize("moment", [100, 410])
@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
async def test_a_killed_run_ends_in_a_crowd(kill: tuple[Any, ...], moment: int) -> None:
    """Within the grace, a round for every third unfinished run, and a few more."""
    victim = Life((0, NULLS if kill[-1] == NULLS else RUNNING), (moment, *kill))
    service = crowd(200, victim=victim)
    rounds = 60 / 10 + 201 / 3 + A_FEW
    watcher = Watcher(service, poller(service), service.lives, interval=10, timeout=moment + rounds * 10)

    await watcher()

    assert "victim" in watcher.ends
    assert sum(moment <= one <= watcher.ends["victim"] for one in service.moments()) <= rounds
    assert not watcher.of("victim")[-1].status.is_success
    assert service.most_details() <= 2 * BESIDE


async def test_a_hundred_runs_killed_at_once_end() -> None:
    """The node they ran on is gone; each is asked for three times, and each other run once, three in a round."""
    service = crowd(100, **{f"victim-{n}": Life((0, RUNNING), (100, KILLED, RUNNING)) for n in range(100)})
    rounds = 60 / 10 + (100 + 3 * 100) / BESIDE + A_FEW
    watcher = Watcher(service, poller(service), service.lives, interval=10, timeout=100 + rounds * 10)

    await watcher()

    assert set(watcher.ends) == {f"victim-{n}" for n in range(100)}


@pytest.mark.parametrize("cost", [(0.03, 0.0005), (0.01, 0.0005)], ids=str)
async def test_a_hundred_runs_killed_at_once_are_asked_a_few_at_a_time(cost: tuple[float, float]) -> None:
    """Three in a round, and three between two rounds."""
    service = crowd(100, **{f"victim-{n}": Life((0, RUNNING), (100, KILLED, RUNNING)) for n in range(100)})
    service.cost = cost
    watcher = Watcher(service, poller(service), service.lives, timeout=2000)

    await watcher()

    assert len(watcher.ends) == 100
    assert service.most_details() <= 2 * BESIDE


async def test_a_killed_run_is_found_though_others_are_always_in_doubt() -> None:
    """One place in a round is for the quietest run, however many the list leaves out."""
    service = crowd(100, victim=Life((0, RUNNING), (100, KILLED, RUNNING)))
    service.hidden = {f"run-{n}" for n in range(50)}
    watcher = Watcher(service, poller(service), service.lives, interval=10, timeout=100 + (101 + A_FEW) * 10)

    await watcher()

    assert "victim" in watcher.ends


@pytest.mark.parametrize("listing", [[], "partial", page(200), reply(200, {"odd": 1}), reply(200, [{}, {"id": 3}])],
                         ids=["empty", "partial", "a page", "no list", "odd items"])  # fmt: skip
async def test_a_short_list_is_no_proof_of_absence(listing: Any) -> None:
    """A run that it lacks is asked for, and ends with its own word."""
    service = crowd(10, 150)
    if listing == "partial":
        service.hidden = {f"run-{n}" for n in range(0, 10, 2)}
    else:
        service.list_troubles = [(0.1, 1e9, reply(200, listing) if listing == [] else listing)]

    told = await follow(service, interval=5)

    assert len({one.rest_uid for one in told if one.status.is_success}) == 10
    assert not any(one.status.is_deleted for one in told)
    assert max(one.moment for one in told) < 150 + 10 / BESIDE * 5 + LIST_SPARED * 5


async def test_a_run_that_the_list_lost_is_asked_for_in_every_round() -> None:
    """Nothing else tells of it, however many others have not been asked for longer."""
    service = crowd(100, lost=Life((0, RUNNING), (200, RUNNING, GONE), (400, SUCCESS, GONE)))
    watcher = Watcher(service, poller(service), service.lives, interval=10, timeout=450)

    await watcher()

    assert watcher.ends["lost"] <= 410
    assert sum(moment > 210 for moment in service.moments("lost")) >= 19


async def test_statuses_in_the_list_that_cannot_be_read_do_not_hide_a_run() -> None:
    """The others are read from the list as ever."""
    odd = {f"odd-{n}": Life((0, RUNNING, odd), (100, SUCCESS, odd)) for n, odd in enumerate((5, "x", {"meta": 3}))}
    service = crowd(30, 100, **odd)

    told = await follow(service, interval=5)

    ends = {one.rest_uid: one.moment for one in told if one.status.is_final}
    assert {ends[f"run-{n}"] for n in range(30)} == {100}
    assert max(ends.values()) < 120


async def test_the_detail_wins_until_the_entry_changes() -> None:
    """A list that contradicts it is not believed, and nothing flaps."""
    waiting = Life((0, ("unscheduled", ""), NULLS), (500, RUNNING), (600, SUCCESS))
    service = crowd(10, 600, waiting=waiting)

    told = await follow(service, interval=5)

    assert [one.words for one in told if one.rest_uid == "waiting" and one.status.experiment_state] == [
        ("unscheduled", ""), RUNNING, SUCCESS,
    ]  # fmt: skip


async def test_an_image_pull_that_flaps_is_not_the_end() -> None:
    """The list shows nothing of it; the run comes back."""
    pull = ("failed", "", "initContainer failure: failed to pull image x")
    flaps = [step for n in range(8) for step in ((100 * n, pull, NULLS), (100 * n + 70, NULLS))]
    service = crowd(10, 900, flapping=Life(*flaps, (800, RUNNING), (810, SUCCESS)))

    told = await follow(service, interval=5)

    assert [one.words for one in told if one.rest_uid == "flapping"][-1] == SUCCESS


async def test_what_the_list_tells_does_not_wait_for_single_requests() -> None:
    """One who watches all runs by himself gets its news first."""
    service = crowd(20, 100)
    service.cost = (15.0, 0.01)

    told = await follow(service)

    first = [one.moment for one in told if one.words == RUNNING]
    assert len(first) == 20
    assert max(first) < 1


async def test_a_change_is_told_in_the_round_after_it() -> None:
    """By the list: whatever the run's turn."""
    ends = {f"late-{n}": Life((0, RUNNING), (100 + n, SUCCESS)) for n in range(50)}
    service = crowd(50, **ends)
    watcher = Watcher(service, poller(service), service.lives, interval=10, timeout=200)

    await watcher()

    assert all(watcher.ends[f"late-{n}"] - (100 + n) <= 10 for n in range(50))


@pytest.mark.parametrize("known", [True, False], ids=["in the datastore", "nowhere"])
async def test_many_runs_that_are_deleted_at_once(known: bool) -> None:
    """Each ends with what is known of it, and the others go on."""
    service = crowd(20, 800, **{f"lost-{n}": Life((0, RUNNING), (100, GONE)) for n in range(30)})
    service.words = {f"lost-{n}": ("finished", "Stopped") for n in range(30)} if known else {}

    told = await follow(service, interval=10)

    lost = [one for one in told if one.status.is_deleted]
    assert {one.rest_uid for one in lost} == {f"lost-{n}" for n in range(30)}
    assert all(one.words == (("finished", "Stopped") if known else RUNNING) for one in lost)
    assert max(one.moment for one in lost) <= 100 + 10 * (30 / 2 + A_FEW)
    assert sum(one.status.is_success for one in told) == 20


@pytest.mark.parametrize("count", [1, 20], ids=["singly", "by list"])
async def test_a_last_word_that_hangs_holds_up_nobody_for_long(count: int) -> None:
    """A datastore that is silent costs what it is given, and no more."""
    service = crowd(count, 22, lost=Life((0, RUNNING), (20, GONE)))
    service.words["lost"] = SILENCE

    told = await follow(service, interval=1)

    assert max(one.moment for one in told if one.rest_uid != "lost") <= 22 + LAST_WORD + 2
    assert max(one.moment for one in told if one.rest_uid == "lost") <= 21 + LAST_WORD + 2


async def test_a_run_that_is_unknown_ends_the_watching_of_those_who_asked_for_it() -> None:
    """Others go on."""
    service = crowd(3, 50)
    poll = poller(service)
    right = Watcher(service, poll, ["run-0", "run-1"], interval=60)
    groups = (["run-0", "typo"], ["typo"], ["typo", "other typo"])
    wrong = [Watcher(service, poll, group, interval=60) for group in groups]

    async with watching(right):
        await until(service, 5)
        async with watching(*wrong):
            await until(service, 5.01)
            assert all(isinstance(watcher.error, UnknownRun) for watcher in wrong)
        await until(service, 100)

    assert right.error is None
    assert set(right.ends) == {"run-0", "run-1"}
    assert_nothing_is_left(poll)


async def test_runs_that_leave_the_list_go_on() -> None:
    """From six to five: from then on they are asked singly."""
    service = crowd(FEW, 200, first=Life((0, RUNNING), (50, SUCCESS)))

    told = await follow(service, interval=5)

    assert max(service.moments()) == 50
    assert {one.moment for one in told if one.status.is_success} == {50, 200}


async def test_runs_that_enter_the_list_are_not_taken_for_what_they_were() -> None:
    """From five to six: what a run said by itself holds, whatever an old or new entry says."""
    victim = Life((0, ("Initialising", "N/A")), (50, RUNNING), (100, KILLED, RUNNING))
    service = crowd(4, victim=victim, first=Life((0, RUNNING), (20, SUCCESS)), late=Life((0, RUNNING)))
    poll = poller(service)
    early = Watcher(service, poll, ["first", "victim", *(f"run-{n}" for n in range(4))], interval=5)
    late = Watcher(service, poll, ["late"], interval=5)

    async with watching(early):
        await until(service, 121)
        async with watching(late):
            await until(service, 300)

    assert [one.words for one in early.of("victim")] == [("Initialising", "N/A"), RUNNING, KILLED, KILLED]
    assert early.ends["victim"] <= 100 + 5 + 60 + 1
    assert service.lists > 5


async def test_runs_that_contradict_the_list_are_asked_no_more_than_others() -> None:
    """Once it is settled who is right; a killed orchestrator among the others is found as soon as ever."""
    waiting = {f"waiting-{n}": Life((0, ("unscheduled", ""), NULLS)) for n in range(FEW)}
    service = crowd(80, **waiting, victim=Life((0, RUNNING), (500, KILLED, RUNNING)))
    poll = poller(service)
    early = Watcher(service, poll, waiting, interval=10)
    late = Watcher(service, poll, [*(f"run-{n}" for n in range(80)), "victim"], interval=10)

    async with watching(early):
        await until(service, 105)
        async with watching(late):
            await until(service, 500 + 10 * (60 / 10 + 86 / 3 + A_FEW))

    asked = [sum(moment > 200 for moment in service.moments(rest_uid)) for rest_uid in waiting]
    assert max(asked) <= A_FEW
    assert "victim" in late.ends


async def test_runs_that_enter_the_list_together_do_not_wait_for_their_turn() -> None:
    """An end that the list shows first is settled within rounds, however many others there are."""
    service = crowd(200, **{f"old-{n}": Life((0, RUNNING), (102, SUCCESS)) for n in range(FEW)})
    poll = poller(service)
    early = Watcher(service, poll, [f"old-{n}" for n in range(FEW)], interval=5)
    late = Watcher(service, poll, [f"run-{n}" for n in range(200)], interval=5)

    async with watching(early):
        await until(service, 103)
        async with watching(late):
            await until(service, 103 + A_FEW * 5)

    assert len(early.ends) == FEW


@pytest.mark.parametrize("trouble", [reply(500, {"message": "boom"}), reply(200, "odd")], ids=["500", "unreadable"])
async def test_runs_that_cannot_be_asked_do_not_hide_the_others(trouble: Any) -> None:
    """When all are asked singly: nobody waits for a run that is over because others are broken."""
    broken = {f"broken-{n}": Life((0, RUNNING), (20, trouble, RUNNING)) for n in range(20)}
    service = Service({**broken, **{f"run-{n}": Life((0, RUNNING), (50, SUCCESS)) for n in range(10)}})
    service.old_items = 20_000
    watcher = Watcher(service, poller(service), service.lives, interval=5, timeout=20 + UNREADABLE - 1)

    await watcher()

    assert set(watcher.ends) == {f"run-{n}" for n in range(10)}


async def test_answers_that_can_be_read_nowhere_are_told_after_a_minute() -> None:
    """In a crowd too: neither the list nor the run's own answer."""
    odd = {"experiment-state": 7}
    service = crowd(10, victim=Life((0, RUNNING), (20, reply(200, odd), odd)))

    with pytest.raises(DecodeError):
        await follow(service, interval=5, timeout=20 + UNREADABLE + A_FEW * 5)


async def test_two_bad_answers_long_after_one_another_are_no_reason_to_give_up() -> None:
    """The list could be read all the time."""
    odd = reply(200, "odd")
    victim = Life((0, RUNNING), (9.9, odd, RUNNING), (10.1, RUNNING), (200, odd, RUNNING), (390, RUNNING))
    service = crowd(100, victim=victim)
    poll = poller(service)
    crew = Watcher(service, poll, service.lives, interval=10, timeout=1000)
    guest = Watcher(service, poll, ["victim"], interval=10, timeout=0.05)

    async with watching(crew):
        await until(service, 9.95)
        async with watching(guest):
            await until(service, 1005)

    assert any(200 <= moment < 390 for moment in service.moments("victim"))
    assert isinstance(crew.error, WaitTimeout)


# Many who wait


def kept(service: Service, poll: Poller, rest_uids: Iterable[str], **options: float | None) -> list[Watcher]:
    """For each run a watcher of its own."""
    return [Watcher(service, poll, [rest_uid], **options) for rest_uid in rest_uids]


async def test_a_thousand_who_wait_cost_as_much_as_one() -> None:
    """Within three requests, with the same script."""
    asked = []
    for is_one in (True, False):
        random.seed(7)
        lives = {f"run-{n}": Life((0, None, NULLS), (1, RUNNING), (50 + 20 * (n % 5), SUCCESS)) for n in range(1000)}
        service = Service(lives)
        poll = poller(service)
        watchers = [Watcher(service, poll, lives)] if is_one else kept(service, poll, lives)
        async with anyio.create_task_group() as tasks:
            for watcher in watchers:
                tasks.start_soon(watcher)
        assert sum(len(watcher.ends) for watcher in watchers) == 1000
        assert_nothing_is_left(poll)
        asked.append((service.lists, service.details))

    assert abs(asked[0][0] - asked[1][0]) + abs(asked[0][1] - asked[1][1]) <= 3


async def test_a_few_who_wait_for_the_same_run_ask_once() -> None:
    """Each is told the same at the same time."""
    service = Service({"run": Life((0, RUNNING), (5, ("suspended", "N/A")), (20, SUCCESS))})
    poll = poller(service)
    watchers = [Watcher(service, poll, ["run"], interval=2) for _ in range(5)]

    async with watching(*watchers):
        await until(service, 30)

    assert service.details == 11
    assert all(watcher.told == watchers[0].told for watcher in watchers)
    assert len(watchers[0].told) == 3


async def led(count: int, leave: float | None, how: str) -> Service:
    """What is asked when the first of many, who does all the work, goes at some moment."""
    service = crowd(count, 30)
    service.cost = (0.05, 0.01)
    poll = poller(service)
    first = Watcher(service, poll, ["run-0"], interval=2, timeout=leave if how == "timed out" else None)
    others = kept(service, poll, list(service.lives)[1:], interval=2)

    async with watching(first) as tasks:
        await until(service, 1)
        async with watching(*others):
            if leave is not None:
                await until(service, leave - 0.005)
                assert poll._turns._leader is not None
                assert "run-0" in poll._turns._leader.open
                await until(service, leave)
                tasks[0].cancel(how)
            await until(service, 35)

    assert first.told[-1].status.is_final is (leave is None)
    assert all(30 <= watcher.told[-1].moment <= 33 for watcher in others)
    for watcher in others:
        assert_well_told(watcher.told)
    assert_nothing_is_left(poll)
    return service


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
@pytest.mark.parametrize(
    ("count", "path", "later"),
    [(20, LIST, -0.5), (20, LIST, 0.1), (20, "", 0.02), (4, "", 0.02), (4, "", -0.5), (2, "", 0.02)],
    ids=["in the nap", "in a list", "beside a list", "in a request", "in the nap between", "in the request of one"],
)
async def test_a_leader_who_goes_hands_over(count: int, path: str, later: float, how: str) -> None:
    """Wherever he is in his work: the others lose nothing, and at most one round is asked again."""
    undisturbed = await led(count, None, how)
    leave = next(moment for moment, one in undisturbed.asked if moment > 10 and (one == path or path + one != LIST))

    service = await led(count, round(leave + later, 6), how)

    assert service.lists <= undisturbed.lists + 1
    assert service.details <= undisturbed.details + BESIDE + 1


async def test_who_joins_and_who_goes_at_once_do_not_save_the_leader() -> None:
    """The nap that a newcomer ends is not the one who sleeps."""
    for order in ("join first", "cancel first"):
        service = crowd(3)
        poll = poller(service)
        first, second, third = kept(service, poll, service.lives, interval=50)
        async with watching(first) as (leader,), watching(second) as (follower,):
            await until(service, 5)
            assert poll._nap is not None
            if order == "cancel first":
                leader.cancel()
            joining = asyncio.ensure_future(anext(third.changes))
            await asyncio.sleep(0)
            if order == "join first":
                leader.cancel()
            await asyncio.wait([leader], timeout=1)

            assert leader.cancelled()
            assert await asyncio.wait_for(joining, 1)
            assert not follower.done()
            await third.changes.aclose()


async def test_a_leader_whose_reader_does_not_come_back_stops_nobody() -> None:
    """He took a status and does something else."""
    service = crowd(10, 30)
    poll = poller(service)
    busy = poll.changes({"run-0": "run-0"}, None, 2)
    await anext(busy)
    others = kept(service, poll, service.lives, interval=2)

    async with watching(*others):
        await until(service, 35)

    assert all(30 <= watcher.told[-1].moment <= 33 for watcher in others)
    assert (await anext(busy))[1].is_final
    assert [one async for one in busy] == []
    assert_nothing_is_left(poll)


async def test_a_follower_has_his_own_time() -> None:
    """It ends while another does the work, and says where his own runs stand."""
    service = crowd(3, 100)
    poll = poller(service)
    first = Watcher(service, poll, ["run-0", "run-1"], interval=30)
    short = Watcher(service, poll, ["run-1", "run-2"], interval=30, timeout=7.0)

    async with watching(first, short):
        await until(service, 8)
        ended_at = short.has_ended
        await until(service, 130)

    assert ended_at
    assert isinstance(short.error, WaitTimeout)
    assert set(short.error.last_statuses) == {"run-1", "run-2"}
    assert all(status.experiment_state == "running" for status in short.error.last_statuses.values())
    assert set(first.ends) == {"run-0", "run-1"}


async def test_a_slow_reader_of_a_run_does_not_slow_another() -> None:
    """Nor does he get a backlog."""
    changes = [(n, ("running", "N/A", str(n))) for n in range(60)]
    service = Service({"run": Life(*changes, (60, SUCCESS))})
    poll = poller(service)
    quick = Watcher(service, poll, ["run"], interval=1)
    slow = Watcher(service, poll, ["run"], interval=1, slowness=25)

    async with watching(slow, quick):
        await until(service, 200)

    assert len(quick.told) == 61
    assert [one.status.error_description for one in slow.told] == ["0", "24", "49", None]
    assert_well_told(slow.told)
    assert_well_told(quick.told)


@pytest.mark.parametrize("count", [1, FEW, 20])
async def test_a_reader_who_was_away_does_not_wait_for_an_interval(count: int) -> None:
    """What was asked before he left is old when he comes back."""
    service = crowd(count, 100)
    changes = poller(service).changes({rest_uid: rest_uid for rest_uid in service.lives}, None, 600)
    await anext(changes)
    await until(service, 3000)

    told = [status async for _, status in changes]

    assert sum(status.is_final for status in told) == count
    assert service.seconds < 3001


async def test_a_slow_reader_is_not_told_the_same_twice() -> None:
    """What changed and changed back while he was away is no change to him."""
    service = Service({"run": Life((0, NULLS), (10, RUNNING), (15, NULLS), (100, SUCCESS))})
    poll = poller(service)
    quick = Watcher(service, poll, ["run"], interval=1)
    slow = Watcher(service, poll, ["run"], interval=1, slowness=25)

    async with watching(slow, quick):
        await until(service, 150)

    assert [one.words for one in quick.told] == [NULLS, RUNNING, NULLS, SUCCESS]
    assert [one.words for one in slow.told] == [NULLS, SUCCESS]


async def test_news_of_many_runs_wait_once_each() -> None:
    """A reader that is slow gets every run's newest status."""
    service = Service({f"run-{n}": Life((0, RUNNING), (5 + n, FAILED)) for n in range(20)})
    poll = poller(service)
    quick = Watcher(service, poll, service.lives, interval=1)
    slow = Watcher(service, poll, service.lives, interval=1, slowness=2)

    async with watching(slow, quick):
        await until(service, 200)

    assert_well_told(slow.told)
    assert len(slow.ends) == 20
    assert len(slow.told) <= 40


# Newcomers


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
    assert all(after - before >= LEISURE * 0.2 for before, after in pairwise(asked))
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
    assert max(service.looks.count(moment) for moment in service.looks) <= BESIDE
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
            await anyio.sleep(QUICKEST * (1 + JITTER))

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

    assert len(service.asked) - asked <= 1 + BESIDE


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
    busy = poll.changes({"busy": "busy"}, None, None)
    if not is_alone:
        await anext(busy)
    service.troubles = [(10, 100, TimedOut("GET", "x", "silence"))]
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


# Errors that end it


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


# Nothing is left


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
        changes = poll.changes({"run-0": 0, "run-1": 1, "mine": 2}, None, None)
        service.lives["mine"] = Life((0, RUNNING))
        for _ in range(steps):
            await anext(changes)
        await end(changes)
        del changes
        gc.collect()
        await anyio.sleep(1)

        assert "mine" not in poll._runs
        assert all(
            follower.open.keys() != {"run-0", "run-1"} for run in poll._runs.values() for follower in run.followers
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
            assert poll._turns._leader is not None
            order = [next(iter(one.open)) for one in (poll._turns._leader, *poll._turns._asleep)]
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
