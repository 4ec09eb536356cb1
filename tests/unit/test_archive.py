"""What comes out of an archive, honest or hostile, and what is left when nothing may come out."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from st4sd_async import DownloadError, UnsafeArchive
from st4sd_async._archive import PIECE, Member, extract
from st4sd_async._zip import Hostile, Limits, checked, plan

LINES = b"energy 1.25 eV\n" * 40
DEFLATED, STORED = zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED
DESCRIPTOR, UTF_8 = 0x8, 0x800
FIELDS = ("flags", "method", "time", "date", "crc", "packed", "size")


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@dataclass
class Entry:
    """One member, as honest as its defaults; ``local`` and ``central`` change a field in one of its two headers."""

    name: str = "/file.txt"
    content: bytes = LINES
    method: int = DEFLATED
    flags: int = UTF_8
    mode: int = 0
    packed: bytes | None = None
    extra: bytes = b""
    """Extra field beside the content."""
    central_extra: bytes = b""
    after: bytes = b""
    """What follows the content."""
    at: int | None = None
    """Where the directory says that it is, if not where it is."""
    local: dict[str, int] = field(default_factory=dict)
    central: dict[str, int] = field(default_factory=dict)
    local_name: str | None = None

    @property
    def data(self) -> bytes:
        if self.packed is None:
            return deflated(self.content) if self.method == DEFLATED else self.content
        return self.packed

    def raw(self, name: str) -> bytes:
        return name.encode("utf-8" if self.flags & UTF_8 else "cp437")

    def fields(self, changes: dict[str, int]) -> list[int]:
        """Flags, method, time, date, CRC and sizes, with the changes."""
        true = (self.flags, self.method, 0, 0x21, zlib.crc32(self.content), len(self.data), len(self.content))
        return list((dict(zip(FIELDS, true, strict=True)) | changes).values())[: len(FIELDS)]

    def beside_the_content(self) -> bytes:
        name = self.raw(self.name if self.local_name is None else self.local_name)
        header = struct.pack("<4s5H3L2H", b"PK\3\4", 20, *self.fields(self.local), len(name), len(self.extra))
        return header + name + self.extra + self.data + self.after

    def in_the_directory(self, at: int) -> bytes:
        name, fields = self.raw(self.name), self.fields(self.central)
        disk, version = self.central.get("disk", 0), self.central.get("version", 20)
        at = at if self.at is None else self.at
        lengths_and_kind = (len(name), len(self.central_extra), 0, disk, 0, self.mode << 16, at)
        return (
            struct.pack("<4s2H4H3L5H2L", b"PK\1\2", 3 << 8 | 20, version, *fields, *lengths_and_kind)
            + name
            + self.central_extra
        )


def ending(zip64: bool = False, **fields: int) -> bytes:
    """The records after the directory: ``count``, ``length`` and ``start``, and what else is not 0."""
    here, disk = fields.get("here", fields["count"]), fields.get("disk", 0)
    counts = (here, fields["count"], fields["length"], fields["start"])
    records = b""
    if zip64:
        records = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, disk, disk, *counts)
        records += struct.pack("<4sLQL", b"PK\6\7", 0, fields["start"] + fields["length"], 1)
        counts = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return records + struct.pack("<4s4H2LH", b"PK\5\6", disk, disk, *counts, fields.get("comment", 0))


def build(*entries: Entry, before: bytes = b"", zip64: bool = False, **changes: int) -> bytes:
    """An archive by hand, with changes of its last record."""
    body, directory = before, b""
    for entry in entries:
        directory += entry.in_the_directory(len(body))
        body += entry.beside_the_content()
    fields = {"count": len(entries), "length": len(directory), "start": len(body)} | changes
    return body + directory + ending(zip64, **fields)


def made_by_python(files: dict[str, bytes], method: int = DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Pipe(io.BytesIO):
    """A stream that cannot go back, as to a client."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_where: object) -> int:
        raise io.UnsupportedOperation("seek")


