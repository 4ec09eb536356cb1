"""Runs shown while they go on: in lines, in a terminal, in a notebook; and what interrupting it leaves behind."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from IPython.core.interactiveshell import InteractiveShell
from rich.console import Console

from st4sd_async import Client, Launch, ProgressBars, ProgressUpdate, Run, Status, UnknownRun, WaitTimeout
from st4sd_async._display.screens import Lines, Notebook, Terminal, screen_here
from st4sd_async._display.show import GOODBYE, View, progress_card
from st4sd_async._render.cards import Bar, Tone, runs_card
from st4sd_async.local import LocalServer
from tests.conftest import FakeClock

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
    """Outside of notebooks and terminals in lines on standard error: what is, and at last what it came to."""
    (run,) = await started(client, server, 1)

    final = await run.show(interval=0.02)

    said = capsys.readouterr()
    assert final.exit_status == "Failed"
    assert said.out == ""
    assert said.err.splitlines()[-1] == (
        f"{run}  Failed: component failed: Job: stage0.Boom. Returncode 1. Reason KnownIssue"
    )


@pytest.mark.anyio
async def test_several_runs_are_shown_in_the_order_given(
    client: Client, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so are their statuses; a run may be named by its id; the service is asked as by watch_many."""
    runs = await started(client, server, 3)
    before = len(server.requests)

    final = await client.show([runs[2], runs[0].id, runs[1]], interval=0.02)

    assert [status.exit_status for status in final] == ["Failed", "Success", "Success"]
    lines = capsys.readouterr().err.splitlines()
    assert {line.split()[0] for line in lines[-3:]} == {run.id for run in runs}
    assert all(path.endswith(("/status", "/instances/")) for _, path in server.requests[before:])
    assert await client.show([]) == []


