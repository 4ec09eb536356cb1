"""Data on standard output: texts, tables and JSON; exact in a pipe or file, printable in a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._util.printable import LAYOUT, printable, printable_json, writable
from ._formulas import neutral

GAP = 2
"""Blanks between two columns."""


def print_document(content: Any) -> None:
    """Write one JSON document to standard output; numbers that are none are null, times and paths are texts."""
    _print_json(_json(content, indent=2))


def print_line(content: Mapping[str, Any]) -> None:
    """Write one JSON document on a line of its own, at once."""
    _print_json(_json(content))


def print_text(text: str, *, end: str = "\n") -> None:
    """Write a text of one or more lines to standard output."""
    typer.echo((printable(text, LAYOUT) if sys.stdout.isatty() else writable(text)) + end, nl=False)


def _print_json(document: str) -> None:
    typer.echo(printable_json(document) if sys.stdout.isatty() else writable(document))  # half a pair alike in both


def _json(content: Any, indent: int | None = None) -> str:
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    telling: Sequence[int] | None = None,
    gist: Callable[[str], str] | None = None,
    is_spreadsheet: bool = False,
) -> None:
    """
    Write a table to standard output; None is an empty cell.

    A terminal gets it aligned; a pipe or file gets it whole, tab-separated, for other programs.

    Args:
        columns: Headers.
        rows: Cells.
        telling: Indices of the columns that a terminal gets; None: all.
        gist: Makes what begins with the important of a cell in the last column. With it a terminal gets one line
            for each row, of whose last cell there is as much as fits; None: what does not fit is folded.
        is_spreadsheet: Whether a pipe or file gets an apostrophe before cells that a spreadsheet would compute.
    """
    columns, *texts = (
        ["" if cell is None else printable(" ".join(str(cell).split())) for cell in row] for row in [columns, *rows]
    )
    if not sys.stdout.isatty():
        for line in [columns, *texts]:
            typer.echo("\t".join(map(neutral, line) if is_spreadsheet else line))
        return
    places = range(len(columns)) if telling is None else telling
    lines = [[line[place] for place in places] for line in texts]
    console = Console(highlight=False)
    if gist is not None:
        lines = [[*line[:-1], gist(line[-1])] for line in lines]
    width = None if gist is None else console.width
    console.print(_drawn([columns[place] for place in places], lines, width))


def _drawn(columns: Sequence[str], lines: Sequence[Sequence[str]], width: int | None) -> Table:
    """A table; where it has a width, each row is one line, of whose last cell there is as much as fits."""
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        side: Literal["left", "right"] = "right" if all(_is_number(line[number]) for line in lines) else "left"
        overflow: Literal["fold", "ellipsis"] = "fold" if width is None else "ellipsis"
        drawn.add_column(Text(column), justify=side, overflow=overflow, no_wrap=width is not None)
    room = 0 if width is None else width - taken(columns[:-1], [line[:-1] for line in lines])
    for line in lines:
        cells = [*map(Text, line)]
        if width is not None:
            cells[-1].truncate(max(0, room), overflow="ellipsis")
        drawn.add_row(*cells)
    return drawn


def taken(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> int:
    """How much of the width of a terminal columns take, with the gaps behind them."""
    return sum(max(map(cell_len, cells)) + GAP for cells in zip(columns, *lines, strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
