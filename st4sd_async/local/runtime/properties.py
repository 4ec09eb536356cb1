"""
The table of measured properties of an instance, in the form of the service's responses.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The strings that pandas reads as missing values. NAN in capitals is not among them.
_MISSING_VALUES = {"", "NaN", "nan", "-NaN", "-nan", "N/A", "n/a", "NA", "<NA>", "NULL", "null", "None"}
_MISSING_VALUES |= {"#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}


def read_properties(path: Path, columns: str, *, stringify: bool, infinity: bool = False) -> dict[str, list[Any]]:
    """
    Return the columns of a CSV file by name.

    Args:
        path: ``output/properties.csv`` of an instance directory.
        columns: Names of columns separated by commas, or ``*``. Unknown columns are left out; ``input-id`` is always
            included.
        stringify: Whether to return missing numbers as the string ``NaN`` instead of NaN, which JSON does not have.
        infinity: Whether to return infinite numbers as ``inf`` and ``-inf`` too, as the datastore does; only used with
            ``stringify``.

    Raises:
        FileNotFoundError: The file does not exist, because no properties were measured, or not yet.
    """
    table = _columns(path.read_text())
    if columns != "*":
        names = list(dict.fromkeys(name for name in columns.split(",") if name))
        names = names if "input-id" in names else ["input-id", *names]
        table = {name: table[name] for name in names if name in table}
    if stringify:
        table = {name: [_stringified(value, infinity) for value in column] for name, column in table.items()}
    return table


def _columns(text: str) -> dict[str, list[Any]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return {}
    delimiter = max(",;\t", key=lines[0].count)
    names, *rows = csv.reader(lines, delimiter=delimiter)
    padded = [[*row, *[""] * (len(names) - len(row))] for row in rows]
    return {name: _typed([row[index] for row in padded]) for index, name in enumerate(names)}


def _typed(texts: list[str]) -> list[Any]:
    """Convert a column to the most specific type that fits all of its values."""
    types: tuple[Callable[[str], Any], ...] = (int, float, _boolean)
    gaps = any(text in _MISSING_VALUES for text in texts)
    for convert in types[1:] if gaps else types:
        try:
            return [math.nan if text in _MISSING_VALUES else convert(text) for text in texts]
        except ValueError:
            continue
    return [math.nan if text in _MISSING_VALUES else text for text in texts]


def _boolean(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"


def _stringified(value: Any, infinity: bool) -> Any:
    if isinstance(value, float) and math.isinf(value) and infinity:
        return str(value)
    return "NaN" if isinstance(value, float) and math.isnan(value) else value
