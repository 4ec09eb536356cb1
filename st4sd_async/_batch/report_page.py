"""
The page of a report: HTML without external resources. Pure.

All text is made printable, shortened, cleared of secrets and escaped where it is written. The style and the script are
constant, and the page's policy permits only these two, so that no text of a service or a payload can become either.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from html import escape
from math import ceil
from pathlib import Path
from string import Template
from typing import Any

from .._display.timeline import BAR_COLOURS, REFUSED, Span, levels, spans
from .._errors import RunFailed, St4sdError, plain_message
from .._render.cards import COLOURS, Badge, counted
from .._util.printable import shorten
from .._util.redact import REDACTED, redact
from .._util.spreadsheets import is_number
from .._version import VERSION
from ..models import Properties
from ..models.failures import MAX_COMPONENTS, last_lines
from ..models.properties import INPUT_ID, RUN
from .item import Item, fetched_reason, item_summary, state_badge
from .state import DISPLAY_ORDER, State
from .table import METADATA, PROPERTY, VARIABLE, LaunchFacts

MAX_LANES = 60
"""Maximum number of launches with a lane of their own in the time line. If there are more, they are counted."""
STEPS = 120
"""Number of steps in the chart of such counts."""
CHART_HEIGHT, LANE_HEIGHT, AXIS_HEIGHT = 180, 18, 18
"""Heights in pixels."""
MAX_TICKS = 4
"""Maximum number of labelled times, which fit on a phone."""
TICK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between two labelled times. Longer steps are whole days."""
DAY = 86400
MAX_ROWS = 5000
"""Maximum number of rows in the table, unless there are more launches. Then launches have fewer rows each."""
MAX_COLUMNS = 100
"""Maximum number of columns in the table, and of facts that all launches share."""
MAX_GROUPS = 20
"""Maximum number of reasons in the list of failures."""
MAX_KEYS = 12
"""Maximum number of launches that are named for a reason."""
MAX_TITLE_LENGTH, MAX_CELL_LENGTH, MAX_TEXT_LENGTH, MAX_MESSAGE_LENGTH = 120, 200, 400, 2000
"""Characters of a title or key, of a cell, of a reason, and of a whole message."""
MAX_UNWRAPPED = 24
"""Characters of a key or number that is never wrapped in the table."""
PALE, CROSS = "pale", "cross"
"""Further marks in lanes: a bar that is partly waiting, and a launch that was refused."""
REFUSED_COLOUR = "#ef9a90"
"""Colour of refused launches in the chart of counts; next to that of failed runs."""

NOT_MASKED = "Output is left out, because it may show credentials of the payload, which the journal does not keep."

_TEMPLATE = Path(__file__).with_name("report.html")
_SECTION = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]{1,200}@")
_SECRET_NAME = re.compile(r"passw(?:or)?d|secret|credential|(?:api|access|private)[-_ ]?key|(?:^|[-_ :])token$", re.I)
"""Names of variables and metadata whose values are masked."""
_ALWAYS = frozenset({"key", "state", "start", "duration", "why"})
"""Columns that are never moved out of the table."""
_LAST = ("start", "duration", RUN, "why")
"""Columns that come after the properties on the page."""
_HEADS = {"start": ("UTC", "start"), "duration": ("seconds", "duration"), RUN: ("", "run"), INPUT_ID: ("", INPUT_ID)}
"""Column -> the small text above its name, and the name."""
_PREFIXES = {VARIABLE: "variable", METADATA: "metadata", PROPERTY: "property"}


@dataclass(frozen=True)
class Report:
    """The content of the page."""

    title: str
    """Its title."""
    server: str
    """URL of the deployment."""
    campaign: str | None
    """The campaign name. None means that the batch has none."""
    launches: Sequence[LaunchFacts]
    """The launches, in the order in which they were added."""
    written: float
    """When it was made: wall-clock time in seconds."""
    secrets: tuple[str, ...] = ()
    """Texts that the page must not show."""
    unmasked: frozenset[str] = frozenset()
    """
    Keys of launches with credentials that are not among ``secrets``.

    The output of their runs is not fetched. What the journal has of it was masked when it was written.
    """
    table: Properties = field(default_factory=lambda: Properties((), ()))
    """The table of `Batch.table`."""
    notes: tuple[str, ...] = ()
    """What is missing, and why."""
    problem: St4sdError | None = None
    """Why the service did not return what was requested. None means that it did, or that nothing was requested."""

    @property
    def changed(self) -> float:
        """Time of the last recorded state change, or of the report if none was recorded."""
        return max((change.since for launch in self.launches for change in launch.changes), default=self.written)


