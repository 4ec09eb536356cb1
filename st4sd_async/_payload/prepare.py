"""From what the user wrote to the body of a start: contents read, everything checked, nothing added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from .._errors import InputConflict, InvalidPayload, PayloadTooLarge, Problem
from .._http.call import LARGEST_BODY, json_body
from .._util.did_you_mean import closest_match
from .._util.redact import unseen
from ..models import S3, FileContent, LambdaPayload, StartOptions, StartPayload
from .places import name_problems, place_problems

P = TypeVar("P", bound=StartOptions)

SHORTEST_SECRET_CONTENT = 8
"""Characters; contents shorter than that are not kept out of messages."""

FILES = ("inputs", "data", "scripts")
"""The fields of payloads that hold files."""

ELSEWHERE = "bring the file through s3, a dataset or a volume"
"""The way out for contents that cannot travel in the payload."""


@dataclass(frozen=True)
class Prepared:
    """A payload ready to be sent."""

    content: bytes = field(repr=False)
    """The JSON body."""
    secrets: tuple[str, ...] = field(repr=False)
    """Texts in it that must not come back in messages."""


async def prepare(payload: Mapping[str, Any] | StartOptions | None, cls: type[StartOptions] = StartPayload) -> Prepared:
    """
    The body of a start, checked before anything is sent.

    Args:
        payload: What the user wrote; None: nothing.
        cls: What it is to be: the payload of a start, or of the start of a lambda experiment.

    Raises:
        InvalidPayload: Something is wrong with it; `InvalidPayload.problems` has all of it, entry by entry.
        PayloadTooLarge: It is over 1 MiB.
    """
    start = validated({} if payload is None else payload, cls)
    files = [*_files(start)]
    contents: dict[str, str] = {}
    problems: list[Problem] = []
    for where, file in files:
        text = await _content(where, file, problems)
        if text is not None:
            contents[where] = text
    problems += _problems(start, files, contents)
    if clashes := _clashes(start):
        conflict = Problem("data", f"files {clashes} are there twice: give each file once")
        error = InvalidPayload if problems else InputConflict
        raise error.before_sending([*problems, conflict], clashes)
    if problems:
        raise InvalidPayload.before_sending(problems)
    try:
        body = json_body(_wire(start, contents))
    except ValueError:
        body = b""
    if not body:
        raise InvalidPayload.before_sending([Problem("payload", "it holds text that UTF-8 cannot write, or no JSON")])
    _check_size(body, contents)
    return Prepared(body, tuple(_secrets(start, contents)))


def validated(payload: Mapping[str, Any] | StartOptions, cls: type[P]) -> P:
    """The payload as its model; raises `InvalidPayload`, with all problems and nothing of it, if it does not fit."""
    if isinstance(payload, cls):
        return payload
    if not isinstance(payload, Mapping):
        raise no_payload(f"a start payload is a mapping or a {cls.__name__}", payload)
    try:
        return cls.model_validate(dict(payload))
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    # Raised out here, because the error caught above holds the payload.
    raise InvalidPayload.before_sending(Problem(_where(one["loc"]), _what(one, cls)) for one in found)


def no_payload(told: str, given: object) -> TypeError:
    """The error for what is no payload, with the way from it to one if there is any."""
    way = ": call its .as_inputs()" if hasattr(given, "as_inputs") else ""
    return TypeError(f"{told}, not {type(given).__name__}{way}")


def _where(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".") or "payload"


def _what(error: Any, cls: type[StartOptions]) -> str:
    if error["type"] == "list_type" and error["loc"][-1] in FILES:
        return 'files are a list, as in [{"filename": "molecules.csv", "content": "..."}]'
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    known = _fields_at(error["loc"][:-1], cls)
    other = closest_match(str(error["loc"][-1]), known)
    return f"there is no such field, did you mean {other!r}?" if other else f"there is no such field, only {known}"


def _fields_at(location: tuple[int | str, ...], cls: type[StartOptions]) -> list[str]:
    """The names of the fields that exist where an unknown one was found."""
    here: Any = cls
    for part in location:
        if isinstance(part, str):
            here = next(_models(here.model_fields[part].annotation), cls)
    return sorted(here.model_fields)


def _models(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """The models inside an annotation like ``list[FileContent] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


def _files(start: StartOptions) -> Iterator[tuple[str, FileContent]]:
    for kind in FILES:
        for index, file in enumerate(getattr(start, kind, None) or ()):
            yield f"{kind}[{index}]", file


