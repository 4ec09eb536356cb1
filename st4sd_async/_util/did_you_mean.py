"""Which entry of a start payload is wrong, and which one may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

from .problems import Problem

NOT_TAKEN = "the experiment does not take it"
"""What is wrong with an entry for which an experiment has no use."""
NO_VALUE = "the experiment does not take this value"
"""What is wrong with an entry whose value an experiment has no use for."""

QUESTION = "did you mean"
"""In what is wrong with an entry: another name follows."""

# Source: refusals of the runtime service that tell the entry in words alone, as (entry, words, what is wrong with it).
# The groups that never give back what they have matched keep the time linear, whatever the words are.
_REFUSED = tuple(
    (entry, re.compile(rf"(?>(?s:.*?){words}"), what)
    for entry, words, what in (
        ("variables.{}", r"Payload sets variable )(?s:(?>(.+?) = ).* has no rule)", NOT_TAKEN),
        ("variables.{}", r"Payload variable )(?s:(?>(.+?) = ).* does not have an allowed value\.)", NO_VALUE),
        ("variables.{}", r"Payload overrides workflow variables of )\S+: (.+?)(?: - |$)", NOT_TAKEN),
        ("data.{}", r"Payload overrides data files )(?>.*\. Filenames are \[)(.+)\]", NOT_TAKEN),
        ("platform", r"Payload overrides parameterisation\.)\w+\.platform=(.+)", "only {} will do"),
    )
)


def close(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that may have been meant, without regard to case; None if none is like it."""
    folded = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[found[0]] if found else None


def meant(name: str, known: Iterable[str]) -> str:
    """The question whether another name was meant, to be put behind a sentence; "" if none is like it."""
    other = close(name, known)
    return f": {QUESTION} {other!r}?" if other else ""


def instead(name: object, allowed: Collection[str]) -> str:
    """What is wrong with an entry for which an experiment has no use, and which ones it takes."""
    told = f"{NOT_TAKEN}, only {sorted(allowed)}"
    return told + (meant(name, allowed) if isinstance(name, str) else f": its name is a text, not {name!r}")


def refused(message: str) -> tuple[Problem, ...]:
    """What the service says is wrong with a payload, entry by entry; () if its words name none that is known here."""
    for entry, words, what in _REFUSED:
        if found := words.match(message):
            names = [name.strip(" '\"") for name in found[1].split(", ")] if "{}" in entry else [found[1]]
            return tuple(Problem(entry.format(name), what.format(name)) for name in names)
    return ()
