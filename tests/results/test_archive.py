"""What comes out of an honest archive."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from st4sd_async._results.archive import ZipArchive
from st4sd_async._results.target import ExtractedFile, extract
from tests.tries import sample, tries

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
    made_by_python,
    refused,
    tree,
    unpack,
)


def test_an_archive_of_the_servers_is_unpacked(tmp_path: Path) -> None:
    """Path, size and sha256 tell what was written, below a target that need not exist."""
    files = {"b.txt": b"", "a/deep/c.csv": LINES, "a/ü ß.bin": bytes(range(256)) * 2000}
    archive = tmp_path / "a.zip"
    archive.write_bytes(made_by_a_server(files))

    members = extract(archive, tmp_path / "new" / "target")

    assert members == [
        ExtractedFile(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()
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
        archive = ZipArchive(file)

    assert [(one.path, one.info.file_size, one.start) for one in archive.members] == [("a", size, start)]
    assert archive.folders == []


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


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_memory_does_not_grow_with_a_file(target: Path, method: int) -> None:
    """64 MiB of zeros take as little as a small file; so do 16, which are four times the bound too."""
    size = tries(1 << 26, 1 << 24)
    archive = target.parent / "zeros.zip"
    with zipfile.ZipFile(archive, "w", method) as zeros:
        zeros.writestr("zeros", bytes(size))

    with little_memory(1 << 22):
        members = extract(archive, target)

    assert members[0].size == (target / "zeros").stat().st_size == size


@pytest.mark.parametrize(
    "size",
    [
        *sample([(1 << 18) + more for more in (-259, -258, -1, 0, 1, 258, 259)], 4),
        *sample([(2 << 18) + more for more in (-259, -258, -1, 0, 1, 258, 259)], 3),
    ],
)
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


def test_large_files_are_unpacked_and_synced_by_four_threads(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four syncs wait for each other, and there is never a fifth; the threads end with the call."""
    contents = {f"{number}.bin": bytes([number]) * (1 << 20) for number in range(8)}
    together, running, most, before = threading.Barrier(4), [0], [0], threading.active_count()

    def sync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            running[0] += 1
            most[0] = max(most[0], running[0])
            together.wait(20)
            running[0] -= 1

    monkeypatch.setattr(os, "fsync", sync)

    members = unpack(made_by_python(contents), target)

    assert most == [4]
    assert [(one.path, one.sha256) for one in members] == [
        (path, hashlib.sha256(content).hexdigest()) for path, content in contents.items()
    ]
    assert tree(target) == {"kept.txt": b"older", **contents}
    assert threading.active_count() == before


@pytest.mark.parametrize("damaged", [1 << 20, 1], ids=["large", "small"])
def test_a_damaged_file_stops_the_others(target: Path, monkeypatch: pytest.MonkeyPatch, damaged: int) -> None:
    """Threads that unpack others end before the call does, long before their work is done, and nothing is left."""
    content, synced, before = bytes(1 << 20), [], threading.active_count()
    packed = deflated(content)
    entries = [Entry(f"/{number}", content, packed=packed) for number in range(64)]
    bad = Entry("/bad", bytes(damaged), local={"crc": 1}, central={"crc": 1})

    def sync(handle: int) -> None:
        time.sleep(0.02)
        synced.append(handle)

    monkeypatch.setattr(os, "fsync", sync)

    error = refused(build(bad, *entries), target)

    assert "its member 'bad' is damaged" in str(error)
    assert len(synced) < len(entries)
    assert threading.active_count() == before


def test_contents_may_be_read_by_turns(target: Path) -> None:
    """Each has its own place in the archive."""
    contents = {name: name.encode() * (1 << 20) for name in ("a", "b")}
    (target / "a.zip").write_bytes(made_by_python(contents, STORED))

    with (target / "a.zip").open("rb") as file:
        archive = ZipArchive(file)
        pieces = list(zip(*map(archive.content, archive.members), strict=True))

    assert [b"".join(of_one) for of_one in zip(*pieces, strict=True)] == list(contents.values())
