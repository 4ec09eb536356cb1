"""Definitions that several tests send: a DSL, relationships between two experiments, a lambda experiment."""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from st4sd_async import Client, Experiment
from st4sd_async.local.engine.processes import ChildProcesses, git
from tests.local.helpers import definition, package_files, repository

MOLECULES = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\nCCO\n"}]}

DSL: dict[str, Any] = {
    "entrypoint": {
        "entry-instance": "main",
        "execute": [{"target": "<entry-instance>", "args": {"greeting": "hello"}}],
    },
    "workflows": [
        {
            "signature": {
                "name": "main",
                "parameters": [{"name": "greeting", "default": "hi"}, {"name": "input.names.csv"}],
            },
            "steps": {"greet": "echo"},
            "execute": [{"target": "<greet>", "args": {"message": "%(greeting)s"}}],
        }
    ],
    "components": [
        {
            "signature": {"name": "echo", "parameters": [{"name": "message"}]},
            "command": {"executable": "echo", "arguments": "%(message)s"},
        }
    ],
}

LAMBDA: dict[str, Any] = {
    "lambdaFlowIR": {
        "components": [
            {
                "name": "hi",
                "command": {"executable": "cat", "arguments": "msg.txt"},
                "references": ["data/msg.txt:copy"],
            }
        ],
        "output": {"Hi": {"data-in": "stage0.hi/out.stdout:copy"}},
    },
    "data": [{"filename": "msg.txt", "content": "from lambda\n"}],
}


def dsl(**changes: Any) -> dict[str, Any]:
    """A valid DSL with some of its parts replaced."""
    return {**copy.deepcopy(DSL), **changes}


def relationship(identifier: str = "cheaper", **more: Any) -> dict[str, Any]:
    """A relationship in which a component of `surrogate` replaces the same one of `reports`."""
    transform = {
        "inputGraph": {"identifier": "surrogate", "components": ["Compute"]},
        "outputGraph": {"identifier": "reports:latest", "components": ["Compute"]},
    }
    return {"identifier": identifier, "transform": transform, **more}


def related() -> tuple[dict[str, Any], dict[str, Any]]:
    """
    The definitions of `reports` and `surrogate`.

    Both have the variable `scale`, which is a preset of the second one.
    """
    reports, surrogate = (definition(name) for name in _repositories())
    for package, url in zip((reports, surrogate), _repositories().values(), strict=True):
        package["base"]["packages"][0]["source"]["git"]["location"]["url"] = url
    reports["parameterisation"]["executionOptions"] = {"variables": [{"name": "scale"}]}
    surrogate["parameterisation"]["presets"] = {"variables": [{"name": "scale", "value": "9"}]}
    return reports, surrogate


@cache
def _repositories() -> dict[str, str]:
    """The packages of both experiments, in which `scale` is 1 and 7: name -> URL."""
    folder = tempfile.mkdtemp(prefix="st4sd-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    urls = {}
    for name, scale in (("reports", "1"), ("surrogate", "7")):
        files = {path: text.replace('"1"', f'"{scale}"') for path, text in package_files("reports").items()}
        created = repository(Path(folder, name), files)
        git("tag", "1.0.0", folder=created, processes=ChildProcesses(), timeout=50)
        urls[name] = created.as_uri()
    return urls


async def push_both(client: Client) -> tuple[Experiment, Experiment]:
    """The experiments of `related`."""
    reports, surrogate = related()
    return await client.push(reports), await client.push(surrogate)