def to_page(report: Report) -> str:
    """Return a report as an HTML document."""
    page = _Page(report)
    template = Template(_TEMPLATE.read_text("utf-8")).safe_substitute(colours=_colour_rules())
    hashes = {name: b64encode(sha256(text.encode()).digest()).decode() for name, text in _SECTION.findall(template)}
    sources = "; ".join(f"{name}-src 'sha256-{digest}'" for name, digest in hashes.items())
    return Template(template).substitute(
        policy=f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'",
        title=page.text(report.title, MAX_TITLE_LENGTH),
        header=page.header(),
        body=f"{page.timeline()}\n{page.failures()}\n{page.launches()}",
        footer=f"Written by st4sd_async {VERSION}. All times are in UTC. A duration is the time from the start until "
        "the batch saw the end, so it includes waiting.",
    )


def _colour_rules() -> str:
    bars = {**BAR_COLOURS, REFUSED: REFUSED_COLOUR}
    rules = [(_class_of(meaning), colour) for meaning, colour in bars.items()]
    rules += [(f"tone-{tone}", colour) for tone, colour in COLOURS.items()]
    return "\n".join(f".{name} {{ --colour: {colour}; }}" for name, colour in rules)


def _class_of(meaning: str) -> str:
    return meaning.replace(" ", "-")


@dataclass
class _Reason:
    """A reason for which launches failed."""

    badge: Badge
    text: str
    items: list[Item] = field(default_factory=list)

    @property
    def example(self) -> Item:
        """The launch whose output is shown: the first whose output is known."""
        return next((item for item in self.items if fetched_reason(item)), self.items[0])


