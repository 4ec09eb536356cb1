"""
Work with files below an open directory. Everything here blocks.

Between a check of a path and its use, another process can replace a folder by a link. So the system never gets a whole
path: each folder is opened from its parent, by name and only if it is not a link, and files are opened, moved and
removed by their names in an open folder.

If the system cannot work from an open folder (Windows), each folder is checked before a path is used.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
FILE = NO_FOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Open a named pipe without waiting for its other end, so that it can be rejected."""
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE
HAS_DESCRIPTORS = {os.open, os.stat, os.mkdir, os.rename, os.unlink, os.rmdir} <= os.supports_dir_fd

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


class Directory:
    """
    An open directory.

    The methods take names of entries, without folders. All of them raise `OSError`, and none follows a link.
    """

    def __init__(self, path: str, descriptor: int | None) -> None:
        self.path = path
        """Its path when it was opened, for messages and for systems without directory descriptors."""
        self.descriptor = descriptor
        """None on systems without directory descriptors."""

    @classmethod
    def open(cls, path: str, *, uses_descriptors: bool = HAS_DESCRIPTORS) -> Self:
        """Open a directory that the user chose. Links in the path are followed."""
        if uses_descriptors:
            return cls(path, os.open(path, FOLDER))
        if not stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 -- as everywhere here
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return cls(path, None)

    def close(self) -> None:
        """Close the directory."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _name(self, name: str) -> str:
        """Return the argument of system functions for an entry."""
        if name in ("", ".", "..") or "/" in name:
            raise OSError(errno.EINVAL, "not the name of an entry", name)
        return name if self.descriptor is not None else f"{self.path}/{name}"

    def child(self, name: str) -> Directory:
        """Open a subdirectory."""
        at = self._name(name)
        if self.descriptor is not None:
            return Directory(f"{self.path}/{name}", os.open(at, FOLDER | NO_FOLLOW, dir_fd=self.descriptor))
        if not stat.S_ISDIR(os.lstat(at).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), at)
        return Directory(at, None)

    def names(self) -> list[str]:
        """Return the names of all entries."""
        return os.listdir(self.path if self.descriptor is None else self.descriptor)  # noqa: PTH208 -- as everywhere here

    def stat(self, name: str) -> os.stat_result:
        """Return the status of an entry."""
        return os.lstat(self._name(name), dir_fd=self.descriptor)

    def make(self, name: str, mode: int = 0o777) -> None:
        """Create a subdirectory."""
        os.mkdir(self._name(name), mode, dir_fd=self.descriptor)

    def create(self, name: str) -> int:
        """Create a file and open it for writing."""
        return os.open(self._name(name), NEW, 0o666, dir_fd=self.descriptor)

    def open_file(self, name: str, flags: int) -> int:
        """
        Open a regular file without waiting.

        Raises:
            FileExistsError: The entry is something else: a link, a named pipe, a device.
        """
        try:
            handle = os.open(self._name(name), flags | FILE, 0o666, dir_fd=self.descriptor)
        except FileNotFoundError:
            raise
        except OSError as error:  # for instance for a link, or a pipe without a reader
            _check_regular(name, self.stat(name).st_mode, error)
            raise
        try:
            _check_regular(name, os.fstat(handle).st_mode)
        except OSError:
            os.close(handle)
            raise
        return handle

    def move(self, name: str, into: Directory, new: str) -> None:
        """Move an entry to another directory. It replaces a file of the new name."""
        os.replace(self._name(name), into._name(new), src_dir_fd=self.descriptor, dst_dir_fd=into.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with suppress(FileNotFoundError):
            os.unlink(self._name(name), dir_fd=self.descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a subdirectory and its content, as far as possible."""
        with suppress(OSError, RecursionError):
            shutil.rmtree(self._name(name), ignore_errors=True, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Sync the names of entries to disk, if the file system can."""
        if self.descriptor is not None:
            with suppress(OSError):
                os.fsync(self.descriptor)


class Tree:
    """
    Finds entries by their paths below a directory. Not safe to share between threads.

    The folders on the path of the last entry stay open, so that its neighbours are found quickly.
    """

    def __init__(self, root: Directory) -> None:
        self._chain = [root]
        self._names: list[str] = []
        self._folder = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(0)

    def _leave(self, depth: int) -> None:
        while len(self._names) > depth:
            self._names.pop()
            self._chain.pop().close()

    def folder(self, path: str) -> Directory:
        """
        Return the folder at a path, open until the next call; ``""`` is the directory itself.

        Raises:
            FileNotFoundError: There is no such folder.
            NotADirectoryError: A part of the path is a link or not a folder.
        """
        if path == self._folder:
            return self._chain[-1]
        parts = path.split("/") if path else []
        depth = 0
        while depth < min(len(parts), len(self._names)) and parts[depth] == self._names[depth]:
            depth += 1
        self._leave(depth)
        self._folder = "/".join(self._names)
        for name in parts[depth:]:
            try:
                folder = self._chain[-1].child(name)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                reached = "/".join([*self._names, name])
                problem = _obstacle(reached, self._chain[-1].stat(name).st_mode, stat.S_IFDIR)
                raise NotADirectoryError(problem or f"{reached!r} was changed at the same time") from error
            self._chain.append(folder)
            self._names.append(name)
            self._folder = "/".join(self._names)
        return self._chain[-1]

    def parent(self, path: str) -> tuple[Directory, str]:
        """Return the folder of an entry and its name there; raises as `folder`."""
        folder, _, name = path.rpartition("/")
        return self.folder(folder), name

    def stat(self, path: str) -> os.stat_result:
        """Return the status of an entry; raises as `folder`."""
        folder, name = self.parent(path)
        return folder.stat(name)

    def obstacle(self, path: str, *, is_folder: bool = False) -> str | None:
        """Return why a file (or folder) cannot be stored at a path; None if it can."""
        try:
            mode = self.stat(path).st_mode
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            return str(error)
        except OSError as error:  # for instance a name that is too long, or a folder of another user
            return f"{path!r} cannot be in the target: {error.strerror}"
        return _obstacle(path, mode, stat.S_IFDIR if is_folder else stat.S_IFREG)

    def obstacles(self, paths: Iterable[str]) -> Iterator[str | None]:
        """Yield what `obstacle` returns for each file; neighbours in a folder that is missing are not looked for."""
        missing = None
        for path in paths:
            folder = path.rpartition("/")[0]
            if folder != missing:
                try:
                    self.folder(folder)
                except FileNotFoundError:
                    missing = folder
                except OSError:
                    pass  # it is the obstacle of each of its files
            yield None if folder == missing else self.obstacle(path)

    def make(self, path: str) -> None:
        """Create a folder if it is missing. Its parent must exist."""
        folder, name = self.parent(path)
        with suppress(FileExistsError):
            folder.make(name)


def _check_regular(name: str, mode: int, cause: OSError | None = None) -> None:
    """Raise FileExistsError unless a mode is that of a regular file."""
    if problem := _obstacle(name, mode, stat.S_IFREG):
        raise FileExistsError(problem) from cause


def _obstacle(path: str, mode: int, right: int) -> str | None:
    kind = stat.S_IFMT(mode)
    if kind == right:
        return None
    problem = f"{path!r} is in the target already, as {_KINDS.get(kind, 'a device')}"
    if kind == stat.S_IFLNK:
        return f"{problem}, and links in it are not followed: put {_KINDS[right]} in its place, or use another target"
    return f"{problem}, where {_KINDS[right]} belongs"
