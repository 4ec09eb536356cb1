"""
Read and write buckets of an S3 service as streams. Needs the extra ``s3``, which installs obstore.

The error messages of obstore quote the request, with the access key and the signature. So only the error codes of S3
are kept, and no exception raised here leads back to one of obstore.
"""

from __future__ import annotations

import os
import re
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
    import ssl

    from .._http.session import BodyHandler

T = TypeVar("T")

DEFAULT_REGION = "us-east-1"  # what services without regions expect in a signature
CONNECT_TIMEOUT = timedelta(seconds=5)
REQUEST_TIMEOUT = timedelta(days=7)  # a large file may take long, and silence has its own limit
DEFAULT_ATTEMPTS = 5  # if the policy sets no number: a bucket is not restarted with the service
MAX_RETRY_TIME = 7 * 86400.0  # seconds for all attempts, if the policy allows infinite ones
READ_CHUNK_BYTES = 1 << 20  # read from disk or from a response at a time
MIN_PART_BYTES = 8 << 20  # a larger file is sent in parts, of which S3 allows 10,000
MAX_PARTS = 9_000
CONCURRENT_PARTS = 2  # of one file, each held in memory
MAX_LISTED_OBJECTS = 1 << 18  # in one folder: a service may list objects without end

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_PROBLEMS = {
    "InvalidCertificate(": "its certificate is not trusted: name its authority in Config.verify",
    "kind: Connect,": "it cannot be reached: is the endpoint right, and reachable from this machine?",
    "kind: Timeout,": "it did not respond in time",
    "InvalidPath {": "a key in it leads out of the bucket or has an empty part, so nothing beside it can be read",
}
"""Text in an error without a response -> its meaning."""
_REFUSED = "the credentials were refused: do accessKeyID and secretAccessKey allow this in this bucket?"
_MEANINGS = {
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such key",
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"), _REFUSED),
    "401": _REFUSED,
    "403": _REFUSED,
    "404": "there is no such key",
}
"""S3's error code or the HTTP status -> its meaning."""


class BucketObject(NamedTuple):
    """An object in a bucket."""

    key: str
    """Its key, in the form of a path."""
    size: int
    """Bytes."""
    version: str
    """Version of its content: it changes with the content."""


