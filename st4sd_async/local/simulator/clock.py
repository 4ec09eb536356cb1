"""
The virtual clock of the simulator.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping


class VirtualClock:
    """A clock of virtual seconds: real seconds since its creation times a speed, plus those added by `advance`."""

    def __init__(self, speed: float = 1.0) -> None:
        if speed < 0:
            raise ValueError(f"speed must be 0 (frozen) or above, not {speed!r}")
        self._speed = speed
        self._origin = time.monotonic()
        self._added = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the virtual time in seconds."""
        with self._lock:
            return (time.monotonic() - self._origin) * self._speed + self._added

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        if seconds < 0:
            raise ValueError(f"seconds must be 0 or above, not {seconds!r}")
        with self._lock:
            self._added += seconds

    def restore(self, saved: Mapping[str, float]) -> None:
        """Continue a clock that was saved with `save`, as if it had continued since then."""
        passed = max(0.0, time.time() - saved["real"]) * saved["speed"]
        with self._lock:
            self._origin, self._added = time.monotonic(), saved["virtual"] + passed

    def save(self) -> dict[str, float]:
        """Return values for `restore`."""
        return {"virtual": self.now(), "real": time.time(), "speed": self._speed}
