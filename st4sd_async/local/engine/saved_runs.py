"""The runs of an engine in the state of its server: their starts, and what the engine needs to restore them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.buckets import Bucket, OutputStore, RemoteFile, Volume
from st4sd_async.local.engine.interface import AcceptedStart, Content
from st4sd_async.local.state import State

_STARTS, _RUNS, _PACKAGES = "starts", "runs", "packages"


class SavedRuns:
    """The runs of one engine, in the order of their starts. Safe to use from any thread."""

    def __init__(self, state: State | None = None) -> None:
        """
        Args:
            state: The state of the server. None means that runs are not saved.
        """
        self._state = state or State()
        self._known_packages = {digest for digest, _ in self._state.rows(_PACKAGES)}

    @property
    def is_saved(self) -> bool:
        """Whether runs survive a restart."""
        return self._state.is_saved

    def add(self, start: AcceptedStart, facts: Mapping[str, Any]) -> None:
        """Save a start and the facts about its run."""
        if not self.is_saved:
            return
        # Many runs have the same definition.
        package = json.dumps(start.package, default=str)
        digest = hashlib.sha256(package.encode()).hexdigest()
        with self._state.transaction():
            if digest not in self._known_packages:
                self._state.put(_PACKAGES, digest, start.package)
                self._known_packages.add(digest)
            self._state.put(_STARTS, start.rest_uid, {**_start_values(start), "package": digest})
            self._state.put(_RUNS, start.rest_uid, facts)

    def transaction(self) -> AbstractContextManager[None]:
        """Save all changes of a block, or none."""
        return self._state.transaction()

    def update(self, rest_uid: str, facts: Mapping[str, Any]) -> None:
        """Replace the facts about a run."""
        self._state.put(_RUNS, rest_uid, facts)

    def restored(self) -> Iterator[tuple[AcceptedStart, dict[str, Any]]]:
        """Yield the start of each run, and the last facts about it."""
        packages, facts = dict(self._state.rows(_PACKAGES)), dict(self._state.rows(_RUNS))
        for uid, values in self._state.rows(_STARTS):
            yield _start({**values, "package": packages[values["package"]]}), facts[uid]


def _start_values(start: AcceptedStart) -> dict[str, Any]:
    """Return the fields of a start as JSON."""
    files = {
        kind: {name: _content_value(content) for name, content in getattr(start, kind).items()}
        for kind in ("inputs", "data")
    }
    store = start.store and {"path": start.store.path, **_source_value(start.store.target)}
    values = {field.name: getattr(start, field.name) for field in fields(start)}
    return {**values, **files, "store": store}


def _start(values: Mapping[str, Any]) -> AcceptedStart:
    files = {kind: {name: _content(value) for name, value in values[kind].items()} for kind in ("inputs", "data")}
    store = values["store"] and OutputStore(_source(values["store"]), values["store"]["path"])
    return AcceptedStart(**{**values, **files, "store": store, "options": tuple(values["options"])})


def _content_value(content: Content) -> Any:
    if isinstance(content, RemoteFile):
        return {"path": content.path, **_source_value(content.source)}
    return {"file": str(content)} if isinstance(content, Path) else content


def _content(value: Any) -> Content:
    if isinstance(value, str):
        return value
    return Path(value["file"]) if "file" in value else RemoteFile(_source(value), value["path"])


def _source_value(source: Bucket | Volume) -> dict[str, Any]:
    return {"bucket" if isinstance(source, Bucket) else "volume": asdict(source)}


def _source(value: Mapping[str, Any]) -> Bucket | Volume:
    return Bucket(**value["bucket"]) if "bucket" in value else Volume(**value["volume"])
