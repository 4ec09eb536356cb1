"""Batches: many launches, each started exactly once whatever happens, watched to its end, and collected."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

import anyio
import anyio.abc
import anyio.lowlevel

from .._api.experiments import get_call, start_call
from .._errors import JournalError, LaunchConflict, St4sdError
from .._http.loop_binding import LoopBinding
from .._render.displayable import Displayable
from .._util.progress import ProgressReporter
from .._util.threads import in_thread
from .collector import Collecting, collecting
from .item import Item, item_of, state_badge
from .journal import Journal
from .launch import Entry, Launch, differences, each, entry
from .limiter import Pace
from .reconcile_rules import Listed
from .reconciler import Doubts
from .runner import Work
from .sender import Starts
from .settling import Settling
from .sightings import sightings_call
from .state import BAD_ENDS, Row, State, doubted, uncollected
from .store import Book

if TYPE_CHECKING:
    from types import TracebackType

    from matplotlib.axes import Axes

    from .._client import Client
    from .._http.session import ClientSession
    from .._payload.prepare import Prepared
    from .._render.cards import Card, Summary
    from .._run import Run
    from ..models import Experiment, Properties

log = logging.getLogger("st4sd_async")

PORTION = 1000
"""Launches that are written down together when they are added."""
HEAVY = 4 << 20
"""Characters of payloads after which they are written down, however few launches there are."""

LEFT = "a batch was left with %s in %s: runs go on; %s"
ENDED_BADLY = "%d launches ended badly before: batch.retry_failed() plans another attempt at them"


class Deployment:
    """What a batch needs of its client, and its own requests, which it repeats itself."""

    def __init__(self, client: Client, session: ClientSession) -> None:
        self.client = client
        self.url = session.url
        self.config = session.config
        self._session = session

    async def start(self, identifier: str, prepared: Prepared) -> str:
        """Send a start once, without the limit of the session: the batch has its own."""
        call = start_call(identifier, prepared.content, prepared.secrets)
        return await self._session.send_once(replace(call, is_paced=True))

    async def definition(self, identifier: str) -> Experiment:
        """Fetch the definition of an experiment, once."""
        return await self._session.send_once(get_call(identifier))

    async def listing(self) -> Listed:
        """Fetch the list of instances, once."""
        return await self._session.send_once(sightings_call())


class Batch(Displayable, Settling):
    """
    Many launches and what became of them, in a journal that survives.

        async with client.batch("campaign.db") as batch:
            await batch.add(launches)
            async for item in batch.run():
                print(item.key, item.run, item.status, item.error)
            print(batch.counts)

    The same script, run again after any death, goes on where it was. Nothing is started twice: a launch whose
    outcome is unknown is looked for, and started again only if it is proven that it was not. The proof takes
    `Config.settle` seconds, in which at least five lists of instances show everything that earlier lists showed, the
    datastore answers, and no instance is there that may be its run. An instance that ended before it executed
    anything is no obstacle; it is in `Item.never_executed`. What cannot be proven in three times that time is
    reported as `StartOutcomeUnknown`. One gap remains: if each list of the service has broken off before the new run
    since the journal was made, and the run waits in a queue all that time, nothing shows it, and it is started again.
    An older copy of a journal has the same gap: a run that it does not know is not recognised while it is queued.

    For the tasks of one event loop. Leaving the block starts nothing more and waits a few seconds for
    the answers to what is in flight. Runs go on.
    """

    def __init__(self, deployment: Deployment, path: str | os.PathLike[str] | None, max_running: int | None) -> None:
        if max_running is not None and (not isinstance(max_running, int) or max_running < 1):
            raise ValueError(f"max_running must be a whole number of at least 1 or None, not {max_running!r}")
        self._deployment = deployment
        self._client = deployment.client
        self._most = float("inf") if max_running is None else max_running
        self._journal = Journal(path)
        self._book = Book(self._journal, deployment.config.clock)
        self._pace = Pace(deployment.config.concurrency)
        self._errors: dict[str, Exception] = {}
        self._work: Work | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._beginning = anyio.Lock()
        self._binding: LoopBinding | None = None

    async def __aenter__(self) -> Self:
        """
        Open the journal.

        Raises:
            JournalLocked: Another batch has it open.
            JournalCorrupt: It is damaged.
            JournalError: It belongs to another server, or cannot be opened.
        """
        if self._tasks is not None:
            self._check_open()
            raise St4sdError("this batch is open already")
        self._binding = LoopBinding("batch")
        await self._book.open(self._deployment.url)
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start nothing more, write down what becomes of what is in flight, close the journal."""
        is_broken_off = self._work is not None and not self._work.is_over
        try:
            if self._tasks is not None:
                if self._work is not None:
                    self._work.stop()
                tasks, self._tasks = self._tasks, None
                # What ended the block is no error of these tasks, and would be wrapped as one.
                await tasks.__aexit__(None, None, None)
        finally:
            await self._journal.close()
            if is_broken_off:
                self._say_goodbye()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count) or "empty"
        return f"{type(self).__name__}({self._journal.name}, {counts})"

    @property
    def counts(self) -> dict[str, int]:
        """
        How many launches are in which state; each is counted once.

        ``planned``: not started yet. ``sending``: being started. ``unknown``: it may or may not have been started,
        and is looked for. ``refused``: the service turned it away. ``started``: its run goes on. ``succeeded``,
        ``failed``, ``stopped``, ``deleted``: what its run came to. ``collected``: it succeeded, and its files are
        on disk.
        """
        return {str(state): self._book.tally[state] for state in State}

    @property
    def items(self) -> list[Item]:
        """All launches as they are now, in the order in which they were added."""
        return [self._item(row) for row in list(self._book.rows.values())]  # other threads may add some meanwhile

    @property
    def running(self) -> list[Item]:
        """The launches whose runs `run` watches, with the newest status; one that was never seen yet is missing."""
        seen = {} if self._work is None else dict(self._work.ends.statuses)
        rows = [row for key in seen if (row := self._book.rows[key]).state is State.STARTED]
        return [replace(self._item(row), status=seen[row.key]) for row in rows]

    def failures(self) -> list[Item]:
        """Those with an error: refused, failed, stopped, deleted, in doubt, or not all downloaded."""
        return [item for item in self.items if item.error is not None]

    async def add(self, launches: Iterable[Launch]) -> int:
        """
        Write launches into the journal, to be started by `run`; those that are there already are left as they are.

        A key is started once, however often and by however many tasks it is added, while `run` works too.
        Contents of files are read now. Credentials in payloads, and all ``environmentVariables``, are not written
        down: add the launches again in each process that is to start them.

        Args:
            launches: Any number of them.

        Returns:
            How many are new.

        Raises:
            LaunchConflict: A key is there already with another experiment or payload; the text has the difference.
            JournalError: Two of these have one key, and are not the same; or the journal cannot be written.
            InvalidPayload: A payload will not do. Launches before the one in question may have been added.
        """
        self._check_open()
        new: dict[str, Entry] = {}
        count = size = 0
        for number, launch in enumerate(each(launches)):
            given = await entry(launch, self._book.clock.wall())
            if number % PORTION == 0:
                await anyio.lowlevel.checkpoint()
            if await self._is_known(given, new):
                self._book.remember(launch.key, given.secrets)
                continue
            new[launch.key] = given
            size += len(given.content)
            if len(new) == PORTION or size > HEAVY:
                count += await self._write(new)
                new, size = {}, 0
        return count + await self._write(new)

    async def _is_known(self, given: Entry, new: Mapping[str, Entry]) -> bool:
        """Whether a launch is there already; raises `JournalError` if that is another one."""
        there = new.get(given.row.key)
        row = there.row if there else self._book.rows.get(given.row.key)
        if row is None:
            return False
        if not given.is_as(row):
            content = there.content if there else await self._journal.payload(row.payload)
            told = differences(row, content, given.row, given.content)
            if there:
                raise JournalError(
                    f"{row.key!r} is given twice, and the second, another launch, needs its own key: {told}"
                )
            raise LaunchConflict(f"{row.key!r} is in {self._journal.name} already, and this is another launch: {told}")
        return True

    async def _write(self, new: Mapping[str, Entry]) -> int:
        """Write launches down; returns how many, without those that another task has added meanwhile."""

        def take(row: Row) -> None:
            self._book.remember(row.key, new[row.key].secrets)
            self._take(row)

        rows, payloads = [one.row for one in new.values()], {one.row.payload: one.content for one in new.values()}
        written = await self._book.add(rows, payloads, take)
        for key in new.keys() - written:
            await self._is_known(new[key], {})
            self._book.remember(key, new[key].secrets)
        return len(written)

    async def run(
        self, outputs: Iterable[str] | None = None, to: str | os.PathLike[str] | None = None
    ) -> AsyncGenerator[Item]:
        """
        Start what was not started, watch what runs, settle what is in doubt, and yield each launch as it is settled.

        What an earlier process settled is not yielded again; `items` has it. One in doubt is yielded with
        `StartOutcomeUnknown` if it cannot be told, and looked for again by the next pass. So is one whose run cannot
        be read for a minute: it is yielded with `DecodeError`, stays ``started``, and no longer counts as running.
        One may be yielded twice: after `StartOutcomeUnknown`, if its outcome is found while others are looked for; and
        if an adopted run turns out to be that of another launch, is taken back, and both launches are in doubt again.
        Launches may be added meanwhile. Leaving the loop starts nothing more, and the
        runs go on. The service may be away for any time. Another pass ends this one.

        Args:
            outputs: Key-outputs to download of runs that succeed; None: nothing.
            to: Folder for them, which gets a folder for each key. It has the key for a name; one with other
                characters than letters, digits and ``.``, ``_``, ``-``, or one that differs from another key only
                by capitals, gets a name that begins like it and goes on with a hash. `Item.files` has the paths.
                The folder may be a link; one in place of the folder of a key is not followed.

        Raises:
            Unauthorized: The credentials were refused and could not be renewed.
            JournalError: The journal cannot be written.
            ValueError: One of ``outputs`` and ``to`` is missing; or ``to`` has files for keys that were never
                started, those of another batch.
        """
        self._check_open()
        wanted = await in_thread(collecting, outputs, to)
        if wanted is not None:
            await in_thread(wanted.refuse_strangers, self._book, [row.key for row in self._rows({State.PLANNED})])
            for row in await in_thread(wanted.missing, self._rows({State.COLLECTED})):
                await self._book.move(row.key, partial(self._uncollected, row))
        request = wanted.request if wanted else None
        total = sum(not row.is_settled(request) for row in self._book.rows.values())
        with ProgressReporter(
            self._deployment.config.progress, f"launches in {self._journal.name}", total, "launches"
        ) as bar:
            work = await self._begin(wanted)
            try:
                while (key := await work.next()) is not None:
                    bar.finish()
                    yield self._item(self._book.rows[key])
            finally:
                work.stop()

    def _uncollected(self, row: Row, now: Row) -> Row | None:
        gone = uncollected(row, "DownloadError", "files were removed since", self._book.clock.wall())
        return gone if now is row else None  # else another task has moved it meanwhile

    def _check_open(self) -> anyio.abc.TaskGroup:
        if self._tasks is None or self._binding is None:
            way = "use it inside 'async with client.batch(...) as batch:', which is 'with' if the client blocks"
            raise St4sdError(f"this batch is not open: {way}")
        self._binding.check()
        return self._tasks

    async def _begin(self, collecting: Collecting | None) -> Work:
        async with self._beginning:  # two passes at once would start everything twice
            return await self._begin_alone(collecting)

    async def _begin_alone(self, collecting: Collecting | None) -> Work:
        tasks = self._check_open()
        while (before := self._work) is not None and not before.is_over:
            # Whoever broke off his loop may not have closed it yet, so this is no error of whoever comes now.
            before.stop(St4sdError("another run() of this batch took over"))
            await before.over()
        for row in self._rows({State.SENDING}):
            # It was sent, and what came of it could not be written.
            await self._book.move(row.key, self._doubted)
        config = self._deployment.config
        starts = Starts(self._book, self._deployment.start, self._pace, self._deployment.definition)
        doubts = Doubts(self._book, self._client, self._deployment.listing, config)
        self._work = work = Work(self._book, self._client, starts, doubts, collecting, self._most)
        if before is not None:
            work.succeed(before)
        elif bad := len(self._rows(BAD_ENDS)):
            log.warning(ENDED_BADLY, bad)
        self._errors = work.errors
        work.take(self._book.rows.values())
        tasks.start_soon(work)
        return work

    def _doubted(self, row: Row) -> Row | None:
        if row.state is not State.SENDING:
            return None
        return doubted(row, "the outcome could not be written down", self._book.clock.wall())

    def plot(self, axes: Axes | None = None) -> Axes:
        """
        A time line of all launches, one below the other, in the order in which they were added.

        Each bar is a time that this batch noted down when it happened, by the clock of this machine:

        - *not started*: since it was added, or planned again;
        - *in doubt*: sent, and not known whether it was started;
        - *waiting*: since the service accepted its start, until its run was seen to begin;
        - the colour of what it came to, or of *in progress*: since then, until the batch learned of the end.

        Nothing is guessed. Where nobody saw the run begin, because it was quick or no process watched it then, there
        is one paler bar from its start to its end. What was noted by an older version has no bars. The batch learns
        of changes some time after they happened: see `Client.watch_many`. A cross is a launch that was refused.

        Args:
            axes: Where to draw; None: in a new figure of `matplotlib.pyplot`.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        from .._display.timeline import timeline

        book = self._book
        return timeline({key: book.moments.get(key, ()) for key in book.rows}, book.clock.wall(), axes)

    async def properties(self, names: Iterable[str] | None = None) -> Properties:
        """
        What the runs measured, in one table: as `Client.properties`, with the column ``key`` in front of ``rest-uid``.

        Runs that have none, or not yet, are in its ``problems``, by their rest-uids.
        """
        keys = {row.rest_uid: row.key for row in self._book.rows.values() if row.rest_uid is not None}
        found = await self._client.properties(list(keys), names)
        rows = tuple((keys[row[0]], *row) for row in found.rows)
        return replace(found, columns=("key", *found.columns), rows=rows)

    def _card(self) -> Card:
        from .._render.cards import Card, Summary, Tone, counted, summary_table

        ordered = [State.COLLECTED, State.SUCCEEDED, State.STARTED, State.SENDING, State.UNKNOWN, State.PLANNED]
        counts = self.counts
        parts = [(counts[state], state_badge(state)) for state in [*ordered, *sorted(BAD_ENDS)] if counts[state]]

        def summary(row: Row) -> Summary:
            badge = state_badge(row.state)
            if row.error is None and badge.tone in (Tone.GOOD, Tone.BUSY, Tone.QUIET):
                return Summary(badge)
            return self._item(row)._summary()  # reads the status: only for the few that show a reason

        rows = dict(self._book.rows)
        table = summary_table("launch", {key: summary(row) for key, row in rows.items()})
        return Card(
            counted(len(rows), "launch"), kind=f"batch in {self._journal.name}", parts=tuple(parts), table=table
        )

    def _item(self, row: Row) -> Item:
        run: Run | None = None if row.rest_uid is None else self._client.run(row.rest_uid)
        return item_of(row, run, self._errors.get(row.key))

    def _say_goodbye(self) -> None:
        """Tell how to go on."""
        tally = self._book.tally
        left = {state: tally[state] for state in (State.PLANNED, State.UNKNOWN, State.SENDING, State.STARTED)}
        told = ", ".join(f"{count} {state}" for state, count in left.items() if count) or "everything settled"
        way = "run the same script again to go on" if self._journal.is_on_disk else "only batch.items knows of them now"
        log.warning(LEFT, told, self._journal.name, way)
