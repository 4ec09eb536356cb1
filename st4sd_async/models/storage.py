"""Pure rules on buckets: parse what a user passes as a bucket, and find fields that no request can carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import pydantic

from .._util.redact import raise_unchained
from .payloads import S3, S3Store

REQUIRED_BUCKET_FIELDS = ("accessKeyID", "secretAccessKey", "bucket", "endpoint")
"""Fields that the service needs to use a bucket."""

M = TypeVar("M", S3, S3Store)

_VISIBLE_ASCII = re.compile(r"[!-~]*")
_FIELD_PATTERNS = {
    "accessKeyID": (_VISIBLE_ASCII, "visible ASCII characters"),
    "secretAccessKey": (_VISIBLE_ASCII, "visible ASCII characters"),
    "region": (_VISIBLE_ASCII, "visible ASCII characters"),
    "bucket": (re.compile(r"[\w.:-]+", re.ASCII), "letters, digits and any of - . _ :"),
    "endpoint": (re.compile(r"[^\s?#\x00-\x1f\x7f]+"), "a URL without whitespace, '?' and '#'"),
}
"""Field of a bucket -> its pattern and the pattern in words. Each value ends up in a request line or header."""


def parse_bucket(value: S3 | Mapping[str, object]) -> S3:
    """
    Return a bucket from an `S3` or a mapping of its fields.

    Raises:
        TypeError: The value is neither.
        ValueError: A field is unknown or invalid; the message contains no keys.
    """
    return _parse(value, S3, "bucket must be an S3 or a mapping of its fields")


def parse_store(value: S3Store | Mapping[str, object]) -> S3Store:
    """Return a store for key-outputs from an `S3Store` or a mapping of its fields; raises as `parse_bucket` does."""
    return _parse(value, S3Store, "store must be an S3Store(credentials=S3(...)) or a mapping with 'credentials'")


def _parse(value: object, model: type[M], expectation: str) -> M:
    if isinstance(value, model):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{expectation}, not {type(value).__name__}")
    try:
        return model.model_validate(dict(value))
    except pydantic.ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in found)
        raise_unchained(ValueError(f"invalid {'bucket' if model is S3 else 'store'}: {problems}"))


def find_invalid_fields(bucket: S3) -> list[str]:
    """Return the fields that no request can carry, each with what it must be; their values are left out."""
    values = {name: getattr(bucket, name) for name in _FIELD_PATTERNS}
    texts = {
        name: value.get_secret_value() if isinstance(value, pydantic.SecretStr) else value
        for name, value in values.items()
    }
    return [
        f"{name} must be {description}"
        for name, (pattern, description) in _FIELD_PATTERNS.items()
        if texts[name] and not pattern.fullmatch(texts[name])
    ]
