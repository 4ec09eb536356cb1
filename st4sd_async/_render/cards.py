"""
Cards: the content to show of an object, as plain values without markup.

    card = status._card()
    to_html(card)    in `html`, for notebooks
    to_text(card)    in `text`, for terminals

Each class that has a card builds it itself, in ``_card()``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from .._util.printable import shorten

MAX_ROWS = 12
"""Maximum number of rows in a table of summaries; if there are more, equal states share a row."""
MAX_NAMES = 5
"""Names in a list of names; the others are counted."""
MAX_REASON_LENGTH = 120
"""Characters of a reason in such a row."""


class Tone(StrEnum):
    """How good or bad a state is; decides its colour."""

    GOOD = "good"
    BAD = "bad"
    STUCK = "stuck"
    BUSY = "busy"
    WAITING = "waiting"
    QUIET = "quiet"


COLOURS = {
    Tone.GOOD: "#17805c",
    Tone.BAD: "#cf3a2c",
    Tone.STUCK: "#a8489f",
    Tone.BUSY: "#2b72c4",
    Tone.WAITING: "#a56a00",
    Tone.QUIET: "#6f7681",
}
"""Tone -> a colour on which white is readable, and which is readable on white and on black."""


@dataclass(frozen=True)
class Badge:
    """A coloured word."""

    word: str
    tone: Tone


@dataclass(frozen=True)
class Bar:
    """A progress bar."""

    share: float
    """0 to 1."""
    tone: Tone


Cell = str | Badge | Bar


@dataclass(frozen=True)
class CardTable:
    """A table that may leave out rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    more: str = ""
    """Text that counts the omitted rows; "" if none."""
    numbers: frozenset[int] = frozenset()
    """Indices of the columns that hold numbers."""


@dataclass(frozen=True)
class Card:
    """The content to show of one object, in the order of the fields."""

    title: str
    kind: str = ""
    badge: Badge | None = None
    bar: Bar | None = None
    notice: Badge | None = None
    """That the service does not respond, or does so again, as a whole sentence. None means neither."""
    alert: str = ""
    """The problem of the object, or what it waits for."""
    advice: str = ""
    """What the alert means, and what to do."""
    words: str = ""
    """The service's own text if it says more than the alert; may have many lines."""
    tone: Tone = Tone.BAD
    """Tone of the alert."""
    logs: tuple[tuple[str, str], ...] = ()
    """Names and texts of logs; a text has many lines, and its indentation matters."""
    parts: tuple[tuple[int, Badge], ...] = ()
    """How many objects are in each state."""
    has_bar: bool = True
    """Whether a bar shows these numbers. False if the objects are of different sizes, such as a batch and one file."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values."""
    table: CardTable | None = None
    notes: tuple[str, ...] = ()
    """Further remarks."""


@dataclass(frozen=True)
class Summary:
    """One run or launch in a table of many."""

    badge: Badge = Badge("no status yet", Tone.QUIET)
    bar: Bar | None = None
    reason: str = ""
    """Why it does not run or did not succeed; "" if it runs or succeeded."""


_BAD_FIRST = (Tone.BAD, Tone.STUCK, Tone.WAITING, Tone.BUSY, Tone.QUIET, Tone.GOOD)


def summary_table(noun: str, summaries: Mapping[str, Summary]) -> CardTable | None:
    """
    Return a table with a row for each summary. Above `MAX_ROWS`, equal states share a row, the worst first.

    Args:
        noun: What the keys name, in the singular.
        summaries: Key -> summary. If there are none, None is returned.
    """
    if len(summaries) > MAX_ROWS:
        return _grouped(noun, summaries)
    has_bars = any(summary.bar for summary in summaries.values())
    columns = (noun, "state", *(["progress"] if has_bars else []), "why")
    rows = (
        (key, summary.badge, *([summary.bar or ""] if has_bars else []), shorten(summary.reason, MAX_REASON_LENGTH))
        for key, summary in summaries.items()
    )
    return CardTable(columns, tuple(rows)) if summaries else None


def summaries_card(noun: str, summaries: Mapping[str, Summary]) -> Card:
    """Return a card with the number of summaries in each state, and their `summary_table`."""
    counts = Counter(summary.badge for summary in summaries.values())
    parts = tuple((count, badge) for badge, count in counts.most_common())
    return Card(counted(len(summaries), noun), parts=parts, table=summary_table(noun, summaries))


def _grouped(noun: str, summaries: Mapping[str, Summary]) -> CardTable:
    groups: dict[tuple[Badge, str], list[str]] = {}
    for key, summary in summaries.items():
        groups.setdefault((summary.badge, summary.reason), []).append(key)
    ordered = sorted(groups.items(), key=lambda group: (_BAD_FIRST.index(group[0][0].tone), -len(group[1])))
    rows = (
        (f"{len(keys):,}", badge, keys[0], shorten(reason, MAX_REASON_LENGTH))
        for (badge, reason), keys in ordered[:MAX_ROWS]
    )
    more = omitted(sum(len(keys) for _, keys in ordered[MAX_ROWS:]), noun)
    return CardTable(("", "state", f"{noun}, for example", "why"), tuple(rows), more, frozenset({0}))


def with_error(card: Card, error: Exception, text: str = "") -> Card:
    """
    Return a card with an error as its alert.

    Args:
        card: The card.
        error: The error.
        text: What to show of it. "" means the service's own text if the error has it, else the whole message.
    """
    text = text or str(getattr(error, "message", "") or error)
    return replace(card, alert=f"{type(error).__name__}: {shorten(text)}", advice=str(error))


def format_size(size: int) -> str:
    """Return a number of bytes with a unit."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{size} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def omitted(count: int, noun: str) -> str:
    """Return a text that counts the omitted objects; "" if none."""
    return f"and {counted(count, noun).replace(' ', ' more ')}" if count > 0 else ""


def counted(count: int, noun: str) -> str:
    """Return a count and a noun, in the plural unless the count is 1."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def joined(names: Iterable[str | None]) -> str:
    """Return the names on one line, without those that are missing."""
    return ", ".join(str(name) for name in names if name)


def shortened_list(names: Collection[str]) -> str:
    """Return the first names on one line, with the number of the others."""
    shown = list(names)[:MAX_NAMES]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return f"{joined(shown)}{more}"


def facts_of(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the facts as texts, without those that have no value."""
    return tuple((name, str(value)) for name, value in facts.items() if value not in (None, ""))
