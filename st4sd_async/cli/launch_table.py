"""The table that ``st4sd-async batch`` reads launches from."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._batch.check import LaunchProblem
from .._batch.journal import JOURNAL_SUFFIX
from .._batch.journal_file import is_sqlite_file
from .._batch.launch import Launch
from .._batch.sweep import grid, point_key
from .._errors import LaunchConflict, Problem
from .._util.did_you_mean import DID_YOU_MEAN, closest_match, did_you_mean
from .errors import COMMAND, UsageError, with_command
from .problems import LaunchMistake, lacks_suggestion, place_of, with_words

FILE_COLUMNS = {"input": "inputs", "data": "data"}
"""Prefixes of columns that hold paths -> where the files go in the payload."""
VALUE_COLUMNS = {"variable": "variables", "metadata": "metadata"}
"""Prefixes of columns that hold values -> where they go in the payload."""
PREFIXES = {**FILE_COLUMNS, **VALUE_COLUMNS}
PLAIN_COLUMNS = ("key", "experiment", "platform")
"""Columns without a prefix that are not variables."""
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
"""Suffixes of files with a JSON object on each line; other files are CSV."""
FIELDS = ("key", "experiment", "payload")
"""The fields of such an object."""
COLUMN_OF_FIELD = {
    **{where: f"the column '{prefix}:{{}}'" for prefix, where in PREFIXES.items()},
    "variables": "the column '{}'",
}
"""Field of a payload -> the column for an entry of it."""

Column = tuple[str, str]
"""The kind of a column, and the name after its prefix."""
Row = tuple[int, Mapping[str, Any] | Problem]
"""The line number of a row, and its launch as an object of JSON lines, or what is wrong with it."""


@dataclass
class LaunchTable:
    """The launches of a table, and what is wrong with it."""

    file: Path
    """The file."""
    launches: list[Launch] = field(default_factory=list)
    """The launches; if there are mistakes, some are left out, or have another key."""
    lines: list[int] = field(default_factory=list)
    """The line of each launch."""
    headers: dict[Column, str] = field(default_factory=dict)
    """What its columns hold -> their names; {} for JSON lines."""
    mistakes: list[LaunchMistake] = field(default_factory=list)
    """All mistakes that can be found without the service."""

    def add(self, line: int | None, where: str, what: str) -> None:
        """Add a mistake."""
        self.mistakes.append(LaunchMistake(str(self.file), line, where, what))

    def mistakes_of(self, problems: Sequence[LaunchProblem]) -> list[LaunchMistake]:
        """Return all mistakes: those of the table, and those found in its launches."""
        found = list(self.mistakes)
        with_bad_key = {one.line for one in found if one.where == "key"}
        for problem in problems:
            if problem.position is None:
                found.append(LaunchMistake("", None, f"--{problem.where.removesuffix('s')}", problem.what))
                continue
            line = self.lines[problem.position]
            if problem.where != "key" or line not in with_bad_key:
                where, what = self._in_columns(problem, self.launches[problem.position])
                found.append(LaunchMistake(str(self.file), line, where, what))
        return found

    def _in_columns(self, problem: LaunchProblem, launch: Launch) -> tuple[str, str]:
        """Return the column and the text of a problem."""
        if problem.where == "key":
            command = with_command(problem.what, LaunchConflict, shlex.quote(launch.identifier))
            return problem.where, command.replace(" TABLE ", f" {shlex.quote(str(self.file))} ")
        if _is_json_lines(self.file) or not isinstance(launch.payload, Mapping):
            return problem.where, problem.what
        where, what = problem.where, with_words(problem.what, COLUMN_OF_FIELD)
        field, name = place_of(where, launch.payload) or ("", "")
        kind = next((prefix for prefix, target in PREFIXES.items() if target == field), None)
        if kind is not None:
            where = self.headers.get((kind, name), f"{kind}:{name}")
            similar = closest_match(name, PLAIN_COLUMNS) if where == name else None
            if similar is not None and lacks_suggestion(problem.what):
                what += f": {DID_YOU_MEAN} the column {similar!r}?"
        return where, what


def journal_of(table: Path, journal: Path | None) -> Path:
    """Return the journal that is named, with or without an option, or the one beside the table."""
    if journal is not None:
        return journal
    is_named = is_sqlite_file(table) or (table.suffix == JOURNAL_SUFFIX and not table.exists())
    return table if is_named else table.with_name(f"{table.name}{JOURNAL_SUFFIX}")


def read_launches(file: Path, experiment: str | None) -> list[Launch]:
    """
    Return the launches of a table; see `read_table`.

    Raises:
        UsageError: The file is not such a table; the text has the first mistake, with its line.
        OSError: The file cannot be read.
    """
    table = read_table(file, experiment)
    if table.mistakes:
        more = len(table.mistakes) - 1
        advice = f"; {more} more: list all with {COMMAND} batch run --dry-run" if more else ""
        raise UsageError(f"{table.mistakes[0]}{advice}")
    return table.launches


def read_table(file: Path, experiment: str | None) -> LaunchTable:
    """
    Return the launches of a table, and all its mistakes.

    Args:
        file: The file; its suffix determines the format. The columns of a CSV file are ``key``, ``experiment``,
            ``platform``, ``input:NAME`` and ``data:NAME`` (paths relative to the folder of the table),
            ``metadata:NAME`` and ``variable:NAME`` (values); any other column is a variable. Blank cells are
            ignored. Objects of JSON lines have ``key``, ``experiment`` and ``payload``.
        experiment: The experiment of launches that name none. None means each launch must name its own.

    Raises:
        OSError: The file cannot be read.
    """
    table = LaunchTable(file)
    lines_by_key: dict[Any, int] = {}
    for line, fields in _json_objects(file) if _is_json_lines(file) else _csv_rows(file, table.headers):
        if isinstance(fields, Problem):
            table.add(line, *fields)
            continue
        key, identifier = fields.get("key"), fields.get("experiment") or experiment
        if not key:
            table.add(line, "key", "is missing: it names the launch")
        elif isinstance(key, str) and lines_by_key.setdefault(key, line) != line:
            table.add(line, "key", f"{key!r} is the key of line {lines_by_key[key]} too: each launch needs its own")
        if not identifier:
            table.add(line, "experiment", "is missing: name it after the table, or in a column")
            continue
        try:
            table.launches.append(Launch(key or f"line {line}", identifier, fields.get("payload")))
            table.lines.append(line)
        except (ValueError, TypeError) as error:
            table.add(line, "", str(error))
    if not table.launches and not table.mistakes:
        table.add(None, "", "has no launches")
    return table


def write_sweep(
    table: Path, experiment: str | None, files: Iterable[Mapping[str, Any]], sweeps: Iterable[str]
) -> int | None:
    """
    Write the launches of a sweep as a CSV file.

    Args:
        table: The file. If it has these launches already, it is left as it is.
        experiment: The experiment of all launches. None means that the table names none.
        files: Input files of all launches, with ``filename`` and ``content``, a path.
        sweeps: Variables and values: ``NAME=VALUES`` as in `Launch.sweep`.

    Returns:
        The number of launches. None means that the file was there.

    Raises:
        UsageError: A sweep is invalid, or the file exists and has other launches.
        OSError: The file cannot be written.
    """
    variables: dict[str, str] = {}
    for argument in sweeps:
        name, separator, values = argument.partition("=")
        if not separator or not name.strip():
            raise UsageError(f"--sweep takes NAME=VALUES, as in alpha=1:3:0.1 or method=a,b, not {argument!r}")
        if variables.setdefault(name.strip(), values) is not values:
            raise UsageError(f"--sweep has the variable {name.strip()!r} twice: separate its values by commas")
    if table.suffix.lower() in JSON_LINES_SUFFIXES:
        raise UsageError(f"a sweep is written as CSV: use a name with .csv in place of {str(table)!r}")
    points = [(point_key(values), values) for values in grid(variables)]
    shared = {f"input:{file['filename']}": os.path.relpath(file["content"], table.parent) for file in files}
    shared |= {"experiment": experiment} if experiment else {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", *shared, *(f"variable:{name}" for name in variables)])
    writer.writerows([key, *shared.values(), *values.values()] for key, values in points)
    if table.exists():
        if table.read_text("utf-8") != text.getvalue():
            remove = f"rm {shlex.quote(str(table))}"
            raise UsageError(
                f"{str(table)!r} has other launches: leave out --sweep to run them, or remove it with {remove}"
            )
        return None
    table.write_text(text.getvalue(), "utf-8")
    return len(points)


def _is_json_lines(file: Path) -> bool:
    return file.suffix.lower() in JSON_LINES_SUFFIXES


def _json_objects(file: Path) -> Iterator[Row]:
    """Yield the rows of a file of JSON lines."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _json_object(line)


