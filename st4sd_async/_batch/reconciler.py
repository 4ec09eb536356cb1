"""Settling starts whose outcome is unknown: look for them, note what was seen, and act on the verdict."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, TypeVar

import anyio

from .._errors import APIError, DecodeError, NotFound, St4sdError, TransportError, UnknownRun
from .._util.printable import shorten
from .._watch.poller import FIRST_PAUSE, PAUSE_GROWTH
from .._watch.status_reader import is_transient
from ..models.finality import FinalityTracker
from .reconcile_rules import (
    PIECES,
    Absent,
    CannotTell,
    Found,
    Listed,
    Look,
    Sighting,
    Verdict,
    Window,
    candidates,
    judge,
)
from .sightings import documents_of, of_documents, of_status
from .state import Proof, Row, State, disowned, planned, started, suspected
from .store import named

if TYPE_CHECKING:
    from .._client import Client
    from .._config import Config
    from .store import Book

log = logging.getLogger("st4sd_async")

LONGEST_PAUSE = 15.0
"""Seconds between two looks."""
LOOKS_A_WINDOW = PIECES + 1
"""Looks that a settle window has at least."""
WINDOWS_WITHOUT_DATASTORE = 2
"""How many times the settle window is as long if the deployment has no datastore, which is one witness fewer."""

LONGEST_LIST = 120.0
"""Seconds after which a list that does not end counts as not answered; the proxy gives up after 60 s."""
SINGLY = 100
"""Candidates that are asked for by themselves in one look."""
MISSED = 1000
"""
Instances that a list lacks which are asked for by themselves in one look.

