"""The journal: what was saved is there, whatever happens."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import JournalCorrupt, JournalError, JournalLocked
from st4sd_async._batch import state as _moves
from st4sd_async._batch.journal import DIED, Journal
from st4sd_async._batch.records import Contents, digest
from st4sd_async._batch.state import Proof, Row, State
from st4sd_async._util import file_lock as _lock

pytestmark = pytest.mark.anyio

SERVER = "https://st4sd.example/"
NOW = 1_700_000_000.25
EMPTY = digest("{}")


async def opened(path: Path | None, now: float = NOW) -> tuple[Journal, Contents]:
    journal = Journal(path)
    return journal, await journal.open(SERVER, now)


async def contents(path: Path, now: float = NOW) -> Contents:
    journal, found = await opened(path, now)
    await journal.close()
    return found


def row(key: str = "mol", **parts: Any) -> Row:
    return Row(key, "demo:latest", "digest", **{"since": NOW, **parts})


def life() -> Iterator[Row]:
    """A launch through all there is."""
    yield (sent := _moves.sending(row(), 1, NOW + 1))
    yield (doubt := _moves.doubted(sent, "lost", NOW + 2))
    yield (doubt := _moves.suspected(doubt, ["demo-1", "demo-2"]))
    yield (again := _moves.planned(doubt, Proof.ABSENT, NOW + 3))
    yield (sent := _moves.sending(again, 1, NOW + 4))
    yield (run := _moves.started(sent, "demo-3", NOW + 5))
    yield (good := _moves.ended(run, State.SUCCEEDED, '{"experiment-state": "finished"}', NOW + 6))
    yield (bad := _moves.uncollected(good, "DownloadError", "cut", NOW + 7))
    yield _moves.collected(bad, "{}", ["/results/\u00fc.csv"], NOW + 8)


async def test_all_that_was_saved_is_read_again(tmp_path: Path) -> None:
    """Launches in their order, payloads, runs, what was there before."""
    journal, first = await opened(tmp_path / "a.db")
    await journal.add([row("b"), row("a\n\u00fc"), row("mol")], {EMPTY: "{}"})
    for change in pairwise([row(), *life()]):
        await journal.save(change)
    await journal.see(["demo-0"], 1, 7)
    await journal.bury(["demo-3"])
    assert await journal.payload(EMPTY) == "{}"
    await journal.close()

    second = await contents(tmp_path / "a.db")

    assert (first.opening, first.rows, first.baseline) == (1, [], None)
    assert second == Contents(
        token=first.token,
        opening=2,
        rows=[row("b"), row("a\n\u00fc"), [*life()][-1]],
        owners={"demo-3": "mol"},
        gone={"demo-3"},
        seen={"demo-0": 1},
        baseline=7,
        moments=second.moments,
    )
    states = ["planned", "sending", "unknown", "planned", "sending", "started", "succeeded", "succeeded", "collected"]
    assert [moment.state for key, moment in second.moments if key == "mol"] == states
    assert [moment.since - NOW for key, moment in second.moments if key == "mol"] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert len(first.token) == 32


async def test_what_was_being_sent_is_in_doubt_from_the_opening_on(tmp_path: Path) -> None:
    """And stays so since then, however often it is opened."""
    journal, _ = await opened(tmp_path / "a.db")
    await journal.add([row()], {})
    await journal.save((row(), _moves.sending(row(), 1, NOW)))
    await journal.close()

    second, third = await contents(tmp_path / "a.db", NOW + 100), await contents(tmp_path / "a.db", NOW + 500)

    assert [(one.state, one.since, one.opening) for one in second.rows] == [(State.UNKNOWN, NOW + 100, 1)]
    assert second.rows == third.rows


def copy(path: Path, folder: Path, cut: int | None = None) -> Path:
    """The files as a death would leave them now; the newest cut to so many bytes."""
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if file.is_file():
            shutil.copy(file, folder)
    if cut is not None:
        with (folder / f"{path.name}-wal").open("r+b") as log:
            log.truncate(cut)
    return folder / path.name


async def test_a_death_after_any_commit_loses_nothing(tmp_path: Path) -> None:
    """What `save` has returned from is on disk."""
    journal, _ = await opened(tmp_path / "a.db")
    await journal.add([row()], {"digest": "{}"})

    for number, (before, state) in enumerate(pairwise([row(), *life()])):
        await journal.save((before, state))
        there = await anyio.to_thread.run_sync(copy, tmp_path / "a.db", tmp_path / str(number))
        found = (await contents(there, NOW + 50)).rows
        expected = _moves.doubted(state, DIED, NOW + 50) if state.state is State.SENDING else state
        assert found == [expected]
    await journal.close()


async def test_a_torn_write_is_a_write_that_never_was(tmp_path: Path) -> None:
    """Wherever the log is cut: what is read is what was written at some commit, and a later cut shows no less."""
    journal, _ = await opened(tmp_path / "a.db")
    states = [row(), *life()]
    await journal.add(states[:1], {"digest": "{}"})
    for change in pairwise(states):
        await journal.save(change)
    size = (await anyio.Path(tmp_path / "a.db-wal").stat()).st_size

    whole = [_moves.doubted(one, DIED, NOW + 99) if one.state is State.SENDING else one for one in states]

    seen = -1
    for cut in range(32, size + 1, size // 40):
        there = await anyio.to_thread.run_sync(copy, tmp_path / "a.db", tmp_path / str(cut), cut)
        rows = (await contents(there, NOW + 99)).rows
        assert rows or seen < 0
        seen = whole.index(rows[0], max(seen, 0)) if rows else -1
    await journal.close()
    assert seen > 3


async def test_tasks_that_save_together_share_commits(tmp_path: Path) -> None:
    """Each returns when its own is on disk; a hundred cost a few."""
    journal, _ = await opened(tmp_path / "a.db")
    await journal.add([row(str(number)) for number in range(100)], {})
    commits = []
    assert journal._database is not None
    journal._database.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(journal.save, (row(str(number)), _moves.sending(row(str(number)), 1, NOW)))
    await journal.close()

    assert 1 <= len(commits) <= 3
    assert {one.state for one in (await contents(tmp_path / "a.db")).rows} == {State.UNKNOWN}


async def test_who_is_cancelled_while_he_saves_has_saved(tmp_path: Path) -> None:
    """Or else nobody would know whether it was written."""
    journal, _ = await opened(tmp_path / "a.db")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.add([row()], {})
    await journal.close()

    assert (await contents(tmp_path / "a.db")).rows == [row()]


async def test_a_journal_in_memory_is_like_any_other() -> None:
    """And gone when it is closed."""
    journal, found = await opened(None)
    await journal.add([row()], {EMPTY: "{}"})

    assert await journal.payload(EMPTY) == "{}"
    assert (found.opening, journal.is_on_disk) == (1, False)
    await journal.close()
    with pytest.raises(JournalError, match="a journal in memory is not open"):
        await journal.save((row(), _moves.sending(row(), 1, NOW)))


async def test_whoever_reads_a_journal_with_another_tool_locks_it_too(tmp_path: Path) -> None:
    """The error says so, and opening works when he is done."""
    await contents(tmp_path / "a.db")
    database = await anyio.to_thread.run_sync(lambda: sqlite3.connect(tmp_path / "a.db", check_same_thread=False))
    await anyio.to_thread.run_sync(lambda: database.execute("BEGIN IMMEDIATE"))
    with pytest.raises(JournalLocked):
        await contents(tmp_path / "a.db")
    await anyio.to_thread.run_sync(database.close)
    await contents(tmp_path / "a.db")


async def test_a_journal_stays_locked_when_its_file_is_copied(tmp_path: Path) -> None:
    """By the same process too, whose locks of the usual kind are lost then."""
    journal, _ = await opened(tmp_path / "a.db")
    await anyio.to_thread.run_sync(copy, tmp_path / "a.db", tmp_path / "copy")
    code = (
        "import asyncio, sys; from st4sd_async._batch.journal import Journal; "
        f"asyncio.run(Journal(sys.argv[1]).open({SERVER!r}, 0.0))"
    )
    found = await anyio.run_process([sys.executable, "-c", code, str(tmp_path / "a.db")], check=False)
    await journal.close()

    assert b"JournalLocked" in found.stderr


async def test_a_journal_is_locked_before_anything_is_read(tmp_path: Path) -> None:
    """Two that open at the same moment cannot both have it."""
    journals = [Journal(tmp_path / "a.db") for _ in range(5)]
    outcomes: list[object] = []

    async def open_it(journal: Journal) -> None:
        try:
            outcomes.append(await journal.open(SERVER, NOW))
        except JournalLocked as error:
            outcomes.append(error)

    async with anyio.create_task_group() as tasks:
        for journal in journals:
            tasks.start_soon(open_it, journal)
    for journal in journals:
        await journal.close()

    assert sum(isinstance(one, Contents) for one in outcomes) == 1


def damage(path: Path, where: str) -> None:
    """Spoil a journal."""
    data = bytearray(path.read_bytes())
    if where == "not a database":
        data[:] = b"hello, this is a text of some length" * 9
    elif where == "pages":
        data[4096:] = b"\x55" * (len(data) - 4096)
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["not a database", "pages", "half"])
async def test_a_damaged_journal_is_an_error_that_says_so(tmp_path: Path, where: str) -> None:
    """Nothing is made of it, and it is not written to."""
    journal, _ = await opened(tmp_path / "a.db")
    await journal.add([row(str(number)) for number in range(300)], {})
    await journal.close()
    await anyio.to_thread.run_sync(damage, tmp_path / "a.db", where)
    before = await anyio.Path(tmp_path / "a.db").read_bytes()

    with pytest.raises(JournalCorrupt, match="restore a copy"):
        await contents(tmp_path / "a.db")

    assert await anyio.Path(tmp_path / "a.db").read_bytes() == before


@pytest.mark.parametrize(
    ("sql", "error", "told"),
    [
        ("UPDATE journal SET value = '9' WHERE name = 'format'", JournalError, "has format '9', which is newer than 2"),
        ("UPDATE journal SET value = '0' WHERE name = 'format'", JournalCorrupt, "damaged: it has the format '0'"),
        ("UPDATE journal SET value = 'x' WHERE name = 'token'", JournalCorrupt, "its token is not what it was"),
        (
            "UPDATE journal SET value = 'http://x' WHERE name = 'server'",
            JournalCorrupt,
            "is of a batch at http://x, not",
        ),
        ("PRAGMA user_version = 1", JournalCorrupt, "its header says"),
        ("DROP TABLE journal", JournalCorrupt, "no such table: journal"),
        ("DROP TRIGGER item_moves; UPDATE item SET state = 'lost'", JournalCorrupt, "entry 'mol' that cannot be read"),
        ("DROP TRIGGER item_moves; UPDATE item SET attempt = 2", JournalCorrupt, "its checksum is another"),
    ],
)
async def test_what_makes_no_sense_is_refused(tmp_path: Path, sql: str, error: type[Exception], told: str) -> None:
    """With what is wrong."""
    journal, _ = await opened(tmp_path / "a.db")
    await journal.add([row()], {})
    await journal.close()

    def change() -> None:
        database = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        with closing(database):
            database.executescript(sql)

    await anyio.to_thread.run_sync(change)
    with pytest.raises(error, match=told):
        await contents(tmp_path / "a.db")


async def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """As in a folder that is not there."""
    with pytest.raises(JournalError, match="cannot be opened: No such file or directory"):
        await contents(tmp_path / "none" / "a.db")


async def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here as on a system without `fcntl`; it is not said to be locked."""
    monkeypatch.setattr(_lock, "fcntl", None)
    with pytest.raises(JournalError, match="cannot be locked: there are no file locks here: put it on") as caught:
        await contents(tmp_path / "a.db")
    assert not isinstance(caught.value, JournalLocked)


async def test_a_payload_that_is_missing_is_damage(tmp_path: Path) -> None:
    """It cannot be sent."""
    journal, _ = await opened(tmp_path / "a.db")
    with pytest.raises(JournalCorrupt, match="lacks the payload"):
        await journal.payload("digest")
    await journal.close()


async def test_an_attempt_at_a_launch_adds_a_run(tmp_path: Path) -> None:
    """Runs of earlier attempts stay the launch's."""
    journal, _ = await opened(tmp_path / "a.db")
    await journal.add([row()], {})
    was = row()
    for uid in ("demo-1", "demo-2"):
        sent = _moves.sending(was, 1, NOW)
        run = _moves.started(sent, uid, NOW)
        bad = _moves.ended(run, State.FAILED, "{}", NOW)
        again = _moves.planned(bad, Proof.ENDED, NOW)
        for change in pairwise([was, sent, run, bad, again]):
            await journal.save(change)
        was = again
    await journal.close()

    assert (await contents(tmp_path / "a.db")).owners == {"demo-1": "mol", "demo-2": "mol"}
