"""What the tests of faults share: time whose pauses never end, clients that ask only what a test asks."""

from __future__ import annotations

from collections.abc import Iterator
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


def exceptions_in(error: BaseException) -> Iterator[BaseException]:
    """An exception and all others that can be reached from it by cause, context, arguments and attributes."""
    yield from (value for value in reachable(error) if isinstance(value, BaseException))


def reachable(root: object) -> Iterator[object]:
    """Whatever a debugger finds below an object: attributes, arguments, items; not the frames of tracebacks."""
    todo, met = [root], set()
    while todo:
        value = todo.pop()
        if id(value) in met or isinstance(value, type) or callable(value):
            continue
        met.add(id(value))
        yield value
        if isinstance(value, BaseException):
            todo += [value.__cause__, value.__context__, *value.args]
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            todo += value
        todo += vars(value).values() if hasattr(value, "__dict__") else ()


def assert_ours(error: BaseException) -> None:
    """Fail if an exception is not one of ours, or leads to one of the HTTP engine's."""
    found = {type(one).__module__.split(".")[0] for one in exceptions_in(error)}
    assert found <= {"st4sd_async"}, found
