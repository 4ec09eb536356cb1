"""
A folder of Parquet files, local or at a URL, which together are one table. Needs the extra ``arrow``. All of it blocks.

A file appears under its name only when it is complete. All files have the same columns. These are in the file
``_common_metadata``, which readers of Parquet folders know or ignore.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._errors import SchemaMismatch
from .._util.durable import sync_folder, write_whole
from .._util.extras import import_pyarrow
from ..models.properties import RUN

if TYPE_CHECKING:
    import pyarrow

    from ..models import Properties

SCHEMA_FILE = "_common_metadata"
"""File with the columns. Source: the conventions of Parquet folders, which Arrow, Dask and Spark share."""
METADATA_KEY = b"st4sd_async"
"""Key of our own entry in the metadata of a file."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.part")
"""Names of incomplete files, as `write_whole` makes them."""


class ParquetFolder:
    """
    A folder of Parquet files.

    Args:
        target: Path of the folder, created if missing, or its URL, such as ``s3://bucket/folder``. The library of Arrow
            takes credentials for it from the environment.

    Raises:
        ValueError: The URL is invalid, or contains a user or a password.
        ImportError: pyarrow is not installed.
        OSError: The folder cannot be created.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        import_pyarrow("write_properties()")
        from pyarrow import fs

        text = os.fspath(target)
        self.name = text
        """The path or URL."""
        if "://" not in text:
            self._files: Any = fs.LocalFileSystem()
            self._folder = str(Path(text).absolute())
        elif "@" in urlsplit(text).netloc:
            raise ValueError("the URL must not contain a user or password: put them into the environment")
        else:
            self._files, self._folder = fs.FileSystem.from_uri(text)
        self._files.create_dir(self._folder, recursive=True)

    def names(self) -> list[str]:
        """Return the names of the files, sorted, and remove what a killed process left."""
        from pyarrow import fs

        found = self._files.get_file_info(fs.FileSelector(self._folder))
        names = [one.base_name for one in found if one.type == fs.FileType.File]
        for name in filter(_TEMPORARY.fullmatch, names):
            self._files.delete_file(self._path(name))
        return sorted(name for name in names if not name.startswith((".", "_")))

    def read_schema(self) -> pyarrow.Schema | None:
        """Return the columns of all files. None means that the folder is new."""
        from pyarrow import fs, parquet

        path = self._path(SCHEMA_FILE)
        if self._files.get_file_info(path).type == fs.FileType.NotFound:
            return None
        return parquet.read_schema(path, filesystem=self._files)

    def write_schema(self, schema: pyarrow.Schema, facts: Mapping[str, Any]) -> None:
        """Write the columns of all files, and facts about the table."""
        import pyarrow
        from pyarrow import parquet

        content = pyarrow.BufferOutputStream()
        parquet.write_metadata(schema.with_metadata({METADATA_KEY: json.dumps(facts)}), content)
        self._write(SCHEMA_FILE, content.getvalue())

    def facts(self, name: str) -> dict[str, Any]:
        """Return the facts that a file was written with."""
        from pyarrow import parquet

        return facts_of(parquet.read_schema(self._path(name), filesystem=self._files))

    def write(self, name: str, table: pyarrow.Table, facts: Mapping[str, Any]) -> None:
        """Write a file with one row group."""
        import pyarrow
        from pyarrow import parquet

        content = pyarrow.BufferOutputStream()
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(facts)})
        parquet.write_table(table, content, row_group_size=max(1, len(table)))
        self._write(name, content.getvalue())

    def path(self, name: str) -> str:
        """Return the path of a file, or its URL."""
        if "://" not in self.name:
            return str(Path(self.name) / name)
        url = urlsplit(self.name)
        return url._replace(path=f"{url.path.rstrip('/')}/{name}").geturl()

    def _write(self, name: str, content: pyarrow.Buffer) -> None:
        if "://" not in self.name:
            write_whole(Path(self._folder, name), content.to_pybytes())
            sync_folder(Path(self._folder))
            return
        temporary = self._path(f".{os.urandom(8).hex()}.part")
        with self._files.open_output_stream(temporary) as file:
            file.write(content)
        self._files.move(temporary, self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"


def facts_of(schema: pyarrow.Schema) -> dict[str, Any]:
    """Return the facts in the metadata of a file. They are missing if another program wrote it."""
    facts = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    return facts if isinstance(facts, dict) else {}


def type_of(kinds: Iterable[type]) -> pyarrow.DataType:
    """
    Return the type of a column from the Python types of its values.

    Numbers are float64, also whole ones, because the next run may measure 2.5. Truth values are bool, and all else,
    also a mixture, is string. A column without values is float64.
    """
    import pyarrow

    found = set(kinds) - {type(None)}
    if found == {bool}:
        return pyarrow.bool_()
    return pyarrow.float64() if found <= {int, float} else pyarrow.string()


def kinds_of(values: Iterable[Any]) -> set[type]:
    """Return the types of the values that are not missing."""
    return {type(value) for value in values if not _is_missing(value)}


def arrow_table(table: Properties, schema: pyarrow.Schema) -> pyarrow.Table:
    """
    Return a table with the columns of a schema. Missing values and columns are null.

    Raises:
        SchemaMismatch: The schema lacks a column, or a value does not have the type of its column.
    """
    import pyarrow

    for column in table.columns:
        if column not in schema.names:
            raise SchemaMismatch(column, "is not among the fixed columns", rest_uid=_first_run(table, column))
    columns = []
    for field in schema:
        if field.name not in table.columns:
            columns.append(pyarrow.nulls(len(table), field.type))
            continue
        values = table.column(field.name)
        try:
            columns.append(_array(values, field.type))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError, OverflowError):
            raise _mismatch(table, field) from None
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _array(values: Iterable[Any], type_: pyarrow.DataType) -> pyarrow.Array:
    import pyarrow

    if pyarrow.types.is_string(type_) or pyarrow.types.is_large_string(type_):
        values = [None if _is_missing(value) else str(value) for value in values]
    elif pyarrow.types.is_floating(type_) and any(isinstance(value, bool) for value in values):
        raise pyarrow.ArrowTypeError  # pyarrow takes True for 1
    return pyarrow.array(values, type_, from_pandas=True)


def _mismatch(table: Properties, field: pyarrow.Field) -> SchemaMismatch:
    """Return the error for the first value that does not have the type of its column."""
    import pyarrow

    runs = table.column(RUN)
    for run, value in zip(runs, table.column(field.name), strict=True):
        try:
            _array([value], field.type)
        except (pyarrow.ArrowException, OverflowError):
            return SchemaMismatch(field.name, f"has the fixed type {field.type}, but is {value!r}", rest_uid=run)
    return SchemaMismatch(field.name, f"has the fixed type {field.type}, which cannot hold its values")


def _first_run(table: Properties, column: str) -> str | None:
    """Return the first run that has a value in a column."""
    pairs = zip(table.column(RUN), table.column(column), strict=True)
    return next((run for run, value in pairs if not _is_missing(value)), None)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
