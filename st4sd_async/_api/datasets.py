"""S3 buckets that the deployment knows by name: ``datasets/`` of the runtime service."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

import pydantic

from .._errors import AlreadyExists, APIError
from .._http.call import Call, Response, json_body, nothing, segment
from .._http.retry import Replay
from ..models import S3
from ..models.storage import REQUIRED_BUCKET_FIELDS, parse_bucket
from .group import Group


def list_call() -> Call[list[str]]:
    """Return the request for the names of all datasets."""
    return Call("GET", "datasets/", _names)


def create_call(name: str, bucket: S3 | Mapping[str, Any]) -> Call[None]:
    """Return the request that creates a dataset. It is never repeated: the cluster may accept a second one."""
    content = credentials_of(bucket)
    return Call(
        "POST",
        f"datasets/s3/{segment(name, 'the name of a dataset')}",
        nothing,
        replay=Replay.ONCE,
        content=json_body(content),
        error_from_message=_already_exists,
        secrets=(content["accessKeyID"], content["secretAccessKey"]),
        effect=f"the dataset {name!r} was created",
    )


def credentials_of(bucket: S3 | Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that a dataset is created from; raise ValueError if they are incomplete."""
    s3 = parse_bucket(bucket)
    fields = {name: _plain(value) for name, value in s3.model_dump(exclude_none=True).items()}
    missing = [name for name in REQUIRED_BUCKET_FIELDS if not fields.get(name)]
    if missing or "dataset" in fields:
        problem = f"lacks {missing}" if missing else "is a dataset itself ('dataset' is set)"
        raise ValueError(f"a dataset needs {[*REQUIRED_BUCKET_FIELDS, 'region']}: this bucket {problem}")
    return {"region": "", **fields}


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, pydantic.SecretStr) else str(value)


class Datasets(Group):
    """
    Datasets: S3 buckets that starts may read from or write to by name, without credentials in the payload.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` if the service cannot be reached or refuses
    the request. A deployment without Datashim responds with `BadRequest`. There is no endpoint that deletes a dataset.
    """

    async def list(self) -> builtins.list[str]:
        """
        Return the names of all datasets, in no particular order. [] if there are none.

        Source: ``GET datasets/``.
        """
        return await self._session.send(list_call())

    async def create(self, name: str, bucket: S3 | Mapping[str, Any]) -> None:
        """
        Create a dataset for a bucket. It can be used after about 30 s.

        Args:
            name: Lower-case letters, digits and dashes.
            bucket: ``accessKeyID``, ``secretAccessKey``, ``bucket``, ``endpoint`` and optionally ``region``.

        Raises:
            AlreadyExists: There already is a dataset of this name.
            OutcomeUnknown: The connection or the service failed when the dataset may have been created.
            ValueError: The bucket lacks a field. Nothing was sent.

        Source: ``POST datasets/s3/{name}``.
        """
        await self._session.send(create_call(name, bucket))


def _already_exists(message: str) -> type[APIError] | None:
    return AlreadyExists if "already exists" in message else None


def _names(response: Response) -> list[str]:
    found = response.json()
    if not isinstance(found, list):
        raise ValueError("not a list")
    return [str(name) for name in found]
