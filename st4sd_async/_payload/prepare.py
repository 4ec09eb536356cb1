"""Turn what the user passes to a start into the body of the request: read files, validate once, serialise once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from .._errors import InputConflict, InvalidPayload, PayloadTooLarge, Problem
from .._http.call import MAX_REQUEST_BYTES, json_body
from .._util.did_you_mean import closest_match
from .._util.redact import keep_secrets, raise_unchained
from .._util.threads import in_thread
from ..models import S3, Experiment, FileContent, LambdaPayload, S3Store, StartOptions, StartPayload, Volume
from ..models.storage import REQUIRED_BUCKET_FIELDS

M = TypeVar("M", bound=StartOptions)

FILE_FIELDS = ("inputs", "data", "scripts")
"""Payload fields that hold files."""

KINDS = {
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "a mapping"),
    "list_type": "a list",
    "string_type": "a string",
}
"""Type of a validation error -> what is expected."""

FILE_EXAMPLE = '{"filename": "molecules.csv", "content": "..."}'
NAMED_FILE_FIELDS = ("inputs", "data")
"""Fields with files that are also arguments of a start."""
FIELDS_ADVICE = '; or give fields instead of a payload, such as {field}={{"molecules.csv": Path("molecules.csv")}}'
"""Advice for a payload in which files are given by name."""
EXAMPLES = {
    **dict.fromkeys(FILE_FIELDS, f"[{FILE_EXAMPLE}]"),
    "variables": '{"scale": 2}',
    "metadata": '{"campaign": "water"}',
    "platform": '"default"',
    "environmentVariables": '{"OMP_NUM_THREADS": "4"}',
    "additionalOptions": '["--registerWorkflow=y"]',
    "orchestrator_resources": '{"cpu": "1", "memory": "500Mi"}',
    "volumes": '[{"type": {"persistentVolumeClaim": "mine"}}]',
    "s3": '{"dataset": "mine"}',
    "s3Store": '{"credentials": {...}, "bucketPath": "campaign"}',
    "runtimePolicy": '{"name": "mine"}',
}
"""Field of a payload -> an example of its value."""

DATASET_SCHEME = "dataset://"

MIN_SECRET_CONTENT_LENGTH = 8
"""Characters. File contents of at least this length are redacted in messages."""

OTHER_WAYS = "provide the file through s3, a dataset or a volume"
"""Advice for contents that a payload cannot hold."""


@dataclass(frozen=True)
class Prepared:
    """A payload ready to be sent."""

    content: bytes = field(repr=False)
    """The JSON body."""
    secrets: tuple[str, ...] = field(repr=False)
    """Texts in it that must not appear in messages."""


class PayloadSource(ABC):
    """An object that a start accepts in place of an experiment, of a payload, or of both: a `Draft`."""

    __slots__ = ()
    identifier: str

    @abstractmethod
    def filled(self, more: Mapping[str, Any] | None = None) -> StartPayload:
        """Return the payload with other fields added."""


def resolve_drafts(
    experiment: str | Experiment | PayloadSource, payload: Mapping[str, Any] | StartPayload | PayloadSource | None
) -> tuple[str, Mapping[str, Any] | StartPayload | None]:
    """Return the identifier and the payload of a start. Either argument, or both, may be a draft."""
    if isinstance(experiment, PayloadSource):
        payload = experiment.filled(payload)  # type: ignore[arg-type]  # raises a TypeError for other types
    elif isinstance(payload, PayloadSource):
        payload = payload.filled()
    if isinstance(experiment, str):
        return experiment, payload
    if not isinstance(experiment, Experiment | PayloadSource):
        expectation = "experiment must be an identifier, an Experiment or a Draft"
        raise TypeError(f"{expectation}, not {type(experiment).__name__}")
    return experiment.identifier, payload


async def prepare(
    payload: Mapping[str, Any] | StartOptions | None, model: type[StartOptions] = StartPayload
) -> Prepared:
    """
    Validate a payload and return it ready to be sent.

    Args:
        payload: The payload; None means an empty one.
        model: The model to validate it with: `StartPayload` or `LambdaPayload`.

    Raises:
        InvalidPayload: The payload is invalid; ``problems`` has all problems, entry by entry.
        PayloadTooLarge: The body is larger than 1 MiB.
    """
    return serialise(await build_body(payload, model))


async def build_body(payload: Mapping[str, Any] | StartOptions | None, model: type[StartOptions]) -> dict[str, Any]:
    """Read the files of a payload, validate it, and return its JSON form; see `prepare`."""
    start = validate_payload({} if payload is None else payload, model)
    contents, problems = await read_files(start)
    if clashes := find_clashes(start):
        error = InvalidPayload if problems else InputConflict
        raise error.before_sending([*problems, clash_problem(clashes)], clashes)
    if problems:
        raise InvalidPayload.before_sending(problems)
    return dump(start, contents)


async def read_files(start: StartOptions) -> tuple[dict[str, str], list[Problem]]:
    """Return entry -> text of each file with contents, and all problems of the payload except name clashes."""
    files = files_of(start)
    contents: dict[str, str] = {}
    problems: list[Problem] = []
    read = partial(_read_contents, files, contents, problems)
    if any(isinstance(file.content, Path) or hasattr(file.content, "to_csv") for _, file in files):
        await in_thread(read)
    else:
        read()
    return contents, [*problems, *find_problems(start, files, contents)]


def serialise(body: Mapping[str, Any]) -> Prepared:
    """
    Return a validated payload, given in its JSON form, ready to be sent.

    Raises:
        InvalidPayload: A value cannot be written as JSON.
        PayloadTooLarge: The body is larger than 1 MiB.
    """
    try:
        content = json_body(body)
    except ValueError:
        content = b""
    if not content:
        problem = "contains text that UTF-8 cannot encode, or a value that JSON cannot represent"
        raise InvalidPayload.before_sending([Problem("payload", problem)])
    contents = dict(_contents(body))
    if len(content) > MAX_REQUEST_BYTES:
        biggest = max(contents, key=lambda entry: len(contents[entry]), default="payload")
        problem = f"the payload is over the {MAX_REQUEST_BYTES} bytes that the proxy accepts"
        raise PayloadTooLarge.before_sending([Problem(f"{biggest}.content", problem)])
    credentials = tuple(credentials_of(body))
    keep_secrets(credentials)
    return Prepared(content, (*credentials, *_long_texts(contents.values())))


def check_body(body: Mapping[str, Any]) -> None:
    """Check the types in the JSON form of a payload that was read from a file. Raises `InvalidPayload`."""
    problems: list[Problem] = []
    _read_contents(files_of(validate_payload(body, StartPayload)), {}, problems)
    if problems:
        raise InvalidPayload.before_sending(problems)


def _read_contents(files: list[tuple[str, FileContent]], contents: dict[str, str], problems: list[Problem]) -> None:
    """Add the texts of files to ``contents``, and what is wrong with them to ``problems``. May block."""
    for entry, file in files:
        text = _read_content(entry, file, problems)
        if text is not None:
            contents[entry] = text


def _read_content(entry: str, file: FileContent, problems: list[Problem]) -> str | None:
    """Return the text of a file given in any form. If invalid, add the problem to ``problems`` and return None."""
    value, where = file.content, f"{entry}.content"
    try:
        if isinstance(value, Path):
            value = _read_file(value)
        if isinstance(value, bytes | bytearray):
            # A file beyond the limit may be cut inside a character; it is refused for its size.
            return bytes(value).decode("utf-8", "ignore" if len(value) > MAX_REQUEST_BYTES else "strict")
    except OSError as error:
        problem = f"for {file.name!r}, the file {str(value)!r} cannot be read: {error.strerror}"
        problems.append(Problem(where, problem))
        return None
    except UnicodeDecodeError:
        problems.append(Problem(where, f"a payload can only contain UTF-8 text: {OTHER_WAYS}"))
        return None
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "to_csv"):
        return str(value.to_csv(index=False))
    problems.append(Problem(where, f"must be a string, UTF-8 bytes, a Path or a DataFrame, not {type(value).__name__}"))
    return None


def _read_file(path: Path) -> bytes:
    """Return the contents of a file, or enough of them to exceed the limit."""
    with path.open("rb") as file:
        return file.read(MAX_REQUEST_BYTES + 1)


def dump(start: StartOptions, contents: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON form of a payload; fields that are not set are left out."""
    without_content = {name: {"__all__": {"content"}} for name in FILE_FIELDS if getattr(start, name, None)}
    body = start.model_dump(exclude_unset=True, exclude=without_content or None)
    for entry, text in contents.items():
        name, _, index = entry.rstrip("]").partition("[")
        body[name][int(index)]["content"] = text
    return {name: _reveal(value) for name, value in body.items()}


