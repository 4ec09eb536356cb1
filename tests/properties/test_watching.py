"""Every final status is delivered once, whatever the runs, the consumers and the failures of the service."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from st4sd_async import ConnectFailed, ConnectionLost, UnknownRun
from tests.tries import tries
from tests.watch.helpers import MAX_RUNS_WITHOUT_LIST
from tests.watch.scripted_service import (
    FAILED,
    GONE,
    KILLED,
    NULLS,
    RUNNING,
    SILENCE,
    SUCCESS,
    InstantLoop,
    Script,
    Service,
    Watcher,
    assert_valid_updates,
    jump,
    page,
    poller,
    reply,
)

pytestmark = pytest.mark.slow

GRACE = 60.0
SHORTER = 45.0
"""Seconds after which a pair with one final field changes at the latest."""
SOON = 3600.0
"""
Seconds within which a final status must be delivered once the service shows it.

The slowest case takes less: twelve runs of which one is requested in a round, a pause of 100 s after each, a grace
period, and a consumer that takes 30 s for each status.
"""

UNREADABLE = {"experiment-state": 7}
ROOMLESS, STRANGE, HALF = ("unscheduled", ""), ("thawing", "melted"), ("running", "Failed")
IMAGE = ("failed", "", "initContainer failure: failed to pull image x")
HALF_FINAL = [KILLED, HALF, ("running", "Success"), IMAGE]


class Phase(NamedTuple):
    """A status that a run shows for some seconds, and its status in the list."""

    seconds: float
    words: Any
    listed: Any

    def step(self, began: float) -> tuple[Any, ...]:
        """Return it as a step of a script."""
        return (began, self.words) if self.listed is None else (began, self.words, self.listed)


class Plan(NamedTuple):
    """A consumer: which runs it watches, when it joins and leaves, and how slowly it reads."""

    runs: frozenset[int]
    joins: float
    leaves: float | None
    interval: float | None
    slowness: float


class World(NamedTuple):
    """Everything that happens in an example."""

    scripts: list[tuple[list[Phase], Phase]]
    plans: list[Plan]
    faults: list[tuple[float, float, Any]]
    list_faults: list[tuple[float, float, Any]]
    latency: tuple[float, float]
    old_items: int
    word: Any
    """The final status of deleted runs in the datastore."""
    jump: tuple[float, float]
    """When the machine is suspended, and for how long."""

    def ends(self) -> dict[str, float]:
        """Return when each run comes to its last phase."""
        return {f"run-{n}": sum(phase.seconds for phase in phases) for n, (phases, _) in enumerate(self.scripts)}


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


def credible(script: tuple[list[Phase], Phase]) -> tuple[list[Phase], Phase]:
    """Keep one phase with one final field: several could together be taken for the end of the run."""
    phases, end = script
    halves = [phase for phase in phases if phase.words in HALF_FINAL]
    return [phase for phase in phases if phase not in halves[1:]] or [Phase(1.0, RUNNING, None)], end


scripts = st.tuples(st.lists(phases, min_size=1, max_size=6), ends).map(credible)
errors = st.sampled_from(
    [page(502), reply(429, {"message": "m"}, retry_after="20"), reply(500, {"message": "m"}),
     ConnectionLost("GET", "x", "reset"), ConnectFailed("GET", "x", "refused")]
)  # fmt: skip
moments = st.floats(5, 400)


def spells(kinds: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[tuple[float, float, Any]]]:
    """Periods in which requests fail."""
    spell = st.tuples(moments, st.floats(0.1, 40), kinds).map(lambda drawn: (drawn[0], sum(drawn[:2]), drawn[2]))
    return st.lists(spell, max_size=most)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Few or many runs, one consumer that watches from the beginning, and others."""
    some = draw(st.lists(scripts, min_size=1, max_size=12))
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


def service_of(world: World) -> Service:
    """Return the service of a world."""
    service = Service()
    for number, (phases, end) in enumerate(world.scripts):
        steps, now = [], 0.0
        for phase in (*phases, end):
            steps.append(phase.step(now))
            now += phase.seconds
        service.scripts[f"run-{number}"] = Script(*steps)
        service.final_statuses[f"run-{number}"] = world.word if end.words == GONE else None
    service.faults, service.list_faults = world.faults, world.list_faults
    service.latency, service.old_items = world.latency, world.old_items
    return service


async def simulate(world: World) -> tuple[Service, list[Watcher]]:
    """Let all consumers come and go; return the service and what each received in time."""
    service = service_of(world)
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
    """Return whether a run of a consumer may be deleted before it was seen, and missing in the datastore."""
    return world.word != SUCCESS and any(world.scripts[number][1].words == GONE for number in plan.runs)


def assert_few_requests(world: World, service: Service) -> None:
    """Check that at one moment a round requests the list once, or each run, besides the runs of newcomers."""
    comes_and_goes = len(world.plans)
    for moment in set(service.request_times):
        asked = Counter(path for one, path in service.requests if one == moment)
        assert max(asked.values()) <= 1 + comes_and_goes
        assert len(asked) <= 1 + max(MAX_RUNS_WITHOUT_LIST, len(world.scripts))


@pytest.mark.timeout(120)
@settings(
    max_examples=tries(120, 16),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(worlds())
def test_every_final_status_is_delivered_once_to_every_consumer(world: World) -> None:
    """After the first status and changes, with nothing after it. No consumer waits on for a run that is over."""
    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        service, watchers = runner.run(simulate(world))

    ends = world.ends()
    for watcher, plan in zip(watchers, world.plans, strict=True):
        assert_valid_updates(watcher.updates, is_over=False)
        assert all(moment >= ends[rest_uid] for rest_uid, moment in watcher.ends.items())
        assert watcher.error is None or (isinstance(watcher.error, UnknownRun) and may_be_unknown(world, plan))
        if plan.leaves is None and watcher.error is None:
            assert watcher.has_ended
            assert set(watcher.ends) == {f"run-{number}" for number in plan.runs}
        for rest_uid in watcher.ends:
            is_gone = world.scripts[int(rest_uid.removeprefix("run-"))][1].words == GONE
            assert watcher.of(rest_uid)[-1].status.is_deleted is is_gone
    if world.latency == (0.0, 0.0):
        assert_few_requests(world, service)