The service answers about so many in the time of `HELP`. If they were fewer, the 10,000 runs of a large campaign that
were deleted since could not be confirmed within three settle windows.
"""
AT_ONCE = 2
"""Requests of a look in flight at once: the service answers no more in a second if there are more, and starts wait."""
HELP = 10.0
"""Seconds that each part of a look beside the list may take."""
PORTION = 5000
"""Tokens and ids in one query of the datastore, whose requests may have 1 MiB."""
LONGEST_NAMES = 2000
"""Characters for the candidates that the log names."""

CANNOT_TELL = (
    "it cannot be told whether %d of the starts arrived (%s), because each may be one of the instances %s: "
    "delete those that executed nothing, client.delete(rest_uid), or batch.adopt(key, rest_uid) where you know "
    "whose one is; then run again"
)

T = TypeVar("T")
Listing = Callable[[], Awaitable[Listed]]
"""Reads the list of instances."""


class Doubts:
    """What was seen of the service since the first doubt in this process, and what follows from it."""

    def __init__(self, book: Book, client: Client, listing: Listing, config: Config) -> None:
        self._book = book
        self._client = client
        self._listing = listing
        self._settle, self._grace = config.settle, config.grace
        self._began = book.clock.now()
        self._windows: dict[str, Window] = {}
        """key -> the evidence that concerns it."""
        self._has_datastore = True
        self._judges: dict[str, FinalityTracker] = {}
        """rest-uid -> whether a candidate is over, by what requests for it showed."""
        self._ended: dict[str, Sighting] = {}
        """rest-uid -> what a request for a candidate showed that is over."""
        self._executed: set[str] = set()
        """rest-uids of candidates that a request showed to have executed something; a later status may hide it."""
        self._final: set[str] = set()
        """Those of them of which one reply proved that: there is no more to ask."""
        self._asked: dict[str, float] = {}
        """rest-uid -> when a candidate was asked for last."""
        self._policies: dict[str, bool] = {}
        """Digest of a payload -> whether it has a runtime policy."""
        self._told: set[str] = set()
        """Keys of launches that the log named as looked for."""
        self._lost: set[str] = set()
        """Keys of launches that were reported as unknown."""
        self._pause = 0.0
        self._quiet_until = -inf

    def renew(self) -> None:
        """There is a new doubt: look soon."""
        self._pause = 0.0

    async def pause(self) -> None:
        """Wait for the next look to be of use."""
        longest = min(LONGEST_PAUSE, self._settle / LOOKS_A_WINDOW)
        self._pause = min(longest, max(FIRST_PAUSE, self._pause * PAUSE_GROWTH))
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
            there = (await self._listing()).sightings
        except (APIError, TransportError, DecodeError) as error:
            if self._book.baseline is None:
                raise
            # What was there before is only a help, once the journal has seen a list.
            log.info("going on without a look at what is there: %s", error)
            self._book.has_looked = True
            return []
        waiting = [row for row in self._book.rows.values() if row.state is State.PLANNED]
        # The token of a new journal is new too, so there is nothing to be found.
        documents = await self._documented(waiting, ()) if self._book.opening > 1 and waiting else None
        carried = {
            seen.token: uid
            for uid, seen in (*(documents or {}).items(), *there.items())
            if seen.token and uid not in self._book.owners
        }

        def recognized(row: Row) -> Row | None:
            # Another task may have given the run to another launch, or this launch another attempt.
            uid = carried.get(self._book.token_of(row))
            if row.state is not State.PLANNED or uid is None or self._book.owner_of(uid) is not None:
                return None
            return started(row, uid, self._book.clock.wall())

        found = [await self._book.move(row.key, recognized) for row in waiting] if carried else []
        await self._book.see(there)
        return [row for row in found if row is not None]

    async def settle(self) -> list[tuple[Row, CannotTell | None]]:
        """
        Look once at what became of all starts in doubt.

        Returns:
            Launches that moved, as they are now; and with their verdict those of which it will never be told.
        """
        doubts = self._book.doubts()
        for doubt in doubts:
            await self._learn_policy(doubt)
        look = await self._look(doubts)
        settled: list[tuple[Row, CannotTell | None]] = []
        for key, uid, token in self._misplaced(look):
            settled += [(moved, None) for moved in await take_back(self._book, key, uid, token)]
        self._windows = {doubt.key: self._window(doubt) for doubt in self._book.doubts()}

        errors: list[Exception] = []

        async def conclude(doubt: Row) -> None:
            try:
                verdict = self._verdict(doubt, look)
                row = await self._carried_out(doubt, verdict)
            except Exception as error:  # raised below, out of the task group
                errors.append(error)
                return
            if row.state is not State.UNKNOWN:
                settled.append((row, None))
            elif isinstance(verdict, CannotTell):
                settled.append((row, verdict))

        # At the same time, so that they share commits.
        async with anyio.create_task_group() as tasks:
            for doubt in doubts:
                if not self._book.is_moving(doubt):
                    tasks.start_soon(conclude, doubt)
        if errors:
            raise errors[0]
        # Another task may have settled one by hand meanwhile.
        settled = [(row, verdict) for row, verdict in settled if verdict is None or self._book.rows[row.key] is row]
        self._tell({row.key for row, _ in settled})
        self._report([(row, verdict) for row, verdict in settled if verdict is not None])
        return settled

    def _window(self, doubt: Row) -> Window:
        """The settle window of a doubt, a new one if the launch was sent again since."""
        length = self._settle * (1 if self._has_datastore else WINDOWS_WITHOUT_DATASTORE)
        began = max(self._book.doubted_at(doubt), self._began)
        window = self._windows.get(doubt.key)
        if window is None or window.began != began:
            return Window(length, began)
        window.length = length
        return window

    def _tell(self, settled: Collection[str]) -> None:
        """Say what is waited for, once of each and at most once in a window: nothing else may happen for minutes."""
        doubts = [doubt for doubt in self._book.doubts() if doubt.key not in settled]
        now = self._book.clock.now()
        if now < self._quiet_until or self._told.issuperset(doubt.key for doubt in doubts):
            return
        self._quiet_until = now + self._settle
        self._told.update(doubt.key for doubt in doubts)
        log.warning(
            "it is unknown whether %d of the starts arrived (%s): their runs are looked for, and what proves not to "
            "be there is started again, in %.0f s at the earliest; everything else goes on",
            *(len(doubts), named(doubts), min(self._window(doubt).missing for doubt in doubts)),
        )

    def _report(self, lost: Collection[tuple[Row, CannotTell]]) -> None:
        """Name, once for all launches concerned, the instances that may be their runs, and what to do."""
        new = [(row, verdict) for row, verdict in lost if row.key not in self._lost and verdict.candidates]
        self._lost.update(row.key for row, _ in lost)
        uids = dict.fromkeys(uid for _, verdict in new for uid in verdict.candidates)
        if uids:
            log.warning(
                CANNOT_TELL,
                *(len(new), named(row for row, _ in new), shorten(", ".join(map(repr, uids)), LONGEST_NAMES)),
            )

    async def _learn_policy(self, doubt: Row) -> None:
        if doubt.payload not in self._policies:
            content = await self._book.journal.payload(doubt.payload)
            self._policies[doubt.payload] = '"runtimePolicy"' in content and bool(
                json.loads(content).get("runtimePolicy")
            )

    def _verdict(self, doubt: Row, look: Look) -> Verdict:
        known, window, has_policy = self._book.known, self._windows[doubt.key], self._policies[doubt.payload]
        return judge(doubt, self._book.token_of(doubt), look, known, window, has_policy=has_policy)

    async def _carried_out(self, doubt: Row, verdict: Verdict) -> Row:
        row, now = doubt, self._book.clock.wall()
        if self._book.is_moving(doubt):
            return doubt
        if isinstance(verdict, Found):
            # An answer may be giving the run to another launch just now, which gives it back when it shows its token.
            is_free = self._book.owner_of(verdict.rest_uid) is None
            row = started(doubt, verdict.rest_uid, now) if is_free else doubt
        elif isinstance(verdict, Absent):
            row = planned(suspected(doubt, (), verdict.never_executed), Proof.ABSENT, now)
        elif (verdict.candidates, verdict.never_executed) != (doubt.candidates, doubt.never_executed):
            row = suspected(doubt, verdict.candidates, verdict.never_executed)
        if row is not doubt:
            await self._book.put(doubt, row)
        return row

    def _misplaced(self, look: Look) -> list[tuple[str, str, str]]:
        """Launches that own a run which carries another token: key, rest-uid and that token."""
        found = []
        for uid, seen in look.sightings.items():
            key = self._book.owners.get(uid)
            row = None if key is None or seen.token is None else self._book.rows[key]
            if row is not None and seen.token is not None and is_misplaced(self._book, row, uid, seen.token):
                found.append((row.key, uid, seen.token))
        return found

    async def _look(self, doubts: Collection[Row]) -> Look:
        """What is to be seen now."""
        at, expected = self._book.clock.now(), self._book.expected()
        nothing = Look(at, {}, is_evidence=False)
        try:
            with anyio.move_on_after(LONGEST_LIST) as patience:
                reply = await self._listing()
            if patience.cancelled_caught:
                return nothing
        except Exception as error:  # raised again unless it passes by itself
            if not is_transient(error, has_answered=True):
                raise
            log.info("what became of %d starts cannot be told yet: %s", len(doubts), error)
            return nothing
        listed = reply.sightings
        await self._book.show(listed)
        is_complete = await self._is_complete(listed, expected)
        wanted = self._candidates(doubts, Look(at, listed, is_evidence=False))
        asked = await self._singly([uid for uid in wanted if uid in listed], listed)
        documents = await self._documented(doubts, wanted)
        found = {**listed, **asked}
        for uid, seen in (documents or {}).items():
            if uid not in found or not found[uid].has_metadata:
                found[uid] = seen
        if documents is not None:
            for uid, seen in asked.items():
                # Without a datastore nothing would show that it executes something later, unless it is over.
                is_certain = self._has_datastore or seen.is_over
                if is_certain and uid not in documents and not seen.has_metadata and seen.has_executed is None:
                    found[uid] = replace(seen, has_executed=False)
        return Look(at, found, is_complete and reply.is_readable and documents is not None)

    def _candidates(self, doubts: Iterable[Row], look: Look) -> list[str]:
        """All candidates, first those that were not asked for longest."""
        known = self._book.known
        found = {
            uid: None
            for doubt in doubts
            for uid in candidates(doubt, look, known, has_policy=self._policies[doubt.payload])
        }
        return sorted(found, key=lambda uid: self._asked.get(uid, -inf))

    async def _is_complete(self, listed: Collection[str], expected: Iterable[str]) -> bool:
        """
        Return whether a list shows every instance that it must show.

        Those that it lacks are asked for until one proves to be there, and noted if they are gone.
        """
        missing = [uid for uid in expected if uid not in listed]
        gone: list[str] = []
        is_short = False

        async def confirm(uid: str) -> None:
            nonlocal is_short
            if is_short:
                return
            try:
                await self._client.status(uid)
            except UnknownRun as error:
                if error.detail:
                    gone.append(uid)
                    return
            except (St4sdError, ValueError):
                pass  # one that cannot be asked for may be there
            is_short = True

        await _for_each(missing[:MISSED], confirm)
        await self._book.bury(gone)
        return len(gone) == len(missing)

    async def _singly(self, wanted: Collection[str], listed: Mapping[str, Sighting]) -> dict[str, Sighting]:
        """What candidates show when they are asked for: the list never shows that one failed before it began."""
        found = {uid: self._ended[uid] for uid in wanted if uid in self._ended}

        async def ask(uid: str) -> None:
            self._asked[uid] = self._book.clock.now()
            with suppress(St4sdError, ValueError):  # ValueError: what the list calls an id is none
                status = await self._client.status(uid)
                judged = self._judges.setdefault(uid, FinalityTracker(self._grace))
                is_over = judged.observe(status.pair, self._book.clock.now(), status.error_description)
                found[uid] = replace(of_status(uid, listed[uid].package, status), is_over=is_over)
                if found[uid].has_executed:
                    self._executed.add(uid)
                elif uid in self._executed:
                    found[uid] = replace(found[uid], has_executed=True)
                self._ended.pop(uid, None)
                if is_over:
                    self._ended[uid] = found[uid]
                if status.is_final:
                    self._final.add(uid)

        await _for_each([uid for uid in wanted if uid not in self._final][:SINGLY], ask)
        return found

    async def _documented(self, doubts: Iterable[Row], wanted: Iterable[str]) -> dict[str, Sighting] | None:
        """What the datastore has of runs that may be the ones, {} if there is none; None if it does not answer."""
        words = [(self._book.token_of(doubt), "") for doubt in doubts] + [("", uid) for uid in wanted]
        found: dict[str, Sighting] = {}
        try:
            with anyio.move_on_after(HELP) as patience:
                for begin in range(0, len(words), PORTION):
                    portion = words[begin : begin + PORTION]
                    query = documents_of([one for one, _ in portion if one], [uid for _, uid in portion if uid])
                    documents = await self._client.datastore.user_metadata(query=query)
                    if not all(one.rest_uid for one in documents):
                        return None  # one that does not say whose it is may be that of the run
                    found.update(of_documents(documents))
        except NotFound as error:
            if error.status is not None:
                return None
            self._has_datastore = False
        except St4sdError as error:
            log.info("the datastore cannot tell what became of starts: %s", error)
            return None
        return None if patience.cancelled_caught else found


async def _for_each(wanted: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do some work for each of these, a few at a time, and as many as a look has time for."""
    queue = iter(wanted)

    async def worker() -> None:
        for one in queue:
            await work(one)

    with anyio.move_on_after(HELP):
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(worker)


