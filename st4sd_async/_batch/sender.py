"""Sending the launches of a batch: written down before and after, and never twice without proof."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio

from .._errors import (
    APIError,
    ConfigError,
    ConnectFailed,
    CredentialUnavailable,
    InvalidPayload,
    MissingCredentials,
    RateLimited,
    RequestTimeout,
    ServerError,
    St4sdError,
    StartOutcomeUnknown,
    Unauthorized,
)
from .._http.retry import may_have_arrived
from .._payload.explain import explain
from .._payload.prepare import Prepared, serialise
from .._util.printable import shorten
from ..models.rest_uid import is_rest_uid
from . import launch as launches
from .state import Proof, Row, doubted, planned, refused, sending, started

if TYPE_CHECKING:
    from ..models import Experiment
    from .limiter import Pace
    from .store import Book

CLOSING = 5.0
"""Seconds that starts in flight are given to be answered when the batch is left early."""
OVERLOADED = frozenset({429, 502, 503, 504})
"""HTTP statuses that tell that the service is not up to it."""
STOPPED = "the batch was left before the answer came"

Start = Callable[[str, Prepared], Awaitable[str]]
"""Sends a start of an experiment, once; gives the rest-uid."""
Definition = Callable[[str], Awaitable["Experiment"]]
"""Asks for the definition of an experiment."""


def after(row: Row, error: Exception, now: float) -> Row:
    """What becomes of a launch whose sending ended with an error: when in doubt, it is in doubt."""
    if isinstance(error, StartOutcomeUnknown):
        return doubted(row, error.reason, now)
    if isinstance(error, ConnectFailed | RateLimited | Unauthorized | ConfigError):
        return planned(row, Proof.NOT_SENT, now)
    if isinstance(error, APIError) and not may_have_arrived(error):
        return refused(row, type(error).__name__, str(error), now)
    return doubted(row, f"{type(error).__name__}: {error}", now)


def is_trouble(error: BaseException | None) -> bool:
    """Whether an error tells to send less: the service gets more than it can bear, or nothing can be sent now."""
    if isinstance(error, StartOutcomeUnknown):
        return is_trouble(error.__cause__)
    if isinstance(error, RateLimited | ServerError):
        return error.status in OVERLOADED
    return isinstance(error, ConnectFailed | CredentialUnavailable | RequestTimeout)


def ends_all(error: Exception) -> bool:
    """Whether an error concerns all launches, and does not pass by itself."""
    if isinstance(error, ConnectFailed | CredentialUnavailable):
        return error.permanent
    return isinstance(error, Unauthorized | ConfigError) or not isinstance(error, St4sdError)


class Starts:
    """Sends launches at a pace; those in flight are shielded against cancellation until they are written down."""

    def __init__(self, book: Book, start: Start, pace: Pace, definition: Definition) -> None:
        self._book = book
        self._start = start
        self._definition = definition
        self._known: dict[str, Experiment | None] = {}
        """Identifier -> the experiment, if a launch of it was refused and it could be had."""
        self._asking = anyio.Lock()
        self._patiences: set[anyio.CancelScope] = set()
        self._deadline = inf
        self.pace = pace

    def hurry(self) -> None:
        """Have those in flight end within seconds; one that is not answered by then is in doubt."""
        self._deadline = anyio.current_time() + CLOSING
        for patience in self._patiences:
            patience.deadline = self._deadline

    async def send(self, key: str) -> Exception | None:
        """
        Send one launch and write down what came of it; the error that it ended with, if any.

        Raises:
            MissingCredentials: It was not sent.
            JournalError: What came of it may not be written down: it counts as being sent.
        """
        row = self._book.rows[key]
        try:
            prepared = await self._prepared(row)
        except InvalidPayload as error:
            no = refused(row, type(error).__name__, str(error), self._book.clock.wall())
            await self._book.move(key, lambda now: no if now is row else None)
            return error
        sent: list[Exception | None] = []
        with anyio.CancelScope(shield=True):
            sent.append(await self._send(row, prepared))
        return sent[0]

    async def _prepared(self, row: Row) -> Prepared:
        content, secrets = await self._book.journal.payload(row.payload), self._book.secrets.get(row.key, {})
        if not secrets and launches.needs(content):
            raise MissingCredentials(row.key)
        return serialise(launches.body(content, secrets, self._book.token_of(row)))

    async def _send(self, row: Row, prepared: Prepared) -> Exception | None:
        book, clock = self._book, self._book.clock
        if book.is_moving(row):
            return None  # it was corrected meanwhile, or is just being
        was, row = row, sending(row, book.opening, clock.wall())
        await book.put(was, row)
        if self._deadline < inf:
            # The batch is being left, and this was not sent yet.
            await book.put(row, planned(row, Proof.NOT_SENT, clock.wall()))
            return None
        began, rest_uid, failure = clock.now(), None, None
        with anyio.CancelScope() as patience:
            self._patiences.add(patience)
            try:
                rest_uid = await self._start(row.experiment, prepared)
            except Exception as error:  # written down below, and told to whoever asked for it
                failure = error
            finally:
                self._patiences.discard(patience)
        self._note(began, failure)
        if isinstance(failure, InvalidPayload) and self._deadline == inf:
            with anyio.move_on_after(CLOSING):
                await explain(failure, prepared, partial(self._experiment, row.experiment))
        if failure is not None:
            await book.put(row, after(row, failure, clock.wall()))
        else:
            await book.put(row, self._answered(row, rest_uid))
        return failure

    def _answered(self, row: Row, rest_uid: str | None) -> Row:
        """What becomes of a launch by the answer to its start; None means that there was none."""
        now = self._book.clock.wall()
        if rest_uid is None:
            return doubted(row, STOPPED, now)
        if not is_rest_uid(rest_uid):
            return doubted(row, f"the answer is no rest-uid: {shorten(ascii(rest_uid), 80)}", now)
        owner = self._book.owner_of(rest_uid)
        if owner is not None:
            return doubted(row, f"the answer is the run {rest_uid!r}, which is that of {owner!r}", now)
        if self._book.seen.get(rest_uid, inf) <= row.opening:
            return doubted(row, f"the answer is the run {rest_uid!r}, which was there before it was sent", now)
        return started(row, rest_uid, now)

    async def _experiment(self, identifier: str) -> Experiment | None:
        """An experiment of which launches were refused, asked for once, however many they are."""
        async with self._asking:
            if identifier not in self._known:
                self._known[identifier] = None
                self._known[identifier] = await self._definition(identifier)
        return self._known[identifier]

    def _note(self, began: float, failure: Exception | None) -> None:
        now = self._book.clock.now()
        if is_trouble(failure):
            cause = failure.__cause__ if isinstance(failure, StartOutcomeUnknown) else failure
            self.pace.troubled(began, now, getattr(cause, "retry_after", None))
        elif failure is None:
            self.pace.answered(now - began)
