"""The blocking client does what the asynchronous one does."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

import st4sd_async
from st4sd_async import (
    Config,
    JournalLocked,
    Launch,
    St4sdError,
    Unauthorized,
    UnknownExperiment,
    UnknownRun,
    WaitTimeout,
)
from st4sd_async.local import LocalServer
from st4sd_async.sync import Client, Item, Run

from .conftest import FILES, connect, hasty, loops

pytestmark = pytest.mark.slow


def test_a_run_from_start_to_end(server: LocalServer, sync_client: Client, tmp_path: Path) -> None:
    """Start, watch, collect and delete, without ``await``."""
    run = sync_client.start("demo", {"inputs": FILES})
    seen = []
    for status in sync_client.watch(run):
        seen.append(status)
        server.advance(60)

    assert [one.is_final for one in seen] == [False] * (len(seen) - 1) + [True]
    assert len(seen) > 1
    assert run.wait(check=True) == seen[-1]
    assert sync_client.output(run, "Energies").text() == run.output("Energies").text()
    assert [one.path.exists() for one in run.download_outputs(tmp_path) if isinstance(one, st4sd_async.Download)]
    run.delete()
    with pytest.raises(UnknownRun):
        run.status()


def test_handles_are_blocking_too(server: LocalServer, sync_client: Client) -> None:
    """A handle has its client, is equal by its id, and is accepted as an argument, in lists and in iterators."""
    run = sync_client.start("demo", {"inputs": FILES})
    server.advance(60)
    again = sync_client.run(run.id)

    assert isinstance(run, Run)
    assert run.client is sync_client
    assert again == run
    assert len({run, again}) == 1
    assert (str(run), repr(run)) == (run.id, f"Run(id={run.id!r})")
    assert sync_client.wait([run, again.id])[0].is_final
    assert sync_client.wait({"a": run}.values())[0].is_final
    # Whoever makes it may use the client himself, as it is read in his own thread.
    assert len(sync_client.wait(one for one in [run] if sync_client.status(one).is_final)) == 1
    ((one, status),) = sync_client.watch_many([run])
    assert one.client is sync_client
    assert status.is_final
    assert sync_client.properties([run]).problems == {}


def test_groups_block(server: LocalServer, sync_client: Client) -> None:
    """The endpoints behind the verbs have the names of the asynchronous client."""
    assert [one.name for one in sync_client.experiments.list()] == ["demo"]
    assert sync_client.instances.list() == []
    assert sync_client.datastore.is_healthy() is True
    assert sync_client.deployment.services()
    draft = sync_client.draft("demo")
    draft.inputs["molecules.csv"] = "smiles\nCO\n"
    assert sync_client.start(draft.identifier, draft.filled()).status().is_final is False


def launches(count: int) -> Iterator[Launch]:
    return (Launch(f"C{n}", "demo", {"inputs": FILES}) for n in range(count))


def test_a_batch(quick_client: Client, tmp_path: Path) -> None:
    """Launches from an iterator are added, run and collected; items have blocking handles."""
    with quick_client.batch(tmp_path / "campaign.db") as batch:
        assert batch.add(launches(3)) == 3
        with pytest.raises(JournalLocked), quick_client.batch(tmp_path / "campaign.db"):
            pass
        found = list(batch.run(outputs=["Energies"], to=tmp_path / "results"))
        assert batch.counts["collected"] == 3
        assert batch.items == sorted(found, key=lambda item: item.key)
        assert batch.failures() == []
        assert len(batch.properties().rows) == 3

    for item in found:
        assert isinstance(item, Item)
        assert isinstance(item.run, Run)
        assert item.run.client is quick_client
        assert item.files[0].exists()
        with pytest.raises(FrozenInstanceError):
            item.key = "other"  # type: ignore[misc] # it is frozen
    with pytest.raises(St4sdError, match="'with' for the blocking client"):
        next(batch.run())


def test_nothing_more_is_started_when_the_loop_over_a_batch_is_left(server: LocalServer) -> None:
    """The generator is closed at once, even if it is referenced elsewhere; the next one continues."""
    over = [(0.0, {"experiment-state": "finished", "exit-status": "Success"})]
    with hasty(server) as client, client.batch(max_running=1) as batch:
        client.push(server.example("demo"))
        server.outcome("demo", over, times=1)
        batch.add(launches(3))
        for _ in batch.run():
            break
        count = len(client.instances.list())
        server.advance(60)
        time.sleep(0.05)  # in which the next one would be started, or seen to be over
        assert len(client.instances.list()) == count < 3

        server.outcome("demo", over)
        stream = batch.run()
        next(stream)
        stream.close()
        assert sum(1 for _ in batch.run()) == 1


def test_a_batch_can_be_entered_again(quick_client: Client, tmp_path: Path) -> None:
    """Its block may be left by an error, which is raised unchanged."""
    batch = quick_client.batch(tmp_path / "campaign.db")
    with pytest.raises(TypeError, match="an iterable of Launch"), batch:
        batch.add([*launches(1), "no launch"])  # type: ignore[list-item] # wrong on purpose
    with batch:
        assert batch.add(launches(1)) == 1
        assert [item.state for item in batch.run()] == ["succeeded"]


def test_errors_are_raised_unchanged(sync_client: Client) -> None:
    """With the class, message and traceback of the asynchronous client, and few frames in between."""
    with pytest.raises(UnknownRun, match=r"nope not found; .*nope/status was refused") as caught:
        sync_client.status("nope")

    files = [Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert files[0] == "test_sync.py"
    assert sum(name in ("facade.py", "portal.py") for name in files) <= 4
    assert files[-2:] == ["session.py", "redact.py"]  # which raises it without the error that it replaces
    assert not {"from_thread.py", "_base.py", "_asyncio.py"} & set(files)
    assert caught.value.__context__ is caught.value.__cause__ is None


def test_wrong_arguments_are_an_error_at_once(sync_client: Client) -> None:
    """As in any function, before anything is sent."""
    with pytest.raises(TypeError, match=r"Client\.status\(\) missing 1 required positional argument: 'run'"):
        sync_client.status()  # type: ignore[call-arg] # wrong on purpose
    with pytest.raises(ValueError, match="timeout must be"):
        sync_client.watch_many(["a"], timeout=-1)
    with pytest.raises(TypeError, match="a run must be a Run or a rest-uid, not Instances"):
        sync_client.status(sync_client.instances)  # type: ignore[arg-type] # wrong on purpose
    with Client("http://127.0.0.1:1", config=Config(validate=False)) as other:
        given: Any = [other.experiments]
        with pytest.raises(ValueError, match="belongs to another client"):
            sync_client.watch_many(given)


def test_experiments_can_be_imported_from_another_blocking_client(server: LocalServer, sync_client: Client) -> None:
    """Each client works in its own event loop."""
    with LocalServer() as there, connect(there) as other, connect(server) as unused:
        fetched = other.fetch_experiment(sync_client, "demo")
        known = other.import_experiment(sync_client, "demo", allow_missing=True)
        with pytest.raises(UnknownExperiment):
            other.fetch_experiment(unused, "nothing")
        with pytest.raises(ValueError, match="identifier is missing"):
            other.fetch_experiment(sync_client)

    assert fetched.source == f"{server.url}/"
    assert (known.name, known.digest is None) == ("demo", False)


def test_the_first_call_proves_the_login(server: LocalServer) -> None:
    """Without a ``with`` block it opens the client; if that fails, the next call tries again."""
    keys = {"now": "wrong"}
    client = Client(server.url, api_key=lambda: keys["now"])

    for _ in range(2):
        with pytest.raises(Unauthorized):
            client.experiments.list()
        assert not loops()
    keys["now"] = server.api_key
    with client as same:
        assert same is client
        assert list(client.experiments.list()) == []


def test_open_returns_the_open_client(server: LocalServer) -> None:
    """The second call does nothing, and a closed client stays closed."""
    client = connect(server)

    opened = client.open()

    assert opened is client.open() is client
    assert repr(client) == f"Client('{server.url}/', open)"
    client.close()
    with pytest.raises(St4sdError, match="this client is closed"):
        client.open()


def test_a_closed_client_accepts_no_calls(server: LocalServer) -> None:
    """Closing it again does nothing, and generators end."""
    client = connect(server)
    client.push(server.example("demo"))
    run = client.start("demo", {"inputs": FILES})
    statuses = client.watch(run)
    next(statuses)
    with client.batch() as batch:
        batch.add(launches(1))
        client.close()
        client.close()
        assert batch.counts["planned"] == 1

    assert not loops()
    for call in (run.status, client.experiments.list, lambda: next(statuses), client.__enter__, batch.__enter__):
        with pytest.raises(St4sdError, match="this client is closed"):
            call()
    assert next(statuses, None) is None
    assert repr(client) == f"Client('{server.url}/', not open)"


def test_an_unreferenced_client_is_closed(server: LocalServer) -> None:
    """As that of a notebook cell that is executed again; handles keep it open."""
    client = connect(server)
    client.push(server.example("demo"))
    run = client.start("demo", {"inputs": FILES})
    del client
    gc.collect()
    assert run.client.status(run) == run.status()

    (thread,) = loops()
    del run
    gc.collect()
    thread.join(15)
    assert not loops()


def test_a_generator_may_be_collected_in_the_thread_of_the_loop(
    server: LocalServer, sync_client: Client, tmp_path: Path
) -> None:
    """The garbage collector runs in any thread, and must not wait there."""
    run = sync_client.start("demo", {"inputs": FILES})
    server.advance(60)
    found: list[str] = []

    def collect(step: object) -> None:
        if not found:
            gc.collect()

    gc.disable()
    try:
        circle: dict[str, Any] = {"watching": sync_client.watch(run)}
        next(circle["watching"])
        circle["circle"] = circle
        weakref.finalize(circle["watching"], lambda: found.append(threading.current_thread().name))
        del circle
        sync_client.with_options(progress=collect).download_outputs(run, tmp_path)
    finally:
        gc.enable()

    assert found == ["st4sd-async"]
    assert sync_client.wait(run).is_success


def test_with_options_shares_the_connections(server: LocalServer, sync_client: Client) -> None:
    """Runs of each client belong to it."""
    changed = sync_client.with_options(timeout=3)
    run = sync_client.start("demo", {"inputs": FILES})

    assert type(changed) is Client
    assert changed.run(run.id).client is changed
    assert changed.run(run.id) == run
    with pytest.raises(WaitTimeout):
        changed.wait(run, timeout=0.01)
    assert len(loops()) == 1
    changed.close()
    with pytest.raises(St4sdError, match="closed"):
        sync_client.status(run)


def test_a_subclass(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It inherits everything, and class methods return it."""

    class Mine(Client):
        def names(self) -> list[str | None]:
            return [one.name for one in self.experiments.list()]

    monkeypatch.setenv("ST4SD_URL", server.url)
    monkeypatch.setenv("ST4SD_API_KEY", server.api_key)
    with Mine.from_env(config=Config(timeout=3)) as client:
        assert client.names() == []
        assert client.with_options(timeout=2).names() == []


def test_a_blocking_client_works_inside_a_running_event_loop(server: LocalServer) -> None:
    """As in a notebook: the client has another loop."""

    async def cell() -> st4sd_async.Status:
        with connect(server) as client:
            client.push(server.example("demo"))
            run = client.start("demo", {"inputs": FILES})
            server.advance(60)
            return run.wait()

    assert asyncio.run(cell()).is_success


def test_progress_must_not_use_the_client(
    server: LocalServer, sync_client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is called in the event loop, which would wait for itself: an error instead of a deadlock."""
    run = sync_client.start("demo", {"inputs": FILES})
    server.advance(60)

    def show(step: object) -> None:
        sync_client.status(run)

    for progress in (show, lambda step: sync_client.close()):
        with caplog.at_level(logging.WARNING, "st4sd_async"):
            assert sync_client.with_options(progress=progress).download_outputs(run, tmp_path)
        assert "a blocking client cannot wait in its own event loop" in caplog.text
        caplog.clear()


def test_the_asynchronous_client_names_the_blocking_one(server: LocalServer) -> None:
    """The error for a missing 'async' offers both."""
    with pytest.raises(TypeError, match=r"'async with', or st4sd_async\.sync\.Client"), st4sd_async.Client(server.url):
        pass
