"""What a journal says while another batch has it open: read from a copy, because its owner shares it with nobody."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from .._errors import JournalError, JournalLocked
from .._util.threads import in_thread
from . import records
from .state import Row

TRIES, PAUSE = 40, 0.05
"""How often a copy is made before it is given up, and seconds between two; its owner spoils one in thousands."""
HEADER = 32
"""Bytes at the beginning of the log that are others in each new log. Source: "WAL Header" in SQLite's file format."""


async def glance(path: Path) -> list[Row]:
    """
    The launches of a journal as they were written down last, in the order in which they were added.

    What is being sent is told as such. Nothing is changed, and whoever has the journal open does not notice.

    Raises:
        JournalLocked: It was written to so fast that it could not be read.
        JournalError: It is none, is too new, or cannot be read.
    """
    return await in_thread(_read, path)


def _read(path: Path) -> list[Row]:
    name = f"the journal {str(path)!r}"
    try:
        with copied(path, name) as copy, closing(sqlite3.connect(copy)) as database:
            number = records.format_of(name, dict(database.execute("SELECT name, value FROM journal")))
            return [records.read(number, values) for values in database.execute(records.selecting(number))]
    except (sqlite3.Error, ValueError, TypeError) as error:
        problem = f"{name} cannot be read while it is open elsewhere: {error}"
    raise JournalError(problem)


@contextmanager
def copied(path: Path, name: str) -> Generator[Path]:
    """
    A copy of a journal that is being written.

    Its owner only appends to the log, and now and then writes what is in the log into the journal too. SQLite
    believes whole commits of the log, and the log more than the journal. So a journal that was copied in the
    middle of anything is whole with the log that was copied after it, unless a new log was begun meanwhile.
    """
    log = path.with_name(f"{path.name}-wal")
    with TemporaryDirectory(prefix="st4sd-async-") as folder:
        copy = Path(folder) / "journal"
        for _ in range(TRIES):
            began = _header(log)
            copyfile(path, copy)
            copy_of_log = copy.with_name(f"{copy.name}-wal")
            copy_of_log.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                copyfile(log, copy_of_log)
            if _header(log) == began:
                yield copy
                return
            time.sleep(PAUSE)
    problem = f"{name} is open elsewhere, and written to so fast that it cannot be read: look again"
    raise JournalLocked(problem)  # pragma: no cover -- takes a new log, begun every thousand writes, in each copy


def _header(log: Path) -> bytes | None:
    try:
        with log.open("rb") as file:
            return file.read(HEADER)
    except FileNotFoundError:
        return None
