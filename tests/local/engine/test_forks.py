"""Programs that are forked from a process with their modules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from st4sd_async.local.engine.forks import IS_AVAILABLE, ForkedProcess, ForkServer
from tests.local.engine.test_guard import eventually, is_alive

pytestmark = [pytest.mark.skipif(not IS_AVAILABLE, reason="only Linux forks programs"), pytest.mark.slow]
TIMEOUT = 20.0
ENDLESS = "import time; print('begun', flush=True); time.sleep(100)"
OWNER = """
import sys, time
from st4sd_async.local.engine.forks import ForkServer

server = ForkServer(sys.executable)
program = server.start([sys.argv[1]], modules=["json"], folder=None, environment=None)
print(server._process.pid, program.pid, flush=True)
time.sleep(100)
"""
Start = Callable[..., ForkedProcess]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """Return a fork server that finds modules in the temporary folder."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ForkServer(sys.executable)
    yield server
    server.close()


@pytest.fixture
def start(server: ForkServer, tmp_path: Path) -> Start:
    """Return a function that starts a program, which waits."""

    def start(
        text: str, *arguments: str, modules: str = "json", environment: dict[str, str] | None = None
    ) -> ForkedProcess:
        script = tmp_path / "program.py"
        script.write_text(text)
        return server.start([str(script), *arguments], modules=[modules], folder=tmp_path, environment=environment)

    return start


def finish(process: ForkedProcess) -> tuple[int, str, str]:
    """Let a program run to its end; return its exit code and what it printed."""
    with process:
        process.begin()
        stdout, stderr = process.communicate(TIMEOUT)
    return process.wait(), stdout.decode(), stderr.decode()


def test_a_module_is_imported_once(start: Start, tmp_path: Path) -> None:
    """For all programs, each of which has a process group, arguments, a folder and an environment of its own."""
    (tmp_path / "slow.py").write_text("open('/dev/null'); import os; loader = os.getpid()")
    program = "import os, sys, slow; print(slow.loader, os.getpgrp(), sys.argv[1:], os.getcwd(), dict(os.environ))"

    processes = [start(program, name, modules="slow", environment={"A": name}) for name in "ab"]
    printed = [finish(process)[1].split(maxsplit=2) for process in processes]

    assert printed[0][0] == printed[1][0]
    assert [int(group) for _, group, _ in printed] == [process.pid for process in processes]
    assert printed[0][2] == f"['a'] {tmp_path} {{'A': 'a'}}\n"
    assert printed[1][2] == f"['b'] {tmp_path} {{'A': 'b'}}\n"


@pytest.mark.parametrize(
    ("program", "code", "stderr"),
    [
        ("print('x')", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("import sys; sys.exit('no way')", 1, "no way\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()", 0, ""),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        ("import missing", 1, "ModuleNotFoundError: No module named 'missing'\n"),
    ],
    ids=["end", "code", "text", "error", "thread", "signal", "module"],
)
def test_a_program_ends_as_with_python(start: Start, program: str, code: int, stderr: str) -> None:
    """Its exit code and output are the same, also if a module cannot be imported before."""
    found = finish(start(program, modules="missing"))

    assert found[0] == code
    assert found[1] == {"print('x')": "x\n"}.get(program, "late\n" if "late" in program else "")
    assert found[2].endswith(stderr)
    assert bool(found[2]) is bool(stderr)


def test_a_program_does_nothing_before_it_begins(start: Start, tmp_path: Path) -> None:
    """Not even after it was killed."""
    process = start("open('began', 'w')")

    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    os.killpg(process.pid, signal.SIGKILL)

    assert finish(process)[0] == -signal.SIGKILL
    assert not (tmp_path / "began").exists()


def test_a_program_can_be_terminated(start: Start) -> None:
    """A second time is no error."""
    process = start(ENDLESS)
    process.begin()

    process.terminate()

    assert process.wait(TIMEOUT) == -signal.SIGTERM
    process.terminate()
    with process:
        assert process.communicate()[1] == b""


def test_a_killed_server_is_started_again(server: ForkServer, start: Start) -> None:
    """What it has started goes on."""
    program = "import sys; print(sys.argv[1])"
    first = start(program, "first")
    assert server._process is not None
    server._process.kill()

    second = start(program, "second")

    assert finish(second)[1] == "second\n"
    assert finish(first)[1] == "first\n"


def test_an_idle_server_ends(tmp_path: Path) -> None:
    """It is started again for the next program."""
    server, script = ForkServer(sys.executable, idle_timeout=0.05), tmp_path / "program.py"
    script.write_text("")
    for _ in range(2):
        process = server.start([str(script)], modules=["json"], folder=None, environment=None)
        idle = server._process
        assert idle is not None
        assert idle.wait(TIMEOUT) == 0
        assert finish(process)[0] == 0


def test_a_server_ends_with_its_owner(tmp_path: Path) -> None:
    """Even if the owner is killed; a program that has not begun ends too."""
    (tmp_path / "program.py").write_text(ENDLESS)
    command = [sys.executable, "-c", OWNER, str(tmp_path / "program.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        groups = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(groups) == 2
        assert all(map(is_alive, groups))

        owner.kill()

    assert eventually(lambda: not any(map(is_alive, groups)))


def test_a_missing_interpreter_is_an_error(tmp_path: Path) -> None:
    """It is that of the process that cannot be started."""
    server = ForkServer(str(tmp_path / "python"))
    with pytest.raises(FileNotFoundError, match="python"):
        server.start(["x.py"], modules=["json"], folder=None, environment=None)
    server.close()


def test_an_interpreter_that_fails_is_an_error() -> None:
    """After two attempts."""
    server = ForkServer("/bin/false")
    with pytest.raises(OSError, match=r"'x.py' was not started"):
        server.start(["x.py"], modules=["json"], folder=None, environment=None)
    server.close()
