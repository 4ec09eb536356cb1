"""The board that shows many things at once, drawn into terminals of all sizes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from st4sd_async.cli._board import Board, Rank, Row, line
from st4sd_async.cli._print import print_table
from st4sd_async.cli._watching import row
from st4sd_async.models import Status

from .terminal import CONTROL


def drawn(board: Board, width: int = 100, height: int = 24, *, colour: bool = False) -> list[str]:
    """The lines that a terminal of this size shows."""
    console = Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    with console.capture() as captured:
        console.print(board.drawn(width, height))
    return [line.rstrip() for line in captured.get().splitlines()]


def board_of(**counts: int) -> Board:
    """A board of runs: how many are in which rank, the names telling their ranks and numbers."""
    board = Board("run", "run", ("progress",))
    for rank in Rank:
        for number in range(counts.get(rank.name.lower(), 0)):
            name = rank.name.lower()
            board.put(Row(f"{name}-{number:04}", name, rank, ("0%",), "why it is so" if rank is Rank.BAD else ""))
    return board


def test_a_few_runs_keep_their_places() -> None:
    """Where all fit, the order is that in which they came, whatever happens to them."""
    board = board_of(good=1, goes_on=2)
    board.put(Row("good-0000", "failed", Rank.BAD, ("0%",)))

    lines = drawn(board)

    assert [line.split()[0] for line in lines[3:]] == ["goes_on-0000", "goes_on-0001", "good-0000"]


def test_of_many_the_most_telling_are_shown_and_the_rest_is_counted() -> None:
    """What is bad comes first, then what is stuck, the newest first; nothing scrolls away."""
    lines = drawn(board_of(bad=3, stuck=2, goes_on=500, waits=5000, good=100), height=20)

    assert lines[0].startswith("5,605 runs, 0:00:00: 100 good, 3 bad, 2 stuck, 500 goes_on, 5000 waits")
    names = [line.split()[0] for line in lines[3:-1]]
    assert names[:6] == ["bad-0002", "bad-0001", "bad-0000", "stuck-0001", "stuck-0000", "goes_on-0499"]
    assert lines[-1] == f"... and {5605 - len(names)} more: {505 - len(names)} goes_on, 5000 waits, 100 good"
    assert len(lines) <= 19


BAD = [f"bad-{number}" for number in range(99, 89, -1)]


def test_what_runs_now_is_there_as_long_as_it_runs() -> None:
    """In the newest state, among what stays; many failures leave it half of the room."""
    running = [Row("a", "running", Rank.GOES_ON, ("40%",)), Row("b", "unscheduled", Rank.WAITS, ("0%",))]
    board = Board("launch", "key", ("progress",), passing=lambda: running)
    board.put(Row("a", "unknown", Rank.BAD, ("-",)))
    for number in range(100):
        board.put(Row(f"bad-{number:02}", "failed", Rank.BAD, ("-",)))
        board.put(Row(f"good-{number:02}", "succeeded", Rank.GOOD, ("-",)))

    both = [line.split()[:2] for line in drawn(board, height=16)[3:-1]]
    running.clear()
    none = [line.split()[:2] for line in drawn(board, height=16)[3:-1]]

    states = ["failed"] * 5 + ["running", "unscheduled"] + ["failed"] * 3
    assert [state for _, state in both] == states
    assert [name for name, _ in both] == [*BAD[:5], "a", "b", *BAD[5:8]]
    assert none == [[name, "failed"] for name in BAD]


@pytest.mark.parametrize("width", [36, 60, 72, 100, 200])
@pytest.mark.parametrize("height", [5, 12, 50])
def test_it_fits_any_terminal(width: int, height: int) -> None:
    """No line is wider than the terminal, and where there is room for it at all the board is no higher."""
    lines = drawn(board_of(bad=3, stuck=2, goes_on=50, good=60), width, height)

    assert max(map(len, lines)) <= width
    assert len(lines) < max(height, 12)


def test_a_narrow_terminal_keeps_the_reasons() -> None:
    """Details give way first."""
    wide, narrow = drawn(board_of(bad=1), 80), drawn(board_of(bad=1), 50)

    assert wide[2].split() == ["run", "state", "progress", "why"]
    assert narrow[2].split() == ["run", "state", "why"]
    assert narrow[3].endswith("why it is so")


def test_the_bar_reads_without_colours() -> None:
    """Each rank has a sign of its own, and a single run among thousands is seen."""
    bar = drawn(board_of(bad=1, stuck=1, goes_on=1000, waits=1000, good=1000), 100)[1]

    assert [sign for sign in "\u2588x!\u2592." if sign in bar] == list("\u2588x!\u2592.")
    assert bar.count("x") == bar.count("!") == 1


def test_the_bar_reads_in_a_terminal_that_is_not_of_this_century(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shown that its encoding has not."""
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO(), "ascii"))
    board = board_of(bad=1, goes_on=1, good=1)
    board.put(Row("cut", "bad", Rank.BAD, ("0%",), "why it is so " * 20))

    lines = drawn(board)

    assert all(line.isascii() for line in lines)
    assert lines[1].strip("#").strip("-") == "x" * 50


