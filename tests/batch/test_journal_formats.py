"""A journal of an earlier version is opened and keeps its meaning."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async._batch.journal_file import read_snapshot
from st4sd_async._batch.state import METADATA_KEY, Proof, State, token

from .journal_helpers import open_journal, read_journal
from .journals import FORMAT_1, FORMAT_2, copied

pytestmark = pytest.mark.anyio

SERVER = "http://127.0.0.1:38291/"
TOKEN = "9892a6377422649f756e6ca02ac849d5"
STATES = {
    "second attempt": State.COLLECTED,
    "planned, ended": State.PLANNED,
    "collected": State.COLLECTED,
    "sm\u00f8rg/\u00e5s succeeded\n2": State.SUCCEEDED,
    "failed": State.FAILED,
    "stopped": State.STOPPED,
    "refused": State.REFUSED,
    "refused too": State.REFUSED,
    "started": State.STARTED,
    "deleted": State.DELETED,
    "deleted unseen": State.DELETED,
    "planned, not sent": State.PLANNED,
    "unknown, candidates": State.UNKNOWN,
    "planned, by hand": State.PLANNED,
    "planned, absent": State.PLANNED,
    "unknown": State.UNKNOWN,
    "sending": State.SENDING,
    "planned": State.PLANNED,
    "planned, withheld": State.PLANNED,
}
PROOFS = {
    "planned, ended": Proof.ENDED,
    "planned, not sent": Proof.NOT_SENT,
    "planned, by hand": Proof.BY_HAND,
    "planned, absent": Proof.ABSENT,
}
OWNERS = {
    "broken-49a7f7-47osz30r": "failed",
    "broken-49a7f7-epw9fvzy": "planned, ended",
    "broken-49a7f7-g98q43zb": "second attempt",
    "broken-49a7f7-tpvxrrq0": "second attempt",
    "demo-49a7f7-361foqzq": "collected",
    "demo-49a7f7-3jeotw17": "sm\u00f8rg/\u00e5s succeeded\n2",
    "stopping-49a7f7-ib9lk33z": "stopped",
    "stuck-49a7f7-8yqit8kp": "deleted unseen",
    "stuck-49a7f7-dejjcksn": "started",
    "stuck-49a7f7-fgeoynn2": "deleted",
}
TOKENS = {
    "unknown": "2d5ef1dcb390d9491e6f28a30571043e446d3637",
    "sending": "fa285e5ca4d0e61939226bfa0fe494ea96bfce34",
    "second attempt": "39620df3b770807d989034c6b5a42c552e6f6ece",
    "sm\u00f8rg/\u00e5s succeeded\n2": "dd4aa8315bba91c1ce7d7646d3cceac63b3ee754",
}
"""What the runs of these launches carry in their metadata."""


async def test_a_journal_of_format_1_is_read_in_full(tmp_path: Path) -> None:
    """Launches with states and order, proofs, candidates, runs, and the instances that existed before."""
    journal = await read_journal(copied(FORMAT_1, tmp_path), server=SERVER)

    rows = journal.records
    assert {key: row.state for key, row in rows.items()} == {**STATES, "sending": State.UNKNOWN}
    assert list(rows) == list(STATES)
    assert {key: row.proof for key, row in rows.items() if row.proof} == PROOFS
    assert {key: row.attempt for key, row in rows.items() if row.attempt > 1} == {
        "second attempt": 2,
        "planned, ended": 2,
    }
    assert rows["unknown, candidates"].candidates == ("doubtful-49a7f7-1ycsd6aq",)
    assert "doubtful-49a7f7-1ycsd6aq" in journal.expected_instances()
    assert rows["collected"].files == ("/tmp/campaign/results/collected/Energies/energies.csv",)
    assert (journal.owners, journal.deleted) == (OWNERS, {"stuck-49a7f7-8yqit8kp", "stuck-49a7f7-fgeoynn2"})
    assert (journal.opening, journal.baseline) == (10, 2)
    assert {"stuck-49a7f7-re7054xl", "stuck-49a7f7-sb1ipls4"} < set(journal.seen)
    assert {key: journal.token_of(rows[key]) for key in TOKENS} == TOKENS


async def test_a_journal_of_format_1_can_be_read_while_it_is_open(tmp_path: Path) -> None:
    """Before and after a batch has opened it."""
    path = copied(FORMAT_1, tmp_path)
    before = await read_snapshot(path)
    journal = await open_journal(path, 0.0, SERVER)
    after = await read_snapshot(path)
    await journal.close()

    assert {row.key: row.state for row in before.records} == STATES
    assert {row.key: row.state for row in after.records} == {**STATES, "sending": State.UNKNOWN}


@pytest.mark.parametrize(("key", "attempt"), [("unknown", 1), ("second attempt", 2)])
def test_the_token_of_a_launch_never_changes(key: str, attempt: int) -> None:
    """Runs of earlier versions are recognised by it, so its name and derivation are fixed."""
    assert METADATA_KEY == "st4sd-async-key"
    assert token(TOKEN, key, attempt) == TOKENS[key]


def read_as_format_1(path: Path) -> tuple[str, list[Any]]:
    """Return the format and the launches as the version that wrote format 1 reads them."""
    with closing(sqlite3.connect(path)) as database:
        ((found,),) = database.execute("SELECT value FROM journal WHERE name = 'format'")
        columns = [column[1] for column in database.execute("PRAGMA table_info(item)")]
        return found, [columns, database.execute("SELECT * FROM item ORDER BY rowid").fetchall()]


def crashed_copy(path: Path, size: int, folder: Path) -> Path:
    """Copy the files as a crash leaves them when some bytes of the log are written."""
    folder.mkdir()
    shutil.copyfile(path, folder / path.name)
    log = path.with_name(f"{path.name}-wal").read_bytes()
    (folder / f"{path.name}-wal").write_bytes(log[:size])
    return folder / path.name


@pytest.mark.slow
async def test_a_journal_of_format_1_is_migrated_in_one_transaction(tmp_path: Path) -> None:
    """Wherever the process is killed, the file has one format or the other, with all launches."""
    path = await anyio.to_thread.run_sync(copied, FORMAT_1, tmp_path)
    before = await anyio.to_thread.run_sync(read_as_format_1, path)
    journal = await open_journal(path, 0.0, SERVER)
    size = (await anyio.Path(f"{path}-wal").stat()).st_size

    formats = []
    for cut in (*range(0, size, 4096 // 2), size):
        copy_to_read = await anyio.to_thread.run_sync(crashed_copy, path, cut, tmp_path / f"{cut} read")
        copy = await anyio.to_thread.run_sync(crashed_copy, path, cut, tmp_path / str(cut))
        found = await anyio.to_thread.run_sync(read_as_format_1, copy_to_read)
        formats.append(found[0])
        if found[0] == "1":
            assert found == before
        cut_off = await read_journal(copy, server=SERVER)
        assert {key: row.state for key, row in cut_off.records.items()} == {**STATES, "sending": State.UNKNOWN}
    await journal.close()

    assert formats == sorted(formats)
    assert set(formats) == {"1", "2"}


async def test_a_journal_is_migrated_once(tmp_path: Path) -> None:
    """Afterwards its header identifies it as a journal."""
    path = await anyio.to_thread.run_sync(copied, FORMAT_1, tmp_path)
    for _ in range(2):
        journal = await open_journal(path, server=SERVER)
        await journal.note_baseline(["demo-1"])
        await journal.note_baseline(["demo-2"])
        await journal.mark_deleted(["demo-1", "demo-3", "stuck-49a7f7-dejjcksn"])
        await journal.close()

    with closing(sqlite3.connect(path)) as database:
        marks = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")]
        seen = dict(database.execute("SELECT rest_uid, gone FROM seen WHERE rest_uid LIKE 'demo-%'").fetchall())
    assert marks == [2, 0x73743464]
    assert seen == {"demo-1": "yes", "demo-2": None}
    assert {"demo-1", "stuck-49a7f7-dejjcksn"} < journal.deleted
    assert "demo-3" not in journal.deleted
    assert (journal.seen["demo-1"], journal.seen["demo-2"]) == (10, 11)


async def test_a_journal_without_reasons_gets_a_place_for_them(tmp_path: Path) -> None:
    """It was written before reasons were kept, and has the launches that it had."""
    path = copied(FORMAT_2, tmp_path)
    states = {"mol 0": "succeeded", "bad": "failed", "refused": "refused", "mol 1": "planned"}

    before = await read_snapshot(path)
    journal = await open_journal(path, server="http://127.0.0.1:33919/")
    await journal.note_reason(rest_uid := str(journal.records["bad"].rest_uid), "[]")
    await journal.close()
    after = await read_snapshot(path)

    assert {one.key: str(one.state) for one in before.records} == states
    assert {one.key: str(one.state) for one in after.records} == states
    assert (before.reasons, after.reasons) == ({}, {rest_uid: "[]"})
