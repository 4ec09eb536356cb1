"""
Buckets of an S3 service, read and written as streams. Needs the extra ``s3``, which brings obstore.

What that library says of an error quotes the request, and with it the access key and the signature. So no more of it is
kept than the words of S3 for it, and nothing that is raised here leads back to it.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import SplitResult

import anyio

from .._config import Config
from .._errors import ConfigError, DownloadError, S3Error
from .._http.credentials import is_loopback, parse_http_url
from .._util.redact import raise_unchained, redact
from .._util.threads import in_thread
from ..models import S3
from ..models.storage import REQUIRED_BUCKET_FIELDS, find_invalid_fields

if TYPE_CHECKING:
    from .._http.session import BodyHandler

T = TypeVar("T")

DEFAULT_REGION = "us-east-1"  # what services without regions expect in a signature
CONNECT_TIMEOUT = 5.0  # seconds
WHOLE_TIMEOUT = timedelta(days=7)  # for one request: a large file may take long, and silence has its own limit
ATTEMPTS = 5  # where the policy sets no number: a bucket is not restarted with the service
LONGEST_TOTAL = 7 * 86400.0  # seconds for all attempts, where the policy says that they may go on for ever
BLOCK = 1 << 20  # bytes that are read from disk at once
SMALLEST_PART = 8 << 20  # bytes; a file of more is sent in parts, of which there may be 10,000
MOST_PARTS = 9_000
PARTS_AT_ONCE = 2  # of one file, each held in memory
MOST_LISTED = 1 << 18  # objects in one folder: a service may list others without end

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_SITUATIONS = {
    "InvalidCertificate(": "its certificate is not trusted: name its authority in Config.verify",
    "kind: Connect,": "it cannot be reached: is the endpoint right, can this machine reach it?",
    "kind: Timeout,": "it was silent for too long",
    "InvalidPath {": "there is a key that leads elsewhere or has an empty part, so nothing beside it can be read",
}
"""What stands in an error without an answer -> what has happened."""
_REFUSED = "the credentials were refused: do accessKeyID and secretAccessKey allow this in this bucket?"
_ANSWERS = {
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such key",
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"), _REFUSED),
    "401": _REFUSED,
    "403": _REFUSED,
    "404": "there is no such key",
}
"""S3's word or the HTTP status -> what it means."""


class Entry(NamedTuple):
    """An object in a bucket."""

    key: str
    """Its key, which looks like a path."""
    size: int
    """Bytes."""
    version: str
    """What changes when its content does."""


