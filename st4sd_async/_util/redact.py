"""
Keep secrets out of messages, logs and errors.

A server may quote what it was sent in any way: escaped as in JSON or Python, cut, as HTML or in a URL. So exact
quotations are replaced, and a text that still shows a piece of a secret after all quoting is undone is withheld.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any, Literal, NoReturn

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
_NAMED_SECRET = re.compile(
    r"""(?P<name>(?P<quote>\\{0,8}['"])[\w.-]{0,100}(?:passw|token|secret|credential|[\w-]key|(?-i:KEY))
        [\w.-]{0,100}(?P=quote):\ )
    (?:'(?:[^'\\]|\\.)*(?:'|\Z) | "(?:[^"\\]|\\.)*(?:"|\Z) | \\+['"].*?(?:\\['"]|\Z) | [^\s,}\]]+)
    | (?P<variable>(?-i:\b[A-Z0-9_]{0,100}(?:PASSW|TOKEN|KEY|SECRET|CREDENTIAL)[A-Z0-9_]{0,100}=))[^\s'",;]+
    """,
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)
"""An entry of a printed dictionary, or an assignment in capitals, whose name looks like that of a secret."""
_SECRET_WORDS = ("passw", "token", "secret", "credential", "key")
"""Each such name has one of these."""
_SAMPLE_FORMATS: dict[int, Literal["I", "Q"]] = {MIN_SECRET_LENGTH: "I", MIN_PIECE_LENGTH: "Q"}
"""Number of bytes of a sample by which kept secrets are searched for -> the format that reads it as a number."""
_NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]+")
_NOT_ALPHANUMERIC_BYTES = bytes(code for code in range(128) if not chr(code).isalnum())


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


def quotes_secret(error: BaseException | None, secrets: Collection[str]) -> bool:
    """Return whether an exception, or one of its causes and contexts, quotes a whole secret."""
    while error is not None:
        if contains_secret(f"{error!r} {error} {getattr(error, '__notes__', '')}", secrets):
            return True
        error = error.__cause__ or error.__context__
    return False


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text with the secrets replaced, or `WITHHELD` if a piece of one still shows."""
    return Redactor(text, secrets).redact(text)


class SecretIndex:
    """Secrets, indexed so that the time to search a text does not depend on their number."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._by_sample: dict[int, dict[int, set[str]]] = {size: {} for size in _SAMPLE_FORMATS}
        """Size of a sample -> sample -> the secrets. A sample is of the beginning or of the letters and digits."""

    def add(self, secret: str) -> None:
        """Add a secret. One that is shorter than `MIN_SECRET_LENGTH` is ignored."""
        if secret in self._secrets or len(secret) < MIN_SECRET_LENGTH:
            return
        for sample in {*map(_beginning, _forms(secret)), *_samples(_unquote(secret).encode())}:
            number = int.from_bytes(sample, sys.byteorder)
            self._by_sample[len(sample)].setdefault(number, set()).add(secret)
        self._secrets.add(secret)  # last, because another thread may rely on it

    def maybe_shown(self, text: str) -> set[str]:
        """Return the secrets that a text may show, or a piece of which. It may show none of them."""
        if not self._secrets:
            return set()
        shown: set[str] = set()
        texts = [each.encode("utf-8", "surrogatepass") for each in (text, _unquote(text))]
        for size, by_sample in self._by_sample.items():
            if by_sample:
                found = by_sample.keys() & chain.from_iterable(_numbers(each, size) for each in texts)
                shown.update(*(by_sample[sample] for sample in found))
        return shown


def _beginning(form: str) -> bytes:
    encoded = form.encode("utf-8", "surrogatepass")
    return encoded[: max(size for size in _SAMPLE_FORMATS if size <= len(encoded))]


def _samples(bare: bytes) -> Iterator[bytes]:
    """Return samples of an unquoted secret, so close together that each piece of it has a whole one."""
    size = MIN_PIECE_LENGTH
    if len(bare) < size:
        return iter(())
    starts = range(0, len(bare) - size + 1, _piece_length(bare) - size + 1)
    return (bare[start : start + size] for start in starts)


def _numbers(text: bytes, size: int) -> Iterator[int]:
    """Return all samples of a text, as numbers."""
    whole = (text[start : len(text) - (len(text) - start) % size] for start in range(min(size, len(text))))
    return chain.from_iterable(memoryview(each).cast(_SAMPLE_FORMATS[size]).tolist() for each in whole)


_kept = SecretIndex()
"""Secrets that this process gave to runs."""


def keep_secrets(secrets: Iterable[str]) -> None:
    """Remember secrets that this process gives to runs, so that `mask_environment` hides them."""
    for secret in secrets:
        _kept.add(secret)


def mask_environment(text: str) -> str:
    """
    Return a text of a run without the secrets of its environment.

    The orchestrator quotes the whole environment of a component if its set-up fails, and a program may print its own.
    Secrets that this process gave to runs are replaced, and lines that show a piece of one are withheld. Another
    process may have started the run, so values are also replaced if their names look like those of secrets.
    """
    folded = text.casefold()
    if any(word in folded for word in _SECRET_WORDS):
        text = _NAMED_SECRET.sub(_without_value, text)
    shown = _kept.maybe_shown(text)
    return Redactor(text, shown).redact_lines() if shown else text


def _without_value(found: re.Match[str]) -> str:
    return f"{found['name'] or found['variable']}{REDACTED}"


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
        self._whole = whole
        known = {one for one in secrets if len(one) >= MIN_SECRET_LENGTH}
        forms = {form for one in known for form in _forms(one)}
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

    def redact_lines(self) -> str:
        """Return the whole text with the secrets replaced. A line that still shows a piece of one is withheld."""
        text = self._whole
        for form in self._forms:
            text = text.replace(form, REDACTED)
        return "\n".join(map(self.redact, text.split("\n"))) if self._pieces else text

    def redact_json(self, value: Any) -> Any:
        """Return a JSON value with all its texts redacted."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, list):
            return [self.redact_json(item) for item in value]
        if isinstance(value, dict):
            return {self.redact(str(key)): self.redact_json(item) for key, item in value.items()}
        return value


def _forms(secret: str) -> frozenset[str]:
    """Return a secret as it is, and as Python and JSON quote it."""
    return frozenset((secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]))


def _piece_length(secret: str | bytes) -> int:
    """Return how many characters count as a piece of an unquoted secret."""
    return min(len(secret), PIECE_LENGTH if len(secret) <= MAX_KEY_LENGTH else FILE_PIECE_LENGTH)


def _unquote(text: str) -> str:
    """Return the ASCII letters and digits of a text with all quoting undone; others are quoted in too many ways."""
    if "\\" in text:
        text = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)) if found[1] or found[2] else " ", text)
    if "%" in text:
        text = _PERCENT.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace"), text)
    if "&" in text:
        text = html.unescape(_LONG_REFERENCE.sub(lambda found: f"&#{found[1]}" if found[1] else " ", text))
    return text.encode("ascii", "ignore").translate(None, _NOT_ALPHANUMERIC_BYTES).decode()


def _windows(bare: str, length: int) -> Iterator[str]:
    return (bare[start : start + length] for start in range(len(bare) - length + 1))


def _common_pieces(bare: str, secrets: Iterable[str]) -> dict[int, set[str]]:
    """Return the pieces of unquoted secrets that occur in an unquoted text, by length."""
    by_length: dict[int, list[str]] = {}
    for secret in secrets:
        if len(secret) >= MIN_PIECE_LENGTH:
            by_length.setdefault(_piece_length(secret), []).append(secret)
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
