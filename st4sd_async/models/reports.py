"""The status of each component of a run: the report that the orchestrator keeps in the run's directory."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from .._render.displayable import Displayable
from .._util.field_docs import document_fields
from .._util.printable import printable
from ._base import Reply
from .datastore import ComponentState, _Time, component_badge

if TYPE_CHECKING:
    import pandas

    from .._render.cards import Card

EMPTY_CELLS = frozenset({"", "None", "N/A"})
"""Texts of a cell that has no value."""
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
"""Columns that the service's own tools show; the last three are for repeating components."""
CARD_COLUMNS = ("component", "state", "backend", "took", "why it ended")
MAX_CARD_ROWS = 20
"""Rows in a notebook."""
FREE_TEXT = "schedulerId"
"""Column whose text does not come from the orchestrator, so that it may contain separators."""
MAX_DURATION = timedelta(days=100_000)
"""Longer durations are read as None; pandas cannot represent some of them."""

_NUMBER = re.compile(r"-?[0-9]{1,18}")
_DURATION = re.compile(r"(?:(-?\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_DTYPES: dict[Any, str] = {
    bool | None: "boolean",
    int | None: "Int64",
    datetime | None: "datetime64[us, UTC]",
    timedelta | None: "timedelta64[us]",
}


def _word(cell: Any) -> Any:
    return None if isinstance(cell, str) and cell in EMPTY_CELLS else cell


def _flag(cell: Any) -> bool | None:
    return str(cell) == "True" if str(cell) in ("True", "False") else None


def _number(cell: Any) -> int | None:
    return int(cell) if _NUMBER.fullmatch(str(cell)) else None


def _duration(cell: Any) -> Any:
    """
    Return a duration that is written as ``1 day, 0:00:03.5`` or as a number of seconds; None if it is neither.

    The form in the JSON of a model, ``P1DT3.5S``, is left to pydantic.
    """
    if isinstance(cell, timedelta) or (isinstance(cell, str) and cell.startswith(("P", "-P"))):
        return cell
    parts = _DURATION.fullmatch(str(cell))
    try:
        days, hours, minutes, seconds = parts.groups("0") if parts else (0, 0, 0, cell)
        return timedelta(int(days), float(seconds), hours=int(hours), minutes=int(minutes))
    except (TypeError, ValueError, OverflowError):
        return None


def _bounded(span: timedelta | None) -> timedelta | None:
    return span if span is not None and abs(span) < MAX_DURATION else None


def _names(cell: Any) -> list[str]:
    parts = cell if isinstance(cell, list) else str(cell).split(",")
    return [name for name in (str(part).strip() for part in parts) if name not in EMPTY_CELLS]


Cells = dict[str, str]
"""Column -> cell."""
_Word = Annotated[str | None, BeforeValidator(_word)]
_State = Annotated[ComponentState | None, BeforeValidator(_word)]
_Flag = Annotated[bool | None, BeforeValidator(_flag)]
_Number = Annotated[int | None, BeforeValidator(_number)]
_Duration = Annotated[timedelta | None, AfterValidator(_bounded), BeforeValidator(_duration)]


