"""Whatever an archive holds: nothing outside of the target, nothing half, and no error but ours."""

from __future__ import annotations

import hashlib
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from unicodedata import category, normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st4sd_async import DownloadError
from st4sd_async._results.archive import UnsafeZip, safe_member_path
from st4sd_async._results.target import extract
from tests.results.archives import DEFLATED, LINES, STORED, UTF_8, Entry, build, made_by_a_server, made_by_python, tree
from tests.tries import tries

Mutation = Callable[[bytearray, random.Random], bytes]

CONTENTS = {"a.txt": LINES, "data/b.csv": b"1,2\n" * 30, "data/deep/c.bin": bytes(range(256)), "empty": b""}
ARCHIVES = tries(1500, 36)  # of each kind of mutation
MARKS = (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08")
NUMBERS = (0, 1, 2, 7, 8, 9, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
EVIL = ("../", "/", "\\", "C:", "\0", "./", "//", "é", ".", "A", "a.txt", "data")


pytestmark = pytest.mark.timeout(120)  # thousands of archives

SEEDS = [
    made_by_a_server(CONTENTS),
    made_by_python(CONTENTS),
    made_by_python(CONTENTS, STORED),
    build(*(Entry(f"/{name}", content) for name, content in CONTENTS.items()), zip64=True),
    build(Entry("/data/", b"", STORED), *(Entry(name, CONTENTS[name], STORED, 0) for name in CONTENTS)),
]


def flipped(data: bytearray, dice: random.Random) -> bytes:
    """Some bits are the other way round."""
    for _ in range(dice.randint(1, 6)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def cut(data: bytearray, dice: random.Random) -> bytes:
    """The end, the beginning or something between is missing."""
    start, end = sorted(dice.choices(range(len(data)), k=2))
    return bytes(dice.choice([data[:end], data[start:], data[:start] + data[end:]]))


def spliced(data: bytearray, dice: random.Random) -> bytes:
    """A piece of an archive stands in another place, or in another archive, and may have replaced what was there."""
    other = dice.choice(SEEDS)
    start, end = sorted(dice.choices(range(len(other)), k=2))
    at = dice.randrange(len(data))
    data[at : at + dice.choice([0, end - start])] = other[start:end]
    return bytes(data)


def edited(data: bytearray, dice: random.Random) -> bytes:
    """Fields of headers have other numbers."""
    for _ in range(dice.randint(1, 3)):
        headers = [at for mark in MARKS for at in occurrences(data, mark)]
        at = dice.choice(headers) + dice.randrange(4, 56)
        width, form = dice.choice([(2, "<H"), (4, "<L"), (8, "<Q")])
        number = dice.choice([*NUMBERS, dice.randrange(len(data)), dice.getrandbits(16)])
        data[at : at + width] = struct.pack(form, number & ((1 << 8 * width) - 1))
    return bytes(data)


def edited_alike(data: bytearray, dice: random.Random) -> bytes:
    """The same field of both headers of a member has another number, so that they still agree."""
    beside, listed = (list(occurrences(data, mark)) for mark in MARKS[:2])
    member = dice.randrange(len(listed))
    offset, form = dice.choice([(2, "<H"), (4, "<H"), (10, "<L"), (14, "<L"), (18, "<L"), (22, "<H"), (24, "<H")])
    number = dice.choice([*NUMBERS, dice.randrange(len(data))]) & (0xFFFF if form == "<H" else 0xFFFFFFFF)
    for at in (beside[member] + 4, listed[member] + 6):
        struct.pack_into(form, data, at + offset, number)
    return bytes(data)


def renamed(data: bytearray, dice: random.Random) -> bytes:
    """Names are replaced in both headers by others of the same length."""
    for name in dice.sample(sorted(CONTENTS), 2):
        other = "".join(dice.choices([*EVIL, *"abc/."], k=20)).encode()[: len(name)]
        data = data.replace(name.encode(), other)
    return bytes(data)


def packed_otherwise(_: bytearray, dice: random.Random) -> bytes:
    """Made by hand: names, kinds, places and claims are anything, headers mostly agree."""
    entries = []
    for _number in range(dice.randint(1, 4)):
        claims = {"size": dice.choice(NUMBERS[:13]), "crc": 0} if dice.random() < 0.2 else {}
        name = "".join(dice.choices([*EVIL, "a", "b", "/", "ü", "u\u0308", "data", "-"], k=dice.randint(1, 4)))
        method, mode = dice.choice([STORED, DEFLATED, DEFLATED]), dice.choice([0, 0, 0, 0o100644, 0o120777, 0o40755])
        at = dice.choice([None, None, None, 0, dice.randrange(400)])
        content = b"" if name.endswith("/") else dice.choice([b"", LINES])
        entries.append(Entry(name, content, method, UTF_8, mode, at=at, local=claims, central=claims))
    return build(*entries, before=dice.choice([b"", b"", b"", b"?"]), zip64=dice.random() < 0.3)


def occurrences(data: bytes | bytearray, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


def prepare(parent: Path) -> Path:
    """A target with a file in it and a link out of it."""
    target = parent / "target"
    shutil.rmtree(parent, ignore_errors=True)
    target.mkdir(parents=True)
    (parent / "outside").mkdir()
    (parent / "outside" / "a.txt").write_bytes(b"not yours")
    (target / "kept.txt").write_bytes(b"older")
    (target / "A").symlink_to("../outside")
    return target


def is_taken(data: bytes, target: Path) -> bool:
    """Whether an archive is unpacked; in any case nothing but its members may change, and they must be whole."""
    archive = target.with_name("archive.zip")
    archive.write_bytes(data)
    before = tree(target.parent)
    try:
        members = extract(archive, target)
    except DownloadError:
        assert tree(target.parent) == before
        return False
    files = {f"target/{member.path}": member for member in members}
    after = tree(target.parent)
    for path in before.keys() - files.keys():
        assert after[path] == before[path]
    for path, member in files.items():
        content = after[path]
        assert isinstance(content, bytes)
        assert (len(content), hashlib.sha256(content).hexdigest()) == (member.size, member.sha256)
    folders = after.keys() - before.keys() - files.keys()
    assert all(path.startswith("target/") and not path.endswith(".part") and after[path] is None for path in folders)
    return True


MUTATIONS = (flipped, cut, spliced, edited, edited_alike, renamed, packed_otherwise)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_mutated_archive_does_no_harm(tmp_path: Path, mutate: Mutation) -> None:
    """It is unpacked as a whole, or ends in one of our errors and leaves nothing."""
    dice = random.Random(mutate.__name__)
    target = prepare(tmp_path / "parent")
    taken = 0

    for _ in range(ARCHIVES):
        if is_taken(mutate(bytearray(dice.choice(SEEDS)), dice), target):
            taken += 1
            prepare(target.parent)

    assert taken < ARCHIVES / 4


def test_the_archives_that_are_mutated_are_good(tmp_path: Path) -> None:
    """Else their mutations would prove little."""
    target = prepare(tmp_path / "parent")

    for seed in SEEDS:
        assert is_taken(seed, target)
        assert {name: (target / name).read_bytes() for name in CONTENTS} == CONTENTS


names = st.one_of(
    st.text(max_size=8),
    st.lists(st.sampled_from([*EVIL, "a", "B", "ü", "u\u0308", "ß", "ss", "/"]), max_size=6).map("".join),
)


@given(names)
def test_a_name_leads_to_one_path_below_the_target_or_nowhere(name: str) -> None:
    """With or without the slash of the servers, and what was checked needs no other check."""
    try:
        path = safe_member_path(name)
    except UnsafeZip:
        return

    assert PurePosixPath(path).parts == tuple(path.split("/"))
    assert not {"..", "/", ""} & {*PurePosixPath(path).parts}
    assert "Cc" not in map(category, path)
    assert safe_member_path(path) == safe_member_path(f"/{path}") == path


@settings(max_examples=tries(100, 12))
@given(st.lists(names, min_size=1, max_size=4))
def test_no_names_do_harm(names: list[str]) -> None:
    """Each member is a file of its own below the target, or none of them is unpacked."""
    entries = [Entry(name, b"" if name.endswith("/") else name.encode()) for name in names]

    with tempfile.TemporaryDirectory() as folder:
        target = prepare(Path(folder, "parent"))
        if is_taken(build(*entries), target):
            for entry in entries:
                assert (
                    entry.name.endswith("/") or Path(target, entry.name.removeprefix("/")).read_bytes() == entry.content
                )


def spellings(name: str) -> Iterator[str]:
    yield name
    yield normalize("NFC", name)
    yield normalize("NFD", name)
    yield normalize("NFD", name).casefold()
    yield normalize("NFC", normalize("NFD", name).casefold())


@settings(max_examples=tries(100, 12))
@given(names, st.integers(0, 4))
def test_two_spellings_of_one_name_are_never_both_taken(name: str, form: int) -> None:
    """Some file systems take them for the same file."""
    entries = [Entry(spelling, LINES) for spelling in (name, list(spellings(name))[form])]

    with tempfile.TemporaryDirectory() as folder:
        target = prepare(Path(folder, "parent"))
        assert not is_taken(build(*entries), target)
