"""Batches: start many launches exactly once each, watch their runs, and download their results."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

import anyio
import anyio.abc
import anyio.lowlevel

from .._errors import JournalError, LaunchConflict, St4sdError, UnknownRun
from .._http.session import LoopBinding
from .._render.displayable import Displayable
from .._util.progress import ProgressReporter
from .._util.threads import in_thread
from .download_request import DownloadRequest, download_request
from .item import Item, item_of, item_summary, state_badge
from .journal import Journal
from .launch import Launch, PreparedLaunch, check_launches, describe_differences, prepare_launch
from .reconciler import Reconciler, from_instance
from .runner import Runner
from .sender import AdaptiveLimiter, Sender
from .state import FAILURES, LaunchRecord, Proof, State

if TYPE_CHECKING:
    from types import TracebackType

    from matplotlib.axes import Axes

    from .._http.session import ClientSession
    from .._render.cards import Card, Summary
    from .._results.downloads import Downloads
    from .._run import Run
    from ..models import Properties
    from .client import BatchClient

log = logging.getLogger("st4sd_async")

LAUNCHES_PER_WRITE = 1000
"""Launches that `Batch.add` writes to the journal at once."""
CHARACTERS_PER_WRITE = 4 << 20
"""Maximum number of payload characters in one such write, unless a single payload is longer."""
DELETES_AT_ONCE = 4
"""Runs that `Batch.cancel` deletes at the same time."""

LEFT_UNFINISHED = "a batch was left with %s in %s: runs continue; %s"
FAILED_EARLIER = "%d launches failed earlier: batch.retry_failed() plans another attempt for each"


class Batch(Displayable):
    """
    Start many launches, and keep their outcomes in a journal that survives crashes.

        async with client.batch("campaign.db") as batch:
            await batch.add(launches)
            async for item in batch.run():
                print(item.key, item.run, item.status, item.error)
            print(batch.counts)

    After a crash, run the same script again: it resumes. Nothing is started twice. If it is unknown whether a launch
    was started, the batch searches for its run. It starts the launch again only if that run provably does not exist.
    The proof takes `Config.settle` seconds. In that time at least five lists of instances must show everything that
    earlier lists showed. The datastore must answer, and no instance may exist that could be the run. An instance that
    ended before it executed anything does not count; it is named in `Item.never_executed`. If nothing is proven after
    three times ``Config.settle``, the launch is reported with `StartOutcomeUnknown`.

    One gap remains. If every list since the journal was created was cut off before the new run, and the run is queued
    all that time, its launch is started again. The same can happen with an older copy of a journal: a run that is
    missing from the copy cannot be recognised while it is queued.

    Tasks of one event loop may share a batch. Leaving the block stops starting launches and waits a few seconds for the
    answers to starts in flight. Runs continue.
    """

    def __init__(
        self,
        client: BatchClient,
        session: ClientSession,
        downloads: Downloads,
        *,
        path: str | os.PathLike[str] | None = None,
        max_running: int | None = None,
    ) -> None:
        if max_running is not None and (not isinstance(max_running, int) or max_running < 1):
            raise ValueError(f"max_running must be a whole number of at least 1 or None, not {max_running!r}")
        self._client, self._session, self._downloads = client, session, downloads
        self._max_running = float("inf") if max_running is None else max_running
        self._journal = Journal(path, session.config.clock)
        self._limiter = AdaptiveLimiter(session.config.concurrency)
        self._errors: dict[str, Exception] = {}
        self._runner: Runner | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._begin_lock = anyio.Lock()
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
            raise St4sdError("this batch is already open")
        self._binding = LoopBinding("batch")
        await self._journal.open(self._session.url)
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop starting launches, record the outcomes of starts in flight, and close the journal."""
        is_unfinished = self._runner is not None and not self._runner.is_finished
        try:
            if self._tasks is not None:
                if self._runner is not None:
                    self._runner.stop()
                tasks, self._tasks = self._tasks, None
                # The error of the block is not one of these tasks, and would be wrapped in a group.
                await tasks.__aexit__(None, None, None)
        finally:
            await self._journal.close()
            if is_unfinished:
                self._log_what_is_left()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count) or "empty"
        return f"{type(self).__name__}({self._journal.name}, {counts})"

    @property
    def counts(self) -> dict[str, int]:
        """
        Number of launches in each state.

        ``planned``: not started yet. ``sending``: being started. ``unknown``: in doubt, because its start had no clear
        answer; the batch searches for its run. ``refused``: the service refused it. ``started``: its run has not ended.
        ``succeeded``, ``failed``, ``stopped``, ``deleted``: how its run ended. ``collected``: it succeeded, and its
        files were downloaded.
        """
        return {str(state): self._journal.counts[state] for state in State}

    @property
    def items(self) -> list[Item]:
        """All launches as they are now, in the order in which they were added."""
        return [self._item(record) for record in list(self._journal.records.values())]  # other threads may add some

    @property
    def running(self) -> list[Item]:
        """The launches whose runs `run` is watching, with their latest statuses. Runs without a status are left out."""
        statuses = {} if self._runner is None else dict(self._runner.statuses)
        records = [record for key in statuses if (record := self._journal.records[key]).state is State.STARTED]
        return [replace(self._item(record), status=statuses[record.key]) for record in records]

    def failures(self) -> list[Item]:
        """Return the launches with an error: refused, failed, stopped, deleted, in doubt, or partly downloaded."""
        return [item for item in self.items if item.error is not None]

    async def add(self, launches: Iterable[Launch]) -> int:
        """
        Add launches to the journal. `run` starts them, even if it is already running.

        A launch that was added before is left as it is. So a key is started once, however often it is added. Files are
        read now. Credentials in payloads, and all ``environmentVariables``, are not written to the journal: add the
        launches again in each process that starts them.

        Args:
            launches: Any number of launches.

        Returns:
            The number of new launches.

        Raises:
            LaunchConflict: A key was added before with another experiment or payload. The message shows the
                difference.
            JournalError: Two different launches of this call have the same key, or the journal cannot be written.
            InvalidPayload: A payload is invalid. Launches before it may have been added.
        """
        self._check_open()
        new: dict[str, PreparedLaunch] = {}
        count = size = 0
        for number, launch in enumerate(check_launches(launches)):
            prepared = await prepare_launch(launch, self._journal.clock.wall())
            if number % LAUNCHES_PER_WRITE == 0:
                await anyio.lowlevel.checkpoint()
            if await self._is_known(prepared, new):
                self._journal.keep_credentials(launch.key, prepared.credentials)
                continue
            new[launch.key] = prepared
            size += len(prepared.content)
            if len(new) == LAUNCHES_PER_WRITE or size > CHARACTERS_PER_WRITE:
                count += await self._write(new)
                new, size = {}, 0
        return count + await self._write(new)

    async def _is_known(self, prepared: PreparedLaunch, new: Mapping[str, PreparedLaunch]) -> bool:
        """Return whether a launch was added before. Raises `JournalError` if it is another launch with the same key."""
        key = prepared.record.key
        same_call = new.get(key)
        known = same_call.record if same_call else self._journal.records.get(key)
        if known is None:
            return False
        if not prepared.is_same_as(known):
            content = same_call.content if same_call else await self._journal.payload(known.payload)
            differences = describe_differences(known, content, prepared.record, prepared.content)
            if same_call:
                raise JournalError(f"two different launches have the key {key!r}: {differences}")
            raise LaunchConflict(f"{key!r} is in {self._journal.name} with another launch: {differences}")
        return True

    async def _write(self, new: Mapping[str, PreparedLaunch]) -> int:
        """Write launches, and return how many were not added by another task in the meantime."""

        def schedule(record: LaunchRecord) -> None:
            self._journal.keep_credentials(record.key, new[record.key].credentials)
            self._schedule(record)

        records = [prepared.record for prepared in new.values()]
        payloads = {prepared.record.payload: prepared.content for prepared in new.values()}
        written = await self._journal.add(records, payloads, schedule)
        for key in new.keys() - written:
            await self._is_known(new[key], {})
            self._journal.keep_credentials(key, new[key].credentials)
        return len(written)

    async def run(
        self, outputs: Iterable[str] | None = None, to: str | os.PathLike[str] | None = None
    ) -> AsyncGenerator[Item]:
        """
        Start all launches, watch their runs, and yield each launch when it is settled: nothing is left to do for it.

        Launches that an earlier process settled are not yielded; see `items`. A launch in doubt is yielded with
        `StartOutcomeUnknown` if nothing can be proven, and is searched for again by the next call. If a run cannot be
        read for a minute, its launch is yielded with `DecodeError`, stays ``started``, and no longer counts as running.

        A launch may be yielded twice. This happens after `StartOutcomeUnknown`, if its outcome is found later in the
        same call. It also happens if an adopted run turns out to belong to another launch: both are in doubt again.

        Launches may be added during the loop. Leaving the loop stops starting launches, and runs continue. The loop
        survives an outage of the service of any length. A second call ends the first.

        Args:
            outputs: Key-outputs to download of each run that succeeds. None means no downloads.
            to: Folder for the downloads. Each key gets its own folder in it, named after the key. A key gets a hashed
                name if it has characters other than letters, digits and ``.``, ``_``, ``-``, or differs from another
                key only by case. `Item.files` has the paths. The folder may be a symbolic link; the folder of a key may
                not.

        Raises:
            Unauthorized: The credentials were refused and could not be renewed.
            JournalError: The journal cannot be written.
            ValueError: Only one of ``outputs`` and ``to`` is given; or ``to`` has files for keys that were never
                started, so it belongs to another batch.
        """
        self._check_open()
        request = await in_thread(download_request, outputs, to)
        if request is not None:
            planned = [record.key for record in self._in_state(State.PLANNED)]
            await in_thread(request.check_unused, self._journal, planned)
            for record in await in_thread(request.missing_files, self._in_state(State.COLLECTED)):
                await self._journal.update(record.key, partial(self._to_not_collected, record))
        request_text = request.text if request else None
        total = sum(not record.is_settled(request_text) for record in self._journal.records.values())
        with ProgressReporter(
            self._session.config.progress, f"launches in {self._journal.name}", total, "launches"
        ) as progress:
            runner = await self._begin(request)
            try:
                while (key := await runner.next_settled()) is not None:
                    progress.finish()
                    yield self._item(self._journal.records[key])
            finally:
                runner.stop()

    def _to_not_collected(self, record: LaunchRecord, current: LaunchRecord) -> LaunchRecord | None:
        if current is not record:
            return None  # another task has changed it
        return record.to_not_collected("DownloadError", "files were removed since", self._journal.clock.wall())

    async def _begin(self, request: DownloadRequest | None) -> Runner:
        async with self._begin_lock:  # two passes at once would start everything twice
            tasks = self._check_open()
            while (previous := self._runner) is not None and not previous.is_finished:
                # The previous loop may have been left but not closed yet, so this is not an error of the new caller.
                previous.stop(St4sdError("another run() of this batch took over"))
                await previous.wait_finished()
            for record in self._in_state(State.SENDING):
                # It was sent, and the outcome could not be written.
                await self._journal.update(record.key, self._to_unknown)
            sender = Sender(self._journal, self._session, self._limiter)
            reconciler = Reconciler(self._journal, self._client, self._session)
            self._runner = runner = Runner(
                self._journal, self._client, self._downloads, sender, reconciler, request, self._max_running
            )
            if previous is not None:
                runner.take_results(previous)
            elif failed := len(self._in_state(*FAILURES)):
                log.warning(FAILED_EARLIER, failed)
            self._errors = runner.errors
            runner.schedule(self._journal.records.values())
            tasks.start_soon(runner.run)
            return runner

    def _to_unknown(self, record: LaunchRecord) -> LaunchRecord | None:
        if record.state is not State.SENDING:
            return None
        return record.to_unknown("the outcome could not be written", self._journal.clock.wall())

    async def retry_failed(self, corrected: Iterable[Launch] = ()) -> int:
        """
        Plan a new attempt at each launch that was refused, or whose run failed, was stopped or was deleted.

        The runs of earlier attempts are left as they are.

        Args:
            corrected: Launches with another experiment or payload for the new attempt, matched by key. They also
                correct launches that were not sent yet, unless `run` is running. All others are ignored, so you may
                pass the complete list that you pass to `add` afterwards.

        Returns:
            The number of launches that were planned again or corrected. `run` starts them.

        Raises:
            InvalidPayload: A payload is invalid. Nothing is planned.
        """
        self._check_open()
        corrections: dict[str, PreparedLaunch] = {}
        for launch in check_launches(corrected):
            record = self._journal.records.get(launch.key)
            if record is not None and self._is_correctable(record):
                corrections[launch.key] = await prepare_launch(launch, self._journal.clock.wall())
        await self._journal.add_payloads(
            {correction.record.payload: correction.content for correction in corrections.values()}
        )
        failed = [record.key for record in self._in_state(*FAILURES)]
        return sum([await self._retry(key, corrections.get(key)) for key in dict.fromkeys([*failed, *corrections])])

    def _is_correctable(self, record: LaunchRecord) -> bool:
        is_idle = self._runner is None or self._runner.is_finished
        return record.state in FAILURES or (is_idle and record.is_unsent)

    async def _retry(self, key: str, correction: PreparedLaunch | None) -> bool:
        """Plan a launch again or correct it. Return False if another task has already done so."""

        def plan(record: LaunchRecord) -> LaunchRecord | None:
            now = self._journal.clock.wall()
            if correction is not None and self._is_correctable(record):
                is_new = record.state in FAILURES or not correction.is_same_as(record)
                return record.to_corrected(correction.record, now) if is_new else None
            return record.to_planned(Proof.ENDED, now) if record.state in FAILURES else None

        def schedule(record: LaunchRecord) -> None:
            if correction is not None:
                self._journal.keep_credentials(key, correction.credentials)
            self._schedule(record)

        return await self._journal.update(key, plan, schedule) is not None

    async def adopt(self, key: str, rest_uid: str) -> None:
        """
        Declare that a launch in doubt was started as this run.

        Raises:
            UnknownRun: The run does not exist.
            ValueError: The launch is not in doubt, its experiment or metadata differs from that of the run, or the run
                belongs to another launch.
        """
        self._check_open()
        record = self._journal.get_in_doubt(key)
        self._check_unowned(rest_uid)
        instance = from_instance(await self._client.instances.get(rest_uid))
        has_other_token = instance.has_metadata and instance.token != self._journal.token_of(record)
        if instance.package not in (None, record.package) or has_other_token:
            raise ValueError(f"the run {rest_uid!r} was not started for {key!r}: its experiment or metadata differs")

        def to_started(_: LaunchRecord) -> LaunchRecord:
            # Another task may have resolved it in the meantime, or given the run to another launch.
            current = self._journal.get_in_doubt(key)
            self._check_unowned(rest_uid)
            return current.to_started(rest_uid, self._journal.clock.wall())

        await self._journal.update(key, to_started, self._schedule)

    def _check_unowned(self, rest_uid: str) -> None:
        owner = self._journal.owner_of(rest_uid)
        if owner is not None:
            raise ValueError(f"the run {rest_uid!r} belongs to {owner!r}")

    async def forget(self, key: str) -> None:
        """
        Declare that a launch in doubt was not started. `run` starts it.

        Raises:
            ValueError: The launch is not in doubt.
        """
        self._check_open()
        self._journal.get_in_doubt(key)

        def to_planned(_: LaunchRecord) -> LaunchRecord:
            return self._journal.get_in_doubt(key).to_planned(Proof.BY_HAND, self._journal.clock.wall())

        await self._journal.update(key, to_planned, self._schedule)

    async def cancel(self) -> int:
        """
        Stop starting launches, and stop and delete all runs that have not ended.

        Launches that were not started stay planned, and launches in doubt stay in doubt.

        Returns:
            The number of deleted runs.

        Raises:
            TransportError, APIError: Some runs could not be deleted. The others are.
        """
        self._check_open()
        if self._runner is not None:
            self._runner.stop()
            await self._runner.wait_finished()
        records, limiter = self._in_state(State.STARTED), anyio.CapacityLimiter(DELETES_AT_ONCE)
        errors: list[St4sdError] = []

        async def delete(record: LaunchRecord) -> None:
            async with limiter:
                try:
                    await self._delete(record)
                except St4sdError as error:  # raised below, when all others are deleted
                    errors.append(error)

        async with anyio.create_task_group() as tasks:
            for record in records:
                tasks.start_soon(delete, record)
        if errors:
            raise errors[0]
        return len(records)

    async def _delete(self, record: LaunchRecord) -> None:
        uid = record.rest_uid or ""
        try:
            await self._client.delete(uid)
        except UnknownRun as error:
            if not error.detail:
                raise
        await self._journal.mark_deleted([uid])

        def to_deleted(current: LaunchRecord) -> LaunchRecord | None:
            # Another pass of `run` may have seen the end of its run already.
            if current.state is not State.STARTED or current.rest_uid != uid:
                return None
            return current.to_ended(State.DELETED, current.status, self._journal.clock.wall())

        await self._journal.update(record.key, to_deleted)

    def plot(self, axes: Axes | None = None) -> Axes:
        """
        Draw a time line of all launches, one below the other, in the order in which they were added.

        Each bar shows a time span that this batch recorded as it happened, by the clock of this machine:

        - *not started*: since it was added, or planned again;
        - *in doubt*: sent, but not known to be started;
        - *waiting*: since the service accepted its start, until its run was seen to begin;
        - the colour of its outcome, or of *in progress*: since then, until the batch learned of the end.

        Nothing is guessed. If the batch did not see a run begin, one paler bar spans from its start to its end.
        Launches of older versions of this package have no bars. The batch learns of changes with a delay: see
        `Client.watch_many`. A cross is a refused launch.

        Args:
            axes: Where to draw. None means a new figure of `matplotlib.pyplot`.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        from .._display.timeline import timeline

        histories = {key: self._journal.history.get(key, ()) for key in self._journal.records}
        return timeline(histories, self._journal.clock.wall(), axes)

    async def properties(self, names: Iterable[str] | None = None) -> Properties:
        """
        Return the measured properties of the runs in one table.

        This is the table of `Client.properties` with a column ``key`` before ``rest-uid``. Its ``problems`` has the
        runs without properties, by rest-uid.
        """
        keys = {record.rest_uid: record.key for record in self._journal.records.values() if record.rest_uid is not None}
        table = await self._client.properties(list(keys), names)
        rows = tuple((keys[row[0]], *row) for row in table.rows)
        return replace(table, columns=("key", *table.columns), rows=rows)

    def _card(self) -> Card:
        from .._render.cards import Card, Summary, Tone, counted, summary_table

        ordered = [State.COLLECTED, State.SUCCEEDED, State.STARTED, State.SENDING, State.UNKNOWN, State.PLANNED]
        counts = self.counts
        parts = [(counts[state], state_badge(state)) for state in [*ordered, *sorted(FAILURES)] if counts[state]]

        def summary(record: LaunchRecord) -> Summary:
            badge = state_badge(record.state)
            if record.error is None and badge.tone in (Tone.GOOD, Tone.BUSY, Tone.QUIET):
                return Summary(badge)
            return item_summary(self._item(record))  # reads the status: only for the few that show a reason

        records = dict(self._journal.records)
        table = summary_table("launch", {key: summary(record) for key, record in records.items()})
        return Card(
            counted(len(records), "launch"), kind=f"batch in {self._journal.name}", parts=tuple(parts), table=table
        )

    def _check_open(self) -> anyio.abc.TaskGroup:
        if self._tasks is None or self._binding is None:
            advice = "use it inside 'async with client.batch(...) as batch:' ('with' for the blocking client)"
            raise St4sdError(f"this batch is not open: {advice}")
        self._binding.check()
        return self._tasks

    def _in_state(self, *states: State) -> Sequence[LaunchRecord]:
        return [record for record in self._journal.records.values() if record.state in states]

    def _schedule(self, record: LaunchRecord) -> None:
        """Have the current pass work on a launch that was just written."""
        self._errors.pop(record.key, None)
        if self._runner is not None:
            self._runner.schedule([record])

    def _item(self, record: LaunchRecord) -> Item:
        run: Run | None = None if record.rest_uid is None else self._client.run(record.rest_uid)
        return item_of(record, run, self._errors.get(record.key))

    def _log_what_is_left(self) -> None:
        """Log what is unfinished, and how to resume."""
        counts = self._journal.counts
        left = {state: counts[state] for state in (State.PLANNED, State.UNKNOWN, State.SENDING, State.STARTED)}
        summary = ", ".join(f"{count} {state}" for state, count in left.items() if count) or "everything settled"
        advice = "run the same script again to resume" if self._journal.is_on_disk else "only batch.items has them now"
        log.warning(LEFT_UNFINISHED, summary, self._journal.name, advice)
