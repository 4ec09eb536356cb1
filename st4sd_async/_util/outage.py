"""An outage of a service, for displays and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .field_docs import document_fields

if TYPE_CHECKING:
    from .clock import Clock

MINUTE, HOUR = 60, 3600
LONGEST_IN_SECONDS = 2 * MINUTE
"""Seconds from which a duration is given in minutes."""


@document_fields
class Outage:
    """
    A period in which a service does not respond while calls wait for it. The object changes over time.

        >>> str(client.outage)
        'no answer for 12 s: Connection refused; trying again'

    After its end, ``str(client.outage)`` is ``answers again after 34 s``.
    """

    url: str
    """Root of the service."""
    reason: str
    """Why the service does not respond, such as ``Connection refused``."""
    is_over: bool
    """Whether the service responds again."""

    def __init__(self, url: str, name: str, reason: str, began_at: float, clock: Clock) -> None:
        self.url, self.reason, self.is_over = url, reason, False
        self.began_at = began_at
        """When the first request without a response was sent, in seconds of ``Config.clock``."""
        self.is_reported = False
        """Whether the outage was reported."""
        self.next_step = "trying again"
        """What waiting calls do: ``trying again`` or, if none of them may be repeated, ``still waiting``."""
        self._name, self._clock = name, clock
        self._ended_at = 0.0

    def end(self) -> None:
        """Record that the service responds again."""
        self.is_over, self._ended_at = True, self._clock.now()

    @property
    def seconds(self) -> float:
        """Duration in seconds, until now or until the end of the outage."""
        return (self._ended_at if self.is_over else self._clock.now()) - self.began_at

    def __str__(self) -> str:
        duration = format_duration(self.seconds)
        if self.is_over:
            return " ".join(filter(None, (self._name, f"answers again after {duration}")))
        source = f" from {self._name}" if self._name else ""
        return f"no answer{source} for {duration}: {self.reason}; {self.next_step}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, {str(self)!r})"


def format_duration(seconds: float) -> str:
    """Return a duration as ``12 s``, ``5 min`` or ``2 h 5 min``."""
    whole = int(seconds)
    if whole < LONGEST_IN_SECONDS:
        return f"{whole} s"
    hours, minutes = divmod(whole // MINUTE, MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
