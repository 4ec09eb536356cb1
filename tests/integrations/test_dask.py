"""
Dask DataFrames of properties and key-outputs, computed by the processes of a real cluster on this machine.

Dask has a virtual environment of its own, made by ``.ci/run --all``; without it these tests are skipped.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import pytest

from st4sd_async import Client, NoProperties, SchemaMismatch, ServerError, UnknownOutput, UnknownProperty, sync
from st4sd_async.local import LocalServer, Reply

pytest.importorskip("dask", reason="Dask is not installed")

import dask
import distributed

from st4sd_async.integrations.dask import _properties, outputs, properties

pytestmark = pytest.mark.timeout(240)  # worker processes import all of it anew, on a machine that may be busy

INPUTS = [{"filename": "molecules.csv", "content": "smiles\nCO\nCCO\n"}]
COLUMNS = ["rest-uid", "input-id", "smiles", "energy", "weight"]
TEXT, NUMBER = "string", "float64"
QUERY, OUTPUT = "POST /ds-mongodb-proxy/documents/api/v1.0/query", "GET /instances/*/outputs/*"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(speed=0) as running:
        with sync.Client(running.url, api_key=running.api_key) as client:
            client.push(running.example("demo"))
        yield running


@pytest.fixture(scope="module")
def runs(server: LocalServer) -> list[str]:
    return server.populate("demo", 10, payload={"inputs": INPUTS})


@pytest.fixture(scope="module")
def cluster(server: LocalServer) -> Iterator[distributed.Client]:
    """Two worker processes that have a key in their environment, which this process does not."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            dashboard_address=":0",
            env={"ST4SD_URL": server.url, "ST4SD_API_KEY": server.api_key},
        ) as local,
        distributed.Client(local) as connected,
    ):
        yield connected


@pytest.fixture
def client(server: LocalServer, tmp_path: Path) -> Client:
    """A client that is not open, with its key in a file."""
    key = tmp_path / "key"
    key.write_text(server.api_key)
    return Client(server.url, api_key=key)


@pytest.fixture(autouse=True)
def no_faults(server: LocalServer) -> Iterator[None]:
    yield
    server.faults.clear()


def pickled_tasks(frame: Any) -> bytes:
    """Return what the scheduler and the workers get."""
    return pickle.dumps(dict(frame.optimize().dask)) + repr(dict(frame.dask)).encode()


def test_workers_read_properties(
    cluster: distributed.Client, client: Client, server: LocalServer, runs: list[str]
) -> None:
    """Each process with one client. Columns and dtypes are those that were announced."""
    frame = properties(runs, partition=3, client=client)
    before = server.traffic["GET /url-map/"].requests
    found = frame.compute()

    assert frame.npartitions == 4
    assert list(frame.columns) == list(found.columns) == COLUMNS
    assert list(frame.dtypes) == list(found.dtypes)
    assert [str(dtype) for dtype in found.dtypes] == [TEXT, TEXT, TEXT, NUMBER, NUMBER]
    assert list(found["rest-uid"]) == [run for run in runs for _ in range(2)]
    with sync.Client(server.url, api_key=server.api_key) as other:
        assert list(found["energy"]) == other.properties(runs, ["energy"]).column("energy")
        connections = server.traffic["GET /url-map/"].requests - before - 1
    frame.compute()
    assert connections <= 2
    assert server.traffic["GET /url-map/"].requests - before - 1 == connections


def test_columns_that_are_not_used_are_not_requested(
    cluster: distributed.Client, client: Client, runs: list[str]
) -> None:
    """The optimiser passes the columns on, and the number of rows does not depend on them."""
    frame = properties(runs, partition=4, client=client)
    one = frame["energy"]

    (read,) = [one for one in one.optimize(fuse=False).expr.walk() if type(one).__name__ == "FromMapProjectable"]
    assert read.operand("columns") == ["energy"]
    assert list(_properties(runs[:1], ["energy"], client=client, meta=frame._meta, is_whole=True).columns) == ["energy"]
    assert len(one) == len(frame) == len(frame["rest-uid"]) == 20
    assert one.mean().compute() == frame.compute()["energy"].mean()


def test_named_columns_have_a_row_for_each_run_with_properties(
    cluster: distributed.Client, client: Client, server: LocalServer, runs: list[str]
) -> None:
    """A failed run is left out."""
    failed = server.populate("demo", 1, "component-failure")
    frame = properties([*failed, *runs], ["Weight"], partition=100, client=client)

    assert list(properties(runs, "energy", client=client).columns) == ["rest-uid", "input-id", "energy"]
    assert list(frame.columns) == ["rest-uid", "input-id", "weight"]
    assert len(frame.compute()) == 20


def test_workers_parse_outputs(cluster: distributed.Client, client: Client, runs: list[str]) -> None:
    """With the default parser or another, all columns or those that are used."""
    frame = outputs(runs, "Energies", partition=4, client=client)
    numbers = outputs(
        runs, "Energies", partial(pandas.read_csv, nrows=1), meta={"energy": "float32"}, client=client
    ).compute()

    assert frame.npartitions == 3
    assert next(iter(frame.columns)) == "rest-uid"
    assert len(frame) == 20
    assert frame["energy"].sum().compute() == pytest.approx(frame.compute()["energy"].sum())
    assert [(name, str(dtype)) for name, dtype in numbers.dtypes.items()] == [("rest-uid", TEXT), ("energy", "float32")]
    assert len(numbers) == 10


