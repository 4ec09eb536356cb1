"""The ends of the runs of a batch: watched for, written down, and what they left downloaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from .._errors import St4sdError, UnknownRun
from .._results.downloads import judged
from .._results.manifest import NAME as DOWNLOADS
from .._util.file_names import is_device, marked
from ..models.hints import Reason
from ..models.rest_uid import check_rest_uid
from .item import told
from .reconciler import is_misplaced, take_back
from .sender import ends_all
from .state import METADATA_KEY, Row, State, collected, ended, uncollected

if TYPE_CHECKING:
    from .._client import Client
    from ..models import Status
    from .store import Book

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_BEFORE = frozenset({Reason.PENDING, Reason.INITIALISING, Reason.UNSCHEDULED, Reason.UNSCHEDULABLE})
"""Why a run has not begun."""
COLLECTORS = 4
"""Runs whose files are downloaded at the same time."""


@dataclass(frozen=True)
class Collecting:
    """What is to be downloaded, and how."""

    names: list[str]
    to: Path
    request: str
    """All that, as the journal writes it down."""

    def folder(self, book: Book, key: str) -> Path:
        """The folder for the files of a launch."""
        return self.to / folder_of(key, has_twin=book.has_twin(key))

    def refuse_strangers(self, book: Book, keys: Iterable[str]) -> None:
        """Raise ValueError if there are downloads already in the folders of launches that were never started."""
        strange = [folder.name for key in keys if ((folder := self.folder(book, key)) / DOWNLOADS).exists()]
        if strange:
            told = f"has the files of another batch already, for {len(strange)} of the launches that are to be started"
            raise ValueError(f"{str(self.to)!r} {told}, as in {strange[0]!r}: give another folder, or remove them")

    def missing(self, rows: Iterable[Row]) -> list[Row]:
        """Those of the launches that were collected of which a file is not there any more."""
        return [row for row in rows if row.request == self.request and not all(map(os.path.exists, row.files))]


def collecting(outputs: Iterable[str] | None, to: str | os.PathLike[str] | None) -> Collecting | None:
    """What is to be downloaded, None if nothing is; raises ValueError if that makes no sense."""
    if outputs is None and to is None:
        return None
    if isinstance(outputs, str):
        raise ValueError(f"outputs is a list of names: give [{outputs!r}]")
    if outputs is None or to is None:
        missing = "outputs, names of key-outputs," if outputs is None else "to, the folder for key-outputs,"
        raise ValueError(f"{missing} is missing: to download takes both")
    names, folder = list(outputs), Path(to).absolute()
    request = json.dumps({"outputs": sorted(names), "to": str(folder)})
    return Collecting(names, folder, request)


def folder_of(key: str, *, has_twin: bool) -> str:
    """
    Return the name of the folder for the files of a launch: its key if that can be a name anywhere, or one made of it.

    No two keys have the same; a name that was made of a key cannot be a key that stays as it is.

    Args:
        key: The key.
        has_twin: Whether another one has a name already that some systems would not distinguish from this key.
    """
    if _PLAIN.fullmatch(key) and not has_twin and not is_device(key):
        return key
    return marked(re.sub(r"[^A-Za-z0-9_-]+", "-", key).strip("-")[:60] or "key", key)


class Ends:
    """Follows runs to their ends; each is reported when nothing is left to do for it."""

    def __init__(
        self,
        book: Book,
        client: Client,
        collecting: Collecting | None,
        begin: Callable[..., None],
        report: Callable[..., None],
        take: Callable[[Iterable[Row]], None],
    ) -> None:
        self._book, self._client, self._collecting = book, client, collecting
        self._begin, self._report, self._take = begin, report, take
        self.statuses: dict[str, Status] = {}
        """key -> the newest status, of launches whose runs are watched."""
        self._collectors = anyio.Semaphore(COLLECTORS)

    def is_settled(self, row: Row) -> bool:
        """Whether nothing is left to do for a launch."""
        return row.is_settled(self._collecting.request if self._collecting else None)

    async def watch(self, keys: Sequence[str]) -> None:
        """Watch runs to their ends; one that cannot be watched is found by halving."""
        # One that was taken back meanwhile has none.
        runs = {uid: key for key in keys if (uid := self._book.rows[key].rest_uid) is not None}
        waiting: set[str] = set()
        failure: St4sdError | None = None
        try:
            async with aclosing(self._client.watch_many(runs)) as changes:
                async for run, status in changes:
                    key = runs.get(run.id)
                    if key is None or self._book.rows[key].rest_uid != run.id:
                        continue  # it was taken back
                    if token := self._misplaced(key, run.id, status):
                        self._begin(self._take_back, runs.pop(run.id), run.id, token)
                        continue
                    self.statuses[key] = status
                    if status.is_final:
                        self._begin(self._end, runs.pop(run.id), run.id, status)
                    elif status.hint and status.hint.reason in _BEFORE:
                        waiting.add(run.id)
                    elif run.id in waiting:
                        waiting.discard(run.id)
                        self._book.note_running(runs[run.id])
        except St4sdError as error:
            if ends_all(error):
                raise
            failure = error
        left = [(key, uid) for uid, key in runs.items() if self._book.rows[key].rest_uid == uid]
        if failure is not None and len(left) > 1:
            for half in (left[: len(left) // 2], left[len(left) // 2 :]):
                self._begin(self.watch, [key for key, _ in half])
        elif left and isinstance(failure, UnknownRun) and failure.detail:
            await self._end(*left[0], None)
        elif failure is not None and left:
            self.statuses.pop(left[0][0], None)
            self._report(left[0][0], failure)

    def _misplaced(self, key: str, rest_uid: str, status: Status) -> str | None:
        """The token that a run carries, if it is that of another launch."""
        carried = status.meta.user_metadata.get(METADATA_KEY) if status.meta else None
        is_others = isinstance(carried, str) and is_misplaced(self._book, self._book.rows[key], rest_uid, carried)
        return carried if is_others else None

    async def _take_back(self, key: str, rest_uid: str, token: str) -> None:
        self.statuses.pop(key, None)
        self._take(await take_back(self._book, key, rest_uid, token))

    async def _end(self, key: str, rest_uid: str, status: Status | None) -> None:
        """A run is over; without a status it is not there any more."""
        row = self._book.rows[key]
        if row.rest_uid != rest_uid:
            return  # it was taken back
        self.statuses.pop(key, None)
        if row.state is State.STARTED:
            state = _end_of(status)
            if state is State.DELETED:
                await self._book.bury([rest_uid])
            secrets = map(str, self._book.secrets.get(key, {}).values())
            last = None if status is None else told(status, secrets)

            def over(now: Row) -> Row | None:
                # Another task may have deleted it meanwhile, or taken it back.
                is_its = now.state is State.STARTED and now.rest_uid == rest_uid
                return ended(now, state, last, self._book.clock.wall()) if is_its else None

            row = await self._book.move(key, over) or self._book.rows[key]
            if row.rest_uid != rest_uid:
                return
        if row.state is State.SUCCEEDED and self._collecting:
            await self.collect(key)
        else:
            self._report(key)

    async def collect(self, key: str) -> None:
        """Download what is asked for of a run that succeeded."""
        row, clock, collecting = self._book.rows[key], self._book.clock, self._collecting
        assert collecting is not None
        async with self._collectors:
            try:
                folder = collecting.folder(self._book, key)
                found = await self._client._downloads.outputs(
                    check_rest_uid(row.rest_uid), folder, collecting.names, unpack=False, is_chosen=False
                )
                files = judged(found, strict=True)
            except Exception as error:  # reported with the item
                if row.state is State.SUCCEEDED:  # else it still has what was asked for before
                    await self._book.put(row, uncollected(row, type(error).__name__, str(error), clock.wall()))
                self._report(key, error)
                return
        paths = [str(file.path) for file in files]
        await self._book.put(row, collected(row, collecting.request, paths, clock.wall()))
        self._report(key)


def _end_of(status: Status | None) -> State:
    if status is None or status.is_deleted:
        return State.DELETED
    if status.is_success:
        return State.SUCCEEDED
    return State.STOPPED if status.exit_status == "Stopped" else State.FAILED