def test_colours_tell_the_ranks() -> None:
    """Red is bad, green is good."""
    text = "\n".join(drawn(board_of(bad=1, good=1), colour=True))

    assert "\x1b[31m1 bad" in text
    assert "\x1b[32m1 good" in text


STATUSES = [
    ({}, "pending", Rank.WAITS, ""),
    ({"experiment-state": "Initialising", "exit-status": "N/A"}, "initialising", Rank.WAITS, ""),
    ({"experiment-state": "running", "exit-status": "N/A", "total-progress": 0.4}, "running", Rank.GOES_ON, ""),
    (
        {"experiment-state": "unscheduled", "exit-status": "", "error-description": "0/3 nodes are available: no cpu."},
        "unscheduled",
        Rank.WAITS,
        "no cpu",
    ),
    ({"experiment-state": "unschedulable", "exit-status": ""}, "unschedulable", Rank.STUCK, "unschedulable: an image"),
    ({"experiment-state": "finished", "exit-status": "Success"}, "succeeded", Rank.GOOD, ""),
    ({"experiment-state": "finished", "exit-status": "Stopped"}, "stopped", Rank.BAD, "stopped: "),
    (
        {"experiment-state": "finished", "exit-status": "Failed", "error-description": "Job: stage0.Boom."},
        "failed",
        Rank.BAD,
        "component failed: Job: stage0.Boom.",
    ),
]


@pytest.mark.parametrize(("reply", "state", "rank", "why"), STATUSES, ids=[state for _, state, _, _ in STATUSES])
def test_a_status_is_a_row(reply: dict[str, object], state: str, rank: Rank, why: str) -> None:
    """A run is counted by how it ended or else by its state; the reason is there where it is news."""
    found = row("demo-1", Status.model_validate(reply))

    assert (found.state, found.rank) == (state, rank)
    assert found.why.startswith(why)
    assert bool(found.why) == bool(why)


def test_a_run_that_ended_without_an_exit_status_failed() -> None:
    """The judgement of the client counts, and a deleted run is told as such."""
    killed = Status.model_validate({"experiment-state": "Failed", "exit-status": ""})

    assert row("x", killed.concluded()).state == "failed"
    assert row("x", killed.concluded(deleted=True)).state == "deleted"
    assert row("x", killed.concluded(deleted=True)).rank is Rank.BAD


def test_what_a_server_says_gives_no_orders_to_the_terminal() -> None:
    """Control characters in names and reasons are blanks, in the table and in lines."""
    board = Board("run", "run", ())
    hostile = Row("demo\x1b[2J", "failed", Rank.BAD, (), "why\x1b]0;title\x07\nand\tmore")
    board.put(hostile)

    for text in ("\n".join(drawn(board)), line(board, hostile)):
        assert not any(character in text for character in "\x1b\x07\t")
    assert "\n" not in line(board, hostile)


def test_names_of_columns_give_no_orders_either(capsys: pytest.CaptureFixture[str]) -> None:
    """A column of properties may have any name; brackets are no markup."""
    columns, rows = ("[red]key", "x[/b]\x1b[2J"), [("a", "[/]")]

    print_table(columns, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream := Interactive())
        print_table(columns, rows)

    assert capsys.readouterr().out == "[red]key\tx[/b]\\x1b[2J\na\t[/]\n"
    assert [line.split() for line in CONTROL.sub("", stream.getvalue()).splitlines()] == [
        ["[red]key", r"x[/b]\x1b[2J"],
        ["a", "[/]"],
    ]


class Interactive(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True
