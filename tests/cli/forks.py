"""
Processes of the command that begin with its modules imported.

To import them takes most of the time of a command. One process imports them, and each command is a fork of it, with
streams, a terminal, signals, a folder and an environment of its own. What is executed is ``python -m st4sd_async``, to
the exit of the interpreter. Only what happens while modules are imported needs a new interpreter.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

IMPORTED = (
    *(f"st4sd_async.cli.{name}" for name in ("app", "batch", "demo", "experiments", "packages", "report", "serve")),
    "anyio._backends._asyncio",
    "rich.live",
    "st4sd_async._http.engine",
    "st4sd_async._results.buckets",
    "st4sd_async._results.properties",
    "tenacity",
    # For the embedded server.
    "st4sd_async.local.datastore.gateway",
    "st4sd_async.local.engine.saved_runs",
    "st4sd_async.local.http.app",
    "st4sd_async.local.http.listener",
    "st4sd_async.local.simulator.simulator",
    "st4sd_async.local.runtime.service",
    "uvicorn.lifespan.off",
)
"""Modules, with all that they import, that are imported before commands are started."""
SIZE = 65536


class Forked:
    """A process, with the methods of `subprocess.Popen`."""

    def __init__(self, report: TextIO, stdout: TextIO | None, stderr: TextIO | None) -> None:
        self.stdout, self.stderr = stdout, stderr
        self.returncode: int | None = None
        self._report = report
        self.pid = int(report.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        """Return the exit status, None if there is none yet."""
        if self.returncode is None and select.select([self._report], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, negative after a signal."""
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self.returncode = int(self._report.readline())
            self._report.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return the rest of both streams, once it has ended."""
        assert self.stdout
        assert self.stderr
        with ThreadPoolExecutor(2) as readers:
            out, err = readers.submit(self.stdout.read), readers.submit(self.stderr.read)
            try:
                texts = out.result(timeout), err.result(timeout)
            except TimeoutError:
                self.kill()
                raise
        for stream in (self.stdout, self.stderr):
            stream.close()
        self.wait(timeout)
        return texts

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """Starts commands. The process that imports the modules begins with the first command, and ends with `close`."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        """
        Start nothing yet.

        Args:
            environment: What the modules are imported in. A command has an environment of its own.
            folder: The folder with this package of tests.
        """
        self._environment, self._folder = environment, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._control, self._theirs = socket.socketpair()

    def _import(self) -> None:
        with self._theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._theirs.fileno())],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[self._theirs.fileno()],
                start_new_session=True,  # Ctrl-C ends the tests, and then this process
            )

    def close(self) -> None:
        """End it. Commands that still run are not ended."""
        self._control.close()
        self._theirs.close()
        if self._process is not None:
            self._process.wait(20)

    def start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], *, terminal: int | None = None
    ) -> Forked:
        """
        Start a command.

        Args:
            arguments: Those of the command.
            folder: Where it runs.
            environment: All of its environment.
            terminal: The file descriptor of the terminal that it controls. None means pipes.
        """
        odd = [name for name in environment if name.startswith("PYTHON") and name != "PYTHONPATH"]
        assert not odd, f"only a new interpreter reads {odd}"
        if self._process is None:
            self._import()
        ours = []
        with ExitStack() as theirs:
            streams = [] if terminal is None else [terminal] * 3
            if terminal is None:
                nothing = theirs.enter_context(Path(os.devnull).open("rb"))
                streams.append(nothing.fileno())
            while len(streams) < 4:
                readable, writable = os.pipe()
                theirs.callback(os.close, writable)
                streams.append(writable)
                ours.append(os.fdopen(readable, encoding="utf-8"))
            request = {
                "arguments": arguments,
                "folder": str(folder),
                "environment": environment,
                "has-terminal": terminal is not None,
            }
            line = json.dumps(request).encode() + b"\n"
            sent = socket.send_fds(self._control, [line], streams)
            self._control.sendall(line[sent:])
        report = ours.pop()
        return Forked(report, *(ours or (None, None)))


def main(control: socket.socket) -> None:
    """Start the commands that are asked for; in each new process, return once it is set up."""
    for module in IMPORTED:
        import_module(module)
    gc.freeze()
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(SIZE)
            for pid in [pid for pid in reports if _has_ended(pid, reports[pid])]:
                os.close(reports.pop(pid))
        if control in ready:
            request, descriptors, _, _ = socket.recv_fds(control, SIZE, 4)
            if not request:
                raise SystemExit
            while not request.endswith(b"\n"):
                request += control.recv(SIZE)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for one in (control, woken, wake):
                    one.detach()
                _become(json.loads(request), descriptors[:3])
                return
            *streams, report = descriptors
            for descriptor in streams:
                os.close(descriptor)
            reports[pid] = report
            os.write(report, f"{pid}\n".encode())


def _has_ended(pid: int, report: int) -> bool:
    """Report the exit status of a process that has ended."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return bool(ended)


def _become(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Set the process up as if it had been started anew."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["has-terminal"]:
        os.setsid()  # with a session of its own the terminal is its controlling one, whose Ctrl-C interrupts it
        fcntl.ioctl(descriptors[0], termios.TIOCSCTTY, 0)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    os.closerange(3, 1024)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdin = _stream(0, "r", "strict")
    sys.stdout = _stream(1, "w", "strict")
    sys.stderr = _stream(2, "w", "backslashreplace")
    sys.stderr.reconfigure(line_buffering=True)
    sys.argv = ["", *request["arguments"]]
    sys.path[0] = request["folder"]


def _stream(descriptor: int, mode: str, errors: str) -> Any:
    """Return a standard stream as a new interpreter opens it."""
    return open(descriptor, mode, encoding="utf-8", errors=errors, closefd=False)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("st4sd_async", run_name="__main__", alter_sys=True)