class ComponentReport(Reply):
    """
    A row of a `StatusReport`: a component, the engine that runs it, and the last task of the engine.

    A field is None if the report has no value for it, or one that cannot be read. ``raw`` has all cells unchanged,
    under the service's names of the columns. If a component and its engine have a column of the same name, the cell of
    the engine has the prefix ``engine.``.
    """

    stage: int | None = None
    """Index of the stage, from 0."""
    reference: str = ""
    """Stage and name, as in ``stage0.Compute``."""
    producers: Annotated[list[str], BeforeValidator(_names)] = Field(default=[], alias="consumesFrom")
    """References of the components whose files it uses."""
    is_alive: _Flag = Field(default=None, alias="isAlive")
    """Whether the component is not over yet."""
    state: _State = None
    """State of the component."""
    engine: str = ""
    """Kind of engine: ``engine``, or ``repeatingEngine`` if the component runs repeatedly."""
    backend: _Word = None
    """Backend of its tasks, such as ``kubernetes``, ``lsf`` or ``local``."""
    created: _Time = Field(default=None, alias="creationDate")
    """When the engine was created, in UTC."""
    started: _Time = Field(default=None, alias="runDate")
    """When the engine was started, in UTC."""
    is_waiting_on_output: _Flag = Field(default=None, alias="isWaitingOnOutput")
    """Whether a repeating engine waits for files of producers; of another engine, whether it was ever started."""
    output_wait_time: _Duration = Field(default=None, alias="outputWaitTime")
    """How long the engine has waited for such files, or waited until its task began."""
    is_running: _Flag = Field(default=None, alias="isRunning")
    """Whether the engine was started and is not over."""
    engine_exit_code: _Number = Field(default=None, alias="engineExitCode")
    """Exit code of the engine; 0 means success."""
    engine_exit_reason: _Word = Field(default=None, alias="engineExitReason")
    """Why the engine ended, such as ``Success``, ``KnownIssue`` or ``Killed``."""
    task_launched: _Time = Field(default=None, alias="lastTaskLaunchDate")
    """When the last task was launched, in UTC."""
    task_finished: _Time = Field(default=None, alias="lastTaskFinishedDate")
    """When the last task ended, in UTC."""
    task_run_time: _Duration = Field(default=None, alias="lastTaskRunTime")
    """How long the last task took, or has taken so far."""
    task_state: _State = Field(default=None, alias="lastTaskRunState")
    """State of the last task."""
    task_exit_code: _Number = Field(default=None, alias="lastTaskExitCode")
    """Exit code of the last task."""
    task_exit_reason: _Word = Field(default=None, alias="lastTaskExitReason")
    """Why the last task ended."""
    scheduler_id: _Word = Field(default=None, alias="schedulerId")
    """Id of the last task at its backend."""
    repeat_interval: _Duration = Field(default=None, alias="repeatInterval")
    """How long a repeating engine waits between two tasks."""
    task_launches: _Number = Field(default=None, alias="numberTaskLaunches")
    """How many tasks a repeating engine has launched."""
    last_launch: _Time = Field(default=None, alias="lastKernelLaunchDate")
    """When a repeating engine last began to launch a task, in UTC."""
    next_launch_in: _Duration = Field(default=None, alias="timeToNextKernelLaunch")
    """Time until it begins to launch the next task."""
    since_last_task: _Duration = Field(default=None, alias="timeSinceLastTaskLaunch")
    """Time since the last task of a repeating engine ended."""

    @property
    def name(self) -> str:
        """Name of the component, without its stage."""
        stage, _, name = self.reference.partition(".")
        return name or stage


