"""
Keep secrets out of messages, logs and errors.

A server may quote what it was sent in any way: escaped as in JSON or Python, cut, as HTML or in a URL. So exact
quotations are replaced, and a text that still shows a piece of a secret after all quoting is undone is withheld.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

REDACTED = "[secret]"
"""Replaces a secret."""

WITHHELD = "[withheld, because it quotes secrets]"
"""Replaces a text that shows a piece of a secret."""

MIN_SECRET_LENGTH = 4
"""Shorter secrets are not searched for, because redacting them would make any text unreadable."""

MIN_PIECE_LENGTH, PIECE_LENGTH, FILE_PIECE_LENGTH = 8, 12, 24
"""How many letters and digits count as a piece of a secret: of up to 12, of a longer one, of a whole file."""

MAX_KEY_LENGTH = 200
"""A secret with more letters and digits is treated as a file, whose words may occur in messages too."""

_PYDANTIC_INPUT = re.compile(r"input_value=.*?(?:, input_type=|$)", re.DOTALL)
_ESCAPE = re.compile(r"(?<!\\)\\++(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|[nrtabfv0])")
_LONG_REFERENCE = re.compile(r"&#(?:0++([1-9][0-9]{0,6})(?![0-9])|[0-9]{8,})")
"""An HTML character reference with leading zeros, or with a number that `html.unescape` may refuse."""
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]+")


def raise_unchained(error: BaseException, cause: BaseException | None = None) -> NoReturn:
    """
    Raise an error from an ``except`` block without a reference to the exception that is being handled.

    That exception may hold credentials or a payload, and ``raise ... from None`` would keep it as ``__context__``.
    """
    try:
        raise error from cause
    finally:
        error.__context__ = None


def contains_secret(text: str, secrets: Iterable[str]) -> bool:
    """Return whether a text contains a whole secret, ignoring all but letters and digits; faster than `redact`."""
    bare = _NOT_ALPHANUMERIC.sub("", text)
    return any(len(one) >= MIN_SECRET_LENGTH and _NOT_ALPHANUMERIC.sub("", one) in bare for one in secrets)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text with the secrets replaced, or `WITHHELD` if a piece of one still shows."""
    return Redactor(text, secrets).redact(text)


class Redactor:
    """
    Redacts the texts of one response.

    The search for pieces of secrets is expensive, so it runs once per response and not once per text.
    """

    def __init__(self, whole: str, secrets: Iterable[str]) -> None:
        """
        Args:
            whole: All that will be redacted, in any quoting: the entire response.
            secrets: The texts to hide.
        """
        known = {one for one in secrets if len(one) >= MIN_SECRET_LENGTH}
        forms = {form for one in known for form in (one, repr(one)[1:-1], json.dumps(one)[1:-1])}
        self._forms = sorted(forms, key=len, reverse=True)
        self._pieces = _common_pieces(_unquote(whole), [_unquote(one) for one in known]) if known else {}

    def redact(self, text: str) -> str:
        """Return the text with the secrets replaced, or `WITHHELD` if a piece of one still shows."""
        if not self._forms:
            return text
        # The validation of the services quotes the beginning and the end of an invalid value.
        text = _PYDANTIC_INPUT.sub(f"input_value={REDACTED}, input_type=", text)
        for form in self._forms:
            text = text.replace(form, REDACTED)
        bare = _unquote(text) if self._pieces else ""
        is_shown = any(not found.isdisjoint(_windows(bare, length)) for length, found in self._pieces.items())
        return WITHHELD if is_shown else text

    def redact_json(self, value: Any) -> Any:
        """Return a JSON value with all its texts redacted."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, list):
            return [self.redact_json(item) for item in value]
        if isinstance(value, dict):
            return {self.redact(str(key)): self.redact_json(item) for key, item in value.items()}
        return value


def _unquote(text: str) -> str:
    """Return the ASCII letters and digits of a text with all quoting undone; others are quoted in too many ways."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)) if found[1] or found[2] else " ", text)
    plain = _PERCENT.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace"), plain)
    plain = _LONG_REFERENCE.sub(lambda found: f"&#{found[1]}" if found[1] else " ", plain)
    return _NOT_ALPHANUMERIC.sub("", html.unescape(plain))


def _windows(bare: str, length: int) -> Iterator[str]:
    return (bare[start : start + length] for start in range(len(bare) - length + 1))


def _common_pieces(bare: str, secrets: Iterable[str]) -> dict[int, set[str]]:
    """Return the pieces of unquoted secrets that occur in an unquoted text, by length."""
    by_length: dict[int, list[str]] = {}
    for secret in secrets:
        if len(secret) >= MIN_PIECE_LENGTH:
            length = min(len(secret), PIECE_LENGTH if len(secret) <= MAX_KEY_LENGTH else FILE_PIECE_LENGTH)
            by_length.setdefault(length, []).append(secret)
    common: dict[int, set[str]] = {}
    for length, group in by_length.items():
        windows = (piece for secret in group for piece in _windows(secret, length))
        # A set takes a hundred times the memory of its text, so build it of the shorter side.
        if len(bare) <= sum(map(len, group)):
            pieces = set(_windows(bare, length)).intersection(windows)
        else:
            pieces = set(windows).intersection(_windows(bare, length))
        if pieces:
            common[length] = pieces
    return common
