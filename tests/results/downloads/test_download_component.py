"""Whole components through sockets: what the docstring of `download_component` promises, sentence by sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, DownloadFailed, NotFound, St4sdError
from st4sd_async.local import BadJson, CutBody, Html, LocalServer
from tests.results.demo_runs import (
    ARCHIVE,
    COMPUTE,
    MANIFEST,
    REPORT,
    count_requests,
    directory,
    failures,
    finished,
    names,
    running,
    tree,
    uri,
    whole,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_component_is_fetched_as_a_whole(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """What is in its directory is in the folder; empty folders are lost, other files there stay."""
    run = await finished(client, server)
    source = directory(server, run) / REPORT
    (source / "empty").mkdir()
    (source / "ü b.txt").write_bytes(b"1")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_bytes(b"2")
    (tmp_path / "new" / "out.stdout").write_bytes(b"old")

    found = await run.download_component(1, "Report", str(tmp_path / "new"))

    assert tree(tmp_path / "new") == {**tree(source), "mine": b"2"}
    assert sorted(names(found, tmp_path / "new")) == sorted(tree(source))
    assert not (tmp_path / "new" / "empty").exists()
    uris = {one.source.removeprefix(f"{uri(server, run)}/{REPORT}/") for one in found}
    assert uris == set(tree(source))


async def test_a_component_that_is_there_is_not_fetched_again(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Unless one of its files is changed or gone, and by its location too."""
    run = await finished(client, server)
    before = server.traffic[ARCHIVE].requests
    first = await run.download_component(1, "Report", tmp_path)
    for given in (run.id, uri(server, run)):
        assert await client.download_component(given, 1, "Report", tmp_path) == first
    assert server.traffic[ARCHIVE].requests == before + 1

    (tmp_path / "out.stdout").write_bytes(b"changed")
    assert await run.download_component(1, "Report", tmp_path) == first
    whole(first)
    assert server.traffic[ARCHIVE].requests == before + 2


async def test_a_component_that_runs_is_fetched_as_it_is_now(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Each time anew."""
    run = await running(client, server)
    log = directory(server, run) / COMPUTE / "out.stdout"
    log.parent.mkdir(parents=True)

    for content in (b"1", b"2", b"3"):
        log.write_bytes(content)
        (found,) = whole(await run.download_component(0, "Compute", tmp_path))
        assert found.path.read_bytes() == content


async def test_a_directory_without_files_is_empty(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """That is no failure."""
    run = await running(client, server)
    (directory(server, run) / COMPUTE / "sub").mkdir(parents=True)

    assert await run.download_component(0, "Compute", tmp_path, strict=True) == []
    assert tree(tmp_path) == {}


async def test_the_name_of_a_component_is_exact(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """What is not there is one failure, which names those that are; with ``strict`` it is raised."""
    run = await finished(client, server)

    for stage, name in ((0, "Comp"), (0, "compute"), (1, "Compute"), (7, "Compute"), (0, "C.*")):
        (failed,) = failures(await run.download_component(stage, name, tmp_path))

        assert failed.path == tmp_path
        assert failed.source == f"{uri(server, run)}/stages/stage{stage}/{name}"
        assert isinstance(failed.error, NotFound)
        assert failed.error.advice is not None
        assert "['stage0.Compute', 'stage1.Report']" in failed.error.advice
        assert tree(tmp_path) == {}

    with pytest.raises(NotFound):
        await run.download_component(7, "Compute", tmp_path, strict=True)


@pytest.mark.parametrize("fault", [CutBody(300), BadJson(), Html(502)], ids=["cut", "half", "502"])
async def test_a_component_comes_whole_or_not_at_all(
    client: Client, server: LocalServer, tmp_path: Path, fault: Any
) -> None:
    """One failure for all of it; what was there is as it was, and a repeated call completes."""
    run = await finished(client, server)
    (tmp_path / "out.stdout").write_bytes(b"old")
    server.faults.add(ARCHIVE, fault, times=None)

    (failed,) = await run.download_component(1, "Report", tmp_path)

    assert isinstance(failed, DownloadFailed)
    assert isinstance(failed.error, St4sdError)
    assert tree(tmp_path) == {"out.stdout": b"old"}
    server.faults.clear()
    assert len(whole(await run.download_component(1, "Report", tmp_path))) == 4


async def test_a_manifest_in_a_component_does_not_replace_that_of_the_target(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A component that downloads something with this library leaves one in its directory."""
    run = await finished(client, server)
    (directory(server, run) / COMPUTE / MANIFEST).write_text("{}\n")
    await run.download_component(0, "Compute", tmp_path)

    assert await count_requests(server, ARCHIVE, run.download_component(0, "Compute", tmp_path)) == 0


async def test_a_temporary_folder_in_a_component_is_not_removed_from_the_target(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A component that was killed while it downloaded something leaves one in its directory."""
    run = await finished(client, server)
    left = directory(server, run) / COMPUTE / ".st4sd-abc.part"
    left.mkdir()
    (left / "0").write_bytes(b"1")
    found = await run.download_component(0, "Compute", tmp_path)

    await run.download_files(tmp_path, filename="energies")

    assert len(whole(found)) == 5


async def test_a_component_may_be_named_by_its_reference(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """As everywhere; it is the same directory."""
    run = await finished(client, server)

    found = await run.download_component(1, "stage1.Report", tmp_path)

    assert await count_requests(server, ARCHIVE, run.download_component(1, "Report", tmp_path)) == 0
    assert whole(found)


async def test_what_is_wrong_shows_in_a_list_of_outcomes(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Its repr shows what exists."""
    run = await finished(client, server)

    found = await run.download_component(0, "Compte", tmp_path)

    assert "the run has ['stage0.Compute', 'stage1.Report']" in repr(found)
