"""What the tests of archives share: archives by hand, by Python and as of a server, a target, what is left there."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from st4sd_async import DownloadError
from st4sd_async._results.archive import Limits
from st4sd_async._results.target import ExtractedFile, extract

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


def zip_of(*names: str) -> bytes:
    """Return an archive, made by Python, of members with these names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as written:
        for name in names:
            written.writestr(name, "" if name.endswith("/") else f"content of {name}")
    return stream.getvalue()


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """All that is below a folder: contents of files, targets of links, None for folders."""
    return {
        path.relative_to(folder).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        for path in folder.rglob("*")
    }


def unpack(data: bytes, target: Path, limits: Limits | None = None) -> list[ExtractedFile]:
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


@contextmanager
def little_memory(most: int) -> Iterator[None]:
    """What is done here takes no more than so many bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
