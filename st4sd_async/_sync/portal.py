"""The way from threads that block into the event loop of their client."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from .._errors import St4sdError
from .._http.loop_binding import FORKED
from .loop import CLOSED, PATIENCE, Loop, Stay

T = TypeVar("T")

INSIDE = "a blocking client cannot wait in its own event loop, in which Config.progress and async providers are called"

_END: Any = object()


class Portal:
    """
    The way from threads that block into the event loop of their client, for any number of threads at once.

    It is opened by the first call, and closed by `close`, when nobody has it any more, and at the exit of the
    interpreter.
    """

    def __init__(self, client: AbstractAsyncContextManager[Any]) -> None:
        self._client = client
        self._lock, self._process = threading.RLock(), os.getpid()
        self._loop: Loop | None = None
        self._is_closed = False
        self.known: WeakValueDictionary[int, Any] = WeakValueDictionary()
        """The blocking counterparts of clients, by the `id` of what they hold."""

    def open(self) -> Loop:
        """
        The loop, in which the client is open.

        Raises:
            St4sdError: It was closed, or this is the thread of the loop.
        """
        loop = self._loop
        if loop is not None and loop.is_forked:
            raise St4sdError(f"this client was {FORKED}: make one of its own in the new process")
        if loop is not None and loop.is_here:
            raise St4sdError(INSIDE)
        if self._process != os.getpid():  # a thread that held the lock is not in this process
            self._lock, self._process = threading.RLock(), os.getpid()
        with self._lock:
            if self._is_closed:
                raise St4sdError(CLOSED)
            if self._loop is None:
                self._loop = self._opened()
            return self._loop

    def _opened(self) -> Loop:
        loop = Loop(self._client)
        try:
            loop.start()
            loop.call(self._client.__aenter__()).result()
        except BaseException:
            loop.leave()
            loop.join(PATIENCE)
            raise
        return loop

    def close(self) -> None:
        """Break off what other threads wait for, leave what was entered, close the client; no error if it is closed."""
        if self._loop is not None and self._loop.is_forked:
            return  # nothing of it is in this process
        if self._loop is not None and self._loop.is_here:
            raise St4sdError(INSIDE)
        with self._lock:
            self._is_closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def __del__(self) -> None:
        if self._loop is not None:
            self._loop.leave()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What some work gives or raises."""
        try:
            loop = self.open()
        except BaseException:
            work.close()
            raise
        return loop.call(work).result()

    def steps(self, stream: AsyncGenerator[T], shown: Callable[[T], Any]) -> Generator[Any]:
        """An asynchronous generator as a plain one, which closes it when it is left early, and gives what is shown."""
        try:
            while (value := self.call(_next(stream))) is not _END:
                yield shown(value)
        finally:
            loop = self._loop
            # In the loop's own thread, where the garbage collector may be the one who closes, the loop sees to it.
            if loop is not None and not loop.is_here and not loop.is_forked:
                with suppress(St4sdError):  # it was closed meanwhile, and the stream with it
                    loop.call(stream.aclose(), PATIENCE)

    def enter(self, manager: AbstractAsyncContextManager[Any]) -> Stay:
        """Enter an asynchronous context manager."""
        loop = self.open()
        return self.call(loop.enter(manager))

    def exit(self, stay: Stay) -> None:
        """Leave it; done already if the client was closed meanwhile, and never done in a forked process."""
        if self._loop is not None and not self._loop.is_forked:
            self.call(self._loop.exit(stay))


async def _next(stream: AsyncGenerator[T]) -> T:
    return await anext(stream, _END)