def _json_object(line: bytes) -> Mapping[str, Any] | Problem:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        return Problem("", f"is not JSON: {error}")
    if not isinstance(fields, dict):
        return Problem("", f"must be an object with {', '.join(FIELDS)}")
    unknown = next((name for name in fields if name not in FIELDS), None)
    if unknown is not None:
        return Problem(unknown, f"is no field, only {', '.join(FIELDS)}{did_you_mean(unknown, FIELDS)}")
    return fields


def _csv_rows(file: Path, headers: dict[Column, str]) -> Iterator[Row]:
    """Yield the rows of a CSV file, after the problems of its first line, whose columns are added to ``headers``."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        line = 1
        try:
            head = lines.readline()
            lines.seek(0)
            delimiter = max(",;\t", key=head.count)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            names = [name.strip() for name in next(reader, [])]
            columns = [_column(name) for name in names]
            headers |= {
                column: name for column, name in zip(columns, names, strict=True) if not isinstance(column, Problem)
            }
            yield from ((1, problem) for problem in _header_problems(names, columns))
            if "key" not in names:
                return
            for cells in _records(reader):
                line, texts = cells
                if len(texts) != len(columns):
                    yield line, _wrong_count(len(texts), len(columns), delimiter)
                else:
                    yield line, _fields(file.parent, zip(columns, map(str.strip, texts), strict=True))
        except UnicodeDecodeError as error:
            yield line, Problem("", f"is not in UTF-8, here or in a line after it: {error}")
        except csv.Error as error:
            yield line, Problem("", f"is not CSV, here or in the line after it: {error}")


def _records(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each record that is not blank."""
    line = reader.line_num + 1
    for cells in reader:
        if any(cells):
            yield line, cells
        line = reader.line_num + 1


