"""Cells of tables that a spreadsheet would take for formulas."""

from __future__ import annotations

BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a formula begins, in full-width characters too. Source: OWASP, "CSV Injection"."""


def neutral(cell: str) -> str:
    """
    Return a cell with an apostrophe before it if a spreadsheet would compute it, so that it is shown as a text.

    A formula can send the other cells to an address or start a program. A number, as ``-1.5``, is left as it is.
    """
    if not cell.startswith(BEGINNINGS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
