"""How a journal is written down: its tables, for people to read, and launches as rows of them."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .._errors import JournalCorrupt, JournalError
from .state import BAD_ENDS, MOVES, PROOFS, Proof, Row, State

FORMAT = 2
"""Version of the tables below, which is also SQLite's ``user_version`` of the file."""
FORMATS = (1, FORMAT)
"""Those that can be read; a batch brings an older one to the newest."""
APPLICATION = 0x73743464
"""SQLite's ``application_id`` of journals since format 2: "st4d"."""

TABLES = """
CREATE TABLE journal (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE payload (digest TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE item (
    key TEXT PRIMARY KEY, experiment TEXT NOT NULL, payload TEXT NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, opening INTEGER NOT NULL, since TEXT NOT NULL, rest_uid TEXT, status TEXT,
    error_class TEXT, error TEXT, candidates TEXT NOT NULL, never_executed TEXT NOT NULL DEFAULT '[]',
    files TEXT NOT NULL, request TEXT, proof TEXT, checksum INTEGER
);
CREATE TABLE run (rest_uid TEXT PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, gone TEXT) WITHOUT ROWID;
CREATE TABLE seen (rest_uid TEXT PRIMARY KEY, opening INTEGER NOT NULL, gone TEXT) WITHOUT ROWID;
"""
TABLE_NAMES = frozenset({"journal", "payload", "item", "run", "seen"})
MOMENTS = """
CREATE TABLE IF NOT EXISTS moment (
    key TEXT, attempt INTEGER, state TEXT, since TEXT, PRIMARY KEY (key, attempt, state, since)
) WITHOUT ROWID
"""
"""A table that journals may lack, because it came later: when launches came into which state."""
FROM_FORMAT_1 = (
    "ALTER TABLE item ADD COLUMN never_executed TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE item ADD COLUMN checksum INTEGER",
    "ALTER TABLE seen ADD COLUMN gone TEXT",
)
"""What brings the tables of format 1 to format 2."""
COLUMNS = tuple(Row.__slots__)
"""Those of ``item``: a launch field by field; ``checksum`` comes last."""
LATER = frozenset({"never_executed"})
"""Columns that format 1 lacks."""
INSERT = f"INSERT INTO item ({', '.join(COLUMNS)}, checksum) VALUES ({', '.join('?' * len(COLUMNS))}, ?)"
"""Writes a new launch; it fails if the key is there."""
UPDATE = (
    f"UPDATE item SET {', '.join(f'{name} = ?' for name in COLUMNS)}, checksum = ? "
    "WHERE key = ? AND state = ? AND attempt = ?"
)
"""Moves a launch that is still what it was; it must change one row."""
OWN = "INSERT INTO run VALUES (?, ?, ?, NULL)"
"""Gives a run its owner; it fails if the run has one."""
DISOWN = "DELETE FROM run WHERE rest_uid = ? AND key = ?"
EXPECT = "INSERT OR IGNORE INTO seen SELECT ?, value + 1, NULL FROM journal WHERE name = 'opening'"
"""Notes an instance that is there as one that lists must show."""
GONE = tuple(f"UPDATE {table} SET gone = 'yes' WHERE rest_uid = ?" for table in ("run", "seen"))
SEE = "INSERT OR IGNORE INTO seen VALUES (?, ?, NULL)"
NOTE = "INSERT OR IGNORE INTO moment VALUES (?, ?, ?, ?)"
SET = "INSERT OR REPLACE INTO journal VALUES (?, ?)"
KEEP = "INSERT OR IGNORE INTO payload VALUES (?, ?)"
ELSEWHERE = (
    "give another path; but if it is the same service under a new address, tell the journal: "
    "sqlite3 {} \"UPDATE journal SET value = '{}' WHERE name = 'server'\""
)
"""What to do with the journal of a batch at another server."""

Statement = tuple[str, Sequence[Any]]
"""SQL, and the values for its question marks."""


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))


def _refusing(name: str, when: str, condition: str = "") -> str:
    unless = f" WHEN ({condition}) IS NOT TRUE" if condition else ""
    return f"CREATE TRIGGER {name} BEFORE {when}{unless} BEGIN SELECT RAISE(ABORT, 'transition not permitted'); END"


_MOVES = _listed(f"{before} {after}" for before, some in MOVES.items() for after in some if after is not State.PLANNED)
_PROOFS = _listed(f"{before} {proof}" for before, some in PROOFS.items() for proof in some if proof is not Proof.ENDED)
_SAME = "NEW.attempt = OLD.attempt AND NEW.experiment = OLD.experiment AND NEW.payload = OLD.payload"
_OWNED = "EXISTS (SELECT 1 FROM run WHERE rest_uid = NEW.rest_uid AND key = NEW.key AND attempt = NEW.attempt)"
_MOVED = f"""NEW.key = OLD.key AND (
    OLD.state || ' ' || NEW.state IN ({_MOVES}) AND {_SAME} AND (NEW.state <> 'started' OR {_OWNED})
        AND (OLD.state <> 'started' OR NEW.state <> 'unknown' OR NEW.proof = '{Proof.NOT_ITS_RUN}')
    OR NEW.state = 'planned' AND OLD.state || ' ' || NEW.proof IN ({_PROOFS}) AND {_SAME}
    OR NEW.state = 'planned' AND NEW.proof = '{Proof.ENDED}' AND OLD.state IN ({_listed(BAD_ENDS)})
        AND NEW.attempt = OLD.attempt + 1 AND NEW.opening = 0
    OR NEW.state = 'planned' AND OLD.state = 'planned' AND OLD.opening = 0 AND NEW.opening = 0
        AND NEW.attempt = OLD.attempt)"""
