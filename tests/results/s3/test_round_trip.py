"""Files go into a bucket, from there into a run, and its key-outputs come back through a bucket."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from st4sd_async import Client, Download, FileContent, NotReady, ProgressUpdate, Volume
from st4sd_async.local import LocalServer
from tests.local.helpers import definition
from tests.results.s3.storage import DEMO, KEY_ID, MOLECULES, SECRET, Storage, demo, ended

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.slow]  # the service is slow where the machine is


async def test_twenty_files_go_in_and_the_key_outputs_come_back(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """All of them arrive in the run as they were, and what it uploads is byte for byte what it left behind."""
    files = {f"in{number}.bin": bytes([number, 255, 0]) * (number * 700) for number in range(19)}
    files["molecules.csv"] = MOLECULES
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    outputs: dict[str, bytes | dict[str, bytes]] = {
        "Table": b"\x00\xff" * 5000,
        "Folder": {"a.bin": b"a", "sub/b.bin": b"b" * 3000},
    }
    server.describe("many", inputs=list(files), outputs={**outputs})
    await client.push(definition("many"))

    staged = await client.stage_inputs([tmp_path / name for name in files], storage.s3())
    draft = await client.draft("many")
    draft.use(staged)
    run = await client.start(draft.identifier, draft.filled({"s3Store": storage.store("out/1")}))
    await ended(server, run)
    found = await run.fetch_s3_outputs(tmp_path / "back", store=storage.store("out/1"), strict=True)

    directory = server.directory(run.id)
    assert directory is not None
    assert {path.name: path.read_bytes() for path in (directory / "input").iterdir()} == files
    assert {key for key in storage.listed() if key.startswith("out/")} == {
        "out/1/Table",
        "out/1/Folder/a.bin",
        "out/1/Folder/sub/b.bin",
    }
    assert [one.path.relative_to(tmp_path / "back").as_posix() for one in found] == [
        "Table/Table",
        "Folder/a.bin",
        "Folder/sub/b.bin",
    ]
    for one in found:
        assert isinstance(one, Download)
        left = (directory / "stages/stage1/Compute" / one.source.split("out/1/")[1]).read_bytes()
        assert one.path.read_bytes() == left
        assert (one.size, one.sha256) == (len(left), hashlib.sha256(left).hexdigest())


async def test_a_renamed_file_and_an_empty_one_come_from_a_prefix(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """The name that the experiment sees is that of the mapping; the prefix may be the root; nothing is too small."""
    (tmp_path / "local.txt").write_bytes(MOLECULES)
    (tmp_path / "empty").write_bytes(b"")

    staged = await client.stage_inputs({"molecules.csv": tmp_path / "local.txt"}, storage.s3(), prefix="/a b/ü:1/")
    data = await client.stage_inputs({"weights.csv": tmp_path / "empty"}, storage.s3(), prefix="")
    run = await client.start("demo", {**staged.as_inputs(), **data.as_data()})
    await ended(server, run)

    assert sorted(storage.listed()) == ["a b/ü:1/molecules.csv", "weights.csv"]
    directory = server.directory(run.id)
    assert directory is not None
    assert (directory / "input/molecules.csv").read_bytes() == MOLECULES
    assert (directory / "data/weights.csv").read_bytes() == b""


async def test_a_run_may_have_its_own_folder_in_the_bucket(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """The name of the run's directory is put in on both sides; before that is known, it is not ready."""
    store = storage.store("out/%(instanceDir)s/")
    payload = {"inputs": [{"filename": "molecules.csv", "content": "index,smiles\n0,CCO\n"}], "s3Store": store}
    run = await client.start("demo", payload)
    with pytest.raises(NotReady, match="which has none yet"):
        await client.fetch_s3_outputs(run, tmp_path, store=store)
    await ended(server, run)

    found = await client.fetch_s3_outputs(run, tmp_path, store=store, names="Energies")

    meta = (await run.status()).meta
    assert meta is not None
    assert f"out/{meta.instance_name}/energies.csv" in storage.listed()
    assert [one.path for one in found] == [tmp_path / "Energies/energies.csv"]


