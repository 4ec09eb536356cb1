"""What a batch knows: nothing that is not on disk, and how old its doubts are."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from st4sd_async import JournalError
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.state import Proof, Row, State, disowned, doubted, planned, refused, sending, started, suspected
from st4sd_async._batch.store import Book

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


async def test_the_age_of_a_doubt_is_counted_by_the_monotonic_clock(tmp_path: Path, hands: TwoClocks) -> None:
    """A wall clock that is set makes it neither older nor younger."""
    book = await opened(tmp_path / "a.db", hands)
    doubt = await in_doubt(book)
    began = hands.now()

    hands.time += 10.0
    hands.set_by += 3600.0
    await book.put(doubt, suspect := suspected(doubt, ["demo-1"]))

    assert book.doubted_at(suspect) == began
    assert book.doubts() == [suspect]
    await book.put(suspect, planned(suspect, Proof.ABSENT, hands.wall()))
    assert book.doubts() == []
    await book.journal.close()


async def test_a_doubt_of_an_earlier_process_is_as_old_as_this_process(tmp_path: Path, hands: TwoClocks) -> None:
    """Be it in doubt already, or found being sent."""
    book = await opened(tmp_path / "a.db", hands)
    await in_doubt(book)
    other = Row("other", "demo", "0")
    await book.add([other], {})
    await book.put(other, sending(other, 1, hands.wall()))
    await book.journal.close()

    hands.time = 5.0
    hands.set_by += 3600.0
    again = await opened(tmp_path / "a.db", hands)
    hands.time += 1.0

    assert [again.doubted_at(doubt) for doubt in again.doubts()] == [5.0, 5.0]
    await again.journal.close()


async def test_lists_are_expected_to_show_what_any_list_showed(tmp_path: Path, hands: TwoClocks) -> None:
    """And what was started; but not what is known to be gone. The next process expects the same."""
    book = await opened(tmp_path / "a.db", hands)
    await book.see(["old-1", "old-2"])
    doubt = await in_doubt(book)
    await book.put(doubt, started(doubt, "demo-1", hands.wall()))
    await book.show(["old-1", "demo-1", "later-1", "later-2"])
    assert set(book.expected()) == {"old-1", "old-2", "demo-1", "later-1", "later-2"}

    await book.bury(["old-2", "later-1"])
    await book.journal.close()
    again = await opened(tmp_path / "a.db", hands)

    assert set(again.expected()) == {"old-1", "demo-1", "later-2"}
    assert again.known.gone == {"old-2", "later-1"}
    await again.journal.close()


async def test_lists_are_expected_to_show_a_run_that_was_taken_back(tmp_path: Path, hands: TwoClocks) -> None:
    """It is there, whoever owns it; and it may be the run of anything that was sent until now."""
    book = await opened(tmp_path / "a.db", hands)
    doubt = await in_doubt(book)
    await book.put(doubt, own := started(doubt, "demo-1", hands.wall()))

    await book.put(own, disowned(own, "it is another's", hands.wall()))

    assert (book.expected(), book.seen) == (["demo-1"], {"demo-1": 2})
    await book.journal.close()
    again = await opened(tmp_path / "a.db", hands)
    assert (again.expected(), again.seen) == (["demo-1"], {"demo-1": 2})
    await again.journal.close()


async def test_what_a_later_list_shows_was_there_before_what_the_next_process_sends(
    tmp_path: Path, hands: TwoClocks
) -> None:
    """But it may be the run of what was sent in this process; a list before anything was sent may not."""
    book = await opened(tmp_path / "a.db", hands)
    await book.show(["early"])
    await book.see(["early", "first"])
    await book.show(["early", "first", "later"])
    await book.journal.close()
    again = await opened(tmp_path / "a.db", hands)

    assert again.opening == 2
    assert again.seen == {"early": 1, "first": 1, "later": 2}
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
