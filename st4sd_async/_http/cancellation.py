"""
What becomes of a call that must not be repeated when it is cancelled.

It may have been carried out, so it does not end in silence: it waits a moment for the answer, and says what it knows
in a warning and in a note on the `asyncio.CancelledError`.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from .._errors import OutcomeUnknown, StartOutcomeUnknown

if TYPE_CHECKING:
    import asyncio

    from .._util.clock import Clock
    from .call import Call

T = TypeVar("T")

log = logging.getLogger("st4sd_async")

ANSWER_WAIT = 1.0
"""Seconds that a cancelled call waits for the answer to what it has sent."""


class _Sending:
    """Whether a request of a call is in flight."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.is_in_flight = False
        self.is_cancelled = False
        """Whether the call was cancelled: then no request of it is sent again."""
        self.sent_at: float | None = None
        """Wall time at which the last one got its connection; None if none was sent."""


_sending: ContextVar[_Sending | None] = ContextVar("sending", default=None)


def mark_sent() -> None:
    """Note that a request is about to be written; the transport calls this in the task of the call."""
    if sending := _sending.get():
        sending.is_in_flight, sending.sent_at = True, sending.clock.wall()


@contextmanager
def in_flight() -> Iterator[None]:
    """
    A block that sends one request; once it was answered or failed, none is in flight.

    Raises:
        CancelledError: The call was cancelled while it waited for the answer to an earlier request.
    """
    import asyncio  # not with the package, as below: it takes a tenth of the time

    sending = _sending.get()
    if sending is not None and sending.is_cancelled:
        raise asyncio.CancelledError
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException:
        _mark_over(sending)
        raise
    _mark_over(sending)


def _mark_over(sending: _Sending | None) -> None:
    if sending is not None:
        sending.is_in_flight = False


async def reported(work: Coroutine[Any, Any, T], call: Call[T], url: str, clock: Clock) -> T:
    """
    Return what a call gives that must not be repeated, and report what is known of it if it is cancelled.

    If nothing was sent, it is cancelled at once and without a word. Otherwise it waits up to `ANSWER_WAIT` for the
    answer, however often it is cancelled, and sends nothing more. Calls that are cancelled together wait together.

    Args:
        work: Carries out the call.
        call: The call.
        url: Where it is sent, for the report.
        clock: Tells when it was sent.
    """
    import asyncio

    sending, context = _Sending(clock), copy_context()
    context.run(_sending.set, sending)
    # A task of its own: cancelling reaches the innermost await of the task that is cancelled, whatever shields it.
    task = asyncio.create_task(work, context=context)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as error:
        sending.is_cancelled = True
        if sending.is_in_flight:
            await _wait(task, ANSWER_WAIT)
        task.cancel()
        await _wait(task)
        # If it was cancelled between two requests, the answer to the first says that nothing was done.
        is_reported = sending.is_in_flight or not task.cancelled()
        if is_reported and sending.sent_at is not None and (report := _report(task, call, url, sending.sent_at)):
            log.warning("%s", report, extra={"is_outcome_unknown": not _is_done(task)})
            error.add_note(report)
        raise


async def _wait(task: asyncio.Task[Any], seconds: float = float("inf")) -> None:
    """Wait until a task has ended or the time is over, whatever is cancelled meanwhile."""
    import asyncio

    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not task.done() and (left := deadline - loop.time()) > 0:
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task], timeout=None if left == float("inf") else left)
        except asyncio.CancelledError:  # again, by Task.cancel(), which no scope keeps out; the first one is raised
            pass


def _is_done(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is None


def _report(task: asyncio.Task[T], call: Call[T], url: str, sent_at: float) -> str:
    """Return what is known of a cancelled call that was sent and has ended; "" if it has done nothing."""
    cancelled = f"it was cancelled after it was sent at {datetime.fromtimestamp(sent_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if task.cancelled():
        return str(call.doubt(call.what, f"{cancelled}, and no answer came within {ANSWER_WAIT:g} s"))
    failure = task.exception()
    if isinstance(failure, OutcomeUnknown):
        return str(call.doubt(call.what, f"{cancelled}: {failure.reason}"))
    if failure is not None:
        return ""
    found = f": {task.result()!r}, which goes on" if call.doubt is StartOutcomeUnknown else ""
    return f"{call.what}{found} ({call.method} {url}: {cancelled}, and answered then)"
