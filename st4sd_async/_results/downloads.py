"""
Download results of runs, from their gateways and the runtime service to disk.

A file is requested from a gateway or the service, read from the archive in the response, and stored in a
`DownloadTarget`. Responses cannot be resumed, and most have no length: a response that breaks off is fetched again.

A gateway puts up to 32 MiB and 1,000 files into a response and silently leaves out the rest. Missing files are
requested again. Files that it never sends are read from the archive of the whole component.
"""

from __future__ import annotations

import io
import logging
import re
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import anyio

from .._api.datastore import COMPONENT, build_query
from .._api.gateways import (
    MOST_BYTES,
    MOST_FILES,
    SCHEME,
    Location,
    component_call,
    directory,
    files_call,
    location,
    location_in,
)
from .._api.instances import filename_in, output_file_call
from .._errors import (
    ConnectionLost,
    DownloadError,
    NotFound,
    NotReady,
    PayloadTooLarge,
    RequestTimeout,
    ServerError,
    St4sdError,
    UnsafeArchive,
)
from .._util.file_names import folder_name, folder_names, safe_name
from .._util.progress import ProgressReporter
from .._util.redact import redact
from .._util.threads import in_thread
from ..models import Download, DownloadFailed
from .archive import UnsafeZip, read_ends, read_only_file, safe_member_path, too_large
from .outputs import missing_output
from .target import WRITE_BYTES, Destination, DownloadTarget, IncomingBody, Origin, destination, storage_errors

if TYPE_CHECKING:
    import os

    from .._api.datastore import Datastore
    from .._api.gateways import Gateways
    from .._api.instances import Instances
    from .._http.session import BodyHandler, ClientSession
    from ..models import ComponentDocument, KeyOutput

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)
Outcome = Download | DownloadFailed
log = logging.getLogger("st4sd_async")

ARCHIVE_OVERHEAD_BYTES = 1 << 16  # by which an archive may be larger than the one file in it
MAX_LARGE_FILES = 32
"""Up to this number, files may be large and are divided among the workers. A request costs as much as 32 small ones."""
MIN_BATCH_FILES = 200
"""Minimum number of files in a request, if there are many files."""
MAX_FAILED_REQUESTS_IN_A_ROW = 20
"""Consecutive failed requests after which the service itself is considered to fail, and nothing more is requested."""
TIMEOUT_WEIGHT = 5
"""A time-out counts as this many failed requests, because it takes a minute."""
FILE_ERRORS = (ConnectionLost, RequestTimeout, DownloadError, PayloadTooLarge, ServerError)
"""Errors that a single file may cause: a gateway that cannot read a file breaks off the response."""

_WORKING_DIRECTORY = re.compile(r"stages/stage([0-9]+)/([^/]+)/")


class BodySource(Protocol):
    """A source of bodies: a `ClientSession` or a bucket."""

    async def stream(self, call: Any, body_handler: BodyHandler[T], *, once: bool = False) -> T:
        """Send a request and stream the body to a handler; do not retry if ``once``."""

    def secrets(self) -> tuple[str, ...]:
        """Return the texts that must not appear in messages and names."""


class Transfer:
    """The downloads of one call, from one source to one target."""

    def __init__(self, source: BodySource, target: DownloadTarget, progress: ProgressReporter) -> None:
        self.target = target
        self.progress = progress
        self._source = source

    @classmethod
    @asynccontextmanager
    async def open(
        cls, source: BodySource, folder: Path, progress: ProgressReporter, *, is_chosen: bool = True
    ) -> AsyncIterator[Transfer]:
        """Open the target, and report progress until the end; see `DownloadTarget`."""
        async with DownloadTarget.open(folder, is_chosen=is_chosen) as target:
            with progress:
                yield cls(source, target, progress)

    async def fetch(
        self, call: Any, name: str, store: Callable[[IncomingBody], list[Download]], *, once: bool = False
    ) -> list[Download]:
        """
        Fetch a body and store it. Fetch it a second time if it is damaged.

        Args:
            call: The request.
            name: Name of the body in messages.
            store: Stores the body in the target. It may block.
            once: Send one request only.

        Raises:
            DownloadError: The body cannot be stored, or is damaged both times.
        """
        failure = None
        for _ in range(1 if once else 2):
            try:
                return await self._fetch_once(call, name, store, once=once)
            except DownloadError as error:
                failure = error
            if isinstance(failure, UnsafeArchive) or isinstance(failure.__cause__, FileExistsError):
                break  # the next body would be the same, or the same would be in its way
        assert failure is not None
        raise without_secrets(failure, self._source.secrets())

    async def _fetch_once(
        self, call: Any, name: str, store: Callable[[IncomingBody], list[Download]], *, once: bool
    ) -> list[Download]:
        with storage_errors(name), await in_thread(self.target.create_file) as file:
            body = IncomingBody(file, self.progress)
            await self._source.stream(call, body.receive, once=once)
            body.secrets = self._source.secrets()
            return await in_thread(store, body)


