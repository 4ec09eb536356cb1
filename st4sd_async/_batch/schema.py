"""The SQLite schema of a journal: its tables, the triggers that check transitions, and launches as rows."""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from typing import Any

from .._errors import JournalCorrupt, JournalError
from .._util.redact import raise_unchained
from .state import FAILURES, PROOFS, TRANSITIONS, LaunchRecord, Proof, State, StateChange

FORMAT = 2
"""Version of the tables below, which is also SQLite's ``user_version`` of the file."""
READABLE_FORMATS = (1, FORMAT)
"""Formats that can be read. A batch migrates an older one to the newest."""
APPLICATION_ID = 0x73743464
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
MOMENT_TABLE = """
CREATE TABLE IF NOT EXISTS moment (
    key TEXT, attempt INTEGER, state TEXT, since TEXT, PRIMARY KEY (key, attempt, state, since)
) WITHOUT ROWID
"""
"""The times at which launches entered their states. Added after the first release, so a journal may lack it."""
REASON_TABLE = "CREATE TABLE IF NOT EXISTS reason (rest_uid TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID"
"""Why runs failed, in short: see `reasons.to_json`. Added later, so a journal may lack it."""
MIGRATE_FORMAT_1 = (
    "ALTER TABLE item ADD COLUMN never_executed TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE item ADD COLUMN checksum INTEGER",
    "ALTER TABLE seen ADD COLUMN gone TEXT",
)
"""Migrates the tables of format 1 to format 2."""
LAUNCH_COLUMNS = tuple(LaunchRecord.__slots__)
"""Columns of ``item``: the fields of a launch. ``checksum`` comes last."""
NEW_IN_FORMAT_2 = {"never_executed": "'[]'", "checksum": "NULL"}
"""Columns that format 1 lacks -> what to select instead."""
INSERT_LAUNCH = (
    f"INSERT INTO item ({', '.join(LAUNCH_COLUMNS)}, checksum) VALUES ({', '.join('?' * len(LAUNCH_COLUMNS))}, ?)"
)
"""Fails if the key exists."""
UPDATE_LAUNCH = (
    f"UPDATE item SET {', '.join(f'{name} = ?' for name in LAUNCH_COLUMNS[1:])}, checksum = ? "
    "WHERE key = ? AND state = ? AND attempt = ?"
)
"""Changes a launch that is still in the expected state. It must change one row. The key stays: writing it again would
cost a change of its index."""
INSERT_RUN = "INSERT INTO run VALUES (?, ?, ?, NULL)"
"""Makes a launch the owner of a run. Fails if the run has an owner."""
DELETE_RUN = "DELETE FROM run WHERE rest_uid = ? AND key = ?"
INSERT_SEEN = "INSERT OR IGNORE INTO seen VALUES (?, ?, NULL)"
INSERT_SEEN_NOW = "INSERT OR IGNORE INTO seen SELECT ?, value + 1, NULL FROM journal WHERE name = 'opening'"
"""Notes an instance that exists, after something was sent in this opening: later lists must show it."""
MARK_DELETED = tuple(f"UPDATE {table} SET gone = 'yes' WHERE rest_uid = ?" for table in ("run", "seen"))
SELECT_MOMENTS = "SELECT key, attempt, state, since FROM moment ORDER BY since"
INSERT_MOMENT = "INSERT OR IGNORE INTO moment VALUES (?, ?, ?, ?)"
INSERT_REASON = "INSERT OR REPLACE INTO reason VALUES (?, ?)"
SET_FACT = "INSERT OR REPLACE INTO journal VALUES (?, ?)"
SELECT_PAYLOAD = "SELECT digest, content FROM payload WHERE digest = ?"
SELECT_REASONS = "SELECT rest_uid, content FROM reason"
INSERT_PAYLOAD = "INSERT OR IGNORE INTO payload VALUES (?, ?)"
CAMPAIGN_FACT = "campaign"
"""Name of the row of ``journal`` with the campaign name. It is missing if the batch has none."""
UNLISTED_FACT = "unlisted opening"
"""Name of the row of ``journal`` with `Journal.unlisted_opening`. It is missing if there was no such opening."""
OTHER_DEPLOYMENT_ADVICE = (
    "use another path; if it is the same service at a new address, change it in the journal: "
    "sqlite3 {} \"UPDATE journal SET value = '{}' WHERE name = 'server'\""
)
"""Advice if a journal belongs to another deployment."""

Statement = tuple[str, Sequence[Any]]
"""SQL and its parameters."""


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))


def _guard(name: str, when: str, condition: str = "") -> str:
    unless = f" WHEN ({condition}) IS NOT TRUE" if condition else ""
    return f"CREATE TRIGGER {name} BEFORE {when}{unless} BEGIN SELECT RAISE(ABORT, 'transition not permitted'); END"


