"""What a notebook shows of an interrupted cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def interruptible(note: Callable[[], str]) -> Iterator[None]:
    """
    Explain an interrupt or a cancellation of the block.

    Args:
        note: Returns what was interrupted and what continues, on one line.
    """
    try:
        yield
    except BaseException as error:
        from asyncio import CancelledError  # lazily: it takes a tenth of the time to import this package

        if isinstance(error, CancelledError | KeyboardInterrupt):
            explain_interrupt(error, note())
        raise


def explain_interrupt(error: BaseException, *notes: str) -> None:
    """
    Add notes to the exception of an interrupt. IPython shows them instead of the traceback.

    The traceback would be a hundred lines of the event loop, although nothing is wrong.
    """
    for note in notes:
        error.add_note(note)
    if notes:
        # Called by IPython, if an exception has it. A partial, unlike a lambda, can be pickled with the exception.
        lines = [f"{type(error).__name__}: {note}" for note in error.__notes__]
        error._render_traceback_ = partial(list, lines)  # type: ignore[attr-defined]


def is_explained(error: BaseException | None) -> bool:
    """Return whether IPython shows the notes of an exception instead of its traceback."""
    return hasattr(error, "_render_traceback_")
