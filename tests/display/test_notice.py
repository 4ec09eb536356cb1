"""What displays say of a service that does not answer, or answers again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from IPython.core.interactiveshell import InteractiveShell
from rich.console import Console

from st4sd_async import Outage, ProgressBars, ProgressUpdate, Status
from st4sd_async._display import live_display
from st4sd_async._display.live_display import LiveDisplay, Row, is_outage_shown
from st4sd_async._display.surfaces import Log, Notebook, drawing
from st4sd_async._render.cards import Badge, Tone
from st4sd_async._render.html import to_html
from st4sd_async._util.clock import SystemClock
from st4sd_async.models.runs import status_card
from tests.conftest import FakeClock

RUNNING = Status.model_validate({"experiment-state": "running", "exit-status": "N/A", "total-progress": 0.5})


class Service:
    """A service whose current outage a display reads."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.outage: Outage | None = None

    def go(self, reason: str = "Connection refused") -> Outage:
        """Begin an outage."""
        self.outage = Outage("http://st4sd.example/rs/", "", reason, self.clock.now(), self.clock)
        return self.outage

    def wait(self, seconds: float) -> None:
        self.clock.time += seconds

    def come_back(self) -> None:
        """End the outage."""
        assert self.outage is not None
        self.outage.end()
        self.outage = None

    def display(self, surface: Any = None, **options: Any) -> LiveDisplay:
        """Return a display with one run that reads the outage."""
        display = LiveDisplay("run", ("run", "state"), surface, outage=lambda: self.outage, **options)
        display.update(Row("demo-1", Badge("running", Tone.BUSY)))
        return display


@pytest.fixture
def service() -> Service:
    return Service()


def shown(display: LiveDisplay, width: int = 100, height: int = 24) -> list[str]:
    """Return the lines that a terminal of this size shows."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    with console.capture() as captured:
        console.print(drawing(display, console.options, "0:00:00"))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_terminal_has_the_outage_below_the_counts(service: Service) -> None:
    """With the time that passes; then, for some seconds, that it is over."""
    display = service.display()
    before = shown(display)
    service.go()
    service.wait(12)
    during = shown(display)
    service.wait(22)
    service.come_back()
    after = shown(display)

    assert during == [*before[:2], "no answer for 12 s: Connection refused; trying again", *before[2:]]
    assert after == [*before[:2], "answers again after 34 s", *before[2:]]


def test_that_it_is_over_is_said_for_a_while(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second outage is shown whether the end of the first still is or not."""
    display = service.display()
    service.go()
    display.notice()
    service.come_back()
    over = display.notice()
    service.go("HTTP status 503")
    second = display.notice()
    service.come_back()
    monkeypatch.setattr(live_display, "RECOVERY_SECONDS", 0.0)

    assert over == Badge("answers again after 0 s", Tone.GOOD)
    assert second == Badge("no answer for 0 s: HTTP status 503; trying again", Tone.STUCK)
    assert display.notice() is None


def test_an_outage_from_before_the_display_is_not_mentioned(service: Service) -> None:
    """And none that nothing waits for any more."""
    service.go()
    service.come_back()
    display = service.display()
    before = display.notice()
    service.go()
    display.notice()
    service.outage = None

    assert before is None
    assert display.notice() is None


@pytest.mark.parametrize("width", [30, 60, 100])
def test_a_long_reason_leaves_the_board_its_place(service: Service, width: int) -> None:
    """It is wrapped, and fewer rows are shown."""
    display = service.display()
    for number in range(100):
        display.update(Row(f"demo-{number}", Badge("running", Tone.BUSY)))
    service.go("the proxy got no response from the service: it is down, slow or not at this address")

    lines = shown(display, width, height=20)

    assert len(lines) <= 19
    assert max(map(len, lines)) <= width
    assert "trying again" in " ".join(lines)
    assert lines[-1].startswith("... and")


def test_a_single_run_has_it_below_its_name(service: Service) -> None:
    """Above what the run itself waits for."""
    stuck = Status.model_validate({"experiment-state": "unschedulable", "exit-status": ""})
    display = service.display(single=lambda: status_card(stuck, "demo-1"))
    service.go()

    lines = shown(display)

    assert lines[0].split() == ["demo-1", "unschedulable"]
    assert lines[1].startswith("no answer for 0 s")
    assert lines[2] == "unschedulable"


