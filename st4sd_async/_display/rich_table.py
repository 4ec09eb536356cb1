"""Tables in a terminal, aligned without borders; needs rich."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from rich.table import Table
from rich.text import Text

GAP = 2
"""Number of spaces between two columns."""


def rich_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Text]],
    *,
    width: int | None = None,
    numbers: Collection[int] = (),
    is_ascii: bool = False,
) -> Table:
    """
    Return a table.

    Args:
        columns: Headers, printable.
        rows: Cells, printable.
        width: Width of the terminal in columns. Each row takes one line, and its last cell is cut to the remaining
            space. None means that cells are wrapped.
        numbers: Indices of the columns that are aligned to the right.
        is_ascii: Whether the terminal cannot show an ellipsis.
    """
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    cut: Literal["crop", "ellipsis"] = "crop" if is_ascii else "ellipsis"
    for place, column in enumerate(columns):
        side: Literal["left", "right"] = "right" if place in numbers else "left"
        table.add_column(
            Text(column), justify=side, overflow="fold" if width is None else cut, no_wrap=width is not None
        )
    room = 0 if width is None else max(0, width - width_of(columns[:-1], [row[:-1] for row in rows]))
    for row in rows:
        if width is not None:
            row[-1].truncate(room, overflow=cut)
        table.add_row(*row)
    return table


def width_of(columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> int:
    """Return the width of a table in columns of a terminal, including the space after each column."""
    cells = zip(map(Text, columns), *rows, strict=True)
    return sum(max(cell.cell_len for cell in column) + GAP for column in cells)
