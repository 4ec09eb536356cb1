"""On a disk that ignores case and Unicode form no file is lost without an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st4sd_async import Client, Download, DownloadError, DownloadFailed, Output, Run
from st4sd_async.local import LocalServer, Reply
from tests.results.archives import zip_of
from tests.results.demo_runs import COMPUTE, JSON, count_requests, described, directory, finished, tree, upsert

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

NAMES = ["Data.csv", "data.csv", "SUB/x", "sub/X", "sub/y", "\u00e9", "e\u0301"]
"""What a component leaves on a disk that distinguishes them."""
TWINS = ["data.csv", "sub/X", "e\u0301"]
"""Those that another disk takes for an earlier one."""


async def leave(client: Client, server: LocalServer, run: Run, *names: str) -> None:
    """Let a component have left files; each holds its own name."""
    (document, *_) = await run.components()
    folder = directory(server, run) / COMPUTE
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    await upsert(client, document.raw | {"files": [str(folder / name) for name in names]})


def names(found: list[Download | DownloadFailed], kind: type, target: Path) -> list[str]:
    """Paths below the component's folder."""
    return [str(one.path.relative_to(target / COMPUTE)) for one in found if isinstance(one, kind)]


def folder(*members: str) -> Output:
    """A key-output that is a folder with these members."""
    return Output("Folder", "Folder.zip", zip_of(*members), "application/zip")


@pytest.mark.usefixtures("blind")
async def test_of_files_of_components_the_second_is_a_failure(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """It names the first, which is there; so it is the next time, when nothing is fetched."""
    run = await finished(client, server)
    await leave(client, server, run, *NAMES)

    first = await run.download_files(tmp_path, component="Compute")
    before = tree(tmp_path)
    requests = await count_requests(
        server, "POST /ds-gateway/files/api/v1.1", run.download_files(tmp_path, component="Compute")
    )
    second = await run.download_files(tmp_path, component="Compute")

    assert names(first, DownloadFailed, tmp_path) == TWINS
    assert names(first, Download, tmp_path) == [name for name in NAMES if name not in TWINS]
    assert before[f"{COMPUTE}/data.csv".casefold()] == b"Data.csv"
    assert before[f"{COMPUTE}/sub/x".casefold()] == b"SUB/x"
    (failure, *_) = (one for one in first if isinstance(one, DownloadFailed))
    assert f"would be in the same place as '{COMPUTE}/Data.csv'" in str(failure.error)
    assert (names(second, DownloadFailed, tmp_path), tree(tmp_path)) == (TWINS, before)
    assert requests == 0


@pytest.mark.usefixtures("blind")
async def test_what_an_earlier_call_fetched_is_not_replaced(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Until it is removed."""
    run = await finished(client, server)
    await leave(client, server, run, "Data.csv", "data.csv")

    async def download(name: str) -> list[Download | DownloadFailed]:
        return await run.download_files(tmp_path, component="Compute", filename=f"^{name}$")

    first, refused = await download("Data.csv"), await download("data.csv")
    file = tmp_path / COMPUTE.casefold() / "data.csv"
    before = file.read_text()
    file.unlink()
    second = await download("data.csv")

    assert [type(one) for one in (*first, *refused, *second)] == [Download, DownloadFailed, Download]
    assert (before, file.read_text()) == ("Data.csv", "data.csv")


async def test_on_a_disk_that_distinguishes_them_all_are_there(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """None is refused for what other disks would do."""
    run = await finished(client, server)
    await leave(client, server, run, *NAMES)

    found = await run.download_files(tmp_path, component="Compute")

    assert [one.path.read_text() for one in found if isinstance(one, Download)] == NAMES


@pytest.mark.usefixtures("blind")
async def test_a_newer_version_that_spells_a_name_otherwise_is_there(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """It is not deleted for the old one whose place it has taken."""
    run = await described(client, server, Folder={"Same": b"1", "Gone": b"2"})
    await run.download_outputs(tmp_path, unpack=True)
    left = directory(server, run) / "stages/stage1/Compute/Folder"
    (left / "Gone").unlink()
    (left / "Same").rename(left / "same")
    entries = {"Folder": {"filename": "Folder", "filepath": "stages/stage1/Compute/Folder", "version": "2"}}
    server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, json.dumps(entries).encode()), times=None)

    await run.download_outputs(tmp_path, unpack=True)

    assert {path: data for path, data in tree(tmp_path).items() if "st4sd" not in path} == {"folder/same": b"1"}


@pytest.mark.usefixtures("blind")
def test_names_of_ours_that_become_twins_are_refused(tmp_path: Path) -> None:
    """An archive whose names would be the same only after they were replaced."""
    hostile = folder(".ST4SD-x", "_.st4sd-x", "a")

    with pytest.raises(DownloadError, match=r"'_\.st4sd-x' would be in the same place as '_\.ST4SD-x'"):
        hostile.unpack(tmp_path)

    assert tree(tmp_path) == {}


@pytest.mark.parametrize("members", [(".st4sd-x/y", "_.st4sd-x", "a"), ("_.st4sd-x", ".st4sd-x/y", "a")])
def test_nothing_is_unpacked_if_one_of_our_names_would_be_a_file_and_a_folder(
    tmp_path: Path, members: tuple[str, ...]
) -> None:
    """All of an archive or nothing."""
    with pytest.raises(DownloadError, match=r"'_\.st4sd-x' would be a file and a folder"):
        folder(*members).unpack(tmp_path)

    assert list(tmp_path.iterdir()) == []
