"""What is wrong with something that was sent, thing by thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong with a payload."""

    where: str
    """The entry, as ``inputs[0].content``."""
    what: str
    """What is wrong, and the way out."""


def problems_in(value: Any) -> tuple[Problem, ...]:
    """
    What is wrong, thing by thing, from the shapes in which the services tell it.

    A thing is a text, or a mapping with ``message`` or ``problem`` and maybe ``location``; those of one entry
    of a list stand together under the ``identifier`` of that entry.
    """
    return tuple(problem for one in (value if isinstance(value, list) else []) for problem in _problems_of(one))


def _problems_of(one: Any) -> Iterable[Problem]:
    if not isinstance(one, Mapping):
        return [Problem("", str(one))]
    if isinstance(one.get("problems"), list):
        entry = str(one.get("identifier") or "")
        return [Problem(": ".join(filter(None, (entry, where))), what) for where, what in problems_in(one["problems"])]
    location = one.get("location")
    where = ".".join(str(part) for part in location) if isinstance(location, list | tuple) else str(location or "")
    return [Problem(where or str(one.get("identifier") or ""), str(one.get("message") or one.get("problem") or ""))]
