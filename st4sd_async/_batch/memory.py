"""Where starts with a key are remembered: a small protocol, and implementations in a folder and in a bucket."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .._config import Config
from .._errors import ConfigError
from .._util.durable import sync_folder
from .._util.threads import in_thread

if TYPE_CHECKING:
    from .._results.buckets import Bucket
    from ..models import S3

MAX_READABLE_LENGTH = 80
"""Maximum number of characters of a record's name that the name of its folder shows."""


class Memory(Protocol):
    """
    Records that several processes share: texts by name. See `Client.start`.

    A class of your own needs these two methods. Each must see the effect of all calls that returned before it was
    called, in any process. An exception means that a call may or may not have had its effect.

    A store that cannot compare and set in one step may be used only if no two processes start the same key at the same
    time.
    """

    async def get(self, name: str, /) -> str | None:
        """Return the record with this name; None if there is none."""

    async def compare_and_set(self, name: str, old: str | None, new: str, /) -> bool:
        """
        Replace a record if it has not changed, in one step.

        Args:
            name: Name of the record, such as ``key/dag 7/task 0``. It may be long and have any character but NUL.
            old: What the record must be; None means that there must be none.
            new: What it becomes.

        Returns:
            Whether it was replaced. False means that it is not ``old``.
        """


class FolderMemory:
    """
    A memory in a folder, which may be on a network file system that all processes have mounted.

        memory = FolderMemory("/shared/campaign/memory")
        run = await client.start("demo", payload, key="mol-1", memory=memory)

    Each record has a folder, and each version of it a file there with the next number, which is created exclusively
    by a hard link. Nothing is ever overwritten or removed, so that a crash leaves nothing torn. The files contain no
    credentials. Safe to share between tasks and threads.

    Args:
        path: The folder. It is created when the first record is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        """The folder."""

    def __repr__(self) -> str:
        return f"FolderMemory({str(self.path)!r})"

    async def get(self, name: str, /) -> str | None:
        """
        Return the record with this name; None if there is none.

        Raises:
            OSError: The folder cannot be read.
        """
        return (await in_thread(self._read, name))[1]

    async def compare_and_set(self, name: str, old: str | None, new: str, /) -> bool:
        """
        Replace a record if it has not changed, and wait until it is on the disk. See `Memory.compare_and_set`.

        Raises:
            ConfigError: The file system has no hard links.
            OSError: The folder cannot be written.
        """
        return await in_thread(self._compare_and_set, name, old, new)

    def _read(self, name: str) -> tuple[int, str | None]:
        """Return the number of a record's latest version, and its text; 0 and None if there is none."""
        folder = self.path / _folder_name(name)
        try:
            number = max((int(file.name) for file in folder.iterdir() if file.name.isdecimal()), default=0)
        except FileNotFoundError:
            return 0, None
        return number, (folder / str(number)).read_text(encoding="utf-8", errors="replace") if number else None

    def _compare_and_set(self, name: str, old: str | None, new: str) -> bool:
        number, current = self._read(name)
        if current != old:
            return False
        folder = self.path / _folder_name(name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = folder / f"{secrets.token_hex(8)}.new"
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(new.encode())
                file.flush()
                os.fsync(file.fileno())
            is_created = _link(temporary, folder / str(number + 1))
        finally:
            with suppress(OSError):
                temporary.unlink()
        if is_created:
            for parent in (folder, self.path):
                sync_folder(parent)
        return is_created


class BucketMemory:
    """
    A memory in a bucket of an S3 service that can write on a condition. Needs the extra ``s3``.

        bucket = S3(bucket="campaign", endpoint="https://s3.example", accessKeyID="...", secretAccessKey="...")
        memory = BucketMemory(bucket)

    Each record is an object. The service must support the headers ``If-Match`` and ``If-None-Match`` of a PUT. This
    is tested before the first record is written. Safe to share between tasks of one event loop.

    Args:
        bucket: The bucket, with its credentials.
        prefix: Prefix of the keys of the objects, without the slash.
        config: ``timeout``, ``retry`` and ``verify`` apply. None means the defaults of `Config`.
        allow_http: Allow unencrypted transfers to another machine.
    """

    def __init__(
        self, bucket: S3, *, prefix: str = "st4sd-memory", config: Config | None = None, allow_http: bool = False
    ) -> None:
        self._settings, self._prefix, self._config, self._allow_http = bucket, prefix, config or Config(), allow_http
        self._bucket: Bucket | None = None
        self._is_tried = False

    def __repr__(self) -> str:
        return f"BucketMemory({self._settings.bucket!r}, prefix={self._prefix!r})"

    async def get(self, name: str, /) -> str | None:
        """
        Return the record with this name; None if there is none.

        Raises:
            ConfigError: A setting of the bucket is missing or invalid, or the extra is not installed.
            S3Error: The request failed.
        """
        found = await (await self._open()).read(self._key(name))
        return None if found is None else found[0].decode()

    async def compare_and_set(self, name: str, old: str | None, new: str, /) -> bool:
        """
        Replace a record if it has not changed. See `Memory.compare_and_set`.

        Raises:
            ConfigError: As in `get`, or the service ignores the conditions.
            S3Error: The request failed, and may have been carried out.
        """
        bucket = await self._open()
        if not self._is_tried:
            await self._try_conditions(bucket)
        found = await bucket.read(self._key(name))
        if (None if found is None else found[0].decode()) != old:
            return False
        return await bucket.replace(self._key(name), new.encode(), None if found is None else found[1])

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{_folder_name(name)}"

    async def _open(self) -> Bucket:
        if self._bucket is None:
            from .._results.buckets import open_bucket

            self._bucket = await open_bucket(self._settings, self._config, allow_http=self._allow_http)
        return self._bucket

    async def _try_conditions(self, bucket: Bucket) -> None:
        """Raise `ConfigError` if an object that exists can be created, or replaced in another version."""
        key, content = f"{self._prefix}/conditions-are-supported", b""
        await bucket.replace(key, content, None)
        if await bucket.replace(key, content, None) or await bucket.replace(key, content, '"another"'):
            problem = "ignores the conditions If-None-Match and If-Match of a PUT, so that it cannot be a memory"
            raise ConfigError(f"the service of the bucket {self._settings.bucket!r} {problem}")
        self._is_tried = True


def _link(source: Path, target: Path) -> bool:
    """Create ``target`` as a link to ``source``; return False if it exists."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            problem = f"the file system of {target.parent.parent} has no hard links: use a folder on another one"
            raise ConfigError(problem) from error
        raise
    # A network file system may report an error although it made the link, because it sends a request again.
    return source.samefile(target)


def _folder_name(name: str) -> str:
    """Return the name of a record's folder: readable, and different for names that differ only by case."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:MAX_READABLE_LENGTH].strip("-.")
    return f"{readable}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
