"""Absence is proven, not assumed: a batch whose service shows less than exists."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Batch, Client, Item, RetryPolicy, StartOutcomeUnknown, UnknownRun
from st4sd_async._batch import observer
from st4sd_async.local import BadJson, BreakOff, Delay, DropAfter, DropBefore, Html, LocalServer, Reply, ShortList
from st4sd_async.local.engine.instance_files import FROM_CLUSTER
from st4sd_async.local.http.faults import Fault
from tests.tries import sample

from .batches import START, QuickClock, connect, launch, launches, run_all, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MAX_CANDIDATE_REQUESTS = 10
"""Candidates that one observation requests, with the fixture `small_portions`."""
MAX_MISSING_REQUESTS = 50
"""Missing instances that one observation requests, with the fixture `small_portions`."""
REQUESTS_IN_FLIGHT = 2
"""Requests of one observation in flight at once."""
LIST, DATASTORE = "GET /instances/$", "POST /ds-mongodb-proxy/*"
SETTLE = 30.0
"""Seconds of the settle window, in the time of the client's clock and of the server."""
DAY = 24 * 3600.0
QUEUED = [(0.0, None)]
"""A run that waits for ever."""
LATE = [
    (0.0, None),
    (2 * SETTLE, {"experiment-state": "running", "exit-status": "N/A"}),
    (2 * SETTLE + 2, {"experiment-state": "finished", "exit-status": "Success"}),
]
"""A run that is queued for two settle windows."""
UNSHOWN = [
    (0.0, None),
    (0.5, {"experiment-state": "running", "exit-status": "N/A", "stages": ["stage0"], "meta": None}),
    (1.0, {"experiment-state": "running", "exit-status": "N/A", "stages": ["stage0"], "meta": None}),
]
"""A run that executes something and never has metadata."""
UNSCHEDULED = {**FROM_CLUSTER, "experiment-state": "unscheduled"}
KILLED = {"error-description": "elaunch-primary exitCode: 137, reason: OOMKilled"}
JSON = {"Content-Type": "application/json"}
NO_DATASTORE = Reply(200, JSON, b'{"consumable-computing": "https://x.example/rs"}')
"""An url-map that names no datastore."""
NO_DOCUMENTS = Reply(200, JSON, b'{"document-descriptors": []}')


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an observation request a tenth or less of what it may."""
    monkeypatch.setattr(observer, "MAX_CANDIDATE_REQUESTS", MAX_CANDIDATE_REQUESTS)
    monkeypatch.setattr(observer, "MAX_MISSING_REQUESTS", MAX_MISSING_REQUESTS)


class SetClock(QuickClock):
    """A quick clock with a wall clock that can be set."""

    ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead


@asynccontextmanager
async def in_doubt(server: LocalServer, batch: Batch) -> AsyncIterator[dict[str, Item]]:
    """Run a batch whose first launch is in doubt. What it yields is complete at the end of the block."""
    items: dict[str, Item] = {}

    async def work() -> None:
        items.update(await run_all(batch))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await until(lambda: batch.counts["unknown"] > 0)
        yield items


def starts(server: LocalServer) -> int:
    return server.traffic[START].requests


def is_unknown(item: Item) -> bool:
    return (item.state, type(item.error)) == ("unknown", StartOutcomeUnknown)


async def test_a_doubt_begins_anew_in_each_process(server: LocalServer, tmp_path: Path) -> None:
    """Two lists lack its run, a day apart by the wall clock: that does not prove absence."""
    path, clock = tmp_path / "campaign.db", SetClock()
    server.outcome("demo", LATE, times=1)
    server.faults.add(START, DropAfter())
    async with connect(server, clock=clock) as client:
        await client.push(server.example("demo"))
        async with client.batch(path) as batch:
            await batch.add([launch()])
            with anyio.CancelScope() as scope:
                async with in_doubt(server, batch):
                    scope.cancel()
    clock.ahead = DAY
    server.faults.add(LIST, ShortList(1.0), times=2)

    async with connect(server, clock=clock) as client, client.batch(path) as batch:
        (item,) = (await run_all(batch)).values()

    assert (item.state, starts(server)) == ("succeeded", 1)


async def test_a_wall_clock_that_is_set_proves_nothing(server: LocalServer) -> None:
    """A window is measured by the monotonic clock."""
    clock = SetClock()
    server.outcome("demo", LATE, times=1)
    server.faults.add(START, DropAfter())
    async with connect(server, clock=clock) as client, client.batch() as batch:
        await client.push(server.example("demo"))
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            server.faults.add(LIST, ShortList(1.0), times=2)
            clock.ahead = DAY

    assert (items["mol 0"].state, starts(server)) == ("succeeded", 1)


@pytest.mark.parametrize("reopens", [False, True], ids=["same process", "next process"])
async def test_a_list_that_breaks_off_for_good_while_the_run_is_queued_starts_nothing_twice(
    server: LocalServer, client: Client, tmp_path: Path, reopens: bool
) -> None:
    """It shows all runs of the batch, but not everything that an earlier list showed: the launch stays unknown."""
    path = tmp_path / "campaign.db"
    async with client.batch(path) as batch:
        await batch.add([launch()])
        await run_all(batch)
    (other,) = server.populate("demo", 1)
    server.outcome("demo", QUEUED)
    server.faults.add(START, DropAfter())
    async with client.batch(path) as batch:
        await batch.add([launch(1)])
        with anyio.CancelScope() as scope:
            async with in_doubt(server, batch) as items:
                server.faults.add(LIST, BreakOff(other), times=None)
                if reopens:
                    scope.cancel()
    if reopens:
        async with client.batch(path) as batch:
            items = await run_all(batch)

    assert is_unknown(items["mol 1"])
    assert starts(server) == 2


async def test_what_a_later_list_showed_must_be_in_the_lists_of_the_next_process(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The journal stores what each list showed, not only the first list of each process."""
    path = tmp_path / "campaign.db"
    server.faults.add(START, DropBefore())
    async with client.batch(path) as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch):
            (other,) = server.populate("demo", 1)
    server.outcome("demo", QUEUED)
    server.faults.add(START, DropAfter())
    server.faults.add(LIST, ShortList({other}))
    async with client.batch(path) as batch:
        await batch.add([launch(1)])
        async with in_doubt(server, batch) as items:
            server.faults.add(LIST, ShortList({other, server.started[-1].rest_uid}), times=None)

    assert is_unknown(items["mol 1"])
    assert starts(server) == 3


