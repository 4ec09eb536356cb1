"""Watching through sockets: recorded runs, many runs, incomplete lists, failing services."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest

from st4sd_async import (
    Client,
    Config,
    Reason,
    RequestEvent,
    Run,
    RunDeleted,
    RunFailed,
    ServerError,
    Status,
    Unauthorized,
    UnknownRun,
    WaitTimeout,
)
from st4sd_async.local import Html, LocalServer, Reply, ShortList
from tests.batch.batches import until
from tests.conftest import FakeClock
from tests.tries import tries

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.slow]  # of thousands, on a busy machine

INPUTS = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\nCCO\n"}]}
LIST, DETAIL = "GET /instances/", "GET /instances/*/status"

Row = tuple[Any, ...]
"""Seconds, experiment-state, stage-state, exit-status, current-stage, total-progress, error-description."""
NO_STATUS = "no status"
EMPTY = (None, None, None, None, 0.0, "")
BOOM = "Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.Boom. Returncode"

RECORDED: dict[str, list[Row]] = {
    "demo, every few seconds": [
        (0, NO_STATUS),
        (0.4, *EMPTY),
        (3.6, "running", "running", "N/A", "stage1", 0.0, ""),
        (16.4, "finished", "finished", "Success", "stage1", 1.0, ""),
    ],
    "sum-numbers, every few seconds": [
        (0, NO_STATUS),
        (0.4, *EMPTY),
        (3.6, "Initialising", "Initialising", "N/A", "None", 0.0, ""),
        (28.5, "running", "finished", "Success", "stage3", 1.0, ""),
        (32.7, "finished", "finished", "Success", "stage3", 1.0, ""),
    ],
    "fail": [
        (0, NO_STATUS),
        (0.5, *EMPTY),
        (3.6, "Initialising", "Initialising", "N/A", "None", 0.0, ""),
        (33.7, "running", "running", "N/A", "stage1", 0.0, ""),
        (34.6, "running", "failed", "Failed", "stage1", 0.0, BOOM),
        (39.6, "finished", "failed", "Failed", "stage1", 0.0, BOOM.replace("\n", "\\n")),
    ],
    "badref": [
        (0, NO_STATUS),
        (0.5, *EMPTY),
        (3.7, "failed", "Initialising", "Failed", "None", 0.0, "UnusedDataReferenceError Reference stage0.A:ref"),
    ],
    "sum-numbers, every 20 ms": [
        (0, NO_STATUS),
        (0.31, *EMPTY),
        (2.4, "running", "running", "N/A", "stage3", 0.0, ""),
        (26.41, "finished", "finished", "Success", "stage3", 1.0, ""),
    ],
    "slow, every 20 ms": [
        (0, NO_STATUS),
        (0.33, *EMPTY),
        (2.38, "running", "running", "N/A", "stage1", 0.0, ""),
        (22.42, "running", "finished", "Success", "stage1", 1.0, ""),
        (26.43, "finished", "finished", "Success", "stage1", 1.0, ""),
    ],
    "demo, every 20 ms": [
        (0, NO_STATUS),
        (0.31, *EMPTY),
        (2.41, "running", "running", "N/A", "stage1", 0.0, ""),
        (14.4, "running", "finished", "Success", "stage1", 1.0, ""),
        (18.4, "finished", "finished", "Success", "stage1", 1.0, ""),
    ],
}
"""Statuses of real runs as they were recorded."""


@pytest.fixture
def anyio_backend() -> str:
    """Sockets need real time."""
    return "asyncio"


@pytest.fixture
def server() -> Any:
    """A server whose time passes only in `advance`."""
    with LocalServer(speed=0, slots=2000) as running:
        yield running


@pytest.fixture
async def client(server: LocalServer, clock: FakeClock) -> AsyncIterator[Client]:
    """A client whose pauses take no time."""
    async with Client(server.url, api_key=server.api_key, config=Config(clock=clock)) as opened:
        await opened.push(server.example("demo"))
        yield opened


def wire(row: Row) -> dict[str, Any] | None:
    """Return a recorded status in its JSON form."""
    if row[1] == NO_STATUS:
        return None
    names = ("experiment-state", "stage-state", "exit-status", "current-stage", "total-progress", "error-description")
    return dict(zip(names, row[1:], strict=True))


async def start(client: Client, server: LocalServer, outcome: Any) -> Run:
    """Start a run with this outcome."""
    server.outcome("demo", outcome, times=1)
    return await client.start("demo", INPUTS)


@pytest.mark.parametrize("rows", RECORDED.values(), ids=RECORDED.keys())
async def test_watch_yields_each_status_of_a_recorded_run(client: Client, server: LocalServer, rows: list[Row]) -> None:
    """Each change once, in order; only the last status is final."""
    run = await start(client, server, [(row[0], wire(row)) for row in rows])
    steps = [later[0] - sooner[0] for sooner, later in pairwise(rows)]
    seen: list[Status] = []

    async for status in client.watch(run):
        seen.append(status)
        if steps:
            await server.advance(steps.pop(0))

    assert [status.is_final for status in seen] == [False] * (len(rows) - 1) + [True]
    assert [status.is_pending for status in seen] == [row[1] in (NO_STATUS, None) for row in rows]
    for status, row in zip(seen[1:], rows[1:], strict=True):
        assert status.experiment_state == row[1]
        assert status.exit_status == row[3]
        assert status.total_progress == row[5]
    assert seen[-1].is_success is (rows[-1][3] == "Success")


BAD_ENDS = ["killed", "killed-after-failure", "init-failure"]


async def test_killed_runs_are_found_among_many(client: Client, server: LocalServer) -> None:
    """Although the list never shows it: within the grace period and one request for each run."""
    count = tries(100, 40)
    crowd = server.populate("demo", count, "stuck")
    bad = [await start(client, server, outcome) for outcome in BAD_ENDS]
    await server.advance(600)
    lists = server.traffic[LIST].requests
    ended: dict[str, Status] = {}

    async with aclosing(client.watch_many([*crowd, *bad], interval=5)) as changes:
        async for run, status in changes:
            if status.is_final:
                ended[run.id] = status
            if len(ended) == len(bad):
                break

    rounds = server.traffic[LIST].requests - lists
    assert set(ended) == {run.id for run in bad}
    assert not any(status.is_success for status in ended.values())
    assert rounds <= 60 / 5 + (count + 3) / 3 + 6
    assert server.traffic[DETAIL].requests <= 3 * rounds + 6


async def test_many_tasks_send_as_many_requests_as_one() -> None:
    """Each watches its own run."""
    counts = []
    for is_one in (True, False):
        config = Config(clock=FakeClock(), poll_interval=5)
        async with LocalServer(speed=0) as server, Client(server.url, api_key=server.api_key, config=config) as client:
            await client.push(server.example("demo"))
            crowd = server.populate("demo", tries(100, 40), "stuck")
            before = len(server.requests)

            async def follow(runs: list[str], client: Client = client) -> None:
                with pytest.raises(WaitTimeout):
                    async for _ in client.watch_many(runs, timeout=50):
                        pass

            async with anyio.create_task_group() as tasks:
                for runs in [crowd] if is_one else [[rest_uid] for rest_uid in crowd]:
                    tasks.start_soon(follow, runs)
            counts.append(len(server.requests) - before)

    assert abs(counts[0] - counts[1]) <= 3
    assert counts[0] <= 11 * (1 + 3) + 3  # three runs are requested beside each list


async def test_few_runs_among_many_old_ones_are_requested_one_by_one(client: Client, server: LocalServer) -> None:
    """A list of more than 50 instances for each run is not read to watch three runs, or six."""
    server.populate("demo", 6 * 50)
    runs = server.populate("demo", 6, "stuck")
    with pytest.raises(WaitTimeout):
        await client.wait(runs[:3], timeout=60)
    assert LIST not in server.traffic

    with pytest.raises(WaitTimeout):
        await client.wait(runs, timeout=60)

    assert server.traffic[LIST].requests == 1


BAD_LISTS = {"504": Html(504), "a page": Html(200), "broken JSON": Reply(200, {}, b'[{"id": "x')}


@pytest.mark.parametrize("trouble", BAD_LISTS.values(), ids=BAD_LISTS)
async def test_a_list_that_fails_is_spared(client: Client, server: LocalServer, trouble: Any) -> None:
    """It is tried again every minute. Meanwhile there are at most twice as many requests as with the list."""
    runs = server.populate("demo", tries(60, 30), "stuck")
    changes = client.watch_many(runs, timeout=310, interval=20)
    await anext(changes)
    server.faults.add("GET /instances/$", trouble, times=None)

    with pytest.raises(WaitTimeout):
        async for _ in changes:
            pass

    assert 3 + 3 <= server.traffic[LIST].requests - 1 <= 3 + 5
    assert server.traffic[LIST].requests + server.traffic[DETAIL].requests <= 16 * 2 * (1 + 3)


async def test_a_list_that_takes_too_long_is_spared(
    server: LocalServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it fails: each run is requested. A warning says what to do."""

    class Slow(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            clock.time += 49.0 * request.url.path.endswith("/instances/")
            return await super().handle_async_request(request)

    config = Config(clock=clock, transport=Slow)
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        await client.push(server.example("demo"))
        runs = server.populate("demo", 10, "stuck")

        with pytest.raises(WaitTimeout):
            await client.wait(runs, timeout=tries(200, 120), interval=20)

    assert server.traffic[LIST].requests == 1
    assert server.traffic[DETAIL].requests >= 10 * tries(6, 3)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "delete instances that are no longer needed" in warning


async def test_what_a_busy_client_does_before_a_request_does_not_delay_the_next_round(
    server: LocalServer, clock: FakeClock
) -> None:
    """A pause is ten times what the service took, without the time until there is a connection."""

    def delay(event: RequestEvent) -> None:
        clock.time += 3.0 * event.url.endswith("/instances/")

    config = Config(clock=clock, on_request=delay)
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        await client.push(server.example("demo"))
        runs = server.populate("demo", 20, "stuck")

        with pytest.raises(WaitTimeout):
            await client.wait(runs, timeout=100, interval=5)

    assert server.traffic[LIST].requests >= 100 // (5 + 3)


async def test_a_run_missing_in_the_list_is_not_deleted(client: Client, server: LocalServer) -> None:
    """The service leaves out what it cannot read; a request for the run shows its status."""
    runs = server.populate("demo", 10, "stuck")
    server.faults.add("GET /instances/$", ShortList(0.5), times=3)
    server.faults.add("GET /instances/$", ShortList(1.0), times=3)

    with pytest.raises(WaitTimeout) as caught:
        await client.wait(runs, timeout=300)

    assert set(caught.value.last_statuses) == set(runs)
    assert all(status.experiment_state == "running" for status in caught.value.last_statuses.values())


async def test_a_deleted_run_has_the_final_status_of_the_datastore(client: Client, server: LocalServer) -> None:
    """It finished before it was deleted."""
    runs = [await start(client, server, "success") for _ in range(2)]
    await server.advance(3)
    statuses = client.watch(runs[0])
    assert (await anext(statuses)).experiment_state == "running"
    await server.advance(600)
    for run in runs:
        await run.delete()

    with pytest.raises(RunDeleted) as caught:
        await anext(statuses)
    many = [status async for _, status in client.watch_many(runs)]

    assert caught.value.last_status is not None
    for status in (caught.value.last_status, *many):
        assert (status.is_final, status.is_deleted, status.exit_status) == (True, True, "Success")
    assert str(caught.value) == f"run {runs[0].id!r} was deleted; last status: succeeded"
    assert str(RunDeleted("demo-1", None)) == "run 'demo-1' was deleted"


async def test_a_run_deleted_by_another_user_ends(client: Client, server: LocalServer) -> None:
    """Without a document in the datastore it ends with the last status seen; a run never seen is unknown."""
    runs = [await start(client, server, "stuck") for _ in range(7)]
    seen: dict[str, list[Status]] = {run.id: [] for run in runs}

    async for run, status in client.watch_many(runs):
        seen[run.id].append(status)
        if not status.is_deleted:
            await client.delete(run)

    for statuses in seen.values():
        assert [status.is_deleted for status in statuses] == [False, True]
        assert statuses[-1].is_final
    with pytest.raises(UnknownRun) as caught:
        await client.wait(runs)
    assert caught.value.rest_uid in seen


async def test_a_run_deleted_before_it_was_seen_does_not_affect_the_others(client: Client, server: LocalServer) -> None:
    """Its place in the result has a pending status that is deleted."""
    gone, other = await start(client, server, "stuck"), await start(client, server, "success")
    await client.delete(gone)
    await server.advance(100)

    first, second = await client.wait([gone, other])

    assert (first.is_deleted, first.is_pending, second.is_success) == (True, True, True)
    with pytest.raises(RunFailed) as caught:
        await client.wait([gone, other], check=True)
    assert list(caught.value.failures) == [gone.id]
    assert f"{gone.id}: deleted, last seen no status yet" in str(caught.value)
    with pytest.raises(UnknownRun) as single:
        await gone.wait()
    assert single.value.rest_uid == gone.id


async def test_an_outage_does_not_end_a_wait(client: Client, server: LocalServer) -> None:
    """502 for every request, for minutes, and HTML in place of JSON."""
    run = await start(client, server, "success")
    statuses = client.watch(run)
    await anext(statuses)
    server.faults.add("GET /instances", Html(502), times=5)
    server.faults.add("GET /instances", Reply(503, {"Retry-After": "30"}), times=2)
    server.faults.add("GET /instances", Reply(200, {"Content-Type": "text/html"}, b"<html>maintenance</html>"))
    server.faults.add("GET /instances", Html(404))
    await server.advance(600)

    assert [status.is_success async for status in statuses] == [True]


async def test_a_timeout_without_an_answer_has_the_last_failure_as_its_cause(
    client: Client, server: LocalServer
) -> None:
    """An outage does not look like a run that is pending."""
    run = await start(client, server, "success")
    server.faults.add("GET /instances", Html(502), times=None)

    with pytest.raises(WaitTimeout) as caught:
        await run.wait(timeout=60)

    assert isinstance(caught.value.__cause__, ServerError)
    assert caught.value.last_statuses[run.id].is_pending


async def test_an_expired_token_is_renewed_or_an_error(server: LocalServer, clock: FakeClock) -> None:
    """A provider is called again. Without one the wait ends, with the last status of each run."""
    async with (
        Client(server.url, api_key=lambda: server.api_key, config=Config(clock=clock)) as renewing,
        Client(server.url, api_key=server.api_key, config=Config(clock=clock)) as fixed,
    ):
        await renewing.push(server.example("demo"))
        runs = server.populate("demo", 7, "stuck")
        ending = await start(renewing, server, "success")
        changes, statuses = fixed.watch_many(runs), renewing.watch(ending)
        for _ in runs:
            await anext(changes)
        await anext(statuses)
        server.renew()
        await server.advance(600)

        assert (await anext(statuses)).is_success
        with pytest.raises(Unauthorized) as caught:
            await anext(changes)

    assert set(caught.value.last_statuses) == set(runs)
    assert all(status is not None and not status.is_pending for status in caught.value.last_statuses.values())


@pytest.mark.filterwarnings("error")
async def test_nothing_is_left_of_a_consumer_that_leaves(client: Client, server: LocalServer) -> None:
    """Break, close, cancel or forget: no task, no run, no warning."""
    runs = server.populate("demo", 8, "stuck")
    tasks_before = asyncio.all_tasks()

    async for _ in client.watch_many(runs):
        break
    closed = client.watch(runs[0])
    await anext(closed)
    await closed.aclose()
    with anyio.move_on_after(0.05):
        async for _ in client.watch_many(runs):
            await anyio.sleep(0.02)
    forgotten = client.watch(runs[0])
    await anext(forgotten)
    del forgotten
    gc.collect()

    await until(lambda: not client._poller._runs and asyncio.all_tasks() == tasks_before)


async def test_a_slow_consumer_receives_every_final_status(client: Client, server: LocalServer) -> None:
    """Once, after the newest status of each run."""
    runs = [await start(client, server, "success") for _ in range(6)]
    seen: list[tuple[str, bool]] = []

    async for run, status in client.watch_many([*runs, runs[0].id]):
        seen.append((run.id, status.is_final))
        await server.advance(0.5)

    finals = [rest_uid for rest_uid, is_final in seen if is_final]
    assert sorted(finals) == sorted(run.id for run in runs)
    assert len(seen) <= 6 * 7


async def test_the_hint_says_why_a_run_is_pending(client: Client, server: LocalServer) -> None:
    """As an enum member, with the text of the cluster."""
    run = await start(client, server, "unscheduled")
    await server.advance(1)
    statuses = client.watch(run)

    hint = (await anext(statuses)).hint

    assert hint is not None
    assert hint.reason is Reason.UNSCHEDULED
    assert "Insufficient cpu" in str(hint)


async def test_invalid_arguments_of_watch_many(client: Client) -> None:
    """The error says what to pass instead."""
    run = client.run("demo-1")
    for mistake in (run, "demo-1", None):
        with pytest.raises(TypeError, match=r"give \[run\], or watch\(\) it"):
            client.watch_many(mistake)  # type: ignore[arg-type] # on purpose
    with pytest.raises(ValueError, match="timeout"):
        client.watch_many([run], timeout=-1)
    with pytest.raises(ValueError, match="interval"):
        client.watch_many([run], interval=0)
    assert [one async for one in client.watch_many([])] == []
