"""
Python programs whose modules are already imported, because they are forks of ``fork_server.py``.

This needs Linux. Elsewhere, libraries of the system may fail in a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Self

IS_AVAILABLE = sys.platform == "linux"
"""Whether programs can be forked."""
ATTEMPTS = 2
"""The fork server may end, because it was idle, while it is sent a request."""
IDLE_TIMEOUT = 60.0
"""Seconds without a request after which the fork server ends, because it keeps 150 MB of memory."""
START_TIMEOUT = 60.0
"""Seconds until a program must have started. The imports before the first one usually take 3 s."""
MAX_REPLY = 64
"""Maximum number of bytes of a reply, which is a number."""


class ForkedProcess:
    """A program in its own process group. It does nothing before `begin`; other methods are as in `Popen`."""

    def __init__(self, arguments: Sequence[str], connection: socket.socket, pid: int, output: Sequence[IO[bytes]]):
        self._arguments = arguments
        self._connection = connection
        self.pid: int = pid
        self._output = output
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Let the program begin."""
        with contextlib.suppress(OSError):  # it was killed
            self._connection.sendall(b"\n")

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for the end of the program, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: The program takes longer.
        """
        with self._lock:
            if self.returncode is None:
                self._connection.settimeout(timeout)
                try:
                    reply = self._connection.recv(MAX_REPLY)
                except TimeoutError as error:
                    raise subprocess.TimeoutExpired([*self._arguments], timeout or 0) from error
                except ConnectionError:
                    reply = b""
                # Without a reply, the process that waited for the program was killed.
                self.returncode = int(reply) if reply else -signal.SIGKILL
                self._connection.close()
            return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Wait for the end of the program, and return its standard output and error."""
        self.wait(timeout)
        for file in self._output:
            file.seek(0)
        stdout, stderr = (file.read() for file in self._output)
        return stdout, stderr

    def terminate(self) -> None:
        """Send SIGTERM to the program, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._output:
            file.close()
        self.wait()


class ForkServer:
    """Starts the fork server when it is needed, and sends it requests; safe to share between threads."""

    def __init__(self, python: str, idle_timeout: float = IDLE_TIMEOUT) -> None:
        """
        Args:
            python: The Python interpreter to run it with.
            idle_timeout: Seconds without a request after which it ends.
        """
        self._python = python
        self._idle_timeout = idle_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def start(
        self,
        arguments: Sequence[str],
        *,
        modules: Sequence[str],
        folder: Path | None,
        environment: Mapping[str, str] | None,
        log: IO[bytes] | None = None,
    ) -> ForkedProcess:
        """
        Start a program, which waits for `ForkedProcess.begin`.

        Args:
            arguments: The script and its arguments.
            modules: What to import before, unless it was imported. This may take seconds.
            folder: The working directory. None means that of this process.
            environment: The environment. Variables that Python itself reads when it starts have no effect on the
                script. None means that of this process.
            log: The file for standard output and error. None means that `ForkedProcess.communicate` returns them.

        Raises:
            OSError: The fork server cannot be started, or was killed.
        """
        program = {
            "arguments": [*arguments],
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
        }
        for _ in range(ATTEMPTS):
            with contextlib.ExitStack() as stack:
                output = [stack.enter_context(tempfile.TemporaryFile()) for _ in "oe"] if log is None else [log, log]
                ours, theirs = map(stack.enter_context, socket.socketpair())
                server = self._send(" ".join(modules).encode(), [theirs.fileno(), *(file.fileno() for file in output)])
                theirs.close()
                ours.settimeout(START_TIMEOUT)
                with contextlib.suppress(OSError):
                    ours.sendall(json.dumps(program).encode() + b"\n")
                    if reply := ours.recv(MAX_REPLY):
                        stack.pop_all()
                        return ForkedProcess(arguments, ours, int(reply), output if log is None else [])
                server.kill()  # it may be ending, or hang in an import
                server.wait()
        raise OSError(f"{arguments[0]!r} was not started: its fork server ended")

    def _send(self, request: bytes, files: Sequence[int]) -> subprocess.Popen[bytes]:
        """Send a request to the fork server, and return its process."""
        with self._lock:
            if self._requests is None or self._process is None or self._process.poll() is not None:
                self._process, self._requests = self._start()
            with contextlib.suppress(OSError):  # it has ended meanwhile, so the caller gets no reply
                socket.send_fds(self._requests, [request], files)
            return self._process

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._requests is not None:
            self._requests.close()
        program = Path(__file__).with_name("fork_server.py").read_text(encoding="utf-8")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as stack:
            stack.enter_context(ours)
            process = subprocess.Popen(
                [self._python, "-c", program, str(os.getpid()), str(self._idle_timeout)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # a signal from the terminal ends this process, which ends the server
            )
            stack.pop_all()
        return process, ours

    def close(self) -> None:
        """End the fork server; programs continue. The next request starts it again. Idempotent."""
        with self._lock:
            if self._process is not None and self._requests is not None:
                self._requests.close()
                self._process.kill()
                self._process.wait()


@cache
def fork_server(python: str) -> ForkServer:
    """Return the fork server of an interpreter, which all engines of this process share."""
    return ForkServer(python)