AWAY: list[tuple[str, Fault]] = [
    (DATASTORE, Reply(503)),
    (DATASTORE, Html(502)),
    (LIST, BadJson()),
    (LIST, Reply(503)),
    (LIST, ShortList(1.0)),
    (DATASTORE, BadJson()),
]


@pytest.mark.parametrize(("where", "fault"), sample(AWAY, 3), ids=str)
async def test_launches_are_reported_if_the_service_stays_away(server: LocalServer, where: str, fault: Fault) -> None:
    """Without a list or an answer of the datastore there is no evidence. `run` ends after three windows."""
    server.faults.add(START, DropBefore())
    async with connect(server, retry=RetryPolicy(attempts=2)) as client, client.batch() as batch:
        await client.push(server.example("demo"))
        server.populate("demo", 1)
        await batch.add([launch()])
        began = client._config.clock.now()
        async with in_doubt(server, batch) as items:
            server.faults.add(where, fault, times=None)
        took = client._config.clock.now() - began

    assert is_unknown(items["mol 0"])
    assert starts(server) == 1
    assert took >= 3 * SETTLE


async def test_the_window_continues_when_the_datastore_is_back(server: LocalServer, client: Client) -> None:
    """Observations without the datastore count for nothing, and reset nothing."""
    server.faults.add(START, DropBefore())
    server.faults.add(DATASTORE, Reply(503), times=None, every=2)
    async with client.batch() as batch:
        await batch.add([launch()])
        items = await run_all(batch)

    assert (items["mol 0"].state, starts(server)) == ("succeeded", 2)


