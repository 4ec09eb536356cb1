"""The demo in a terminal, and interrupted."""

from __future__ import annotations

import re

import pytest

from .conftest import Command
from .terminal import CONTROL, Terminal

# Some processes import all of it anew, on a machine that may be busy.
pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]


@pytest.mark.slow(seconds=6)
def test_a_terminal_shows_all_runs_live_and_then_their_properties(command: Command, deadline: float) -> None:
    """The table of runs is updated in place; an aligned table of properties follows."""
    terminal = Terminal(command, "demo", "--engine", "simulator", "--runs", "2")

    status = terminal.end(deadline)

    assert status == 0, terminal.shown
    uids = [path.name for path in (command.folder / "results").iterdir()]
    assert len(uids) == 2
    plain = CONTROL.sub("", terminal.shown)
    for uid in uids:
        for state in ("running", "succeeded"):  # others are over before a busy machine has looked
            assert re.search(rf"run \d +{state} +{uid} ", plain)
    assert re.search(r"run +state +rest-uid +progress", plain)
    assert "2 runs, 0:00:0" in plain
    assert "\x1b[1A" in terminal.shown  # back to the line above
    assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h") == 1  # the cursor is given back
    assert re.search(r"rest-uid +scale +input-id +smiles +energy +weight", plain)
    assert re.search(rf"({'|'.join(uids)}) +2 +CC\(=O\)O +CC\(=O\)O +-12\.0 +60\.052", plain)


def test_ctrl_c_ends_the_demo_and_leaves_nothing(command: Command, deadline: float) -> None:
    """Ctrl-C stops runs and server, shows the cursor again, and exits with 130."""
    terminal = Terminal(command, "demo", "--engine", "simulator", "--runs", "2")
    terminal.read_until("running", deadline)

    terminal.press(b"\x03")
    status = terminal.end(deadline)

    assert status == 130
    assert "interrupted" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert "\x1b[?25h" in terminal.shown
    assert command.left_behind() == []
