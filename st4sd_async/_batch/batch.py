"""Batches: start many launches exactly once each, watch their runs, and download their results."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import AsyncGenerator, Container, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

import anyio
import anyio.abc
import anyio.lowlevel

from .._errors import InvalidPayload, JournalError, LaunchConflict, Problem, St4sdError, UnknownRun
from .._http.session import LoopBinding
from .._render.displayable import Displayable, current_cell
from .._results.defaults import ROWS_PER_PART
from .._results.failure import MAX_EXPLAINED
from .._util.interrupts import interruptible, is_explained
from .._util.progress import ProgressReporter
from .._util.threads import in_thread
from .campaign import check_campaign
from .check import LaunchProblem, fetch_definitions, find_launch_problems, find_output_problems
from .download_request import DownloadRequest, download_request, output_names
from .item import Item, Items, ItemView, item_of, item_summary, state_badge
from .journal import Journal
from .launch import Launch, PreparedLaunch, check_launches, describe_differences, prepare_launch
from .observer import from_instance
from .reasons import REASON_GRACE, Reasons
from .reconciler import Reconciler
from .runner import RUNS_DELETED_AT_ONCE, Runner, StopEvent
from .sender import AdaptiveLimiter, Sender
from .state import DISPLAY_ORDER, FAILURES, OVER, LaunchRecord, Proof, State
from .time_left import seconds_left

if TYPE_CHECKING:
    from types import TracebackType

    import pandas
    import pyarrow
    from matplotlib.axes import Axes

    from .._display.live_display import Row
    from .._http.session import ClientSession
    from .._render.cards import Card, Summary
    from .._results.downloads import Downloads
    from .._run import Run
    from ..models import Failure, Properties
    from .client import BatchClient
    from .table import LaunchFacts

log = logging.getLogger("st4sd_async")

LAUNCHES_PER_WRITE = 1000
"""Launches that `Batch.add` writes to the journal at once."""
CHARACTERS_PER_WRITE = 4 << 20
"""Maximum number of payload characters in one such write, unless a single payload is longer."""

LEFT_UNFINISHED = "a batch was left with %s in %s: %s"
INTERRUPTED = "{}: no more launches are started, and runs continue; run this again to resume"
"""Note of an interrupted `Batch.run`."""
FAILED_EARLIER = "launches that failed earlier: %d; batch.retry_failed() plans another attempt for each"

_IN_PROGRESS = frozenset({State.STARTED, State.SUCCEEDED})
"""States of launches whose runs are watched, or whose key-outputs are downloaded."""
_MAY_HAVE_RUNS = (State.UNKNOWN, State.SENDING, State.STARTED)
"""States of launches whose runs may continue."""
_UNFINISHED = (State.PLANNED, *_MAY_HAVE_RUNS)
"""States of launches that are not over."""


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
    earlier lists showed. The datastore must respond, and no instance may exist that could be the run. An instance that
    ended before it executed anything does not count; it is named in `Item.never_executed`. If nothing is proven after
    three times ``Config.settle``, the launch is reported with `StartOutcomeUnknown`.

    The batch reads a list before it starts anything. If the service works but returns no list for ``Config.settle``,
    the batch begins without one and logs a warning. Nothing that was started then is proven to be absent, even if a
    list comes later: a launch in doubt is searched for, but never started again.

    One gap remains. If every list since the journal was created was cut off before the new run, and the run is queued
    all that time, its launch is started again. The same can happen with an older copy of a journal: a run that is
    missing from the copy cannot be recognised while it is queued or, if no list comes, until the datastore has it.

    Tasks of one event loop may share a batch. Leaving the block stops starting launches, and waits a few seconds for
    the responses to starts in flight and for the reasons of failures that are being read. Runs continue.
    """

    def __init__(
        self,
        client: BatchClient,
        session: ClientSession,
        downloads: Downloads,
        *,
        path: str | os.PathLike[str] | None = None,
        max_running: int | None = None,
        campaign: str | None = None,
    ) -> None:
        if campaign is not None:
            check_campaign(campaign)
        if max_running is not None and (not isinstance(max_running, int) or max_running < 1):
            raise ValueError(f"max_running must be a whole number of at least 1 or None, not {max_running!r}")
        self._client, self._session, self._downloads, self._campaign = client, session, downloads, campaign
        self._max_running = float("inf") if max_running is None else max_running
        self._journal = Journal(path, session.config.clock)
        self._limiter = AdaptiveLimiter(session.config.concurrency)
        self._errors: dict[str, Exception] = {}
        self._reasons = Reasons(self._journal, client)
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
            JournalError: It belongs to another deployment, or cannot be opened.
        """
        if self._tasks is not None:
            self._check_open()
            raise St4sdError("this batch is already open")
        self._binding = LoopBinding("batch")
        await self._journal.open(self._session.url, self._campaign)
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
                self._reasons.stop(REASON_GRACE if kind is None else 0)
                tasks, self._tasks = self._tasks, None
                # The error of the block is not one of these tasks, and would be wrapped in a group.
                await tasks.__aexit__(None, None, None)
        finally:
            await self._journal.close()
            if is_unfinished and not (current_cell() is not None and is_explained(error)):
                self._log_what_is_left()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count) or "empty"
        return f"{type(self).__name__}({self._journal.name}, {counts})"

    @property
    def counts(self) -> dict[str, int]:
        """
        Number of launches in each state.

        ``planned``: not started yet. ``sending``: being started. ``unknown``: in doubt, because its start had no clear
        response; the batch searches for its run. ``refused``: the service refused it. ``started``: its run has not
        ended. ``succeeded``, ``failed``, ``stopped``, ``deleted``: how its run ended. ``collected``: it succeeded, and
        its files were downloaded.
        """
        return {str(state): self._journal.counts[state] for state in State}

    @property
    def items(self) -> ItemView[Item]:
        """
        All launches as they are now, in the order in which they were added.

        A sequence that creates each `Item` on access. It also has the methods `by_key` and `in_state`.
        """
        return ItemView(list(self._journal.records.values()), self._item)  # a list: other threads may add some

    @property
    def running(self) -> list[Item]:
        """
        The launches whose runs `run` is watching, or whose key-outputs it downloads, with their latest statuses.

        Runs without a status are left out.
        """
        statuses = {} if self._runner is None else dict(self._runner.statuses)
        records = [record for key in statuses if (record := self._journal.records[key]).state in _IN_PROGRESS]
        return [replace(self._item(record), status=statuses[record.key]) for record in records]

    def failures(self) -> list[Item]:
        """Return the launches with an error: refused, failed, stopped, deleted, in doubt, or partly downloaded."""
        return [item for item in self.items if item.error is not None]

    async def failure(self, key: str) -> Failure | None:
        """
        Return why the run of a launch failed, and keep it in the journal in short.

            async for item in batch.run():
                if item.state == "failed":
                    print(item.key, await batch.failure(item.key))

        Each reason is read once. The journal keeps the failed components, with the last line that each wrote. It keeps
        nothing if the launch has credentials that this process was not given, because they could not be masked.

        Returns:
            The failure. None means that the run has not failed, or that there is no run.

        Raises:
            ValueError: The batch has no such launch.

        Source: as for `Client.failure`.
        """
        self._check_open()
        if key not in self._journal.records:
            raise ValueError(f"the batch has no launch {key!r}")
        return await self._reasons.read(key)

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
            payload = json.loads(same_call.content) if same_call else await self._journal.payload(known.payload)
            differences = describe_differences(known, payload, prepared.record, json.loads(prepared.content))
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
        self._journal.valid_payloads.update(record.payload for record in records)
        payloads = {prepared.record.payload: prepared.content for prepared in new.values()}
        written = await self._journal.add(records, payloads, schedule)
        for key in new.keys() - written:
            await self._is_known(new[key], {})
            self._journal.keep_credentials(key, new[key].credentials)
        return len(written)

    async def check(self, launches: Iterable[Launch], outputs: Iterable[str] | None = None) -> list[LaunchProblem]:
        """
        Return all problems of launches, before any of them is added or sent.

            for problem in await batch.check(launches, outputs=["Energies"]):
                print(problem)

        Checks files, names and values by the definitions of the experiments, sizes, and keys. A value is a problem too
        if it is no number and the default of its variable is one, as ``2,5``; the service would accept it. Each
        experiment is requested once, and the list of experiments once if one is unknown. Nothing else is sent, and the
        journal stays as it is. Whether there is room, and whether buckets, datasets and volumes exist, is not checked.

        Args:
            launches: Any number of launches.
            outputs: Key-outputs that `run` is to download. None means no downloads.

        Returns:
            The problems, in the order of the launches, and those that concern several launches first; [] if there are
            none.

        Raises:
            ValueError: ``outputs`` is a single name.
            InvalidPackage: The service returned an experiment without its registry metadata.

        Source: ``GET experiments/{identifier}`` and ``GET experiments/`` of the runtime service.
        """
        self._check_open()
        names, checked = output_names(outputs or ()), list(check_launches(launches))
        definitions = await fetch_definitions(self._session, checked)
        repeated = {key for key, count in Counter(launch.key for launch in checked).items() if count > 1}
        found = [LaunchProblem(None, "", *problem) for problem in find_output_problems(names, definitions)]
        earlier: dict[str, PreparedLaunch] = {}
        for position, launch in enumerate(checked):
            await anyio.lowlevel.checkpoint()
            problems = await find_launch_problems(launch, definitions[launch.identifier])
            if launch.key in repeated or launch.key in self._journal.records:
                problems += await self._find_key_problems(launch, earlier)
            found += [LaunchProblem(position, launch.key, *problem) for problem in problems]
        return found

    async def _find_key_problems(self, launch: Launch, earlier: dict[str, PreparedLaunch]) -> list[Problem]:
        """Return the problem of a key that another launch has, in the journal or ``earlier``; [] if there is none."""
        try:
            prepared = await prepare_launch(launch, self._journal.clock.wall())
            if not await self._is_known(prepared, earlier):
                earlier[launch.key] = prepared
        except JournalError as error:
            return [Problem("key", str(error))]
        except InvalidPayload:  # its problems are found without its key
            pass
        return []

    async def run(
        self,
        outputs: Iterable[str] | None = None,
        to: str | os.PathLike[str] | None = None,
        *,
        until: StopEvent | None = None,
        delete: Literal["collected"] | None = None,
    ) -> AsyncGenerator[Item]:
        """
        Start all launches, watch their runs, and yield each launch when it is done: nothing is left to do for it.

        Launches that were done in an earlier process are not yielded; see `items`. A launch in doubt is yielded with
        `StartOutcomeUnknown` if nothing can be proven, and is searched for again by the next call. If a run cannot be
        read for a minute, its launch is yielded with `DecodeError`, stays ``started``, and no longer counts as running.

        A launch may be yielded twice. This happens after `StartOutcomeUnknown`, if its outcome is found later in the
        same call. It also happens if an adopted run turns out to belong to another launch: both are in doubt again.

        A launch whose run fails is yielded at once, with the error description of its status. Why the first five failed
        is read meanwhile: `items`, `failures` and the journal have it afterwards. `failure` waits for it.

        Launches may be added during the loop. Leaving the loop stops starting launches, and runs continue. The loop
        survives an outage of the service of any length. A second call ends the first.

        Args:
            outputs: Key-outputs to download of each run that succeeds. None means no downloads.
            to: Folder for the downloads. None means a folder beside the journal: ``campaign.db.results`` for
                ``campaign.db``. Each key gets its own folder in it, named after the key. A key gets a hashed
                name if it has characters other than letters, digits and ``.``, ``_``, ``-``, or differs from another
                key only by case. `Item.files` has the paths. The folder may be a symbolic link; the folder of a key may
                not.
            until: For a service: an event of asyncio, anyio or threading that ends the loop. Until then the loop waits
                for launches that are added later. When the event is set, no more launches are started, the responses
                to starts in flight are recorded, launches that are done are yielded, and runs continue. None means that
                the loop ends when all launches are done.
            delete: ``"collected"`` deletes each run once its files are on the disk and in the journal, so that the
                service never has all instances of a large campaign at the same time: lists of thousands are slow. The
                documents and properties of a deleted run stay. None deletes nothing. Runs that failed are never
                deleted.

        Raises:
            Unauthorized: The credentials were refused and could not be renewed.
            JournalError: The journal cannot be written.
            ValueError: ``to`` or ``delete`` is given without ``outputs``, or ``to`` is missing while the journal is in
                memory; or the folder has files for keys that were never started, so it belongs to another batch.
        """
        self._check_open()
        if delete not in (None, "collected"):
            raise ValueError(f"delete must be 'collected' or None, not {delete!r}")
        if delete and outputs is None:
            raise ValueError("outputs (names of key-outputs) is missing: runs are deleted once these are collected")
        request = await in_thread(download_request, outputs, to, self._journal)
        if request is not None:
            planned = [record.key for record in self._in_state(State.PLANNED)]
            await in_thread(request.check_unused, self._journal, planned)
            for record in await in_thread(request.missing_files, self._in_state(State.COLLECTED)):
                await self._journal.update(record.key, partial(self._to_not_collected, record))
        request_text = request.text if request else None
        total = sum(not record.is_done(request_text) for record in self._journal.records.values())
        with (
            self._session.waiting(),
            ProgressReporter(
                self._session.config.progress, f"launches in {self._journal.name}", total, "launches"
            ) as progress,
        ):
            runner = await self._begin(request, until, deletes_collected=delete is not None)
            try:
                with interruptible(lambda: INTERRUPTED.format(self._unfinished() or "everything done")):
                    while (key := await runner.next_done()) is not None:
                        progress.finish()
                        yield self._item(self._journal.records[key])
            finally:
                runner.stop()

    async def show(self, outputs: Iterable[str] | None = None, to: str | os.PathLike[str] | None = None) -> list[Item]:
        """
        Run the batch as `run` does, show all launches in a live table, and return them when all are done.

            await batch.show(outputs=["Energies"])

        The table is displayed as that of `Client.show`; at the end, it shows why the first five failed. The time of a
        launch counts from the start of its run to its end. A notebook does not show the returned launches below the
        table if the call is the last expression of a cell.

        Args:
            outputs, to: As in `run`.

        Returns:
            All launches, as in `items`.

        Raises:
            Unauthorized, JournalError, ValueError: As in `run`.
        """
        from .._display.live_display import LiveDisplay
        from .._display.surfaces import default_surface
        from .board import COLUMNS, STOPPED, counts_by_badge, launch_row

        def row(item: Item) -> Row:
            return launch_row(item, self._journal.history_of(item.key))

        await self._journal.read_history()
        seen: list[str] = []
        done = {key for key, record in self._journal.records.items() if record.state in OVER}
        display = LiveDisplay(
            "launch",
            COLUMNS,
            default_surface(),
            count=lambda: counts_by_badge(self.counts),
            running=lambda: map(row, self._in_progress(done)),
            outage=lambda: self._session.shared.outage,
        )
        display.footer = STOPPED
        for item in self.items:
            display.update(row(item))
        async with display.drawn(self._session.config.clock), aclosing(self.run(outputs, to)) as items:
            async for item in items:
                display.update(row(item))
                seen.append(item.key)
                done.add(item.key)
            display.footer = ""
            for key in [key for key in seen if self._journal.records[key].state is State.FAILED][:MAX_EXPLAINED]:
                with suppress(St4sdError):  # the status is left
                    await self._reasons.read(key)
            for item in self.items:
                display.update(row(item))
        return Items(self.items)

    def _in_progress(self, done: Container[str]) -> list[Item]:
        """Return the launches that were sent and are not among ``done``, with the latest statuses of their runs."""
        statuses = {} if self._runner is None else dict(self._runner.statuses)
        return [
            replace(self._item(record), status=statuses.get(record.key))
            if record.state is State.STARTED
            else self._item(record)
            for record in self._journal.records.values()
            if record.state is not State.PLANNED and record.key not in done
        ]

    def _to_not_collected(self, record: LaunchRecord, current: LaunchRecord) -> LaunchRecord | None:
        if current is not record:
            return None  # another task has changed it
        return record.to_not_collected("DownloadError", "files were removed since", self._journal.clock.wall())

    async def _begin(
        self, request: DownloadRequest | None, until: StopEvent | None, *, deletes_collected: bool
    ) -> Runner:
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
                self._journal,
                self._client,
                self._downloads,
                sender,
                reconciler,
                request,
                deletes_collected,
                self._max_running,
                self._session.config.downloads,
                lambda key: tasks.start_soon(self._reasons.read_unasked, key),
                until,
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
        records, limiter = self._in_state(State.STARTED), anyio.CapacityLimiter(RUNS_DELETED_AT_ONCE)
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

        What earlier processes recorded is read from the journal now. That takes seconds for a million launches.

        Args:
            axes: Where to draw. None means a new figure of `matplotlib.pyplot`.

        Raises:
            ConfigError: matplotlib is not installed.
            JournalError: The journal cannot be read.
        """
        from .._display.timeline import timeline

        self._journal.load_history()
        histories = {key: self._journal.history_of(key) for key in self._journal.records}
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

    async def table(self, names: Iterable[str] | None = None) -> Properties:
        """
        Return all launches in one table, joined with the measured properties of their runs.

            table = await batch.table()
            Path("campaign.csv").write_text(table.to_csv(), "utf-8")   # or table.to_json_lines(), table.dataframe()

        A launch has a row for each measurement of its run, or one row if there is none. The columns, in this order:

        - ``key``, ``experiment``, ``platform``;
        - ``variable:NAME`` and ``metadata:NAME`` of the payload, as in a table of ``st4sd-async batch run``;
        - ``inputs``: the names of its input and data files;
        - ``state``, a key of `counts`, and ``rest-uid``;
        - ``start``: when the service accepted its start (UTC); ``duration``: seconds from then until this batch
          learned of its end, so it includes waiting for resources;
        - ``why``: why it failed, or why its run has no properties;
        - ``input-id`` and the properties, under their own names. A property with the name of another column is
          ``property:NAME``.

        A cell that does not apply is None. A value that a run did not measure is NaN. If the journal lost a payload,
        the cells of that payload are None.

        Args:
            names: Properties, in any case. None means all.

        Returns:
            The table. Its ``problems`` has the runs without properties, by rest-uid.

        Raises:
            UnknownProperty: None of the runs that measured properties has one of ``names``.

        Source: as for `Client.properties`; all else comes from the journal.
        """
        from .table import join

        self._check_open()
        launches = await self._facts()
        runs = [launch.rest_uid for launch in launches if launch.rest_uid is not None]
        return join(launches, await self._client.properties(runs, names))

    async def properties_in_parts(
        self, names: Iterable[str] | None = None, *, rows: int = ROWS_PER_PART
    ) -> AsyncGenerator[pandas.DataFrame]:
        """
        Yield the table of all launches as pandas DataFrames, so that only one part is in memory.

            async for part in batch.properties_in_parts(["energy"]):
                print(part.groupby("variable:scale")["energy"].mean())

        The parts are the table of `table`, cut into pieces. All parts have the columns of launches. A part has the
        properties that any of its runs has, with dtypes that are found in its values, so parts may differ. With
        ``names`` they have the same columns. Up to 500 launches are read at a time.

        Args:
            names: Properties, in any case. None means all.
            rows: Rows of each part; the last one has fewer.

        Raises:
            UnknownProperty: None of the runs that measured properties has one of ``names``. Raised at the end.
            ValueError: ``rows`` or a name is invalid.
            ImportError: pandas is not installed.

        Source: as for `table`.
        """
        from .._results.parts import check_rows, frames
        from .._results.properties import PartsReader
        from .table_parts import TableParts

        self._check_open()
        check_rows(rows)
        table = TableParts(self._journal, self._item, PartsReader(self._client._properties_reader(names)))
        await table.open()
        async with aclosing(frames(table.tables(), rows)) as parts:
            async for part in parts:
                yield part

    async def write_properties(
        self,
        to: str | os.PathLike[str],
        names: Iterable[str] | None = None,
        *,
        schema: pyarrow.Schema | None = None,
        rows: int = ROWS_PER_PART,
    ) -> list[str]:
        """
        Write the table of all launches as a folder of Parquet files, with only one of them in memory.

            await batch.write_properties("campaign.parquet")
            pandas.read_parquet("campaign.parquet", columns=["key", "energy"])

        The table has the rows and columns of `table`. A missing value is null. Each file has the rows of some launches
        and appears under its name only when it is complete.

        Call it again after a crash, or when the batch has gone on: it writes the files that are missing. It also
        replaces those in which a launch has changed since, or was not over. All others are left as they are.

        The columns are fixed by the first call, so that all files have the same:

        - With ``schema`` they are declared. Otherwise they are looked up in up to 20 runs of each experiment that
          succeeded. Numbers are then float64, also whole ones; truth values are bool; all else, and what is mixed, is
          string. ``input-id`` is string.
        - A later run that lacks a column has null in it.
        - A later run, or a launch that is added later, with one more column, or with a value that does not have the
          type of its column, is a `SchemaMismatch`. In a column of strings a number is written as text. Files that
          were written before stay.

        Args:
            to: Path of the folder, created if missing, or its URL, such as ``s3://bucket/folder``, with the credentials
                in the environment.
            names: Properties, in any case. None means all, or those of the first call.
            schema: A `pyarrow.Schema` of the properties, in place of ``names``. It may also have other columns of the
                table, to give them another type. None means that the columns are looked up, or those of the first call.
            rows: Rows of each file, at least; the last one may have fewer.

        Returns:
            The paths or URLs of all files, in the order of the launches.

        Raises:
            SchemaMismatch: A value does not fit into the table.
            NoProperties: No run has properties in which columns could be looked up.
            UnknownProperty: None of the runs that measured properties has one of ``names``.
            ValueError: ``names``, ``schema``, ``rows`` or the URL is invalid, or the folder has another table.
            ImportError: pyarrow is not installed.
            OSError: A file cannot be written.

        Source: as for `table`.
        """
        from .._results.parts import check_rows
        from .table_files import write_table

        self._check_open()
        check_rows(rows)
        if names is not None and schema is not None:
            raise ValueError("names and schema cannot be combined: the schema has the names")
        return await write_table(to, names, schema, rows, self._journal, self._item, self._client._properties_reader)

    async def _facts(self) -> list[LaunchFacts]:
        """Return what the journal knows of all launches."""
        from .table import PayloadFacts, facts_of_launches

        await self._journal.read_history()
        payloads = await self._journal.payload_parts(PayloadFacts.of)
        return facts_of_launches(self.items, self._journal.records, payloads, self._journal.histories())

    async def report(
        self,
        path: str | os.PathLike[str],
        names: Iterable[str] | None = None,
        *,
        title: str | None = None,
        offline: bool = False,
    ) -> None:
        """
        Write a report about the batch to send to a colleague: one HTML page.

            await batch.report("campaign.html")

        The page has the number of launches in each state, a time line as in `plot`, failures by reason with the last
        lines of output, and the table of `table`, which can be sorted. It is one file, works without a network, and
        may be written while `run` is running.

        The reasons of up to 20 failed runs are requested, for at most 20 seconds each. If the service fails, the page
        is written without them. It says so in a note, and a warning is logged.

        The page does not show: credentials of this client and of payloads, ``environmentVariables``, contents of
        files, and values of variables and metadata whose name ends in ``password``, ``secret``, ``api_key`` or similar.
        All other values are shown, shortened if they are long.

        Args:
            path: The file, whose name must end in ``.html``. An existing file is replaced when the new one is complete.
            names: Properties, in any case. None means all.
            title: Title of the page. None means the campaign name or, if there is none, the name of the journal.
            offline: Send no request. The page then has no properties, and only reasons that `run` has fetched.

        Raises:
            ValueError: The name does not end in ``.html``.
            UnknownProperty: None of the runs that measured properties has one of ``names``.
            OSError: The file cannot be written.

        Source: as for `table` and `Client.failure`.
        """
        from .report import check_path, keys_with_credentials, title_of, write_report
        from .report_page import Report

        self._check_open()
        file = check_path(path)
        launches = await self._facts()
        unmasked = keys_with_credentials(launches) - self._journal.credentials.keys()
        report = Report(
            title=title or self._journal.campaign or title_of(self._journal.path),
            server=self._session.url,
            campaign=self._journal.campaign,
            launches=[self._with_kept_reason(one) if one.item.key in unmasked else one for one in launches],
            written=self._journal.clock.wall(),
            secrets=(*self._session.secrets(), *self._journal.secrets()),
            unmasked=frozenset(unmasked),
        )
        client = None if offline else self._client
        await write_report(report, file, client, names, lambda launch: self._reasons.read(launch.item.key))

    def _with_kept_reason(self, launch: LaunchFacts) -> LaunchFacts:
        """Return a launch with the reason that the journal has, not with one that this process could not mask."""
        key, kept = launch.item.key, self._journal.reasons.get(launch.rest_uid or "")
        item = item_of(self._journal.records[key], launch.item.run, self._errors.get(key), kept)
        return replace(launch, item=item)

    def _card(self) -> Card:
        from .._render.cards import Card, Summary, Tone, counted, summary_table

        counts = self.counts
        parts = [(counts[state], state_badge(state)) for state in DISPLAY_ORDER if counts[state]]

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
        rest_uid = record.rest_uid or ""
        reason = self._reasons.known.get(rest_uid) or self._journal.reasons.get(rest_uid)
        return item_of(record, run, self._errors.get(record.key), reason)

    def _unfinished(self) -> str:
        """Return how many launches are not finished: by state, then those to download and those to delete."""
        counts = self._journal.counts
        left: dict[str, int] = {state: counts[state] for state in _UNFINISHED}
        if self._runner is not None:
            left["to download"], left["to delete"] = self._runner.count_uncollected()
        return ", ".join(f"{count} {what}" for what, count in left.items() if count)

    def _log_what_is_left(self) -> None:
        """Log what is unfinished, and how to resume. A pass that was left with its last launch has nothing left."""
        if not (unfinished := self._unfinished()):
            return
        advice = "run the same script again to resume" if self._journal.is_on_disk else "only batch.items has them now"
        if any(self._journal.counts[state] for state in _MAY_HAVE_RUNS):
            advice = f"runs continue; {advice}"
        log.warning(LEFT_UNFINISHED, unfinished, self._journal.name, advice)


def estimate(batch: Batch) -> float | None:
    """Return the estimated seconds until all launches are over, or None; for the command line."""
    return seconds_left(batch._journal.histories().values(), batch._journal.clock.wall())


async def read_history(batch: Batch) -> None:
    """Read what `estimate` needs of earlier openings; for the command line."""
    await batch._journal.read_history()


def known_reasons(batch: Batch) -> Mapping[str, Failure]:
    """Return rest-uid -> why a run failed, of the reasons that this process has read; for the command line."""
    return batch._reasons.known
