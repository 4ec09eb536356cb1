"""What a user sees in a terminal, and how Ctrl-C ends it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

from .conftest import Command

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The command in a terminal of 100 columns."""

    def __init__(self, command: Command, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "st4sd_async", *arguments],
            cwd=command.folder,
            env=command.environment(TERM="xterm-256color"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            # With a session of its own the terminal is its controlling one, whose Ctrl-C interrupts it.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, text: str | None, deadline: float) -> str:
        """What was shown so far, once `text` is in it; None: until the command has ended."""
        while text is None or text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # the other side is closed
                part = b""
            if not part:
                break
            self.shown += part.decode()
        assert text is None or text in self.shown
        return self.shown

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def end(self, deadline: float) -> int:
        """The exit status."""
        self.read_until(None, deadline)
        os.close(self._ours)
        return self.process.wait(5)


def test_a_terminal_shows_all_runs_live_and_then_their_properties(command: Command, deadline: float) -> None:
    """The table of the runs is redrawn in place while they go on; an aligned table of properties follows."""
    terminal = Terminal(command, "demo", "--engine", "simulator", "--runs", "2")

    status = terminal.end(deadline)

    assert status == 0, terminal.shown
    uids = [path.name for path in (command.folder / "results").iterdir()]
    assert len(uids) == 2
    plain = CONTROL.sub("", terminal.shown)
    for uid in uids:
        for state in ("Initialising", "running", "finished"):
            assert re.search(rf"{uid} +{state} ", plain)
    assert re.search(r"run +state +exit-status +progress +seconds", plain)
    assert "\x1b[1A" in terminal.shown  # back to the line above
    assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h") == 1  # the cursor is given back
    assert re.search(r"rest-uid +scale +input-id +smiles +energy +weight", plain)
    assert re.search(rf"({'|'.join(uids)}) +2 +CC\(=O\)O +CC\(=O\)O +-12\.0 +56\.02", plain)


def test_ctrl_c_ends_the_demo_and_leaves_nothing(command: Command, deadline: float) -> None:
    """Ctrl-C stops runs and server, gives the cursor back, says so without a traceback, and exits with 130."""
    terminal = Terminal(command, "demo", "--engine", "simulator", "--runs", "2")
    terminal.read_until("Initialising", deadline)

    terminal.press(b"\x03")
    status = terminal.end(deadline)

    assert status == 130
    assert "interrupted" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert "\x1b[?25h" in terminal.shown
    assert command.left_behind() == []
