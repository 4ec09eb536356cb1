"""Cells of tables that people open in a spreadsheet."""

from __future__ import annotations

FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a spreadsheet's formula begins, full-width characters included. Source: OWASP, "CSV Injection"."""


def escape_formula(cell: str) -> str:
    """
    Return a cell with an apostrophe before it if a spreadsheet would compute it, so that it is shown as text.

    A formula can send the other cells to an address or start a program. Numbers such as ``-1.5`` stay as they are.
    """
    return f"'{cell}" if cell.startswith(FORMULA_PREFIXES) and not is_number(cell) else cell


def is_number(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