def is_misplaced(book: Book, row: Row, rest_uid: str, token: str) -> bool:
    """Return whether a run, which carries a token, is owned by a launch that has another."""
    return row.state is State.STARTED and row.rest_uid == rest_uid and token != book.token_of(row)


async def take_back(book: Book, key: str, rest_uid: str, token: str) -> list[Row]:
    """
    Take a run from the launch that owns it, because it carries the token of another: both are in doubt again.

    Args:
        book: The launches.
        key: The launch that owns it.
        rest_uid: The run.
        token: What it carries.

    Returns:
        The launches that moved, and the other one if it was in doubt already.
    """
    now = book.clock.wall()
    other = next((row.key for row in book.rows.values() if book.token_of(row) == token), None)
    whose = "a launch that is not in this journal" if other is None else repr(other)

    def leave(row: Row) -> Row | None:
        why = f"its run {rest_uid!r} turned out to be that of {whose}: it carries that token"
        return disowned(row, why, now) if is_misplaced(book, row, rest_uid, token) else None

    def join(row: Row) -> Row | None:
        if row.state is State.PLANNED:
            return started(row, rest_uid, now)
        why = f"the run {rest_uid!r}, which was taken for that of {key!r}, carries its token"
        return disowned(row, why, now) if row.state is State.STARTED else None

    moved = [await book.move(key, leave)]
    if moved[0] is None:
        return []
    log.warning("the run %r of %r carries the token of %s: it is taken back, and looked for", rest_uid, key, whose)
    if other is not None:
        moved.append(await book.move(other, join))
        if moved[1] is None and book.rows[other].state is State.UNKNOWN:
            moved.append(book.rows[other])
    return [row for row in moved if row is not None]
