"""Opening a journal: cancelled, forked, or where the path is something else."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from st4sd_async import JournalCorrupt, JournalError, JournalLocked
from st4sd_async._batch.journal import Journal
from tests.tries import tries

from .journal_helpers import SERVER, SettableClock, open_journal, read_journal, record

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def is_free(path: Path) -> bool:
    try:
        await read_journal(path)
    except JournalLocked:
        return False
    return True


async def test_a_cancelled_opening_leaves_the_journal_free(tmp_path: Path) -> None:
    """By `Task.cancel()` at any moment, and by a scope."""
    path = tmp_path / "campaign.db"
    for number in range(tries(60, 24)):
        journal = Journal(path, SettableClock())
        task = asyncio.ensure_future(journal.open(SERVER))
        for _ in range(number % 12):
            await asyncio.sleep(0)
        await asyncio.sleep(number / 12_000)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await journal.close()  # it had ended before
        assert await is_free(path), number
    journal = Journal(path, SettableClock())
    with anyio.move_on_after(0):
        await journal.open(SERVER)
    await journal.close()
    assert await is_free(path)


FORKING = f"""
import asyncio, gc, os, signal, sys
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.state import LaunchRecord
from st4sd_async._util.clock import SystemClock

async def main(path, how):
    journal = Journal(path, SystemClock())
    await journal.open({SERVER!r})
    record = LaunchRecord("mol", "demo", "0", since=1.0)
    await journal.add([record], {{}})
    child = os.fork()
    if child == 0:
        if how == "lives":
            os.close(1)
            os.close(2)
            signal.pause()
        if how == "closes":
            journal._close()
        del journal
        gc.collect()
        os._exit(0)
    if how != "lives":
        os.waitpid(child, 0)
    await journal.replace(record, record.to_sending(1, 1.0))
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

for how in ("lives", "closes", "drops it"):
    parent = os.fork()
    if parent == 0:
        asyncio.run(main(os.path.join(sys.argv[1], how + ".db"), how))
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
async def test_a_forked_child_neither_locks_nor_damages_a_journal(tmp_path: Path) -> None:
    """Whether it outlives its parent or ends before; the parent is killed after one more write."""
    parents = await anyio.run_process([sys.executable, "-c", FORKING, str(tmp_path)])
    living, *_ = map(int, parents.stdout.split())
    try:
        for how in ("lives", "closes", "drops it"):
            found = await read_journal(tmp_path / f"{how}.db")

            assert [(row.key, row.state) for row in found.records.values()] == [("mol", "unknown")], how
        os.kill(living, 0)  # it has not ended
    finally:
        os.kill(living, signal.SIGKILL)


def snapshot(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}


def create_other_database(path: Path, mode: str) -> sqlite3.Connection:
    """Create and open the database of another program."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute(f"PRAGMA journal_mode = {mode}")
    database.execute("CREATE TABLE journal (id INTEGER PRIMARY KEY, text TEXT)")
    database.execute("INSERT INTO journal (text) VALUES ('dear diary')")
    return database


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
async def test_the_database_of_another_program_is_left_untouched(tmp_path: Path, mode: str, is_open: bool) -> None:
    """Byte for byte, including its journal mode and its log. The other program can continue."""
    path = tmp_path / "diary.db"
    database = await anyio.to_thread.run_sync(create_other_database, path, mode)
    if not is_open:
        await anyio.to_thread.run_sync(database.close)
    before = await anyio.to_thread.run_sync(snapshot, path)

    with pytest.raises(JournalError, match="is not a journal but another database: use another path"):
        await open_journal(path)

    assert await anyio.to_thread.run_sync(snapshot, path) == before
    if is_open:
        await anyio.to_thread.run_sync(database.execute, "INSERT INTO journal (text) VALUES ('more')")
        await anyio.to_thread.run_sync(database.close)
    with closing(sqlite3.connect(path)) as again:
        assert again.execute("PRAGMA journal_mode").fetchone() == (mode.lower(),)
        assert again.execute("SELECT count(*) FROM journal").fetchone() == (2 if is_open else 1,)


OTHERS: dict[str, tuple[Callable[[Path], object], type[JournalError], str]] = {
    "a text": (
        lambda path: path.write_text("key,scale\n" * 99),
        JournalCorrupt,
        "not an SQLite file: use another path if it is not a journal; restore a copy",
    ),
    "a short text": (lambda path: path.write_text("a"), JournalCorrupt, "is not an SQLite file"),
    "the beginning of a database": (
        lambda path: path.write_bytes(b"SQLite format 3\0"),
        JournalCorrupt,
        "not an SQLite",
    ),
    "a folder": (Path.mkdir, JournalError, "Is a directory"),
    "a FIFO": (os.mkfifo, JournalError, "not a regular file"),
    "a link to nowhere": (lambda path: path.symlink_to("none/none"), JournalError, "No such file or directory"),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_a_path_that_is_not_a_database_is_refused_and_left_untouched(tmp_path: Path, what: str) -> None:
    """The error says what it is. Nothing blocks, and no files are created beside it."""
    make, error, message = OTHERS[what]
    path = tmp_path / "campaign.db"
    await anyio.to_thread.run_sync(make, path)
    before = await anyio.to_thread.run_sync(snapshot, path)

    with anyio.fail_after(5), pytest.raises(error, match=message):
        await open_journal(path)

    assert await anyio.to_thread.run_sync(snapshot, path) == before


async def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    """For example a temporary file. So does an SQLite database without tables."""
    (empty, bare) = tmp_path / "empty.db", tmp_path / "bare.db"
    await anyio.Path(empty).touch()
    with closing(sqlite3.connect(bare)) as database:
        database.execute("PRAGMA journal_mode = WAL")

    assert await is_free(empty)
    assert await is_free(bare)


async def test_a_journal_is_opened_if_its_creator_was_killed(tmp_path: Path) -> None:
    """All of it is in the log then."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([planned := record()], {})
    await journal.replace(planned, planned.to_sending(1, 1.0))
    copy = tmp_path / "copy"
    await anyio.Path(copy).mkdir()
    for suffix in ("", "-wal"):
        data = await anyio.Path(tmp_path / f"a.db{suffix}").read_bytes()
        await anyio.Path(copy / f"a.db{suffix}").write_bytes(data)
    await journal.close()

    again = await read_journal(copy / "a.db")
    assert [(one.key, one.state) for one in again.records.values()] == [("mol", "unknown")]
