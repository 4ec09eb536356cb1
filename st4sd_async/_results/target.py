"""
Bodies on their way to disk: streamed into a workspace, checked, noted and given their names.

Nothing can be continued in the middle and most carries no length [30, 34]: what breaks off begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio

from .._errors import DownloadError, UnsafeArchive
from .._util.redact import contains_secret, redact
from .._util.threads import in_thread
from ..models import Download, DownloadFailed
from .archive import unpack
from .manifest import Ledger, Origin
from .unsafe_zip import Hostile
from .workspace import Part, Place, Workspace, Writer

if TYPE_CHECKING:
    from .._http.session import BodyHandler
    from .._util.progress import ProgressReporter

T = TypeVar("T")
log = logging.getLogger("st4sd_async")
Headers = Mapping[str, str]
Secrets = Callable[[], tuple[str, ...]]
"""Gives what must not come back in messages."""

BLOCK = 1 << 20  # bytes that are handed to a thread at once


class Streamer(Protocol):
    """Asks for something, in its own terms, and hands on what comes as it arrives; in one attempt if told so."""

    async def __call__(self, call: Any, take: BodyHandler[T], /, *, once: bool = False) -> T: ...


class Target:
    """A folder that is being filled by one call."""

    def __init__(
        self, folder: Path, space: Workspace, stream: Streamer, secrets: Secrets, work: ProgressReporter
    ) -> None:
        self.folder = folder
        self.work = work
        self._secrets = secrets
        self._ledger = Ledger(space.root)
        self._space = space
        self._stream = stream

    def known(self, origins: Sequence[Origin]) -> dict[str, list[Download]]:
        """Files by the sources of which all are here already. Blocks."""
        complete = zip(origins, self._ledger.complete(origins), strict=True)
        return {origin.source: [self._download(*one) for one in kept] for origin, kept in complete if kept}

    def blocked(self, places: Iterable[Place]) -> list[DownloadFailed]:
        """Those files that cannot be stored, because something else is there, or belongs there. Blocks."""
        sources = {place.path: place.source for place in places}
        with _told(str(self.folder)):
            found = self._space.obstacles(sources, self._ledger.similar(sources))
        paths = {path: self.folder / path for path in found}
        return [
            DownloadFailed(paths[path], sources[path], DownloadError(str(paths[path]), obstacle))
            for path, obstacle in found.items()
        ]

    def store(self, arrived: Sequence[tuple[Origin | None, list[Part]]], folders: Iterable[str] = ()) -> list[Download]:
        """
        Give whole files their names, and tell of them in their order; without origin they are not noted. Blocks.

        What an older version had and this one has not is removed, unless somebody has changed it.
        """
        noted = [(origin, parts) for origin, parts in arrived if origin is not None]
        old = [kept for origin, _ in noted for kept in self._ledger.latest(origin.source)]
        for other in self._ledger.of_others(noted):
            log.warning("%s: what came from %s is replaced by files of the same names", self.folder, other)
        self._ledger.note(noted)
        self._space.place([part for _, parts in arrived for part in parts], folders)
        new = {part.place.path for _, parts in arrived for part in parts}
        # Looked at now, because a disk that ignores case may have taken a new file for an old one.
        gone = self._ledger.untouched(one for one in old if one.path not in new)
        self._space.clear(one.path for one in gone)
        return [self._download(*part.place, part.size, part.sha256) for _, parts in arrived for part in parts]

    def _download(self, path: str, source: str, size: int, sha256: str, *_: object) -> Download:
        return Download(self.folder / path, size, sha256, source)

    def unpack(self, writer: Writer, name: str, place: Callable[[str], Place | None]) -> tuple[list[Part], list[str]]:
        """The files of an archive that has come, which is removed, and its folders. Blocks."""
        archive, secrets = writer.finish(Place("")), self._secrets()

        def checked(path: str) -> Place | None:
            if contains_secret(path, secrets):
                raise Hostile("the name of a member quotes a credential")
            return place(path)

        try:
            with self._space.read(archive) as file:
                return unpack(file, self._space, name=name, place=checked)
        finally:
            self._space.remove(archive)

    async def fetch(self, call: Any, name: str, use: Callable[[Writer, Headers], T], *, once: bool = False) -> T:
        """
        What ``use`` makes, in a thread, of a body on disk and its headers; it is fetched once more if it is damaged.

        Raises:
            DownloadError: It cannot be stored, or is damaged again; ``name`` says what.
        """
        failure = None
        for _ in range(1 if once else 2):
            try:
                return await self._fetch(call, name, use, once=once)
            except DownloadError as error:
                failure = error
            if isinstance(failure, UnsafeArchive) or isinstance(failure.__cause__, FileExistsError):
                break  # the next one would be the same, or in the way of the same
        assert failure is not None
        raise without(failure, self._secrets())

    async def _fetch(self, call: Any, name: str, use: Callable[[Writer, Headers], T], *, once: bool) -> T:
        with _told(name):
            writer = await in_thread(self._space.new)
            with writer:
                headers: Headers = await self._stream(call, partial(self._save, writer), once=once)
                return await in_thread(use, writer, headers)

    async def _save(self, writer: Writer, headers: Headers, pieces: AsyncIterator[bytes]) -> Headers:
        """Write a body to a file, in place of what came of it before."""
        if writer.size:
            await in_thread(writer.restart)
        block, size = [], 0
        async for piece in pieces:
            self.work.receive(len(piece))
            block.append(piece)
            size += len(piece)
            if size >= BLOCK:
                await in_thread(writer.write, block)
                block, size = [], 0
        await in_thread(writer.write, block)
        return headers


def is_zip(headers: Headers) -> bool:
    """Whether a body is an archive that a server made, and not a file that is one."""
    return headers.get("content-type", "").partition(";")[0] == "application/zip"


def without(error: DownloadError, secrets: tuple[str, ...]) -> DownloadError:
    """The same error, without what it quotes of secrets: names in an archive are words of a server too."""
    path, problem = redact(error.path, secrets), redact(error.problem, secrets)
    if (path, problem) == (error.path, error.problem):
        return error
    return type(error)(path, problem, received=error.received, advice=error.advice)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns what is wrong with the disk into our error."""
    try:
        yield
    except OSError as problem:
        raise DownloadError(name, f"cannot be stored, {type(problem).__name__}: {problem}") from problem


@asynccontextmanager
async def filling(
    folder: Path, stream: Streamer, secrets: Secrets, work: ProgressReporter, *, is_chosen: bool = True
) -> AsyncIterator[Target]:
    """
    A folder that is being filled, made if need be; what was not whole is removed from it in the end.

    It may be a link if the user chose it, and not only the folder that it is in.

    Raises:
        DownloadError: There can be no such folder.
    """
    space = Workspace(folder, is_chosen=is_chosen)
    try:
        with _told(str(folder)):
            await in_thread(space.__enter__)
            target = await in_thread(Target, folder, space, stream, secrets, work)
        with work:
            yield target
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(space.__exit__)
