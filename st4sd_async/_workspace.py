"""
Files that are not whole yet, and how they get their names; everything here blocks.

They wait in a folder ``.st4sd-*.part`` of the target. Who works in it holds a lock on it, so that what a killed
process left behind can be told from what another one is at, and is removed by the next that works there.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import accumulate, chain, count
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple, Self

try:
    import fcntl
except ImportError:  # pragma: no cover -- on Windows nothing can be told, so nothing is removed
    fcntl = None  # type: ignore[assignment] # a module everywhere else

PREFIX, SUFFIX = ".st4sd-", ".part"
"""Of names in a target that are not for downloads."""
SYNCED = 1 << 20  # bytes; smaller files share one sync of a folder
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class Place(NamedTuple):
    """Where a file belongs."""

    path: str
    """Below the target, with ``/`` between its parts."""
    source: str = ""
    """Where it came from, as it is noted."""


def free(path: str, source: str) -> Place:
    """A place of that path, or of one beside it if the name is not for downloads."""
    return Place(f"_{path}" if path.startswith(PREFIX) else path, source)


class Part(NamedTuple):
    """A whole file that has not its name yet."""

    place: Place
    """Where it belongs."""
    file: Path
    """Where it is."""
    size: int
    """Bytes."""
    sha256: str
    """Of what was written, in hexadecimal."""


class Writer:
    """A new file that is being written, from a beginning that may come again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._out: int | None = os.open(file, NEW, 0o666)
        self._digest = sha256()
        self.size = 0
        """Bytes that were written."""

    def restart(self) -> None:
        """Forget what was written."""
        assert self._out is not None
        os.truncate(self._out, 0)
        os.lseek(self._out, 0, os.SEEK_SET)
        self._digest = sha256()
        self.size = 0

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append some pieces."""
        assert self._out is not None
        for piece in pieces:
            self._digest.update(piece)
            self.size += len(piece)
            written = os.write(self._out, piece)
            while written < len(piece):
                written += os.write(self._out, memoryview(piece)[written:])

    def finish(self, place: Place) -> Part:
        """Close the file, which is whole."""
        self.close()
        return Part(place, self._file, self.size, self._digest.hexdigest())

    def close(self) -> None:
        """Close the file, whole or not."""
        if self._out is not None:
            os.close(self._out)
        self._out = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Workspace:
    """A folder of the target for files that are not whole; it is removed at the end, and the target made if need be."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._names = count()
        self._has_moved = False
        self._folder: Path | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self._target.mkdir(parents=True, exist_ok=True)
        for entry in self._target.glob(f"{PREFIX}*{SUFFIX}"):
            _remove_if_left_behind(entry)
        while self._folder is None:
            folder = Path(mkdtemp(SUFFIX, PREFIX, self._target))
            self._lock = _open(folder)
            if fcntl is not None and self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            if folder.exists():
                self._folder = folder
            else:  # it was taken for left behind before it was locked
                self._close()
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_moved and self._lock is not None:
            with suppress(OSError):  # not all file systems can; it brings all moves out of the folder to disk
                os.fsync(self._lock)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._close()

    def _close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def new(self) -> Path:
        """Where another file may be written."""
        assert self._folder is not None, "it is not entered"
        return self._folder / str(next(self._names))

    def place(self, parts: Iterable[Part], folders: Iterable[str] = ()) -> None:
        """
        Move files to their names below the target, in place of files of the same names.

        Large ones are synced to disk one by one; the others share one sync of a folder.

        Raises:
            OSError: Something else is in the way of one of them, or a link; then none was moved.
        """
        parts = list(parts)
        inner = dict.fromkeys([*folders, *(part.place.path.rpartition("/")[0] for part in parts)])
        needed = dict.fromkeys(folder for path in inner for folder in _chain(path))
        folders_in_the_way = (self._other(path, stat.S_ISDIR) for path in needed)
        files_in_the_way = (self._other(part.place.path) for part in parts)
        if obstacle := next(filter(None, chain(folders_in_the_way, files_in_the_way)), None):
            raise FileExistsError(obstacle)
        for path in needed:
            (self._target / path).mkdir(exist_ok=True)
        for part in parts:
            if part.size >= SYNCED:
                _sync(part.file)
            os.replace(part.file, f"{self._target}/{part.place.path}")  # noqa: PTH105 -- a path object takes as long as the move
        self._has_moved = self._has_moved or bool(parts)

    def obstacles(self, paths: Iterable[str]) -> dict[str, str]:
        """What in the target is in the way of files, of those of them that something is."""
        folders: dict[str, str | None] = {"": None}
        found = {}
        for path in paths:
            folder = path.rpartition("/")[0]
            if folder not in folders:
                others = (self._other(one, stat.S_ISDIR) for one in _chain(folder))
                folders[folder] = next(filter(None, others), None)
            if obstacle := folders[folder] or self._other(path):
                found[path] = obstacle
        return found

    def _other(self, path: str, is_right: Callable[[int], bool] = stat.S_ISREG) -> str | None:
        with suppress(FileNotFoundError):
            if not is_right(os.lstat(f"{self._target}/{path}").st_mode):
                return f"{path!r} is in the target already, as a link or something else"
        return None


def _chain(path: str) -> Iterator[str]:
    """A folder and those above it, outer ones first."""
    return accumulate(path.split("/"), "{}/{}".format) if path else iter(())


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open(folder: Path) -> int | None:
    """A handle on a folder, where the system has such."""
    with suppress(OSError):
        return os.open(folder, os.O_RDONLY)
    return None


def _remove_if_left_behind(folder: Path) -> None:
    """Remove the folder of somebody who is no more."""
    handle = _open(folder)
    if fcntl is None or handle is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # somebody works there
        pass
    finally:
        os.close(handle)
