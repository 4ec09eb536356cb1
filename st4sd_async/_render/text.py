"""Cards as text for terminals."""

from __future__ import annotations

from .._util.printable import printable, shorten
from .cards import Badge, Bar, Card, CardTable, Cell

MAX_TITLE_LENGTH, MAX_TEXT_LENGTH = 200, 600
"""Characters of a title, and of any other text but the service's own words."""
BAR_WIDTH = 20
"""Characters of a bar."""


def to_text(card: Card, *, is_short: bool = False) -> str:
    """
    Return a card as text.

    Args:
        card: The card.
        is_short: Whether to use one line only, as inside a list.
    """
    counts = ", ".join(f"{count:,} {badge.word}" for count, badge in card.parts)
    headline = "  ".join(
        part
        for part in (
            shorten(card.title, MAX_TITLE_LENGTH),
            card.badge and shorten(card.badge.word, MAX_TITLE_LENGTH),
            card.bar and cell_text(card.bar),
            counts,
        )
        if part
    )
    if is_short:
        line = ": ".join(part for part in (f"{card.kind} {headline}", card.alert) if part)
        return f"<{shorten(line, MAX_TITLE_LENGTH)}>"
    notice = line_of(card.notice.word) if card.notice else ""
    lines = [headline, notice, line_of(card.alert), line_of(card.advice), *log_section(card)]
    width = max((len(name) for name, _ in card.facts), default=0)
    lines += [f"  {line_of(name):{width}}  {line_of(value)}" for name, value in card.facts]
    lines += [] if card.table is None else _table_lines(card.table)
    return "\n".join(line for line in [*lines, *map(line_of, card.notes)] if line)


def log_section(card: Card) -> list[str]:
    """Return the logs of a card as lines, each below its name."""
    return [line for name, text in card.logs for line in (f"  {line_of(name)}:", *log_lines(text, "    "))]


def log_lines(text: str, indent: str = "") -> list[str]:
    """Return the lines of a log, printable, with the end of a long one cut."""
    lines = (printable(line.expandtabs(4)) for line in text.split("\n"))
    return [f"{indent}{line[:MAX_TEXT_LENGTH]}" for line in lines]


def line_of(text: str) -> str:
    """Return a text as one printable line, shortened if it is long."""
    return shorten(text, MAX_TEXT_LENGTH)


def cell_text(cell: Cell) -> str:
    """Return a cell of a table as text."""
    if isinstance(cell, Bar):
        return f"{'#' * round(cell.share * BAR_WIDTH):.<{BAR_WIDTH}} {cell.share:4.0%}"
    return line_of(cell.word if isinstance(cell, Badge) else cell)


def _table_lines(table: CardTable) -> list[str]:
    rows = [[line_of(name) for name in table.columns], *([cell_text(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        "  ".join(
            cell.rjust(width) if column in table.numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [line.rstrip() for line in [*aligned, *([table.more] if table.more else [])]]