def made_by_a_server(files: dict[str, bytes]) -> bytes:
    """With a slash before each name, zip64 sizes and data descriptors."""
    stream = Pipe()
    with zipfile.ZipFile(stream, "w", DEFLATED) as archive:
        for name, content in files.items():
            with archive.open(f"/{name}", "w", force_zip64=True) as member:
                member.write(content)
    return stream.getvalue()


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """All that is below a folder: contents of files, targets of links, None for folders."""
    return {
        path.relative_to(folder).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        for path in folder.rglob("*")
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder with a file in it, in a folder with another file."""
    (tmp_path / "outside.txt").write_bytes(b"not yours")
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "kept.txt").write_bytes(b"older")
    return folder


def unpack(data: bytes, target: Path, limits: Limits | None = None) -> list[Member]:
    archive = target.parent / "archive.zip"
    archive.write_bytes(data)
    try:
        return extract(archive, target, limits=limits or Limits())
    finally:
        archive.unlink()


def refused(data: bytes, target: Path, limits: Limits | None = None) -> DownloadError:
    """The error that an archive ends in, which must leave everything as it was."""
    before = tree(target.parent)

    with pytest.raises(DownloadError) as caught:
        unpack(data, target, limits)

    assert tree(target.parent) == before
    assert caught.value.path == str(target.parent / "archive.zip")
    assert caught.value.received == len(data)
    assert str(caught.value).startswith(repr(caught.value.path))
    assert str(caught.value).endswith(caught.value.advice)
    assert len(str(caught.value)) <= 500
    return caught.value


# What must work


def test_an_archive_of_the_servers_is_unpacked(tmp_path: Path) -> None:
    """Path, size and sha256 tell what was written, below a target that need not exist."""
    files = {"b.txt": b"", "a/deep/c.csv": LINES, "a/ü ß.bin": bytes(range(256)) * 2000}
    archive = tmp_path / "a.zip"
    archive.write_bytes(made_by_a_server(files))

    members = extract(archive, tmp_path / "new" / "target")

    assert members == [
        Member(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()
    ]
    assert tree(tmp_path / "new" / "target") == {"a": None, "a/deep": None, **files}


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_an_archive_of_python_is_unpacked(target: Path, method: int) -> None:
    """Members come in the order of the archive, folders of their own are made and not listed."""
    members = unpack(made_by_python({"z/": b"", "z/b": LINES, "a": b"", "z/a": b"1" * 600_000}, method), target)

    assert [(member.path, member.size) for member in members] == [("z/b", 600), ("a", 0), ("z/a", 600_000)]
    assert tree(target) == {"kept.txt": b"older", "z": None, "z/b": LINES, "a": b"", "z/a": b"1" * 600_000}


def test_zip64_sizes_without_a_descriptor_are_read(target: Path) -> None:
    """A header may say that its sizes stand in its extra field."""
    extra = struct.pack("<2H2Q", 1, 16, len(LINES), len(deflated(LINES)))

    unpack(build(Entry(extra=extra, local={"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF})), target)

    assert (target / "file.txt").read_bytes() == LINES


def test_zip64_records_at_the_end_are_read(target: Path) -> None:
    """As they stand in archives over 4 GiB or with 65,535 members."""
    unpack(build(Entry(), Entry("/b"), zip64=True), target)

    assert (target / "file.txt").read_bytes() == (target / "b").read_bytes() == LINES


@pytest.mark.parametrize("mark", [b"PK\7\x08", b"", None], ids=["marked", "bare", "none"])
def test_a_member_over_4_gib_is_planned(tmp_path: Path, mark: bytes | None) -> None:
    """Its sizes stand in extra fields of both headers, and in a descriptor of 8 bytes each."""
    size = (1 << 32) + 5
    told = {"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF}
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    entry = Entry("/a", b"", STORED, 0 if mark is None else DESCRIPTOR, extra=extra, local=told)
    entry.central, entry.central_extra = told, extra
    descriptor = b"" if mark is None else mark + struct.pack("<L2Q", 0, size, size)
    directory = entry.in_the_directory(0)

    with (tmp_path / "sparse.zip").open("wb+") as file:
        start = file.write(entry.beside_the_content())
        file.seek(start + size)
        file.write(descriptor + directory)
        file.write(ending(True, count=1, length=len(directory), start=start + size + len(descriptor)))
        files, folders = plan(file, Limits())

    assert [(packed.path, packed.info.file_size, packed.start) for packed in files] == [("a", size, start)]
    assert folders == []


@pytest.mark.parametrize("content", [LINES, b""], ids=["lines", "empty"])
@pytest.mark.parametrize("mark", [b"PK\7\x08", b""], ids=["marked", "bare"])
@pytest.mark.parametrize("form", ["<3L", "<L2Q"])
def test_all_forms_of_a_descriptor_are_read(target: Path, form: str, mark: bytes, content: bytes) -> None:
    """The format allows four."""
    descriptor = mark + struct.pack(form, zlib.crc32(content), len(deflated(content)), len(content))
    entry = Entry("/a", content, flags=UTF_8 | DESCRIPTOR, after=descriptor, local={"crc": 0, "packed": 0, "size": 0})

    unpack(build(entry, Entry("/b")), target)

    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (content, LINES)


def test_a_folder_may_lack_the_descriptor_that_it_announces(target: Path) -> None:
    """Some packers that stream forget it there, and only there."""
    unpack(build(Entry("/a/", b"", STORED, UTF_8 | DESCRIPTOR), Entry("/a/b")), target)

    assert (target / "a" / "b").read_bytes() == LINES


def test_contents_may_lie_in_another_order(target: Path) -> None:
    """Members come as the directory lists them, wherever their contents lie."""
    data = build(Entry("/a", b"1"), Entry("/b", b"22"))
    records, directory, end = data[:-118], data[-118:-22], data[-22:]

    members = unpack(records + directory[48:] + directory[:48] + end, target)

    assert [(member.path, member.size) for member in members] == [("b", 2), ("a", 1)]
    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (b"1", b"22")


@pytest.mark.parametrize("zip64", [False, True])
def test_an_empty_archive_has_no_files(target: Path, zip64: bool) -> None:
    """The gateway sends one if nothing of what was asked for exists."""
    assert unpack(build(zip64=zip64), target) == []
    assert tree(target) == {"kept.txt": b"older"}


def test_names_of_old_archives_are_read(target: Path) -> None:
    """Without the flag for UTF-8 a name is in the code page that the format prescribes."""
    unpack(build(Entry("/Größe.txt", flags=0)), target)

    assert (target / "Größe.txt").read_bytes() == LINES


def test_files_of_the_same_name_are_replaced(target: Path) -> None:
    """But not written to: another name of the same file keeps the old content."""
    (target / "other-name.txt").hardlink_to(target / "kept.txt")

    unpack(build(Entry("/kept.txt"), Entry("/sub/new.txt")), target)

    assert tree(target) == {
        "kept.txt": LINES,
        "other-name.txt": b"older",
        "sub": None,
        "sub/new.txt": LINES,
    }


def test_many_archives_may_go_into_one_target(target: Path) -> None:
    """Calls in several threads share folders and do not disturb each other."""
    archives = [target.parent / f"{number}.zip" for number in range(8)]
    for number, archive in enumerate(archives):
        archive.write_bytes(build(*(Entry(f"/shared/{part}/{number}.txt", b"%d" % number) for part in range(20))))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda archive: extract(archive, target), archives))

    files = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*/*/*.txt")}
    assert files == {f"shared/{part}/{number}.txt": b"%d" % number for part in range(20) for number in range(8)}
    assert sorted(path.name for path in target.iterdir()) == ["kept.txt", "shared"]


@contextmanager
def little_memory(most: int) -> Iterator[None]:
    """What is done here takes no more than so many bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_memory_does_not_grow_with_a_file(target: Path, method: int) -> None:
    """64 MiB of zeros take as little as a small file."""
    size = 1 << 26
    archive = target.parent / "zeros.zip"
    with zipfile.ZipFile(archive, "w", method) as zeros:
        zeros.writestr("zeros", bytes(size))

    with little_memory(1 << 22):
        members = extract(archive, target)

    assert members[0].size == (target / "zeros").stat().st_size == size


@pytest.mark.parametrize("size", [part * PIECE + more for part in (1, 2) for more in (-259, -258, -1, 0, 1, 258, 259)])
@pytest.mark.parametrize("content", [b"\0", b"0123456789abcdef"])
def test_contents_may_end_anywhere_in_a_piece(target: Path, content: bytes, size: int) -> None:
    """What the inflater holds back at the end of a piece is not lost."""
    content = content * (size // len(content)) + content[: size % len(content)]

    unpack(build(Entry("/a", content)), target)

    assert (target / "a").read_bytes() == content


def test_large_files_are_synced_and_small_ones_share_a_folder(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync takes longer than to write a small file."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle)))

    unpack(build(Entry("/large", bytes(1 << 20)), Entry("/small", bytes((1 << 20) - 1)), Entry("/tiny")), target)

    assert [(stat.S_ISDIR(what.st_mode), what.st_size) for what in synced[:1]] == [(False, 1 << 20)]
    assert [stat.S_ISDIR(what.st_mode) for what in synced[1:]] == [True]


# What must not work

BAD_NAMES = {
    "parent": "/../evil",
    "parent inside": "/a/../../evil",
    "parent at the end": "/a/..",
    "only parent": "..",
    "here": "/./a",
    "two slashes": "//etc/passwd",
    "two slashes inside": "/a//b",
    "two slashes at the end": "/a//",
    "empty": "",
    "only a slash": "/",
    "backslash": "/a\\..\\..\\evil",
    "drive": "C:/evil",
    "drive after a slash": "/c:evil",
    "nul": "/a.txt\0.exe",
    "newline": "/a\nb",
    "delete": "/a\x7f",
    "escape": "/\x1b[2J",
    "next line": "/a\x85b",
    "line separator": "/a\u2028b",
    "long": "/" + "/".join(["a" * 99] * 10 + ["b"]),
    "long part": "/" + "a" * 256,
    "long part in bytes": "/" + "ü" * 128,
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_name_that_could_lead_astray_is_refused(target: Path, name: str) -> None:
    """The good members beside it are not unpacked either."""
    error = refused(build(Entry("/good.txt"), Entry(name)), target)

    assert isinstance(error, UnsafeArchive)
    assert "name of its member" in str(error)


@pytest.mark.parametrize(
    "name",
    [
        "/" + "/".join(["a" * 99] * 10),
        "/" + "a" * 255,
        "/...",
        "/a..b/.c",
        "/10:30.log",
        "/ ",
        "/~",
        "/-rf",
        "/NUL.txt",
        "c",
    ],
)
def test_an_odd_name_is_no_attack(target: Path, name: str) -> None:
    """What a file system takes, and means that file below the target, is taken."""
    assert [member.path for member in unpack(build(Entry(name)), target)] == [name.removeprefix("/")]
    assert target.joinpath(name.removeprefix("/")).read_bytes() == LINES


@pytest.mark.parametrize(
    "name",
    [
        "NUL",
        "a/con.txt",
        "aux/b",
        "Com1.log",
        "lpt9",
        "com¹",
        "CONIN$",
        "prn .x",
        "ab:c",
        "a?",
        'a"',
        "a.",
        "a ",
        "a /b",
    ],
)
def test_windows_has_names_of_its_own(name: str) -> None:
    """They are refused where they mean something else, and only there."""
    assert checked(name, windows=False) == name
    with pytest.raises(Hostile):
        checked(name, windows=True)


@pytest.mark.parametrize("name", ["console.txt", "a/b.c", "com.txt", "nul_", "auxiliary", "lpt", "com10", "my con"])
def test_windows_takes_names_that_only_look_so(name: str) -> None:
    """A device is refused by its whole name."""
    assert checked(name, windows=True) == name


COLLISIONS = {
    "duplicate": ("/a", "/a"),
    "with and without a slash": ("/a", "a"),
    "case": ("/a/B.txt", "/a/b.txt"),
    "case of a folder": ("/A/one", "/a/two"),
    "sharp s": ("/straße", "/STRASSE"),
    "composed and decomposed": ("/\u00fc", "/u\u0308"),
    "composed capital": ("/\u00dc", "/u\u0308"),
    "order of accents": ("/q\u0307\u0323", "/q\u0323\u0307"),
    "order of an accent that folds to a letter": ("/\u03b1\u0345\u0301", "/\u03b1\u0301\u0345"),
    "file, then folder": ("/a", "/a/b"),
    "folder, then file": ("/a/b", "/a"),
    "file, then its folder entry": ("/a", "/a/"),
    "folder entry, then file": ("/a/", "/a"),
    "folder entry in other case": ("/A/", "/a/b"),
}


@pytest.mark.parametrize("names", COLLISIONS.values(), ids=COLLISIONS)
def test_two_names_of_one_place_are_refused(target: Path, names: tuple[str, str]) -> None:
    """Also where only some file systems take them for one, so that an archive is the same everywhere."""
    entries = [Entry(name, b"" if name.endswith("/") else LINES) for name in names]

    error = refused(build(*entries), target)

    assert isinstance(error, UnsafeArchive)
    assert "same place" in str(error)


def test_a_folder_may_be_named_often(target: Path) -> None:
    """By an entry of its own, even twice, and by the paths of files."""
    unpack(build(Entry("/a/", b""), Entry("/a/b"), Entry("/a/", b""), Entry("/a/c/d")), target)

    assert sorted(tree(target)) == ["a", "a/b", "a/c", "a/c/d", "kept.txt"]


KINDS = {
    "link": Entry(mode=0o120777, content=b"../outside.txt", method=STORED),
    "fifo": Entry(mode=0o010644),
    "character device": Entry(mode=0o020644),
    "block device": Entry(mode=0o060644),
    "socket": Entry(mode=0o140644),
    "folder without a slash": Entry(mode=0o040755),
    "file with a slash": Entry("/a/", b"", mode=0o100644),
    "folder with a content": Entry("/a/"),
    "encrypted": Entry(flags=UTF_8 | 0x1),
    "strongly encrypted": Entry(flags=UTF_8 | 0x41),
    "patch": Entry(flags=UTF_8 | 0x20),
    "masked header": Entry(flags=UTF_8 | 0x2000),
    "bzip2": Entry(method=zipfile.ZIP_BZIP2),
    "lzma": Entry(method=zipfile.ZIP_LZMA),
    "unknown method": Entry(method=99),
    "other disk": Entry(central={"disk": 1}),
}


@pytest.mark.parametrize("entry", KINDS.values(), ids=KINDS)
def test_only_plain_files_and_folders_are_unpacked(target: Path, entry: Entry) -> None:
    """A server packs nothing else."""
    error = refused(build(Entry("/good.txt"), entry), target)

    assert isinstance(error, UnsafeArchive)
    assert repr(entry.name) in str(error)


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
    """Nobody can tell which of them another program would believe."""
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
    "a descriptor nobody announced": build(Entry(after=struct.pack("<3L", 0, 0, 0))),
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
    """However few members it tells of."""
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
    "total": (Limits(total=1000), [Entry("/a"), Entry("/b")]),
    "ratio": (Limits(ratio=5, harmless=1000), [Entry("/a"), Entry("/b")]),
    "told total": (Limits(), [Entry(f"/{part}", central={"size": 0xFFFFFFF0}) for part in range(20)]),
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
        Limits(total=1200),
        Limits(ratio=5, harmless=1200),
        Limits(ratio=20, harmless=0),
    ],
    ids=repr,
)
def test_as_much_as_is_allowed_is_unpacked(target: Path, limits: Limits) -> None:
    """The limits are what may be, not what may not."""
    assert len(unpack(build(Entry("/a/b"), Entry("/c")), target, limits)) == 2


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_a_member_cannot_become_larger_than_it_says(target: Path, method: int) -> None:
    """Also if its checksum is that of the part it tells of."""
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


def test_an_archive_that_is_cut_is_refused(target: Path) -> None:
    """After any of its bytes."""
    data = made_by_a_server({"a.txt": LINES})

    for length in range(len(data)):
        assert not isinstance(refused(data[:length], target), UnsafeArchive)


@pytest.mark.parametrize("data", [b"", b'""', b"false", b"<!doctype html>" * 9, b"PK\5\6", b"PK" * 60])
def test_what_is_no_archive_is_refused(target: Path, data: bytes) -> None:
    """The servers also send other things with a 200."""
    assert "no zip archive" in str(refused(data, target))


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


# A target that somebody prepared


@pytest.mark.parametrize("name", ["/sub/evil.txt", "/sub/deeper/evil.txt", "/sub/", "/sub"])
@pytest.mark.parametrize("to", ["../elsewhere", "nowhere", "."])
def test_no_link_in_the_target_is_followed(target: Path, to: str, name: str) -> None:
    """Neither out of the target nor within it."""
    (target.parent / "elsewhere").mkdir()
    (target / "sub").symlink_to(to)

    error = refused(build(Entry("/good.txt"), Entry(name, b"" if name.endswith("/") else LINES)), target)

    assert not isinstance(error, UnsafeArchive)
    assert "'sub'" in str(error)


@pytest.mark.parametrize("name", ["/kept.txt/a", "/kept.txt/", "/folder", "/fifo"])
def test_what_is_no_file_is_not_replaced(target: Path, name: str) -> None:
    """A file where a folder belongs, a folder where a file belongs, and what is neither."""
    (target / "folder").mkdir()
    os.mkfifo(target / "fifo")

    refused(build(Entry("/good.txt"), Entry(name, b"" if name.endswith("/") else LINES)), target)


def test_the_target_itself_may_be_a_link(target: Path) -> None:
    """It is the caller's, as are the folders above it."""
    (target.parent / "link").symlink_to("target")

    unpack(build(Entry()), target.parent / "link")

    assert (target / "file.txt").read_bytes() == LINES


def test_a_target_that_is_a_file_is_an_error_of_ours(target: Path) -> None:
    """The file stays as it is."""
    with pytest.raises(DownloadError, match="File exists"):
        unpack(build(Entry()), target / "kept.txt")

    assert tree(target) == {"kept.txt": b"older"}


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file can grow over 64 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_is_full_is_an_error_of_ours(target: Path) -> None:
    """Its words are kept, and the advice is to make room."""
    error = refused(build(Entry("/good.txt"), Entry("/large", bytes(1 << 20))), target)

    assert "make sure there is room" in str(error)
    assert isinstance(error.__cause__, OSError)


def test_an_archive_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    """Nothing is made for it."""
    with pytest.raises(DownloadError) as caught:
        extract(tmp_path / "none.zip", tmp_path / "target")

    assert caught.value.received == 0
    assert not (tmp_path / "target").exists()
