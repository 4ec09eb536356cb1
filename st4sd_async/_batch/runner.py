"""One pass over a batch: what may be started is started, what runs is watched, what is in doubt is settled."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import anyio

from .._errors import APIError, DecodeError, MissingCredentials, TransportError
from .._watch.status_reader import is_transient
from .collector import Collecting, Ends
from .sender import Starts, ends_all
from .state import Row, State

if TYPE_CHECKING:
    from .._client import Client
    from .reconciler import Doubts
    from .store import Book

log = logging.getLogger("st4sd_async")

GATHER = 0.5
"""Seconds for which new runs are gathered before they are watched together."""
UNREACHED = 5.0
"""Seconds until the service is asked again for what has to be known before anything is sent."""


class Work:
    """The tasks of one `Batch.run`; what they have settled is read with `next`."""

    def __init__(
        self, book: Book, client: Client, starts: Starts, doubts: Doubts, collecting: Collecting | None, most: float
    ) -> None:
        self._book, self._client, self._starts, self._doubts = book, client, starts, doubts
        self.ends = Ends(book, client, collecting, self._begin, self._report, self.take)
        self._most = most
        self._open: set[str] = set()
        """Keys of launches that are not settled."""
        self._planned: dict[str, None] = {}
        """Keys of launches to be sent, in their order."""
        self._flying: set[str] = set()
        self._fresh: list[str] = []
        """Keys of launches whose runs are not watched yet."""
        self._unwatched: set[str] = set()
        """Keys of launches that were reported although their runs go on: these keep no others from starting."""
        self._succeeded: list[str] = []
        """Keys of launches whose files are still to be downloaded."""
        self._busy: set[str] = set()
        """Names of the tasks of which there is one at a time."""
        self._news, self._told, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._results: deque[str] = deque()
        self._is_read = False
        """Whether its reader waits for more than there is."""
        self._is_warned = False
        """Whether it was told that the service cannot be reached."""
        self._scope = anyio.CancelScope()
        self.error: Exception | None = None
        """What ended it early."""
        self.errors: dict[str, Exception] = {}
        """key -> what the launch came to, where the journal knows less."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is done any more."""
        return self._ended.is_set()

    async def over(self) -> None:
        """Return when nothing is done any more."""
        await self._ended.wait()

    async def next(self) -> str | None:
        """The key of the next launch that is settled; None if that was all. Raises what ended it early."""
        while not self._results:
            if self.is_over:
                if self.error is not None:
                    raise self.error
                return None
            # Only now may it end: until here its reader could have added launches.
            self._is_read = True
            self._news.set()
            self._told = anyio.Event()
            await self._told.wait()
            self._is_read = False
        return self._results.popleft()

    def succeed(self, other: Work) -> None:
        """Tell first what another one has settled and nobody has read."""
        self._results, other._results = other._results, self._results
        self.errors.update(other.errors)

    def stop(self, error: Exception | None = None) -> None:
        """Start nothing more; what is in flight is written down within seconds."""
        self.error = self.error or error
        self._starts.hurry()
        self._scope.cancel()

    def take(self, rows: Iterable[Row]) -> None:
        """Do what is left to do for these launches."""
        for row in rows:
            is_open = not self.ends.is_settled(row)
            if is_open or row.state is State.COLLECTED:
                self.errors.pop(row.key, None)  # what it came to before is not true any more
            if is_open:
                self._open.add(row.key)
                self._unwatched.discard(row.key)
                self._route(row)

    def _route(self, row: Row) -> None:
        """Hand an open launch to who is next."""
        if row.state is State.PLANNED:
            self._planned.setdefault(row.key)
        elif row.state is State.STARTED:
            self._fresh.append(row.key)
        elif row.state is State.UNKNOWN:
            self._doubts.renew()
        elif row.state in (State.SUCCEEDED, State.COLLECTED):
            self._succeeded.append(row.key)
        self._news.set()

    async def __call__(self) -> None:
        """Work until all launches are settled, or it is stopped."""
        try:
            with self._scope:
                async with anyio.create_task_group() as self._tasks:
                    try:
                        await self._guarded(self._pump)
                    finally:
                        self._starts.hurry()
                    self._tasks.cancel_scope.cancel()
        finally:
            self._ended.set()
            self._told.set()

    async def _guarded(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except Exception as error:  # raised by `next`
            self.stop(error)

    def _begin(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        self._tasks.start_soon(self._guarded, work, *arguments)

    def _once(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Begin a task unless it goes on already."""
        if name in self._busy:
            return
        self._busy.add(name)

        async def run() -> None:
            try:
                await work()
            finally:
                self._busy.discard(name)
                self._news.set()

        self._begin(run)

    async def _pump(self) -> None:
        while self._open or self._results or not self._is_read:
            self._news = anyio.Event()
            self._start_some()
            if self._fresh:
                self._once("gather", self._gather)
            while self._succeeded:
                self._begin(self.ends.collect, self._succeeded.pop())
            if self._in_doubt():
                self._once("settle", self._settle)
            await self._news.wait()

    def _in_doubt(self) -> int:
        """How many launches are in doubt and may still be settled."""
        if not self._book.tally[State.UNKNOWN]:
            return 0
        return sum(doubt.key in self._open for doubt in self._book.doubts())

    def _start_some(self) -> None:
        if not self._planned:
            return
        if not self._book.has_looked:
            self._once("look", self._look)
            return
        now, pace = self._book.clock.now(), self._starts.pace
        running = self._book.tally[State.STARTED] - len(self._unwatched) + len(self._flying) + self._in_doubt()
        room = min(pace.room(len(self._flying), now), self._most - running)
        while self._planned and room >= 1:
            key = next(iter(self._planned))
            del self._planned[key]
            # One may have been found started since it came to wait here, and even be planned again.
            if self._book.rows[key].state is State.PLANNED and key not in self._flying:
                self._flying.add(key)
                self._begin(self._start, key)
                room -= 1
        if self._planned and pace.resume > now:
            self._once("pause", lambda: self._book.clock.sleep(pace.resume - now))

    async def _look(self) -> None:
        """See what is there before anything is sent."""
        try:
            self.take(await self._doubts.before_sending())
        except (APIError, TransportError, DecodeError) as error:
            if not is_transient(error, has_answered=True):
                raise
            level, self._is_warned = logging.INFO if self._is_warned else logging.WARNING, True
            log.log(level, "nothing can be started yet, and it is tried again every %g s: %s", UNREACHED, error)
            await self._book.clock.sleep(UNREACHED)

    async def _start(self, key: str) -> None:
        failure: Exception | None = None
        try:
            if self._book.rows[key].state is not State.PLANNED:
                return
            failure = await self._starts.send(key)
        except MissingCredentials as error:
            self._report(key, error)
            return
        finally:
            self._flying.discard(key)
            self._news.set()
        if failure is not None and ends_all(failure):
            self.stop(failure)
        row = self._book.rows[key]
        if row.state is State.REFUSED:
            self._report(key, failure)
        else:
            self._route(row)

    async def _settle(self) -> None:
        """Look for what is in doubt until nothing is, or no more can be told."""
        while self._in_doubt():
            await self._doubts.pause()
            for row, verdict in await self._doubts.settle():
                if verdict is None:
                    self.take([row])
                elif row.key in self._open:
                    self._report(row.key)

    async def _gather(self) -> None:
        await self._book.clock.sleep(GATHER)
        keys, self._fresh = [key for key in self._fresh if self._book.rows[key].state is State.STARTED], []
        self._begin(self.ends.watch, keys)

    def _report(self, key: str, error: Exception | None = None) -> None:
        """A launch is settled for now."""
        if error is not None:
            self.errors[key] = error
        if self._book.rows[key].state is State.STARTED:
            self._unwatched.add(key)
        self._open.discard(key)
        self._results.append(key)
        self._told.set()
        self._news.set()
