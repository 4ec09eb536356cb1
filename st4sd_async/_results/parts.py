"""Tables of many runs in parts, so that only one part is in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from .._util.extras import import_pandas
from .._util.threads import in_thread
from ..models import Properties

if TYPE_CHECKING:
    import pandas


def check_rows(rows: int) -> None:
    """Raise ValueError if a number of rows for a part is invalid."""
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ValueError(f"rows must be a whole number of at least 1, not {rows!r}")


async def frames(tables: AsyncGenerator[Properties], rows: int) -> AsyncGenerator[pandas.DataFrame]:
    """Yield the rows of tables as DataFrames with so many rows each, the last one with fewer."""
    await in_thread(import_pandas, "properties_in_parts()")
    async with aclosing(_regrouped(tables, rows)) as parts:
        async for part in parts:
            yield await in_thread(part.dataframe)


async def _regrouped(tables: AsyncGenerator[Properties], rows: int) -> AsyncGenerator[Properties]:
    """Yield the rows of tables as tables with so many rows each, the last one with fewer."""
    collected: list[Properties] = []
    async with aclosing(tables):
        async for table in tables:
            collected.append(table)
            if sum(map(len, collected)) < rows:
                continue
            whole = await in_thread(Properties.concatenated, collected)
            full = len(whole) - len(whole) % rows
            for first in range(0, full, rows):
                yield replace(whole, rows=whole.rows[first : first + rows])
            collected = [replace(whole, rows=whole.rows[full:], problems={})] if full < len(whole) else []
    if collected and (last := await in_thread(Properties.concatenated, collected)):
        yield last
