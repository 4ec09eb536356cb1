"""
Processes of a Python module that begin with what it imports.

To import a client or the command takes a second. One process imports what they need, and each process is a fork of it,
with streams, a terminal, signals, a folder and an environment of its own. What is executed is ``python -m MODULE``, to
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
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import st4sd_async

SIZE = 65536
ROOT = Path(st4sd_async.__file__).parents[1]
"""The folder of this package and its tests."""


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
        """Return the rest of its streams, once it has ended; an empty text for one without a pipe."""
        streams = self.stdout or StringIO(), self.stderr or StringIO()
        with ThreadPoolExecutor(2) as readers:
            out, err = (readers.submit(stream.read) for stream in streams)
            try:
                texts = out.result(timeout), err.result(timeout)
            except TimeoutError:
                self.kill()
                raise
        for stream in streams:
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
    """Starts processes of a module. The process that they are forks of begins with the first, and ends with `close`."""

    def __init__(self, module: str, imported: Sequence[str], environment: Mapping[str, str]) -> None:
        """
        Start nothing yet.

        Args:
            module: What is executed, such as ``st4sd_async``.
            imported: What is imported before, with all that it imports. May contain the module itself.
            environment: The environment for the imports. Each process has an environment of its own.
        """
        self._module, self._imported, self._environment = module, imported, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._control, self._theirs = socket.socketpair()

    def _import(self) -> None:
        with self._theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._theirs.fileno()), self._module, *self._imported],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[self._theirs.fileno()],
                start_new_session=True,  # Ctrl-C ends the tests, and then this process
            )

    def close(self) -> None:
        """End it. Processes that still run are not ended."""
        self._control.close()
        self._theirs.close()
        if self._process is not None:
            self._process.wait(20)

    def start(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        terminal: int | None = None,
        errors: int | None = None,
    ) -> Forked:
        """
        Start a process.

        Args:
            arguments: The arguments of the module.
            folder: Where it runs.
            environment: All of its environment.
            terminal: The file descriptor of the terminal that it controls. None means pipes.
            errors: The file descriptor for its standard error. None means a pipe.
        """
        odd = [name for name in environment if name.startswith("PYTHON") and name != "PYTHONPATH"]
        assert not odd, f"only a new interpreter reads {odd}"
        if self._process is None:
            self._import()
        with ExitStack() as theirs:

            def pipe() -> tuple[TextIO, int]:
                readable, writable = os.pipe()
                theirs.callback(os.close, writable)
                return os.fdopen(readable, encoding="utf-8"), writable

            nothing = theirs.enter_context(Path(os.devnull).open("rb"))
            streams = [nothing.fileno() if terminal is None else terminal]
            stdout, descriptor = pipe() if terminal is None else (None, terminal)
            streams.append(descriptor)
            stderr, descriptor = pipe() if terminal is None and errors is None else (None, errors or streams[1])
            report, reported = pipe()
            streams += [descriptor, reported]
            request = {
                "arguments": arguments,
                "folder": str(folder),
                "environment": environment,
                "has-terminal": terminal is not None,
            }
            line = json.dumps(request).encode() + b"\n"
            sent = socket.send_fds(self._control, [line], streams)
            self._control.sendall(line[sent:])
        return Forked(report, stdout, stderr)


def main(control: socket.socket, imported: Sequence[str]) -> None:
    """Start the processes that are asked for; in each of them, return once it is set up."""
    for module in imported:
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
    _, descriptor, module, *imported = sys.argv
    main(socket.socket(fileno=int(descriptor)), imported)
    if module in imported:
        del sys.modules[module]  # else a warning says that it was imported before
    runpy.run_module(module, run_name="__main__", alter_sys=True)
