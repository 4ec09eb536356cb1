"""Runs, items and clients on their way to another process, to a table and to a copy."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas
import pytest

from st4sd_async import (
    Client,
    Config,
    ConfigError,
    Item,
    Launch,
    ProgressBars,
    Run,
    RunFailed,
    St4sdError,
    Status,
    sync,
)
from st4sd_async._http.contexts import Login
from st4sd_async.local import LocalServer
from tests.client.pool_tasks import ask, work

pytestmark = pytest.mark.anyio

KEY = "a-very-secret-key"
HERE, THERE = "http://127.0.0.1:1/", "http://127.0.0.1:2/"
RUN_VERBS = [name for name, member in vars(Run).items() if not name.startswith("_") and inspect.isfunction(member)]


def travelled(value: Any) -> Any:
    """Return a value as it arrives in another process."""
    return pickle.loads(pickle.dumps(value))


@pytest.fixture
def client() -> Client:
    return Client(HERE, api_key=KEY)


@pytest.fixture(params=[Client, sync.Client], ids=["async", "blocking"])
def some_client(request: pytest.FixtureRequest) -> Any:
    return request.param(HERE, api_key=KEY)


def test_a_run_travels_as_rest_uid_and_url(some_client: Any) -> None:
    """Without its client, and so without the credentials of that."""
    run = some_client.run("demo-1")

    arrived = travelled([run])[0]

    assert KEY.encode() not in pickle.dumps(run)
    assert type(arrived) is type(run)
    assert (arrived.id, arrived.url, arrived.is_bound, run.is_bound) == ("demo-1", HERE, False, True)
    assert arrived == run
    assert repr(arrived) == repr(run)
    assert travelled(arrived) == arrived


@pytest.mark.parametrize("verb", RUN_VERBS)
async def test_a_run_without_a_client_says_how_to_get_one(verb: str, client: Client) -> None:
    """For each of its methods, also of the blocking ones."""
    arrived, blocking = travelled(client.run("demo-1")), travelled(sync.Client(HERE).run("demo-1"))
    given = {"to": "there", "stage": 0, "component": "A", "name": "A", "path": "a", "store": {}}
    wanted = {name: given[name] for name in inspect.signature(getattr(Run, verb)).parameters if name in given}

    async def call() -> None:
        await getattr(arrived, verb)(**wanted)

    advice = r"'demo-1' of http://127.0.0.1:1/ .* client: .*client.run\(run\)"
    with pytest.raises(St4sdError, match=advice):
        await call()
    with pytest.raises(St4sdError, match=advice):
        getattr(blocking, verb)(**wanted)


def test_a_client_binds_a_run_of_its_own_deployment(some_client: Any) -> None:
    """Whether the run has a client or not; a run of another deployment is a mistake."""
    run = some_client.run("demo-1")

    for one in (run, travelled(run), "demo-1"):
        bound = some_client.run(one)
        assert (bound, bound.is_bound, bound.client) == (run, True, some_client)
    with pytest.raises(ValueError, match=r"'demo-1' is a run of http://127.0.0.1:1/, not of http://127.0.0.1:2/"):
        type(some_client)(THERE).run(travelled(run))
    with pytest.raises(TypeError, match="must be a Run or a rest-uid"):
        some_client.run(7)


@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copies_in_the_process_stay_bound(carry: Callable[[Any], Any], some_client: Any) -> None:
    """Alone, in a list and in an item; a copied client is the client."""
    run = some_client.run("demo-1")

    assert carry(run).client is some_client
    assert carry([run])[0].client is some_client
    assert carry(item(run)).run.client is some_client
    assert carry(some_client) is some_client


def item(run: Any) -> Item:
    """Return an item with everything that an item can have."""
    status = Status.model_validate({"experiment-state": "finished", "exit-status": "Failed", "meta": {"pid": 7}})
    failed = RunFailed({"demo-1": status})
    return Item("mol", "demo:latest", "failed", 2, run, status, failed, (Path("a"),), ("demo-2",))


def test_an_item_travels_with_everything(client: Client) -> None:
    """Its status and its error too."""
    sent = item(client.run("demo-1"))

    arrived = travelled([sent])[0]

    assert (arrived.key, arrived.state, arrived.status, arrived.files) == ("mol", "failed", sent.status, (Path("a"),))
    assert (arrived.run, arrived.run.is_bound) == (sent.run, False)
    assert isinstance(arrived.error, RunFailed)
    assert str(arrived.error) == str(sent.error)


def test_runs_and_items_are_rows(some_client: Any) -> None:
    """Of plain values, for `dataclasses.asdict` and for a table; the client is no part of them."""
    run = some_client.run("demo-1")

    assert asdict(run) == {"id": "demo-1", "url": HERE}
    assert asdict(item(run))["run"] == asdict(run)
    assert pandas.DataFrame([run, travelled(run)]).to_dict("list") == {"id": ["demo-1"] * 2, "url": [HERE] * 2}
    frame = pandas.DataFrame([item(run), item(None)])
    assert list(frame["key"]) == ["mol", "mol"]
    assert list(frame["state"]) == ["failed", "failed"]


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "st4sd.key"
    path.write_text(KEY)
    return path


SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "none": lambda folder: {},
    "a key in a file": lambda folder: {"api_key": saved(folder)},
    "a token in a file": lambda folder: {"auth_token": saved(folder)},
    "a context": lambda folder: {"auth_token": Login("here", HERE, HERE)},
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("cls", [Client, sync.Client], ids=["async", "blocking"])
def test_a_client_travels_with_the_source_of_its_credentials(cls: Any, source: str, tmp_path: Path) -> None:
    """And its settings, but not with what shows progress in this process. It arrives closed."""
    config = Config(timeout=5, progress=ProgressBars(), verify=str(tmp_path / "ca.pem"))
    sent = cls(HERE, **SOURCES[source](tmp_path), config=config).with_options(grace=7)

    arrived = travelled(sent)

    assert KEY.encode() not in pickle.dumps(sent)
    assert (type(arrived), arrived.url) == (cls, HERE)
    assert repr(arrived) == repr(sent)
    inner = getattr(arrived, "_target", arrived)
    assert (inner._config.timeout, inner._config.grace, inner._config.progress) == (5, 7, None)
    assert bool(inner._session.shared.credentials) == (source != "none")
    assert arrived.run(travelled(sent.run("demo-1"))).is_bound


@pytest.mark.parametrize("cls", [Client, sync.Client], ids=["async", "blocking"])
def test_a_client_of_the_environment_reads_that_of_the_other_process(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it names the same deployment: the key of another one is not sent there."""
    monkeypatch.setenv("ST4SD_URL", HERE)
    monkeypatch.setenv("ST4SD_API_KEY", KEY)
    sent = pickle.dumps(cls.from_env(config=Config(timeout=5)).with_options(grace=7))

    arrived = pickle.loads(sent)

    assert KEY.encode() not in sent
    inner = getattr(arrived, "_target", arrived)
    assert (arrived.url, inner._config.timeout, inner._config.grace) == (HERE, 5, 7)
    assert inner._session.shared.credentials.literal == KEY
    monkeypatch.setenv("ST4SD_URL", THERE)
    with pytest.raises(ConfigError, match=f"of {HERE} .*ST4SD_URL.* {THERE}"):
        pickle.loads(sent)
    monkeypatch.delenv("ST4SD_URL")
    with pytest.raises(ConfigError, match="ST4SD_URL is not set"):
        pickle.loads(sent)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Client, sync.Client], ids=["async", "blocking"])
