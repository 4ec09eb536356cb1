"""The event loop of a blocking client, without a client."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import anyio.lowlevel
import pytest

from st4sd_async import St4sdError
from st4sd_async._sync.portal import BlockingCall, EventLoopThread, Portal, _close_all

from .conftest import loops


class Manager:
    """An asynchronous context manager that may fail when it is entered or exited."""

    def __init__(self, *, entering: Exception | None = None, exiting: Exception | None = None) -> None:
        self._entering, self._exiting = entering, exiting
        self.events: list[str] = []

    async def __aenter__(self) -> Manager:
        if self._entering:
            raise self._entering
        self.events.append("entered")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.events.append("exited")
        if self._exiting:
            raise self._exiting


async def nothing() -> int:
    return 1


VARIABLE: ContextVar[str] = ContextVar("variable")


def test_calls_see_the_context_variables_of_their_thread() -> None:
    """Each call those of its own thread."""

    async def read() -> str:
        return VARIABLE.get("unset")

    portal = Portal(Manager())
    first = portal.call(read())
    token = VARIABLE.set("outer")
    second = portal.call(read())
    VARIABLE.reset(token)
    third = portal.call(read())
    portal.close()

    assert [first, second, third] == ["unset", "outer", "unset"]


def test_calls_begin_if_sniffio_is_installed() -> None:
    """anyio then finds its event loop by a context variable, which the calling thread lacks or has for its own loop."""
    sniffio = pytest.importorskip("sniffio")
    portal = Portal(Manager())
    first = portal.call(nothing())
    token = sniffio.current_async_library_cvar.set("trio")
    try:
        second = portal.call(nothing())
        portal.close()
    finally:
        sniffio.current_async_library_cvar.reset(token)

    assert [first, second] == [1, 1]


def test_closing_raises_the_error_of_the_client() -> None:
    """Once, and unchanged; the thread ends all the same."""
    portal = Portal(Manager(exiting=OSError("the disk")))
    assert portal.call(nothing()) == 1

    with pytest.raises(OSError, match="the disk"):
        portal.close()
    portal.close()
    assert not loops()


def test_one_task_enters_and_exits_a_context() -> None:
    """A cancel scope must be exited where it was entered, so this would fail if two tasks did it."""

    class Scope(Manager):
        async def __aenter__(self) -> Manager:
            self._scope = anyio.CancelScope().__enter__()
            return await super().__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            self._scope.__exit__(None, None, None)
            await super().__aexit__(*error)

    portal = Portal(Manager())
    inner, failing = Scope(), Scope(exiting=OSError("exited"))
    portal.exit(portal.enter(inner))
    context = portal.enter(failing)
    with pytest.raises(OSError, match="exited"):
        portal.exit(context)
    with pytest.raises(OSError, match="entered"):
        portal.enter(Manager(entering=OSError("entered")))
    last = Manager()
    context = portal.enter(last)
    portal.close()
    portal.exit(context)

    assert inner.events == failing.events == last.events == ["entered", "exited"]


def test_a_loop_that_is_stopped_before_it_starts_ends() -> None:
    """The garbage collector may come between two lines."""
    manager = Manager()
    loop = EventLoopThread(manager)
    loop.stop()
    loop.start()
    loop.join(15)

    assert not loops()
    with pytest.raises(St4sdError, match="closed"):
        loop.call(nothing())
    loop.stop()


def test_a_call_that_is_cancelled_before_it_begins_stops_at_its_first_await() -> None:
    """The waiting thread gets an error that says that the client is closed."""
    steps = []

    async def work() -> None:
        steps.append("begun")
        await anyio.lowlevel.checkpoint()
        steps.append("done")

    call = BlockingCall(work())
    call.cancel()
    anyio.run(call.run)

    assert call.has_ended
    assert call.wait(0)
    assert steps == ["begun"]
    with pytest.raises(St4sdError, match="this client is closed"):
        call.result()


def test_a_generator_may_be_closed_after_its_client() -> None:
    """The loop closed the stream with itself."""
    closed = threading.Event()

    async def count() -> AsyncGenerator[int]:
        try:
            for number in range(3):
                yield number
        finally:
            closed.set()

    portal = Portal(Manager())
    numbers = portal.iterate(count(), str)
    assert next(numbers) == "0"
    portal.close()
    assert closed.is_set()
    numbers.close()


def test_everything_is_closed_when_the_interpreter_exits() -> None:
    """In order, and then no call is accepted."""
    manager, inner = Manager(), Manager()
    portal = Portal(manager)
    portal.enter(inner)

    _close_all()

    assert (inner.events, manager.events) == (["entered", "exited"],) * 2
    assert not loops()
    with pytest.raises(St4sdError, match="closed"):
        portal.call(nothing())
