"""A run belongs to one launch, and an id that is not a rest-uid belongs to none."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from st4sd_async import Client, Config, StartOutcomeUnknown
from st4sd_async._batch.reconcile_rules import InstanceList, ObservedInstance
from st4sd_async._batch.reconciler import Reconciler
from st4sd_async._batch.schema import digest
from st4sd_async._batch.state import LaunchRecord
from st4sd_async._http.session import ClientSession
from st4sd_async.local import LocalServer, Reply, ShortList
from tests.tries import sample

from .batches import START, launch, launches, once, run_all, started_numbers
from .journal_helpers import open_journal, read_journal
from .journals import FORMAT_1, copied

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

JSON = {"Content-Type": "application/json"}
NONSENSE = ["../../x", "", "-rf", "demo-1\n", "demo/1", "x" * 300, ["demo-1"], 7, None]


async def test_an_answer_with_the_id_of_another_launch_puts_the_launch_in_doubt(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The run stays with the first launch, and the second finds its own."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([launch(0)])
        first = (await run_all(batch))["mol 0"].run
        for handled in (True, False):
            server.faults.add(START, Reply(200, JSON, json.dumps(str(first)).encode(), handled=handled))
        await batch.add(launches(3))
        items = await run_all(batch)
        everything = {item.key: item for item in batch.items}

    assert everything["mol 0"].run == first
    assert {item.state for item in everything.values()} == {"succeeded"}
    assert len({item.run for item in everything.values()}) == 3
    assert set(items) == {"mol 1", "mol 2"}
    assert await started_numbers(client) == once(3)
    async with client.batch(tmp_path / "campaign.db") as batch:
        assert {item.key: item.run for item in batch.items} == {key: item.run for key, item in everything.items()}


async def test_simultaneous_answers_with_one_id_give_it_to_one_launch_at_most(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """Before any of them is written. If the owner is wrong, the run is taken back when it shows its token."""
    async with client.batch() as other:
        await other.add([launch(9)])
        uid = str((await run_all(other))["mol 9"].run)
    for _ in range(4):
        server.faults.add(START, Reply(200, JSON, json.dumps(uid).encode()))
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(4))
        await run_all(batch)
        items = batch.items

    assert {item.state for item in items} == {"succeeded"}
    assert len({str(item.run) for item in items} | {uid}) == 5


async def test_an_answer_with_the_id_of_an_older_run_puts_the_launch_in_doubt(
    server: LocalServer, client: Client
) -> None:
    """It cannot be the run of this start, and the launch finds its own."""
    (stranger,) = server.populate("demo", 1)
    server.faults.add(START, Reply(200, JSON, json.dumps(stranger).encode(), handled=True))
    async with client.batch() as batch:
        await batch.add([launch()])
        (item,) = (await run_all(batch)).values()

    assert (item.state, str(item.run)) == ("succeeded", server.started[-1].rest_uid)
    assert server.traffic[START].requests == 1


async def test_a_run_that_is_being_given_to_one_launch_is_not_given_to_another(client: Client, tmp_path: Path) -> None:
    """The answer to another start has its id and is being written."""
    payload = digest("{}")
    journal = await open_journal(tmp_path / "campaign.db")
    await journal.add([LaunchRecord(key, "demo", payload) for key in ("found", "answered")], {payload: "{}"})
    await journal.note_listed(["demo-1"])
    for key in ("found", "answered"):
        await journal.replace(journal.records[key], journal.records[key].to_sending(1, 1.0))
    await journal.replace(journal.records["found"], journal.records["found"].to_unknown("lost", 1.0))
    answered = journal.records["answered"]

    async with anyio.create_task_group() as tasks:

        async def send_once(_: Any) -> Any:
            journal._thread_lock.acquire()  # the disk is slow
            tasks.start_soon(journal.replace, answered, answered.to_started("demo-1", 2.0))
            token = journal.token_of(journal.records["found"])
            return InstanceList({"demo-1": ObservedInstance("demo-1", "demo", token, has_metadata=True)})

        session = cast(ClientSession, SimpleNamespace(send_once=send_once, config=Config()))
        try:
            settled = await Reconciler(journal, client, session).reconcile()
        finally:
            journal._thread_lock.release()

    assert settled == []
    assert (journal.records["found"].state, journal.owners) == ("unknown", {"demo-1": "answered"})
    await journal.close()


@pytest.mark.parametrize("answer", sample(NONSENSE, 3), ids=lambda answer: repr(answer)[:12])
async def test_an_answer_that_is_not_a_rest_uid_puts_the_launch_in_doubt(
    server: LocalServer, client: Client, tmp_path: Path, answer: object
) -> None:
    """Its run is searched for. Other launches and the next opening are not affected."""
    server.faults.add(START, Reply(200, JSON, json.dumps(answer).encode(), handled=True))
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(3))
        items = await run_all(batch)
    async with client.batch(tmp_path / "campaign.db") as batch:
        assert await run_all(batch) == {}
        assert batch.counts["succeeded"] == 3

    assert {item.state for item in items.values()} == {"succeeded"}
    assert await started_numbers(client) == once(3)


async def test_an_answer_that_is_not_a_rest_uid_is_reported_if_no_run_is_found(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The error quotes the answer, and nothing is started again."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(2))
        await run_all(batch)
        server.faults.add(START, Reply(200, JSON, b'"../../x"'))
        server.faults.add("GET /instances/$", ShortList(0.5), times=None)
        await batch.add(launches(3))
        items = await run_all(batch)

    error = items["mol 2"].error
    assert isinstance(error, StartOutcomeUnknown)
    assert "../../x" in str(error)
    assert server.traffic[START].requests == 3


SPOILED = [
    "UPDATE item SET rest_uid = '../../x' WHERE key = 'started'",
    "UPDATE item SET rest_uid = NULL WHERE key = 'started'",
    "UPDATE run SET key = 'failed' WHERE key = 'started'",
    "UPDATE run SET rest_uid = '../../x' WHERE key = 'started'",
    "UPDATE item SET candidates = '[\"../x\", \"demo-1\"]' WHERE state = 'unknown'",
    "UPDATE item SET rest_uid = '../x' WHERE state = 'succeeded'",
    "UPDATE seen SET rest_uid = '../x' || rest_uid",
    "INSERT INTO run VALUES ('a b', 'failed', 1, NULL)",
]


@pytest.mark.parametrize("sql", sample(SPOILED, 4))
async def test_invalid_ids_in_an_older_journal_do_no_harm(tmp_path: Path, server: LocalServer, sql: str) -> None:
    """Earlier versions stored whatever the service answered, and gave a run to two launches."""
    path = await anyio.to_thread.run_sync(copied, FORMAT_1, tmp_path, f"{server.url}/")

    def damage() -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(sql)

    await anyio.to_thread.run_sync(damage)
    config = Config(settle=0.3, poll_interval=0.05, grace=0.1)
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        await client.push(server.example("demo"))
        for _ in range(2):
            async with client.batch(path) as batch:
                assert len(batch.items) == 19
                repr([(item.run, item.status, item.error) for item in batch.items])
                items = await run_all(batch)

    assert not [item for item in items.values() if isinstance(item.error, (ValueError, TypeError))]


async def test_a_launch_whose_run_belongs_to_another_is_in_doubt(tmp_path: Path) -> None:
    """An earlier version gave the run to both, and the last one counted."""
    path = await anyio.to_thread.run_sync(copied, FORMAT_1, tmp_path)

    def damage() -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE run SET key = 'failed' WHERE key = 'started'")

    await anyio.to_thread.run_sync(damage)
    journal = await read_journal(path, server="http://127.0.0.1:38291/")

    row = journal.records["started"]
    assert (row.state, row.rest_uid) == ("unknown", None)
    assert "belongs to 'failed'" in (row.error or "")
    assert journal.owners["stuck-49a7f7-dejjcksn"] == "failed"
