"""Why launches of a batch failed: read for the first few, without holding up the others."""

from __future__ import annotations

import sqlite3
import time
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from st4sd_async import Client, Item, Launch, RunFailed
from st4sd_async._batch.item import item_summary
from st4sd_async._batch.reasons import REASON_GRACE
from st4sd_async._render.html import to_html
from st4sd_async._results.failure import MAX_EXPLAINED
from st4sd_async.local import Delay, LocalServer

from .batches import all_bytes, launch, run_all, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BOOM = "boom: this component always fails"
QUERY = "POST /ds-mongodb-proxy/documents/api/v1.0/query"


@pytest.fixture(autouse=True)
async def example(client: Client, server: LocalServer) -> None:
    """The example that fails."""
    await client.push(server.example("fail"))


def reason_in(item: Item) -> str:
    """Return the reason in the error of a launch; "" if it was not read."""
    assert isinstance(item.error, RunFailed)
    return next((reason.gist for reason in item.error.reasons.values()), "")


async def test_a_failed_launch_has_the_reason_in_its_error(client: Client) -> None:
    """As text, as attributes, on its card, and in the table of the batch."""
    async with client.batch() as batch:
        await batch.add([Launch("bad", "fail")])
        await run_all(batch)
        failure = await batch.failure("bad")
        (item,) = batch.failures()
        card = to_html(batch._card())

    gist = f"stage0.Boom: {BOOM} (return code 3, KnownIssue)"
    assert failure is not None
    assert failure.gist == reason_in(item) == gist
    assert gist in str(item.error)
    assert item_summary(item).reason == gist
    assert gist in card
    assert f"component failed: {gist}" in to_html(item._card())
    assert "about to fail" in to_html(item._card())


async def test_the_first_five_failures_are_explained(client: Client) -> None:
    """The others when they are asked for. Each reason is read once, and then in all items."""
    async with client.batch() as batch:
        await batch.add(Launch(f"bad {number}", "fail") for number in range(MAX_EXPLAINED + 2))
        await run_all(batch)
        await until(lambda: len([item for item in batch.failures() if reason_in(item)]) == MAX_EXPLAINED)
        unexplained = [item for item in batch.failures() if not reason_in(item)]
        failure = await batch.failure(unexplained[0].key)
        again = await batch.failure(unexplained[0].key)

    assert len(unexplained) == 2
    assert failure is again
    assert failure is not None
    assert BOOM in failure.gist
    assert [reason_in(item) for item in batch.failures()].count("") == 1


async def test_the_reason_of_another_launch_is_none(client: Client) -> None:
    """A launch that has not failed has no reason, and an unknown one is a mistake."""
    async with client.batch() as batch:
        await batch.add([launch()])

        assert await batch.failure("mol 0") is None
        with pytest.raises(ValueError, match="the batch has no launch 'mol 1'"):
            await batch.failure("mol 1")


async def test_a_silent_datastore_holds_nothing_up(client: Client, server: LocalServer) -> None:
    """A failed launch is yielded at once, the loop ends, and the block is left soon afterwards."""
    server.faults.add(QUERY, Delay(60), times=None)
    async with client.batch() as batch:
        await batch.add([Launch("bad", "fail")])
        items = await run_all(batch)
        began = time.monotonic()

    assert time.monotonic() - began < REASON_GRACE + 3
    assert reason_in(items["bad"]) == ""
    assert "Job: stage0.Boom. Returncode 1" in str(items["bad"].error)


async def test_a_late_reason_is_added_to_the_items(client: Client, server: LocalServer) -> None:
    """While the batch runs. A caller of `failure` waits for the read in progress."""
    server.outcome("demo", "stuck")
    server.faults.add(QUERY, Delay(0.3))
    async with client.batch() as batch:
        await batch.add([Launch("bad", "fail"), launch()])
        async with aclosing(batch.run()) as items:
            first = await anext(items)
            failure = await batch.failure("bad")
            later = batch.failures()[0]

    assert (first.key, reason_in(first)) == ("bad", "")
    assert failure is not None
    assert failure.gist == reason_in(later)
    assert BOOM in failure.gist
    assert sum(path.endswith(QUERY.partition(" ")[2]) for _, path in server.requests) == 1


async def test_the_journal_keeps_the_reason_in_short(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Another process has it without a request. A damaged reason is left out, and nothing else with it."""
    path = tmp_path / "campaign.db"
    async with client.batch(path) as batch:
        await batch.add([Launch("bad", "fail")])
        await run_all(batch)
        await batch.failure("bad")
    before = len(server.requests)

    async with client.batch(path) as batch:
        (item,) = batch.items
    with closing(sqlite3.connect(path)) as database, database:
        ((content,),) = database.execute("SELECT content FROM reason").fetchall()
        database.execute("UPDATE reason SET content = '[{\"reference\": 1}]'")
    async with client.batch(path) as batch:
        (damaged,) = batch.items

    assert reason_in(item) == f"stage0.Boom: {BOOM} (return code 3, KnownIssue)"
    assert reason_in(item) in str(item.error)
    assert "about to fail" not in content
    assert (damaged.state, reason_in(damaged)) == ("failed", "")
    assert len(server.requests) == before


@pytest.mark.parametrize("is_known", [True, False], ids=["given", "not given"])
async def test_credentials_of_a_launch_are_not_in_its_reason(
    client: Client, server: LocalServer, tmp_path: Path, is_known: bool
) -> None:
    """A program may print its environment. A process that was not given the credentials writes no reason."""
    server.outcome("demo", "component-failure", times=1)
    secret = launch(0, environmentVariables={"PASSWORD": "correct-horse-battery"})
    server.faults.add(QUERY, Delay(60), times=None)  # before the file is changed
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([secret])
        await run_all(batch)
        batch._reasons.stop(0)
    server.faults.clear()
    write_password(server, items := list(batch.items))

    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([secret] if is_known else [])
        reason = await batch.failure(items[0].key)

    assert reason is not None
    assert "PASSWORD=" in reason.components[0].stderr
    assert "correct-horse-battery" not in str(reason)
    with closing(sqlite3.connect(tmp_path / "campaign.db")) as database:
        written = database.execute("SELECT content FROM reason").fetchall()
    assert len(written) == is_known
    assert b"correct-horse-battery" not in all_bytes(tmp_path)


def write_password(server: LocalServer, items: list[Item]) -> None:
    """Let the failed component print it."""
    assert items[0].run is not None
    directory = server.directory(items[0].run.id)
    assert directory is not None
    Path(directory, "stages/stage0/Compute/out.stderr").write_text("PASSWORD=correct-horse-battery\n")
