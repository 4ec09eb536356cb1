"""
Locations of files that are not in the payload of a start: S3 buckets, and volumes or datasets of the cluster.

Buckets need obstore. Its errors quote keys and signatures, so messages contain only S3's error code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

DATASET = "dataset"
VOLUME_KINDS = ("persistentVolumeClaim", "configMap", DATASET, "secret")
S3_VARIABLES = ("S3_ACCESS_KEY_ID", "S3_END_POINT", "S3_SECRET_ACCESS_KEY")
"""Names of the environment variables from which the orchestrator reads the credentials for uploads."""
CONNECT_TIMEOUT = timedelta(seconds=2)
READ_TIMEOUT = timedelta(seconds=10)
FILE_TIMEOUT = timedelta(hours=1)
MAX_RETRIES = 1
READ_SIZE = 1 << 20
"""Bytes read from a bucket at a time."""
PART_SIZE = 8 << 20
"""Bytes of each part of a large upload."""


class BucketError(Exception):
    """A download from a bucket or an upload to it failed."""


@dataclass(frozen=True)
class Bucket:
    """An S3 bucket and the credentials for it. All methods block."""

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
        # Raised outside of the handler, because obstore's exception must not become its context.
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
    """Return S3's error code; if it is missing, the class of the error."""
    found = re.search(r"<Code>(\w+)</Code>", str(error)) or re.search(r"status code: (\d+)", str(error))
    return found[1] if found else f"{type(error).__name__}, no answer"


@dataclass(frozen=True)
class Volume:
    """A volume or dataset of the cluster, identified by its name."""

    kind: str
    """One of `VOLUME_KINDS`."""
    name: str
    folder: str = ""
    """The folder in the volume to which paths are relative."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a start that must be fetched."""

    source: Bucket | Volume
    path: str


@dataclass(frozen=True)
class OutputStore:
    """The bucket and folder to which key-outputs are uploaded."""

    target: Bucket | Volume
    path: str
    """The folder, without a leading slash. ``%(instanceDir)s`` stands for the name of the instance directory."""

    @property
    def options(self) -> tuple[str, ...]:
        """The command line options of the orchestrator, without the credentials, which are in its environment."""
        if isinstance(self.target, Volume):
            return ()
        uri = f"s3://{'/'.join(filter(None, (self.target.name, self.path)))}"
        return ("--s3AuthWithEnvVars", f"--s3StoreToURI={uri}")

    def key(self, path: str, instance: str) -> str:
        """Return the key of an uploaded file or folder; only the last part of its path is used."""
        root = self.path.replace("%(instanceDir)s", instance)
        return f"{root}{'' if root.endswith('/') else '/'}{path.rstrip('/').rpartition('/')[2]}"
