"""
Call the asynchronous client from blocking code. Its event loop runs in its own thread.

anyio's `BlockingPortal` is not enough. Its thread keeps the interpreter from exiting if the client is not closed. A
cancelled future does not report the result of work that ends a moment later, such as a start that was sent. Its frames
and those of `concurrent.futures` would be in every traceback.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import anyio
from anyio.abc import TaskStatus

from .._errors import St4sdError
from .._http.session import FORKED
from .._util.interrupts import explain_interrupt

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

CANCEL_TIMEOUT = 5.0
"""Seconds to wait for cancelled work to end, and for an event loop to end when the interpreter exits."""
WAKE_UP_INTERVAL = 0.25
"""Seconds after which a waiting thread wakes up: on Windows, Ctrl-C does not interrupt a wait without a timeout."""
CLOSED = "this client is closed: create another one, or keep the work inside its 'with' block"
IN_OWN_LOOP = (
    "a blocking client cannot wait in its own event loop, in which Config.progress and async providers are called"
)

_END: Any = object()


class Portal:
    """
    Runs calls of any number of threads in the event loop of their client.

    The first call opens the client. It is closed by `close`, by the garbage collector, and when the interpreter exits.
    The event loop is a separate object, because its thread would keep this object alive.
    """

    def __init__(self, client: AbstractAsyncContextManager[Any]) -> None:
        self._client = client
        self._lock, self._process = threading.RLock(), os.getpid()
        self._loop: EventLoopThread | None = None
        self._is_closed = False
        self.clients: WeakValueDictionary[int, Any] = WeakValueDictionary()
        """The blocking clients of this portal, by the `id` of the asynchronous ones."""

    def open(self) -> EventLoopThread:
        """
        Open the client if necessary and return its event loop.

        Raises:
            St4sdError: The client was closed, or this is the thread of its event loop.
        """
        loop = self._loop
        if loop is not None and loop.is_forked:
            raise St4sdError(f"this client was {FORKED}: create a new one in this process")
        if loop is not None and loop.is_current:
            raise St4sdError(IN_OWN_LOOP)
        if self._process != os.getpid():  # a thread that held the lock does not exist in a forked process
            self._lock, self._process = threading.RLock(), os.getpid()
        with self._lock:
            if self._is_closed:
                raise St4sdError(CLOSED)
            if self._loop is None:
                self._loop = self._start()
            return self._loop

    def _start(self) -> EventLoopThread:
        loop = EventLoopThread(self._client)
        try:
            loop.start()
            loop.call(self._client.__aenter__()).result()
        except BaseException:
            loop.stop()
            loop.join(CANCEL_TIMEOUT)
            raise
        return loop

    def close(self) -> None:
        """Cancel calls of other threads, exit entered contexts, and close the client if it is open."""
        if self._loop is not None and self._loop.is_forked:
            return  # the client does not exist in this process
        if self._loop is not None and self._loop.is_current:
            raise St4sdError(IN_OWN_LOOP)
        with self._lock:
            self._is_closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def __del__(self) -> None:
        if self._loop is not None:
            self._loop.stop()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop, and return or raise its result."""
        try:
            loop = self.open()
        except BaseException:
            work.close()
            raise
        return loop.call(work).result()

    def iterate(self, stream: AsyncGenerator[T], convert: Callable[[T], Any]) -> Generator[Any]:
        """Yield the converted items of an asynchronous generator, and close it when this one is closed."""
        try:
            while (value := self.call(_next(stream))) is not _END:
                yield convert(value)
        finally:
            loop = self._loop
            # The garbage collector may run this in the thread of the loop, which then closes the stream itself.
            if loop is not None and not loop.is_current and not loop.is_forked:
                with suppress(St4sdError):  # the client was closed, and the stream with it
                    loop.call(stream.aclose(), CANCEL_TIMEOUT)

    def enter(self, manager: AbstractAsyncContextManager[Any]) -> EnteredContext:
        """Enter an asynchronous context manager."""
        loop = self.open()
        return self.call(loop.enter(manager))

    def exit(self, context: EnteredContext) -> None:
        """Exit it, unless closing the client already did. In a forked process it is never exited."""
        if self._loop is not None and not self._loop.is_forked:
            self.call(self._loop.exit(context))


