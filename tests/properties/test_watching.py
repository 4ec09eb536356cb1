"""What holds for whoever watches whatever runs, however they live and however badly the service answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from st4sd_async import ConnectFailed, ConnectionLost, UnknownRun
from tests.watch.service import (
    FAILED,
    GONE,
    KILLED,
    NULLS,
    RUNNING,
    SILENCE,
    SUCCESS,
    HastyLoop,
    Life,
    Service,
    Watcher,
    assert_well_told,
    jump,
    page,
    poller,
    reply,
)
from tests.watch.watches import MAX_RUNS_WITHOUT_LIST

GRACE = 60.0
SHORTER = 45.0
"""Seconds that a half-final pair stands at most before it changes."""
SOON = 3600.0
"""
Seconds after which an end must have been told, from when the service could show it.

Twelve runs of which one a round is asked for, a pause of 100 s after each, a grace, and a reader who
takes 30 s for each status come to less.
"""

UNREADABLE = {"experiment-state": 7}
ROOMLESS, STRANGE, HALF = ("unscheduled", ""), ("thawing", "melted"), ("running", "Failed")
IMAGE = ("failed", "", "initContainer failure: failed to pull image x")
HALF_FINAL = [KILLED, HALF, ("running", "Success"), IMAGE]


class Phase(NamedTuple):
    """How a run is doing for so many seconds, and what the list makes of it."""

    seconds: float
    words: Any
    listed: Any

    def step(self, began: float) -> tuple[Any, ...]:
        """As a life has it."""
        return (began, self.words) if self.listed is None else (began, self.words, self.listed)


class Plan(NamedTuple):
    """Who watches which runs, from when on, until when, and how."""

    runs: frozenset[int]
    joins: float
    leaves: float | None
    interval: float | None
    slowness: float


class World(NamedTuple):
    """All that happens."""

    lives: list[tuple[list[Phase], Phase]]
    plans: list[Plan]
    troubles: list[tuple[float, float, Any]]
    list_troubles: list[tuple[float, float, Any]]
    cost: tuple[float, float]
    old_items: int
    word: Any
    """What the datastore knows of runs that were deleted."""
    jump: tuple[float, float]
    """When the machine sleeps, and how long."""

    def ends(self) -> dict[str, float]:
        """When which run comes to its last phase."""
        return {f"run-{n}": sum(phase.seconds for phase in phases) for n, (phases, _) in enumerate(self.lives)}


listed = st.sampled_from([None, None, None, NULLS, RUNNING, GONE, UNREADABLE])
phases = st.one_of(
    st.builds(Phase, st.floats(0.1, 200), st.sampled_from([None, NULLS, RUNNING, ROOMLESS, STRANGE]), listed),
    st.builds(Phase, st.floats(0.1, 20), st.sampled_from([RUNNING, NULLS]), st.none()),
    st.builds(Phase, st.floats(0.1, 20), st.sampled_from([RUNNING, ("running", "N/A", "a text")]), st.none()),
    st.builds(Phase, st.floats(0.1, SHORTER), st.sampled_from(HALF_FINAL), listed),
)
ends = st.builds(
    Phase, st.just(0.0), st.sampled_from([SUCCESS, FAILED, KILLED, HALF, GONE, ("failed", "")]), listed
)  # fmt: skip


def credible(life: tuple[list[Phase], Phase]) -> tuple[list[Phase], Phase]:
    """The life without what could be taken for its end: one half-final phase stands for a while, not several."""
    phases, end = life
    halves = [phase for phase in phases if phase.words in HALF_FINAL]
    return [phase for phase in phases if phase not in halves[1:]] or [Phase(1.0, RUNNING, None)], end


lives = st.tuples(st.lists(phases, min_size=1, max_size=6), ends).map(credible)
errors = st.sampled_from(
    [page(502), reply(429, {"message": "m"}, retry_after="20"), reply(500, {"message": "m"}),
     ConnectionLost("GET", "x", "reset"), ConnectFailed("GET", "x", "refused")]
)  # fmt: skip
moments = st.floats(5, 400)


def spells(kinds: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[tuple[float, float, Any]]]:
    """Times in which all goes wrong."""
    spell = st.tuples(moments, st.floats(0.1, 40), kinds).map(lambda drawn: (drawn[0], sum(drawn[:2]), drawn[2]))
    return st.lists(spell, max_size=most)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Few or many runs, one who watches from the beginning, and others."""
    some = draw(st.lists(lives, min_size=1, max_size=12))
    subsets = st.frozensets(st.integers(0, len(some) - 1), min_size=1)
    whole = st.just(frozenset(range(len(some))))
    intervals, slowness = st.sampled_from([None, None, 2.0, 15.0, 100.0]), st.sampled_from([0.0, 0.0, 3.0, 30.0])
    goes = st.one_of(st.none(), st.floats(1, 500))
    first = st.builds(Plan, st.one_of(whole, subsets), st.just(0.0), goes, intervals, slowness)
    other = st.builds(Plan, st.one_of(whole, subsets), st.one_of(st.just(0.0), moments), goes, intervals, slowness)
    return World(
        some,
        [draw(first), *draw(st.lists(other, max_size=4))],
        draw(spells(errors, 2)) + draw(spells(st.sampled_from([page(200), page(404), reply(200, "odd")]), 1)),
        draw(spells(st.one_of(errors, st.just(reply(200, []))), 2)),
        draw(st.sampled_from([(0.0, 0.0), (0.05, 0.005), (0.5, 0.01)])),
        draw(st.sampled_from([0, 0, 300])),
        draw(st.sampled_from([None, None, SUCCESS, SILENCE])),
        draw(st.tuples(moments, st.sampled_from([0.0, 0.0, 50.0, 3600.0]))),
    )


