"""Clients that send only the requests of a test, and a clock whose pauses never end."""

from __future__ import annotations

from typing import Any

import anyio

from st4sd_async import Client, Config, RetryPolicy
from tests.conftest import FakeClock

SILENCE = 0.25
"""Seconds of real time after which a server is given up that a test makes silent."""

PATIENCE = 5.0
"""Seconds of real time that all others have, so that a busy machine is not taken for a fault."""


class StandingClock(FakeClock):
    """Time whose pauses never end."""

    async def sleep(self, seconds: float) -> None:
        """Note the pause and wait until somebody cancels it."""
        self.slept.append(seconds)
        await anyio.sleep_forever()


def settings(clock: FakeClock | None = None, **changes: Any) -> Config:
    """Settings under which nothing is asked at the door and no pause takes time."""
    given = {"validate": False, "timeout": PATIENCE, "retry": RetryPolicy(attempts=2), **changes}
    return Config(clock=clock or FakeClock(), **given)


def connect(url: str, clock: FakeClock | None = None, **changes: Any) -> Client:
    """A client without credentials, with those settings."""
    return Client(url, config=settings(clock, **changes))
