"""Progress reports of long operations."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from .field_docs import document_fields

log = logging.getLogger("st4sd_async")

SECONDS = "seconds"
"""Unit of an update about an outage of a service."""
CONNECTION = "connection to "
"""Prefix of `ProgressUpdate.work` in such an update, before the root of the service."""


@document_fields
@dataclass(frozen=True)
class ProgressUpdate:
    """The progress of an operation at one moment."""

    work: str
    """Name of the operation, such as ``files of demo-ab12cd-x7f3k2q9``; the same in all of its updates."""
    done: int
    """Number of items that are done or have failed."""
    total: int
    """Number of all items."""
    unit: str
    """The kind of items: ``files``, ``key-outputs``, ``components``, ``documents``, ``runs`` or ``launches``.

    ``seconds`` means that a service does not respond: calls have waited for ``done`` seconds, and ``total`` is 0.
    """
    received: int
    """Bytes received so far, or sent to a bucket. Repeated transfers are counted again."""
    is_over: bool
    """Whether this is the last update, after success or failure."""
    problem: str = ""
    """Why a service does not respond, if ``unit`` is ``seconds``. "" in the last update means that it responds."""


class Progress(Protocol):
    """
    Shows progress: any callable that takes a `ProgressUpdate`.

    The callable is called in the event loop when an operation starts or ends, when an item is done, and when a piece of
    a body arrives. While a service does not respond, it is called every second. It must not block. If it raises, the
    error is logged, and it is not called again for that operation.
    """

    def __call__(self, update: ProgressUpdate, /) -> None:
        """Show an update."""


class ProgressReporter:
    """Reports the progress of one operation while its ``with`` block runs."""

    def __init__(self, progress: Progress | None, work: str, total: int, unit: str) -> None:
        self._progress = progress
        self._work, self._unit = work, unit
        self._total, self._done, self._received = total, 0, 0
        self._problem = ""

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

    def wait(self, seconds: int, problem: str) -> None:
        """Report the duration and the reason of an outage of a service."""
        if (seconds, problem) != (self._done, self._problem):
            self._done, self._problem = seconds, problem
            self._report()

    def end_wait(self, problem: str) -> None:
        """Report the end of a wait for a service; an empty problem means that the service responds again."""
        self._problem = problem
        self._report(is_over=True)

    def _report(self, *, is_over: bool = False) -> None:
        if self._progress is None:
            return
        try:
            self._progress(
                ProgressUpdate(self._work, self._done, self._total, self._unit, self._received, is_over, self._problem)
            )
        except Exception:  # a broken progress bar must not stop the operation
            log.warning("Config.progress raised an error; progress of %s is no longer shown", self._work, exc_info=True)
            self._progress = None
