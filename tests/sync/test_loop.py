"""The event loop behind a blocking client, by itself."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any

import anyio.lowlevel
import pytest

from st4sd_async import St4sdError
from st4sd_async._sync.loop import CLOSED, Call, Loop, _leave
from st4sd_async._sync.portal import Portal

from .conftest import loops


class Manager:
    """An asynchronous context manager whose beginning and end may fail."""

    def __init__(self, *, entering: Exception | None = None, leaving: Exception | None = None) -> None:
        self._entering, self._leaving = entering, leaving
        self.events: list[str] = []

    async def __aenter__(self) -> Manager:
        if self._entering:
            raise self._entering
        self.events.append("entered")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.events.append("left")
        if self._leaving:
            raise self._leaving


async def nothing() -> int:
    return 1


def test_what_goes_wrong_at_the_end_is_raised_by_who_ends_it() -> None:
    """As it is, once, and the thread is gone all the same."""
    portal = Portal(Manager(leaving=OSError("the disk")))
    assert portal.call(nothing()) == 1

    with pytest.raises(OSError, match="the disk"):
        portal.close()
    portal.close()
    assert not loops()


def test_what_was_entered_is_left_in_its_own_task() -> None:
    """A cancel scope must be left where it was entered, so this would fail if two calls did it."""

    class Scope(Manager):
        async def __aenter__(self) -> Manager:
            self._scope = anyio.CancelScope().__enter__()
            return await super().__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            self._scope.__exit__(None, None, None)
            await super().__aexit__(*error)

    portal = Portal(Manager())
    inner, failing = Scope(), Scope(leaving=OSError("left"))
    portal.exit(portal.enter(inner))
    stay = portal.enter(failing)
    with pytest.raises(OSError, match="left"):
        portal.exit(stay)
    with pytest.raises(OSError, match="entered"):
        portal.enter(Manager(entering=OSError("entered")))
    last = Manager()
    stay = portal.enter(last)
    portal.close()
    portal.exit(stay)

    assert inner.events == failing.events == last.events == ["entered", "left"]


def test_a_loop_that_is_left_before_it_begins_ends() -> None:
    """As when the collector comes between two lines."""
    manager = Manager()
    loop = Loop(manager)
    loop.leave()
    loop.start()
    loop.join(15)

    assert not loops()
    with pytest.raises(St4sdError, match="closed"):
        loop.call(nothing())
    loop.leave()


def test_work_that_is_broken_off_before_it_begins_does_not_begin() -> None:
    """It gets no further than its first wait, and whoever asks is told that the client is closed."""
    steps = []

    async def work() -> None:
        steps.append("begun")
        await anyio.lowlevel.checkpoint()
        steps.append("done")

    call = Call(work())
    call.cancel()
    anyio.run(call)

    assert call.is_over.is_set()
    assert steps == ["begun"]
    with pytest.raises(St4sdError, match=CLOSED[:20]):
        call.result()


def test_a_stream_that_ends_after_its_client_is_no_trouble() -> None:
    """What the loop closed with itself is not closed again."""
    closed = threading.Event()

    async def count() -> AsyncGenerator[int]:
        try:
            for number in range(3):
                yield number
        finally:
            closed.set()

    portal = Portal(Manager())
    steps = portal.steps(count(), str)
    assert next(steps) == "0"
    portal.close()
    assert closed.is_set()
    steps.close()


def test_the_exit_of_the_interpreter_leaves_what_is_open() -> None:
    """Everything is closed in its order."""
    manager, inner = Manager(), Manager()
    portal = Portal(manager)
    portal.enter(inner)

    _leave()

    assert (inner.events, manager.events) == (["entered", "left"],) * 2
    assert not loops()
    with pytest.raises(St4sdError, match="closed"):
        portal.call(nothing())
