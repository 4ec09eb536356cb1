"""The journal: what was written is on disk and in memory, whatever happens."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from st4sd_async import JournalCorrupt, JournalError, JournalLocked
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.schema import digest
from st4sd_async._batch.state import LaunchRecord, Proof, State
from st4sd_async._util import file_lock

from .journal_helpers import NOW, SERVER, SettableClock, change, open_journal, read_journal, record

pytestmark = pytest.mark.anyio

EMPTY = digest("{}")
PROCESS_DIED = "the process that sent it ended before the outcome was recorded"


def life() -> Iterator[LaunchRecord]:
    """Yield the records of a launch that goes through all states but the failures."""
    yield (sent := record().to_sending(1, NOW + 1))
    yield (unknown := sent.to_unknown("lost", NOW + 2))
    yield (unknown := unknown.with_candidates(["demo-1", "demo-2"]))
    yield (planned := unknown.to_planned(Proof.ABSENT, NOW + 3))
    yield (sent := planned.to_sending(1, NOW + 4))
    yield (started := sent.to_started("demo-3", NOW + 5))
    yield (succeeded := started.to_ended(State.SUCCEEDED, '{"experiment-state": "finished"}', NOW + 6))
    yield (again := succeeded.to_not_collected("DownloadError", "cut", NOW + 7))
    yield again.to_collected("{}", ["/results/\u00fc.csv"], NOW + 8)


async def test_everything_that_was_written_is_read_again(tmp_path: Path) -> None:
    """Launches in order, payloads, runs, listed instances and state changes."""
    first = await open_journal(tmp_path / "a.db")
    assert (first.opening, first.records, first.baseline) == (1, {}, None)
    await first.add([record("b"), record("a\n\u00fc"), record("mol")], {EMPTY: "{}"})
    for after in life():
        await change(first, after)
    await first.note_baseline(["demo-0"])
    await first.mark_deleted(["demo-3"])
    assert await first.payload(EMPTY) == {}
    await first.close()

    second = await read_journal(tmp_path / "a.db")

    assert list(second.records.values()) == [record("b"), record("a\n\u00fc"), [*life()][-1]]
    assert (second.opening, second.baseline, second.has_baseline) == (2, 1, False)
    assert (second.owners, second.deleted, second.seen) == ({"demo-3": "mol"}, {"demo-3"}, {"demo-0": 1})
    assert second.token_of(record()) == first.token_of(record())
    await second.read_history()
    changes = second.histories()["mol"]
    states = ["planned", "sending", "unknown", "planned", "sending", "started", "succeeded", "succeeded", "collected"]
    assert [change.state for change in changes] == states
    assert [change.since - NOW for change in changes] == [0, 1, 2, 3, 4, 5, 6, 7, 8]


class CountingLock:
    """Counts how often a worker thread has the journal."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        pass


async def test_payloads_that_are_requested_together_are_read_together(tmp_path: Path) -> None:
    """Those requested while the file is in use share the next read. A missing one fails alone, a cancelled one too."""
    contents = {digest(content := f'{{"platform": "{number}"}}'): content for number in range(64)}
    journal = await open_journal(tmp_path / "a.db")
    await journal.add_payloads(contents)
    journal._thread_lock = lock = CountingLock()  # type: ignore[assignment]  # only the journal uses it
    found: dict[str, str] = {}

    async def read(which: str) -> None:
        found[which] = (await journal.payload(which))["platform"]

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.payload(EMPTY)
        for which in contents:
            tasks.start_soon(read, which)
        await anyio.lowlevel.checkpoint()
        with pytest.raises(JournalCorrupt, match="lacks the payload"):
            await journal.payload(EMPTY)
    await journal.close()

    assert list(found.values()) == [str(number) for number in range(64)]
    assert lock.count <= 3 + 1  # and the close


