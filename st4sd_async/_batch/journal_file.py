"""Read the file of a journal without opening the journal: check if it is one, or read it while a batch has it open."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from .._errors import JournalCorrupt, JournalError, JournalLocked
from .._util.redact import raise_unchained
from .._util.threads import in_thread
from . import schema
from .state import LaunchRecord, StateChange

T = TypeVar("T")

SQLITE_MAGIC = b"SQLite format 3\0"
SQLITE_HEADER_SIZE = 100
"""Size of SQLite's header in bytes. Source: "The Database Header" in SQLite's file format."""
MIN_PAGE_SIZE = 512
"""Size in bytes of the smallest SQLite file, which is one page."""
MAX_COPIES = 40
"""Maximum number of attempts to copy. A write of the owner spoils about one copy in thousands."""
COPY_PAUSE = 0.05
"""Seconds between two attempts."""
WAL_HEADER_SIZE = 32
"""Size in bytes of the header of the log, which differs in each new log. Source: "WAL Header" in the file format."""


def check_is_journal(path: Path, name: str) -> None:
    """
    Check that a file is a journal or empty. The file may be another program's, so it is never changed.

    Args:
        path: The file.
        name: Name of the journal, for messages.

    Raises:
        JournalError: It is the database of another program.
        JournalCorrupt: It is not an SQLite file, or a damaged journal.
        sqlite3.Error: It cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(SQLITE_HEADER_SIZE)
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    if not header and not has_log:
        return
    if not header.startswith(SQLITE_MAGIC) or path.stat().st_size < MIN_PAGE_SIZE or max(header[18:20]) > 2:
        raise JournalCorrupt(f"{name} is not an SQLite file: use another path if it is not a journal")
    if int.from_bytes(header[68:72], "big") == schema.APPLICATION_ID:
        return
    tables = _table_names(path)
    if not tables and has_log:
        tables = _table_names_in_log(path, log)
    # A file with more than half of our tables is a damaged journal.
    if tables and len(schema.TABLE_NAMES & tables) <= len(schema.TABLE_NAMES) // 2:
        raise JournalError(f"{name} is not a journal but another database: use another path")


def _table_names(path: Path, options: str = "immutable=1") -> set[str]:
    """Return the names in a database's schema. An immutable database is read without its log and without a lock."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)) as database:
        rows: Iterable[tuple[str]] = database.execute("SELECT name FROM sqlite_schema")
        return {name for (name,) in rows}


def _table_names_in_log(path: Path, log: Path) -> set[str]:
    """Return the same for a database whose tables are all in its log."""
    with TemporaryDirectory(prefix="st4sd-async-") as folder:
        copy = Path(folder) / "journal"
        copyfile(path, copy)
        copyfile(log, copy.with_name(f"{copy.name}-wal"))
        return _table_names(copy, "mode=rw")


def is_sqlite_file(path: Path) -> bool:
    """Return whether a file is an SQLite file: a journal, and not a table of launches."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


def modification(path: Path) -> list[tuple[int, int]]:
    """Return the times and sizes of the files of a journal. They differ after each change."""
    found = [path.stat()]
    with suppress(FileNotFoundError):
        found.append(path.with_name(f"{path.name}-wal").stat())
    return [(one.st_mtime_ns, one.st_size) for one in found]


@dataclass(frozen=True)
class Snapshot(Generic[T]):
    """The content of a journal at one moment."""

    server: str
    """URL of the deployment."""
    campaign: str | None
    """The campaign name. None means that the batch has none."""
    records: list[LaunchRecord]
    """The launches, in the order in which they were added."""
    history: Mapping[str, Sequence[StateChange]]
    """key -> the state changes that were noted, in the order of time."""
    reasons: Mapping[str, str]
    """rest-uid -> why it failed, as JSON; see `reasons.to_json`."""
    payload_parts: Mapping[str, T]
    """digest -> a part of the payload. Damaged payloads are left out."""