class Bucket:
    """
    An open bucket. Safe to share between tasks.

    Args:
        name: Its name.
        store: The store of obstore.
        secrets: Its keys.
        list_timeout: Seconds to wait for each page of a list.
    """

    def __init__(self, name: str, store: Any, secrets: tuple[str, ...], list_timeout: float) -> None:
        import obstore

        self.name = name
        self._store, self._secrets, self._list_timeout = store, secrets, list_timeout
        self._api: Any = obstore

    async def put(self, key: str, file: Path, on_sent: Callable[[int], None]) -> None:
        """
        Upload a file in chunks. The object appears when all of it has been uploaded.

        Raises:
            S3Error: The file cannot be read, or the bucket does not accept it.
        """
        await self._send(str(file), lambda: self._put(key, file, on_sent))

    async def _put(self, key: str, file: Path, on_sent: Callable[[int], None]) -> None:
        content: BinaryIO = await in_thread(open, file, "rb")
        try:
            size = os.fstat(content.fileno()).st_size
            chunks = _read_chunks(content, on_sent)
            if size <= MIN_PART_BYTES:
                whole = b"".join([chunk async for chunk in chunks])
                await self._api.put_async(self._store, key, whole, use_multipart=False)
            else:
                parts = {"chunk_size": max(MIN_PART_BYTES, size // MAX_PARTS), "max_concurrency": CONCURRENT_PARTS}
                await self._api.put_async(self._store, key, chunks, **parts)
        finally:
            await in_thread(content.close)

    async def read(self, key: str) -> tuple[bytes, str] | None:
        """
        Return the content of a small object and the version of it, for `replace`; None if there is none.

        Raises:
            S3Error: The request failed.
        """

        async def get() -> tuple[bytes, str]:
            response = await self._api.get_async(self._store, key)
            return bytes(await response.bytes_async()), response.meta["e_tag"] or ""

        try:
            return await self._send(key, get)
        except S3Error as error:
            if error.status != 404:
                raise
            return None

    async def replace(self, key: str, content: bytes, version: str | None) -> bool:
        """
        Write a small object if its version has not changed; None means that there must be no object.

        Returns:
            Whether it was written. False may also mean that a repeated request found what the first one wrote.

        Raises:
            S3Error: The request failed, and may have been carried out.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if version is None else {"e_tag": version}

        async def put() -> bool:
            try:
                await self._api.put_async(self._store, key, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

        return await self._send(key, put)

    async def find(self, key: str) -> list[BucketObject | S3Error]:
        """
        Return the object with a key, or the objects in the folder of that name, sorted by key; [] if there are none.

        An object that the service lists although it is not in the folder becomes an error.

        Raises:
            S3Error: The request failed, or the list does not end.
        """
        try:
            return [_object(await self._send(key, lambda: self._api.head_async(self._store, key)))]
        except S3Error as error:
            if error.status != 404:
                raise
        pages = self._api.list(self._store, prefix=key)
        found: list[BucketObject] = []
        while page := await self._next_page(key, pages):
            found += map(_object, page)
            if len(found) > MAX_LISTED_OBJECTS:
                raise S3Error(key, self.name, f"the service lists more than {MAX_LISTED_OBJECTS} objects in it")
        folders = _folders(key, found)
        return [self._check_folder(key, one) for one in sorted(found) if one.size or one.key not in folders]

    async def _next_page(self, key: str, pages: Any) -> Any:
        """Return the next objects of a list. A service may send empty pages without end."""
        with anyio.move_on_after(self._list_timeout):
            return await self._send(key, lambda: anext(pages, None))
        raise S3Error(key, self.name, f"the list of its objects returned nothing for {self._list_timeout:g} s")

    def _check_folder(self, folder: str, listed: BucketObject) -> BucketObject | S3Error:
        prefix = f"{folder.strip('/')}/"
        if prefix == "/" or listed.key.startswith(prefix):
            return listed
        problem = f"the service lists it in {folder!r}, but its key is outside of it: it was not fetched"
        return S3Error(listed.key, self.name, problem)

    async def stream(self, call: Any, body_handler: BodyHandler[T], *, once: bool = False) -> T:
        """
        Stream the content of a `BucketObject` to a handler.

        Raises:
            S3Error: The request failed.
            DownloadError: Fewer or more bytes were received than were listed. Excess bytes are discarded.
        """
        listed: BucketObject = call
        response = await self._send(listed.key, lambda: self._api.get_async(self._store, listed.key))
        return await body_handler({}, self._content(listed, response.stream(min_chunk_size=READ_CHUNK_BYTES)))

    async def _content(self, listed: BucketObject, body: Any) -> AsyncIterator[bytes]:
        size = 0
        while chunk := await self._send(listed.key, lambda: anext(body, None)):
            size += len(chunk)
            if size > listed.size:
                raise DownloadError(
                    listed.key, f"has {listed.size} bytes in the list, and more were sent", received=size
                )
            yield bytes(chunk)
        if size != listed.size:
            raise DownloadError(listed.key, f"has {listed.size} bytes in the list, and {size} were sent", received=size)

    def secrets(self) -> tuple[str, ...]:
        """Return its keys."""
        return self._secrets

    async def _send(self, name: str, request: Callable[[], Awaitable[T]]) -> T:
        """Await a request, and translate its errors to ours, which name a file or key."""
        from obstore.exceptions import BaseError

        try:
            return await request()
        except BaseError as error:
            raise_unchained(self._failure(name, str(error)))
        except OSError as error:  # if it has a number it is about our own file, otherwise about the key
            problem = f"it cannot be read: {error.strerror}"
            raise_unchained(
                self._failure(name, str(error)) if error.errno is None else S3Error(name, self.name, problem)
            )
        except ValueError:
            problem = "no key can have this name: leave out empty parts, '.' and '..'"
            raise_unchained(S3Error(name, self.name, problem))
        except Exception as error:  # obstore itself failed
            problem = f"obstore failed ({type(error).__name__}): is the endpoint a valid URL?"
            raise_unchained(S3Error(name, self.name, problem))

    def _failure(self, name: str, message: str) -> S3Error:
        status, code = (found[1] if (found := one.search(message)) else "" for one in (_STATUS, _CODE))
        problem = next((text for sign, text in _PROBLEMS.items() if sign in message), "the connection broke")
        code = redact(code, self._secrets)
        if status or code:
            response = f"the service responded with {' '.join(filter(None, (status, code)))}"
            meaning = _MEANINGS.get(code) or _MEANINGS.get(status)
            problem = f"{response}: {meaning}" if meaning else response
        return S3Error(name, self.name, problem, status=int(status) if status else None, code=code)


async def _read_chunks(content: BinaryIO, on_sent: Callable[[int], None]) -> AsyncIterator[bytes]:
    while chunk := await in_thread(content.read, READ_CHUNK_BYTES):
        on_sent(len(chunk))
        yield chunk


async def open_bucket(bucket: S3, config: Config, *, allow_http: bool) -> Bucket:
    """
    Prepare a bucket for use. No request is sent.

    Args:
        bucket: The bucket.
        config: Its ``timeout``, ``retry`` and ``verify`` apply.
        allow_http: Allow unencrypted transfers to another machine.

    Raises:
        ConfigError: A field is missing or invalid, the keys would be sent unencrypted, or the extra is not installed.
    """
    missing = [name for name in REQUIRED_BUCKET_FIELDS if not getattr(bucket, name)]
    if missing:
        reason = "a dataset names a bucket only in a payload: " if bucket.dataset else ""
        raise ConfigError(f"{reason}S3({', '.join(f'{name}=...' for name in missing)}) is needed to work with a bucket")
    if invalid := find_invalid_fields(bucket):
        raise ConfigError(f"this bucket cannot be used: {', '.join(invalid)}")
    endpoint = parse_http_url(bucket.endpoint or "")
    if endpoint is None or "@" in endpoint.netloc:
        raise ConfigError("the endpoint of a bucket must look like https://s3.example, without user or password")
    if endpoint.scheme == "http" and not allow_http and not is_loopback(endpoint.hostname or ""):
        advice = "use https://, or pass allow_http=True"
        raise ConfigError(f"your files would be sent unencrypted to the endpoint {bucket.endpoint!r}: {advice}")
    try:
        return await in_thread(_open, bucket, endpoint, config)
    except ImportError:
        problem = 'buckets need obstore, which is not installed: pip install "st4sd_async[s3]"'
        raise_unchained(ConfigError(problem))


def _open(bucket: S3, endpoint: SplitResult, config: Config) -> Bucket:
    """Blocks."""
    from obstore.store import S3Store

    create: Any = S3Store  # its types are in its stubs only
    secrets = [key.get_secret_value() for key in (bucket.accessKeyID, bucket.secretAccessKey) if key]
    keys = dict(zip(("access_key_id", "secret_access_key"), secrets, strict=True)) | {"token": None, "expires_at": None}
    client = {
        "allow_http": endpoint.scheme == "http",
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": timedelta(seconds=config.timeout),
        "timeout": REQUEST_TIMEOUT,
        **_tls_options(config.verify),
    }
    attempts, total = config.retry.attempts or DEFAULT_ATTEMPTS, min(config.retry.total, MAX_RETRY_TIME)
    retry = {"max_retries": attempts - 1, "retry_timeout": timedelta(seconds=total)}
    store = create(
        bucket.bucket,
        endpoint=endpoint.geturl().rstrip("/"),
        region=bucket.region or DEFAULT_REGION,
        credential_provider=lambda: keys,
        client_options=client,
        retry_config=retry,
        # Otherwise environment variables that are meant for other programs would apply.
        skip_signature=False,
        virtual_hosted_style_request=False,
    )
    return Bucket(bucket.bucket or "", store, tuple(secrets), attempts * config.timeout + total)


def _tls_options(verify: bool | str | Path | ssl.SSLContext) -> dict[str, Any]:
    """Return the client options for ``Config.verify``."""
    if isinstance(verify, bool):
        return {} if verify else {"allow_invalid_certificates": True}
    import ssl

    from .._http.tls import build_tls_context  # lazily, as ssl: an open client has imported them

    known = build_tls_context(verify).get_ca_certs(binary_form=True)
    return {"root_certificate": "".join(map(ssl.DER_cert_to_PEM_cert, known))}


def _folders(key: str, objects: Iterable[BucketObject]) -> set[str]:
    """
    Return the folders that listed objects are in, and the folder that was requested.

    Consoles represent a folder as an empty object whose key ends in a slash, which obstore drops. It is not a file.
    """
    folders = {key.strip("/")}
    for one in objects:
        folder = one.key.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _object(found: Any) -> BucketObject:
    return BucketObject(found["path"], found["size"], f"{found['e_tag']} {found['last_modified']:%Y-%m-%dT%H:%M:%S}")
