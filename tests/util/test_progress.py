"""Progress reports of long operations."""

from __future__ import annotations

import logging

import pytest

from st4sd_async import Progress, ProgressUpdate
from st4sd_async._util.progress import ProgressReporter


def test_updates_have_the_progress() -> None:
    """The first when it begins, one for each piece and each thing that is done, and the last one says so."""
    updates: list[ProgressUpdate] = []

    with ProgressReporter(updates.append, "files of x", 3, "files") as work:
        work.receive(10)
        work.finish()
        work.receive(5)
        work.finish(2)

    assert [(update.done, update.received, update.is_over) for update in updates] == [
        (0, 0, False),
        (0, 10, False),
        (1, 10, False),
        (1, 15, False),
        (3, 15, False),
        (3, 15, True),
    ]
    assert {(update.work, update.total, update.unit) for update in updates} == {("files of x", 3, "files")}


def test_the_last_step_comes_after_a_failure_too() -> None:
    """With what was done by then; the error passes."""
    updates: list[ProgressUpdate] = []

    def fail() -> None:
        with ProgressReporter(updates.append, "x", 2, "files") as work:
            work.finish()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert (updates[-1].done, updates[-1].total, updates[-1].is_over) == (1, 2, True)


@pytest.mark.parametrize("fatal", [0, 1, 2], ids=["first", "middle", "last"])
def test_who_raises_is_not_called_again(fatal: int, caplog: pytest.LogCaptureFixture) -> None:
    """The operation continues, and one line in the log says why no progress is shown."""
    updates: list[ProgressUpdate] = []

    def show(update: ProgressUpdate) -> None:
        updates.append(update)
        if len(updates) == fatal + 1:
            raise OSError("no terminal")

    with caplog.at_level(logging.WARNING, "st4sd_async"), ProgressReporter(show, "files of x", 1, "files") as work:
        work.finish()

    assert len(updates) == fatal + 1
    (record,) = caplog.records
    assert record.getMessage() == "Config.progress raised an error; progress of files of x is no longer shown"
    assert record.exc_info is not None


def test_other_work_is_still_shown() -> None:
    """It is called again for the next operation."""
    updates: list[str] = []

    def show(update: ProgressUpdate) -> None:
        updates.append(update.work)
        if update.work == "a":
            raise OSError

    for name in ("a", "b"):
        with ProgressReporter(show, name, 0, "files"):
            pass

    assert updates == ["a", "b", "b"]


def test_progress_is_optional() -> None:
    """ProgressReporter without a progress is work."""
    with ProgressReporter(None, "x", 1, "files") as work:
        work.receive(1)
        work.finish()


def test_any_callable_will_do() -> None:
    """A method of an object, a function, a list's append; a update cannot be changed."""

    class Bar:
        def __call__(self, update: ProgressUpdate, /) -> None:
            self.update = update

    bar = Bar()
    progress: Progress = bar

    with ProgressReporter(progress, "x", 1, "files"):
        pass

    assert bar.update.is_over
    with pytest.raises(AttributeError):
        bar.update.done = 1  # type: ignore[misc] # on purpose
