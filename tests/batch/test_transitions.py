"""No launch in a journal is overwritten except by a permitted transition, whichever program writes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path

import anyio
import pytest

from st4sd_async import JournalError
from st4sd_async._batch import schema
from st4sd_async._batch.state import PROOFS, TRANSITIONS, LaunchRecord, Proof, State

from .journal_helpers import open_journal, read_journal, record

pytestmark = pytest.mark.anyio

FAILURES = {State.REFUSED, State.FAILED, State.STOPPED, State.DELETED}
PLANNED = LaunchRecord("mol", "demo", "digest", since=1.0)


@pytest.fixture
def database() -> Iterable[sqlite3.Connection]:
    """The tables of a journal, to which any program can write."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.executescript(schema.TABLES)
        yield opened


def write(database: sqlite3.Connection, *statements: schema.Statement) -> None:
    for sql, values in statements:
        database.execute(sql, values)


def put_row(database: sqlite3.Connection, row: LaunchRecord) -> None:
    """Insert a launch in any state with its run, and create the triggers."""
    database.executescript(schema.MOMENT_TABLE)
    if row.rest_uid is not None:
        write(database, (schema.INSERT_RUN, (row.rest_uid, row.key, row.attempt)))
    columns = (*schema.LAUNCH_COLUMNS, "checksum")
    values = (*schema.to_row(row), 0)
    database.execute(f"INSERT INTO item ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", values)
    for sql in schema.TRIGGERS.values():
        database.execute(sql)


TAKEN_BACK = (State.STARTED, State.UNKNOWN)
"""The only transition that needs a proof, apart from those to ``planned``."""


def is_permitted(before: State, after: State, proof: Proof | None) -> bool:
    if (before, after) == TAKEN_BACK:
        return proof is Proof.NOT_ITS_RUN
    if after is not State.PLANNED:
        return after in TRANSITIONS[before]
    return proof in PROOFS.get(before, ()) and after in TRANSITIONS[before]


def records_of(before: State, after: State, proof: Proof | None) -> tuple[LaunchRecord, LaunchRecord]:
    """Return a launch that was sent, before and after a transition."""
    uid = None if before in (State.PLANNED, State.SENDING, State.UNKNOWN, State.REFUSED) else "demo-1"
    was = replace(PLANNED, state=before, opening=1, rest_uid=uid)
    if proof is Proof.ENDED:
        return was, replace(PLANNED, proof=proof, attempt=2)
    return was, replace(was, state=after, proof=proof, rest_uid="demo-1" if after is State.STARTED else uid)


@pytest.mark.parametrize("before", State, ids=str)
def test_sqlite_permits_only_the_transitions_of_the_table(database: sqlite3.Connection, before: State) -> None:
    """All others are refused, with each proof and without one."""
    for after, proof in product(State, (None, *Proof)):
        if after is not State.PLANNED and proof is not None and (before, after) != TAKEN_BACK:
            continue
        database.executescript("".join(f"DROP TRIGGER IF EXISTS {name};" for name in schema.TRIGGERS))
        database.executescript("DELETE FROM item; DELETE FROM run;")
        was, row = records_of(before, after, proof)
        put_row(database, was)
        refusal = ""
        try:
            write(database, *schema.update_launch(was, row))
        except sqlite3.IntegrityError as error:
            refusal = str(error)
        if is_permitted(before, after, proof):
            assert not refusal, (after, proof)
        else:
            assert re.search(r"transition not permitted|UNIQUE constraint failed: run", refusal), (after, proof)


SENT_AT_ONCE = (
    "INSERT INTO item SELECT 'new', experiment, payload, 'sending', attempt, opening, since, rest_uid, status, "
    "error_class, error, candidates, never_executed, files, request, proof, checksum FROM item"
)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM item",
        "UPDATE item SET key = 'other'",
        "UPDATE item SET attempt = 2",
        "UPDATE item SET payload = 'other'",
        "UPDATE item SET state = 'started', rest_uid = 'demo-2'",
        "UPDATE run SET key = 'other'",
        "UPDATE run SET rest_uid = 'other'",
        "INSERT INTO run VALUES ('demo-1', 'other', 1, NULL)",
        SENT_AT_ONCE,
    ],
)
def test_sqlite_refuses_other_changes_that_could_start_a_launch_twice(database: sqlite3.Connection, sql: str) -> None:
    """A launch is never deleted, and a run keeps its owner."""
    put_row(database, replace(PLANNED, state=State.SENDING, opening=1))
    write(database, (schema.INSERT_RUN, ("demo-1", "mol", 1)))
    with pytest.raises(sqlite3.IntegrityError):
        database.execute(sql)


@pytest.mark.parametrize("state", sorted(FAILURES))
def test_another_attempt_has_the_next_number(database: sqlite3.Connection, state: State) -> None:
    """So its token differs from all earlier ones."""
    put_row(database, was := replace(PLANNED, state=state, opening=1))
    for attempt in (1, 3):
        with pytest.raises(sqlite3.IntegrityError):
            write(database, *schema.update_launch(was, replace(PLANNED, proof=Proof.ENDED, attempt=attempt)))
    write(database, *schema.update_launch(was, replace(PLANNED, proof=Proof.ENDED, attempt=2, payload="other")))


async def test_adding_a_launch_again_leaves_it_as_it_is(tmp_path: Path) -> None:
    """SQLite refuses the second insert. Other changes in the same commit are written."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record()], {})
    await journal.replace(journal.records["mol"], record().to_sending(1, 1.0))
    del journal.records["mol"]  # memory does not protect it now
    errors: list[JournalError] = []

    async def add(key: str) -> None:
        try:
            await journal.add([record(key)], {})
        except JournalError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for key in ("a", "mol", "b"):
            tasks.start_soon(add, key)
    await journal.close()

    assert len(errors) == 1
    assert "does not permit this change" in str(errors[0])
    states = {key: found.state for key, found in (await read_journal(tmp_path / "a.db")).records.items()}
    assert states == {"mol": State.UNKNOWN, "a": State.PLANNED, "b": State.PLANNED}


async def test_a_launch_is_changed_only_from_its_state_in_the_file(tmp_path: Path) -> None:
    """A change from another state or another attempt is refused, even if memory permits it."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record()], {})
    await journal.replace(journal.records["mol"], sending := record().to_sending(1, 1.0))
    for before in (record(), replace(sending, attempt=2)):
        journal.records["mol"] = before  # memory does not protect it now
        after = before.to_sending(1, 1.0) if before.state is State.PLANNED else before.to_unknown("lost", 1.0)
        with pytest.raises(JournalError, match=r"'mol' is no longer (planned|sending) in attempt [12]"):
            await journal.replace(before, after)
    await journal.close()

    assert (await read_journal(tmp_path / "a.db")).records["mol"].state is State.UNKNOWN


async def test_a_run_has_one_owner_in_the_file(tmp_path: Path) -> None:
    """A second owner is refused, and both launches stay as they are."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record(), record("other")], {})
    for key in ("mol", "other"):
        await journal.replace(journal.records[key], journal.records[key].to_sending(1, 1.0))
    await journal.replace(journal.records["mol"], journal.records["mol"].to_started("demo-1", 1.0))
    journal.owners.clear()  # memory does not protect it now
    with pytest.raises(JournalError, match="UNIQUE constraint failed"):
        await journal.replace(journal.records["other"], journal.records["other"].to_started("demo-1", 1.0))
    await journal.close()

    states = {key: found.state for key, found in (await read_journal(tmp_path / "a.db")).records.items()}
    assert states == {"mol": State.STARTED, "other": State.UNKNOWN}
