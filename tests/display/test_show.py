"""`Client.show` and progress bars: in a log, in a terminal, in a notebook, interrupted and broken."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

from st4sd_async import Client, Launch, ProgressBars, ProgressUpdate, Run, Status, UnknownRun, WaitTimeout
from st4sd_async._display.live_display import LiveDisplay
from st4sd_async._display.progress_bars import task_row
from st4sd_async._display.show import run_row
from st4sd_async._display.surfaces import LOG_ROWS, Log, Notebook, Terminal, default_surface
from st4sd_async._render.cards import Badge, Bar, Tone
from st4sd_async.local import LocalServer
from st4sd_async.models.runs import status_card
from tests.conftest import FakeClock
from tests.tries import tries

pytestmark = pytest.mark.slow

STOPPED = "display stopped; the runs continue, call show() again to follow them"
INPUTS = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]}
RUNNING = Status.model_validate({"experiment-state": "running", "exit-status": "N/A", "total-progress": 0.5})
FAILED = Status.model_validate(
    {"experiment-state": "finished", "exit-status": "Failed", "error-description": "Job: stage0.Boom. Returncode 3"}
)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(speed=100) as running:
        yield running


async def started(client: Client, server: LocalServer, count: int) -> list[Run]:
    """Runs, the last of which fails."""
    await client.push(server.example("demo"))
    await client.push(server.example("fail"))
    return [*[await client.start("demo", INPUTS) for _ in range(count - 1)], await client.start("fail")]


@pytest.mark.anyio
async def test_a_run_is_shown_until_it_is_over(
    client: Client, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside of notebooks and terminals, lines on standard error show each state and the outcome."""
    (run,) = await started(client, server, 1)

    final = await run.show(interval=0.02)

    out, err = capsys.readouterr()
    assert final.exit_status == "Failed"
    assert out == ""
    boom = "stage0.Boom: boom: this component always fails (return code 3, KnownIssue)"
    last = f"{run}  failed  {boom}"
    assert err.splitlines()[-1].partition("  ")[2] == last


@pytest.mark.anyio
async def test_several_runs_are_shown_in_the_order_given(
    client: Client, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so are their statuses. A run may be named by its id. It asks for changes, and in the end for reasons."""
    runs = await started(client, server, 3)
    before = len(server.requests)

    final = await client.show([runs[2], runs[0].id, runs[1]], interval=0.02)

    assert [status.exit_status for status in final] == ["Failed", "Success", "Success"]
    lines = capsys.readouterr().err.splitlines()
    assert {line.split()[1] for line in lines[-3:]} == {run.id for run in runs}
    reason = ("POST", "/ds-")
    watching = [path for method, path in server.requests[before:] if (method, path[:4]) != reason]
    assert all(path.endswith(("/status", "/instances/")) for path in watching)
    assert len(server.requests) - before - len(watching) < 100
    assert await client.show([]) == []


@pytest.mark.anyio
async def test_many_runs_are_counted(client: Client, server: LocalServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A log has one line for hundreds of runs, not hundreds of lines."""
    count = tries(40, LOG_ROWS + 3)
    runs = await started(client, server, count)

    await client.show(runs, interval=0.1)

    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].partition("  ")[2] == f"{count} runs  {count - 1} succeeded, 1 failed"
    assert len(lines) < 10


@pytest.mark.anyio
async def test_cancelling_the_display_leaves_the_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line says that they go on."""
    with LocalServer(speed=0) as server:
        async with Client(server.url, api_key=server.api_key) as client:
            runs = await started(client, server, 2)
            with anyio.move_on_after(0.05) as scope:
                await client.show(runs)
            pending = [await run.status() for run in runs]

    assert scope.cancelled_caught
    assert capsys.readouterr().err.splitlines()[-1] == STOPPED
    assert [status.is_pending for status in pending] == [True, True]


@pytest.mark.anyio
async def test_errors_of_watching_are_raised_as_they_are(
    client: Client, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in an exception group. Arguments are checked before anything is displayed."""
    (run,) = await started(client, server, 1)

    with pytest.raises(UnknownRun):
        await client.show(["demo-unknown"])
    assert STOPPED not in capsys.readouterr().err
    with pytest.raises(WaitTimeout):
        await run.show(timeout=0)
    assert STOPPED in capsys.readouterr().err
    with pytest.raises(ValueError, match="timeout"):
        await client.show([run], timeout=-1)
    with pytest.raises(TypeError):
        await client.show(run.id)
    assert capsys.readouterr().err == ""