class BatchSizer(Generic[H]):
    """
    Divides items into batches for several workers, without knowing how large the items are.

    A gateway returns as many files as fit into a response, and silently leaves out the rest. A few files, which may be
    large, are divided evenly among the workers; of many files, hundreds go into each batch. If some are left out, the
    number received is taken as what fits, and the others are requested again. If none is received, they do not exist or
    none of them fits.
    """

    def __init__(self, items: Iterable[H], *, workers: int, max_batch: int) -> None:
        self._waiting = deque(items)
        self._max_batch = max_batch
        self._requested_batches = 0
        share = -(-len(self._waiting) // workers)
        is_few = len(self._waiting) <= MAX_LARGE_FILES
        self._batch_size = max(1, min(max_batch, share if is_few else max(share, MIN_BATCH_FILES)))
        self.unavailable: list[H] = []
        """Items that cannot be received this way."""

    @property
    def is_done(self) -> bool:
        """Whether no item waits, and no outstanding response can leave out items."""
        return not self._waiting and not self._requested_batches

    def next_batch(self) -> list[H]:
        """Return the next batch to request. Empty if no item waits now."""
        batch = [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]
        self._requested_batches += bool(batch)
        return batch

    def record(self, batch: Collection[H], received: Collection[H]) -> None:
        """Record which items of a batch were received. Items that failed permanently count as received."""
        self._requested_batches -= 1
        omitted = [item for item in batch if item not in received]
        if not omitted:
            self._batch_size = min(self._max_batch, max(self._batch_size, 2 * len(batch)))
        elif len(omitted) == len(batch):
            self.unavailable += omitted
        else:
            self._batch_size = len(batch) - len(omitted)
            self._waiting.extendleft(reversed(omitted))

    def cancel_waiting(self) -> list[H]:
        """Remove and return the waiting items."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting


class ComponentFile(NamedTuple):
    """A file of a component."""

    path: str
    """Absolute path at the gateway."""
    destination: Destination
    """Where it goes: the same path below the target as in the directory of the instance."""


class ComponentFiles:
    """Fetches files of the components of one run."""

    def __init__(self, transfer: Transfer, instance: Location, gateway: str) -> None:
        self._transfer = transfer
        self._instance = instance
        self._gateway = gateway
        self._sizer: BatchSizer[ComponentFile]
        self._outcomes: dict[str, Outcome] = {}
        """source -> the outcome of the file."""
        self._response_recorded = anyio.Event()
        self._failures_in_a_row = 0

    async def fetch(
        self, files: Sequence[ComponentFile], documents: Iterable[ComponentDocument], workers: int
    ) -> dict[str, Outcome]:
        """Fetch files of these components; return source -> outcome."""
        self._sizer = BatchSizer(files, workers=workers, max_batch=MOST_FILES)
        async with anyio.create_task_group() as group:
            for _ in range(min(workers, len(files))):
                group.start_soon(self._fetch_batches)
        unavailable = {file.path: file for file in self._sizer.unavailable}
        left = [(one, [unavailable[path] for path in one.files if path in unavailable]) for one in documents]
        await for_each([item for item in left if item[1]], self._fetch_from_archive, workers)
        return self._outcomes

    async def _fetch_batches(self) -> None:
        """Work until all files have been requested."""
        while not self._sizer.is_done:
            batch = self._sizer.next_batch()
            if not batch:  # but the response to another worker may leave something out
                await self._response_recorded.wait()
                continue
            await self._fetch_batch(batch)
            self._sizer.record(batch, [file for file in batch if file.destination.source in self._outcomes])
            self._response_recorded.set()
            self._response_recorded = anyio.Event()

    async def _fetch_batch(self, batch: Sequence[ComponentFile]) -> None:
        """Fetch files. If the response is incomplete, fetch each half, until the file that fails is isolated."""
        name = batch[0].path if len(batch) == 1 else f"{len(batch)} files of {self._instance}"
        call = files_call(self._gateway, self._instance, [file.path for file in batch])
        destinations = {file.path.removeprefix("/"): file.destination for file in batch}
        store = partial(self._transfer.target.store_members, destinations, name, rejects_others=True)
        try:
            stored = await self._transfer.fetch(call, name, store, once=self._failures_in_a_row > 0)
        except St4sdError as error:
            self._failures_in_a_row += TIMEOUT_WEIGHT if isinstance(error, RequestTimeout) else 1
            if self._failures_in_a_row > MAX_FAILED_REQUESTS_IN_A_ROW or not isinstance(error, FILE_ERRORS):
                self._fail([*batch, *self._sizer.cancel_waiting()], error)
            elif len(batch) == 1:
                self._fail(batch, error)
            else:
                await self._fetch_batch(batch[: len(batch) // 2])
                await self._fetch_batch(batch[len(batch) // 2 :])
        else:
            self._failures_in_a_row = 0
            self._record(stored)

    async def _fetch_from_archive(self, of_component: tuple[ComponentDocument, Sequence[ComponentFile]]) -> None:
        """Take files from the archive of the whole directory of their component."""
        document, files = of_component
        destinations = {file.path.removeprefix(f"{document.location}/"): file.destination for file in files}
        call = component_call(self._gateway, self._instance, document.stage or 0, document.name)
        name = f"{document.reference} of {self._instance}"
        store = partial(self._transfer.target.store_members, destinations, name, rejects_others=False)
        reason: St4sdError = NotFound(f"{document.reference} lists it, but the gateway does not have it (any more)")
        try:
            self._record(await self._transfer.fetch(call, name, store))
        except St4sdError as error:
            reason = error
        self._fail([file for file in files if file.destination.source not in self._outcomes], reason)

    def _fail(self, files: Iterable[ComponentFile], error: St4sdError) -> None:
        folder = self._transfer.target.folder
        self._record(DownloadFailed(folder / file.destination.path, file.destination.source, error) for file in files)

    def _record(self, outcomes: Iterable[Outcome]) -> None:
        by_source = {outcome.source: outcome for outcome in outcomes}
        self._outcomes.update(by_source)
        self._transfer.progress.finish(len(by_source))


def select_files(
    instance: Location, documents: Iterable[ComponentDocument], pattern: re.Pattern[str]
) -> dict[str, ComponentFile | DownloadError]:
    """
    Return source -> file, or the reason why it cannot be stored, for files of components whose paths match.

    The pattern is searched in the absolute path, and in the path below the directory of the component. Of two files
    with the same destination the second cannot be stored.
    """
    owners: dict[str, str] = {}
    selected: dict[str, ComponentFile | DownloadError] = {}
    for document in documents:
        for path in document.files:
            if pattern.search(path) or pattern.search(path.removeprefix(f"{document.location}/")):
                source = f"{SCHEME}{instance.gateway}{path}"
                file = _component_file(instance, path, source)
                if isinstance(file, ComponentFile) and owners.setdefault(file.destination.path, path) != path:
                    file = DownloadError(path, f"would be in the same place as {owners[file.destination.path]!r}")
                selected[source] = file
    return selected


def _component_file(instance: Location, path: str, source: str) -> ComponentFile | DownloadError:
    inside = path.removeprefix(f"{instance.path}/")
    if inside == path:
        return DownloadError(path, f"is not in the directory of its run, {instance}")
    try:
        return ComponentFile(path, destination(safe_member_path(inside), source))
    except UnsafeZip as problem:
        return DownloadError(path, f"cannot have that name here: {problem}")


def _known_outcomes(target: DownloadTarget, files: Mapping[str, ComponentFile | DownloadError]) -> dict[str, Outcome]:
    """Return the outcomes of files that need no request: some are here already, some cannot be stored. Blocks."""
    outcomes: dict[str, Outcome] = {
        source: DownloadFailed(target.folder, source, file)
        for source, file in files.items()
        if isinstance(file, DownloadError)
    }
    outcomes |= {source: known[0] for source, known in target.known(list(map(Origin, files))).items()}
    missing = (file for source, file in files.items() if isinstance(file, ComponentFile) and source not in outcomes)
    return outcomes | {one.source: one for one in target.blocked(file.destination for file in missing)}


class Downloads:
    """
    Downloads results for one client. The methods are documented in `Client`.

    Runs are given by their rest-uid or their location (``file://...``). ``is_chosen`` is False if the user did not name
    the folder itself, but the folder that it is in; see `DownloadTarget`.
    """

    def __init__(self, session: ClientSession, gateways: Gateways, datastore: Datastore, instances: Instances) -> None:
        self._session = session
        self._gateways = gateways
        self._datastore = datastore
        self._instances = instances
        self._workers = session.config.downloads
        self._progress = session.config.progress
        self._locations: dict[str, Location] = {}
        self._final_locations: dict[str, Location] = {}
        """Locations of runs whose documents are complete in the datastore."""

    async def _locate(self, run: str) -> Location:
        """Return the location of a run; wait for its documents."""
        if run.startswith(SCHEME):
            return location(run)
        if run not in self._locations:
            known = await self._datastore.user_metadata(rest_uid=run)
            document = known[-1] if known else await self._datastore.document(run)
            self._locations[run] = location_in(document)
        return self._locations[run]

    async def _gateway(self, instance: Location) -> str:
        return (await self._gateways.resolve([instance.gateway]))[instance.gateway]

    async def read(self, run: str, path: str | os.PathLike[str], limit: int) -> bytes:
        """Return the content of one file, of at most ``limit`` bytes."""
        if not limit > 0:
            raise ValueError(f"limit must be a number of bytes above 0, not {limit!r}")
        instance = await self._locate(run)
        absolute = instance.absolute(path)
        call = files_call(await self._gateway(instance), instance, [absolute])
        try:
            content: bytes | None = await self._session.stream(call, partial(_read_file, absolute, limit))
        except DownloadError as error:
            failure: St4sdError = without_secrets(error, self._session.secrets())
        except ConnectionLost as error:
            failure = await self._folder_error(instance, absolute) or error
        else:
            if content is not None:
                return content
            failure = await self._left_out_error(instance, absolute)
        raise failure

    async def ends(self, instance: Location, paths: Sequence[str], limit: int) -> dict[str, bytes]:
        """
        Return path -> the last bytes of a file, for small files of one run. Those that are not served are left out.

        Args:
            instance: The location of the run.
            paths: Paths relative to it. A gateway leaves out what exceeds 32 MiB with the files before it.
            limit: Most bytes of each file.
        """
        absolute = {instance.absolute(path): path for path in paths}
        call = files_call(await self._gateway(instance), instance, absolute)
        try:
            found = await self._session.stream(call, partial(_read_ends, str(instance), absolute, limit))
        except DownloadError as error:
            raise without_secrets(error, self._session.secrets()) from None
        return {absolute[path]: end for path, end in found.items()}

    async def _folder_error(self, instance: Location, path: str) -> NotFound | None:
        """Return the error for a path if it is a folder, for which a gateway breaks off the response."""
        query = {"instance": str(instance), "files": {"$regex": f"^{re.escape(path)}/"}}
        if not await self._datastore.components(query=query):
            return None
        return NotFound(f"{path!r} is a folder: download_files() fetches files in it, download_component() all of it")

    async def _left_out_error(self, instance: Location, path: str) -> St4sdError:
        """Return the reason why a gateway left out the only requested file."""
        if await self._datastore.components(query={"instance": str(instance), "files": path}):
            problem = f"it is larger than the {MOST_BYTES >> 20} MiB that can be read, or was removed"
            return DownloadError(path, problem, advice="download_files() fetches files of any size")
        problem = f"{instance} has no file {path!r}, or one of more than {MOST_BYTES >> 20} MiB"
        return NotFound(f"{problem}; run.components() lists the files of the components that are over")

    async def files(
        self,
        run: str,
        to: Path,
        component: str | None,
        stage: int | None,
        filename: str | None,
        *,
        is_chosen: bool = True,
    ) -> list[Outcome]:
        """Download files of components."""
        build_query(COMPONENT, component=component, stage=stage, filename=filename)  # raises if they are invalid
        instance, documents = await self._documents(run, component, stage)
        files = await in_thread(select_files, instance, documents, re.compile(filename or ""))
        progress = ProgressReporter(self._progress, f"files of {run}", len(files), "files")
        async with Transfer.open(self._session, to, progress, is_chosen=is_chosen) as transfer:
            outcomes = await in_thread(_known_outcomes, transfer.target, files)
            progress.finish(len(outcomes))
            missing = [
                one for source, one in files.items() if isinstance(one, ComponentFile) and source not in outcomes
            ]
            if missing:
                fetching = ComponentFiles(transfer, instance, await self._gateway(instance))
                outcomes |= await fetching.fetch(missing, documents, self._workers)
        return [outcomes[source] for source in files]

    async def _documents(
        self, run: str, component: str | None, stage: int | None
    ) -> tuple[Location, list[ComponentDocument]]:
        """Return the location of a run, and the documents of the components that match, in order of their stages."""
        instance = self._final_locations.get(run) or await self._final_location(run)
        of_run = {"instance": str(instance)}
        found = await self._datastore.components(component=component, stage=stage, query=of_run)
        if not found:
            known = sorted(document.reference for document in await self._datastore.components(query=of_run))
            if not known:
                raise NotReady(f"the datastore has no documents of the components of {run!r} (yet)")
            criteria = ((component, f"is called {component!r}"), (stage, f"is in stage {stage}"))
            wanted = " and ".join(text for value, text in criteria if value is not None)
            raise NotFound(f"{run!r} has no component that {wanted}: it has {known}")
        return instance, sorted(found, key=lambda document: (document.stage or 0, document.name))

    async def _final_location(self, run: str) -> Location:
        """Return the location of a run; if the run is over, wait until the datastore has all documents about it."""
        rest_uid: str | None = run
        if run.startswith(SCHEME):
            documents = await self._datastore.experiments(query={"instance": str(location(run))})
            rest_uid = next((document.rest_uid for document in documents), None)
        if rest_uid is None:  # then it is unknown whether it is over
            return location(run)
        document = await self._datastore.document(rest_uid)
        instance = location_in(document)
        if document.status.is_final:
            self._final_locations[run] = instance
        return instance

    async def component(self, run: str, stage: int, component: str, to: Path) -> list[Outcome]:
        """Download the working directory of a component."""
        component = component.removeprefix(f"stage{stage}.") if isinstance(component, str) else component
        inside = directory(stage, component)
        instance = await self._locate(run)
        source = f"{instance}/{inside}"
        documents = await self._datastore.components(query={"instance": str(instance)})
        is_over = any(one.is_over for one in documents if (one.stage, one.name) == (stage, component))
        origin = Origin(source, "directory") if is_over else None
        call = component_call(await self._gateway(instance), instance, stage, component)
        progress = ProgressReporter(self._progress, f"stage{stage}.{component} of {run}", 1, "components")
        async with Transfer.open(self._session, to, progress) as transfer:
            try:
                if origin and (known := await in_thread(transfer.target.known, [origin])):
                    return [*known[source]]
                return [*await transfer.fetch(call, source, partial(transfer.target.store_folder, "", source, origin))]
            except NotFound as error:
                error.advice = f"the run has {sorted(document.reference for document in documents)}"
                return [DownloadFailed(to, source, error)]
            except St4sdError as error:
                return [DownloadFailed(to, source, error)]
            finally:
                progress.finish()

    async def outputs(
        self,
        rest_uid: str,
        to: Path,
        names: Sequence[str] | None,
        *,
        unpack: bool,
        is_chosen: bool = True,
        label: str | None = None,
    ) -> list[Outcome]:
        """Download key-outputs. Progress is reported for ``label``; None means the rest-uid."""
        if any(not isinstance(name, str) for name in names or ()):
            raise TypeError(f"the names of key-outputs must be strings, not {names!r}")
        entries = await self._instances.outputs(rest_uid)
        if names is None and not (entries and all(entry.final for entry in entries.values())):
            await self._warn_if_running(rest_uid, entries)
        wanted = list(dict.fromkeys(entries if names is None else names))
        folders = {name: folder_name(name) for name in wanted} | folder_names(entries)
        outcomes: dict[str, Sequence[Outcome]] = {}

        async def fetch(name: str) -> None:
            try:
                outcomes[name] = await self._output(transfer, rest_uid, name, folders[name], entries, unpack=unpack)
            except St4sdError as error:
                outcomes[name] = [DownloadFailed(to / folders[name], f"{rest_uid}/outputs/{name}", error)]
            progress.finish()

        progress = ProgressReporter(self._progress, f"key-outputs of {label or rest_uid}", len(wanted), "key-outputs")
        async with Transfer.open(self._session, to, progress, is_chosen=is_chosen) as transfer:
            await for_each(wanted, fetch, self._workers)
        return [outcome for name in wanted for outcome in outcomes[name]]

    async def _warn_if_running(self, rest_uid: str, entries: Iterable[str]) -> None:
        """Log a warning that there may be more key-outputs later, if the run is not over."""
        with suppress(St4sdError):  # the outputs that exist can be downloaded anyway
            status = await self._instances.status(rest_uid)
            if not status.is_final:
                log.warning(
                    "run %r is not over (%s): it has %s so far, and may get more; wait for its end and call again",
                    rest_uid,
                    status,
                    list(entries),
                )

    async def _output(
        self,
        transfer: Transfer,
        rest_uid: str,
        name: str,
        folder: str,
        entries: Mapping[str, KeyOutput],
        *,
        unpack: bool,
    ) -> list[Download]:
        """Download one key-output into its folder."""
        if name not in entries:
            raise await missing_output(self._instances, rest_uid, name, entries)
        target, entry, source = transfer.target, entries[name], f"{rest_uid}/outputs/{name}"
        version = f"version {entry.version} of {entry.created}"
        as_file, packed, unpacked = (Origin(source + form, version) for form in ("", " packed", " unpacked"))

        def store(body: IncomingBody) -> list[Download]:
            if unpack and body.is_archive:
                return target.store_folder(folder, source, unpacked, body)
            filename = filename_in(body.headers.get("content-disposition", "")) or entry.filename or name
            to = destination(f"{folder}/{safe_name(filename, otherwise=folder)}", source)
            return target.store_file(to, packed if body.is_archive else as_file, body)

        try:
            call = output_file_call(rest_uid, name)
            # Without a version, nothing distinguishes this one from the next.
            origins = [as_file, unpacked if unpack else packed] if entry.version is not None else []
            known = await in_thread(target.known, origins)
            return next(iter(known.values()), []) or await transfer.fetch(call, source, store)
        except ValueError as error:
            raise DownloadError(source, f"cannot be requested: {error}") from None
        except ServerError as error:
            if found := _WORKING_DIRECTORY.match(entry.filepath or ""):
                error.advice = f"download_component(run, {found[1]}, {found[2]!r}, to) has it too, from another service"
            raise


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], limit: int) -> None:
    """Await ``work`` for each item, for at most ``limit`` items at once."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    async with anyio.create_task_group() as group:
        for _ in range(limit):
            group.start_soon(worker)


def raise_if_strict(outcomes: list[Outcome], *, strict: bool) -> list[Outcome]:
    """Return the same outcomes; if ``strict``, raise the error of the first that failed."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, DownloadFailed)]
    if strict and failed:
        error = failed[0].error
        error.add_note(f"{len(failed)} of {len(outcomes)} downloads failed, this one from {failed[0].source}")
        raise error
    return outcomes


def without_secrets(error: DownloadError, secrets: tuple[str, ...]) -> DownloadError:
    """Return the same error with secrets masked: it may quote names in an archive, which a server chose."""
    path, problem = redact(error.path, secrets), redact(error.problem, secrets)
    if (path, problem) == (error.path, error.problem):
        return error
    return type(error)(path, problem, received=error.received, advice=error.advice)


async def _read_file(path: str, limit: int, _: Mapping[str, str], chunks: AsyncIterator[bytes]) -> bytes | None:
    """Return the content of the only file of an archive; None if it is empty."""
    archive = bytearray()
    async for chunk in chunks:
        archive += chunk
        if len(archive) > limit + limit // 1000 + ARCHIVE_OVERHEAD_BYTES:
            raise too_large(path, limit)
    return await in_thread(read_only_file, io.BytesIO(archive), path, limit)


async def _read_ends(
    name: str, paths: Collection[str], limit: int, _: Mapping[str, str], chunks: AsyncIterator[bytes]
) -> dict[str, bytes]:
    """Return the ends of the files of an archive, which is kept on disk meanwhile."""
    file = await in_thread(tempfile.TemporaryFile)
    try:
        size, pending = 0, bytearray()
        async for chunk in chunks:
            pending += chunk
            size += len(chunk)
            if size > MOST_BYTES + MOST_BYTES // 1000 + ARCHIVE_OVERHEAD_BYTES:
                raise too_large(name, MOST_BYTES)
            if len(pending) >= WRITE_BYTES:
                await in_thread(file.write, bytes(pending))
                pending.clear()
        await in_thread(file.write, bytes(pending))
        return await in_thread(read_ends, file, name, paths, limit, MOST_BYTES)
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(file.close)
