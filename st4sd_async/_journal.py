"""
The journal of a batch: an SQLite file that knows what was planned, is being sent, was started and ended.

What `Journal.save` has returned from is on the disk. Nobody else can write while a journal is open, and
a process that dies leaves no lock. Look into it, while no batch has it open, with
``sqlite3 campaign.db 'SELECT key, state, rest_uid, error FROM item'``; else with `_glance`.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from . import _records as records
from ._journal_errors import JournalCorrupt, JournalError, JournalLocked
from ._lock import FileLock, LocksUnsupported
from ._moves import Row, State, doubted
from ._records import Contents, Moment, Statement

T = TypeVar("T")

CACHE = "cache_size = -4096"
"""What SQLite keeps in memory: KiB, as a number below 0."""
FULL_SYNC = ("synchronous = FULL", "fullfsync = ON")
"""What is written is on the disk itself, on macOS too."""
NO_LOCKS = "there are no file locks here: put it on a local disk of Linux or macOS, or on a file system with flock"
"""What to do if a journal cannot be locked: two batches could start its launches at the same time."""
DIED = "the process that sent it ended before the outcome was recorded"
"""Why a launch is in doubt that was found being sent."""


@dataclass
class _Group:
    """Statements that share one commit."""

    statements: list[Statement] = field(default_factory=list)
    is_written: bool = False


class Journal:
    """
    An open journal; for the tasks of one event loop. `open` it, and close it with `close`.

    All its work is done in a thread, one piece at a time.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """Nothing is opened yet; without a path everything is kept in memory only."""
        self.name = "a journal in memory" if path is None else f"the journal {os.fspath(path)!r}"
        self._path = None if path is None else Path(path)
        self._file: FileLock | None = None
        self._one = anyio.CapacityLimiter(1)
        self._lock, self._turn = anyio.Lock(), threading.Lock()
        self._group = _Group()
        self._database: sqlite3.Connection | None = None

    @property
    def is_on_disk(self) -> bool:
        """Whether it survives the process."""
        return self._path is not None

    async def open(self, server: str, now: float) -> Contents:
        """
        Lock and read the journal of a batch at this server; make it if there is none.

        What was being sent when the process died that had it open is in doubt from now on.

        Raises:
            JournalLocked: Another batch has it open.
            JournalCorrupt: It is damaged.
            JournalError: It belongs to another server, is none, is too new, or the file cannot be made.
        """
        return await self._do(partial(self._open, server, now))

    async def close(self) -> None:
        """Let it go; what was saved stays."""
        with anyio.CancelScope(shield=True):
            await self._do(self._close)

    async def save(self, *rows: Row) -> None:
        """Write launches as they are now; those that were started own their runs."""
        await self._write(statement for row in rows for statement in records.saving(row))

    async def add(self, rows: Iterable[Row], payloads: Mapping[str, str]) -> None:
        """Write new launches, and the payloads that they name by digest."""
        kept = [(records.KEEP, item) for item in payloads.items()]
        await self._write([*kept, *(statement for row in rows for statement in records.saving(row))])

    def note(self, key: str, moment: Moment) -> None:
        """Have a moment written together with what is saved next; it is not worth a commit."""
        self._group.statements.append(records.noting(key, moment))

    async def see(self, rest_uids: Iterable[str], opening: int, baseline: int | None) -> None:
        """Note which instances are there before anything is sent in this opening, and how many before the first."""
        first = [] if baseline is None else [(records.SET, ("baseline", str(baseline)))]
        await self._write([*((records.SEE, (uid, opening)) for uid in rest_uids), *first])

    async def bury(self, rest_uids: Iterable[str]) -> None:
        """Note that runs were seen to be deleted."""
        await self._write((records.BURY, (uid,)) for uid in rest_uids)

    async def payload(self, digest: str) -> str:
        """The payload with this digest; raises `JournalCorrupt` if it is not there."""
        found = await self._do(lambda: self._query("SELECT content FROM payload WHERE digest = ?", digest).fetchone())
        if found is None:
            raise JournalCorrupt(f"{self.name} lacks the payload {digest!r}")
        return str(found[0])

    async def _write(self, statements: Iterable[Statement]) -> None:
        """Have statements written; those that come while others are being written share the next commit."""
        group = self._group
        group.statements += statements
        # Not to be cancelled: whoever begins to write must know whether it was written. It takes milliseconds.
        with anyio.CancelScope(shield=True):
            async with self._lock:
                if not group.is_written:
                    self._group = _Group()
                    await self._do(partial(self._commit, group.statements))
                    group.is_written = True

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(self._alone, work, limiter=self._one)
        except sqlite3.Error as error:
            failure = self._translated(error)
        raise failure

    def _alone(self, work: Callable[[], T]) -> T:
        # Whoever waits for the thread may be cancelled by asyncio itself, and the next one come before it is done.
        with self._turn:
            return work()

    def _translated(self, error: sqlite3.Error) -> JournalError:
        if "locked" in str(error):
            return JournalLocked(f"{self.name} is open elsewhere")
        is_broken = not isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError)
        problem = f"{self.name} cannot be used: {error}"
        return JournalCorrupt(problem) if is_broken or "malformed" in str(error) else JournalError(problem)

    def _query(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self._database is None:
            raise JournalError(f"{self.name} is not open: use the batch inside 'async with client.batch(...):'")
        return self._database.execute(sql, values)

    def _commit(self, statements: Iterable[Statement]) -> None:
        self._query("BEGIN IMMEDIATE")
        try:
            for sql, values in statements:
                self._query(sql, *values)
            self._query("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._query("ROLLBACK")
            raise

    def _open(self, server: str, now: float) -> Contents:
        self._path = self._path and self._path.absolute()  # whatever the working directory becomes
        is_new = self._path is not None and not self._path.exists()
        self._file = None if self._path is None else self._locked(self._path)
        try:
            target = ":memory:" if self._path is None else self._path
            self._database = sqlite3.connect(target, timeout=0, isolation_level=None, check_same_thread=False)
            # Exclusive locking needs no shared memory, so that a journal may lie on a network's file system.
            for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", *FULL_SYNC, CACHE):
                self._query(f"PRAGMA {setting}")
            contents = self._begin(server, now)
        except BaseException:
            self._close()
            raise
        if is_new and self._path is not None:
            _sync_folder(self._path.parent)
        return contents

    def _locked(self, path: Path) -> FileLock:
        try:
            return FileLock(path)
        except BlockingIOError:
            raise JournalLocked(f"{self.name} is open elsewhere") from None
        except LocksUnsupported as error:
            raise JournalError(f"{self.name} cannot be locked: {NO_LOCKS} ({error.strerror})") from None
        except OSError as error:
            raise JournalError(f"{self.name} cannot be opened: {error.strerror}") from None

    def _close(self) -> None:
        database, self._database = self._database, None
        file, self._file = self._file, None
        try:
            if database is not None:
                database.close()
        finally:
            if file is not None:
                file.release()

    def _begin(self, server: str, now: float) -> Contents:
        """Make the tables or check them, count the opening, and doubt what was being sent."""
        self._query("BEGIN IMMEDIATE")
        tables = {name for (name,) in self._query("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not tables:
            for statement in records.TABLES.split(";"):
                self._query(statement)
            made = {"format": records.FORMAT, "server": server, "token": secrets.token_hex(16), "opening": "0"}
            for item in made.items():
                self._query(records.SET, *item)
        elif "journal" not in tables:
            raise JournalError(f"{self.name} is no journal but another database: give another path")
        self._query(records.MOMENTS)
        facts = self._facts(server)
        if (problem := self._query("PRAGMA quick_check(item)").fetchone()[0]) != "ok":
            raise JournalCorrupt(f"{self.name} is damaged: {problem}")
        opening = int(facts["opening"]) + 1
        self._query(records.SET, "opening", str(opening))
        contents = self._read(facts, opening, now)
        self._query("COMMIT")
        return contents

    def _facts(self, server: str) -> dict[str, str]:
        facts: dict[str, str] = dict(self._query("SELECT name, value FROM journal").fetchall())
        records.check_format(self.name, facts)
        if facts["server"] != server:
            told = f"{self.name} is of a batch at {facts['server']}, not at {server}: {records.ELSEWHERE}"
            raise JournalError(told.format(server))
        return facts

    def _read(self, facts: Mapping[str, str], opening: int, now: float) -> Contents:
        with closing(self._query(f"SELECT {', '.join(records.COLUMNS)} FROM item ORDER BY rowid")) as found:
            rows = [records.read(values) for values in found]
        for index, row in enumerate(rows):
            if row.state is State.SENDING:
                rows[index] = doubted(row, DIED, now)
            elif row.state is State.UNKNOWN and row.since > now:
                # The clock was wrong then: nobody can wait for that moment to come.
                rows[index] = replace(row, since=now)
            if rows[index] is not row:
                for sql, values in records.saving(rows[index]):
                    self._query(sql, *values)
        runs = self._query("SELECT rest_uid, key, gone FROM run").fetchall()
        moments = self._query("SELECT key, attempt, state, since FROM moment ORDER BY since")
        seen = dict(self._query("SELECT rest_uid, opening FROM seen").fetchall())
        baseline = facts.get("baseline")
        return Contents(
            token=facts["token"],
            opening=opening,
            rows=rows,
            owners={uid: key for uid, key, _ in runs},
            gone={uid for uid, _, gone in runs if gone},
            seen=seen,
            baseline=None if baseline is None else int(baseline),
            moments=[records.noted(values) for values in moments],
        )


def _sync_folder(folder: Path) -> None:
    """See to it that a new file is still there after the power fails; not every system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
