"""Damage to the file of a journal is reported, or has no effect."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, InvalidPayload, JournalCorrupt, JournalError
from st4sd_async._batch import schema
from st4sd_async._batch.journal_file import read_snapshot
from st4sd_async._batch.schema import digest
from st4sd_async._batch.state import LaunchRecord, State
from st4sd_async.local import DropAfter, LocalServer
from tests.tries import sample, tries

from .batches import START, launch, launches, run_all, until
from .journal_helpers import change, open_journal
from .journals import FORMAT_1

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SERVER, NOW = "http://127.0.0.1:38291/", 1_900_000_000.0
DAMAGES = tries(3000, 120)
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


async def read(path: Path) -> tuple[str, list[LaunchRecord], dict[str, dict[str, Any]]]:
    """Return everything that a batch relies on. Payloads are read as they are before sending."""
    journal = await open_journal(path, NOW, SERVER)
    try:
        records = list(journal.records.values())
        payloads = {payload: await journal.payload(payload) for payload in {one.payload: None for one in records}}
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
    """In each of many random damages to format 2, and to format 1."""
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


def replace_payload(path: Path, key: str, content: str | None) -> None:
    """Give a launch another payload, with all digests and checksums, as no damage of a disk can. None removes it."""
    with closing(sqlite3.connect(path)) as database, database:
        for name in schema.TRIGGERS:
            database.execute(f"DROP TRIGGER {name}")
        rows = database.execute(schema.select_launches(schema.FORMAT)).fetchall()
        (before,) = (record for record in (schema.from_row(schema.FORMAT, row) for row in rows) if record.key == key)
        after = replace(before, payload=digest(content or ""))
        database.execute(*schema.update_row(before, after))
        if content is not None:
            database.execute(schema.INSERT_PAYLOAD, (after.payload, content))


TAMPERED = {
    "absent": (None, JournalCorrupt, "lacks the payload"),
    "no JSON": ("{", JournalCorrupt, "is not a JSON object"),
    "no object": ("[]", JournalCorrupt, "is not a JSON object"),
    "nested too deeply": (
        '{"s3": ' + "[" * 2000 + "]" * 2000 + "}",
        JournalCorrupt,  # Python 3.11 does not parse it, later versions do
        "is not a JSON object|is nested too deeply",
    ),
    "no list of files": ('{"inputs": 3}', InvalidPayload, "inputs: must be a list of files"),
    "no file": ('{"inputs": [1]}', InvalidPayload, r"inputs\[0\]: must be a mapping"),
    "no text": (
        '{"inputs": [{"filename": "a", "content": 5}]}',
        InvalidPayload,
        r"inputs\[0\].content: must be a string",
    ),
    "no bucket": ('{"s3": "x"}', InvalidPayload, "s3: must be a mapping"),
    "no metadata": ('{"metadata": [1]}', InvalidPayload, "metadata: must be a mapping"),
}


@pytest.mark.parametrize(("content", "error", "problem"), sample(TAMPERED.values(), 3), ids=sample(TAMPERED, 3))
async def test_a_payload_that_was_tampered_with_refuses_only_its_launch(
    server: LocalServer, client: Client, tmp_path: Path, content: str | None, error: type[Exception], problem: str
) -> None:
    """The others are started. The next process finds it refused, and it can be corrected."""
    path = tmp_path / "campaign.db"
    async with client.batch(path) as batch:
        await batch.add(launches(3))
    await anyio.to_thread.run_sync(replace_payload, path, "mol 1", content)

    async with client.batch(path) as batch:
        items = await run_all(batch)
    async with client.batch(path) as batch:
        refused = {item.key: item for item in batch.items}["mol 1"]
        await batch.retry_failed(corrected=[launch(1)])
        again = await run_all(batch)

    assert {key: item.state for key, item in items.items()} == {
        "mol 0": "succeeded",
        "mol 1": "refused",
        "mol 2": "succeeded",
    }
    assert type(items["mol 1"].error) is error
    assert re.search(problem, str(items["mol 1"].error))
    assert str(path) in str(items["mol 1"].error)
    assert (refused.state, again["mol 1"].state) == ("refused", "succeeded")
    assert server.traffic[START].requests == 3


@pytest.mark.parametrize("content", [None, '["runtimePolicy"]'], ids=["absent", "no object"])
async def test_a_launch_in_doubt_with_a_damaged_payload_is_resolved(
    server: LocalServer, client: Client, tmp_path: Path, content: str | None
) -> None:
    """Its run is found by its token, and other launches are not affected."""
    path = tmp_path / "campaign.db"
    server.faults.add(START, DropAfter())
    async with client.batch(path, max_running=1) as batch:
        await batch.add(launches(1))
        with anyio.move_on_after(15) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run_all, batch)
                await until(lambda: batch.counts["unknown"] == 1)
                scope.cancel()
    await anyio.to_thread.run_sync(replace_payload, path, "mol 0", content)

    async with client.batch(path) as batch:
        await batch.add([launch(1)])
        items = await run_all(batch)

    assert {key: item.state for key, item in items.items()} == {"mol 0": "succeeded", "mol 1": "succeeded"}
    assert server.traffic[START].requests == 2
