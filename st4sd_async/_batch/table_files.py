"""
Write the table of a batch as a folder of Parquet files, of which each has the rows of some launches.

The name of a file says which launches: ``launches-000000000-000000499.parquet`` has the first 500. A file also says in
which state these launches were. So a later call knows which files are missing, and which are out of date.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import NoProperties, NotReady
from .._results.parquet import ParquetFolder, arrow_table, facts_of, kinds_of, type_of
from .._results.properties import PartsReader, requested_columns
from .._util.threads import in_thread
from ..models import Properties
from ..models.properties import INPUT_ID
from .state import OVER, LaunchRecord, State
from .table import AFTER_VARIABLES, BEFORE_VARIABLES, METADATA, PROPERTY, VARIABLE
from .table_parts import LAUNCHES_PER_READ, TableParts

if TYPE_CHECKING:
    import pyarrow

    from .._results.properties import PropertiesReader
    from .item import Item
    from .journal import Journal

SAMPLE_RUNS = 20
"""Maximum number of runs of each experiment in which the columns are looked up."""
OTHER_FOLDER = "write to another folder, or remove this one"
"""Advice if a folder has another table."""

_PART = re.compile(r"launches-(\d{9,})-(\d{9,})\.parquet")


class Part(NamedTuple):
    """The launches of a file."""

    first: int
    """Position of the first launch."""
    end: int
    """Position after the last one."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"launches-{self.first:09}-{self.end - 1:09}.parquet"

    def pieces(self) -> list[Part]:
        """Return the launches in pieces that are read at once."""
        firsts = range(self.first, self.end, LAUNCHES_PER_READ)
        return [Part(first, min(first + LAUNCHES_PER_READ, self.end)) for first in firsts]


def parts_of(names: Iterable[str], count: int) -> list[Part]:
    """
    Return the parts that a folder has, in their order.

    Args:
        names: The names in the folder.
        count: Number of launches of the batch.

    Raises:
        ValueError: There is another file, or parts overlap, or have more launches than the batch.
    """
    parts: list[Part] = []
    for name in sorted(names):
        found = _PART.fullmatch(name)
        part = Part(int(found[1]), int(found[2]) + 1) if found else None
        if part is None or not (parts[-1].end if parts else 0) <= part.first < part.end <= count:
            raise ValueError(f"the folder has {name!r}, which is not a part of this table: {OTHER_FOLDER}")
        parts.append(part)
    return parts


def gaps(parts: Sequence[Part], count: int) -> list[Part]:
    """Return the launches that are in no part, each gap as one part."""
    ends = [0, *(part.end for part in parts)]
    firsts = [*(part.first for part in parts), count]
    return [Part(end, first) for end, first in zip(ends, firsts, strict=True) if end < first]


def fingerprint(records: Iterable[LaunchRecord]) -> str:
    """Return a digest of the states of launches. "" if one is not over, so that its part is never up to date."""
    digest = hashlib.sha256()
    for record in records:
        if record.state not in OVER:
            return ""
        facts = (record.key, record.payload, str(record.state), str(record.attempt), record.rest_uid or "")
        digest.update("\0".join((*facts, "\n")).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def launch_schema(table: TableParts) -> pyarrow.Schema:
    """Return the columns of launches with their types."""
    import pyarrow

    types = {"start": pyarrow.timestamp("ms", "UTC"), "duration": pyarrow.float64()}
    types |= {name: type_of(kinds) for name, kinds in table.values.items()}
    return pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in table.own])


def declared_schema(table: TableParts, declared: pyarrow.Schema) -> pyarrow.Schema:
    """Return the columns of launches and then the declared properties. A declared type replaces any other."""
    import pyarrow

    types = {field.name: field.type for field in declared}
    own = [(field.name, types.pop(field.name, field.type)) for field in launch_schema(table)]
    ids = types.pop(INPUT_ID, pyarrow.string())
    return pyarrow.schema([*own, (INPUT_ID, ids), *((name.lower(), type_) for name, type_ in types.items())])


def declared_names(declared: pyarrow.Schema) -> list[str]:
    """Return the properties in a declared schema."""
    left_out = {*BEFORE_VARIABLES, *AFTER_VARIABLES, INPUT_ID}
    names = [name for name in declared.names if name not in left_out and not name.startswith((VARIABLE, METADATA))]
    return [name.removeprefix(PROPERTY) for name in names]


