"""Progress bars for downloads, batches and waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._util.progress import ProgressUpdate
    from .live_display import LiveDisplay, Row


class ProgressBars:
    """
    Shows the progress of downloads, batches and waits, each in its own row. Implements `Progress`.

        client = Client("https://st4sd.example", config=Config(progress=ProgressBars()))

    A notebook or a terminal shows a table that is updated in place. In a terminal this needs rich, which the extra
    ``cli`` installs. Elsewhere, lines on standard error report when work begins and ends.
    """

    def __init__(self) -> None:
        self._display: LiveDisplay | None = None
        self._updates: dict[str, ProgressUpdate] = {}

    def __call__(self, update: ProgressUpdate, /) -> None:
        """Show an update."""
        if self._display is None:
            from .live_display import LiveDisplay
            from .surfaces import default_surface

            self._display = LiveDisplay("task", TASK_COLUMNS, default_surface())
        self._updates[update.work] = update
        self._display.update(task_row(update))
        if all(one.is_over for one in self._updates.values()):
            self._display.close()
            self._display, self._updates = None, {}
        elif update.is_over:
            self._display.draw()
        else:
            self._display.draw_if_due()


TASK_COLUMNS = ("task", "state", "progress", "done", "received")


def task_row(update: ProgressUpdate) -> Row:
    """Return the row of a task."""
    from .._render.cards import Badge, Bar, Tone, format_size
    from .live_display import Row

    is_complete = update.done >= update.total
    badge = Badge("in progress", Tone.BUSY)
    if update.is_over:
        badge = Badge("done", Tone.GOOD) if is_complete else Badge("incomplete", Tone.BAD)
    bar = Bar(1.0 if is_complete else update.done / update.total, badge.tone)
    done = f"{update.done:,} of {update.total:,} {update.unit}"
    return Row(update.work, badge, (bar, done, format_size(update.received) if update.received else ""))
