"""
What was downloaded into a folder and from where, so that it is not fetched again; everything here blocks.

A line is written when files are whole, before they get their names. It counts if all of them are there under their
names as they were then: whoever was killed in between, or changed one of them, fetches them again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pydantic

from ._workspace import PREFIX, Part
from ._zip import Hostile, checked

NAME = f"{PREFIX}downloads.jsonl"
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
APPEND |= getattr(os, "O_NOFOLLOW", 0)  # a link would lead out of the folder


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

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[str, list[Kept]]] = {}
        self._owners: dict[str, str] = {}
        """path -> where the file came from that got this name last."""
        try:
            lines = (folder / NAME).read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
        for line in lines:
            with suppress(ValueError):  # a line that a crash has torn, or that is not ours
                self._learn(*_LINE.validate_json(line))

    def _learn(self, origin: Origin, kept: list[Kept]) -> None:
        self._known[origin.source] = origin.stamp, kept
        self._owners.update(dict.fromkeys((one.path for one in kept), origin.source))

    def complete(self, origin: Origin) -> list[Kept]:
        """The files that came from there, if all of them are there as they were; [] if not."""
        stamp, kept = self._known.get(origin.source, ("", []))
        is_ours = stamp == origin.stamp and all(self._owners[one.path] == origin.source for one in kept)
        return kept if is_ours and all(map(self._is_there, kept)) else []

    def untouched(self, source: str) -> set[str]:
        """The paths of files that came from there last, in whatever version, and are as they were."""
        _, kept = self._known.get(source, ("", []))
        return {one.path for one in kept if self._owners[one.path] == source and self._is_there(one)}

    def of_others(self, arrived: Iterable[tuple[Origin, Iterable[Part]]]) -> set[str]:
        """Where other files came from that are in the places of these, and are as they were."""
        places = {part.place.path: origin.source for origin, parts in arrived for part in parts}
        others = {self._owners[path] for path, source in places.items() if self._owners.get(path, source) != source}
        return {one for one in others if self.untouched(one)}

    def _is_there(self, kept: Kept) -> bool:
        try:
            found = os.lstat(f"{self._folder}/{checked(kept.path)}")
        except (OSError, ValueError, Hostile):
            return False
        return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (kept.size, kept.modified)

    def note(self, arrived: Iterable[tuple[Origin, Iterable[Part]]]) -> None:
        """Write down what is whole and about to get its name."""
        lines = [b""]  # so that a line that was torn stays alone
        for origin, parts in arrived:
            files = [Kept(*part.place, part.size, part.sha256, part.file.stat().st_mtime_ns) for part in parts]
            self._learn(origin, files)
            lines.append(_LINE.dump_json((origin, files)))
        handle = os.open(self._folder / NAME, APPEND, 0o666)
        try:
            os.write(handle, b"\n".join([*lines, b""]))
        finally:
            os.close(handle)
