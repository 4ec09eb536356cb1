"""The table that ``st4sd-async batch`` reads launches from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .._batch.launch import Launch
from .errors import UsageError

FILE_COLUMNS = {"input": "inputs", "data": "data"}
"""Prefixes of columns that hold paths -> where the files go in the payload."""
VALUE_COLUMNS = {"variable": "variables", "metadata": "metadata"}
"""Prefixes of columns that hold values -> where they go in the payload."""
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
"""Suffixes of files with a JSON object on each line; other files are CSV."""
FIELDS = ("key", "experiment", "payload")
"""The fields of such an object."""


def read_launches(table: Path, experiment: str | None) -> Iterator[Launch]:
    """
    Yield the launches of a table.

    Args:
        table: The file; its suffix determines the format. The columns of a CSV file are ``key``, ``experiment``,
            ``platform``, ``input:NAME`` and ``data:NAME`` (paths relative to the folder of the table),
            ``metadata:NAME`` and ``variable:NAME`` (values); any other column is a variable. Blank cells are
            ignored. Objects of JSON lines have ``key``, ``experiment`` and ``payload``.
        experiment: The experiment of launches that name none. None means each launch must name its own.

    Raises:
        UsageError: The file is not such a table; the text names the line.
        OSError: The file cannot be read.
    """
    lines_by_key: dict[str, int] = {}
    for number, fields in (_json_objects if table.suffix.lower() in JSON_LINES_SUFFIXES else _csv_rows)(table):
        where = f"{str(table)!r}, line {number}"
        key, identifier = fields.get("key"), fields.get("experiment") or experiment
        if not key:
            raise UsageError(f"{where} has no key, which names the launch")
        if not identifier:
            raise UsageError(f"{where} names no experiment: name it after the table, or in a column")
        if key in lines_by_key:
            raise UsageError(f"{where} has the key {key!r} of line {lines_by_key[key]}: each launch needs its own")
        try:
            launch = Launch(key, identifier, fields.get("payload"))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{where}: {error}") from error
        lines_by_key[key] = number
        yield launch
    if not lines_by_key:
        raise UsageError(f"{str(table)!r} has no launches")


def _json_objects(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the line numbers and objects of a file of JSON lines."""
    with table.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{str(table)!r}, line {number}"
            try:
                fields = json.loads(line.decode("utf-8-sig"))
            except ValueError as error:
                raise UsageError(f"{where} is not JSON: {error}") from error
            if not isinstance(fields, dict) or not set(fields) <= set(FIELDS):
                raise UsageError(f"{where} must be an object with {', '.join(FIELDS)} and no others")
            yield number, fields


def _csv_rows(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the line numbers and launches of a CSV file; its first line shows the delimiter."""
    with table.open(encoding="utf-8-sig", newline="") as lines:
        try:
            head = lines.readline()
            lines.seek(0)
            reader = csv.reader(lines, delimiter=max(",;\t", key=head.count), strict=True)
            columns = [_column(table, name.strip()) for name in next(reader, [])]
            if ("key", "") not in columns:
                raise UsageError(f"{str(table)!r} has no column 'key', which names the launches, in its first line")
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(columns):
                    counts = f"has {len(cells)} cells, and the first line {len(columns)}"
                    raise UsageError(f"{str(table)!r}, line {reader.line_num} {counts}")
                yield reader.line_num, _fields(table.parent, zip(columns, map(str.strip, cells), strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{str(table)!r} is not a CSV file in UTF-8: {error}") from error


def _column(table: Path, name: str) -> tuple[str, str]:
    """Return the kind of a column, and the name after its prefix."""
    kind, separator, rest = name.partition(":")
    if separator and kind in (*FILE_COLUMNS, *VALUE_COLUMNS) and rest:
        return kind, rest
    if name in ("key", "experiment", "platform"):
        return name, ""
    if not name or separator:
        allowed = (
            "key, experiment, platform, input:NAME, data:NAME, variable:NAME, metadata:NAME, "
            "or the name of a variable without a colon"
        )
        raise UsageError(f"{str(table)!r} has the column {name!r}; columns are {allowed}")
    return "variable", name


def _fields(folder: Path, cells: Iterator[tuple[tuple[str, str], str]]) -> dict[str, Any]:
    """Return a row of a CSV file as an object of JSON lines."""
    fields: dict[str, Any] = {}
    payload: dict[str, Any] = {}
    for (kind, name), text in cells:
        if not text:
            continue
        if kind in FILE_COLUMNS:
            payload.setdefault(FILE_COLUMNS[kind], []).append({"filename": name, "content": folder / text})
        elif kind in VALUE_COLUMNS:
            payload.setdefault(VALUE_COLUMNS[kind], {})[name] = text
        elif kind == "platform":
            payload["platform"] = text
        else:
            fields[kind] = text
    return {**fields, "payload": payload}
