"""Data on standard output: text, tables and JSON. Exact in a pipe or file, printable in a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from .._display.rich_table import rich_table
from .._util.printable import LAYOUT, printable, printable_json, writable
from .._util.spreadsheets import escape_formula, is_number


def print_document(content: Any) -> None:
    """Write a JSON document. NaN and infinity become null, dates and paths become strings."""
    _print_json(_json(content, indent=2))


def print_line(content: Mapping[str, Any]) -> None:
    """Write a JSON document on one line, and flush."""
    _print_json(_json(content))


def print_text(text: str, *, end: str = "\n") -> None:
    """Write text of one or more lines."""
    typer.echo((printable(text, LAYOUT) if sys.stdout.isatty() else writable(text)) + end, nl=False)


def _print_json(document: str) -> None:
    typer.echo(printable_json(document) if sys.stdout.isatty() else writable(document))


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
    shown: Sequence[int] | None = None,
    is_cut: bool = False,
    is_spreadsheet: bool = False,
) -> None:
    """
    Write a table: aligned in a terminal, tab-separated and complete in a pipe or file. None is an empty cell.

    Args:
        columns: Headers.
        rows: Cells.
        shown: Indices of the columns that a terminal shows. None means all.
        is_cut: Whether a terminal shows each row on one line and cuts the last cell. Otherwise, long cells are folded.
        is_spreadsheet: Whether a pipe or file gets an apostrophe before cells that a spreadsheet would compute.
    """
    columns, *texts = (
        ["" if cell is None else printable(" ".join(str(cell).split())) for cell in row] for row in [columns, *rows]
    )
    if not sys.stdout.isatty():
        for line in [columns, *texts]:
            typer.echo("\t".join(map(escape_formula, line) if is_spreadsheet else line))
        return
    places = range(len(columns)) if shown is None else shown
    lines = [[line[place] for place in places] for line in texts]
    console = Console(highlight=False)
    headers = [columns[place] for place in places]
    numbers = [place for place in range(len(headers)) if all(is_number(line[place]) for line in lines)]
    width = console.width if is_cut else None
    console.print(rich_table(headers, [[*map(Text, line)] for line in lines], width=width, numbers=numbers))
