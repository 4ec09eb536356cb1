"""
The results of runs as a tree of files, for urls.

    <rest-uid>/<key-output>[/<path in a folder>]
    <rest-uid>/components/<stage>/<name>/<path>

Key-outputs come from the runtime service. It lists no folder, and serves no part of a file. So the type and the size of
a key-output are read from the headers of its response, and a folder is listed from its archive. Files of components
come from a gateway, and are listed from the documents in the datastore, which have no sizes.
"""

from __future__ import annotations

import errno
import io
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self, cast

import anyio

from .._api.gateways import directory
from .._api.instances import output_file_call
from .._errors import DownloadError, NotAFolder, NotFound, NotReady, OutsideOfFolder, UnknownOutput, UnknownRun
from .._http.call import segment, subpath
from .._util.threads import in_thread
from ..models import DownloadFailed
from ..models.runs import check_rest_uid
from .archive import ZipArchive, archive_errors, is_archive
from .downloads import for_each, without_secrets
from .outputs import explain_missing_output, missing_output
from .target import WRITE_BYTES, storage_errors

if TYPE_CHECKING:
    from .._api.datastore import Datastore
    from .._api.instances import Instances
    from .._http.session import ClientSession
    from ..models import ComponentDocument, KeyOutput
    from .downloads import Downloads

COMPONENTS = "components"
"""Name of the folder with the files of components. A key-output of this name has no path."""
SMALL_FILE_BYTES = 1 << 20
"""Up to this size, a file of a component is read into memory on its way to the disk, which takes fewer steps."""
MAX_CACHED_RUNS = 16
"""Finished runs whose names of files are kept."""
NOT_A_PATH = (NotFound, NotAFolder, OutsideOfFolder)
"""Errors for a path that does not exist."""


@dataclass(frozen=True)
class Entry:
    """A file or folder in the tree."""

    path: str
    """Path from the root, without a slash at its beginning."""
    is_folder: bool
    """Whether it is a folder."""
    size: int | None = None
    """Size of a file in bytes. None means that it is not known before the file is fetched."""
    output: KeyOutput | None = None
    """The key-output that it is, or is in. None for a file of a component."""


