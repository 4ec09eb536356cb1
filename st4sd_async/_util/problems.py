"""What is wrong with something that was sent, thing by thing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic_core import from_json

_CHECKED = re.compile(r"^(?:\d+ validation errors? for .*|(\S.*))\n  (\S.*?)(?: \[type=.*)?$", re.MULTILINE)
"""A problem in the words of pydantic, whose exceptions the services put into their replies: where, and what."""


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
    of a list stand together under the ``identifier`` of that entry. A text in place of the list is the account
    of a check, or whatever the service has to say.
    """
    if isinstance(value, str):
        return tuple(Problem(*found) for found in _CHECKED.findall(value)) or ((Problem("", value),) if value else ())
    return tuple(problem for one in (value if isinstance(value, list) else []) for problem in _problems_of(one))


def problems_quoted(message: str) -> tuple[Problem, ...]:
    """What is wrong, thing by thing, from a message that ends with the list of it as JSON; () if it does not."""
    try:
        return problems_in(from_json(message[message.find("[") :]))
    except ValueError:
        return ()


def told(problems: Iterable[Problem]) -> str:
    """Problems in one line."""
    return "; ".join(": ".join(filter(None, problem)) for problem in problems)


def _problems_of(one: Any) -> Iterable[Problem]:
    if not isinstance(one, Mapping):
        return [Problem("", str(one))]
    if isinstance(one.get("problems"), list):
        entry = str(one.get("identifier") or "")
        return [Problem(": ".join(filter(None, (entry, where))), what) for where, what in problems_in(one["problems"])]
    location = one.get("location", one.get("loc"))
    where = ".".join(str(part) for part in location) if isinstance(location, list | tuple) else str(location or "")
    what = next((str(one[key]) for key in ("message", "msg", "problem") if one.get(key)), "")
    return [Problem(where or str(one.get("identifier") or ""), what)]
