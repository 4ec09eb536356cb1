"""What a batch knows: the journal's launches in memory, changed only together with the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import anyio

from .._errors import JournalError
from .._util.printable import shorten
from .reconcile_rules import Known
from .records import Moment
from .state import Row, State, token

if TYPE_CHECKING:
    from .._util.clock import Clock
    from .journal import Journal
    from .launch import Secrets


MOST_NAMED = 200
"""Characters for the keys that a message names."""


def named(rows: Iterable[Row]) -> str:
    """The keys of launches, for a message."""
    return shorten(", ".join(repr(row.key) for row in rows), MOST_NAMED)


class Book:
    """The launches of an open journal, in the order in which they were added."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self.clock = clock
        self.rows: dict[str, Row] = {}
        """key -> the launch."""
        self.tally: Counter[State] = Counter()
        """How many launches are in which state."""
        self.secrets: dict[str, Secrets] = {}
        """key -> the credentials of a launch that was added in this process, which are in no journal."""
        self.moments: dict[str, list[Moment]] = {}
        """key -> when it came into which state, as far as that was noted."""
        self._doubted: dict[str, float] = {}
        """key of each launch in doubt -> since when this process knows that, by the monotonic clock."""
        self._moving: dict[str, anyio.Event] = {}
        """key -> what is set when nobody writes the launch any more, if it is being written."""
        self._claims: dict[str, str] = {}
        """rest-uid -> key, of runs that are being given to launches."""

    async def open(self, server: str) -> None:
        """Open the journal and learn what it holds; the errors are those of `Journal.open`."""
        now, wall = self.clock.now(), self.clock.wall()
        contents = await self.journal.open(server, wall)
        self.rows = {row.key: row for row in contents.rows}
        self.tally = Counter(row.state for row in contents.rows)
        self.moments = {key: [] for key in self.rows}
        for key, moment in contents.moments:
            self.moments.setdefault(key, []).append(moment)
        self.owners, self.gone, self.seen = contents.owners, contents.gone, contents.seen
        self.opening, self.baseline, self._token = contents.opening, contents.baseline, contents.token
        self._names: dict[str, str] = {}
        for key in self.rows:
            self._names.setdefault(key.casefold(), key)
        self._doubted = {row.key: now for row in contents.rows if row.state is State.UNKNOWN}
        self.has_looked = False
        """Whether it is noted what was there before anything was sent in this opening."""

    @property
    def known(self) -> Known:
        """What is known of instances."""
        return Known(self.owners, self.seen, self.gone)

    def expected(self) -> list[str]:
        """The rest-uids that a list must show now: all that were shown or started, and are not known to be gone."""
        return [uid for uid in {**self.seen, **self.owners} if uid not in self.gone]

    def has_twin(self, key: str) -> bool:
        """Whether a launch that was added before has the same key but for small and capital letters."""
        return self._names[key.casefold()] != key

    def doubts(self) -> list[Row]:
        """The launches of which it is unknown whether they were started."""
        return [self.rows[key] for key in self._doubted]

    def doubted_at(self, doubt: Row) -> float:
        """When this process learned that a launch is in doubt, by the monotonic clock."""
        return self._doubted[doubt.key]

    def doubt(self, key: str) -> Row:
        """That of them with this key; raises ValueError if there is none."""
        row = self.rows.get(key)
        if row is not None and row.state is State.UNKNOWN:
            return row
        told = f"the batch has no launch {key!r}" if row is None else f"{key!r} is not in doubt but {row.state}"
        others = f"in doubt: {named(self.doubts())}" if self.doubts() else "none is in doubt"
        raise ValueError(f"{told}; {others}")

    def token_of(self, row: Row) -> str:
        """What the run of a launch carries in its metadata."""
        return token(self._token, row.key, row.attempt)

    def owner_of(self, rest_uid: str) -> str | None:
        """Return the key of the launch that owns a run, or is being given it; None if there is none."""
        return self.owners.get(rest_uid) or self._claims.get(rest_uid)

    async def put(self, was: Row, row: Row, then: Callable[[Row], None] | None = None) -> None:
        """
        Write a launch in place of what it was; it counts once it is on disk, whoever is cancelled meanwhile.

        Args:
            was: What it was.
            row: What it becomes.
            then: Called with it as soon as it counts.

        Raises:
            JournalError: It cannot be written; or it is not any more what it was, because somebody else moved it; or
                its run belongs to another launch.
        """
        if self.is_moving(was):
            raise JournalError(f"{was.key!r} is not {was.state} any more: somebody else has moved it")
        claim = row.rest_uid if row.state is State.STARTED else None
        if claim is not None and (owner := self.owner_of(claim)) is not None:
            raise JournalError(f"the run {claim!r} is that of {owner!r}, and cannot be that of {row.key!r} as well")
        done = self._moving[was.key] = anyio.Event()
        if claim is not None:
            self._claims[claim] = row.key
        try:
            await self.journal.save((was, row), then=lambda: self._take([row], then))
        finally:
            del self._moving[was.key]
            self._claims.pop(claim or "", None)
            done.set()

    async def move(
        self, key: str, transition: Callable[[Row], Row | None], then: Callable[[Row], None] | None = None
    ) -> Row | None:
        """
        Move a launch by what it is when nobody else is moving it.

        Args:
            key: Its key.
            transition: Gives what it becomes, None if it is to stay.
            then: Called with it as soon as that counts.

        Returns:
            What it became; None if it stayed.
        """
        while (moving := self._moving.get(key)) is not None:
            await moving.wait()
        was = self.rows[key]
        row = transition(was)
        if row is not None:
            await self.put(was, row, then)
        return row

    def remember(self, key: str, secrets: Secrets) -> None:
        """Keep the credentials of a launch for this process, in place of those that it had."""
        if secrets:
            self.secrets[key] = secrets
        else:
            self.secrets.pop(key, None)

    def note_running(self, key: str) -> None:
        """Note that a run was seen to begin just now; not sure to be on disk before its end is."""
        moment = Moment(self.rows[key].attempt, "running", self.clock.wall())
        self.moments[key].append(moment)
        self.journal.note(key, moment)

    def is_moving(self, row: Row) -> bool:
        """Whether a launch is not, or soon will not be, what it was."""
        return self.rows.get(row.key) is not row or row.key in self._moving

    async def add(
        self, rows: Iterable[Row], payloads: Mapping[str, str], then: Callable[[Row], None] | None = None
    ) -> set[str]:
        """
        Write those of some launches that are new; they count once they are on disk, whoever is cancelled meanwhile.

        Args:
            rows: The launches. One that is there, or that another call is just writing, stays as that has it.
            payloads: Their payloads by digest.
            then: Called with each as soon as it counts.

        Returns:
            The keys of those that were written.
        """
        given, written = {row.key: row for row in rows}, set[str]()
        while missing := [key for key in given if key not in self.rows]:
            mine = [key for key in missing if key not in self._moving]
            if not mine:
                await self._moving[missing[0]].wait()
                continue
            done = anyio.Event()
            self._moving.update(dict.fromkeys(mine, done))
            new = [given[key] for key in mine]
            try:
                await self.journal.add(new, payloads, lambda new=new: self._take(new, then))  # type: ignore[misc]
            finally:
                for key in mine:
                    del self._moving[key]
                done.set()
            written.update(mine)
        return written

    async def see(self, rest_uids: Iterable[str]) -> None:
        """Note what the list before anything is sent in this opening shows."""
        there = list(rest_uids)
        await self._expect(there, len(there) if self.baseline is None else None)
        self.baseline = len(there) if self.baseline is None else self.baseline
        self.has_looked = True

    async def show(self, rest_uids: Iterable[str]) -> None:
        """Note what any other list shows."""
        await self._expect(rest_uids, None)

    async def _expect(self, rest_uids: Iterable[str], baseline: int | None) -> None:
        """
        Note what a list shows, so that later lists are expected to show it.

        What is there after something was sent is there before anything is sent in the next opening.
        """
        opening = self.opening + self.has_looked
        fresh = [uid for uid in rest_uids if uid not in self.seen and uid not in self.owners]
        if fresh or baseline is not None:
            await self.journal.see(fresh, opening, baseline)
        self.seen.update(dict.fromkeys(fresh, opening))

    async def bury(self, rest_uids: Iterable[str]) -> None:
        """Note that instances were seen to be deleted: runs of launches, and others that a list showed."""
        dead = [uid for uid in rest_uids if (uid in self.owners or uid in self.seen) and uid not in self.gone]
        if dead:
            await self.journal.bury(dead)
            self.gone.update(dead)

    def _take(self, rows: Iterable[Row], then: Callable[[Row], None] | None) -> None:
        for row in rows:
            self._replace(row)
            if then is not None:
                then(row)

    def _replace(self, row: Row) -> None:
        before = self.rows.get(row.key)
        if before is None:
            self._names.setdefault(row.key.casefold(), row.key)
        else:
            self.tally[before.state] -= 1
            if before.rest_uid is not None and before.state is State.STARTED and row.rest_uid is None:
                self.owners.pop(before.rest_uid, None)
                self.seen.setdefault(before.rest_uid, self.opening + 1)
        self.tally[row.state] += 1
        if row.state is not State.UNKNOWN:
            self._doubted.pop(row.key, None)
        elif before is None or before.state is not State.UNKNOWN:
            self._doubted[row.key] = self.clock.now()
        self.rows[row.key] = row
        self.moments.setdefault(row.key, []).append(Moment(row.attempt, row.state, row.since))
        if row.state is State.STARTED and row.rest_uid is not None:
            self.owners[row.rest_uid] = row.key
