"""No launch in a journal is overwritten except by a permitted transition, whoever writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import JournalError
from st4sd_async._batch import records
from st4sd_async._batch import state as _moves
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.state import BAD_ENDS, MOVES, PROOFS, Proof, Row, State

pytestmark = pytest.mark.anyio

ROW = Row("mol", "demo", "digest", since=1.0)


@pytest.fixture
def database() -> Iterable[sqlite3.Connection]:
    """The tables of a journal, as any program can write to them."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.executescript(records.TABLES)
        yield opened


def write(database: sqlite3.Connection, *statements: records.Statement) -> None:
    for sql, values in statements:
        database.execute(sql, values)


def put(database: sqlite3.Connection, row: Row) -> None:
    """Have the table hold a launch in any state, and its run, and then the rules apply."""
    database.executescript(records.MOMENTS)
    if row.rest_uid is not None:
        write(database, (records.OWN, (row.rest_uid, row.key, row.attempt)))
    columns = (*records.COLUMNS, "checksum")
    values = (*records.written(row), 0)
    database.execute(f"INSERT INTO item ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", values)
    for sql in records.TRIGGERS.values():
        database.execute(sql)


TAKEN_BACK = (State.STARTED, State.UNKNOWN)
"""The only transition but those to ``planned`` that takes a proof."""


def is_permitted(before: State, after: State, proof: Proof | None) -> bool:
    if (before, after) == TAKEN_BACK:
        return proof is Proof.NOT_ITS_RUN
    if after is not State.PLANNED:
        return after in MOVES[before]
    return proof in PROOFS.get(before, ()) and after in MOVES[before]


def made(before: State, after: State, proof: Proof | None) -> tuple[Row, Row]:
    """A launch that was sent, in one state and in another."""
    uid = None if before in (State.PLANNED, State.SENDING, State.UNKNOWN, State.REFUSED) else "demo-1"
    was = replace(ROW, state=before, opening=1, rest_uid=uid)
    if proof is Proof.ENDED:
        return was, replace(ROW, proof=proof, attempt=2)
    return was, replace(was, state=after, proof=proof, rest_uid="demo-1" if after is State.STARTED else uid)


@pytest.mark.parametrize(("before", "after"), [*product(State, State)], ids=str)
def test_sqlite_permits_the_transitions_of_the_table_only(
    database: sqlite3.Connection, before: State, after: State
) -> None:
    """Each other is refused, with each proof and without."""
    for proof in (None, *Proof):
        if after is not State.PLANNED and proof is not None and (before, after) != TAKEN_BACK:
            continue
        database.executescript("".join(f"DROP TRIGGER IF EXISTS {name};" for name in records.TRIGGERS))
        database.executescript("DELETE FROM item; DELETE FROM run;")
        was, row = made(before, after, proof)
        put(database, was)
        if is_permitted(before, after, proof):
            write(database, *records.moving(was, row))
        else:
            with pytest.raises(sqlite3.IntegrityError, match=r"transition not permitted|UNIQUE constraint failed: run"):
                write(database, *records.moving(was, row))


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
def test_sqlite_refuses_whatever_else_could_start_a_launch_twice(database: sqlite3.Connection, sql: str) -> None:
    """A launch does not vanish, and a run keeps its owner."""
    put(database, replace(ROW, state=State.SENDING, opening=1))
    write(database, (records.OWN, ("demo-1", "mol", 1)))
    with pytest.raises(sqlite3.IntegrityError):
        database.execute(sql)


@pytest.mark.parametrize("state", sorted(BAD_ENDS))
def test_another_attempt_takes_the_next_number(database: sqlite3.Connection, state: State) -> None:
    """Its token is another's than all before."""
    put(database, was := replace(ROW, state=state, opening=1))
    for attempt in (1, 3):
        with pytest.raises(sqlite3.IntegrityError):
            write(database, *records.moving(was, replace(ROW, proof=Proof.ENDED, attempt=attempt)))
    write(database, *records.moving(was, replace(ROW, proof=Proof.ENDED, attempt=2, payload="other")))


async def journal_with(path: Path, *rows: Row) -> Journal:
    journal = Journal(path)
    await journal.open("https://st4sd.example/", 1.0)
    await journal.add(rows, {})
    return journal


async def states(path: Path) -> dict[str, Any]:
    journal = Journal(path)
    found = await journal.open("https://st4sd.example/", 1.0)
    await journal.close()
    return {row.key: row.state for row in found.rows}


async def test_a_launch_that_is_added_again_stays_what_it_is(tmp_path: Path) -> None:
    """The journal refuses the second; what shares its commit is written all the same."""
    journal = await journal_with(tmp_path / "a.db", ROW)
    await journal.save((ROW, _moves.sending(ROW, 1, 1.0)))
    errors: list[JournalError] = []

    async def add(row: Row) -> None:
        try:
            await journal.add([row], {})
        except JournalError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for key in ("a", "mol", "b"):
            tasks.start_soon(add, replace(ROW, key=key))
    await journal.close()

    assert len(errors) == 1
    assert "does not allow what was to be written" in str(errors[0])
    assert await states(tmp_path / "a.db") == {"mol": State.UNKNOWN, "a": State.PLANNED, "b": State.PLANNED}


async def test_a_launch_is_moved_only_from_what_it_is_in_the_journal(tmp_path: Path) -> None:
    """A move that names another state or another attempt changes nothing."""
    journal = await journal_with(tmp_path / "a.db", ROW)
    sent = _moves.sending(ROW, 1, 1.0)
    await journal.save((ROW, sent))
    for was, row in ((ROW, sent), (replace(sent, attempt=2), _moves.doubted(replace(sent, attempt=2), "lost", 1.0))):
        with pytest.raises(JournalError, match=r"'mol' is not (planned|sending) in attempt [12] any more"):
            await journal.save((was, row))
    await journal.close()

    assert await states(tmp_path / "a.db") == {"mol": State.UNKNOWN}


async def test_a_run_has_one_owner_in_the_journal(tmp_path: Path) -> None:
    """Neither launch is harmed by the attempt to give it a second one."""
    other = replace(ROW, key="other")
    journal = await journal_with(tmp_path / "a.db", ROW, other)
    sent = [_moves.sending(row, 1, 1.0) for row in (ROW, other)]
    await journal.save((ROW, sent[0]), (other, sent[1]))
    await journal.save((sent[0], _moves.started(sent[0], "demo-1", 1.0)))
    with pytest.raises(JournalError, match="UNIQUE constraint failed"):
        await journal.save((sent[1], _moves.started(sent[1], "demo-1", 1.0)))
    await journal.close()

    assert await states(tmp_path / "a.db") == {"mol": State.STARTED, "other": State.UNKNOWN}
