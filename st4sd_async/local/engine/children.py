"""
Short-lived helper processes that can all be ended at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from st4sd_async.local.engine.guard import Guard


class Run(Protocol):
    """Runs a command to its end and captures what it writes."""

    def __call__(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """The finished process; `subprocess.TimeoutExpired` after `timeout` seconds."""


class Children:
    """
    Runs helper processes, each in a process group of its own; safe to share between threads.

    ``Children().run`` is a `Run`. After ``close()`` none is left and none can be started.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        """
        Nothing runs yet.

        Args:
            guard: What kills them if this process is killed; None: nobody does.
        """
        self._guard = guard
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._closed = False
        self._lock = threading.Lock()

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """
        The finished process with its output.

        Raises:
            OSError: It cannot be started, also because of `close`.
            subprocess.TimeoutExpired: It took too long and was killed, with all that it had started.
        """
        with self._lock:
            if self._closed:
                raise InterruptedError(f"closed, {command[0]!r} is not started any more")
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._alive.add(process)
        if self._guard is not None:
            self._guard.kill(process.pid)
        with process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            finally:
                _kill(process)
                if self._guard is not None:
                    self._guard.spare(process.pid)
                with self._lock:
                    self._alive.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def close(self) -> None:
        """Kill all that runs; their callers see processes that ended badly. Idempotent."""
        with self._lock:
            self._closed = True
            for process in self._alive:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process's group, itself included."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
