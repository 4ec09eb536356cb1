"""A call that must not be repeated and is cancelled after it was sent says so."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from st4sd_async import Client, Launch, RetryPolicy
from st4sd_async._http.call import Call, nothing
from st4sd_async._http.retry import Replay
from st4sd_async.local import Delay, LocalServer
from tests.tries import tries

from .clients import StandingClock, connect, settings
from .raw import Answer, RawServer, after, close, never, reply, sign_in

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

UID = "demo-c52cd4-00000001"
KNOWN = f"an instance of 'demo' was started: '{UID}', which continues"
UNKNOWN = "it is unknown whether an instance of 'demo' was started: it was cancelled after it was sent at "
CANCEL_GRACE = 1.0
"""Seconds that a cancelled call waits for the response if it must not be repeated."""
SECOND = 1.7
"""Seconds in which what shares one second has ended, on a busy machine."""


@pytest.fixture
def anyio_backend() -> str:
    """Real time: what is bounded here is a second of it."""
    return "asyncio"


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said of cancelled calls, beside what is said of waiting for a service."""
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [one for one in told if not one.startswith(("waiting for", "Unclosed"))]


def notes_of(error: BaseException | None) -> list[str]:
    return list(getattr(error, "__notes__", []))


async def cancellation_of(task: asyncio.Task[object]) -> asyncio.CancelledError:
    """With its notes: `asyncio.gather` makes another one."""
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return caught.value


async def pause(clock: StandingClock) -> None:
    """Until something waits to try again."""
    async with asyncio.timeout(10):
        while not clock.slept:  # noqa: ASYNC110 -- the clock of a test tells nobody
            await asyncio.sleep(0.01)


def answered(release: asyncio.Event) -> Answer:
    return after(release, reply(200, UID))


async def _sent(server: RawServer, count: int = 1) -> None:
    await server.until(lambda: len(server.requests) == count)


async def test_a_time_out_says_that_the_start_may_have_arrived(caplog: pytest.LogCaptureFixture) -> None:
    """The cause of the TimeoutError has the note, and the log the same words."""
    async with RawServer([never()]) as server, connect(server.url) as client:
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.3):
                await client.start("demo", {"metadata": {"mine": "yes"}})
        took = time.monotonic() - began

    (note,) = notes_of(caught.value.__cause__)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert note.startswith(UNKNOWN)
    assert "no response came within 1 s; search for it in client.instances.list() before you start it again" in note
    assert warnings_in(caplog) == [note]
    assert CANCEL_GRACE < took < 0.3 + SECOND
    assert server.methods == ["POST"]


async def test_the_list_that_the_note_names_has_the_metadata_of_the_run() -> None:
    """The note names the attribute that has them, and when."""
    async with LocalServer() as server, Client(server.url, api_key=server.api_key) as client:
        experiment = await client.push(server.example("demo"))
        files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
        server.faults.add("POST /experiments/*/start", Delay(1.5))
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await client.start(experiment, {"inputs": files, "metadata": {"mine": "yes"}})

        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 -- the server tells nobody
                await asyncio.sleep(0.05)
        await server.advance(60)
        found = [item for item in await client.instances.list() if item.status.meta]

    (note,) = notes_of(caught.value.__cause__)
    assert "once it runs, its status.meta.user_metadata there is the metadata you gave it" in note
    assert [item.status.meta.user_metadata["mine"] for item in found if item.status.meta] == ["yes"]


async def test_wait_for_says_so_too(caplog: pytest.LogCaptureFixture) -> None:
    """It runs the call in a task."""
    async with RawServer([never()]) as server, connect(server.url) as client:
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(client.start("demo"), 0.2)

    assert notes_of(caught.value.__cause__) == warnings_in(caplog)
    assert len(warnings_in(caplog)) == 1


async def test_the_answer_that_comes_within_a_second_is_in_both(caplog: pytest.LogCaptureFixture) -> None:
    """The rest-uid is known then, so no search is needed."""
    release = asyncio.Event()
    async with RawServer([answered(release)]) as server, connect(server.url) as client:
        task = asyncio.create_task(client.start("demo"))
        await _sent(server)
        task.cancel()
        await asyncio.sleep(0.05)
        release.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    (note,) = notes_of(caught.value)
    assert note.startswith(KNOWN)
    assert warnings_in(caplog) == [note]


