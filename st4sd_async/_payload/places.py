"""What is wrong with the places that a payload names: buckets, datasets and volumes, before anybody is asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import pydantic

from .._errors import Problem
from ..models import S3, FileContent, S3Store, StartOptions

NEEDED = ("accessKeyID", "secretAccessKey", "bucket", "endpoint")
"""What the service needs to know of a bucket."""
DATASET = "dataset://"
"""How the address of a dataset begins."""

P = TypeVar("P", S3, S3Store)

_VISIBLE = re.compile(r"[!-~]*")
_BUCKET_FIELDS = {
    "accessKeyID": (_VISIBLE, "visible ASCII characters"),
    "secretAccessKey": (_VISIBLE, "visible ASCII characters"),
    "region": (_VISIBLE, "visible ASCII characters"),
    "bucket": (re.compile(r"[\w.:-]+", re.ASCII), "letters, digits and any of - . _ :"),
    "endpoint": (re.compile(r"[^\s?#\x00-\x1f\x7f]+"), "an address without blanks, '?' and '#'"),
}
"""Fields of a bucket to work with: what they may be, since each ends up in the line or a header of a request."""


def bucket_of(given: S3 | Mapping[str, Any]) -> S3:
    """A bucket in whichever form it was given; raises TypeError or ValueError, without its keys, for what is none."""
    return _read(given, S3, "a bucket is a mapping or an S3")


def store_of(given: S3Store | Mapping[str, Any]) -> S3Store:
    """A place for key-outputs in whichever form it was given; raises as `bucket_of`."""
    return _read(given, S3Store, "a store is an S3Store(credentials=S3(...)) or a mapping with 'credentials'")


def _read(given: object, cls: type[P], wanted: str) -> P:
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"{wanted}, not {type(given).__name__}")
    try:
        return cls.model_validate(dict(given))
    except pydantic.ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
    # Raised out here, because the error caught above holds the keys.
    problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found]
    raise ValueError(f"this is no {'bucket' if cls is S3 else 'store'}: {'; '.join(problems)}")


def unusable_fields(bucket: S3) -> list[str]:
    """The fields of a bucket that no request can carry, each with what it may be; their values are not told."""
    given = {name: getattr(bucket, name) for name in _BUCKET_FIELDS}
    texts = {
        name: one.get_secret_value() if isinstance(one, pydantic.SecretStr) else one for name, one in given.items()
    }
    return [
        f"{name} must be {told}"
        for name, (pattern, told) in _BUCKET_FIELDS.items()
        if texts[name] and not pattern.fullmatch(texts[name])
    ]


def place_problems(start: StartOptions) -> Iterator[Problem]:
    """What is wrong with the places themselves."""
    if start.s3 is not None:
        yield from _bucket_problems("s3", start.s3)
    if start.s3Store is not None and start.datasetStoreURI is not None:
        yield Problem("s3Store", "s3Store and datasetStoreURI exclude each other")
    elif start.s3Store is not None:
        yield from _store_problems(start.s3Store)
    if start.datasetStoreURI is not None and not start.datasetStoreURI.removeprefix(DATASET).partition("/")[0]:
        yield Problem("datasetStoreURI", f"it needs the name of a dataset: {DATASET}name/path")
    elif start.datasetStoreURI is not None and not start.datasetStoreURI.startswith(DATASET):
        yield Problem("datasetStoreURI", f"it must begin with {DATASET}")
    yield from _volume_problems(start)


def name_problems(where: str, file: FileContent) -> Iterator[Problem]:
    """What is wrong with how a file is named there and here."""
    if not file.name:
        yield Problem(f"{where}.filename", "a file needs a name")
    if file.filename is not None and (file.sourceFilename or file.targetFilename):
        yield Problem(where, "give either filename, or sourceFilename and targetFilename")
    if (file.sourceFilename is None) != (file.targetFilename is None):
        yield Problem(where, "sourceFilename and targetFilename go together")
    if "/" in (file.targetFilename or ""):
        yield Problem(f"{where}.targetFilename", "the experiment sees names only: leave out the folder")


def _bucket_problems(where: str, bucket: S3) -> Iterator[Problem]:
    missing = [name for name in NEEDED if not getattr(bucket, name)]
    if not bucket.dataset and missing:
        yield Problem(where, f"{', '.join(missing)} must be given too, or a dataset in place of all")
    if bucket.dataset and len(missing) < len(NEEDED):
        yield Problem(where, "a dataset stands in place of all others: leave them out, or leave out the dataset")


def _store_problems(store: S3Store) -> Iterator[Problem]:
    bucket = store.credentials or S3()
    if bucket.dataset:
        told = f"a dataset cannot be given here: use datasetStoreURI='{DATASET}{bucket.dataset}/path'"
        yield Problem("s3Store.credentials.dataset", told)
    elif missing := [name for name in NEEDED if not getattr(bucket, name)]:
        yield Problem("s3Store.credentials", f"{', '.join(missing)} must be given too")
    # The orchestrator gives up on s3://bucket without a path, and with it the run.
    if "bucketPath" in store.model_fields_set and not (store.bucketPath or "").strip("/"):
        yield Problem(
            "s3Store.bucketPath", "key-outputs need a folder in the bucket: give it a name, or leave this out"
        )


def _volume_problems(start: StartOptions) -> Iterator[Problem]:
    volumes = start.volumes or []
    for index, volume in enumerate(volumes):
        if len([name for name in type(volume.type).model_fields if getattr(volume.type, name)]) != 1:
            kinds = ", ".join(type(volume.type).model_fields)
            yield Problem(f"volumes[{index}].type", f"a volume is exactly one of {kinds}")
    for name, count in Counter(volume.identifier for volume in volumes).items():
        if name is not None and count > 1:
            yield Problem("volumes", f"the identifier {name!r} is there {count} times: give each volume its own")
