"""A terminal, and what it shows."""

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
    """The command in a terminal."""

    def __init__(self, command: Command, *arguments: str, width: int = 100) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
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
        """Return what was shown so far, once it contains `text`. None means once the command has ended."""
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
        """Wait until the command has ended, and return its exit status."""
        self.read_until(None, deadline)
        os.close(self._ours)
        return self.process.wait(15)