async def test_a_deployment_without_a_datastore_waits_twice_the_window(server: LocalServer) -> None:
    """There is one witness fewer."""
    server.faults.add("GET /url-map/$", NO_DATASTORE, times=None)
    server.faults.add(START, DropBefore())
    async with connect(server) as client, client.batch() as batch:
        await client.push(server.example("demo"))
        await batch.add([launch()])
        began = client._config.clock.now()
        async with in_doubt(server, batch):
            await until(lambda: starts(server) == 2)
            took = client._config.clock.now() - began

    assert 2 * SETTLE <= took < 3 * SETTLE


async def test_an_unrelated_failed_run_blocks_nothing(server: LocalServer, client: Client) -> None:
    """It failed at set-up and executed nothing, so even if it is the run of the lost start, the item only names it."""
    server.faults.add(START, DropBefore(), times=2)
    async with client.batch() as batch:
        await batch.add(launches(2))
        async with in_doubt(server, batch) as items:
            server.outcome("demo", "setup-failure", times=1)
            stranger = await client.start("demo", launch(7).payload)

    assert {item.state for item in items.values()} == {"succeeded"}
    assert {item.never_executed for item in items.values()} == {(stranger.id,)}
    assert starts(server) == 5


async def test_a_runtime_policy_may_choose_any_package(server: LocalServer, client: Client) -> None:
    """So a run of any package may be that of the lost start."""
    await populate_old(server, client, 1)
    policy = launch(runtimePolicy={"name": "random-canary", "config": {}})
    server.faults.add(START, DropBefore(), times=2)
    async with client.batch() as batch:
        await batch.add([policy, launch(1)])
        async with in_doubt(server, batch) as items:
            server.outcome("old", QUEUED)
            stranger = await client.start("old", launch(7).payload)

    assert is_unknown(items["mol 0"])
    assert isinstance(items["mol 0"].error, StartOutcomeUnknown)
    assert items["mol 0"].error.candidates == (stranger.id,)
    assert items["mol 1"].state == "succeeded"


@pytest.mark.usefixtures("small_portions")
async def test_many_unrelated_failed_runs_block_nothing(server: LocalServer, client: Client) -> None:
    """More than one observation requests."""
    server.faults.add(START, DropBefore())
    async with client.batch() as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            strangers = server.populate("demo", 2 * MAX_CANDIDATE_REQUESTS + 5, "setup-failure")

    assert items["mol 0"].state == "succeeded"
    assert set(items["mol 0"].never_executed) == set(strangers)


async def test_a_run_whose_init_container_failed_blocks_nothing_after_the_grace(
    server: LocalServer, client: Client
) -> None:
    """It never gets an exit status, so only time shows that it is over. The list shows nothing of that."""
    server.faults.add(START, DropBefore())
    async with client.batch() as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            server.outcome("demo", "init-failure", times=1)
            stranger = await client.start("demo", launch(7).payload)

    assert (items["mol 0"].state, items["mol 0"].never_executed) == ("succeeded", (stranger.id,))


