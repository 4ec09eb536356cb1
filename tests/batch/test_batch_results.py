"""The results of a batch: files in folders, and properties in a table."""

from __future__ import annotations

import copy
import json
import pickle
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Item, Launch, ProgressUpdate, Properties, UnknownOutput
from st4sd_async._batch.table import LaunchFacts, PayloadFacts, join
from st4sd_async.local import Delay, LocalServer, Reply
from tests.tries import tries

from .batches import START, connect, launch, launches, run_all, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_results_of_successful_runs_are_downloaded(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Into a folder for each key. A failed download is reported and repeated by the next run."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch(tmp_path / "campaign.db", max_running=None) as batch:
        await batch.add([launch(9)])
        await run_all(batch)
        await batch.add(launches(3))
        server.faults.add("GET /instances/*/outputs/Energies", Reply(400), times=1)
        first = await run_all(batch, outputs=["Energies"], to=tmp_path / "results")
        counts = batch.counts
        second = await run_all(batch, outputs=["Energies"], to=tmp_path / "results")
        assert await run_all(batch, outputs=["Energies"], to=tmp_path / "results") == {}
        assert batch.counts["collected"] == 3

    assert (counts["collected"], counts["succeeded"], counts["failed"]) == (2, 1, 1)
    (late,) = [item for item in first.values() if item.error]
    assert late.state == "succeeded"
    assert list(second) == [late.key]
    for item in [*second.values(), *(one for one in first.values() if not one.error)]:
        (path,) = item.files
        assert path == tmp_path / "results" / path.parts[-3] / "Energies" / "energies.csv"
        assert "smiles" in await anyio.Path(path).read_text()


async def test_downloads_have_the_limit_of_the_configuration_and_are_named_when_left(
    server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch that is left meanwhile says how many it has still to download. No run continues."""
    output = "GET /instances/*/outputs/*"
    server.faults.add(output, Delay(60), times=None)
    async with connect(server, downloads=6) as client:
        await client.push(server.example("demo"))
        async with client.batch(tmp_path / "campaign.db") as batch, anyio.create_task_group() as tasks:
            await batch.add(launches(8))
            tasks.start_soon(partial(run_all, batch, outputs=["Energies"]))
            await until(lambda: batch.counts["succeeded"] == 8 and server.traffic[output].requests == 6)
            tasks.cancel_scope.cancel()

    assert server.traffic[output].requests == 6
    (message,) = [record.getMessage() for record in caplog.records if "was left" in record.getMessage()]
    assert message.startswith("a batch was left with 8 to download in the journal")
    assert message.endswith(": run the same script again to resume")


async def test_a_batch_that_is_left_with_its_last_launch_says_nothing(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is left to do."""
    async with client.batch() as batch:
        await batch.add([launch()])
        async for _ in batch.run():
            break

    assert "was left" not in caplog.text


async def test_a_folder_has_the_name_of_its_key(client: Client, tmp_path: Path) -> None:
    """Unless another key differs only by case, or the key is not a valid name."""
    keys = ["C2H5OH", "c2h5oh", "CCO / water"]
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(Launch(key, "demo", launch().payload) for key in keys[:1])
        await batch.add(Launch(key, "demo", launch().payload) for key in keys[1:])
        items = await run_all(batch, outputs=["Energies"], to=tmp_path / "results")
    async with client.batch(tmp_path / "campaign.db") as batch:
        assert [item.files for item in batch.items] == [items[key].files for key in keys]

    names = [items[key].files[0].relative_to(tmp_path / "results").parts[0] for key in keys]
    assert names[0] == "C2H5OH"
    assert [name[:-12] for name in names[1:]] == ["c2h5oh~", "CCO-water~"]


async def test_a_link_in_place_of_the_folder_of_a_key_is_not_followed(client: Client, tmp_path: Path) -> None:
    """The folder for all keys may be a link. A link inside it is an error that says what to do."""
    results, disk, elsewhere = tmp_path / "results", tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    results.symlink_to(disk)
    (disk / "mol-0").symlink_to(elsewhere)
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(Launch(key, "demo", launch().payload) for key in ("mol-0", "mol-1"))
        items = await run_all(batch, outputs=["Energies"], to=results)
        (disk / "mol-0").unlink()
        (again,) = (await run_all(batch, outputs=["Energies"], to=results)).values()

    refused, good = items["mol-0"], items["mol-1"]
    assert "'mol-0' is in the target already, as a symbolic link" in str(refused.error)
    assert list(elsewhere.iterdir()) == []
    assert good.files == (results / "mol-1/Energies/energies.csv",)
    assert again.files == (results / "mol-0/Energies/energies.csv",)


async def test_files_of_another_batch_are_not_replaced(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """This is reported before anything is started. Other files in the folder do not matter."""
    results = tmp_path / "results"
    for name in ("first.db", "second.db"):
        async with client.batch(tmp_path / name) as batch:
            await batch.add([launch(0), launch(1)])
            if name == "first.db":
                await run_all(batch, outputs=["Energies"], to=results)
                continue
            with pytest.raises(ValueError, match="already has the files of another batch for 2 of the launches"):
                await run_all(batch, outputs=["Energies"], to=results)
            assert (batch.counts["planned"], server.traffic[START].requests) == (2, 2)
            await anyio.Path(tmp_path / "other" / "mol-0").mkdir(parents=True)
            await run_all(batch, outputs=["Energies"], to=tmp_path / "other")
            assert batch.counts["collected"] == 2


async def test_a_failed_request_keeps_earlier_downloads(client: Client, tmp_path: Path) -> None:
    """The launch stays collected, and the error is that of the new request."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add([launch(0)])
        (before,) = (await run_all(batch, outputs=["Energies"], to=tmp_path / "results")).values()
        (wrong,) = (await run_all(batch, outputs=["Energy"], to=tmp_path / "results")).values()
        counts = batch.counts
        assert await run_all(batch, outputs=["Energies"], to=tmp_path / "results") == {}

        (early,) = (await run_all(batch, outputs=["Energies"], to=tmp_path / "other")).values()

    assert early.error is None
    assert isinstance(wrong.error, UnknownOutput)
    assert (wrong.state, wrong.files, counts["collected"]) == ("collected", before.files, 1)
    assert batch.failures() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ["Energies"]}, r"to \(folder for the files\) is missing"),
        ({"to": "results"}, r"outputs \(names of key-outputs\) is missing"),
        ({"outputs": "Energies", "to": "."}, r"use \['Energies'\]"),
    ],
)
async def test_outputs_and_to_must_be_given_together(client: Client, options: Any, message: str) -> None:
    """And outputs must be a list."""
    async with client.batch() as batch:
        with pytest.raises(ValueError, match=message):
            await anext(batch.run(**options))


async def test_removed_files_are_downloaded_again(client: Client, tmp_path: Path) -> None:
    """Collected means that the files exist."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(3))
        items = await run_all(batch, outputs=["Energies"], to=tmp_path / "results")
        (gone,) = items["mol 1"].files
        await anyio.Path(gone).unlink()
        again = await run_all(batch, outputs=["Energies"], to=tmp_path / "results")

    assert list(again) == ["mol 1"]
    assert (again["mol 1"].error, again["mol 1"].files) == (None, (gone,))
    assert await anyio.Path(gone).exists()


async def test_properties_of_all_runs_are_in_one_table(server: LocalServer, client: Client) -> None:
    """Each row has its key. Runs without properties are listed as problems."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch() as batch:
        await batch.add(launches(3))
        items = await run_all(batch)
        found = await batch.properties(["energy"])

    good = {key for key, item in items.items() if not item.error}
    (bad,) = items.keys() - good
    assert found.columns == ("key", "rest-uid", "input-id", "energy")
    assert {(row[0], row[1]) for row in found.rows} == {(key, str(items[key].run)) for key in good}
    assert list(found.problems) == [str(items[bad].run)]


async def test_each_journal_has_a_results_folder_of_its_own(client: Client, tmp_path: Path) -> None:
    """Two campaigns with the same keys do not collide. A journal in memory needs a folder."""
    folders = []
    for name in ("first.db", "launches.csv.journal"):
        async with client.batch(tmp_path / name) as batch:
            await batch.add(launches(1))
            items = await run_all(batch, outputs=["Energies"])
        (path,) = items["mol 0"].files
        folders.append(path.relative_to(tmp_path).parts[0])
    async with client.batch() as batch:
        with pytest.raises(ValueError, match="a journal in memory has no folder of its own"):
            await run_all(batch, outputs=["Energies"])

    assert folders == ["first.db.results", "launches.csv.results"]


def facts(table: Properties, *names: str) -> dict[str, tuple[Any, ...]]:
    """Return key -> some cells of its first row."""
    found: dict[str, tuple[Any, ...]] = {}
    for row in table:
        found.setdefault(row["key"], tuple(row[name] for name in names))
    return found


async def test_the_table_has_every_launch_with_the_properties_of_its_run(server: LocalServer, client: Client) -> None:
    """A launch that measured nothing has one row, which says why; the others have a row for each measurement."""
    server.outcome("demo", "component-failure", times=1)
    two = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nC\nCO\n"}], "metadata": {"by": "me"}}
    async with client.batch() as batch:
        await batch.add([Launch("bad", "demo", two)])
        await run_all(batch)
        await batch.add([Launch("good", "demo", {**two, "variables": {"scale": 2}}), Launch("refused", "demo")])
        await run_all(batch)
        await batch.add([Launch("planned", "demo:latest", {**two, "platform": "default"})])
        found = await batch.table()

        assert found.columns[:5] == ("key", "experiment", "platform", "variable:scale", "metadata:by")
        assert found.columns[5:11] == ("inputs", "state", "rest-uid", "start", "duration", "why")
        assert [row["key"] for row in found] == ["bad", "good", "good", "refused", "planned"]
        assert facts(found, "state", "platform", "variable:scale", "metadata:by", "inputs") == {
            "bad": ("failed", None, None, "me", "molecules.csv"),
            "good": ("succeeded", None, 2, "me", "molecules.csv"),
            "refused": ("refused", None, None, None, None),
            "planned": ("planned", "default", None, "me", "molecules.csv"),
        }
        assert {row["input-id"]: row["energy"] for row in found if row["key"] == "good"} == {"C": -3.0, "CO": -6.0}
        assert all(row["energy"] is None for row in found if row["key"] != "good")
        why = facts(found, "why")
        assert "Missing inputs" in why["refused"][0]
        assert "Compute" in why["bad"][0]
        assert (why["good"], why["planned"]) == ((None,), (None,))
        runs = {item.key: item.run and item.run.id for item in batch.items}
        assert {key: run for key, (run,) in facts(found, "rest-uid").items()} == runs
        (start, duration) = facts(found, "start", "duration")["good"]
        assert start.tzinfo is UTC
        assert 0 < duration < 300
        assert facts(found, "start", "duration")["refused"] == (None, None)
        assert list(found.problems) == [runs["bad"]]


async def test_the_table_of_a_resumed_batch_is_the_same(client: Client, tmp_path: Path) -> None:
    """Everything but the properties comes from the journal."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(3))
        await run_all(batch)
        before = await batch.table(["energy"])
    async with client.batch(tmp_path / "campaign.db") as batch:
        after = await batch.table(["energy"])

    assert after == before
    assert after.columns[-2:] == ("input-id", "energy")


async def test_a_failed_launch_that_was_retried_has_the_times_of_its_last_attempt(
    server: LocalServer, client: Client
) -> None:
    """The row is that of the newest run."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch() as batch:
        await batch.add(launches(1))
        await run_all(batch)
        first = facts(await batch.table(), "state", "rest-uid", "start")["mol 0"]
        await batch.retry_failed()
        planned = facts(await batch.table(), "state", "rest-uid", "start", "duration", "why")["mol 0"]
        await run_all(batch)
        second = facts(await batch.table(), "state", "rest-uid", "start")["mol 0"]

    assert (first[0], second[0]) == ("failed", "succeeded")
    assert planned == ("planned", None, None, None, None)
    assert first[1] != second[1]
    assert first[2] <= second[2]


async def test_a_property_with_the_name_of_a_column_is_prefixed() -> None:
    """The columns of a launch keep their names, whatever a run measured."""
    item = Item("a", "demo", "succeeded", 1, None, None, None, ())
    launch = LaunchFacts(item, PayloadFacts(values={"variable:energy": 1}), ())

    found = join([launch], Properties(("rest-uid", "state", "energy", "variable:energy"), ()))

    assert found.columns[-3:] == ("property:state", "energy", "property:variable:energy")
    assert found.column("variable:energy") == [1]
    assert found.column("property:state") == [None]


async def test_a_table_of_many_launches_is_made_in_linear_time(client: Client, tmp_path: Path) -> None:
    """Four times as many launches take about four times as many calls of functions."""
    calls: list[int] = []

    def count_call(*_: object) -> None:
        calls[-1] += 1

    for count in (150, 600):
        async with client.batch(tmp_path / f"{count}.db") as batch:
            await batch.add(launches(count))
            calls.append(0)
            sys.setprofile(count_call)
            try:
                table = await batch.table()
            finally:
                sys.setprofile(None)
            assert len(table) == count

    assert calls[1] < 5 * calls[0]


async def test_a_damaged_payload_leaves_its_cells_empty(client: Client, tmp_path: Path) -> None:
    """The rest of the table can be read."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(2))
    with closing(sqlite3.connect(tmp_path / "campaign.db")) as database, database:
        database.execute("UPDATE payload SET content = 'x' WHERE rowid = 1")
    async with client.batch(tmp_path / "campaign.db") as batch:
        found = await batch.table()

    assert facts(found, "inputs", "metadata:number") == {"mol 0": (None, None), "mol 1": ("molecules.csv", 1)}


def test_a_table_becomes_csv_and_json_lines() -> None:
    """Missing values are empty or null, and no spreadsheet computes a cell."""
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    table = Properties(("key", "=1", "start", "x"), (("a,b", "=1+1", when, -1.5), ("c\nd", None, None, nan)))

    assert table.to_csv() == "key,'=1,start,x\n" + """"a,b",'=1+1,2026-01-02 03:04:05+00:00,-1.5\n"c\nd",,,\n"""
    assert table.to_csv(formulas=True).startswith('key,=1,start,x\n"a,b",=1+1,')
    assert [json.loads(line) for line in table.to_json_lines().splitlines()] == [
        {"key": "a,b", "=1": "=1+1", "start": "2026-01-02T03:04:05+00:00", "x": -1.5},
        {"key": "c\nd", "=1": None, "start": None, "x": None},
    ]


async def test_collected_runs_are_deleted(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Once their files are on the disk, so that the service keeps few instances. Failed runs stay."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch(tmp_path / "campaign.db", max_running=2) as batch:
        await batch.add(launches(6))
        most = 0
        async for item in batch.run(outputs=["Energies"], delete="collected"):
            assert item.state == "failed" or all(map(Path.exists, item.files))
            most = max(most, len(await client.instances.list()))
        (failed,) = batch.items.in_state("failed")
        table = await batch.table()

    assert [instance.id for instance in await client.instances.list()] == [str(failed.run)]
    assert most <= 4  # two in progress, one that failed, one whose end is being recorded
    assert batch.counts["collected"] == 5
    assert len(table) >= 6


async def test_slow_downloads_hold_up_the_starts_of_a_batch_that_deletes(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """At most as many runs wait for their download as may be in progress."""
    server.faults.add("GET /instances/*/outputs/*", Delay(0.5), times=None)
    longest = 0

    async def count() -> None:
        nonlocal longest
        while True:
            longest = max(longest, len(await client.instances.list()))
            await anyio.sleep(0.02)

    async with client.batch(tmp_path / "campaign.db", max_running=4) as batch, anyio.create_task_group() as tasks:
        await batch.add(launches(tries(14, 10)))
        tasks.start_soon(count)
        await run_all(batch, outputs=["Energies"], delete="collected")
        tasks.cancel_scope.cancel()

    assert longest <= 8


async def test_a_run_whose_files_have_changed_is_not_deleted(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A later pass deletes what an earlier one collected. The run may be needed to repair a file that was cut."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(2))
        items = await run_all(batch, outputs=["Energies"])
        cut = items["mol 0"]
        cut.files[0].write_bytes(b"")
        await run_all(batch, outputs=["Energies"], delete="collected")
        assert [instance.id for instance in await client.instances.list()] == [str(cut.run)]
        assert f"{str(cut.run)!r} of 'mol 0' is kept, because its files have changed" in caplog.text

        cut.files[0].unlink()  # so that it is downloaded again
        await run_all(batch, outputs=["Energies"], delete="collected")

    assert await client.instances.list() == []
    assert cut.files[0].read_bytes()


async def test_progress_names_launches_by_key(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Not by the ids of their runs."""
    works: set[str] = set()

    def note(update: ProgressUpdate) -> None:
        works.add(update.work)

    async with client.with_options(progress=note).batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(2))
        await run_all(batch, outputs=["Energies"])

    assert {"key-outputs of mol 0", "key-outputs of mol 1"} <= works
    assert not any("demo-" in work for work in works)


async def test_a_run_that_could_not_be_deleted_is_deleted_by_the_next_pass(
    server: LocalServer, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in another process. Nothing is downloaded again, and a run that is gone already is no problem."""
    server.faults.add("DELETE /instances/*", Reply(400))
    server.faults.add("DELETE /instances/*", Reply(404))  # the page of a proxy
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(3))
        await run_all(batch, outputs=["Energies"], delete="collected")
    left = [instance.id for instance in await client.instances.list()]
    downloads = server.traffic["GET /instances/*/outputs/*"].requests

    async with client.batch(tmp_path / "campaign.db") as batch:
        await client.delete(left[0])
        await run_all(batch, outputs=["Energies"], delete="collected")

    assert len(left) == 2
    assert caplog.text.count("cannot be deleted") == 2
    assert await client.instances.list() == []
    assert server.traffic["GET /instances/*/outputs/*"].requests == downloads


async def test_deletion_needs_outputs(client: Client) -> None:
    """Without them nothing would be left of a run."""
    async with client.batch() as batch:
        with pytest.raises(ValueError, match="outputs"):
            await run_all(batch, delete="collected")
        with pytest.raises(ValueError, match="'collected' or None, not 'all'"):
            await run_all(batch, outputs=["Energies"], delete="all")


async def test_items_are_a_sequence_that_makes_items_when_asked(client: Client) -> None:
    """With a length, slices, and items by state and key. Pickled, it is a list."""
    async with client.batch() as batch:
        await batch.add(launches(3))
        items = batch.items

    assert len(items) == 3
    assert [item.key for item in items] == ["mol 0", "mol 1", "mol 2"]
    assert [item.key for item in items[1:]] == ["mol 1", "mol 2"]
    assert items[-1].key == "mol 2"
    assert items.by_key("mol 1") == items[1]
    assert items.in_state("planned") == list(items)
    assert not items.in_state("failed", "refused")
    assert repr(items) == "<3 launches: 3 planned>"
    assert pickle.loads(pickle.dumps(items)) == copy.deepcopy(items) == list(items)
    with pytest.raises(KeyError, match="mol 3"):
        items.by_key("mol 3")
    with pytest.raises(ValueError, match="'fail'"):
        items.in_state("fail")
