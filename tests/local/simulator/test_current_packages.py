"""Packages that change or vanish between the push and a start."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from st4sd_async.local import LocalServer
from st4sd_async.local.engine.processes import ChildProcesses, git
from tests.local.helpers import definition, package_files, repository, start

pytestmark = pytest.mark.slow

INPUT = {"inputs": [{"filename": "rows.csv", "content": "a\n1\n"}]}


@pytest.fixture
def folder(tmp_path: Path, web: httpx.Client) -> Path:
    """Return the repository of the package of an experiment that was pushed."""
    folder = repository(tmp_path / "replicas", package_files("replicas"))
    web.post("/experiments/", json=definition("replicas", url=folder.as_uri())).raise_for_status()
    return folder


def test_a_run_has_the_newest_commit_of_its_branch(server: LocalServer, web: httpx.Client, folder: Path) -> None:
    """The registry keeps the pushed one."""
    git("commit", "-q", "--allow-empty", "-m", "new", folder=folder, processes=ChildProcesses(), timeout=50)
    newest = git("rev-parse", "HEAD", folder=folder, processes=ChildProcesses(), timeout=50).strip()

    start(web, "replicas", **INPUT)

    pushed = web.get("/experiments/replicas").json()["entry"]["base"]["packages"][0]["source"]["git"]["version"]
    started = server.started[0].package["base"]["packages"][0]["source"]["git"]["version"]
    assert (started, pushed != newest) == (newest, True)


def test_a_repository_that_vanished_fails_in_an_init_container(
    server: LocalServer, web: httpx.Client, folder: Path
) -> None:
    """The start is accepted; the run is failed without an exit-status for ever."""
    folder.rename(folder.with_name("gone"))

    run = start(web, "replicas", **INPUT)
    server.advance(5)
    status = web.get(f"/instances/{run}/status").json()

    assert (status["experiment-state"], status["exit-status"], status["meta"]) == ("failed", "", {})
    assert status["error-description"] == (
        f"initContainer failure: git-sync-package failed with exit code 128 and message fatal: '{folder}' does not "
        "appear to be a git repository\nfatal: Could not read from remote repository.\n\nPlease make sure you have the "
        "correct access rights\nand the repository exists.\n"
    )
