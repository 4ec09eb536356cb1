"""Data on standard output: a table for people and pipes, or JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._words import printable


def print_document(content: Any) -> None:
    """Write one JSON document to standard output; numbers that are none are null, times and paths are texts."""
    typer.echo(_json(content, indent=2))


def print_line(content: Mapping[str, Any]) -> None:
    """Write one JSON document on a line of its own, at once."""
    typer.echo(_json(content))


def _json(content: Any, indent: int | None = None) -> str:
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, telling: int | None = None) -> None:
    """
    Write a table to standard output; None is an empty cell.

    A terminal gets it aligned; a pipe or file gets it whole, tab-separated, for other programs.

    Args:
        columns: Headers.
        rows: Cells.
        telling: How many columns, from the left, a terminal gets; None: all.
    """
    texts = [["" if cell is None else printable(" ".join(str(cell).split())) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [columns, *texts]:
            typer.echo("\t".join(line))
        return
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns[:telling]):
        cells = [line[number] for line in texts]
        drawn.add_column(column, justify="right" if all(map(_is_number, cells)) else "left", overflow="fold")
    for line in texts:
        drawn.add_row(*map(Text, line[:telling]))
    Console(highlight=False).print(drawn)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
