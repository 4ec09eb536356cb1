"""The verbs, against the embedded server."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import (
    Client,
    Config,
    ExtraInputs,
    InvalidPackage,
    InvalidPayload,
    MissingInputs,
    Run,
    RunFailed,
    StartOutcomeUnknown,
    StartPayload,
    UnknownExperiment,
    UnknownOutput,
    UnknownRun,
    WaitTimeout,
)
from st4sd_async.local import DropAfter, Html, LocalServer
from tests.batch.batches import until
from tests.client.definitions import MOLECULES

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def finished(server: LocalServer, client: Client) -> Run:
    """A run of `demo` that is over."""
    await client.push(server.example("demo"))
    run = await client.start("demo", MOLECULES)
    await server.advance(60)
    assert (await run.wait(timeout=50)).is_success
    return run


async def test_experiments_are_pushed_listed_got_and_deleted(client: Client, server: LocalServer) -> None:
    """By name, by tag and by digest; the same content has one digest."""
    pushed = await client.push(server.example("demo"))
    again = await client.push(server.example("demo"))

    assert again.digest == pushed.digest
    for identifier in ("demo", "demo:latest", pushed.identifier):
        assert (await client.experiments.get(identifier)).digest == pushed.digest
    listed = await client.experiments.list()
    assert [one.identifier for one in listed] == [pushed.identifier]
    assert (listed.problems, listed.raw["problems"]) == ([], [])
    skeleton = await client.experiments.start_skeleton("demo")
    assert skeleton.payload["inputs"][0]["filename"] == "molecules.csv"
    assert skeleton.magic_values
    await client.experiments.delete("demo")
    with pytest.raises(UnknownExperiment):
        await client.experiments.get("demo")
    with pytest.raises(UnknownExperiment):
        await client.experiments.delete("demo")


async def test_a_bad_package_is_refused(client: Client, server: LocalServer) -> None:
    """By this library before it is sent, or by the service."""
    sent = len(server.requests)
    with pytest.raises(InvalidPackage, match=r"has fields \['bases'\]"):
        await client.push({"bases": {}})
    with pytest.raises(TypeError, match="a package must be a mapping or an Experiment, not str"):
        await client.push("demo")  # type: ignore[arg-type] # on purpose
    assert len(server.requests) == sent
    with pytest.raises(InvalidPackage, match="does not have a name"):
        await client.push({})


async def test_a_start_takes_an_identifier_or_an_experiment(client: Client, server: LocalServer) -> None:
    """A mapping or a model, a name, a tag, a digest, or what a push returned."""
    experiment = await client.push(server.example("demo"))
    payload = StartPayload.model_validate(MOLECULES)

    runs = [await client.start(what, payload) for what in ("demo", "demo:latest", experiment.identifier, experiment)]

    listed = {instance.id: instance for instance in await client.instances.list()}
    assert {run.id for run in runs} == set(listed)
    assert len(set(runs)) == 4
    assert client.run(runs[0].id) == runs[0]
    assert (await client.instances.get(runs[0].id)).experiment is not None


async def test_a_refused_start_says_why(client: Client, server: LocalServer) -> None:
    """Each mistake has an error of its own, and nothing was started."""
    await client.push(server.example("demo"))
    extra = {"inputs": [*MOLECULES["inputs"], {"filename": "x.csv", "content": "x"}]}

    with pytest.raises(MissingInputs) as missing:
        await client.start("demo")
    assert missing.value.names == ("molecules.csv",)
    with pytest.raises(ExtraInputs) as unwanted:
        await client.start("demo", extra)
    assert unwanted.value.names == ("x.csv",)
    with pytest.raises(InvalidPayload, match="variable nope"):
        await client.start("demo", {**MOLECULES, "variables": {"nope": 1}})
    with pytest.raises(UnknownExperiment, match=r"client\.experiments\.list"):
        await client.start("ghost", MOLECULES)
    with pytest.raises(InvalidPayload, match="did you mean 'inputs'"):
        await client.start("demo", {"input": []})
    with pytest.raises(ValueError, match="the identifier of an experiment"):
        await client.start("", MOLECULES)
    assert await client.instances.list() == []


async def test_a_start_under_a_policy_that_fails_says_so(client: Client, server: LocalServer) -> None:
    """The service fails on an unknown policy, so that the outcome of the start is unknown."""
    await client.push(server.example("demo"))

    with pytest.raises(StartOutcomeUnknown, match=r"'demo' was started \(with the runtimePolicy 'nope': "):
        await client.start("demo", {**MOLECULES, "runtimePolicy": {"name": "nope"}})

    assert await client.instances.list() == []


async def test_a_start_whose_answer_is_lost_is_in_doubt_and_not_repeated(client: Client, server: LocalServer) -> None:
    """The instance exists once; the error says that it may exist."""
    await client.push(server.example("demo"))
    server.faults.add("POST /experiments/demo/start", DropAfter())

    with pytest.raises(StartOutcomeUnknown, match=r"it is unknown whether an instance of 'demo' was started"):
        await client.start("demo", MOLECULES)

    assert len(await client.instances.list()) == 1


async def test_reads_survive_what_passes(client: Client, server: LocalServer) -> None:
    """A spell of bad gateways is not seen by the caller."""
    server.faults.add("GET /instances/", Html(502), times=2)

    assert await client.instances.list() == []


async def test_results_of_a_run(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Key-outputs unchanged, a folder as a zip, a file in it, and errors for missing ones."""
    run = await finished(server, client)

    outputs = await run.outputs()
    energies = await run.output("Energies")
    folder = await run.output("Folder")
    inside = await run.output("Folder", "sub/b.bin")

    assert set(outputs) == {"Energies", "Folder"}
    assert energies.text().splitlines()[0].startswith("input-id,smiles,energy")
    saved = await anyio.to_thread.run_sync(energies.save, tmp_path)
    assert saved == tmp_path / "energies.csv"
    names = zipfile.ZipFile(io.BytesIO(folder.content)).namelist()
    assert "/sub/b.bin" in names
    assert inside.filename == "b.bin"
    unpacked = await anyio.to_thread.run_sync(folder.unpack, tmp_path / "folder")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in unpacked) == sorted(f"folder{one}" for one in names)
    assert (tmp_path / "folder" / "sub" / "b.bin").read_bytes() == inside.content
    with pytest.raises(ValueError, match="is a file, not a folder"):
        energies.unpack(tmp_path)
    with pytest.raises(UnknownOutput) as unknown:
        await run.output("Nope")
    assert (unknown.value.name, set(unknown.value.known)) == ("Nope", {"Energies", "Folder"})
    assert "the run is over, so there will be no others" in str(unknown.value)
    with pytest.raises(UnknownOutput, match="did you mean 'Energies'"):
        await run.output("Energie")
    with pytest.raises(UnknownOutput) as nothing:
        await run.output("Folder", "none.txt")
    assert nothing.value.name == "Folder"
    assert "the key-output exists, but has no 'none.txt' in it" in str(nothing.value)
    with pytest.raises(ValueError, match="the path must be relative"):
        await run.output("Folder", "../../elaunch.yaml")


