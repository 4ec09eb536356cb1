"""The table of what runs measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import TYPE_CHECKING, Any, Self, TypeGuard

from .._render.displayable import Displayable
from .._util.field_docs import document_fields
from .._util.printable import one_line, shorten

if TYPE_CHECKING:
    import pandas

    from .._errors import St4sdError
    from .._render.cards import Card

INPUT_ID = "input-id"
"""The column with the ids of the inputs."""
RUN = "rest-uid"
"""The column with the ids of the runs, in a table of several."""
SHOWN_ROWS = 10
"""Rows in the text of a table; the rest is counted."""
MAX_CARD_ROWS = 20
"""Rows in a notebook."""
MAX_CARD_PROBLEMS = 5
"""Runs without rows whose errors are shown in a notebook."""
MAX_PROBLEM_LENGTH = 240
"""Characters of such an error."""

_NUMBERS = {"NaN": nan, "inf": inf, "-inf": -inf}
"""Numbers that JSON does not have, as the services write them."""


def is_table(value: Any) -> TypeGuard[dict[str, list[Any]]]:
    """Whether a JSON value is a table as services say it: column -> values, as many in each."""
    if not isinstance(value, dict) or not all(isinstance(column, list) for column in value.values()):
        return False
    return len({len(column) for column in value.values()}) <= 1


@document_fields
@dataclass(frozen=True)
class Properties(Displayable):
    """
    What one run measured, or several: a table with a row for each measurement.

        table = await run.properties()
        table.column("energy")            # its values, one a row
        table["energy"]                   # the same
        for row in table: ...             # {"input-id": "CCO", "energy": -4.5}
        table.dataframe()                 # for pandas

    Column names are lower-case, as the orchestrator writes them. The column ``input-id`` says which input of
    the run was measured, in the naming scheme of its `Interface`, as ``CCO``. Rows are as the orchestrator
    wrote them: sorted by it, and more than one for an input that was given more than once. What was not measured
    is NaN. A table of several runs begins with the column ``rest-uid``.
    """

    columns: tuple[str, ...]
    """The names of the columns."""
    rows: tuple[tuple[Any, ...], ...]
    """The rows, each with a value for each column."""
    problems: Mapping[str, St4sdError] = field(default_factory=dict, compare=False)
    """rest-uid -> why the run has no rows here, of several runs; {} for one, which raises it."""

    @classmethod
    def of_run(cls, table: Mapping[str, Sequence[Any]], columns: Iterable[str] | None = None) -> Self:
        """
        The table of one run.

        Args:
            table: column -> values, as a service says it: missing numbers may be texts.
            columns: Which columns, in this order; None: all.
        """
        names = tuple(table if columns is None else columns)
        return cls(names, tuple(zip(*(_with_numbers(table[name]) for name in names), strict=True)))

    @classmethod
    def of_runs(
        cls, tables: Mapping[str, Properties], problems: Mapping[str, St4sdError], columns: Iterable[str] = ()
    ) -> Self:
        """
        The table of several runs, whose cells are NaN where a run does not have the column.

        Args:
            tables: rest-uid -> its own table.
            problems: rest-uid -> why there is none.
            columns: Columns to begin with; those of the tables follow.
        """
        found = dict.fromkeys([*columns, *(name for one in tables.values() for name in one.columns)])
        names = tuple(name for name in found if name != RUN)
        rows = tuple((rest_uid, *row) for rest_uid, one in tables.items() for row in one._arranged(names))
        return cls((RUN, *names), rows, dict(problems))

    def _arranged(self, names: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """The rows with other columns, NaN in those that are not here."""
        places = [self.columns.index(name) if name in self.columns else None for name in names]
        return (tuple(nan if place is None else row[place] for place in places) for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def __getitem__(self, name: str) -> list[Any]:
        return self.column(name)

    def column(self, name: str) -> list[Any]:
        """
        The values of a column, one a row.

        Args:
            name: The column, in any case.

        Raises:
            KeyError: There is no such column.
        """
        known = name if name in self.columns else name.lower()
        if known not in self.columns:
            raise KeyError(f"no column {name!r} among {list(self.columns)}")
        place = self.columns.index(known)
        return [row[place] for row in self.rows]

    def dataframe(self) -> pandas.DataFrame:
        """
        The table as a pandas DataFrame; missing numbers are NaN, columns of numbers have types of numbers.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError('Properties.dataframe() needs pandas: pip install "st4sd_async[pandas]"') from None
        return pandas.DataFrame({name: self.column(name) for name in self.columns})

    def __str__(self) -> str:
        shown = [[one_line(str(value)) for value in row] for row in (self.columns, *self.rows[:SHOWN_ROWS])]
        widths = [max(map(len, cells)) for cells in zip(*shown, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in shown]
        more = [f"... and {len(self) - SHOWN_ROWS} more rows"] if len(self) > SHOWN_ROWS else []
        return "\n".join([*lines, *more, *(one_line(f"{run}: {why}") for run, why in self.problems.items())])

    def __repr__(self) -> str:
        problems = f", {len(self.problems)} without any" if self.problems else ""
        return f"<Properties: {len(self)} rows of {one_line(', '.join(self.columns))}{problems}>"

    def _card(self) -> Card:
        from .._render.cards import Card, Table, Tone, counted, omitted

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
            counted(len(self), "measurement"),
            kind="properties",
            alert=f"nothing of {counted(len(problems), 'run')}" if problems else "",
            advice="; ".join([*problems[:MAX_CARD_PROBLEMS], *([left] if left else [])]),
            tone=Tone.WAITING,
            table=Table(self.columns, rows, more, frozenset(numbers)),
        )


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _with_numbers(column: Sequence[Any]) -> list[Any]:
    """
    A column with the numbers back that came as texts.

    "NaN" is never a text of its own: the services read the table with pandas, which takes such a text for a
    missing value. "inf" may be one, beside other texts.
    """
    texts = {value for value in column if isinstance(value, str)}
    numbers = _NUMBERS if texts <= _NUMBERS.keys() else {"NaN": nan}
    return [numbers.get(value, value) if isinstance(value, str) else value for value in column]
