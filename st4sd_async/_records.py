"""How a journal is written down: its tables, for people to read, and launches as rows of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ._journal_errors import JournalCorrupt, JournalError
from ._moves import Proof, Row, State

FORMAT = "1"
"""Version of the tables below."""

TABLES = """
CREATE TABLE journal (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE payload (digest TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE item (
    key TEXT PRIMARY KEY, experiment TEXT NOT NULL, payload TEXT NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, opening INTEGER NOT NULL, since TEXT NOT NULL, rest_uid TEXT, status TEXT,
    error_class TEXT, error TEXT, candidates TEXT NOT NULL, files TEXT NOT NULL, request TEXT, proof TEXT
);
CREATE TABLE run (rest_uid TEXT PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, gone TEXT) WITHOUT ROWID;
CREATE TABLE seen (rest_uid TEXT PRIMARY KEY, opening INTEGER NOT NULL) WITHOUT ROWID;
"""
MOMENTS = """
CREATE TABLE IF NOT EXISTS moment (
    key TEXT, attempt INTEGER, state TEXT, since TEXT, PRIMARY KEY (key, attempt, state, since)
) WITHOUT ROWID
"""
"""A table that journals may lack, because it came later: when launches came into which state."""
COLUMNS = tuple(Row.__slots__)
"""Those of ``item``: a launch field by field."""
SAVE = (
    f"INSERT INTO item ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (key) DO UPDATE "
    f"SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS)}"
)
OWN = "INSERT INTO run VALUES (?, ?, ?, NULL) ON CONFLICT DO UPDATE SET key = excluded.key, attempt = excluded.attempt"
BURY = "UPDATE run SET gone = 'yes' WHERE rest_uid = ?"
SEE = "INSERT OR IGNORE INTO seen VALUES (?, ?)"
NOTE = "INSERT OR IGNORE INTO moment VALUES (?, ?, ?, ?)"
SET = "INSERT OR REPLACE INTO journal VALUES (?, ?)"
ELSEWHERE = (
    "give another path; but if it is the same service under a new address, tell the journal: "
    "sqlite3 FILE \"UPDATE journal SET value = '{}' WHERE name = 'server'\""
)
"""What to do with the journal of a batch at another server."""
KEEP = "INSERT OR IGNORE INTO payload VALUES (?, ?)"

Statement = tuple[str, Sequence[Any]]
"""SQL, and the values for its question marks."""


class Moment(NamedTuple):
    """When a launch came into a state."""

    attempt: int
    state: str
    """A state of launches, or ``running``: its run was seen to begin."""
    since: float
    """Seconds of the wall clock."""


@dataclass(frozen=True)
class Contents:
    """What a journal held when it was opened."""

    token: str
    """Random; what its runs carry is made of it."""
    opening: int
    """How often it was opened, this time included."""
    rows: list[Row]
    """All launches, in the order in which they were added."""
    owners: dict[str, str]
    """rest-uid -> key, of all runs that it ever started."""
    gone: set[str]
    """Those of them that were seen to be deleted."""
    seen: dict[str, int]
    """rest-uid -> the first opening in which it was there before anything was sent."""
    baseline: int | None
    """How many instances there were before the first send; None: nothing was sent yet."""
    moments: list[tuple[str, Moment]]
    """key and moment, of all that were noted."""


def check_format(name: str, facts: Mapping[str, str]) -> None:
    """Raise `JournalError` if a journal with these facts was written by another version of this package."""
    found = facts.get("format")
    if found != FORMAT:
        raise JournalError(f"{name} has format {found!r}, not {FORMAT!r}: update this package")


def saving(row: Row) -> list[Statement]:
    """What writes a launch; one that was started owns its run."""
    owning: list[Statement] = [(OWN, (row.rest_uid, row.key, row.attempt))] if row.state is State.STARTED else []
    return [*owning, (SAVE, written(row)), noting(row.key, Moment(row.attempt, row.state, row.since))]


def noting(key: str, moment: Moment) -> Statement:
    """What writes down when a launch came into a state."""
    return NOTE, (key, moment.attempt, str(moment.state), _written_time(moment.since))


def noted(values: Sequence[Any]) -> tuple[str, Moment]:
    """The key and the moment that were written so."""
    key, attempt, state, since = values
    return key, Moment(attempt, state, datetime.fromisoformat(since).timestamp())


def _written_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")


def written(row: Row) -> tuple[Any, ...]:
    """A launch as the table has it: moments as ISO texts, lists as JSON."""
    values = {name: getattr(row, name) for name in COLUMNS}
    values["since"] = _written_time(row.since)
    values["candidates"], values["files"] = json.dumps(row.candidates), json.dumps(row.files)
    return tuple(values.values())


def read(values: Sequence[Any]) -> Row:
    """The launch that the table has so; raises `JournalCorrupt` if it makes no sense."""
    try:
        row = dict(zip(COLUMNS, values, strict=True))
        row["state"], row["proof"] = State(row["state"]), None if row["proof"] is None else Proof(row["proof"])
        row["since"] = datetime.fromisoformat(row["since"]).timestamp()
        row["candidates"], row["files"] = tuple(json.loads(row["candidates"])), tuple(json.loads(row["files"]))
        return Row(**row)
    except (ValueError, TypeError) as error:
        problem = f"the journal has an entry {values[0]!r} that cannot be read: {error}"
    raise JournalCorrupt(problem)
