"""Names of our own are reserved on every way by which a server's files come into a target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st4sd_async import Client, Download, Output, Run
from st4sd_async.local import LocalServer
from tests.results.archives import zip_of
from tests.results.demo_runs import COMPUTE, MANIFEST, described, directory, failures, finished, tree, upsert, whole
from tests.tries import sample

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

OURS = [
    MANIFEST,
    ".st4sd-results.part/file",
    ".ST4SD-downloads.jsonl",
    ".st4sd-Results.PART/file",
    ".\u017ft4sd-x.part/y",
]
NAMES = pytest.mark.parametrize("name", sample(OURS, 3))


def leave(server: LocalServer, run: Run, path: str) -> Path:
    """Let a run have left a file below its directory."""
    file = directory(server, run) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"forged\n")
    return file


def manifest(target: Path) -> list[dict[str, object]]:
    """The lines of a target's manifest, of which each is ours."""
    return [json.loads(line) for line in (target / MANIFEST).read_text().split("\n") if line]


@NAMES
async def test_of_files_of_components(client: Client, server: LocalServer, tmp_path: Path, name: str) -> None:
    """The file comes under another name, what was there stays, and the next call fetches nothing."""
    run = await finished(client, server)
    before = whole(await run.download_files(tmp_path, filename="energies"))
    lines = manifest(tmp_path)
    folders = ["", f"{COMPUTE}/", f"{COMPUTE}/deep/"]
    files = [str(leave(server, run, f"{folder}{name}")) for folder in folders]
    (document, *_) = await run.components()
    await upsert(client, document.raw | {"files": [*document.files, *files]})

    found = whole(await run.download_files(tmp_path, component="Compute"))
    again = whole(await run.download_files(tmp_path, component="Compute"))

    for folder, file in zip(folders, files, strict=True):
        came = [one for one in found if one.source.endswith(file)]
        assert [one.path for one in came] == [tmp_path / f"{folder}_{name}"]
    assert again == found
    assert manifest(tmp_path)[: len(lines)] == lines
    assert before[0].path.is_file()


async def test_a_name_that_is_too_long_for_the_disk_is_a_failure_of_its_file(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """With a ``_`` in front it has 256 bytes; the other files are there."""
    run = await finished(client, server)
    leave(server, run, f"{COMPUTE}/{'.st4sd-'.ljust(255, 'x')}")

    found = await run.download_files(tmp_path, component="Compute")

    (failed,) = failures(found)
    assert "File name too long" in str(failed.error)
    assert len(whole([one for one in found if one is not failed])) > 1


@NAMES
async def test_of_the_directory_of_a_component(client: Client, server: LocalServer, tmp_path: Path, name: str) -> None:
    """Neither the manifest nor a file in a folder like ours is lost."""
    run = await finished(client, server)
    leave(server, run, f"{COMPUTE}/{name}")
    leave(server, run, f"{COMPUTE}/deep/{name}")

    found = whole(await run.download_component(0, "Compute", tmp_path))

    assert await run.download_component(0, "Compute", tmp_path) == found
    assert {tmp_path / f"_{name}", tmp_path / f"deep/_{name}"} <= {one.path for one in found}
    assert len(manifest(tmp_path)) == 1


@NAMES
async def test_of_an_unpacked_key_output(client: Client, server: LocalServer, tmp_path: Path, name: str) -> None:
    """Also if the key-output is called so itself."""
    top, _, rest = name.partition("/")
    outputs: dict[str, bytes | dict[str, bytes]] = {"Folder": {name: b"forged\n", "good": b"1"}}
    if top != "Folder" and top.isascii():
        outputs[top] = {rest or "x": b"forged\n"}
    run = await described(client, server, **outputs)

    found = whole(await run.download_outputs(tmp_path, unpack=True))

    assert await run.download_outputs(tmp_path, unpack=True) == found
    assert {one.path for one in found} >= {tmp_path / f"Folder/_{name}", tmp_path / "Folder/good"}
    assert len(found) == len(outputs) + 1
    assert len(manifest(tmp_path)) == len(outputs)


@NAMES
def test_of_an_archive_that_is_unpacked_by_hand(tmp_path: Path, name: str) -> None:
    """Into a folder with downloads."""
    (tmp_path / MANIFEST).write_bytes(b"lines")
    output = Output("Folder", "x.zip", zip_of(f"/{name}", f"/sub/{name}", "/good"), media_type="application/zip")

    found = output.unpack(tmp_path)

    assert found == [tmp_path / f"_{name}", tmp_path / f"sub/_{name}", tmp_path / "good"]
    assert all(path.is_file() for path in found)
    assert (tmp_path / MANIFEST).read_bytes() == b"lines"


def test_of_an_empty_folder_of_an_archive(tmp_path: Path) -> None:
    """The next download would remove it, with what the user put there."""
    Output("F", "x.zip", zip_of("/.st4sd-x.part/"), media_type="application/zip").unpack(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["_.st4sd-x.part"]


def test_of_a_file_that_is_saved(tmp_path: Path) -> None:
    """Whatever the service calls it."""
    (tmp_path / MANIFEST).write_bytes(b"lines")

    assert Output("x", MANIFEST, b"forged").save(tmp_path) == tmp_path / f"_{MANIFEST}"
    assert Output("x", f"../{MANIFEST.upper()}", b"forged").save(tmp_path) == tmp_path / f"_{MANIFEST.upper()}"
    assert (tmp_path / MANIFEST).read_bytes() == b"lines"


async def test_two_files_that_would_get_one_name_are_not_both_complete(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """One that is called like the replacement of another, and one that is listed with a slash too many."""
    run = await finished(client, server)
    for name in (MANIFEST, f"_{MANIFEST}"):
        leave(server, run, f"{COMPUTE}/{name}").write_bytes(name.encode())
    (document, *_) = await run.components()
    await upsert(client, document.raw | {"files": [*document.files, f"{directory(server, run)}//{COMPUTE}/out.stdout"]})

    found = await run.download_files(tmp_path / "files", component="Compute")
    (component,) = await run.download_component(0, "Compute", tmp_path / "component")

    places = [one.path for one in found if isinstance(one, Download)]
    assert len(places) == len(set(places)) == len(document.files) - 1
    assert [str(one.error).count("would be in the same place as") for one in failures(found)] == [1, 1]
    assert len(failures([component])) == 1
    assert tree(tmp_path / "component") == {}
