"""
The state of a server: tables that survive a restart if the state is saved.

``saved_state.py`` has the state in a folder. It is another module because SQLite takes milliseconds to import.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, MutableMapping
from typing import Any


class StateError(Exception):
    """The state in a folder is in use, was written by another engine or version, or cannot be read."""


class State:
    """The state of a server that keeps nothing; its tables are plain dictionaries."""

    is_saved = False
    """Whether the tables survive a restart."""

    def table(self, _name: str) -> MutableMapping[Any, Any]:
        """
        Return a table.

        Keys are strings or tuples, values are JSON. A value that was changed in place must be set again.
        """
        return {}

    def rows(self, _name: str) -> Iterable[tuple[Any, Any]]:
        """Return the keys and values of a table in the order of their first insertion, without keeping them."""
        return ()

    def put(self, _name: str, _key: Any, _value: Any) -> None:
        """Set a value of a table, without keeping it in memory."""

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """Save all changes of the block, or none if it fails or the process is killed."""
        yield

    def close(self) -> None:
        """Close the file. Later changes are not saved."""
