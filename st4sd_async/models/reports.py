"""How the components of a run are doing, one by one: the report that the orchestrator keeps in the run's directory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from .._util.field_docs import document_fields
from .._util.printable import printable
from ._base import Tolerant
from .datastore import ComponentState, _Moment

if TYPE_CHECKING:
    import pandas

NOTHING = frozenset({"", "None", "N/A"})
"""What a cell says when there is nothing to say."""
OVERVIEW = (
    "reference",
    "state",
    "backend",
    "isWaitingOnOutput",
    "engineExitReason",
    "lastTaskRunTime",
    "lastTaskRunState",
    "repeatInterval",
    "timeToNextKernelLaunch",
    "numberTaskLaunches",
)
"""Columns that the service's own tools show; the last three are those of repeating components."""
FREE_TEXT = "schedulerId"
"""The column whose text is not the orchestrator's own, so that there may be anything in it."""
LONGEST = timedelta(days=100_000)
"""Durations over this are none; pandas could not hold some of them."""

_NUMBER = re.compile(r"-?[0-9]{1,18}")
_DURATION = re.compile(r"(?:(-?\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_DTYPES: dict[Any, str] = {
    bool | None: "boolean",
    int | None: "Int64",
    datetime | None: "datetime64[us, UTC]",
    timedelta | None: "timedelta64[us]",
}


def _word(cell: Any) -> Any:
    return None if cell in NOTHING else cell


def _flag(cell: Any) -> bool | None:
    return {"True": True, "False": False}.get(cell)


def _number(cell: Any) -> int | None:
    return int(cell) if _NUMBER.fullmatch(str(cell)) else None


def _duration(cell: Any) -> timedelta | None:
    """A duration as Python writes it, ``1 day, 0:00:03.5``, or a number of seconds."""
    parts = _DURATION.fullmatch(str(cell))
    try:
        days, hours, minutes, seconds = parts.groups("0") if parts else (0, 0, 0, cell)
        span = timedelta(int(days), float(seconds), hours=int(hours), minutes=int(minutes))
    except (TypeError, ValueError, OverflowError):
        return None
    return span if abs(span) < LONGEST else None


def _names(cell: Any) -> list[str]:
    return [name for name in (part.strip() for part in str(cell).split(",")) if name not in NOTHING]


Cells = dict[str, str]
"""Column -> cell."""
_Word = Annotated[str | None, BeforeValidator(_word)]
_State = Annotated[ComponentState | None, BeforeValidator(_word)]
_Flag = Annotated[bool | None, BeforeValidator(_flag)]
_Number = Annotated[int | None, BeforeValidator(_number)]
_Duration = Annotated[timedelta | None, BeforeValidator(_duration)]


