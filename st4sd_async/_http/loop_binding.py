"""The event loop and process to which an open client or batch is bound."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._errors import St4sdError

if TYPE_CHECKING:
    import asyncio

FORKED = "opened before this process was forked from another one, whose connections it must not use"


class LoopBinding:
    """
    The event loop and process in which something was opened, and in which alone it can be used.

    Args:
        what: What was opened, for messages.

    Raises:
        St4sdError: No asyncio event loop is running, as under trio.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        loop = _running()
        if loop is None:
            raise St4sdError(f"{what} needs a running asyncio event loop; trio is not supported")
        self._loop, self._process = loop, os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is the event loop, in the process that opened it."""
        return _running() is self._loop  # asyncio says that none is running in a process that was forked in one

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one of the event loop."""
        return os.getpid() != self._process

    @property
    def is_over(self) -> bool:
        """Whether the event loop has ended."""
        return self._loop.is_closed()

    def check(self) -> None:
        """Raise `St4sdError` unless this is the event loop."""
        if self.is_here:
            return
        if self.is_forked:
            told = f"was {FORKED}: make one of its own in the new process"
        elif self.is_over:
            told = "was opened in an event loop that has ended: open and use it inside the same asyncio.run()"
        else:
            told = "was opened in another event loop: make one in each loop, or use st4sd_async.sync from threads"
        raise St4sdError(f"this {self._what} {told}")


def _running() -> asyncio.AbstractEventLoop | None:
    import asyncio  # not with the package: it takes a tenth of the time

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
