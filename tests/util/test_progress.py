"""What long work tells while it goes on."""

from __future__ import annotations

import logging

import pytest

from st4sd_async import Progress, Step
from st4sd_async._util.progress import Work


def test_steps_tell_how_far_it_is() -> None:
    """The first when it begins, one for each piece and each thing that is done, and the last one says so."""
    steps: list[Step] = []

    with Work(steps.append, "files of x", 3, "files") as work:
        work.receive(10)
        work.finish()
        work.receive(5)
        work.finish(2)

    assert [(step.done, step.received, step.is_over) for step in steps] == [
        (0, 0, False),
        (0, 10, False),
        (1, 10, False),
        (1, 15, False),
        (3, 15, False),
        (3, 15, True),
    ]
    assert {(step.work, step.total, step.unit) for step in steps} == {("files of x", 3, "files")}


def test_the_last_step_comes_after_a_failure_too() -> None:
    """With what was done by then; the error passes."""
    steps: list[Step] = []

    def fail() -> None:
        with Work(steps.append, "x", 2, "files") as work:
            work.finish()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert (steps[-1].done, steps[-1].total, steps[-1].is_over) == (1, 2, True)


@pytest.mark.parametrize("fatal", [0, 1, 2], ids=["first", "middle", "last"])
def test_who_raises_is_not_called_again(fatal: int, caplog: pytest.LogCaptureFixture) -> None:
    """The work goes on, and one line in the log tells why nothing is shown."""
    steps: list[Step] = []

    def show(step: Step) -> None:
        steps.append(step)
        if len(steps) == fatal + 1:
            raise OSError("no terminal")

    with caplog.at_level(logging.WARNING, "st4sd_async"), Work(show, "files of x", 1, "files") as work:
        work.finish()

    assert len(steps) == fatal + 1
    (record,) = caplog.records
    assert record.getMessage() == "progress of files of x is not shown any more"
    assert record.exc_info is not None


def test_other_work_is_still_shown() -> None:
    """Whoever raised once is asked again for the next work."""
    steps: list[str] = []

    def show(step: Step) -> None:
        steps.append(step.work)
        if step.work == "a":
            raise OSError

    for name in ("a", "b"):
        with Work(show, name, 0, "files"):
            pass

    assert steps == ["a", "b", "b"]


def test_nobody_has_to_be_told() -> None:
    """Work without a progress is work."""
    with Work(None, "x", 1, "files") as work:
        work.receive(1)
        work.finish()


def test_any_callable_will_do() -> None:
    """A method of an object, a function, a list's append; a step cannot be changed."""

    class Bar:
        def __call__(self, step: Step, /) -> None:
            self.step = step

    bar = Bar()
    progress: Progress = bar

    with Work(progress, "x", 1, "files"):
        pass

    assert bar.step.is_over
    with pytest.raises(AttributeError):
        bar.step.done = 1  # type: ignore[misc] # on purpose
