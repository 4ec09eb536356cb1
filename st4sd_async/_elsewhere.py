"""What is wrong with the places that a payload names: buckets, datasets and volumes, before anybody is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ._problems import Problem
from .models import S3, FileContent, S3Store, StartOptions

NEEDED = ("accessKeyID", "secretAccessKey", "bucket", "endpoint")
"""What the service needs to know of a bucket."""
DATASET = "dataset://"
"""How the address of a dataset begins."""


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
