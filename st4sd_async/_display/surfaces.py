"""Where a live display is drawn: the output of a notebook cell, the end of a terminal, or lines in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .._render.cards import Badge, Bar, Cell, Tone
from .._render.html import to_html
from .._render.text import cell_text, line_of, to_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

    from .._render.cards import Card, CardTable
    from .live_display import LiveDisplay, Surface

REDRAW_INTERVAL = 0.25
"""Seconds between two drawings in the same place."""
LOG_INTERVAL = 5.0
"""Seconds between two additions to a log."""
LOG_ROWS = 12
"""Maximum number of rows that a log lists one by one; if there are more, only counts are written."""
MIN_ROWS = 3
"""Rows that are drawn however small the terminal is."""
NARROW = 72
"""Columns of a terminal below which details are omitted, to leave space for the reasons."""
MIN_REASON_WIDTH = 16
"""Minimum width of a reason in columns; if there is less room, it is left out."""
BAR_WIDTH = 10
"""Characters of a progress bar in a terminal."""

STYLES = {
    Tone.GOOD: "green",
    Tone.BAD: "red",
    Tone.STUCK: "yellow",
    Tone.BUSY: "cyan",
    Tone.WAITING: "dim",
    Tone.QUIET: "dim",
}
"""Tone -> style in a terminal."""
SIGNS = {
    Tone.GOOD: "\N{FULL BLOCK}",
    Tone.BAD: "x",
    Tone.STUCK: "!",
    Tone.QUIET: "~",
    Tone.BUSY: "\N{MEDIUM SHADE}",
    Tone.WAITING: ".",
}
"""Tone -> its character in the overall bar, which is readable without colours; in the order of the bar."""
ASCII_SIGNS = {**SIGNS, Tone.GOOD: "#", Tone.BUSY: "-"}


def default_surface(
    *, log_rows: int | None = LOG_ROWS, log_interval: float = LOG_INTERVAL, is_transient: bool = False
) -> Surface:
    """
    Return the surface that suits this process; imports IPython or rich only if a notebook or terminal needs it.

    Args:
        log_rows: For `Log`: rows that get a line each. None means all.
        log_interval: For `Log`: seconds between two additions.
        is_transient: For `Terminal`: whether the last drawing is erased.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        return Notebook()
    try:
        from rich.console import Console
    except ImportError:
        return Log(log_rows, log_interval)
    console = Console(stderr=True, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return Terminal(console, is_transient=is_transient)
    return Log(log_rows, log_interval)


def elapsed_since(start: float) -> str:
    """Return the time since a moment of the monotonic clock, as ``1:02:03``."""
    seconds = int(time.monotonic() - start)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


class Notebook:
    """The output of a cell."""

    interval = REDRAW_INTERVAL
    shows_time = False

    def __init__(self) -> None:
        self._handle: Any = None
        self._card: Card | None = None

    def draw(self, display: LiveDisplay, /) -> None:
        """Replace the previous drawing."""
        summary = display.summary()
        self._show(replace(summary, table=display.overview()) if summary.parts else summary)

    def close(self, footer: str, /) -> None:
        """Add the note."""
        if footer and self._card is not None:
            self._show(replace(self._card, notes=(footer,)))

    def _show(self, card: Card) -> None:
        from IPython.display import display

        self._card = card
        bundle = {"text/html": to_html(card), "text/plain": to_text(card)}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # IPython's
        else:
            self._handle.update(bundle, raw=True)


class Log:
    """Standard error, line by line: each row that changed or, if rows are many, the counts."""

    shows_time = False

    def __init__(self, most_rows: int | None = LOG_ROWS, interval: float = LOG_INTERVAL) -> None:
        self.interval = interval
        self._most_rows = most_rows
        self._start = time.monotonic()
        self._headline = ""

    def draw(self, display: LiveDisplay, /) -> None:
        """Write what is new."""
        changes = display.pop_changes()
        if self._most_rows is not None and len(display) > self._most_rows:
            headline = to_text(replace(display.summary(), alert="", advice=""))
            if headline != self._headline:
                self._headline = headline
                self._write(headline)
        else:
            for row in changes:
                cells = (row.name, row.badge, *row.details, row.reason)
                self._write("  ".join(filter(None, map(_short_text, cells))))

    def close(self, footer: str, /) -> None:
        """Write the note."""
        if footer:
            sys.stderr.write(f"{line_of(footer)}\n")
        sys.stderr.flush()

    def _write(self, line: str) -> None:
        sys.stderr.write(f"{elapsed_since(self._start)}  {line}\n")


def _short_text(cell: Cell) -> str:
    return f"{cell.share:.0%}" if isinstance(cell, Bar) else cell_text(cell)


class Terminal:
    """The end of a terminal, drawn by rich; with ``is_transient`` the last drawing is erased."""

    interval = REDRAW_INTERVAL
    shows_time = True

    def __init__(self, console: Console, *, is_transient: bool = False) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, transient=is_transient)
        self._start = time.monotonic()

    def draw(self, display: LiveDisplay, /) -> None:
        """Replace the previous drawing."""
        self._update(drawing(display, self._live.console.options, elapsed_since(self._start)))

    def close(self, footer: str, /) -> None:
        """Add the note, and show the cursor again."""
        from rich.console import Group
        from rich.text import Text

        if footer:
            self._update(Group(self._live.renderable, Text(line_of(footer), "dim")))
        self._live.stop()

    def _update(self, renderable: RenderableType) -> None:
        self._live.start()
        self._live.update(renderable, refresh=True)


