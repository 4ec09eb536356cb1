"""Where a card is drawn again and again: in its place in a notebook or a terminal, else in lines for what is new."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from .._render.cards import Badge, Bar, Card, Cell, Table, Tone
from .._render.html import to_html
from .._render.text import cell_text, line_of, to_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PAUSE = 0.25
"""Seconds between two drawings in the same place."""
LINES_PAUSE = 5.0
"""Seconds between two looks at what is new, where all that was said stays."""

STYLES = {Tone.GOOD: "green", Tone.BAD: "red", Tone.BUSY: "blue", Tone.WAITING: "yellow", Tone.QUIET: "bright_black"}
"""Tone -> colour of a terminal."""


class Screen(Protocol):
    """Somewhere to draw."""

    pause: float
    """Seconds from one drawing to the next, at least."""

    def draw(self, told: Card) -> None:
        """Show a card in place of the one before."""

    def close(self) -> None:
        """Leave what was drawn last."""


def screen_here() -> Screen:
    """What suits the place where this runs; nothing is imported for it that is not there anyway."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        return Notebook()
    try:
        from rich.console import Console
    except ImportError:
        return Lines()
    console = Console(stderr=True, highlight=False)
    return Terminal(console) if console.is_terminal and not console.is_dumb_terminal else Lines()


class Notebook:
    """The output of a cell."""

    pause = PAUSE

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, told: Card) -> None:
        """Show a card in place of the one before."""
        from IPython.display import display

        bundle = {"text/html": to_html(told), "text/plain": to_text(told)}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # as it is there
        else:
            self._handle.update(bundle, raw=True)

    def close(self) -> None:
        """Nothing to do: what was shown last stays."""


class Terminal:
    """The lower end of a terminal, by rich."""

    pause = PAUSE

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)

    def draw(self, told: Card) -> None:
        """Show a card in place of the one before."""
        self._live.start()
        self._live.update(_drawn(told), refresh=True)

    def close(self) -> None:
        """Give the cursor back."""
        self._live.stop()


def _drawn(told: Card) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    headline = Text(line_of(told.title), "bold")
    shown = [cell for cell in (told.badge, told.bar) if cell] + [
        Badge(f"{count:,} {badge.word}", badge.tone) for count, badge in told.parts
    ]
    for cell in shown:
        headline.append("  ").append_text(_coloured(cell))
    lines: list[RenderableType] = [headline]
    if told.alert:
        lines += [Text(line_of(told.alert), STYLES[told.tone]), Text(line_of(told.advice))]
    if told.table is not None:
        lines += [_grid(told.table), *([Text(told.table.more, "dim")] if told.table.more else [])]
    return Group(*lines, *(Text(line_of(note), "dim") for note in told.notes))


def _coloured(cell: Cell) -> Any:
    from rich.text import Text

    return Text(cell_text(cell), STYLES[cell.tone] if isinstance(cell, Badge | Bar) else "")


def _grid(table: Table) -> RenderableType:
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(table.columns):
        grid.add_column(line_of(name), justify="right" if place in table.numbers else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*map(_coloured, row))
    return grid


class Lines:
    """Standard error: a line for each of a few things when it changes, for many a line when their numbers change."""

    pause = LINES_PAUSE

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def draw(self, told: Card) -> None:
        """Say what is new."""
        if told.table is None or told.table.is_grouped:
            headline = to_text(told).splitlines()[: 2 if told.alert else 1]
            self._say(told.title, ": ".join(headline))
        else:
            for row in told.table.rows:
                self._say(cell_text(row[0]), "  ".join(filter(None, map(cell_text, row))))
        for note in told.notes:
            self._say(note, line_of(note))

    def _say(self, name: str, line: str) -> None:
        if self._said.get(name) != line:
            self._said[name] = line
            sys.stderr.write(f"{line}\n")

    def close(self) -> None:
        """Have it all said."""
        sys.stderr.flush()
