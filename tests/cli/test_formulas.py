"""A table that a spreadsheet opens computes nothing that a server wrote."""

from __future__ import annotations

import pytest

from st4sd_async.cli._formulas import neutral


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1", "=HYPERLINK(\"http://x\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1",
        "\uff1d1+1", "=O", "-", "+", "--1", "-1.5.2",
    ],
)  # fmt: skip
def test_a_cell_that_begins_a_formula_is_a_text(cell: str) -> None:
    """With an apostrophe, which spreadsheets do not show."""
    assert neutral(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-1.5", "+1", "-1e-7", "-inf", "1", "", "CO", "a=b", "C#N", "'=1"])
def test_numbers_and_other_texts_stay(cell: str) -> None:
    """A measured value may be below zero."""
    assert neutral(cell) == cell
