"""What a batch writes to its journal, and what it must not write."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shlex
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Config, InvalidPayload, JournalError, JournalLocked, Launch, MissingCredentials
from st4sd_async.local import LocalServer, Reply

from .batches import START, all_bytes, launch, launches, once, run_all, started_numbers

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_journal_has_one_writer(client: Client, tmp_path: Path) -> None:
    """In this process and in others. It is free again afterwards."""
    path = tmp_path / "campaign.db"
    async with client.batch(path):
        with pytest.raises(JournalLocked, match=r"campaign\.db' is open elsewhere; close the other batch"):
            await client.batch(path).__aenter__()
    async with client.batch(path):
        pass


async def test_a_batch_whose_opening_is_cancelled_leaves_its_journal_free(client: Client, tmp_path: Path) -> None:
    """It can be opened again at once, whenever the opening was cancelled."""
    path = tmp_path / "campaign.db"
    for number in range(30):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(number / 4000), client.batch(path) as batch:
                await batch.add([launch(number)])
        async with client.batch(path):
            pass


async def test_a_journal_belongs_to_one_server(client: Client, tmp_path: Path) -> None:
    """The keys of one deployment have no meaning at another."""
    async with client.batch(tmp_path / "campaign.db"):
        pass
    other = Client("https://other.example")

    with pytest.raises(
        JournalError, match=r"belongs to a batch at http://127.0.0.1:[0-9]+/, not at https://other.example/"
    ) as caught:
        await other.batch(tmp_path / "campaign.db").__aenter__()

    program, file, sql = shlex.split(str(caught.value).partition("change it in the journal: ")[2])
    assert (program, file) == ("sqlite3", str(tmp_path / "campaign.db"))
    with contextlib.closing(sqlite3.connect(tmp_path / "campaign.db")) as database:
        database.execute(sql)
        database.commit()
    offline = Config(validate=False)
    async with Client("https://other.example", config=offline) as moved, moved.batch(tmp_path / "campaign.db"):
        pass


async def test_the_command_for_a_moved_server_can_be_pasted(client: Client, tmp_path: Path) -> None:
    """The path is quoted for a shell, and nothing is cut."""
    path = tmp_path / ("my campaign " * 15) / "molecules.db"
    path.parent.mkdir()
    async with client.batch(path):
        pass
    other = Client(f"https://{'a-long-name.' * 8}example")

    with pytest.raises(JournalError) as caught:
        await other.batch(path).__aenter__()

    command = shlex.split(str(caught.value).partition("change it in the journal: ")[2])
    assert command[:2] == ["sqlite3", str(path)]
    assert command[2] == f"UPDATE journal SET value = '{other.url}' WHERE name = 'server'"


async def test_a_known_key_with_another_payload_is_an_error_that_shows_the_difference(
    client: Client, tmp_path: Path
) -> None:
    """Whether it was added now or by an earlier process. File contents are not quoted."""
    changed = launch(0, variables={"scale": 3}, inputs=[{"filename": "molecules.csv", "content": "smiles\nCCO\n"}])
    message = r"variables.scale was absent and is 3"
    async with client.batch(tmp_path / "campaign.db") as batch:
        with pytest.raises(JournalError, match=message):
            await batch.add([launch(0), changed])
        await batch.add([launch(0)])
        with pytest.raises(JournalError, match="experiment was 'demo' and is 'demo:v2'"):
            await batch.add([dataclasses.replace(launch(0), experiment="demo:v2")])

    async with client.batch(tmp_path / "campaign.db") as batch:
        with pytest.raises(JournalError, match=message) as caught:
            await batch.add([changed])
    assert "inputs.0.content was a text of 10 characters and is a text of 11 characters" in str(caught.value)


async def test_the_error_about_an_invalid_payload_names_the_launch(client: Client) -> None:
    """So that it can be found among thousands."""
    async with client.batch() as batch:
        with pytest.raises(InvalidPayload) as caught:
            await batch.add([launch(1), launch(2, variables=3)])
        assert str(caught.value).startswith("the launch 'mol 2' was not added: variables: ")
        assert [where for where, _ in caught.value.problems] == ["variables"]
        with pytest.raises(InvalidPayload, match="this name is reserved for batches"):
            await batch.add([launch(3, metadata={"st4sd-async-key": "mine"})])
        with pytest.raises(TypeError, match="expected an iterable of Launch, not of str"):
            await batch.add(["mol"])  # type: ignore[list-item] # the mistake
        with pytest.raises(TypeError, match=r"iterable of Launch: use \[Launch\(key='mol 4'"):
            await batch.add(launch(4))  # type: ignore[arg-type] # the mistake
        assert await batch.add([launch(1)]) == 1


SECRETS = ("KEYID-vM2", "SECRET-x81", "PASSWORD-77q")


def secretive(number: int, password: str = SECRETS[2]) -> Launch:
    return launch(
        number,
        environmentVariables={"PASSWORD": password, "THREADS": 4},
        s3={"accessKeyID": SECRETS[0], "secretAccessKey": SECRETS[1], "bucket": "mine", "endpoint": "http://s3"},
    )


async def test_credentials_are_never_written(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Neither during the run, nor in errors, nor afterwards. Renewed credentials are not a change."""
    server.faults.add(
        START, Reply(400, {"Content-Type": "application/json"}, b'{"message": "no KEYID-vM2, PASSWORD-77q"}')
    )
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([secretive(0), secretive(1)])
        await run_all(batch)
        written = await anyio.to_thread.run_sync(all_bytes, tmp_path)
        assert await batch.add([secretive(0, "PASSWORD-new")]) == 0

    written += await anyio.to_thread.run_sync(all_bytes, tmp_path)
    assert b"mol 1" in written
    assert b"THREADS" in written
    assert not any(secret.encode() in written for secret in (*SECRETS, "PASSWORD-new"))