def _wrong_count(count: int, expected: int, delimiter: str) -> Problem:
    advice = f": quote a cell that contains {delimiter!r}" if count > expected else ""
    return Problem("", f"has {count} cells, and the first line {expected}{advice}")


def _header_problems(names: Sequence[str], columns: Sequence[Column | Problem]) -> Iterator[Problem]:
    """Yield the problems of the names of columns."""
    yield from (column for column in columns if isinstance(column, Problem))
    if "key" not in names:
        yield Problem("", f"has no column 'key', which names the launches{did_you_mean('key', names)}")
    for column, count in Counter(column for column in columns if not isinstance(column, Problem)).items():
        if count > 1:
            name = ":".join(filter(None, column))
            yield Problem(name, f"is the name of {count} columns: each needs its own")


def _column(name: str) -> Column | Problem:
    """Return what a column holds, or what is wrong with its name."""
    if name in PLAIN_COLUMNS:
        return name, ""
    kind, separator, rest = (part.strip() for part in name.partition(":"))
    if not separator and name:
        return "variable", name
    if kind in PREFIXES and rest:
        return kind, rest
    allowed = "key, experiment, platform, input:NAME, data:NAME, variable:NAME, metadata:NAME, or a variable's name"
    similar = closest_match(kind, PREFIXES)
    suggestion = f": {DID_YOU_MEAN} '{similar}:{rest or 'NAME'}'?" if similar else ""
    return Problem(name, f"the column {name!r} is none of {allowed}{suggestion}")


def _fields(folder: Path, cells: Iterator[tuple[Column | Problem, str]]) -> dict[str, Any]:
    """Return a row of a CSV file as an object of JSON lines."""
    fields: dict[str, Any] = {}
    payload: dict[str, Any] = {}
    for column, text in cells:
        if not text or isinstance(column, Problem):
            continue
        kind, name = column
        if kind in FILE_COLUMNS:
            payload.setdefault(FILE_COLUMNS[kind], []).append({"filename": name, "content": folder / text})
        elif kind in VALUE_COLUMNS:
            payload.setdefault(VALUE_COLUMNS[kind], {})[name] = text
        elif kind == "platform":
            payload["platform"] = text
        else:
            fields[kind] = text
    return {**fields, "payload": payload}
