"""Watching one run, in a time of the test's own; and who watches what until when."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from st4sd_async import (
    APIError,
    BadRequest,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    NotFound,
    RateLimited,
    ServerError,
    St4sdError,
    Status,
    TimedOut,
    TransportError,
    Unauthorized,
    UnknownRun,
    WaitTimeout,
)
from st4sd_async._clock import SystemClock
from st4sd_async._finality import Judge
from st4sd_async._looks import LAST_WORD, UNREADABLE
from st4sd_async._schedule import JITTER, LONGEST_REST, QUICKEST, SLOWEST
from st4sd_async._snapshot import Watched
from st4sd_async._watch import Deadline, Follower, concerns_all, survives
from tests.conftest import FakeClock
from tests.unit.service import (
    FAILED,
    GONE,
    HASTY,
    KILLED,
    NULLS,
    RUNNING,
    SILENCE,
    SUCCESS,
    Life,
    Service,
    Told,
    Watcher,
    assert_well_told,
    follow,
    page,
    poller,
    reply,
)
from tests.unit.test_finality import COURSES, FOR_EVER, Course

pytestmark = pytest.mark.anyio

RUN = "demo-1"
LONGEST_PAUSE = SLOWEST * (1 + JITTER)


@pytest.fixture
def anyio_backend() -> Any:
    return HASTY


def alone(*steps: tuple[Any, ...]) -> Service:
    """A service with one run."""
    return Service({RUN: Life(*steps)})


def words(told: list[Told]) -> list[tuple[str | None, str | None]]:
    return [one.words for one in told]


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


PASSING = {
    "a spell of 502": page(502),
    "500": reply(500, {"message": "boom"}),
    "503": page(503),
    "504": page(504),
    "408": page(408),
    "429": page(429),
    "lost connection": ConnectionLost("GET", "x", "reset"),
    "refused connection": ConnectFailed("GET", "x", "refused"),
    "time-out": TimedOut("GET", "x", "silence"),
    "a web page": page(200),
    "no JSON": reply(200, "odd"),
    "a JSON list": reply(200, [1, 2]),
    "404 of a proxy": page(404),
    "a redirect": page(302),
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING)
async def test_what_passes_does_not_end_it(trouble: Any) -> None:
    """A spell of whatever a proxy or network may do is waited out, and nothing is told of it."""
    service = alone((0, RUNNING), (70, SUCCESS))
    service.troubles = [(10, 10 + UNREADABLE - 15, trouble)]

    told = await follow(service)

    assert words(told) == [RUNNING, SUCCESS]
    assert any(10 <= moment < 55 for moment in service.looks)


@pytest.mark.parametrize("trouble", [page(502), page(503), page(429), ConnectFailed("GET", "x", "refused")], ids=str)
async def test_a_service_that_is_down_at_first_is_waited_for(trouble: Any) -> None:
    """The first status may take a while."""
    service = alone((0, RUNNING), (200, SUCCESS))
    service.troubles = [(0, 100, trouble)]

    told = await follow(service)

    assert words(told) == [RUNNING, SUCCESS]


RESTS = {
    "429": (429, "40", 40),
    "503": (503, "40", 40),
    "longer than is borne": (429, "3600", LONGEST_REST),
    "for ever": (503, "inf", LONGEST_REST),
    "a date that is past": (503, "Mon, 01 Jan 2001 00:00:00 GMT", 0),
    "nonsense": (503, "soon", 0),
    "no number": (503, "nan", 0),
}


@pytest.mark.parametrize(("code", "asked", "rest"), RESTS.values(), ids=RESTS)
async def test_a_service_that_asks_for_rest_gets_it(code: int, asked: str, rest: float) -> None:
    """Up to a minute; what is no time is no reason to wait."""
    service = alone((0, RUNNING), (5, SUCCESS))
    service.troubles = [(0.1, 2, reply(code, {"message": "slow down"}, retry_after=asked))]

    await follow(service, interval=1)

    refused = next(moment for moment in service.looks if moment > 0.1)
    pause = next(moment for moment in service.looks if moment > refused) - refused
    assert pause == pytest.approx(max(rest, 1.0))


ENDING: dict[str, tuple[Any, type[Exception]]] = {
    "certificate": (ConnectFailed("GET", "x", "certificate", permanent=True), ConnectFailed),
    "sign-in page": (page(403), Unauthorized),
    "401": (page(401), Unauthorized),
    "client is not open": (St4sdError("not open"), St4sdError),
    "400 in JSON": (reply(400, {"message": "odd"}), BadRequest),
}


@pytest.mark.parametrize("moment", [0, 5])
@pytest.mark.parametrize(("trouble", "kind"), ENDING.values(), ids=ENDING)
async def test_what_cannot_pass_is_told_at_once(trouble: Any, kind: type[Exception], moment: float) -> None:
    """At the first look or later, and nothing is asked after it."""
    service = alone((0, RUNNING))
    service.troubles = [(moment, 1e9, trouble)]

    with pytest.raises(kind) as caught:
        await follow(service)

    assert type(caught.value) is kind
    assert sum(look >= moment for look in service.looks) == 1


FIRST: dict[str, tuple[Any, type[Exception]]] = {
    "a web page": (page(200), DecodeError),
    "no JSON": (reply(200, "odd"), DecodeError),
    "404 of a proxy": (page(404), NotFound),
    "a redirect": (page(308), APIError),
}


@pytest.mark.parametrize(("trouble", "kind"), FIRST.values(), ids=FIRST)
async def test_a_wrong_address_is_told_at_once(trouble: Any, kind: type[Exception]) -> None:
    """What passes later is a mistake of the user while the service has never answered."""
    service = alone((0, trouble), (5, SUCCESS))

    with pytest.raises(kind):
        await follow(service)

    assert len(service.asked) == 1


async def test_answers_that_cannot_be_read_for_a_minute_are_told() -> None:
    """A service that has changed is not waited for without end."""
    service = alone((0, RUNNING), (10, reply(200, "odd")))

    with pytest.raises(DecodeError):
        await follow(service, interval=2)

    assert 10 + UNREADABLE <= service.looks[-1] <= 10 + UNREADABLE + LONGEST_PAUSE


async def test_answers_that_cannot_be_read_now_and_then_are_not_told() -> None:
    """A good answer between two bad ones starts the minute anew."""
    odd = reply(200, "odd")
    service = alone((0, RUNNING), (10, odd), (30, RUNNING), (60, odd), (100, SUCCESS))

    told = await follow(service, interval=2)

    assert words(told) == [RUNNING, SUCCESS]


async def test_credentials_that_cannot_be_renewed_end_it_with_the_last_status() -> None:
    """Whoever catches it knows where things stood."""
    service = alone((0, RUNNING), (5, page(403)))

    with pytest.raises(Unauthorized) as caught:
        await follow(service)

    last = caught.value.last_statuses[RUN]
    assert last is not None
    assert last.experiment_state == "running"


async def test_credentials_refused_at_first_leave_no_status() -> None:
    """The run is named, but nothing was seen of it."""
    with pytest.raises(Unauthorized) as caught:
        await follow(alone((0, page(403))))

    assert caught.value.last_statuses == {RUN: None}


async def test_a_run_that_never_was_is_unknown() -> None:
    """A 404 in JSON at first, and nothing in the datastore."""
    with pytest.raises(UnknownRun):
        await follow(alone((0, GONE)))


DELETIONS: dict[str, tuple[list[tuple[float, Any]], Any, Any]] = {
    "last seen": ([(0, RUNNING), (5, GONE)], None, RUNNING),
    "the datastore knows": ([(0, RUNNING), (5, GONE)], ("finished", "Stopped"), ("finished", "Stopped")),
    "only the datastore knows": ([(0, GONE)], SUCCESS, SUCCESS),
    "no status ever": ([(0, None), (5, GONE)], None, NULLS),
    "the datastore is silent": ([(0, RUNNING), (5, GONE)], SILENCE, RUNNING),
}


@pytest.mark.parametrize(("script", "last_word", "last"), DELETIONS.values(), ids=DELETIONS)
async def test_a_run_that_is_deleted_ends_with_what_is_known(script: list[Any], last_word: Any, last: Any) -> None:
    """Its end as the datastore has it, or its last status; final and deleted either way, within seconds."""
    service = alone(*script)
    service.words[RUN] = last_word

    told = await follow(service)

    assert told[-1].status.is_deleted
    assert told[-1].words == last
    assert told[-1].moment <= service.looks[-1] + LAST_WORD + 0.001
    assert all(not one.status.is_deleted for one in told[:-1])


async def test_a_page_of_a_proxy_is_not_a_deletion() -> None:
    """Only the service itself knows that a run is gone."""
    service = alone((0, RUNNING), (5, page(404)), (300, RUNNING), (310, GONE))

    told = await follow(service)

    assert told[-1].status.is_deleted
    assert told[-1].moment >= 310


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

    assert 0.02 <= time.monotonic() - began < 1


async def test_the_pace_is_quick_after_a_change_and_slow_when_nothing_moves() -> None:
    """From half a second up to half a minute, and back after a change."""
    service = alone((0, RUNNING), (1000, ("suspended", "N/A")), (1100, SUCCESS))

    await follow(service)

    pauses = [after - before for before, after in zip(service.looks, service.looks[1:], strict=False)]
    assert pauses[0] == pytest.approx(QUICKEST, rel=0.11)
    assert max(pauses) == pytest.approx(SLOWEST, rel=0.11)
    changed = next(index for index, moment in enumerate(service.looks) if moment >= 1000)
    assert pauses[changed] == pytest.approx(QUICKEST, rel=0.11)
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
    changes = poller(service).changes({RUN: RUN}, 50, None)
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


def running(text: str = "", state: str = "running") -> Status:
    return Status.model_validate({"experiment-state": state, "error-description": text})


@pytest.fixture
def follower() -> Follower:
    return Follower(Deadline(10, FakeClock()), None)


@pytest.fixture
def watched() -> Watched:
    return Watched(RUN, Judge(60))


async def test_a_follower_keeps_one_status_of_each_run(follower: Follower, watched: Watched) -> None:
    """However many there were, and the oldest news first."""
    other = Watched("demo-2", Judge(60), status=running())
    for one in (watched, other):
        follower.join(one)

    follower.tell(other)
    for number in range(1000):
        watched.status = running(str(number))
        assert follower.tell(watched)

    assert [follower.take()[1].error_description for _ in range(2)] == [None, "999"]
    assert not follower.news


async def test_a_follower_is_not_told_what_he_knows(follower: Follower, watched: Watched) -> None:
    """Nor what changed and changed back before he came for it."""
    watched.status = running()
    follower.join(watched)
    assert follower.tell(watched)
    follower.take()

    for text, is_news, is_told in (("", False, False), ("changed", True, True), ("", True, False)):
        watched.status = running(text)
        assert follower.tell(watched, is_news=is_news) is is_told

    assert not follower.news


async def test_an_end_is_told_though_it_says_what_was_told(follower: Follower, watched: Watched) -> None:
    """It may come while something else waits to be told."""
    watched.status = told = running()
    follower.join(watched)
    follower.tell(watched)
    follower.take()
    watched.status = running("changed")
    follower.tell(watched)

    watched.status, watched.final = told, told.concluded()

    assert follower.tell(watched)
    assert follower.take()[1].is_final


async def test_a_follower_leaves_a_run_with_its_end(follower: Follower, watched: Watched) -> None:
    """Though it says what he was told before; nothing binds them any more."""
    watched.status = running(state="finished")
    follower.join(watched)
    follower.tell(watched)
    follower.take()

    watched.final = watched.status.concluded()
    assert follower.tell(watched)

    assert follower.take()[1].is_final
    assert follower.open == {}
    assert watched.followers == {}


async def test_the_first_error_is_the_one_that_is_raised(follower: Follower) -> None:
    """As an object of his own that says the same."""
    first = ServerError("boom", status=500, detail={"message": "boom"}, url="x")

    follower.end(first)
    follower.end(DecodeError("GET", "x", "odd"))

    with pytest.raises(ServerError) as caught:
        follower.check()
    assert caught.value is not first
    assert (str(caught.value), caught.value.status, caught.value.detail) == (str(first), 500, {"message": "boom"})


ERRORS: list[tuple[Exception, bool, bool, bool]] = [
    # error, survived at first, survived later, concerns all runs
    (ConnectFailed("GET", "x", "refused"), True, True, True),
    (ConnectFailed("GET", "x", "certificate", permanent=True), False, False, True),
    (ConnectionLost("GET", "x", "reset"), True, True, True),
    (TimedOut("GET", "x", "silence"), True, True, True),
    (TransportError("GET", "x", "odd"), True, True, True),
    (ServerError("m", status=500, detail={"message": "m"}), True, True, False),
    (ServerError("m", status=502), True, True, False),
    (RateLimited("m", status=429), True, True, False),
    (BadRequest("m", status=408), True, True, False),
    (BadRequest("m", status=408, detail={"message": "m"}), True, True, False),
    (BadRequest("m", status=400), False, True, False),
    (BadRequest("m", status=400, detail={"message": "m"}), False, False, False),
    (NotFound("m", status=404), False, True, False),
    (UnknownRun("m", status=404, detail={"message": "m"}), False, False, False),
    (APIError("m", status=302), False, True, False),
    (Unauthorized("m", status=403), False, False, True),
    (Unauthorized("m", status=401, detail={"message": "m"}), False, False, True),
    (DecodeError("GET", "x", "odd"), False, True, False),
    (St4sdError("not open"), False, False, True),
    (RuntimeError("a defect"), False, False, True),
]


@pytest.mark.parametrize(("error", "at_first", "later", "for_all"), ERRORS, ids=repr)
async def test_what_is_survived(error: Exception, at_first: bool, later: bool, for_all: bool) -> None:
    """What passes by itself; what the service itself says is believed."""
    assert survives(error, is_proven=False) is at_first
    assert survives(error, is_proven=True) is later
    assert concerns_all(error) is for_all


def test_a_deadline_tells_what_is_left() -> None:
    """None means no end."""
    clock = FakeClock()
    deadline, never = Deadline(10, clock), Deadline(None, clock)
    clock.time += 4

    assert deadline.left == 6
    assert never.left == float("inf")
    clock.time += 7
    assert deadline.left == 0
