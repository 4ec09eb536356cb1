"""
The journal of a batch: an SQLite file that knows what was planned, is being sent, was started and ended.

What `Journal.save` has returned from is on the disk. Nobody else can write while a journal is open, and
a process that dies leaves no lock. Look into it, while no batch has it open, with
``sqlite3 campaign.db 'SELECT key, state, rest_uid, error FROM item'``; else with `_glance`.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shlex
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import filterfalse
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from .._errors import JournalCorrupt, JournalError, JournalLocked
from .._util.file_lock import FileLock, LocksUnsupported
from .._util.threads import in_thread
from ..models.rest_uid import is_rest_uid
from . import records
from .journal_file import check_file
from .records import Contents, Moment, Statement
from .state import Row, State, disowned, doubted

T = TypeVar("T")

CACHE = "cache_size = -4096"
"""What SQLite keeps in memory: KiB, as a number below 0."""
FULL_SYNC = ("synchronous = FULL", "fullfsync = ON")
"""What is written is on the disk itself, on macOS too."""
NO_LOCKS = "there are no file locks here: put it on a local disk of Linux or macOS, or on a file system with flock"
"""What to do if a journal cannot be locked: two batches could start its launches at the same time."""
DIED = "the process that sent it ended before the outcome was recorded"
"""Why a launch is in doubt that was found being sent."""


class _Stale(Exception):
    """A launch is not what it was expected to be."""


_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""SQLite's codes for what is wrong with the machine; all others tell of a file that is not what we wrote."""
_DAMAGE = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})


@dataclass(eq=False)
class _Write:
    """What one task writes: all of it, or nothing."""

    statements: list[Statement]
    then: Callable[[], None] | None = None
    """Called in the event loop once it is on the disk, before anything else can happen there."""
    error: Exception | None = None


