"""
The journal of a batch: its launches, in an SQLite file and in memory.

To read one while no batch has it open: ``sqlite3 campaign.db 'SELECT key, state, rest_uid, error FROM item'``.
`journal_file` reads one that is open.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shlex
import sqlite3
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from .._errors import JournalCorrupt, JournalError, JournalLocked
from .._util.durable import sync_folder
from .._util.file_lock import FileLock, LocksUnsupported
from .._util.printable import shorten
from .._util.redact import keep_secrets, raise_unchained
from .._util.threads import in_thread
from ..models.runs import is_rest_uid
from . import schema
from .journal_file import check_is_journal, read_history
from .reconcile_rules import KnownInstances
from .schema import Statement
from .state import LaunchRecord, State, StateChange, token

if TYPE_CHECKING:
    from .._util.clock import Clock
    from .launch import PayloadCredentials

T = TypeVar("T")

CACHE_SETTING = "cache_size = -4096"
"""SQLite's page cache: a negative number is KiB."""
DURABILITY_SETTINGS = ("synchronous = FULL", "fullfsync = ON")
"""A commit returns when the data is on the disk itself, on macOS too."""
NO_LOCKS_ADVICE = "file locks are not supported here: use a local disk of Linux or macOS, or a file system with flock"
PROCESS_DIED = "the process that sent it ended before the outcome was recorded"
"""Error of a launch that was in state ``sending`` when the journal was opened."""
JOURNAL_SUFFIX, RESULTS_SUFFIX = ".journal", ".results"
"""Suffixes of the names of journals of the command line, and of the folders for their downloads."""
PAYLOADS_PER_READ = 100
"""Payloads that are read at once. Changes of the journal wait meanwhile."""
MIN_CREDENTIAL_LENGTH = 8
"""Minimum length of a credential that is searched for in texts. An environment variable may be ``1`` or ``true``."""
MAX_KEYS_LENGTH = 200
"""Maximum number of characters for the keys in a message."""


class _StaleRecord(Exception):
    """A launch in the file is not in the expected state."""


_LOCKED_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_MACHINE_CODES = frozenset(
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
"""SQLite's codes for problems of the machine or its disk. All others mean that the file is damaged."""
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})


@dataclass(eq=False)
class _Change:
    """Statements of one task, which are written together or not at all."""

    statements: list[Statement]
    on_written: Callable[[], None] | None = None
    """Called in the event loop when the change is on disk, before any other task runs."""
    error: Exception | None = None


@dataclass(eq=False)
class _Transaction:
    """Changes that share one commit."""

    changes: deque[_Change] = field(default_factory=deque)
    is_over: bool = False
    failure: JournalError | None = None
    """Why it could not be written."""
    attempt: anyio.Event | None = None
    """Set when the attempt to commit it has ended. None means that no task tries."""

    def publish(self) -> None:
        """Apply the written changes to memory, once."""
        while self.changes:
            change = self.changes.popleft()
            if change.on_written is not None and change.error is None and self.failure is None:
                change.on_written()


@dataclass(eq=False)
class _PayloadRead:
    """Payloads that are read together."""

    digests: list[str] = field(default_factory=list)
    rows: dict[str, tuple[str, Any]] | None = None
    """digest -> the row. None means that they were not read yet."""


def list_keys(records: Iterable[LaunchRecord]) -> str:
    """Return the keys of launches for a message."""
    return shorten(", ".join(repr(record.key) for record in records), MAX_KEYS_LENGTH)


