"""The table of a batch in parts, and as a folder of Parquet files."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pandas
import pyarrow
import pyarrow.dataset
import pytest
from pyarrow import parquet

from st4sd_async import (
    Client,
    Launch,
    NoProperties,
    Properties,
    SchemaMismatch,
    UnknownProperty,
)
from st4sd_async._batch import table_files, table_parts
from st4sd_async._batch.table_files import Part, gaps, parts_of
from st4sd_async._results.parquet import arrow_table, type_of
from st4sd_async.local import LocalServer

from .batches import launches, run_all

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TWO = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nC\nCO\n"}]}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two launches are read at a time."""
    monkeypatch.setattr(table_parts, "LAUNCHES_PER_READ", 2)
    monkeypatch.setattr(table_files, "LAUNCHES_PER_READ", 2)


def campaign() -> list[Launch]:
    """Return launches of which every other one has a variable, and one is refused."""
    some = [Launch(f"mol {n}", "demo", {**TWO, "variables": {"scale": n}} if n % 2 else TWO) for n in range(5)]
    return [*some, Launch("refused", "demo", {"metadata": {"by": "me"}})]


def read(folder: Path) -> pandas.DataFrame:
    """Return the table in a folder, as other programs read it."""
    return pyarrow.dataset.dataset(folder).to_table().to_pandas()


def names(folder: Path) -> list[str]:
    """Return the names of files, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def times(folder: Path) -> dict[str, int]:
    """Return when each file was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.usefixtures("small")
async def test_the_parts_of_a_batch_are_its_table(server: LocalServer, client: Client) -> None:
    """With the columns of all launches in each part, and a row for those without properties."""
    server.outcome("demo", "component-failure", times=1)
    async with client.batch() as batch:
        await batch.add(campaign())
        await run_all(batch)
        for item in batch.failures():
            await batch.failure(item.key)  # it is read meanwhile, and is in the table
        parts = [part async for part in batch.properties_in_parts(rows=4)]
        whole = (await batch.table()).dataframe()

    assert [len(part) for part in parts] == [4, 4, 2]
    assert [list(part.columns) for part in parts[:2]] == [list(whole.columns)] * 2
    joined = pandas.concat([part.astype(object) for part in parts], ignore_index=True)
    pandas.testing.assert_frame_equal(joined.fillna("-"), whole.astype(object).fillna("-"))
    assert "Missing inputs" in joined["why"].iloc[-1]


@pytest.mark.usefixtures("small", "server")
async def test_a_misspelt_property_is_an_error(client: Client, tmp_path: Path) -> None:
    """Of the table in parts, and of the files before one is written."""
    async with client.batch() as batch:
        await batch.add(launches(3))
        await run_all(batch)
        with pytest.raises(UnknownProperty, match="did you mean 'energy'"):
            [part async for part in batch.properties_in_parts(["enrgy"])]
        with pytest.raises(UnknownProperty, match="did you mean 'energy'"):
            await batch.write_properties(tmp_path, ["enrgy"])


