"""
Python programs, each run in its own process.

Starting Python takes longer than the programs of the examples do. So a worker process starts it once, and is forked for
each program. A program that crashes, hangs or is killed ends only its own process: the worker waits for it and returns
its exit code. The worker runs ``program_worker.py`` as a script.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from st4sd_async.local.examples import program_worker
from st4sd_async.local.examples.program_worker import STDERR, STDOUT


def run_program(script: Path, arguments: Sequence[str], folder: Path, timeout: float) -> int | None:
    """
    Run a program in a new Python, and return its exit code.

    Args:
        script: The program.
        arguments: Its arguments.
        folder: Its working directory, in which `STDOUT` and `STDERR` are created.
        timeout: Seconds after which it is killed.

    Returns:
        The exit code, negative if a signal ended the program. None means that it was killed after the timeout.
    """
    command = [sys.executable, str(script), *arguments]
    with (folder / STDOUT).open("wb") as stdout, (folder / STDERR).open("wb") as stderr:
        try:
            return subprocess.call(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return None


class ProgramRunner:
    """
    Runs programs in forks of workers; safe to share between threads.

    There are as many workers as programs that run at once. After ``close()`` no program is running.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._busy: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def run(self, script: Path, arguments: Sequence[str], folder: Path, timeout: float) -> int | None:
        """Run a program as `run_program` does. The result is None too if the runner is closed meanwhile."""
        if sys.platform == "win32":  # pragma: no cover -- it has no fork
            return run_program(script, arguments, folder, timeout)
        worker = self._acquire()
        if worker is None:
            return None
        order = json.dumps([str(script), list(arguments), str(folder)]).encode() + b"\n"
        exit_code = _ask(worker, order, timeout)
        self._release(worker, is_usable=exit_code is not None)
        return exit_code

    def close(self) -> None:
        """Kill all workers and the programs that run. Idempotent."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for worker in self._busy:
                _kill(worker)  # its thread gets no exit code, and closes its pipes
        for worker in idle:
            _end(worker)

    def _acquire(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._is_closed:
                return None
            while self._idle:
                worker = self._idle.pop()
                if worker.poll() is None:
                    break
                _end(worker)  # something else killed it
            else:
                worker = _start()
            self._busy.add(worker)
        return worker

    def _release(self, worker: subprocess.Popen[bytes], *, is_usable: bool) -> None:
        with self._lock:
            self._busy.discard(worker)
            if is_usable and not self._is_closed:
                self._idle.append(worker)
                return
        _end(worker)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", program_worker.__file__, str(os.getpid())],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # so that it can be killed together with its program
    )


def _ask(worker: subprocess.Popen[bytes], order: bytes, timeout: float) -> int | None:
    """Return the response of a worker; None if there is none in time, or the worker has ended."""
    requests, replies = _pipes(worker)
    try:
        requests.write(order)
        if not select.select([replies], [], [], timeout)[0]:
            return None
        reply = replies.readline()
    except OSError:
        return None
    return int(reply) if reply else None


def _pipes(worker: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    return worker.stdin, worker.stdout


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """Kill a worker and its program."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Kill a worker and its program, and close its pipes."""
    _kill(worker)
    worker.wait()
    for pipe in _pipes(worker):
        pipe.close()
