"""The form of a rest-uid, the id of an instance at the service."""

from __future__ import annotations

import re
from typing import Any

MAX_LENGTH = 253
"""Maximum length in characters, that of names of objects in Kubernetes."""

_PATTERN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_LENGTH - 1}}}")
_SUFFIX = re.compile(r"-([0-9a-z]{6})-[0-9a-z]{8}")
"""Six characters of the digest of the experiment, and eight random ones."""
_ENDS_IN_SUFFIX = re.compile(rf"{_SUFFIX.pattern}\Z")
_DASHED = str.maketrans({" ": "-", "_": "-"})


def is_rest_uid(value: Any) -> bool:
    """
    Return whether a value has the form of a rest-uid.

    It begins with a letter or digit and contains only ASCII letters, digits, dashes, dots and underscores, so that it
    is safe in a path, in a URL and on a command line.
    """
    return isinstance(value, str) and _PATTERN.fullmatch(value) is not None


def check_rest_uid(value: Any) -> str:
    """
    Return a rest-uid unchanged.

    Raises:
        ValueError: The value is not a rest-uid.
    """
    if is_rest_uid(value):
        return str(value)
    shown = ascii(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    raise ValueError(
        f"not a rest-uid: {shown}; it must begin with a letter or digit and contain only letters, digits, "
        f"'-', '.' and '_', at most {MAX_LENGTH} characters"
    )


def is_of_package(rest_uid: str, package: str) -> bool:
    """
    Return whether a rest-uid has the form of the instances of a package.

    If a runtime policy is used, the service may start another package than requested; then this is False although the
    id is right.

    Args:
        rest_uid: The id of an instance.
        package: Name of the package, without tag and digest.

    Source: the runtime service builds the id from the name with dashes for spaces and underscores, six characters of
    the digest, and eight random lower-case letters or digits.
    """
    prefix = package.translate(_DASHED).lower()
    name = rest_uid.lower()
    return name.startswith(prefix) and _SUFFIX.fullmatch(rest_uid, len(prefix)) is not None


def version_of(rest_uid: str) -> str | None:
    """
    Return the six characters of the digest in a rest-uid, which identify the version; None if it has another form.

    Source: as for `is_of_package`.
    """
    found = _ENDS_IN_SUFFIX.search(rest_uid)
    return found and found[1]