@pytest.mark.usefixtures("small")
async def test_the_files_are_the_table(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """With fixed types, and null for what is missing."""
    server.outcome("demo", "component-failure", times=1)
    folder = tmp_path / "table"
    async with client.batch() as batch:
        await batch.add(campaign())
        await run_all(batch)
        for item in batch.failures():
            await batch.failure(item.key)  # it is read meanwhile, and is in the table
        paths = await batch.write_properties(folder, rows=3)
        table = await batch.table()

    assert [Path(path).name for path in paths] == [
        "launches-000000000-000000001.parquet",
        "launches-000000002-000000003.parquet",
        "launches-000000004-000000005.parquet",
    ]
    assert names(folder) == ["_common_metadata", *(Path(path).name for path in paths)]
    found = pyarrow.dataset.dataset(folder).to_table()
    assert found.column_names == list(table.columns)
    assert {str(found.schema.field(name).type) for name in ("key", "metadata:by", "input-id", "smiles")} == {"string"}
    assert {str(found.schema.field(name).type) for name in ("variable:scale", "duration", "energy")} == {"double"}
    assert str(found.schema.field("start").type) == "timestamp[ms, tz=UTC]"
    expected = [{name: _plain(value) for name, value in row.items()} for row in table]
    assert [{name: _plain(value) for name, value in row.items()} for row in found.to_pylist()] == expected


def _plain(value: Any) -> Any:
    return None if value != value else float(value) if isinstance(value, int) else value


@pytest.mark.usefixtures("small")
async def test_a_second_call_writes_what_is_missing_or_has_changed(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """A part with a launch that was not over is written again, and so is one whose launch was retried."""
    folder, journal = tmp_path / "table", tmp_path / "campaign.db"
    server.outcome("demo", "component-failure", times=1)
    async with client.batch(journal) as batch:
        await batch.add(launches(1))
        await run_all(batch)
        await batch.add(launches(5))
        await run_all(batch)
        first = await batch.write_properties(folder, rows=1)
    before = times(folder)
    (folder / ".0123456789abcdef.part").write_bytes(b"what a killed process left")
    await anyio.Path(first[1]).unlink()
    async with client.batch(journal) as batch:
        again = await batch.write_properties(folder, rows=1)
        after = times(folder)
        await batch.retry_failed()
        await batch.write_properties(folder)
        unfinished = times(folder)
        planned = read(folder).set_index("key").loc["mol 0"]
        await run_all(batch)
        await batch.write_properties(folder)
    final = times(folder)

    assert (again, len(first)) == (first, 3)
    assert [name for name in before if before[name] != after.get(name)] == [Path(first[1]).name]
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != unfinished[name]] == [Path(first[0]).name]
    assert (planned["state"], pandas.isna(planned["rest-uid"])) == ("planned", True)
    assert [name for name in after if unfinished[name] != final[name]] == [Path(first[0]).name]
    table = read(folder)
    assert list(table["key"]) == [f"mol {n}" for n in range(5)]
    assert set(table["state"]) == {"succeeded"}
    assert table["energy"].notna().all()


@pytest.mark.usefixtures("small")
async def test_launches_that_are_added_later_get_files_of_their_own(client: Client, tmp_path: Path) -> None:
    """The others stay."""
    folder = tmp_path / "table"
    async with client.batch() as batch:
        await batch.add(launches(3))
        await run_all(batch)
        await batch.write_properties(folder)
        before = times(folder)
        await batch.add(launches(6))
        await run_all(batch)
        paths = await batch.write_properties(folder)

    assert len(paths) == 2
    assert before.items() <= times(folder).items()
    assert list(read(folder)["key"]) == [f"mol {n}" for n in range(6)]


async def test_a_declared_schema_has_the_names_and_types(client: Client, tmp_path: Path) -> None:
    """No other property is requested, and no run is needed to find the columns."""
    schema = pyarrow.schema([("weight", pyarrow.float32()), ("Energy", pyarrow.float64()), ("state", pyarrow.string())])
    async with client.batch() as batch:
        await batch.add(launches(2))
        await batch.write_properties(tmp_path / "early", schema=schema)
        await run_all(batch)
        await batch.write_properties(tmp_path / "early")
        with pytest.raises(ValueError, match="another schema: write to another folder"):
            await batch.write_properties(
                tmp_path / "early", schema=pyarrow.schema([("weight", "int64"), ("energy", "float64")])
            )

    found = pyarrow.dataset.dataset(tmp_path / "early").to_table()
    assert found.column_names[-3:] == ["input-id", "weight", "energy"]
    assert str(found.schema.field("weight").type) == "float"
    assert found.column("energy").null_count == 0


async def test_the_columns_must_be_found_or_declared(client: Client, tmp_path: Path) -> None:
    """If no run has succeeded there are none; nothing is written."""
    async with client.batch() as batch:
        await batch.add(launches(1))
        for requested in (None, ["energy"]):
            with pytest.raises(NoProperties, match="declare them with schema: no run has succeeded"):
                await batch.write_properties(tmp_path / "table", requested)
        with pytest.raises(ValueError, match="names and schema cannot be combined"):
            await batch.write_properties(tmp_path / "table", ["a"], schema=pyarrow.schema([]))

    assert names(tmp_path / "table") == []


async def test_a_folder_has_one_table(client: Client, tmp_path: Path) -> None:
    """That of another batch, with other properties or with other files is refused."""
    folder = tmp_path / "table"
    async with client.batch() as batch, client.batch() as other:
        for each in (batch, other):
            await each.add(launches(1))
            await run_all(each)
        await batch.write_properties(folder, ["energy"])
        with pytest.raises(ValueError, match="the table of another batch: write to another folder"):
            await other.write_properties(folder)
        with pytest.raises(ValueError, match="a table with other properties"):
            await batch.write_properties(folder, ["weight"])
        await batch.write_properties(folder)
        (folder / "mine.txt").touch()
        with pytest.raises(ValueError, match=r"has 'mine.txt', which is not a part of this table"):
            await batch.write_properties(folder)


async def test_a_later_run_with_another_type_or_column_is_an_error(
    server: LocalServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the column and the run, and what was written stays."""
    monkeypatch.setattr(table_files, "SAMPLE_RUNS", 1)
    monkeypatch.setattr(table_parts, "LAUNCHES_PER_READ", 1)
    monkeypatch.setattr(table_files, "LAUNCHES_PER_READ", 1)
    spec = {"propertiesSpec": [{"name": "energy"}, {"name": "other"}]}
    async with client.batch() as batch:
        for name, table in (("one", "1.5"), ("two", "text"), ("three", "2\n")):
            header = "input-id;energy;other" if name == "three" else "input-id;energy"
            values = "a;2;3" if name == "three" else f"a;{table}"
            server.describe("toy", interface=spec, properties=f"{header}\n{values}\n")
            if name == "one":
                await push(client, "toy")
            await batch.add([Launch(name, "toy")])
            await run_all(batch)
            if name == "one":
                await batch.write_properties(tmp_path / "typed", rows=1)
                await batch.write_properties(tmp_path / "more", rows=1)
        runs = {item.key: str(item.run) for item in batch.items}
        with pytest.raises(
            SchemaMismatch, match="has the fixed type double, but is 'text'; write another table"
        ) as one:
            await batch.write_properties(tmp_path / "typed", rows=1)
        assert (one.value.column, one.value.rest_uid) == ("energy", runs["two"])
        assert len(names(tmp_path / "typed")) == 2
        schema = pyarrow.schema([("energy", pyarrow.string())])
        await batch.write_properties(tmp_path / "declared", schema=schema)
        assert list(read(tmp_path / "declared")["energy"]) == ["1.5", "text", "2"]
        await batch.add([Launch("four", "toy", {"metadata": {"new": "x"}})])
        with pytest.raises(SchemaMismatch, match="the column 'metadata:new' is not among the fixed columns"):
            await batch.write_properties(tmp_path / "declared")


async def push(client: Client, name: str) -> None:
    """Add a described experiment."""
    location = {"url": f"https://git.example/{name}.git", "tag": "1"}
    base = {"packages": [{"source": {"git": {"location": location}}}]}
    await client.push({"base": base, "metadata": {"package": {"name": name}}, "parameterisation": {}})


def test_a_column_more_is_an_error_that_names_the_run() -> None:
    """Nothing that a run measured is dropped without notice."""
    table = Properties(("rest-uid", "energy", "other"), (("a", 1.0, None), ("b", 2.0, 3)))

    with pytest.raises(SchemaMismatch, match="the column 'other' of run 'b' is not among the fixed columns"):
        arrow_table(table, pyarrow.schema([("rest-uid", "string"), ("energy", "float64")]))


@pytest.mark.parametrize(
    ("values", "type_"),
    [([1, 2.5], "double"), ([], "double"), ([True], "bool"), ([True, 1], "string"), (["a", 1], "string")],
)
def test_types_are_found_in_values(values: list[Any], type_: str) -> None:
    """Whole numbers are numbers."""
    assert str(type_of(map(type, values))) == type_


@pytest.mark.parametrize(("value", "type_"), [(True, "float64"), ("1", "float64"), (2**60 + 1, "float64"), (1, "bool")])
def test_no_value_changes_without_notice(value: Any, type_: str) -> None:
    """A truth value is no number, a text is none either, and no digit is lost."""
    with pytest.raises(SchemaMismatch):
        arrow_table(
            Properties(("rest-uid", "x"), (("a", value),)), pyarrow.schema([("rest-uid", "string"), ("x", type_)])
        )


def test_parts_and_gaps_are_found_in_names() -> None:
    """A gap is left by a file that was removed."""
    kept = [Part(0, 2), Part(4, 6)]

    assert parts_of([part.name for part in reversed(kept)], 7) == kept
    assert gaps(kept, 7) == [Part(2, 4), Part(6, 7)]
    for wrong in ("launches-000000001-000000004.parquet", "launches-000000006-000000007.parquet", "x.parquet"):
        with pytest.raises(ValueError, match="not a part of this table"):
            parts_of([*(part.name for part in kept), wrong], 7)


@pytest.mark.timeout(240)  # processes that import all of it anew, on a machine that may be busy
async def test_a_killed_writer_leaves_whole_files_and_is_resumed(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """Killed at each of its first writes, before and after the rename."""
    journal, folder = tmp_path / "campaign.db", tmp_path / "table"
    async with client.batch(journal) as batch:
        await batch.add(launches(6))
        await run_all(batch)
        whole = await batch.table()
    child = await anyio.run_process(
        [sys.executable, "-c", CHILD, server.url, server.api_key, str(journal), str(folder)], stderr=None
    )
    kept: set[str] = set()
    for replaces, line in enumerate(child.stdout.decode().splitlines()):
        signal_, *found = line.split()
        assert int(signal_) == signal.SIGKILL
        assert kept <= {*found}
        assert len(found) == replaces
        kept = {*found}
    assert len(kept) == 2
    assert all(parquet.read_table(folder / name).num_rows for name in kept)
    async with client.batch(journal) as batch:
        await batch.write_properties(folder, rows=1)

    assert list(read(folder)["key"]) == list(whole["key"])
    assert not [name for name in names(folder) if name.endswith(".part")]


CHILD = """
import asyncio, os, pathlib, signal, sys
from pyarrow import dataset, fs, parquet  # once for all writers, as are the imports of a client that opens
from st4sd_async import Client
from st4sd_async._batch import table_files, table_parts

url, key, journal, folder = sys.argv[1:]
table_parts.LAUNCHES_PER_READ = table_files.LAUNCHES_PER_READ = 2
count, replace = 0, pathlib.Path.replace

def replace_or_die(path, target):
    global count
    if count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    return replace(path, target)

pathlib.Path.replace = replace_or_die

async def work():
    async with Client(url, api_key=key) as client, client.batch(journal) as batch:
        await batch.write_properties(folder, rows=1)

async def open_and_close():
    async with Client(url, api_key=key):
        pass

asyncio.run(open_and_close())
for _ in range(3):
    if not (writer := os.fork()):
        asyncio.run(work())
        os._exit(0)
    status = os.waitpid(writer, 0)[1]
    names = [path.name for path in pathlib.Path(folder).glob("*.parquet")]
    print(os.WTERMSIG(status), *names, flush=True)
"""
"""Three writers, one after the other. Each writes one file, columns or a part, and dies before it names the second."""


async def test_pyarrow_is_named_if_it_is_missing(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the extra that has it."""
    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    async with client.batch() as batch:
        with pytest.raises(
            ImportError, match=r'write_properties\(\) needs pyarrow: pip install "st4sd_async\[arrow\]"'
        ):
            await batch.write_properties(tmp_path / "table")


async def test_a_url_must_not_contain_credentials(client: Client) -> None:
    """They would be in messages."""
    async with client.batch() as batch:
        with pytest.raises(ValueError, match="must not contain a user or password") as caught:
            await batch.write_properties("s3://key:secret@bucket/table")

    assert "secret" not in str(caught.value).replace("user or password", "")