async def test_a_launch_that_was_being_sent_is_in_doubt_from_the_opening_on(tmp_path: Path) -> None:
    """A later opening does not change since when."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record()], {})
    await change(journal, record().to_sending(1, NOW))
    await journal.close()

    second, third = await read_journal(tmp_path / "a.db", NOW + 100), await read_journal(tmp_path / "a.db", NOW + 500)

    found = second.records["mol"]
    assert (found.state, found.since, found.opening) == (State.UNKNOWN, NOW + 100, 1)
    assert second.records == third.records


def copy(path: Path, folder: Path, log_size: int | None = None) -> Path:
    """Copy the files as a crash would leave them now, with the log cut to a size."""
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if file.is_file():
            shutil.copy(file, folder)
    if log_size is not None:
        with (folder / f"{path.name}-wal").open("r+b") as log:
            log.truncate(log_size)
    return folder / path.name


async def test_a_crash_after_any_commit_loses_nothing(tmp_path: Path) -> None:
    """When `replace` returns, the change is on disk."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record()], {"digest": "{}"})

    for number, after in enumerate(life()):
        await change(journal, after)
        copied = await anyio.to_thread.run_sync(copy, tmp_path / "a.db", tmp_path / str(number))
        found = (await read_journal(copied, NOW + 50)).records
        expected = after.to_unknown(PROCESS_DIED, NOW + 50) if after.state is State.SENDING else after
        assert found == {"mol": expected}
    await journal.close()


