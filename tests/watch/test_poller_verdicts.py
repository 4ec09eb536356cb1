"""What is believed of many runs, whether the list or a run's own answer tells it."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import DecodeError, UnknownRun, WaitTimeout
from tests.watch.service import (
    GONE,
    KILLED,
    NULLS,
    RUNNING,
    SILENCE,
    SUCCESS,
    Life,
    Service,
    Watcher,
    follow,
    page,
    poller,
    reply,
)
from tests.watch.watches import (
    FINAL_STATUS_TIMEOUT,
    MAX_DETAIL_REQUESTS,
    MAX_RUNS_WITHOUT_LIST,
    ROUNDS_WITHOUT_LIST,
    UNREADABLE_TIMEOUT,
)

from .watches import A_FEW, assert_nothing_is_left, crowd, until, watching
from .watches import anyio_backend as anyio_backend
from .watches import same_pauses as same_pauses

pytestmark = pytest.mark.anyio

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
    assert service.most_details() <= 2 * MAX_DETAIL_REQUESTS


async def test_a_hundred_runs_killed_at_once_end() -> None:
    """The node they ran on is gone; each is asked for three times, and each other run once, three in a round."""
    service = crowd(100, **{f"victim-{n}": Life((0, RUNNING), (100, KILLED, RUNNING)) for n in range(100)})
    rounds = 60 / 10 + (100 + 3 * 100) / MAX_DETAIL_REQUESTS + A_FEW
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
    assert service.most_details() <= 2 * MAX_DETAIL_REQUESTS


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
    assert max(one.moment for one in told) < 150 + 10 / MAX_DETAIL_REQUESTS * 5 + ROUNDS_WITHOUT_LIST * 5


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

    assert max(one.moment for one in told if one.rest_uid != "lost") <= 22 + FINAL_STATUS_TIMEOUT + 2
    assert max(one.moment for one in told if one.rest_uid == "lost") <= 21 + FINAL_STATUS_TIMEOUT + 2


async def test_a_run_that_is_unknown_ends_as_deleted_and_the_others_go_on() -> None:
    """It makes no difference whether it was gone before the first look or after it."""
    service = crowd(3, 50)
    poll = poller(service)
    some = Watcher(service, poll, ["run-0", "gone", "run-1"], interval=60)

    async with watching(some):
        await until(service, 5)
        gone = some.of("gone")[0].status
        await until(service, 200)

    assert some.error is None
    assert set(some.ends) == {"run-0", "run-1", "gone"}
    assert (gone.is_final, gone.is_deleted, gone.is_pending, gone.is_success) == (True, True, True, False)
    assert "gone" in str(gone.hint)
    assert_nothing_is_left(poll)


async def test_whoever_asks_for_nothing_but_unknown_runs_is_told_so() -> None:
    """Then they are mistyped, or elsewhere; others go on."""
    service = crowd(3, 50)
    poll = poller(service)
    right = Watcher(service, poll, ["run-0", "run-1"], interval=60)
    groups = (["typo"], ["typo", "other-typo"])
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
    service = crowd(MAX_RUNS_WITHOUT_LIST, 200, first=Life((0, RUNNING), (50, SUCCESS)))

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
    waiting = {f"waiting-{n}": Life((0, ("unscheduled", ""), NULLS)) for n in range(MAX_RUNS_WITHOUT_LIST)}
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
    service = crowd(200, **{f"old-{n}": Life((0, RUNNING), (102, SUCCESS)) for n in range(MAX_RUNS_WITHOUT_LIST)})
    poll = poller(service)
    early = Watcher(service, poll, [f"old-{n}" for n in range(MAX_RUNS_WITHOUT_LIST)], interval=5)
    late = Watcher(service, poll, [f"run-{n}" for n in range(200)], interval=5)

    async with watching(early):
        await until(service, 103)
        async with watching(late):
            await until(service, 103 + A_FEW * 5)

    assert len(early.ends) == MAX_RUNS_WITHOUT_LIST


@pytest.mark.parametrize("trouble", [reply(500, {"message": "boom"}), reply(200, "odd")], ids=["500", "unreadable"])
async def test_runs_that_cannot_be_asked_do_not_hide_the_others(trouble: Any) -> None:
    """When all are asked singly: nobody waits for a run that is over because others are broken."""
    broken = {f"broken-{n}": Life((0, RUNNING), (20, trouble, RUNNING)) for n in range(20)}
    service = Service({**broken, **{f"run-{n}": Life((0, RUNNING), (50, SUCCESS)) for n in range(10)}})
    service.old_items = 20_000
    watcher = Watcher(service, poller(service), service.lives, interval=5, timeout=20 + UNREADABLE_TIMEOUT - 1)

    await watcher()

    assert set(watcher.ends) == {f"run-{n}" for n in range(10)}


async def test_answers_that_can_be_read_nowhere_are_told_after_a_minute() -> None:
    """In a crowd too: neither the list nor the run's own answer."""
    odd = {"experiment-state": 7}
    service = crowd(10, victim=Life((0, RUNNING), (20, reply(200, odd), odd)))

    with pytest.raises(DecodeError):
        await follow(service, interval=5, timeout=20 + UNREADABLE_TIMEOUT + A_FEW * 5)


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
