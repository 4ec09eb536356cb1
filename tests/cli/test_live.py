"""The commands in a terminal, in pipes that break, and interrupted: in processes of their own."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from st4sd_async import Client, Step
from st4sd_async.cli._bar import COLUMNS, Bar
from st4sd_async.local import Delay, LocalServer

from .conftest import MOLECULES, Command, Shell, environment_of
from .terminal import CONTROL, Terminal
from .test_watch import WAITING, start

FOR_EVER = 1e6
"""How many times longer than usual a run takes that does not end before it is told to."""


@pytest.fixture
def theirs(command: Command, deployment: LocalServer) -> Command:
    """The command in a process of its own, with the settings to connect with."""
    command.settings.update(environment_of(deployment))
    (command.folder / "molecules.csv").write_text(MOLECULES)
    return command


def begun(command: Command, *arguments: str) -> subprocess.Popen[str]:
    """The command, going on between pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "st4sd_async", *arguments],
        cwd=command.folder,
        env=command.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def many(server: LocalServer, count: int) -> list[str]:
    """Runs that were just started."""
    async with Client(server.url, api_key=server.api_key) as client:
        payload = {"inputs": [{"filename": "molecules.csv", "content": MOLECULES}]}
        return [(await client.start("demo", payload)).id for _ in range(count)]


def test_a_terminal_shows_many_runs_on_one_board(theirs: Command, shell: Shell, deadline: float) -> None:
    """The board stays in its place, ends with how all ended, and is not repeated on standard output."""
    runs = [*asyncio.run(many(shell.server, 60)), shell.started("fail")]

    terminal = Terminal(theirs, "watch", *runs, "--interval", "0.05")
    status = terminal.end(deadline)

    plain = CONTROL.sub("", terminal.shown)
    last = plain[plain.rindex("61 runs, 0:00:0") :]
    assert status == 1
    assert "60 succeeded, 1 failed" in last
    assert f"{runs[-1]}  failed" in last
    assert "why" in last
    assert "... and 2" in last
    assert "rest-uid" not in plain
    assert len(last.splitlines()) < 40
    assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h") == 1


def test_ctrl_c_leaves_runs_alone_and_says_how_to_come_back(theirs: Command, shell: Shell, deadline: float) -> None:
    """The line to type is there, the exit status is 130, and the run goes on."""
    run = start(shell, WAITING)
    terminal = Terminal(theirs, "watch", run, "--interval", "0.05")
    terminal.read_until("unscheduled", deadline)

    terminal.press(b"\x03")
    status = terminal.end(deadline)

    assert status == 130
    told = CONTROL.sub("", terminal.shown).replace("\r\n", "")
    again = f"st4sd-async watch {run} --interval 0.05"
    assert f"st4sd-async: interrupted; the runs go on; come back with: {again}" in told
    assert "Traceback" not in terminal.shown
    assert "\x1b[?25h" in terminal.shown
    assert shell("status", run).status == 0


def test_a_batch_that_was_interrupted_goes_on(theirs: Command, shell: Shell) -> None:
    """SIGINT ends it with the line to type and 130; the same command finishes it, and nothing is started twice."""
    (theirs.folder / "x.csv").write_text("key,input:molecules.csv\na,molecules.csv\nb,molecules.csv\n")
    before = len(shell("list", "runs").table)
    shell.server.outcome("demo", "success", times=1, stretch=FOR_EVER)
    line = ("batch", "run", "x.csv", "demo")

    with begun(theirs, *line) as process:
        assert process.stderr
        while " succeeded " not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=15)
    journal = theirs.folder / "x.csv.journal"
    shell.server.advance(10 * FOR_EVER)
    again = shell("batch", "run", theirs.folder / "x.csv", "demo")

    assert (process.returncode, out) == (130, "")
    assert said.endswith("st4sd-async: interrupted; go on with: st4sd-async batch run x.csv demo\n")
    assert "Traceback" not in said
    assert journal.exists()
    assert again.status == 0, again.said
    assert [row["state"] for row in again.table] == ["succeeded", "succeeded"]
    assert len(shell("list", "runs").table) == before + 2


def test_a_start_that_was_interrupted_may_have_happened(theirs: Command, shell: Shell) -> None:
    """Whoever interrupts a start on its way is told that it may be there, and how to look."""
    shell.server.faults.add("POST /experiments/*/start", Delay(1.0))
    with begun(theirs, "start", "demo", "-i", "molecules.csv") as process:
        while ("POST", "/rs/experiments/demo/start") not in shell.server.requests[-1:]:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=15)

    assert (process.returncode, out) == (130, "")
    assert said == "st4sd-async: interrupted; the run may have been started: look with st4sd-async list runs\n"


@pytest.mark.parametrize("arguments", [("list", "runs"), ("outputs", "RUN", "Energies")], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(theirs: Command, shell: Shell, arguments: tuple[str, ...]) -> None:
    """As in ``| head -1``: no word, and the exit status of a command whose reader left."""
    run = shell.started()
    with begun(theirs, *(run if one == "RUN" else one for one in arguments)) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        said = process.stderr.read()

    assert said == ""
    assert process.returncode == 141


def test_a_terminal_is_asked_before_runs_are_deleted(theirs: Command, shell: Shell, deadline: float) -> None:
    """No is an answer, and nothing is deleted then."""
    run = shell.started()
    terminal = Terminal(theirs, "delete", run)
    terminal.read_until(f"stop and delete {run}?", deadline)

    terminal.press(b"n\r")
    status = terminal.end(deadline)

    assert status == 130
    assert "nothing was deleted" in terminal.shown
    assert shell("status", run).status == 0


def test_downloads_have_one_bar() -> None:
    """It names the work while there is one, and counts what came of all."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    progress = Progress(*COLUMNS, console=console)
    bar = Bar(progress)

    def shown() -> str:
        with console.capture() as captured:
            console.print(progress.get_renderable())
        return captured.get()

    before = shown()
    bar(Step("files of demo-1", 2, 3, "files", 2_000_000, False))
    one = shown()
    bar(Step("files of demo-2", 0, 5, "files", 0, False))
    bar(Step("files of demo-1", 3, 3, "files", 3_500_000, True))
    both = shown()

    assert "files" not in before
    assert "files of demo-1" in one
    assert "2/3 files, 2.0 MB" in one
    assert "files of 2 runs" in both
    assert "3/8 files, 3.5 MB" in both


def test_without_a_terminal_nobody_is_told(shell: Shell) -> None:
    """Downloads are silent in pipes."""
    run = shell.started()

    assert shell("download", run).said == ""
    assert Path("results", run, "Energies", "energies.csv").exists()
