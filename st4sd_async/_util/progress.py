"""What long work tells while it goes on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger("st4sd_async")

SECONDS = "seconds"
"""The unit of a wait for a service that is away."""


@dataclass(frozen=True)
class Step:
    """How far some work is."""

    work: str
    """What is done, as ``files of demo-ab12cd-x7f3k2q9``; the same in all steps of it."""
    done: int
    """How many are done or have failed."""
    total: int
    """How many there are."""
    unit: str
    """What they are: ``files``, ``key-outputs``, ``components``, ``runs``, ``launches``; or ``seconds``, of which
    ``done`` have been waited, and ``total`` will be at most, for a service that is away."""
    received: int
    """Bytes that came so far, or were sent to a bucket; what had to be asked for twice counts twice."""
    is_over: bool
    """Whether this is the last step, after success or failure."""


class Progress(Protocol):
    """
    Shows how far work is; any callable that takes a `Step`.

    It is called in the event loop: at the beginning of the work, whenever something is done or a
    piece of a body comes, and at the end. It must not block. What it raises is logged, and it is
    not called again for that work.
    """

    def __call__(self, step: Step, /) -> None:
        """Take note of a step."""


class Work:
    """Some work that tells how far it is; a context manager."""

    def __init__(self, progress: Progress | None, work: str, total: int, unit: str) -> None:
        self._progress = progress
        self._work, self._unit = work, unit
        self._total, self._done, self._received = total, 0, 0

    def __enter__(self) -> Work:
        self._tell()
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(is_over=True)

    def receive(self, size: int) -> None:
        """Take note of bytes that came."""
        self._received += size
        self._tell()

    def finish(self, count: int = 1) -> None:
        """Take note of what is done or has failed."""
        self._done += count
        self._tell()

    def _tell(self, *, is_over: bool = False) -> None:
        if self._progress is None:
            return
        try:
            self._progress(Step(self._work, self._done, self._total, self._unit, self._received, is_over))
        except Exception:  # whatever is wrong with a bar, the work goes on
            log.warning("progress of %s is not shown any more", self._work, exc_info=True)
            self._progress = None
