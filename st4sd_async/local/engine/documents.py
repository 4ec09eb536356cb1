"""
Datastore documents about an instance: its state, and the user's metadata.

Source:
    st4sd-runtime-core, ``experiment/model/data.py`` (``generate_document_description``), and recorded documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart

GATEWAY = "example-cluster"
"""The id of this server's gateway."""
EXPERIMENT, USER_METADATA, COMPONENT = TYPES = ("experiment", "user-metadata", "component")
"""The types of documents. An instance has one document of each of the first two types."""
_COMPACT_TIME_FORMAT = "%Y-%m-%dT%H%M%S.%f"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%f"


@dataclass(frozen=True)
class Registration:
    """The facts that the datastore has about an instance that its orchestrator has registered."""

    start: AcceptedStart
    location: str
    """The path of the instance directory."""
    status: Mapping[str, Any]
    """The last status that the orchestrator reported, with the keys of the service; its ``meta`` is not empty."""
    times: Mapping[str, datetime]
    """``created-on``, ``updated-on`` and, if the run is over, ``completed-on``."""
    outputs: Mapping[str, Mapping[str, str]]
    """The key-outputs that existed then."""


def instance_uri(location: str) -> str:
    """Return the URI of the instance at a path."""
    return f"file://{GATEWAY}{location}"


def identity(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the identity of a document; raise `KeyError` if one of its keys is missing or its type is unknown."""
    if document["type"] not in TYPES:
        raise KeyError(document["type"])
    component_key = (document["stage"], document["name"]) if document["type"] == COMPONENT else ()
    return document["instance"], document["type"], *component_key


def experiment_document(registration: Registration, interface: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document about an instance; `interface` includes the files that the run added to it."""
    return {
        "instance": instance_uri(registration.location),
        "uid": f"file://{registration.location}",
        "name": PurePosixPath(registration.start.package_path).stem,
        "type": EXPERIMENT,
        "metadata": registration.status["meta"],
        "status": _status(registration),
        "output": {name: _output(entry) for name, entry in registration.outputs.items()},
        "interface": dict(interface),
    }


def user_metadata_document(registration: Registration) -> dict[str, Any]:
    """Return the document with the user's metadata about an instance."""
    instance = instance_uri(registration.location)
    fixed = {"instance": instance, "type": USER_METADATA, "uid": f"{instance}&{USER_METADATA}"}
    return {**registration.status["meta"].get("userMetadata", {}), **fixed}


def _status(registration: Registration) -> dict[str, str]:
    """Return a status as in the status file: with strings as values, and without an empty error description."""
    values = {key: str(value) for key, value in registration.status.items() if key != "meta"}
    if not values["error-description"]:
        del values["error-description"]
    times = {name: time.strftime(_TIME_FORMAT) for name, time in registration.times.items()}
    if "updated-on" in registration.times:
        values["updated"] = registration.times["updated-on"].strftime(_COMPACT_TIME_FORMAT)
    return {**values, "cost": "0", "completed-on": "N/A", **times}


def _output(entry: Mapping[str, str]) -> dict[str, Any]:
    """Return a key-output as in documents, whose times and versions have another format."""
    created = datetime.fromtimestamp(float(entry["creationtime"]), UTC)
    return {**entry, "creationtime": created.strftime(_COMPACT_TIME_FORMAT), "version": int(entry["version"])}
