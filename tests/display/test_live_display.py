"""The live display, drawn into terminals of all sizes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from st4sd_async._display.live_display import LiveDisplay, Row
from st4sd_async._display.show import run_row
from st4sd_async._display.surfaces import Log, drawing
from st4sd_async._render.cards import Badge, Bar, Tone
from st4sd_async.models import Status


def drawn(
    display: LiveDisplay, width: int = 100, height: int = 24, *, colour: bool = False, **options: Any
) -> list[str]:
    """Return the lines that a terminal of this size shows."""
    console = Console(
        **{"file": io.StringIO(), **options},
        width=width,
        height=height,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    with console.capture() as captured:
        console.print(drawing(display, console.options, "0:00:00"))
    return [line.rstrip() for line in captured.get().splitlines()]


def put(display: LiveDisplay, name: str, state: str, tone: Tone, detail: str = "0%", reason: str = "") -> None:
    display.update(Row(name, Badge(state, tone), (detail,), reason))


def display_of(**counts: int) -> LiveDisplay:
    """Return a display of runs; ``counts`` says how many have which tone, which is their state and in their names."""
    display = LiveDisplay("run", ("run", "state", "progress"), None)
    for tone, count in counts.items():
        for number in range(count):
            put(display, f"{tone}-{number:04}", tone, Tone(tone), reason="out of memory" if tone == "bad" else "")
    return display


def test_a_few_runs_keep_their_places() -> None:
    """If all fit, they stay in the order in which they were added."""
    display = display_of(good=1, busy=2)
    put(display, "good-0000", "failed", Tone.BAD)

    lines = drawn(display)

    assert [line.split()[0] for line in lines[3:]] == ["good-0000", "busy-0000", "busy-0001"]


def test_of_many_the_most_urgent_are_shown_and_the_rest_is_counted() -> None:
    """Failed runs come first, then stuck ones, the newest first; the display never scrolls."""
    lines = drawn(display_of(good=100, waiting=5000, busy=500, stuck=2, bad=3), height=20)

    assert lines[0].startswith("5,605 runs, 0:00:00: 100 good, 3 bad, 2 stuck, 500 busy, 5,000 waiting")
    names = [line.split()[0] for line in lines[3:-1]]
    assert names[:6] == ["bad-0002", "bad-0001", "bad-0000", "stuck-0001", "stuck-0000", "busy-0499"]
    hidden = 5605 - len(names)
    assert lines[-1] == f"... and {hidden:,} more: {505 - len(names)} busy, 5,000 waiting, 100 good"
    assert len(lines) <= 19


NEWEST_BAD = [f"bad-{number}" for number in range(99, 89, -1)]


def test_runs_in_progress_are_shown_as_long_as_they_run() -> None:
    """In their newest state, among the rows that stay; many failures leave them half of the room."""
    running = [
        Row("a", Badge("running", Tone.BUSY), ("40%",)),
        Row("b", Badge("unscheduled", Tone.WAITING), ("0%",)),
    ]
    display = LiveDisplay("launch", ("key", "state", "progress"), None, running=lambda: running)
    put(display, "a", "unknown", Tone.BAD)
    for number in range(100):
        put(display, f"bad-{number:02}", "failed", Tone.BAD)
        put(display, f"good-{number:02}", "succeeded", Tone.GOOD)

    both = [line.split()[:2] for line in drawn(display, height=16)[3:-1]]
    running.clear()
    none = [line.split()[:2] for line in drawn(display, height=16)[3:-1]]

    states = ["failed"] * 5 + ["running", "unscheduled"] + ["failed"] * 3
    assert [state for _, state in both] == states
    assert [name for name, _ in both] == [*NEWEST_BAD[:5], "a", "b", *NEWEST_BAD[5:8]]
    assert none == [[name, "failed"] for name in NEWEST_BAD]


@pytest.mark.parametrize("width", [36, 60, 72, 100, 200])
@pytest.mark.parametrize("height", [5, 12, 50])
def test_it_fits_any_terminal(width: int, height: int) -> None:
    """No line is wider than the terminal and, unless the terminal is tiny, the display is not higher."""
    lines = drawn(display_of(bad=3, stuck=2, busy=50, good=60), width, height)

    assert max(map(len, lines)) <= width
    assert len(lines) < max(height, 12)


def test_a_narrow_terminal_keeps_the_reasons() -> None:
    """The details are left out first, then the reasons."""
    wide, narrow, tiny = (drawn(display_of(bad=1), width) for width in (80, 50, 24))

    assert wide[2].split() == ["run", "state", "progress", "why"]
    assert narrow[2].split() == ["run", "state", "why"]
    assert narrow[3].endswith("out of memory")
    assert tiny[-2].split() == ["run", "state"]


def test_the_bar_of_all_is_readable_without_colours() -> None:
    """Each tone has its own sign, and a single run among thousands is visible."""
    bar = drawn(display_of(bad=1, stuck=1, busy=1000, waiting=1000, good=1000), 100)[1]

    assert [sign for sign in "\u2588x!\u2592." if sign in bar] == list("\u2588x!\u2592.")
    assert bar.count("x") == bar.count("!") == 1


def test_a_terminal_without_unicode_gets_ascii() -> None:
    """The bar has other signs, and a reason is cut without an ellipsis."""
    display = display_of(bad=1, busy=1, good=1)
    put(display, "cut", "bad", Tone.BAD, reason="out of memory " * 20)

    lines = drawn(display, file=io.TextIOWrapper(io.BytesIO(), "ascii"))

    assert all(line.isascii() for line in lines)
    assert lines[1].strip("#").strip("-") == "x" * 50


def test_colours_show_the_tones() -> None:
    """Bad is red, good is green."""
    text = "\n".join(drawn(display_of(bad=1, good=1), colour=True))

    assert "\x1b[31m1 bad" in text
    assert "\x1b[32m1 good" in text


def test_progress_is_a_bar() -> None:
    """With the percentage beside it."""
    display = LiveDisplay("task", ("task", "state", "progress"), None)
    display.update(Row("files", Badge("in progress", Tone.BUSY), (Bar(0.5, Tone.BUSY),)))

    assert drawn(display)[3].endswith("in progress  #####.....  50%")


STATUSES = [
    ({}, "no status yet", Tone.WAITING, ""),
    ({"experiment-state": "Initialising", "exit-status": "N/A"}, "initialising", Tone.WAITING, ""),
    ({"experiment-state": "running", "exit-status": "N/A", "total-progress": 0.4}, "running", Tone.BUSY, ""),
    (
        {"experiment-state": "unscheduled", "exit-status": "", "error-description": "0/3 nodes are available: no cpu."},
        "unscheduled",
        Tone.WAITING,
        "no cpu",
    ),
    ({"experiment-state": "unschedulable", "exit-status": ""}, "unschedulable", Tone.STUCK, "unschedulable: "),
    ({"experiment-state": "finished", "exit-status": "Success"}, "succeeded", Tone.GOOD, ""),
    ({"experiment-state": "finished", "exit-status": "Stopped"}, "stopped", Tone.QUIET, "stopped: "),
    (
        {"experiment-state": "finished", "exit-status": "Failed", "error-description": "Job: stage0.Boom."},
        "failed",
        Tone.BAD,
        "component failed: Job: stage0.Boom.",
    ),
]


@pytest.mark.parametrize(("reply", "state", "tone", "reason"), STATUSES, ids=[state for _, state, _, _ in STATUSES])
def test_a_status_is_a_row(reply: dict[str, object], state: str, tone: Tone, reason: str) -> None:
    """A run is counted by how it ended or else by its state; the reason is there if the state does not say it."""
    row = run_row("demo-1", Status.model_validate(reply))

    assert row.badge == Badge(state, tone)
    assert row.reason.startswith(reason)
    assert bool(row.reason) == bool(reason)


def test_a_deleted_run_is_counted_as_deleted() -> None:
    """Whatever its state was."""
    killed = Status.model_validate({"experiment-state": "Failed", "exit-status": ""})

    assert run_row("x", killed.concluded()).badge == Badge("failed", Tone.BAD)
    assert run_row("x", killed.concluded(deleted=True)).badge == Badge("deleted", Tone.QUIET)


def test_a_deleted_or_stopped_run_is_shown_before_those_that_go_on() -> None:
    """It will not succeed, so only failed and stuck runs are more urgent."""
    names = [line.split()[0] for line in drawn(display_of(good=50, waiting=50, busy=50, quiet=1, bad=1), height=12)[3:]]

    assert names[:3] == ["bad-0000", "quiet-0000", "busy-0049"]


def test_texts_of_a_server_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in names and reasons are escaped, in the table and in the log."""
    display = LiveDisplay("run", ("run", "state"), Log(None, 0.0))
    display.update(Row("demo\x1b[2J", Badge("failed", Tone.BAD), (), "why\x1b]0;title\x07\nand\tmore"))

    table = "\n".join(drawn(display))
    display.draw()
    log = capsys.readouterr().err

    for text in (table, log):
        assert not any(character in text for character in "\x1b\x07\t")
    assert log.count("\n") == 1


