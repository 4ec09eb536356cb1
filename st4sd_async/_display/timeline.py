"""The time line of a batch: one bar for each recorded state of a launch. Unknown periods are left blank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

from .._errors import ConfigError
from .._render.cards import COLOURS, Tone
from .._util.printable import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEUTRAL: Any = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), COLOURS[Tone.QUIET]
    ),
}
"""Settings of matplotlib for a new figure: a transparent one, whose text is readable on light and dark pages."""
WAITING, IN_PROGRESS, REFUSED = "waiting", "in progress", "refused"
MAX_LABELS = 40
"""Maximum number of lanes that are labelled with their keys. If there are more, every second (third, ...) is."""
MAX_LABEL_LENGTH = 30
"""Maximum length of a key in a label."""
LANE_INCHES, MIN_FIGURE_INCHES, MAX_FIGURE_INCHES = 0.24, 2.4, 9.0
"""Height of a lane, and minimum and maximum height of the figure, in inches."""
FIGURE_WIDTH_INCHES = 9.0
PALE_OPACITY = 0.55
"""Opacity of a bar that is partly waiting."""
PALE_LABEL = "(pale: partly waiting)"
"""Suffix for such a bar in the legend."""
BAR_SHARE = 0.7
"""Height of a labelled bar, as a share of the lane's height."""

BAR_COLOURS = {
    "not started": "#c3c8cf",
    WAITING: "#e3b341",
    "in doubt": "#b06fc4",
    IN_PROGRESS: COLOURS[Tone.BUSY],
    "succeeded": COLOURS[Tone.GOOD],
    "failed": COLOURS[Tone.BAD],
    "stopped": COLOURS[Tone.QUIET],
    "deleted": "#3d434c",
}
"""Meaning of a bar -> its colour, in the order of the legend."""
_BEFORE_THE_START = {"planned": "not started", "sending": WAITING, "unknown": "in doubt"}
"""State of a launch -> meaning of its bar."""
_OUTCOMES = {
    "succeeded": "succeeded",
    "collected": "succeeded",
    "failed": "failed",
    "stopped": "stopped",
    "deleted": "deleted",
}
"""Final state of a launch -> meaning of the bar of its run."""