_PERMITTED = _quoted(
    f"{before} {after}" for before, afters in TRANSITIONS.items() for after in afters if after is not State.PLANNED
)
_PROVEN = _quoted(
    f"{before} {proof}" for before, proofs in PROOFS.items() for proof in proofs if proof is not Proof.ENDED
)
_SAME_ATTEMPT = "NEW.attempt = OLD.attempt AND NEW.experiment = OLD.experiment AND NEW.payload = OLD.payload"
_OWNS_RUN = "EXISTS (SELECT 1 FROM run WHERE rest_uid = NEW.rest_uid AND key = NEW.key AND attempt = NEW.attempt)"
_TRANSITION = f"""NEW.key = OLD.key AND (
    OLD.state || ' ' || NEW.state IN ({_PERMITTED}) AND {_SAME_ATTEMPT} AND (NEW.state <> 'started' OR {_OWNS_RUN})
        AND (OLD.state <> 'started' OR NEW.state <> 'unknown' OR NEW.proof = '{Proof.NOT_ITS_RUN}')
    OR NEW.state = 'planned' AND OLD.state || ' ' || NEW.proof IN ({_PROVEN}) AND {_SAME_ATTEMPT}
    OR NEW.state = 'planned' AND NEW.proof = '{Proof.ENDED}' AND OLD.state IN ({_quoted(FAILURES)})
        AND NEW.attempt = OLD.attempt + 1 AND NEW.opening = 0
    OR NEW.state = 'planned' AND OLD.state = 'planned' AND OLD.opening = 0 AND NEW.opening = 0
        AND NEW.attempt = OLD.attempt)"""
TRIGGERS = {
    "item_is_new": _guard("item_is_new", "INSERT ON item", "NEW.state = 'planned' AND NEW.opening = 0"),
    "item_moves": _guard("item_moves", "UPDATE ON item", _TRANSITION),
    "item_stays": _guard("item_stays", "DELETE ON item"),
    "run_keeps_its_owner": _guard("run_keeps_its_owner", "UPDATE OF rest_uid, key, attempt ON run"),
}
"""name -> a trigger that permits only the transitions of `state`, whichever program writes."""


def parse_format(name: str, facts: Mapping[str, str]) -> int:
    """
    Return the format of a journal.

    Args:
        name: Name of the journal, for messages.
        facts: The rows of its table ``journal``.

    Raises:
        JournalError: A newer version of this package wrote it.
        JournalCorrupt: The format is not a known number.
    """
    found = str(facts.get("format"))
    number = int(found) if found.isascii() and found.isdigit() else 0
    if number > FORMAT:
        raise JournalError(f"{name} has format {found!r}, which is newer than {FORMAT}: update this package")
    if number not in READABLE_FORMATS:
        raise JournalCorrupt(f"{name} is damaged: it has the format {found!r}")
    return number


def digest(content: str) -> str:
    """Return the digest by which the journal refers to a payload."""
    return hashlib.sha256(content.encode()).hexdigest()


def parse_payload(name: str, digest_in_row: str, content: Any) -> dict[str, Any]:
    """Return a row of ``payload`` as a JSON object. Raises `JournalCorrupt` if the row is damaged."""
    if not isinstance(content, str) or digest(content) != digest_in_row:
        raise JournalCorrupt(f"{name} is damaged: the payload {digest_in_row!r} does not match its digest")
    with suppress(ValueError, RecursionError):
        payload = json.loads(content)
        if isinstance(payload, dict):
            return payload
    raise JournalCorrupt(f"{name} is damaged: the payload {digest_in_row!r} is not a JSON object")


def checksum(*values: str | int | None) -> int:
    """Return a checksum of texts and numbers, given as a JSON list. It detects damage that SQLite does not."""
    # As json.dumps, in half the time: this is most of what it takes to open a large journal.
    texts = [_quote(one) if type(one) is str else "null" if one is None else repr(one) for one in values]
    return zlib.crc32(f"[{', '.join(texts)}]".encode())


def select_launches(number: int) -> str:
    """Return the query for all launches of a journal of a format. Columns that it lacks are empty."""
    columns = [name if number >= FORMAT else NEW_IN_FORMAT_2.get(name, name) for name in (*LAUNCH_COLUMNS, "checksum")]
    return f"SELECT {', '.join(columns)} FROM item ORDER BY rowid"


def insert_launch(record: LaunchRecord) -> list[Statement]:
    """Return the statements that insert a launch."""
    return [(INSERT_LAUNCH, _with_checksum(record)), _insert_change(record)]