class ResultTree:
    """The tree of all runs of one deployment. Only the names of files of components of finished runs are cached."""

    def __init__(
        self, session: ClientSession, downloads: Downloads, datastore: Datastore, instances: Instances
    ) -> None:
        self._session = session
        self._downloads = downloads
        self._datastore = datastore
        self._instances = instances
        self._final: dict[str, Folder] = {}
        """Finished run -> files of its components, of the last `MAX_CACHED_RUNS`."""

    async def find(self, path: str) -> Entry:
        """
        Return the entry at a path; raise one of `NOT_A_PATH` if there is none.

        Raises:
            NotReady: The datastore has no documents of the components of the run yet.
        """
        place = _place(path)
        if not place.name:
            if place.run:
                await self._outputs(place.run)
            return Entry(path, is_folder=True)
        if place.name == COMPONENTS:
            return (await self._components(place.run)).find(place.inside)
        output = await self._output(place)
        found = await self._receive(place)
        return Entry(path, found.is_folder, found.size, output)

    async def entries(self, path: str) -> list[Entry]:
        """
        Return the entries in a folder, sorted by path, or the entry of a file; raise as `find`.

        Raises:
            DownloadError: The archive of a folder is damaged.
        """
        place = _place(path)
        if not place.run:
            return [Entry(run.id, is_folder=True) for run in await self._instances.list()]
        if not place.name:
            return await self._list_run(place.run)
        if place.name == COMPONENTS:
            return (await self._components(place.run)).entries(place.inside)
        return await self._list_output(path, place)

    async def fetch(self, path: str) -> io.FileIO:
        """
        Fetch a file, and return it as an open temporary file without a name; raise as `find`.

        Raises:
            IsADirectoryError: The path is a folder.
            DownloadError: The file cannot be stored, or is damaged.
            St4sdError: It cannot be fetched. A response that breaks off is requested again.
        """
        place = _place(path)
        if place.name not in ("", COMPONENTS):
            return await self._fetch_output(path, place)
        if (await self.find(path)).is_folder:
            raise _folder_error(path)
        return await self._fetch_component_file(path, place)

    # Key-outputs

    async def _outputs(self, run: str) -> Mapping[str, KeyOutput]:
        """Return the key-outputs of a run. A deleted run of which the datastore has documents has none."""
        try:
            return await self._instances.outputs(run)
        except UnknownRun:
            with suppress(NotFound):  # a deployment may have no datastore
                if await self._datastore.user_metadata(rest_uid=run):
                    return {}
            raise

    async def _output(self, place: _Place) -> KeyOutput:
        outputs = await self._instances.outputs(place.run)
        if place.name not in outputs:
            raise await missing_output(self._instances, place.run, place.name, outputs)
        return outputs[place.name]

    async def _list_run(self, run: str) -> list[Entry]:
        entries = {COMPONENTS: Entry(f"{run}/{COMPONENTS}", is_folder=True)}

        async def describe(output: tuple[str, KeyOutput]) -> None:
            name, details = output
            path = f"{run}/{name}"
            with suppress(*NOT_A_PATH):  # it was removed meanwhile, or its name cannot be in a path
                found = await self._receive(_place(path))
                entries[name] = Entry(path, found.is_folder, found.size, details)

        outputs = await self._outputs(run)
        listed = [(name, details) for name, details in outputs.items() if name != COMPONENTS and "/" not in name]
        await for_each(listed, describe, self._session.config.downloads)
        return [entries[name] for name in sorted(entries)]

    async def _list_output(self, path: str, place: _Place) -> list[Entry]:
        output = await self._output(place)
        async with _TemporaryFile.open(path, takes_folder=True) as file:
            found = await self._receive(place, file)
            if not found.is_folder:
                return [Entry(path, found.is_folder, found.size, output)]
            try:
                return (await in_thread(_read_folder, file.file, path, output)).entries("")
            except DownloadError as error:
                raise without_secrets(error, self._session.secrets()) from None

    async def _fetch_output(self, path: str, place: _Place) -> io.FileIO:
        async with _TemporaryFile.open(path) as file:
            try:
                found = await self._receive(place, file)
            except UnknownOutput as error:
                missing = error
            else:
                if found.is_folder:
                    raise _folder_error(path)
                return file.detach()
        await explain_missing_output(self._instances, place.run, place.name, place.inside or None, missing)
        raise missing

    async def _receive(self, place: _Place, file: _TemporaryFile | None = None) -> _Head:
        """Request a key-output or a path in it, store its body, and return what its headers say."""
        call = output_file_call(place.run, place.name, place.inside or None)
        return await self._session.stream(call, partial(_receive_body, file))

    # Files of components

    async def _components(self, run: str) -> Folder:
        """Return the files of the components of a run that are over. Waits for the documents of a run that exists."""
        if run in self._final:
            return self._final[run]
        try:
            await self._instances.status(run)
            document = await self._datastore.document(run)
        except UnknownRun:  # it was deleted, or never existed
            document = await self._datastore.document(run, timeout=0)
        components = await self._datastore.components(query={"instance": document.instance})
        if not components:
            raise NotReady(f"the datastore has no documents of the components of {run!r} (yet)")
        folder = _component_folder(run, components)
        if document.status.is_final:
            self._final[run] = folder
            while len(self._final) > MAX_CACHED_RUNS:
                self._final.pop(next(iter(self._final)))
        return folder

    async def _fetch_component_file(self, path: str, place: _Place) -> io.FileIO:
        stage, component, name = place.inside.split("/", 2)
        with suppress(DownloadError, NotFound):  # it is larger, or was removed
            content = await self._downloads.read(
                place.run, f"{directory(int(stage), component)}/{name}", SMALL_FILE_BYTES
            )
            async with _TemporaryFile.open(path) as file:
                await in_thread(file.write_last, [content])
                return file.detach()
        patterns = rf"^{re.escape(component)}$", int(stage), rf"^{re.escape(name)}\Z"
        async with _temporary_folder(path) as folder:
            outcomes = await self._downloads.files(place.run, folder, *patterns)
            if not outcomes:
                raise NotFound(f"stage{stage}.{component} of run {place.run!r} has no file {name!r} any more")
            if isinstance(outcomes[0], DownloadFailed):
                raise outcomes[0].error
            return await in_thread(io.FileIO, str(outcomes[0].path))


class Folder:
    """
    The files and folders below a path.

    Args:
        path: The path.
        output: The key-output that it is in, if any.
    """

    def __init__(self, path: str, output: KeyOutput | None = None) -> None:
        self._path = path
        self._output = output
        self._entries = {"": Entry(path, is_folder=True, output=output)}
        """path relative to the folder -> entry."""

    def add(self, path: str, size: int | None = None, *, is_folder: bool = False) -> None:
        """Add a file or folder and its parents, unless a server chose a name that cannot be in a path."""
        if _is_plain(path):
            self._entries[path] = Entry(f"{self._path}/{path}", is_folder, size, self._output)
            parent = _parent(path)
            if parent not in self._entries:
                self.add(parent, is_folder=True)

    def find(self, path: str) -> Entry:
        """Return the entry at a relative path; raise `NotFound` if there is none."""
        if path not in self._entries:
            raise NotFound(f"{self._path!r} has no {path!r}: a component has files here once it is over")
        return self._entries[path]

    def entries(self, path: str) -> list[Entry]:
        """Return the entries in a folder, or that of a file; raise as `find`."""
        found = self.find(path)
        if not found.is_folder:
            return [found]
        return [entry for name, entry in sorted(self._entries.items()) if name and _parent(name) == path]


