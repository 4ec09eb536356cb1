"""Turn what the user passes to a start into the body of the request: read files, validate, serialise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from .._errors import InputConflict, InvalidPayload, PayloadTooLarge, Problem
from .._http.call import MAX_REQUEST_BYTES, json_body
from .._util.threads import in_thread
from ..models import Experiment, FileContent, StartOptions, StartPayload
from .validation import FILE_FIELDS, OTHER_WAYS, files_of, find_clashes, find_problems, validate_payload

if TYPE_CHECKING:
    from .draft import Draft

MIN_SECRET_CONTENT_LENGTH = 8
"""Characters. File contents of at least this length are redacted in messages."""


@dataclass(frozen=True)
class Prepared:
    """
    A payload ready to be sent.

    Attributes:
        content: The JSON body.
        secrets: Texts in it that must not appear in messages.
    """

    content: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def resolve_drafts(
    experiment: str | Experiment | Draft, payload: Mapping[str, Any] | StartPayload | Draft | None
) -> tuple[str, Mapping[str, Any] | StartPayload | None]:
    """Return the identifier and the payload of a start. Either argument, or both, may be a draft."""
    from .draft import Draft  # only once there is something to start

    if isinstance(experiment, Draft):
        payload = experiment.filled(payload)  # type: ignore[arg-type]  # raises a TypeError for other types
    elif isinstance(payload, Draft):
        payload = payload.filled()
    return experiment.identifier if isinstance(experiment, Experiment | Draft) else experiment, payload


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
    files = files_of(start)
    contents: dict[str, str] = {}
    problems: list[Problem] = []
    for entry, file in files:
        text = await _read_content(entry, file, problems)
        if text is not None:
            contents[entry] = text
    problems += find_problems(start, files, contents)
    if clashes := find_clashes(start):
        conflict = Problem("data", f"files {clashes} occur twice: give each file once")
        error = InvalidPayload if problems else InputConflict
        raise error.before_sending([*problems, conflict], clashes)
    if problems:
        raise InvalidPayload.before_sending(problems)
    return _dump(start, contents)


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
    return Prepared(content, tuple(_secrets(body, contents.values())))


async def _read_content(entry: str, file: FileContent, problems: list[Problem]) -> str | None:
    """Return the text of a file given in any form, or None; add what is wrong with it to ``problems``."""
    value, where = file.content, f"{entry}.content"
    try:
        if isinstance(value, Path):
            value = await in_thread(partial(_read_file, value))
        if isinstance(value, bytes | bytearray):
            return bytes(value).decode("utf-8")
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
        return str(await in_thread(partial(value.to_csv, index=False)))
    problems.append(Problem(where, f"must be text, UTF-8 bytes, a Path or a DataFrame, not {type(value).__name__}"))
    return None


def _read_file(path: Path) -> bytes:
    """Return the contents of a file, or enough of them to exceed the limit."""
    with path.open("rb") as file:
        return file.read(MAX_REQUEST_BYTES + 1)


def _dump(start: StartOptions, contents: Mapping[str, str]) -> dict[str, Any]:
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


def _secrets(body: Mapping[str, Any], contents: Any) -> Iterator[str]:
    """Yield the texts that messages must not quote: keys, environment variables, file contents."""
    for bucket in (body.get("s3"), (body.get("s3Store") or {}).get("credentials")):
        yield from (bucket[name] for name in ("accessKeyID", "secretAccessKey") if bucket and bucket.get(name))
    yield from (str(value) for value in (body.get("environmentVariables") or {}).values())
    yield from (text for text in contents if len(text) >= MIN_SECRET_CONTENT_LENGTH)
