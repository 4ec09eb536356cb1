"""Tables on standard output."""

from __future__ import annotations

import io

import pytest

from st4sd_async._util.spreadsheets import escape_formula
from st4sd_async.cli.output import print_table

from .terminal import CONTROL


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1", "=HYPERLINK(\"http://x\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1",
        "\uff1d1+1", "=O", "-", "+", "--1", "-1.5.2",
    ],
)  # fmt: skip
def test_a_cell_that_begins_a_formula_is_a_text(cell: str) -> None:
    """With an apostrophe, which spreadsheets do not show."""
    assert escape_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-1.5", "+1", "-1e-7", "-inf", "1", "", "CO", "a=b", "C#N", "'=1"])
def test_numbers_and_other_texts_stay(cell: str) -> None:
    """A measured value may be negative."""
    assert escape_formula(cell) == cell


class Interactive(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_texts_of_a_table_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A column of properties may have any name; brackets are not markup."""
    columns, rows = ("[red]key", "x[/b]\x1b[2J"), [("a", "[/]")]

    print_table(columns, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream := Interactive())
        print_table(columns, rows)

    assert capsys.readouterr().out == "[red]key\tx[/b]\\x1b[2J\na\t[/]\n"
    assert [line.split() for line in CONTROL.sub("", stream.getvalue()).splitlines()] == [
        ["[red]key", r"x[/b]\x1b[2J"],
        ["a", "[/]"],
    ]
