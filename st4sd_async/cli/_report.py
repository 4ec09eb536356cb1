"""A campaign: rows of a board while it goes on; then a table for people and pipes, or one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from ..models import Experiment, Status
from ._board import Rank, Row
from ._campaign import Attempt
from ._watching import row as row_of_run
from ._words import told

DETAILS = ("rest-uid", "progress")
"""Columns of the board beside run and state."""


def row(attempt: Attempt) -> Row:
    """An attempt for a board."""
    known = row_of_run(attempt.label, attempt.status or Status.pending())
    told_of = replace(known, details=(attempt.rest_uid or "-", *known.details))
    return told_of if attempt.error is None else replace(told_of, state="error", rank=Rank.BAD, why=told(attempt.error))


def document(engine: str, experiment: Experiment, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """All that is known of a campaign, for JSON."""
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
        "properties": attempt.properties,
        "error": None if attempt.error is None else str(attempt.error),
    }


def _status(status: Status) -> dict[str, Any]:
    return {
        "experiment-state": status.experiment_state,
        "exit-status": status.exit_status,
        "total-progress": status.total_progress,
        "error-description": status.error_description,
    }


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
