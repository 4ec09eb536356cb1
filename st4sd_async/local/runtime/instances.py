"""
The routes of the runtime service for instances: status, outputs, properties and deletion.

Source:
    st4sd-runtime-service, ``apis/instances.py``. Only the list is marshalled (``experiment_instance`` in
    ``apis/models/models.py``): it has exactly the fields of the templates below, which are null if missing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart, Engine
from st4sd_async.local.http.archives import files_below, read_file, spooled, zipped
from st4sd_async.local.http.messages import (
    BAD_REQUEST,
    STRINGIFY_NAN,
    HTTPError,
    Request,
    Response,
    Route,
    TrailingSlash,
    file_response,
    json_response,
)
from st4sd_async.local.runtime.properties import read_properties
from st4sd_async.local.runtime.registry import Registry
from st4sd_async.local.runtime.storage import Storage

WARNING = (
    "Workflow has no status and there is no Pod for it, ask your administrator to inspect the status of "
    "the workflow-operator pod."
)
_FINAL_STATES = ("finished", "failed")
# Templates of the items of the list. A dictionary has exactly these fields. A list is empty if missing, a tuple is a
# list that is null if missing. Anything else is the default of a value that is shown unchanged.
_NAMED = [{"name": None}]
_RUNTIME = {"resources": {"cpu": None, "memory": None}, "args": [None]}
_GIT = {
    "security": {"oauth": {"value": None, "valueFrom": {"secretKeyRef": None}}},
    "location": {"branch": None, "tag": None, "commit": None, "url": None},
    "version": None,
}
_DATASET = {"location": {"dataset": None}, "version": None, "security": {"dataset": None}}
_PACKAGE = {
    "name": None,
    "source": {"git": _GIT, "dataset": _DATASET},
    "config": {"path": None, "manifestPath": None},
}
_PRESETS = {
    "variables": [{"name": None, "value": None}],
    "runtime": _RUNTIME,
    "data": _NAMED,
    "environmentVariables": [{"name": None, "value": None}],
    "platform": None,
}
_EXECUTION_OPTIONS = {
    "variables": [{"name": None, "value": None, "valueFrom": ({"value": None},)}],
    "data": _NAMED,
    "platform": [None],
}
_METADATA = {
    "package": {
        "name": None,
        "tags": [None],
        "keywords": [None],
        "license": None,
        "maintainer": None,
        "description": None,
    },
    "registry": {
        "createdOn": None,
        "digest": None,
        "tags": [None],
        "timesExecuted": 0,
        "interface": {},
        "inputs": _NAMED,
        "data": _NAMED,
        "containerImages": _NAMED,
        "executionOptionsDefaults": {"variables": [{"name": None, "valueFrom": [{"value": None, "platform": None}]}]},
    },
}
_EXPERIMENT = {
    "base": {"packages": [_PACKAGE]},
    "parameterisation": {"presets": _PRESETS, "executionOptions": _EXECUTION_OPTIONS},
    "metadata": _METADATA,
}
_STATUS = {
    "experiment-state": None,
    "stage-state": None,
    "stages": (None,),
    "current-stage": None,
    "meta": None,
    "exit-status": None,
    "total-progress": None,
    "stage-progress": None,
    "error-description": None,
}


@dataclass(eq=False)
class _Instance:
    """An instance, with its last rendered item of the list."""

    start: AcceptedStart
    rendered: tuple[object, tuple[bytes, bytes]] = (None, (b"", b""))
    """The rendered status and outputs, and the two halves of the rendered item."""


class Instances:
    """The instances that were started and not deleted, and the handlers of ``/instances/``."""

    def __init__(self, registry: Registry, engine: Engine, storage: Storage) -> None:
        self._registry = registry
        self._engine = engine
        self._storage = storage
        self._lock = threading.Lock()
        self._instances: dict[str, _Instance] = {}

    def accept(self, start: AcceptedStart) -> None:
        """Fetch the files of a start, pass the start to the engine, and list the instance."""
        start = self._storage.fetch_files(start)
        self._engine.start(start)
        self.add([start])

    def add(self, starts: Iterable[AcceptedStart]) -> None:
        """Add instances that the engine already has to the list."""
        with self._lock:
            self._instances.update({start.rest_uid: _Instance(start) for start in starts})

    def routes(self) -> list[Route]:
        """Return the routes, specific ones first."""
        return [
            Route("/instances", TrailingSlash.REQUIRED, GET=self.index),
            Route("/instances/{}/status", TrailingSlash.OPTIONAL, GET=self.status),
            Route("/instances/{}/outputs", TrailingSlash.OPTIONAL, GET=self.outputs),
            Route("/instances/{}/properties", TrailingSlash.OPTIONAL, GET=self.properties),
            Route("/instances/{}/outputs/{path}", TrailingSlash.OPTIONAL, GET=self.output),
            Route("/instances/{}", TrailingSlash.OPTIONAL, GET=self.get, DELETE=self.delete),
        ]

    def index(self, _request: Request) -> Response:
        """List all instances, with the statuses that their orchestrators wrote; facts of the cluster are missing."""
        with self._lock:
            instances = list(self._instances.values())
        experiments = {instance.start.identifier: b"" for instance in instances}
        for identifier in experiments:
            experiments[identifier] = _experiment_json(self._registry.get(identifier))
        parts: list[bytes] = []
        for instance in instances:
            head, tail = self._item(instance)
            parts += (b", ", head, experiments[instance.start.identifier], tail)
        return Response(200, b"".join([b"[", *parts[1:], b"]\n"]))

    def _item(self, instance: _Instance) -> tuple[bytes, bytes]:
        """Return the two halves of an item. Unchanged items are reused, which makes long lists fast."""
        start, uid = instance.start, instance.start.rest_uid
        status, outputs = state = self._engine.listed_status(uid), self._engine.outputs(uid)
        # A comparison of tuples checks identity first, and engines return the same object if it is unchanged.
        if instance.rendered[0] != state:
            instance.rendered = (state, _item_halves(uid, status, start.labels, outputs))
        return instance.rendered[1]

    def get(self, request: Request, uid: str) -> Response:
        """Show one instance, with its properties if the query requests them."""
        start = self._find(uid)
        if start is None:
            raise HTTPError(404, f"Instance {uid} is not found", unknownRestUID=uid)
        stringify = request.boolean("stringifyNaN", STRINGIFY_NAN)
        instance: dict[str, Any] = {
            "id": uid,
            "name": uid,
            "status": self._engine.status(uid) or {"warning": WARNING},
            "outputs": self._engine.outputs(uid),
            "k8s-labels": start.labels,
            "experiment": self._registry.get(start.identifier) or {},
        }
        columns = request.query.get("includeProperties")
        if columns is not None:
            self._include_properties(instance, (columns or "*").lower(), stringify)
        return json_response(instance)

    def _include_properties(self, instance: dict[str, Any], columns: str, stringify: bool) -> None:
        uid = instance["id"]
        if not instance["status"].get("meta") or not instance["experiment"]:
            raise HTTPError(500, f"Run into an error while returning instances/{uid}")
        table = self._table(uid, instance["status"], columns, stringify)
        registry = instance["experiment"]["metadata"]["registry"]
        interface = self._engine.interface(uid)
        registry["interface"] = {**(registry["interface"] if interface is None else interface), "propertyTable": table}

    def status(self, _request: Request, uid: str) -> Response:
        """Show the status of one instance."""
        if self._find(uid) is None:
            raise HTTPError(404, f"Workflow instance {uid} not found")
        status = self._engine.status(uid)
        if status is None:
            raise HTTPError(400, f"Workflow instance {uid} does not have a status yet")
        return json_response(status)

    def outputs(self, _request: Request, uid: str) -> Response:
        """List the key-outputs that exist so far."""
        if self._find(uid) is None:
            raise HTTPError(404, f"Workflow instance {uid} not found")
        return json_response(self._engine.outputs(uid))

    def properties(self, request: Request, uid: str) -> Response:
        """Show the measured properties of one instance."""
        if self._find(uid) is None:
            raise HTTPError(404, f"Instance {uid} not found")
        status = self._engine.listed_status(uid)
        if status is None:
            raise HTTPError(500, f"Run into an error while extracting the properties of {uid}")
        if not status["meta"]:
            raise HTTPError(
                400,
                f"Instance {uid} has an incomplete status.meta field this indicates that the experiment has "
                "not finished syncing his status to Kubernetes, try again later",
            )
        columns = (request.query.get("includeProperties") or "*").lower()
        return json_response(self._table(uid, status, columns, request.boolean("stringifyNaN", STRINGIFY_NAN)))

    def _table(self, uid: str, status: dict[str, Any], columns: str, stringify: bool) -> dict[str, list[Any]]:
        directory = self._engine.directory(uid)
        try:
            if directory is None:
                raise FileNotFoundError(uid)
            return read_properties(directory / "output" / "properties.csv", columns, stringify=stringify)
        except FileNotFoundError as error:
            if (status["experiment-state"] or "").lower() in _FINAL_STATES:
                names = columns.split(",")
                raise HTTPError(404, f"Instance {uid} has no properties", unknownProperties=names) from error
            message = f"Instance {uid} has no properties but has not completed yet, try again later"
            raise HTTPError(400, message, propertiesNotAvailableYet=True) from error

    def output(self, _request: Request, uid: str, key: str) -> Response:
        """Send a key-output or a path in it: a file unchanged, a folder as a zip archive."""
        if self._find(uid) is None:
            raise HTTPError(404, f"unknown workflow instance {uid}", unknownInstanceId=uid)
        key, _, part = key.partition("/")
        entry = self._engine.outputs(uid).get(key)
        directory = self._engine.directory(uid)
        if entry is None or directory is None:
            message = f"Workflow instance {uid} has not produced key-output {key} yet"
            raise HTTPError(404, message, unknownOutput=key)
        root = (directory / entry["filepath"].rstrip("/")).resolve()
        path = _path_in_folder(root, part, uid, entry) if part else root
        if path.is_file():
            kind = "application/.zip" if path.suffix.lower() == ".zip" else "application/octet-stream"
            return file_response(read_file(path), f'"{path.name}"', kind, path.stat().st_size)
        if path.is_dir():
            # The service sends Content-Length, because it creates the whole archive before it responds.
            stream, length = spooled(zipped(files_below(path)))
            return file_response(stream, f'"{path.name}.zip"', "application/zip", length)
        message = f"Output {key} of workflow instance {uid} references non-existing file {path}"
        raise HTTPError(404, message, missingPath=str(path))

    def delete(self, _request: Request, uid: str) -> Response:
        """Stop an instance and remove it from the list, without waiting for its end."""
        with self._lock:
            if self._instances.pop(uid, None) is None:
                raise HTTPError(400, BAD_REQUEST)
        self._engine.delete(uid)
        return json_response("OK")

    def _find(self, uid: str) -> AcceptedStart | None:
        with self._lock:
            instance = self._instances.get(uid)
        return instance.start if instance else None


def _path_in_folder(root: Path, part: str, uid: str, entry: dict[str, str]) -> Path:
    if not root.is_dir():
        message = (
            f"Key-output {entry} of workflow instance {uid} is not a folder and cannot be used to retrieve "
            f"child path {part}"
        )
        raise HTTPError(400, message, isFolder=False)
    path = (root / part).resolve()
    if not path.is_relative_to(root):
        # The service never fills in these placeholders. It also permits the parent folder, a bug that is not
        # reproduced here.
        message = (
            "Key-output %s of workflow instance %s is a folder, but child path %s does notbelong to "
            "file tree of key-output"
        )
        raise HTTPError(400, message, fileInFolder=False)
    return path


def _experiment_json(definition: Mapping[str, Any] | None) -> bytes:
    """Return a definition in the form of the list."""
    return json.dumps(_marshal(_EXPERIMENT, definition)).encode()


def _item_halves(
    rest_uid: str, status: Mapping[str, Any] | None, labels: Mapping[str, str], outputs: Mapping[str, Any]
) -> tuple[bytes, bytes]:
    """Return the JSON of an item before and after its experiment."""
    end = {"status": _marshal(_STATUS, status), "k8s-labels": labels, "outputs": outputs}
    return f'{{"id": {json.dumps(rest_uid)}, "experiment": '.encode(), f", {json.dumps(end)[1:]}".encode()


def _marshal(template: Any, value: Any) -> Any:
    """Return a value in the form of a template."""
    if isinstance(template, list | tuple):
        if value is None and isinstance(template, tuple):
            return None
        return [_marshal(template[0], item) for item in value or []]
    if isinstance(template, dict) and template:
        fields = value if isinstance(value, Mapping) else {}
        return {name: _marshal(inner, fields.get(name)) for name, inner in template.items()}
    return template if value is None else value