@pytest.mark.parametrize("name", ["api_key", "auth_token"])
@pytest.mark.parametrize("source", [KEY, lambda: KEY], ids=["a string", "a function"])
def test_a_client_with_a_secret_does_not_travel(cls: Any, name: str, source: Any) -> None:
    """The error says how to give the credential instead, and does not quote it."""
    with pytest.raises(TypeError, match=rf"{name} .* pathlib.Path.*from_env\(\).*from_context\(\)") as caught:
        pickle.dumps(cls(HERE, **{name: source}))

    assert KEY not in str(caught.value)


def test_a_client_with_a_tls_context_does_not_travel() -> None:
    """A file with the certificate does."""
    with pytest.raises(TypeError, match=r"ssl.SSLContext.*path"):
        pickle.dumps(Client(HERE, config=Config(verify=ssl.create_default_context())))


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    """A pool of one process, which imports everything anew."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.fixture
async def failed(server: LocalServer, tmp_path: Path) -> AsyncIterator[tuple[Client, list[Item]]]:
    """An open client with its key in a file, and the items of a batch of two."""
    path = tmp_path / "st4sd.key"
    path.write_text(server.api_key)
    async with Client(server.url, api_key=path) as client, client.batch() as batch:
        await client.push(server.example("demo"))
        server.outcome("demo", "component-failure", stretch=0.01)
        await batch.add([Launch("a", "demo", {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]})])
        async for _ in batch.run():
            pass
        yield client, list(batch.items)


def test_blocking_runs_go_to_worker_processes_and_back(
    server: LocalServer, tmp_path: Path, workers: ProcessPoolExecutor
) -> None:
    """Several at once, which share one client there."""
    path = tmp_path / "st4sd.key"
    path.write_text(server.api_key)
    with sync.Client(server.url, api_key=path) as client:
        client.push(server.example("demo"))
        runs = [client.run(rest_uid) for rest_uid in server.populate("demo", 3)]

        found = list(workers.map(ask, [client] * 3, runs, chunksize=3))

        assert [run for run, _ in found] == runs
        assert [status.rest_uid for _, status in found] == [run.id for run in runs]
        assert client.run(found[0][0]).status() == found[0][1]


@pytest.mark.slow
async def test_runs_go_to_worker_processes_and_back(
    failed: tuple[Client, list[Item]], workers: ProcessPoolExecutor
) -> None:
    """With a client and an item as arguments, and a status, a run and the item as results."""
    client, items = failed
    run = items[0].run
    assert run is not None

    task = workers.submit(work, client, items[0], [run])
    statuses, arrived, item_again = await asyncio.wrap_future(task)

    assert [status.rest_uid for status in statuses] == [run.id] * 3
    assert [status.is_success for status in statuses] == [False] * 3
    assert (arrived, arrived.is_bound, client.run(arrived).is_bound) == (run, False, True)
    assert (item_again.key, item_again.status, str(item_again.error)) == ("a", items[0].status, str(items[0].error))
    assert await client.status(arrived) == await client.run(arrived).status()
    assert [one.client async for one, _ in client.watch_many([arrived])] == [client]
