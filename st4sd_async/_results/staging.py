"""Upload inputs to a bucket for a start, and download key-outputs that a run uploaded to one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .._errors import ConfigError, DownloadError, NotReady, S3Error, St4sdError, UnknownOutput
from .._util.file_names import folder_name, folder_names, safe_name, unreserved
from .._util.progress import ProgressReporter
from .._util.threads import in_thread
from ..models import S3, DownloadFailed, FileContent, KeyOutput, S3Store, Staged
from ..models.storage import parse_bucket, parse_store
from .archive import UnsafeZip, safe_member_path
from .buckets import BucketObject, open_bucket
from .downloads import Outcome, Transfer, for_each
from .target import Destination, Origin

if TYPE_CHECKING:
    from .._api.instances import Instances
    from .._config import Config

Files = Iterable["str | os.PathLike[str]"] | Mapping[str, "str | os.PathLike[str]"]

INPUTS_FOLDER = "st4sd-inputs"
"""Folder in a bucket; each call uploads into a new folder below it, unless the caller names another."""
OUTPUTS_FOLDER = "workflow_instances/"
"""Folder in a bucket to which the service uploads key-outputs, unless the ``s3Store`` names another."""
INSTANCE_PLACEHOLDER = "%(instanceDir)s"
"""Placeholder in the name of that folder, which the orchestrator replaces by the name of the run's directory."""
ABSENT = "it does not exist (yet): key-outputs are uploaded at the end of a stage; client.log(run) says why one was not"


async def stage_inputs(
    files: Files, bucket: S3 | Mapping[str, Any], config: Config, *, prefix: str | None, allow_http: bool
) -> Staged:
    """Upload local files to a bucket: see `Client.stage_inputs`."""
    bucket, paths = parse_bucket(bucket), _parse_files(files)
    folder = f"{INPUTS_FOLDER}/{uuid4().hex}" if prefix is None else _bucket_path(prefix, "prefix")
    opened = await open_bucket(bucket, config, allow_http=allow_http)
    await in_thread(_check_existence, paths.values())
    keys = {name: f"{folder}/{name}".removeprefix("/") for name in paths}
    failures: list[S3Error] = []

    async def upload(name: str) -> None:
        if failures:
            return
        try:
            await opened.put(keys[name], paths[name], progress.receive)
        except S3Error as error:
            failures.append(error)
        progress.finish()

    with ProgressReporter(config.progress, f"files to the bucket {opened.name}", len(paths), "files") as progress:
        await for_each(paths, upload, config.downloads)
    if failures:
        raise failures[0]
    return Staged(bucket, {name: FileContent(sourceFilename=key, targetFilename=name) for name, key in keys.items()})


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
    """Download key-outputs that a run uploaded to a bucket: see `Client.fetch_s3_outputs`."""
    store = parse_store(store)
    if store.credentials is None:
        raise ConfigError("S3Store(credentials=S3(...)) is needed to fetch what is in the bucket")
    bucket = await open_bucket(store.credentials, config, allow_http=allow_http)
    root = await _uploads_folder(rest_uid, store, instances)
    entries = await instances.outputs(rest_uid)
    wanted = list(dict.fromkeys([names] if isinstance(names, str) else entries if names is None else names))
    found: dict[str, Sequence[BucketObject | St4sdError]] = {}

    async def find(name: str) -> None:
        try:
            key = _output_key(rest_uid, root, name, entries, bucket.name)
            found[name] = await bucket.find(key) or [S3Error(key, bucket.name, ABSENT)]
        except St4sdError as error:
            found[name] = [error]

    await for_each(wanted, find, config.downloads)
    folders = {name: folder_name(name) for name in wanted} | folder_names(entries)
    items = _with_destinations([(folders[name], one) for name in wanted for one in found[name]], root, bucket.name)
    outcomes: dict[int, Outcome] = {}

    async def fetch(index: int) -> None:
        to_path, one = items[index]
        outcomes[index] = blocked.get(to_path.source) or await _fetch_object(transfer, to_path, one)
        progress.finish()

    progress = ProgressReporter(config.progress, f"key-outputs of {rest_uid} in {bucket.name}", len(items), "files")
    async with Transfer.open(bucket, to, progress) as transfer:
        destinations = [to_path for to_path, one in items if isinstance(one, BucketObject)]
        blocked = {one.source: one for one in await in_thread(transfer.target.blocked, destinations)}
        await for_each(range(len(items)), fetch, config.downloads)
    return [outcomes[index] for index in range(len(items))]


async def _fetch_object(transfer: Transfer, to: Destination, listed: BucketObject | St4sdError) -> Outcome:
    """Download one file of a key-output."""
    target, path = transfer.target, transfer.target.folder / to.path
    if isinstance(listed, St4sdError):
        return DownloadFailed(path, to.source, listed)
    origin = Origin(to.source, listed.version)
    try:
        known = await in_thread(target.known, [origin])
        stored = known.get(to.source) or await transfer.fetch(listed, to.source, partial(target.store_file, to, origin))
        return stored[0]
    except St4sdError as error:
        return DownloadFailed(path, to.source, error)


