"""Archives that contradict themselves, cost too much or are damaged, and what is left when nothing may come out."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from st4sd_async import DownloadError, UnsafeArchive
from st4sd_async._results.archive import Limits
from st4sd_async._results.target import extract

from .archives import (
    DEFLATED,
    DESCRIPTOR,
    LINES,
    STORED,
    UTF_8,
    Entry,
    build,
    deflated,
    ending,
    little_memory,
    made_by_a_server,
    refused,
    unpack,
)

CONTRADICTIONS = {
    "name": Entry("/name", local_name="/evil"),
    "length of the name": Entry("/name", local_name="/name2"),
    "flags": Entry(local={"flags": UTF_8 | 0x2}),
    "method": Entry(local={"method": STORED}),
    "crc": Entry(local={"crc": 1}),
    "size packed": Entry(local={"packed": 1}),
    "size": Entry(local={"size": 1}),
    "size elsewhere, but not there": Entry(local={"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF}),
    "size elsewhere, and another": Entry(
        local={"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF}, extra=struct.pack("<2H2Q", 1, 16, 1, 1)
    ),
    "crc, with sizes elsewhere": Entry(
        local={"crc": 1, "packed": 0xFFFFFFFF, "size": 0xFFFFFFFF},
        extra=struct.pack("<2H2Q", 1, 16, len(LINES), len(deflated(LINES))),
    ),
    "zero size without a descriptor": Entry(local={"packed": 0, "size": 0}),
    "size before a descriptor": Entry(
        flags=UTF_8 | DESCRIPTOR,
        local={"size": 1},
        after=struct.pack("<3L", zlib.crc32(LINES), len(deflated(LINES)), len(LINES)),
    ),
    "overlap": Entry("/name", at=0, local_name="/file.txt"),
    "inside another": Entry(at=30),
    "behind the end": Entry(at=1 << 30),
}


@pytest.mark.parametrize("entry", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_headers_that_contradict_each_other_are_refused(target: Path, entry: Entry) -> None:
    """It is unknown which of them another program would believe."""
    error = refused(build(Entry("/good.txt"), entry), target)

    assert isinstance(error, UnsafeArchive)
    assert repr(entry.name) in str(error)


def test_members_that_share_a_content_are_refused(target: Path) -> None:
    """So a small archive could become as large as it likes."""
    error = refused(build(Entry("/a"), Entry("/a", at=0)), target)

    assert isinstance(error, UnsafeArchive)


def test_a_member_within_another_is_refused(target: Path) -> None:
    """Even if it is a whole member, with headers in order."""
    inner = Entry("/inner", method=STORED).beside_the_content()
    outer = Entry("/outer", inner, method=STORED)
    data = build(outer, Entry("/inner", method=STORED, at=len(outer.beside_the_content()) - len(inner)))

    assert isinstance(refused(data, target), UnsafeArchive)


GARBAGE = {
    "before, offsets as they were": build(Entry(), before=b"#!/bin/sh\n", start=0),
    "before, with offsets right": build(Entry(), before=b"#!/bin/sh\n"),
    "before, with one offset wrong": build(Entry(at=0), before=b"#!/bin/sh\n"),
    "before an empty archive": build(before=b"#!/bin/sh\n"),
    "before an empty archive that does not tell": build(before=b"#!/bin/sh\n", start=0),
    "another mark of a member": build(Entry()).replace(b"PK\3\4", b"PK\3\5"),
    "between members": build(Entry(after=b"?"), Entry("/b")),
    "before the directory": build(Entry(), Entry("/b", after=b"?")),
    "a member that is not listed": build(Entry(after=Entry("/hidden").beside_the_content()), Entry("/b")),
    "a descriptor that no flag announces": build(Entry(after=struct.pack("<3L", 0, 0, 0))),
    "no descriptor": build(Entry(flags=UTF_8 | DESCRIPTOR), Entry("/b", after=b"")),
    "wrong descriptor": build(Entry(flags=UTF_8 | DESCRIPTOR, after=struct.pack("<3L", 1, 2, 3))),
    "after": build(Entry()) + b"?",
    "a comment": build(Entry(), comment=1) + b"?",
    "a comment that is not there": build(Entry(), comment=1),
    "an archive after it": build(Entry()) + build(Entry("/b")),
    "a record without its mark": build(Entry())
    + ending(count=1, length=46 + len("/file.txt") + 22, start=len(Entry().beside_the_content())).replace(b"PK", b"pk"),
    "more than counted": build(Entry(), Entry("/b"), count=1),
    "less than counted": build(Entry(), Entry("/b"), count=3),
    "a shorter directory": build(Entry(), Entry("/b"), length=10),
    "other disks": build(Entry(), disk=1),
    "zip64, more than counted": build(Entry(), Entry("/b"), count=1, zip64=True),
    "zip64, another mark": build(Entry(), zip64=True).replace(b"PK\6\6", b"PK\6\5"),
    "zip64, another disk": build(Entry(), zip64=True).replace(b"PK\6\7\0", b"PK\6\7\1"),
    "zip64, other disks": build(Entry(), zip64=True, disk=1),
    "members elsewhere": build(Entry(), Entry("/b"), here=1),
    "zip64, members elsewhere": build(Entry(), Entry("/b"), here=1, zip64=True),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_an_archive_is_all_members_and_nothing_else(target: Path, data: bytes) -> None:
    """No byte may stand before, between or after them, because another program may take it for something."""
    refused(data, target)


def test_a_member_cannot_reach_into_the_directory(target: Path) -> None:
    """It is refused before its content is looked at."""
    reach = {"packed": len(LINES) + 9, "size": len(LINES) + 9}

    error = refused(build(Entry(method=STORED, local=reach, central=reach)), target)

    assert "do not end where its directory begins" in str(error)


HEADERS = Entry("").in_the_directory(0) * 100_000
DIRECTORIES = {
    "more members than counted": ending(count=7, length=len(HEADERS), start=0),
    "all members counted": ending(True, count=100_001, length=len(HEADERS), start=0),
    "another in the zip64 record": ending(True, count=0, length=0, start=len(HEADERS))[:-22].replace(b"\6\6", b"\6\5")
    + ending(count=0, length=len(HEADERS) + 76, start=0),
}


@pytest.mark.parametrize("records", DIRECTORIES.values(), ids=DIRECTORIES)
def test_a_directory_cannot_cost_much_memory(target: Path, records: bytes) -> None:
    """Members are counted before they are looked at, whatever the archive says that they are."""
    (target / "archive.zip").write_bytes(HEADERS + records)

    with little_memory(3 * len(HEADERS)), pytest.raises(DownloadError):
        extract(target / "archive.zip", target)


def test_a_directory_that_is_too_large_is_not_even_read(target: Path) -> None:
    """However few members it declares."""
    length = (1 << 26) + 1
    with (target / "archive.zip").open("wb") as file:
        file.seek(length)
        file.write(ending(count=7, length=length, start=0))

    with little_memory(1 << 20), pytest.raises(UnsafeArchive):
        extract(target / "archive.zip", target)


def test_what_follows_a_content_cannot_cost_much_memory(target: Path) -> None:
    """It is refused with its first piece."""
    (target / "archive.zip").write_bytes(build(Entry(packed=deflated(LINES) + bytes(1 << 24))))

    with little_memory(1 << 22), pytest.raises(DownloadError):
        extract(target / "archive.zip", target)


BOMBS = {
    "members": (Limits(members=2), [Entry("/a"), Entry("/b"), Entry("/c")]),
    "one folder again and again": (Limits(members=2), [Entry("/a/", b"")] * 3),
    "folders": (Limits(members=5), [Entry("/a/b/c/d"), Entry("/a/b/e/f")]),
    "total": (Limits(total_bytes=1000), [Entry("/a"), Entry("/b")]),
    "ratio": (Limits(ratio=5, harmless_bytes=1000), [Entry("/a"), Entry("/b")]),
    "declared total": (Limits(), [Entry(f"/{part}", central={"size": 0xFFFFFFF0}) for part in range(20)]),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_too_much_is_refused(target: Path, kind: str) -> None:
    """Before anything is unpacked."""
    limits, entries = BOMBS[kind]

    assert isinstance(refused(build(*entries), target, limits), UnsafeArchive)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(members=3),
        Limits(total_bytes=1200),
        Limits(ratio=5, harmless_bytes=1200),
        Limits(ratio=20, harmless_bytes=0),
    ],
    ids=repr,
)
def test_as_much_as_is_allowed_is_unpacked(target: Path, limits: Limits) -> None:
    """The limits are what may be, not what may not."""
    assert len(unpack(build(Entry("/a/b"), Entry("/c")), target, limits)) == 2


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_a_member_cannot_become_larger_than_it_says(target: Path, method: int) -> None:
    """Also if its checksum is that of the part it declares."""
    entry = Entry("/bomb", b"0" * 10, method, packed=deflated(bytes(1 << 22)) if method else b"0" * 4_000_000)

    error = refused(build(Entry("/good"), entry), target)

    assert isinstance(error, UnsafeArchive) or method == STORED
    assert "'bomb'" in str(error) or "'/bomb'" in str(error)


BROKEN = {
    "wrong crc": Entry(local={"crc": 1}, central={"crc": 1}),
    "no deflate": Entry(packed=b"\xff" * 40),
    "cut deflate": Entry(packed=deflated(LINES)[:-3]),
    "cut deflate, with all its content": Entry(content=bytes(100_000), packed=deflated(bytes(100_000))[:-1]),
    "deflate with something after it": Entry(packed=deflated(LINES) + b"hidden"),
    "deflate with much after it": Entry(packed=deflated(LINES) + bytes(1 << 19)),
    "nothing, packed as nothing": Entry(packed=b""),
    "smaller than it says": Entry(local={"size": 601}, central={"size": 601}),
    "stored in less": Entry(method=STORED, packed=LINES[:-1]),
}


@pytest.mark.parametrize("entry", BROKEN.values(), ids=BROKEN)
def test_a_content_that_is_not_what_was_promised_is_refused(target: Path, entry: Entry) -> None:
    """The error names the member, and the good ones before it are not kept."""
    error = refused(build(Entry("/good"), entry), target)

    assert not isinstance(error, UnsafeArchive)
    assert "'file.txt' is damaged" in str(error)


@pytest.mark.slow
def test_an_archive_that_is_cut_is_refused(target: Path) -> None:
    """After any of its bytes."""
    data = made_by_a_server({"a.txt": LINES})

    for length in range(len(data)):
        assert not isinstance(refused(data[:length], target), UnsafeArchive)


@pytest.mark.parametrize("data", [b"", b'""', b"false", b"<!doctype html>" * 9, b"PK\5\6", b"PK" * 60])
def test_what_is_no_archive_is_refused(target: Path, data: bytes) -> None:
    """The servers also send other things with a 200."""
    assert "not a zip archive" in str(refused(data, target))


FOREIGN = {
    "BadZipFile": build(Entry())[:-1],
    "NotImplementedError": build(Entry(central={"version": 99})),
    "UnicodeDecodeError": build(Entry("/\u00fc\u00fc")).replace("\u00fc".encode(), b"\xff\xff"),
    "ValueError": build(
        Entry(
            local={"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF},
            extra=struct.pack("<2H2Q", 1, 16, len(LINES), 1 << 63),
            central={"packed": 0xFFFFFFFF},
            central_extra=struct.pack("<2HQ", 1, 8, 1 << 63),
        )
    ),
    "error": build(Entry("/a", local={"packed": 9999}, central={"packed": 9999}), Entry("/b", at=30 + 2 + 9999)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_errors_of_the_standard_library_become_ours(target: Path, kind: str) -> None:
    """They stay to be seen as the cause."""
    error = refused(FOREIGN[kind], target)

    assert type(error.__cause__).__name__ == kind
