"""
Surfaces of live displays: the output of a notebook cell, the end of a terminal, or lines in a log.

All displays in a terminal share its end, one below the other. Other output appears above them.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from .._render.cards import MAX_ROWS, Badge, Bar, Cell, Tone
from .._render.displayable import current_cell
from .._render.html import to_html
from .._render.text import cell_text, line_of, log_section, to_text
from .live_display import format_elapsed

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

    from .._render.cards import Card, CardTable
    from .live_display import LiveDisplay, Surface

REDRAW_INTERVAL = 0.25
"""Seconds between two drawings of a display that is updated in place."""
BYTES_AT_ONCE, BYTES_PER_CHANGE, BYTES_PER_SECOND = 150_000, 300, 150
"""Bytes that a display in a notebook may send: at once, for each row that changes, and for each second."""
LOG_INTERVAL = 5.0
"""Seconds between two additions to a log."""
ESTIMATE_PAUSE = 60.0
"""Minimum number of seconds between two lines about the time left in a log."""
LOG_ROWS = 12
"""Maximum number of rows that a log lists. If there are more, only counts are written."""
MIN_ROWS = 3
"""Minimum number of rows to draw, however small the terminal is."""
NARROW = 72
"""Width of a terminal, in columns, below which details are omitted to leave space for reasons."""
MIN_REASON_WIDTH = 16
"""Minimum width of a reason in columns. If there is less space, reasons are omitted."""
BAR_WIDTH = 10
"""Width of a progress bar in a terminal, in characters."""

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
"""Tone -> its character in the overall bar, in the order of the bar. The bar is readable without colours."""
ASCII_SIGNS = {**SIGNS, Tone.GOOD: "#", Tone.BUSY: "-"}


def default_surface(
    *, log_rows: int | None = LOG_ROWS, log_interval: float = LOG_INTERVAL, is_transient: bool = False
) -> Surface:
    """
    Return the surface that suits this process; imports IPython or rich only if a notebook or terminal needs it.

    Args:
        log_rows: Maximum number of rows that a `Log` lists. None means no maximum.
        log_interval: Seconds between two additions to a `Log`.
        is_transient: Whether a `Terminal` erases the last drawing.
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
    return format_elapsed(time.monotonic() - start)


