"""
The routes of the runtime service that concern instances: what they show, their files and their end.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart, Engine
from st4sd_async.local.http.archives import files_below, read_file, spooled, zipped
from st4sd_async.local.http.messages import UNREADABLE, Abort, Answer, Request, Route, Slash, attachment, reply
from st4sd_async.local.runtime import marshal as _marshal
from st4sd_async.local.runtime.measured import read_properties
from st4sd_async.local.runtime.places import Places
from st4sd_async.local.runtime.store import Store

WARNING = (
    "Workflow has no status and there is no Pod for it, ask your administrator to inspect the status of "
    "the workflow-operator pod."
)
_FINAL = ("finished", "failed")


@dataclass(eq=False)
class _Known:
    """An instance, and its item of the list as it was written last."""

    launch: AcceptedStart
    written: tuple[object, tuple[bytes, bytes]] = (None, (b"", b""))
    """Its status and outputs by then, and the two halves of the item."""


class Instances:
    """The instances that were started and not deleted, and the handlers of ``/instances/``."""

    def __init__(self, store: Store, engine: Engine, places: Places) -> None:
        self._store = store
        self._places = places
        self._engine = engine
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def accept(self, launch: AcceptedStart) -> None:
        """Fetch what a start names, hand it to the engine and keep its id."""
        launch = self._places.brought(launch)
        self._engine.start(launch)
        self.adopt([launch])

    def adopt(self, launches: Iterable[AcceptedStart]) -> None:
        """Keep the ids of instances that the engine knows already."""
        with self._lock:
            self._known.update({launch.rest_uid: _Known(launch) for launch in launches})

    def routes(self) -> list[Route]:
        """The routes, the more special ones first."""
        return [
            Route("/instances", Slash.NEEDED, GET=self.index),
            Route("/instances/{}/status", Slash.EITHER, GET=self.status),
            Route("/instances/{}/outputs", Slash.EITHER, GET=self.outputs),
            Route("/instances/{}/properties", Slash.EITHER, GET=self.properties),
            Route("/instances/{}/outputs/{path}", Slash.EITHER, GET=self.output),
            Route("/instances/{}", Slash.EITHER, GET=self.get, DELETE=self.delete),
        ]

    def index(self, _request: Request) -> Answer:
        """All instances, as their own status says and without a look at the cluster."""
        with self._lock:
            everything = list(self._known.values())
        experiments = {known.launch.identifier: b"" for known in everything}
        for identifier in experiments:
            experiments[identifier] = _marshal.experiment(self._store.get(identifier))
        parts: list[bytes] = []
        for known in everything:
            head, tail = self._item(known)
            parts += (b", ", head, experiments[known.launch.identifier], tail)
        return Answer(200, b"".join([b"[", *parts[1:], b"]\n"]))

    def _item(self, known: _Known) -> tuple[bytes, bytes]:
        """The two halves of an item; long lists are quick because most items are what they were."""
        launch, uid = known.launch, known.launch.rest_uid
        status, outputs = seen = self._engine.listed_status(uid), self._engine.outputs(uid)
        # Tuples look first whether they hold the same objects.
        if known.written[0] != seen:
            known.written = (seen, _marshal.halves(uid, status, launch.labels, outputs))
        return known.written[1]

    def get(self, request: Request, uid: str) -> Answer:
        """Everything about one instance, its properties on demand."""
        launch = self._find(uid)
        if launch is None:
            raise Abort(404, f"Instance {uid} is not found", unknownRestUID=uid)
        stringify = request.flag("stringifyNaN")
        instance: dict[str, Any] = {
            "id": uid,
            "name": uid,
            "status": self._engine.status(uid) or {"warning": WARNING},
            "outputs": self._engine.outputs(uid),
            "k8s-labels": launch.labels,
            "experiment": self._store.get(launch.identifier) or {},
        }
        wanted = request.query.get("includeProperties")
        if wanted is not None:
            self._include(instance, (wanted or "*").lower(), stringify)
        return reply(instance)

    def _include(self, instance: dict[str, Any], wanted: str, stringify: bool) -> None:
        uid = instance["id"]
        if not instance["status"].get("meta") or not instance["experiment"]:
            raise Abort(500, f"Run into an error while returning instances/{uid}")
        table = self._table(uid, instance["status"], wanted, stringify)
        interface = instance["experiment"]["metadata"]["registry"]["interface"]
        directory = self._engine.directory(uid)
        ids = directory / "output" / "input-ids.json" if directory else None
        if ids is not None and ids.is_file():
            interface["inputs"] = json.loads(ids.read_text())
        interface["propertyTable"] = table

    def status(self, _request: Request, uid: str) -> Answer:
        """The status of one instance."""
        if self._find(uid) is None:
            raise Abort(404, f"Workflow instance {uid} not found")
        status = self._engine.status(uid)
        if status is None:
            raise Abort(400, f"Workflow instance {uid} does not have a status yet")
        return reply(status)

    def outputs(self, _request: Request, uid: str) -> Answer:
        """The key-outputs that exist by now."""
        if self._find(uid) is None:
            raise Abort(404, f"Workflow instance {uid} not found")
        return reply(self._engine.outputs(uid))

    def properties(self, request: Request, uid: str) -> Answer:
        """The measured properties of one instance."""
        if self._find(uid) is None:
            raise Abort(404, f"Instance {uid} not found")
        status = self._engine.listed_status(uid)
        if status is None:
            raise Abort(500, f"Run into an error while extracting the properties of {uid}")
        if not status["meta"]:
            raise Abort(
                400,
                f"Instance {uid} has an incomplete status.meta field this indicates that the experiment has "
                "not finished syncing his status to Kubernetes, try again later",
            )
        wanted = (request.query.get("includeProperties") or "*").lower()
        return reply(self._table(uid, status, wanted, request.flag("stringifyNaN")))

    def _table(self, uid: str, status: dict[str, Any], wanted: str, stringify: bool) -> dict[str, list[Any]]:
        directory = self._engine.directory(uid)
        try:
            if directory is None:
                raise FileNotFoundError(uid)
            return read_properties(directory / "output" / "properties.csv", wanted, stringify=stringify)
        except FileNotFoundError as error:
            if (status["experiment-state"] or "").lower() in _FINAL:
                names = wanted.split(",")
                raise Abort(404, f"Instance {uid} has no properties", unknownProperties=names) from error
            message = f"Instance {uid} has no properties but has not completed yet, try again later"
            raise Abort(400, message, propertiesNotAvailableYet=True) from error

    def output(self, _request: Request, uid: str, key: str) -> Answer:
        """A key-output or a part of one: the bytes of a file, a folder as a zip archive."""
        if self._find(uid) is None:
            raise Abort(404, f"unknown workflow instance {uid}", unknownInstanceId=uid)
        key, _, part = key.partition("/")
        entry = self._engine.outputs(uid).get(key)
        directory = self._engine.directory(uid)
        if entry is None or directory is None:
            message = f"Workflow instance {uid} has not produced key-output {key} yet"
            raise Abort(404, message, unknownOutput=key)
        root = (directory / entry["filepath"].rstrip("/")).resolve()
        path = _child(root, part, uid, entry) if part else root
        if path.is_file():
            kind = "application/.zip" if path.suffix.lower() == ".zip" else "application/octet-stream"
            return attachment(read_file(path), f'"{path.name}"', kind, path.stat().st_size)
        if path.is_dir():
            # The service knows the length, because it makes all of the archive before it answers.
            stream, length = spooled(zipped(files_below(path)))
            return attachment(stream, f'"{path.name}.zip"', "application/zip", length)
        message = f"Output {key} of workflow instance {uid} references non-existing file {path}"
        raise Abort(404, message, missingPath=str(path))

    def delete(self, _request: Request, uid: str) -> Answer:
        """Stop and forget an instance; the reply comes before it is dead."""
        with self._lock:
            if self._known.pop(uid, None) is None:
                raise Abort(400, UNREADABLE)
        self._engine.delete(uid)
        return reply("OK")

    def _find(self, uid: str) -> AcceptedStart | None:
        with self._lock:
            known = self._known.get(uid)
        return known.launch if known else None


def _child(root: Path, part: str, uid: str, entry: dict[str, str]) -> Path:
    if not root.is_dir():
        message = (
            f"Key-output {entry} of workflow instance {uid} is not a folder and cannot be used to retrieve "
            f"child path {part}"
        )
        raise Abort(400, message, isFolder=False)
    path = (root / part).resolve()
    if not path.is_relative_to(root):
        # The placeholders are the service's: it never fills them in. It lets one level up pass; that is not
        # repeated here.
        message = (
            "Key-output %s of workflow instance %s is a folder, but child path %s does notbelong to "
            "file tree of key-output"
        )
        raise Abort(400, message, fileInFolder=False)
    return path
