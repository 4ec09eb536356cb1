"""Nothing outside of a target is written, deleted or believed, also if a link leads there from inside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, Download, DownloadError, DownloadFailed, Run
from st4sd_async.local import LocalServer, Reply
from tests.results.demo_runs import (
    ARCHIVE,
    COMPUTE,
    DEMO,
    FILES,
    JSON,
    OUTPUT,
    described,
    directory,
    failures,
    finished,
    listed,
    tree,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

VERBS = ["files", "component", "outputs"]
INNER = {"files": COMPUTE, "component": "results/sub", "outputs": "Folder/sub"}
"""A folder below the target that the verb fills."""


async def download(verb: str, run: Run, to: Path) -> list[Download | DownloadFailed]:
    """Download by that verb."""
    if verb == "files":
        return await run.download_files(to)
    if verb == "component":
        return await run.download_component(1, "Report", to)
    return await run.download_outputs(to, unpack=True)


def moved(folder: Path, away: Path) -> dict[str, tuple[bytes, int, int]]:
    """Move a folder elsewhere and leave a link in its place; return what is there, with times and inodes."""
    away.parent.mkdir(exist_ok=True)
    folder.rename(away)
    folder.symlink_to(away, target_is_directory=True)
    return seen(away)


def seen(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """All files below a folder, with their times and inodes."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }


async def newer(client: Client, server: LocalServer, run: Run, *gone: str) -> None:
    """Let there be a second version of the key-output ``Folder``, which lacks some files."""
    for name in gone:
        (directory(server, run) / "stages/stage1/Compute/Folder" / name).unlink()
    entries = {"Folder": {"filename": "Folder", "filepath": "stages/stage1/Compute/Folder", "version": "2"}}
    server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, json.dumps(entries).encode()), times=None)


async def test_a_newer_version_deletes_nothing_behind_a_link(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A subfolder that the user moved to another disk is left alone, though the newer version lacks its file."""
    target = tmp_path / "target"
    run = await described(client, server, Folder={"same": b"1", "sub/gone": b"2", "deep/er/gone": b"3"})
    await run.download_outputs(target, unpack=True)
    sub = moved(target / "Folder/sub", tmp_path / "disk/sub")
    deep = moved(target / "Folder/deep", tmp_path / "disk/deep")
    await newer(client, server, run, "sub/gone", "deep/er/gone")

    await run.download_outputs(target, unpack=True)

    assert seen(tmp_path / "disk/sub") == sub
    assert seen(tmp_path / "disk/deep") == deep
    assert (target / "Folder/same").read_bytes() == b"1"


@pytest.mark.parametrize("verb", VERBS)
async def test_a_folder_that_became_a_link_is_a_clear_failure(
    client: Client, server: LocalServer, tmp_path: Path, verb: str
) -> None:
    """What is behind it stays as it is, so does the rest; the message says what to do; nothing is fetched twice."""
    target, inner = tmp_path / "target", INNER[verb]
    run = await finished(client, server)
    first = await download(verb, run, target)
    outside = moved(target / inner, tmp_path / "disk/moved")
    inside = {path: data for path, data in tree(target).items() if not path.startswith(f"{inner}/")}

    before = sum(server.traffic[kind].requests for kind in (FILES, ARCHIVE, OUTPUT))
    second = await download(verb, run, target)

    assert failures(first) == []
    assert sum(server.traffic[kind].requests for kind in (FILES, ARCHIVE, OUTPUT)) - before <= 1
    failed = failures(second)
    assert failed
    for one in failed:
        assert isinstance(one.error, DownloadError)
        assert f"{inner!r} is in the target already, as a symbolic link" in str(one.error)
        assert "put a folder in its place, or use another target" in str(one.error)
    assert seen(tmp_path / "disk/moved") == outside
    assert {path: data for path, data in tree(target).items() if path in inside} == inside
    if verb == "files":
        assert len(failed) == len([name for name in DEMO if name.startswith(COMPUTE)])


@pytest.mark.parametrize("verb", VERBS)
async def test_once_the_folder_is_back_all_is_there(
    client: Client, server: LocalServer, tmp_path: Path, verb: str
) -> None:
    """Nothing was lost, and nothing is fetched again."""
    target, inner = tmp_path / "target", INNER[verb]
    run = await finished(client, server)
    before = await download(verb, run, target)
    moved(target / inner, tmp_path / "disk/moved")
    await download(verb, run, target)
    (target / inner).unlink()
    (tmp_path / "disk/moved").rename(target / inner)

    again = await download(verb, run, target)

    assert again == before
    assert "disk" in listed(tmp_path)


@pytest.mark.parametrize("verb", VERBS)
async def test_the_target_itself_may_be_a_link(client: Client, server: LocalServer, tmp_path: Path, verb: str) -> None:
    """The user chose it."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "target").symlink_to("disk")
    run = await finished(client, server)

    found = await download(verb, run, tmp_path / "target")

    assert failures(found) == []
    assert tree(tmp_path / "disk") == tree(tmp_path / "target") != {}


async def test_a_manifest_without_end_is_a_clear_error(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Another user may leave a file of 200 GB that takes no room; it does not have to fit into memory."""
    run = await finished(client, server)
    manifest = tmp_path / ".st4sd-downloads.jsonl"
    manifest.touch()
    os.truncate(manifest, 200 << 30)

    for verb in VERBS:
        with pytest.raises(DownloadError, match="it has more than 268435456 bytes: remove it"):
            await download(verb, run, tmp_path)

    assert listed(tmp_path) == [manifest.name]


async def test_a_manifest_names_no_file_elsewhere(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """A line with an absolute path, or one that leads up, neither passes for a download nor has a file deleted."""
    target, precious = tmp_path / "target", tmp_path / "precious"
    precious.write_bytes(b"mine")
    run = await described(client, server, Folder={"same": b"1", "gone": b"2"})
    await run.download_outputs(target, unpack=True)
    await newer(client, server, run, "gone")
    (line,) = [one for one in (target / ".st4sd-downloads.jsonl").read_text().split("\n") if one]
    origin, _ = json.loads(line)
    modified = precious.stat().st_mtime_ns
    lines = [
        [[origin[0], stamp], [[path, "x", 4, "", modified]]]
        for path in (str(precious), f"/{precious}", "../precious", "Folder/../../precious")
        for stamp in (origin[1], "")
    ]
    same = target / str(precious).strip("/")
    same.parent.mkdir(parents=True)
    os.link(precious, same)

    for forged in lines:
        (target / ".st4sd-downloads.jsonl").write_text("\n".join(map(json.dumps, [forged, ""])))
        found: list[Any] = await run.download_outputs(target, unpack=True)

        assert [one.path for one in found] == [target / "Folder/same"]
        assert precious.read_bytes() == b"mine"