def test_a_log_has_a_line_for_the_beginning_and_one_for_the_end(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it is drawn in between, with many runs too."""
    display = service.display(Log(0, 0.0))
    display.draw()
    service.go()
    for _ in range(3):
        service.wait(5)
        display.draw()
    service.come_back()
    display.draw()
    display.close()

    assert capsys.readouterr().err.splitlines() == [
        "0:00:00  1 run  1 running",
        "0:00:00  no answer for 5 s: Connection refused; trying again",
        "0:00:00  answers again after 15 s",
    ]


@pytest.fixture
def published(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """IPython as in a kernel; returns what it sends to its front end."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    sent: list[dict[str, Any]] = []
    running = InteractiveShell.instance()
    monkeypatch.setattr(running.display_pub, "publish", lambda **message: sent.append(message["data"]))
    yield sent
    InteractiveShell.clear_instance()


@pytest.mark.anyio
async def test_a_notebook_is_updated_although_no_run_changes(
    service: Service, published: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card has the outage in a box of its own, and in its text."""
    monkeypatch.setattr(live_display, "NOTICE_INTERVAL", 0.01)
    monkeypatch.setattr(Notebook, "interval", 0.01)
    async with service.display(Notebook()).drawn(SystemClock()):
        await anyio.sleep(0.05)
        quiet = len(published)
        service.go("refused by <proxy>")
        await anyio.sleep(0.05)
        service.wait(7)
        await anyio.sleep(0.05)
        service.come_back()
        await anyio.sleep(0.05)

    texts = [data["text/plain"].splitlines()[1] for data in published[quiet:]]
    assert quiet == 1
    assert texts == [
        "no answer for 0 s: refused by <proxy>; trying again",
        "no answer for 7 s: refused by <proxy>; trying again",
        "answers again after 7 s",
    ]
    assert "no answer for 7 s: refused by &lt;proxy&gt;; trying again" in published[quiet + 1]["text/html"]


def test_a_card_without_a_notice_is_as_before(service: Service) -> None:
    """It has no empty box."""
    assert "border-left" not in to_html(service.display().summary())


def outage_update(seconds: int, *, is_over: bool = False, problem: str = "Connection refused") -> ProgressUpdate:
    return ProgressUpdate("connection to http://x/rs/", seconds, 0, "seconds", 0, is_over, problem)


def test_progress_bars_have_a_line_for_a_service_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """At its beginning and its end, with and without other work."""
    bars = ProgressBars()
    for second in range(5, 30):
        bars(outage_update(second))
    bars(outage_update(30, is_over=True, problem=""))
    alone = capsys.readouterr().err
    bars(ProgressUpdate("files of x", 0, 2, "files", 0, False))
    bars(outage_update(5))
    bars(outage_update(6, is_over=True, problem=""))
    bars(ProgressUpdate("files of x", 2, 2, "files", 10, True))

    assert [line.partition("  ")[2] for line in alone.splitlines()] == [
        "no answer from http://x/rs/ for 5 s: Connection refused; trying again",
        "http://x/rs/ answers again after 5 s",  # by the clock: the updates came at once
    ]
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        "files",
        "no",
        "http://x/rs/",
        "files",
    ]


def test_progress_bars_leave_the_outage_to_a_display_of_runs(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is shown once."""
    display, bars = service.display(Log()), ProgressBars()
    display.draw()
    capsys.readouterr()

    bars(outage_update(5))
    bars(outage_update(6, is_over=True, problem=""))

    assert capsys.readouterr().err == ""
    display.close()


def test_an_outage_that_nothing_waits_for_any_more_leaves_the_bars(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not said to be over."""
    bars = ProgressBars()
    bars(outage_update(5))
    bars(outage_update(6, is_over=True))

    assert "again after" not in capsys.readouterr().err


def test_messages_know_whether_a_display_shows_outages(service: Service) -> None:
    """From its first drawing until it is closed; a display that is told of none does not count."""
    other = LiveDisplay("run", ("run", "state"), Log())
    display = service.display(Log())
    states = [is_outage_shown()]
    for step in (other.draw, display.draw, other.close, display.close):
        step()
        states.append(is_outage_shown())

    assert states == [False, False, True, True, False]
