"""The command in its own process: in a terminal, in pipes that break, and interrupted."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from st4sd_async import ProgressUpdate
from st4sd_async._render.cards import Badge, Bar, Tone
from st4sd_async.cli.errors import message_of_log
from st4sd_async.cli.runs import DownloadBar
from st4sd_async.local import Delay, LocalServer
from tests.tries import tries

from .conftest import MOLECULES, Command, Shell, environment_of
from .terminal import CONTROL, Terminal
from .test_watch import WAITING, start

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]  # some processes import all of it anew, on a busy machine

FOR_EVER = 1e6
"""Factor of the duration of a run that never ends unless its server is advanced."""


@pytest.fixture
def connected(command: Command, deployment: LocalServer) -> Command:
    """The command in its own process, with the settings to connect with."""
    command.settings.update(environment_of(deployment))
    (command.folder / "molecules.csv").write_text(MOLECULES)
    return command


def test_a_terminal_displays_many_runs_in_place(connected: Command, shell: Shell, deadline: float) -> None:
    """The last drawing has the results, and standard output does not repeat them."""
    runs = [*shell.server.populate("demo", 60), shell.started("fail")]

    terminal = Terminal(connected, "watch", *runs, "--interval", "0.05")
    status = terminal.end(deadline)

    plain = CONTROL.sub("", terminal.shown)
    last, _, reason = plain[plain.rindex("61 runs, 0:0") :].partition(f"{runs[-1]}: component failed")
    assert status == 1
    assert "60 succeeded, 1 failed" in last
    assert re.search(rf"{runs[-1]} +failed", last)
    assert "why" in last
    assert "... and 2" in last
    assert "\u2588" in last
    assert "boom: this component always fails" in reason
    assert "rest-uid" not in plain
    assert len(last.splitlines()) < 40
    assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h") == 1


def test_ctrl_c_does_not_stop_runs_and_says_how_to_resume(connected: Command, shell: Shell, deadline: float) -> None:
    """The message has the command to type, the exit status is 130, and the run goes on."""
    run = start(shell, WAITING)
    terminal = Terminal(connected, "watch", run, "--interval", "0.05")
    terminal.read_until("unscheduled", deadline)

    terminal.press(b"\x03")
    status = terminal.end(deadline)

    assert status == 130
    message = CONTROL.sub("", terminal.shown).replace("\r\n", "")
    again = f"st4sd-async watch {run} --interval 0.05"
    assert f"st4sd-async: interrupted; the runs continue; follow them again with: {again}" in message
    assert "Traceback" not in terminal.shown
    assert "\x1b[?25h" in terminal.shown
    assert shell("status", run).status == 0


@pytest.mark.slow(seconds=5)
def test_ctrl_c_ends_the_wait_for_an_unavailable_service(command: Command) -> None:
    """After some seconds a message says what the command waits for; an interrupt ends it at once."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        command.settings["ST4SD_URL"] = url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with command.popen("list", "runs") as process:
            assert process.stderr
            err = process.stderr.readline()
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, last = process.communicate(timeout=40)
            took = time.monotonic() - began

    assert re.fullmatch(rf"st4sd-async: no answer from {url}/rs/ for \d+ s: Connection refused; trying again\n", err)
    assert (process.returncode, out, last) == (130, "", "st4sd-async: interrupted\n")
    assert took < 5


def test_an_interrupted_batch_resumes(connected: Command, shell: Shell) -> None:
    """SIGINT ends it with the command to type and 130. The same command finishes it, and starts nothing twice."""
    (connected.folder / "x.csv").write_text("key,input:molecules.csv\na,molecules.csv\nb,molecules.csv\n")
    before = len(shell("list", "runs").table)
    shell.server.outcome("demo", "success", times=1, stretch=FOR_EVER)
    line = ("batch", "run", "x.csv", "demo")

    with connected.popen(*line) as process:
        assert process.stderr
        while " succeeded " not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)
    journal = connected.folder / "x.csv.journal"
    shell.server.advance(10 * FOR_EVER)
    again = shell("batch", "run", connected.folder / "x.csv", "demo")

    assert (process.returncode, out) == (130, "")
    last = "st4sd-async: interrupted; the runs continue; resume with: st4sd-async batch run x.csv demo\n"
    assert err.endswith(last)
    assert err.count("runs continue") == last.count("runs continue")  # nothing else says so
    assert "Traceback" not in err
    assert journal.exists()
    assert again.status == 0, again.err
    assert [row["state"] for row in again.table] == ["succeeded", "succeeded"]
    assert len(shell("list", "runs").table) == before + 2