def _reveal(value: Any) -> Any:
    if isinstance(value, pydantic.SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {name: _reveal(item) for name, item in value.items()}
    return [_reveal(item) for item in value] if isinstance(value, list) else value


def _contents(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the entry and the text of each file in the JSON form of a payload."""
    for name in FILE_FIELDS:
        for index, file in enumerate(body.get(name) or ()):
            if file.get("content") is not None:
                yield f"{name}[{index}]", file["content"]


def credentials_of(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys and environment variables in the JSON form of a payload, which messages must not quote."""
    for bucket in (body.get("s3"), (body.get("s3Store") or {}).get("credentials")):
        yield from (bucket[name] for name in ("accessKeyID", "secretAccessKey") if bucket and bucket.get(name))
    yield from (str(value) for value in (body.get("environmentVariables") or {}).values())


def _long_texts(contents: Iterable[str]) -> Iterator[str]:
    """Yield the file contents that messages must not quote."""
    return (text for text in contents if len(text) >= MIN_SECRET_CONTENT_LENGTH)


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
    """Return the error for a value that is not a payload. If a call converts the value, the error names it."""
    advice = ": call its .as_inputs()" if hasattr(value, "as_inputs") else ""
    return TypeError(f"{expectation}, not {type(value).__name__}{advice}")


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".") or "payload"


def _explanation(error: Any, model: type[StartOptions]) -> str:
    where, kind = error["loc"], KINDS.get(error["type"])
    if where[-1] == "[key]":
        return "names must be strings"
    if kind is not None:
        is_file = len(where) == 2 and where[0] in FILE_FIELDS
        example = FILE_EXAMPLE if is_file else EXAMPLES.get(where[-1]) if len(where) == 1 else None
        of_files = " of files" if kind == "a list" and where[-1] in FILE_FIELDS else ""
        advice = FIELDS_ADVICE.format(field=where[0]) if of_files and where[0] in NAMED_FILE_FIELDS else ""
        return f"must be {kind}{of_files}" + (f", such as {example}" if example else "") + advice
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
    Return all problems of a payload whose fields have the right types, except name clashes.

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


def clash_problem(names: Sequence[str]) -> Problem:
    """Return the problem of files that a payload has twice."""
    return Problem("data", f"files {names} occur twice: give each file once")


def find_clashes(start: StartOptions) -> list[str]:
    """
    Return the names of files that a payload has twice, sorted.

    A name clashes if it is in both ``inputs`` and ``data``, or twice in the ``data`` of a lambda experiment.
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
    if not file.name:
        yield Problem(f"{entry}.filename", "a file needs a name")
    if file.filename is not None and (file.sourceFilename or file.targetFilename):
        yield Problem(entry, "give either filename, or sourceFilename and targetFilename")
    if (file.sourceFilename is None) != (file.targetFilename is None):
        yield Problem(entry, "sourceFilename and targetFilename go together")
    if "/" in (file.targetFilename or ""):
        yield Problem(f"{entry}.targetFilename", "must be a file name without a folder")
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
    # The orchestrator rejects s3://bucket without a path, and the run fails.
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
    if isinstance(start, StartPayload):  # lambda experiments are checked by other code of the service
        yield from _mount_problems(volumes)


def _mount_problems(volumes: Sequence[Volume]) -> Iterator[Problem]:
    """Yield what the service rejects; a volume may be repeated only with another identifier."""
    for index, volume in enumerate(volumes):
        if volume.subPath is not None and (volume.type.configMap or volume.type.secret):
            yield Problem(f"volumes[{index}].subPath", "a configMap or secret is mounted as a whole: leave it out")
    mounts: dict[tuple[str, str], list[Volume]] = {}
    for volume in volumes:
        kind, name = next(((kind, name) for kind, name in volume.type if name), ("", ""))
        # A dataset is mounted through a claim of its name.
        mounts.setdefault(("persistentVolumeClaim" if kind == "dataset" else kind, name), []).append(volume)
    for (kind, name), same in mounts.items():
        contents = [volume.model_dump(exclude={"identifier"}) for volume in same]
        is_one = all(content == contents[0] for content in contents)
        if kind and not (is_one and len({volume.identifier for volume in same}) == len(same)):
            yield Problem("volumes", f"{name!r} is mounted {len(same)} times: one entry is enough")
