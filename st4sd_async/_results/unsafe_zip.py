"""
What a zip archive says of itself, and whether it may be believed; nothing is written here.

An archive tells most things twice: in a directory at its end and in a header beside each content. Only one is
accepted whose tellings agree, whose members fill it without gap or overlap, and whose names lead to different files
below the target on every file system.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import BinaryIO, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from .._util.file_names import DEVICE, folded

LARGEST_DIRECTORY = 1 << 26  # bytes
LONGEST_NAME, LONGEST_PART = 1000, 255  # bytes of a name and of each part of it, as file systems take them
MOST_PARTS = 100  # of a name: each folder on the way is open while files are moved

# Of the format's sections 4.3.7, 4.3.14 with 4.3.15, and 4.3.16; x is what is not looked at
LOCAL = struct.Struct("<4s2x2H4x3L2H")  # mark, flags, method, CRC, size packed, size, lengths of name and extra field
END_64 = struct.Struct("<4s12x5Q20x")  # mark, disks, members here, members, size and start of directory; locator
END = struct.Struct("<4sL2H2LH")  # mark, disks, members here, members, size and start of directory, comment
ELSEWHERE = 0xFFFFFFFF  # a size that stands in the extra field
DESCRIPTOR, UTF_8, KNOWN_FLAGS = 0x8, 0x800, 0x80E  # what is not known is encryption, or a patch
LONGEST_DESCRIPTOR = 24  # bytes

BAD_NAMES = {
    "a part that is empty, '.' or '..'": re.compile(r"(^|/)\.{0,2}(/|$)"),
    "a drive letter or a backslash": re.compile(r"^[A-Za-z]:|\\"),
    "a control character": re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"),
    "half of a character": re.compile(r"[\ud800-\udfff]"),
}
# Elsewhere these are names like others, and results have them: aux.dat, 10:30.log
BAD_NAMES_ON_WINDOWS = {
    "the name of a device": re.compile(f"(?:^|/){DEVICE}"),
    "what Windows does not take": re.compile(r'[<>:"|?*]|[. ](/|$)'),
}


class Hostile(Exception):
    """What no honest archive has."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an archive may hold before it counts as a bomb."""

    members: int = 100_000
    """Files and folders."""
    total: int = 1 << 36
    """Bytes of all files, unpacked."""
    ratio: int = 200
    """Bytes unpacked for each byte packed, where more than ``harmless`` would be unpacked."""
    harmless: int = 1 << 32
    """Bytes, unpacked, up to which no ratio is suspicious: a file of zeros has 1000."""


class Packed(NamedTuple):
    """A file that is to be unpacked."""

    path: str
    """Below the target, with ``/`` between its parts."""
    info: ZipInfo
    """What the directory says of it."""
    start: int
    """Where its content begins in the archive."""


def plan(file: BinaryIO, limits: Limits) -> tuple[list[Packed], list[str]]:
    """The files of an archive, in its order, and the folders for them, outer ones first, if all is in order."""
    infos, end = _directory(file, limits)
    starts = _starts(file, infos, end)
    claims: dict[str, tuple[str, bool]] = {}
    files = []
    for info in infos:
        path, is_folder = checked(info.orig_filename), info.orig_filename.endswith("/")
        _check_kind(info, is_folder)
        _claim(claims, path, is_folder)
        if len(claims) > limits.members:
            raise Hostile(f"it has more than {limits.members} files and folders")
        if not is_folder:
            files.append(Packed(path, info, starts[info.header_offset]))
    return files, [path for path, is_folder in claims.values() if is_folder]


def checked(name: str, *, windows: bool = os.name == "nt") -> str:
    """The path below the target that a name means; the slash that it may begin with is a habit of the servers."""
    path = name.removeprefix("/").removesuffix("/")
    for problem, pattern in (BAD_NAMES | BAD_NAMES_ON_WINDOWS if windows else BAD_NAMES).items():
        if pattern.search(path):
            raise Hostile(f"the name of its member {name!r} has {problem}")
    if (length := len(path.encode())) > LONGEST_NAME or (
        length > LONGEST_PART < max(len(part.encode()) for part in path.split("/"))
    ):
        raise Hostile(f"the name of its member {name!r} is too long")
    if path.count("/") >= MOST_PARTS:
        raise Hostile(f"the name of its member {name!r} has more than {MOST_PARTS} parts")
    return path


def _check_kind(info: ZipInfo, is_folder: bool) -> None:
    """Refuse what is neither a folder nor a file that can be unpacked."""
    packing = (info.flag_bits & ~KNOWN_FLAGS, info.compress_type in (ZIP_STORED, ZIP_DEFLATED), info.volume)
    if packing != (0, True, 0):
        raise Hostile(f"its member {info.orig_filename!r} is encrypted, or packed in another way that no server uses")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
        raise Hostile(f"its member {info.orig_filename!r} is a link, a device, or not what its name says")
    if is_folder and info.file_size:
        raise Hostile(f"its member {info.orig_filename!r} is a folder with a content")