async def test_a_second_cancellation_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Neither does a third; the call still waits for the answer."""
    release = asyncio.Event()
    async with RawServer([answered(release)]) as server, connect(server.url) as client:
        task = asyncio.create_task(client.start("demo"))
        await _sent(server)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.02)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert notes_of(caught.value) == warnings_in(caplog)
    assert warnings_in(caplog)[0].startswith(KNOWN)


async def test_a_failing_sibling_leaves_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The task group shows the sibling's error alone."""
    async with RawServer([never()]) as server, connect(server.url) as client:

        async def fail() -> None:
            await _sent(server)
            raise LookupError

        with pytest.raises(ExceptionGroup):  # noqa: PT012
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(client.start("demo"))
                tasks.create_task(fail())

    (warning,) = warnings_in(caplog)
    assert warning.startswith(UNKNOWN)


@pytest.mark.parametrize("how", ["scope", "group", "native in scope"])
async def test_a_cancel_scope_leaves_a_warning(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """anyio cancels repeatedly, and its shields do not stop ``Task.cancel()``."""
    release = asyncio.Event()
    async with RawServer([answered(release)]) as server, connect(server.url) as client:
        if how == "scope":
            with anyio.move_on_after(0.2):
                await client.start("demo")
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.start, "demo")
                await _sent(server)
                asyncio.get_running_loop().call_later(0.1, release.set)
                tasks.cancel_scope.cancel()
                if how != "scope":
                    await anyio.lowlevel.checkpoint()

    (warning,) = warnings_in(caplog)
    assert warning.startswith(UNKNOWN if how == "scope" else KNOWN)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_hundred_starts_cancelled_together_share_a_second(
    is_answered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Eight were sent and are reported; the others were queued and never sent, and are not reported."""
    release = asyncio.Event()
    async with RawServer([answered(release)]) as server, connect(server.url, concurrency=8) as client:
        tasks = [asyncio.create_task(client.start("demo")) for _ in range(100)]
        await _sent(server, 8)
        began = time.monotonic()
        for task in tasks:
            task.cancel()
        if is_answered:
            asyncio.get_running_loop().call_later(0.1, release.set)
        found = [await cancellation_of(task) for task in tasks]
        took = time.monotonic() - began
        assert len(server.requests) == 8

    assert took < SECOND
    notes = [note for error in found for note in notes_of(error)]
    assert len(notes) == 8
    assert sorted(notes) == sorted(warnings_in(caplog))
    assert all(note.startswith(KNOWN if is_answered else UNKNOWN) for note in notes)


async def test_a_start_that_was_not_sent_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is waiting to retry a refused connection, and ends at once."""
    clock = StandingClock()
    async with RawServer([], listening=False) as server, connect(server.url, clock) as client:
        task = asyncio.create_task(client.start("demo"))
        await pause(clock)
        began = anyio.current_time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert anyio.current_time() - began < CANCEL_GRACE / 2
    assert notes_of(caught.value) == warnings_in(caplog) == []


async def test_a_start_that_was_refused_and_waits_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """429 with Retry-After proves that nothing was started."""
    clock = StandingClock()
    answers = [reply(429, {"message": "slow down"}, retry_after="7")]
    async with RawServer(answers) as server, connect(server.url, clock, retry=RetryPolicy()) as client:
        task = asyncio.create_task(client.start("demo"))
        await pause(clock)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert notes_of(caught.value) == warnings_in(caplog) == []


@pytest.mark.parametrize("answer", [reply(400, {"message": "no"}), reply(404, {"message": "no"}), sign_in()])
async def test_a_start_that_is_refused_within_the_second_says_nothing(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was started, so there is nothing to look for."""
    release = asyncio.Event()
    async with RawServer([after(release, answer)]) as server, connect(server.url) as client:
        task = asyncio.create_task(client.start("demo"))
        await _sent(server)
        task.cancel()
        await asyncio.sleep(0.02)
        release.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert notes_of(caught.value) == warnings_in(caplog) == []


@pytest.mark.parametrize("answer", [reply(429, {"message": "slow down"}, retry_after="0"), sign_in()])
async def test_a_start_that_is_cancelled_is_not_sent_again(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither as a retry nor with a new credential: the caller no longer wants the instance."""
    release = asyncio.Event()
    keys = itertools.count()
    async with RawServer([after(release, answer), reply(200, UID)]) as server:
        config = settings(retry=RetryPolicy(first_wait=0))
        async with Client(server.url, api_key=lambda: f"key-{next(keys):020}", config=config) as client:
            task = asyncio.create_task(client.start("demo"))
            await _sent(server)
            task.cancel()
            await asyncio.sleep(0.02)
            release.set()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task

    assert server.methods == ["POST"]
    assert notes_of(caught.value) == warnings_in(caplog) == []


async def test_a_start_that_breaks_within_the_second_says_how(caplog: pytest.LogCaptureFixture) -> None:
    """The report contains the reason."""
    release = asyncio.Event()
    async with RawServer([after(release, close())]) as server, connect(server.url) as client:
        task = asyncio.create_task(client.start("demo"))
        await _sent(server)
        task.cancel()
        await asyncio.sleep(0.02)
        release.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    (note,) = notes_of(caught.value)
    assert note.startswith(UNKNOWN)
    assert "the server closed the connection without a response" in note
    assert warnings_in(caplog) == [note]


async def test_an_answer_in_the_same_instant_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Cancelled between the arrival of the answer and the return of the call."""
    async with RawServer([reply(200, UID)]) as server, connect(server.url) as client:
        for turns in range(tries(40, 20)):
            task = asyncio.create_task(client.start("demo"))
            await server.until(lambda count=turns + 1: len(server.requests) >= count)  # type: ignore[misc]
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            caplog.clear()
            if task.cancel():
                with pytest.raises(asyncio.CancelledError) as caught:
                    await task
                (note,) = notes_of(caught.value)
                assert note.startswith(KNOWN)
            else:
                assert (await task).id == UID


OTHERS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "dataset": lambda client: client.datasets.create(
        "mine", {"accessKeyID": "a", "secretAccessKey": "b", "bucket": "c", "endpoint": "http://d"}
    ),
    "anything": lambda client: client.request("POST", "anything/", json={}),
    "call": lambda client: client._session.send(Call("POST", "x", nothing, replay=Replay.ONCE)),
    "lambda": lambda client: client.start_lambda({"components": []}, validate=False),
}


@pytest.mark.parametrize("verb", OTHERS.values(), ids=OTHERS.keys())
async def test_whatever_must_not_be_repeated_says_so(
    verb: Callable[[Client], Awaitable[object]], caplog: pytest.LogCaptureFixture
) -> None:
    """The outcome is unknown, and the report says what to do."""
    async with RawServer([never()]) as server, connect(server.url) as client:
        task = asyncio.ensure_future(verb(client))
        await _sent(server)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    (note,) = notes_of(caught.value)
    assert note.startswith("it is unknown whether ")
    assert ": it was cancelled after it was sent at" in note
    assert "; search for it in " in note or "; check whether it exists " in note
    assert warnings_in(caplog) == [note]


async def test_a_read_that_is_cancelled_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """It can be repeated, so there is no report."""
    async with RawServer([never()]) as server, connect(server.url) as client:
        task = asyncio.create_task(client.instances.list())
        await _sent(server)
        began = anyio.current_time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert anyio.current_time() - began < CANCEL_GRACE / 2
    assert notes_of(caught.value) == warnings_in(caplog) == []


@pytest.mark.slow(seconds=5)
async def test_a_batch_that_is_left_early_says_it_in_its_journal_alone(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal records the start as of unknown outcome; there is no second report."""
    server.faults.add("POST /experiments/*/start", Delay(60))
    async with Client(server.url, api_key=server.api_key) as client:
        await client.push(server.example("demo"))
        async with client.batch() as batch:
            await batch.add([Launch("one", "demo", {"inputs": [{"filename": "molecules.csv", "content": "CO"}]})])
            with anyio.move_on_after(0.3):
                async for _ in batch.run():
                    pass
        assert batch.counts["unknown"] == 1

    assert not [one for one in warnings_in(caplog) if "cancelled" in one]


async def test_no_task_and_no_connection_is_left() -> None:
    """When the call has ended, nothing of it is left."""
    async with RawServer([never()]) as server, connect(server.url) as client:
        before = asyncio.all_tasks()
        task = asyncio.create_task(client.start("demo"))
        await _sent(server)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.until(lambda: server.open_connections == 0)
        gc.collect()
        ours = {one for one in asyncio.all_tasks() - before if "raw.py" not in repr(one)}

    assert ours == set()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_the_end_of_the_loop_cancels_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """As when a program ends on an error while a start is in flight: `asyncio.run` cancels every task."""
    clients: list[Client] = []

    async def main() -> None:
        async with RawServer([never()]) as server:
            clients.append(await Client(server.url, config=settings()).open())
            task = asyncio.create_task(clients[0].start("demo"), name="start")
            await _sent(server)
            asyncio.get_running_loop().call_soon(task.get_name)
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(main())
    asyncio.run(clients[0].close())  # its loop is over
    gc.collect()  # the connections of that loop

    (warning,) = warnings_in(caplog)
    assert warning.startswith(UNKNOWN)