async def test_the_error_of_a_run_is_written_without_credentials(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """A program may print its environment when it fails."""
    message = f"stage0.Compute failed: PASSWORD={SECRETS[2]} THREADS=4"
    bad = {"experiment-state": "failed", "exit-status": "Failed", "error-description": message}
    server.outcome("demo", [(0.0, {}), (1.0, bad)])
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([secretive(0)])
        items = await run_all(batch)

    status = items["mol 0"].status
    assert status is not None
    assert status.error_description == "stage0.Compute failed: PASSWORD=[secret] THREADS=4"
    assert SECRETS[2].encode() not in await anyio.to_thread.run_sync(all_bytes, tmp_path)


async def test_a_launch_without_its_credentials_is_not_sent(client: Client, tmp_path: Path) -> None:
    """An earlier process had them. Adding the launch again brings them back."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([secretive(0), launch(1)])
    async with client.batch(tmp_path / "campaign.db") as batch:
        items = await run_all(batch)
        error = items["mol 0"].error
        assert isinstance(error, MissingCredentials)
        assert (error.key, "add the launch again" in str(error)) == ("mol 0", True)
        assert (items["mol 0"].state, items["mol 1"].state) == ("planned", "succeeded")
        await batch.add([secretive(0)])
        items = await run_all(batch)

        assert batch.failures() == []

    assert (items["mol 0"].state, items["mol 0"].error) == ("succeeded", None)
    assert await started_numbers(client) == once(2)


async def test_a_journal_can_be_read_by_people(client: Client, tmp_path: Path) -> None:
    """States are words, times are ISO texts, and the payload is stored as it is sent."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([launch()])
        run = (await run_all(batch))["mol 0"].run

    def read() -> Any:
        with contextlib.closing(sqlite3.connect(tmp_path / "campaign.db")) as database:
            return database.execute(
                "SELECT key, state, rest_uid, since, content FROM item JOIN payload ON payload.digest = item.payload"
            ).fetchall()

    ((key, state, rest_uid, since, content),) = await anyio.to_thread.run_sync(read)
    assert (key, state, rest_uid) == ("mol 0", "succeeded", str(run))
    assert since.endswith("+00:00")
    assert '"filename": "molecules.csv"' in content


async def test_a_journal_that_cannot_be_written_ends_run(client: Client, tmp_path: Path) -> None:
    """For example on a full disk. Nothing is sent that was not written first."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(3))
        database = batch._journal._database
        assert database is not None
        await anyio.to_thread.run_sync(database.execute, "PRAGMA query_only = ON")
        with pytest.raises(JournalError, match="cannot be used: attempt to write a readonly database"):
            await run_all(batch)
        assert batch.counts["planned"] == 3
        await anyio.to_thread.run_sync(database.execute, "PRAGMA query_only = OFF")
        await run_all(batch)

    assert await started_numbers(client) == once(3)