async def test_a_candidate_that_may_have_executed_is_logged_once_for_all_launches(
    server: LocalServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """With the ways out, which are in the error of each launch too. Nothing is started again."""
    server.faults.add(START, DropBefore(), times=3)
    async with client.batch() as batch:
        await batch.add(launches(3))
        async with in_doubt(server, batch) as items:
            server.outcome("demo", UNSHOWN, times=1)
            stranger = await client.start("demo", launch(7).payload)

    messages = [record.getMessage() for record in caplog.records if stranger.id in record.getMessage()]
    assert len(messages) == 1
    assert "3 of the starts" in messages[0]
    assert "'mol 0', 'mol 1', 'mol 2'" in messages[0]
    for item in items.values():
        assert is_unknown(item)
        assert isinstance(item.error, StartOutcomeUnknown)
        assert item.error.candidates == (stranger.id,)
        assert "delete those that executed nothing" in str(item.error)
        assert f"batch.adopt({item.key!r}, rest_uid)" in str(item.error)
    assert starts(server) == 4


@pytest.mark.parametrize("reopens", [False, True], ids=["same process", "next process"])
async def test_a_candidate_that_never_executed_blocks_nothing_once_it_is_deleted(
    server: LocalServer, client: Client, tmp_path: Path, reopens: bool
) -> None:
    """For example one that a killed service left waiting for ever. Deleting it is the first way out."""
    path = tmp_path / "campaign.db"
    server.faults.add(START, DropBefore())
    async with client.batch(path) as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            server.outcome("demo", QUEUED, times=1)
            stranger = await client.start("demo", launch(7).payload)
        assert is_unknown(items["mol 0"])
        await client.delete(stranger)
        if not reopens:
            items = await run_all(batch)
    if reopens:
        async with client.batch(path) as batch:
            items = await run_all(batch)

    assert (items["mol 0"].state, items["mol 0"].never_executed) == ("succeeded", (stranger.id,))
    assert starts(server) == 3


async def test_a_candidate_that_executed_something_blocks_even_if_deleted(server: LocalServer, client: Client) -> None:
    """It may have been the run of the lost start, which must not be executed again."""
    server.faults.add(START, DropBefore())
    async with client.batch() as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            server.outcome("demo", UNSHOWN, times=1)
            stranger = await client.start("demo", launch(7).payload)
        await client.delete(stranger)
        items = await run_all(batch)

    assert is_unknown(items["mol 0"])
    assert starts(server) == 2


MAY_HAVE_EXECUTED: dict[str, str | list[tuple[float, dict[str, Any] | None]]] = {
    "no status of its own": "monitor-stuck",
    "killed before the first status": [(0.0, None), (1.0, {**FROM_CLUSTER, "experiment-state": "Failed", **KILLED})],
}
"""Courses of runs whose last status has no stages and no metadata, of which the datastore has no document."""


@pytest.mark.parametrize("course", MAY_HAVE_EXECUTED.values(), ids=MAY_HAVE_EXECUTED)
async def test_a_run_that_may_have_executed_something_is_not_repeated(
    server: LocalServer, client: Client, course: Any
) -> None:
    """If the service cannot read the status of a run, it makes one up, which never has stages."""
    server.outcome("demo", course, times=1)
    server.faults.add(START, DropAfter())
    async with client.batch() as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            pass

    assert is_unknown(items["mol 0"])
    assert starts(server) == 1


async def observed(server: LocalServer) -> None:
    """Return when a batch has observed what the server shows now: one observation has begun and ended since."""
    begun = server.traffic["GET /instances/"].requests
    await until(lambda: server.traffic["GET /instances/"].requests >= begun + 2)


async def test_an_evicted_run_is_not_repeated() -> None:
    """The batch saw it execute something. Time of the server passes only between observations."""
    evicted = [*UNSHOWN, (SETTLE / 2, UNSCHEDULED), (SETTLE, {**FROM_CLUSTER, "experiment-state": "failed"})]
    with LocalServer(speed=0) as server:
        server.faults.add(START, DropAfter())
        async with connect(server) as client, client.batch() as batch:
            await client.push(server.example("demo"))
            server.outcome("demo", evicted, times=1)
            await batch.add([launch()])
            async with in_doubt(server, batch) as items:
                for seconds in (2.0, SETTLE / 2, SETTLE):
                    await server.advance(seconds)
                    await observed(server)

    assert is_unknown(items["mol 0"])
    assert starts(server) == 1


async def test_without_a_datastore_a_deleted_candidate_blocks(server: LocalServer, tmp_path: Path) -> None:
    """Nothing shows whether it executed something before."""
    server.faults.add("GET /url-map/$", NO_DATASTORE, times=None)
    server.outcome("demo", QUEUED, times=1)
    server.faults.add(START, DropAfter())
    async with connect(server) as client:
        await client.push(server.example("demo"))
        for _ in range(2):
            async with client.batch(tmp_path / "campaign.db") as batch:
                await batch.add([launch()])
                items = await run_all(batch)
            assert is_unknown(items["mol 0"])
            with suppress(UnknownRun):
                await client.delete(server.started[0].rest_uid)

    assert starts(server) == 1


async def test_without_a_datastore_an_unrelated_failed_run_blocks_nothing(server: LocalServer) -> None:
    """Its status shows that it failed at set-up and is over."""
    server.faults.add("GET /url-map/$", NO_DATASTORE, times=None)
    server.faults.add(START, DropBefore())
    async with connect(server) as client, client.batch() as batch:
        await client.push(server.example("demo"))
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            (stranger,) = server.populate("demo", 1, "setup-failure")

    assert (items["mol 0"].state, items["mol 0"].never_executed) == ("succeeded", (stranger,))


async def test_a_run_that_is_found_is_not_listed_as_never_executed(server: LocalServer, client: Client) -> None:
    """It had executed nothing while it was queued. The user deletes the listed ones."""
    server.outcome("demo", LATE, times=1)
    server.faults.add(START, DropAfter())
    async with client.batch() as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            (stranger,) = server.populate("demo", 1, "setup-failure")

    assert (items["mol 0"].state, items["mol 0"].never_executed) == ("succeeded", (stranger,))
    assert starts(server) == 1


async def test_a_run_that_is_taken_back_must_be_in_later_lists(server: LocalServer, client: Client) -> None:
    """It has no owner then, and a list that lacks it proves nothing."""
    server.outcome("demo", LATE)
    server.faults.add(START, DropAfter(), times=2)
    async with client.batch() as batch:
        await batch.add(launches(2))
        async with in_doubt(server, batch) as items:
            await until(lambda: batch.counts["unknown"] == 2)
            runs = {one.metadata["number"]: one.rest_uid for one in server.started}
            server.faults.add(DATASTORE, NO_DOCUMENTS, times=None)
            await batch.adopt("mol 0", runs["1"])
            await batch.adopt("mol 1", runs["0"])
            await until(lambda: batch.counts["unknown"] == 2)
            server.faults.add(LIST, ShortList(set(runs.values())), times=None)

    assert all(is_unknown(item) for item in items.values())
    assert starts(server) == 2


async def test_an_adopted_run_that_carries_another_token_is_taken_back(server: LocalServer, client: Client) -> None:
    """Both launches are in doubt again, with the reason, and each finds its own run."""
    server.outcome("demo", LATE)
    server.faults.add(START, DropAfter(), times=2)
    async with client.batch() as batch:
        await batch.add(launches(2))
        async with in_doubt(server, batch) as items:
            await until(lambda: batch.counts["unknown"] == 2)
            runs = {one.metadata["number"]: one.rest_uid for one in server.started}
            await batch.adopt("mol 0", runs["1"])

    assert {key: str(item.run) for key, item in items.items()} == {"mol 0": runs["0"], "mol 1": runs["1"]}
    assert {item.state for item in items.values()} == {"succeeded"}
    assert starts(server) == 2


async def test_a_run_is_taken_back_if_nothing_else_is_in_doubt(
    server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Watching it shows the token. The journal stores the reason and drops the owner."""
    path = tmp_path / "campaign.db"
    server.outcome("demo", LATE, stretch=5)  # on a busy machine, too, the runs are adopted before they show tokens
    server.faults.add(START, DropAfter(), times=2)
    async with connect(server, poll_interval=10.0) as client:
        await client.push(server.example("demo"))
        async with client.batch(path) as batch:
            await batch.add(launches(2))
            with anyio.CancelScope() as scope:
                async with in_doubt(server, batch):
                    await until(lambda: batch.counts["unknown"] == 2)
                    runs = {one.metadata["number"]: one.rest_uid for one in server.started}
                    await batch.adopt("mol 0", runs["1"])
                    await batch.adopt("mol 1", runs["0"])
                    scope.cancel()
        async with client.batch(path) as batch:
            items = await run_all(batch)

    assert {key: str(item.run) for key, item in items.items()} == {"mol 0": runs["0"], "mol 1": runs["1"]}
    assert starts(server) == 2
    message = next(record.getMessage() for record in caplog.records if "carries the token" in record.getMessage())
    pairs = (("mol 0", "mol 1", runs["1"]), ("mol 1", "mol 0", runs["0"]))
    assert any(f"the run {run!r} of {key!r} carries the token of {other!r}" in message for key, other, run in pairs)


async def test_a_start_whose_run_another_launch_owns_is_not_repeated(server: LocalServer) -> None:
    """It was adopted by mistake, and ended before its metadata showed its token."""
    clock = QuickClock(lengthened=1.0)  # the end is seen before the metadata
    end = {"experiment-state": "finished", "exit-status": "Success"}
    server.outcome("demo", [(0.0, None), (SETTLE / 3, {**end, "meta": None}), (2 * SETTLE / 3, end)])
    server.faults.add(START, DropAfter(), times=2)
    async with connect(server, clock=clock) as client, client.batch() as batch:
        await client.push(server.example("demo"))
        await batch.add(launches(2))
        async with in_doubt(server, batch) as items:
            await until(lambda: batch.counts["unknown"] == 2)
            runs = {one.metadata["number"]: one.rest_uid for one in server.started}
            await batch.adopt("mol 0", runs["1"])

    assert items["mol 0"].state == "succeeded"
    assert is_unknown(items["mol 1"])
    assert starts(server) == 2


STATUS_OF_OLD = "GET /instances/old-*/status"
NOT_FOUND = Reply(404, {"Content-Type": "application/json"}, b'{"message": "there is no such workflow instance"}')


async def populate_old(server: LocalServer, client: Client, count: int) -> list[str]:
    """Create instances of a separate package."""
    await client.push({**server.example("demo"), "metadata": {"package": {"name": "old", "tags": ["latest"]}}})
    return server.populate("old", count)


@pytest.mark.usefixtures("small_portions")
async def test_many_deleted_instances_are_confirmed_in_portions(server: LocalServer, client: Client) -> None:
    """Observations stay bounded, absence is proven in the end, and other launches continue."""
    old = await populate_old(server, client, MAX_MISSING_REQUESTS + 20)
    server.faults.add(START, DropBefore())
    async with client.batch() as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            server.faults.add(LIST, ShortList(set(old)), times=None)
            server.faults.add(STATUS_OF_OLD, NOT_FOUND, times=None)
            await batch.add([launch(number) for number in range(1, 6)])
            await until(lambda: batch.counts["succeeded"] == 5)
            assert batch.counts["unknown"] == 1

    assert items["mol 0"].state == "succeeded"
    # Requests that the time limit of an observation cuts off on a busy machine are repeated in the next one.
    assert len(old) <= server.faults.hits[f"{STATUS_OF_OLD} Reply"] <= 1.1 * len(old)


async def test_empty_lists_cost_few_requests(server: LocalServer, client: Client) -> None:
    """One missing instance that proves to exist is enough to reject a list."""
    await populate_old(server, client, 100)
    server.faults.add(START, DropBefore())
    server.faults.add(STATUS_OF_OLD, Delay(0.0), times=None)
    async with client.batch() as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            server.faults.add(LIST, ShortList(1.0), times=3)

    assert items["mol 0"].state == "succeeded"
    assert 3 <= server.faults.hits[f"{STATUS_OF_OLD} Delay"] <= 3 * REQUESTS_IN_FLIGHT


UNREADABLE = {"odd id": {"id": "a b", "status": None}, "no id": {"status": None}, "number": 7}
"""Items of a list of instances that do not name an instance."""


@pytest.mark.parametrize("kind", sample(UNREADABLE, 2))
async def test_a_list_with_an_item_that_cannot_be_read_proves_nothing(
    server: LocalServer, client: Client, kind: str
) -> None:
    """That item may be the run."""
    (other,) = server.populate("demo", 1)
    server.outcome("demo", QUEUED)
    server.faults.add(START, DropAfter())
    body = json.dumps([{"id": other, "status": {"meta": {"userMetadata": {"a": "b"}}}}, UNREADABLE[kind]]).encode()
    async with client.batch() as batch:
        await batch.add([launch()])
        async with in_doubt(server, batch) as items:
            server.faults.add(LIST, Reply(200, {"Content-Type": "application/json"}, body), times=None)

    assert is_unknown(items["mol 0"])
    assert starts(server) == 1
