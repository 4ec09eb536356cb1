"""
Files that a start does not bring itself but names: in a bucket, a dataset or a volume.

A cluster fetches or mounts them when the run begins; here they are fetched when it is accepted, and what stands for a
volume is a folder of this machine.

Source:
    st4sd-runtime-service, ``PayloadExecutionOptions.from_old_payload``; st4sd-runtime-k8s-input-s3, ``s3_download.py``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart, Content
from st4sd_async.local.http.messages import Abort
from st4sd_async.local.runtime.buckets import Bucket, Unavailable, bucket, is_installed

DATASET = "dataset"
KINDS = ("persistentVolumeClaim", "configMap", DATASET, "secret")
"""What a volume may be made of."""
URI = "dataset://"
STORE_KEYS = ("S3_ACCESS_KEY_ID", "S3_END_POINT", "S3_SECRET_ACCESS_KEY")
"""Where the orchestrator finds out who uploads."""
_COLON = re.compile(r"(?<!\\):")
_NOT_INSTALLED = 'the embedded server needs obstore for buckets, which is not installed: pip install "st4sd_async[s3]"'


@dataclass(frozen=True)
class Named:
    """A volume or dataset, which the cluster has to know."""

    kind: str
    """One of `KINDS`."""
    name: str
    inside: str = ""
    """Path in it below which everything is."""


@dataclass(frozen=True)
class Elsewhere:
    """A file that has to be fetched."""

    place: Bucket | Named
    path: str
    """Its path there."""


@dataclass(frozen=True)
class Store:
    """Where key-outputs are uploaded to."""

    place: Bucket | Named
    path: str
    """Folder there, without a slash in front; ``%(instanceDir)s`` in it is the name of the instance directory."""

    @property
    def options(self) -> tuple[str, ...]:
        """What the orchestrator is told; who it is it finds in its environment."""
        return () if isinstance(self.place, Named) else ("--s3AuthWithEnvVars", f"--s3StoreToURI={self._uri}")

    @property
    def _uri(self) -> str:
        return f"s3://{'/'.join(filter(None, (self.place.name, self.path)))}"

    def key(self, path: str, instance: str) -> str:
        """The key of something at a path of the instance directory, of which only the last part counts."""
        root = self.path.replace("%(instanceDir)s", instance)
        return f"{root}{'' if root.endswith('/') else '/'}{path.rstrip('/').rpartition('/')[2]}"


class Places:
    """What a cluster has of datasets and volumes. Safe to use from any thread."""

    def __init__(self, folder: Path, dataset: Callable[[str], Mapping[str, Any] | None]) -> None:
        """Keep what is fetched in a folder; datasets are asked for by name."""
        self._folder = folder
        self._dataset = dataset
        self._mounts: dict[tuple[str, str], Path] = {}
        self._lock = threading.Lock()

    def mount(self, kind: str, name: str, folder: Path) -> None:
        """Let a folder stand for a volume."""
        if kind not in KINDS:
            raise ValueError(f"a volume is one of {', '.join(KINDS)}, not {kind!r}")
        if not folder.is_dir():
            raise ValueError(f"{str(folder)!r} is no folder")
        with self._lock:
            self._mounts[kind, name] = folder

    def brought(self, launch: AcceptedStart) -> AcceptedStart:
        """
        The start with everything fetched that it names; blocks. Why that failed is its `AcceptedStart.problem`.

        Raises:
            Abort: There is no such dataset or volume here, or what it takes to reach buckets is not installed.
        """
        store = launch.store and replace(launch.store, place=self._bucket(launch.store.place))
        known = replace(launch, store=store)
        try:
            inputs = self._fetched(launch.inputs, self._folder / launch.rest_uid / "input")
            data = self._fetched(launch.data, self._folder / launch.rest_uid / "data")
        except Unavailable as problem:
            text = f"s3-fetch failed with exit code 1 and message {problem}"
            return replace(known, inputs={}, data={}, problem=text)
        return replace(known, inputs=inputs, data=data)

    def _fetched(self, files: Mapping[str, Content], folder: Path) -> dict[str, Content]:
        # The names are those of users, and may lead anywhere.
        return {
            name: self._file(content, folder / str(number)) if isinstance(content, Elsewhere) else content
            for number, (name, content) in enumerate(files.items())
        }

    def _file(self, file: Elsewhere, target: Path) -> Path:
        """Where a file is; it need not be there."""
        place = file.place
        if isinstance(place, Named):
            with self._lock:
                mounted = self._mounts.get((place.kind, place.name))
            if mounted is not None:
                return _inside(mounted, f"{place.inside}/{file.path}")
        inside = f"{place.inside}/" if isinstance(place, Named) else ""
        self._bucket(place).fetch(f"{inside}{file.path}".lstrip("/"), target)
        return target

    def _bucket(self, place: Bucket | Named) -> Bucket:
        if isinstance(place, Named):
            known = self._dataset(place.name) if place.kind == DATASET else None
            if known is None:
                told = f"the embedded server has no {place.kind} {place.name!r}: make it with server.mount()"
                raise Abort(400, f"Invalid payload: {told}", reason=told)
            place = bucket(known)
        if not is_installed():
            raise Abort(400, f"Invalid payload: {_NOT_INSTALLED}", reason=_NOT_INSTALLED)
        return place


def _inside(folder: Path, path: str) -> Path:
    found = (folder / path.strip("/")).resolve()
    return found if found.is_relative_to(folder.resolve()) else folder / "outside"


def split_path(filename: str) -> tuple[str, str | None]:
    """The path of a file, and the name that it gets after a bare colon, if it gets one."""
    source, *names = _COLON.split(filename, maxsplit=1)
    return re.sub(r"\\(.)", r"\1", source), names[0] if names else None


def volumes(entries: Iterable[Mapping[str, Any]]) -> dict[str, Named]:
    """The volumes of a payload, by their identifiers."""
    named = {}
    for entry in entries:
        kind = next((kind for kind in KINDS if entry["type"].get(kind)), None)
        if kind is not None and entry.get("identifier") is not None:
            named[entry["identifier"]] = Named(kind, entry["type"][kind], entry.get("subPath") or "")
    return named


def dataset_store(uri: str) -> Store:
    """
    The store that the address of a dataset means.

    Raises:
        ValueError: It is no such address.
    """
    if not uri.startswith(URI):
        raise ValueError(f"{uri} is not a valid dataset#dataset URI - it should begin with {URI}")
    name, _, path = uri.removeprefix(URI).partition("/")
    return Store(Named(DATASET, name), path)
