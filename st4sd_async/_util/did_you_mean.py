"""Suggest the name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

DID_YOU_MEAN = "did you mean"
"""Begins the question that suggests another name."""


def closest_match(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar, ignoring case; None if none is similar."""
    import difflib  # lazily: only a mistake needs it

    folded = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``: did you mean 'other'?`` to append to a message; "" if no known name is similar."""
    match = closest_match(name, known)
    return f": {DID_YOU_MEAN} {match!r}?" if match else ""
