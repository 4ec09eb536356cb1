"""Files that are read through sockets: what the docstring of `read_file` promises, sentence by sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from st4sd_async import Client, DownloadError, NotFound, NotReady, UnknownRun
from st4sd_async.local import BadJson, CutBody, LocalServer
from tests.conftest import ServersClock
from tests.results.demo_runs import (
    COMPUTE,
    DEMO,
    FILES,
    GATEWAY,
    INPUTS,
    MIB,
    REPORT,
    directory,
    finished,
    running,
    start,
    uri,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_file_is_read_by_any_name_of_the_run_and_either_path(client: Client, server: LocalServer) -> None:
    """A handle, an id or a location; relative or absolute, as documents have it."""
    run = await finished(client, server)
    absolute = (await run.components())[0].files[0]
    content = (directory(server, run) / DEMO[0]).read_bytes()

    for same in (run, run.id, uri(server, run), f"{uri(server, run)}/"):
        for path in (f"{COMPUTE}/energies.csv", absolute):
            assert await client.read_file(same, path) == content
    assert await run.read_file("output/experiment.log") != b""
    assert await run.read_file(f"{COMPUTE}/out.stderr") == b""


async def test_a_path_that_leads_elsewhere_is_not_asked_for(client: Client, server: LocalServer) -> None:
    """It raises ValueError; for a location no request is sent."""
    run = await finished(client, server)
    files = server.traffic[FILES].requests

    for path in ("", "../x", "a/../b", "/etc/passwd", "./a", "a//b", "a/"):
        before = len(server.requests)
        with pytest.raises(ValueError, match="relative to the instance"):
            await client.read_file(uri(server, run), path)
        assert len(server.requests) == before, path

        with pytest.raises(ValueError, match="relative to the instance"):
            await run.read_file(path)
        assert server.traffic[FILES].requests == files, path


async def test_what_is_not_there_cannot_be_read(client: Client, server: LocalServer) -> None:
    """A file, an instance and a gateway; the message names them."""
    run = await finished(client, server)

    with pytest.raises(NotFound, match="output/ghost"):
        await run.read_file("output/ghost")
    with pytest.raises(NotFound, match=r"ghost\.instance"):
        await client.read_file(f"file://{GATEWAY}/ghost.instance", "x")
    with pytest.raises(NotFound, match="'elsewhere'"):
        await client.read_file("file://elsewhere/ghost.instance", "x")
    with pytest.raises(UnknownRun):
        await client.read_file("ghost-abcdefgh", "x")


async def test_a_file_may_have_so_many_bytes(client: Client, server: LocalServer) -> None:
    """A file of exactly the limit is read; one byte more is an error, and such a file is not received in full."""
    run = await finished(client, server)
    folder = directory(server, run) / COMPUTE
    (folder / "zeros").write_bytes(bytes(MIB))
    (folder / "noise").write_bytes(os.urandom(MIB))

    assert await run.read_file(f"{COMPUTE}/zeros", limit=MIB) == bytes(MIB)
    assert len(await run.read_file(f"{COMPUTE}/noise", limit=MIB)) == MIB
    for name in ("zeros", "noise"):
        with pytest.raises(DownloadError, match=f"larger than limit={MIB - 1}"):
            await run.read_file(f"{COMPUTE}/{name}", limit=MIB - 1)


async def test_a_gateway_gives_nothing_of_more_than_32_mib(client: Client, server: LocalServer) -> None:
    """A file of exactly 32 MiB is read."""
    run = await finished(client, server)
    folder = directory(server, run) / COMPUTE
    for name, size in (("most", 32 * MIB), ("more", 32 * MIB + 1)):
        (folder / name).touch()
        os.truncate(folder / name, size)

    assert len(await run.read_file(f"{COMPUTE}/most")) == 32 * MIB
    with pytest.raises(DownloadError, match="larger than the 32 MiB"):
        await run.read_file(f"{COMPUTE}/more", limit=64 * MIB)


async def test_a_file_that_came_damaged_is_no_content(client: Client, server: LocalServer) -> None:
    """Half an archive is an error; one that breaks off is asked for again."""
    run = await finished(client, server)

    server.faults.add(FILES, CutBody(50))
    assert (await run.read_file(f"{COMPUTE}/energies.csv")).startswith(b"input-id")
    server.faults.add(FILES, BadJson(), times=None)
    with pytest.raises(DownloadError):
        await run.read_file(f"{COMPUTE}/energies.csv")


async def test_a_file_of_a_running_run_is_read_as_it_is_now(client: Client, server: LocalServer) -> None:
    """It does not wait for the end of the run."""
    run = await running(client, server)

    assert await run.read_file("input/molecules.csv") == INPUTS[0]["content"].encode()


async def test_where_a_run_is_is_waited_for(client: Client, server: LocalServer, clock: ServersClock) -> None:
    """Its documents come 10 s after it began; if they do not come, that is no missing file."""
    run = await start(client, server)
    assert await run.read_file("input/molecules.csv") == INPUTS[0]["content"].encode()
    assert 10 <= sum(clock.slept) <= 20

    server.outcome("demo", "success", times=1, stretch=1000)
    slow = await client.start("demo", {"inputs": INPUTS})
    with pytest.raises(NotReady, match=slow.id):
        await slow.read_file("input/molecules.csv")


async def test_a_folder_cannot_be_read(client: Client, server: LocalServer) -> None:
    """A gateway breaks off at it, as it would for other reasons."""
    run = await finished(client, server)

    with pytest.raises(NotFound, match="is a folder: download_files"):
        await run.read_file(Path(REPORT))
