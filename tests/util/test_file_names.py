"""Names of files and folders made of what a server says: writable anywhere, never shared, never ours."""

from __future__ import annotations

import os
import re
import unicodedata
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from st4sd_async._util.file_names import (
    folded,
    folder_name,
    folder_names,
    is_device,
    is_reserved,
    safe_name,
    unreserved,
)
from tests.tries import tries

TEXTS = st.text(max_size=120) | st.text("ab:/_~.-AB \x1b\u202e\ud800漢é", max_size=12)
"""All of Unicode, lone surrogates included."""


@pytest.mark.parametrize(
    "name", ["Energies", "a.b-c_D", "1", "x" * 200, "A", "-", "a_b-1a2b3c4d", "run-20240101", "My Output", "été"]
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    """As in the targets that exist already."""
    assert folder_name(name) == name


SEPARATED = [
    "a:b",
    "a/b",
    "a\\b",
    "..",
    ".",
    "...",
    "",
    "_",
    "a ",
    " a",
    "a.",
    "aux",
    "NUL.txt",
    "com¹",
    "con .x",
    "a~b",
]
UNPRINTABLE = ["a\nb", "a\x1bb", "a\x9bb", "a\u202eb", "a\u2028b", "a\u200bb", "\ud800"]
LONG = ["x" * 201, "漢" * 100]
OURS = [".st4sd-downloads.jsonl", ".ST4SD-x.part"]


@pytest.mark.parametrize("name", [*SEPARATED, *UNPRINTABLE, *LONG, *OURS])
def test_any_other_name_is_replaced(name: str) -> None:
    """By one that is printable, ends in a digest, and can be written."""
    made = folder_name(name)

    assert re.search(r"~[0-9a-f]{32}$", made)
    assert made.isprintable()
    assert not is_reserved(made)
    assert not is_device(made)
    with TemporaryDirectory() as folder:
        (Path(folder) / made).mkdir()
        assert os.listdir(folder) == [made]  # noqa: PTH208 -- names are all there is to see


def test_what_looks_like_a_replacement_is_replaced() -> None:
    """No name can be chosen so that it shares the folder of another one."""
    made = folder_name("a:b")

    assert folder_name(made) != made
    assert folder_name(folder_name(made)) not in (made, folder_name(made))


def test_two_names_that_a_disk_does_not_distinguish_have_different_folders() -> None:
    """By case, and by the Unicode form of a letter; a name without a twin keeps its folder."""
    names = ["Energies", "energies", "\u00e9", "e\u0301", "Table", "ß", "SS"]

    folders = folder_names(names)

    assert len(set(map(folded, folders.values()))) == len(names)
    assert folders["Table"] == "Table"
    assert folder_names(reversed(names)) == folders


@pytest.mark.slow
@settings(max_examples=tries(300, 50))
@given(st.lists(TEXTS, max_size=6))
@example(["a:b", folder_name("a:b"), "a_b"])
@example(["\ud800", "\udfff", "?"])
@example(["漢" * 100, "漢" * 101])
def test_no_two_names_share_a_folder_anywhere(names: list[str]) -> None:
    """Whatever they are, on a disk that is blind to case and Unicode form, too."""
    folders = folder_names(names)

    assert folders.keys() == set(names)
    assert len({unicodedata.normalize("NFD", one.casefold()) for one in folders.values()}) == len(folders)
    for one in folders.values():
        assert len(one.encode()) <= 230
        assert one.isprintable()
        assert not re.search(r"[/\\:*?\"<>|]", one)
        assert one not in ("", ".", "..")
        assert one == one.strip().rstrip(".")
        assert not is_reserved(one)


def test_a_server_cannot_choose_two_names_with_one_digest() -> None:
    """These two have the same first 12 digits, and were found in three minutes."""
    names = ["a::*:::***:**::****:******:", "a:*:*:::**::::*:*::***:*::*"]
    first, second = (sha256(name.encode()).hexdigest() for name in names)
    assert first[:12] == second[:12]

    assert len(set(folder_names(names).values())) == 2


@pytest.mark.parametrize("name", ["CON", "con.txt", "Aux .csv", "nul", "COM\u00b9.log", "conin$", "LPT1.a.b"])
def test_a_file_is_not_called_like_a_device(name: str) -> None:
    """Windows would write to the device, whatever the suffix."""
    assert safe_name(name, otherwise="x") == f"_{name}"
    assert not is_device(folder_name(name))


@pytest.mark.parametrize("name", ["console", "conx.txt", "com", "com10", "auxiliary.csv", "x.con", "nul_"])
def test_other_names_are_no_devices(name: str) -> None:
    """They stay as they are."""
    assert safe_name(name, otherwise="x") == folder_name(name) == name


@pytest.mark.parametrize(
    ("first", "second"),
    [("ab", "AB"), ("\u00e9", "e\u0301"), ("ß", "SS"), ("a\u200db", "ab"), ("a\u00adb", "AB"), ("x\ufe0f", "X")],
)
def test_names_that_a_disk_does_not_distinguish_fold_to_one(first: str, second: str) -> None:
    """By case, Unicode form, and characters without width, which some file systems skip."""
    assert folded(first) == folded(second)


@settings(max_examples=tries(300, 50))
@given(TEXTS, TEXTS)
@example("漢" * 100 + ".csv", "x")
@example("x" * 300 + ".csv", "x")
@example("x." + "y" * 300, "x")
@example("\ud800.csv", "x")
def test_a_file_name_can_be_written(name: str, otherwise: str) -> None:
    """It is no path, not too long in bytes, and not ours."""
    made = safe_name(name, otherwise=otherwise)

    assert 0 < len(made.encode()) <= 230
    assert made.isprintable()
    assert "/" not in made
    assert not is_reserved(made)


def test_a_file_name_that_is_cut_keeps_its_suffix_and_stays_distinct() -> None:
    """Two long names do not become one."""
    first, second = (safe_name(f"{'漢' * 100}{end}.csv", otherwise="x") for end in "ab")

    assert first != second
    assert first.endswith(".csv")
    assert safe_name("漢" * 60 + ".csv", otherwise="x") == "漢" * 60 + ".csv"


RESERVED = [
    ".st4sd-downloads.jsonl",
    ".ST4SD-downloads.jsonl",
    ".St4Sd-x.part",
    ".\u017ft4sd-x",  # a long s
    "\uff0est4sd-x",  # a fullwidth full stop
    ".st\u200b4sd-x",  # a space without width
    ".st4\u0301sd-x",  # an accent that some systems drop
    ".\U0001d494t4sd-x",  # a mathematical s
    "ST4SD-~1.JSO",  # the second name that Windows gives to our files
]


@pytest.mark.parametrize("name", RESERVED)
def test_our_names_are_reserved_however_they_are_spelled(name: str) -> None:
    """Some file systems ignore case, compatibility forms or characters without width."""
    assert is_reserved(name)
    for path in (name, f"{name}/x", f"a/{name}", f"a/{name}/b"):
        assert not any(map(is_reserved, unreserved(path).split("/")))
        assert unreserved(path) == path.replace(name, f"_{name}")
    assert not is_reserved(safe_name(name, otherwise="x"))


@pytest.mark.parametrize("name", ["st4sd-x", "_.st4sd-x", ".st4sd", "x.st4sd-y", "st4sd", ".stasd-x", "été/st4sd"])
def test_other_names_are_not(name: str) -> None:
    """They are left alone."""
    assert unreserved(name) == name
