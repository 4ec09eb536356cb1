"""What displays in notebooks send to the browser grows linearly with the number of launches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from st4sd_async import ProgressBars, ProgressUpdate, Status
from st4sd_async._display.live_display import LiveDisplay, Row
from st4sd_async._display.show import COLUMNS, run_row, staged_row
from st4sd_async._display.surfaces import REDRAW_INTERVAL, default_surface
from st4sd_async._render.cards import Badge, Tone
from tests.tries import tries

pytestmark = pytest.mark.slow

MANY = tries(400, 200)
MAX_BYTES = tries(1_000_000, 600_000)
SECONDS_BETWEEN_CHANGES = 0.3
"""Each change comes after a pause in which the display may be drawn, so that only its budget limits it."""
STATES: list[dict[str, object]] = [
    {},
    {"experiment-state": "Initialising", "exit-status": "N/A"},
    {"experiment-state": "running", "exit-status": "N/A", "current-stage": "stage0", "total-progress": 0.4},
    {"experiment-state": "finished", "exit-status": "Failed"},
]


def progress_bars_of_a_batch(count: int) -> None:
    """A batch that downloads the outputs of each launch."""
    bars = ProgressBars()
    for number in range(count):
        bars(ProgressUpdate("launches in campaign.db", number, count, "launches", 0, False))
        for done in (0, 1):
            bars(ProgressUpdate(f"key-outputs of demo-{number}", done, 1, "key-outputs", 900 * done, bool(done)))
    bars(ProgressUpdate("launches in campaign.db", count, count, "launches", 0, True))


def progress_bars_one_after_the_other(count: int) -> None:
    """A download for each run, in a loop in one cell."""
    bars = ProgressBars()
    for number in range(count):
        for done in (0, 1):
            bars(ProgressUpdate(f"files of demo-{number}", done, 1, "files", 900 * done, bool(done)))


def rows_of_runs(count: int) -> None:
    """A display of runs, one after the other in each state, each with a reason of its own."""
    display = LiveDisplay("run", COLUMNS, default_surface())
    for reply in STATES:
        for number in range(count):
            problem = {"error-description": f"Job: stage0.C{number}. Returncode 3"} if reply else {}
            status = Status.model_validate(reply | problem)
            display.update(staged_row(run_row(f"demo-{number}", status), status))
            display.draw_if_due()
    display.close()


@pytest.mark.parametrize("display", [progress_bars_of_a_batch, progress_bars_one_after_the_other, rows_of_runs])
def test_what_is_sent_is_linear(
    display: Callable[[int], None], shell: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 launches cost less than a megabyte, and no more than twice as much as 200, however slowly they change."""
    now = time.monotonic()

    def tick() -> float:
        nonlocal now
        if threading.current_thread() is threading.main_thread():  # threads of other tests read it too
            now += SECONDS_BETWEEN_CHANGES / 4  # it is read several times for a change
        return now

    monkeypatch.setattr(time, "monotonic", tick)
    sent = {}
    for count in (MANY // 4, MANY // 2, MANY):
        shell.clear()
        display(count)
        sent[count] = sum(len(text) for message in shell for text in message["data"].values())

    assert sent[MANY] < MAX_BYTES
    assert sent[MANY] - sent[MANY // 2] < 2.5 * (sent[MANY // 2] - sent[MANY // 4])


def test_one_cell_has_one_output_for_all_tasks(shell: list[dict[str, Any]]) -> None:
    """A hundred downloads, one after the other, share a table, in which the finished ones are counted."""
    bars = ProgressBars()

    for number in range(100):
        for done in (0, 1):
            bars(ProgressUpdate(f"files of demo-{number}", done, 1, "files", 0, bool(done)))

    assert len({message["transient"]["display_id"] for message in shell}) == 1
    assert shell[-1]["data"]["text/plain"] == "100 tasks  100 done"


def test_unfinished_tasks_have_rows_and_the_others_are_counted(shell: list[dict[str, Any]]) -> None:
    """So the row of a batch is visible among hundreds of finished downloads."""
    bars = ProgressBars()

    bars(ProgressUpdate("launches in campaign.db", 0, 100, "launches", 0, False))
    for number in range(40):
        bars(ProgressUpdate(f"files of demo-{number}", 1, 1, "files", 0, True))
    assert bars._display is not None
    bars._display.draw()

    lines = shell[-1]["data"]["text/plain"].splitlines()
    assert [line.partition("  ")[0] for line in lines[2:]] == ["launches in campaign.db", "... and 40 more: 40 done"]

    bars(ProgressUpdate("launches in campaign.db", 100, 100, "launches", 0, True))
    assert shell[-1]["data"]["text/plain"] == "41 tasks  41 done"


def test_tasks_keep_their_places_and_widths(shell: list[dict[str, Any]]) -> None:
    """The batch, which began first, stays the first row. No bar counts it as one task of many: it would be wrong."""
    bars, files = ProgressBars(), [f"files of demo-{number}" for number in range(30)]

    for number, work in enumerate(files):
        bars(ProgressUpdate("launches in campaign.db", number, 400, "launches", 0, False))
        bars(ProgressUpdate(work, int(number < 28), 1, "files", 0, number < 28))
    assert bars._display is not None
    bars._display.draw()
    lines, html = shell[-1]["data"]["text/plain"].splitlines(), shell[-1]["data"]["text/html"]
    for work in ("launches in campaign.db", *files[28:]):
        bars(ProgressUpdate(work, 1, 1, "files", 0, True))

    names = [line.partition("  ")[0] for line in lines[2:]]
    assert names == ["launches in campaign.db", *files[28:], "... and 28 more: 28 done"]
    assert "width:420px" not in html
    assert all(f"min-width:{width}" in html for width in ("10em", "5em"))


def test_elapsed_times_grow_each_second_at_first(shell: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Later they grow more slowly, so that changes are still shown at once."""
    now = began_at = time.time()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "time", lambda: now)
    surface = default_surface()
    display = LiveDisplay("launch", COLUMNS, surface)
    for number in range(6):
        display.update(Row(f"mol-{number}", Badge("no status yet", Tone.QUIET), ("", ""), began_at=began_at))
    display.draw()

    drawn_at = []
    for _ in range(600):
        now += 1
        if surface.shows_time and display.draw_if_due() == 0:
            drawn_at.append(round(now - began_at))

    assert drawn_at[:10] == list(range(1, 11))
    assert len(drawn_at) < 100
    assert surface.interval == REDRAW_INTERVAL
