"""
A process that cleans up after this one if it is killed.

It waits at the end of a pipe, which the kernel closes when this process dies of whatever. Because a forked child may
hold the pipe open, it also looks whether it has another parent by now. It runs as a script, so that it needs nothing
but the standard library and starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import IO

CLOSE_TIMEOUT = 5.0
"""Seconds to wait for the end of the guard."""
PARENT_INTERVAL = 1.0
"""Seconds between two looks at who the parent is."""
DEATH_TIMEOUT = 2.0
"""Seconds until killed processes must be gone, before their files are removed."""
REMOVALS = 20
"""How often to try to remove a folder into which a process that is being killed may still write."""
PAUSE = 0.1
"""Seconds between two attempts."""


class Guard:
    """
    Kills process groups and removes folders if this process is killed; safe to share between threads.

    The guard itself is started with the first order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def kill(self, group: int) -> None:
        """Have a process group killed."""
        self._tell(kill=group)

    def spare(self, group: int) -> None:
        """Have a process group left alone, because it has ended."""
        self._tell(spare=group)

    def remove(self, pattern: str) -> None:
        """Have the folders removed whose paths match a pattern of `glob`."""
        self._tell(remove=pattern)

    def close(self) -> None:
        """End the guard, which kills what is left and removes nothing. Idempotent."""
        if self._process is not None:
            self._tell(done=True)
        with self._lock:
            self._closed = True
            if self._process is not None:
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    self._pipe(self._process).close()
                    self._process.wait(CLOSE_TIMEOUT)

    def _tell(self, **order: object) -> None:
        with self._lock:
            if self._closed:
                return
            if self._process is None:
                self._process = _start()
            with contextlib.suppress(OSError):  # it was killed: all works without it, only nobody would clean up
                self._pipe(self._process).write(json.dumps(order).encode() + b"\n")

    @staticmethod
    def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
        assert process.stdin is not None
        return process.stdin


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", __file__, str(os.getpid())],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # what ends this process from a terminal does not end the guard
    )


class Orders:
    """What the guard was told."""

    def __init__(self) -> None:
        self.groups: set[int] = set()
        """Process groups to kill."""
        self.patterns: list[str] = []
        """Patterns of folders to remove."""
        self.is_done = False
        """Whether the owner has ended in order."""

    def take(self, line: bytes) -> None:
        """Follow one line of the pipe."""
        order = json.loads(line)
        if "kill" in order:
            self.groups.add(order["kill"])
        self.groups.discard(order.get("spare"))
        self.patterns += [order["remove"]] if "remove" in order else []
        self.is_done = self.is_done or "done" in order

    def carry_out(self) -> None:
        """Kill what is left; remove the folders if the owner was killed."""
        for group in self.groups:
            _signal(group, signal.SIGKILL)
        deadline = time.monotonic() + DEATH_TIMEOUT
        while any(_signal(group, 0) for group in self.groups) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        for _ in range(0 if self.is_done else REMOVALS):
            found = [path for pattern in self.patterns for path in glob.glob(pattern)]  # noqa: PTH207 -- absolute
            for path in found:
                shutil.rmtree(path, ignore_errors=True)
            if not found:
                break
            time.sleep(PAUSE)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group; whether there is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:  # pragma: no cover -- runs in a process of its own, where tests see what it does
    """Wait for the end of the owner, whose process id is the argument, and clean up after it."""
    owner, orders, pending = int(sys.argv[1]), Orders(), b""
    while True:
        is_readable = bool(select.select([0], [], [], PARENT_INTERVAL)[0])
        data = os.read(0, 1 << 16) if is_readable else b""
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            orders.take(line)
        if (is_readable and not data) or (not is_readable and os.getppid() != owner):
            break
    orders.carry_out()


if __name__ == "__main__":  # pragma: no cover -- as above
    main()
