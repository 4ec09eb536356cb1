"""The table of a batch in parts: the launches are read some at a time, with the properties of their runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._results.properties import MAX_RUNS_PER_QUERY
from .table import PayloadFacts, facts_of_launches, join, launch_columns

if TYPE_CHECKING:
    from .._results.properties import PartsReader
    from ..models import Properties
    from .item import Item
    from .journal import Journal
    from .state import LaunchRecord

LAUNCHES_PER_READ = MAX_RUNS_PER_QUERY
"""Launches that are read at once."""

Kinds = dict[str, set[type]]
"""Column -> the types of its values that are not missing."""


class TableParts:
    """
    The launches of a batch, in the order in which they were added, and the properties of their runs.

    Args:
        journal: The journal of the batch.
        item: Returns the item of a launch.
        reader: Reads the properties.
    """

    def __init__(self, journal: Journal, item: Callable[[LaunchRecord], Item], reader: PartsReader) -> None:
        self._journal, self._item, self._reader = journal, item, reader
        self.keys = list(journal.records)
        """The keys of the launches."""
        self.values: Kinds = {}
        """The columns of variables and metadata of all launches, after `open`."""
        self.own: tuple[str, ...] = ()
        """The columns of launches, after `open`."""

    async def open(self) -> None:
        """Read the columns and the history, which all parts need."""
        await self._journal.read_history()
        known: dict[Any, tuple[tuple[str, type], ...]] = {}

        def columns(payload: Mapping[str, Any]) -> tuple[tuple[str, type], ...]:
            found = tuple((name, type(value)) for name, value in PayloadFacts.of(payload).values.items())
            return known.setdefault(found, found)

        parts = await self._journal.payload_parts(columns)
        for record in self.records(0, len(self.keys)):
            for name, kind in parts.get(record.payload, ()):
                self.values.setdefault(name, set()).add(kind)
        self.own = launch_columns(self.values)

    def records(self, first: int, end: int) -> list[LaunchRecord]:
        """Return some launches as they are now."""
        return [self._journal.records[key] for key in self.keys[first:end]]

    async def tables(self) -> AsyncGenerator[Properties]:
        """
        Yield the rows of all launches, of some at a time.

        Raises:
            UnknownProperty: All runs that have properties lack the same name.
            St4sdError: As from `PartsReader.read`.
        """
        for first in range(0, len(self.keys), LAUNCHES_PER_READ):
            yield await self.read(self.records(first, first + LAUNCHES_PER_READ))
        self.check_names()

    async def read(self, records: Sequence[LaunchRecord]) -> Properties:
        """Return the rows of some launches. Raises as `PartsReader.read`."""
        payloads = await self._journal.payload_parts(PayloadFacts.of, records)
        history = {record.key: self._journal.history_of(record.key) for record in records}
        launches = facts_of_launches(
            map(self._item, records), {record.key: record for record in records}, payloads, history
        )
        runs = [record.rest_uid for record in records if record.rest_uid is not None]
        return join(launches, await self._reader.read(runs), self.own)

    def check_names(self) -> None:
        """Raise `UnknownProperty` if no run had properties, because the requested names are unknown."""
        self._reader.check_names()
