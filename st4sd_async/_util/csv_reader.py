"""Read CSV files of unknown dialect with pandas."""

from __future__ import annotations

import csv
from contextlib import suppress
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import pandas

# All line ends become "\n": at a lone "\r" before a blank, pandas 2.3 may loop until memory is full.
AS_TEXT: Any = {"encoding": "utf-8-sig", "errors": "replace", "newline": None}
"""Arguments of `open` for a file that `read_table` reads."""
SEPARATORS = (",", ";", "\t")
"""Separators of cells, besides blanks."""
BLANKS = r"\s+"
SAMPLE_LENGTH = 1 << 20  # characters that are searched for the first two rows


def read_table(file: TextIO) -> pandas.DataFrame:
    """
    Return the table in a file that was opened with `AS_TEXT`.

    The first line has the names of the columns; lines before it that begin with ``#`` are skipped. Cells are separated
    by commas, semicolons, tabs or blanks. The separator is the one with which the names and the first row have the same
    number of cells. Bytes that are not UTF-8 are replaced.

    Raises:
        ValueError: The file is empty or not text, or a row has more cells than there are names.
    """
    start = _skip_comments(file)
    sample = file.read(SAMPLE_LENGTH)
    if not sample.strip():
        raise ValueError("no table: it is empty")
    if "\0" in sample:
        raise ValueError("no text")
    separator = _separator(sample)
    file.seek(start)
    frame = _read(file, separator)
    if _has_implicit_index(frame):
        if frame.index.nlevels > 1 or not frame.iloc[:, -1].isna().all():
            raise ValueError("no table: rows have more cells than there are names of columns")
        file.seek(start)
        frame = _read(file, separator, index_col=False)  # a separator ended each row
    return frame


def _read(file: TextIO, separator: str, **options: Any) -> pandas.DataFrame:
    import pandas

    # The default reads floats that are off by a bit; in chunks, it may give one column two types.
    return pandas.read_csv(
        file, sep=separator, skipinitialspace=True, float_precision="round_trip", low_memory=False, **options
    )


def _has_implicit_index(frame: pandas.DataFrame) -> bool:
    """Return whether pandas took the first cells for an index, because rows have more cells than there are names."""
    import pandas

    return not isinstance(frame.index, pandas.RangeIndex)


def _skip_comments(file: TextIO) -> int:
    """Return the position of the first line that is neither blank nor a comment."""
    start = file.tell()
    while (line := file.readline(SAMPLE_LENGTH)) and (line.startswith("#") or not line.strip()):
        start = file.tell()
    file.seek(start)
    return start


def _separator(sample: str) -> str:
    """Return the separator that gives the names and the first row the same number of cells."""
    heads = {separator: _head(sample, separator) for separator in SEPARATORS}
    for separator, head in heads.items():
        if len(head) == 2 and len(head[0]) == len(head[1]) > 1:
            return separator
    names, row = (line.split() for line in [*sample.split("\n", 2), ""][:2])
    if len(names) == len(row) > 1 and any(map(_is_number, row)):
        return BLANKS
    return max(SEPARATORS, key=lambda separator: len(heads[separator][0]) if heads[separator] else 0)


def _head(sample: str, separator: str) -> list[list[str]]:
    """Return the first two rows that are not empty, as far as they can be read."""
    rows = csv.reader(StringIO(sample), delimiter=separator, skipinitialspace=True)
    head: list[list[str]] = []
    with suppress(csv.Error):  # for instance a cell of more than 128 KiB
        head.extend(islice(filter(None, rows), 2))
    return head


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False