async def read_snapshot(path: Path) -> Snapshot[Any]:
    """Return the content of a journal that another batch may have open, without payloads; see `read_whole_snapshot`."""
    return await in_thread(partial(_with_copy, path, _read_all))


async def read_whole_snapshot(path: Path, read_payload: Callable[[dict[str, Any]], T]) -> Snapshot[T]:
    """
    Return the content of a journal that another batch may have open.

    The journal is read from a copy, because its owner locks it exclusively. In SQLite's shared mode, other programs
    could change it while a batch runs. That mode also needs shared memory, which network file systems lack.

    Args:
        path: The journal. This process must not have it open, because closing the file would release its locks.
        read_payload: Returns the part of a payload to keep. Called in a worker thread.

    Raises:
        JournalLocked: The owner wrote so often that no copy was consistent.
        JournalError: It is not a journal, has a newer format, or cannot be read.
    """
    return await in_thread(partial(_with_copy, path, partial(_read_all, read_payload=read_payload)))


def read_history(path: Path) -> dict[str, list[StateChange]]:
    """Return key -> the state changes in a journal that this process does not have open. Blocks."""
    return _with_copy(path, lambda name, database: schema.read_history(database.execute(schema.SELECT_MOMENTS)))


def _with_copy(path: Path, read: Callable[[str, sqlite3.Connection], T]) -> T:
    """Return what is read from a copy, given the name of the journal and the copy."""
    name = f"the journal {str(path)!r}"
    try:
        check_is_journal(path, name)
        with _copied(path, name) as copy, closing(sqlite3.connect(copy)) as database:
            return read(name, database)
    except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
        raise_unchained(JournalError(f"{name} cannot be read: {error}"))


def _read_all(
    name: str, database: sqlite3.Connection, *, read_payload: Callable[[dict[str, Any]], T] | None = None
) -> Snapshot[T]:
    facts: dict[str, str] = dict(database.execute("SELECT name, value FROM journal"))
    number = schema.parse_format(name, facts)
    records = [schema.from_row(number, values) for values in database.execute(schema.select_launches(number))]
    for table in (schema.MOMENT_TABLE, schema.REASON_TABLE):  # an old journal may lack them
        database.execute(table)
    history: dict[str, list[StateChange]] = {record.key: [] for record in records}
    history |= schema.read_history(database.execute(schema.SELECT_MOMENTS))
    parts: dict[str, T] = {}
    if read_payload is not None:
        for digest, content in database.execute("SELECT digest, content FROM payload"):
            with suppress(JournalCorrupt):
                parts[digest] = read_payload(schema.parse_payload(name, digest, content))
    reasons = dict(database.execute(schema.SELECT_REASONS).fetchall())
    return Snapshot(facts["server"], facts.get(schema.CAMPAIGN_FACT), records, history, reasons, parts)


@contextmanager
def _copied(path: Path, name: str) -> Generator[Path]:
    """
    Yield a consistent copy of a journal that is being written.

    The owner only appends to the log, and sometimes copies the log into the main file (a checkpoint). SQLite reads only
    complete commits of the log, and prefers the log to the main file. So a copy of the main file and a later copy of
    the log are consistent, unless a new log was begun in between.
    """
    log = path.with_name(f"{path.name}-wal")
    with TemporaryDirectory(prefix="st4sd-async-") as folder:
        copy = Path(folder) / "journal"
        for _ in range(MAX_COPIES):
            log_before = _wal_header(log)
            copyfile(path, copy)
            log_copy = copy.with_name(f"{copy.name}-wal")
            log_copy.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                copyfile(log, log_copy)
            if _wal_header(log) == log_before:
                yield copy
                return
            time.sleep(COPY_PAUSE)
    problem = f"{name} is open elsewhere and changes too fast to be read: try again"
    raise JournalLocked(problem)  # pragma: no cover -- takes a new log, begun every thousand writes, in each copy


def _wal_header(log: Path) -> bytes | None:
    try:
        with log.open("rb") as file:
            return file.read(WAL_HEADER_SIZE)
    except FileNotFoundError:
        return None
