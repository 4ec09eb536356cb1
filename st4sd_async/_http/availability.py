"""
Detect outages of services: each service has an `Availability`, shared by all calls of a session.

    in flight, no response for 8 s  \\
                                     >  an outage begins  ->  any response ends it
    a failure, no response since    /

An outage is reported if it has lasted for 5 s and calls wait for the service: in the log, to ``Config.progress``, and
in displays, which read `Availability.outage`. There is no task: a timer ticks while requests are in flight or an
outage lasts.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING

from .._errors import APIError, TransportError, Unauthorized
from .._util.outage import Outage
from .._util.printable import shorten
from .._util.progress import CONNECTION, SECONDS, Progress, ProgressReporter
from .retry import RETRIED_STATUSES

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from .._util.clock import Clock

log = logging.getLogger("st4sd_async")

TICK_SECONDS = 1.0
"""Seconds between two checks of a service. Displays must show an outage within 10 s, including ticks and drawing."""

SILENCE_SECONDS = 8.0
"""Seconds without a response to requests in flight after which an outage begins. Most responses take less than 1 s."""

REPORT_SECONDS = 5.0
"""Seconds until an outage is reported. Most failures are over by then."""

SILENT = "no response yet"
"""Reason of an outage in which no request has failed yet."""

MAX_REASON_LENGTH = 160
"""Maximum length of a reason."""


class Availability:
    """
    The availability of one service.

    Args:
        url: Root of the service.
        clock: Source of time for durations. The timer uses the time of the event loop, as timeouts do.
        name: Name of the service in displays; "" for the main service.
    """

    def __init__(self, url: str, clock: Clock, name: str = "") -> None:
        self.url = url
        self.has_responded: bool = False
        """Whether the service ever responded, even with a temporary failure."""
        self._clock, self._name = clock, name
        self._outage: Outage | None = None
        self._waiting: dict[WaitingCall, None] = {}
        self._reporters: list[tuple[Progress, ProgressReporter]] = []
        self._in_flight = 0
        self._sent_at = self._responded_at = clock.now()
        self._timer: asyncio.TimerHandle | None = None
        self._loop_time: Callable[[], float] = clock.now
        """Returns the time of the event loop, after the first timer was started."""
        self._is_delayed = False
        """Whether the last tick was late, and therefore skipped."""

    @property
    def outage(self) -> Outage | None:
        """The current outage, if it was reported and calls wait for the service; otherwise None."""
        return self._outage if self._outage is not None and self._outage.is_reported and self._waiting else None

    def waiting(self, progress: Progress | None, *, is_repeatable: bool = True) -> WaitingCall:
        """
        Return a context manager for a call that waits for the service, with pauses between its requests.

        Args:
            progress: Receives the outage. None means no reports.
            is_repeatable: Whether the call sends its request again if there is no response.
        """
        return WaitingCall(self, progress, is_repeatable)

    def request_sent(self) -> None:
        """Record that a request is being sent."""
        if not self._in_flight:
            self._sent_at = self._clock.now()
        self._in_flight += 1
        if self._timer is None:
            self._start_timer()

    def request_ended(self) -> None:
        """Record that a request got a response, failed or was cancelled."""
        self._in_flight -= 1

    async def pieces(self, body: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Yield the pieces of a response body as they arrive. Each piece counts as a response."""
        self.request_sent()
        try:
            async for piece in body:
                self.responded()
                self.request_ended()  # the consumer's time does not count
                yield piece
                self.request_sent()
        finally:
            self.request_ended()

    def responded(self) -> None:
        """Record a response, which ends an outage."""
        self.has_responded, self._responded_at = True, self._clock.now()
        outage, self._outage = self._outage, None
        if outage is None:
            return
        outage.end()
        if outage.is_reported:
            log.info("%s answers again after %.0f s", self.url, outage.seconds, extra={"outage": outage})
        self._close_reporters("")

    def failed(self, error: Exception, began_at: float) -> None:
        """
        Record the failure of a request that may be sent again.

        Args:
            error: The failure.
            began_at: When the request was sent, in seconds of the clock.
        """
        if self._outage is None:
            self._begin(max(began_at, self._responded_at))
        assert self._outage is not None
        self._outage.reason = reason_of(error)
        self._check()
        self._start_timer()

    def note_error(self, error: Exception, began_at: float) -> None:
        """Record the error of any call, which is a failure of the service, a response, or neither."""
        if isinstance(error, TransportError):
            if not error.permanent:
                self.failed(error, began_at)
            return
        self.has_responded = True
        if isinstance(error, APIError) and error.status in RETRIED_STATUSES:
            self.failed(error, began_at)
        elif isinstance(error, Unauthorized) or (
            isinstance(error, APIError) and error.detail and not is_internal(error)
        ):
            self.responded()
        # Pages of a proxy and internal errors are neither. A watch that continues after them calls `failed`.

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, moment: float) -> None:
        self._outage = Outage(self.url, self._name, SILENT, moment, self._clock)

    def _start_timer(self) -> None:
        if self._timer is None:
            import asyncio

            loop = asyncio.get_running_loop()
            self._timer, self._loop_time = loop.call_later(TICK_SECONDS, self._tick), loop.time

    def _tick(self) -> None:
        timer, self._timer = self._timer, None
        is_late = timer is not None and self._loop_time() - timer.when() > TICK_SECONDS
        self._is_delayed = is_late and not self._is_delayed
        if not self._is_delayed:  # if late, the event loop was blocked, and may not have read responses yet
            self._check()
        if self._in_flight or (self._outage is not None and self._waiting):
            self._start_timer()

    def _check(self) -> None:
        """Begin an outage if there are no responses, and report it if it is due."""
        silent_since = max(self._sent_at, self._responded_at)
        if self._outage is None and self._in_flight and self._clock.now() - silent_since >= SILENCE_SECONDS:
            self._begin(silent_since)
        outage = self._outage
        if outage is None or not self._waiting or outage.seconds < REPORT_SECONDS:
            return
        will_repeat = outage.reason != SILENT or any(call.is_repeatable for call in self._waiting)
        outage.next_step = "trying again" if will_repeat else "still waiting"
        if not outage.is_reported:
            outage.is_reported = True
            message = "no answer from %s for %.0f s: %s; %s"
            log.warning(message, self.url, outage.seconds, outage.reason, outage.next_step, extra={"outage": outage})
        self._tell_progress(outage)

    def _tell_progress(self, outage: Outage) -> None:
        known = [progress for progress, _ in self._reporters]
        for progress in (call.progress for call in self._waiting):
            if progress is not None and not any(progress is one for one in known):
                known.append(progress)
                work = f"{CONNECTION}{self.url}"
                self._reporters.append((progress, ProgressReporter(progress, work, 0, SECONDS)))
        for _, reporter in self._reporters:
            reporter.wait(int(outage.seconds), outage.reason)

    def _close_reporters(self, problem: str) -> None:
        reporters, self._reporters = self._reporters, []
        for _, reporter in reporters:
            reporter.end_wait(problem)

    def _began_waiting(self, call: WaitingCall) -> None:
        self._waiting[call] = None
        if self._outage is not None:
            self._start_timer()

    def _stopped_waiting(self, call: WaitingCall) -> None:
        del self._waiting[call]
        if self._outage is None or self._waiting:
            return
        # Nothing shows whether the outage continues. If reported, it lasts until a response, and is not reported again.
        self._close_reporters(self._outage.reason)
        if not self._outage.is_reported:
            self._outage = None


class WaitingCall:
    """A call that waits for a service, or a watch of many calls. A context manager."""

    __slots__ = ("_availability", "is_repeatable", "progress")

    def __init__(self, availability: Availability, progress: Progress | None, is_repeatable: bool) -> None:
        self._availability = availability
        self.progress: Progress | None = progress
        self.is_repeatable: bool = is_repeatable

    def __enter__(self) -> None:
        self._availability._began_waiting(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._availability._stopped_waiting(self)


def is_internal(error: APIError) -> bool:
    """Return whether an error is an internal error of the service."""
    return error.status is not None and error.status >= 500


def reason_of(error: Exception) -> str:
    """Return the reason in an error, without the request."""
    if isinstance(error, TransportError):
        return shorten(error.reason, MAX_REASON_LENGTH)
    if isinstance(error, APIError) and error.status is not None:
        return shorten(f"HTTP status {error.status}, {error.message}".rstrip("."), MAX_REASON_LENGTH)
    return shorten(str(error), MAX_REASON_LENGTH)