def drawing(display: LiveDisplay, options: ConsoleOptions, elapsed: str) -> RenderableType:
    """Return the display, fitted to the size of a terminal. All of its text is printable."""
    from rich.console import Console, Group
    from rich.text import Text

    card, width = display.summary(), options.max_width
    if not card.parts:
        return Group(*_details(card))
    signs = ASCII_SIGNS if options.ascii_only else SIGNS
    counts = [Text(f"{count:,} {line_of(badge.word)}", STYLES[badge.tone]) for count, badge in card.parts]
    head = Text(f"{line_of(card.title)}, {elapsed}: ").append_text(Text(", ").join(counts))
    head_lines = len(head.wrap(Console(width=width), width))
    lines: list[RenderableType] = [head, _bar_of_all(card.parts, width, signs)]
    # Below them: the header of the table, the line that counts the rest, and an empty line for the cursor.
    table = display.table(max(MIN_ROWS, options.size.height - head_lines - 4))
    if table is not None:
        lines.append(_fitted(table, width, is_ascii=options.ascii_only))
        if table.more:
            lines.append(Text(line_of(table.more), "dim", no_wrap=True, overflow=_overflow(options.ascii_only)))
    return Group(*lines)


def _details(card: Card) -> list[Text]:
    """Return the lines for a single run."""
    from rich.text import Text

    headline = Text(line_of(card.title), "bold")
    for cell in (card.badge, card.bar):
        if cell:
            headline.append("  ").append_text(_cell(cell))
    alert = [Text(line_of(card.alert), STYLES[card.tone]), Text(line_of(card.advice))] if card.alert else []
    return [headline, *alert]


def _cell(cell: Cell) -> Text:
    from rich.text import Text

    if isinstance(cell, Bar):
        return Text(f"{'#' * round(cell.share * BAR_WIDTH):.<{BAR_WIDTH}} {cell.share:4.0%}", STYLES[cell.tone])
    return Text(cell_text(cell), STYLES[cell.tone] if isinstance(cell, Badge) else "")


def _bar_of_all(parts: Iterable[tuple[int, Badge]], width: int, signs: Mapping[Tone, str]) -> Text:
    """Return a line with a section for each tone; even a single row among thousands is visible."""
    from rich.text import Text

    counts = Counter[Tone]()
    for count, badge in parts:
        counts[badge.tone] += count
    total, bar = counts.total(), Text(no_wrap=True, overflow="crop")
    for tone, sign in signs.items():
        bar.append(sign * (max(1, width * counts[tone] // total) if counts[tone] else 0), STYLES[tone])
    return bar


def _fitted(table: CardTable, width: int, *, is_ascii: bool) -> RenderableType:
    """Return a table without details if the terminal is narrow, and without reasons if no space is left."""
    from .rich_table import rich_table, width_of

    columns, rows = list(table.columns), [list(map(_cell, row)) for row in table.rows]
    has_reasons = columns[-1] == "why"
    if width < NARROW:
        kept = [0, 1, len(columns) - 1] if has_reasons else [0, 1]
        columns, rows = [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
    if has_reasons and width - width_of(columns[:-1], [row[:-1] for row in rows]) < MIN_REASON_WIDTH:
        columns, rows, has_reasons = columns[:-1], [row[:-1] for row in rows], False
    return rich_table(columns, rows, width=width if has_reasons else None, is_ascii=is_ascii)


def _overflow(is_ascii: bool) -> Any:
    return "crop" if is_ascii else "ellipsis"