def test_a_terminal_displays_launches_in_progress(connected: Command, shell: Shell, deadline: float) -> None:
    """Below the counts, with the run, its state and the reason why it waits."""
    (connected.folder / "x.csv").write_text("key,input:molecules.csv\ngood,molecules.csv\n[red]bad[/red],\n")
    shell.server.outcome("demo", WAITING, times=1)
    terminal = Terminal(connected, "batch", "run", "x.csv", "demo")
    terminal.read_until("no room", deadline)

    shell.server.advance(1.0)
    terminal.press(b"\x03")
    status = terminal.end(deadline)

    plain = CONTROL.sub("", terminal.shown)
    assert status == 130
    assert re.search(r"\d launches, 0:00:0\d: 1 refused, 1 started", plain)
    assert re.search(r"key +state +rest-uid +stage +why", plain)
    assert re.search(r"good +unscheduled +demo-[a-z0-9-]+ +no room", plain)
    assert re.search(r"\[red\]bad\[/red\] +refused +Invalid experiment start payload", plain)


@pytest.mark.parametrize("width", [100, 45])
def test_a_terminal_has_one_line_for_each_launch(connected: Command, shell: Shell, width: int, deadline: float) -> None:
    """The error begins with the service's text, and is complete in JSON."""
    table = connected.folder / "x.csv"
    table.write_text("key,input:molecules.csv\ngood,molecules.csv\nbad,\n")
    shell("batch", "run", table, "demo")

    terminal = Terminal(connected, "batch", "status", "x.csv", width=width)
    status = terminal.end(deadline)
    as_json = shell("batch", "status", table, "--json")

    lines = CONTROL.sub("", terminal.shown).splitlines()
    assert status == 3
    assert [line.split()[0] for line in lines] == ["key", "good", "bad", "1"]
    assert max(map(len, lines)) <= width
    assert width < 100 or "Invalid experiment start payload. Missing inputs: [" in lines[2]
    assert "; see what a start takes with: st4sd-async show demo (POST " in as_json.document[1]["error"]


def test_an_interrupted_start_may_have_happened(connected: Command, shell: Shell) -> None:
    """The message says how to look for the run."""
    shell.server.faults.add("POST /experiments/*/start", Delay(5.0))
    with connected.popen("start", "demo", "-i", "molecules.csv") as process:
        while ("POST", "/rs/experiments/demo/start") not in shell.server.requests[-1:]:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)

    assert (process.returncode, out) == (130, "")
    assert err == "st4sd-async: interrupted; the run may have been started; look for it with: st4sd-async list runs\n"


def test_a_response_after_an_interrupt_names_the_run(connected: Command, shell: Shell) -> None:
    """The command waits for the response, because the run exists."""
    shell.server.faults.add("POST /experiments/*/start", Delay(0.3))
    before = len(shell.server.requests)
    with connected.popen("start", "demo", "-i", "molecules.csv") as process:
        while ("POST", "/rs/experiments/demo/start") not in shell.server.requests[before:]:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=40)

    assert (process.returncode, out) == (130, "")
    assert f"an instance of 'demo' was started: '{shell.server.started[-1].rest_uid}', which continues" in err


@pytest.mark.parametrize("arguments", [("list", "runs"), ("outputs", "RUN", "Energies")], ids=" ".join)
def test_a_closed_pipe_is_not_an_error(connected: Command, shell: Shell, arguments: tuple[str, ...]) -> None:
    """As in ``| head -1``: no message, and the exit status of a closed pipe."""
    run = shell.started()
    with connected.popen(*(run if one == "RUN" else one for one in arguments)) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        err = process.stderr.read()

    assert err == ""
    assert process.returncode == 141


def test_a_list_of_runs_has_one_line_for_each_in_a_terminal(connected: Command, shell: Shell, deadline: float) -> None:
    """The reason is last, and is cut."""
    run = shell.started("fail")

    terminal = Terminal(connected, "list", "runs")

    assert terminal.end(deadline) == 0
    lines = CONTROL.sub("", terminal.shown).splitlines()
    assert lines[0].split() == ["rest-uid", "state", "progress", "experiment", "why"]
    (line,) = [line for line in lines if line.startswith(run)]
    assert re.search("fail +component failed: Job: .*\u2026$", line.rstrip())
    assert len(line) <= 100


