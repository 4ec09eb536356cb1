"""What can be said of a thing at a glance, for any front end: plain values without a trace of markup; and of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .._util.printable import shorten
from ..models import Status
from ..models.finality import FINAL_EXITS
from ..models.hints import Reason

MOST_ROWS = 12
"""Rows of a table of runs; of more than that those that are alike share one."""
LONGEST_CELL = 120
"""Characters of a text in a row."""


class Tone(StrEnum):
    """How good the news are, which decides about the colour."""

    GOOD = "good"
    BAD = "bad"
    BUSY = "busy"
    WAITING = "waiting"
    QUIET = "quiet"


COLOURS = {
    Tone.GOOD: "#17805c",
    Tone.BAD: "#cf3a2c",
    Tone.BUSY: "#2b72c4",
    Tone.WAITING: "#a56a00",
    Tone.QUIET: "#6f7681",
}
"""Tone -> colour that white can be read on, and that shows on white and on black."""


@dataclass(frozen=True)
class Badge:
    """A word that is coloured."""

    word: str
    tone: Tone


@dataclass(frozen=True)
class Bar:
    """How much of something is done."""

    share: float
    """0 to 1."""
    tone: Tone


Cell = str | Badge | Bar


@dataclass(frozen=True)
class Table:
    """Some rows, and how many are left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    more: str = ""
    """What is left out; "" if nothing is."""
    numbers: frozenset[int] = frozenset()
    """Indices of the columns that hold numbers."""
    is_grouped: bool = False
    """Whether a row stands for all that are alike."""


@dataclass(frozen=True)
class Card:
    """What to say of one thing, the important first."""

    title: str
    kind: str = ""
    badge: Badge | None = None
    bar: Bar | None = None
    alert: str = ""
    """What is wrong, or what it waits for."""
    advice: str = ""
    """What that means, and what to do."""
    words: str = ""
    """The same in the service's own words, if there are more of them; may have many lines."""
    tone: Tone = Tone.BAD
    """That of the alert."""
    parts: tuple[tuple[int, Badge], ...] = ()
    """How many are in which state."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values."""
    table: Table | None = None
    notes: tuple[str, ...] = ()
    """What else to know."""


_WAITING = frozenset(
    {
        Reason.PENDING,
        Reason.INITIALISING,
        Reason.UNSCHEDULED,
        Reason.UNSCHEDULABLE,
        Reason.WAITING_ON_RESOURCE,
        Reason.SUSPENDED,
        Reason.UNKNOWN,
    }
)
_QUIET = frozenset({Reason.DELETED, Reason.STOPPED})


def tone_of(status: Status) -> Tone:
    """How good the news of a run are."""
    hint = status.hint
    if hint is None:
        return Tone.GOOD if status.is_success else Tone.BUSY
    if hint.reason in _QUIET:
        return Tone.QUIET
    return Tone.WAITING if hint.reason in _WAITING and not status.is_final else Tone.BAD


def badge_of(status: Status) -> Badge:
    """The one word for a run: how it ended, or else where it is."""
    tone, ended = tone_of(status), (status.exit_status or "").casefold() in FINAL_EXITS
    if status.is_deleted:
        word = "deleted"
    elif ended and tone is not Tone.BUSY:  # a success is none before all is written
        word = str(status.exit_status)
    else:
        word = str(status.experiment_state or "") or "no status yet"
    return Badge(word, tone)


def bar_of(status: Status) -> Bar | None:
    """How far a run is; None if that says nothing, as the 0 that the service tells of what waits or failed."""
    share, tone = 1.0 if status.is_success else status.total_progress or 0.0, tone_of(status)
    if status.is_deleted or (share == 0 and tone is not Tone.BUSY):
        return None
    return Bar(min(max(0.0, share), 1.0), tone)


def why(status: Status) -> str:
    """Why a run does not run, in the words of the service, or in ours if that is bad; "" if it does."""
    if status.hint is None:
        return ""
    return status.hint.gist or (status.hint.advice if tone_of(status) is Tone.BAD else "")


@dataclass(frozen=True)
class Look:
    """What is to be seen of one among many."""

    badge: Badge = Badge("not heard of yet", Tone.QUIET)
    bar: Bar | None = None
    why: str = ""


def look_of(status: Status) -> Look:
    """What is to be seen of a run."""
    return Look(badge_of(status), bar_of(status), why(status))


_FINE_FIRST = (Tone.GOOD, Tone.BUSY, Tone.WAITING, Tone.QUIET, Tone.BAD)
_BAD_FIRST = (Tone.BAD, Tone.WAITING, Tone.BUSY, Tone.QUIET, Tone.GOOD)


def of_many(looks: Mapping[str, Look]) -> Card:
    """What to say of many runs, by their rest-uids."""
    counts = Counter(look.badge for look in looks.values())
    ordered = sorted(counts, key=lambda badge: (_FINE_FIRST.index(badge.tone), badge.word))
    parts = parts_of({badge: counts[badge] for badge in ordered})
    return Card(counted(len(looks), "run"), parts=parts, table=overview("run", looks))


def parts_of(counts: Mapping[Badge, int]) -> tuple[tuple[int, Badge], ...]:
    """How many are in which state, those that have none left out."""
    return tuple((count, badge) for badge, count in counts.items() if count)


def overview(name: str, looks: Mapping[str, Look]) -> Table | None:
    """A row for each of a few; of many those that are alike have one together, the worst first."""
    if len(looks) > MOST_ROWS:
        return _grouped(name, looks)
    has_bars = any(look.bar for look in looks.values())
    columns = (name, "state", *(["progress"] if has_bars else []), "why")
    rows = (
        (key, look.badge, *([look.bar or ""] if has_bars else []), shorten(look.why, LONGEST_CELL))
        for key, look in looks.items()
    )
    return Table(columns, tuple(rows)) if looks else None


def _grouped(name: str, looks: Mapping[str, Look]) -> Table:
    groups: dict[tuple[Badge, str], list[str]] = {}
    for key, look in looks.items():
        groups.setdefault((look.badge, look.why), []).append(key)
    ordered = sorted(groups.items(), key=lambda group: (_BAD_FIRST.index(group[0][0].tone), -len(group[1])))
    rows = (
        (f"{len(keys):,}", badge, keys[0], shorten(why, LONGEST_CELL)) for (badge, why), keys in ordered[:MOST_ROWS]
    )
    more = left_out(sum(len(keys) for _, keys in ordered[MOST_ROWS:]), name)
    return Table(("", "state", f"{name}, for example", "why"), tuple(rows), more, frozenset({0}), is_grouped=True)


def size_of(size: int) -> str:
    """A number of bytes for people."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{size} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def left_out(count: int, what: str) -> str:
    """How many are not shown; "" if none."""
    return f"and {counted(count, what).replace(' ', ' more ')}" if count > 0 else ""


def counted(count: int, what: str) -> str:
    """A number of things."""
    many = f"{what}es" if what.endswith("ch") else f"{what}s"
    return f"{count:,} {what if count == 1 else many}"


def listed(names: Iterable[str | None]) -> str:
    """Names on one line."""
    return ", ".join(str(name) for name in names if name)


def facts_of(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Facts without those that have no value."""
    return tuple((name, str(value)) for name, value in facts.items() if value not in (None, ""))