class ComponentReport(Tolerant):
    """
    A row of a `StatusReport`: a component, the engine that runs it, and the last task of that.

    A field is None where the report has nothing, or nothing that can be read. ``raw`` has all cells as they came,
    under the service's names of their columns; what both the component and its engine have is the component's,
    and the engine's is under ``engine.`` and the name.
    """

    stage: int | None = None
    """Index of its stage, from 0."""
    reference: str = ""
    """Stage and name, as ``stage0.Compute``."""
    producers: Annotated[list[str], BeforeValidator(_names)] = Field(default=[], alias="consumesFrom")
    """References of the components whose files it uses."""
    is_alive: _Flag = Field(default=None, alias="isAlive")
    """Whether it may still do something."""
    state: _State = None
    """How it is doing, or how it ended."""
    engine: str = ""
    """What runs it: ``engine``, or ``repeatingEngine`` if it runs again and again."""
    backend: _Word = None
    """Where its tasks run, as ``kubernetes``, ``lsf`` or ``local``."""
    created: _Moment = Field(default=None, alias="creationDate")
    """When the engine was made, in UTC."""
    started: _Moment = Field(default=None, alias="runDate")
    """When the engine was told to run, in UTC."""
    is_waiting_on_output: _Flag = Field(default=None, alias="isWaitingOnOutput")
    """Whether a repeating engine waits for files of producers; of another engine, whether it was ever told to run."""
    output_wait_time: _Duration = Field(default=None, alias="outputWaitTime")
    """How long it has waited for such files, or waited until its task began."""
    is_running: _Flag = Field(default=None, alias="isRunning")
    """Whether the engine was told to run and is not over."""
    engine_exit_code: _Number = Field(default=None, alias="engineExitCode")
    """0 if the engine ended well."""
    engine_exit_reason: _Word = Field(default=None, alias="engineExitReason")
    """Why the engine ended, as ``Success``, ``KnownIssue`` or ``Killed``."""
    task_launched: _Moment = Field(default=None, alias="lastTaskLaunchDate")
    """When the last task was launched, in UTC."""
    task_finished: _Moment = Field(default=None, alias="lastTaskFinishedDate")
    """When it ended, in UTC."""
    task_run_time: _Duration = Field(default=None, alias="lastTaskRunTime")
    """How long it took, or takes by now."""
    task_state: _State = Field(default=None, alias="lastTaskRunState")
    """How it is doing, or how it ended."""
    task_exit_code: _Number = Field(default=None, alias="lastTaskExitCode")
    """Exit code of its program."""
    task_exit_reason: _Word = Field(default=None, alias="lastTaskExitReason")
    """Why it ended."""
    scheduler_id: _Word = Field(default=None, alias="schedulerId")
    """What its backend calls it."""
    repeat_interval: _Duration = Field(default=None, alias="repeatInterval")
    """How long a repeating engine pauses between two tasks."""
    task_launches: _Number = Field(default=None, alias="numberTaskLaunches")
    """How many tasks a repeating engine has launched."""
    last_launch: _Moment = Field(default=None, alias="lastKernelLaunchDate")
    """When a repeating engine last set out to launch one, in UTC."""
    next_launch_in: _Duration = Field(default=None, alias="timeToNextKernelLaunch")
    """How long until it does so again."""
    since_last_task: _Duration = Field(default=None, alias="timeSinceLastTaskLaunch")
    """How long ago the last task of a repeating engine ended."""

    @property
    def name(self) -> str:
        """Name of the component, without its stage."""
        stage, _, name = self.reference.partition(".")
        return name or stage


