"""
Make names of files and folders from texts that a server or another person chose.

A name is kept if it is valid on every file system. Otherwise it is replaced by a readable part, a mark and a hash of
the original, so that two texts never get the same name. A text that contains the mark is replaced too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from unicodedata import category, normalize

PREFIX = ".st4sd-"
"""Prefix of reserved names: files in a target that are not downloads."""
_SHORT_PREFIX = "st4sd-~"
"""Prefix of the 8.3 alias, such as ``ST4SD-~1.JSO``, that Windows gives to a file whose name has `PREFIX`."""
MARK = "~"
"""Separates the readable part of a replaced name from the hash."""
SHORT_HASH_DIGITS = 12
"""Hexadecimal digits of a hash that distinguishes names of one user, or within one key-output."""
LONG_HASH_DIGITS = 32
"""The same if another person may choose all names: two texts with the same 12 digits are found in a minute."""
MAX_NAME_BYTES = 200
"""Longest name in UTF-8. File systems allow 255 bytes, and programs add suffixes."""
MAX_SUFFIX_BYTES = 20
"""Longest suffix such as ``.csv`` that is kept when a name is cut."""

_UNSAFE = re.compile(r"[/\\:*?\"<>|]")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
DEVICE = r"(?i:aux|con|nul|prn|con(?:in|out)\$|(?:com|lpt)[0-9¹²³]) *(?:[./]|$)"
"""Pattern of the beginning of a name that Windows takes for a device, whatever its suffix."""
_VARIATION_SELECTORS = frozenset(
    map(chr, (0x34F, *range(0x180B, 0x180E), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
"""Characters without width that choose a variant of the character before them."""


def folded(path: str) -> str:
    """Return a text that is equal for two paths if some file system does not distinguish them."""
    if path.isascii():
        return path.lower()
    visible = "".join(char for char in path if category(char) != "Cf" and char not in _VARIATION_SELECTORS)
    return normalize("NFD", normalize("NFD", visible).casefold())


def is_reserved(name: str) -> bool:
    """Return whether some file system takes a name for one that begins with `PREFIX`."""
    if not name.isascii():
        # Some file systems fold compatibility characters and ignore those without width.
        name = "".join(char for char in normalize("NFKD", name) if category(char) not in ("Cf", "Mn"))
    return name.casefold().startswith((PREFIX, _SHORT_PREFIX))


def unreserved(path: str) -> str:
    """Return a path with a ``_`` in front of its reserved parts; usually the same path."""
    if "st4sd" not in path and path.isascii() and "st4sd" not in path.lower():
        return path
    return "/".join(f"_{part}" if is_reserved(part) else part for part in path.split("/"))


def safe_name(name: str, *, otherwise: str) -> str:
    """
    Return the last part of a path as a file name that is valid on every file system.

    Separators and characters that do not print become ``_``. A name that is too long is cut and gets a hash. The name
    of a device gets a ``_`` in front.

    Args:
        name: A name or path from a server.
        otherwise: What to use if nothing is left of the name.
    """
    for candidate in (re.split(r"[/\\]", name)[-1], otherwise):
        cleaned = _cleaned(candidate)
        if cleaned and not set(cleaned) <= {".", "_"}:
            return _no_device(unreserved(cleaned if _length(cleaned) <= MAX_NAME_BYTES else _cut(cleaned, candidate)))
    return "output"


def folder_name(text: str, *, has_twin: bool = False) -> str:
    """
    Return the name of the folder for a key-output or a run. No two texts have the same.

    Args:
        text: The name of the key-output, or the rest-uid.
        has_twin: Whether there is another text that some file systems do not distinguish from it.
    """
    is_plain = (
        not has_twin
        and 0 < _length(text) <= MAX_NAME_BYTES
        and MARK not in text
        and _cleaned(text) == text
        and not set(text) <= {".", "_"}
        and not is_reserved(text)
        and not is_device(text)
    )
    if is_plain:
        return text
    readable = _shortened(_cleaned(text).strip("."), MAX_NAME_BYTES - LONG_HASH_DIGITS - 2)
    return _no_device(unreserved(_hashed_name(readable, text, LONG_HASH_DIGITS)))


def folder_names(texts: Iterable[str]) -> dict[str, str]:
    """Return text -> folder name; texts that differ only in case or Unicode form have different folders."""
    texts = list(dict.fromkeys(texts))
    count = Counter(map(folded, texts))
    return {text: folder_name(text, has_twin=count[folded(text)] > 1) for text in texts}


def key_folder_name(key: str, *, has_twin: bool) -> str:
    """
    Return the name of the folder for the files of a launch: its key if that is plain ASCII, or a hash of it.

    No two keys share a name, and no key can be chosen to equal the hashed name of another. The rule differs from that
    of `folder_name`, and must not change: the folders of earlier batches would not be found.

    Args:
        key: The key.
        has_twin: Whether an earlier key differs only by case, so that some file systems would not distinguish them.
    """
    if _PLAIN_KEY.fullmatch(key) and not has_twin and not is_device(key):
        return key
    return _hashed_name(re.sub(r"[^A-Za-z0-9_-]+", "-", key).strip("-")[:60] or "key", key, SHORT_HASH_DIGITS)


def is_device(name: str) -> bool:
    """Return whether Windows takes a name for a device."""
    return re.match(DEVICE, name) is not None


def _no_device(name: str) -> str:
    return f"_{name}" if is_device(name) else name


def _hashed_name(readable: str, text: str, digits: int) -> str:
    return f"{readable or 'output'}{MARK}{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:digits]}"


def _cleaned(text: str) -> str:
    """Return the text without separators, characters that do not print, and blanks and dots at its end."""
    printable = "".join(char if char.isprintable() else "_" for char in text)
    return _UNSAFE.sub("_", printable).strip().rstrip(".")


def _cut(name: str, text: str) -> str:
    """Return a shorter name with a hash of the text, before the suffix if there is one."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or _length(suffix) > MAX_SUFFIX_BYTES:
        stem, dot, suffix = name, "", ""
    readable = _shortened(stem, MAX_NAME_BYTES - MAX_SUFFIX_BYTES - SHORT_HASH_DIGITS - 2)
    return f"{_hashed_name(readable, text, SHORT_HASH_DIGITS)}{dot}{suffix}"


def _shortened(text: str, max_bytes: int) -> str:
    """Return the beginning of a text, of at most so many bytes, ending with a complete character."""
    return text.encode()[:max_bytes].decode(errors="ignore").rstrip(" .")


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