class _Place(NamedTuple):
    """A path, in parts. They are "" if missing."""

    run: str
    """The rest-uid."""
    name: str
    """The key-output, or `COMPONENTS`."""
    inside: str
    """The path below it."""


class _Head(NamedTuple):
    """What the headers of a key-output say."""

    is_folder: bool
    """Whether the body is an archive of a folder."""
    size: int | None
    """Length of the body. None for a folder, or if there is no such header."""


class _TemporaryFile:
    """
    A temporary file without a name, for a body.

    Args:
        path: Path of the body in the tree, for messages.
        takes_folder: Whether the archive of a folder is written, and no file. Otherwise it is the opposite.
    """

    def __init__(self, path: str, *, takes_folder: bool = False) -> None:
        self._path = path
        self.takes_folder = takes_folder
        with storage_errors(path):
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 -- `open` closes it
            """The file."""
        self.has_content = False
        """Whether anything was written."""
        self._is_detached = False

    @classmethod
    @asynccontextmanager
    async def open(cls, path: str, *, takes_folder: bool = False) -> AsyncIterator[Self]:
        """Create a file, and close it at the end unless it was detached."""
        opened = await in_thread(partial(cls, path, takes_folder=takes_folder))
        try:
            yield opened
        finally:
            if not opened._is_detached:
                with anyio.CancelScope(shield=True):
                    await in_thread(opened.file.close)

    def restart(self) -> None:
        """Remove what an earlier attempt wrote. Blocks."""
        with storage_errors(self._path):
            self.file.seek(0)
            self.file.truncate()

    def write(self, chunks: list[bytes]) -> None:
        """Append chunks. Blocks."""
        self.has_content = True
        with storage_errors(self._path):
            self.file.writelines(chunks)

    def write_last(self, chunks: list[bytes]) -> None:
        """Append the last chunks. Blocks."""
        self.write(chunks)
        with storage_errors(self._path):
            self.file.flush()

    def detach(self) -> io.FileIO:
        """Return the file, which is complete; the caller closes it."""
        self._is_detached = True
        return cast("io.FileIO", self.file.detach())


@asynccontextmanager
async def _temporary_folder(path: str) -> AsyncIterator[Path]:
    with storage_errors(path):
        folder = await in_thread(tempfile.TemporaryDirectory)
    try:
        yield Path(folder.name)
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(folder.cleanup)


async def _receive_body(file: _TemporaryFile | None, headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> _Head:
    """Write a body to a file, unless there is none or it takes no such body. The rest of a body is not received."""
    is_folder, length = is_archive(headers), headers.get("content-length", "")
    if file is not None and file.takes_folder == is_folder:
        if file.has_content:
            await in_thread(file.restart)
        pending, size = [], 0
        async for chunk in chunks:
            pending.append(chunk)
            size += len(chunk)
            if size >= WRITE_BYTES:
                await in_thread(file.write, pending)
                pending, size = [], 0
        await in_thread(file.write_last, pending)
    return _Head(is_folder, int(length) if length.isdecimal() and not is_folder else None)


def _component_folder(run: str, components: Iterable[ComponentDocument]) -> Folder:
    folder = Folder(f"{run}/{COMPONENTS}")
    for one in components:
        directory = f"{one.stage or 0}/{one.name}"
        folder.add(directory, is_folder=True)
        for file in one.files:
            if file.startswith(f"{one.location}/"):
                folder.add(f"{directory}{file.removeprefix(one.location)}")
    return folder


def _read_folder(file: BinaryIO, path: str, output: KeyOutput) -> Folder:
    """Return the folder of which a file is the archive. Blocks."""
    folder = Folder(path, output)
    with archive_errors(path, file.seek(0, os.SEEK_END)):
        archive = ZipArchive(file)
    for name in archive.folders:
        folder.add(name, is_folder=True)
    for member in archive.members:
        folder.add(member.path, member.info.file_size)
    return folder


def _place(path: str) -> _Place:
    """
    Return the place of a path.

    Raises:
        NotFound: Nothing can have this path. ``.`` and ``..`` are not resolved, and nothing is decoded.
    """
    run, run_slash, rest = path.partition("/")
    name, name_slash, inside = rest.partition("/")
    try:
        if "\0" in path:
            raise ValueError("a path must not contain NUL")
        if path:
            check_rest_uid(run)
        if run_slash:
            segment(name, "the name of a key-output")
        if name_slash:
            subpath(inside)
    except ValueError as error:
        raise NotFound(f"there is no {path!r}: {error}") from None
    return _Place(run, name, inside)


def _is_plain(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _folder_error(path: str) -> IsADirectoryError:
    return IsADirectoryError(errno.EISDIR, "it is a folder", path)
