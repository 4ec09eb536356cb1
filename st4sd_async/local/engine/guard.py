"""
The guard, a process that cleans up after this process if it is killed.

The guard reads commands from a pipe, which the kernel closes when this process ends for any reason. A forked child may
keep the pipe open, so the guard also checks whether its parent has changed. It runs as a script that needs only the
standard library, so that it starts in milliseconds.
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
"""Seconds to wait for the end of the guard when it is closed."""
PARENT_INTERVAL = 1.0
"""Seconds between two checks of the parent."""
KILL_TIMEOUT = 2.0
"""Seconds to wait for the end of killed processes before their files are removed."""
REMOVE_ATTEMPTS = 20
"""Number of attempts to remove a folder, because a process that is being killed may still write to it."""
ATTEMPT_INTERVAL = 0.1
"""Seconds between two attempts."""


class Guard:
    """
    Kills process groups and removes folders if this process is killed; safe to share between threads.

    The guard process is started by the first command.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def add_group(self, group: int) -> None:
        """Add a process group to kill when this process ends or the guard is closed."""
        self._send(add_group=group)

    def remove_group(self, group: int) -> None:
        """Remove a process group that has ended."""
        self._send(remove_group=group)

    def add_folders(self, pattern: str) -> None:
        """Add folders to remove if this process is killed, as a pattern of `glob`."""
        self._send(add_folders=pattern)

    def close(self) -> None:
        """End the guard, which kills the remaining groups and removes no folders. Idempotent."""
        if self._process is not None:
            self._send(close=True)
        with self._lock:
            self._closed = True
            if self._process is not None:
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    self._pipe(self._process).close()
                    self._process.wait(CLOSE_TIMEOUT)

    def _send(self, **order: object) -> None:
        with self._lock:
            if self._closed:
                return
            if self._process is None:
                self._process = _start()
            with contextlib.suppress(OSError):  # the guard was killed: runs continue without it
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
        start_new_session=True,  # a signal from the terminal ends this process, but not the guard
    )


class Cleanup:
    """The process groups and folders that the guard process cleans up."""

    def __init__(self) -> None:
        self.groups: set[int] = set()
        """Process groups to kill."""
        self.patterns: list[str] = []
        """Patterns of folders to remove."""
        self.is_closed: bool = False
        """Whether the owner has closed the guard."""

    def receive(self, line: bytes) -> None:
        """Apply a command."""
        order = json.loads(line)
        if "add_group" in order:
            self.groups.add(order["add_group"])
        self.groups.discard(order.get("remove_group"))
        self.patterns += [order["add_folders"]] if "add_folders" in order else []
        self.is_closed = self.is_closed or "close" in order

    def run(self) -> None:
        """Kill the groups; remove the folders if the owner was killed."""
        for group in self.groups:
            _signal(group, signal.SIGKILL)
        deadline = time.monotonic() + KILL_TIMEOUT
        while any(_signal(group, 0) for group in self.groups) and time.monotonic() < deadline:
            time.sleep(ATTEMPT_INTERVAL)
        for _ in range(0 if self.is_closed else REMOVE_ATTEMPTS):
            found = [path for pattern in self.patterns for path in glob.glob(pattern)]  # noqa: PTH207 -- absolute
            for path in found:
                shutil.rmtree(path, ignore_errors=True)
            if not found:
                break
            time.sleep(ATTEMPT_INTERVAL)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether the group exists."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:  # pragma: no cover -- runs in another process, where tests see its effects
    """Wait for the end of the owner, whose process id is the argument, and clean up."""
    owner, cleanup, pending = int(sys.argv[1]), Cleanup(), b""
    while True:
        is_readable = bool(select.select([0], [], [], PARENT_INTERVAL)[0])
        data = os.read(0, 1 << 16) if is_readable else b""
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            cleanup.receive(line)
        if (is_readable and not data) or (not is_readable and os.getppid() != owner):
            break
    cleanup.run()


if __name__ == "__main__":  # pragma: no cover -- as above
    main()
