"""A look into a journal that another has open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from st4sd_async import JournalError
from st4sd_async._batch import state as _moves
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.journal_snapshot import glance
from st4sd_async._batch.state import Row, State

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.25


async def opened(path: Path) -> Journal:
    journal = Journal(path)
    await journal.open("https://st4sd.example/", NOW)
    return journal


def rows(count: int) -> list[Row]:
    return [Row(f"mol {number}", "demo", "digest", since=NOW) for number in range(count)]


async def test_a_journal_can_be_read_while_it_is_open(tmp_path: Path) -> None:
    """What was saved is there at once; what is being sent is no doubt, and the owner goes on."""
    path = tmp_path / "a.db"
    journal = await opened(path)
    first, second = rows(2)
    await journal.add([first, second], {"digest": "{}"})

    before = await glance(path)
    await journal.save((second, sent := _moves.sending(second, 1, NOW + 1)))
    after = await glance(path)
    await journal.save((sent, run := _moves.started(sent, "demo-1", NOW + 2)))
    await journal.close()

    assert before == [first, second]
    assert after == [first, sent]
    assert await glance(path) == [first, run]
    assert [one.name async for one in anyio.Path(tmp_path).iterdir()] == ["a.db"]


async def test_what_is_read_in_the_middle_of_anything_is_whole(tmp_path: Path) -> None:
    """While thousands of pages are written, and the log is moved into the journal again and again."""
    path = tmp_path / "a.db"
    journal = await opened(path)
    launches = rows(200)
    await journal.add(launches, {"digest": "x" * 100_000})
    sent = [_moves.sending(one, 1, NOW) for one in launches]
    await journal.save(*zip(launches, sent, strict=True))
    launches = [_moves.doubted(one, "lost", NOW) for one in sent]
    await journal.save(*zip(sent, launches, strict=True))
    reads: list[list[Row]] = []

    async with anyio.create_task_group() as tasks:

        async def read() -> None:
            while True:
                reads.append(await glance(path))

        tasks.start_soon(read)
        for number in range(2, 52):
            changed = [(one, _moves.suspected(one, [str(number)])) for one in launches]
            await journal.save(*changed)
            launches = [after for _, after in changed]
        tasks.cancel_scope.cancel()
    await journal.close()

    candidates = [{one.candidates for one in found} for found in reads]
    assert all(len(found) == 200 for found in reads)
    assert all(len(found) == 1 for found in candidates)  # a commit is there as a whole
    order = [int("".join(found.pop()) or "0") for found in candidates]
    assert order == sorted(order)


async def test_a_journal_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    """Nor is what is no journal."""
    newer, other = tmp_path / "newer.db", tmp_path / "other.db"
    await (await opened(newer)).close()
    with closing(sqlite3.connect(newer)) as database:
        database.execute("UPDATE journal SET value = '9' WHERE name = 'format'")
        database.commit()
    other.write_text("key,scale\n")

    with pytest.raises(JournalError, match="has format '9', which is newer than 2: update this package"):
        await glance(newer)
    with pytest.raises(JournalError, match=r"other\.db' cannot be read while it is open elsewhere: file is not"):
        await glance(other)


async def test_the_last_state_counts(tmp_path: Path) -> None:
    """Not that in the journal, while a newer one is in the log."""
    journal = await opened(tmp_path / "a.db")
    [row] = rows(1)
    await journal.add([row], {"digest": "{}"})
    await journal.save((row, _moves.refused(row, "BadRequest", "no", NOW)))

    found = await glance(tmp_path / "a.db")
    await journal.close()

    assert [one.state for one in found] == [State.REFUSED]
