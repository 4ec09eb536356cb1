"""A server that stops and starts while the command runs, in a terminal and in a pipe."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from st4sd_async.local import Delay

from .conftest import MOLECULES, Command, Shell, environment_of
from .relay import Relay
from .terminal import Terminal

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

SOON = 10.0
"""Seconds after which every display shows that there is no answer."""
WHILE_BUSY = 5.0
"""Seconds that a busy machine may add."""
DELAY = Delay(30.0)
"""Longer than it takes to show an outage. It ends with its connection."""
LONG = 1e4
"""Factor of the duration of a run that ends when its server is advanced."""
ANSWERED = re.compile(r"/instances/\S+/status: 200 in \d+ ms")
NO_ANSWER = re.compile(r"no answer for (\d+) s: (.+); trying again")


@pytest.fixture
def relay(shell: Shell) -> Iterator[Relay]:
    with Relay(shell.server.url) as relay:
        yield relay


@pytest.fixture
def connected(command: Command, shell: Shell, relay: Relay) -> Command:
    """The command in processes of its own, connected through the relay."""
    command.settings.update(environment_of(shell.server) | {"ST4SD_URL": relay.url})
    return command


def until_shown(terminal: Terminal, text: str, deadline: float) -> float:
    """Return after how many seconds the terminal shows a text."""
    began = time.monotonic()
    terminal.read_until(text, deadline)
    return time.monotonic() - began


def until_counted(terminal: Terminal, seconds: int, reason: str, deadline: float) -> None:
    """Read until the notice of an outage has counted so many seconds. A busy machine may skip a number."""
    notice = rf"no answer for (\d+) s: {reason}; trying again"
    while max(map(int, re.findall(notice, terminal.shown)), default=0) < seconds:
        assert time.monotonic() < deadline, terminal.shown
        terminal.read_on()


def board(lines: list[str]) -> list[str]:
    """Return the lines of a display of runs, without the time and the notice."""
    first = next(number for number, line in enumerate(lines) if re.match(r"\d+ (runs?|launch)", line))
    kept = [line for line in lines[first:] if line and not re.match(r"no answer|answers again", line)]
    return [re.sub(r"\d+:\d\d:\d\d", "TIME", line) for line in kept]


@pytest.mark.slow(seconds=12)
def test_an_outage_and_its_end_are_shown_on_a_board_in_a_pipe_and_by_a_single_command(
    connected: Command, shell: Shell, relay: Relay
) -> None:
    """
    Within ten seconds, with the reason and the time that passes.

    On a board, the runs stay in their places. A pipe has a line for the beginning and one for the end, between the
    lines of the runs and without control characters. A single command reports both on standard error; then comes its
    result. All three share one outage, because it takes seconds.
    """
    deadline = time.monotonic() + 100
    runs = shell.server.populate("demo", 3, "stuck")
    terminal = Terminal(connected, "watch", *runs)
    with connected.popen("watch", runs[0]) as pipe:
        assert pipe.stderr
        while "running" not in pipe.stderr.readline():
            pass
        terminal.read_until("3 running", deadline)
        terminal.read_on()
        before = board(terminal.screen)

        relay.stop()
        began = time.monotonic()
        with connected.popen("list", "runs") as single:
            assert single.stderr
            terminal.read_until("no answer for", deadline)
            of_board = time.monotonic() - began
            first_of_pipe = pipe.stderr.readline()
            of_pipe = time.monotonic() - began
            first_of_single = single.stderr.readline()
            until_counted(terminal, 8, "Connection refused", deadline)
            terminal.read_on()
            during = terminal.screen
            relay.start()
            out, rest_of_single = single.communicate(timeout=60)
        terminal.read_until("answers again after", deadline)
        terminal.read_on()
        after = terminal.screen
        terminal.press(b"\x03")
        status = terminal.end(deadline)
        second_of_pipe = pipe.stderr.readline()
        pipe.terminate()
        _, rest_of_pipe = pipe.communicate(timeout=40)

    assert status == 130
    assert max(of_board, of_pipe) < SOON + WHILE_BUSY
    assert sum(bool(NO_ANSWER.fullmatch(line)) for line in during) == 1
    assert sum(bool(re.fullmatch(r"answers again after \d+ s", line)) for line in after) == 1
    assert not any("no answer" in line for line in after)
    assert board(during) == board(after) == before

    assert re.fullmatch(r"\d:\d\d:\d\d  no answer for \d+ s: Connection refused; trying again\n", first_of_pipe)
    assert re.fullmatch(r"\d:\d\d:\d\d  answers again after \d+ s\n", second_of_pipe)
    assert "answer" not in rest_of_pipe

    assert single.returncode == 0
    service = re.escape(f"{relay.url}/rs/")
    beginning = rf"st4sd-async: no answer from {service} for \d+ s: Connection refused; trying again\n"
    assert re.fullmatch(beginning, first_of_single)
    assert re.fullmatch(rf"st4sd-async: {service} answers again after \d+ s\n", rest_of_single)
    assert out.startswith("rest-uid\t")


@pytest.mark.slow(seconds=11)
def test_messages_appear_above_the_board_while_requests_hang(connected: Command, shell: Shell, relay: Relay) -> None:
    """With --verbose, each line is shown once, and stays."""
    deadline = time.monotonic() + 100
    runs = shell.server.populate("demo", 2, "stuck")
    terminal = Terminal(connected, "--verbose", "watch", *runs, "--interval", "0.5")
    terminal.read_until("2 running", deadline)
    while len(ANSWERED.findall(terminal.shown)) < 4:
        terminal.read_on()

    relay.hold()
    seconds = until_shown(terminal, "no answer for", deadline)
    until_counted(terminal, 10, "no response yet", deadline)
    terminal.read_on()
    lines = terminal.screen
    terminal.press(b"\x03")

    assert terminal.end(deadline) == 130
    assert seconds < SOON + WHILE_BUSY
    first = next(number for number, line in enumerate(lines) if line.startswith("2 runs"))
    assert board(lines)[0] == "2 runs, TIME: 2 running"
    messages = [line for line in lines[:first] if line]
    assert all(line.startswith("st4sd-async: ") for line in messages)
    requests = [line for line in messages if ANSWERED.search(line)]
    assert len(requests) >= 4
    assert len(requests) == len(ANSWERED.findall(terminal.shown))
    assert sum("no answer from" in line for line in messages) == 1


@pytest.mark.slow(seconds=11)
def test_a_batch_shows_the_outage(connected: Command, shell: Shell, relay: Relay) -> None:
    """On its board; it goes on afterwards and ends with success."""
    deadline = time.monotonic() + 100
    (connected.folder / "m.csv").write_text(MOLECULES)
    (connected.folder / "x.csv").write_text("key,input:molecules.csv\na,m.csv\nb,m.csv\n")
    shell.server.outcome("demo", "success", times=2, stretch=LONG)
    terminal = Terminal(connected, "batch", "run", "x.csv", "demo", "--output", "Energies")
    terminal.read_until("2 started", deadline)

    relay.stop()
    seconds = until_shown(terminal, "no answer for", deadline)
    lines = terminal.screen
    relay.start()
    terminal.read_until("answers again after", deadline)
    shell.server.advance(10 * LONG)

    assert terminal.end(deadline) == 0, terminal.shown
    assert seconds < SOON + WHILE_BUSY
    assert sum(bool(NO_ANSWER.fullmatch(line)) for line in lines) == 1
    ended = sorted(line.split()[:2] for line in terminal.screen if re.match(r"[ab] ", line))
    assert ended == [["a", "collected"], ["b", "collected"]]


@pytest.mark.slow(seconds=10)
def test_the_bar_of_downloads_shows_the_outage(connected: Command, shell: Shell, relay: Relay) -> None:
    """It is erased at the end, as the bar is."""
    deadline = time.monotonic() + 100
    run = shell.started()
    shell.server.faults.add("GET /instances/*/outputs", DELAY)
    terminal = Terminal(connected, "download", run)

    terminal.read_until("no answer for", deadline)
    lines = terminal.screen
    relay.stop()
    relay.start()

    assert terminal.end(deadline) == 0, terminal.shown
    assert sum("no response yet; trying again" in line for line in lines) == 1
    assert not any("no answer" in line for line in terminal.screen)
