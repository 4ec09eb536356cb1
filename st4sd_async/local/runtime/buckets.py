"""
A bucket of an S3 service, from which a run's inputs come and to which its key-outputs go; needs obstore.

What obstore says of an error quotes keys and signatures, so only S3's own word for it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CONNECT_TIMEOUT, SILENCE = timedelta(seconds=2), timedelta(seconds=10)
"""How long a bucket may take to answer a connection, and to go on with what it sends."""
WHOLE_TIMEOUT = timedelta(hours=1)
"""How long one file may take."""
MOST_RETRIES = 1
BLOCK, PART = 1 << 20, 8 << 20
"""Bytes that are read at once, and that a large file is sent in."""
NEEDED = ("accessKeyID", "secretAccessKey", "endpoint", "bucket")
"""What the service asks for."""


class Unavailable(Exception):
    """Why a bucket does not give or take something."""


@dataclass(frozen=True)
class Bucket:
    """One bucket, and who works with it. All methods block."""

    name: str
    endpoint: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"

    def fetch(self, key: str, target: Path) -> None:
        """
        Write the object of that key to a file; if there is none, there is no file, and the service does not mind.

        Raises:
            Unavailable: The bucket gives nothing.
        """
        import obstore
        from obstore.exceptions import BaseError

        target.parent.mkdir(parents=True, exist_ok=True)
        failure = None
        try:
            found = obstore.get(self._store, key)
            with target.open("wb") as file:
                for piece in found.stream(min_chunk_size=BLOCK):
                    file.write(piece)
            return
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                failure = "NoSuchBucket"
        except (BaseError, ValueError) as error:
            failure = _word(error)
        target.unlink(missing_ok=True)
        if failure:
            raise Unavailable(f"{key} cannot be downloaded from the bucket {self.name}: {failure}")

    def upload(self, file: Path, key: str) -> None:
        """
        Write a file to that key.

        Raises:
            Unavailable: The bucket takes nothing.
        """
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.put(self._store, key, file, chunk_size=PART, max_concurrency=2)
            return
        except (BaseError, FileNotFoundError, ValueError) as error:
            failure = _word(error)
        raise Unavailable(f"{key} cannot be uploaded to the bucket {self.name}: {failure}")

    @cached_property
    def _store(self) -> Any:
        from obstore.store import S3Store

        keys = {
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
            credential_provider=lambda: keys,
            client_options={
                "allow_http": True,
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": SILENCE,
                "timeout": WHOLE_TIMEOUT,
            },
            retry_config={"max_retries": MOST_RETRIES},
            skip_signature=False,
            virtual_hosted_style_request=False,
        )


def bucket(value: Mapping[str, Any]) -> Bucket:
    """The bucket that a payload or a dataset describes; all of `NEEDED` has to be there."""
    keys = [str(value[name]) for name in ("bucket", "endpoint", "accessKeyID", "secretAccessKey")]
    return Bucket(*keys, *([str(value["region"])] if value.get("region") else []))


def missing(value: Mapping[str, Any]) -> list[str]:
    """What the description of a bucket lacks."""
    return [name for name in NEEDED if value.get(name) is None]


def is_installed() -> bool:
    """Whether buckets can be used at all."""
    return find_spec("obstore") is not None


def _word(error: Exception) -> str:
    """S3's word for an error, else what kind it is."""
    found = re.search(r"<Code>(\w+)</Code>", str(error)) or re.search(r"status code: (\d+)", str(error))
    return found[1] if found else f"{type(error).__name__}, no answer"