class Bucket:
    """A bucket to work with; several tasks may at once."""

    def __init__(self, name: str, store: Any, secrets: tuple[str, ...], patience: float) -> None:
        import obstore

        self.name = name
        """Its name."""
        self._store, self._secrets, self._patience = store, secrets, patience
        self._api: Any = obstore

    async def put(self, key: str, file: Path, sent: Callable[[int], None]) -> None:
        """
        Upload a file, of which little is in memory at a time; the key is there when all of it is.

        Raises:
            S3Error: It cannot be read, or the bucket does not take it.
        """

        async def pieces(content: BinaryIO) -> AsyncIterator[bytes]:
            while piece := await in_thread(content.read, BLOCK):
                sent(len(piece))
                yield piece

        async def upload() -> None:
            content: BinaryIO = await in_thread(open, file, "rb")
            try:
                size = os.fstat(content.fileno()).st_size
                if size <= SMALLEST_PART:
                    whole = b"".join([piece async for piece in pieces(content)])
                    await self._api.put_async(self._store, key, whole, use_multipart=False)
                else:
                    part = max(SMALLEST_PART, size // MOST_PARTS)
                    parts = {"chunk_size": part, "max_concurrency": PARTS_AT_ONCE}
                    await self._api.put_async(self._store, key, pieces(content), **parts)
            finally:
                await in_thread(content.close)

        await self._asked(str(file), upload)

    async def find(self, key: str) -> list[Entry | S3Error]:
        """
        The object of that key, or those in the folder of that name, by their keys; [] if there are neither.

        An object that is not in the folder, although the service lists it there, is an error in its place.

        Raises:
            S3Error: It cannot be known, or the list does not end.
        """
        try:
            return [_entry(await self._asked(key, lambda: self._api.head_async(self._store, key)))]
        except S3Error as error:
            if error.status != 404:
                raise
        batches = self._api.list(self._store, prefix=key)
        found: list[Entry] = []
        while batch := await self._listed(key, batches):
            found += map(_entry, batch)
            if len(found) > MOST_LISTED:
                raise S3Error(key, self.name, f"the service lists more than {MOST_LISTED} objects in it")
        folders = _folders(key, found)
        return [self._inside(key, one) for one in sorted(found) if one.size or one.key not in folders]

    async def _listed(self, key: str, batches: Any) -> Any:
        """The next objects of a list; a service may answer with empty pages without end."""
        with anyio.move_on_after(self._patience):
            return await self._asked(key, lambda: anext(batches, None))
        raise S3Error(key, self.name, f"the list of what is in it brought nothing for {self._patience:g} s")

    def _inside(self, folder: str, entry: Entry) -> Entry | S3Error:
        inside = f"{folder.strip('/')}/"
        if inside == "/" or entry.key.startswith(inside):
            return entry
        return S3Error(entry.key, self.name, f"the service lists it in {folder!r}, where it is not: it was not fetched")

    async def stream(self, call: Any, take: BodyHandler[T], /, *, once: bool = False) -> T:
        """
        Hand on the content of an `Entry` as it arrives.

        Raises:
            S3Error: It cannot be had.
            DownloadError: Less came, or more, than was promised; what is too much is not handed on.
        """
        entry: Entry = call
        found = await self._asked(entry.key, lambda: self._api.get_async(self._store, entry.key))
        return await take({}, self._pieces(entry, found.stream(min_chunk_size=BLOCK)))

    async def _pieces(self, entry: Entry, body: Any) -> AsyncIterator[bytes]:
        size = 0
        while piece := await self._asked(entry.key, lambda: anext(body, None)):
            size += len(piece)
            if size > entry.size:
                raise DownloadError(entry.key, f"{entry.size} bytes were promised and more came", received=size)
            yield bytes(piece)
        if size != entry.size:
            raise DownloadError(entry.key, f"{entry.size} bytes were promised and {size} came", received=size)

    async def _asked(self, name: str, request: Callable[[], Awaitable[T]]) -> T:
        """What a request gives; its errors become ours, which concern a file or key."""
        from obstore.exceptions import BaseError

        try:
            return await request()
        except BaseError as error:
            raise_unchained(self._failure(name, str(error)))
        except OSError as error:  # without a number it is about a key, and else about our own file
            told = f"it cannot be read: {error.strerror}"
            raise_unchained(self._failure(name, str(error)) if error.errno is None else S3Error(name, self.name, told))
        except ValueError:
            problem = "no key can be called so: leave out empty parts, '.' and '..'"
            raise_unchained(S3Error(name, self.name, problem))
        except Exception as error:  # the library broke down, over what it was given or of itself
            problem = f"obstore broke down ({type(error).__name__}): is the endpoint an address?"
            raise_unchained(S3Error(name, self.name, problem))

    def _failure(self, name: str, words: str) -> S3Error:
        status, code = (found[1] if (found := one.search(words)) else "" for one in (_STATUS, _CODE))
        situation = next((told for sign, told in _SITUATIONS.items() if sign in words), "the connection broke")
        code = redact(code, self._secrets)
        if status or code:
            answer = f"it answered {' '.join(filter(None, (status, code)))}"
            meaning = _ANSWERS.get(code) or _ANSWERS.get(status)
            situation = f"{answer}: {meaning}" if meaning else answer
        return S3Error(name, self.name, situation, status=int(status) if status else None, code=code)


async def open_bucket(given: S3, config: Config, *, allow_http: bool) -> Bucket:
    """
    A bucket, ready to be used; nothing is asked yet.

    Args:
        given: The bucket.
        config: How patient to be, and which certificates to trust.
        allow_http: Whether files may travel in clear text to another machine.

    Raises:
        ConfigError: It is not said how to reach it, or not so that a request can carry it, the keys would travel in
            clear text, or the extra is missing.
    """
    missing = [name for name in REQUIRED_BUCKET_FIELDS if not getattr(given, name)]
    if missing:
        told = "a dataset stands for a bucket in a payload only: " if given.dataset else ""
        raise ConfigError(f"{told}S3({', '.join(f'{name}=...' for name in missing)}) is needed to work with a bucket")
    if unusable := find_invalid_fields(given):
        raise ConfigError(f"this bucket cannot be worked with: {', '.join(unusable)}")
    endpoint = parse_http_url(given.endpoint or "")
    if endpoint is None or "@" in endpoint.netloc:
        raise ConfigError("the endpoint of a bucket must look like https://s3.example, without user or password")
    if endpoint.scheme == "http" and not allow_http and not is_loopback(endpoint.hostname or ""):
        told = "use https://, or say allow_http=True"
        raise ConfigError(f"the endpoint {given.endpoint!r} would be sent your files in clear text: {told}")
    failure = None
    try:
        return await in_thread(_open, given, endpoint, config)
    except ImportError:
        failure = 'buckets need obstore, which is not installed: pip install "st4sd_async[s3]"'
    raise ConfigError(failure)


def _open(given: S3, endpoint: SplitResult, config: Config) -> Bucket:
    """Blocks."""
    from obstore.store import S3Store

    make: Any = S3Store  # whose own types are those of its stubs only
    secrets = [one.get_secret_value() for one in (given.accessKeyID, given.secretAccessKey) if one]
    keys = dict(zip(("access_key_id", "secret_access_key"), secrets, strict=True)) | {"token": None, "expires_at": None}
    client = {
        "allow_http": endpoint.scheme == "http",
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT),
        "read_timeout": timedelta(seconds=config.timeout),
        "timeout": WHOLE_TIMEOUT,
        **_trust(config.verify),
    }
    attempts, total = config.retry.attempts or ATTEMPTS, min(config.retry.total, LONGEST_TOTAL)
    retry = {"max_retries": attempts - 1, "retry_timeout": timedelta(seconds=total)}
    store = make(
        given.bucket,
        endpoint=endpoint.geturl().rstrip("/"),
        region=given.region or DEFAULT_REGION,
        credential_provider=lambda: keys,
        client_options=client,
        retry_config=retry,
        # Else variables of the environment that are meant for other programs would count.
        skip_signature=False,
        virtual_hosted_style_request=False,
    )
    return Bucket(given.bucket or "", store, tuple(secrets), attempts * config.timeout + total)


def _trust(verify: bool | str | Path | ssl.SSLContext) -> dict[str, Any]:
    """The options for ``Config.verify``."""
    if isinstance(verify, bool):
        return {} if verify else {"allow_invalid_certificates": True}
    from .._http.engine import build_tls_context  # lazily: it imports aiohttp

    known = build_tls_context(verify).get_ca_certs(binary_form=True)
    return {"root_certificate": "".join(map(ssl.DER_cert_to_PEM_cert, known))}


def _folders(key: str, entries: Iterable[Entry]) -> set[str]:
    """
    The folders of which a list has something, and that which was asked for.

    Consoles note a folder as an empty object whose key ends in a slash, which obstore leaves out. It is no file.
    """
    folders = {key.strip("/")}
    for entry in entries:
        folder = entry.key.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _entry(found: Any) -> Entry:
    return Entry(found["path"], found["size"], f"{found['e_tag']} {found['last_modified']:%Y-%m-%dT%H:%M:%S}")
