"""One pass over a batch: start planned launches, watch runs, resolve doubts, and download results."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from .._errors import APIError, DecodeError, MissingCredentials, St4sdError, TransportError, UnknownRun
from .._results.downloads import raise_if_strict
from .._util.threads import in_thread
from .._watch.status_reader import is_transient
from ..models.hints import Reason
from ..models.runs import check_rest_uid
from .item import status_to_json
from .reconciler import Reconciler, is_misattributed, take_back
from .sender import Sender, is_fatal
from .state import METADATA_KEY, LaunchRecord, State

if TYPE_CHECKING:
    from .._results.downloads import Downloads
    from ..models import Status
    from .client import BatchClient
    from .download_request import DownloadRequest
    from .journal import Journal

log = logging.getLogger("st4sd_async")

WATCH_DELAY = 0.5
"""Longest time in seconds for which new runs are collected before they are watched together."""
BASELINE_RETRY = 5.0
"""Seconds between attempts to read the list that is required before the first send."""
EVENT_INTERVAL = 0.1
"""Seconds between two checks of the event that ends a pass: a `threading.Event` cannot be awaited."""
RUNS_DELETED_AT_ONCE = 4

_BEFORE_RUNNING = frozenset({Reason.PENDING, Reason.INITIALISING, Reason.UNSCHEDULED, Reason.UNSCHEDULABLE})
"""Reasons why a run has not begun."""


class StopEvent(Protocol):
    """An event that ends `Batch.run`: an `asyncio.Event`, `anyio.Event` or `threading.Event`."""

    def is_set(self) -> bool:
        """Return whether the event has happened."""


class Runner:
    """
    The tasks of one `Batch.run`. A loop, `_dispatch`, hands each launch to the task for its state:

                    refused  -----------------------------------------------> done
                       ^
                       |
        planned --- _send ---> started --- _watch ---> failed, stopped, deleted --> done
           ^           |         ^  |         |
           |           |   found |  |         +--> succeeded --- _download ---> collected --> done
           |           v         |  |
           |        unknown <----|--+  its run belongs to another launch
           |           |         |
           +----- _reconcile ----+
        proven         |
        absent         +--> undecidable: done until the next pass

    Each launch that is done passes through `_report`, and `next_done` returns its key. A pass ends when all launches
    are done, or with `stop`. With an event, it waits for launches that are added later, until the event is set.
    """

    def __init__(
        self,
        journal: Journal,
        client: BatchClient,
        downloads: Downloads,
        sender: Sender,
        reconciler: Reconciler,
        request: DownloadRequest | None,
        deletes_collected: bool,
        max_running: float,
        max_downloads: int,
        on_failed: Callable[[str], object],
        until: StopEvent | None = None,
    ) -> None:
        self._journal, self._client, self._downloads = journal, client, downloads
        self._sender, self._reconciler = sender, reconciler
        self._request, self._deletes_collected = request, deletes_collected
        self._max_running = max_running
        self._on_failed = on_failed
        """Called with the key of each launch whose run has failed, after it was reported."""
        self._until = until
        """Ends the pass. None means that it ends when all launches are done."""
        self._open: set[str] = set()
        """Keys of launches that are not done."""
        self._planned: OrderedDict[str, None] = OrderedDict()  # a dict takes ever longer to find its first key
        """Keys of launches to send, in order."""
        self._in_flight: set[str] = set()
        """Keys of launches that are being sent."""
        self._to_watch: list[str] = []
        """Keys of launches whose runs are not watched yet."""
        self._watch_delay = anyio.CancelScope()
        """Cancelled when no start is in flight, so that no other run can join those to watch."""
        self._unwatchable: set[str] = set()
        """Keys that were reported although their runs continue. They do not count as running."""
        self._undecidable: set[str] = set()
        """Keys that were reported although they are in doubt."""
        self._to_download: list[str] = []
        self._uncollected: set[str] = set()
        """Keys of launches whose runs succeeded and are not collected, or not deleted."""
        self._single_tasks: set[str] = set()
        """Names of running tasks of which there is at most one at a time."""
        self._download_limiter = anyio.Semaphore(max_downloads)
        self._delete_limiter = anyio.Semaphore(RUNS_DELETED_AT_ONCE)
        self._changed, self._reported, self._finished = anyio.Event(), anyio.Event(), anyio.Event()
        self._results: deque[str] = deque()
        """Keys of reported launches that were not read yet."""
        self._is_read = False
        """Whether the reader waits for a result and there is none."""
        self._scope = anyio.CancelScope()
        self.statuses: dict[str, Status] = {}
        """key -> the latest status, of launches whose runs are watched or whose key-outputs are downloaded."""
        self.error: Exception | None = None
        """Why the pass ended early."""
        self.errors: dict[str, Exception] = {}
        """key -> error of a launch, if it is more precise than the one in the journal."""

    @property
    def is_finished(self) -> bool:
        """Whether all tasks have ended."""
        return self._finished.is_set()

    async def wait_finished(self) -> None:
        """Return when all tasks have ended."""
        await self._finished.wait()

    async def next_done(self) -> str | None:
        """Return the key of the next launch that is done. None means that all are. Raises what ended the pass."""
        while not self._results:
            if self.is_finished:
                if self.error is not None:
                    raise self.error
                return None
            # Only now may the pass end: until here the reader could have added launches.
            self._is_read = True
            self._changed.set()
            self._reported = anyio.Event()
            await self._reported.wait()
            self._is_read = False
        return self._results.popleft()

    def take_results(self, previous: Runner) -> None:
        """Return the unread results of a previous pass first."""
        self._results, previous._results = previous._results, self._results
        self.errors.update(previous.errors)

    def stop(self, error: Exception | None = None) -> None:
        """Stop starting launches. The outcomes of starts in flight are recorded within seconds."""
        self.error = self.error or error
        self._sender.begin_shutdown()
        self._scope.cancel()

    def schedule(self, records: Iterable[LaunchRecord]) -> None:
        """Work on these launches until they are done."""
        for record in records:
            is_open = not self.is_done(record)
            if is_open or record.state is State.COLLECTED:
                self.errors.pop(record.key, None)  # an earlier error no longer holds
            if is_open:
                self._open.add(record.key)
                self._unwatchable.discard(record.key)
                self._undecidable.discard(record.key)
                self._route(record)

    def is_done(self, record: LaunchRecord) -> bool:
        """Return whether nothing is left to do for a launch."""
        return record.is_done(self._request.text if self._request else None) and not self._must_delete(record)

    def count_uncollected(self) -> tuple[int, int]:
        """Return how many launches wait for their downloads, and how many only for the deletion of their run."""
        text = self._request.text if self._request else None
        done = [self._journal.records[key].is_done(text) for key in self._uncollected]
        return done.count(False), done.count(True)

    def _must_delete(self, record: LaunchRecord) -> bool:
        is_collected = record.state is State.COLLECTED
        return self._deletes_collected and is_collected and record.rest_uid not in self._journal.deleted

    def _route(self, record: LaunchRecord) -> None:
        """Put an open launch into the queue for its state."""
        if record.state is State.PLANNED:
            self._planned.setdefault(record.key)
        elif record.state is State.STARTED:
            self._to_watch.append(record.key)
        elif record.state is State.UNKNOWN:
            self._reconciler.observe_soon()
        elif record.state in (State.SUCCEEDED, State.COLLECTED):
            self._uncollected.add(record.key)
            self._to_download.append(record.key)
        self._changed.set()

    async def run(self) -> None:
        """Work until all launches are done, or until `stop`."""
        try:
            with self._scope:
                async with anyio.create_task_group() as self._tasks:
                    try:
                        await self._guarded(self._dispatch)
                    finally:
                        self._sender.begin_shutdown()
                    self._tasks.cancel_scope.cancel()
        finally:
            self._finished.set()
            self._reported.set()

    async def _guarded(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except Exception as error:  # raised by `next_done`
            self.stop(error)

    def _begin(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        self._tasks.start_soon(self._guarded, work, *arguments)

    def _begin_single(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Begin a task unless one with this name is running."""
        if name in self._single_tasks:
            return
        self._single_tasks.add(name)

        async def run() -> None:
            try:
                await work()
            finally:
                self._single_tasks.discard(name)
                self._changed.set()

        self._begin(run)

    async def _dispatch(self) -> None:
        """Begin tasks for queued launches until the pass ends."""
        if self._until is not None:
            self._begin(self._stop_at, self._until)
        while self._until is not None or self._open or self._results or not self._is_read:
            self._changed = anyio.Event()
            self._send_planned()
            if self._to_watch:
                self._begin_single("watch", self._watch_new)
                if not self._in_flight:
                    self._watch_delay.cancel()
            while self._to_download:
                self._begin(self._download, self._to_download.pop())
            if self._count_in_doubt():
                self._begin_single("reconcile", self._reconcile)
            await self._changed.wait()

    async def _stop_at(self, event: StopEvent) -> None:
        while not event.is_set():  # noqa: ASYNC110 -- it may be an event of threads
            await anyio.sleep(EVENT_INTERVAL)
        self.stop()

    # Starting.

    def _send_planned(self) -> None:
        """Begin to send as many launches as the limits permit."""
        if not self._planned:
            return
        if not self._journal.has_baseline:
            self._begin_single("baseline", self._note_baseline)
            return
        while (key := self._take_planned()) is not None:
            self._begin(self._send, key)
        now, resume_at = self._journal.clock.now(), self._sender.limiter.resume_at
        if self._planned and resume_at > now:
            self._begin_single("pause", lambda: self._journal.clock.sleep(resume_at - now))

    def _take_planned(self) -> str | None:
        """Return the key of the next launch to send, which is in flight from now on; None if the limits permit none."""
        while self._planned and self._may_send():
            key, _ = self._planned.popitem(last=False)
            # In the queue it may have been found to be started, and even have been planned again.
            if self._journal.records[key].state is State.PLANNED and key not in self._in_flight:
                self._in_flight.add(key)
                return key
        return None

    def _may_send(self) -> bool:
        """Return whether the limits permit one more start."""
        if self._sender.is_shutting_down:
            return False
        started = self._journal.counts[State.STARTED] - len(self._unwatchable)
        running = started + len(self._in_flight) + self._count_in_doubt()
        count = min(
            self._sender.limiter.available(len(self._in_flight), self._journal.clock.now()),
            self._max_running - running,
        )
        if self._deletes_collected:  # otherwise any number of instances could wait for their downloads
            count = min(count, 2 * self._max_running - running - len(self._uncollected))
        return count >= 1

    async def _note_baseline(self) -> None:
        try:
            self.schedule(await self._reconciler.note_baseline())
        except (APIError, TransportError, DecodeError) as error:
            if not is_transient(error, has_responded=True):
                raise
            await self._journal.clock.sleep(BASELINE_RETRY)

    async def _send(self, key: str) -> None:
        """Send a launch, and then others while the limits permit that: a task for each would cost more."""
        next_key: str | None = key
        while next_key is not None:
            await self._send_one(next_key)
            next_key = self._take_planned()

    async def _send_one(self, key: str) -> None:
        failure: Exception | None = None
        try:
            if self._journal.records[key].state is not State.PLANNED:
                return
            failure = await self._sender.send(key)
        except MissingCredentials as error:
            self._report(key, error)
            return
        finally:
            self._in_flight.discard(key)
            self._changed.set()
        if failure is not None and is_fatal(failure):
            self.stop(failure)
        record = self._journal.records[key]
        if record.state is State.REFUSED:
            self._report(key, failure)
        else:
            self._route(record)

    # Launches in doubt.

    def _count_in_doubt(self) -> int:
        """Return how many launches are in doubt and may still be resolved. Each event asks for it."""
        records = self._journal.records
        undecidable = sum(records[key].state is State.UNKNOWN for key in self._undecidable)
        return self._journal.counts[State.UNKNOWN] - undecidable

    async def _reconcile(self) -> None:
        """Observe the service until no launch is in doubt, or none of them can be decided."""
        while self._count_in_doubt():
            await self._reconciler.pause()
            for record, undecidable in await self._reconciler.reconcile():
                if undecidable is None:
                    self.schedule([record])
                elif record.key in self._open:
                    self._report(record.key)

    async def _take_back(self, key: str, rest_uid: str, token: str) -> None:
        self.statuses.pop(key, None)
        self.schedule(await take_back(self._journal, key, rest_uid, token))
        self._report_if_done(key)

    # Watching.

    async def _watch_new(self) -> None:
        with self._watch_delay:
            await self._journal.clock.sleep(WATCH_DELAY)
        self._watch_delay = anyio.CancelScope()
        records = [self._journal.records[key] for key in self._to_watch]
        self._to_watch = []
        self._begin(self._watch, [record.key for record in records if record.state is State.STARTED])
        for record in records:
            self._report_if_done(record.key)

    async def _watch(self, keys: Sequence[str]) -> None:
        """Watch runs until they have ended. If one cannot be watched, find it by bisection."""
        # A run that was taken back in the meantime has no id.
        runs = {uid: key for key in keys if (uid := self._journal.records[key].rest_uid) is not None}
        waiting: set[str] = set()
        failure: St4sdError | None = None
        try:
            async with aclosing(self._client.watch_many(runs)) as changes:
                async for run, status in changes:
                    key = runs.get(run.id)
                    if key is None or self._journal.records[key].rest_uid != run.id:
                        continue  # it was taken back
                    if token := self._foreign_token(key, run.id, status):
                        self._begin(self._take_back, runs.pop(run.id), run.id, token)
                        continue
                    self.statuses[key] = status
                    if status.is_final:
                        self._begin(self._end, runs.pop(run.id), run.id, status)
                    elif status.hint and status.hint.reason in _BEFORE_RUNNING:
                        waiting.add(run.id)
                    elif run.id in waiting:
                        waiting.discard(run.id)
                        self._journal.note_running(runs[run.id])
        except St4sdError as error:
            if is_fatal(error):
                raise
            failure = error
        left = [(key, uid) for uid, key in runs.items() if self._journal.records[key].rest_uid == uid]
        if failure is not None and len(left) > 1:
            for half in (left[: len(left) // 2], left[len(left) // 2 :]):
                self._begin(self._watch, [key for key, _ in half])
        elif left and isinstance(failure, UnknownRun) and failure.detail:
            await self._end(*left[0], None)
        elif failure is not None and left:
            self.statuses.pop(left[0][0], None)
            self._report(left[0][0], failure)

    def _foreign_token(self, key: str, rest_uid: str, status: Status) -> str | None:
        """Return the token that a run carries if it belongs to another launch."""
        token = status.meta.user_metadata.get(METADATA_KEY) if status.meta else None
        if not isinstance(token, str):
            return None
        return token if is_misattributed(self._journal, self._journal.records[key], rest_uid, token) else None

    async def _end(self, key: str, rest_uid: str, status: Status | None) -> None:
        """Record that a run has ended. Without a status, the run no longer exists."""
        record = self._journal.records[key]
        if record.rest_uid != rest_uid:
            return  # it was taken back
        if record.state is State.STARTED:
            state = _end_state(status)
            if state is State.DELETED:
                await self._journal.mark_deleted([rest_uid])
            secrets = map(str, self._journal.credentials.get(key, {}).values())
            last_status = None if status is None else status_to_json(status, secrets)

            def to_ended(current: LaunchRecord) -> LaunchRecord | None:
                # Another task may have deleted it in the meantime, or taken it back.
                if current.state is not State.STARTED or current.rest_uid != rest_uid:
                    return None
                return current.to_ended(state, last_status, self._journal.clock.wall())

            if state is State.SUCCEEDED and self._request:
                self._uncollected.add(key)  # before its state changes, so that `_may_send` always counts it
            record = await self._journal.update(key, to_ended) or self._journal.records[key]
            if record.rest_uid != rest_uid:
                self._uncollected.discard(key)
                return
        if record.state is State.SUCCEEDED and self._request:
            self._uncollected.add(key)
            await self._download(key)
            return
        self._report(key)
        if record.state is State.FAILED:
            self._on_failed(key)

    # Downloading.

    async def _download(self, key: str) -> None:
        """Download the requested key-outputs of a run that succeeded."""
        record, journal, request = self._journal.records[key], self._journal, self._request
        assert request is not None
        if record.is_done(request.text):  # an earlier process collected it, and died before it was deleted
            if await in_thread(request.has_unchanged_files, journal, record):
                await self._delete(record)
            else:
                log.warning("the run %r of %r is kept, because its files have changed", record.rest_uid, key)
            self._report(key)
            return
        async with self._download_limiter:
            try:
                found = await self._downloads.outputs(
                    check_rest_uid(record.rest_uid),
                    request.folder(journal, key),
                    request.names,
                    unpack=False,
                    is_chosen=False,
                    label=key,
                )
                files = raise_if_strict(found, strict=True)
            except Exception as error:  # reported with the item
                if record.state is State.SUCCEEDED:  # otherwise it still has the files of an earlier request
                    now = journal.clock.wall()
                    await journal.replace(record, record.to_not_collected(type(error).__name__, str(error), now))
                self._report(key, error)
                return
        paths = [str(file.path) for file in files]
        collected = record.to_collected(request.text, paths, journal.clock.wall())
        await journal.replace(record, collected)
        if self._must_delete(collected):
            await self._delete(collected)
        self._report(key)

    async def _delete(self, record: LaunchRecord) -> None:
        """Delete a run whose files are on the disk. If that fails, the next pass tries again."""
        rest_uid = check_rest_uid(record.rest_uid)
        try:
            async with self._delete_limiter:
                await self._client.delete(rest_uid)
        except St4sdError as error:
            if not (isinstance(error, UnknownRun) and error.detail):  # else it was deleted already
                log.warning("the run %r of %r was collected, but cannot be deleted: %s", rest_uid, record.key, error)
                return
        await self._journal.mark_deleted([rest_uid])

    def _report_if_done(self, key: str) -> None:
        """Report a launch that another task has finished in the meantime: its run was deleted."""
        if key in self._open and self.is_done(self._journal.records[key]):
            self._report(key)

    def _report(self, key: str, error: Exception | None = None) -> None:
        """Hand a launch to the reader: it is done for now."""
        self.statuses.pop(key, None)
        if error is not None:
            self.errors[key] = error
        state = self._journal.records[key].state
        if state is State.STARTED:
            self._unwatchable.add(key)
        elif state is State.UNKNOWN:
            self._undecidable.add(key)
        self._open.discard(key)
        self._uncollected.discard(key)
        self._results.append(key)
        self._reported.set()
        self._changed.set()


def _end_state(status: Status | None) -> State:
    if status is None or status.is_deleted:
        return State.DELETED
    if status.is_success:
        return State.SUCCEEDED
    return State.STOPPED if status.exit_status == "Stopped" else State.FAILED
