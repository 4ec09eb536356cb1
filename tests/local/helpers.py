"""Definitions to push, and starts of runs in an embedded server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

BAD_REQUEST = {"message": "The browser (or proxy) sent a request that this server could not understand."}
MOLECULES = {"filename": "molecules.csv", "content": "index,smiles\n0,CCO\n1,NAN\n2,CCCC\n"}


def definition(name: str = "toy", options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a definition to push with these execution options."""
    location = {"url": f"https://git.example/{name}.git", "tag": "1.0.0"}
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
