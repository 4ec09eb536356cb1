"""Whether a file is a journal, found out without a change to it: it may be another program's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from .._errors import JournalCorrupt, JournalError
from .records import APPLICATION, TABLE_NAMES

MAGIC = b"SQLite format 3\0"
HEADER = 100
"""Bytes of SQLite's header. Source: "The Database Header" in SQLite's file format."""
SMALLEST = 512
"""Bytes of the smallest SQLite file: one page."""


def check_file(path: Path, name: str) -> None:
    """
    Check that a file is a journal, or empty.

    Raises:
        JournalError: It is another program's database.
        JournalCorrupt: It is no SQLite file, or a journal that is damaged.
        sqlite3.Error: It cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(HEADER)
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    if not header and not has_log:
        return
    if not header.startswith(MAGIC) or path.stat().st_size < SMALLEST or max(header[18:20]) > 2:
        raise JournalCorrupt(f"{name} is no SQLite file: give another path if it is not a journal")
    if int.from_bytes(header[68:72], "big") == APPLICATION:
        return
    tables = _tables(path)
    if not tables and has_log:
        tables = _tables_of_copy(path, log)
    # Half of our tables are a journal that is damaged.
    if tables and len(TABLE_NAMES & tables) <= len(TABLE_NAMES) // 2:
        raise JournalError(f"{name} is no journal but another database: give another path")


def _tables(path: Path, how: str = "immutable=1") -> set[str]:
    """Names in a database's schema; an immutable one is read without its log, and without a lock."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as database:
        found: Iterable[tuple[str]] = database.execute("SELECT name FROM sqlite_schema")
        return {name for (name,) in found}


def _tables_of_copy(path: Path, log: Path) -> set[str]:
    """The same of one whose tables are all in its log."""
    with TemporaryDirectory(prefix="st4sd-async-") as folder:
        copy = Path(folder) / "journal"
        copyfile(path, copy)
        copyfile(log, copy.with_name(f"{copy.name}-wal"))
        return _tables(copy, "mode=rw")
