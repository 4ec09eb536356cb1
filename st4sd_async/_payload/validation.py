"""Every check of a start payload, as pure functions: fields, files, buckets and volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import pydantic

from .._errors import InvalidPayload, Problem
from .._util.did_you_mean import closest_match
from .._util.redact import raise_unchained
from ..models import S3, FileContent, LambdaPayload, S3Store, StartOptions
from ..models.storage import REQUIRED_BUCKET_FIELDS

M = TypeVar("M", bound=StartOptions)

FILE_FIELDS = ("inputs", "data", "scripts")
"""Payload fields that hold files."""

DATASET_SCHEME = "dataset://"

OTHER_WAYS = "provide the file through s3, a dataset or a volume"
"""Advice for contents that a payload cannot hold."""


def validate_payload(payload: Mapping[str, Any] | StartOptions, model: type[M]) -> M:
    """
    Return a payload as its model.

    Raises:
        InvalidPayload: Fields are unknown or have the wrong type. The error lists all of them and none of the values.
        TypeError: The payload is neither a mapping nor the model.
    """
    if isinstance(payload, model):
        return payload
    if not isinstance(payload, Mapping):
        raise payload_type_error(f"a start payload must be a mapping or a {model.__name__}", payload)
    try:
        return model.model_validate(dict(payload))
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = [Problem(_path(each["loc"]), _explanation(each, model)) for each in found]
        raise_unchained(InvalidPayload.before_sending(problems))


def payload_type_error(expectation: str, value: object) -> TypeError:
    """Return the error for a value that is not a payload, with the call that makes it one if there is one."""
    advice = ": call its .as_inputs()" if hasattr(value, "as_inputs") else ""
    return TypeError(f"{expectation}, not {type(value).__name__}{advice}")


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".") or "payload"


def _explanation(error: Any, model: type[StartOptions]) -> str:
    if error["type"] == "list_type" and error["loc"][-1] in FILE_FIELDS:
        return 'must be a list of files, such as [{"filename": "molecules.csv", "content": "..."}]'
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    known = _fields_at(error["loc"][:-1], model)
    similar = closest_match(str(error["loc"][-1]), known)
    return f"unknown field: did you mean {similar!r}?" if similar else f"unknown field: expected one of {known}"


def _fields_at(location: tuple[int | str, ...], model: type[StartOptions]) -> list[str]:
    """Return the names of the fields that exist at a location, sorted."""
    current: Any = model
    for part in location:
        if isinstance(part, str):
            current = next(_models_in(current.model_fields[part].annotation), model)
    return sorted(current.model_fields)


def _models_in(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """Yield the models inside an annotation such as ``list[FileContent] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def files_of(start: StartOptions) -> list[tuple[str, FileContent]]:
    """Return all files of a payload, each with its entry (``inputs[0]``)."""
    return [
        (f"{field}[{index}]", file)
        for field in FILE_FIELDS
        for index, file in enumerate(getattr(start, field, None) or ())
    ]


def find_problems(
    start: StartOptions, files: list[tuple[str, FileContent]], contents: Mapping[str, str]
) -> list[Problem]:
    """
    Return everything that is wrong with a payload whose fields have the right types, except name clashes.

    Args:
        start: The payload.
        files: Its files, as `files_of` returns them.
        contents: Entry -> the text of the file, for each file that has contents.
    """
    volumes = {volume.identifier for volume in start.volumes or ()}
    problems = [
        problem for entry, file in files for problem in _file_problems(entry, file, contents.get(entry), start, volumes)
    ]
    problems += [
        # The orchestrator would read everything after the colon as part of the value.
        Problem(f"metadata.{name}", "names of metadata cannot contain a colon: use another character")
        for name in start.metadata or ()
        if ":" in name
    ]
    return [*problems, *_storage_problems(start), *_volume_problems(start)]


def find_clashes(start: StartOptions) -> list[str]:
    """
    Return the names of files that a payload has twice, sorted.

    That is in ``inputs`` and ``data``; or twice in the ``data`` of a lambda experiment, of which the last would win.
    """
    data = [file.name for file in start.data or ()]
    if isinstance(start, LambdaPayload):
        others = {name for name in data if data.count(name) > 1}
    else:
        others = {file.name for file in getattr(start, "inputs", None) or ()}
    return sorted({name for name in data if name and name in others})


