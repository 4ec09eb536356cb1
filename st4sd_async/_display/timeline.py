"""A batch as a time line: bars made of the moments that were noted, and nothing guessed between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .._batch.records import Moment
from .._batch.state import ENDS, State
from .._errors import ConfigError
from .._render.cards import COLOURS, Tone
from .._util.printable import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._batch.store import Book

RUNNING, WAITING, IN_DOUBT, IN_PROGRESS = "running", "waiting", "in doubt", "in progress"
MOST_NAMED = 40
"""Launches whose keys stand beside their bars; of more they are only counted."""
LONGEST_KEY = 30
"""Characters of a key there."""
INCHES, LOWEST, HIGHEST = 0.24, 2.4, 9.0
"""Height of a bar and what is between two, and bounds for the height of the figure, in inches."""
WIDTH = 9.0
"""Width of the figure in inches."""
PALE, PALER = 0.55, "(pale: some of it waiting)"
"""Opacity of a bar that is partly waiting, and what the legend says of that."""
FILLED = 0.7
"""Share of the height that bars take, if there are not too many."""

LOOKS = {
    "not started": "#c3c8cf",
    WAITING: "#e3b341",
    IN_DOUBT: "#b06fc4",
    IN_PROGRESS: COLOURS[Tone.BUSY],
    "succeeded": COLOURS[Tone.GOOD],
    "failed": COLOURS[Tone.BAD],
    "stopped": COLOURS[Tone.QUIET],
    "deleted": "#3d434c",
}
"""What a bar means -> its colour, in the order of the legend."""
_MEANINGS: dict[str, str] = {
    State.PLANNED: "not started",
    State.SENDING: WAITING,
    State.UNKNOWN: IN_DOUBT,
}


@dataclass(frozen=True)
class Stretch:
    """A bar of one launch."""

    meaning: str
    begin: float
    """Seconds of the wall clock."""
    end: float
    is_pale: bool = False
    """Whether a part of it, nobody knows which, was spent waiting."""


def stretches(moments: Iterable[Moment], now: float) -> list[Stretch]:
    """The bars of a launch, given the moments in which it came into states; what goes on lasts until now."""
    attempts: dict[int, list[Moment]] = {}
    for moment in moments:
        attempts.setdefault(moment.attempt, []).append(moment)
    return [stretch for number in attempts for stretch in _attempt(attempts[number], number == max(attempts), now)]


def _attempt(moments: Sequence[Moment], is_last: bool, now: float) -> list[Stretch]:
    """The bars of one attempt, up to its end."""
    ordered = sorted(moments, key=lambda moment: moment.since)
    end = next((moment for moment in ordered if moment.state in ENDS), None)
    outcome = IN_PROGRESS if end is None else "succeeded" if end.state == State.COLLECTED else str(end.state)
    has_begun = any(moment.state == RUNNING for moment in ordered)
    meanings: dict[str, str] = {**_MEANINGS, State.STARTED: WAITING if has_begun else outcome, RUNNING: outcome}
    is_open = is_last and end is None and ordered[-1].state != State.REFUSED
    pale = None if has_begun else State.STARTED
    closed = [*ordered, Moment(0, "", max(now, ordered[-1].since))] if is_open else ordered
    return [
        Stretch(meanings[one.state], one.since, after.since, one.state == pale)
        for one, after in pairwise(closed)
        if one.state in meanings and one.since < after.since
    ]


def timeline(book: Book, axes: Axes | None) -> Axes:
    """The time line of all launches; see `Batch.plot`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ConfigError('plot() needs matplotlib: pip install "st4sd_async[plot]"') from None
    if axes is None:
        height = min(max(INCHES * len(book.rows) + 1, LOWEST), HIGHEST)
        _, axes = pyplot.subplots(figsize=(WIDTH, height), layout="constrained")
    axes.xaxis_date()
    _draw_bars(axes, book)
    _draw_refusals(axes, book)
    _label(axes, list(book.rows))
    return axes


def _draw_bars(axes: Axes, book: Book) -> None:
    from matplotlib.collections import PolyCollection

    now, is_named = book.clock.wall(), len(book.rows) <= MOST_NAMED
    half = FILLED / 2 if is_named else 0.5
    bars: dict[tuple[str, bool], list[list[tuple[float, float]]]]
    bars = {(meaning, is_pale): [] for meaning in LOOKS for is_pale in (False, True)}
    for place, key in enumerate(book.rows):
        for one in stretches(book.moments.get(key, ()), now):
            begin, end = _time(one.begin), _time(one.end)
            corners = [(begin, place - half), (begin, place + half), (end, place + half), (end, place - half)]
            bars[one.meaning, one.is_pale].append(corners)
    for (meaning, is_pale), some in bars.items():
        if some:
            # One for all that look alike: thousands of patches would take seconds.
            bar = PolyCollection(some, facecolors=LOOKS[meaning], alpha=PALE if is_pale else 1.0, antialiased=is_named)
            bar.set_label(f"_{meaning}" if is_pale and bars[meaning, False] else meaning)
            axes.add_collection(bar)
    if any(some for (_, is_pale), some in bars.items() if is_pale):
        axes.add_collection(PolyCollection([], facecolors="black", alpha=PALE / 3, label=PALER))
    axes.autoscale_view()


def _draw_refusals(axes: Axes, book: Book) -> None:
    refused = [
        (_time(moment.since), place)
        for place, key in enumerate(book.rows)
        for moment in book.moments.get(key, ())
        if moment.state == State.REFUSED
    ]
    if refused:
        times, places = zip(*refused, strict=True)
        axes.plot(times, places, "x", color=LOOKS["failed"], label="refused")


def _time(seconds: float) -> float:
    """A moment of the wall clock as matplotlib counts it: in days."""
    return _epoch() + seconds / 86400


@cache
def _epoch() -> float:
    from matplotlib.dates import date2num

    return float(date2num(datetime.fromtimestamp(0, UTC)))  # type: ignore[no-untyped-call]  # as it is there


def _label(axes: Axes, keys: Sequence[str]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    here = datetime.now(UTC).astimezone().tzinfo
    locator = AutoDateLocator(tz=here)  # type: ignore[no-untyped-call]  # as it is there
    axes.xaxis.set_major_locator(locator)
    formatter: Any = ConciseDateFormatter(locator, tz=here)  # type: ignore[no-untyped-call]
    formatter.formats[5] = "%H:%M:%S.%f"  # bare seconds would not be known for what they are
    axes.xaxis.set_major_formatter(formatter)
    axes.set_ylim(max(len(keys), 1) - 0.5, -0.5)
    if len(keys) <= MOST_NAMED:
        # A dollar sign would begin a formula.
        axes.set_yticks(range(len(keys)), [_short(key).replace("$", r"\$") for key in keys])
    else:
        axes.set_ylabel("launches in the order in which they were added")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=5, columnspacing=1.2, frameon=False, handlelength=1.2
        )


def _short(key: str) -> str:
    line = one_line(key)
    return line if len(line) <= LONGEST_KEY else f"{line[: LONGEST_KEY - 1]}\u2026"
