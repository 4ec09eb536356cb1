"""Launches of a batch, read from a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .._batch.launch import Launch
from ._exits import Unusable

FILES = {"input": "inputs", "data": "data"}
"""Prefixes of columns that hold paths -> the parts of the payload that they belong to."""
VALUES = {"variable": "variables", "metadata": "metadata"}
"""Prefixes of columns that hold values -> the parts of the payload that they belong to."""
LINES = (".jsonl", ".ndjson")
"""Endings of files with a JSON object in each line; others are CSV."""
FIELDS = ("key", "experiment", "payload")
"""What an object may hold."""


def read_launches(table: Path, experiment: str | None) -> Iterator[Launch]:
    """
    The launches of a table, one by one.

    Args:
        table: The file, in the format of its ending. In a CSV file the columns ``key``, ``experiment`` and
            ``platform`` are what they say, ``input:NAME`` and ``data:NAME`` hold paths, relative to the folder of the
            table, ``metadata:NAME`` and ``variable:NAME`` values; any other column is a variable. What is blank is
            not given. In JSON lines there are objects with ``key``, ``experiment`` and ``payload``.
        experiment: What is started where the table does not say; None: it must.

    Raises:
        Unusable: The file is not such a table; the text has the line.
        OSError: It cannot be read.
    """
    seen: dict[str, int] = {}
    for number, fields in (_objects if table.suffix.lower() in LINES else _rows)(table):
        where = f"{str(table)!r}, line {number}"
        key, identifier = fields.get("key"), fields.get("experiment") or experiment
        if not key:
            raise Unusable(f"{where} has no key, which names the launch")
        if not identifier:
            raise Unusable(f"{where} does not say which experiment: name it behind the table, or in a column")
        if key in seen:
            raise Unusable(f"{where} has the key {key!r} of line {seen[key]}: each launch needs its own")
        try:
            launch = Launch(key, identifier, fields.get("payload"))
        except (ValueError, TypeError) as error:
            raise Unusable(f"{where}: {error}") from error
        seen[key] = number
        yield launch
    if not seen:
        raise Unusable(f"{str(table)!r} has no launches")


def _objects(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers and objects of a file with JSON lines."""
    with table.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line.decode("utf-8-sig"))
            except ValueError as error:
                raise Unusable(f"{str(table)!r}, line {number} is no JSON: {error}") from error
            if not isinstance(fields, dict) or not set(fields) <= set(FIELDS):
                raise Unusable(
                    f"{str(table)!r}, line {number} must be an object with {', '.join(FIELDS)} and no others"
                )
            yield number, fields


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers and launches of a CSV file; its cells are separated as its first line is."""
    with table.open(encoding="utf-8-sig", newline="") as lines:
        try:
            head = lines.readline()
            lines.seek(0)
            reader = csv.reader(lines, delimiter=max(",;\t", key=head.count), strict=True)
            columns = [_column(table, name.strip()) for name in next(reader, [])]
            if ("key", "") not in columns:
                raise Unusable(f"{str(table)!r} has no column 'key', which names the launches, in its first line")
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(columns):
                    told = f"has {len(cells)} cells, and the first line {len(columns)}"
                    raise Unusable(f"{str(table)!r}, line {reader.line_num} {told}")
                yield reader.line_num, _fields(table.parent, zip(columns, map(str.strip, cells), strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise Unusable(f"{str(table)!r} is no table in UTF-8: {error}") from error


def _column(table: Path, name: str) -> tuple[str, str]:
    """What a column is about: its kind, and the name behind it."""
    kind, separator, rest = name.partition(":")
    if separator and kind in (*FILES, *VALUES) and rest:
        return kind, rest
    if name in ("key", "experiment", "platform"):
        return name, ""
    if not name or separator:
        told = "input:NAME, data:NAME, variable:NAME and metadata:NAME, or the name of a variable without a colon"
        raise Unusable(f"{str(table)!r} has the column {name!r}: there are key, experiment, platform, {told}")
    return "variable", name


def _fields(folder: Path, cells: Iterator[tuple[tuple[str, str], str]]) -> dict[str, Any]:
    """A line of a CSV file as an object: key, experiment, payload."""
    fields: dict[str, Any] = {}
    payload: dict[str, Any] = {}
    for (kind, name), text in cells:
        if not text:
            continue
        if kind in FILES:
            payload.setdefault(FILES[kind], []).append({"filename": name, "content": folder / text})
        elif kind in VALUES:
            payload.setdefault(VALUES[kind], {})[name] = text
        elif kind == "platform":
            payload["platform"] = text
        else:
            fields[kind] = text
    return {**fields, "payload": payload}
