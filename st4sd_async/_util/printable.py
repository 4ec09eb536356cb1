"""
Make texts safe to print, so that no character from a server acts as a command in a terminal, a log or a repr.

Escape sequences can overwrite the screen and write to the clipboard. Bidirectional controls change how a text reads. A
line break forges a line in a log. Each such character is replaced by its Python escape, as in ``\\x1b`` or ``\\u202e``.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Callable
from typing import Any

LOGGER = "st4sd_async"
"""Name of the logger of this package."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_MESSAGE_LENGTH = 500
"""Characters; longer server messages are cut in the middle."""
MAX_REPR_LENGTH = 120
"""Characters of the `repr` of a model, which may stand in a list with others; `model_dump` shows all of it."""
LAYOUT = "\n\t"
"""Characters to keep in a text of several lines."""


def printable(text: str, keep: str = "") -> str:
    """
    Return a text with a visible escape in place of each character that does not print.

    These are the characters of the Unicode categories Cc (controls), Cf (format, bidirectional controls included), Cs
    (surrogates, which no encoding can write), Co, Cn, Zl and Zp. Letters of all scripts, blanks and emoji are kept.

    Args:
        text: The text. A backslash in it is kept, so the result is ambiguous.
        keep: Controls to keep, such as `LAYOUT`; then Windows line breaks become plain ones.
    """
    if keep:
        text = text.replace("\r\n", "\n")
    return _escaped(text, keep, lambda character: ascii(character)[1:-1])


def printable_json(document: str) -> str:
    """Return an equivalent JSON document with JSON escapes in place of characters that do not print."""
    return _escaped(document, LAYOUT, lambda character: json.dumps(character)[1:-1])


def writable(text: str) -> str:
    """Return a text that every encoding of Unicode can write: lone surrogates are replaced by escapes."""
    return text if is_writable(text) else _LONE_SURROGATE.sub(lambda found: ascii(found[0])[1:-1], text)


def is_writable(text: str) -> bool:
    """Return whether every encoding of Unicode can write a text; none can write lone surrogates."""
    return text.isascii() or _LONE_SURROGATE.search(text) is None


def one_line(text: str) -> str:
    """Return a text as one printable line; its line breaks become blanks."""
    return printable(" ".join(line.strip() for line in text.splitlines()))


def shorten(text: str, limit: int = MAX_MESSAGE_LENGTH) -> str:
    """Return the text as one printable line; beyond ``limit`` characters an ellipsis replaces its middle."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit * 2 // 3]} [...] {line[-(limit // 3 - 7) :]}"


def _escaped(text: str, keep: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(character if _prints(character, keep) else escape(character) for character in text)


def _prints(character: str, keep: str) -> bool:
    return character.isprintable() or character in keep or unicodedata.category(character) == "Zs"


class PrintableFilter(logging.Filter):
    """Make the arguments and the traceback of a log record printable; numbers stay numbers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: every record is logged."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_argument, record.args))
        if record.exc_info and not record.exc_text:
            record.exc_text = printable(logging.Formatter().formatException(record.exc_info), LAYOUT)
        return True


def _argument(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else one_line(str(value))


logging.getLogger(LOGGER).addFilter(PrintableFilter())
