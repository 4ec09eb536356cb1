"""
Names of files and folders made of texts that a server or another person chose.

A name stays as it is if it can be written anywhere. Otherwise it is replaced, and the replacement ends in a mark and a
digest of the original, so two texts never get one name. A text that has the mark itself is replaced too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from unicodedata import category, normalize

PREFIX = ".st4sd-"
"""Of names in a target that are not for downloads."""
_SHORT_PREFIX = "st4sd-~"
"""Of the second name, as ``ST4SD-~1.JSO``, that file systems of Windows give to a file whose name has `PREFIX`."""
MARK = "~"
"""Stands before the digest in a name that was replaced."""
DIGEST_LENGTH = 12
"""Hexadecimal digits of a digest that distinguishes names of the user, or of one key-output."""
LONG_DIGEST_LENGTH = 32
"""The same if another person may choose all names: of 12 digits, two texts with the same are found in a minute."""
LONGEST = 200
"""Bytes of a name in UTF-8. File systems take 255, and programs add suffixes."""
LONGEST_SUFFIX = 20
"""Bytes of a suffix like ``.csv`` that is kept if a name is cut."""

_UNSAFE = re.compile(r"[/\\:*?\"<>|]")
DEVICE = r"(?i:aux|con|nul|prn|con(?:in|out)\$|(?:com|lpt)[0-9¹²³]) *(?:[./]|$)"
"""The beginning of a name that Windows takes for that of a device, whatever its suffix."""
_VARIANTS = frozenset(map(chr, (0x34F, *range(0x180B, 0x180E), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
"""Characters that choose a variant of the one before them, and have no width."""


def folded(path: str) -> str:
    """Return a text that is equal for two paths if some file system does not distinguish them."""
    if path.isascii():
        return path.lower()
    visible = "".join(one for one in path if category(one) != "Cf" and one not in _VARIANTS)
    return normalize("NFD", normalize("NFD", visible).casefold())


def is_reserved(name: str) -> bool:
    """Return whether some file system takes a name for one that begins with `PREFIX`."""
    if not name.isascii():
        # Some fold compatibility characters and skip those that have no width.
        name = "".join(one for one in normalize("NFKD", name) if category(one) not in ("Cf", "Mn"))
    return name.casefold().startswith((PREFIX, _SHORT_PREFIX))


def unreserved(path: str) -> str:
    """Return a path whose reserved parts begin with ``_``; usually the same path."""
    if "st4sd" not in path and path.isascii() and "st4sd" not in path.lower():
        return path
    return "/".join(f"_{part}" if is_reserved(part) else part for part in path.split("/"))


def safe_name(name: str, *, otherwise: str) -> str:
    """
    Return the last part of a path as the name of a file that can be written anywhere.

    Separators and characters without a picture become ``_``. A name that is too long is cut and gets a digest, the name
    of a device gets a ``_`` in front.

    Args:
        name: A name or path from a server.
        otherwise: What to use if nothing of it is left.
    """
    for candidate in (re.split(r"[/\\]", name)[-1], otherwise):
        cleaned = _cleaned(candidate)
        if cleaned and not set(cleaned) <= {".", "_"}:
            return _no_device(unreserved(cleaned if _length(cleaned) <= LONGEST else _cut(cleaned, candidate)))
    return "output"


def folder_name(text: str, *, has_twin: bool = False) -> str:
    """
    Return the name of the folder for something that is called so; no two texts have the same.

    Args:
        text: The name of a key-output or of a run.
        has_twin: Whether there is another one that some file systems would not distinguish from it.
    """
    is_plain = (
        not has_twin
        and 0 < _length(text) <= LONGEST
        and MARK not in text
        and _cleaned(text) == text
        and not set(text) <= {".", "_"}
        and not is_reserved(text)
        and not is_device(text)
    )
    if is_plain:
        return text
    readable = _shortened(_cleaned(text).strip("."), LONGEST - LONG_DIGEST_LENGTH - 2)
    return _no_device(unreserved(marked(readable, text, LONG_DIGEST_LENGTH)))


def folder_names(texts: Iterable[str]) -> dict[str, str]:
    """Return a folder for each text; those that differ only in case or Unicode form have different ones."""
    texts = list(dict.fromkeys(texts))
    count = Counter(map(folded, texts))
    return {text: folder_name(text, has_twin=count[folded(text)] > 1) for text in texts}


def marked(readable: str, text: str, digits: int = DIGEST_LENGTH) -> str:
    """Return a name that replaces a text: something readable and a digest of the text."""
    return f"{readable or 'output'}{MARK}{_digest(text)[:digits]}"


def is_device(name: str) -> bool:
    """Return whether Windows takes a name for that of a device."""
    return re.match(DEVICE, name) is not None


def _no_device(name: str) -> str:
    return f"_{name}" if is_device(name) else name


def _cleaned(text: str) -> str:
    """The text without separators, characters without a picture, and blanks and dots where they get lost."""
    printable = "".join(one if one.isprintable() else "_" for one in text)
    return _UNSAFE.sub("_", printable).strip().rstrip(".")


def _cut(name: str, text: str) -> str:
    """A shorter name with the digest of a text, before the suffix if there is one."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or _length(suffix) > LONGEST_SUFFIX:
        stem, dot, suffix = name, "", ""
    return f"{marked(_shortened(stem, LONGEST - LONGEST_SUFFIX - DIGEST_LENGTH - 2), text)}{dot}{suffix}"


def _shortened(text: str, length: int) -> str:
    """The beginning of a text, at most so many bytes, ending with a whole character."""
    return text.encode()[:length].decode(errors="ignore").rstrip(" .")


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
