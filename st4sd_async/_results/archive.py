"""
Read zip archives that may be hostile. Nothing is written here.

A zip archive describes each member twice: in the directory at its end, and in a header before the content. An archive
is accepted only if both descriptions agree, if the members fill it without gap or overlap, and if their names lead to
different files below one folder on every file system.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from threading import Lock
from typing import BinaryIO, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from .._errors import DownloadError, UnsafeArchive
from .._util.file_names import DEVICE, folded

UNPACKED_CHUNK_BYTES = 1 << 18  # unpacked at a time
MAX_DIRECTORY_BYTES = 1 << 26
MAX_NAME_BYTES, MAX_NAME_PART_BYTES = 1000, 255  # of a path and of each part of it, as file systems take them
MAX_NAME_PARTS = 100  # each folder on the way is open while files are moved

# Sections 4.3.7, 4.3.14 with 4.3.15, and 4.3.16 of the format; x is not read
LOCAL_HEADER = struct.Struct("<4s2x2H4x3L2H")  # mark, flags, method, CRC, packed size, size, lengths of name and extra
ZIP64_END = struct.Struct("<4s12x5Q20x")  # mark, disks, members here, members, size and start of directory; locator
END = struct.Struct("<4sL2H2LH")  # mark, disks, members here, members, size and start of directory, comment
IN_EXTRA_FIELD = 0xFFFFFFFF  # instead of a size that is in the extra field
DESCRIPTOR, UTF_8, KNOWN_FLAGS = 0x8, 0x800, 0x80E  # the other flags are for encryption and patches
MAX_DESCRIPTOR_BYTES = 24

DAMAGE = (BadZipFile, struct.error, NotImplementedError, ValueError, OverflowError, MemoryError)
"""Errors of the standard library for an archive that is cut or changed."""

BAD_NAMES = {
    "a part that is empty, '.' or '..'": re.compile(r"(^|/)\.{0,2}(/|$)"),
    "a drive letter or a backslash": re.compile(r"^[A-Za-z]:|\\"),
    "a control character": re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"),
    "half of a character": re.compile(r"[\ud800-\udfff]"),
}
# Other systems allow these, and results contain them: aux.dat, 10:30.log
BAD_NAMES_ON_WINDOWS = {
    "the name of a device": re.compile(f"(?:^|/){DEVICE}"),
    "a character that Windows does not allow": re.compile(r'[<>:"|?*]|[. ](/|$)'),
}


def is_archive(headers: Mapping[str, str]) -> bool:
    """Return whether a body is an archive that a server made of a folder, not a file that happens to be an archive."""
    return headers.get("content-type", "").partition(";")[0] == "application/zip"


class UnsafeZip(Exception):
    """A feature found only in malicious archives."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits above which an archive counts as a zip bomb."""

    members: int = 100_000
    """Files and folders."""
    total_bytes: int = 1 << 36
    """Size of all files, unpacked."""
    ratio: int = 200
    """Bytes unpacked for each packed byte, if more than ``harmless_bytes`` would be unpacked."""
    harmless_bytes: int = 1 << 32
    """Unpacked size up to which any ratio is allowed: a file of zeros has 1000."""


LIMITS = Limits()


class Member(NamedTuple):
    """A file in an archive."""

    path: str
    """Relative path, with ``/`` between its parts."""
    info: ZipInfo
    """Its entry in the directory."""
    start: int
    """Offset of its content in the archive."""