def _file_problems(
    entry: str, file: FileContent, text: str | None, start: StartOptions, volumes: set[str | None]
) -> Iterator[Problem]:
    yield from _name_problems(entry, file)
    if text == "":
        advice = f"give it a line break, or {OTHER_WAYS}"
        yield Problem(f"{entry}.content", f"the service refuses an empty file ({file.name!r}): {advice}")
    if file.volume is not None and file.volume not in volumes:
        yield Problem(f"{entry}.volume", f"no volume has the identifier {file.volume!r}")
    if file.volume is not None and file.content is not None:
        yield Problem(entry, "content and volume are mutually exclusive")
    if file.content is None and file.volume is None and start.s3 is None:
        yield Problem(
            f"{entry}.content",
            f"the file {file.name!r} has no content, and there is neither s3 nor a volume to take it from",
        )


def _name_problems(entry: str, file: FileContent) -> Iterator[Problem]:
    if not file.name:
        yield Problem(f"{entry}.filename", "a file needs a name")
    if file.filename is not None and (file.sourceFilename or file.targetFilename):
        yield Problem(entry, "give either filename, or sourceFilename and targetFilename")
    if (file.sourceFilename is None) != (file.targetFilename is None):
        yield Problem(entry, "sourceFilename and targetFilename go together")
    if "/" in (file.targetFilename or ""):
        yield Problem(f"{entry}.targetFilename", "must be a file name without a folder")


def _storage_problems(start: StartOptions) -> Iterator[Problem]:
    if start.s3 is not None:
        yield from _bucket_problems(start.s3)
    if start.s3Store is not None and start.datasetStoreURI is not None:
        yield Problem("s3Store", "s3Store and datasetStoreURI are mutually exclusive")
    elif start.s3Store is not None:
        yield from _store_problems(start.s3Store)
    if start.datasetStoreURI is not None and not start.datasetStoreURI.removeprefix(DATASET_SCHEME).partition("/")[0]:
        yield Problem("datasetStoreURI", f"must contain the name of a dataset: {DATASET_SCHEME}name/path")
    elif start.datasetStoreURI is not None and not start.datasetStoreURI.startswith(DATASET_SCHEME):
        yield Problem("datasetStoreURI", f"must begin with {DATASET_SCHEME}")


def _missing_fields(bucket: S3) -> list[str]:
    return [name for name in REQUIRED_BUCKET_FIELDS if not getattr(bucket, name)]


def _bucket_problems(bucket: S3) -> Iterator[Problem]:
    missing = _missing_fields(bucket)
    if not bucket.dataset and missing:
        yield Problem("s3", f"also needs {', '.join(missing)}, or a dataset in place of all fields")
    if bucket.dataset and len(missing) < len(REQUIRED_BUCKET_FIELDS):
        yield Problem("s3", "a dataset replaces all other fields: give either the dataset or the others")


def _store_problems(store: S3Store) -> Iterator[Problem]:
    bucket = store.credentials or S3()
    if bucket.dataset:
        advice = f"use datasetStoreURI='{DATASET_SCHEME}{bucket.dataset}/path'"
        yield Problem("s3Store.credentials.dataset", f"a dataset is not allowed here: {advice}")
    elif missing := _missing_fields(bucket):
        yield Problem("s3Store.credentials", f"also needs {', '.join(missing)}")
    # The orchestrator gives up on s3://bucket without a path, and the run fails.
    if "bucketPath" in store.model_fields_set and not (store.bucketPath or "").strip("/"):
        yield Problem("s3Store.bucketPath", "key-outputs need a folder in the bucket: name one, or omit this field")


def _volume_problems(start: StartOptions) -> Iterator[Problem]:
    volumes = start.volumes or []
    for index, volume in enumerate(volumes):
        kinds = type(volume.type).model_fields
        if len([name for name in kinds if getattr(volume.type, name)]) != 1:
            yield Problem(f"volumes[{index}].type", f"must be exactly one of {', '.join(kinds)}")
    for name, count in Counter(volume.identifier for volume in volumes).items():
        if name is not None and count > 1:
            yield Problem("volumes", f"the identifier {name!r} is used {count} times: give each volume its own")
