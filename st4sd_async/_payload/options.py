"""The keyword arguments of a start that take the place of a payload."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeVar

from .._errors import InvalidPayload, Problem
from ..models import FileContent
from .prepare import FILE_FIELDS

P = TypeVar("P")


class Frame(Protocol):
    """A pandas DataFrame, or anything else that writes itself as CSV."""

    @property
    def to_csv(self) -> Any:
        """The method that returns the CSV."""


FileInput = str | bytes | Path | Frame | FileContent
"""The content of a file, or where the service finds it. A string is the content; only a `Path` names a file."""


def payload_of(
    payload: P,
    *,
    inputs: Mapping[str, FileInput] | None = None,
    data: Mapping[str, FileInput] | None = None,
    variables: Mapping[str, Any] | None = None,
    platform: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> P | Mapping[str, Any]:
    """
    Return the payload of a start, which is given as a whole or by its fields. Arguments that are None are not given.

    Raises:
        TypeError: There are both a payload and fields.
        InvalidPayload: ``inputs`` or ``data`` is not a mapping of names to contents.
    """
    arguments = {"inputs": inputs, "data": data, "variables": variables, "platform": platform, "metadata": metadata}
    given = {name: value for name, value in arguments.items() if value is not None}
    if given and payload is not None:
        raise TypeError(
            f"a payload and {', '.join(given)} exclude one another: add them to the payload, "
            'or give fields only, such as start("demo", inputs={"molecules.csv": Path("molecules.csv")})'
        )
    return {name: _files(name, value) if name in FILE_FIELDS else value for name, value in given.items()} or payload


def _files(field: str, files: Any) -> list[FileContent]:
    if not isinstance(files, Mapping):
        example = f'{field}={{"molecules.csv": Path("molecules.csv")}}'
        problem = f"must be a mapping of names to contents, such as {example}, not {type(files).__name__}"
        raise InvalidPayload.before_sending([Problem(field, problem)])
    found = {name: file_problem(name, value) for name, value in files.items()}
    problems = [Problem(f"{field}.{name}", problem) for name, problem in found.items() if problem]
    if problems:
        raise InvalidPayload.before_sending(problems)
    return [named_file(name, value) for name, value in files.items()]


def file_problem(name: Any, value: Any) -> str | None:
    """Return the problem of a file that is given by name and content. None means that there is none."""
    if not isinstance(name, str):
        return f"names must be strings, not {name!r}"
    if isinstance(value, FileContent) and value.name != name:
        return f"the experiment would see the file as {value.name!r}: set targetFilename={name!r}"
    if isinstance(value, str) and _looks_like_path(value, name):
        return (
            f"the content is the text {value!r}: for the content of that file give pathlib.Path({value!r}); "
            "if the text is meant, end it with a line break"
        )
    if isinstance(value, FileContent | str | bytes | bytearray | Path) or hasattr(value, "to_csv"):
        return None
    expectation = "a file needs contents (text, bytes, a Path or a DataFrame) or a FileContent that says where they are"
    return f"{expectation}, not {type(value).__name__}"


def _looks_like_path(text: str, name: str) -> bool:
    """Return whether a text is rather the path of a file: it has the name of the input, or the suffix and no blank."""
    suffix = PurePath(name).suffix
    last = text.replace("\\", "/").rpartition("/")[2]
    return last == name or (suffix != "" and last.endswith(suffix) and not any(map(str.isspace, text)))


def named_file(name: str, value: FileInput) -> FileContent:
    """Return a file that is given by name and content."""
    return value if isinstance(value, FileContent) else FileContent(filename=name, content=value)