async def _uploads_folder(rest_uid: str, store: S3Store, instances: Instances) -> str:
    """Return the folder in the bucket to which a run uploads."""
    folder = OUTPUTS_FOLDER if store.bucketPath is None else store.bucketPath
    if INSTANCE_PLACEHOLDER in folder:
        meta = (await instances.status(rest_uid)).meta
        if meta is None or not meta.instance_name:
            raise NotReady(
                f"the bucket path {folder!r} contains the name of the directory of run {rest_uid!r}, which has none yet"
            )
        folder = folder.replace(INSTANCE_PLACEHOLDER, meta.instance_name)
    return _bucket_path(folder, "bucketPath")


def _parse_files(files: Files) -> dict[str, Path]:
    """Return name -> path; raise ValueError or TypeError if they are invalid."""
    if isinstance(files, str):
        raise TypeError(f"files must be paths, or a mapping from names to paths, not a string: pass [{files!r}]")
    if isinstance(files, bytes | os.PathLike) or not isinstance(files, Iterable):
        raise TypeError(f"files must be paths, or a mapping from names to paths, not {type(files).__name__}")
    named = [(name, _parse_path(path)) for name, path in files.items()] if isinstance(files, Mapping) else []
    named = named or [((path := _parse_path(one)).name, path) for one in files]
    duplicates = sorted(name for name, count in Counter(name for name, _ in named).items() if count > 1)
    if duplicates:
        raise ValueError(f"several files have the names {duplicates}: pass others, as {{'name': path}}")
    for name, _ in named:
        path_in_bucket = _bucket_path(name, "name")
        if not path_in_bucket:
            raise ValueError(f"the name {name!r} is invalid: the experiment sees a file by its name")
        if "/" in path_in_bucket:
            raise ValueError(f"the name {name!r} has a folder: the experiment sees names only")
    return dict(named)


def _parse_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a file must be a str or a Path, not {type(path).__name__}")
    return Path(path)


def _bucket_path(text: str, what: str) -> str:
    """Return a path in a bucket without slashes at its ends."""
    if not isinstance(text, str):
        raise TypeError(f"the {what} must be a string, not {type(text).__name__}")
    path = text.strip("/")
    try:
        return safe_member_path(path) if path else ""
    except UnsafeZip:
        raise ValueError(
            f"the {what} {text!r} is invalid: a part is empty, leads elsewhere or has control characters"
        ) from None


def _check_existence(files: Iterable[Path]) -> None:
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"no such files: {missing}")


def _output_key(rest_uid: str, root: str, name: str, entries: Mapping[str, KeyOutput], bucket: str) -> str:
    """Return the key of a key-output in a bucket, or the prefix of the keys of its files if it is a folder."""
    if name not in entries:
        unknown = UnknownOutput(f"run {rest_uid!r} has no key-output {name!r}, only {sorted(entries)}")
        unknown.name, unknown.known = name, tuple(entries)
        raise unknown
    if not _filename(entries[name]):  # otherwise its key would be that of the folder of all
        raise S3Error(root, bucket, f"the service does not name the file of the key-output {name!r}")
    keys = {one: f"{root}/{_filename(entry)}".removeprefix("/") for one, entry in entries.items()}
    others = sorted(one for one, key in keys.items() if key == keys[name] and one != name)
    if others:
        problem = f"the key-outputs {others} have the same key, so it may be one of them: download_outputs() has it"
        raise S3Error(keys[name], bucket, problem)
    return keys[name]


def _filename(entry: KeyOutput) -> str:
    """Return the last part of a key-output's path, which is its name in a bucket."""
    return PurePosixPath(entry.filepath or "").name or entry.filename or ""


def _with_destinations(
    found: Iterable[tuple[str, BucketObject | St4sdError]], root: str, bucket: str
) -> list[tuple[Destination, BucketObject | St4sdError]]:
    """Return the destination of each object, or why it cannot be stored. Objects are given with their folders."""
    items = [(*_destination_path(folder, one, root), one) for folder, one in found]
    count = Counter(path for path, _, _ in items)
    duplicate = "there are several objects for this file: give them other keys, or remove all but one"
    return [
        (
            Destination(path, f"s3://{bucket}/{root if isinstance(one, St4sdError) else one.key}"),
            problem
            or (S3Error(one.key, bucket, duplicate) if isinstance(one, BucketObject) and count[path] > 1 else one),
        )
        for path, problem, one in items
    ]


def _destination_path(folder: str, listed: BucketObject | St4sdError, root: str) -> tuple[str, DownloadError | None]:
    """Return the path below the target, and its problem, if any. A file keeps its name, a folder its structure."""
    if isinstance(listed, St4sdError):
        return folder, None
    inside = listed.key.removeprefix(f"{root}/" if root else "")
    path = inside.partition("/")[2] or safe_name(inside, otherwise=folder)
    try:
        return f"{folder}/{unreserved(safe_member_path(path))}", None
    except UnsafeZip as problem:
        return folder, DownloadError(listed.key, f"cannot have that name here: {problem}")
