"""Following one run, on a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import pytest

from st4sd_async import (
    ConnectFailed,
    ConnectionLost,
    RunDeleted,
    ServerError,
    Status,
    TimedOut,
    Unauthorized,
    UnknownRun,
    WaitTimeout,
)
from st4sd_async._watch import QUICKEST, SLOWEST, Deadline, Pace, watch
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio

Step = tuple[float, Any]
"""From so many seconds on, the service says this: a pair of words, or an error to raise."""


class Service:
    """A service that follows a script by the clock; ``looks`` are the moments at which it was asked."""

    def __init__(self, clock: FakeClock, *steps: Step) -> None:
        self._clock, self._steps, self._began = clock, steps, clock.now()
        self.looks: list[float] = []

    async def __call__(self) -> Status:
        passed = self._clock.now() - self._began
        self.looks.append(passed)
        said = [what for moment, what in self._steps if moment <= passed][-1]
        if isinstance(said, Exception):
            raise said
        if said is None:
            return Status.pending({"message": "does not have a status yet"})
        state, exit_status, *more = said
        return Status.model_validate({"experiment-state": state, "exit-status": exit_status, "note": more})


async def follow(look: Any, clock: FakeClock, **options: Any) -> list[Status]:
    settings = {"timeout": None, "interval": None, "grace": 60.0, "clock": clock, **options}
    return [status async for status in watch("demo-1", look, **settings)]


def pairs(statuses: list[Status]) -> list[tuple[str | None, str | None]]:
    return [(status.experiment_state and str(status.experiment_state), status.exit_status and str(status.exit_status))
            for status in statuses]  # fmt: skip


SUCCESS = [
    (0, None),
    (0.3, (None, None)),
    (2.4, ("running", "N/A")),
    (14.4, ("running", "Success")),
    (18.4, ("finished", "Success")),
]
STATE_FIRST = [(0, ("running", "N/A")), (5, ("finished", "N/A")), (9, ("finished", "Success"))]
FAILURE = [(0, ("running", "N/A")), (30, ("running", "Failed")), (35, ("finished", "Failed"))]
SETUP = [(0, None), (4, ("failed", "Failed"))]
WAITING = [(0, ("unscheduled", "")), (500, ("running", "N/A")), (510, ("finished", "Success"))]
REPAIRED = [(0, ("unschedulable", "")), (900, ("running", "N/A")), (910, ("finished", "Success"))]
FLAPPING = [
    (0, ("failed", "")),
    (20, (None, None)),
    (25, ("failed", "")),
    (45, ("running", "N/A")),
    (50, ("finished", "Success")),
]
STRANGE = [(0, ("thawing", "melted")), (100, ("finished", "Success"))]


@pytest.mark.parametrize(
    ("script", "success"),
    [(SUCCESS, True), (STATE_FIRST, True), (FAILURE, False), (SETUP, False), (WAITING, True), (REPAIRED, True),
     (FLAPPING, True), (STRANGE, True)],
    ids=["success", "state first", "component failure", "set-up failure", "unscheduled", "unschedulable", "image pull",
         "unknown words"],
)  # fmt: skip
async def test_every_sequence_ends_when_the_run_is_over(script: list[Step], success: bool, clock: FakeClock) -> None:
    """The first status at once, changes, the final one last; only the last is final."""
    statuses = await follow(Service(clock, *script), clock)

    assert [status.is_final for status in statuses] == [False] * (len(statuses) - 1) + [True]
    assert statuses[-1].is_success is success
    assert pairs(statuses)[-1] == script[-1][1]
    assert all(one.raw != other.raw for one, other in pairwise(statuses))


@pytest.mark.parametrize("pair", [("failed", ""), ("Failed", ""), ("running", "Failed"), ("finished", "N/A")], ids=str)
async def test_a_run_that_never_gets_its_other_field_ends_after_the_grace(pair: Any, clock: FakeClock) -> None:
    """Killed orchestrators and failed init containers are over, though the service never says so."""
    look = Service(clock, (0, ("running", "N/A")), (10, pair))

    statuses = await follow(look, clock)

    assert statuses[-1].is_final
    assert not statuses[-1].is_success
    began = next(moment for moment in look.looks if moment >= 10)
    assert look.looks[-1] == pytest.approx(began + 60)


async def test_a_changing_text_does_not_restart_the_grace(clock: FakeClock) -> None:
    """Only the two words count; the change of another field is still shown."""
    steps = [(0, ("failed", "", 0)), *((10.0 * n, ("failed", "", n)) for n in range(1, 7))]

    statuses = await follow(Service(clock, *steps), clock)

    assert clock.now() - 1000 == pytest.approx(60)
    assert len(statuses) > 3


async def test_success_by_exit_status_alone_is_success(clock: FakeClock) -> None:
    """The judgement by time takes the exit-status for what it says."""
    statuses = await follow(Service(clock, (0, ("running", "Success"))), clock)

    assert statuses[-1].is_success


async def test_errors_that_pass_do_not_end_it(clock: FakeClock) -> None:
    """A spell of 502, lost connections and a service that is away are waited out."""
    look = Service(
        clock,
        (0, ConnectFailed("GET", "http://x", "refused")),
        (60, ServerError("m", status=502)),
        (120, ("running", "N/A")),
        (130, ConnectionLost("GET", "http://x", "reset")),
        (140, TimedOut("GET", "http://x", "silence")),
        (200, ("finished", "Success")),
    )

    assert (await follow(look, clock))[-1].is_success


async def test_a_certificate_that_will_not_do_ends_it(clock: FakeClock) -> None:
    """What cannot pass by itself is told at once."""
    with pytest.raises(ConnectFailed):
        await follow(Service(clock, (0, ConnectFailed("GET", "http://x", "certificate", permanent=True))), clock)


async def test_credentials_that_cannot_be_renewed_end_it_with_the_last_status(clock: FakeClock) -> None:
    """Whoever catches it knows where things stood."""
    look = Service(clock, (0, ("running", "N/A")), (5, Unauthorized("sign in", status=403)))

    with pytest.raises(Unauthorized) as caught:
        await follow(look, clock)

    last = caught.value.last_statuses["demo-1"]
    assert last is not None
    assert last.experiment_state == "running"


async def test_a_run_that_is_not_there_is_unknown_and_one_that_goes_is_deleted(clock: FakeClock) -> None:
    """A 404 at first and a 404 later are different things."""
    with pytest.raises(UnknownRun):
        await follow(Service(clock, (0, UnknownRun("m", status=404))), clock)
    with pytest.raises(RunDeleted) as caught:
        await follow(Service(clock, (0, ("running", "N/A")), (5, UnknownRun("m", status=404))), clock)

    assert caught.value.rest_uid == "demo-1"
    assert caught.value.last_status is not None
    assert caught.value.last_status.experiment_state == "running"


async def test_the_timeout_bounds_the_whole_wait(clock: FakeClock) -> None:
    """However many looks it takes, and the last pause is cut to what is left."""
    look = Service(clock, (0, ("running", "N/A")))

    with pytest.raises(WaitTimeout) as caught:
        await follow(look, clock, timeout=100)

    assert look.looks[-1] == pytest.approx(100)
    assert clock.now() == pytest.approx(1100)
    assert caught.value.last_statuses["demo-1"].experiment_state == "running"
    assert "the runs go on: return to one with client.run(rest_uid).wait()" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)


async def test_a_request_is_cut_to_the_time_left(clock: FakeClock) -> None:
    """A service that never answers cannot make a wait longer."""

    async def look() -> Status:
        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(WaitTimeout) as caught:
        await follow(look, clock, timeout=0.02)

    assert caught.value.last_statuses["demo-1"].is_pending


async def test_a_negative_timeout_is_refused(clock: FakeClock) -> None:
    """None is for ever, 0 is no time, less is a mistake."""
    with pytest.raises(ValueError, match="timeout must be"):
        await follow(Service(clock, (0, None)), clock, timeout=-1)


async def test_the_pace_is_quick_after_a_change_and_slow_when_nothing_moves(clock: FakeClock) -> None:
    """From half a second up to half a minute, and back after a change."""
    look = Service(clock, (0, ("running", "N/A")), (1000, ("suspended", "N/A")), (1100, ("finished", "Success")))

    await follow(look, clock)

    pauses = clock.slept
    assert pauses[0] == pytest.approx(QUICKEST, rel=0.11)
    assert max(pauses) == pytest.approx(SLOWEST, rel=0.11)
    changed = next(index for index, moment in enumerate(look.looks) if moment >= 1000)
    assert pauses[changed] == pytest.approx(QUICKEST, rel=0.11)
    assert len(look.looks) < 80


async def test_the_user_may_fix_the_interval(clock: FakeClock) -> None:
    """A fixed interval is neither drawn nor grown."""
    look = Service(clock, (0, ("running", "N/A")), (20, ("finished", "Success")))

    await follow(look, clock, interval=5.0)

    assert look.looks == [0, 5, 10, 15, 20]


async def test_it_can_be_dropped_and_stepped_from_any_task(clock: FakeClock) -> None:
    """No task group and no cancel scope is open while the caller has a status."""
    statuses = watch("demo-1", Service(clock, *SUCCESS), timeout=50, interval=None, grace=60, clock=clock)
    seen: list[Status] = []

    async def step() -> None:
        seen.append(await anext(statuses))

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step)
    await statuses.aclose()

    assert len(seen) == 2


def test_a_pace_is_jittered() -> None:
    """Many watchers do not ask at once."""
    assert len({Pace(None).pause() for _ in range(20)}) > 10


def test_a_deadline_tells_what_is_left(clock: FakeClock) -> None:
    """None means no end."""
    deadline, never = Deadline(10, clock), Deadline(None, clock)
    clock.time += 4

    assert (deadline.left, deadline.is_over) == (6, False)
    assert (never.left, never.is_over) == (None, False)
    clock.time += 7
    assert (deadline.left, deadline.is_over) == (0, True)
