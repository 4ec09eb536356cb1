"""Lock files. A lock ends with its process."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover -- Windows
    fcntl = None  # type: ignore[assignment] # a module everywhere else

UNSUPPORTED = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Errors of flock on a file system without locks, such as some network file systems."""

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class LocksUnsupported(OSError):
    """The system, or the file system that the file is on, has no file locks."""


class FileLock:
    """
    An exclusive lock on a regular file, which is created if it is missing.

    SQLite's locks are lost if anything in the same process opens and closes the file, for instance to copy it.
    This lock is not. It is the process's own: a forked child does not have it, and does not keep it.
    """

    def __init__(self, path: Path) -> None:
        """
        Take the lock.

        Raises:
            BlockingIOError: Another process, or another lock in this process, has it.
            LocksUnsupported: There are no file locks here.
            OSError: The file cannot be opened, or is not a regular file.
        """
        # Payloads are private. A FIFO must not block.
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
        try:
            if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            lock_descriptor(self.descriptor)
        except BaseException:
            os.close(self.descriptor)
            raise
        _held.add(self)

    def release(self) -> None:
        """Release the lock."""
        _held.discard(self)
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def lock_descriptor(descriptor: int) -> None:
    """
    Lock an open file or folder until its descriptor is closed, without waiting.

    Raises:
        BlockingIOError: It is locked through another descriptor.
        LocksUnsupported: There are no file locks here.
    """
    if fcntl is None:
        raise LocksUnsupported(errno.ENOSYS, "this system has no file locks")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            raise LocksUnsupported(error.errno, error.strerror) from None
        raise


def is_locked(path: Path) -> bool:
    """Return whether another process, or another lock in this process, has locked a file. False without file locks."""
    with path.open("rb") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _drop_after_fork() -> None:
    """Close the descriptors that a child got: a lock lasts until the last copy of its descriptor is closed."""
    for lock in list(_held):
        with suppress(OSError):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_after_fork)
