"""Progress reports of long operations."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from .field_docs import document_fields

log = logging.getLogger("st4sd_async")

SECONDS = "seconds"
"""Unit of a wait for a service that is unavailable."""


@document_fields
@dataclass(frozen=True)
class ProgressUpdate:
    """The progress of an operation at one moment."""

    work: str
    """Name of the operation, such as ``files of demo-ab12cd-x7f3k2q9``; the same in all of its updates."""
    done: int
    """How many items are done or have failed."""
    total: int
    """How many items there are."""
    unit: str
    """What the items are: ``files``, ``key-outputs``, ``components``, ``runs`` or ``launches``. With ``seconds`` the
    operation waits for a service that is unavailable: ``done`` seconds so far, at most ``total``."""
    received: int
    """Bytes received so far, or sent to a bucket. Repeated transfers count again."""
    is_over: bool
    """Whether this is the last update, after success or failure."""


class Progress(Protocol):
    """
    Shows progress: any callable that takes a `ProgressUpdate`.

    It is called in the event loop when an operation starts, when an item is done, when a piece of a body arrives, and
    at the end. It must not block. If it raises, the error is logged and it is not called again for that operation.
    """

    def __call__(self, update: ProgressUpdate, /) -> None:
        """Show an update."""


class ProgressReporter:
    """Reports the progress of one operation, while its ``with`` block runs."""

    def __init__(self, progress: Progress | None, work: str, total: int, unit: str) -> None:
        self._progress = progress
        self._work, self._unit = work, unit
        self._total, self._done, self._received = total, 0, 0

    def __enter__(self) -> ProgressReporter:
        self._report()
        return self

    def __exit__(self, *_: object) -> None:
        self._report(is_over=True)

    def receive(self, size_bytes: int) -> None:
        """Count bytes that were received or sent."""
        self._received += size_bytes
        self._report()

    def finish(self, count: int = 1) -> None:
        """Count items that are done or have failed."""
        self._done += count
        self._report()

    def _report(self, *, is_over: bool = False) -> None:
        if self._progress is None:
            return
        try:
            self._progress(ProgressUpdate(self._work, self._done, self._total, self._unit, self._received, is_over))
        except Exception:  # a broken progress bar must not stop the operation
            log.warning("Config.progress raised; no more progress of %s is shown", self._work, exc_info=True)
            self._progress = None
