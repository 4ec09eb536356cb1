"""
What was downloaded into a folder and from where, so that it is not fetched again; everything here blocks.

A line is written when files are whole, before they get their names. It counts if all of them are there under their
names as they were then: whoever was killed in between, or changed one of them, fetches them again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import pydantic

from .._util.file_names import PREFIX, folded, unreserved
from .directory import Directory, Tree
from .unsafe_zip import Hostile, checked
from .workspace import Part

NAME = f"{PREFIX}downloads.jsonl"
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
LARGEST = 1 << 28
"""Bytes of a file that is read: a million downloads. Another user may leave one of any size."""


class Origin(NamedTuple):
    """Where files come from."""

    source: str
    """The file or folder, as ``file://cluster/workdir/demo.instance/stages/stage0/Compute``."""
    stamp: str = ""
    """What else must be the same for them to be the same: a version, how they are stored."""


class Kept(NamedTuple):
    """A file as it was when it was whole."""

    path: str
    """Below the folder, with ``/`` between its parts."""
    source: str
    """Where it came from."""
    size: int
    """Bytes."""
    sha256: str
    """Of its content, in hexadecimal."""
    modified: int
    """Nanoseconds since 1970."""


_LINE: pydantic.TypeAdapter[tuple[Origin, list[Kept]]] = pydantic.TypeAdapter(
    tuple[Origin, list[Kept]], config=pydantic.ConfigDict(defer_build=True)
)


class Ledger:
    """The lines of one folder, in the hidden file ``.st4sd-downloads.jsonl``; several processes may add to it."""

    def __init__(self, folder: Directory) -> None:
        """
        Read the lines that are there.

        Raises:
            OSError: What has the name of the file is none, but a link or a named pipe; or it is too large.
        """
        self._folder = folder
        self._known: dict[str, tuple[str, list[Kept]]] = {}
        self._owners: dict[str, str] = {}
        """path -> where the file came from that got this name last."""
        for line in _content(folder).split(b"\n"):
            with suppress(ValueError):  # a line that a crash has torn, or that is not ours
                self._learn(*_LINE.validate_json(line))

    def _learn(self, origin: Origin, kept: list[Kept]) -> None:
        self._known[origin.source] = origin.stamp, kept
        self._owners.update(dict.fromkeys((one.path for one in kept), origin.source))

    def complete(self, origins: Iterable[Origin]) -> list[list[Kept]]:
        """The files of each origin, if all of them are there as they were; [] if not."""
        with Tree(self._folder) as tree:
            return [self._complete(tree, origin) for origin in origins]

    def _complete(self, tree: Tree, origin: Origin) -> list[Kept]:
        stamp, kept = self._known.get(origin.source, ("", []))
        is_ours = stamp == origin.stamp and all(self._owners[one.path] == origin.source for one in kept)
        return kept if is_ours and all(_is_there(tree, one) for one in kept) else []

    def latest(self, source: str) -> list[Kept]:
        """The files that came from there last, in whatever version, and were not replaced by others."""
        _, kept = self._known.get(source, ("", []))
        return [one for one in kept if self._owners[one.path] == source]

    def untouched(self, kept: Iterable[Kept]) -> list[Kept]:
        """Those of some files that are there as they were; what is behind a link is not."""
        with Tree(self._folder) as tree:
            return [one for one in kept if _is_there(tree, one)]

    def similar(self, paths: Iterable[str]) -> list[str]:
        """Other files that are there as they were, and that some file system takes for one of these."""
        paths = set(paths)
        forms = set(map(folded, paths))
        others = {path for path in self._owners if forms and path not in paths and folded(path) in forms}
        sources = {self._owners[path] for path in others}
        kept = (one for source in sources for one in self.latest(source) if one.path in others)
        return [one.path for one in self.untouched(kept)]

    def of_others(self, arrived: Iterable[tuple[Origin, Iterable[Part]]]) -> set[str]:
        """Where other files came from that are in the places of these, and are as they were."""
        places = {part.place.path: origin.source for origin, parts in arrived for part in parts}
        others = {self._owners[path] for path, source in places.items() if self._owners.get(path, source) != source}
        return {one for one in others if self.untouched(self.latest(one))}

    def note(self, arrived: Iterable[tuple[Origin, Iterable[Part]]]) -> None:
        """Write down what is whole and about to get its name."""
        lines = [b""]  # so that a line that was torn stays alone
        for origin, parts in arrived:
            files = [Kept(*part.place, part.size, part.sha256, part.modified) for part in parts]
            self._learn(origin, files)
            lines.append(_LINE.dump_json((origin, files)))
        handle = self._folder.open_file(NAME, APPEND)
        try:
            if os.fstat(handle).st_nlink > 1:  # it may be a file of the user elsewhere, or belong to a backup
                lines.insert(0, _content(self._folder))
                self._folder.remove(NAME)
                os.close(handle)
                handle = self._folder.open_file(NAME, APPEND)
            os.write(handle, b"\n".join([*lines, b""]))
        finally:
            os.close(handle)


def _content(folder: Directory) -> bytes:
    try:
        handle = folder.open_file(NAME, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    with os.fdopen(handle, "rb") as file:
        if os.fstat(handle).st_size > LARGEST:
            raise OSError(errno.EFBIG, f"it has more than {LARGEST} bytes: remove it", NAME)
        return file.read()


def _is_there(tree: Tree, kept: Kept) -> bool:
    try:
        if unreserved(checked(kept.path)) != kept.path:
            return False
        found = tree.stat(kept.path)
    except (OSError, ValueError, Hostile):
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (kept.size, kept.modified)
