"""Chunks of runs to DataFrames, in this process and in others, with a client of which no credential is sent."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

import anyio
import pandas
import pytest

from st4sd_async import Client, ServerError, UnknownOutput, sync
from st4sd_async.integrations.chunks import chunks, read_outputs, read_properties, shared_client
from st4sd_async.local import LocalServer, Reply
from tests.tries import tries

pytestmark = pytest.mark.slow

INPUTS = [{"filename": "molecules.csv", "content": "smiles\nCO\nCCO\n"}]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(speed=0) as running:
        push(running)
        yield running


def push(server: LocalServer) -> None:
    async def work() -> None:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))

    anyio.run(work)


@pytest.fixture
def client(server: LocalServer, tmp_path: Path) -> Iterator[Client]:
    """A client that is not open, with its key in a file."""
    key = tmp_path / "key"
    key.write_text(server.api_key)
    yield Client(server.url, api_key=key)
    server.faults.clear()


@pytest.fixture(scope="module")
def runs(server: LocalServer) -> list[str]:
    return server.populate("demo", 5, payload={"inputs": INPUTS})


def test_runs_are_cut_into_chunks(runs: list[str]) -> None:
    """Of rest-uids, without duplicates."""
    assert chunks([*runs, runs[0]], 2) == [runs[:2], runs[2:4], runs[4:]]
    assert chunks([], 2) == []
    with pytest.raises(ValueError, match="at least 1, not 0"):
        chunks(runs, 0)


def test_properties_of_a_chunk(client: Client, runs: list[str]) -> None:
    """All columns, or those named; a run that lacks one has NaN."""
    everything = read_properties(runs, client=client)
    some = read_properties(runs, ["ENERGY", "missing"], client=client)

    assert list(everything.columns) == ["rest-uid", "input-id", "smiles", "energy", "weight"]
    assert list(everything["rest-uid"]) == [run for run in runs for _ in range(2)]
    assert list(some.columns) == ["rest-uid", "input-id", "energy", "missing"]
    assert (some["energy"].isna().sum(), some["missing"].isna().sum()) == (0, 10)
    assert list(read_properties([], ["energy"], client=client).columns) == ["rest-uid", "input-id", "energy"]


def test_outputs_of_a_chunk(client: Client, runs: list[str]) -> None:
    """Parsed, with the run in the first column. An error of the parser names the run."""
    table = read_outputs(runs, "Energies", client=client)

    assert list(table.columns[:1]) == ["rest-uid"]
    assert list(table["rest-uid"]) == [run for run in runs for _ in range(2)]
    assert list(table.index) == list(range(10))
    assert list(read_outputs([], "Energies", client=client).columns) == ["rest-uid"]
    with pytest.raises(UnknownOutput):
        read_outputs(runs, "energies", client=client)
    with pytest.raises(ValueError, match="no table") as caught:
        read_outputs(runs, "Energies", refuse, client=client)
    assert caught.value.__notes__ == [f"raised for the key-output 'Energies' of run {runs[0]!r}"]


def refuse(file: IO[bytes]) -> pandas.DataFrame:
    raise ValueError("no table")


def test_runs_without_properties_are_counted(
    client: Client, server: LocalServer, runs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """In the log."""
    failed = server.populate("demo", 1, "component-failure")

    with caplog.at_level(logging.WARNING, "st4sd_async"):
        table = read_properties([*failed, *runs], ["energy"], client=client)

    assert set(table["rest-uid"]) == set(runs)
    assert "1 of 6 runs have no properties and were left out" in caplog.text


def test_all_calls_of_a_process_share_one_client(client: Client, server: LocalServer, runs: list[str]) -> None:
    """Whether it is the same object, or arrives pickled, or is blocking."""
    before = server.traffic["GET /url-map/"].requests

    shared = [shared_client(pickle.loads(pickle.dumps(client))) for _ in range(3)]
    for run in runs:
        read_properties([run], client=client)

    assert len({id(one) for one in shared}) == 1
    assert server.traffic["GET /url-map/"].requests - before == 1


def test_a_client_can_come_from_the_environment(
    server: LocalServer, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the process that uses it."""
    monkeypatch.setenv("ST4SD_URL", server.url)
    monkeypatch.setenv("ST4SD_API_KEY", server.api_key)

    assert len(read_properties(runs, ["energy"])) == 10


@pytest.mark.parametrize("kind", [Client, sync.Client])
def test_a_literal_key_is_refused(kind: type[Client], server: LocalServer, runs: list[str]) -> None:
    """Even in this process, so that it is noticed before anything is sent to others."""
    client = kind(server.url, api_key=server.api_key)

    with pytest.raises(TypeError, match=r"give api_key as a pathlib.Path, or use Client.from_env\(\)"):
        read_properties(runs, client=client)


def test_a_table_without_a_run_that_cannot_be_read_is_an_error(client: Client, server: LocalServer) -> None:
    """It would be wrong without notice."""
    (run,) = server.populate("demo", 1, payload={"inputs": INPUTS})
    server.faults.add("POST /ds-mongodb-proxy/documents/api/v1.0/query", Reply(501), times=None)

    with pytest.raises(ServerError):
        read_properties([run], client=client)


@pytest.mark.timeout(240)  # processes that import all of it anew, on a machine that may be busy
@pytest.mark.filterwarnings("ignore:.* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(("method", "count"), [("fork", 2), ("spawn", 1)][: tries(2, 1)])
def test_a_process_pool_reads_chunks(
    method: str, count: int, client: Client, server: LocalServer, runs: list[str]
) -> None:
    """
    A forked process does not use the client of its parent, which can still be used.

    A spawned one imports all of it anew, which takes seconds. That of test_tables_and_files.py always runs.
    """
    whole = read_properties(runs, ["energy"], client=client)
    read = partial(read_properties, names=["energy"], client=client)

    with ProcessPoolExecutor(count, multiprocessing.get_context(method)) as pool:
        parts = list(pool.map(read, chunks(runs, 2)))

    assert [len(part) for part in parts] == [4, 4, 2]
    pandas.testing.assert_frame_equal(pandas.concat(parts, ignore_index=True), whole)
    pandas.testing.assert_frame_equal(read(runs), whole)
