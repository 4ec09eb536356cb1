"""The properties of many runs as DataFrames of a given number of rows, through sockets."""

from __future__ import annotations

import logging
import sys

import pandas
import pytest

from st4sd_async import Client, ServerError, UnknownProperty, sync
from st4sd_async._results import properties
from st4sd_async.local import LocalServer, Reply
from tests.results.demo_runs import INPUTS, QUERY, finished

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COLUMNS = ["rest-uid", "input-id", "smiles", "energy", "weight"]


@pytest.fixture
def runs(client: Client, still_server: LocalServer) -> list[str]:
    """Seven runs with three rows each."""
    return still_server.populate("demo", 7, payload={"inputs": INPUTS})


async def collected(client: Client, runs: list[str], rows: int = 10_000) -> list[pandas.DataFrame]:
    return [part async for part in client.properties_in_parts(runs, rows=rows)]


async def test_the_parts_are_the_table_cut_into_pieces(
    client: Client, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever number of runs is read at a time."""
    monkeypatch.setattr(properties, "MAX_RUNS_PER_QUERY", 3)
    whole = (await client.properties(runs)).dataframe()

    for rows, lengths in ((5, [5, 5, 5, 5, 1]), (7, [7, 7, 7]), (21, [21]), (10_000, [21])):
        parts = await collected(client, runs, rows=rows)

        assert [len(part) for part in parts] == lengths, rows
        assert all(list(part.columns) == COLUMNS for part in parts), rows
        pandas.testing.assert_frame_equal(pandas.concat(parts, ignore_index=True), whole)


async def test_runs_are_read_when_a_part_is_taken(
    client: Client, still_server: LocalServer, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So memory is bounded: no request is ahead of the reader."""
    monkeypatch.setattr(properties, "MAX_RUNS_PER_QUERY", 2)
    before = still_server.traffic[QUERY].requests

    parts = client.properties_in_parts([*runs, runs[0]], ["energy"], rows=6)
    counts = [still_server.traffic[QUERY].requests - before async for _ in parts]

    assert counts == [1, 2, 3, 4]


async def test_runs_without_properties_are_left_out_and_counted(
    client: Client, still_server: LocalServer, runs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the first."""
    failed = await finished(client, still_server, "component-failure")

    with caplog.at_level(logging.WARNING, "st4sd_async"):
        (part,) = await collected(client, [failed.id, *runs])

    assert set(part["rest-uid"]) == set(runs)
    (record,) = caplog.records
    assert record.getMessage().startswith("1 of 8 runs have no properties and were left out; the first: run 'demo-")


async def test_a_name_that_all_runs_lack_is_an_error(
    client: Client, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if they are not read together. If one run has it, the others are left out."""
    monkeypatch.setattr(properties, "MAX_RUNS_PER_QUERY", 3)

    with pytest.raises(UnknownProperty, match="did you mean 'energy'"):
        [part async for part in client.properties_in_parts(runs, ["enrgy"])]


async def test_a_run_that_cannot_be_read_is_not_left_out(
    client: Client, still_server: LocalServer, runs: list[str]
) -> None:
    """Its error is raised, because a table without it would be wrong."""
    run = await client.start("demo", {"inputs": INPUTS})
    still_server.faults.add("GET /instances/*/properties", Reply(501), times=None)

    with pytest.raises(ServerError):
        await collected(client, [*runs, run.id])


async def test_no_runs_have_no_parts(client: Client) -> None:
    """No request is sent."""
    assert await collected(client, []) == []


@pytest.mark.parametrize("rows", [0, True, 1.5])
async def test_the_number_of_rows_is_checked(client: Client, rows: int) -> None:
    """Before anything is requested."""
    with pytest.raises(ValueError, match="rows must be a whole number of at least 1, not "):
        await collected(client, [], rows=rows)


async def test_pandas_is_named_if_it_is_missing(
    client: Client, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the extra that has it."""
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ImportError, match=r'properties_in_parts\(\) needs pandas: pip install "st4sd_async\[pandas\]"'):
        await collected(client, runs)


def test_the_blocking_client_has_the_same_parts() -> None:
    """As a generator."""
    with LocalServer(speed=0) as server, sync.Client(server.url, api_key=server.api_key) as client:
        client.push(server.example("demo"))
        runs = server.populate("demo", 2, payload={"inputs": INPUTS})
        parts = list(client.properties_in_parts(runs, ["energy"], rows=4))

    assert [len(part) for part in parts] == [4, 2]
