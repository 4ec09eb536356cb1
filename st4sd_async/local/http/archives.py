"""
Files and folders as streams of bytes, with the peculiarities of the services' zip archives.

Only a small part is in memory at a time, however large they are.
"""

from __future__ import annotations

import tempfile
import time
import weakref
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

CHUNK_SIZE = 256 * 1024
"""Bytes read at a time; about as many are sent at a time."""
COMPRESSION_LEVEL = 1
"""The fastest. The services use level 9, which gives the same kind of archive more slowly."""
_DOS_EPOCH = 315_532_800.0
"""The earliest time in a zip archive: 1980, in Unix seconds."""


def read_file(path: Path) -> Iterator[bytes]:
    """Yield the content of a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_SIZE):
            yield chunk


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder and their names in an archive, with a leading slash. Empty folders are lost."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"/{path.relative_to(folder).as_posix()}", path


def zipped(members: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """
    Yield a zip archive whose members have zip64 sizes and data descriptors; the first bytes come at once.

    Raises:
        OSError: A member cannot be read; part of the archive was yielded already.
    """
    sink, min_size = _Sink(), 1
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]  # a file to write to needs no other methods
        for name, path in members:
            member = zipfile.ZipInfo(name, time.localtime(max(path.stat().st_mtime, _DOS_EPOCH))[:6])
            member.compress_type = zipfile.ZIP_DEFLATED
            member._compresslevel = COMPRESSION_LEVEL  # type: ignore[attr-defined]  # no public name before Python 3.13
            with archive.open(member, "w", force_zip64=True) as target:
                for chunk in read_file(path):
                    target.write(chunk)
                    if sink.pending >= min_size:
                        min_size = CHUNK_SIZE
                        yield sink.take()
            # Avoids a warning about duplicate names, which the services permit.
            archive.NameToInfo.clear()
    yield sink.take()


def spooled(chunks: Iterable[bytes]) -> tuple[Iterator[bytes], int]:
    """Write all chunks to disk first; return them as a stream, and their total length in bytes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed when the stream is garbage-collected
    stream = (chunk for chunk in iter(lambda: file.read(CHUNK_SIZE), b""))
    weakref.finalize(stream, file.close)
    length = sum(file.write(chunk) for chunk in chunks)
    file.seek(0)
    return stream, length


class _Sink:
    """A write-only buffer. As it cannot seek, zipfile writes data descriptors."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.pending = 0
        """Bytes in the buffer."""

    def write(self, chunk: bytes) -> int:
        self._chunks.append(chunk)
        self.pending += len(chunk)
        return len(chunk)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        """Empty the buffer and return its content."""
        taken = b"".join(self._chunks)
        self._chunks, self.pending = [], 0
        return taken