class Broken(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


@pytest.mark.anyio
async def test_a_broken_display_does_not_end_the_waiting(
    client: Client, server: LocalServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning is logged, and the final status is returned."""
    (run,) = await started(client, server, 1)
    monkeypatch.setattr(sys, "stderr", Broken())

    final = await run.show(interval=0.02)

    assert final.is_final
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the display failed and is no longer updated"
    ]


def test_a_terminal_whose_drawing_fails_shows_its_cursor_again(caplog: pytest.LogCaptureFixture) -> None:
    """The display is then no longer updated."""
    stream, surface = terminal()
    display = runs(surface, demo_1=RUNNING)
    display.draw()
    surface.draw = Broken().write  # type: ignore[method-assign, assignment]

    display.draw()
    display.draw()

    assert stream.getvalue().rstrip("\n").endswith("\x1b[?25h")
    assert len(caplog.records) == 1


class Recorder:
    """A surface that records what is drawn."""

    interval = 0.25
    shows_time = False

    def __init__(self) -> None:
        self.drawn: list[str] = []

    def draw(self, display: LiveDisplay, /) -> None:
        self.drawn.append(", ".join(badge.word for _, badge in display.summary().parts))

    def close(self, footer: str, /) -> None:
        self.drawn.append(f"closed: {footer}")


@pytest.mark.anyio
async def test_a_storm_of_changes_is_drawn_once(clock: FakeClock) -> None:
    """Nothing is drawn while nothing changes; the last state is drawn at the end."""
    surface = Recorder()
    display = LiveDisplay("run", ("run", "state", "progress"), surface)
    display.update(run_row("demo-1", Status.pending()))

    async with display.drawn(clock):
        await anyio.wait_all_tasks_blocked()
        for number in range(1000):
            display.update(run_row(f"demo-{number}", RUNNING))
        await anyio.wait_all_tasks_blocked()
        display.update(run_row("demo-1", FAILED))
        display.footer = "the end"

    assert surface.drawn == ["no status yet", "running", "failed, running", "closed: the end"]
    assert set(clock.slept) == {0.25}


def runs(surface: Any, **statuses: Status) -> LiveDisplay:
    """Return a display of runs; an underscore in a name is a hyphen."""
    display = LiveDisplay("run", ("run", "state", "progress"), surface)
    for name, status in statuses.items():
        display.update(run_row(name.replace("_", "-"), status))
    return display


def terminal(**options: Any) -> tuple[io.StringIO, Terminal]:
    stream = io.StringIO()
    return stream, Terminal(Console(file=stream, force_terminal=True, width=100, **options))


def test_a_terminal_keeps_a_table_in_its_place() -> None:
    """Each drawing replaces the one before; failures are red, and a hostile name cannot control the terminal."""
    stream, surface = terminal(color_system="standard")
    display = runs(surface, demo_1=RUNNING)

    display.update(run_row("demo-\x1b[2J2", RUNNING))
    display.draw()
    display.update(run_row("demo-\x1b[2J2", FAILED))
    display.close()

    text = stream.getvalue()
    assert "\x1b[1A" in text
    assert "\x1b[31mfailed" in text
    assert "\x1b[2J" not in text
    assert text.rstrip("\n").endswith("\x1b[?25h")  # the cursor is shown again


def test_a_single_run_in_a_terminal_has_its_failure_and_the_advice_below() -> None:
    """Without colours if the terminal has none."""
    stream, surface = terminal(no_color=True)
    display = LiveDisplay("run", (), surface, single=lambda: status_card(FAILED, "demo-1"))

    display.close()

    assert "component failed: Job: stage0.Boom. Returncode 3" in stream.getvalue()
    assert status_card(FAILED, "demo-1").advice[:40] in stream.getvalue()
    assert "\x1b[31m" not in stream.getvalue()


def test_the_surface_suits_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is written without a terminal, in a dumb one, and without rich."""
    assert isinstance(default_surface(), Log)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(default_surface(), Terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(default_surface(), Log)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(default_surface(), Log)


def test_a_notebook_updates_one_output(shell: list[dict[str, Any]]) -> None:
    """The display id stays the same; there is HTML, and text for front ends without HTML."""
    surface = default_surface()
    status = RUNNING
    display = LiveDisplay("run", (), surface, single=lambda: status_card(status, "demo-1"))
    assert isinstance(surface, Notebook)

    display.draw()
    status = FAILED
    display.draw()
    display.footer = STOPPED
    display.close()

    assert [message.get("update", False) for message in shell] == [False, True, True]
    assert len({message["transient"]["display_id"] for message in shell}) == 1
    assert "50%" in shell[0]["data"]["text/html"]
    assert "stage0.Boom" in shell[1]["data"]["text/html"]
    assert shell[1]["data"]["text/plain"].splitlines()[0] == "demo-1  failed"
    assert STOPPED in shell[2]["data"]["text/html"]


def test_a_notebook_has_a_row_for_each_of_a_few_runs_and_groups_many(shell: list[dict[str, Any]]) -> None:
    """Many runs that are alike share a row with an example."""
    few = runs(default_surface(), demo_1=RUNNING, demo_2=FAILED)
    many = runs(default_surface(), **{f"demo_{number}": RUNNING for number in range(500)}, boom=FAILED)

    few.draw()
    many.draw()

    assert shell[0]["data"]["text/plain"].splitlines()[0] == "2 runs  1 failed, 1 running"
    assert [line.split()[0] for line in shell[0]["data"]["text/plain"].splitlines()[2:]] == ["demo-1", "demo-2"]
    assert [line.split()[:3] for line in shell[1]["data"]["text/plain"].splitlines()[2:]] == [
        ["1", "failed", "boom"],
        ["500", "running", "demo-0"],
    ]


@pytest.mark.anyio
async def test_waits_batches_and_downloads_show_their_progress(
    client: Client, server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log has each task when it begins and when it ends."""
    runs = await started(client, server, 2)
    shown = client.with_options(progress=ProgressBars())

    await shown.wait(runs)
    await shown.run(runs[0].id).download_outputs(tmp_path)
    async with shown.batch() as batch:
        misspelt = {**INPUTS, "variables": {"scael": 2}}
        await batch.add([Launch("C1", "demo", INPUTS), Launch("C2", "fail"), Launch("C3", "demo", misspelt)])
        async for _ in batch.run():
            pass

    assert "stage0.Boom" in batch._repr_html_()
    assert "scael" in batch._repr_html_()
    err = capsys.readouterr().err
    assert "waiting for runs  in progress  0%  0 of 2 runs\n" in err
    assert "waiting for runs  done  100%  2 of 2 runs\n" in err
    assert "done  100%  2 of 2 key-outputs  " in err
    assert "launches in a journal in memory  done  100%  3 of 3 launches\n" in err


@pytest.mark.anyio
async def test_the_progress_of_a_wait_counts_runs_that_are_over(client: Client, server: LocalServer) -> None:
    """A run counts once, however often it is named; the last update comes after an error too."""
    runs = await started(client, server, 2)
    updates: list[ProgressUpdate] = []
    reporting = client.with_options(progress=updates.append)

    await reporting.wait([runs[0], runs[1], runs[0]])
    with pytest.raises(UnknownRun):
        await reporting.wait("demo-unknown")

    assert [update.total for update in updates if update.is_over] == [2, 1]
    assert [update.done for update in updates if update.is_over] == [2, 0]
    assert updates[-1].work == "waiting for demo-unknown"


def test_a_task_that_ended_early_is_red() -> None:
    """A complete one is green, even if there was nothing to do."""
    incomplete = task_row(ProgressUpdate("a", 1, 2, "files", 1500, is_over=True))
    empty = task_row(ProgressUpdate("b", 0, 0, "files", 0, is_over=True))

    assert incomplete.badge == Badge("incomplete", Tone.BAD)
    assert incomplete.details == (Bar(0.5, Tone.BAD), "1 of 2 files", "1.5 kB")
    assert empty.badge == Badge("done", Tone.GOOD)
    assert empty.details == (Bar(1.0, Tone.GOOD), "0 of 0 files", "")
