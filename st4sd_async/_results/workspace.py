"""
Files that are not whole yet, and how they get their names; everything here blocks.

They wait in a folder ``.st4sd-*.part`` of the target. A process that works in it holds a lock on it, so what a killed
process left behind can be distinguished from the work of another, and is removed by the next one that works there. On
a file system without such locks nothing is removed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import accumulate, chain, count
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from .._util.file_names import PREFIX, folded, is_reserved, unreserved
from .directory import HAS_DESCRIPTORS, Directory, Tree

try:
    import fcntl
except ImportError:  # pragma: no cover -- on Windows nothing can be locked, so nothing is removed
    fcntl = None  # type: ignore[assignment] # a module everywhere else

SUFFIX = ".part"
"""Of names that begin with `PREFIX`: folders for what is not whole."""
SYNCED = 1 << 20  # bytes; smaller files share one sync of a folder
ATTEMPTS = 100
"""Folders that are made before it is clear that another process takes all of them away."""


class Place(NamedTuple):
    """Where a file belongs."""

    path: str
    """Below the target, with ``/`` between its parts."""
    source: str = ""
    """Where it came from, as it is noted."""


def free(path: str, source: str = "") -> Place:
    """A place of that path, or of one beside it if a name in it is not for downloads."""
    return Place(unreserved(path), source)


class Part(NamedTuple):
    """A whole file that has not its name yet."""

    place: Place
    """Where it belongs."""
    name: str
    """Its name in the workspace."""
    size: int
    """Bytes."""
    sha256: str
    """Of what was written, in hexadecimal."""
    modified: int
    """When it was written, in nanoseconds since 1970."""


class Writer:
    """A new file that is being written, from a beginning that may come again."""

    def __init__(self, folder: Directory, name: str) -> None:
        self._folder = folder
        self._name = name
        self._out: int | None = folder.create(name)
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
        modified = self._folder.stat(self._name).st_mtime_ns  # some file systems set it when a file is closed
        return Part(place, self._name, self.size, self._digest.hexdigest(), modified)

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
    """
    A folder of the target for files that are not whole; it is removed at the end, and the target made if need be.

    Args:
        target: The target.
        is_chosen: Whether the user named the target itself, which may be a link then, and not only the folder of it.
    """

    def __init__(self, target: Path, *, is_chosen: bool = True, uses_descriptors: bool = HAS_DESCRIPTORS) -> None:
        self._path = target
        self._is_chosen = is_chosen
        self._uses_descriptors = uses_descriptors
        self._names = count()
        self._has_moved = False
        self._root: Directory | None = None
        self._folder: Directory | None = None
        self._name = ""

    @property
    def root(self) -> Directory:
        """The target, while the workspace is entered."""
        assert self._root is not None, "it is not entered"
        return self._root

    def __enter__(self) -> Self:
        self._root = self._opened()
        try:
            for name in self._root.names():
                if name.startswith(PREFIX) and name.endswith(SUFFIX):
                    _remove_if_left_behind(self._root, name)
            self._name, self._folder = _made(self._root)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            if self._has_moved:
                self._folder.sync()  # it brings all moves out of the folder to disk
            self.root.remove_tree(self._name)
            self._folder.close()
        if self._root is not None:
            self._root.close()
        self._folder = self._root = None

    def _opened(self) -> Directory:
        chosen = self._path if self._is_chosen else self._path.parent
        chosen.mkdir(parents=True, exist_ok=True)
        opened = Directory.open(str(chosen), uses_descriptors=self._uses_descriptors)
        if self._is_chosen:
            return opened
        with opened, Tree(opened) as tree:
            name = self._path.name
            tree.make(name)
            if problem := tree.obstacle(name, is_folder=True):
                raise FileExistsError(problem)
            return opened.child(name)

    @property
    def _inside(self) -> Directory:
        assert self._folder is not None, "it is not entered"
        return self._folder

    def new(self) -> Writer:
        """Begin another file."""
        return Writer(self._inside, str(next(self._names)))

    def read(self, part: Part) -> BinaryIO:
        """Open a file that has not its name yet."""
        return os.fdopen(self._inside.open_file(part.name, os.O_RDONLY), "rb")

    def remove(self, part: Part) -> None:
        """Remove a file that is not to get a name."""
        self._inside.remove(part.name)

    def place(self, parts: Iterable[Part], folders: Iterable[str] = ()) -> None:
        """
        Move files to their names below the target, in place of files of the same names.

        Large ones are synced to disk one by one; the others share one sync of a folder.

        Raises:
            OSError: Something else is in the way of one of them, or a link, or the name is not for downloads, or two
                of them have the same; then none was moved.
        """
        parts = list(parts)
        paths = [part.place.path for part in parts]
        inner = dict.fromkeys([*folders, *(path.rpartition("/")[0] for path in paths)])
        needed = dict.fromkeys(folder for path in inner for folder in _chain(path))
        with Tree(self.root) as tree:
            twice = (f"{path!r} would be a file and a folder" for path in paths if path in needed)
            reserved = map(_reserved, chain(needed, paths))
            in_the_way = (tree.obstacle(path, is_folder=True) for path in needed)
            files_in_the_way = map(tree.obstacle, paths)
            twins = self._twins(paths).values()
            if problem := next(filter(None, chain(twins, twice, reserved, in_the_way, files_in_the_way)), None):
                raise FileExistsError(problem)
            for path in needed:
                tree.make(path)
            for part in parts:
                if part.size >= SYNCED:
                    _sync(self._inside, part.name)
                self._inside.move(part.name, *tree.parent(part.place.path))
        self._has_moved = self._has_moved or bool(parts)

    def clear(self, paths: Iterable[str]) -> None:
        """Remove files below the target; what is behind a link stays."""
        with Tree(self.root) as tree:
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError):
                    folder, name = tree.parent(path)
                    folder.remove(name)

    def obstacles(self, paths: Iterable[str], known: Iterable[str] = ()) -> dict[str, str]:
        """What is in the way of files, of those of them that something is; files of the known paths are there."""
        paths = list(paths)
        with Tree(self.root) as tree:
            found = {path: _reserved(path) or tree.obstacle(path) for path in paths}
        twins = self._twins([*known, *paths])
        return {path: problem for path, obstacle in found.items() if (problem := obstacle or twins.get(path))}

    def _twins(self, paths: Iterable[str]) -> dict[str, str]:
        """What is wrong with those paths that the file system takes for an earlier one."""
        groups: dict[str, list[str]] = {}
        for path in paths:
            groups.setdefault(folded(path), []).append(path)
        similar = [path for group in groups.values() if len(group) > 1 for path in group]
        found: dict[str, str] = {}
        if not similar:
            return found
        # Only the file system knows what it distinguishes, so it is asked for folders of such names.
        earlier: dict[tuple[int, int], str] = {}
        name = str(next(self._names))
        self._inside.make(name)
        with self._inside.child(name) as folder, Tree(folder) as tree:
            for path in similar:
                with suppress(OSError):  # what cannot be a name is told when it is to be one
                    for one in _chain(path):
                        tree.make(one)
                    made = tree.stat(path)
                    if first := earlier.get(at := (made.st_dev, made.st_ino)):
                        found[path] = f"{path!r} would be in the same place as {first!r}"
                    earlier.setdefault(at, path)
        self._inside.remove_tree(name)
        return found


def _chain(path: str) -> Iterator[str]:
    """A folder and those above it, outer ones first."""
    return accumulate(path.split("/"), "{}/{}".format) if path else iter(())


def _reserved(path: str) -> str | None:
    """Why a path is not for downloads, if it is not; see `free`."""
    is_free = path.isascii() and "st4sd" not in path.lower()
    if is_free or not any(map(is_reserved, path.split("/"))):
        return None
    return f"{path!r} has a name that begins with {PREFIX!r}, which is not for downloads"


def _sync(folder: Directory, name: str) -> None:
    handle = folder.open_file(name, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _made(root: Directory) -> tuple[str, Directory]:
    """A new folder for what is not whole, locked if the file system has locks."""
    for _ in range(ATTEMPTS):
        name = f"{PREFIX}{secrets.token_hex(4)}{SUFFIX}"
        with suppress(FileExistsError, FileNotFoundError):
            root.make(name, 0o700)
            folder = root.child(name)
            # Before it was locked it may have been taken for left behind.
            if _lock(folder) is not False and _is_same(root, name, folder):
                return name, folder
            folder.close()
    raise FileExistsError(f"{root.path!r}: another process removes the folders for what is not whole")


def _is_same(root: Directory, name: str, folder: Directory) -> bool:
    """Whether an open folder still has its name."""
    with suppress(FileNotFoundError):
        return folder.descriptor is None or os.path.samestat(root.stat(name), os.fstat(folder.descriptor))
    return False


def _lock(folder: Directory) -> bool | None:
    """Whether a folder is locked now; None if that cannot be had here. It does not wait."""
    if fcntl is None or folder.descriptor is None:
        return None
    try:
        fcntl.flock(folder.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks, as some network disks
        return None
    return True


def _remove_if_left_behind(root: Directory, name: str) -> None:
    """Remove the folder of a process that has ended; a link or a file of such a name stays."""
    with suppress(OSError), root.child(name) as folder:
        if _lock(folder):
            root.remove_tree(name)
