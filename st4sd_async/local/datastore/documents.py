"""
Documents of the datastore: what it keeps of an instance, of its user's metadata and of its components.

Source:
    st4sd-runtime-core, ``experiment/model/data.py`` (``generate_document_description``), and recorded documents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart
from st4sd_async.local.examples.facts import Component

GATEWAY = "example-cluster"
"""The id of the gateway that serves the files of this server."""
EXPERIMENT, USER_METADATA, COMPONENT = TYPES = ("experiment", "user-metadata", "component")
"""The types of documents; an instance has one of each of the first two."""
_STAMP = "%Y-%m-%dT%H%M%S.%f"
_TIME = "%Y-%m-%dT%H:%M:%S.%f"


@dataclass(frozen=True)
class Registration:
    """What the datastore knows about an instance whose orchestrator registered it there."""

    launch: AcceptedStart
    """Its start."""
    location: str
    """The path of its directory."""
    status: Mapping[str, Any]
    """The last status that the orchestrator reported, in the words of the wire; its ``meta`` is not empty."""
    times: Mapping[str, datetime]
    """``created-on``, ``updated-on`` and, when it is over, ``completed-on``."""
    outputs: Mapping[str, Mapping[str, str]]
    """The key-outputs by then."""


def instance_uri(location: str) -> str:
    """What documents call the instance at a path."""
    return f"file://{GATEWAY}{location}"


def identity(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the datastore knows a document by; raises `KeyError` if a part of that is missing."""
    if document["type"] not in TYPES:
        raise KeyError(document["type"])
    part = (document["stage"], document["name"]) if document["type"] == COMPONENT else ()
    return document["instance"], document["type"], *part


def experiment(known: Registration, interface: Mapping[str, Any]) -> dict[str, Any]:
    """The document about an instance; `interface` is that of its package and what came of it."""
    return {
        "instance": instance_uri(known.location),
        "uid": f"file://{known.location}",
        "name": known.launch.package["metadata"]["package"]["name"],
        "type": EXPERIMENT,
        "metadata": known.status["meta"],
        "status": _status(known),
        "output": {name: _output(entry) for name, entry in known.outputs.items()},
        "interface": dict(interface),
    }


def user_metadata(known: Registration) -> dict[str, Any]:
    """The document about what the user said of an instance."""
    instance = instance_uri(known.location)
    own = {"instance": instance, "type": USER_METADATA, "uid": f"{instance}&{USER_METADATA}"}
    return {**known.status["meta"].get("userMetadata", {}), **own}


def component(known: Registration, part: Component) -> dict[str, Any]:
    """The document about a component; its files are listed when it has run."""
    instance, location = instance_uri(known.location), f"{known.location}/{part.directory}"
    state, flowir = _state(known.status, part), _flowir(part, known.launch.all_variables)
    memoized = state == "finished"
    content = json.dumps([flowir, dict(known.launch.inputs), dict(known.launch.data)], default=str)
    memoization = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest() if memoized else ""
    return {
        "name": part.name,
        "stage": part.stage,
        "location": location,
        "files": _files(Path(location)) if state in ("finished", "failed") else [],
        "type": COMPONENT,
        "flowir": flowir,
        "memoization-hash": memoization,
        "component-identifier": part.reference,
        "producers": {f"{instance}&{producer}": files for producer, files in part.producers.items()},
        "memoization-hash-fuzzy": memoization,
        "component-state": state,
        "instance": instance,
        "uid": f"{instance}&{part.reference}",
    }


def _status(known: Registration) -> dict[str, str]:
    """A status as the status file has it: everything is a text, a list too, and an error only if there is one."""
    texts = {key: str(value) for key, value in known.status.items() if key != "meta"}
    if not texts["error-description"]:
        del texts["error-description"]
    times = {name: time.strftime(_TIME) for name, time in known.times.items()}
    updated = {"updated": known.times["updated-on"].strftime(_STAMP)} if "updated-on" in known.times else {}
    return {**texts, **updated, "cost": "0", "completed-on": "N/A", **times}


def _output(entry: Mapping[str, str]) -> dict[str, Any]:
    """A key-output as documents have it, with another notation of the time and the version."""
    created = datetime.fromtimestamp(float(entry["creationtime"]), UTC)
    return {**entry, "creationtime": created.strftime(_STAMP), "version": int(entry["version"])}


def _state(status: Mapping[str, Any], part: Component) -> str:
    """The state of a component of a simulated run: if one fails, it is in the first stage."""
    if status["exit-status"] == "Success":
        return "finished"
    if status["stage-state"] != "failed":
        return "running"
    return "failed" if status["exit-status"] == "Failed" and part.stage == 0 else "component_shutdown"


def _flowir(part: Component, variables: Mapping[str, str]) -> dict[str, Any]:
    """The part of a component's definition that its package does not leave to defaults."""
    command = {"executable": "python3", "arguments": part.command_line(variables)}
    backend = {"config": {"backend": "local", "walltime": 60.0}}
    return {
        "stage": part.stage,
        "name": part.name,
        "command": command,
        "references": part.references,
        "variables": dict(variables),
        "resourceManager": backend,
    }


def _files(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]
