"""What is wrong with launches that were not sent, in the words of a table or of a command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .._errors import NOT_ACCEPTED
from .._render.cards import counted
from .._util.did_you_mean import DID_YOU_MEAN
from .._util.printable import one_line
from .errors import Exit, write_message
from .output import print_document, print_text

MAX_RANGES = 10
"""Ranges of lines that are listed after a problem of many lines; --json has all lines."""

_PLACE = re.compile(r"(\w+)(?:\.(.+)|\[(\d+)\].*)")
"""An entry of a payload: its field, and the name in it or the index in its list."""
_IN_FIELD = re.compile(rf"{DID_YOU_MEAN} '([^']*)' in (\w+)\?")
"""A suggestion to give an entry in another field."""


class LaunchMistake(NamedTuple):
    """One problem of a table or of a command line; ``str()`` shows it on one line."""

    file: str
    """The table; "" for a command line."""
    line: int | None
    """The line of the table, from 1. None means that the problem concerns the whole of it."""
    where: str
    """The column or the option; "" if the problem concerns the whole line."""
    what: str
    """The problem, and how to fix it."""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return one_line(": ".join(filter(None, (place, self.where, self.what))))


def place_of(where: str, payload: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the field and the name of an entry of a payload, such as ``inputs[0].content``; None if it has none."""
    found = _PLACE.fullmatch(where)
    if found is None:
        return None
    field, name, index = found.groups()
    if index is not None:
        file = payload[field][int(index)]
        name = file.get("filename") if isinstance(file, Mapping) else None
    return None if name is None else (field, str(name))


def with_words(what: str, words: Mapping[str, str]) -> str:
    """
    Return a problem with the words of a table or of a command line.

    Args:
        what: The problem, as the library words it.
        words: Field -> how an entry of it is given, with a placeholder for its name.
    """
    return _IN_FIELD.sub(lambda found: f"{DID_YOU_MEAN} {words[found[2]].format(found[1])}?", what)


def lacks_suggestion(what: str) -> bool:
    """Return whether a problem is an unknown name for which nothing similar was found."""
    return what.startswith(NOT_ACCEPTED) and DID_YOU_MEAN not in what


def report(mistakes: Iterable[LaunchMistake], *, of: str, summary: str, as_json: bool) -> Exit:
    """
    Print problems, and return the exit status.

    A problem that many lines have is printed once, with their numbers. As JSON, each line has its own.

    Args:
        mistakes: The problems.
        of: What has them.
        summary: What is reported if there are none.
        as_json: Whether to print JSON.
    """
    found = sorted(mistakes, key=lambda one: one.line or 0)
    if as_json:
        print_document([one._asdict() for one in found])
    else:
        lines: dict[tuple[str, str], list[LaunchMistake]] = {}
        for one in found:
            lines.setdefault((one.where, one.what), []).append(one)
        for first, *others in lines.values():
            more = _ranges([one.line for one in others if one.line is not None])
            print_text(f"{first}{f' (also {more})' if more else ''}")
    problems = f"{counted(len(found), 'problem')} in {of}" if found else summary
    write_message(f"{problems}; nothing was started")
    return Exit.USAGE if found else Exit.DONE


def _ranges(lines: list[int]) -> str:
    """Return numbers of lines as a text such as ``lines 3-10, 12``; "" if there are none."""
    ranges: list[list[int]] = []
    for line in lines:
        if ranges and line == ranges[-1][-1] + 1:
            ranges[-1][1:] = [line]
        else:
            ranges.append([line])
    shown = ", ".join("-".join(map(str, one)) for one in ranges[:MAX_RANGES])
    left = sum(one[-1] - one[0] + 1 for one in ranges[MAX_RANGES:])
    more = f" and {left:,} more" if left else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {shown}{more}" if lines else ""
