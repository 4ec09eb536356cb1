"""Which members are taken out of an archive: by their names, their places and their kinds."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from st4sd_async import UnsafeArchive
from st4sd_async._results.archive import UnsafeZip, safe_member_path

from .archives import LINES, STORED, UTF_8, Entry, build, refused, tree, unpack

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
    "deep": "/" + "/".join(["a"] * 101),
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
        "/" + "/".join(["a"] * 100),
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
    assert safe_member_path(name, windows=False) == name
    with pytest.raises(UnsafeZip):
        safe_member_path(name, windows=True)


@pytest.mark.parametrize("name", ["console.txt", "a/b.c", "com.txt", "nul_", "auxiliary", "lpt", "com10", "my con"])
def test_windows_takes_names_that_only_look_so(name: str) -> None:
    """A device is refused by its whole name."""
    assert safe_member_path(name, windows=True) == name


@pytest.mark.parametrize("name", ["\udcff", "a/b\ud800.csv", "\udfff/x"])
def test_a_name_that_is_no_text_is_refused(name: str) -> None:
    """As a document may have it, of a file whose name is not UTF-8; it is no `UnicodeEncodeError`."""
    with pytest.raises(UnsafeZip, match="half of a character"):
        safe_member_path(name)


COLLISIONS = {
    "duplicate": ("/a", "/a"),
    "with and without a slash": ("/a", "a"),
    "case": ("/a/B.txt", "/a/b.txt"),
    "case of a folder": ("/A/one", "/a/two"),
    "sharp s": ("/straße", "/STRASSE"),
    "composed and decomposed": ("/\u00fc", "/u\u0308"),
    "composed capital": ("/\u00dc", "/u\u0308"),
    "characters without width": ("/a\u200db", "/a\u00adb"),
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
