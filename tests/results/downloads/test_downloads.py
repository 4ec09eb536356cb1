"""Downloads through sockets: what all verbs promise of their arguments, targets, errors and progress."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import APIError, Client, Config, DownloadError, NotFound, NotReady, ProgressUpdate, UnknownRun
from st4sd_async.local import CutBody, Html, LocalServer
from tests.results.demo_runs import (
    ARCHIVE,
    COMPUTE,
    DEMO,
    FILES,
    INPUTS,
    MIB,
    QUERY,
    described,
    directory,
    failures,
    finished,
    listed,
    names,
    tree,
    whole,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_what_is_no_run_is_refused(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Before anything is sent: another type, and an invalid location."""
    before = len(server.requests)

    for verb in (
        lambda run: client.read_file(run, "x"),
        lambda run: client.download_files(run, tmp_path),
        lambda run: client.download_component(run, 0, "A", tmp_path),
        lambda run: client.download_outputs(run, tmp_path),
    ):
        with pytest.raises(TypeError, match="a run must be a Run or a rest-uid"):
            await verb(7)
    for verb in (
        lambda run: client.read_file(run, "x"),
        lambda run: client.download_files(run, tmp_path),
        lambda run: client.download_component(run, 0, "A", tmp_path),
    ):
        with pytest.raises(ValueError, match="the uri of an instance must be"):
            await verb("file://nothing")

    assert len(server.requests) == before


