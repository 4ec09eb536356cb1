"""What is printed while displays are in a terminal: nothing is lost, and nothing breaks the displays."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.forks import Forks

from .conftest import Command, basic_environment
from .terminal import Terminal

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]

SETUP = """
import logging, sys, threading, typer
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
own = logging.getLogger("laboratory.own")
own.addHandler(logging.StreamHandler(sys.stdout))
own.propagate = False
from st4sd_async import ProgressBars, ProgressUpdate
from st4sd_async._display.live_display import LiveDisplay, Row
from st4sd_async._display.surfaces import default_surface
from st4sd_async._render.cards import Badge, Tone

def display(name):
    shown = LiveDisplay(name, ("name", "state"), default_surface())
    for number in range(3):
        shown.update(Row(f"{name}-{number}", Badge("running", Tone.BUSY)))
    shown.draw()
    return shown

def say_all(shown):
    print("by print")
    shown.draw()
    sys.stderr.write("by ")
    shown.draw()
    sys.stderr.write("stderr\\n\\n")
    logging.getLogger("st4sd_async").warning("by our log")
    shown.draw()
    logging.info("by the root log")
    own.warning("by a log of its own")
    typer.echo("by typer")
    typer.echo("by typer, err", err=True)
    shown.draw()
    print("[/markup] [red]is[/red] kept", flush=True)
    print("x" * 250)
    thread = threading.Thread(target=print, args=("by a thread",))
    thread.start()
    thread.join()
    shown.draw()
    print("un", end="", flush=True)
    shown.draw()
    print("finished", end="")
"""
SAID = [
    "by print",
    "by stderr",
    "WARNING by our log",
    "INFO by the root log",
    "by a log of its own",
    "by typer",
    "by typer, err",
    "[/markup] [red]is[/red] kept",
    "by a thread",
]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """Processes that execute scripts, and begin with what all of them import."""
    imported = ("typer", "st4sd_async._display.live_display", "st4sd_async._display.progress_bars", "rich.live")
    with closing(Forks("tests.cli.script", imported, basic_environment())) as forks:
        yield forks


def run(command: Command, script: str) -> Terminal:
    terminal = Terminal(command, SETUP + script)
    assert terminal.end(time.monotonic() + 50) == 0, terminal.shown
    return terminal


def rows(lines: list[str], name: str) -> list[str]:
    return [line.split()[0] for line in lines if re.match(rf"{name}-\d ", line)]


def test_everything_printed_stays_above_the_display(command: Command) -> None:
    """Each line once, in its order, whoever prints it; the display is whole below, and the streams are as before."""
    script = """
before = sys.stdout, sys.stderr, logging.getLogger().handlers[0].stream
shown = display("run")
say_all(shown)
shown.close()
assert (sys.stdout, sys.stderr, logging.getLogger().handlers[0].stream) == before
print(" afterwards")
"""
    lines = run(command, script).screen

    first = next(number for number, line in enumerate(lines) if line.startswith("3 runs"))
    above = [line for line in lines[:first] if line]
    assert [line for line in above if not line.startswith("x")] == SAID
    assert "".join(line for line in above if line.startswith("x")) == "x" * 250
    assert rows(lines[first:], "run") == ["run-0", "run-1", "run-2"]
    assert [line for line in lines[first:] if line][-1] == "unfinished afterwards"
    assert sum(line.startswith("3 runs") for line in lines) == 1


@pytest.mark.parametrize("order", ["first, second", "second, first"])
def test_two_displays_share_the_terminal(command: Command, order: str) -> None:
    """One below the other; the one that is closed first stays above the other."""
    script = f"""
first, second = display("run"), display("task")
say_all(first)
for one in ({order}):
    one.close()
    print("closed")
"""
    lines = run(command, script).screen

    heads = [line.split(",")[0] for line in lines if re.match(r"3 (runs|tasks),", line)]
    assert heads == (["3 runs", "3 tasks"] if order.startswith("first") else ["3 tasks", "3 runs"])
    assert rows(lines, "run") == ["run-0", "run-1", "run-2"]
    assert rows(lines, "task") == ["task-0", "task-1", "task-2"]
    assert sum(line.endswith("closed") for line in lines) == 2
    assert set(SAID) <= set(lines)


def test_bars_and_a_display_share_the_terminal(command: Command) -> None:
    """`ProgressBars` may show an outage while another display shows runs."""
    script = """
shown, bars = display("run"), ProgressBars()
for second in range(5, 9):
    bars(ProgressUpdate("connection to x", second, 0, "seconds", 0, False, "Connection refused"))
    shown.draw()
bars(ProgressUpdate("connection to x", 9, 0, "seconds", 0, True))
shown.close()
"""
    lines = run(command, script).screen

    assert [line for line in lines if line.startswith("x")] == ["x answers again after 5 s"]
    assert rows(lines, "run") == ["run-0", "run-1", "run-2"]
    assert sum(line.startswith("3 runs") for line in lines) == 1


def test_standard_output_in_a_file_is_left_alone(command: Command) -> None:
    """It holds data, of which nothing must appear in the terminal."""
    script = """
out = open("out.txt", "w")
sys.stdout = out
shown = display("run")
print("data")
assert sys.stdout is out
shown.close()
"""
    lines = run(command, script).screen

    assert Path(command.folder, "out.txt").read_text() == "data\n"
    assert "data" not in lines
