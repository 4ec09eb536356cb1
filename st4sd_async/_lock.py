"""A lock on a file, which ends with its process."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover -- Windows, where SQLite's own lock is of this kind already
    fcntl = None  # type: ignore[assignment] # a module everywhere else


class FileLock:
    """
    An exclusive lock on a file that is made if it is not there.

    SQLite's locks are lost when anything in the same process opens and closes the file, if only to copy it.
    This one is not.
    """

    def __init__(self, path: Path) -> None:
        """Take it; raises BlockingIOError if another has it, and OSError if the file cannot be opened."""
        # Payloads are nobody else's business.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Let it go."""
        os.close(self._descriptor)
