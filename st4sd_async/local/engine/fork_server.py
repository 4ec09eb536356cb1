"""
A script that imports modules once, and is forked for each program that needs them.

It runs with the interpreter that ``elaunch.py`` is installed for, whose libraries take 2.5 s to import, and needs only
the standard library. `forks` starts it and sends the requests.

Its standard input is a socket. A request has the names of the modules, and 3 files: a socket for this program, and its
standard output and error. A line of JSON on the socket has the ``arguments``, ``folder`` and ``environment`` of the
program. The replies are its process id and, after its end, its exit code, each on a line. The program begins when it is
sent a line, so that it can be watched before it does anything. It does not begin if the socket is closed before.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import socket
import sys
import time
import warnings

PARENT_INTERVAL = 1.0
"""Seconds between two checks of the parent."""
MAX_REQUEST = 1 << 12
"""Maximum number of bytes of a request."""


def main() -> None:
    """Answer requests until the owner ends or sends none for a while: the arguments are its process id and seconds."""
    owner, idle_timeout, idle_since = int(sys.argv[1]), float(sys.argv[2]), time.monotonic()
    sys.path = [folder for folder in sys.path if folder]  # no working directory may hide one of the libraries
    requests = socket.socket(fileno=os.dup(0))
    _replace(0, os.open(os.devnull, os.O_RDONLY))
    while os.getppid() == owner and time.monotonic() - idle_since < idle_timeout:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not select.select([requests], [], [], min(PARENT_INTERVAL, idle_timeout))[0]:
            continue
        modules, files, _, _ = socket.recv_fds(requests, MAX_REQUEST, 3)
        if not modules:
            return
        for name in modules.decode().split():
            with contextlib.suppress(Exception):  # the program fails with the reason
                importlib.import_module(name)
        sys.stdout.flush()
        gc.freeze()  # so that a collection in a fork does not copy the memory
        if _fork() == 0:
            requests.close()
            _run(*files)
            return
        for file in files:
            os.close(file)
        idle_since = time.monotonic()


def _run(file: int, stdout: int, stderr: int) -> None:
    """Run a program in another fork, and report its end. Return only in that fork, after the program."""
    connection = socket.socket(fileno=file)
    program = _fork()
    if program:
        os.close(stdout)
        os.close(stderr)
        _, status = os.waitpid(program, 0)
        with contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.setsid()
    with connection, connection.makefile("rb") as lines:
        request = json.loads(lines.readline())
        connection.sendall(b"%d\n" % os.getpid())
        if not lines.readline():
            os._exit(1)
    _replace(1, stdout)
    _replace(2, stderr)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _replace(number: int, file: int) -> None:
    os.dup2(file, number)
    os.close(file)


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numerical libraries have idle threads
        return os.fork()


if __name__ == "__main__":
    main()