class ZipArchive:
    """
    An archive whose structure has been verified. Contents are verified while they are read, by any number of threads.

    Raises:
        UnsafeZip: It has a feature found only in malicious archives.
        Exception: One of `DAMAGE` if it is cut or damaged. `archive_errors` translates all of these.
    """

    def __init__(self, file: BinaryIO, limits: Limits = LIMITS) -> None:
        self._file = file
        self._lock = Lock()
        """Held while the position of the file is in use."""
        infos, end = _read_directory(file, limits)
        starts = _content_offsets(file, infos, end)
        paths: dict[str, tuple[str, bool]] = {}
        self.members: list[Member] = []
        """Its files, in the order of the directory."""
        for info in infos:
            path, is_folder = safe_member_path(info.orig_filename), info.orig_filename.endswith("/")
            _check_kind(info, is_folder)
            _claim_path(paths, path, is_folder)
            if len(paths) > limits.members:
                raise UnsafeZip(f"it has more than {limits.members} files and folders")
            if not is_folder:
                self.members.append(Member(path, info, starts[info.header_offset]))
        self.folders = [path for path, is_folder in paths.values() if is_folder]
        """Folders that are listed or that contain a file, parents first."""

    def content(self, member: Member) -> Iterator[bytes]:
        """Yield the content of a file in chunks; raise as the class does if it is not what the headers promise."""
        chunks = self._packed_chunks(member.start, member.start + member.info.compress_size)
        return _verified(chunks if member.info.compress_type == ZIP_STORED else _inflated(chunks), member)

    def _packed_chunks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of the archive between two offsets."""
        while start < end:
            with self._lock:
                self._file.seek(start)
                chunk = self._file.read(min(end - start, UNPACKED_CHUNK_BYTES))
            start = start + len(chunk) if chunk else end  # the file may have been cut meanwhile
            yield chunk


@contextmanager
def archive_errors(name: str, received: int) -> Iterator[None]:
    """
    Translate the errors of reading and unpacking an archive to `DownloadError` and `UnsafeArchive`.

    Args:
        name: Name of the archive in messages.
        received: Its size in bytes.
    """
    try:
        yield
    except UnsafeZip as error:
        raise UnsafeArchive(name, str(error), received=received) from None
    except (*DAMAGE, OSError) as error:
        problem = f"cannot be unpacked, {type(error).__name__}: {error}"
        raise DownloadError(name, problem, received=received) from error


def read_only_file(archive: BinaryIO, path: str, limit: int) -> bytes | None:
    """
    Return the content of the only file of an archive; None if the archive is empty.

    Args:
        archive: The zip file.
        path: The path that the file must have.
        limit: Most bytes of the file.

    Raises:
        UnsafeArchive, DownloadError: As `archive_errors`; or there is another file, or it is too large.
    """
    with archive_errors(path, archive.seek(0, os.SEEK_END)):
        opened = ZipArchive(archive)
        if not opened.members:
            return None
        if [member.path for member in opened.members] != [path.removeprefix("/")]:
            raise UnsafeZip(f"{path!r} was requested, and {opened.members[0].path!r} was received")
        if opened.members[0].info.file_size > limit:
            raise too_large(path, limit)
        return b"".join(opened.content(opened.members[0]))


def read_ends(archive: BinaryIO, name: str, paths: Collection[str], limit: int, most_bytes: int) -> dict[str, bytes]:
    """
    Return path -> end of the file, for the files of an archive.

    Args:
        archive: The zip file.
        name: Its name in messages.
        paths: Paths that it may have.
        limit: Most bytes of each end.
        most_bytes: Most bytes of all files, unpacked.

    Raises:
        UnsafeArchive, DownloadError: As `archive_errors`; or there is another file, or they are too large.
    """
    with archive_errors(name, archive.seek(0, os.SEEK_END)):
        opened = ZipArchive(archive, Limits(members=MAX_NAME_PARTS * len(paths), total_bytes=most_bytes))
        wanted = {path.removeprefix("/"): path for path in paths}
        ends = {}
        for member in opened.members:
            if member.path not in wanted:
                raise UnsafeZip(f"{sorted(wanted)} were requested, and {member.path!r} was received")
            end = b""
            for chunk in opened.content(member):
                end = (end + chunk)[-limit:]
            ends[wanted[member.path]] = end
        return ends


def too_large(name: str, limit: int) -> DownloadError:
    """Return the error for a file of more bytes than allowed."""
    return DownloadError(name, f"is larger than limit={limit} bytes", advice="raise it, or use download_files()")


def safe_member_path(name: str, *, windows: bool = os.name == "nt") -> str:
    """
    Return the relative path for the name of a member.

    A leading slash, which the servers add, is dropped.

    Raises:
        UnsafeZip: It could lead out of the folder, or no file can have that name.
    """
    path = name.removeprefix("/").removesuffix("/")
    for problem, pattern in (BAD_NAMES | BAD_NAMES_ON_WINDOWS if windows else BAD_NAMES).items():
        if pattern.search(path):
            raise UnsafeZip(f"the name of its member {name!r} has {problem}")
    if (length := len(path.encode())) > MAX_NAME_BYTES or (
        length > MAX_NAME_PART_BYTES < max(len(part.encode()) for part in path.split("/"))
    ):
        raise UnsafeZip(f"the name of its member {name!r} is too long")
    if path.count("/") >= MAX_NAME_PARTS:
        raise UnsafeZip(f"the name of its member {name!r} has more than {MAX_NAME_PARTS} parts")
    return path


def _check_kind(info: ZipInfo, is_folder: bool) -> None:
    """Raise UnsafeZip unless a member is a folder, or a file that can be unpacked."""
    packing = (info.flag_bits & ~KNOWN_FLAGS, info.compress_type in (ZIP_STORED, ZIP_DEFLATED), info.volume)
    if packing != (0, True, 0):
        raise UnsafeZip(f"its member {info.orig_filename!r} is encrypted, or packed in a way that no server uses")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
        raise UnsafeZip(f"its member {info.orig_filename!r} is a link, a device, or not what its name says")
    if is_folder and info.file_size:
        raise UnsafeZip(f"its member {info.orig_filename!r} is a folder that has content")


def _claim_path(paths: dict[str, tuple[str, bool]], path: str, is_folder: bool) -> None:
    """Add a path and its parents to those in use; raise UnsafeZip if some file system takes two of them for one."""
    parent = path.rpartition("/")[0]
    is_known = paths.get(folded(parent)) == (parent, True)  # and so are the parents of the parent
    for prefix in [path] if is_known else accumulate(path.split("/"), "{}/{}".format):
        claim = (prefix, is_folder or prefix != path)
        known = paths.setdefault(folded(prefix), claim)
        if known is not claim and (known != claim or not claim[1]):
            raise UnsafeZip(f"its members {known[0]!r} and {prefix!r} would be in the same place")


def _read_directory(file: BinaryIO, limits: Limits) -> tuple[list[ZipInfo], int]:
    """Return the entries of the directory, and the offset at which it begins."""
    count, length, start = _read_end(file)
    file.seek(start)
    # Checked before it is parsed, because it takes ten times the memory then.
    if count > limits.members or length > MAX_DIRECTORY_BYTES or file.read(length).count(b"PK\1\2") > count:
        raise UnsafeZip(f"it has more than {limits.members} members, or more than its directory counts")
    infos = ZipFile(file).infolist()
    if len(infos) != count:
        raise BadZipFile(f"it has {len(infos)} members and counts {count}")
    largest = min(limits.total_bytes, max(limits.harmless_bytes, limits.ratio * start))
    if (total := sum(info.file_size for info in infos)) > largest:
        raise UnsafeZip(f"its {start} bytes would become {total}")
    return infos, start


def _read_end(file: BinaryIO) -> tuple[int, int, int]:
    """Return the number of members, and length and offset of the directory. Only the end records may follow it."""
    end = file.seek(0, os.SEEK_END) - END.size
    file.seek(max(0, end - ZIP64_END.size))
    tail, zip64_mark = file.read().rjust(ZIP64_END.size + END.size, b"?"), b"PK\6\6"
    mark, disks, here, count, length, start, comment = END.unpack(tail[-END.size :])
    if tail[-42:-38] == b"PK\6\7":
        end -= ZIP64_END.size
        zip64_mark, disks, here, count, length, start = ZIP64_END.unpack(tail[: -END.size])
    found = (mark, zip64_mark, disks, here, start + length, comment)
    if found != (b"PK\5\6", b"PK\6\6", 0, count, end, 0):
        raise BadZipFile("it is not a zip archive, is truncated, or has data before or after it")
    return count, length, start


def _content_offsets(file: BinaryIO, infos: list[ZipInfo], end: int) -> dict[int, int]:
    """Return header offset -> content offset of all members, which must fill the archive without gap or overlap."""
    starts, at = {}, 0
    for info in sorted(infos, key=attrgetter("header_offset")):
        if info.header_offset != at:
            raise UnsafeZip(f"its member {info.orig_filename!r} does not begin where the one before it ends")
        starts[at] = _read_header(file, info)
        at = starts[at] + info.compress_size
        file.seek(at)
        descriptor = next(filter(file.read(MAX_DESCRIPTOR_BYTES).startswith, _descriptors(info)), None)
        if descriptor is None:
            raise BadZipFile(f"the content of its member {info.orig_filename!r} does not end where it should")
        at += len(descriptor)
    if at != end:
        raise BadZipFile("its members do not end where its directory begins")
    return starts


def _read_header(file: BinaryIO, info: ZipInfo) -> int:
    """Return the offset of a member's content; the header before it must agree with the directory."""
    file.seek(info.header_offset)
    mark, flags, method, *sizes, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    name, extra = file.read(name_length), file.read(extra_length)
    expected = [info.CRC, info.compress_size, info.file_size]
    if flags & DESCRIPTOR:
        agree = all(size in (0, IN_EXTRA_FIELD, right) for size, right in zip(sizes, expected, strict=True))
    else:
        zip64_sizes = struct.pack("<2H2Q", 1, 16, info.file_size, info.compress_size)
        agree = sizes == expected or (sizes == [info.CRC, IN_EXTRA_FIELD, IN_EXTRA_FIELD] and zip64_sizes in extra)
    header = (mark, flags, method, name.decode("utf-8" if flags & UTF_8 else "cp437"), agree)
    if header != (b"PK\3\4", info.flag_bits, info.compress_type, info.orig_filename, True):
        raise UnsafeZip(f"the header of its member {info.orig_filename!r} contradicts the directory")
    return file.tell()


