"""Programs, each in a process of its own, forked from a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from st4sd_async.local.examples.examples import RunProgram
from st4sd_async.local.examples.programs import ProgramRunner, run_program
from tests.tries import sample

pytestmark = pytest.mark.slow

HANGS = 60.0
"""Seconds after which something hangs."""
IDS = "import os; print(os.getpid(), os.getppid())"


@pytest.fixture
def runner() -> Iterator[ProgramRunner]:
    runner = ProgramRunner()
    yield runner
    runner.close()


@pytest.fixture(params=["new process", "fork"])
def run(request: pytest.FixtureRequest, runner: ProgramRunner) -> RunProgram:
    """Return both ways to run a program."""
    return run_program if request.param == "new process" else runner.run


def execute(run: RunProgram, folder: Path, source: str, *arguments: str, timeout: float = HANGS) -> int | None:
    """Run a program in a new folder."""
    folder.mkdir()
    (folder / "program.py").write_text(source)
    return run(folder / "program.py", arguments, folder, timeout)


def output(folder: Path) -> str:
    return (folder / "out.stdout").read_text()


def ids(runner: ProgramRunner, folder: Path) -> tuple[int, int]:
    """Return the ids of the process of a program and of its worker."""
    assert execute(runner.run, folder, IDS) == 0
    process, worker = map(int, output(folder).split())
    return process, worker


ENDS = [
    ("pass", 0, ""),
    ("raise SystemExit(3)", 3, ""),
    ("raise SystemExit('no molecules')", 1, "no molecules\n"),
    ("raise SystemExit", 0, ""),
    ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    ("import os; os.kill(os.getpid(), 9)", -9, ""),
    ("import os; os._exit(7)", 7, ""),
    ("1 +", 1, "SyntaxError: invalid syntax\n"),
]


@pytest.mark.parametrize(("source", "exit_code", "stderr"), sample(ENDS, 4))
def test_a_program_ends_as_in_a_new_python(
    run: RunProgram, tmp_path: Path, source: str, exit_code: int, stderr: str
) -> None:
    """The exit code and the end of the standard error are the same."""
    assert execute(run, tmp_path / "a", source) == exit_code
    assert (tmp_path / "a" / "out.stderr").read_text().endswith(stderr)


def test_a_program_has_its_folder_arguments_output_and_no_input(run: RunProgram, tmp_path: Path) -> None:
    """It is ``__main__``."""
    source = "import os, sys\nprint(os.getcwd(), sys.argv[1:], repr(sys.stdin.read()), __name__, __file__)\n"

    assert execute(run, tmp_path / "a", source, "x", "y z") == 0

    folder = tmp_path / "a"
    assert output(folder) == f"{folder} ['x', 'y z'] '' __main__ {folder / 'program.py'}\n"


def test_programs_share_a_worker_but_no_process(runner: ProgramRunner, tmp_path: Path) -> None:
    """One Python starts for all programs that run one after another."""
    found = [ids(runner, tmp_path / str(number)) for number in range(4)]

    assert len({worker for _, worker in found}) == 1
    assert len({process for process, _ in found}) == 4


def test_a_program_leaves_nothing_to_the_next_one(runner: ProgramRunner, tmp_path: Path) -> None:
    """Neither modules nor the environment, nor its folder."""
    assert (
        execute(runner.run, tmp_path / "a", "import os, json; os.environ['LEFT'] = json.left = 'x'; os.umask(0)") == 0
    )
    source = "import os, json; print(os.environ.get('LEFT'), hasattr(json, 'left'), os.umask(0) == 0)"
    assert execute(runner.run, tmp_path / "b", source) == 0

    assert output(tmp_path / "b") == "None False False\n"


def test_a_program_cannot_reach_the_pipes_of_its_worker(runner: ProgramRunner, tmp_path: Path) -> None:
    """It has no open file but its input and output, so it cannot forge exit codes or read the next request."""
    source = """
import os
for number in range(3, 256):
    try:
        os.fstat(number)
    except OSError:
        continue
    print(number)
"""
    assert execute(runner.run, tmp_path / "a", source) == 0

    assert output(tmp_path / "a") == ""


def test_a_killed_program_ends_no_other(runner: ProgramRunner, tmp_path: Path) -> None:
    """Neither one that runs meanwhile nor the next one."""
    codes: list[int | None] = []
    waits = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)"
    thread = threading.Thread(target=lambda: codes.append(execute(runner.run, tmp_path / "waits", waits)))
    thread.start()

    assert execute(runner.run, tmp_path / "killed", "import os; os.kill(os.getpid(), 9)") == -9
    assert execute(runner.run, tmp_path / "hangs", "import time; time.sleep(1000)", timeout=0.01) is None
    assert execute(runner.run, tmp_path / "next", "pass") == 0
    assert codes == []
    (tmp_path / "waits" / "go").touch()
    thread.join()
    assert codes == [0]


def test_a_killed_worker_is_replaced(runner: ProgramRunner, tmp_path: Path) -> None:
    """The next program runs in a new one."""
    _, worker = ids(runner, tmp_path / "a")
    os.kill(worker, signal.SIGKILL)
    _wait_for_end(worker)

    assert ids(runner, tmp_path / "b")[1] != worker


def test_closing_kills_a_program_that_runs(runner: ProgramRunner, tmp_path: Path) -> None:
    """It has no exit code, and nothing runs afterwards."""
    codes: list[int | None] = []
    source = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
    thread = threading.Thread(target=lambda: codes.append(execute(runner.run, tmp_path / "a", source)))
    thread.start()
    deadline = time.monotonic() + HANGS
    while not (tmp_path / "a" / "out.stdout").exists() or not output(tmp_path / "a").endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    runner.close()
    thread.join()

    assert codes == [None]
    _wait_for_end(int(output(tmp_path / "a")))
    assert execute(runner.run, tmp_path / "b", "pass") is None


def test_a_worker_ends_with_its_owner(tmp_path: Path) -> None:
    """Even if the owner is killed."""
    source = f"""
import os
from pathlib import Path
from st4sd_async.local.examples.programs import ProgramRunner
folder = Path({str(tmp_path)!r})
(folder / "program.py").write_text({IDS!r})
ProgramRunner().run(folder / "program.py", [], folder, {HANGS})
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == -9

    _wait_for_end(int(output(tmp_path).split()[1]))


def _wait_for_end(process: int) -> None:
    """Return when a process has ended, or is a zombie."""
    deadline = time.monotonic() + HANGS
    while _is_running(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # macOS has no /proc: it is running