@pytest.mark.parametrize(
    ("arguments", "closed", "status"),
    [("list", 1, 0), ("watch nothing", 2, 3), ("status nothing", 1, 3)][: tries(3, 2)],
)
def test_a_closed_output_does_not_change_the_exit_status(
    connected: Command, arguments: str, closed: int, status: int
) -> None:
    """Standard output or standard error is closed from the beginning."""
    line = f"{sys.executable} -m st4sd_async {arguments} {closed}>&-"

    done = subprocess.run(["sh", "-c", line], env=connected.environment(), capture_output=True, timeout=18, check=False)

    assert (done.returncode, done.stdout) == (status, b"")
    assert b"Traceback" not in done.stderr


def test_a_broken_standard_error_does_not_change_the_exit_status(connected: Command) -> None:
    """The exit status is that of the error."""
    with connected.popen("status", "nothing") as process:
        assert process.stderr
        process.stderr.close()

    assert process.returncode == 3


def test_characters_that_the_encoding_lacks_are_escaped(connected: Command, shell: Shell, deadline: float) -> None:
    """A terminal without Unicode shows the whole table."""
    definition = shell("show", "demo", "--json").document
    del definition["metadata"]["registry"]
    definition["metadata"]["package"] |= {"name": "energies", "description": "\u2211 [red]x[/red]"}
    Path("p.json").write_text(json.dumps(definition))
    shell("push", "p.json")
    connected.settings["PYTHONIOENCODING"] = "latin-1"

    terminal = Terminal(connected, "list", is_fresh=True)

    assert terminal.end(deadline) == 0
    assert "\\u2211 [red]x[/red]" in terminal.shown


def test_log_messages_name_no_python_and_are_printable() -> None:
    """
    They may quote the service. The command itself reports an interrupted batch, and says with the name of the table
    how to plan another attempt.
    """
    earlier = "launches that failed earlier: %d; batch.retry_failed() plans another attempt for each"
    unfinished = "a batch was left with %s in %s: %s"
    quoting = logging.makeLogRecord({"msg": "without an answer: %s", "args": ("a\x1b[2J\n",)})
    bad = logging.makeLogRecord({"msg": earlier, "args": (2,)})
    left = logging.makeLogRecord({"msg": unfinished, "args": ("1 planned", "the journal 'x'", "run it again")})

    assert message_of_log(quoting) == r"without an answer: a\x1b[2J"
    assert message_of_log(bad) == "launches that failed before: 2; they are not started again"
    assert message_of_log(left) == ""


def test_a_terminal_is_asked_before_runs_are_deleted(connected: Command, shell: Shell, deadline: float) -> None:
    """If the answer is no, nothing is deleted."""
    run = shell.started()
    terminal = Terminal(connected, "delete", run)
    terminal.read_until(f"stop and delete {run}?", deadline)

    terminal.press(b"n\r")
    status = terminal.end(deadline)

    assert status == 130
    assert "nothing was deleted" in terminal.shown
    assert shell("status", run).status == 0


def test_downloads_have_one_bar() -> None:
    """It names the task if there is only one, and adds up the progress of all."""
    bar = DownloadBar()

    before = bar.card
    bar.add(ProgressUpdate("files of demo-1", 2, 3, "files", 2_000_000, False))
    bar.add(ProgressUpdate("waiting for the service", 2, 60, "seconds", 0, False))
    one = bar.card
    bar.add(ProgressUpdate("files of demo-2", 0, 5, "files", 0, False))
    bar.add(ProgressUpdate("files of demo-1", 3, 3, "files", 3_500_000, True))
    both = bar.card

    assert before.title == ""
    assert one.title == "files of demo-1"
    assert one.badge == Badge("2 of 3 files, 2.0 MB", Tone.BUSY)
    assert both.title == "files of 2 runs"
    assert both.badge == Badge("3 of 8 files, 3.5 MB", Tone.BUSY)
    assert both.bar == Bar(3 / 8, Tone.BUSY)


def test_downloads_show_no_progress_without_a_terminal(shell: Shell) -> None:
    """Standard error stays empty."""
    run = shell.started()

    assert shell("download", run).err == ""
    assert Path("results", run, "Energies", "energies.csv").exists()