class Notebook:
    """
    The output of a notebook cell.

    Each drawing is sent to the browser in whole. A display may send `BYTES_AT_ONCE` as fast as `REDRAW_INTERVAL`
    allows, and after that `BYTES_PER_CHANGE` and `BYTES_PER_SECOND`, so that what it sends grows linearly with the
    number of rows. At first, elapsed times may use half of that: they grow each second, and changes are still shown at
    once. The last drawing is always sent.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._card: Card | None = None
        self._display: LiveDisplay | None = None
        self._began_at = self._drawn_at = time.monotonic()
        self._sent_bytes = self._size_bytes = 0
        self._cell = current_cell()

    @property
    def interval(self) -> float:
        """Seconds from the last drawing to the next, so that the display sends no more than it may."""
        changes = 0 if self._display is None else self._display.changes
        earned = BYTES_AT_ONCE + BYTES_PER_CHANGE * changes + BYTES_PER_SECOND * (self._drawn_at - self._began_at)
        return max(REDRAW_INTERVAL, (self._sent_bytes + self._size_bytes - earned) / BYTES_PER_SECOND)

    @property
    def shows_time(self) -> bool:
        """Whether the elapsed time of a row grows, and the display may send a drawing for that."""
        if self._display is None:
            return False
        # A table of more rows groups them, without times.
        is_early = len(self._display) <= MAX_ROWS and self._sent_bytes + self._size_bytes <= BYTES_AT_ONCE // 2
        pause = 1.0 if is_early else max(1.0, self._size_bytes / BYTES_PER_SECOND)
        return time.monotonic() - self._drawn_at >= pause and self._display.has_clocks

    @property
    def is_of_this_cell(self) -> bool:
        """Whether the cell that is being executed is the one that began this display."""
        return self._cell is not None and self._cell == current_cell()

    def draw(self, display: LiveDisplay, /) -> None:
        """Replace the previous drawing."""
        self._display = display
        summary = display.summary()
        self._show(replace(summary, table=display.overview()) if summary.parts else summary)

    def close(self, footer: str, /) -> None:
        """Add the note."""
        if footer and self._card is not None:
            self._show(replace(self._card, notes=(footer,)))

    def _show(self, card: Card) -> None:
        from IPython.display import display

        self._drawn_at = time.monotonic()
        if card == self._card:
            return
        self._card = card
        bundle = {"text/html": to_html(card), "text/plain": to_text(card)}
        self._size_bytes = sum(map(len, bundle.values()))
        self._sent_bytes += self._size_bytes
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # IPython's
        else:
            self._handle.update(bundle, raw=True)


class Log:
    """Lines on standard error: each changed row (or, if there are many rows, the counts), and each outage."""

    shows_time = False

    def __init__(self, most_rows: int | None = LOG_ROWS, interval: float = LOG_INTERVAL) -> None:
        self.interval = interval
        self._most_rows = most_rows
        self._start = time.monotonic()
        self._headline = ""
        self._notice_tone: Tone | None = None
        self._estimated_at = float("-inf")

    def draw(self, display: LiveDisplay, /) -> None:
        """Write the changes since the last drawing."""
        notice, changes = display.notice(), display.pop_changes()
        tone = None if notice is None else notice.tone
        if notice is not None and tone is not self._notice_tone:
            self._write(line_of(notice.word))
        self._notice_tone = tone
        if self._most_rows is not None and len(display) > self._most_rows:
            headline = to_text(_counts_of(display))
            if headline != self._headline:
                self._headline = headline
                self._write(headline)
        else:
            for row in changes:
                cells = (row.name, row.badge, *row.details, row.reason)
                self._write("  ".join(filter(None, map(_short_text, cells))))
        self._write_estimate(display)

    def close(self, footer: str, /) -> None:
        """Write the note."""
        if footer:
            sys.stderr.write(f"{line_of(footer)}\n")
        sys.stderr.flush()

    def _write_estimate(self, display: LiveDisplay) -> None:
        now = time.monotonic()
        if now - self._estimated_at >= ESTIMATE_PAUSE and (time_left := display.time_left()):
            self._estimated_at = now
            self._write(f"{to_text(_counts_of(display))}; {time_left}")

    def _write(self, line: str) -> None:
        sys.stderr.write(f"{elapsed_since(self._start)}  {line}\n")


def _counts_of(display: LiveDisplay) -> Card:
    return replace(display.summary(), notice=None, alert="", advice="")


def _short_text(cell: Cell) -> str:
    return f"{cell.share:.0%}" if isinstance(cell, Bar) else cell_text(cell)


class Terminal:
    """The end of a terminal, drawn by rich. With ``is_transient``, the last drawing is erased."""

    interval = REDRAW_INTERVAL
    shows_time = True

    def __init__(self, console: Console, *, is_transient: bool = False) -> None:
        self._console, self._is_transient = console, is_transient
        self._start = time.monotonic()
        self._last: RenderableType = ""

    def draw(self, display: LiveDisplay, /) -> None:
        """Replace the previous drawing."""
        self._last = drawing(display, self._console.options, elapsed_since(self._start))
        _SharedEnd.of(self._console).draw(self, self._last)

    def close(self, footer: str, /) -> None:
        """Add the note, and show the cursor again."""
        from rich.console import Group
        from rich.text import Text

        last = Group(self._last, Text(line_of(footer), "dim")) if footer else self._last
        _SharedEnd.of(self._console).remove(self, None if self._is_transient else last)


class _SharedEnd:
    """
    The end of a terminal, which all displays of this process share.

    While a display is open, other output to this terminal appears above it: by ``print``, by handlers of `logging`, and
    by other users of the standard streams.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._drawings: dict[Terminal, RenderableType] = {}
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._streams: dict[str, TextIO] = {}
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO]] = []

    @classmethod
    def of(cls, console: Console) -> _SharedEnd:
        """Return the end of the terminal to which a console writes."""
        file = console.file
        if file not in _ends:
            _ends[file] = cls(console)
        return _ends[file]

    def draw(self, terminal: Terminal, drawing: RenderableType) -> None:
        """Replace the drawing of one display."""
        self._drawings[terminal] = drawing
        if not self._live.is_started:
            self._live.start()
            self._redirect()
        self._refresh()

    def remove(self, terminal: Terminal, last: RenderableType | None) -> None:
        """Remove a display, and leave its last drawing. None means that the drawing is erased."""
        was_drawn = self._drawings.pop(terminal, None) is not None
        if self._drawings:
            self._refresh()
            if last is not None:
                self._console.print(last)
            return
        _ends.pop(self._console.file, None)
        self._live.transient = last is None
        if was_drawn and last is not None:
            self._live.update(last, refresh=True)
        self._live.stop()
        self._restore()

    def _refresh(self) -> None:
        from rich.console import Group

        self._live.update(Group(*self._drawings.values()), refresh=True)

    def _redirect(self) -> None:
        """Redirect other output to this terminal, so that it appears above the displays."""
        replaced: dict[TextIO, TextIO] = {}
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and (stream is self._console.file or stream.isatty()):
                self._streams[name] = stream
                replaced[stream] = _WriterAbove(stream, self._console)  # type: ignore[assignment] # all that is used
                setattr(sys, name, replaced[stream])
        for logger in (logging.getLogger(), *logging.Logger.manager.loggerDict.values()):
            for handler in getattr(logger, "handlers", ()):  # a placeholder has no handlers
                if isinstance(handler, logging.StreamHandler) and handler.stream in replaced:
                    self._handlers.append((handler, handler.stream))
                    handler.setStream(replaced[handler.stream])

    def _restore(self) -> None:
        for handler, stream in self._handlers:
            handler.setStream(stream)
        for name, stream in self._streams.items():
            writer = getattr(sys, name)
            if isinstance(writer, _WriterAbove):  # otherwise, other code has replaced the stream
                writer.release()
                setattr(sys, name, stream)
        self._handlers, self._streams = [], {}


