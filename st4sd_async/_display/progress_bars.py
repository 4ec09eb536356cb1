"""Progress bars for downloads, batches and waits."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .._util.outage import Outage
from .._util.progress import CONNECTION, SECONDS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .._util.progress import ProgressUpdate
    from .live_display import LiveDisplay, Row


class ProgressBars:
    """
    Shows the progress of downloads, batches and waits, each in its own row. Implements `Progress`.

    While a service does not respond, a line shows for how long, and why, unless another display shows it.

        client = Client("https://st4sd.example", config=Config(progress=ProgressBars()))

    In a notebook or a terminal, a table is updated in place. If it has more than a dozen rows, a notebook counts those
    that are done; a terminal shows as many as fit, for which it needs rich, which the extra ``cli`` installs.
    Elsewhere, lines on standard error report when work begins and ends.
    """

    def __init__(self) -> None:
        self._display: LiveDisplay | None = None
        self._is_open = False
        self._can_reopen: Callable[[], bool] = lambda: False
        self._updates: dict[str, ProgressUpdate] = {}
        self._outages: dict[str, Outage] = {}
        """`ProgressUpdate.work` -> outage of the service."""
        self._timer: asyncio.TimerHandle | None = None
        """Draws changes that came too soon after the last drawing."""

    def __call__(self, update: ProgressUpdate, /) -> None:
        """Show an update."""
        if update.unit == SECONDS:
            self._take_outage(update)
        else:
            self._updates[update.work] = update
            self._open().update(task_row(update))
        if self._display is None or not self._is_open:
            return
        if not self._outages and all(one.is_over for one in self._updates.values()):
            self._close(self._display)
        elif update.unit == SECONDS and update.is_over:
            self._display.draw()
        else:
            self._draw(self._display)

    def _open(self) -> LiveDisplay:
        """Return the open display, or else the last one of this notebook cell, or a new one."""
        if self._display is None or not (self._is_open or self._can_reopen()):
            from .._render.cards import Card
            from .live_display import LiveDisplay
            from .surfaces import Notebook, default_surface

            surface = default_surface()
            self._can_reopen = (lambda: surface.is_of_this_cell) if isinstance(surface, Notebook) else lambda: False
            self._display = display = LiveDisplay(
                "task",
                TASK_COLUMNS,
                surface,
                single=lambda: None if len(display) else Card(""),
                outage=lambda: next(iter(self._outages.values()), None),
                is_grouped=False,
            )
        self._is_open = True
        return self._display

    def _draw(self, display: LiveDisplay) -> None:
        """Draw now, or as soon as the display may be drawn again."""
        import asyncio

        seconds = display.draw_if_due()
        if seconds and self._timer is None:
            with suppress(RuntimeError):  # no event loop is running: drawn with a later update
                self._timer = asyncio.get_running_loop().call_later(seconds, self._draw_late, display)

    def _draw_late(self, display: LiveDisplay) -> None:
        self._timer = None
        if self._is_open and display is self._display:
            self._draw(display)

    def _close(self, display: LiveDisplay) -> None:
        if self._timer is not None:
            self._timer.cancel()
        display.close()
        self._is_open, self._timer, self._updates = False, None, {}

    def _take_outage(self, update: ProgressUpdate) -> None:
        from .._util.clock import SystemClock
        from .live_display import is_outage_shown

        outage = self._outages.get(update.work)
        if update.is_over or is_outage_shown(besides=self._display):
            self._outages.pop(update.work, None)
            if outage is not None and update.is_over and not update.problem:
                outage.end()
        elif outage is not None:
            outage.reason = update.problem
        else:
            clock, service = SystemClock(), update.work.removeprefix(CONNECTION)
            self._outages[update.work] = Outage(service, service, update.problem, clock.now() - update.done, clock)
            self._open().draw()


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