def test_a_log_of_every_row_has_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    """The newest state of what changed since the last drawing, with the time."""
    display = LiveDisplay("run", ("run", "state", "progress"), Log(None, 0.0))

    for number in range(20):
        put(display, f"demo-{number}", "waiting", Tone.WAITING)
    display.draw()
    put(display, "demo-7", "running", Tone.BUSY, "10%")
    put(display, "demo-7", "failed", Tone.BAD, "10%", "out of memory")
    display.close()

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "0:00:00  demo-7  failed  10%  out of memory"


def test_a_log_of_many_rows_has_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """Written if they changed."""
    display = LiveDisplay("run", ("run", "state", "progress"), Log(12, 0.0))

    for number in range(20):
        put(display, f"demo-{number}", "waiting", Tone.WAITING)
    display.draw()
    display.draw()
    put(display, "demo-7", "failed", Tone.BAD)
    display.close()

    assert capsys.readouterr().err.splitlines() == [
        "0:00:00  20 runs  20 waiting",
        "0:00:00  20 runs  1 failed, 19 waiting",
    ]


def test_the_time_left_is_shown_if_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the elapsed time; in a log once a minute, with the counts. It is estimated once a second."""
    estimates = iter(["about 12 min left"])
    options: dict[str, Any] = {"time_left": lambda: next(estimates)}
    display = LiveDisplay("launch", ("key", "state", "progress"), Log(None, 0.0), **options)

    put(display, "a", "succeeded", Tone.GOOD)
    display.draw()
    put(display, "b", "succeeded", Tone.GOOD)
    display.draw()

    assert drawn(display)[0] == "2 launches, 0:00:00, about 12 min left: 2 succeeded"
    assert capsys.readouterr().err.splitlines() == [
        "0:00:00  a  succeeded  0%",
        "0:00:00  1 launch  1 succeeded; about 12 min left",
        "0:00:00  b  succeeded  0%",
    ]