@document_fields
@dataclass(frozen=True)
class StatusReport(Displayable):
    """
    The status of each component of a run; the orchestrator updates it every few seconds and at the end.

        print(report)                           # a table of all components, failed ones first
        report.failed                           # rows of failed components
        report.rows[0].task_exit_code           # one row, typed
        report.dataframe()["lastTaskRunTime"]   # everything, for pandas

    Source: ``output/status_details.json`` in a run's directory.
    """

    rows: tuple[ComponentReport, ...]
    """Rows, one per component, by stage."""

    @classmethod
    def parse(cls, content: bytes | str) -> StatusReport:
        """
        Return the report in the content of ``status_details.json``.

        Raises:
            ValueError: The content is not a status report, or not a complete one.
        """
        rows = [ComponentReport.model_validate(cells) for cells in _rows(_stages(content))]
        return cls(tuple(sorted(rows, key=lambda row: inf if row.stage is None else row.stage)))

    @property
    def failed(self) -> tuple[ComponentReport, ...]:
        """Rows of the components that failed, without those that were stopped because of them."""
        return tuple(row for row in self.rows if row.state is ComponentState.FAILED)

    def table(self, columns: Iterable[str] = ()) -> str:
        """
        Return the report as a text table, failed components first.

        Args:
            columns: Columns to show, by the service's names as in ``row.raw``; () means those that the service's own
                tools show. Columns that no component has are left out.
        """
        names = [name for name in (tuple(columns) or OVERVIEW) if any(name in row.raw for row in self.rows)]
        if not names:
            return "no component has such columns" if self.rows else "no component has been reported on yet"
        rows = sorted(self.rows, key=lambda row: row.state is not ComponentState.FAILED)
        lines = [
            [*map(_printable_cell, names)],
            *([_printable_cell(row.raw.get(name, "")) for name in names] for row in rows),
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(map(str.ljust, line, widths)).rstrip()  # a width for each cell
            for line in lines
        )

    def dataframe(self) -> pandas.DataFrame:
        """
        Return the report as a pandas DataFrame with a row per component; columns have the service's names.

        Times, durations, numbers and flags are typed, other columns are text; cells without a value are missing.

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

    def _card(self) -> Card:
        from .._render.cards import Card, CardTable, counted, omitted

        rows = sorted(self.rows, key=lambda row: row.state is not ComponentState.FAILED)
        counts = Counter(component_badge(row.state) for row in rows)
        cells = tuple(
            (
                row.reference,
                component_badge(row.state),
                row.backend or "",
                _text_of(row.task_run_time),
                _why(row),
            )
            for row in rows[:MAX_CARD_ROWS]
        )
        table = CardTable(CARD_COLUMNS, cells, omitted(len(rows) - MAX_CARD_ROWS, "component")) if cells else None
        parts = tuple((count, badge) for badge, count in counts.most_common())
        return Card(counted(len(rows), "component"), kind="status report", parts=parts, table=table)


def _why(row: ComponentReport) -> str:
    return row.task_exit_reason or row.engine_exit_reason or ""


def _text_of(duration: timedelta | None) -> str:
    return "" if duration is None else str(timedelta(seconds=round(duration.total_seconds())))


def _stages(content: bytes | str) -> dict[str, Any]:
    try:
        stages = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"an incomplete or damaged status report ({error})") from None
    if not isinstance(stages, dict):
        raise ValueError("something that is not a status report")
    return stages


def _rows(stages: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the cells of each component, with its stage."""
    for stage, kinds in stages.items():
        try:
            for kind, tables in kinds.items():
                components, engines = (_table(tables.get(which, "")) for which in ("componentStates", "engineStates"))
                for cells in _joined(components, engines):
                    yield {"stage": _number(stage), **cells, "engine": cells.get("engine", kind)}
        except AttributeError:
            raise ValueError(f"a status report without tables for stage {stage!r}") from None


def _joined(components: Mapping[str, Cells], engines: Mapping[str, Cells]) -> Iterator[Cells]:
    """Yield the cells of each component and of its engine, whose columns get a prefix if the component has them too."""
    for reference in dict.fromkeys([*components, *engines]):
        component, engine = components.get(reference, {}), engines.get(reference, {})
        shared = component.keys() - {"reference"}
        yield {**component, **{f"engine.{name}" if name in shared else name: engine[name] for name in engine}}


def _table(text: str) -> dict[str, Cells]:
    """
    Return the rows by reference, each as column -> cell.

    The service separates cells by ``"; "`` without quotes, and strips blanks from the end of the table.
    """
    header, *lines = _lines(text)
    rows = (dict(zip(header, _fitted(line, header), strict=False)) for line in lines)
    return {row.get("reference", f"row {number}"): row for number, row in enumerate(rows)}


def _lines(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row; a line without a row number continues the last cell of the line before."""
    header, *lines = text.rstrip().split("\n")
    yield header.split("; ")
    joined: list[str] = []
    for line in lines:
        if joined and header.startswith("rowid; ") and not re.match(r"\d+; ", line):
            joined[-1] += f"\n{line}"
        else:
            joined.append(line)
    for line in joined:
        yield re.split(r"; |;$", line)


def _fitted(cells: list[str], header: list[str]) -> list[str]:
    """Return as many cells as the header has: surplus ones are joined, because a text contained the separator."""
    surplus = len(cells) - len(header)
    if surplus <= 0:
        return cells
    index = header.index(FREE_TEXT) if FREE_TEXT in header else len(header) - 1
    return [*cells[:index], "; ".join(cells[index : index + surplus + 1]), *cells[index + surplus + 1 :]]


def _printable_cell(cell: Any) -> str:
    """Return a cell on one printable line."""
    return printable(" ".join(str(cell).split()))