TRIGGERS = {
    "item_is_new": _refusing("item_is_new", "INSERT ON item", "NEW.state = 'planned' AND NEW.opening = 0"),
    "item_moves": _refusing("item_moves", "UPDATE ON item", _MOVED),
    "item_stays": _refusing("item_stays", "DELETE ON item"),
    "run_keeps_its_owner": _refusing("run_keeps_its_owner", "UPDATE OF rest_uid, key, attempt ON run"),
}
"""name -> what lets nothing happen to launches and runs but the transitions of `_moves`, whoever writes."""


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
    """rest-uids of instances that were seen to be deleted: of its own, and of those that it has seen."""
    seen: dict[str, int]
    """rest-uid -> the first opening in which it was there before anything was sent."""
    baseline: int | None
    """How many instances there were before the first send; None: nothing was sent yet."""
    moments: list[tuple[str, Moment]]
    """key and moment, of all that were noted."""


def format_of(name: str, facts: Mapping[str, str]) -> int:
    """
    Return the format of a journal with these facts.

    Raises:
        JournalError: A newer version of this package wrote it.
        JournalCorrupt: There is no such format.
    """
    found = str(facts.get("format"))
    number = int(found) if found.isascii() and found.isdigit() else 0
    if number > FORMAT:
        raise JournalError(f"{name} has format {found!r}, which is newer than {FORMAT}: update this package")
    if number not in FORMATS:
        raise JournalCorrupt(f"{name} is damaged: it has the format {found!r}")
    return number


def digest(content: str) -> str:
    """Return what the journal calls a payload."""
    return hashlib.sha256(content.encode()).hexdigest()


def checksum(*values: Any) -> int:
    """Return a checksum of texts and numbers: damage shows, which SQLite does not look for."""
    return zlib.crc32(json.dumps(values).encode())


def columns_of(number: int) -> list[str]:
    """Return the columns of ``item`` in a format, but for the checksum."""
    return [name for name in COLUMNS if number >= FORMAT or name not in LATER]


def selecting(number: int) -> str:
    """Return the SQL that reads all launches from a journal of a format."""
    columns = [*columns_of(number), *(["checksum"] if number >= FORMAT else [])]
    return f"SELECT {', '.join(columns)} FROM item ORDER BY rowid"


def adding(row: Row) -> list[Statement]:
    """Return what writes a new launch."""
    return [(INSERT, _with_checksum(row)), _noting_state(row)]


def moving(was: Row, row: Row) -> list[Statement]:
    """Return what moves a launch; one that is started owns its run, and one whose run is taken back does not."""
    owning: list[Statement] = []
    if row.state is State.STARTED:
        owning = [(OWN, (row.rest_uid, row.key, row.attempt))]
    elif was.state is State.STARTED and row.rest_uid is None:
        owning = [(DISOWN, (was.rest_uid, was.key)), (EXPECT, (was.rest_uid,))]
    return [*owning, rewriting(was, row), _noting_state(row)]


def rewriting(was: Row, row: Row) -> Statement:
    """Return what writes a launch in place of what it was."""
    return UPDATE, (*_with_checksum(row), was.key, str(was.state), was.attempt)


def _noting_state(row: Row) -> Statement:
    return noting(row.key, Moment(row.attempt, row.state, row.since))


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
    values["state"], values["proof"] = str(row.state), None if row.proof is None else str(row.proof)
    values["since"] = _written_time(row.since)
    for name in _LISTS:
        values[name] = json.dumps(values[name])
    return tuple(values.values())


_LISTS = ("candidates", "never_executed", "files")


def _with_checksum(row: Row) -> tuple[Any, ...]:
    values = written(row)
    return *values, checksum(*values)


def read(number: int, values: Sequence[Any]) -> Row:
    """The launch that a table of a format has so; raises `JournalCorrupt` if it makes no sense."""
    columns = columns_of(number)
    try:
        if number >= FORMAT and checksum(*values[:-1]) != values[-1]:
            raise ValueError("its checksum is another")
        return _row(dict(zip(columns, values[: len(columns)], strict=True)))
    except (ValueError, TypeError, OverflowError, OSError, RecursionError) as error:
        problem = f"the journal has an entry {values[0]!r} that cannot be read: {error}"
    raise JournalCorrupt(problem)


def _row(row: dict[str, Any]) -> Row:
    for name in ("key", "experiment", "payload", "since"):
        _check(name, row[name], str)
    for name in ("rest_uid", "status", "error_class", "error", "request"):
        _check(name, row[name], str, type(None))
    for name in ("attempt", "opening"):
        _check(name, row[name], int)
    row["state"], row["proof"] = State(row["state"]), None if row["proof"] is None else Proof(row["proof"])
    row["since"] = datetime.fromisoformat(row["since"]).timestamp()
    for name in _LISTS:
        row[name] = tuple(_check(name, one, str) for one in json.loads(row.get(name, "[]")))
    if row["status"] is not None:
        _check("status", json.loads(row["status"]), dict)
    return Row(**row)


def _check(name: str, value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is {value!r}")
    return value
