"""Which status of a run is delivered if the list and the reply to a request for it differ."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import DecodeError, UnknownRun, WaitTimeout
from tests.tries import combinations, tries
from tests.watch.helpers import (
    FINAL_STATUS_TIMEOUT,
    MAX_DETAIL_REQUESTS,
    MAX_RUNS_WITHOUT_LIST,
    UNREADABLE_TIMEOUT,
)
from tests.watch.scripted_service import (
    GONE,
    KILLED,
    NULLS,
    RUNNING,
    SILENCE,
    SUCCESS,
    Script,
    Service,
    Watcher,
    follow,
    page,
    poller,
    reply,
)

from .helpers import A_FEW, assert_nothing_is_left, many_runs, until, watching

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILLS: dict[str, tuple[Any, ...]] = {
    "killed orchestrator": (KILLED, RUNNING),
    "killed after a component failed": (("running", "Failed"),),
    "init container failed": (("failed", ""), NULLS),
    "init container failed, and not in the list": (("failed", ""), GONE),
    "init container failed, and unreadable in the list": (("failed", ""), {"experiment-state": 7}),
}


MOMENTS = {"early": 100, "late": 410}


@pytest.mark.parametrize(("kill", "when"), combinations(KILLS, MOMENTS))
async def test_a_killed_run_is_found_among_many(kill: str, when: str) -> None:
    """Within the grace period, a round for every third unfinished run, and a few more."""
    shown, moment = KILLS[kill], MOMENTS[when]
    victim = Script((0, NULLS if shown[-1] == NULLS else RUNNING), (moment, *shown))
    count = tries(100, 50)
    service = many_runs(count, victim=victim)
    rounds = 60 / 10 + (count + 1) / 3 + A_FEW
    timeout = moment + rounds * 10
    watcher = Watcher(service, poller(service), service.scripts, ["victim"], interval=10, timeout=timeout)

    await watcher()

    assert "victim" in watcher.ends
    assert sum(moment <= one <= watcher.ends["victim"] for one in service.times_of()) <= rounds
    assert not watcher.of("victim")[-1].status.is_success
    assert service.max_details() <= 2 * MAX_DETAIL_REQUESTS


COUNT = tries(50, 30)
VICTIMS = {f"victim-{n}": Script((0, RUNNING), (100, KILLED, RUNNING)) for n in range(COUNT)}
"""Runs that are killed at once, because their node is gone."""


async def test_many_runs_killed_at_once_are_found() -> None:
    """Each is requested three times and each other run once, three in a round."""
    service = many_runs(COUNT, **VICTIMS)
    rounds = 60 / 10 + (COUNT + 3 * COUNT) / MAX_DETAIL_REQUESTS + A_FEW
    timeout = 100 + rounds * 10
    watcher = Watcher(service, poller(service), service.scripts, VICTIMS, interval=10, timeout=timeout)

    await watcher()

    assert watcher.ends.keys() == VICTIMS.keys()


@pytest.mark.parametrize("cost", [(0.03, 0.0005), (0.01, 0.0005)], ids=str)
async def test_many_runs_killed_at_once_are_requested_a_few_at_a_time(cost: tuple[float, float]) -> None:
    """Three in a round, and three between two rounds."""
    service = many_runs(COUNT, **VICTIMS)
    service.latency = cost
    watcher = Watcher(service, poller(service), service.scripts, VICTIMS, timeout=2000)

    await watcher()

    assert watcher.ends.keys() == VICTIMS.keys()
    assert service.max_details() <= 2 * MAX_DETAIL_REQUESTS


async def test_a_killed_run_is_found_even_if_others_are_always_in_doubt() -> None:
    """One place in a round is for the quietest run, however many the list lacks."""
    service = many_runs(100, victim=Script((0, RUNNING), (100, KILLED, RUNNING)))
    service.hidden = {f"run-{n}" for n in range(50)}
    timeout = 100 + (101 + A_FEW) * 10
    watcher = Watcher(service, poller(service), service.scripts, ["victim"], interval=10, timeout=timeout)

    await watcher()

    assert "victim" in watcher.ends


@pytest.mark.parametrize("listing", [[], "partial", page(200), reply(200, {"odd": 1}), reply(200, [{}, {"id": 3}])],
                         ids=["empty", "partial", "a page", "no list", "odd items"])  # fmt: skip
async def test_a_run_missing_in_the_list_is_not_deleted(listing: Any) -> None:
    """It is requested, and ends by its own status."""
    service = many_runs(10, 150)
    if listing == "partial":
        service.hidden = {f"run-{n}" for n in range(0, 10, 2)}
    else:
        service.list_faults = [(0.1, 1e9, reply(200, listing) if listing == [] else listing)]

    updates = await follow(service, interval=5)

    assert len({one.rest_uid for one in updates if one.status.is_success}) == 10
    assert not any(one.status.is_deleted for one in updates)
    assert max(one.moment for one in updates) < 150 + 10 / MAX_DETAIL_REQUESTS * 5 + 50


async def test_a_run_missing_in_the_list_is_requested_in_every_round() -> None:
    """However many others were not requested for longer."""
    service = many_runs(100, lost=Script((0, RUNNING), (200, RUNNING, GONE), (400, SUCCESS, GONE)))
    watcher = Watcher(service, poller(service), service.scripts, interval=10, timeout=450)

    await watcher()

    assert watcher.ends["lost"] <= 410
    assert sum(moment > 210 for moment in service.times_of("lost")) >= 19


async def test_unreadable_statuses_in_the_list_do_not_hide_a_run() -> None:
    """The other statuses are read from the list."""
    odd = {f"odd-{n}": Script((0, RUNNING, odd), (100, SUCCESS, odd)) for n, odd in enumerate((5, "x", {"meta": 3}))}
    service = many_runs(30, 100, **odd)

    updates = await follow(service, interval=5)

    ends = {one.rest_uid: one.moment for one in updates if one.status.is_final}
    assert {ends[f"run-{n}"] for n in range(30)} == {100}
    assert max(ends.values()) < 120


async def test_a_reply_holds_until_the_item_in_the_list_changes() -> None:
    """A list that contradicts it is ignored, and the status does not flap."""
    waiting = Script((0, ("unscheduled", ""), NULLS), (500, RUNNING), (600, SUCCESS))
    service = many_runs(10, 600, waiting=waiting)

    updates = await follow(service, interval=5)

    assert [one.words for one in updates if one.rest_uid == "waiting" and one.status.experiment_state] == [
        ("unscheduled", ""), RUNNING, SUCCESS,
    ]  # fmt: skip


async def test_an_image_pull_that_fails_repeatedly_is_not_final() -> None:
    """The list shows nothing of it, and the run recovers."""
    pull = ("failed", "", "initContainer failure: failed to pull image x")
    flaps = [step for n in range(8) for step in ((100 * n, pull, NULLS), (100 * n + 70, NULLS))]
    service = many_runs(10, 900, flapping=Script(*flaps, (800, RUNNING), (810, SUCCESS)))

    updates = await follow(service, interval=5)

    assert [one.words for one in updates if one.rest_uid == "flapping"][-1] == SUCCESS


async def test_updates_from_the_list_do_not_wait_for_single_requests() -> None:
    """A consumer that polls for itself receives them first."""
    service = many_runs(20, 100)
    service.latency = (15.0, 0.01)

    updates = await follow(service)

    first = [one.moment for one in updates if one.words == RUNNING]
    assert len(first) == 20
    assert max(first) < 1


async def test_a_change_is_delivered_in_the_next_round() -> None:
    """By the list, whichever runs are requested."""
    ends = {f"late-{n}": Script((0, RUNNING), (100 + n, SUCCESS)) for n in range(50)}
    service = many_runs(50, **ends)
    watcher = Watcher(service, poller(service), service.scripts, interval=10, timeout=200)

    await watcher()

    assert all(watcher.ends[f"late-{n}"] - (100 + n) <= 10 for n in range(50))


@pytest.mark.parametrize("known", [True, False], ids=["in the datastore", "nowhere"])
async def test_many_runs_may_be_deleted_at_once(known: bool) -> None:
    """Each ends with its last known status, and the others continue."""
    service = many_runs(20, tries(800, 320), **{f"lost-{n}": Script((0, RUNNING), (100, GONE)) for n in range(30)})
    service.final_statuses = {f"lost-{n}": ("finished", "Stopped") for n in range(30)} if known else {}

    updates = await follow(service, interval=10)

    lost = [one for one in updates if one.status.is_deleted]
    assert {one.rest_uid for one in lost} == {f"lost-{n}" for n in range(30)}
    assert all(one.words == (("finished", "Stopped") if known else RUNNING) for one in lost)
    assert max(one.moment for one in lost) <= 100 + 10 * (30 / 2 + A_FEW)
    assert sum(one.status.is_success for one in updates) == 20


@pytest.mark.parametrize("count", [1, 20], ids=["singly", "by list"])
async def test_a_datastore_that_does_not_answer_delays_updates_for_seconds_only(count: int) -> None:
    """For its timeout, and no longer."""
    service = many_runs(count, 22, lost=Script((0, RUNNING), (20, GONE)))
    service.final_statuses["lost"] = SILENCE

    updates = await follow(service, interval=1)

    assert max(one.moment for one in updates if one.rest_uid != "lost") <= 22 + FINAL_STATUS_TIMEOUT + 2
    assert max(one.moment for one in updates if one.rest_uid == "lost") <= 21 + FINAL_STATUS_TIMEOUT + 2


async def test_an_unknown_run_ends_as_deleted_and_the_others_continue() -> None:
    """Whether it was deleted before the first request or after it."""
    service = many_runs(3, 50)
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


async def test_watching_only_unknown_runs_is_an_error() -> None:
    """They are mistyped, or elsewhere. Other consumers continue."""
    service = many_runs(3, 50)
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


async def test_runs_can_change_from_the_list_to_single_requests() -> None:
    """With six runs the list is used; the last five are requested one by one."""
    service = many_runs(MAX_RUNS_WITHOUT_LIST, 200, first=Script((0, RUNNING), (50, SUCCESS)))

    updates = await follow(service, interval=5)

    assert max(service.times_of()) == 50
    assert {one.moment for one in updates if one.status.is_success} == {50, 200}


async def test_runs_can_change_from_single_requests_to_the_list() -> None:
    """With five runs each is requested, with six the list is used. Replies hold, whatever an item in it shows."""
    victim = Script((0, ("Initialising", "N/A")), (50, RUNNING), (100, KILLED, RUNNING))
    service = many_runs(4, victim=victim, first=Script((0, RUNNING), (20, SUCCESS)), late=Script((0, RUNNING)))
    poll = poller(service)
    early = Watcher(service, poll, ["first", "victim", *(f"run-{n}" for n in range(4))], interval=5)
    late = Watcher(service, poll, ["late"], interval=5)

    async with watching(early):
        await until(service, 121)
        async with watching(late):
            await until(service, 300)

    assert [one.words for one in early.of("victim")] == [("Initialising", "N/A"), RUNNING, KILLED, KILLED]
    assert early.ends["victim"] <= 100 + 5 + 60 + 1
    assert service.list_count > 5


async def test_runs_that_contradict_the_list_are_requested_no_more_than_others() -> None:
    """Once their reply is known. A killed orchestrator among the others is found as soon as ever."""
    waiting = {f"waiting-{n}": Script((0, ("unscheduled", ""), NULLS)) for n in range(MAX_RUNS_WITHOUT_LIST)}
    service = many_runs(80, **waiting, victim=Script((0, RUNNING), (500, KILLED, RUNNING)))
    poll = poller(service)
    early = Watcher(service, poll, waiting, interval=10)
    late = Watcher(service, poll, [*(f"run-{n}" for n in range(80)), "victim"], interval=10)

    async with watching(early):
        await until(service, 105)
        async with watching(late):
            await until(service, 500 + 10 * (60 / 10 + 86 / 3 + A_FEW))

    asked = [sum(moment > 200 for moment in service.times_of(rest_uid)) for rest_uid in waiting]
    assert max(asked) <= A_FEW
    assert "victim" in late.ends


async def test_runs_that_end_as_they_change_to_the_list_do_not_wait_for_their_turn() -> None:
    """The final statuses in the list are confirmed within a few rounds, however many others there are."""
    service = many_runs(200, **{f"old-{n}": Script((0, RUNNING), (102, SUCCESS)) for n in range(MAX_RUNS_WITHOUT_LIST)})
    poll = poller(service)
    early = Watcher(service, poll, [f"old-{n}" for n in range(MAX_RUNS_WITHOUT_LIST)], interval=5)
    late = Watcher(service, poll, [f"run-{n}" for n in range(200)], interval=5)

    async with watching(early):
        await until(service, 103)
        async with watching(late):
            await until(service, 103 + A_FEW * 5)

    assert len(early.ends) == MAX_RUNS_WITHOUT_LIST


@pytest.mark.parametrize("trouble", [reply(500, {"message": "boom"}), reply(200, "odd")], ids=["500", "unreadable"])
async def test_runs_that_cannot_be_read_do_not_hide_the_others(trouble: Any) -> None:
    """If each run is requested, broken ones do not delay the final status of another."""
    broken = {f"broken-{n}": Script((0, RUNNING), (20, trouble, RUNNING)) for n in range(20)}
    service = Service({**broken, **{f"run-{n}": Script((0, RUNNING), (50, SUCCESS)) for n in range(10)}})
    service.old_items = 2000
    watcher = Watcher(service, poller(service), service.scripts, interval=5, timeout=20 + UNREADABLE_TIMEOUT - 1)

    await watcher()

    assert set(watcher.ends) == {f"run-{n}" for n in range(10)}


async def test_unreadable_statuses_are_an_error_after_a_minute() -> None:
    """Among many runs too, if neither the list nor a reply can be read."""
    odd = {"experiment-state": 7}
    service = many_runs(10, victim=Script((0, RUNNING), (20, reply(200, odd), odd)))

    with pytest.raises(DecodeError):
        await follow(service, interval=5, timeout=20 + UNREADABLE_TIMEOUT + A_FEW * 5)


async def test_two_unreadable_replies_with_much_time_between_them_are_no_error() -> None:
    """The list could be read all the time."""
    odd = reply(200, "odd")
    victim = Script((0, RUNNING), (9.9, odd, RUNNING), (10.1, RUNNING), (200, odd, RUNNING), (390, RUNNING))
    service = many_runs(100, victim=victim)
    poll = poller(service)
    crew = Watcher(service, poll, service.scripts, interval=10, timeout=1000)
    guest = Watcher(service, poll, ["victim"], interval=10, timeout=0.05)

    async with watching(crew):
        await until(service, 9.95)
        async with watching(guest):
            await until(service, 1005)

    assert any(200 <= moment < 390 for moment in service.times_of("victim"))
    assert isinstance(crew.error, WaitTimeout)
