"""
How secrets are kept out of everything a person may read.

A server may quote what it was sent in any way: escaped as JSON or Python would, cut in the middle,
as HTML or in an address. So exact quotations are masked, and words that still show a piece of a
secret once all quoting is undone are withheld as a whole.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import anyio.to_thread

T = TypeVar("T")

MASK = "[secret]"
"""What stands in messages where a secret stood."""

WITHHELD = "[withheld, because it quotes secrets]"
"""What stands in place of words that show a piece of a secret."""

SHORTEST_SECRET = 4
"""Characters; shorter ones are not searched for, because masking them would make any text unreadable."""

SHORTEST_PIECE, PIECE, PIECE_OF_A_FILE = 8, 12, 24
"""Letters and digits in a row that count as a piece: of a secret of up to 12, of a longer one, of a whole file."""

LONGEST_KEY = 200
"""Letters and digits; what is longer is no key but a file, whose words may well stand in a message too."""

_QUOTED_VALUE = re.compile(r"input_value=.*?(?:, input_type=|$)", re.DOTALL)
_ESCAPE = re.compile(r"(?<!\\)\\++(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|[nrtabfv0])")
_LONG_REFERENCE = re.compile(r"&#(?:0++([1-9][0-9]{0,6})(?![0-9])|[0-9]{8,})")
"""A character of HTML with zeros before its number, or one whose number `html.unescape` may refuse to read."""
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_NOT_BARE = re.compile(r"[^A-Za-z0-9]+")


def is_quoted(text: str, secrets: Iterable[str]) -> bool:
    """Whether a text shows a whole secret, whatever stands between its letters and digits; quicker than masking it."""
    bare = _NOT_BARE.sub("", text)
    return any(len(one) >= SHORTEST_SECRET and _NOT_BARE.sub("", one) in bare for one in secrets)


class Masking:
    """
    Keeps secrets out of the texts of one reply.

    Looking for pieces of a secret is the costly part, so it is done once for a reply and not for
    each of its texts.
    """

    def __init__(self, seen: str, secrets: Iterable[str]) -> None:
        """
        Args:
            seen: All that will be masked, in any quoting: the reply as a whole.
            secrets: What must not come back.
        """
        known = {one for one in secrets if len(one) >= SHORTEST_SECRET}
        forms = {form for one in known for form in (one, repr(one)[1:-1], json.dumps(one)[1:-1])}
        self._forms = sorted(forms, key=len, reverse=True)
        self._pieces = _common(_bare(seen), [_bare(one) for one in known]) if known else {}

    def text(self, text: str) -> str:
        """The text with the secrets replaced, or withheld as a whole if a piece of one still shows."""
        if not self._forms:
            return text
        # The service's own checks quote the beginning and the end of a value that they refuse.
        text = _QUOTED_VALUE.sub(f"input_value={MASK}, input_type=", text)
        for form in self._forms:
            text = text.replace(form, MASK)
        bare = _bare(text) if self._pieces else ""
        is_shown = any(not found.isdisjoint(_windows(bare, length)) for length, found in self._pieces.items())
        return WITHHELD if is_shown else text

    def deep(self, value: Any) -> Any:
        """A JSON value with the secrets kept out of all its texts."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.deep(item) for item in value]
        if isinstance(value, dict):
            return {self.text(str(key)): self.deep(item) for key, item in value.items()}
        return value


async def unseen(function: Callable[[], T], *, abandon: bool = False) -> T:
    """
    What a blocking function returns, called in a worker thread, where the result may be a secret.

    In debug mode asyncio logs the arguments of slow callbacks, the results of threads among them.

    Args:
        function: The function.
        abandon: Whether the thread is left alone if the caller is cancelled; else cancellation waits for it.
    """
    result: list[T] = []
    await anyio.to_thread.run_sync(lambda: result.append(function()), abandon_on_cancel=abandon)
    return result[0]


def masked(text: str, secrets: Iterable[str]) -> str:
    """One text with the secrets kept out of it."""
    return Masking(text, secrets).text(text)


def _bare(text: str) -> str:
    """The ASCII letters and digits of a text, with all quoting undone: others are quoted in too many ways."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)) if found[1] or found[2] else " ", text)
    plain = _PERCENT.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace"), plain)
    plain = _LONG_REFERENCE.sub(lambda found: f"&#{found[1]}" if found[1] else " ", plain)
    return _NOT_BARE.sub("", html.unescape(plain))


def _windows(bare: str, length: int) -> Iterator[str]:
    return (bare[start : start + length] for start in range(len(bare) - length + 1))


def _common(bare: str, secrets: Iterable[str]) -> dict[int, set[str]]:
    """The pieces of secrets that stand in a text, both bare, by their length."""
    by_length: dict[int, list[str]] = {}
    for secret in secrets:
        if len(secret) >= SHORTEST_PIECE:
            length = min(len(secret), PIECE if len(secret) <= LONGEST_KEY else PIECE_OF_A_FILE)
            by_length.setdefault(length, []).append(secret)
    found: dict[int, set[str]] = {}
    for length, those in by_length.items():
        windows = (piece for secret in those for piece in _windows(secret, length))
        # A set takes a hundred times the memory of what it is made of, so it is made of the shorter side.
        if len(bare) <= sum(map(len, those)):
            pieces = set(_windows(bare, length)).intersection(windows)
        else:
            pieces = set(windows).intersection(_windows(bare, length))
        if pieces:
            found[length] = pieces
    return found
