"""The table of a batch: its launches, joined with the measured properties of their runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .._errors import InvalidPayload, St4sdError
from .._payload.prepare import validate_payload
from ..models import Properties, StartPayload
from ..models.properties import RUN
from .item import Item, item_summary
from .launch import lacks_credentials
from .state import RUN_ENDS, LaunchRecord, State, StateChange

VARIABLE, METADATA, PROPERTY = "variable:", "metadata:", "property:"
"""Prefixes of columns. The first two are those of the table of launches that the command line reads."""
BEFORE_VARIABLES = ("key", "experiment", "platform")
AFTER_VARIABLES = ("inputs", "state", RUN, "start", "duration", "why")
"""Columns that every table has, in their order, before and after those of variables and metadata."""


@dataclass(frozen=True)
class PayloadFacts:
    """What the table shows of a payload."""

    platform: str | None = None
    inputs: str = ""
    """Names of the input and data files."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Column -> value, of variables and metadata."""
    has_credentials: bool = False
    """Whether it has credentials, which the journal lacks."""

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> PayloadFacts:
        """Return the facts of a payload in the journal. All are missing if another program made it invalid."""
        try:
            start = validate_payload(payload, StartPayload)
        except InvalidPayload:
            return cls()
        files = [file.name for file in (*(start.inputs or ()), *(start.data or ())) if file.name]
        values = {f"{VARIABLE}{name}": value for name, value in (start.variables or {}).items()}
        values |= {f"{METADATA}{name}": value for name, value in (start.metadata or {}).items()}
        return cls(start.platform, ", ".join(files), values, lacks_credentials(payload))


@dataclass(frozen=True)
class LaunchFacts:
    """A launch of the table."""

    item: Item
    payload: PayloadFacts
    changes: Sequence[StateChange]
    """The state changes that were noted."""
    rest_uid: str | None = None
    """Its run. None means that it has none."""

    def cells(self, problem: St4sdError | None) -> dict[str, Any]:
        """Return column -> value. ``problem`` is why the run has no properties; None means that it has some."""
        item, (start, duration) = self.item, _times(self.changes, self.item.attempt)
        why = item_summary(item).reason
        if not why and problem is not None and item.state != "started":
            why = str(problem)
        return {
            "key": item.key,
            "experiment": item.experiment,
            "platform": self.payload.platform,
            **self.payload.values,
            "inputs": self.payload.inputs or None,
            "state": item.state,
            RUN: self.rest_uid,
            "start": None if start is None else datetime.fromtimestamp(int(start), UTC),
            "duration": None if duration is None else round(duration, 3),
            "why": why or None,
        }


def facts_of_launches(
    items: Iterable[Item],
    records: Mapping[str, LaunchRecord],
    payloads: Mapping[str, PayloadFacts],
    history: Mapping[str, Sequence[StateChange]],
) -> list[LaunchFacts]:
    """
    Return launches for the table.

    Args:
        items: The launches.
        records: key -> the launch.
        payloads: digest -> facts. Payloads that the journal lost are missing.
        history: key -> the state changes that were noted.
    """
    lost = PayloadFacts()
    return [
        LaunchFacts(item, payloads.get(record.payload, lost), tuple(history.get(item.key, ())), record.rest_uid)
        for item in items
        for record in (records[item.key],)
    ]


def _times(changes: Iterable[StateChange], attempt: int) -> tuple[float | None, float | None]:
    """Return when the service accepted the start of an attempt, and the seconds until its end was seen."""
    start: float | None = None
    end: float | None = None
    for change in changes:
        if change.attempt == attempt and change.state == State.STARTED:
            start, end = change.since, None
        elif change.attempt == attempt and change.state in RUN_ENDS and end is None:
            end = change.since
    return start, None if start is None or end is None else max(0.0, end - start)


def launch_columns(values: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of launches, in their order, from those of variables and metadata."""
    return (*BEFORE_VARIABLES, *sorted(dict.fromkeys(values), key=_is_metadata), *AFTER_VARIABLES)


def join(launches: Sequence[LaunchFacts], measured: Properties, own: Sequence[str] | None = None) -> Properties:
    """
    Return the table of a batch: a row for each measurement, and one for each launch without any.

    Args:
        launches: The launches.
        measured: The properties of their runs, as one table with the column ``rest-uid`` first.
        own: The columns of launches. None means those that these launches have.
    """
    if own is None:
        own = launch_columns(column for launch in launches for column in launch.payload.values)
    names = tuple(f"{PROPERTY}{name}" if name in own else name for name in measured.columns[1:])
    found: dict[str, list[tuple[Any, ...]]] = {}
    for rest_uid, *row in measured.rows:
        found.setdefault(rest_uid, []).append(tuple(row))
    rows = []
    for launch in launches:
        rest_uid = launch.rest_uid or ""
        cells = launch.cells(measured.problems.get(rest_uid))
        first = tuple(cells.get(column) for column in own)
        rows += [(*first, *row) for row in found.get(rest_uid, [(None,) * len(names)])]
    return Properties((*own, *names), tuple(rows), measured.problems)


def _is_metadata(column: str) -> bool:
    return column.startswith(METADATA)
