"""Definitions to push, and starts of runs in an embedded server."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from st4sd_async.local.engine.processes import ChildProcesses, git

BAD_REQUEST = {"message": "The browser (or proxy) sent a request that this server could not understand."}
MOLECULES = {"filename": "molecules.csv", "content": "index,smiles\n0,CCO\n1,NAN\n2,CCCC\n"}


def definition(
    name: str = "toy", options: Mapping[str, Any] | None = None, *, url: str | None = None
) -> dict[str, Any]:
    """Return a definition to push with these execution options; its package is not read unless `url` names it."""
    location = {"url": url, "branch": "main"} if url else {"url": f"https://git.example/{name}.git", "tag": "1.0.0"}
    return {
        "base": {"packages": [{"source": {"git": {"location": location}}}]},
        "metadata": {"package": {"name": name, "tags": ["v1"], "keywords": ["toy"], "description": "a toy"}},
        "parameterisation": {"executionOptions": options or {}},
    }


def start(web: httpx.Client, name: str = "toy", **payload: Any) -> str:
    """Start an instance and return its id."""
    reply = web.post(f"/experiments/{name}/start", json=payload)
    assert reply.status_code == 200, reply.text
    rest_uid: str = reply.json()
    return rest_uid


def repository(folder: Path, files: Mapping[str, str]) -> Path:
    """Create a git repository in a new folder, with one commit on the branch main: path -> text. Return the folder."""
    shutil.copytree(_repository(tuple(files.items())), folder, dirs_exist_ok=True)
    return folder


@cache
def _repository(files: tuple[tuple[str, str], ...]) -> Path:
    """Create a repository, once in a process: git takes ten times as long as a copy."""
    folder = Path(tempfile.mkdtemp(prefix="st4sd-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path, text in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755 if path.startswith("bin/") else 0o644)
    processes = ChildProcesses()
    for command in (
        ["init", "--quiet", "--template=", "--initial-branch=main"],
        ["add", "--all"],
        ["commit", "--quiet", "--message=x"],
    ):
        git(*command, folder=folder, processes=processes, timeout=50)
    return folder


def package_files(name: str) -> dict[str, str]:
    """Return the files of a package below ``tests/local/packages``: path -> text."""
    folder = Path(__file__).with_name("packages") / name
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
