"""A lock on a file: exclusive, and gone with its process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from st4sd_async._util import file_lock as _lock
from st4sd_async._util.file_lock import FileLock, LocksUnsupported


def test_a_lock_is_exclusive_until_it_is_released(tmp_path: Path) -> None:
    """In one process too; and releasing it twice does no harm."""
    lock = FileLock(tmp_path / "file")
    with pytest.raises(BlockingIOError):
        FileLock(tmp_path / "file")
    lock.release()
    lock.release()

    FileLock(tmp_path / "file").release()


FORKING = """
import os, signal, sys
from pathlib import Path
from st4sd_async._util.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    os.close(1)
    signal.pause()
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_living_forked_child_does_not_keep_a_lock(tmp_path: Path) -> None:
    """The process that took it was killed; its child goes on."""
    parent = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path / "file")], stdout=subprocess.PIPE, text=True, check=False
    )
    child = int(parent.stdout)
    try:
        FileLock(tmp_path / "file").release()
    finally:
        os.kill(child, 9)


@pytest.mark.parametrize("kind", ["folder", "FIFO"])
def test_only_a_regular_file_can_be_locked(tmp_path: Path, kind: str) -> None:
    """Nothing blocks."""
    path = tmp_path / "file"
    path.mkdir() if kind == "folder" else os.mkfifo(path)

    with pytest.raises(OSError, match=r"Is a directory|not a regular file"):
        FileLock(path)


class NoLocks:
    """The module `fcntl` on a file system without locks."""

    LOCK_EX, LOCK_NB = 2, 4

    def __init__(self, number: int) -> None:
        self.number = number

    def flock(self, descriptor: int, operation: int) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "no fcntl"])
def test_a_file_system_without_locks_is_distinguished_from_a_lock_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing else than the file system's answer is replaced, which needs a special mount otherwise."""
    monkeypatch.setattr(_lock, "fcntl", None if name == "no fcntl" else NoLocks(getattr(errno, name)))

    with pytest.raises(LocksUnsupported):
        FileLock(tmp_path / "file")