class Journal:
    """
    The launches of a batch, in the order in which they were added.

    A change is written to the file first, and becomes visible in memory as soon as it is on disk. So memory is never
    ahead of the disk. Only one process can have a journal open; a process that dies leaves no lock. Tasks of one event
    loop may share it. The file is accessed in a worker thread, and concurrent changes share a commit.
    """

    def __init__(self, path: str | os.PathLike[str] | None, clock: Clock) -> None:
        """Create a closed journal. Without a path it is in memory only."""
        self.clock = clock
        self.name = "a journal in memory" if path is None else f"the journal {os.fspath(path)!r}"
        self.records: dict[str, LaunchRecord] = {}
        """key -> the launch."""
        self.counts: Counter[State] = Counter()
        """Number of launches in each state."""
        self.history: dict[str, list[StateChange]] = {}
        """key -> the state changes that were noted in this opening; see `histories`."""
        self._earlier: dict[str, list[StateChange]] | None = {}
        """key -> the state changes of earlier openings. None means that they were not read."""
        self.reasons: dict[str, str] = {}
        """rest-uid -> why it failed, as JSON; see `reasons.to_json`."""
        self.owners: dict[str, str] = {}
        """rest-uid -> key, of all runs that launches of this journal started."""
        self.seen: dict[str, int] = {}
        """rest-uid -> the first opening in which the instance existed before anything was sent."""
        self.deleted: set[str] = set()
        """rest-uids of instances that are known to be deleted: those in ``owners`` and ``seen``."""
        self.opening = 0
        """How often the journal was opened, including this time."""
        self.baseline: int | None = None
        """Number of instances in the first list. None means that no list came yet before a send."""
        self.has_baseline = False
        """Whether launches may be sent: the instances that existed before are noted, or cannot be listed."""
        self.unlisted_opening = 0
        """The last opening in which launches were sent although no list had ever come; 0 means none."""
        self.campaign: str | None = None
        """The campaign name, of this or an earlier opening. None means that the batch has none."""
        self.credentials: dict[str, PayloadCredentials] = {}
        """key -> credentials of a launch that was added in this process. They are never written."""
        self.valid_payloads: set[str] = set()
        """Digests of payloads that were validated in this process, with their credentials."""
        self._token = ""
        """Random text from which the tokens of launches are derived."""
        self._in_doubt: dict[str, float] = {}
        """key of each launch in doubt -> when this process learned of it, by the monotonic clock."""
        self._changing: dict[str, anyio.Event] = {}
        """key -> set when the change in progress has been written or has failed."""
        self._claims: dict[str, str] = {}
        """rest-uid -> key of the launch that is about to own it, while that is being written."""
        self._folded_keys: dict[str, str] = {}
        """casefolded key -> the first key, if they are not the same."""

        self._path = None if path is None else Path(path)
        self._file: FileLock | None = None
        self._database: sqlite3.Connection | None = None
        self._transaction = _Transaction()
        """The next commit."""
        # fast_acquire: without it, a task that fails in the checkpoint inside acquire() would keep the lock for ever.
        self._commit_lock = anyio.Lock(fast_acquire=True)
        self._payload_read, self._payload_lock = _PayloadRead(), anyio.Lock(fast_acquire=True)
        """The next payloads to read, and the lock to read them."""
        self._thread_limiter, self._thread_lock = anyio.CapacityLimiter(1), threading.Lock()

    @property
    def is_on_disk(self) -> bool:
        """Whether the journal survives the process."""
        return self._path is not None

    @property
    def path(self) -> Path | None:
        """The file. None means that the journal is in memory."""
        return self._path

    def secrets(self) -> list[str]:
        """Return the credentials of launches that were added in this process, without short ones: these are words."""
        values = {str(value) for credentials in self.credentials.values() for value in credentials.values()}
        return [value for value in values if len(value) >= MIN_CREDENTIAL_LENGTH]

    @property
    def results_folder(self) -> Path | None:
        """
        The default folder for downloads: ``launches.csv.results`` for ``launches.csv.journal``. None in memory.

        It is beside the journal, because two journals in one folder, or two folders, never share it.
        """
        path = None if self._path is None else self._path.absolute()
        return path and path.with_name(f"{path.name.removesuffix(JOURNAL_SUFFIX)}{RESULTS_SUFFIX}")

    async def open(self, server: str, campaign: str | None = None) -> None:
        """
        Lock and read the journal, or create it.

        An older format is migrated in the same transaction. A launch in state ``sending`` is in doubt from now on.

        Args:
            server: URL of the deployment.
            campaign: The campaign name to note. None means to leave the one that is there.

        Raises:
            JournalLocked: Another batch has it open.
            JournalCorrupt: It is damaged.
            JournalError: It belongs to another deployment, is not a journal, has a newer format, or cannot be created
                or locked.
        """
        now, wall = self.clock.now(), self.clock.wall()
        try:
            await self._run_in_thread(partial(self._open, server, campaign, wall), is_never_abandoned=True)
        except BaseException:  # it may be open by now, if this was cancelled
            await self.close()
            raise
        self._in_doubt = {key: now for key, record in self.records.items() if record.state is State.UNKNOWN}

    async def close(self) -> None:
        """Close and unlock the file."""
        with anyio.CancelScope(shield=True):
            await self._run_in_thread(self._close, is_never_abandoned=True)

    # Reading.

    def in_doubt(self) -> list[LaunchRecord]:
        """Return the launches whose start has an unknown outcome."""
        return [self.records[key] for key in self._in_doubt]

    def in_doubt_since(self, record: LaunchRecord) -> float:
        """Return when this process learned that a launch is in doubt, by the monotonic clock."""
        return self._in_doubt[record.key]

    def can_prove_absence(self, record: LaunchRecord) -> bool:
        """Return whether a launch was sent after a list had come, so that later lists can prove that it has no run."""
        return record.opening > self.unlisted_opening

    def get_in_doubt(self, key: str) -> LaunchRecord:
        """Return the launch in doubt with this key. Raises ValueError if there is none."""
        record = self.records.get(key)
        if record is not None and record.state is State.UNKNOWN:
            return record
        problem = (
            f"the batch has no launch {key!r}" if record is None else f"{key!r} is not in doubt but {record.state}"
        )
        others = f"in doubt: {list_keys(self.in_doubt())}" if self._in_doubt else "no launch is in doubt"
        raise ValueError(f"{problem}; {others}")

    @property
    def identity(self) -> str:
        """A text that no other journal has. It does not reveal the tokens of runs."""
        return token(self._token, "", 0)

    def token_of(self, record: LaunchRecord) -> str:
        """Return the token that the run of a launch carries in its metadata."""
        return token(self._token, record.key, record.attempt)

    def owner_of(self, rest_uid: str) -> str | None:
        """Return the key of the launch that owns a run or is about to. None means that the run has no owner."""
        return self.owners.get(rest_uid) or self._claims.get(rest_uid)

    def expected_instances(self) -> list[str]:
        """Return the rest-uids that a complete list must show: all that were listed or started, except deleted ones."""
        return [uid for uid in {**self.seen, **self.owners} if uid not in self.deleted]

    def known_instances(self) -> KnownInstances:
        """Return what the journal knows of instances."""
        return KnownInstances(self.owners, self.seen, self.deleted)

    def has_twin(self, key: str) -> bool:
        """Return whether an earlier launch has the same key except for case."""
        return self._folded_keys.get(folded := key.casefold(), folded) != key

    def is_stale(self, record: LaunchRecord) -> bool:
        """Return whether a launch has changed since this record, or is being changed."""
        return self.records.get(record.key) is not record or record.key in self._changing

    async def payload(self, digest: str) -> dict[str, Any]:
        """
        Return the payload with this digest, a JSON object whose fields are not checked.

        All that are requested while the file is in use are read together.

        Raises:
            JournalCorrupt: It is missing or damaged.
        """
        read = self._payload_read
        read.digests.append(digest)
        async with self._payload_lock:
            if read.rows is None:
                if self._payload_read is read:
                    self._payload_read = _PayloadRead()
                read.rows = await self._run_in_thread(partial(self._read_payloads, read.digests))
        if digest not in read.rows:
            raise JournalCorrupt(f"{self.name} lacks the payload {digest!r}")
        return schema.parse_payload(self.name, *read.rows[digest])

    async def payload_parts(
        self, read: Callable[[dict[str, Any]], T], records: Iterable[LaunchRecord] | None = None
    ) -> dict[str, T]:
        """
        Return digest -> a part of the payload. One payload at a time is in memory.

        Args:
            read: Returns the part. Called in a worker thread. A damaged payload is left out.
            records: The launches whose payloads are read. None means all.
        """
        digests = list({record.payload for record in (self.records.values() if records is None else records)})
        parts: dict[str, T] = {}
        for first in range(0, len(digests), PAYLOADS_PER_READ):
            some = digests[first : first + PAYLOADS_PER_READ]
            parts |= await self._run_in_thread(partial(self._read_parts, some, read))
        return parts

    async def read_history(self) -> None:
        """Read the state changes of earlier openings, which `histories` needs and opening leaves in the file."""
        if self._earlier is None:
            self._set_earlier(await self._run_in_thread(self._read_history))

    def load_history(self) -> None:
        """Do the same for a caller that may block: a million launches take seconds."""
        if self._earlier is None:
            try:
                self._set_earlier(self._run_alone(self._read_history))
            except sqlite3.Error as error:
                raise_unchained(self._to_journal_error(error))

    def _set_earlier(self, noted: dict[str, list[StateChange]]) -> None:
        """Keep state changes in the file that memory does not have, with more exact times."""
        for key, changes in list(self.history.items()):  # a list: other threads may add some
            here = set(schema.read_history(schema.insert_change(key, one)[1] for one in changes)[key])
            noted[key] = [change for change in noted.get(key, ()) if change not in here]
        self._earlier = noted

    def histories(self) -> Mapping[str, Sequence[StateChange]]:
        """Return key -> the state changes that were noted, without those of earlier openings that were not read."""
        if not self._earlier:
            return self.history
        return {key: self.history_of(key) for key in list(self.records)}

    def history_of(self, key: str) -> list[StateChange]:
        """Return the same for one launch."""
        return [*(self._earlier or {}).get(key, ()), *self.history.get(key, ())]

    # Writing.

    async def add(
        self,
        records: Iterable[LaunchRecord],
        payloads: Mapping[str, str],
        on_written: Callable[[LaunchRecord], None] | None = None,
    ) -> set[str]:
        """
        Add the launches whose keys are new. The others stay as they are.

        Args:
            records: The launches.
            payloads: digest -> payload.
            on_written: Called with each new launch as soon as it is on disk, even if this call is cancelled.

        Returns:
            The keys that were added.

        Raises:
            JournalError: They cannot be written.
        """
        wanted, added = {record.key: record for record in records}, set[str]()
        while missing := [key for key in wanted if key not in self.records]:
            mine = [key for key in missing if key not in self._changing]
            if not mine:  # other tasks are adding them
                await self._changing[missing[0]].wait()
                continue
            done = anyio.Event()
            self._changing.update(dict.fromkeys(mine, done))
            new = [wanted[key] for key in mine]
            try:
                await self._write(
                    [*self._payload_rows(payloads), *(row for record in new for row in schema.insert_launch(record))],
                    partial(self._set, new, on_written),
                )
            finally:
                for key in mine:
                    del self._changing[key]
                done.set()
            added.update(mine)
        return added

    async def add_payloads(self, payloads: Mapping[str, str]) -> None:
        """Write payloads by digest, for launches that are about to be corrected."""
        await self._write(self._payload_rows(payloads))

    @staticmethod
    def _payload_rows(payloads: Mapping[str, str]) -> list[Statement]:
        return [(schema.INSERT_PAYLOAD, row) for row in payloads.items()]

    async def replace(
        self, before: LaunchRecord, after: LaunchRecord, on_written: Callable[[LaunchRecord], None] | None = None
    ) -> None:
        """
        Replace the record of a launch. Once on disk, the change stands even if this call is cancelled.

        Args:
            before: The current record.
            after: The record after one transition.
            on_written: Called with ``after`` as soon as it is on disk.

        Raises:
            JournalError: ``before`` is outdated, the run belongs to another launch, or the record cannot be written.
        """
        if self.is_stale(before):
            raise JournalError(f"{before.key!r} is no longer {before.state}: another task has changed it")
        claim = after.rest_uid if after.state is State.STARTED else None
        if claim is not None and (owner := self.owner_of(claim)) is not None:
            raise JournalError(f"the run {claim!r} belongs to {owner!r}, so it cannot belong to {after.key!r} too")
        done = self._changing[before.key] = anyio.Event()
        if claim is not None:
            self._claims[claim] = after.key
        try:
            await self._write(schema.update_launch(before, after), partial(self._set, [after], on_written))
        finally:
            del self._changing[before.key]
            self._claims.pop(claim or "", None)
            done.set()

    async def update(
        self,
        key: str,
        transition: Callable[[LaunchRecord], LaunchRecord | None],
        on_written: Callable[[LaunchRecord], None] | None = None,
    ) -> LaunchRecord | None:
        """
        Change a launch, starting from its current record. Wait first if another task is changing it.

        Args:
            key: Its key.
            transition: Returns the new record, or None to leave the launch as it is.
            on_written: Called with the new record as soon as it is on disk.

        Returns:
            The new record. None means that the launch was left as it is.
        """
        while (change := self._changing.get(key)) is not None:
            await change.wait()
        before = self.records[key]
        after = transition(before)
        if after is not None:
            await self.replace(before, after, on_written)
        return after

    def keep_credentials(self, key: str, credentials: PayloadCredentials) -> None:
        """Replace the credentials of a launch in this process."""
        if credentials:
            self.credentials[key] = credentials
            keep_secrets(map(str, credentials.values()))
        else:
            self.credentials.pop(key, None)

    def note_running(self, key: str) -> None:
        """Note that a run was seen to begin now. This is written with the next commit, if there is one."""
        change = StateChange(self.records[key].attempt, "running", self.clock.wall())
        self.history.setdefault(key, []).append(change)
        self._transaction.changes.append(_Change([schema.insert_change(key, change)]))

    async def note_reason(self, rest_uid: str, reason: str) -> None:
        """Note why a run failed."""
        await self._write([(schema.INSERT_REASON, (rest_uid, reason))])
        self.reasons[rest_uid] = reason

    async def note_baseline(self, rest_uids: Iterable[str]) -> None:
        """Note which instances exist before anything is sent in this opening."""
        existing = list(rest_uids)
        count = len(existing) if self.baseline is None else None
        await self._note_seen(existing, count)
        self.baseline = len(existing) if self.baseline is None else self.baseline
        self.has_baseline = True

    async def begin_without_baseline(self) -> None:
        """Permit sends although no list can be read. What is sent in this opening is never proven absent."""
        if self.baseline is None:
            await self._write([(schema.SET_FACT, (schema.UNLISTED_FACT, str(self.opening)))])
            self.unlisted_opening = self.opening
        self.has_baseline = True

    async def note_listed(self, rest_uids: Iterable[str]) -> None:
        """Note the instances in a later list. Every list after it must show them."""
        await self._note_seen(rest_uids, None)

    async def _note_seen(self, rest_uids: Iterable[str], baseline: int | None) -> None:
        # An instance that exists after something was sent exists before anything is sent in the next opening.
        opening = self.opening + self.has_baseline
        new = [uid for uid in rest_uids if uid not in self.seen and uid not in self.owners]
        if new or baseline is not None:
            statements: list[Statement] = [(schema.INSERT_SEEN, (uid, opening)) for uid in new]
            if baseline is not None:
                statements.append((schema.SET_FACT, ("baseline", str(baseline))))
            await self._write(statements)
        self.seen.update(dict.fromkeys(new, opening))

    async def mark_deleted(self, rest_uids: Iterable[str]) -> None:
        """Note that instances are deleted: runs of launches, and others that a list showed."""
        new = [uid for uid in rest_uids if (uid in self.owners or uid in self.seen) and uid not in self.deleted]
        if new:
            await self._write([(sql, (uid,)) for uid in new for sql in schema.MARK_DELETED])
            self.deleted.update(new)

    # Memory.

    def _set(self, records: Iterable[LaunchRecord], on_written: Callable[[LaunchRecord], None] | None) -> None:
        """Apply to memory what was just written to the disk."""
        for record in records:
            self._set_one(record)
            if on_written is not None:
                on_written(record)

    def _set_one(self, record: LaunchRecord) -> None:
        before = self.records.get(record.key)
        if before is None:
            self._index_name(record.key)
        else:
            self.counts[before.state] -= 1
            if before.rest_uid is not None and before.state is State.STARTED and record.rest_uid is None:
                self.owners.pop(before.rest_uid, None)
                self.seen.setdefault(before.rest_uid, self.opening + 1)
        self.counts[record.state] += 1
        if record.state is not State.UNKNOWN:
            self._in_doubt.pop(record.key, None)
        elif before is None or before.state is not State.UNKNOWN:
            self._in_doubt[record.key] = self.clock.now()
        self.records[record.key] = record
        self.history.setdefault(record.key, []).append(StateChange(record.attempt, record.state, record.since))
        if record.state is State.STARTED and record.rest_uid is not None:
            self.owners[record.rest_uid] = record.key

    def _index_name(self, key: str) -> None:
        """Note a new key, if another may differ from it only by case."""
        if (folded := key.casefold()) != key:
            self._folded_keys.setdefault(folded, folded if folded in self.records else key)

    # Commits.

    async def _write(self, statements: Iterable[Statement], on_written: Callable[[], None] | None = None) -> None:
        """
        Write statements. All that arrive during a commit share the next one.

        The caller must know whether they were written, so a cancellation takes effect after the commit, which takes
        milliseconds. A scope does not shield against ``Task.cancel()``; that waits too.
        """
        change, transaction = _Change(list(statements), on_written), self._transaction
        transaction.changes.append(change)
        cancelled: BaseException | None = None
        with anyio.CancelScope(shield=True):
            while not transaction.is_over:
                try:
                    await self._commit_or_wait(transaction)
                except anyio.get_cancelled_exc_class() as error:
                    cancelled = error
        transaction.publish()
        if (failure := transaction.failure or change.error) is not None:
            raise copy(failure)
        if cancelled is not None:
            raise cancelled

    async def _commit_or_wait(self, transaction: _Transaction) -> None:
        """Commit a transaction, or wait while another of its tasks does that."""
        if transaction.attempt is not None:
            await transaction.attempt.wait()
            return
        attempt = transaction.attempt = anyio.Event()
        try:
            async with self._commit_lock:
                await self._commit(transaction)
        finally:
            transaction.attempt = None
            attempt.set()

    async def _commit(self, transaction: _Transaction) -> None:
        if transaction.is_over:
            return
        await anyio.lowlevel.checkpoint()  # tasks that are ready now join this commit
        if self._transaction is transaction:
            self._transaction = _Transaction()
        try:
            await self._run_in_thread(partial(self._commit_in_thread, transaction))
        except JournalError as error:
            transaction.failure, transaction.is_over = error, True

    async def _run_in_thread(self, work: Callable[[], T], *, is_never_abandoned: bool = False) -> T:
        """
        Run blocking work in a worker thread, one piece at a time.

        Args:
            work: The work.
            is_never_abandoned: Whether even ``Task.cancel()`` waits until the work has ended.
        """
        try:
            if is_never_abandoned:
                return await in_thread(self._run_alone, work)
            return await anyio.to_thread.run_sync(self._run_alone, work, limiter=self._thread_limiter)
        except sqlite3.Error as error:
            raise_unchained(self._to_journal_error(error))

    def _run_alone(self, work: Callable[[], T]) -> T:
        # asyncio may cancel a task while its thread still works, and the next task must wait for that thread.
        with self._thread_lock:
            return work()

    def _to_journal_error(self, error: sqlite3.Error) -> JournalError:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary in _LOCKED_CODES:
            return JournalLocked(f"{self.name} is open elsewhere")
        if isinstance(error, sqlite3.ProgrammingError) or (primary in _MACHINE_CODES and code not in _DAMAGE_CODES):
            return JournalError(f"{self.name} cannot be used: {error}")
        return JournalCorrupt(f"{self.name} is damaged: {error}")

    # In the worker thread.

    def _execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self._database is None:
            raise JournalError(f"{self.name} is not open: use the batch inside 'async with client.batch(...):'")
        return self._database.execute(sql, values)

    def _read_parts(self, digests: Iterable[str], read: Callable[[dict[str, Any]], T]) -> dict[str, T]:
        parts = {}
        for digest in digests:
            for row in self._execute(schema.SELECT_PAYLOAD, digest):
                with suppress(JournalCorrupt):
                    parts[digest] = read(schema.parse_payload(self.name, *row))
        return parts

    def _read_payloads(self, digests: Iterable[str]) -> dict[str, tuple[str, Any]]:
        return {digest: row for digest in digests for row in self._execute(schema.SELECT_PAYLOAD, digest)}

    def _read_history(self) -> dict[str, list[StateChange]]:
        if self._database is None and self._path is not None:
            return read_history(self._path)
        try:
            return schema.read_history(self._execute(schema.SELECT_MOMENTS))
        except (ValueError, TypeError, OverflowError) as error:
            raise_unchained(JournalCorrupt(f"{self.name} is damaged: {error}"))

    def _commit_in_thread(self, transaction: _Transaction) -> None:
        if transaction.is_over:
            return
        self._execute("BEGIN IMMEDIATE")
        try:
            self._apply(transaction.changes)
            self._execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._execute("ROLLBACK")
            raise
        transaction.is_over = True

    def _apply(self, changes: Sequence[_Change]) -> None:
        """Write all of each change or nothing of it. If one of several is not permitted, write each of them alone."""
        self._execute("SAVEPOINT one")
        try:
            for change in changes:
                for statement in change.statements:
                    self._execute_expecting_row(*statement)
        except (sqlite3.IntegrityError, _StaleRecord) as error:
            self._execute("ROLLBACK TO one")
            if len(changes) == 1:
                changes[0].error = JournalError(f"{self.name} does not permit this change: {error}")
            else:
                for change in changes:
                    self._apply([change])
        self._execute("RELEASE one")

    def _execute_expecting_row(self, sql: str, values: Sequence[Any]) -> None:
        changed = self._execute(sql, *values).rowcount
        if sql is schema.UPDATE_LAUNCH and changed != 1:
            key, state, attempt = values[-3:]
            raise _StaleRecord(f"{key!r} is no longer {state} in attempt {attempt}")

    def _open(self, server: str, campaign: str | None, now: float) -> None:
        self._path = self._path and self._path.absolute()  # the working directory may change
        is_new = self._path is not None and not self._path.exists()
        self._file = None if self._path is None else self._lock_file(self._path)
        try:
            self._connect(server, campaign, now)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            self._close()
            problem = f"{self.name} is damaged: {error}"
        except BaseException:
            self._close()
            raise
        else:
            if is_new and self._path is not None:
                sync_folder(self._path.parent)
            _open_journals.add(self)
            return
        raise JournalCorrupt(problem)

    def _lock_file(self, path: Path) -> FileLock:
        try:
            return FileLock(path)
        except BlockingIOError:
            raise JournalLocked(f"{self.name} is open elsewhere") from None
        except LocksUnsupported as error:
            raise JournalError(f"{self.name} cannot be locked: {NO_LOCKS_ADVICE} ({error.strerror})") from None
        except OSError as error:
            raise JournalError(f"{self.name} cannot be opened: {error.strerror}") from None

    def _connect(self, server: str, campaign: str | None, now: float) -> None:
        if self._path is not None:
            check_is_journal(self._path, self.name)  # before SQLite may write to it
        target = ":memory:" if self._path is None else self._path
        is_empty = self._path is None or not self._path.stat().st_size
        self._database = sqlite3.connect(target, timeout=0, isolation_level=None, check_same_thread=False)
        # Exclusive locking needs no shared memory, so a journal may be on a network file system.
        self._execute("PRAGMA locking_mode = EXCLUSIVE")
        if is_empty:
            self._execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        for setting in ("journal_mode = WAL", *DURABILITY_SETTINGS, CACHE_SETTING):
            self._execute(f"PRAGMA {setting}")
        self._create_or_load(server, campaign, now)

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
        """Leave the journal to the parent process after a fork."""
        if self._database is not None:
            # Never close the connection here: that would remove the log to which the parent writes.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._database))
        self._database = self._file = None
        self._thread_lock = threading.Lock()  # the old lock may be held by a thread that the child lacks

    def _create_or_load(self, server: str, campaign: str | None, now: float) -> None:
        """Create or check the tables, count the opening, and put in doubt what was being sent, all in one commit."""
        self._execute("BEGIN IMMEDIATE")
        if self._execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            self._create_tables(server)
        elif (problem := self._execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise JournalCorrupt(f"{self.name} is damaged: {problem}")
        number, facts = self._read_facts(server)
        for table in (schema.MOMENT_TABLE, schema.REASON_TABLE):
            self._execute(table)
        records = [schema.from_row(number, values) for values in self._execute(schema.select_launches(number))]
        if number < schema.FORMAT:
            records = self._migrate(facts, records, now)
        self._create_triggers()
        self._token, self.opening = facts["token"], int(facts["opening"]) + 1
        for fact in (("opening", str(self.opening)), ("server check", str(schema.checksum(server)))):
            self._execute(schema.SET_FACT, *fact)
        if campaign is not None:
            self._execute(schema.SET_FACT, schema.CAMPAIGN_FACT, campaign)
        self.campaign = campaign or facts.get(schema.CAMPAIGN_FACT)
        self.unlisted_opening = int(facts.get(schema.UNLISTED_FACT, 0))
        baseline = facts.get("baseline")
        self.baseline = None if baseline is None else int(baseline)
        self._load(records, now)
        self._execute("COMMIT")

    def _create_tables(self, server: str) -> None:
        for statement in schema.TABLES.split(";"):
            self._execute(statement)
        token = secrets.token_hex(16)
        for fact in {"server": server, "token": token, "opening": "0", **_format_facts(token)}.items():
            self._execute(schema.SET_FACT, *fact)
        self._mark_header()

    def _migrate(self, facts: dict[str, str], records: Iterable[LaunchRecord], now: float) -> list[LaunchRecord]:
        """Migrate the tables of an older format, and return the launches. Old formats did not check rest-uids."""
        for statement in schema.MIGRATE_FORMAT_1:
            self._execute(statement)
        for table in ("run", "seen"):
            ids = [uid for (uid,) in self._execute(f"SELECT rest_uid FROM {table}")]
            for uid in filterfalse(is_rest_uid, ids):
                self._execute(f"DELETE FROM {table} WHERE rest_uid = ?", uid)
        owners = dict(self._execute("SELECT rest_uid, key FROM run").fetchall())
        migrated = []
        for before in records:
            migrated.append(after := _migrate_record(before, owners, now))
            self._execute_expecting_row(*schema.update_row(before, after))
            for uid in after.candidates:  # a list showed them, but this format did not store that
                self._execute(schema.INSERT_SEEN_NOW, uid)
        for fact in _format_facts(facts["token"]).items():
            self._execute(schema.SET_FACT, *fact)
        self._mark_header()
        return migrated

    def _mark_header(self) -> None:
        """Write the application and the format to the header of the file."""
        self._execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        self._execute(f"PRAGMA user_version = {schema.FORMAT}")

    def _create_triggers(self) -> None:
        existing = dict(self._execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall())
        for name in existing.keys() - schema.TRIGGERS.keys():
            raise JournalCorrupt(f"{self.name} has the unknown trigger {name!r}")
        for name, sql in schema.TRIGGERS.items():
            if existing.get(name) != sql:
                self._execute(f"DROP TRIGGER IF EXISTS {name}")
                self._execute(sql)

    def _read_facts(self, server: str) -> tuple[int, dict[str, str]]:
        """Return the format, and the rows of the table ``journal``, after checking both."""
        facts: dict[str, str] = dict(self._execute("SELECT name, value FROM journal").fetchall())
        number = schema.parse_format(self.name, facts)
        header = [self._execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")]
        if number > 1 and header != [number, schema.APPLICATION_ID]:
            raise JournalCorrupt(f"{self.name} is damaged: its header has {header}, but its format is {number}")
        if number > 1 and facts["check"] != _format_facts(facts["token"])["check"]:
            raise JournalCorrupt(f"{self.name} is damaged: its token does not match its checksum")
        if facts["server"] != server:
            problem = f"{self.name} belongs to a batch at {facts['server']}, not at {server}"
            if facts.get("server check") not in (None, str(schema.checksum(facts["server"]))):
                raise JournalCorrupt(problem)
            raise JournalError(problem, schema.OTHER_DEPLOYMENT_ADVICE.format(shlex.quote(str(self._path)), server))
        return number, facts

    def _load(self, records: Iterable[LaunchRecord], now: float) -> None:
        """Read the other tables, except ``moment``, and fill memory. Texts in several tables share their memory."""
        self.records, self._folded_keys, self.history, self.has_baseline = {}, {}, {}, False
        resumed: list[tuple[LaunchRecord, LaunchRecord]] = []
        for before in records:
            after = _resume(before, now)
            if after is not before:
                resumed.append((before, after))
            self._index_name(after.key)
            self.records[after.key] = after
        self.reasons = dict(self._execute(schema.SELECT_REASONS))
        self.owners, self.deleted = {}, set()
        for uid, key, deleted in self._execute("SELECT rest_uid, key, gone FROM run"):
            self._load_run(uid, key, is_deleted=bool(deleted))
        self.seen = {}
        for uid, opening, deleted in self._execute("SELECT rest_uid, opening, gone FROM seen"):
            _check_rest_uid(uid)
            self.seen[uid] = int(opening)
            if deleted:
                self.deleted.add(uid)
        _check_runs(self.owners, records)
        for before, after in resumed:
            for statement in schema.update_launch(before, after):
                self._execute_expecting_row(*statement)
        self.counts = Counter(record.state for record in self.records.values())
        self._earlier = None if self.is_on_disk and self.opening > 1 else {}

    def _load_run(self, uid: str, key: str, *, is_deleted: bool) -> None:
        _check_rest_uid(uid)
        record = self.records.get(key)
        if record is None:
            raise ValueError(f"the run {uid!r} belongs to {key!r}, which is not a launch")
        uid = record.rest_uid if record.rest_uid == uid else uid
        self.owners[uid] = record.key
        if is_deleted:
            self.deleted.add(uid)


def _format_facts(token: str) -> dict[str, str]:
    """Return the facts that identify a journal of the newest format."""
    return {"format": str(schema.FORMAT), "check": str(schema.checksum(token))}


def _resume(record: LaunchRecord, now: float) -> LaunchRecord:
    """Return a launch as it is after its journal was opened."""
    if record.state is State.SENDING:
        return record.to_unknown(PROCESS_DIED, now)
    if record.state is State.UNKNOWN and record.since > now:
        return replace(record, since=now)  # the clock was wrong then
    return record


def _migrate_record(record: LaunchRecord, owners: Mapping[str, str], now: float) -> LaunchRecord:
    """Return a launch of format 1 in format 2. A run of another launch, or with an invalid id, puts it in doubt."""
    owner = None if record.rest_uid is None else owners.get(record.rest_uid)
    if record.state is State.STARTED and owner != record.key:
        reason = "is not a rest-uid" if owner is None else f"belongs to {owner!r}"
        record = record.to_unknown_without_run(f"its run {record.rest_uid!r} in the journal {reason}", now)
    candidates = tuple(filter(is_rest_uid, record.candidates))
    return replace(record, rest_uid=record.rest_uid if owner == record.key else None, candidates=candidates)


def _check_runs(owners: Mapping[str, str], records: Iterable[LaunchRecord]) -> None:
    """Check that launches have runs that belong to them. Raises ValueError if they do not."""
    for record in records:
        has_run = record.state is State.STARTED or record.rest_uid is not None
        if has_run and owners.get(record.rest_uid or "") != record.key:
            _check_rest_uid(record.rest_uid)
            raise ValueError(f"the run {record.rest_uid!r} of {record.key!r} belongs to another launch")
        for uid in record.candidates:
            _check_rest_uid(uid)


def _check_rest_uid(value: Any) -> None:
    if not is_rest_uid(value):
        raise ValueError(f"{value!r} is not a rest-uid")


_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _abandon_after_fork() -> None:
    for journal in list(_open_journals):
        journal._abandon()
    _open_journals.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_after_fork)