class _WriterAbove(io.TextIOBase):
    """
    A replacement for a standard stream that writes whole lines above the displays.

    rich's own class has no encoding, so that ``typer.echo`` bypasses it, and it ends lines on `flush`.
    """

    def __init__(self, stream: TextIO, console: Console) -> None:
        from rich.ansi import AnsiDecoder

        self._stream, self._console, self._decoder = stream, console, AnsiDecoder()
        self._line = ""

    def write(self, text: str) -> int:
        """Write complete lines, and keep the rest."""
        from rich.text import Text

        *lines, self._line = (self._line + text).split("\n")
        if lines:
            self._console.print(Text("\n").join(map(self._decoder.decode_line, lines)), soft_wrap=True)
        return len(text)

    def release(self) -> None:
        """Write the incomplete line to the stream itself."""
        self._stream.write(self._line)
        self._line = ""

    @property
    def rich_proxied_file(self) -> TextIO:
        """The stream itself, which consoles of rich use."""
        return self._stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Error handler of the stream for characters that it cannot encode."""
        return self._stream.errors

    def fileno(self) -> int:
        """Return the file descriptor of the stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_ends: dict[Any, _SharedEnd] = {}
"""Stream -> the end of its terminal, for terminals with open displays."""


def drawing(display: LiveDisplay, options: ConsoleOptions, elapsed: str) -> RenderableType:
    """Return a display, fitted to the size of a terminal. All of its text is printable."""
    from rich.console import Console, Group
    from rich.text import Text

    card, width = display.summary(), options.max_width
    notice = [Text(line_of(card.notice.word), STYLES[card.notice.tone])] if card.notice else []
    if not card.parts:
        return Group(*_details(card, notice))
    signs = ASCII_SIGNS if options.ascii_only else SIGNS
    counts = [Text(f"{count:,} {line_of(badge.word)}", STYLES[badge.tone]) for count, badge in card.parts]
    times = ", ".join(filter(None, (line_of(card.title), elapsed, display.time_left())))
    head = Text(f"{times}: ").append_text(Text(", ").join(counts))
    head_lines = sum(len(text.wrap(Console(width=width), width)) for text in (head, *notice))
    bars = [_bar_of_all(card.parts, width, signs)] if card.has_bar else []
    lines: list[RenderableType] = [head, *bars, *notice]
    # Four lines remain for the header of the table, the line that counts the other rows, and the cursor.
    table = display.table(max(MIN_ROWS, options.size.height - head_lines - 4))
    if table is not None:
        lines.append(_fitted(table, width, is_ascii=options.ascii_only))
        if table.more:
            lines.append(Text(line_of(table.more), "dim", no_wrap=True, overflow=_overflow(options.ascii_only)))
    return Group(*lines)


def _details(card: Card, notice: list[Text]) -> list[Text]:
    """Return the lines for a single run."""
    from rich.text import Text

    if not card.title:  # nothing has begun
        return notice
    headline = Text(line_of(card.title), "bold")
    for cell in (card.badge, card.bar):
        if cell:
            headline.append("  ").append_text(_cell(cell))
    alert = [Text(line_of(card.alert), STYLES[card.tone]), Text(line_of(card.advice))] if card.alert else []
    return [headline, *notice, *alert, *map(Text, log_section(card))]


def _cell(cell: Cell) -> Text:
    from rich.text import Text

    if isinstance(cell, Bar):
        return Text(f"{'#' * round(cell.share * BAR_WIDTH):.<{BAR_WIDTH}} {cell.share:4.0%}", STYLES[cell.tone])
    return Text(cell_text(cell), STYLES[cell.tone] if isinstance(cell, Badge) else "")


def _bar_of_all(parts: Iterable[tuple[int, Badge]], width: int, signs: Mapping[Tone, str]) -> Text:
    """Return a bar with a section for each tone. Even a single row among thousands is visible."""
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
