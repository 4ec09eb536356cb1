"""
The folder that a download fills: temporary files, checks, the manifest, and the rename to final names.

Everything here blocks, except `DownloadTarget.open` and `IncomingBody.receive`.

Incomplete files are in a folder ``.st4sd-*.part`` of the target. The process that works in it holds a lock on it. So
the next download recognises and removes the folder of a killed process. On a file system without locks nothing is
removed.

The manifest ``.st4sd-downloads.jsonl`` records what was downloaded and from where, so that it is not fetched again. A
line is written when files are complete, before they get their names. It is valid only while all of them exist
unchanged. After a crash in between, or if one of them was changed, they are fetched again.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from itertools import accumulate, chain, count
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

import anyio
import pydantic

from .._errors import DownloadError
from .._util.file_lock import lock_descriptor
from .._util.file_names import PREFIX, folded, is_reserved, unreserved
from .._util.redact import contains_secret
from .._util.threads import in_thread
from ..models import Download, DownloadFailed
from .archive import LIMITS, Limits, Member, UnsafeZip, ZipArchive, archive_errors, is_archive, safe_member_path
from .directory import HAS_DESCRIPTORS, Directory, Tree

if TYPE_CHECKING:
    from .._util.progress import ProgressReporter

log = logging.getLogger("st4sd_async")

SUFFIX = ".part"
"""Suffix of temporary folders; their names begin with `PREFIX`."""
LARGE_BYTES = 1 << 20  # from this size on, each file is synced; smaller ones share one sync of their folder
MAX_UNPACKING_THREADS = 4  # of a target, for large members of archives
MAX_ATTEMPTS = 100  # to create a temporary folder, or open a manifest, that no other process removes
WRITE_BYTES = 1 << 20  # of a body that are handed to a thread together
MANIFEST = f"{PREFIX}downloads.jsonl"
MAX_MANIFEST_BYTES = 1 << 28  # a million downloads; another user may leave a file of any size
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class Destination(NamedTuple):
    """Where a file goes."""

    path: str
    """Relative to the target, with ``/`` between its parts."""
    source: str = ""
    """Where it comes from, as the manifest records it."""


def destination(path: str, source: str = "") -> Destination:
    """Return the destination for a path, whose parts get a ``_`` in front if they are reserved."""
    return Destination(unreserved(path), source)


class Origin(NamedTuple):
    """Where files come from."""

    source: str
    """The file or folder, such as ``file://cluster/workdir/demo.instance/stages/stage0/Compute``."""
    version: str = ""
    """A version, or how the files are stored. Equal files have equal versions."""


class CompleteFile(NamedTuple):
    """A complete file that does not have its final name yet."""

    destination: Destination
    """Where it goes."""
    name: str
    """Its name in the temporary folder."""
    size: int
    """Bytes."""
    sha256: str
    """Checksum of what was written, in hexadecimal."""
    modified_ns: int
    """When it was written, in nanoseconds since 1970."""


class ManifestEntry(NamedTuple):
    """A file as it was when it was complete."""

    path: str
    """Relative to the target, with ``/`` between its parts."""
    source: str
    """Where it came from."""
    size: int
    """Bytes."""
    sha256: str
    """Checksum of its content, in hexadecimal."""
    modified_ns: int
    """When it was written, in nanoseconds since 1970."""


class ExtractedFile(NamedTuple):
    """A file that was unpacked."""

    path: str
    """Relative to the target, with ``/`` between its parts."""
    size: int
    """Bytes."""
    sha256: str
    """Checksum of its content, in hexadecimal."""


_LINE: pydantic.TypeAdapter[tuple[Origin, list[ManifestEntry]]] = pydantic.TypeAdapter(
    tuple[Origin, list[ManifestEntry]], config=pydantic.ConfigDict(defer_build=True)
)