def _claim(claims: dict[str, tuple[str, bool]], path: str, is_folder: bool) -> None:
    """Note a path and the folders above it, under names that are equal where some file system takes them for equal."""
    folder = path.rpartition("/")[0]
    is_known = claims.get(folded(folder)) == (folder, True)  # and so are those above it
    for spelling in [path] if is_known else accumulate(path.split("/"), "{}/{}".format):
        claim = (spelling, is_folder or spelling != path)
        known = claims.setdefault(folded(spelling), claim)
        if known is not claim and (known != claim or not claim[1]):
            raise Hostile(f"its members {known[0]!r} and {spelling!r} would be in the same place")


def _directory(file: BinaryIO, limits: Limits) -> tuple[list[ZipInfo], int]:
    """What the directory says of each member, and where the directory begins."""
    count, length, start = _end(file)
    file.seek(start)
    # Looked at before it is parsed, because parsed it takes ten times the memory.
    if count > limits.members or length > LARGEST_DIRECTORY or file.read(length).count(b"PK\1\2") > count:
        raise Hostile(f"it has more than {limits.members} members, or more than it counts")
    infos = ZipFile(file).infolist()
    if len(infos) != count:
        raise BadZipFile(f"it has {len(infos)} members and counts {count}")
    if (total := sum(info.file_size for info in infos)) > min(limits.total, max(limits.harmless, limits.ratio * start)):
        raise Hostile(f"its {start} bytes would become {total}")
    return infos, start


def _end(file: BinaryIO) -> tuple[int, int, int]:
    """Count of members, length and start of the directory; after it come the records of the end, and nothing else."""
    end = file.seek(0, os.SEEK_END) - END.size
    file.seek(max(0, end - END_64.size))
    tail, mark_64 = file.read().rjust(END_64.size + END.size, b"?"), b"PK\6\6"
    mark, disks, here, count, length, start, comment = END.unpack(tail[-END.size :])
    if tail[-42:-38] == b"PK\6\7":
        end -= END_64.size
        mark_64, disks, here, count, length, start = END_64.unpack(tail[: -END.size])
    told = (mark, mark_64, disks, here, start + length, comment)
    if told != (b"PK\5\6", b"PK\6\6", 0, count, end, 0):
        raise BadZipFile("it is no zip archive, or cut, or has something before or after it")
    return count, length, start


def _starts(file: BinaryIO, infos: list[ZipInfo], end: int) -> dict[int, int]:
    """Where contents begin, by where their headers do, if the members fill the archive without gap or overlap."""
    starts, at = {}, 0
    for info in sorted(infos, key=attrgetter("header_offset")):
        if info.header_offset != at:
            raise Hostile(f"its member {info.orig_filename!r} does not begin where the one before it ends")
        starts[at] = _start(file, info)
        at = starts[at] + info.compress_size
        file.seek(at)
        descriptor = next(filter(file.read(LONGEST_DESCRIPTOR).startswith, _descriptors(info)), None)
        if descriptor is None:
            raise BadZipFile(f"the content of its member {info.orig_filename!r} does not end where it should")
        at += len(descriptor)
    if at != end:
        raise BadZipFile("its members do not end where its directory begins")
    return starts


def _start(file: BinaryIO, info: ZipInfo) -> int:
    """Where the content of a member begins, if the header before it says what the directory says."""
    file.seek(info.header_offset)
    mark, flags, method, *sizes, name_length, extra_length = LOCAL.unpack(file.read(LOCAL.size))
    name, extra = file.read(name_length), file.read(extra_length)
    known = [info.CRC, info.compress_size, info.file_size]
    if flags & DESCRIPTOR:
        agree = all(told in (0, ELSEWHERE, fact) for told, fact in zip(sizes, known, strict=True))
    else:
        wide = struct.pack("<2H2Q", 1, 16, info.file_size, info.compress_size)
        agree = sizes == known or (sizes == [info.CRC, ELSEWHERE, ELSEWHERE] and wide in extra)
    told = (mark, flags, method, name.decode("utf-8" if flags & UTF_8 else "cp437"), agree)
    if told != (b"PK\3\4", info.flag_bits, info.compress_type, info.orig_filename, True):
        raise Hostile(f"the header of its member {info.orig_filename!r} contradicts the directory")
    return file.tell()


def _descriptors(info: ZipInfo) -> tuple[bytes, ...]:
    """What may follow a content: CRC and sizes in 8 or 4 bytes, with or without a mark, if the flags announce it."""
    if not info.flag_bits & DESCRIPTOR:
        return (b"",)
    known = (info.CRC, info.compress_size, info.file_size)
    wide, narrow = struct.pack("<L2Q", *known), struct.pack("<3L", *(fact & ELSEWHERE for fact in known))
    forms = (b"PK\7\x08" + wide, wide, b"PK\7\x08" + narrow, narrow)
    return forms if info.compress_size else (*forms, b"")  # some packers announce it for folders and forget it