@pytest.mark.slow
async def test_a_torn_write_was_never_written(tmp_path: Path) -> None:
    """If the log is cut anywhere, the journal has the state of some commit; a later cut never shows an older one."""
    journal = await open_journal(tmp_path / "a.db")
    records = [record(), *life()]
    await journal.add(records[:1], {"digest": "{}"})
    for after in records[1:]:
        await change(journal, after)
    size = (await anyio.Path(tmp_path / "a.db-wal").stat()).st_size

    whole = [one.to_unknown(PROCESS_DIED, NOW + 99) if one.state is State.SENDING else one for one in records]

    seen = -1
    for cut in range(32, size + 1, size // 40):
        copied = await anyio.to_thread.run_sync(copy, tmp_path / "a.db", tmp_path / str(cut), cut)
        found = list((await read_journal(copied, NOW + 99)).records.values())
        assert found or seen < 0
        seen = whole.index(found[0], max(seen, 0)) if found else -1
    await journal.close()
    assert seen > 3


async def test_concurrent_changes_share_commits(tmp_path: Path) -> None:
    """Each call returns when its own change is on disk; a hundred changes take a few commits and savepoints."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record(str(number)) for number in range(100)], {})
    statements: list[str] = []
    assert journal._database is not None
    journal._database.set_trace_callback(statements.append)

    await change(journal, *(one.to_sending(1, NOW) for one in journal.records.values()))
    await journal.close()

    assert 1 <= statements.count("COMMIT") <= 3
    assert statements.count("SAVEPOINT one") == statements.count("COMMIT")
    assert {one.state for one in (await read_journal(tmp_path / "a.db")).records.values()} == {State.UNKNOWN}


async def test_a_cancelled_write_is_written(tmp_path: Path) -> None:
    """Otherwise it would be unknown whether it was."""
    journal = await open_journal(tmp_path / "a.db")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.add([record()], {})
    await journal.close()

    assert (await read_journal(tmp_path / "a.db")).records == {"mol": record()}


@pytest.mark.slow
async def test_a_journal_in_memory_behaves_like_one_on_disk() -> None:
    """It is lost when it is closed."""
    journal = await open_journal(None)
    await journal.add([record()], {EMPTY: "{}"})

    assert await journal.payload(EMPTY) == {}
    assert (journal.opening, journal.is_on_disk) == (1, False)
    await journal.close()
    with pytest.raises(JournalError, match="a journal in memory is not open"):
        await change_one(journal, record().to_sending(1, NOW))


async def change_one(journal: Journal, after: LaunchRecord) -> None:
    await journal.replace(journal.records[after.key], after)


async def test_another_program_that_writes_to_a_journal_locks_it(tmp_path: Path) -> None:
    """Opening works again when that program is done."""
    await read_journal(tmp_path / "a.db")
    database = await anyio.to_thread.run_sync(lambda: sqlite3.connect(tmp_path / "a.db", check_same_thread=False))
    await anyio.to_thread.run_sync(lambda: database.execute("BEGIN IMMEDIATE"))
    with pytest.raises(JournalLocked):
        await read_journal(tmp_path / "a.db")
    await anyio.to_thread.run_sync(database.close)
    await read_journal(tmp_path / "a.db")


@pytest.mark.slow
async def test_a_journal_stays_locked_when_its_file_is_copied(tmp_path: Path) -> None:
    """POSIX locks of the same process would be lost then."""
    journal = await open_journal(tmp_path / "a.db")
    await anyio.to_thread.run_sync(copy, tmp_path / "a.db", tmp_path / "copy")
    code = (
        "import asyncio, sys; from st4sd_async._batch.journal import Journal; "
        "from st4sd_async._util.clock import SystemClock; "
        f"asyncio.run(Journal(sys.argv[1], SystemClock()).open({SERVER!r}))"
    )
    process = await anyio.run_process([sys.executable, "-c", code, str(tmp_path / "a.db")], check=False)
    await journal.close()

    assert b"JournalLocked" in process.stderr


async def test_a_journal_is_locked_before_anything_is_read(tmp_path: Path) -> None:
    """Of several that open it at the same moment, one succeeds."""
    journals = [Journal(tmp_path / "a.db", SettableClock()) for _ in range(5)]
    errors: list[JournalLocked] = []

    async def open_it(journal: Journal) -> None:
        try:
            await journal.open(SERVER)
        except JournalLocked as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for journal in journals:
            tasks.start_soon(open_it, journal)
    for journal in journals:
        await journal.close()

    assert len(errors) == 4


def damage(path: Path, where: str) -> None:
    """Damage the file of a journal."""
    data = bytearray(path.read_bytes())
    if where == "not a database":
        data[:] = b"hello, this is a text of some length" * 9
    elif where == "pages":
        data[4096:] = b"\x55" * (len(data) - 4096)
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["not a database", "pages", "half"])
async def test_a_damaged_journal_is_reported_and_left_as_it_is(tmp_path: Path, where: str) -> None:
    """The error says what to do."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record(str(number)) for number in range(300)], {})
    await journal.close()
    await anyio.to_thread.run_sync(damage, tmp_path / "a.db", where)
    before = await anyio.Path(tmp_path / "a.db").read_bytes()

    with pytest.raises(JournalCorrupt, match="restore a copy"):
        await read_journal(tmp_path / "a.db")

    assert await anyio.Path(tmp_path / "a.db").read_bytes() == before


@pytest.mark.parametrize(
    ("sql", "error", "message"),
    [
        ("UPDATE journal SET value = '9' WHERE name = 'format'", JournalError, "has format '9', which is newer than 2"),
        ("UPDATE journal SET value = '0' WHERE name = 'format'", JournalCorrupt, "damaged: it has the format '0'"),
        ("UPDATE journal SET value = 'x' WHERE name = 'token'", JournalCorrupt, "its token does not match"),
        ("UPDATE journal SET value = 'http://x' WHERE name = 'server'", JournalCorrupt, "a batch at http://x, not"),
        ("PRAGMA user_version = 1", JournalCorrupt, "its header has"),
        ("DROP TABLE journal", JournalCorrupt, "no such table: journal"),
        ("DROP TRIGGER item_moves; UPDATE item SET state = 'lost'", JournalCorrupt, "entry 'mol' cannot be read"),
        ("DROP TRIGGER item_moves; UPDATE item SET attempt = 2", JournalCorrupt, "its checksum does not match"),
    ],
)
async def test_inconsistent_contents_are_refused(
    tmp_path: Path, sql: str, error: type[Exception], message: str
) -> None:
    """The error says what is wrong."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record()], {})
    await journal.close()

    def execute() -> None:
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as database:
            database.executescript(sql)

    await anyio.to_thread.run_sync(execute)
    with pytest.raises(error, match=message):
        await read_journal(tmp_path / "a.db")


async def test_a_file_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    """For example because the folder does not exist."""
    with pytest.raises(JournalError, match="cannot be opened: No such file or directory"):
        await read_journal(tmp_path / "none" / "a.db")


async def test_a_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as on a system without `fcntl`. It is not reported as locked."""
    monkeypatch.setattr(file_lock, "fcntl", None)
    with pytest.raises(JournalError, match="cannot be locked: file locks are not supported here: use a") as caught:
        await read_journal(tmp_path / "a.db")
    assert not isinstance(caught.value, JournalLocked)


async def test_a_missing_payload_is_damage(tmp_path: Path) -> None:
    """Its launch cannot be sent."""
    journal = await open_journal(tmp_path / "a.db")
    with pytest.raises(JournalCorrupt, match="lacks the payload"):
        await journal.payload("digest")
    await journal.close()


async def test_runs_of_earlier_attempts_stay_owned(tmp_path: Path) -> None:
    """Each attempt adds a run."""
    journal = await open_journal(tmp_path / "a.db")
    await journal.add([record()], {})
    for uid in ("demo-1", "demo-2"):
        planned = journal.records["mol"]
        sent = planned.to_sending(1, NOW)
        started = sent.to_started(uid, NOW)
        failed = started.to_ended(State.FAILED, "{}", NOW)
        for _, after in pairwise([planned, sent, started, failed, failed.to_planned(Proof.ENDED, NOW)]):
            await change(journal, after)
    await journal.close()

    assert (await read_journal(tmp_path / "a.db")).owners == {"demo-1": "mol", "demo-2": "mol"}


# In memory.


@pytest.fixture
def hands() -> SettableClock:
    """A clock that tests set."""
    return SettableClock()


async def open_with(path: Path, clock: SettableClock) -> Journal:
    journal = Journal(path, clock)
    await journal.open(SERVER)
    return journal


async def put_in_doubt(journal: Journal) -> LaunchRecord:
    """Add a launch whose start has an unknown outcome since now."""
    now = journal.clock.wall()
    await journal.add([record()], {})
    await change(journal, record().to_sending(journal.opening, now))
    await change(journal, unknown := journal.records["mol"].to_unknown("lost", now))
    return unknown


async def test_the_age_of_a_doubt_is_measured_by_the_monotonic_clock(tmp_path: Path, hands: SettableClock) -> None:
    """Setting the wall clock does not change it."""
    journal = await open_with(tmp_path / "a.db", hands)
    unknown = await put_in_doubt(journal)
    began = hands.now()

    hands.time += 10.0
    hands.offset += 3600.0
    await change(journal, suspect := unknown.with_candidates(["demo-1"]))

    assert journal.in_doubt_since(suspect) == began
    assert journal.in_doubt() == [suspect]
    await change(journal, suspect.to_planned(Proof.ABSENT, hands.wall()))
    assert journal.in_doubt() == []
    await journal.close()


async def test_a_doubt_of_an_earlier_process_begins_with_this_process(tmp_path: Path, hands: SettableClock) -> None:
    """Both for a launch that was in doubt, and for one that was being sent."""
    journal = await open_with(tmp_path / "a.db", hands)
    await put_in_doubt(journal)
    await journal.add([other := record("other")], {})
    await change(journal, other.to_sending(1, hands.wall()))
    await journal.close()

    hands.time = 5.0
    hands.offset += 3600.0
    again = await open_with(tmp_path / "a.db", hands)
    hands.time += 1.0

    assert [again.in_doubt_since(one) for one in again.in_doubt()] == [5.0, 5.0]
    await again.close()


async def test_lists_must_show_what_earlier_lists_showed(tmp_path: Path, hands: SettableClock) -> None:
    """And what was started, but not what is known to be deleted. The next process expects the same."""
    journal = await open_with(tmp_path / "a.db", hands)
    await journal.note_baseline(["old-1", "old-2"])
    unknown = await put_in_doubt(journal)
    await change(journal, unknown.to_started("demo-1", hands.wall()))
    await journal.note_listed(["old-1", "demo-1", "later-1", "later-2"])
    assert set(journal.expected_instances()) == {"old-1", "old-2", "demo-1", "later-1", "later-2"}

    await journal.mark_deleted(["old-2", "later-1"])
    await journal.close()
    again = await open_with(tmp_path / "a.db", hands)

    assert set(again.expected_instances()) == {"old-1", "demo-1", "later-2"}
    assert again.deleted == {"old-2", "later-1"}
    await again.close()


async def test_lists_must_show_a_run_that_was_taken_back(tmp_path: Path, hands: SettableClock) -> None:
    """It exists without an owner, and may be the run of anything that was sent until now."""
    journal = await open_with(tmp_path / "a.db", hands)
    unknown = await put_in_doubt(journal)
    await change(journal, started := unknown.to_started("demo-1", hands.wall()))

    await change(journal, started.to_unknown_without_run("it belongs to another launch", hands.wall()))

    assert (journal.expected_instances(), journal.seen) == (["demo-1"], {"demo-1": 2})
    await journal.close()
    again = await open_with(tmp_path / "a.db", hands)
    assert (again.expected_instances(), again.seen) == (["demo-1"], {"demo-1": 2})
    await again.close()


async def test_an_instance_in_a_later_list_existed_before_the_next_process_sends(
    tmp_path: Path, hands: SettableClock
) -> None:
    """It may be the run of what was sent in this process. An instance in a list before the first send may not."""
    journal = await open_with(tmp_path / "a.db", hands)
    await journal.note_listed(["early"])
    await journal.note_baseline(["early", "first"])
    await journal.note_listed(["early", "first", "later"])
    await journal.close()
    again = await open_with(tmp_path / "a.db", hands)

    assert again.opening == 2
    assert again.seen == {"early": 1, "first": 1, "later": 2}
    await again.close()


async def test_a_doubt_from_the_future_begins_now(tmp_path: Path, hands: SettableClock) -> None:
    """The clock was wrong when it was written."""
    journal = await open_with(tmp_path / "a.db", hands)
    await put_in_doubt(journal)
    await journal.close()

    hands.offset -= 500_000.0
    again = await open_with(tmp_path / "a.db", hands)

    assert again.records["mol"].since == hands.wall()
    await again.close()


async def test_only_one_task_changes_a_launch(tmp_path: Path, hands: SettableClock) -> None:
    """A change that is based on an older record is refused."""
    journal = await open_with(tmp_path / "a.db", hands)
    unknown = await put_in_doubt(journal)
    errors: list[JournalError] = []

    async def plan() -> None:
        try:
            await journal.replace(unknown, unknown.to_planned(Proof.BY_HAND, 1.0))
        except JournalError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plan)
        tasks.start_soon(plan)
    await plan()

    assert len(errors) == 2
    assert "'mol' is no longer unknown" in str(errors[0])
    assert journal.is_stale(unknown)
    assert not journal.is_stale(journal.records["mol"])
    await journal.close()


async def test_a_change_that_cannot_be_written_is_not_in_memory(tmp_path: Path, hands: SettableClock) -> None:
    """Memory never has more than the disk."""
    journal = await open_with(tmp_path / "a.db", hands)
    await journal.add([planned := record()], {})
    await journal.close()

    with pytest.raises(JournalError, match="is not open"):
        await journal.replace(planned, planned.to_refused("BadRequest", "no", 1.0))

    assert journal.records["mol"] is planned
    assert (journal.counts[State.PLANNED], journal.counts[State.REFUSED]) == (1, 0)