async def _next(stream: AsyncGenerator[T]) -> T:
    return await anext(stream, _END)


class EventLoopThread:
    """
    A thread that runs an event loop until it is stopped.

    Args:
        client: Exited when the loop is stopped.
    """

    def __init__(self, client: AbstractAsyncContextManager[Any]) -> None:
        self._client = client
        self._thread = threading.Thread(target=self._run, name="st4sd-async", daemon=True)
        self._lock = threading.RLock()  # the garbage collector may call this again in the middle of a block
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: set[BlockingCall[Any]] = set()
        self._contexts: list[EnteredContext] = []
        self._is_ready = threading.Event()
        self._is_stopped = self._is_exiting = False
        self._process = os.getpid()
        self.error: Exception | None = None
        """The error that closing the client raised."""

    def start(self) -> None:
        """Start the thread, and return when the loop runs."""
        _threads.add(self)
        self._thread.start()
        self._is_ready.wait()

    def _run(self) -> None:
        try:
            # An empty context: the loop of the thread that started this one must not be found in it.
            Context().run(anyio.run, self._main)
        except Exception as error:  # pragma: no cover -- Python 3.12+ reports threads that are left at its exit
            self.error = self.error or error
        finally:
            self._is_ready.set()
            _threads.discard(self)

    async def _main(self) -> None:
        self._stopping = anyio.Event()
        self._variables = copy_context()
        self._loop = asyncio.get_running_loop()
        if self._is_stopped:
            self._stopping.set()
        # Calls are in a group of asyncio: to start a task in one of anyio takes as long as a third of a call's hop.
        async with anyio.create_task_group() as self._context_tasks, asyncio.TaskGroup() as self._call_tasks:
            self._is_ready.set()
            await self._stopping.wait()
            for call in list(self._calls):
                call.is_abandoned = self._is_exiting
                call.cancel()
            for context in self._contexts:
                context.begin_exit()
        try:
            await self._client.__aexit__(None, None, None)
        except Exception as error:  # raised by `close`
            self.error = error

    @property
    def is_current(self) -> bool:
        """Whether this is the thread of the loop."""
        return self._thread.ident == threading.get_ident()

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one in which the thread runs."""
        return os.getpid() != self._process

    def stop(self, *, exiting: bool = False) -> None:
        """
        Close everything soon. This does not wait, so that the garbage collector may call it in any thread.

        Args:
            exiting: Whether the interpreter exits. If so, waiting threads are not woken: they end with it.
        """
        self._is_exiting = exiting
        self._is_stopped = True
        if self._loop is not None and not self.is_forked:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stopping.set)

    def join(self, timeout: float | None = None) -> None:
        """Wait until everything is closed."""
        if self._thread.ident is not None and not self.is_forked:
            self._thread.join(timeout)

    def close(self) -> None:
        """Close everything, and raise the error of closing the client, if there was one."""
        with self._lock:
            self.stop()
        self.join()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> BlockingCall[T]:
        """
        Run a coroutine in the loop, and return when it has ended or the timeout has passed.

        An exception that interrupts the waiting thread, such as that of Ctrl-C, cancels the coroutine.

        Raises:
            St4sdError: The loop was stopped.
        """
        call = BlockingCall(work)
        try:
            self._submit(call)
            while not call.wait(WAKE_UP_INTERVAL if timeout is None else timeout) and timeout is None:
                pass
        except BaseException as error:
            if not self._is_stopped and self._loop is not None:
                self._loop.call_soon_threadsafe(call.cancel)
                call.wait(CANCEL_TIMEOUT)
            explain_interrupt(error, *call.notes)
            raise
        return call

    def _submit(self, call: BlockingCall[Any]) -> None:
        # Once the loop is being stopped, it may end before a new call does, and no thread would be woken.
        with self._lock:
            if self._is_stopped or self._loop is None:
                call.discard()
                raise St4sdError(CLOSED)
            # The context variables of the waiting thread, except those in which anyio keeps the name of its event loop
            # if sniffio is installed.
            context = copy_context()
            for variable, value in self._variables.items():
                context.run(variable.set, value)
            self._loop.call_soon_threadsafe(self._begin, call, context=context)

    def _begin(self, call: BlockingCall[Any]) -> None:
        self._call_tasks.create_task(self._carry_out(call))

    async def _carry_out(self, call: BlockingCall[Any]) -> None:
        self._calls.add(call)
        try:
            await call.run()
        finally:
            self._calls.discard(call)

    async def enter(self, manager: AbstractAsyncContextManager[Any]) -> EnteredContext:
        """Enter a context manager. It is exited at the latest when the loop is stopped."""
        context = EnteredContext(manager)
        await self._context_tasks.start(context.run)
        self._contexts.append(context)
        return context

    async def exit(self, context: EnteredContext) -> None:
        """Exit a context manager that was entered."""
        self._contexts.remove(context)
        await context.exit()


class BlockingCall(Generic[T]):
    """A coroutine for which a thread waits, and its result."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._values: list[T] = []
        self._error: Exception | None = None
        self._scope: anyio.CancelScope | None = None
        self._is_cancelled = False
        self.has_ended: bool = False
        """Whether the coroutine has ended."""
        self._running = threading.Lock()  # cheaper than an event, since one thread waits, and only once
        self._running.acquire()
        self.notes: list[str] = []
        """Notes on the `asyncio.CancelledError` of a cancelled coroutine."""
        self.is_abandoned = False
        """Whether the waiting thread must not be woken, because the interpreter exits."""

    async def run(self) -> None:
        """Run the coroutine and keep its result."""
        try:
            with anyio.CancelScope() as self._scope:
                if self._is_cancelled:
                    self._scope.cancel()
                try:
                    self._values.append(await self._work)
                except asyncio.CancelledError as error:
                    self.notes = getattr(error, "__notes__", [])
                    raise
        except Exception as error:  # raised by `result`, without the frame of this method
            self._error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        finally:
            if not self.is_abandoned:
                self.has_ended = True
                self._running.release()

    def wait(self, timeout: float) -> bool:
        """Wait until the coroutine has ended or the timeout has passed, and return whether it has ended."""
        # An exception of a signal may have ended an earlier wait that had acquired the lock.
        return self.has_ended or self._running.acquire(timeout=timeout)

    def cancel(self) -> None:
        """Cancel the coroutine, whether it has begun or not. Must be called in the event loop."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def discard(self) -> None:
        """Close the coroutine, which was never run."""
        self._work.close()

    def result(self) -> T:
        """Return or raise the result. Call this only once."""
        error, self._error = self._error, None
        if error is None and self._values:
            return self._values.pop()
        error = error or _add_notes(St4sdError(CLOSED), self.notes)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


class EnteredContext:
    """An asynchronous context manager that was entered. A single task enters and exits it, as cancel scopes require."""

    def __init__(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self._manager = manager
        self._exiting, self._exited = anyio.Event(), anyio.Event()
        self._error: Exception | None = None

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Enter it, report that, and exit it after `begin_exit`."""
        await self._manager.__aenter__()
        task_status.started()
        await self._exiting.wait()
        try:
            await self._manager.__aexit__(None, None, None)
        except Exception as error:  # raised by `exit`
            self._error = error
        finally:
            self._exited.set()

    def begin_exit(self) -> None:
        """Begin to exit it."""
        self._exiting.set()

    async def exit(self) -> None:
        """Exit it, and return when that is done."""
        self.begin_exit()
        await self._exited.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error


_threads: set[EventLoopThread] = set()


@atexit.register
def _close_all() -> None:
    """Close the clients that are open when the interpreter exits."""
    threads = list(_threads)
    for thread in threads:
        thread.stop(exiting=True)
    for thread in threads:
        thread.join(CANCEL_TIMEOUT)


def _add_notes(error: E, notes: Iterable[str]) -> E:
    for note in notes:
        error.add_note(note)
    return error