def _descriptors(info: ZipInfo) -> Iterator[bytes]:
    """Yield what may follow a content: CRC and sizes in 8 or 4 bytes, with or without a mark, if a flag says so."""
    if not info.flag_bits & DESCRIPTOR:
        yield b""
        return
    known = (info.CRC, info.compress_size, info.file_size)
    wide = struct.pack("<L2Q", *known)
    yield b"PK\7\x08" + wide  # that of the servers
    yield wide
    narrow = struct.pack("<3L", *(value & IN_EXTRA_FIELD for value in known))
    yield b"PK\7\x08" + narrow
    yield narrow
    if not info.compress_size:
        yield b""  # some programs announce it for folders and omit it


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress chunks into chunks that are not much larger."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for packed in chunks:
        if inflater.eof:
            raise BadZipFile("it has data after its end")
        yield inflater.decompress(packed, UNPACKED_CHUNK_BYTES)
        while inflater.unconsumed_tail:
            yield inflater.decompress(inflater.unconsumed_tail, UNPACKED_CHUNK_BYTES)
    if rest := inflater.flush():  # a few KiB, because all input was consumed
        yield rest
    if not inflater.eof or inflater.unused_data:
        raise BadZipFile("it does not end where it should")


def _verified(chunks: Iterator[bytes], member: Member) -> Iterator[bytes]:
    """Yield the same chunks; raise if their size or checksum is not that of the member."""
    info, crc, size = member.info, 0, 0
    try:
        for chunk in chunks:
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            if size > info.file_size:
                raise UnsafeZip(
                    f"its member {info.orig_filename!r} has more than the {info.file_size} bytes it declares"
                )
            yield chunk
        if (size, crc) != (info.file_size, info.CRC):
            raise BadZipFile("its size or its checksum is wrong")
    except (BadZipFile, zlib.error) as error:
        raise BadZipFile(f"its member {member.path!r} is damaged: {error}") from error