def test_no_credential_is_in_the_graph(client: Client, server: LocalServer, runs: list[str]) -> None:
    """Only the url and the path of the file."""
    for frame in (properties(runs, client=client), outputs(runs, "Energies", client=client)):
        tasks = pickled_tasks(frame)
        assert server.api_key.encode() not in tasks
        assert server.url.encode() in tasks


@pytest.mark.parametrize("kind", [Client, sync.Client])
def test_a_literal_key_is_refused(kind: type[Client], server: LocalServer, runs: list[str]) -> None:
    """Before there is a graph, with the advice to use a file or the environment."""
    for make in (properties, partial(outputs, name="Energies")):
        with pytest.raises(TypeError, match=r"give api_key as a pathlib.Path, or use Client.from_env\(\)"):
            make(runs, client=kind(server.url, api_key=server.api_key))


def test_workers_use_their_own_environment(
    cluster: distributed.Client, server: LocalServer, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The url must be the same here and there; the key is not sent."""
    monkeypatch.setenv("ST4SD_URL", server.url)
    monkeypatch.setenv("ST4SD_API_KEY", server.api_key)
    frame = properties(runs, ["energy"], partition=5)
    tasks = pickled_tasks(frame)
    monkeypatch.delenv("ST4SD_API_KEY")

    assert server.api_key.encode() not in tasks
    assert len(frame.compute()) == 20


def test_an_error_of_a_worker_has_its_class_and_text(
    cluster: distributed.Client, client: Client, server: LocalServer, runs: list[str]
) -> None:
    """That of a request, and that of a run without the output."""
    frame = outputs(runs, "Energies", client=client)
    table = properties(runs, client=client)
    missing = outputs(runs, "Nothing", meta={"energy": "float64"}, client=client)
    server.faults.add(
        OUTPUT, Reply(501, {"Content-Type": "application/json"}, b'{"message": "the disk is full"}'), times=None
    )
    server.faults.add(QUERY, Reply(501), times=None)

    with pytest.raises(ServerError, match="501"):
        table.compute()
    with pytest.raises(ServerError, match="the disk is full"):
        frame.compute()
    server.faults.clear()
    with pytest.raises(UnknownOutput, match=r"the run has \['Energies'"):
        missing.compute()


def test_columns_are_fixed(cluster: distributed.Client, client: Client, server: LocalServer, runs: list[str]) -> None:
    """A value of another dtype is an error that names column and run; one more column is too."""
    text = properties(runs, meta={"smiles": "float64"}, client=client)
    whole = properties(runs, meta={"Energy": "int64"}, client=client)

    for frame, column in ((text, "smiles"), (whole, "energy")):
        with pytest.raises(SchemaMismatch, match=f"the column '{column}' of run .* has the fixed dtype") as caught:
            frame.compute()
        assert caught.value.column == column
        assert caught.value.rest_uid in runs
        assert caught.value.advice == "declare the columns with meta"
    meta = properties(runs, ["energy"], client=client)._meta
    with pytest.raises(SchemaMismatch, match="is not among the fixed columns; declare the columns with meta"):
        _properties(runs, client=client, meta=meta, is_whole=True)


@pytest.mark.parametrize(
    ("values", "dtype", "fits"),
    [
        ([1, 2.5, None], "float64", True),
        ([None, None], "boolean", True),
        ([True, None], "boolean", True),
        ([1, "a", None], "string[pyarrow]", True),
        ([1.0, 2.0], "int64", True),
        ([1.0, 2.5], "int64", False),
        ([True], "float64", False),
        ([1.0], "boolean", False),
        (["1"], "float64", False),
        (["2026-01-01"], "datetime64[ns]", True),
    ],
)
def test_no_value_changes_without_notice(values: list[Any], dtype: str, fits: bool) -> None:
    """Unless it becomes a text."""
    from st4sd_async.integrations.dask import _as

    assert (_as(pandas.Series(values), pandas.Series([], dtype=dtype).dtype) is not None) == fits


def test_columns_that_cannot_be_looked_up_are_errors(client: Client, server: LocalServer, runs: list[str]) -> None:
    """At once: a misspelt name, and runs without properties."""
    failed = server.populate("demo", 2, "component-failure")

    with pytest.raises(UnknownProperty, match="did you mean 'energy'"):
        properties(runs, ["enrgy"], client=client)
    for names in (None, ["energy"]):
        with pytest.raises(NoProperties, match="declare the columns with meta: run 'demo-"):
            properties(failed, names, client=client)
    with pytest.raises(ValueError, match="there are no runs"):
        properties([], client=client)
    with pytest.raises(ValueError, match="names and meta cannot be combined"):
        properties(runs, ["energy"], meta={"energy": "float64"}, client=client)


def test_other_schedulers_compute_the_same(client: Client, runs: list[str]) -> None:
    """Threads of this process."""
    with dask.config.set(scheduler="threads"):
        assert len(properties(runs, ["energy"], partition=3, client=client).compute()) == 20
