"""What a campaign found, on standard output: a table for people and pipes, or one JSON document."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..models import Experiment, Status
from ._campaign import Attempt


def document(engine: str, experiment: Experiment, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """All that is known of a campaign, fit for JSON: numbers that are none are null."""
    return {
        "engine": engine,
        "experiment": experiment.identifier,
        "runs": [_run(attempt) for attempt in attempts],
    }


def _run(attempt: Attempt) -> dict[str, Any]:
    return {
        "rest-uid": attempt.rest_uid,
        "inputs": dict(attempt.inputs),
        "variables": dict(attempt.variables),
        "is-success": attempt.status is not None and attempt.status.is_success,
        "status": None if attempt.status is None else _status(attempt.status),
        "seconds": round(attempt.seconds, 1),
        "files": {name: str(path) for name, path in sorted(attempt.files.items())},
        "properties": {name: [_number(value) for value in values] for name, values in attempt.properties.items()},
        "error": None if attempt.error is None else str(attempt.error),
    }


def _status(status: Status) -> dict[str, Any]:
    return {
        "experiment-state": status.experiment_state,
        "exit-status": status.exit_status,
        "total-progress": status.total_progress,
        "error-description": status.error_description,
    }


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_document(content: dict[str, Any]) -> None:
    """Write one JSON document to standard output."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def table(attempts: Sequence[Attempt]) -> tuple[list[str], list[list[str]]]:
    """
    The properties of all runs in one table: its columns and its rows.

    A row begins with the rest-uid and the variables that were set; what a run did not measure is "".
    """
    variables = list(dict.fromkeys(name for attempt in attempts for name in attempt.variables))
    measured = list(dict.fromkeys(name for attempt in attempts for name in attempt.properties))
    rows: list[list[str]] = []
    for attempt in attempts:
        head = [attempt.name, *(str(attempt.variables.get(name, "")) for name in variables)]
        columns = [attempt.properties.get(name, []) for name in measured]
        rows += [[*head, *map(str, values)] for values in zip_longest(*columns, fillvalue="")]
    return ["rest-uid", *variables, *measured], rows


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """
    Write a table to standard output.

    A terminal gets it aligned; a pipe or file gets it whole, tab-separated, for other programs.
    """
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            typer.echo("\t".join(row))
        return
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        texts = [row[number] for row in rows]
        drawn.add_column(column, justify="right" if all(map(_is_number, texts)) else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console(highlight=False).print(drawn)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
