"""
Safe extraction of the zip archives that the servers send.

All of an archive is checked before any of it gets its name: first what it says of itself (`_zip`), then each content,
which is unpacked under a number into a temporary folder of the target. When the last one has proved good, they are
moved to where they belong.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple
from zipfile import ZIP_STORED, BadZipFile, ZipInfo

from ._errors import DownloadError, UnsafeArchive
from ._zip import Hostile, Limits, Packed, plan

PIECE = 1 << 18  # bytes that are unpacked at a time
SYNCED = 1 << 20  # bytes; smaller files share one sync of a folder
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
        target: Folder, made if need be. No link below it is followed; nobody else may change it meanwhile.
        limits: What is too much.

    Returns:
        The files, in the order of the archive; it may have none. Folders are made, and not listed.

    Raises:
        UnsafeArchive: The archive is hostile. Nothing of it was unpacked.
        DownloadError: The archive is cut or damaged and nothing of it was unpacked, or the target cannot take it:
            no room, a link, a folder where a file belongs.
    """
    received = 0
    try:
        with archive.open("rb") as file:
            received = file.seek(0, os.SEEK_END)
            files, folders = plan(file, limits)
            target.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(suffix=".part", prefix=".st4sd-", dir=target) as folder:
                staged = {packed.path: Path(folder, str(number)) for number, packed in enumerate(files)}
                members = [_unpack(file, packed, staged[packed.path]) for packed in files]
                _place(staged, folders, target)
                _sync(Path(folder))
    except Hostile as problem:
        raise UnsafeArchive(str(archive), str(problem), received=received) from None
    except (*DAMAGE, OSError) as problem:
        told = f"cannot be unpacked, {type(problem).__name__}: {problem}"
        raise DownloadError(str(archive), told, received=received) from problem
    return members


def _unpack(file: BinaryIO, packed: Packed, part: Path) -> Member:
    """Write a member's content to a new file."""
    file.seek(packed.start)
    pieces = _pieces(file, packed.info.compress_size)
    if packed.info.compress_type != ZIP_STORED:
        pieces = _inflated(pieces)
    try:
        return Member(packed.path, packed.info.file_size, _write(pieces, part, packed.info))
    except (BadZipFile, zlib.error) as problem:
        raise BadZipFile(f"its member {packed.path!r} is damaged: {problem}") from problem


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


def _write(pieces: Iterator[bytes], part: Path, info: ZipInfo) -> str:
    """Write a content to a new file, if it is the one that the headers tell of, and return its sha256."""
    digest, crc, size = sha256(), 0, 0
    with part.open("xb") as out:
        for piece in pieces:
            crc, size = zlib.crc32(piece, crc), size + len(piece)
            if size > info.file_size:
                raise Hostile(
                    f"its member {info.orig_filename!r} holds more than the {info.file_size} bytes it tells of"
                )
            digest.update(piece)
            out.write(piece)
        if (size, crc) != (info.file_size, info.CRC):
            raise BadZipFile("its size or its checksum is wrong")
        if size >= SYNCED:
            out.flush()
            os.fsync(out.fileno())
    return digest.hexdigest()


def _place(staged: dict[str, Path], folders: list[str], target: Path) -> None:
    """Move files to their paths below the target, unless something else is in the way of one of them."""
    for paths, is_right in ((folders, stat.S_ISDIR), (staged, stat.S_ISREG)):
        for path in paths:
            with suppress(FileNotFoundError):
                if not is_right(os.lstat(f"{target}/{path}").st_mode):
                    raise FileExistsError(f"{path!r} is in the target already, as a link or something else")
    for path in folders:
        (target / path).mkdir(exist_ok=True)
    for path, part in staged.items():
        os.replace(part, f"{target}/{path}")  # noqa: PTH105 -- a path object takes as long as the move


def _sync(folder: Path) -> None:
    """Bring a folder to disk, and with it all moves out of it, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