async def test_every_verb_takes_a_handle_or_a_rest_uid(client: Client, server: LocalServer) -> None:
    """A rest-uid in a text file is as good as the handle."""
    run = await finished(server, client)

    assert await client.status(run.id) == await client.status(run) == await run.status()
    assert await client.outputs(run.id) == await run.outputs()
    assert (await client.output(run.id, "Energies")).content == (await run.output("Energies")).content
    assert await client.wait(run.id) == await run.wait()
    assert [status.is_final async for status in run.watch()] == [True]
    await run.delete()
    for verb in (client.status, client.outputs, client.delete):
        with pytest.raises(UnknownRun, match=r"client\.instances\.list"):
            await verb(run.id)
    with pytest.raises(UnknownRun):
        await client.output(run.id, "Energies")


async def test_an_argument_that_is_not_a_run_is_an_error(client: Client) -> None:
    """The likeliest cause is a missing await."""
    coroutine = client.start("demo")
    for mistake in (coroutine, [coroutine], None, [None], 5):
        with pytest.raises(TypeError, match=r"a run must be a Run or a rest-uid, not .* \(is an 'await' missing"):
            await client.wait(mistake)  # type: ignore[arg-type] # on purpose
    coroutine.close()


async def test_several_runs_where_one_is_expected_are_an_error(client: Client, tmp_path: Path) -> None:
    """With the way to do it, and which verbs take several."""
    runs: Any = [client.run("demo-1"), client.run("demo-2")]
    with pytest.raises(TypeError, match=r"not list: this takes one run: call it for each, as with asyncio\.gather"):
        await client.download_outputs(runs, tmp_path)
    with pytest.raises(
        TypeError, match=r"not tuple: this takes one run.*; wait, watch_many and properties take several"
    ):
        await client.status(tuple(runs))  # type: ignore[arg-type] # on purpose


