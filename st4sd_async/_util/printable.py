"""
Make texts safe to print: no character of a server reaches a terminal, a log or a repr as a command.

Escape sequences colour, move or overwrite what is on a screen, and can write to the clipboard. Bidirectional controls
make a text read as another one. A line break forges a line in a log. Each such character is replaced by the escape
that Python writes for it, as in ``\\x1b`` or ``\\u202e``.
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
_HALF = re.compile("[\ud800-\udfff]")
MAX_MESSAGE_LENGTH = 500
"""Characters; longer server messages are cut in the middle."""
MAX_REPR_LENGTH = 120
"""Characters of the `repr` of a reply, which may stand in a list with others; `model_dump` shows all of it."""
LAYOUT = "\n\t"
"""Characters that may be kept where a text of several lines is printed as it is laid out."""


def printable(text: str, keep: str = "") -> str:
    """
    Return a text with a visible escape in place of each character that does not print.

    These are the characters of the Unicode categories Cc (controls), Cf (format, bidirectional controls included), Cs
    (surrogates, which no encoding can write), Co, Cn, Zl and Zp. Letters of all scripts, blanks and emoji are kept.

    Args:
        text: The text. A backslash in it is kept, so the result does not say which escapes were in it before.
        keep: Controls to keep, as `LAYOUT`; then the line break of Windows is kept as a plain one.
    """
    if keep:
        text = text.replace("\r\n", "\n")
    return _escaped(text, keep, lambda character: ascii(character)[1:-1])


def printable_json(document: str) -> str:
    """Return a JSON document that means the same and is printable: JSON's own escapes replace what does not print."""
    return _escaped(document, LAYOUT, lambda character: json.dumps(character)[1:-1])


def writable(text: str) -> str:
    """Return a text that every encoding of Unicode can write: only half surrogate pairs are replaced by escapes."""
    return text if is_writable(text) else _HALF.sub(lambda found: ascii(found[0])[1:-1], text)


def is_writable(text: str) -> bool:
    """Return whether every encoding of Unicode can write a text; none can write half of a surrogate pair."""
    return text.isascii() or _HALF.search(text) is None


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
