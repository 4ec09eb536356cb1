"""One pass over a batch: start planned launches, watch runs, settle doubts, and download results."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio

from .._errors import APIError, DecodeError, MissingCredentials, St4sdError, TransportError, UnknownRun
from .._results.downloads import raise_if_strict
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
"""Seconds for which new runs are collected before they are watched together."""
BASELINE_RETRY = 5.0
"""Seconds between attempts to read the list that is required before the first send."""
RUNS_DOWNLOADED_AT_ONCE = 4

_BEFORE_RUNNING = frozenset({Reason.PENDING, Reason.INITIALISING, Reason.UNSCHEDULED, Reason.UNSCHEDULABLE})
"""Reasons why a run has not begun."""


class Runner:
    """
    The tasks of one `Batch.run`. A loop, `_dispatch`, hands each launch to the task for its state:

                    refused  -----------------------------------------------> settled
                       ^
                       |
        planned --- _send ---> started --- _watch ---> failed, stopped, deleted --> settled
           ^           |         ^  |         |
           |           |   found |  |         +--> succeeded --- _download ---> collected --> settled
           |           v         |  |
           |        unknown <----|--+  its run belongs to another launch
           |           |         |
           +----- _reconcile ----+
        proven         |
        absent         +--> undecidable: settled until the next pass

    Each settled launch passes through `_report`, and `next_settled` returns its key. A pass ends when all launches are
    settled, or with `stop`.
    """

    def __init__(
        self,
        journal: Journal,
        client: BatchClient,
        downloads: Downloads,
        sender: Sender,
        reconciler: Reconciler,
        request: DownloadRequest | None,
        max_running: float,
    ) -> None:
        self._journal, self._client, self._downloads = journal, client, downloads
        self._sender, self._reconciler = sender, reconciler
        self._request = request
        self._max_running = max_running
        self._open: set[str] = set()
        """Keys of launches that are not settled."""
        self._planned: dict[str, None] = {}
        """Keys of launches to send, in order."""
        self._in_flight: set[str] = set()
        """Keys of launches that are being sent."""
        self._to_watch: list[str] = []
        """Keys of launches whose runs are not watched yet."""
        self._unwatchable: set[str] = set()
        """Keys that were reported although their runs continue. They do not count as running."""
        self._to_download: list[str] = []
        self._single_tasks: set[str] = set()
        """Names of running tasks of which there is at most one at a time."""
        self._download_limiter = anyio.Semaphore(RUNS_DOWNLOADED_AT_ONCE)
        self._changed, self._reported, self._finished = anyio.Event(), anyio.Event(), anyio.Event()
        self._results: deque[str] = deque()
        """Keys of reported launches that were not read yet."""
        self._is_read = False
        """Whether the reader waits for a result and there is none."""
        self._has_warned = False
        """Whether the warning was logged that the service cannot be reached."""
        self._scope = anyio.CancelScope()
        self.statuses: dict[str, Status] = {}
        """key -> the latest status, of launches whose runs are watched."""
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

    async def next_settled(self) -> str | None:
        """Return the key of the next settled launch. None means that all are settled. Raises what ended the pass."""
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
        """Work on these launches until they are settled."""
        for record in records:
            is_open = not self.is_settled(record)
            if is_open or record.state is State.COLLECTED:
                self.errors.pop(record.key, None)  # an earlier error no longer holds
            if is_open:
                self._open.add(record.key)
                self._unwatchable.discard(record.key)
                self._route(record)

    def is_settled(self, record: LaunchRecord) -> bool:
        """Return whether nothing is left to do for a launch."""
        return record.is_settled(self._request.text if self._request else None)

    def _route(self, record: LaunchRecord) -> None:
        """Put an open launch into the queue for its state."""
        if record.state is State.PLANNED:
            self._planned.setdefault(record.key)
        elif record.state is State.STARTED:
            self._to_watch.append(record.key)
        elif record.state is State.UNKNOWN:
            self._reconciler.observe_soon()
        elif record.state in (State.SUCCEEDED, State.COLLECTED):
            self._to_download.append(record.key)
        self._changed.set()

    async def run(self) -> None:
        """Work until all launches are settled, or until `stop`."""
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
        except Exception as error:  # raised by `next_settled`
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
        while self._open or self._results or not self._is_read:
            self._changed = anyio.Event()
            self._send_planned()
            if self._to_watch:
                self._begin_single("watch", self._watch_new)
            while self._to_download:
                self._begin(self._download, self._to_download.pop())
            if self._count_in_doubt():
                self._begin_single("reconcile", self._reconcile)
            await self._changed.wait()

    # Starting.

    def _send_planned(self) -> None:
        """Begin to send as many launches as the limits permit."""
        if not self._planned:
            return
        if not self._journal.has_baseline:
            self._begin_single("baseline", self._note_baseline)
            return
        now, limiter = self._journal.clock.now(), self._sender.limiter
        started = self._journal.counts[State.STARTED] - len(self._unwatchable)
        running = started + len(self._in_flight) + self._count_in_doubt()
        count = min(limiter.available(len(self._in_flight), now), self._max_running - running)
        while self._planned and count >= 1:
            key = next(iter(self._planned))
            del self._planned[key]
            # In the queue it may have been found to be started, and even have been planned again.
            if self._journal.records[key].state is State.PLANNED and key not in self._in_flight:
                self._in_flight.add(key)
                self._begin(self._send, key)
                count -= 1
        if self._planned and limiter.resume_at > now:
            self._begin_single("pause", lambda: self._journal.clock.sleep(limiter.resume_at - now))

    async def _note_baseline(self) -> None:
        try:
            self.schedule(await self._reconciler.note_baseline())
        except (APIError, TransportError, DecodeError) as error:
            if not is_transient(error, has_answered=True):
                raise
            level, self._has_warned = logging.INFO if self._has_warned else logging.WARNING, True
            log.log(level, "nothing can be started yet; trying again every %g s: %s", BASELINE_RETRY, error)
            await self._journal.clock.sleep(BASELINE_RETRY)

    async def _send(self, key: str) -> None:
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
        """Return how many launches are in doubt and may still be resolved."""
        if not self._journal.counts[State.UNKNOWN]:
            return 0
        return sum(record.key in self._open for record in self._journal.in_doubt())

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

    # Watching.

    async def _watch_new(self) -> None:
        await self._journal.clock.sleep(WATCH_DELAY)
        keys = [key for key in self._to_watch if self._journal.records[key].state is State.STARTED]
        self._to_watch = []
        self._begin(self._watch, keys)

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
        self.statuses.pop(key, None)
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

            record = await self._journal.update(key, to_ended) or self._journal.records[key]
            if record.rest_uid != rest_uid:
                return
        if record.state is State.SUCCEEDED and self._request:
            await self._download(key)
        else:
            self._report(key)

    # Downloading.

    async def _download(self, key: str) -> None:
        """Download the requested key-outputs of a run that succeeded."""
        record, journal, request = self._journal.records[key], self._journal, self._request
        assert request is not None
        async with self._download_limiter:
            try:
                found = await self._downloads.outputs(
                    check_rest_uid(record.rest_uid),
                    request.folder(journal, key),
                    request.names,
                    unpack=False,
                    is_chosen=False,
                )
                files = raise_if_strict(found, strict=True)
            except Exception as error:  # reported with the item
                if record.state is State.SUCCEEDED:  # otherwise it still has the files of an earlier request
                    now = journal.clock.wall()
                    await journal.replace(record, record.to_not_collected(type(error).__name__, str(error), now))
                self._report(key, error)
                return
        paths = [str(file.path) for file in files]
        await journal.replace(record, record.to_collected(request.text, paths, journal.clock.wall()))
        self._report(key)

    def _report(self, key: str, error: Exception | None = None) -> None:
        """Hand a launch to the reader: it is settled for now."""
        if error is not None:
            self.errors[key] = error
        if self._journal.records[key].state is State.STARTED:
            self._unwatchable.add(key)
        self._open.discard(key)
        self._results.append(key)
        self._reported.set()
        self._changed.set()


def _end_state(status: Status | None) -> State:
    if status is None or status.is_deleted:
        return State.DELETED
    if status.is_success:
        return State.SUCCEEDED
    return State.STOPPED if status.exit_status == "Stopped" else State.FAILED