async def test_waiting_for_many(client: Client, server: LocalServer) -> None:
    """A list in the order given, one error for all that failed, raised when all have ended."""
    await client.push(server.example("demo"))
    server.outcome("demo", "component-failure", times=1)
    bad = await client.start("demo", MOLECULES)
    good = await client.start("demo", MOLECULES)
    await server.advance(120)

    statuses = await client.wait([good, bad.id], timeout=50)
    with pytest.raises(RunFailed) as caught:
        await client.wait([good, bad], timeout=50, check=True)

    assert [status.is_success for status in statuses] == [True, False]
    assert list(caught.value.failures) == [bad.id]
    assert caught.value.status == caught.value.failures[bad.id]
    assert bad.id in str(caught.value)
    assert await client.wait([]) == []


async def test_waiting_too_long(client: Client, server: LocalServer) -> None:
    """The error carries the last status of each run that is not over, and says how to return."""
    await client.push(server.example("demo"))
    server.outcome("demo", "stuck")
    runs = [await client.start("demo", MOLECULES) for _ in range(2)]

    with pytest.raises(WaitTimeout) as caught:
        await client.wait(runs, timeout=0.1)
    with pytest.raises(WaitTimeout):
        await runs[0].wait(timeout=0)

    assert set(caught.value.last_statuses) == {run.id for run in runs}


async def test_among_many_a_deleted_run_ends_as_deleted(client: Client, server: LocalServer) -> None:
    """The others are waited for; one that never existed is an error."""
    await client.push(server.example("demo"))
    server.outcome("demo", "stuck", times=1)
    gone = await client.start("demo", MOLECULES)
    stays = await client.start("demo", MOLECULES)
    statuses = []

    async def wait() -> None:
        statuses.extend(await client.wait([gone, stays], timeout=50))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        # Both were seen once they are asked for again.
        await until(lambda: server.traffic["GET /instances/*/status"].requests > 2)
        await gone.delete()
        await server.advance(120)

    assert [(status.is_final, status.is_deleted, status.is_success) for status in statuses] == [
        (True, True, False),
        (True, False, True),
    ]
    again, ghost = await client.wait([stays, "ghost-1"], timeout=50)
    assert (again.is_success, ghost.is_deleted, ghost.is_pending) == (True, True, True)
    with pytest.raises(UnknownRun):
        await client.wait(["ghost-1", "ghost-2"], timeout=50)


OUTCOMES = {
    "success": True,
    "state-first": True,
    "component-failure": False,
    "setup-failure": False,
    "unscheduled": True,
    "init-failure": False,
    "killed": False,
    "image-pull": True,
    "unschedulable": True,
    "killed-after-failure": False,
    "monitor-stuck": True,
    "stopped": False,
}


@pytest.mark.parametrize(("outcome", "success"), OUTCOMES.items(), ids=OUTCOMES.keys())
async def test_every_end_of_a_run_is_seen(server: LocalServer, outcome: str, success: bool) -> None:
    """Runs that never get an exit-status end after the grace period; the others when they say so."""
    config = Config(poll_interval=0.02, grace=0.2)
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        await client.push(server.example("demo"))
        server.outcome("demo", outcome)
        run = await client.start("demo", MOLECULES)
        await server.advance(3600)

        status = await run.wait(timeout=50)

    assert status.is_final
    assert status.is_success is success


async def test_many_requests_at_once_stay_within_the_bound(client: Client, server: LocalServer) -> None:
    """A hundred awaits, eight in flight; none fails while it waits."""
    run = await finished(server, client)
    statuses = []

    async def ask() -> None:
        statuses.append(await run.status())

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(ask)

    assert len(statuses) == 100