def born(world: World) -> Service:
    """The service of a world."""
    service = Service()
    for number, (phases, end) in enumerate(world.lives):
        steps, now = [], 0.0
        for phase in (*phases, end):
            steps.append(phase.step(now))
            now += phase.seconds
        service.lives[f"run-{number}"] = Life(*steps)
        service.words[f"run-{number}"] = world.word if end.words == GONE else None
    service.troubles, service.list_troubles = world.troubles, world.list_troubles
    service.cost, service.old_items = world.cost, world.old_items
    return service


async def watched(world: World) -> tuple[Service, list[Watcher]]:
    """What becomes of it, when each has come and gone, within the time that all must be told in."""
    service = born(world)
    poll = poller(service, GRACE)
    before = asyncio.all_tasks()
    watchers = [
        Watcher(
            service, poll, [f"run-{n}" for n in sorted(plan.runs)], interval=plan.interval, slowness=plan.slowness
        )
        for plan in world.plans
    ]  # fmt: skip

    async def come_and_go(watcher: Watcher, plan: Plan) -> None:
        await anyio.sleep(plan.joins)
        with anyio.move_on_after(plan.leaves if plan.leaves is not None else float("inf")):
            await watcher()

    async def sleep() -> None:
        await anyio.sleep(world.jump[0])
        jump(world.jump[1])

    with anyio.move_on_after(max([0.0, *world.ends().values()]) + SOON + world.jump[1]):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleep)
            for watcher, plan in zip(watchers, world.plans, strict=True):
                tasks.start_soon(come_and_go, watcher, plan)
    assert poll._runs == {}
    assert asyncio.all_tasks() == before
    return service, watchers


def may_be_unknown(world: World, plan: Plan) -> bool:
    """Whether a run may be gone before this one has seen it, and is not in the datastore."""
    return world.word != SUCCESS and any(world.lives[number][1].words == GONE for number in plan.runs)


def assert_asked_little(world: World, service: Service) -> None:
    """At one moment one round: the list once, or each run, beside what newcomers need."""
    comes_and_goes = len(world.plans)
    for moment in set(service.looks):
        asked = Counter(path for one, path in service.asked if one == moment)
        assert max(asked.values()) <= 1 + comes_and_goes
        assert len(asked) <= 1 + max(MAX_RUNS_WITHOUT_LIST, len(world.lives))


@pytest.mark.timeout(120)
@settings(
    max_examples=120, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(worlds())
def test_every_end_is_told_once_to_everybody_who_waits(world: World) -> None:
    """The first status, changes, one end, nothing after it; nobody waits on for a run that is over."""
    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        service, watchers = runner.run(watched(world))

    ends = world.ends()
    for watcher, plan in zip(watchers, world.plans, strict=True):
        assert_well_told(watcher.told, is_over=False)
        assert all(moment >= ends[rest_uid] for rest_uid, moment in watcher.ends.items())
        assert watcher.error is None or (isinstance(watcher.error, UnknownRun) and may_be_unknown(world, plan))
        if plan.leaves is None and watcher.error is None:
            assert watcher.has_ended
            assert set(watcher.ends) == {f"run-{number}" for number in plan.runs}
        for rest_uid in watcher.ends:
            is_gone = world.lives[int(rest_uid.removeprefix("run-"))][1].words == GONE
            assert watcher.of(rest_uid)[-1].status.is_deleted is is_gone
    if world.cost == (0.0, 0.0):
        assert_asked_little(world, service)
