"""Runs whose package or dataset is not what it was at the push."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import pytest

from st4sd_async import Client, Config, Reason
from st4sd_async.local import LocalServer
from tests.local.helpers import definition, package_files, repository

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROWS = {"inputs": [{"filename": "rows.csv", "content": "a,b\n1,2\n"}]}


@pytest.fixture
async def folder(client: Client, tmp_path: Path) -> Path:
    """Return the repository of the package of "replicas", which was pushed."""
    folder = repository(tmp_path / "replicas", package_files("replicas"))
    await client.push(definition("replicas", url=folder.as_uri()))
    return folder


async def test_a_run_of_a_branch_that_moved_has_the_components_of_its_newest_commit(
    client: Client, server: LocalServer, folder: Path
) -> None:
    """Its id and its experiment are those of the pushed commit."""
    flowir = "components:\n- {name: Only, command: {executable: echo, arguments: hi}}\n"
    shutil.rmtree(folder)
    repository(folder, {**package_files("replicas"), "conf/flowir_package.yaml": flowir})

    run = await client.start("replicas", ROWS)
    await server.advance(60)

    assert [component.reference for component in await run.components()] == ["stage0.Only"]
    assert run.id.startswith("replicas-")


@pytest.mark.parametrize("what", ["repository", "dataset"])
async def test_a_run_that_cannot_fetch_its_files_is_waited_for_only_as_long_as_the_grace(
    server: LocalServer, folder: Path, what: str
) -> None:
    """It stays failed without an exit-status for ever; the hint says what to check."""
    payload = {"inputs": [{"filename": "rows.csv"}], "s3": {"dataset": "ghost"}} if what == "dataset" else ROWS
    if what == "repository":
        await anyio.Path(folder).rename(folder.with_name("gone"))
    async with Client(server.url, api_key=server.api_key, config=Config(grace=0)) as client:
        run = await client.start("replicas", payload)
        await server.advance(60)
        status = await run.wait(timeout=50)

    assert (status.is_final, status.is_success, status.exit_status) == (True, False, "")
    assert status.hint is not None
    assert status.hint.reason is (Reason.INPUTS_NOT_FETCHED if what == "dataset" else Reason.PACKAGE_NOT_FETCHED)
    assert ("'ghost'" if what == "dataset" else "does not appear to be a git repo") in (status.hint.text or "")
