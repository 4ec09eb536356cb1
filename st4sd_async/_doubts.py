"""Settling starts whose outcome is unknown: look for them, note what was seen, and act on the verdict."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, TypeVar

import anyio

from ._book import named
from ._errors import APIError, DecodeError, TransportError, UnknownRun
from ._moves import Proof, Row, State, planned, started, suspected
from ._resources.sightings import documents_of, of_documents, of_status
from ._schedule import GROWTH, QUICKEST
from ._verdict import Absent, CannotTell, Found, Look, Sighting, Wait, candidates, is_evidence, judge
from ._watch import survives

if TYPE_CHECKING:
    from ._book import Book
    from ._client import Client

log = logging.getLogger("st4sd_async")

LONGEST_PAUSE = 15.0
"""Seconds between two looks."""
LOOKS_A_WINDOW = 6
"""Looks that a settle window has at least."""
SINGLY = 10
"""Candidates that are asked for by themselves beside a look at the list."""
MISSED = 100
"""Runs that the list lacks which are asked for by themselves beside it, so many at once."""
AT_ONCE = 5

HELP = 10.0
"""Seconds that is waited for what may help with a verdict, and is not needed."""

T = TypeVar("T")
Listing = Callable[[], Awaitable[dict[str, Sighting]]]
"""Reads the list of instances."""


class Doubts:
    """What was seen of the service since the first doubt in this process, and what follows from it."""

    def __init__(self, book: Book, client: Client, listing: Listing, settle: float) -> None:
        self._book = book
        self._client = client
        self._listing = listing
        self._settle = settle
        self._first: dict[str, float] = {}
        """rest-uid of a candidate -> when it was first seen; "": when the first look was answered."""
        self._pause = self._asked = 0.0
        self._quiet_until = -inf

    def renew(self) -> None:
        """There is a new doubt: look soon."""
        self._pause = 0.0

    async def pause(self) -> None:
        """Wait for the next look to be of use."""
        longest = min(LONGEST_PAUSE, self._settle / LOOKS_A_WINDOW)
        self._pause = min(longest, max(QUICKEST, self._pause * GROWTH))
        await self._book.clock.sleep(self._pause)

    async def before_sending(self) -> list[Row]:
        """
        Note what is there before anything is sent in this opening.

        Returns:
            Launches that were planned and turn out to have been started, as an old copy of a journal does not know.

        Raises:
            St4sdError: The list cannot be read, and the journal never saw one.
        """
        try:
            there = await self._listing()
        except (APIError, TransportError, DecodeError) as error:
            if self._book.baseline is None:
                raise
            # What was there before is only a help, once the journal has seen a list.
            log.info("going on without a look at what is there: %s", error)
            self._book.has_looked = True
            return []
        carried = {seen.token: uid for uid, seen in there.items() if seen.token and uid not in self._book.owners}
        planned_ones = [row for row in self._book.rows.values() if row.state is State.PLANNED] if carried else []
        found = []
        for row in planned_ones:
            uid = carried.get(self._book.token_of(row))
            if uid is not None:
                found.append(started(row, uid, self._book.clock.wall()))
                await self._book.put(row, found[-1])
        await self._book.see(there)
        return found

    async def settle(self) -> list[tuple[Row, CannotTell | None]]:
        """
        Look once at what became of all starts in doubt.

        Returns:
            Those that are settled, as they are now; and with them those of which it will never be told.
        """
        look = await self._look()
        if look is None:
            return []
        settled: list[tuple[Row, CannotTell | None]] = []
        for doubt in self._book.doubts():
            verdict = self._verdict(doubt, look)
            row = await self._carried_out(doubt, verdict)
            if row.state is not State.UNKNOWN:
                settled.append((row, None))
            elif isinstance(verdict, CannotTell):
                settled.append((row, verdict))
        self._tell({row.key for row, _ in settled})
        return settled

    def _tell(self, settled: Collection[str]) -> None:
        """Say, once in a window, what is waited for: nothing else may happen for minutes."""
        doubts = [doubt for doubt in self._book.doubts() if doubt.key not in settled]
        if not doubts or self._asked < self._quiet_until:
            return
        wall, now = self._book.clock.wall(), self._book.clock.now()
        self._quiet_until = now + self._settle
        ages = [self._book.moment_for(doubt, wall, now) - doubt.since for doubt in doubts]
        log.warning(
            "it is unknown whether %d of the starts arrived (%s): their runs are looked for, and what proves not to "
            "be there is started again, in %.0f s at the earliest; everything else goes on",
            *(len(doubts), named(doubts), max(0.0, self._settle - min(ages))),
        )

    def _verdict(self, doubt: Row, look: Look) -> Found | Absent | Wait | CannotTell:
        for uid in candidates(doubt, look, self._book.known):
            self._first.setdefault(uid, self._asked)
        waited = {uid: self._asked - first for uid, first in self._first.items()}
        look = replace(look, at=self._book.moment_for(doubt, look.at, self._asked))
        return judge(doubt, self._book.token_of(doubt), look, self._book.known, waited, self._settle)

    async def _carried_out(self, doubt: Row, verdict: Found | Absent | Wait | CannotTell) -> Row:
        row, now = doubt, self._book.clock.wall()
        if self._book.is_moving(doubt):
            return doubt
        if isinstance(verdict, Found):
            row = started(doubt, verdict.rest_uid, now)
        elif isinstance(verdict, Absent):
            row = planned(doubt, Proof.ABSENT, now)
        elif verdict.candidates != doubt.candidates:
            row = suspected(doubt, verdict.candidates)
        if row is not doubt:
            await self._book.put(doubt, row)
        return row

    async def _look(self) -> Look | None:
        """What is to be seen now; None if the service does not answer."""
        at, self._asked = self._book.clock.wall(), self._book.clock.now()
        try:
            listed = await self._listing()
            proves = await self._confirmed(listed)
        except Exception as error:  # raised again unless it passes by itself
            if not survives(error, is_proven=True):
                raise
            log.info("what became of %d starts cannot be told yet: %s", len(self._book.doubts()), error)
            return None
        self._first.setdefault("", self._asked)
        found = {**listed, **await self._singly(listed)}
        for uid, seen in (await self._documented(found)).items():
            if uid not in found or not found[uid].has_metadata:
                found[uid] = seen
        return Look(at, found, proves)

    async def _confirmed(self, listed: Iterable[str]) -> bool:
        """Whether the list is evidence; runs that it lacks are asked for, and noted if they were deleted."""
        shown = set(listed)
        missing = [uid for uid in self._book.alive if uid not in shown]
        gone: list[str] = []
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def confirm(uid: str) -> None:
            async with limiter:
                # One that cannot be asked for may be there: then the list is no evidence.
                with suppress(APIError, TransportError, DecodeError):
                    if await self._status(uid) is None:
                        gone.append(uid)

        with anyio.move_on_after(HELP):
            async with anyio.create_task_group() as tasks:
                for uid in missing[:MISSED]:
                    tasks.start_soon(confirm, uid)
        await self._book.bury(gone)
        return is_evidence(shown, self._book.alive, self._book.baseline or 0)

    async def _status(self, rest_uid: str) -> Sighting | None:
        """What an instance shows by itself; None if it is not there."""
        try:
            return of_status(rest_uid, None, await self._client.status(rest_uid))
        except UnknownRun as error:
            if not error.detail:
                raise
            return None

    async def _singly(self, listed: dict[str, Sighting]) -> dict[str, Sighting]:
        """What candidates show by themselves: the list never tells that one failed before it began."""
        look = Look(self._book.clock.wall(), listed, is_evidence=False)
        named = {uid: None for doubt in self._book.doubts() for uid in candidates(doubt, look, self._book.known)}
        found = {}
        for uid in sorted(named, key=lambda uid: self._first.get(uid, inf))[:SINGLY]:
            if uid in listed and not listed[uid].is_over:
                seen = await _quietly(self._status(uid))
                if seen is not None:
                    found[uid] = replace(seen, package=listed[uid].package)
        return found

    async def _documented(self, found: dict[str, Sighting]) -> dict[str, Sighting]:
        """What the datastore tells, if it answers in time."""
        doubts = self._book.doubts()
        tokens = [self._book.token_of(doubt) for doubt in doubts]
        vanished = {uid for doubt in doubts for uid in doubt.candidates if uid not in found}
        query = documents_of(tokens, vanished)
        return of_documents(await _quietly(self._client.datastore.user_metadata(query=query)) or [])


async def _quietly(asked: Awaitable[T]) -> T | None:
    """What is asked for, or None if it does not come, or not soon: it would only be a help."""
    with anyio.move_on_after(HELP), suppress(APIError, TransportError, DecodeError):
        return await asked
    return None