class _Page:
    """Renders the parts of one report."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._redact = cache(lambda text: redact(text, report.secrets))
        items = [launch.item for launch in report.launches]
        self._reasons = {item.key: _reason_of(item) for item in items if item.error is not None}
        self._begin = min((change.since for launch in report.launches for change in launch.changes), default=0.0)

    def text(self, value: object, limit: int = MAX_CELL_LENGTH) -> str:
        """Return a value as escaped text on one line."""
        line = shorten(_USER_IN_URL.sub(f"{REDACTED}@", str(value)), limit)
        return escape(self._redact(line))

    def block(self, text: str) -> str:
        """Return the last lines of a text, escaped."""
        return escape(self._redact(_USER_IN_URL.sub(f"{REDACTED}@", last_lines(text))))

    # The header.

    def header(self) -> str:
        """Return the counts, the facts about the batch, and notes."""
        report = self._report
        counts = Counter(State(launch.item.state) for launch in report.launches)
        badges = [(state_badge(state), counts[state]) for state in DISPLAY_ORDER if counts[state]]
        facts = {
            "Campaign": report.campaign,
            "Deployment": report.server,
            "First launch": _moment(self._begin) if self._begin else None,
            "Last change": _moment(report.changed) if self._begin else None,
            "Report written": _moment(report.written),
        }
        items = "".join(f"<li>{self._badge(badge, f'{count:,} {badge.word}')}</li>" for badge, count in badges)
        notes = "".join(
            f'<div class="note tone-waiting"><p>{self.text(note, MAX_MESSAGE_LENGTH)}</p></div>'
            for note in report.notes
        )
        launches = counted(len(report.launches), "launch")
        return f'<p>{launches}</p>\n<ul class="counts">{items}</ul>\n{self._facts(facts)}\n{notes}'

    def _facts(self, facts: dict[str, Any]) -> str:
        pairs = "".join(
            f"<dt>{self.text(name)}</dt><dd>{self.text(value, MAX_TEXT_LENGTH)}</dd>\n"
            for name, value in facts.items()
            if value is not None
        )
        return f"<dl>\n{pairs}</dl>" if pairs else ""

    def _badge(self, badge: Badge, word: str) -> str:
        return f'<span class="badge tone-{badge.tone}">{self.text(word)}</span>'

    # The time line.

    def timeline(self) -> str:
        """Return the time line; "" if the journal has no times."""
        if not self._begin:
            return ""
        end = max(self._report.changed, self._begin + 1)
        scale = _Scale(self._begin, end)
        is_counted = len(self._report.launches) > MAX_LANES
        meanings, drawn = self._chart(scale) if is_counted else self._lanes(scale)
        what = "number of launches in each state" if is_counted else "a lane for each launch"
        legend = "".join(
            f'<li><span class="swatch {_class_of(meaning)}"></span>{meaning}</li>'
            for meaning in (*BAR_COLOURS, REFUSED)
            if meaning in meanings
        )
        legend += "<li>pale: partly waiting</li>" * (PALE in meanings) + "<li>\u00d7 refused</li>" * (CROSS in meanings)
        label = f"Time line: {what}, from {_moment(self._begin)} to {_moment(end)}"
        return (
            f'<section><h2>Time line</h2>\n<figure role="img" aria-label="{label}">\n'
            f'<ul class="legend" aria-hidden="true">{legend}</ul>\n{drawn}\n</figure></section>'
        )

    def _lanes(self, scale: _Scale) -> tuple[set[str], str]:
        """Return the meanings that occur, and a lane for each launch."""
        meanings: set[str] = set()
        lanes = []
        for launch in self._report.launches:
            found = spans(launch.changes, self._report.changed)
            meanings |= {span.meaning for span in found} | {PALE for span in found if span.is_pale}
            marks = [scale.bar(span) for span in found]
            for change in launch.changes:
                if change.state == REFUSED:
                    meanings.add(CROSS)
                    x = scale.percent(change.since)
                    marks.append(f'<text class="cross failed" x="{x}%" y="14" dx="3">\u00d7</text>')
            key = self.text(launch.item.key, MAX_TITLE_LENGTH)
            lanes.append(f'<span>{key}</span><svg height="{LANE_HEIGHT}">{"".join(marks)}</svg>')
        axis = f'<span></span><svg height="{AXIS_HEIGHT}">{scale.axis()}</svg>'
        return meanings, '<div class="lanes">\n' + "\n".join([*lanes, axis]) + "\n</div>"

    def _chart(self, scale: _Scale) -> tuple[set[str], str]:
        """Return the meanings that occur, and a chart of how many launches were in each state."""
        launches = self._report.launches
        found = levels((launch.changes for launch in launches), scale.begin, scale.end, STEPS)
        stacked = ["succeeded", "stopped", "deleted", "failed", REFUSED, "in progress", "waiting", "in doubt"]
        bars, width = [], 100 / STEPS
        for step in range(STEPS):
            base = float(CHART_HEIGHT)
            for meaning in (*stacked, "not started"):
                if height := found.get(meaning, [0] * STEPS)[step] / len(launches) * CHART_HEIGHT:
                    base -= height
                    bars.append(
                        f'<rect class="{_class_of(meaning)}" x="{step * width:.2f}%" y="{base:.1f}" '
                        f'width="{width + 0.05:.2f}%" height="{height:.1f}"/>'
                    )
        height = CHART_HEIGHT + AXIS_HEIGHT
        count = f'<text x="0" y="-5">{counted(len(launches), "launch")}</text>'
        axis = scale.axis(CHART_HEIGHT)
        drawn = f'<svg class="chart" height="{height}">{count}{"".join(bars)}{axis}</svg>'
        return set(found), drawn

    # Failures.

    def failures(self) -> str:
        """Return the launches with an error by reason, with the last lines of their output; "" if there are none."""
        reasons: dict[tuple[Badge, str], _Reason] = {}
        for launch in self._report.launches:
            if launch.item.error is not None:
                key = state_badge(launch.item.state), shorten(self._reasons[launch.item.key], MAX_MESSAGE_LENGTH)
                reasons.setdefault(key, _Reason(*key)).items.append(launch.item)
        if not reasons:
            return ""
        ordered = sorted(reasons.values(), key=lambda reason: fetched_reason(reason.example) is None)
        articles = "\n".join(map(self._reason, ordered[:MAX_GROUPS]))
        left = sum(len(reason.items) for reason in ordered[MAX_GROUPS:])
        more = f"<p>And {counted(left, 'launch')} with other reasons: see the table.</p>" if left else ""
        return f"<section><h2>Failures</h2>\n{articles}\n{more}</section>"

    def _reason(self, reason: _Reason) -> str:
        keys = ", ".join(self.text(item.key, MAX_TITLE_LENGTH) for item in reason.items[:MAX_KEYS])
        left = len(reason.items) - MAX_KEYS
        more = f" and {left:,} more" if left > 0 else ""
        pieces = [
            f'<article class="tone-{reason.badge.tone}">',
            f"<h3>{self._badge(reason.badge, reason.badge.word)} {self.text(reason.text, MAX_TEXT_LENGTH)}</h3>",
            f"<p>{counted(len(reason.items), 'launch')}: {keys}{more}</p>",
        ]
        if len(reason.text) > MAX_TEXT_LENGTH:
            pieces.append(f"<p>{self.text(reason.text, MAX_MESSAGE_LENGTH)}</p>")
        for name, text in self._logs(reason.example):
            of = f"{name} ({shorten(reason.example.key, MAX_TITLE_LENGTH)})"
            pieces.append(f'<p class="muted">{self.text(of, MAX_TEXT_LENGTH)}</p><pre>{self.block(text)}</pre>')
        failure = fetched_reason(reason.example)
        note = NOT_MASKED if reason.example.key in self._report.unmasked else failure.note if failure else ""
        if note:
            pieces.append(f'<p class="muted">{self.text(note, MAX_TEXT_LENGTH)}</p>')
        return "\n".join([*pieces, "</article>"])

    def _logs(self, item: Item) -> Iterator[tuple[str, str]]:
        """Yield names and texts of the output to show of a launch, or the description by the service."""
        failure = fetched_reason(item)
        for component in failure.components[:MAX_COMPONENTS] if failure else ():
            for name, text in (("standard error", component.stderr), ("standard output", component.stdout)):
                if text:
                    yield f"Last lines of {name} of {component.reference}", text
                    break
        if failure and failure.log:
            yield "Last lines of the log of the orchestrator", failure.log
        hint = item.status.hint if item.status else None
        if (not failure or not (failure.components or failure.log)) and hint and hint.text:
            yield "Description by the service", hint.text

    # The table.

    def launches(self) -> str:
        """Return the table of the launches, after what they have in common."""
        table = self._report.table
        rows, note = _limited(table.rows, len(self._report.launches))
        common, shown = _split_columns(table.columns, rows, len(self._report.launches))
        if len(shown) > MAX_COLUMNS:
            note += f" The last {len(shown) - MAX_COLUMNS:,} columns are left out."
        heads = [self._head(table.columns[place], _is_numeric(rows, place)) for place in shown[:MAX_COLUMNS]]
        lines = "\n".join(self._row(self._with_reason(row), shown[:MAX_COLUMNS]) for row in rows)
        shared = {
            " ".join(filter(None, _head_of(table.columns[place]))): self._value(table.columns[place], rows[0][place])
            for place in common[:MAX_COLUMNS]
        }
        same = f"<p>All launches have in common:</p>\n{self._facts(shared)}" if shared else ""
        return (
            f'<section><h2 id="heading">Launches</h2>\n{same}\n<p id="filter" class="screen"></p>\n'
            '<div class="scroll" tabindex="0" role="region" aria-labelledby="heading"><table id="launches">\n'
            f"<caption>A row for each measurement, or for a launch without any.{note}</caption>\n"
            f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table></div></section>"
        )

    def _head(self, column: str, is_numeric: bool) -> str:
        small, name = _head_of(column)
        above = f"<small>{small}</small> " if small else ""
        return f'<th scope="col"{_class(["number"] * is_numeric)}>{above}{self.text(name)}</th>'

    def _with_reason(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row with the reason as on this page, without advice."""
        place = self._report.table.columns.index("why")
        return (*row[:place], self._reasons.get(row[0], row[place]), *row[place + 1 :])

    def _row(self, row: Sequence[Any], shown: Iterable[int]) -> str:
        columns = self._report.table.columns
        return f"<tr>{''.join(self._cell(columns[place], row[place]) for place in shown)}</tr>"

    def _cell(self, column: str, value: Any) -> str:
        if column == "key":
            names = ["nowrap"] * (len(value) <= MAX_UNWRAPPED)
            return f'<th scope="row"{_class(names)}>{self.text(value, MAX_TITLE_LENGTH)}</th>'
        if column == "state":
            badge = state_badge(value)
            return f"<td>{self._badge(badge, badge.word)}</td>"
        shown = self._value(column, value)
        if shown is None:
            return "<td></td>"
        names = ["number"] * (_is_number(value)) + ["nowrap"] * (column in ("start", RUN)) + ["why"] * (column == "why")
        return f"<td{_class(names)}>{self.text(shown)}</td>"

    def _value(self, column: str, value: Any) -> str | None:
        """Return what is shown of a value; None if it is missing."""
        if value is None or value != value:
            return None
        if column.startswith((VARIABLE, METADATA)) and _SECRET_NAME.search(column):
            return REDACTED
        if isinstance(value, datetime):
            return f"{value:%Y-%m-%d %H:%M:%S}"
        if column == "duration":
            return f"{value:.1f}" if value < 100 else f"{value:.0f}"
        return f"{value:.10g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class _Scale:
    """Converts times to places in the width of a drawing."""

    begin: float
    end: float

    def percent(self, time: float) -> str:
        """Return the place of a time, in percent."""
        return f"{(time - self.begin) / (self.end - self.begin) * 100:.2f}"

    def bar(self, span: Span) -> str:
        """Return the bar of a span."""
        names = [_class_of(span.meaning), *(["pale"] if span.is_pale else [])]
        width = (span.end - span.begin) / (self.end - self.begin) * 100
        title = f"<title>{span.meaning}, {span.end - span.begin:.1f} s from {_moment(span.begin)}</title>"
        place = f'x="{self.percent(span.begin)}%" width="{max(width, 0.1):.2f}%" y="3" height="{LANE_HEIGHT - 6}"'
        return f"<rect{_class(names)} {place}>{title}</rect>"

    def axis(self, y: int = 0) -> str:
        """Return labelled times below a drawing."""
        length = self.end - self.begin
        step = next((step for step in TICK_STEPS if length / step <= MAX_TICKS), ceil(length / MAX_TICKS / DAY) * DAY)
        first = ceil(self.begin / step)
        pieces = []
        for time in range(first * step, int(self.end) + 1, step):
            moment = datetime.fromtimestamp(time, UTC)
            text = f"{moment:%H:%M:%S}" if step < 60 else f"{moment:%H:%M}" if step < DAY else f"{moment:%d %b}"
            x = self.percent(time)
            pieces.append(
                f'<line class="tick" x1="{x}%" x2="{x}%" y1="{y}" y2="{y + 4}"/>'
                f'<text x="{x}%" y="{y + 15}" text-anchor="middle">{text}</text>'
            )
        return "".join(pieces)


