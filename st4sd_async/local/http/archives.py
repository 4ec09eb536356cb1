"""
Files and folders as streams of bytes, with the peculiarities of the services' own archives.

However large they are, little of them is in memory at a time.
"""

from __future__ import annotations

import tempfile
import time
import weakref
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

PIECE = 256 * 1024
"""Bytes that are read, and about as many that are sent, at a time."""
FASTEST = 1
"""The services compress at level 9, which makes the same kind of archive more slowly."""
_DOS_EPOCH = 315_532_800.0
"""1980, the earliest time of an archive, in seconds."""


def read_file(path: Path) -> Iterator[bytes]:
    """The content of a file."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a folder and what the services call them, which begins with a slash; empty folders are lost."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"/{path.relative_to(folder).as_posix()}", path


def zipped(members: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """
    An archive, whose first bytes come at once: every member has zip64 sizes and a data descriptor.

    Raises:
        OSError: In the middle of it, if a member cannot be read.
    """
    sink, wanted = _Sink(), 1
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]  # a file that is written needs no more
        for name, path in members:
            member = zipfile.ZipInfo(name, time.localtime(max(path.stat().st_mtime, _DOS_EPOCH))[:6])
            member.compress_type = zipfile.ZIP_DEFLATED
            member._compresslevel = FASTEST  # type: ignore[attr-defined]  # has no public name before Python 3.13
            with archive.open(member, "w", force_zip64=True) as target:
                for piece in read_file(path):
                    target.write(piece)
                    if sink.pending >= wanted:
                        wanted = PIECE
                        yield sink.take()
            # Else Python would warn of names that come twice, as the services let them.
            archive.NameToInfo.clear()
    yield sink.take()


def spooled(pieces: Iterable[bytes]) -> tuple[Iterator[bytes], int]:
    """The same bytes, all of which were made and wait on disk, and how many they are."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as what reads it
    stream = (piece for piece in iter(lambda: file.read(PIECE), b""))
    weakref.finalize(stream, file.close)
    length = sum(file.write(piece) for piece in pieces)
    file.seek(0)
    return stream, length


class _Sink:
    """A file that can only be written to, which makes the archive carry data descriptors, and can be emptied."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.pending = 0
        """Bytes that were not taken yet."""

    def write(self, piece: bytes) -> int:
        self._pieces.append(piece)
        self.pending += len(piece)
        return len(piece)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        """All that were not taken yet."""
        taken = b"".join(self._pieces)
        self._pieces, self.pending = [], 0
        return taken
