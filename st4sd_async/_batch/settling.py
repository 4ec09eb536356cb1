"""What a user settles by hand in a batch: new attempts, doubts, and the end of what runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import anyio

from .._errors import St4sdError, UnknownRun
from .launch import Entry, Launch, each, entry
from .sightings import of_instance
from .state import BAD_ENDS, Proof, Row, State, amended, ended, planned, started

if TYPE_CHECKING:
    from .._client import Client
    from .runner import Work
    from .store import Book

DELETERS = 4
"""Runs that are deleted at the same time."""


class Settling:
    """The part of a batch that takes orders; see `Batch`."""

    _book: Book
    _client: Client
    _work: Work | None
    _errors: dict[str, Exception]
    _check_open: Callable[[], object]
    """Raises an error unless the batch can be used here."""

    async def retry_failed(self, corrected: Iterable[Launch] = ()) -> int:
        """
        Plan a new attempt at each launch that was refused, or whose run failed, was stopped or deleted.

        The runs of earlier attempts stay as they are.

        Args:
            corrected: Launches whose new attempt has another experiment or payload than the one before, by their
                keys; also of those that are planned and were not sent yet, unless `run` is at work. It may be the
                whole list that is added afterwards: all others are left to `add`.

        Returns:
            How many, with those that are planned as before but corrected; `run` starts them.

        Raises:
            InvalidPayload: A payload will not do; nothing is planned.
        """
        self._check_open()
        given: dict[str, Entry] = {}
        for launch in each(corrected):
            row = self._book.rows.get(launch.key)
            if row is not None and self._is_open_to_correction(row):
                given[launch.key] = await entry(launch, self._book.clock.wall())
        await self._book.journal.add([], {one.row.payload: one.content for one in given.values()})
        bad = [row.key for row in self._rows(BAD_ENDS)]
        return sum([await self._retry(key, given.get(key)) for key in dict.fromkeys([*bad, *given])])

    def _is_open_to_correction(self, row: Row) -> bool:
        is_idle = self._work is None or self._work.is_over
        return row.state in BAD_ENDS or (is_idle and row.is_unsent)

    async def _retry(self, key: str, given: Entry | None) -> bool:
        """Plan a launch anew, or correct it, unless somebody else has done that; returns whether it was done."""

        def again(row: Row) -> Row | None:
            if given is not None and self._is_open_to_correction(row):
                is_new = row.state in BAD_ENDS or not given.is_as(row)
                return amended(row, given.row, self._book.clock.wall()) if is_new else None
            return planned(row, Proof.ENDED, self._book.clock.wall()) if row.state in BAD_ENDS else None

        def remember(row: Row) -> None:
            if given is not None:
                self._book.remember(key, given.secrets)
            self._take(row)

        return await self._book.move(key, again, remember) is not None

    async def adopt(self, key: str, rest_uid: str) -> None:
        """
        Settle by hand that a launch in doubt was started, and is this run.

        Raises:
            UnknownRun: The service has no such run.
            ValueError: The launch is not in doubt, or the run was started for something else or is another launch's.
        """
        self._check_open()
        row = self._book.doubt(key)
        self._check_free(rest_uid)
        seen = of_instance(await self._client.instances.get(rest_uid))
        if seen.package not in (None, row.package) or (seen.has_metadata and seen.token != self._book.token_of(row)):
            raise ValueError(f"the run {rest_uid!r} was not started for {key!r}: its experiment or metadata is another")

        def adopted(_: Row) -> Row:
            # Another task may have settled it meanwhile, or given the run to another launch.
            doubt = self._book.doubt(key)
            self._check_free(rest_uid)
            return started(doubt, rest_uid, self._book.clock.wall())

        await self._book.move(key, adopted, self._take)

    def _check_free(self, rest_uid: str) -> None:
        owner = self._book.owner_of(rest_uid)
        if owner is not None:
            raise ValueError(f"the run {rest_uid!r} is that of {owner!r}")

    async def forget(self, key: str) -> None:
        """
        Settle by hand that a launch in doubt was not started, so that `run` starts it.

        Raises:
            ValueError: The launch is not in doubt.
        """
        self._check_open()
        self._book.doubt(key)
        by_hand = Proof.BY_HAND
        await self._book.move(
            key, lambda _: planned(self._book.doubt(key), by_hand, self._book.clock.wall()), self._take
        )

    async def cancel(self) -> int:
        """
        Start nothing more, and stop and delete what runs; what was not started stays planned.

        A launch in doubt stays in doubt.

        Returns:
            How many runs were deleted.

        Raises:
            TransportError, APIError: Some could not be deleted; they are as they were, the others are deleted.
        """
        self._check_open()
        if self._work is not None:
            self._work.stop()
            await self._work.over()
        rows, limiter = self._rows({State.STARTED}), anyio.CapacityLimiter(DELETERS)
        errors: list[St4sdError] = []

        async def delete(row: Row) -> None:
            async with limiter:
                try:
                    await self._delete(row)
                except St4sdError as error:  # raised below, when all others are deleted
                    errors.append(error)

        async with anyio.create_task_group() as tasks:
            for row in rows:
                tasks.start_soon(delete, row)
        if errors:
            raise errors[0]
        return len(rows)

    async def _delete(self, row: Row) -> None:
        uid = row.rest_uid or ""
        try:
            await self._client.delete(uid)
        except UnknownRun as error:
            if not error.detail:
                raise
        await self._book.bury([uid])

        def deleted(now: Row) -> Row | None:
            # Another pass of `run` may have seen the end of its run already.
            is_running = now.state is State.STARTED and now.rest_uid == uid
            return ended(now, State.DELETED, now.status, self._book.clock.wall()) if is_running else None

        await self._book.move(row.key, deleted)

    def _take(self, row: Row) -> None:
        """Have a launch worked on that was just written."""
        self._errors.pop(row.key, None)
        if self._work is not None:
            self._work.take([row])

    def _rows(self, states: Iterable[State]) -> Sequence[Row]:
        wanted = set(states)
        return [row for row in self._book.rows.values() if row.state in wanted]
