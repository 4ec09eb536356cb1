"""Inputs that are uploaded to a bucket for a start, and key-outputs that a run uploaded to one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .._errors import ConfigError, DownloadError, NotReady, S3Error, St4sdError, UnknownOutput
from .._util.file_names import folder_name, folder_names, safe_name, unreserved
from .._util.progress import ProgressReporter
from .._util.threads import in_thread
from ..models import S3, Download, DownloadFailed, FileContent, KeyOutput, S3Store, Staged
from ..models.storage import parse_bucket, parse_store
from .buckets import Entry, open_bucket
from .component_files import Outcome, each
from .manifest import Origin
from .target import Headers, Target, filling
from .unsafe_zip import Hostile, checked
from .workspace import Place, Writer

if TYPE_CHECKING:
    from .._api.instances import Instances
    from .._config import Config

Files = Iterable["str | os.PathLike[str]"] | Mapping[str, "str | os.PathLike[str]"]

STAGED = "st4sd-inputs"
"""Folder in a bucket below which each staging has one of its own, unless it is told another."""
UPLOADED = "workflow_instances/"
"""Where the service uploads key-outputs to, unless it is told another folder."""
INSTANCE = "%(instanceDir)s"
"""What the orchestrator replaces in the name of that folder by the name of the run's directory."""
ABSENT = "it is not there (yet): a stage's key-outputs come at its end, and client.log(run) says why one did not"


async def stage_inputs(
    files: Files, bucket: S3 | Mapping[str, Any], config: Config, *, prefix: str | None, allow_http: bool
) -> Staged:
    """Upload local files to a bucket: see `Client.stage_inputs`."""
    bucket, named = parse_bucket(bucket), _named(files)
    folder = f"{STAGED}/{uuid4().hex}" if prefix is None else _path(prefix, "prefix")
    storage = await open_bucket(bucket, config, allow_http=allow_http)
    await in_thread(_check_files, named.values())
    keys = {name: f"{folder}/{name}".removeprefix("/") for name in named}
    failures: list[S3Error] = []
    work = ProgressReporter(config.progress, f"files to the bucket {storage.name}", len(named), "files")

    async def upload(name: str) -> None:
        if failures:
            return
        try:
            await storage.put(keys[name], named[name], work.receive)
        except S3Error as error:
            failures.append(error)
        work.finish()

    with work:
        await each(upload, named, config.downloads)
    if failures:
        raise failures[0]
    entries = {name: FileContent(sourceFilename=key, targetFilename=name) for name, key in keys.items()}
    return Staged(bucket, entries)


async def fetch_outputs(
    rest_uid: str,
    to: Path,
    store: S3Store | Mapping[str, Any],
    instances: Instances,
    config: Config,
    *,
    names: str | Iterable[str] | None,
    allow_http: bool,
) -> list[Outcome]:
    """Fetch key-outputs that a run uploaded to a bucket: see `Client.fetch_s3_outputs`."""
    store = parse_store(store)
    if store.credentials is None:
        raise ConfigError("S3Store(credentials=S3(...)) is needed to fetch what is in the bucket")
    bucket = await open_bucket(store.credentials, config, allow_http=allow_http)
    root = await _uploads_folder(rest_uid, store, instances)
    entries = await instances.outputs(rest_uid)
    wanted = list(dict.fromkeys([names] if isinstance(names, str) else entries if names is None else names))
    found: dict[str, Sequence[Entry | St4sdError]] = {}

    async def look(name: str) -> None:
        try:
            key = _key(rest_uid, root, name, entries, bucket.name)
            found[name] = await bucket.find(key) or [S3Error(key, bucket.name, ABSENT)]
        except St4sdError as error:
            found[name] = [error]

    await each(look, wanted, config.downloads)
    folders = {name: folder_name(name) for name in wanted} | folder_names(entries)
    items = _items([(folders[name], one) for name in wanted for one in found[name]], root, bucket.name)
    outcomes: dict[int, Outcome] = {}

    async def fetch(index: int) -> None:
        place, entry = items[index]
        outcomes[index] = blocked.get(place.source) or await _fetched(target, place, entry)
        target.work.finish()

    work = ProgressReporter(config.progress, f"key-outputs of {rest_uid} in {bucket.name}", len(items), "files")
    places = [place for place, one in items if isinstance(one, Entry)]
    async with filling(to, bucket.stream, tuple, work) as target:
        blocked = {one.source: one for one in await in_thread(target.blocked, places)}
        await each(fetch, range(len(items)), config.downloads)
    return [outcomes[index] for index in range(len(items))]


async def _uploads_folder(rest_uid: str, store: S3Store, instances: Instances) -> str:
    """Return the folder in the bucket to which a run uploads."""
    told = UPLOADED if store.bucketPath is None else store.bucketPath
    if INSTANCE in told:
        meta = (await instances.status(rest_uid)).meta
        if meta is None or not meta.instance_name:
            raise NotReady(f"run {rest_uid!r} has no directory yet, after which {told!r} is named")
        told = told.replace(INSTANCE, meta.instance_name)
    return _path(told, "bucketPath")


