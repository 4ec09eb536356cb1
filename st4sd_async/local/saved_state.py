"""
The state of a server in a folder: tables in a SQLite file.

Each change is one transaction, written before the response to the request that makes it. So the file is complete
whenever the process is killed. The file contains keys and passwords; only its owner can read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections import UserDict
from collections.abc import Generator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from st4sd_async.local.state import State, StateError

FILE = "state.sqlite"
"""Name of the file in the folder of a state."""
VERSION = 1
"""Version of the tables, in ``user_version`` of the file."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    UNIQUE (name, key)
)
"""
_PUT = (
    "INSERT INTO entries (name, key, value) VALUES (?, ?, ?) ON CONFLICT (name, key) DO UPDATE SET value=excluded.value"
)


class SavedState(State):
    """The state in a folder, which one server at a time may use. Safe to use from any thread."""

    is_saved = True

    def __init__(self, folder: Path) -> None:
        """
        Open the state, and create it if it is missing.

        Raises:
            StateError: Another server uses the folder, or the file cannot be read.
        """
        self.folder = folder
        self._lock = threading.RLock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)  # the folder may exist already, or the umask may have removed bits
            self._connection: sqlite3.Connection | None = _connect(folder / FILE)
        except (OSError, sqlite3.Error, StateError) as error:
            raise _explained(error, folder) from error

    def table(self, name: str) -> MutableMapping[Any, Any]:
        """Return a table, whose changes are saved at once; see `State.table`."""
        return _Table(self, name)

    def rows(self, name: str) -> Iterator[tuple[Any, Any]]:
        """Return the rows of a table; see `State.rows`."""
        try:
            rows = self._execute("SELECT key, value FROM entries WHERE name = ? ORDER BY position", name)
            return iter([(_key(json.loads(key)), json.loads(value)) for key, value in rows])
        except (sqlite3.Error, ValueError) as error:
            raise _explained(error, self.folder) from error

    def put(self, name: str, key: Any, value: Any) -> None:
        """Set a value of a table."""
        self._execute(_PUT, name, json.dumps(key), json.dumps(value, default=str))

    def delete(self, name: str, key: Any) -> None:
        """Delete a row of a table."""
        self._execute("DELETE FROM entries WHERE name = ? AND key = ?", name, json.dumps(key))

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """Save all changes of the block, or none; other threads wait."""
        with self._lock:
            if self._connection is None or self._connection.in_transaction:  # a part of an outer block
                yield
                return
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                yield

    def close(self) -> None:
        """Close the file, so that another server can use the folder."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _execute(self, statement: str, *values: str) -> list[tuple[str, str]]:
        with self._lock:
            # The threads of runs that are killed while the server closes may come too late.
            return [] if self._connection is None else self._connection.execute(statement, values).fetchall()


class _Table(UserDict[Any, Any]):
    """A dictionary whose changes are saved."""

    def __init__(self, state: SavedState, name: str) -> None:
        super().__init__()
        self.data = dict(state.rows(name))
        self._state = state
        self._name = name

    def __setitem__(self, key: Any, value: Any) -> None:
        self._state.put(self._name, key, value)
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        if key in self.data:
            self._state.delete(self._name, key)
        super().__delitem__(key)


def _key(value: Any) -> Any:
    """Return a key as it was set; JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _connect(file: Path) -> sqlite3.Connection:
    """Return a connection that locks a file until it is closed."""
    # Closing a file that exists would release the locks of another server in this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    file.chmod(0o600)
    connection = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # With this mode, the kernel releases the lock if the process is killed, and there is no shared memory file.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise StateError(f"it has the format {version}, not {VERSION}")
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _explained(error: Exception, folder: Path) -> StateError:
    """Return the error to raise for a state that cannot be opened or read."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
        return StateError(f"the state in {str(folder)!r} is in use by another server: stop it, or use another folder")
    return StateError(
        f"the state in {str(folder)!r} cannot be read: {error}; use another folder, or move this one away"
    )
