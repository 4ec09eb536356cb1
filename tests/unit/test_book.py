"""What a batch knows: nothing that is not on disk, and how old its doubts are."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from st4sd_async import JournalError
from st4sd_async._book import Book
from st4sd_async._journal import Journal
from st4sd_async._moves import Proof, Row, State, doubted, planned, refused, sending

pytestmark = pytest.mark.anyio

SERVER = "https://st4sd.example/"


class TwoClocks:
    """Time that is moved by hand, and a wall clock that can be set."""

    def __init__(self) -> None:
        self.time = 100.0
        self.set_by = 1_000_000.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await anyio.lowlevel.checkpoint()

    def wall(self) -> float:
        return self.set_by + self.time


@pytest.fixture
def hands() -> TwoClocks:
    return TwoClocks()


async def opened(path: Path, clock: TwoClocks) -> Book:
    book = Book(Journal(path), clock)
    await book.open(SERVER)
    return book


async def in_doubt(book: Book) -> Row:
    """A launch that came into doubt just now."""
    row = Row("mol", "demo", "0")
    await book.add([row], {})
    await book.put(row, sent := sending(row, book.opening, book.clock.wall()))
    await book.put(sent, doubt := doubted(sent, "lost", book.clock.wall()))
    return doubt


async def test_a_clock_that_is_set_does_not_end_a_settle_window(tmp_path: Path, hands: TwoClocks) -> None:
    """A jump of the wall clock is no time that a request could not have survived."""
    book = await opened(tmp_path / "a.db", hands)
    doubt = await in_doubt(book)

    hands.time += 10.0
    hands.set_by += 3600.0

    assert book.moment_for(doubt, hands.wall(), hands.now()) == doubt.since + 10.0
    hands.set_by -= 7200.0
    assert book.moment_for(doubt, hands.wall(), hands.now()) < doubt.since
    await book.journal.close()


async def test_time_between_two_processes_counts_for_a_doubt_that_was_noted(tmp_path: Path, hands: TwoClocks) -> None:
    """And for one that was found being sent it begins with the opening."""
    book = await opened(tmp_path / "a.db", hands)
    doubt = await in_doubt(book)
    other = Row("other", "demo", "0")
    await book.add([other], {})
    await book.put(other, sending(other, 1, hands.wall()))
    await book.journal.close()

    hands.time = 5.0
    hands.set_by += 3600.0
    again = await opened(tmp_path / "a.db", hands)
    hands.time += 1.0

    assert again.moment_for(again.rows["mol"], hands.wall(), hands.now()) - doubt.since > 3500.0
    found = again.rows["other"]
    assert again.moment_for(found, hands.wall() + 9999.0, hands.now()) == found.since + 1.0
    await again.journal.close()


async def test_a_doubt_from_the_future_begins_now(tmp_path: Path, hands: TwoClocks) -> None:
    """The clock was wrong when it was noted; nobody can wait for years."""
    book = await opened(tmp_path / "a.db", hands)
    await in_doubt(book)
    await book.journal.close()

    hands.set_by -= 500_000.0
    again = await opened(tmp_path / "a.db", hands)

    assert again.rows["mol"].since == hands.wall()
    await again.journal.close()


async def test_a_launch_is_moved_by_one_only(tmp_path: Path, hands: TwoClocks) -> None:
    """Whoever decided by what it was before comes too late."""
    book = await opened(tmp_path / "a.db", hands)
    doubt = await in_doubt(book)
    errors: list[JournalError] = []

    async def move() -> None:
        try:
            await book.put(doubt, planned(doubt, Proof.BY_HAND, 1.0))
        except JournalError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(move)
        tasks.start_soon(move)
    await move()

    assert len(errors) == 2
    assert "'mol' is not unknown any more" in str(errors[0])
    assert book.is_moving(doubt)
    assert not book.is_moving(book.rows["mol"])
    await book.journal.close()


async def test_what_cannot_be_written_did_not_happen(tmp_path: Path, hands: TwoClocks) -> None:
    """Memory is what is on disk."""
    book = await opened(tmp_path / "a.db", hands)
    row = Row("mol", "demo", "0")
    await book.add([row], {})
    await book.journal.close()

    with pytest.raises(JournalError, match="is not open"):
        await book.put(row, refused(row, "BadRequest", "no", 1.0))

    assert book.rows["mol"] is row
    assert (book.tally[State.PLANNED], book.tally[State.REFUSED]) == (1, 0)
