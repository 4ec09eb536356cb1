"""
What may differ between the embedded server and the recordings: one table, ``exceptions.tsv``.

Each row has the call, the field, the engines, and the reason why the difference cannot or must not be removed. An
exception that no longer differs fails the test. The reason "to be mended" marks rows that are no exceptions yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).parent / "exceptions.tsv"
BOTH = "both"
TO_BE_MENDED = "to be mended"


class ExceptedField(NamedTuple):
    """One row of the table."""

    call: str
    """The recorded call, ``01.38``."""
    field: str
    """The field of its reply."""
    engine: str
    """"simulator", "elaunch" or "both"."""
    reason: str
    """Why it differs."""


def load() -> list[ExceptedField]:
    """Return the rows of the table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [ExceptedField(*line.split("\t")) for line in lines if line]


def excepted_fields(engine: str) -> set[tuple[str, str]]:
    """Return call and field of the exceptions for an engine."""
    return {(row.call, row.field) for row in load() if row.engine in (engine, BOTH)}


def rewrite(engine: str, differing: Iterable[tuple[str, str]]) -> None:
    """Remove the rows of an engine that no longer differ, and add those that are missing, to be mended."""
    reasons = {(row.call, row.field): row.reason for row in load()}
    engines: dict[tuple[str, str], set[str]] = {}
    for row in load():
        both = {"simulator", "elaunch"} if row.engine == BOTH else {row.engine}
        engines[row.call, row.field] = both - {engine}
    for key in differing:
        engines.setdefault(key, set()).add(engine)
    rows = [
        ExceptedField(*key, BOTH if len(names) == 2 else min(names), reasons.get(key, TO_BE_MENDED))
        for key, names in sorted(engines.items(), key=lambda item: _order(item[0]))
        if names
    ]
    TABLE.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def _order(key: tuple[str, str]) -> tuple[int, int, str]:
    recording, _, call = key[0].partition(".")
    return int(recording), int(call), key[1]