async def test_what_is_there_is_not_fetched_again_and_what_is_new_is(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """An object is known by its version; a folder is not confused with its neighbours."""
    run = await demo(client, server, storage.store())
    updates: list[ProgressUpdate] = []
    again = client.with_options(progress=updates.append)
    first = await client.fetch_s3_outputs(run, tmp_path, store=storage.store())
    storage.put("workflow_instances/energies.csv.bak", b"not asked for")

    same = await again.fetch_s3_outputs(run, tmp_path, store=storage.store())
    nothing_came = updates[-1]
    storage.put("workflow_instances/energies.csv", b"newer")
    await again.fetch_s3_outputs(run, tmp_path, store=storage.store())

    assert same == first
    assert (nothing_came.received, nothing_came.done, nothing_came.total) == (0, 3, 3)
    assert updates[-1].received == len(b"newer")
    assert (tmp_path / "Energies/energies.csv").read_bytes() == b"newer"


async def test_progress_counts_files_and_bytes(client: Client, storage: Storage, tmp_path: Path) -> None:
    """A large file is sent in parts, and each part is an update."""
    (tmp_path / "large").write_bytes(b"x" * (9 << 20))
    (tmp_path / "small").write_bytes(b"y")
    updates: list[ProgressUpdate] = []
    told = client.with_options(progress=updates.append)

    await told.stage_inputs([tmp_path / "large", tmp_path / "small"], storage.s3(), prefix="p")

    assert (updates[0].done, updates[0].received, updates[0].is_over) == (0, 0, False)
    assert (updates[-1].done, updates[-1].total, updates[-1].unit, updates[-1].is_over) == (2, 2, "files", True)
    assert updates[-1].received == (9 << 20) + 1
    assert len({update.received for update in updates}) > 9
    assert storage.get("p/large") == b"x" * (9 << 20)


@pytest.mark.parametrize("kind", ["persistentVolumeClaim", "configMap", "secret", "dataset"])
async def test_inputs_come_from_volumes(client: Client, server: LocalServer, tmp_path: Path, kind: str) -> None:
    """A folder stands for the volume; a path in it, or below a path in it, and another name."""
    folder = {"subPath": "sub"} if kind in ("persistentVolumeClaim", "dataset") else {}
    path = tmp_path.joinpath(*folder.values(), "deep", "m.csv")
    path.parent.mkdir(parents=True)
    path.write_bytes(MOLECULES)
    server.mount(kind, "mine", tmp_path)
    draft = await client.draft("demo")
    draft.inputs["molecules.csv"] = FileContent(
        sourceFilename="deep/m.csv", targetFilename="molecules.csv", volume="disk"
    )
    volume = Volume.model_validate({"type": {kind: "mine"}, "identifier": "disk", **folder})

    run = await client.start(draft.identifier, draft.filled({"volumes": [volume]}))
    await ended(server, run)

    directory = server.directory(run.id)
    assert directory is not None
    assert (directory / "input/molecules.csv").read_bytes() == MOLECULES


async def test_inputs_come_from_a_dataset(client: Client, server: LocalServer, storage: Storage) -> None:
    """A bucket that the deployment knows by name needs no keys in the payload."""
    storage.put("folder/m.csv", MOLECULES)
    await client.datasets.create("inputs", storage.s3())

    inputs = [{"filename": "folder/m.csv:molecules.csv"}]
    run = await client.start("demo", {"inputs": inputs, "s3": {"dataset": "inputs"}})
    await ended(server, run)

    directory = server.directory(run.id)
    assert directory is not None
    assert (directory / "input/molecules.csv").read_bytes() == MOLECULES


async def test_a_lambda_takes_its_data_from_a_bucket_and_uploads_to_a_dataset(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """Of a named experiment the service takes the address of a dataset too, and uploads nothing."""
    await client.datasets.create("outputs", storage.s3())
    (tmp_path / "d.txt").write_bytes(b"\xff")
    staged = await client.stage_inputs([tmp_path / "d.txt"], storage.s3(), prefix="in")
    component = {"name": "A", "command": {"executable": "echo"}}
    flowir = {"components": [component], "output": {"Out": {"data-in": "stage0.A/out.stdout:copy"}}}
    data = [{"filename": "in/d.txt"}]

    made = await client.start_lambda(
        {"lambdaFlowIR": flowir, "data": data, "s3": staged.s3, "datasetStoreURI": "dataset://outputs/one"},
        validate=False,
    )
    await ended(server, made)
    await demo(client, server, None, datasetStoreURI="dataset://outputs/two")

    directory = server.directory(made.id)
    assert directory is not None
    assert (directory / "data/d.txt").read_bytes() == b"\xff"
    assert sorted(storage.listed()) == ["in/d.txt", "one/out.stdout"]


@pytest.mark.slow(seconds=8)
@pytest.mark.timeout(120)
async def test_the_orchestrator_itself_lays_them_out_alike(storage: Storage, tmp_path: Path) -> None:
    """A real run takes its input from a bucket, and uploads to where the simulator does."""
    store = storage.store("out/%(instanceDir)s")
    (tmp_path / "molecules.csv").write_bytes(MOLECULES)
    with LocalServer(engine="elaunch") as server:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))
            staged = await client.stage_inputs([tmp_path / "molecules.csv"], storage.s3())
            run = await client.start("demo", {**staged.as_inputs(), "s3Store": store})
            await run.wait(timeout=90, interval=0.1, check=True)
            real = await client.fetch_s3_outputs(run, tmp_path / "real", store=store, strict=True)
            directory = server.directory(run.id)
            assert directory is not None
            kept = "".join(path.read_text(errors="replace") for path in directory.parent.rglob("*.log"))
            arguments = (await client.instances.get(run.id)).status.raw

    assert [one.path.relative_to(tmp_path / "real").as_posix() for one in real] == DEMO
    assert KEY_ID not in f"{kept}{arguments}"
    assert SECRET not in f"{kept}{arguments}"