async def _content(where: str, file: FileContent, problems: list[Problem]) -> str | None:
    """The text of a file given in whatever form, or None; what is wrong with it is added to ``problems``."""
    value, place = file.content, f"{where}.content"
    try:
        if isinstance(value, Path):
            value = await unseen(partial(_read, value))
        if isinstance(value, bytes | bytearray):
            return bytes(value).decode("utf-8")
    except OSError as error:
        told = f"for {file.name!r}, the file {str(value)!r} cannot be read: {error.strerror}"
        problems.append(Problem(place, told))
        return None
    except UnicodeDecodeError:
        problems.append(Problem(place, f"only text in UTF-8 can travel in a payload: {ELSEWHERE}"))
        return None
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "to_csv"):
        return str(await unseen(partial(value.to_csv, index=False)))
    problems.append(Problem(place, f"must be text, UTF-8 bytes, a Path or a DataFrame, not {type(value).__name__}"))
    return None


def _read(path: Path) -> bytes:
    """The file, but no more of it than shows that it is too large."""
    with path.open("rb") as file:
        return file.read(LARGEST_BODY + 1)


def _problems(
    start: StartOptions, files: list[tuple[str, FileContent]], contents: Mapping[str, str]
) -> Iterator[Problem]:
    volumes = {volume.identifier for volume in start.volumes or ()}
    for where, file in files:
        yield from name_problems(where, file)
        if contents.get(where) == "":
            yield Problem(
                f"{where}.content",
                f"the service refuses an empty file ({file.name!r}): give it a line break, or {ELSEWHERE}",
            )
        if file.volume is not None and file.volume not in volumes:
            yield Problem(f"{where}.volume", f"no volume has the identifier {file.volume!r}")
        if file.volume is not None and file.content is not None:
            yield Problem(where, "content and volume exclude each other")
        if file.content is None and file.volume is None and start.s3 is None:
            yield Problem(
                f"{where}.content",
                f"the file {file.name!r} has none, and there is neither s3 nor a volume to take it from",
            )
    for name in start.metadata or ():
        if ":" in name:  # the orchestrator would take what follows it for a part of the value
            yield Problem(f"metadata.{name}", "names of metadata may hold no colon, only values may: use another sign")
    yield from place_problems(start)


def _clashes(start: StartOptions) -> list[str]:
    """Names of files that are there twice: in inputs and data, or twice in a lambda's data, of which the last wins."""
    given = [file.name for file in start.data or ()]
    inputs = {file.name for file in getattr(start, "inputs", None) or ()}
    if isinstance(start, LambdaPayload):
        inputs = {name for name in given if given.count(name) > 1}
    return sorted({name for name in given if name and name in inputs})


def _wire(start: StartOptions, contents: Mapping[str, str]) -> dict[str, Any]:
    """The payload as the service takes it: what was not set is not sent."""
    hidden = {kind: {"__all__": {"content"}} for kind in FILES if getattr(start, kind, None)}
    body = start.model_dump(exclude_unset=True, exclude=hidden or None)
    for where, text in contents.items():
        kind, _, index = where.rstrip("]").partition("[")
        body[kind][int(index)]["content"] = text
    return {key: _revealed(value) for key, value in body.items()}


def _revealed(value: Any) -> Any:
    if isinstance(value, pydantic.SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: _revealed(item) for key, item in value.items()}
    return [_revealed(item) for item in value] if isinstance(value, list) else value


def _check_size(body: bytes, contents: Mapping[str, str]) -> None:
    if len(body) <= LARGEST_BODY:
        return
    biggest = max(contents, key=lambda where: len(contents[where]), default="payload")
    told = f"the payload is over the {LARGEST_BODY} bytes that the proxy lets through"
    raise PayloadTooLarge.before_sending([Problem(f"{biggest}.content", told)])


def _secrets(start: StartOptions, contents: Mapping[str, str]) -> Iterator[str]:
    """What the service must not be quoted with: keys, the environment, whole files."""
    for bucket in (start.s3, start.s3Store.credentials if start.s3Store else None):
        if isinstance(bucket, S3):
            yield from (key.get_secret_value() for key in (bucket.accessKeyID, bucket.secretAccessKey) if key)
    yield from (str(value) for value in (start.environmentVariables or {}).values())
    yield from (text for text in contents.values() if len(text) >= SHORTEST_SECRET_CONTENT)