@pytest.mark.anyio
async def test_many_runs_are_shown_by_their_numbers(
    client: Client, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for hundreds, not hundreds of lines."""
    runs = await started(client, server, 40)

    await client.show(runs, interval=0.1)

    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "40 runs  39 Success, 1 Failed"
    assert len(lines) < 10


@pytest.mark.anyio
async def test_whoever_stops_the_display_leaves_the_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """It says that they go on; cancelling passes."""
    with LocalServer(speed=0) as server:
        async with Client(server.url, api_key=server.api_key) as client:
            runs = await started(client, server, 2)
            with anyio.move_on_after(0.05) as scope:
                await client.show(runs)
            pending = [await run.status() for run in runs]

    assert scope.cancelled_caught
    assert capsys.readouterr().err.splitlines()[-1] == GOODBYE
    assert [status.is_pending for status in pending] == [True, True]


@pytest.mark.anyio
async def test_what_ends_the_waiting_comes_as_it_is(
    client: Client, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors of watch_many, in no group; arguments are checked before anything is shown."""
    (run,) = await started(client, server, 1)

    with pytest.raises(UnknownRun):
        await client.show(["demo-unknown"])
    assert GOODBYE not in capsys.readouterr().err
    with pytest.raises(WaitTimeout):
        await run.show(timeout=0)
    assert GOODBYE in capsys.readouterr().err
    with pytest.raises(ValueError, match="timeout"):
        await client.show([run], timeout=-1)
    with pytest.raises(TypeError):
        await client.show(run.id)
    assert capsys.readouterr().err == ""


class Broken(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


@pytest.mark.anyio
async def test_a_broken_display_does_not_end_the_waiting(
    client: Client, server: LocalServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, and the final status all the same."""
    (run,) = await started(client, server, 1)
    monkeypatch.setattr(sys, "stderr", Broken())

    final = await run.show(interval=0.02)

    assert final.is_final
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the runs are not shown any more"
    ]


class Counting:
    """A screen that counts."""

    pause = 0.25

    def __init__(self) -> None:
        self.drawn: list[str] = []

    def draw(self, told: Any) -> None:
        self.drawn.append(told.badge.word if told.badge else told.title)

    def close(self) -> None:
        self.drawn.append("closed")


@pytest.mark.anyio
async def test_a_storm_of_changes_is_drawn_once(clock: FakeClock) -> None:
    """Nothing is drawn while nothing changes, and a last time in the end."""
    screen = Counting()
    view = View(["demo-1"], screen)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(view.keep_drawing, clock)
        await anyio.wait_all_tasks_blocked()
        for _ in range(1000):
            view.take("demo-1", RUNNING)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    view.take("demo-1", FAILED)
    view.close()

    assert screen.drawn == ["1 run", "running", "Failed", "closed"]
    assert clock.slept == [0.25, 0.25]


def terminal(**options: Any) -> tuple[io.StringIO, Terminal]:
    stream = io.StringIO()
    return stream, Terminal(Console(file=stream, force_terminal=True, width=100, **options))


def test_a_terminal_keeps_a_table_in_its_place() -> None:
    """The lines before are taken back; the failure is red, and the hostile name is no command."""
    stream, screen = terminal(color_system="standard")

    screen.draw(runs_card({"demo-1": RUNNING._summary(), "demo-\x1b[2J2": RUNNING._summary()}))
    screen.draw(runs_card({"demo-1": RUNNING._summary(), "demo-\x1b[2J2": FAILED._summary()}))
    screen.close()

    drawn = stream.getvalue()
    assert "\x1b[1A" in drawn
    assert "\x1b[31mFailed" in drawn
    assert "\x1b[2J" not in drawn
    assert drawn.rstrip("\n").endswith("\x1b[?25h")  # the cursor is back


def test_one_run_in_a_terminal_has_its_failure_beneath() -> None:
    """With what to do; and nothing is coloured where nobody wants colours."""
    stream, screen = terminal(no_color=True)

    screen.draw(FAILED._card("demo-1"))
    screen.close()

    assert "component failed: Job: stage0.Boom. Returncode 3" in stream.getvalue()
    assert "its own files tell more" in stream.getvalue()
    assert "\x1b[31m" not in stream.getvalue()


def test_the_screen_suits_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines without a terminal, on a dumb one, and without rich."""
    assert isinstance(screen_here(), Lines)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(screen_here(), Terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(screen_here(), Lines)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(screen_here(), Lines)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """IPython as a kernel has it; what it sends to its front end."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    sent: list[dict[str, Any]] = []
    running = InteractiveShell.instance()
    monkeypatch.setattr(running, "kernel", object(), raising=False)
    monkeypatch.setattr(running.display_pub, "publish", lambda **message: sent.append(message))
    yield sent
    InteractiveShell.clear_instance()


def test_a_notebook_updates_one_output(shell: list[dict[str, Any]]) -> None:
    """The same display id, as HTML and as text for front ends that know no HTML."""
    screen = screen_here()
    assert isinstance(screen, Notebook)

    screen.draw(RUNNING._card("demo-1"))
    screen.draw(FAILED._card("demo-1"))
    screen.close()

    assert [message.get("update", False) for message in shell] == [False, True]
    assert len({message["transient"]["display_id"] for message in shell}) == 1
    assert "50%" in shell[0]["data"]["text/html"]
    assert "stage0.Boom" in shell[1]["data"]["text/html"]
    assert shell[1]["data"]["text/plain"].splitlines()[0] == "demo-1  Failed"


@pytest.mark.anyio
async def test_waits_batches_and_downloads_have_bars(
    client: Client, server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each work from its beginning to its end."""
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
    said = capsys.readouterr().err
    assert "waiting for runs  ....................   0%  0 of 2 runs\n" in said
    assert "waiting for runs  #################### 100%  2 of 2 runs\n" in said
    assert "100%  2 of 2 key-outputs  " in said
    assert "launches in a journal in memory  #################### 100%  3 of 3 launches\n" in said


@pytest.mark.anyio
async def test_whoever_waits_is_told_how_many_are_over(client: Client, server: LocalServer) -> None:
    """A run counts once, however often it is named; the last update comes after an error too."""
    runs = await started(client, server, 2)
    updates: list[ProgressUpdate] = []
    told = client.with_options(progress=updates.append)

    await told.wait([runs[0], runs[1], runs[0]])
    with pytest.raises(UnknownRun):
        await told.wait("demo-unknown")

    assert [update.total for update in updates if update.is_over] == [2, 1]
    assert [update.done for update in updates if update.is_over] == [2, 0]
    assert updates[-1].work == "waiting for demo-unknown"


def test_work_that_broke_off_is_red() -> None:
    """And what is whole is green, even if there was nothing to do."""
    told = progress_card(
        [ProgressUpdate("a", 1, 2, "files", 1500, is_over=True), ProgressUpdate("b", 0, 0, "files", 0, is_over=True)]
    )

    assert told.table is not None
    assert [row[1] for row in told.table.rows] == [Bar(0.5, Tone.BAD), Bar(1.0, Tone.GOOD)]
    assert [row[3] for row in told.table.rows] == ["1.5 kB", ""]
