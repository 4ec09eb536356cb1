"""The form of a rest-uid, the id that the service gives to an instance."""

from __future__ import annotations

import re
from typing import Any

MAX_LENGTH = 253
"""Characters that a rest-uid may have: it names objects in Kubernetes, and 253 is the limit there."""

_PATTERN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_LENGTH - 1}}}")
_TAIL = re.compile(r"-([0-9a-z]{6})-[0-9a-z]{8}")
"""Six characters of the digest of the experiment, and eight random ones."""
_AT_THE_END = re.compile(rf"{_TAIL.pattern}\Z")
_DASHED = str.maketrans({" ": "-", "_": "-"})


def is_rest_uid(value: Any) -> bool:
    """
    Return whether a value has the form of a rest-uid.

    It begins with a letter or a digit and holds only ASCII letters, digits, dashes, dots and underscores, so it is
    safe in a path, in a URL and on a command line.
    """
    return isinstance(value, str) and _PATTERN.fullmatch(value) is not None


def check_rest_uid(value: Any) -> str:
    """
    Return a rest-uid as it is.

    Raises:
        ValueError: It does not have the form of one.
    """
    if is_rest_uid(value):
        return str(value)
    shown = ascii(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    raise ValueError(
        f"not a rest-uid: {shown}; it begins with a letter or a digit and goes on with letters, digits, "
        f"'-', '.' and '_', at most {MAX_LENGTH} in all"
    )


def is_of_package(rest_uid: str, package: str) -> bool:
    """
    Return whether a rest-uid has the form that the service gives to the instances of a package.

    The service may start another package than the one that was asked for if a runtime policy chooses; then this is
    False although the id is right.

    Args:
        rest_uid: The id of an instance.
        package: Name of the package, without tag and digest.

    Source: the runtime service makes the id of the name with dashes for spaces and underscores, six characters of the
    digest, and eight random lower-case letters or digits.
    """
    prefix = package.translate(_DASHED).lower()
    name = rest_uid.lower()
    return name.startswith(prefix) and _TAIL.fullmatch(rest_uid, len(prefix)) is not None


def version_of(rest_uid: str) -> str | None:
    """
    Return the six characters in a rest-uid that tell the version of its package; None if it has another form.

    Source: as of `is_of_package`.
    """
    found = _AT_THE_END.search(rest_uid)
    return found and found[1]
