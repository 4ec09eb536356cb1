"""Reading a journal that another batch has open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from st4sd_async import JournalError
from st4sd_async._batch import schema
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.journal_file import read_snapshot, read_whole_snapshot
from st4sd_async._batch.state import LaunchRecord, State
from tests.tries import tries

from .journal_helpers import NOW, SERVER, SettableClock, change, open_journal, record

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_journal_can_be_read_while_it_is_open(tmp_path: Path) -> None:
    """Changes are visible at once. A launch that is being sent is shown as such, and the owner continues."""
    path = tmp_path / "a.db"
    journal = await open_journal(path)
    first, second = record("mol 0"), record("mol 1")
    await journal.add([first, second], {"digest": "{}"})

    before = (await read_snapshot(path)).records
    await change(journal, sent := second.to_sending(1, NOW + 1))
    after = (await read_snapshot(path)).records
    await change(journal, run := sent.to_started("demo-1", NOW + 2))
    await journal.close()

    assert before == [first, second]
    assert after == [first, sent]
    assert (await read_snapshot(path)).records == [first, run]
    assert [one.name async for one in anyio.Path(tmp_path).iterdir()] == ["a.db"]


async def test_a_snapshot_is_consistent_at_any_moment(tmp_path: Path) -> None:
    """While hundreds of pages are written and the log is checkpointed again and again."""
    path = tmp_path / "a.db"
    journal = await open_journal(path)
    launches = [record(f"mol {number}") for number in range(50)]
    await journal.add(launches, {"digest": "x" * 100_000})
    sent = [one.to_sending(1, NOW) for one in launches]
    await change(journal, *sent)
    launches = [one.to_unknown("lost", NOW) for one in sent]
    await change(journal, *launches)
    reads: list[list[LaunchRecord]] = []

    async with anyio.create_task_group() as tasks:

        async def read() -> None:
            while True:
                reads.append((await read_snapshot(path)).records)

        tasks.start_soon(read)
        for number in range(2, tries(42, 22)):
            launches = [one.with_candidates([str(number)]) for one in launches]
            await change(journal, *launches)
        tasks.cancel_scope.cancel()
    await journal.close()

    candidates = [{one.candidates for one in found} for found in reads]
    assert all(len(found) == 50 for found in reads)
    assert all(len(found) == 1 for found in candidates)  # a commit is there as a whole
    order = [int("".join(found.pop()) or "0") for found in candidates]
    assert order == sorted(order)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """So is a file that is not a journal."""
    newer, other = tmp_path / "newer.db", tmp_path / "other.db"
    await (await open_journal(newer)).close()
    with closing(sqlite3.connect(newer)) as database:
        database.execute("UPDATE journal SET value = '9' WHERE name = 'format'")
        database.commit()
    other.write_text("key,scale\n")

    with pytest.raises(JournalError, match="has format '9', which is newer than 2: update this package"):
        await read_snapshot(newer)
    with pytest.raises(JournalError, match=r"other\.db' is not an SQLite file: use another path"):
        await read_snapshot(other)


async def test_a_snapshot_includes_the_log(tmp_path: Path) -> None:
    """The log may have newer states than the main file."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record()], {"digest": "{}"})
    await change(journal, record().to_refused("BadRequest", "no", NOW))

    found = await read_snapshot(tmp_path / "a.db")
    await journal.close()

    assert [one.state for one in found.records] == [State.REFUSED]


async def test_a_whole_snapshot_has_all_that_a_report_shows(tmp_path: Path) -> None:
    """The deployment, the campaign, the state changes and a part of each payload that is not damaged."""
    path = tmp_path / "a.db"
    journal = Journal(path, SettableClock())
    await journal.open(SERVER, "water-2026")
    payloads = {schema.digest(content): content for content in ('{"platform": "x"}', "{}")}
    launches = [replace(record(f"mol {number}"), payload=digest) for number, digest in enumerate(payloads)]
    await journal.add(launches, {**payloads, "wrong": "{}"})
    await change(journal, sent := launches[0].to_sending(1, NOW + 1))

    found = await read_whole_snapshot(path, lambda payload: payload.get("platform"))
    await journal.close()
    await journal.open(SERVER)
    await journal.close()

    assert (found.server, found.campaign) == (SERVER, "water-2026")
    assert found.records == [sent, launches[1]]
    assert [(one.state, one.since) for one in found.history["mol 0"]] == [("planned", NOW), ("sending", NOW + 1)]
    assert found.payload_parts == dict(zip(payloads, ["x", None], strict=True))
    assert journal.campaign == "water-2026"