class Transition(Protocol):
    """The transition of a launch to a state, or the start of its run (``running``)."""

    @property
    def attempt(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def since(self) -> float: ...  # seconds of the wall clock


@dataclass(frozen=True)
class Span:
    """A bar of one launch."""

    meaning: str
    begin: float
    """Seconds of the wall clock."""
    end: float
    is_pale: bool = False
    """Whether the launch waited for an unknown part of this time."""


def spans(transitions: Iterable[Transition], now: float) -> list[Span]:
    """Return the bars of a launch. The last bar extends to `now` unless its state is final."""
    attempts: dict[int, list[Transition]] = {}
    for transition in transitions:
        attempts.setdefault(transition.attempt, []).append(transition)
    return [span for number in attempts for span in _of_attempt(attempts[number], number == max(attempts), now)]


def _of_attempt(transitions: Sequence[Transition], is_last: bool, now: float) -> list[Span]:
    ordered = sorted(transitions, key=lambda transition: transition.since)
    final = next((transition.state for transition in ordered if transition.state in _OUTCOMES), None)
    outcome = IN_PROGRESS if final is None else _OUTCOMES[final]
    was_seen_running = any(transition.state == "running" for transition in ordered)
    meanings = {**_BEFORE_THE_START, "started": WAITING if was_seen_running else outcome, "running": outcome}
    pale = None if was_seen_running else "started"
    ends = [transition.since for transition in ordered[1:]]
    if is_last and final is None and ordered[-1].state != REFUSED:
        ends.append(max(now, ordered[-1].since))
    return [
        Span(meanings[begun.state], begun.since, end, begun.state == pale)
        for begun, end in zip(ordered, ends, strict=False)
        if begun.state in meanings and begun.since < end
    ]


def levels(launches: Iterable[Iterable[Transition]], begin: float, end: float, steps: int) -> dict[str, list[int]]:
    """
    Return how many launches were in each state over time, for a chart of more launches than lanes fit.

    Args:
        launches: The transitions of each launch.
        begin: Start of the chart, in seconds of the wall clock.
        end: End of the chart, which must be later.
        steps: Number of steps. Each shows the states at its own end.

    Returns:
        Meaning -> its number of launches in each step. The meanings are those of bars and `REFUSED`, without those
        that never occur. A launch keeps its final state until the end.
    """
    found: dict[str, list[int]] = {meaning: [0] * (steps + 1) for meaning in (*BAR_COLOURS, REFUSED)}
    for transitions in launches:
        entered = _meanings_over_time(transitions)
        firsts = [min(max(0, ceil((since - begin) / (end - begin) * steps) - 1), steps) for since, _ in entered]
        for (_, meaning), first, last in zip(entered, firsts, [*firsts, steps][1:], strict=True):
            found[meaning][first] += 1
            found[meaning][last] -= 1
    return {meaning: list(accumulate(deltas[:-1])) for meaning, deltas in found.items() if any(deltas)}


def _meanings_over_time(transitions: Iterable[Transition]) -> list[tuple[float, str]]:
    """Return the times at which a launch entered a state, with the meaning of the state, in order."""
    ordered = sorted(transitions, key=lambda transition: (transition.attempt, transition.since))
    seen_running = {transition.attempt for transition in ordered if transition.state == "running"}
    meanings = {**_BEFORE_THE_START, **_OUTCOMES, "running": IN_PROGRESS, REFUSED: REFUSED}
    return [
        (one.since, meanings.get(one.state, WAITING if one.attempt in seen_running else IN_PROGRESS)) for one in ordered
    ]


def timeline(launches: Mapping[str, Sequence[Transition]], now: float, axes: Axes | None) -> Axes:
    """
    Draw a time line; see `Batch.plot`.

    Args:
        launches: key -> its transitions, in the order of the lanes.
        now: Seconds of the wall clock.
        axes: The axes to draw on. None means a new figure.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ConfigError('plot() needs matplotlib: pip install "st4sd_async[plot]"') from None
    if axes is not None:
        return _draw(axes, launches, now)
    with pyplot.rc_context(NEUTRAL):
        height = min(max(LANE_INCHES * len(launches) + 1, MIN_FIGURE_INCHES), MAX_FIGURE_INCHES)
        _, axes = pyplot.subplots(figsize=(FIGURE_WIDTH_INCHES, height), layout="constrained")
        return _draw(axes, launches, now)


def _draw(axes: Axes, launches: Mapping[str, Sequence[Transition]], now: float) -> Axes:
    axes.xaxis_date()
    _draw_bars(axes, launches, now)
    _draw_refusals(axes, launches)
    _label(axes, list(launches))
    return axes


def _draw_bars(axes: Axes, launches: Mapping[str, Sequence[Transition]], now: float) -> None:
    from matplotlib.collections import PolyCollection

    is_labelled = len(launches) <= MAX_LABELS
    half = BAR_SHARE / 2 if is_labelled else 0.5
    bars: dict[tuple[str, bool], list[list[tuple[float, float]]]]
    bars = {(meaning, is_pale): [] for meaning in BAR_COLOURS for is_pale in (False, True)}
    for lane, transitions in enumerate(launches.values()):
        for span in spans(transitions, now):
            begin, end = _days(span.begin), _days(span.end)
            corners = [(begin, lane - half), (begin, lane + half), (end, lane + half), (end, lane - half)]
            bars[span.meaning, span.is_pale].append(corners)
    for (meaning, is_pale), polygons in bars.items():
        if polygons:
            # All bars of a kind are one collection, because thousands of patches would take seconds.
            opacity = PALE_OPACITY if is_pale else 1.0
            bar = PolyCollection(polygons, facecolors=BAR_COLOURS[meaning], alpha=opacity, antialiased=is_labelled)
            bar.set_label(f"_{meaning}" if is_pale and bars[meaning, False] else meaning)
            axes.add_collection(bar)
    if any(polygons for (_, is_pale), polygons in bars.items() if is_pale):
        axes.add_collection(PolyCollection([], facecolors=COLOURS[Tone.QUIET], alpha=PALE_OPACITY, label=PALE_LABEL))
    axes.autoscale_view()


def _draw_refusals(axes: Axes, launches: Mapping[str, Sequence[Transition]]) -> None:
    refused = [
        (_days(transition.since), lane)
        for lane, transitions in enumerate(launches.values())
        for transition in transitions
        if transition.state == REFUSED
    ]
    if refused:
        times, lanes = zip(*refused, strict=True)
        axes.plot(times, lanes, "x", color=BAR_COLOURS["failed"], label=REFUSED)


def _days(seconds: float) -> float:
    """Return a time of the wall clock in days, the unit of matplotlib."""
    return _epoch() + seconds / 86400


@cache
def _epoch() -> float:
    from matplotlib.dates import date2num

    return float(date2num(datetime.fromtimestamp(0, UTC)))  # type: ignore[no-untyped-call]  # matplotlib's


def _label(axes: Axes, keys: Sequence[str]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    zone = datetime.now(UTC).astimezone().tzinfo
    locator = AutoDateLocator(tz=zone)  # type: ignore[no-untyped-call]  # matplotlib's
    axes.xaxis.set_major_locator(locator)
    formatter: Any = ConciseDateFormatter(locator, tz=zone)  # type: ignore[no-untyped-call]
    formatter.formats[5] = "%H:%M:%S.%f"  # a number of seconds would not be recognised as a time
    axes.xaxis.set_major_formatter(formatter)
    axes.set_ylim(max(len(keys), 1) - 0.5, -0.5)
    lanes = range(0, len(keys), -(-len(keys) // MAX_LABELS) or 1)
    # A dollar sign would begin a formula.
    axes.set_yticks(lanes, [_shortened(keys[lane]).replace("$", r"\$") for lane in lanes])
    if lanes.step > 1:
        axes.set_ylabel(f"{len(keys):,} launches in the order in which they were added")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=5, columnspacing=1.2, frameon=False, handlelength=1.2
        )


def _shortened(key: str) -> str:
    line = one_line(key)
    return line if len(line) <= MAX_LABEL_LENGTH else f"{line[: MAX_LABEL_LENGTH - 1]}\u2026"
