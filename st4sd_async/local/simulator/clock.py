"""
The virtual time of the simulator.
"""

from __future__ import annotations

import threading
import time


class VirtualClock:
    """Seconds since the server was made: real ones times a speed, plus those that were added."""

    def __init__(self, speed: float = 1.0) -> None:
        if speed < 0:
            raise ValueError(f"speed must be 0 (frozen) or above, not {speed!r}")
        self._speed = speed
        self._origin = time.monotonic()
        self._added = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """The virtual time in seconds."""
        with self._lock:
            return (time.monotonic() - self._origin) * self._speed + self._added

    def advance(self, seconds: float) -> None:
        """Move the time on at once; it never goes back."""
        if seconds < 0:
            raise ValueError(f"time only goes forward, not by {seconds!r} s")
        with self._lock:
            self._added += seconds