def _named(files: Files) -> dict[str, Path]:
    """Name -> file, of which no two have the same name."""
    if isinstance(files, str):
        raise TypeError(f"files are paths, or names and paths, not the text {files!r}: put it into a list")
    if isinstance(files, bytes | os.PathLike) or not isinstance(files, Iterable):
        raise TypeError(f"files are a list of paths, or names and paths, not {type(files).__name__}")
    given = [(name, _file(path)) for name, path in files.items()] if isinstance(files, Mapping) else []
    given = given or [((path := _file(one)).name, path) for one in files]
    twice = sorted(name for name, count in Counter(name for name, _ in given).items() if count > 1)
    if twice:
        raise ValueError(f"several files are called {twice}: give other names, as {{'name': path}}")
    for name, _ in given:
        if not _path(name, "name"):
            raise ValueError(f"the name {name!r} will not do: the experiment sees a file by its name")
        if "/" in _path(name, "name"):
            raise ValueError(f"the name {name!r} has a folder: the experiment sees names only")
    return dict(given)


def _file(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a file is named by a text or a Path, not by {type(path).__name__}")
    return Path(path)


def _path(text: str, what: str) -> str:
    """A path in a bucket without slashes at its ends."""
    if not isinstance(text, str):
        raise TypeError(f"the {what} is a text, not {type(text).__name__}")
    path = text.strip("/")
    try:
        return checked(path) if path else ""
    except Hostile:
        raise ValueError(f"the {what} {text!r} will not do: it has a part that is empty or leads elsewhere") from None


def _check_files(files: Iterable[Path]) -> None:
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"no such files: {missing}")


def _key(rest_uid: str, root: str, name: str, entries: Mapping[str, KeyOutput], bucket: str) -> str:
    """Where a key-output is in a bucket, if it is there; a folder has no key itself but files below it."""
    if name not in entries:
        unknown = UnknownOutput(f"run {rest_uid!r} has no key-output {name!r}, only {sorted(entries)}")
        unknown.name, unknown.known = name, tuple(entries)
        raise unknown
    if not _filename(entries[name]):  # else its key would be that of the folder of all
        raise S3Error(root, bucket, f"the service does not name the file of the key-output {name!r}")
    keys = {one: f"{root}/{_filename(entry)}".removeprefix("/") for one, entry in entries.items()}
    others = sorted(one for one, key in keys.items() if key == keys[name] and one != name)
    if others:
        told = f"the key-outputs {others} are uploaded there too, in place of it: download_outputs() has it"
        raise S3Error(keys[name], bucket, told)
    return keys[name]


def _filename(entry: KeyOutput) -> str:
    """The last part of a key-output's path, which names it in a bucket."""
    return PurePosixPath(entry.filepath or "").name or entry.filename or ""


def _items(
    found: Iterable[tuple[str, Entry | St4sdError]], root: str, bucket: str
) -> list[tuple[Place, Entry | St4sdError]]:
    """Where the objects of key-outputs belong, given with their folders, or why one of them cannot be had."""
    items = [(*_place(folder, one, root), one) for folder, one in found]
    count = Counter(path for path, _, _ in items)
    told = "there are several objects for this file: give them other keys, or remove all but one"
    return [
        (
            Place(path, f"s3://{bucket}/{root if isinstance(one, St4sdError) else one.key}"),
            problem or (S3Error(one.key, bucket, told) if isinstance(one, Entry) and count[path] > 1 else one),
        )
        for path, problem, one in items
    ]


def _place(folder: str, entry: Entry | St4sdError, root: str) -> tuple[str, DownloadError | None]:
    """A file is in the folder of its key-output by its name, what is in a folder by its path there."""
    if isinstance(entry, St4sdError):
        return folder, None
    inside = entry.key.removeprefix(f"{root}/" if root else "")
    path = inside.partition("/")[2] or safe_name(inside, otherwise=folder)
    try:
        return f"{folder}/{unreserved(checked(path))}", None
    except Hostile as problem:
        return folder, DownloadError(entry.key, f"cannot have that name here: {problem}")


async def _fetched(target: Target, place: Place, entry: Entry | St4sdError) -> Outcome:
    """What becomes of one file of a key-output."""
    path = target.folder / place.path
    if isinstance(entry, St4sdError):
        return DownloadFailed(path, place.source, entry)
    origin = Origin(place.source, entry.version)

    def use(writer: Writer, _: Headers) -> list[Download]:
        return target.store([(origin, [writer.finish(place)])])

    try:
        known = await in_thread(target.known, [origin])
        return (known.get(place.source, []) or await target.fetch(entry, place.source, use))[0]
    except St4sdError as error:
        return DownloadFailed(path, place.source, error)
