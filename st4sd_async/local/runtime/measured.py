"""
The table of measured properties of an instance, as the service reads and shows it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The texts that pandas takes for "no value"; NAN, in capitals, is not one of them.
_NO_VALUE = {"", "NaN", "nan", "-NaN", "-nan", "N/A", "n/a", "NA", "<NA>", "NULL", "null", "None"}
_NO_VALUE |= {"#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}


def read_properties(path: Path, wanted: str, *, stringify: bool, infinity: bool = False) -> dict[str, list[Any]]:
    """
    Columns of the file by name.

    Args:
        path: ``output/properties.csv`` of an instance directory.
        wanted: Names of columns with commas between them, or ``*``; unknown ones are left out, and
            ``input-id`` always comes along.
        stringify: Show missing numbers as the text ``NaN``, not as the number, which JSON does not have.
        infinity: Then show infinite ones as ``inf`` and ``-inf`` too, as only the datastore does.

    Raises:
        FileNotFoundError: There is no such file, because nothing was measured (yet).
    """
    table = _columns(path.read_text())
    if wanted != "*":
        names = list(dict.fromkeys(name for name in wanted.split(",") if name))
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
    """The values of a column with the most special type that all of them have."""
    types: tuple[Callable[[str], Any], ...] = (int, float, _boolean)
    gaps = any(text in _NO_VALUE for text in texts)
    for convert in types[1:] if gaps else types:
        try:
            return [math.nan if text in _NO_VALUE else convert(text) for text in texts]
        except ValueError:
            continue
    return [math.nan if text in _NO_VALUE else text for text in texts]


def _boolean(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"


def _stringified(value: Any, infinity: bool) -> Any:
    if isinstance(value, float) and math.isinf(value) and infinity:
        return str(value)
    return "NaN" if isinstance(value, float) and math.isnan(value) else value
