"""
Files that a start names but does not contain: in an S3 bucket, a dataset or a volume; and buckets for key-outputs.

A cluster fetches or mounts them when the run begins. Here they are fetched when the start is accepted, and a local
folder stands for a volume. Buckets need obstore. Its errors quote keys and signatures, so only S3's error code is
passed on.

Source:
    st4sd-runtime-service, ``PayloadExecutionOptions.from_old_payload``; st4sd-runtime-k8s-input-s3, ``s3_download.py``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart, Content
from st4sd_async.local.http.messages import HTTPError

DATASET = "dataset"
DATASET_URI = "dataset://"
VOLUME_KINDS = ("persistentVolumeClaim", "configMap", DATASET, "secret")
S3_FIELDS = ("accessKeyID", "secretAccessKey", "endpoint", "bucket")
"""Fields that the description of a bucket must have."""
S3_VARIABLES = ("S3_ACCESS_KEY_ID", "S3_END_POINT", "S3_SECRET_ACCESS_KEY")
"""Environment variables with the orchestrator's credentials for uploads."""
CONNECT_TIMEOUT = timedelta(seconds=2)
READ_TIMEOUT = timedelta(seconds=10)
FILE_TIMEOUT = timedelta(hours=1)
MAX_RETRIES = 1
READ_SIZE = 1 << 20
"""Bytes read from a bucket at a time."""
PART_SIZE = 8 << 20
"""Bytes of each part of a large upload."""
_COLON = re.compile(r"(?<!\\):")
_NOT_INSTALLED = 'the embedded server needs obstore for buckets, which is not installed: pip install "st4sd_async[s3]"'


class BucketError(Exception):
    """Why a download from a bucket or an upload to it failed."""


@dataclass(frozen=True)
class Bucket:
    """One bucket and the credentials to use it. All methods block."""

    name: str
    endpoint: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"

    def fetch(self, key: str, target: Path) -> None:
        """
        Download an object to a file. As in the service, a missing object is no error and leaves no file.

        Raises:
            BucketError: The download failed.
        """
        import obstore
        from obstore.exceptions import BaseError

        target.parent.mkdir(parents=True, exist_ok=True)
        failure = None
        try:
            found = obstore.get(self._store, key)
            with target.open("wb") as file:
                for chunk in found.stream(min_chunk_size=READ_SIZE):
                    file.write(chunk)
            return
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                failure = "NoSuchBucket"
        except (BaseError, ValueError) as error:
            failure = _error_code(error)
        target.unlink(missing_ok=True)
        if failure:
            raise BucketError(f"{key} cannot be downloaded from the bucket {self.name}: {failure}")

    def upload(self, file: Path, key: str) -> None:
        """
        Upload a file.

        Raises:
            BucketError: The upload failed.
        """
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.put(self._store, key, file, chunk_size=PART_SIZE, max_concurrency=2)
            return
        except (BaseError, FileNotFoundError, ValueError) as error:
            failure = _error_code(error)
        # Outside of the handler, so that the exception does not carry obstore's as its context.
        raise BucketError(f"{key} cannot be uploaded to the bucket {self.name}: {failure}")

    @cached_property
    def _store(self) -> Any:
        from obstore.store import S3Store

        credentials = {
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "token": None,
            "expires_at": None,
        }
        make: Any = S3Store
        return make(
            self.name,
            endpoint=self.endpoint.rstrip("/"),
            region=self.region,
            credential_provider=lambda: credentials,
            client_options={
                "allow_http": True,
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": READ_TIMEOUT,
                "timeout": FILE_TIMEOUT,
            },
            retry_config={"max_retries": MAX_RETRIES},
            skip_signature=False,
            virtual_hosted_style_request=False,
        )


def _error_code(error: Exception) -> str:
    """Return S3's code for an error, else the class of the error."""
    found = re.search(r"<Code>(\w+)</Code>", str(error)) or re.search(r"status code: (\d+)", str(error))
    return found[1] if found else f"{type(error).__name__}, no answer"


def bucket_from(value: Mapping[str, Any]) -> Bucket:
    """Return the bucket that a payload or a dataset describes; all `S3_FIELDS` must be present."""
    fields = [str(value[name]) for name in ("bucket", "endpoint", "accessKeyID", "secretAccessKey")]
    return Bucket(*fields, *([str(value["region"])] if value.get("region") else []))


def missing_fields(value: Mapping[str, Any]) -> list[str]:
    """Return the `S3_FIELDS` that the description of a bucket lacks."""
    return [name for name in S3_FIELDS if value.get(name) is None]