async def write_table(
    target: str | os.PathLike[str],
    names: Iterable[str] | None,
    declared: pyarrow.Schema | None,
    rows: int,
    journal: Journal,
    item: Callable[[LaunchRecord], Item],
    reader: Callable[[Iterable[str] | None], PropertiesReader],
) -> list[str]:
    """
    Write the table of a batch: see `Batch.write_properties`.

    Args:
        target: Path or URL of the folder.
        names: The requested properties.
        declared: The declared columns.
        rows: Minimum number of rows of a part.
        journal: The journal of the batch.
        item: Returns the item of a launch.
        reader: Returns what reads these properties.
    """
    requested = requested_columns(names if declared is None else declared_names(declared))
    folder = await in_thread(ParquetFolder, target)
    stored = await in_thread(folder.read_schema)
    facts: dict[str, Any] = {"batch": journal.identity, "names": requested and list(requested)}
    if stored is not None:
        before = facts_of(stored)
        if before.get("batch") != facts["batch"]:
            raise ValueError(f"{folder.name!r} has the table of another batch: {OTHER_FOLDER}")
        if requested is not None and before.get("names") != facts["names"]:
            raise ValueError(f"{folder.name!r} has a table with other properties: {OTHER_FOLDER}")
        facts = before
    table = TableParts(journal, item, PartsReader(reader(facts["names"])))
    await table.open()
    parts = parts_of(await in_thread(folder.names), len(table.keys))
    schema = None if stored is None else stored.remove_metadata()
    if declared is not None:
        wanted = declared_schema(table, declared)
        if schema is not None and schema != wanted:
            raise ValueError(f"{folder.name!r} has a table with another schema: {OTHER_FOLDER}")
        schema = wanted
    elif schema is None:
        schema = await found_schema(table)
    if stored is None:
        await in_thread(folder.write_schema, schema, facts)
    written = await _Writer(folder, table, schema, rows).write(parts)
    table.check_names()
    return [folder.path(part.name) for part in written]


async def found_schema(table: TableParts) -> pyarrow.Schema:
    """
    Return the columns that some runs of each experiment have.

    Raises:
        NoProperties: None of these runs has properties.
    """
    import pyarrow

    samples: dict[str, list[LaunchRecord]] = {}
    for record in table.records(0, len(table.keys)):
        sample = samples.setdefault(record.experiment, [])
        if record.state in (State.SUCCEEDED, State.COLLECTED) and len(sample) < SAMPLE_RUNS:
            sample.append(record)
    records = [record for sample in samples.values() for record in sample]
    pieces = Part(0, len(records)).pieces()
    found = Properties.concatenated([await table.read(records[first:end]) for first, end in pieces])
    table.check_names()
    if len(found.problems) == len(records):
        why = next(iter(found.problems.values()), "no run has succeeded")
        raise NoProperties(f"no run has properties to find the columns in; declare them with schema: {why}")
    properties = [name for name in found.columns if name not in table.own]
    types = {name: type_of(kinds_of(found.column(name))) for name in properties} | {INPUT_ID: pyarrow.string()}
    return pyarrow.schema([*launch_schema(table), *types.items()])


class _Writer:
    """Writes the parts that are missing or out of date."""

    def __init__(self, folder: ParquetFolder, table: TableParts, schema: pyarrow.Schema, rows: int) -> None:
        self._folder, self._table, self._schema, self._rows = folder, table, schema, rows

    async def write(self, parts: Sequence[Part]) -> list[Part]:
        """Write what is missing or out of date among these parts and beside them; return all, in their order."""
        for part in parts:
            if not await self._is_current(part):
                await self._write(part, *await self._read(part.pieces()))
        written = [new for gap in gaps(parts, len(self._table.keys)) for new in await self._fill(gap)]
        return sorted([*parts, *written])

    async def _is_current(self, part: Part) -> bool:
        """Return whether the launches of a part are as they were when it was written."""
        current = fingerprint(self._table.records(*part))
        return bool(current) and (await in_thread(self._folder.facts, part.name)).get("launches") == current

    async def _fill(self, gap: Part) -> list[Part]:
        """Write the launches of a gap in parts, each with as few pieces as have the minimum number of rows."""
        written: list[Part] = []
        records: list[LaunchRecord] = []
        tables: list[Properties] = []
        for piece in gap.pieces():
            more = await self._read([piece])
            records += more[0]
            tables += more[1]
            if sum(map(len, tables)) >= self._rows or piece.end == gap.end:
                written.append(Part(piece.end - len(records), piece.end))
                await self._write(written[-1], records, tables)
                records, tables = [], []
        return written

    async def _read(self, pieces: Iterable[Part]) -> tuple[list[LaunchRecord], list[Properties]]:
        """Return launches as they are now, and their rows."""
        records = [self._table.records(*piece) for piece in pieces]
        return list(chain.from_iterable(records)), [await self._table.read(some) for some in records]

    async def _write(self, part: Part, records: Sequence[LaunchRecord], tables: Sequence[Properties]) -> None:
        is_final = not any(isinstance(error, NotReady) for table in tables for error in table.problems.values())
        facts = {"launches": fingerprint(records) if is_final else ""}

        def write() -> None:
            self._folder.write(part.name, arrow_table(Properties.concatenated(tables), self._schema), facts)

        await in_thread(write)