@dataclass(eq=False)
class _Group:
    """Writes that share one commit."""

    writes: list[_Write] = field(default_factory=list)
    is_over: bool = False
    failure: JournalError | None = None
    """Why nothing of it was written."""

    def settle(self) -> None:
        """Make known what was written."""
        for write in self.writes:
            then, write.then = write.then, None
            if then is not None and write.error is None and self.failure is None:
                then()


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

        One of an older format is brought to the newest, in the transaction that reads it. What was being sent when
        the process died that had it open is in doubt from now on.

        Raises:
            JournalLocked: Another batch has it open.
            JournalCorrupt: It is damaged.
            JournalError: It belongs to another server, is none, is too new, or the file cannot be made or locked.
        """
        try:
            return await self._do(partial(self._open, server, now), is_waited_for=True)
        except BaseException:  # it may be open by now, if this was cancelled
            await self.close()
            raise

    async def close(self) -> None:
        """Let it go; what was saved stays."""
        with anyio.CancelScope(shield=True):
            await self._do(self._close, is_waited_for=True)

    async def save(self, *changed: tuple[Row, Row], then: Callable[[], None] | None = None) -> None:
        """
        Write launches in place of what they were, all or none; one that was started owns its run.

        Args:
            changed: Of each what the journal has, and what it becomes by one of the transitions of `_moves`.
            then: Called once it is on the disk, even if this is cancelled.

        Raises:
            JournalError: The journal has something else, another launch owns the run, or it cannot be written.
        """
        await self._write((statement for was, row in changed for statement in records.moving(was, row)), then)

    async def add(
        self, rows: Iterable[Row], payloads: Mapping[str, str], then: Callable[[], None] | None = None
    ) -> None:
        """
        Write new launches, and the payloads that they name by digest; nothing if one of their keys is there.

        Raises:
            JournalError: A key is there, or they cannot be written.
        """
        kept = [(records.KEEP, item) for item in payloads.items()]
        await self._write([*kept, *(statement for row in rows for statement in records.adding(row))], then)

    def note(self, key: str, moment: Moment) -> None:
        """Have a moment written together with what is saved next; it is not worth a commit."""
        self._group.writes.append(_Write([records.noting(key, moment)]))

    async def see(self, rest_uids: Iterable[str], opening: int, baseline: int | None) -> None:
        """
        Note which instances a list shows.

        Args:
            rest_uids: Their ids; those that were noted before stay as they are.
            opening: The first opening in which they were there before anything was sent.
            baseline: How many there were before the first send; None means unchanged.
        """
        first = [] if baseline is None else [(records.SET, ("baseline", str(baseline)))]
        await self._write([*((records.SEE, (uid, opening)) for uid in rest_uids), *first])

    async def bury(self, rest_uids: Iterable[str]) -> None:
        """Note that instances were seen to be deleted, runs of this journal or others that it has seen."""
        await self._write([(sql, (uid,)) for uid in rest_uids for sql in records.GONE])

    async def payload(self, digest: str) -> str:
        """The payload with this digest; raises `JournalCorrupt` if it is not there, or not what it was."""
        found = await self._do(lambda: self._query("SELECT content FROM payload WHERE digest = ?", digest).fetchone())
        if found is None:
            raise JournalCorrupt(f"{self.name} lacks the payload {digest!r}")
        (content,) = found
        if not isinstance(content, str) or records.digest(content) != digest:
            raise JournalCorrupt(f"{self.name} is damaged: the payload {digest!r} is not what it was")
        return content

    async def _write(self, statements: Iterable[Statement], then: Callable[[], None] | None = None) -> None:
        """
        Have statements written; those that come while others are being written share the next commit.

        Whoever begins to write must know whether it was written, so cancelling takes effect when it is over. It
        takes milliseconds. A scope does not shield against ``Task.cancel()``, which therefore waits as well.
        """
        write, group = _Write(list(statements), then), self._group
        group.writes.append(write)
        cancelled: BaseException | None = None
        with anyio.CancelScope(shield=True):
            while not group.is_over:
                try:
                    async with self._lock:
                        await self._commit(group)
                except anyio.get_cancelled_exc_class() as error:
                    cancelled = error
        group.settle()
        if (failure := group.failure or write.error) is not None:
            raise copy(failure)
        if cancelled is not None:
            raise cancelled

    async def _commit(self, group: _Group) -> None:
        if group.is_over:
            return
        if self._group is group:
            self._group = _Group()
        try:
            await self._do(partial(self._write_down, group))
        except JournalError as error:
            group.failure, group.is_over = error, True

    async def _do(self, work: Callable[[], T], *, is_waited_for: bool = False) -> T:
        """
        What some work gives, done in the journal's thread.

        Args:
            work: The work.
            is_waited_for: Whether ``Task.cancel()``, too, waits for its end.
        """
        try:
            if is_waited_for:
                return await in_thread(self._alone, work)
            return await anyio.to_thread.run_sync(self._alone, work, limiter=self._one)
        except sqlite3.Error as error:
            failure = self._translated(error)
        raise failure

    def _alone(self, work: Callable[[], T]) -> T:
        # Whoever waits for the thread may be cancelled by asyncio itself, and the next one come before it is done.
        with self._turn:
            return work()

    def _translated(self, error: sqlite3.Error) -> JournalError:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary in _LOCKED:
            return JournalLocked(f"{self.name} is open elsewhere")
        if isinstance(error, sqlite3.ProgrammingError) or (primary in _TROUBLE and code not in _DAMAGE):
            return JournalError(f"{self.name} cannot be used: {error}")
        return JournalCorrupt(f"{self.name} is damaged: {error}")

    def _query(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self._database is None:
            raise JournalError(f"{self.name} is not open: use the batch inside 'async with client.batch(...):'")
        return self._database.execute(sql, values)

    def _write_down(self, group: _Group) -> None:
        if group.is_over:
            return
        self._query("BEGIN IMMEDIATE")
        try:
            for write in group.writes:
                self._apply(write)
            self._query("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._query("ROLLBACK")
            raise
        group.is_over = True

    def _apply(self, write: _Write) -> None:
        """Write all of it or nothing, whatever else is in the same commit."""
        self._query("SAVEPOINT one")
        try:
            for statement in write.statements:
                self._execute(*statement)
        except (sqlite3.IntegrityError, _Stale) as error:
            write.error = JournalError(f"{self.name} does not allow what was to be written: {error}")
            self._query("ROLLBACK TO one")
        self._query("RELEASE one")

    def _execute(self, sql: str, values: Sequence[Any]) -> None:
        changed = self._query(sql, *values).rowcount
        if sql is records.UPDATE and changed != 1:
            key, state, attempt = values[-3:]
            raise _Stale(f"{key!r} is not {state} in attempt {attempt} any more")

    def _open(self, server: str, now: float) -> Contents:
        self._path = self._path and self._path.absolute()  # whatever the working directory becomes
        is_new = self._path is not None and not self._path.exists()
        self._file = None if self._path is None else self._locked(self._path)
        try:
            contents = self._connect(server, now)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            self._close()
            problem = f"{self.name} is damaged: {error}"
        except BaseException:
            self._close()
            raise
        else:
            if is_new and self._path is not None:
                _sync_folder(self._path.parent)
            _open_journals.add(self)
            return contents
        raise JournalCorrupt(problem)

    def _connect(self, server: str, now: float) -> Contents:
        if self._path is not None:
            check_file(self._path, self.name)  # before SQLite may write to it
        target = ":memory:" if self._path is None else self._path
        is_empty = self._path is None or not self._path.stat().st_size
        self._database = sqlite3.connect(target, timeout=0, isolation_level=None, check_same_thread=False)
        # Exclusive locking needs no shared memory, so that a journal may lie on a network's file system.
        self._query("PRAGMA locking_mode = EXCLUSIVE")
        if is_empty:
            self._query(f"PRAGMA application_id = {records.APPLICATION}")
        for setting in ("journal_mode = WAL", *FULL_SYNC, CACHE):
            self._query(f"PRAGMA {setting}")
        return self._begin(server, now)

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
        _open_journals.discard(self)
        database, self._database = self._database, None
        file, self._file = self._file, None
        try:
            if database is not None:
                database.close()
        finally:
            if file is not None:
                file.release()

    def _abandon(self) -> None:
        """Leave the journal to the process that this one was forked from."""
        if self._database is not None:
            # To close the connection here would remove the log that the other process writes to. So it never is.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._database))
        self._database = self._file = None
        self._turn = threading.Lock()  # a thread that the child does not have may hold the other

    def _begin(self, server: str, now: float) -> Contents:
        """Make the tables or check them, count the opening, and doubt what was being sent."""
        self._query("BEGIN IMMEDIATE")
        if self._query("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            self._make(server)
        elif (problem := self._query("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise JournalCorrupt(f"{self.name} is damaged: {problem}")
        number, facts = self._facts(server)
        self._query(records.MOMENTS)
        rows = [records.read(number, values) for values in self._query(records.selecting(number)).fetchall()]
        if number < records.FORMAT:
            rows = self._upgraded(facts, rows, now)
        self._refuse_transitions()
        opening = int(facts["opening"]) + 1
        for item in (("opening", str(opening)), ("server check", str(records.checksum(server)))):
            self._query(records.SET, *item)
        contents = self._read(facts, opening, rows, now)
        self._query("COMMIT")
        return contents

    def _make(self, server: str) -> None:
        for statement in records.TABLES.split(";"):
            self._query(statement)
        token = secrets.token_hex(16)
        made = {"server": server, "token": token, "opening": "0", **_marks(token)}
        for item in made.items():
            self._query(records.SET, *item)
        self._mark()

    def _upgraded(self, facts: dict[str, str], rows: Iterable[Row], now: float) -> list[Row]:
        """Bring the tables of an older format, which took ids as they came, to the newest; returns the launches."""
        for statement in records.FROM_FORMAT_1:
            self._query(statement)
        for table in ("run", "seen"):
            ids = [uid for (uid,) in self._query(f"SELECT rest_uid FROM {table}")]
            for uid in filterfalse(is_rest_uid, ids):
                self._query(f"DELETE FROM {table} WHERE rest_uid = ?", uid)
        owners = dict(self._query("SELECT rest_uid, key FROM run").fetchall())
        upgraded = []
        for was in rows:
            upgraded.append(row := _with_own_run(was, owners, now))
            self._execute(*records.rewriting(was, row))
            for uid in row.candidates:  # a list showed them, which this format did not keep
                self._execute(records.EXPECT, (uid,))
        for item in _marks(facts["token"]).items():
            self._query(records.SET, *item)
        self._mark()
        return upgraded

    def _mark(self) -> None:
        """Have the file's header say what it is."""
        self._query(f"PRAGMA application_id = {records.APPLICATION}")
        self._query(f"PRAGMA user_version = {records.FORMAT}")

    def _refuse_transitions(self) -> None:
        """Have SQLite refuse what no transition of `_moves` leads to."""
        there = dict(self._query("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall())
        for name in there.keys() - records.TRIGGERS.keys():
            raise JournalCorrupt(f"{self.name} has the trigger {name!r}, which is none of a journal")
        for name, sql in records.TRIGGERS.items():
            if there.get(name) != sql:
                self._query(f"DROP TRIGGER IF EXISTS {name}")
                self._query(sql)

    def _facts(self, server: str) -> tuple[int, dict[str, str]]:
        facts: dict[str, str] = dict(self._query("SELECT name, value FROM journal").fetchall())
        number = records.format_of(self.name, facts)
        marks = [self._query(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")]
        if number > 1 and marks != [number, records.APPLICATION]:
            raise JournalCorrupt(f"{self.name} is damaged: its header says {marks}, and it has format {number}")
        if number > 1 and facts["check"] != _marks(facts["token"])["check"]:
            raise JournalCorrupt(f"{self.name} is damaged: its token is not what it was")
        if facts["server"] != server:
            told = f"{self.name} is of a batch at {facts['server']}, not at {server}"
            if facts.get("server check") not in (None, str(records.checksum(facts["server"]))):
                raise JournalCorrupt(told)
            raise JournalError(told, records.ELSEWHERE.format(shlex.quote(str(self._path)), server))
        return number, facts

    def _check_runs(self, owners: Mapping[str, str], rows: Iterable[Row]) -> None:
        """Check that runs and launches belong together; raises ValueError if they do not."""
        keys = set()
        for row in rows:
            keys.add(row.key)
            if row.state is State.STARTED or row.rest_uid is not None:
                _check_id(row.rest_uid)
                if owners.get(row.rest_uid or "") != row.key:
                    raise ValueError(f"the run {row.rest_uid!r} of {row.key!r} is not its own")
            for uid in row.candidates:
                _check_id(uid)
        for uid, key in owners.items():
            _check_id(uid)
            if key not in keys:
                raise ValueError(f"the run {uid!r} is that of {key!r}, which is no launch")

    def _read(self, facts: Mapping[str, str], opening: int, rows: list[Row], now: float) -> Contents:
        runs = self._query("SELECT rest_uid, key, gone FROM run").fetchall()
        owners = {uid: key for uid, key, _ in runs}
        self._check_runs(owners, rows)
        for index, was in enumerate(rows):
            row = _resumed(was, now)
            if (row.state, row.since) != (was.state, was.since):
                for statement in records.moving(was, row):
                    self._execute(*statement)
            rows[index] = row
        moments = self._query("SELECT key, attempt, state, since FROM moment ORDER BY since")
        seen = self._query("SELECT rest_uid, opening, gone FROM seen").fetchall()
        for uid, _, _ in seen:
            _check_id(uid)
        baseline = facts.get("baseline")
        return Contents(
            token=facts["token"],
            opening=opening,
            rows=rows,
            owners=owners,
            gone={uid for uid, _, gone in (*runs, *seen) if gone},
            seen={uid: int(first) for uid, first, _ in seen},
            baseline=None if baseline is None else int(baseline),
            moments=[records.noted(values) for values in moments],
        )


def _marks(token: str) -> dict[str, str]:
    """What a journal of the newest format says of itself."""
    return {"format": str(records.FORMAT), "check": str(records.checksum(token))}


def _resumed(row: Row, now: float) -> Row:
    """What becomes of a launch when its journal is opened."""
    if row.state is State.SENDING:
        return doubted(row, DIED, now)
    if row.state is State.UNKNOWN and row.since > now:
        # The clock was wrong then: nobody can wait for that moment to come.
        return replace(row, since=now)
    return row


def _with_own_run(row: Row, owners: Mapping[str, str], now: float) -> Row:
    """What becomes of a launch of an older journal, which may have another's run, or as a run what is no rest-uid."""
    owner = None if row.rest_uid is None else owners.get(row.rest_uid)
    if row.state is State.STARTED and owner != row.key:
        whose = "no rest-uid" if owner is None else f"that of {owner!r}"
        row = disowned(row, f"the journal had the run {row.rest_uid!r} for it, which is {whose}", now)
    candidates = tuple(filter(is_rest_uid, row.candidates))
    return replace(row, rest_uid=row.rest_uid if owner == row.key else None, candidates=candidates)


def _check_id(value: Any) -> None:
    if not is_rest_uid(value):
        raise ValueError(f"it has {value!r} where a rest-uid is due")


_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _abandon_after_fork() -> None:
    for journal in list(_open_journals):
        journal._abandon()
    _open_journals.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_after_fork)


def _sync_folder(folder: Path) -> None:
    """See to it that a new file is still there after the power fails; not every system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
