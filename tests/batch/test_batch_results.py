"""The results of a batch: files in folders, and properties in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Launch, UnknownOutput
from st4sd_async.local import LocalServer, Reply

from .batches import START, launch, launches, run_all

pytestmark = pytest.mark.anyio


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