class TemporaryFile:
    """A file in the temporary folder that is being written."""

    def __init__(self, folder: Directory, name: str) -> None:
        self._folder = folder
        self.name = name
        """Its name in the temporary folder."""
        self._descriptor: int | None = folder.create(name)
        self._digest = sha256()
        self.size = 0
        """Bytes written so far."""

    def restart(self) -> None:
        """Discard what was written."""
        assert self._descriptor is not None
        os.truncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._digest = sha256()
        self.size = 0

    def write(self, chunks: Iterable[bytes]) -> None:
        """Append chunks."""
        assert self._descriptor is not None
        for chunk in chunks:
            self._digest.update(chunk)
            self.size += len(chunk)
            written = os.write(self._descriptor, chunk)
            while written < len(chunk):
                written += os.write(self._descriptor, memoryview(chunk)[written:])

    def finish(self, to: Destination) -> CompleteFile:
        """Close the file, which is complete. A large one is synced to disk."""
        if self._descriptor is not None and self.size >= LARGE_BYTES:
            os.fsync(self._descriptor)
        self.close()
        modified = self._folder.stat(self.name).st_mtime_ns  # some file systems set it when a file is closed
        return CompleteFile(to, self.name, self.size, self._digest.hexdigest(), modified)

    def close(self) -> None:
        """Close the file, complete or not."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class IncomingBody:
    """The body of a response on its way to a temporary file."""

    def __init__(self, file: TemporaryFile, progress: ProgressReporter) -> None:
        self.file = file
        """The file."""
        self.headers: Mapping[str, str] = {}
        """The headers of the response, with lower-case names."""
        self.secrets: tuple[str, ...] = ()
        """Texts that names in it must not contain."""
        self._progress = progress

    async def receive(self, headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> None:
        """Write a body to the file, replacing the content of an earlier attempt."""
        self.headers = headers
        if self.file.size:
            await in_thread(self.file.restart)
        pending, size = [], 0
        async for chunk in chunks:
            self._progress.receive(len(chunk))
            pending.append(chunk)
            size += len(chunk)
            if size >= WRITE_BYTES:
                await in_thread(self.file.write, pending)
                pending, size = [], 0
        await in_thread(self.file.write, pending)

    @property
    def is_archive(self) -> bool:
        """Whether it is an archive that a server made of a folder, not a file that happens to be an archive."""
        return is_archive(self.headers)


class Manifest:
    """The manifest of one folder. Several processes may add to it at the same time."""

    def __init__(self, folder: Directory) -> None:
        """
        Read the existing lines.

        Raises:
            OSError: The file is too large, or something else has its name, such as a link or a named pipe.
        """
        self._folder = folder
        self._recording = Lock()
        self._entries: dict[str, tuple[str, list[ManifestEntry]]] = {}
        """source -> its version and its files."""
        self._owners: dict[str, str] = {}
        """path -> source of the last file with this name."""
        for line in _read_manifest(folder).split(b"\n"):
            with suppress(ValueError):  # a line that a crash has cut, or that is not ours
                self._add(*_LINE.validate_json(line))

    def _add(self, origin: Origin, entries: list[ManifestEntry]) -> None:
        # In this order: other threads look up the owners of all entries.
        self._owners.update(dict.fromkeys((entry.path for entry in entries), origin.source))
        self._entries[origin.source] = origin.version, entries

    def complete(self, origins: Iterable[Origin]) -> list[list[ManifestEntry]]:
        """Return the files of each origin, or [] unless all of them exist unchanged."""
        with Tree(self._folder) as tree:
            return [self._complete(tree, origin) for origin in origins]

    def _complete(self, tree: Tree, origin: Origin) -> list[ManifestEntry]:
        version, entries = self._entries.get(origin.source, ("", []))
        is_current = version == origin.version and all(self._owners[one.path] == origin.source for one in entries)
        return entries if is_current and all(_is_unchanged(tree, entry) for entry in entries) else []

    def latest(self, source: str) -> list[ManifestEntry]:
        """Return the last files from a source, of any version, that were not replaced by files from another."""
        _, entries = self._entries.get(source, ("", []))
        return [entry for entry in entries if self._owners[entry.path] == source]

    def unchanged(self, entries: Iterable[ManifestEntry]) -> list[ManifestEntry]:
        """Return the files that exist unchanged. A file behind a link does not count."""
        with Tree(self._folder) as tree:
            return [entry for entry in entries if _is_unchanged(tree, entry)]

    def unchanged_paths(self) -> set[str]:
        """Return the paths of all files that exist unchanged, relative to the folder."""
        return {entry.path for source in self._entries for entry in self.unchanged(self.latest(source))}

    def similar(self, paths: Iterable[str]) -> list[str]:
        """Return other unchanged files whose paths some file system takes for one of these."""
        paths = set(paths)
        forms = set(map(folded, paths))
        others = {path for path in self._owners if forms and path not in paths and folded(path) in forms}
        sources = {self._owners[path] for path in others}
        entries = (entry for source in sources for entry in self.latest(source) if entry.path in others)
        return [entry.path for entry in self.unchanged(entries)]

    def replaced_sources(self, files: Iterable[tuple[Origin, Iterable[CompleteFile]]]) -> set[str]:
        """Return the sources of unchanged files that these files will replace, if they are other sources."""
        sources = {file.destination.path: origin.source for origin, of_origin in files for file in of_origin}
        others = {self._owners[path] for path, source in sources.items() if self._owners.get(path, source) != source}
        return {source for source in others if self.unchanged(self.latest(source))}

    def record(self, files: Iterable[tuple[Origin, Iterable[CompleteFile]]]) -> None:
        """Append a line for each origin, whose files are complete and about to get their names."""
        lines = [b""]  # so that a line that was cut stays alone
        for origin, of_origin in files:
            entries = [ManifestEntry(*file.destination, file.size, file.sha256, file.modified_ns) for file in of_origin]
            self._add(origin, entries)
            lines.append(_LINE.dump_json((origin, entries)))
        with self._recording:
            handle = self._open_without_other_names()
            try:
                os.write(handle, b"\n".join([*lines, b""]))
            finally:
                os.close(handle)

    def _open_without_other_names(self) -> int:
        """Open the manifest to append to it, or a copy that takes its place if the file has other names."""
        for _ in range(MAX_ATTEMPTS):
            handle = self._folder.open_file(MANIFEST, APPEND)
            links = os.fstat(handle).st_nlink
            # Another process may just have removed this name, and then it is not known what the other one is.
            if links <= 1 and _is_same(self._folder, MANIFEST, handle):
                return handle
            os.close(handle)
            if links > 1:  # it may be a file of the user elsewhere, or belong to a backup
                self._replace_by_copy()
        raise FileExistsError(f"{self._folder.path!r}: other processes replace {MANIFEST!r} all the time")

    def _replace_by_copy(self) -> None:
        content = _read_manifest(self._folder)
        self._folder.remove(MANIFEST)
        handle = self._folder.open_file(MANIFEST, APPEND)
        try:
            os.write(handle, content)
        finally:
            os.close(handle)


def _read_manifest(folder: Directory) -> bytes:
    try:
        handle = folder.open_file(MANIFEST, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    with os.fdopen(handle, "rb") as file:
        if os.fstat(handle).st_size > MAX_MANIFEST_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MAX_MANIFEST_BYTES} bytes: remove it", MANIFEST)
        return file.read()


def _is_unchanged(tree: Tree, entry: ManifestEntry) -> bool:
    try:
        if unreserved(safe_member_path(entry.path)) != entry.path:
            return False
        found = tree.stat(entry.path)
    except (OSError, ValueError, UnsafeZip):
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (entry.size, entry.modified_ns)


class DownloadTarget:
    """
    A folder that one call fills. Files get their names when they are complete; no link in the folder is followed.

    Args:
        folder: The folder, created if missing.
        is_chosen: Whether the user named this folder, which may be a link then. If not, the user named its parent.
        has_manifest: Whether downloads are recorded. Without a manifest only `create_file`, `unpack` and `rename` work.
        uses_descriptors: Whether the system can work from an open folder; see `Directory`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        is_chosen: bool = True,
        has_manifest: bool = True,
        uses_descriptors: bool = HAS_DESCRIPTORS,
    ) -> None:
        self.folder = folder
        self._is_chosen = is_chosen
        self._has_manifest = has_manifest
        self._uses_descriptors = uses_descriptors
        self._names = count()
        self._has_renamed = False
        self._closing = ExitStack()

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, *, is_chosen: bool = True) -> AsyncIterator[Self]:
        """
        Open a target, and remove its temporary folder at the end.

        Raises:
            DownloadError: The folder cannot be created or opened.
        """
        target = cls(folder, is_chosen=is_chosen)
        try:
            with storage_errors(str(folder)):
                await in_thread(target.__enter__)
            yield target
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(target.__exit__)

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            self._root = closing.enter_context(self._open_root())
            for name in self._root.names():
                if name.startswith(PREFIX) and name.endswith(SUFFIX):
                    _remove_if_left_behind(self._root, name)
            name, self._temporary = _create_temporary_folder(self._root)
            closing.enter_context(self._temporary)
            closing.callback(self._root.remove_tree, name)
            closing.callback(self._sync_renames)
            if self._has_manifest:
                self._manifest = Manifest(self._root)
            self._threads = closing.enter_context(ThreadPoolExecutor(MAX_UNPACKING_THREADS, "st4sd_async unpacking"))
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _sync_renames(self) -> None:
        """Bring all moves out of the temporary folder to disk."""
        if self._has_renamed:
            self._temporary.sync()

    def _open_root(self) -> Directory:
        chosen = self.folder if self._is_chosen else self.folder.parent
        chosen.mkdir(parents=True, exist_ok=True)
        opened = Directory.open(str(chosen), uses_descriptors=self._uses_descriptors)
        if self._is_chosen:
            return opened
        with opened, Tree(opened) as tree:
            name = self.folder.name
            tree.make(name)
            if problem := tree.obstacle(name, is_folder=True):
                raise FileExistsError(problem)
            return opened.child(name)

    def known(self, origins: Sequence[Origin]) -> dict[str, list[Download]]:
        """Return source -> files, for those sources whose files are all here already."""
        complete = zip(origins, self._manifest.complete(origins), strict=True)
        return {origin.source: [self._download(*entry) for entry in entries] for origin, entries in complete if entries}

    def blocked(self, destinations: Iterable[Destination]) -> list[DownloadFailed]:
        """Return a failure for each file that cannot be stored, because another entry has or will have its name."""
        sources = {to.path: to.source for to in destinations}
        with storage_errors(str(self.folder)):
            found = self.obstacles(sources, self._manifest.similar(sources))
        paths = {path: self.folder / path for path in found}
        return [
            DownloadFailed(paths[path], sources[path], DownloadError(str(paths[path]), obstacle))
            for path, obstacle in found.items()
        ]

    def create_file(self) -> TemporaryFile:
        """Create a file in the temporary folder."""
        return TemporaryFile(self._temporary, str(next(self._names)))

    def store_file(self, to: Destination, origin: Origin | None, body: IncomingBody) -> list[Download]:
        """Store a body as a file, and record it unless its origin is None."""
        return self._store([(origin, [body.file.finish(to)])])

    def store_folder(self, folder: str, source: str, origin: Origin | None, body: IncomingBody) -> list[Download]:
        """
        Unpack a body, all of it or nothing.

        Args:
            folder: Where to unpack it, relative to the target; ``""`` for the target itself.
            source: Where the archive comes from.
            origin: What to record; None to record nothing.
            body: An archive.
        """
        inside = f"{folder}/" if folder else ""
        with self._received_archive(body, source) as archive:
            paths = [member.path for member in archive.members]
            files = self._unpack(archive, {path: destination(f"{inside}{path}", f"{source}/{path}") for path in paths})
        return self._store([(origin, files)], (f"{inside}{unreserved(path)}" for path in archive.folders))

    def store_members(
        self, destinations: Mapping[str, Destination], name: str, body: IncomingBody, *, rejects_others: bool
    ) -> list[Download]:
        """
        Unpack some files of a body, and record each of them.

        Args:
            destinations: Paths in the archive -> where these files go.
            name: What to call the archive in messages.
            body: An archive.
            rejects_others: Whether other files in the archive are an error. If not, they are ignored.
        """
        with self._received_archive(body, name) as archive:
            for member in archive.members:
                if rejects_others and member.path not in destinations:
                    raise UnsafeZip(f"its member {member.path!r} was not requested")
            files = self._unpack(archive, destinations)
        return self._store([(Origin(file.destination.source), [file]) for file in files])

    @contextmanager
    def _received_archive(self, body: IncomingBody, name: str) -> Iterator[ZipArchive]:
        """Open an archive that was received, and remove it at the end."""
        file = body.file
        file.close()
        try:
            with self._open_archive(file.name) as content, archive_errors(name, file.size):
                archive = ZipArchive(content)
                if any(contains_secret(member.path, body.secrets) for member in archive.members):
                    raise UnsafeZip("the name of a member quotes a credential")
                yield archive
        finally:
            self._temporary.remove(file.name)

    def _open_archive(self, name: str) -> BinaryIO:
        return os.fdopen(self._temporary.open_file(name, os.O_RDONLY), "rb")

    def _unpack(self, archive: ZipArchive, destinations: Mapping[str, Destination]) -> list[CompleteFile]:
        """Unpack the members that have destinations into temporary files, large ones by several threads."""
        stopped = Event()

        def unpack(member: Member) -> Iterable[CompleteFile]:
            with self.create_file() as file:
                for chunk in archive.content(member):
                    if stopped.is_set():
                        return []
                    file.write([chunk])
                return [file.finish(destinations[member.path])]

        members = [member for member in archive.members if member.path in destinations]
        unpacking = {one: self._threads.submit(unpack, one) for one in members if one.info.file_size >= LARGE_BYTES}
        try:
            files = {member: unpack(member) for member in members if member not in unpacking}
            wait(unpacking.values(), return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
            wait(unpacking.values())
        files |= {member: future.result() for member, future in unpacking.items()}
        return [file for member in members for file in files[member]]

    def extract(self, archive: ZipArchive) -> list[CompleteFile]:
        """Unpack an archive into the target, all of it or nothing, and record nothing."""
        files = self._unpack(archive, {member.path: destination(member.path) for member in archive.members})
        self.rename(files, map(unreserved, archive.folders))
        return files

    def _store(
        self, files: Sequence[tuple[Origin | None, list[CompleteFile]]], folders: Iterable[str] = ()
    ) -> list[Download]:
        """
        Record complete files and give them their names; those without an origin are not recorded.

        Files that only an older version has are removed, unless the user has changed them.
        """
        recorded = [(origin, of_origin) for origin, of_origin in files if origin is not None]
        old = [entry for origin, _ in recorded for entry in self._manifest.latest(origin.source)]
        for source in self._manifest.replaced_sources(recorded):
            log.warning("%s: files from %s are replaced by files of the same names", self.folder, source)
        self._manifest.record(recorded)
        complete = [file for _, of_origin in files for file in of_origin]
        self.rename(complete, folders)
        new = {file.destination.path for file in complete}
        # Checked now, because a file system that ignores case may have replaced an old file by a new one.
        self.remove(entry.path for entry in self._manifest.unchanged(entry for entry in old if entry.path not in new))
        return [self._download(*file.destination, file.size, file.sha256) for file in complete]

    def _download(self, path: str, source: str, size: int, sha256: str, *_: object) -> Download:
        return Download(self.folder / path, size, sha256, source)

    def rename(self, files: Iterable[CompleteFile], folders: Iterable[str] = ()) -> None:
        """
        Move files to their destinations, in place of files of the same names, and create empty folders.

        Raises:
            OSError: A link or something else is in the way of a file, a name is reserved, or two files have the same
                name. No file was moved.
        """
        files = list(files)
        paths = [file.destination.path for file in files]
        parents = dict.fromkeys([*folders, *(path.rpartition("/")[0] for path in paths)])
        needed = dict.fromkeys(folder for path in parents for folder in _with_parents(path))
        with Tree(self._root) as tree:
            both = (f"{path!r} would be a file and a folder" for path in paths if path in needed)
            reserved = map(_reserved_name_problem, chain(needed, paths))
            folder_obstacles = (tree.obstacle(path, is_folder=True) for path in needed)
            twins = self._twins(paths).values()
            if problem := next(
                filter(None, chain(twins, both, reserved, folder_obstacles, tree.obstacles(paths))), None
            ):
                raise FileExistsError(problem)
            for path in needed:
                tree.make(path)
            for file in files:
                self._temporary.move(file.name, *tree.parent(file.destination.path))
        self._has_renamed = self._has_renamed or bool(files)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files from the target. A file behind a link stays."""
        with Tree(self._root) as tree:
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError):
                    folder, name = tree.parent(path)
                    folder.remove(name)

    def obstacles(self, paths: Iterable[str], existing: Iterable[str] = ()) -> dict[str, str]:
        """
        Return path -> reason, for files that cannot be stored.

        Args:
            paths: Files to be stored.
            existing: Other files of the target, with which they may collide.
        """
        paths = list(paths)
        with Tree(self._root) as tree:
            obstacles = zip(paths, tree.obstacles(paths), strict=True)
            found = {path: _reserved_name_problem(path) or obstacle for path, obstacle in obstacles}
        twins = self._twins([*existing, *paths])
        return {path: problem for path, obstacle in found.items() if (problem := obstacle or twins.get(path))}

    def _twins(self, paths: Iterable[str]) -> dict[str, str]:
        """Return path -> problem, for paths that the file system considers equal to an earlier one."""
        groups: dict[str, list[str]] = {}
        for path in paths:
            groups.setdefault(folded(path), []).append(path)
        similar = [path for group in groups.values() if len(group) > 1 for path in group]
        problems: dict[str, str] = {}
        if not similar:
            return problems
        # Only the file system knows what it distinguishes, so folders of these names are created.
        earlier: dict[tuple[int, int], str] = {}
        name = str(next(self._names))
        self._temporary.make(name)
        with self._temporary.child(name) as folder, Tree(folder) as tree:
            for path in similar:
                with suppress(OSError):  # a name that is impossible is reported when the file is stored
                    for parent in _with_parents(path):
                        tree.make(parent)
                    found = tree.stat(path)
                    if first := earlier.get(at := (found.st_dev, found.st_ino)):
                        problems[path] = f"{path!r} would be in the same place as {first!r}"
                    earlier.setdefault(at, path)
        self._temporary.remove_tree(name)
        return problems


def extract(archive: Path, target: Path, *, limits: Limits = LIMITS) -> list[ExtractedFile]:
    """
    Unpack an archive, all of it or nothing.

    Files of the same names are replaced once the whole archive has been verified. Several archives may be unpacked
    into one target at the same time. Files of 1 MiB or more are synced to disk one by one; smaller ones share one sync
    of a folder, so a loss of power in the next seconds may still empty them.

    Args:
        archive: The zip file.
        target: Folder, created if missing. No link in it is followed. A name that begins with ``.st4sd-`` gets a ``_``
            in front.
        limits: Limits above which the archive counts as a zip bomb.

    Returns:
        The files, in the order of the archive, perhaps none. Folders are created and not listed.

    Raises:
        UnsafeArchive: The archive is malicious. Nothing was unpacked.
        DownloadError: The archive is damaged, or the target cannot take it: the disk is full, a link or a folder is in
            the way of a file. Nothing was unpacked.
    """
    size = archive.stat().st_size if archive.is_file() else 0
    with (
        archive_errors(str(archive), size),
        archive.open("rb") as content,
        DownloadTarget(target, has_manifest=False) as opened,
    ):
        files = opened.extract(ZipArchive(content, limits))
    return [ExtractedFile(file.destination.path, file.size, file.sha256) for file in files]


@contextmanager
def storage_errors(name: str) -> Iterator[None]:
    """Translate the errors of the file system to `DownloadError`."""
    try:
        yield
    except OSError as error:
        raise DownloadError(name, f"cannot be stored, {type(error).__name__}: {error}") from error


def _with_parents(path: str) -> Iterator[str]:
    """Yield the parents of a folder, outer ones first, and the folder itself."""
    return accumulate(path.split("/"), "{}/{}".format) if path else iter(())


def _reserved_name_problem(path: str) -> str | None:
    """Return the problem of a path with a reserved name; None if it has none. See `destination`."""
    is_free = path.isascii() and "st4sd" not in path.lower()
    if is_free or not any(map(is_reserved, path.split("/"))):
        return None
    return f"{path!r} has a name that begins with {PREFIX!r}, which is reserved"


def _create_temporary_folder(root: Directory) -> tuple[str, Directory]:
    """Create a temporary folder, and lock it if the file system has locks."""
    for _ in range(MAX_ATTEMPTS):
        name = f"{PREFIX}{secrets.token_hex(4)}{SUFFIX}"
        with suppress(FileExistsError, FileNotFoundError):
            root.make(name, 0o700)
            folder = root.child(name)
            # Before it was locked, another process may have mistaken it for one of a killed process.
            if _lock(folder) is not False and _is_same(root, name, folder.descriptor):
                return name, folder
            folder.close()
    raise FileExistsError(f"{root.path!r}: another process removes all temporary folders")


def _is_same(root: Directory, name: str, descriptor: int | None) -> bool:
    """Return whether an open file or folder still has its name; True on systems without directory descriptors."""
    with suppress(FileNotFoundError):
        return descriptor is None or root.descriptor is None or os.path.samestat(root.stat(name), os.fstat(descriptor))
    return False


def _lock(folder: Directory) -> bool | None:
    """Lock a folder without waiting; return whether it is locked now, or None if there are no locks here."""
    if folder.descriptor is None:
        return None
    try:
        lock_descriptor(folder.descriptor)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_if_left_behind(root: Directory, name: str) -> None:
    """Remove the temporary folder of a process that has ended; a link or a file of such a name stays."""
    with suppress(OSError), root.child(name) as folder:
        if _lock(folder):
            root.remove_tree(name)
