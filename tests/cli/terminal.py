"""A terminal, and what it shows."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

from tests.forks import Forked

from .conftest import Command

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HEIGHT = 40
"""Lines of a terminal."""


def screen_of(written: str, width: int = 100) -> list[str]:
    """
    Return the lines that a terminal shows after a program has written this, with those that have scrolled away.

    Knows what rich uses: line breaks, going up, and erasing a line.
    """
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, column
        elif part.endswith("A") and part.startswith("\x1b"):
            row = max(row - int(part[2:-1] or 1), len(lines) - HEIGHT, 0)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            for character in part:
                if column == width:
                    row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
                lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
                column += 1
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]


class Terminal:
    """The command in a terminal."""

    def __init__(
        self,
        command: Command,
        *arguments: str,
        width: int = 100,
        is_fresh: bool = False,
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, width, 0, 0))
        environment = command.environment(TERM="xterm-256color")
        self.process: Forked | subprocess.Popen[bytes]
        if not is_fresh:
            self.process = command.forks.start(arguments, command.folder, environment, terminal=theirs)
        else:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "st4sd_async", *arguments],
                cwd=command.folder,
                env=environment,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                # With a session of its own the terminal is its controlling one, whose Ctrl-C interrupts it.
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        os.close(theirs)
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def read_until(self, text: str | None, deadline: float) -> str:
        """Return what was shown so far, once it contains `text`. None means once the command has ended."""
        while text is None or text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if not self._read():
                break
        assert text is None or text in self.shown
        return self.shown

    def _read(self) -> bool:
        """Read what is written next; return False at the end."""
        try:
            part = os.read(self._ours, 65536)
        except OSError:  # the other side is closed
            part = b""
        self.shown += self._decoder.decode(part)
        return bool(part)

    def read_on(self) -> None:
        """Read until nothing was written for a moment. One drawing may arrive in pieces."""
        while select.select([self._ours], [], [], 0.2)[0] and self._read():
            pass

    @property
    def screen(self) -> list[str]:
        """The lines that it shows, with those that have scrolled away."""
        return screen_of(self.shown)

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def end(self, deadline: float) -> int:
        """Wait until the command has ended, and return its exit status."""
        self.read_until(None, deadline)
        os.close(self._ours)
        return self.process.wait(15)