async def test_arguments_that_make_no_sense_send_nothing(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """They raise before any request."""
    run = await finished(client, server)
    before = len(server.requests)

    wrongs: list[tuple[Any, dict[str, Any]]] = [
        (run.read_file, {"path": "x", "limit": -1}),
        (run.download_component, {"stage": -1, "component": "Compute", "to": tmp_path / "new"}),
        (run.download_component, {"stage": None, "component": "Compute", "to": tmp_path / "new"}),
        (run.download_component, {"stage": 0, "component": "", "to": tmp_path / "new"}),
        (run.download_component, {"stage": 0, "component": "../stage1/Report", "to": tmp_path / "new"}),
        (run.download_outputs, {"names": [7], "to": tmp_path / "new"}),
        (run.download_outputs, {"names": ["Energies", None], "to": tmp_path / "new"}),
    ]
    for verb, arguments in wrongs:
        with pytest.raises((ValueError, TypeError)):
            await verb(**arguments)

        assert len(server.requests) == before, arguments
        assert listed(tmp_path) == [], arguments


async def test_errors_of_a_service_that_refuses_are_ours(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """They are raised if they stop everything, and returned if they stop one file."""
    run = await finished(client, server)
    server.faults.add(QUERY, Html(404), times=None)
    with pytest.raises(APIError):
        await run.download_files(tmp_path)
    server.faults.clear()

    server.faults.add(FILES, Html(404), times=None)
    found = await run.download_files(tmp_path)

    assert len(failures(found)) == len(DEMO)
    assert all(isinstance(one.error, APIError) for one in failures(found))


async def test_there_can_be_no_such_folder(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """For all of the verbs it is one error, and nothing is left."""
    run = await described(client, server, Energies=b"1")
    (tmp_path / "file").write_bytes(b"mine")

    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        for verb in (run.download_files, run.download_outputs, partial(run.download_component, 0, "Compute")):
            with pytest.raises(DownloadError, match="cannot be stored"):
                await verb(target)

    assert tree(tmp_path) == {"file": b"mine"}


async def test_runs_without_documents_raise_different_errors(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Never, not yet and unknown; nothing is written."""
    failed = await finished(client, server, "setup-failure")
    server.outcome("demo", "success", times=1, stretch=1000)
    slow = await client.start("demo", {"inputs": INPUTS})

    for run, expected in ((failed, NotFound), (slow, NotReady), (client.run("ghost"), UnknownRun)):
        for verb in (run.download_files, partial(run.download_component, 0, "Compute")):
            with pytest.raises(expected) as error:
                await verb(tmp_path / "new")
            assert type(error.value) is expected

    assert tree(tmp_path) == {}


async def test_files_outlive_their_run_and_outputs_do_not(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Documents and directories stay when a run is deleted."""
    run = await finished(client, server)
    await run.delete()

    assert names(await run.download_files(tmp_path / "a"), tmp_path / "a") == DEMO
    assert len(whole(await run.download_component(0, "Compute", tmp_path / "b"))) == 4
    assert await run.read_file("input/molecules.csv") == INPUTS[0]["content"].encode()
    with pytest.raises(UnknownRun):
        await run.download_outputs(tmp_path / "c")


async def test_progress_has_a_first_growing_and_last_updates(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """For each verb, with what is done in its own unit; what is there already is done at once, without bytes."""
    run = await finished(client, server)
    updates: list[ProgressUpdate] = []
    told = client.with_options(progress=updates.append)
    verbs: list[tuple[str, str, int, Callable[[], Awaitable[Any]]]] = [
        (f"files of {run.id}", "files", 8, lambda: told.download_files(run, tmp_path)),
        (f"stage1.Report of {run.id}", "components", 1, lambda: told.download_component(run, 1, "Report", tmp_path)),
        (f"key-outputs of {run.id}", "key-outputs", 2, lambda: told.download_outputs(run, tmp_path)),
    ]

    for work, unit, total, verb in verbs:
        for is_new in (True, False):
            updates.clear()
            await verb()

            assert {(update.work, update.unit, update.total) for update in updates} == {(work, unit, total)}
            assert (updates[0].done, updates[0].received, updates[0].is_over) == (0, 0, False)
            assert (updates[-1].done, updates[-1].is_over) == (total, True)
            assert [update.is_over for update in updates[:-1]] == [False] * (len(updates) - 1)
            assert [(update.done, update.received) for update in updates] == sorted(
                (s.done, s.received) for s in updates
            )
            assert (updates[-1].received > 0) == is_new


async def test_progress_counts_bytes_and_failures(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Bytes grow while one file comes, what came twice counts twice, and what failed is done."""
    run = await finished(client, server)
    (directory(server, run) / COMPUTE / "noise").write_bytes(os.urandom(2 * MIB))
    updates: list[ProgressUpdate] = []
    told = client.with_options(progress=updates.append)

    server.faults.add(FILES, CutBody(MIB))
    await told.download_files(run, tmp_path, filename="noise")
    assert updates[-1].received > 2.2 * MIB  # of what was cut, some may never have been received
    assert len({update.received for update in updates}) > 5

    updates.clear()
    server.faults.add(ARCHIVE, Html(502), times=None)
    await told.download_component(run, 0, "Compute", tmp_path)
    assert (updates[-1].done, updates[-1].total, updates[-1].is_over) == (1, 1, True)


async def test_a_progress_that_raises_does_not_stop_the_work(
    client: Client, server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and not called again for that work."""
    run = await finished(client, server)
    updates: list[ProgressUpdate] = []

    def show(update: ProgressUpdate) -> None:
        updates.append(update)
        raise RuntimeError("broken bar")

    found = await client.with_options(progress=show).download_files(run, tmp_path)

    assert names(found, tmp_path) == DEMO
    assert len(updates) == 1
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"Config.progress raised an error; progress of files of {run.id} is no longer shown"
    ]


async def test_progress_belongs_to_a_client(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """It is a setting of the client, and `with_options` can remove it."""
    run = await finished(client, server)
    updates: list[ProgressUpdate] = []
    async with Client(server.url, api_key=server.api_key, config=Config(progress=updates.append)) as told:
        await told.with_options(progress=None).download_outputs(run, tmp_path / "a")
        await client.download_outputs(run, tmp_path / "b")
        assert updates == []

        await told.with_options(timeout=30).download_outputs(run, tmp_path / "c")
        assert updates[-1].is_over
