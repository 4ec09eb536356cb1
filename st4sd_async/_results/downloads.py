"""Results of runs, from their gateways and the service to disk: many at once, each whole or not at all."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .._api.documents import COMPONENT, filters
from .._api.gateways import (
    MOST_BYTES,
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
    ServerError,
    St4sdError,
)
from .._util.file_names import folder_name, folder_names, safe_name
from .._util.progress import ProgressReporter
from .._util.threads import in_thread
from ..models import Download, DownloadFailed
from .archive import content, too_large
from .component_files import Fetching, Outcome, Wanted, chosen, each
from .manifest import Origin
from .outputs import missing_output
from .target import Headers, Target, filling, is_zip, without
from .workspace import Writer, free

if TYPE_CHECKING:
    import os

    from .._api.datastore import Datastore
    from .._api.gateways import Gateways
    from .._api.instances import Instances
    from .._http.session import ClientSession
    from ..models import ComponentDocument, KeyOutput

log = logging.getLogger("st4sd_async")

SLACK = 1 << 16
"""Bytes by which an archive may be larger than the one file in it."""
_DIRECTORY = re.compile(r"stages/stage([0-9]+)/([^/]+)/")


class Downloads:
    """Downloads of one client; see the methods of `Client`."""

    def __init__(self, session: ClientSession, gateways: Gateways, datastore: Datastore, instances: Instances) -> None:
        self._stream = session.stream
        self._secrets = session.secrets
        self._gateways = gateways
        self._datastore = datastore
        self._instances = instances
        self._workers = session.config.downloads
        self._progress = session.config.progress
        self._locations: dict[str, Location] = {}
        self._final: dict[str, Location] = {}
        """Where runs are of which the datastore knows all there will be."""

    async def _locate(self, where: str) -> Location:
        """The location of a run, given by its uri or its rest-uid; its documents are waited for."""
        if where.startswith(SCHEME):
            return location(where)
        if where not in self._locations:
            known = await self._datastore.user_metadata(rest_uid=where)
            document = known[-1] if known else await self._datastore.document(where)
            self._locations[where] = location_in(document)
        return self._locations[where]

    async def _gateway(self, instance: Location) -> str:
        return (await self._gateways.resolve([instance.gateway]))[instance.gateway]

    async def read(self, where: str, path: str | os.PathLike[str], limit: int) -> bytes:
        """The content of one file."""
        if not limit > 0:
            raise ValueError(f"limit is a number of bytes above 0, not {limit!r}")
        instance = await self._locate(where)
        absolute = instance.absolute(path)
        call = files_call(await self._gateway(instance), instance, [absolute])
        try:
            content: bytes | None = await self._stream(call, partial(_collect, absolute, limit))
        except DownloadError as error:
            failure: St4sdError = without(error, self._secrets())
        except ConnectionLost as error:
            failure = await self._folder(instance, absolute) or error
        else:
            if content is not None:
                return content
            failure = await self._unread(instance, absolute)
        raise failure

    async def _folder(self, instance: Location, path: str) -> NotFound | None:
        """The error if a path is that of a folder, at which a gateway breaks off."""
        query = {"instance": str(instance), "files": {"$regex": f"^{re.escape(path)}/"}}
        if not await self._datastore.components(query=query):
            return None
        return NotFound(f"{path!r} is a folder: download_files() fetches files in it, download_component() all of it")

    async def _unread(self, instance: Location, path: str) -> St4sdError:
        """Why a gateway has left out the only file that it was asked for."""
        if await self._datastore.components(query={"instance": str(instance), "files": path}):
            told = f"it is larger than the {MOST_BYTES >> 20} MiB that can be read, or was removed meanwhile"
            return DownloadError(path, told, advice="download_files() fetches files of any size")
        told = f"{instance} has no file {path!r}, or one of more than {MOST_BYTES >> 20} MiB"
        return NotFound(f"{told}; run.components() lists the files of the components that are over")

    async def files(
        self,
        where: str,
        to: Path,
        component: str | None,
        stage: int | None,
        filename: str | None,
        *,
        is_chosen: bool = True,
    ) -> list[Outcome]:
        """Files of components; `filling` says when a folder is chosen."""
        filters(COMPONENT, component=component, stage=stage, filename=filename)  # for what makes no sense
        instance, documents = await self._documents(where, component, stage)
        files = dict(chosen(instance, documents, re.compile(filename or "").search))
        async with self._filling(to, f"files of {where}", len(files), "files", is_chosen=is_chosen) as target:
            outcomes = await in_thread(_settled, target, files)
            target.work.finish(len(outcomes))
            missing = [file for source, file in files.items() if isinstance(file, Wanted) and source not in outcomes]
            if missing:
                fetching = Fetching(target, instance, await self._gateway(instance), outcomes)
                await fetching.fetch(missing, documents, self._workers)
        return [outcomes[source] for source in files]

    async def _documents(
        self, where: str, component: str | None, stage: int | None
    ) -> tuple[Location, list[ComponentDocument]]:
        """Where a run is, and the documents of those of its components that match, stage by stage."""
        instance = self._final.get(where) or await self._settle(where)
        of_run = {"instance": str(instance)}
        found = await self._datastore.components(component=component, stage=stage, query=of_run)
        if not found:
            known = sorted(one.reference for one in await self._datastore.components(query=of_run))
            if not known:
                raise NotReady(f"the datastore has no documents of the components of {where!r}, or not yet")
            wanted = ((component, f"is called {component!r}"), (stage, f"is in stage {stage}"))
            told = " and ".join(text for value, text in wanted if value is not None)
            raise NotFound(f"{where!r} has no component that {told}: it has {known}")
        return instance, sorted(found, key=lambda one: (one.stage or 0, one.name))

    async def _settle(self, where: str) -> Location:
        """Where a run is, when the datastore knows all there will be of it, if it is over."""
        rest_uid: str | None = where
        if where.startswith(SCHEME):
            documents = await self._datastore.experiments(query={"instance": str(location(where))})
            rest_uid = next((one.rest_uid for one in documents), None)
        if rest_uid is None:  # then nobody knows when it is over
            return location(where)
        document = await self._datastore.document(rest_uid)
        instance = location_in(document)
        if document.status.is_final:
            self._final[where] = instance
        return instance

    async def component(self, where: str, stage: int, component: str, to: Path) -> list[Outcome]:
        """The working directory of a component."""
        component = component.removeprefix(f"stage{stage}.") if isinstance(component, str) else component
        inside = directory(stage, component)
        instance = await self._locate(where)
        source = f"{instance}/{inside}"
        documents = await self._datastore.components(query={"instance": str(instance)})
        is_over = any(one.is_over for one in documents if (one.stage, one.name) == (stage, component))
        origin = Origin(source, "directory") if is_over else None
        call = component_call(await self._gateway(instance), instance, stage, component)

        def use(writer: Writer, _: Headers) -> list[Download]:
            parts, folders = target.unpack(writer, source, lambda path: free(path, f"{source}/{path}"))
            return target.store([(origin, parts)], folders)

        async with self._filling(to, f"stage{stage}.{component} of {where}", 1, "components") as target:
            try:
                known = await in_thread(target.known, [origin]) if origin else {}
                return [*(known.get(source, []) or await target.fetch(call, source, use))]
            except NotFound as error:
                error.advice = f"the run has {sorted(one.reference for one in documents)}"
                return [DownloadFailed(to, source, error)]
            except St4sdError as error:
                return [DownloadFailed(to, source, error)]
            finally:
                target.work.finish()

    async def outputs(
        self, rest_uid: str, to: Path, names: Sequence[str] | None, *, unpack: bool, is_chosen: bool = True
    ) -> list[Outcome]:
        """Key-outputs; `filling` says when a folder is chosen."""
        if any(not isinstance(name, str) for name in names or ()):
            raise TypeError(f"the names of key-outputs are texts, not {names!r}")
        entries = await self._instances.outputs(rest_uid)
        if names is None and not (entries and all(entry.final for entry in entries.values())):
            await self._warn(rest_uid, entries)
        wanted = list(dict.fromkeys(entries if names is None else names))
        folders = folder_names(entries)
        outcomes: dict[str, Sequence[Outcome]] = {}

        async def fetch(name: str) -> None:
            folder = folders.get(name) or folder_name(name)
            try:
                outcomes[name] = await self._output(target, rest_uid, name, folder, entries, unpack=unpack)
            except St4sdError as error:
                outcomes[name] = [DownloadFailed(to / folder, f"{rest_uid}/outputs/{name}", error)]
            target.work.finish()

        work = f"key-outputs of {rest_uid}"
        async with self._filling(to, work, len(wanted), "key-outputs", is_chosen=is_chosen) as target:
            await each(fetch, wanted, self._workers)
        return [outcome for name in wanted for outcome in outcomes[name]]

    async def _warn(self, rest_uid: str, entries: Iterable[str]) -> None:
        """Say that these key-outputs may not be all, if the run is not over."""
        told = "run %r is not over (%s): it has %s by now, others may come; wait for its end and call again"
        with suppress(St4sdError):  # what is there can be had all the same
            status = await self._instances.status(rest_uid)
            if not status.is_final:
                log.warning(told, rest_uid, status, list(entries))

    async def _output(
        self, target: Target, rest_uid: str, name: str, folder: str, entries: Mapping[str, KeyOutput], *, unpack: bool
    ) -> list[Download]:
        """One key-output, in its folder."""
        if name not in entries:
            raise await missing_output(self._instances, rest_uid, name, entries)
        entry, source = entries[name], f"{rest_uid}/outputs/{name}"
        stamp = f"version {entry.version} of {entry.created}"
        as_file, packed, unpacked = (Origin(source + form, stamp) for form in ("", " packed", " unpacked"))

        def use(writer: Writer, headers: Headers) -> list[Download]:
            if unpack and is_zip(headers):
                inside = f"{folder}/".__add__
                parts, folders = target.unpack(writer, source, lambda path: free(inside(path), f"{source}/{path}"))
                return target.store([(unpacked, parts)], map(inside, folders))
            told = filename_in(headers.get("content-disposition", "")) or entry.filename or name
            part = writer.finish(free(f"{folder}/{safe_name(told, otherwise=folder)}", source))
            return target.store([(packed if is_zip(headers) else as_file, [part])])

        try:
            call = output_file_call(rest_uid, name)
            # Without a version nothing distinguishes this one from the next.
            origins = [as_file, unpacked if unpack else packed] if entry.version is not None else []
            known = await in_thread(target.known, origins)
            return next(iter(known.values()), []) or await target.fetch(call, source, use)
        except ValueError as error:
            raise DownloadError(source, f"cannot be asked for: {error}") from None
        except ServerError as error:
            if found := _DIRECTORY.match(entry.filepath or ""):
                error.advice = f"download_component(run, {found[1]}, {found[2]!r}, to) has it too, from another service"
            raise

    def _filling(
        self, to: Path, what: str, total: int, unit: str, *, is_chosen: bool = True
    ) -> AbstractAsyncContextManager[Target]:
        work = ProgressReporter(self._progress, what, total, unit)
        return filling(to, self._stream, self._secrets, work, is_chosen=is_chosen)


def _settled(target: Target, files: Mapping[str, Wanted | DownloadError]) -> dict[str, Outcome]:
    """Of files by their sources those of which it is clear what becomes of them: some are here, some cannot be."""
    bad = {source: file for source, file in files.items() if isinstance(file, DownloadError)}
    outcomes: dict[str, Outcome] = {
        source: DownloadFailed(target.folder, source, error) for source, error in bad.items()
    }
    outcomes |= {source: known[0] for source, known in target.known(list(map(Origin, files))).items()}
    missing = (file.place for file in files.values() if isinstance(file, Wanted) and file.place.source not in outcomes)
    return outcomes | {one.source: one for one in target.blocked(missing)}


def judged(found: list[Outcome], *, strict: bool) -> list[Outcome]:
    """The same, unless one of them failed and that is an error."""
    failed = [one for one in found if isinstance(one, DownloadFailed)]
    if strict and failed:
        error = failed[0].error
        error.add_note(f"{len(failed)} of {len(found)} downloads failed, this one from {failed[0].source}")
        raise error
    return found


async def _collect(path: str, limit: int, _: Headers, pieces: AsyncIterator[bytes]) -> bytes | None:
    """The content of the only file of an archive, None if it has none."""
    archive = bytearray()
    async for piece in pieces:
        archive += piece
        if len(archive) > limit + limit // 1000 + SLACK:
            raise too_large(path, limit)
    return await in_thread(content, io.BytesIO(archive), path, limit)
