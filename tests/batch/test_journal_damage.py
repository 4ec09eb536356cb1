"""Damage to the file of a journal is reported, or has no effect."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from st4sd_async import JournalCorrupt, JournalError
from st4sd_async._batch.journal_file import read_snapshot
from st4sd_async._batch.schema import digest
from st4sd_async._batch.state import LaunchRecord, State

from .journal_helpers import change, open_journal
from .journals import FORMAT_1

pytestmark = pytest.mark.anyio

SERVER, NOW = "http://127.0.0.1:38291/", 1_900_000_000.0
DAMAGES = 3000
PAGE = 4096
HEADER = 100
STATUS = '{"experiment-state": "finished", "exit-status": "Success"}'


def flip(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def flip_many(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randrange(2, 200)):
        flip(data, dice)


def overwrite_header(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(HEADER)
    data[start : start + dice.randrange(1, 20)] = dice.randbytes(dice.randrange(1, 20))


def flip_header(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(HEADER)] ^= 1 << dice.randrange(8)


def truncate(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(1, len(data)) :]


def truncate_pages(data: bytearray, dice: random.Random) -> None:
    del data[PAGE * dice.randrange(1, len(data) // PAGE) :]


def zero_page(data: bytearray, dice: random.Random) -> None:
    start = PAGE * dice.randrange(len(data) // PAGE)
    data[start : start + PAGE] = bytes(PAGE)


def scramble(data: bytearray, dice: random.Random) -> None:
    start, length = dice.randrange(len(data)), dice.randrange(1, 600)
    data[start : start + length] = dice.randbytes(length)


def swap_pages(data: bytearray, dice: random.Random) -> None:
    first, second = (PAGE * number for number in dice.sample(range(len(data) // PAGE), 2))
    data[first : first + PAGE], data[second : second + PAGE] = (
        data[second : second + PAGE],
        data[first : first + PAGE],
    )


KINDS: list[Callable[[bytearray, random.Random], None]] = [
    flip,
    flip,
    flip_many,
    flip_header,
    overwrite_header,
    truncate,
    truncate_pages,
    zero_page,
    scramble,
    swap_pages,
]


async def create_journal(path: Path) -> None:
    """Create a journal with launches in several states, payloads of several pages, and runs."""
    journal = await open_journal(path, NOW, SERVER)
    payloads = {digest(content): content for content in (f'{{"a": "{"x" * (number * 900)}"}}' for number in range(12))}
    rows = [LaunchRecord(f"mol {number}", "demo", one, since=NOW) for number, one in enumerate([*payloads] * 5)]
    await journal.add(rows, payloads)
    sent = [row.to_sending(1, NOW) for row in rows[:40]]
    await change(journal, *sent)
    runs = [row.to_started(f"demo-abcdef-{number:08}", NOW) for number, row in enumerate(sent[:30])]
    await change(journal, *runs)
    await change(journal, *(row.to_ended(State.SUCCEEDED, STATUS, NOW) for row in runs[:20]))
    await change(journal, *(row.to_unknown("lost", NOW) for row in sent[30:]))
    await journal.note_baseline([f"demo-fedcba-{number:08}" for number in range(20)])
    await journal.close()


async def read(path: Path) -> tuple[str, list[LaunchRecord], list[str]]:
    """Return everything that a batch relies on. Payloads are read as they are before sending."""
    journal = await open_journal(path, NOW, SERVER)
    try:
        records = list(journal.records.values())
        payloads = [await journal.payload(one.payload) for one in records]
        return journal.token_of(records[0]), records, payloads
    finally:
        await journal.close()


def damage_randomly(original: bytes, path: Path, seed: int) -> str:
    """Damage a journal at random from a seed, and return how."""
    dice, data = random.Random(seed), bytearray(original)
    kind = dice.choice(KINDS)
    kind(data, dice)
    for suffix in ("", "-wal", "-journal"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
    path.write_bytes(data)
    return "nothing" if data == original else kind.__name__


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [1, 2])
async def test_a_damaged_journal_is_reported_or_reads_as_before(tmp_path: Path, number: int) -> None:
    """In each of 3,000 random damages to format 2, and 1,000 to format 1."""
    pristine, path = tmp_path / "pristine.db", tmp_path / "campaign.db"
    if number == 1:
        await anyio.to_thread.run_sync(shutil.copyfile, FORMAT_1, pristine)
    else:
        await create_journal(pristine)
    original = await anyio.Path(pristine).read_bytes()
    expected = await read(pristine)
    outcomes = {"corrupt": 0, "as it was": 0}

    for seed in range(DAMAGES if number == 2 else DAMAGES // 3):
        how = await anyio.to_thread.run_sync(damage_randomly, original, path, seed)
        if seed % 5 == 0:
            with suppress(JournalError), anyio.fail_after(10):
                await read_snapshot(path)
        try:
            with anyio.fail_after(10):
                found = await read(path)
        except JournalCorrupt:
            outcomes["corrupt"] += 1
        else:
            outcomes["as it was"] += 1
            assert found == expected or number == 1, (seed, how)

    assert outcomes["corrupt"] > 10 * outcomes["as it was"] / 6, outcomes
