"""No text of a server is a command to a terminal."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from itertools import chain

import pytest

from st4sd_async import APIError, St4sdError, _errors
from st4sd_async._util.printable import one_line, printable, printable_json, shorten
from tests.tries import tries

DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
FIRST_PLANE = 0x10000
EVERY = "".join(map(chr, chain(range(FIRST_PLANE), range(FIRST_PLANE, sys.maxunicode + 1, tries(1, 61)))))
"""All characters of Unicode, or those of the first plane and a sample of the others, which are mostly unassigned."""


def test_no_character_of_a_dangerous_category_is_left() -> None:
    """Of all characters that are tried."""
    left = {unicodedata.category(character) for character in set(printable(EVERY))}

    assert not left & DANGEROUS
    assert {"Ll", "Lo", "Mn", "Nd", "Po", "Sc", "So", "Zs"} <= left


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("CC(=O)O caf\u00e9 \u5206\u5b50 \U0001f9ea", "CC(=O)O caf\u00e9 \u5206\u5b50 \U0001f9ea"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("\x9b2J\x7f\r", r"\x9b2J\x7f\r"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("\ud800\U000e0041\ue000", r"\ud800\U000e0041\ue000"),
        ("a\nb\tc", r"a\nb\tc"),
    ],
)
def test_what_is_replaced_stays_visible(text: str, shown: str) -> None:
    """A reader sees that there was something, and what; letters of all scripts and emoji stay."""
    assert printable(text) == shown


def test_a_text_of_several_lines_keeps_its_layout() -> None:
    """A carriage return is part of a line break or it overwrites the line."""
    assert printable("a\tb\r\nc\rd\x1b\n", "\n\t") == "a\tb\nc\\rd\\x1b\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029", "\x1c"])
def test_a_message_is_one_line(end: str) -> None:
    """Whatever counts as the end of a line somewhere."""
    assert one_line(f"a{end}  b") == shorten(f"a{end}  b") == str(St4sdError(f"a{end}  b")) == "a b"


def test_printable_json_means_the_same() -> None:
    """Every character comes back from it."""
    text = "\ud800 " + "".join(one for one in EVERY if unicodedata.category(one) != "Cs")  # halves would pair up
    document = json.dumps({"key\x1b": text}, ensure_ascii=False, indent=2)

    shown = printable_json(document)

    assert json.loads(shown) == json.loads(document)
    assert printable(shown, "\n\t") == shown


def _classes(root: type[BaseException]) -> list[type[BaseException]]:
    return [root, *(one for child in root.__subclasses__() for one in _classes(child))]


@pytest.mark.parametrize("cls", _classes(St4sdError), ids=lambda cls: cls.__name__)
def test_no_error_writes_its_text_past_the_root_of_the_tree(cls: type[BaseException]) -> None:
    """So that ``str(error)`` of a class to come holds no control characters either."""
    assert cls.__str__ is _errors.St4sdError.__str__


def test_the_text_of_an_error_holds_no_control_characters() -> None:
    """Its attributes have the words of the service as they came, the advice included."""
    error = APIError("no\x1b[2J\u202e", status=400, method="GET", url="https://x/\x9b", detail={"a": "\x1b"})
    error.advice = "do\x07\nthis"

    assert str(error) == r"no\x1b[2J\u202e; do\x07 this (GET https://x/\x9b was refused with 400)"
    error.add_note("from \x1b[2J\nand more")
    assert repr(error).isprintable()
    assert error.__notes__ == ["from \\x1b[2J\nand more"]
    assert error.message == "no\x1b[2J\u202e"


def test_a_log_record_is_one_line_and_holds_no_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    """Its numbers stay numbers; a traceback keeps its lines."""
    log = logging.getLogger("st4sd_async")
    caplog.set_level(logging.INFO, "st4sd_async")

    try:
        raise ValueError("odd\x1b[2J")
    except ValueError as error:
        log.info("%d of %s: %s %.1f", 3, "a\nWARNING forged\x9b", error, 1.25, exc_info=True)

    (record,) = caplog.records
    assert record.getMessage() == r"3 of a WARNING forged\x9b: odd\x1b[2J 1.2"
    assert printable(caplog.text, "\n\t") == caplog.text
    assert "Traceback" in caplog.text