def update_launch(before: LaunchRecord, after: LaunchRecord) -> list[Statement]:
    """Return the statements of a transition. A started launch becomes the owner of its run."""
    ownership: list[Statement] = []
    if after.state is State.STARTED:
        ownership = [(INSERT_RUN, (after.rest_uid, after.key, after.attempt))]
    elif before.state is State.STARTED and after.rest_uid is None:
        ownership = [(DELETE_RUN, (before.rest_uid, before.key)), (INSERT_SEEN_NOW, (before.rest_uid,))]
    return [*ownership, update_row(before, after), _insert_change(after)]


def update_row(before: LaunchRecord, after: LaunchRecord) -> Statement:
    """Return the statement that replaces the row of a launch."""
    return UPDATE_LAUNCH, (*_with_checksum(after)[1:], before.key, str(before.state), before.attempt)


def _insert_change(record: LaunchRecord) -> Statement:
    return insert_change(record.key, StateChange(record.attempt, record.state, record.since))


def insert_change(key: str, change: StateChange) -> Statement:
    """Return the statement that notes when a launch entered a state."""
    return INSERT_MOMENT, (key, change.attempt, str(change.state), _to_iso(change.since))


def read_history(moments: Iterable[Sequence[Any]]) -> dict[str, list[StateChange]]:
    """Return key -> state changes, of rows of ``moment``."""
    history: dict[str, list[StateChange]] = {}
    for key, attempt, state, since in moments:
        change = StateChange(attempt, sys.intern(state), datetime.fromisoformat(since).timestamp())
        history.setdefault(key, []).append(change)
    return history


@lru_cache(maxsize=1)  # a launch and its state change have the same time
def _to_iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def to_row(record: LaunchRecord) -> tuple[Any, ...]:
    """Return a launch as its row, without the checksum: times as ISO texts, lists as JSON."""
    return (
        record.key,
        record.experiment,
        record.payload,
        str(record.state),
        record.attempt,
        record.opening,
        _to_iso(record.since),
        record.rest_uid,
        record.status,
        record.error_class,
        record.error,
        _to_json(record.candidates),
        _to_json(record.never_executed),
        _to_json(record.files),
        record.request,
        None if record.proof is None else str(record.proof),
    )


def _to_json(texts: Sequence[str]) -> str:
    return json.dumps(texts) if texts else "[]"


def _with_checksum(record: LaunchRecord) -> tuple[Any, ...]:
    values = to_row(record)
    return *values, checksum(*values)


def from_row(number: int, values: tuple[Any, ...]) -> LaunchRecord:
    """
    Return the launch of a row in a format. Identifiers that many launches have in common share their memory.

    Raises:
        JournalCorrupt: The row is invalid.
    """
    try:
        if number >= FORMAT and checksum(*values[:-1]) != values[-1]:
            raise ValueError("its checksum does not match")
        if (types := tuple(map(type, values))) not in _checked_types:
            for name, value in zip(LAUNCH_COLUMNS, values, strict=False):
                _check_type(name, value, *_TYPES.get(name, (str,)))
            _checked_types.add(types)
        key, experiment, payload, state, attempt, opening, since, rest_uid, status, error_class, error = values[:11]
        candidates, never_executed, files, request, proof, _ = values[11:]
        if status is not None:
            _check_type("status", json.loads(status), dict)
        return LaunchRecord(
            key,
            sys.intern(experiment),
            payload,
            _STATES.get(state) or State(state),
            attempt,
            opening,
            datetime.fromisoformat(since).timestamp(),
            rest_uid,
            status,
            error_class and sys.intern(error_class),
            error,
            () if candidates == "[]" else _to_texts("candidates", candidates),
            () if never_executed == "[]" else _to_texts("never_executed", never_executed),
            () if files == "[]" else _to_texts("files", files),
            request and sys.intern(request),
            None if proof is None else Proof(proof),
        )
    except (ValueError, TypeError, OverflowError, OSError, RecursionError) as error_of_row:
        raise_unchained(JournalCorrupt(f"the journal's entry {values[0]!r} cannot be read: {error_of_row}"))


_STATES = {str(state): state for state in State}
_OPTIONAL_TEXTS = ("rest_uid", "status", "error_class", "error", "request", "proof")
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_OPTIONAL_TEXTS, (str, type(None))),
    **dict.fromkeys(("attempt", "opening"), (int,)),
}
"""Column of ``item`` -> its types. All others are texts."""
_checked_types: set[tuple[type, ...]] = set()
"""Types of rows that were checked: few, because each column has at most two."""


def _to_texts(name: str, content: str) -> tuple[str, ...]:
    return tuple(_check_type(name, text, str) for text in json.loads(content))


def _check_type(name: str, value: Any, *types: type) -> Any:
    if not isinstance(value, types):
        raise TypeError(f"{name} is {value!r}")
    return value
