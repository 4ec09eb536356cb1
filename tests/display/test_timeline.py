"""The time line of a batch: recorded states become bars, and nothing else does."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from st4sd_async import Client, Config, ConfigError, Launch
from st4sd_async._batch.state import State, StateChange
from st4sd_async._display.timeline import Span, levels, spans
from tests.conftest import FakeClock

if TYPE_CHECKING:
    # The tests import it, because each process of a whole run imports this file.
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection

pytestmark = pytest.mark.slow

NOW = 100.0
RUNNING = "running"


@pytest.fixture(autouse=True)
def nothing_blocks() -> None:
    """Let matplotlib block: it looks for fonts, and drawing is not expected to be asynchronous."""


@pytest.fixture(autouse=True)
def no_figure_stays() -> Iterator[None]:
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("Agg")
    yield
    pyplot.close("all")


def moments(*states: str, attempt: int = 1, begin: float = 0.0) -> list[StateChange]:
    """Return a state every ten seconds."""
    return [StateChange(attempt, str(state), begin + 10 * number) for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("noted", "bars"),
    [
        ([], []),
        (moments(State.PLANNED), [("not started", 0, NOW)]),
        (moments(State.PLANNED, State.SENDING), [("not started", 0, 10), ("waiting", 10, NOW)]),
        (moments(State.STARTED, RUNNING), [("waiting", 0, 10), ("in progress", 10, NOW)]),
        (moments(State.STARTED, RUNNING, State.SUCCEEDED), [("waiting", 0, 10), ("succeeded", 10, 20)]),
        (
            moments(State.STARTED, RUNNING, State.SUCCEEDED, State.COLLECTED),
            [("waiting", 0, 10), ("succeeded", 10, 20)],
        ),
        (moments(State.STARTED, RUNNING, State.FAILED), [("waiting", 0, 10), ("failed", 10, 20)]),
        (
            moments(State.SENDING, State.UNKNOWN, State.UNKNOWN),
            [("waiting", 0, 10), ("in doubt", 10, 20), ("in doubt", 20, NOW)],
        ),
        (moments(State.PLANNED, State.REFUSED), [("not started", 0, 10)]),
        (moments(State.COLLECTED), []),
    ],
    ids=lambda value: " ".join(one.state for one in value) if value and isinstance(value[0], StateChange) else "",
)
def test_moments_become_bars(noted: list[StateChange], bars: list[tuple[str, float, float]]) -> None:
    """A state lasts until the next one, the last one until now; nothing follows a final state."""
    assert spans(noted, NOW) == [Span(*bar) for bar in bars]


def test_a_bar_is_pale_if_the_run_was_not_seen_to_begin() -> None:
    """It covers waiting and running."""
    assert spans(moments(State.STARTED, State.DELETED), NOW) == [Span("deleted", 0, 10, is_pale=True)]
    assert spans(moments(State.STARTED), NOW) == [Span("in progress", 0, NOW, is_pale=True)]


def test_attempts_follow_each_other() -> None:
    """Only the last one may last until now."""
    first = moments(State.STARTED, RUNNING, State.FAILED)
    again = moments(State.PLANNED, State.STARTED, RUNNING, attempt=2, begin=30)

    assert [(bar.meaning, bar.begin, bar.end) for bar in spans([*again, *first], NOW)][-2:] == [
        ("waiting", 0, 10),
        ("failed", 10, 20),
    ]
    assert ("in progress", 50, NOW) in [(bar.meaning, bar.begin, bar.end) for bar in spans([*first, *again], NOW)]


def test_a_clock_that_was_set_back_draws_no_bar_backwards() -> None:
    """States are ordered by time, and now is never before the last one."""
    late = [StateChange(1, str(State.STARTED), NOW + 50)]

    assert spans(late, NOW) == []


def test_levels_count_the_launches_in_each_state() -> None:
    """Each step shows its end. A final state stays, a new attempt replaces it, and times before the chart count."""
    launches = [
        moments(State.PLANNED, State.STARTED, RUNNING, State.SUCCEEDED),
        moments(State.PLANNED, State.REFUSED),
        [*moments(State.STARTED, State.FAILED), *moments(State.PLANNED, State.SENDING, attempt=2, begin=20)],
        [],
    ]

    assert levels(launches, 0, 40, 4) == {
        "not started": [0, 1, 0, 0],
        "waiting": [1, 0, 1, 1],
        "in progress": [0, 1, 0, 0],
        "succeeded": [0, 0, 1, 1],
        "failed": [1, 0, 0, 0],
        "refused": [1, 1, 1, 1],
    }


def client(clock: FakeClock) -> Client:
    return Client("https://st4sd.example", config=Config(clock=clock))


def bars_of(axes: Axes) -> list[PolyCollection]:
    from matplotlib.collections import PolyCollection

    return [one for one in axes.collections if isinstance(one, PolyCollection)]


@pytest.mark.anyio
async def test_a_batch_is_drawn(clock: FakeClock, tmp_path: Path) -> None:
    """Each launch has a lane labelled with its key. A dollar sign in a key is not a formula. Axes can be given."""
    from matplotlib import pyplot

    async with client(clock).batch(tmp_path / "a.db") as batch:
        await batch.add(Launch(f"C${n}$", "demo") for n in range(3))
        clock.time += 60
        axes = batch.plot()
        _, own = pyplot.subplots()
        assert batch.plot(own) is own
    assert batch.plot() is not axes  # a closed batch is drawn too

    assert [label.get_text() for label in axes.get_yticklabels()] == [rf"C\${n}\$" for n in range(3)]
    (bars,) = bars_of(axes)
    assert (bars.get_label(), len(bars.get_paths())) == ("not started", 3)
    widths = [path.get_extents().width * 86400 for path in bars.get_paths()]
    assert widths == pytest.approx([60.0] * 3, abs=0.01)
    pyplot.savefig(tmp_path / "a.png")


@pytest.mark.anyio
async def test_thousands_are_drawn_as_one_collection(clock: FakeClock, tmp_path: Path) -> None:
    """Every 50th has its key as its label."""
    async with client(clock).batch() as batch:
        await batch.add(Launch(f"{n}", "demo") for n in range(2000))
        clock.time += 60
        axes = batch.plot()

    assert len(axes.collections) == 1
    assert "2,000 launches in the order" in axes.get_ylabel()
    labels = [(tick, label.get_text()) for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)]
    assert labels == [(lane, str(lane)) for lane in range(0, 2000, 50)]


@pytest.mark.anyio
async def test_moments_survive_and_older_journals_have_none(clock: FakeClock, tmp_path: Path) -> None:
    """A journal of an older version, which recorded none, is opened, and shows what is recorded from then on."""
    path = tmp_path / "a.db"
    async with client(clock).batch(path) as batch:
        await batch.add([Launch("C1", "demo")])
    clock.time += 60
    async with client(clock).batch(path) as batch:
        await batch._journal.read_history()
        kept = batch._journal.histories()["C1"]
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE moment")
    database.close()
    async with client(clock).batch(path) as batch:
        await batch.add([Launch("C2", "demo")])
        await batch._journal.read_history()
        older = dict(batch._journal.histories())
        batch.plot()

    assert kept == [StateChange(1, "planned", 1000.0)]
    assert older == {"C1": [], "C2": [StateChange(1, "planned", 1060.0)]}


@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
def test_what_earlier_processes_recorded_is_drawn(is_closed: bool, clock: FakeClock, tmp_path: Path) -> None:
    """Opening a journal leaves it in the file. Each state change is drawn once."""
    path = tmp_path / "a.db"

    async def record() -> Axes:
        async with client(clock).batch(path) as batch:
            await batch.add([Launch("C1", "demo")])
        clock.time += 60.123456789
        async with client(clock).batch(path) as batch:
            await batch.add([Launch("C2", "demo")])
            assert list(batch._journal.history) == ["C2"]
            clock.time += 60
            axes = None if is_closed else batch.plot()
        assert batch._journal.history_of("C2") == [StateChange(1, "planned", 1060.123456789)]
        return axes or batch.plot()

    axes = asyncio.run(record())

    (bars,) = bars_of(axes)
    widths = [path.get_extents().width * 86400 for path in bars.get_paths()]
    assert widths == pytest.approx([120.123, 60.0], abs=0.01)


@pytest.mark.anyio
async def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """The batch goes on."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    async with client(clock).batch() as batch:
        with pytest.raises(ConfigError, match=r'pip install "st4sd_async\[plot\]"'):
            batch.plot()


@pytest.mark.anyio
async def test_the_legend_explains_pale_bars_and_crosses(clock: FakeClock) -> None:
    """Each colour is there once, pale or not."""
    async with client(clock).batch() as batch:
        await batch.add([Launch("C1", "demo"), Launch("C2", "demo"), Launch("C3", "demo")])
        batch._journal.history = {
            "C1": moments(State.STARTED, State.SUCCEEDED),
            "C2": moments(State.STARTED, RUNNING, State.SUCCEEDED),
            "C3": moments(State.PLANNED, State.REFUSED),
        }
        legend = batch.plot().get_legend()

    assert legend is not None
    labels = [entry.get_text() for entry in legend.get_texts()]
    assert sorted(labels) == sorted(["not started", "waiting", "succeeded", "(pale: partly waiting)", "refused"])
