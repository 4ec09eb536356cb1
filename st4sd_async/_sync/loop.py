"""The event loop of a blocking client: a thread of its own, in which the asynchronous client lives."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal

from .._errors import St4sdError

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

PATIENCE = 5.0
"""Seconds that are waited for work to end that was cancelled, and at the exit of the interpreter."""
GLANCE = 0.25
"""Seconds after which a wait is looked up from: on Windows Ctrl-C does not wake a thread that waits."""
CLOSED = "this client is closed: make another one, or keep the work inside its 'with' block"

_loops: set[Loop] = set()


def _with_notes(error: E, notes: Iterable[str]) -> E:
    """Return an error with more notes."""
    for note in notes:
        error.add_note(note)
    return error


class Call(Generic[T]):
    """Work that a thread waits for, and what came of it."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._values: list[T] = []
        self._error: Exception | None = None
        self._scope: anyio.CancelScope | None = None
        self._is_cancelled = False
        self.is_over = threading.Event()
        self.notes: list[str] = []
        """What there is to say of work that was cancelled."""
        self.is_forgotten = False
        """Whether nobody is to be told, because the interpreter ends."""

    async def __call__(self) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                if self._is_cancelled:
                    self._scope.cancel()
                try:
                    self._values.append(await self._work)
                except asyncio.CancelledError as error:
                    self.notes = getattr(error, "__notes__", [])
                    raise
        except Exception as error:  # raised by `result`, where the frame of this method would tell nothing
            self._error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        finally:
            if not self.is_forgotten:
                self.is_over.set()

    def cancel(self) -> None:
        """Break it off, begun or not; to be called in the event loop."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def drop(self) -> None:
        """Never begin it."""
        self._work.close()

    def result(self) -> T:
        """What it gave or raised, to be taken once."""
        error, self._error = self._error, None
        if error is None and self._values:
            return self._values.pop()
        error = error or _with_notes(St4sdError(CLOSED), self.notes)
        try:
            raise error
        finally:
            del error  # it knows this frame


class Stay:
    """The inside of an asynchronous context manager, which a task enters and leaves, because both have to be one."""

    def __init__(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self._manager = manager
        self._leave, self._left = anyio.Event(), anyio.Event()
        self._error: Exception | None = None

    async def __call__(self, *, task_status: TaskStatus[None]) -> None:
        await self._manager.__aenter__()
        task_status.started()
        await self._leave.wait()
        try:
            await self._manager.__aexit__(None, None, None)
        except Exception as error:  # raised by `end`
            self._error = error
        finally:
            self._left.set()

    def leave(self) -> None:
        """Begin to leave."""
        self._leave.set()

    async def end(self) -> None:
        """Leave, and return when that is done."""
        self.leave()
        await self._left.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error


class Loop:
    """A thread that runs an event loop until it is left."""

    def __init__(self, client: AbstractAsyncContextManager[Any]) -> None:
        self._client = client
        self._thread = threading.Thread(target=self._run, name="st4sd-async", daemon=True)
        self._lock = threading.RLock()  # the garbage collector may come back in the middle of it
        self._native: asyncio.AbstractEventLoop | None = None
        self._calls: set[Call[Any]] = set()
        self._stays: list[Stay] = []
        self._is_up = threading.Event()
        self._is_left = self._is_exiting = False
        self._process = os.getpid()
        self.error: Exception | None = None
        """What went wrong when the client was closed."""

    def start(self) -> None:
        """Start the thread."""
        _loops.add(self)
        self._thread.start()
        self._is_up.wait()

    def _run(self) -> None:
        try:
            # Of the thread that made it, the loop inherits nothing: there may be another loop in it.
            Context().run(anyio.run, self._main)
        except Exception as error:  # pragma: no cover -- Python 3.12+ clears no threads away at its exit, and says so
            self.error = self.error or error
        finally:
            self._is_up.set()
            _loops.discard(self)

    async def _main(self) -> None:
        self._leaving = anyio.Event()
        self._native = asyncio.get_running_loop()
        if self._is_left:
            self._leaving.set()
        async with BlockingPortal() as self._portal:
            async with anyio.create_task_group() as self._group:
                self._is_up.set()
                await self._leaving.wait()
                for call in list(self._calls):
                    call.is_forgotten = self._is_exiting
                    call.cancel()
                for stay in self._stays:
                    stay.leave()
            try:
                await self._client.__aexit__(None, None, None)
            except Exception as error:  # raised by `Portal.close`
                self.error = error
            await self._portal.stop(cancel_remaining=True)

    @property
    def is_here(self) -> bool:
        """Whether this is the thread."""
        return self._thread.ident == threading.get_ident()

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from that of the thread, which then is not here."""
        return os.getpid() != self._process

    def leave(self, *, exiting: bool = False) -> None:
        """
        Close everything soon; waits for nothing, so that the garbage collector may call it, in any thread.

        Args:
            exiting: Whether the interpreter ends, and with it the threads that wait, which then stay as they are.
        """
        self._is_exiting = exiting
        self._is_left = True
        if self._native is not None and not self.is_forked:
            with suppress(RuntimeError):  # it is over already
                self._native.call_soon_threadsafe(self._leaving.set)

    def join(self, timeout: float | None = None) -> None:
        """Return when everything is closed."""
        if self._thread.ident is not None and not self.is_forked:
            self._thread.join(timeout)

    def close(self) -> None:
        """Close everything, and raise what went wrong."""
        with self._lock:
            self.leave()
        self.join()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> Call[T]:
        """
        Some work, when it is over, or as it is when it takes longer than this.

        Whatever is raised in the thread that waits, as by Ctrl-C, breaks the work off.
        """
        call = Call(work)
        try:
            self._begin(call)
            while not call.is_over.wait(GLANCE if timeout is None else timeout) and timeout is None:
                pass
        except BaseException as error:
            if not self._is_left and self._native is not None:
                self._native.call_soon_threadsafe(call.cancel)
                call.is_over.wait(PATIENCE)
            _with_notes(error, call.notes)
            raise
        return call

    def _begin(self, call: Call[Any]) -> None:
        # Nothing begins once the loop is being left: its last turn may be over, and then nobody would ever answer.
        with self._lock:
            if self._is_left:
                call.drop()
                raise St4sdError(CLOSED)
            self._portal.start_task_soon(self._carry_out, call)

    async def _carry_out(self, call: Call[Any]) -> None:
        self._calls.add(call)
        try:
            await call()
        finally:
            self._calls.discard(call)

    async def enter(self, manager: AbstractAsyncContextManager[Any]) -> Stay:
        """Enter a context manager, which is left with the loop at the latest."""
        stay = Stay(manager)
        await self._group.start(stay)
        self._stays.append(stay)
        return stay

    async def exit(self, stay: Stay) -> None:
        """Leave what was entered."""
        self._stays.remove(stay)
        await stay.end()


@atexit.register
def _leave() -> None:
    """Close what nobody closed."""
    loops = list(_loops)
    for loop in loops:
        loop.leave(exiting=True)
    for loop in loops:
        loop.join(PATIENCE)
