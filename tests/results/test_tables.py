"""Tables, texts and reports of runs through sockets, and what files are tables."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import (
    Client,
    ComponentDocument,
    Config,
    DecodeError,
    DownloadError,
    NotFound,
    RetryPolicy,
    Run,
    ServerError,
    Table,
    UnknownRun,
)
from st4sd_async._util.csv_reader import AS_TEXT, read_table
from st4sd_async.local import Delay, Html, LocalServer
from tests.conftest import ServersClock
from tests.results.demo_runs import FILES, INPUTS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(server: LocalServer, clock: ServersClock, pushed: set[str]) -> AsyncIterator[Client]:
    """A client whose pauses take no time, and which repeats nothing."""
    config = Config(clock=clock, retry=RetryPolicy(attempts=1))
    async with Client(server.url, api_key=server.api_key, config=config) as opened:
        for name in {"demo", "fail"} - pushed:
            await opened.push(server.example(name))
            pushed.add(name)
        yield opened


@pytest.fixture
async def run(client: Client, server: LocalServer) -> Run:
    """A run that is over."""
    started = await client.start("demo", {"inputs": INPUTS})
    await server.advance(100)
    await started.components()  # the server creates the files on the first request
    return started


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the library makes its temporary directories."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_in(folder: Path) -> list[Path]:
    """What is in a folder."""
    return list(folder.iterdir())


async def on_disk(run: Run, path: str) -> Path:
    """Where the server has a file of a run."""
    return Path((await run.document()).instance.removeprefix("file://example-cluster"), path)


@pytest.mark.slow
async def test_tables_are_frames_with_their_documents(run: Run, client: Client, scratch: Path) -> None:
    """Filters choose among them; nothing is left behind."""
    found = await run.csv()
    (one,) = await run.csv("energies", component="^Compute$", stage=0)

    assert [table.path for table in found] == [
        "stages/stage0/Compute/energies.csv",
        "stages/stage0/Compute/molecules.csv",
    ]
    assert [table.document.reference for table in found] == ["stage0.Compute"] * 2
    assert isinstance(one, Table)
    assert isinstance(one.document, ComponentDocument)
    assert (one.problem, one.path) == (None, found[0].path)
    assert one.source == f"{one.document.instance}/{one.path}"
    assert one.dataframe()["smiles"].tolist() == ["CCO", "NAN", "CCCC"]
    assert one.dataframe()["energy"].tolist()[::2] == [-4.5, -6.0]
    assert math.isnan(one.dataframe()["energy"][1])
    assert one.dataframe() is one.dataframe()
    assert [table.path for table in await run.csv(component="stage0.Compute")] == [table.path for table in found]
    assert [table.source for table in await client.csv(f"{one.document.instance}/", "ENERGIES|energies")] == [
        one.source
    ]
    assert await run.csv("ghost") == []
    assert left_in(scratch) == []


async def test_one_bad_file_does_not_lose_the_others(run: Run, scratch: Path) -> None:
    """It is returned with a problem, which `dataframe` raises."""
    (await on_disk(run, "stages/stage0/Compute/energies.csv")).write_bytes(b"a,b\n1,2\n1,2,3\n")

    bad, good = await run.csv()

    assert isinstance(bad.problem, DecodeError)
    with pytest.raises(DecodeError, match=r"^got .*Expected 2 fields in line 3.*'a,b 1,2.*energies\.csv"):
        bad.dataframe()
    assert bad.path == "stages/stage0/Compute/energies.csv"
    assert good.dataframe()["smiles"].tolist() == ["CCO", "NAN", "CCCC"]
    assert left_in(scratch) == []


async def test_a_file_that_cannot_be_fetched_is_reported(run: Run, server: LocalServer) -> None:
    """It has the error of its download; where there would be only texts, that is raised."""
    (await on_disk(run, "stages/stage0/Compute/back\\slash.csv")).write_bytes(b"a\n1\n")

    bad, *good = await run.csv()
    server.faults.add(FILES, Html(502), times=2)
    lost = await run.csv("energies")

    assert (bad.path, len(good)) == ("stages/stage0/Compute/back\\slash.csv", 2)
    assert isinstance(bad.problem, DownloadError)
    with pytest.raises(DownloadError, match="cannot have that name here"):
        bad.dataframe()
    assert [type(table.problem) for table in lost] == [ServerError]
    with pytest.raises(ServerError):
        await run.stdout("Compute")


async def test_tables_need_pandas(run: Run, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, nothing is asked for."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    before = len(server.requests)

    with pytest.raises(ImportError, match=r"csv\(\) needs pandas"):
        await run.csv()

    assert len(server.requests) == before


async def test_a_cancelled_call_leaves_nothing(run: Run, server: LocalServer, scratch: Path) -> None:
    """The files that came are removed too."""
    server.faults.add(FILES, Delay(1))
    before = len(server.requests)
    reading = asyncio.create_task(run.csv())
    for _ in range(1000):
        await asyncio.sleep(0.01)
        if ("POST", "/ds-gateway/files/api/v1.1") in server.requests[before:]:
            break
    assert left_in(scratch) != []

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert left_in(scratch) == []


@pytest.mark.slow
async def test_components_are_heard(run: Run, client: Client, server: LocalServer) -> None:
    """By reference and in order; a file of that name deeper in a directory is no voice of its component."""
    (await on_disk(run, "stages/stage0/Compute/out.stdout")).write_bytes(b"caf\xc3\xa9 \xff\n")
    (await on_disk(run, "stages/stage1/Report/results/out.stdout")).write_bytes(b"deep\n")
    failed = await client.start("fail", {})
    await server.advance(100)

    assert await run.stdout(component="Compute") == {"stage0.Compute": "caf\u00e9 \ufffd\n"}
    assert [table.path for table in await run.csv("/out.stdout", stage=1)] == [
        "stages/stage1/Report/out.stdout",
        "stages/stage1/Report/results/out.stdout",
    ]
    assert {reference: text == "deep\n" for reference, text in (await run.stdout()).items()} == {
        "stage0.Compute": False,
        "stage1.Report": False,
    }
    assert list(await run.stdout(stage=1)) == list(await run.stdout("stage1.Report")) == ["stage1.Report"]
    assert list(await run.stdout("omp")) == list(await run.stdout("^(Compute|Nope)$")) == ["stage0.Compute"]
    assert await failed.stdout() == {"stage0.Boom": "about to fail\n"}
    assert list(await client.stdout((await run.document()).instance)) == ["stage0.Compute", "stage1.Report"]


async def test_the_log_is_text(run: Run) -> None:
    """What is not UTF-8 in it is replaced."""
    path = await on_disk(run, "output/experiment.log")
    path.write_bytes(b"\xff" + path.read_bytes())

    assert (await run.log()).startswith("\ufffdINFO ")


async def test_the_report_is_parsed(run: Run, client: Client, server: LocalServer) -> None:
    """Every component has a row, that which never ran too; half a report is an error."""
    failed = await client.start("fail", {})
    await server.advance(100)

    report = await failed.status_report()

    assert [(row.reference, row.state, row.task_exit_code) for row in report.rows] == [
        ("stage0.Boom", "failed", 3),
        ("stage1.After", "component_shutdown", None),
    ]
    assert [row.name for row in report.failed] == ["Boom"]
    assert str(report).splitlines()[1].split()[:3] == ["stage0.Boom", "failed", "local"]
    assert len((await client.status_report((await run.document()).instance)).rows) == 2
    path = await on_disk(run, "output/status_details.json")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DecodeError, match=r"^got an incomplete or damaged.*status_details\.json"):
        await run.status_report()


async def test_missing_files_raise_not_found(client: Client, server: LocalServer) -> None:
    """Not yet, and no such run, and no such component."""
    server.outcome("demo", "killed", times=1)
    stuck = await client.start("demo", {"inputs": INPUTS})
    await server.advance(60)

    with pytest.raises(NotFound, match=r"no file .*status_details\.json"):
        await stuck.status_report()
    with pytest.raises(NotFound, match=r"'Ghost'.*stage0\.Compute"):
        await stuck.csv(component="Ghost")
    with pytest.raises(UnknownRun):
        await client.log("ghost")
    with pytest.raises(ValueError, match="not a regular expression"):
        await stuck.csv("(")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b\n1,x\n2,y\n", {"a": [1, 2], "b": ["x", "y"]}),
        ("a;b\n1,5;x\n2,5;y\n", {"a": ["1,5", "2,5"], "b": ["x", "y"]}),
        ("a\tb\n1\tx\n", {"a": [1], "b": ["x"]}),
        ("x  y z\n 1 2.5  CCO\n", {"x": [1], "y": [2.5], "z": ["CCO"]}),
        ("energy\n1\n2\n", {"energy": [1, 2]}),
        ("total energy\n1.5\n", {"total energy": [1.5]}),
        ("full name\nJane Roe\n", {"full name": ["Jane Roe"]}),
        ("a, b\n1, x\n", {"a": [1], "b": ["x"]}),
        ("a, b, c\n1, , 2\n ", {"a": [1], "b": [None], "c": [2]}),
        ('a,b\n"x, y",1\n"p\nq",2\n', {"a": ["x, y", "p\nq"], "b": [1, 2]}),
        ("where (x, y);value\np;1\n", {"where (x, y)": ["p"], "value": [1]}),
        ("a,b\n", {"a": [], "b": []}),
        ("a;b", {"a": [], "b": []}),
        ("# it's \"made\n#\n\na,b\n#1,2\n", {"a": ["#1"], "b": [2]}),
        ("smiles,x\nC#N,1\n", {"smiles": ["C#N"], "x": [1]}),
        ("a,b\n1,2,\n3,4,\n", {"a": [1, 3], "b": [2, 4]}),
        ("a,b\n1\n", {"a": [1], "b": [None]}),
        ("a,b\r\n1,2\r\n", {"a": [1], "b": [2]}),
        ("a,b\r1,2\r", {"a": [1], "b": [2]}),
        (",\r;\n\r x", {"Unnamed: 0": [";", "x"], "Unnamed: 1": [None, None]}),
        (b"\xef\xbb\xbfa,b\n1,\xff\n", {"a": [1], "b": ["\ufffd"]}),
        ("a,a\n1,2\n", {"a": [1], "a.1": [2]}),
        ("x\n0.1234567890123456789\n5e-324\n", {"x": [float("0.1234567890123456789"), 5e-324]}),
        (f"a;b\n{'x' * 200_000};1\n", {"a": ["x" * 200_000], "b": [1]}),
        ("x\nNaN\n\n2\n", {"x": [None, 2]}),
    ],
)
def test_files_are_tables(content: str | bytes, expected: dict[str, list[Any]], tmp_path: Path) -> None:
    """Whatever separates the cells, however lines end, exact to the last bit."""
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with path.open(**AS_TEXT) as file:
        frame = read_table(file)

    found = {
        name: [None if cell != cell else cell for cell in column] for name, column in frame.to_dict("list").items()
    }
    assert found == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is empty"),
        ("\n \n", "it is empty"),
        ("# nothing\n", "it is empty"),
        ("a,b\n1,2,3\n", "more cells than there are names"),
        ("a\n1,2\n3,4\n", "more cells than there are names"),
        ("a,b\n1,2,,4\n", "more cells than there are names"),
        ("a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3"),
        ('a,b\n"1,2\n', "EOF inside string"),
        ("a\0b\n", "no text"),
    ],
)
def test_files_are_no_tables(content: str, problem: str, tmp_path: Path) -> None:
    """Nothing is made up: no cell becomes that of another column or is dropped."""
    path = tmp_path / "table.csv"
    path.write_text(content)

    with path.open(**AS_TEXT) as file, pytest.raises(ValueError, match=problem):
        read_table(file)


def test_what_is_shown_of_a_table() -> None:
    """Where it is from, not all of it."""
    table = Table(ComponentDocument.model_validate(json.loads("{}")), "a.csv", "file://a/a.csv")

    assert "path='a.csv'" in repr(table)
    assert "_frame" not in repr(table)
