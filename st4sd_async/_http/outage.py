"""Waiting for a service that is away: the user sees it once for all calls that wait."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from math import isfinite
from typing import TYPE_CHECKING

from .._util.progress import SECONDS, ProgressReporter

if TYPE_CHECKING:
    from types import TracebackType

    from .._util.clock import Clock
    from .._util.progress import Progress

log = logging.getLogger("st4sd_async")

WARN_AFTER = 5.0
"""Seconds of waiting, or of watching without an answer, after which the user is warned once."""


class Outage:
    """What the calls to one service know together: whether it ever answered, and whether it is waited for now."""

    def __init__(self, where: str) -> None:
        self.where = where
        """Root of the service."""
        self.has_answered = False
        """Whether the service has answered before."""
        self.waiting = 0
        """How many calls wait for the service now."""
        self.is_warned = False
        """Whether this outage was logged."""
        self.is_shown = False
        """Whether the progress of one of these calls is shown."""

    def replied(self, *, is_away: bool) -> None:
        """A reply has come; ``is_away`` if it says that the service is away, else the next outage is another one."""
        self.has_answered = True
        if not is_away and not self.waiting:
            self.is_warned = False


class Waiting:
    """
    One call that waits for a service; a context manager.

    The first call that waits for more than `WARN_AFTER` seconds logs a warning for all, and shows its progress.
    """

    def __init__(self, outage: Outage, progress: Progress | None, clock: Clock, began: float) -> None:
        self._outage, self._progress, self._clock, self._began = outage, progress, clock, began
        self._work: ProgressReporter | None = None
        self._shown = 0
        self._stack = ExitStack()

    def __enter__(self) -> Waiting:
        self._outage.waiting += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        outage = self._outage
        outage.waiting -= 1
        if self._work is not None:
            outage.is_shown = False
        self._stack.close()
        if kind is None and outage.is_warned and not outage.waiting:
            outage.is_warned = False
            log.info("%s answers again after %.0f s", outage.where, self._clock.now() - self._began)

    def pause(self, seconds: float, patience: float, error: BaseException | None) -> None:
        """
        A pause begins.

        Args:
            seconds: Its length.
            patience: Seconds after which the call is given up, counted from its first attempt.
            error: What came in place of an answer.
        """
        outage, waited = self._outage, self._clock.now() - self._began
        if waited + seconds < WARN_AFTER:
            return
        if not outage.is_warned:
            outage.is_warned = True
            told = "waiting for %s, since %.0f s and for up to %.0f s in all: %s"
            log.warning(told, outage.where, waited, patience, error)
        if not outage.is_shown and self._progress is not None and isfinite(patience):
            outage.is_shown = True
            self._work = ProgressReporter(self._progress, f"waiting for {outage.where}", round(patience), SECONDS)
            self._stack.enter_context(self._work)
        if self._work is not None:
            shown, self._shown = self._shown, int(waited)
            self._work.finish(self._shown - shown)
