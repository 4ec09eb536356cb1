"""Batches of scripts and of other processes: ``batch watch``, and other commands with a journal in place of a table."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from st4sd_async import Batch, Client, Launch
from st4sd_async.local import LocalServer

from .conftest import MOLECULES, Command, Shell, environment_of
from .terminal import CONTROL, Terminal

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]  # some processes import all of it anew, on a busy machine

FILES = [{"filename": "molecules.csv", "content": MOLECULES}]
BOOM = "stage0.Boom: boom: this component always fails (return code 3, KnownIssue)"


async def run_script(server: LocalServer, *launches: Launch) -> None:
    """Run a batch as a script does, and wait for the reasons of its failures."""
    async with Client(server.url, api_key=server.api_key) as client, client.batch("x.journal") as batch:
        await batch.add(launches)
        async for item in batch.run():
            await batch.failure(item.key)
        await batch.add([Launch("later", "demo", {"inputs": FILES})])


@pytest.fixture
def script(shell: Shell) -> Shell:
    """A folder with the journal of a script: launches that succeeded, failed and were not started."""
    asyncio.run(run_script(shell.server, Launch("good", "demo", {"inputs": FILES}), Launch("bad", "fail")))
    return shell


def test_the_journal_of_a_script_needs_no_table(script: Shell) -> None:
    """Its states, with the reasons of failures, its properties, and new attempts."""
    status, no_table = script("batch", "status", "x.journal"), script("batch", "status", "y.journal")
    measured = script("batch", "properties", "x.journal", "--name", "energy")
    corrected, retried = script("batch", "retry", "x.journal", "--corrected"), script("batch", "retry", "x.journal")

    assert [(row["key"], row["state"]) for row in status.table] == [
        ("good", "succeeded"),
        ("bad", "failed"),
        ("later", "planned"),
    ]
    assert status.table[1]["error"] == BOOM
    assert {row["energy"] for row in measured.table} == {"-3.0", "-4.5", ""}
    assert "there is no journal 'y.journal'" in no_table.err
    assert corrected.err == (
        "st4sd-async: --corrected takes the new values from a table; name it too: "
        "st4sd-async batch retry TABLE --corrected --journal x.journal\n"
    )
    assert retried.err == "1 new attempt planned; start them with the script that made the journal\n"


def test_a_journal_is_no_table(script: Shell) -> None:
    """The message says what to do with it, also if its table is there."""
    alone = script("batch", "run", "x.journal", "demo")
    Path("x").write_text("key\na\n")
    beside = script("batch", "run", "x.journal", "demo")

    begin = "st4sd-async: 'x.journal' is a journal, not a table; see it with: st4sd-async batch status x.journal; "
    assert (alone.status, alone.err) == (2, f"{begin}continue its batch with the script that made the journal\n")
    assert (beside.status, beside.err) == (
        2,
        f"{begin}continue its batch with the same 'st4sd-async batch run x ...' as before\n",
    )


def test_watch_says_if_no_process_runs_the_batch(script: Shell) -> None:
    """It shows the states, why runs failed, and what to do. A batch that is over needs nothing."""
    unfinished = script("batch", "watch", "x.journal")
    asyncio.run(run_script(script.server))
    over = script("batch", "watch", "x.journal")

    assert unfinished.status == over.status == 1
    assert [row["state"] for row in unfinished.table] == ["succeeded", "failed", "planned"]
    assert f"bad, {unfinished.table[1]['rest-uid']}: component failed\n" in unfinished.err
    assert unfinished.err.endswith(
        "\n1 planned, 1 succeeded, 1 failed; no process runs this batch; "
        "continue it with the script that made the journal\n"
    )
    assert over.err.endswith("\n2 succeeded, 1 failed; no process runs this batch\n")


@contextmanager
def opened(server: LocalServer) -> Iterator[tuple[BlockingPortal, Batch]]:
    """Have another process, as far as the command can tell, open the journal ``x.journal``."""
    client = Client(server.url, api_key=server.api_key)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(client),
        portal.wrap_async_context_manager(client.batch("x.journal")) as batch,
    ):
        yield portal, batch


async def run_all(batch: Batch) -> None:
    async for item in batch.run():
        await batch.failure(item.key)


def test_watch_follows_a_batch_in_a_terminal(command: Command, shell: Shell, deadline: float) -> None:
    """It shows what the journal has, sends nothing, and ends when the batch is left."""
    command.settings.update(environment_of(shell.server))
    with opened(shell.server) as (portal, batch):
        portal.call(batch.add, [Launch("good", "demo", {"inputs": FILES}), Launch("bad", "fail")])
        terminal = Terminal(command, "batch", "watch", str(Path("x.journal").absolute()))
        terminal.read_until("2 planned", deadline)
        portal.call(run_all, batch)
        terminal.read_until("1 failed", deadline)
    status = terminal.end(deadline)

    plain = CONTROL.sub("", terminal.shown)
    assert status == 1
    assert re.search(r"2 launches, \d:\d\d:\d\d: 1 succeeded, 1 failed", plain)
    assert re.search(rf"bad +failed +fail-\S+ +{re.escape(BOOM)[:30]}", plain)
    assert plain.replace("\r", "").rstrip().endswith("1 succeeded, 1 failed; the process that ran the batch has ended")
    assert not list(command.temporary.iterdir())


def test_watch_prints_json_lines(script: Shell) -> None:
    """A line for each launch that is over, with the reason of its failure."""
    done = script("batch", "watch", "x.journal", "--json")

    assert [(one["key"], one["state"], one["error"]) for one in done.lines] == [
        ("good", "succeeded", None),
        ("bad", "failed", BOOM),
    ]


def test_properties_are_read_while_another_process_runs_the_batch(script: Shell) -> None:
    """The same table. The other process is not affected."""
    before = script("batch", "properties", "x.journal")
    with opened(script.server):
        done = script("batch", "properties", "x.journal")
        elsewhere = script("batch", "properties", "x.journal", "--url", "http://127.0.0.1:1")

    assert (done.status, done.out) == (before.status, before.out)
    assert done.err == (f"'x.journal' is in use by another process: these are the states recorded so far\n{before.err}")
    assert elsewhere.status != 0