def _reason_of(item: Item) -> str:
    """Return why a launch failed."""
    if item.error is None or isinstance(item.error, RunFailed):
        return item_summary(item).reason
    return plain_message(item.error)


def _limited(rows: Sequence[tuple[Any, ...]], launches: int) -> tuple[Sequence[tuple[Any, ...]], str]:
    """Return at most `MAX_ROWS` rows, or one for each launch, and a note on the others. A row begins with its key."""
    if len(rows) <= max(MAX_ROWS, launches):
        return rows, ""
    each, seen = max(1, MAX_ROWS // launches), Counter[str]()
    kept = []
    for row in rows:
        seen[row[0]] += 1
        if seen[row[0]] <= each:
            kept.append(row)
    first = "one" if each == 1 else f"{each:,}"
    return kept, (
        f" Of {len(rows):,} rows, this page has {len(kept):,}: the first {first} of each launch. "
        "The command st4sd-async batch properties writes all of them."
    )


def _split_columns(columns: Sequence[str], rows: Sequence[Sequence[Any]], launches: int) -> tuple[list[int], list[int]]:
    """Return the places of columns with one value for all launches, and of those to show in the table."""
    common: list[int] = []
    shown: list[int] = []
    last = columns.index("why")
    for place, column in enumerate(columns):
        if column in _ALWAYS:
            shown.append(place)
            continue
        values = {str(row[place]) for row in rows if row[place] is not None and row[place] == row[place]}
        is_complete = all(row[place] is not None for row in rows)
        if values:
            is_common = place < last and launches > 1 and len(values) == 1 and is_complete
            (common if is_common else shown).append(place)
    ordered = sorted(shown, key=lambda place: _LAST.index(columns[place]) + 1 if columns[place] in _LAST else 0)
    return common, ordered


def _head_of(column: str) -> tuple[str, str]:
    """Return the small text above the name of a column, and the name."""
    for prefix, kind in _PREFIXES.items():
        if column.startswith(prefix):
            return kind, column.removeprefix(prefix)
    return _HEADS.get(column, ("", column))


def _is_numeric(rows: Iterable[Sequence[Any]], place: int) -> bool:
    values = [row[place] for row in rows if row[place] is not None]
    return bool(values) and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (
        isinstance(value, str) and len(value) <= MAX_UNWRAPPED and is_number(value)
    )


def _class(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
