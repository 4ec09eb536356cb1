"""
Processes that run a script without importing anything, because importing what a client needs takes a second each time.

``python -m tests.faults.forks MODULE DESCRIPTOR`` imports a script and what it uses later, and forks a child for each
request that arrives on a socket: a list of arguments in JSON, with the descriptors of stdout and stderr. It answers
with the id of the child, and with its exit status at its end, negative for a signal.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn, Self

import st4sd_async

LAZY = (
    "anyio._backends._asyncio",
    "st4sd_async._batch.batch",
    "st4sd_async._http.engine",
    "st4sd_async._http.tls",
    "st4sd_async._payload.check",
    "st4sd_async._payload.explain",
    "st4sd_async._results.downloads",
    "st4sd_async._results.outputs",
    "st4sd_async._results.properties",
    "st4sd_async._results.staging",
    "st4sd_async.models.datastore",
    "st4sd_async.models.failures",
)
"""Modules that are imported on their first use."""
MAX_REQUEST_BYTES = 1 << 16
ROOT = Path(st4sd_async.__file__).parents[1]


def environment() -> dict[str, str]:
    """Return the environment of a process that is started before a test, without proxies."""
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**clean, "PYTHONPATH": str(ROOT)}


class Child:
    """A process that runs the script. Its methods are those of `subprocess.Popen`."""

    def __init__(self, replies: socket.socket, pid: int, stdout: IO[str], stderr: IO[str]) -> None:
        self._replies, self._pid, self._stdout, self._stderr = replies, pid, stdout, stderr
        self.returncode: int | None = None

    def wait_until_ready(self) -> None:
        """Wait until the script prints ``ready``."""
        assert self._stdout.readline() == "ready\n", self.communicate()[1]

    def poll(self, timeout: float | None = 0.0) -> int | None:
        """Return the exit status, negative for a signal. None means that the process still runs."""
        if self.returncode is None and select.select([self._replies], [], [], timeout)[0]:
            self.returncode = int(self._replies.recv(100))
        return self.returncode

    def kill(self) -> None:
        """Kill the process at once, if it still runs; its id is not used again before the next one begins."""
        if self.returncode is None:
            os.kill(self._pid, signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what the process has written to stdout, up to 64 KiB, and to stderr."""
        if self.poll(timeout) is None:
            self.kill()
            self.poll(None)
            raise TimeoutError
        with self._stdout, self._stderr:
            self._stderr.seek(0)
            return self._stdout.read(), self._stderr.read()


class Forks:
    """Runs a script in one process after another. Used as ``with``."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, self._module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env=environment(),
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
        self._socket.close()
        self._process.wait(30)

    def spawn(self, *words: str, errors: Path | None = None) -> Child:
        """
        Start the script; the one before must have ended.

        Args:
            words: Its arguments.
            errors: File to which its stderr is appended; None means a temporary file.
        """
        with ExitStack() as stack:
            output, written = os.pipe()
            stack.callback(os.close, written)
            stderr = tempfile.TemporaryFile("w+") if errors is None else errors.open("a+")  # noqa: SIM115 -- the child's
            socket.send_fds(self._socket, [json.dumps(words).encode()], [written, stderr.fileno()])
            pid = int(self._socket.recv(100))
        self._child = Child(self._socket, pid, os.fdopen(output), stderr)
        return self._child


def import_all() -> None:
    """Import what a client uses, so that no child imports it anew."""
    for name in LAZY:
        import_module(name)


def run(module: str, words: list[str]) -> NoReturn:
    """Run a script as if it were started with arguments."""
    sys.argv = [module, *words]
    del sys.modules[module]  # else a warning says that it was imported before
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main(module: str, descriptor: str) -> None:
    """Serve until the socket is closed."""
    import_module(module)
    import_all()
    with socket.socket(fileno=int(descriptor)) as requests:
        while True:
            request, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 2)
            if not request:
                return
            pid = os.fork()
            if not pid:
                requests.close()
                for standard, given in enumerate(descriptors, 1):
                    os.dup2(given, standard)
                    os.close(given)
                run(module, json.loads(request))
            for given in descriptors:
                os.close(given)
            requests.send(str(pid).encode())
            end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert end is not None
            requests.send(str(end.si_status if end.si_code == os.CLD_EXITED else -end.si_status).encode())
            select.select([requests], [], [])  # until then it may be killed by its id, which is not used again
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
