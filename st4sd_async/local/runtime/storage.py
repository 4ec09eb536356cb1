"""
The datasets and mounted volumes of the server, and the files of starts that are in them or in S3 buckets.

A cluster fetches or mounts such files when the run begins. Here, files are fetched when the start is accepted, and
volumes are local folders.

Source:
    st4sd-runtime-service, ``PayloadExecutionOptions.from_old_payload``; st4sd-runtime-k8s-input-s3, ``s3_download.py``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.buckets import (
    DATASET,
    VOLUME_KINDS,
    Bucket,
    BucketError,
    OutputStore,
    RemoteFile,
    Volume,
)
from st4sd_async.local.engine.interface import AcceptedStart, Content
from st4sd_async.local.http.messages import HTTPError

DATASET_URI = "dataset://"
S3_FIELDS = ("accessKeyID", "secretAccessKey", "endpoint", "bucket")
"""Required fields of the description of a bucket."""
_COLON = re.compile(r"(?<!\\):")
_NOT_INSTALLED = 'the embedded server needs obstore for buckets, which is not installed: pip install "st4sd_async[s3]"'


def bucket_from(value: Mapping[str, Any]) -> Bucket:
    """Return the bucket described by a payload or a dataset; all `S3_FIELDS` must be present."""
    fields = [str(value[name]) for name in ("bucket", "endpoint", "accessKeyID", "secretAccessKey")]
    return Bucket(*fields, *([str(value["region"])] if value.get("region") else []))


def missing_fields(value: Mapping[str, Any]) -> list[str]:
    """Return the `S3_FIELDS` that the description of a bucket lacks."""
    return [name for name in S3_FIELDS if value.get(name) is None]


class Storage:
    """The datasets and mounted volumes of one server. Safe to use from any thread."""

    def __init__(self, folder: Path, dataset: Callable[[str], Mapping[str, Any] | None]) -> None:
        """
        Args:
            folder: Where fetched files are stored.
            dataset: Returns the bucket of a dataset; None if the dataset is unknown.
        """
        self._folder = folder
        self._dataset = dataset
        self._mounts: dict[tuple[str, str], Path] = {}
        self._lock = threading.Lock()

    def mount(self, kind: str, name: str, folder: Path) -> None:
        """Use a local folder as a volume."""
        if kind not in VOLUME_KINDS:
            raise ValueError(f"a volume is one of {', '.join(VOLUME_KINDS)}, not {kind!r}")
        if not folder.is_dir():
            raise ValueError(f"{str(folder)!r} is not a folder")
        with self._lock:
            self._mounts[kind, name] = folder

    def fetch_files(self, start: AcceptedStart) -> AcceptedStart:
        """
        Fetch all files of a start, and return the start with their paths. Blocks.

        A failure becomes `AcceptedStart.problem`. An unknown dataset or volume is such a failure too, because a cluster
        finds it only when the run begins.

        Raises:
            HTTPError: The dataset for the key-outputs is unknown, or obstore is not installed.
        """
        try:
            store = start.store and replace(start.store, target=self._bucket(start.store.target))
        except BucketError as error:
            raise HTTPError(400, f"Invalid payload: {error}", reason=str(error)) from error
        start = replace(start, store=store)
        try:
            inputs = self._fetch(start.inputs, self._folder / start.rest_uid / "input")
            data = self._fetch(start.data, self._folder / start.rest_uid / "data")
        except BucketError as error:
            problem = f"s3-fetch failed with exit code 1 and message {error}"
            return replace(start, inputs={}, data={}, problem=problem)
        return replace(start, inputs=inputs, data=data)

    def _fetch(self, files: Mapping[str, Content], folder: Path) -> dict[str, Content]:
        # Files are numbered, because names come from users and may contain "..".
        return {
            name: self._fetch_file(content, folder / str(number)) if isinstance(content, RemoteFile) else content
            for number, (name, content) in enumerate(files.items())
        }

    def _fetch_file(self, file: RemoteFile, target: Path) -> Path:
        """Return the path of a file, which may be missing there."""
        path = file.path
        if isinstance(file.source, Volume):
            path = f"{file.source.folder}/{path}"
            with self._lock:
                mounted = self._mounts.get((file.source.kind, file.source.name))
            if mounted is not None:
                return _inside(mounted, path)
        self._bucket(file.source).fetch(path.lstrip("/"), target)
        return target

    def _bucket(self, source: Bucket | Volume) -> Bucket:
        """Return the bucket of a dataset; raise `BucketError` if the dataset or volume is unknown."""
        if isinstance(source, Volume):
            description = self._dataset(source.name) if source.kind == DATASET else None
            if description is None:
                advice = "create it with server.mount()"
                raise BucketError(f"the embedded server has no {source.kind} {source.name!r}: {advice}")
            source = bucket_from(description)
        if find_spec("obstore") is None:
            raise HTTPError(400, f"Invalid payload: {_NOT_INSTALLED}", reason=_NOT_INSTALLED)
        return source


def _inside(folder: Path, path: str) -> Path:
    found = (folder / path.strip("/")).resolve()
    return found if found.is_relative_to(folder.resolve()) else folder / "outside"


def split_path(filename: str) -> tuple[str, str | None]:
    """Split ``source:name`` at an unescaped colon; the name is None if there is no colon."""
    source, *names = _COLON.split(filename, maxsplit=1)
    return re.sub(r"\\(.)", r"\1", source), names[0] if names else None


def dataset_store(uri: str) -> OutputStore:
    """
    Return the store for a URI ``dataset://NAME/PATH``.

    Raises:
        ValueError: The URI is malformed.
    """
    if not uri.startswith(DATASET_URI):
        raise ValueError(f"{uri} is not a valid dataset#dataset URI - it should begin with {DATASET_URI}")
    name, _, path = uri.removeprefix(DATASET_URI).partition("/")
    return OutputStore(Volume(DATASET, name), path)
