"""
Files and folders as streams of bytes, and zip archives with the peculiarities of those of the services.

Only a small part of a file is in memory at a time.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
import weakref
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

CHUNK_SIZE = 256 * 1024
"""Number of bytes to read at a time; about as many are sent at a time."""
COMPRESSION_LEVEL = 1
"""The fastest level. The services use level 9, which is slower and makes the same kind of archive."""
_DOS_EPOCH = 315_532_800.0
"""The earliest time in a zip archive: 1980, in Unix seconds."""
_FLAGS = 0x0808
"""Flags: the sizes of a member come after its content, and names are UTF-8."""
_IN_ZIP64 = 0xFFFFFFFF
"""Placeholder for a size or offset that is in the zip64 field."""


def read_file(path: Path) -> Iterator[bytes]:
    """Yield the content of a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_SIZE):
            yield chunk


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the names in an archive, with a leading slash, and the paths of the files below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"/{path.relative_to(folder).as_posix()}", path


def zipped(members: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """
    Yield a zip archive whose members have zip64 sizes and data descriptors; the first bytes come at once.

    Names may be repeated. The module zipfile cannot be used, because it writes zip64 sizes only if they are needed.

    Raises:
        OSError: A member cannot be read; a part of the archive was already yielded.

    Source: the package stream-zip, which the services use. The numbers come from PKWARE's ``APPNOTE.TXT``; 0x5455 is
    the extended timestamp of Info-ZIP.
    """
    pending, min_size, offset, directory, count = bytearray(), 1, 0, bytearray(), 0
    for name, path in members:
        count += 1
        member = _Member(name.encode(), path.stat(), offset)
        for part in member.parts(path):
            pending += part
            offset += len(part)
            if len(pending) >= min_size:
                min_size = CHUNK_SIZE
                yield bytes(pending)
                pending.clear()
        directory += member.directory_entry()
    pending += directory
    if count:
        pending += struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), offset)
        pending += struct.pack("<4sIQI", b"PK\x06\x07", 0, offset + len(directory), 1)
    counts = (0xFFFF, 0xFFFF, _IN_ZIP64, _IN_ZIP64) if count else (0, 0, 0, 0)
    yield bytes(pending + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, *counts, 0))


class _Member:
    """A member of a zip archive."""

    def __init__(self, name: bytes, stat: os.stat_result, offset: int) -> None:
        self._name = name
        self._mode = stat.st_mode
        self._offset = offset
        self._crc = self._compressed = self._size = 0
        year, month, day, hour, minute, second = time.localtime(max(stat.st_mtime, _DOS_EPOCH))[:6]
        self._time = (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
        self._timestamp = struct.pack("<HHBl", 0x5455, 5, 1, int(stat.st_mtime))

    def parts(self, path: Path) -> Iterator[bytes]:
        """Yield the member with the content of a file."""
        extra = struct.pack("<HHQQ", 1, 16, 0, 0) + self._timestamp
        sizes = (0, _IN_ZIP64, _IN_ZIP64, len(self._name), len(extra))
        yield struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 45, _FLAGS, 8, *self._time, *sizes) + self._name + extra
        compressor = zlib.compressobj(COMPRESSION_LEVEL, wbits=-zlib.MAX_WBITS)
        for chunk in read_file(path):
            self._crc, self._size = zlib.crc32(chunk, self._crc), self._size + len(chunk)
            yield self._counted(compressor.compress(chunk))
        yield self._counted(compressor.flush())
        yield struct.pack("<4sIQQ", b"PK\x07\x08", self._crc, self._compressed, self._size)

    def _counted(self, part: bytes) -> bytes:
        self._compressed += len(part)
        return part

    def directory_entry(self) -> bytes:
        """Return the entry for the directory at the end of the archive; call this after all `parts` were yielded."""
        extra = struct.pack("<HHQQQ", 1, 24, self._size, self._compressed, self._offset) + self._timestamp
        lengths = (self._crc, _IN_ZIP64, _IN_ZIP64, len(self._name), len(extra), 0, 0, 0)
        made_by = 45 | 3 << 8  # version 4.5 on Unix, where the attributes are a file mode
        head = struct.pack("<4sHHHHHHI", b"PK\x01\x02", made_by, 45, _FLAGS, 8, *self._time, lengths[0])
        return head + struct.pack("<IIHHHHHII", *lengths[1:], self._mode << 16, _IN_ZIP64) + self._name + extra


def spooled(chunks: Iterable[bytes]) -> tuple[Iterator[bytes], int]:
    """Write all chunks to a temporary file; return its content as a stream, and its length in bytes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed when the stream is garbage-collected
    stream = (chunk for chunk in iter(lambda: file.read(CHUNK_SIZE), b""))
    weakref.finalize(stream, file.close)
    length = sum(file.write(chunk) for chunk in chunks)
    file.seek(0)
    return stream, length