@document_fields
@dataclass(frozen=True)
class StatusReport:
    """
    How each component of a run was doing when the orchestrator last wrote it down, some seconds ago or in the end.

        print(report)                           # a table of all components, those that failed first
        report.failed                           # rows of those that failed
        report.rows[0].task_exit_code           # one row, typed
        report.dataframe()["lastTaskRunTime"]   # all of it for pandas

    Source: ``output/status_details.json`` in a run's directory.
    """

    rows: tuple[ComponentReport, ...]
    """A row a component, by stage."""

    @classmethod
    def parse(cls, content: bytes | str) -> StatusReport:
        """
        The report in a file ``status_details.json``.

        Raises:
            ValueError: It is none, or not all of one.
        """
        rows = [ComponentReport.model_validate(cells) for cells in _rows(_stages(content))]
        return cls(tuple(sorted(rows, key=lambda row: inf if row.stage is None else row.stage)))

    @property
    def failed(self) -> tuple[ComponentReport, ...]:
        """Rows of the components that failed; not of those that were stopped because of them."""
        return tuple(row for row in self.rows if row.state is ComponentState.FAILED)

    def table(self, columns: Iterable[str] = ()) -> str:
        """
        The report in columns for a terminal, components that failed first.

        Args:
            columns: The service's names of columns, as they are in ``row.raw``; (): those that its own tools show.
                What no component has is left out.
        """
        names = [name for name in (tuple(columns) or OVERVIEW) if any(name in row.raw for row in self.rows)]
        if not names:
            return "no component has such columns" if self.rows else "no component has been reported on yet"
        rows = sorted(self.rows, key=lambda row: row.state is not ComponentState.FAILED)
        lines = [[*map(_shown, names)], *([_shown(row.raw.get(name, "")) for name in names] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(map(str.ljust, line, widths)).rstrip()  # a width for each cell
            for line in lines
        )

    def dataframe(self) -> pandas.DataFrame:
        """
        The report as a DataFrame, a row a component, under the service's names of columns and ``stage``.

        Times, durations, numbers and flags are typed, all else is text; what is not there is missing.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError('StatusReport.dataframe() needs pandas: pip install "st4sd_async[pandas]"') from None
        kinds = {field.alias or name: (name, field.annotation) for name, field in ComponentReport.model_fields.items()}
        columns = {}
        for column in dict.fromkeys(["stage", *(name for row in self.rows for name in row.raw)]):
            name, kind = kinds.get(column, (column, None))
            if kind in _DTYPES:
                columns[column] = pandas.Series([getattr(row, name) for row in self.rows], dtype=_DTYPES[kind])
            else:
                columns[column] = pandas.Series([_word(row.raw.get(column)) for row in self.rows], dtype=object)
        return pandas.DataFrame(columns)

    def __str__(self) -> str:
        return self.table()


def _stages(content: bytes | str) -> dict[str, Any]:
    try:
        stages = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a status report that is cut short or damaged ({error})") from None
    if not isinstance(stages, dict):
        raise ValueError("something that is no status report")
    return stages


def _rows(stages: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells of each component, with its stage."""
    for stage, kinds in stages.items():
        try:
            for kind, tables in kinds.items():
                components, engines = (_table(tables.get(which, "")) for which in ("componentStates", "engineStates"))
                for cells in _joined(components, engines):
                    yield {"stage": _number(stage), **cells, "engine": cells.get("engine", kind)}
        except AttributeError:
            raise ValueError(f"a status report without tables of stage {stage!r}") from None


def _joined(components: Mapping[str, Cells], engines: Mapping[str, Cells]) -> Iterator[Cells]:
    """The cells of each component and then of its engine, whose names stand apart where the component has them too."""
    for reference in dict.fromkeys([*components, *engines]):
        component, engine = components.get(reference, {}), engines.get(reference, {})
        apart = component.keys() - {"reference"}
        yield {**component, **{f"engine.{name}" if name in apart else name: engine[name] for name in engine}}


def _table(text: str) -> dict[str, Cells]:
    """
    Rows by reference, each column -> cell.

    The service writes ``"; "`` between cells and quotes nothing, and cuts off the blanks at the end of the table.
    """
    header, *lines = _lines(text)
    rows = (dict(zip(header, _fitted(line, header), strict=False)) for line in lines)
    return {row.get("reference", f"row {number}"): row for number, row in enumerate(rows)}


def _lines(text: str) -> Iterator[list[str]]:
    """The cells of each row; a line that has no number goes on with the cell before it."""
    header, *lines = text.rstrip().split("\n")
    yield header.split("; ")
    whole: list[str] = []
    for line in lines:
        if whole and header.startswith("rowid; ") and not re.match(r"\d+; ", line):
            whole[-1] += f"\n{line}"
        else:
            whole.append(line)
    for line in whole:
        yield re.split(r"; |;$", line)


def _fitted(cells: list[str], header: list[str]) -> list[str]:
    """The cells, those that are too many joined again: there was a separator in the text of one."""
    surplus = len(cells) - len(header)
    if surplus <= 0:
        return cells
    at = header.index(FREE_TEXT) if FREE_TEXT in header else len(header) - 1
    return [*cells[:at], "; ".join(cells[at : at + surplus + 1]), *cells[at + surplus + 1 :]]


def _shown(cell: Any) -> str:
    """Return a cell on one printable line."""
    return printable(" ".join(str(cell).split()))
