"""
Safe extraction of the zip archives that the servers send.

All of an archive is checked before any of it gets its name: first what it says of itself (`_zip`), then each content,
which is unpacked under a number into a temporary folder of the target. When the last one has proved good, they are
moved to where they belong.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zipfile import ZIP_STORED, BadZipFile

from .._errors import DownloadError, UnsafeArchive
from .._util.file_names import unreserved
from .unsafe_zip import Hostile, Limits, Packed, plan
from .workspace import Part, Place, Workspace, Writer, free

PIECE = 1 << 18  # bytes that are unpacked at a time
DAMAGE = (BadZipFile, struct.error, NotImplementedError, ValueError, OverflowError, MemoryError)
"""What the standard library raises on an archive that is cut or changed."""
LIMITS = Limits()


class Member(NamedTuple):
    """A file that was unpacked."""

    path: str
    """Below the target, with ``/`` between its parts."""
    size: int
    """Bytes."""
    sha256: str
    """Of what was written, in hexadecimal."""


def extract(archive: Path, target: Path, *, limits: Limits = LIMITS) -> list[Member]:
    """
    Unpack an archive; this blocks, so it belongs into a worker thread.

    Files of the same names are replaced, after the whole archive has proved good. Until then its files are in a
    folder ``.st4sd-*.part`` of the target, which stays behind only if the process is killed. Several archives may be
    unpacked into one target at the same time. Files from 1 MiB on are synced to disk one by one; the smaller ones
    share one sync of a folder, so a loss of power in the next seconds may still empty them.

    Args:
        archive: The zip file.
        target: Folder, made if need be. No link below it is followed. What would have a name that begins with
            ``.st4sd-`` gets one that begins with ``_.st4sd-``.
        limits: What is too much.

    Returns:
        The files, in the order of the archive; it may have none. Folders are made, and not listed.

    Raises:
        UnsafeArchive: The archive is hostile. Nothing of it was unpacked.
        DownloadError: The archive is cut or damaged and nothing of it was unpacked, or the target cannot take it:
            no room, a link, a folder where a file belongs.
    """
    with _told(str(archive), _size(archive)), archive.open("rb") as file, Workspace(target) as space:
        parts, folders = unpack(file, space, name=str(archive), limits=limits)
        space.place(parts, folders)
    return [Member(part.place.path, part.size, part.sha256) for part in parts]


def unpack(
    archive: BinaryIO,
    space: Workspace,
    *,
    name: str,
    limits: Limits = LIMITS,
    place: Callable[[str], Place | None] = free,
) -> tuple[list[Part], list[str]]:
    """
    Unpack an archive into files that have not their names yet, and tell which folders it has.

    Args:
        archive: The zip file.
        space: Where the files are to be.
        name: What errors call the archive.
        limits: What is too much.
        place: Tells where a member belongs; None leaves it out.

    Raises:
        UnsafeArchive, DownloadError: As `extract`; there may be files in the workspace.
    """
    with _told(name, archive.seek(0, os.SEEK_END)):
        files, folders = plan(archive, limits)
        chosen = [(packed, where) for packed in files if (where := place(packed.path)) is not None]
        parts = [_unpack(archive, packed, where, space.new()) for packed, where in chosen]
        return parts, list(map(unreserved, folders))


def content(archive: BinaryIO, path: str, limit: int) -> bytes | None:
    """
    The content of the only file that an archive may have, whose path is known; None if it has none.

    Raises:
        UnsafeArchive, DownloadError: As `extract`, or it has another file or more bytes than ``limit``.
    """
    with _told(path, archive.seek(0, os.SEEK_END)):
        files, _ = plan(archive, LIMITS)
        if not files:
            return None
        if [packed.path for packed in files] != [path.removeprefix("/")]:
            raise Hostile(f"{path!r} was asked for, and {files[0].path!r} came")
        if files[0].info.file_size > limit:
            raise too_large(path, limit)
        return b"".join(_content(archive, files[0]))


def too_large(name: str, limit: int) -> DownloadError:
    """The error for a file that has more bytes than it may have."""
    return DownloadError(name, f"is larger than limit={limit} bytes", advice="raise it, or use download_files()")


@contextmanager
def _told(name: str, received: int) -> Iterator[None]:
    """Turns what is wrong with an archive or with the disk into our errors."""
    try:
        yield
    except Hostile as problem:
        raise UnsafeArchive(name, str(problem), received=received) from None
    except (*DAMAGE, OSError) as problem:
        told = f"cannot be unpacked, {type(problem).__name__}: {problem}"
        raise DownloadError(name, told, received=received) from problem


def _size(archive: Path) -> int:
    return archive.stat().st_size if archive.is_file() else 0


def _unpack(file: BinaryIO, packed: Packed, place: Place, writer: Writer) -> Part:
    """Write a member's content to a new file."""
    with writer:
        for piece in _content(file, packed):
            writer.write([piece])
        return writer.finish(place)


def _content(file: BinaryIO, packed: Packed) -> Iterator[bytes]:
    """The content of a member, in pieces, if it is the one that the headers tell of."""
    file.seek(packed.start)
    pieces = _pieces(file, packed.info.compress_size)
    return _checked(pieces if packed.info.compress_type == ZIP_STORED else _inflated(pieces), packed)


def _pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    """The next bytes of a file."""
    while piece := file.read(min(length, PIECE)):
        length -= len(piece)
        yield piece


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What was packed into these pieces, in pieces that are not much larger."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for packed in pieces:
        if inflater.eof:
            raise BadZipFile("it goes on after its end")
        yield inflater.decompress(packed, PIECE)
        while inflater.unconsumed_tail:
            yield inflater.decompress(inflater.unconsumed_tail, PIECE)
    yield inflater.flush()  # a few KiB, because all input was consumed
    if not inflater.eof or inflater.unused_data:
        raise BadZipFile("it does not end where it should")


def _checked(pieces: Iterator[bytes], packed: Packed) -> Iterator[bytes]:
    """The same pieces, unless they are too many, too few or others than they should be."""
    info, crc, size = packed.info, 0, 0
    try:
        for piece in pieces:
            crc, size = zlib.crc32(piece, crc), size + len(piece)
            if size > info.file_size:
                told = f"its member {info.orig_filename!r} holds more than the {info.file_size} bytes it tells of"
                raise Hostile(told)
            yield piece
        if (size, crc) != (info.file_size, info.CRC):
            raise BadZipFile("its size or its checksum is wrong")
    except (BadZipFile, zlib.error) as problem:
        raise BadZipFile(f"its member {packed.path!r} is damaged: {problem}") from problem
