"""Measured properties of runs, as a table."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, Any, Self, TypeGuard

from .._render.displayable import Displayable
from .._util.did_you_mean import did_you_mean
from .._util.field_docs import document_fields
from .._util.printable import one_line, shorten
from .._util.spreadsheets import escape_formula

if TYPE_CHECKING:
    import pandas

    from .._errors import St4sdError
    from .._render.cards import Card

INPUT_ID = "input-id"
"""Column with the ids of the inputs."""
RUN = "rest-uid"
"""Column with the ids of the runs, in a table of several runs."""
MAX_TEXT_ROWS = 10
"""Maximum number of rows in the text of a table; the others are only counted."""
MAX_CARD_ROWS = 20
"""Rows in a notebook."""
MAX_CARD_PROBLEMS = 5
"""Runs without rows whose errors are shown in a notebook."""
MAX_PROBLEM_LENGTH = 240
"""Characters of such an error."""

_NUMBERS = {"NaN": nan, "inf": inf, "-inf": -inf}
"""Numbers that JSON does not have, as the services write them."""


def is_table(value: Any) -> TypeGuard[dict[str, list[Any]]]:
    """Return whether a JSON value is a table of the service: column -> values, with columns of equal length."""
    if not isinstance(value, dict) or not all(isinstance(column, list) for column in value.values()):
        return False
    return len({len(column) for column in value.values()}) <= 1


@document_fields
@dataclass(frozen=True)
class Properties(Displayable):
    """
    Measured properties of one run or several: a table with a row for each measurement.

        table = await run.properties()
        table.column("energy")            # its values, one per row
        table["energy"]                   # the same
        for row in table: ...             # {"input-id": "CCO", "energy": -4.5}
        table.dataframe()                 # for pandas

    Column names are lower-case, as the orchestrator writes them. The column ``input-id`` has the measured input of the
    run, in the naming scheme of its `Interface`, such as ``CCO``. Rows are in the order of the orchestrator, which
    sorts by ``input-id``; an input that was given twice has two rows. Values that were not measured are NaN. A table
    of several runs begins with the column ``rest-uid``, that of `Batch.table` with the columns of the launches.
    """

    columns: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[Any, ...], ...]
    """Rows, with a value for each column."""
    problems: Mapping[str, St4sdError] = field(default_factory=dict, compare=False)
    """rest-uid -> why the run has no rows, in a table of several runs; with a single run the error is raised."""

    @classmethod
    def of_run(cls, table: Mapping[str, Sequence[Any]], columns: Iterable[str] | None = None) -> Self:
        """
        Return the table of one run.

        Args:
            table: Column -> values, as sent by a service: missing numbers may be texts.
            columns: Columns to take, in this order; None means all.
        """
        names = tuple(table if columns is None else columns)
        return cls(names, tuple(zip(*(_with_numbers(table[name]) for name in names), strict=True)))

    @classmethod
    def of_runs(
        cls, tables: Mapping[str, Properties], problems: Mapping[str, St4sdError], columns: Iterable[str] = ()
    ) -> Self:
        """
        Return the table of several runs, with NaN where a run does not have a column.

        Args:
            tables: rest-uid -> table of the run.
            problems: rest-uid -> why the run has no table.
            columns: First columns; the other columns of the tables follow.
        """
        found = dict.fromkeys([*columns, *(name for table in tables.values() for name in table.columns)])
        names = tuple(name for name in found if name != RUN)
        rows = tuple((rest_uid, *row) for rest_uid, table in tables.items() for row in table._rows_of(names))
        return cls((RUN, *names), rows, dict(problems))

    @classmethod
    def concatenated(cls, tables: Sequence[Properties]) -> Self:
        """Return tables as one, with the columns of all of them, and NaN where a table does not have a column."""
        names = tuple(dict.fromkeys(name for table in tables for name in table.columns))
        problems = {run: error for table in tables for run, error in table.problems.items()}
        return cls(names, tuple(row for table in tables for row in table._rows_of(names)), problems)

    def _rows_of(self, names: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """Return the rows with these columns, with NaN in missing ones."""
        indices = [self.columns.index(name) if name in self.columns else None for name in names]
        return (tuple(nan if index is None else row[index] for index in indices) for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def __getitem__(self, name: str) -> list[Any]:
        return self.column(name)

    def column(self, name: str) -> list[Any]:
        """
        Return the values of a column, one per row.

        Args:
            name: Name of the column, in upper or lower case.

        Raises:
            KeyError: There is no such column.
        """
        known = name if name in self.columns else name.lower()
        if known not in self.columns:
            raise KeyError(f"no column {name!r} among {list(self.columns)}{did_you_mean(name, self.columns)}")
        index = self.columns.index(known)
        return [row[index] for row in self.rows]

    def dataframe(self) -> pandas.DataFrame:
        """
        Return the table as a pandas DataFrame; missing numbers are NaN, and columns of numbers have a numeric dtype.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError('Properties.dataframe() needs pandas: pip install "st4sd_async[pandas]"') from None
        return pandas.DataFrame({name: self.column(name) for name in self.columns})

    def to_csv(self, *, formulas: bool = False) -> str:
        """
        Return the table as CSV with a header. Missing values, and numbers that are NaN, are empty cells.

            Path("energies.csv").write_text(table.to_csv(), "utf-8")

        Args:
            formulas: Write ``=1+1`` as it is. By default it becomes ``'=1+1``, so that no spreadsheet computes it.
        """
        import csv  # lazily: only this method needs it

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in (self.columns, *self.rows):
            cells = ["" if value is None or value != value else str(value) for value in row]
            writer.writerow(cells if formulas else map(escape_formula, cells))
        return text.getvalue()

    def to_json_lines(self) -> str:
        """
        Return the table as JSON lines: an object for each row, which pandas and databases read.

        Missing values, NaN and infinity are null. Times are in ISO 8601.
        """
        lines = (
            json.dumps({name: _json_value(value) for name, value in row.items()}, ensure_ascii=False, allow_nan=False)
            for row in self
        )
        return "".join(f"{line}\n" for line in lines)

    def __str__(self) -> str:
        cells = [
            [one_line("" if value is None else str(value)) for value in row]
            for row in (self.columns, *self.rows[:MAX_TEXT_ROWS])
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        more = [f"... and {len(self) - MAX_TEXT_ROWS} more rows"] if len(self) > MAX_TEXT_ROWS else []
        return "\n".join([*lines, *more, *(one_line(f"{run}: {error}") for run, error in self.problems.items())])

    def __repr__(self) -> str:
        problems = f", {len(self.problems)} without any" if self.problems else ""
        return f"<Properties: {len(self)} rows of {one_line(', '.join(self.columns))}{problems}>"

    def _card(self) -> Card:
        from .._render.cards import Card, CardTable, Tone, counted, omitted

        numbers = {
            index
            for index, name in enumerate(self.columns)
            if self.rows and all(isinstance(value, int | float) for value in self[name])
        }
        rows = tuple(tuple(map(_cell, row)) for row in self.rows[:MAX_CARD_ROWS])
        more = omitted(len(self) - len(rows), "row")
        problems = [f"{run}: {shorten(str(error), MAX_PROBLEM_LENGTH)}" for run, error in self.problems.items()]
        left = omitted(len(problems) - MAX_CARD_PROBLEMS, "run")
        return Card(
            counted(len(self), "row"),
            kind="properties",
            alert=f"no properties of {counted(len(problems), 'run')}" if problems else "",
            advice="; ".join([*problems[:MAX_CARD_PROBLEMS], *([left] if left else [])]),
            tone=Tone.WAITING,
            table=CardTable(self.columns, rows, more, frozenset(numbers)),
        )


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not isfinite(value) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _with_numbers(column: Sequence[Any]) -> list[Any]:
    """
    Return a column with numbers instead of the texts that the services send for them.

    "NaN" is always a number: the services read the table with pandas, which reads such a text as a missing value. "inf"
    is a text if the column has other texts.
    """
    texts = {value for value in column if isinstance(value, str)}
    numbers = _NUMBERS if texts <= _NUMBERS.keys() else {"NaN": nan}
    return [numbers.get(value, value) if isinstance(value, str) else value for value in column]
