"""Definitions that several tests send: a DSL, relationships between two experiments, a lambda experiment."""

from __future__ import annotations

import copy
from typing import Any

from st4sd_async import Client, Experiment
from st4sd_async.local import LocalServer

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
    """A relationship in which `surrogate` may take the place of a part of `demo`."""
    transform = {
        "inputGraph": {"identifier": "surrogate"},
        "outputGraph": {"identifier": "demo:latest", "components": ["Compute"]},
    }
    return {"identifier": identifier, "transform": transform, **more}


async def push_both(server: LocalServer, client: Client) -> tuple[Experiment, Experiment]:
    """The experiments `demo` and `surrogate`; both have the variable `scale`, which the second one fixes."""
    other = server.example("demo")
    other["metadata"]["package"]["name"] = "surrogate"
    other["parameterisation"]["executionOptions"]["variables"] = []
    other["parameterisation"]["presets"] = {"variables": [{"name": "scale", "value": "7"}]}
    return await client.push(server.example("demo")), await client.push(other)