@dataclass(frozen=True)
class Volume:
    """A volume or dataset of the cluster, known by its name."""

    kind: str
    """One of `VOLUME_KINDS`."""
    name: str
    folder: str = ""
    """The folder in it that paths start from."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that has to be fetched."""

    source: Bucket | Volume
    path: str


@dataclass(frozen=True)
class OutputStore:
    """Where key-outputs are uploaded to."""

    target: Bucket | Volume
    path: str
    """Folder in it without a leading slash; ``%(instanceDir)s`` stands for the name of the instance directory."""

    @property
    def options(self) -> tuple[str, ...]:
        """The orchestrator's command line options; the credentials are in its environment."""
        if isinstance(self.target, Volume):
            return ()
        uri = f"s3://{'/'.join(filter(None, (self.target.name, self.path)))}"
        return ("--s3AuthWithEnvVars", f"--s3StoreToURI={uri}")

    def key(self, path: str, instance: str) -> str:
        """Return the key for a path in the instance directory, of which only the last part is used."""
        root = self.path.replace("%(instanceDir)s", instance)
        return f"{root}{'' if root.endswith('/') else '/'}{path.rstrip('/').rpartition('/')[2]}"


class Storage:
    """The datasets and mounted volumes of one server. Safe to use from any thread."""

    def __init__(self, folder: Path, dataset: Callable[[str], Mapping[str, Any] | None]) -> None:
        """
        Args:
            folder: Where fetched files are stored.
            dataset: Returns the bucket of a dataset; None if there is no such dataset.
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
            raise ValueError(f"{str(folder)!r} is no folder")
        with self._lock:
            self._mounts[kind, name] = folder

    def fetch_files(self, start: AcceptedStart) -> AcceptedStart:
        """
        Return the start with all of its files fetched; its `AcceptedStart.problem` says why that failed. Blocks.

        Raises:
            HTTPError: There is no such dataset or volume, or obstore is not installed.
        """
        store = start.store and replace(start.store, target=self._bucket(start.store.target))
        start = replace(start, store=store)
        try:
            inputs = self._fetch(start.inputs, self._folder / start.rest_uid / "input")
            data = self._fetch(start.data, self._folder / start.rest_uid / "data")
        except BucketError as error:
            problem = f"s3-fetch failed with exit code 1 and message {error}"
            return replace(start, inputs={}, data={}, problem=problem)
        return replace(start, inputs=inputs, data=data)

    def _fetch(self, files: Mapping[str, Content], folder: Path) -> dict[str, Content]:
        # Files are numbered because names come from users and may contain "..".
        return {
            name: self._fetch_file(content, folder / str(number)) if isinstance(content, RemoteFile) else content
            for number, (name, content) in enumerate(files.items())
        }

    def _fetch_file(self, file: RemoteFile, target: Path) -> Path:
        """Return where a file is; it may be missing there."""
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
        if isinstance(source, Volume):
            description = self._dataset(source.name) if source.kind == DATASET else None
            if description is None:
                reason = f"the embedded server has no {source.kind} {source.name!r}: make it with server.mount()"
                raise HTTPError(400, f"Invalid payload: {reason}", reason=reason)
            source = bucket_from(description)
        if find_spec("obstore") is None:
            raise HTTPError(400, f"Invalid payload: {_NOT_INSTALLED}", reason=_NOT_INSTALLED)
        return source


def _inside(folder: Path, path: str) -> Path:
    found = (folder / path.strip("/")).resolve()
    return found if found.is_relative_to(folder.resolve()) else folder / "outside"


def split_path(filename: str) -> tuple[str, str | None]:
    """Split ``source:name`` at an unescaped colon; the name is None if there is none."""
    source, *names = _COLON.split(filename, maxsplit=1)
    return re.sub(r"\\(.)", r"\1", source), names[0] if names else None


def volumes_by_id(entries: Iterable[Mapping[str, Any]]) -> dict[str, Volume]:
    """Return the volumes of a payload by their identifiers."""
    volumes = {}
    for entry in entries:
        kind = next((kind for kind in VOLUME_KINDS if entry["type"].get(kind)), None)
        if kind is not None and entry.get("identifier") is not None:
            volumes[entry["identifier"]] = Volume(kind, entry["type"][kind], entry.get("subPath") or "")
    return volumes


def dataset_store(uri: str) -> OutputStore:
    """
    Return the store for a URI ``dataset://NAME/PATH``.

    Raises:
        ValueError: The URI has another form.
    """
    if not uri.startswith(DATASET_URI):
        raise ValueError(f"{uri} is not a valid dataset#dataset URI - it should begin with {DATASET_URI}")
    name, _, path = uri.removeprefix(DATASET_URI).partition("/")
    return OutputStore(Volume(DATASET, name), path)
