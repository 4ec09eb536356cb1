"""
The HTTP client: `httpx.AsyncClient` over aiohttp, which knows whether a request was sent.

aiohttp carries the requests: the pool of httpx searches all its connections for each request, which makes 100 requests
in flight many times slower. The ready-made bridges between the two report a connection that broke after a POST was sent
as a connect timeout, which a retry would take for "never sent". So the bridge is here, and raises our own errors.

Only this module imports aiohttp. Only this module and injected.py, for the user's transport, import httpx.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import select
import ssl
import urllib.request
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from weakref import WeakSet

import aiohttp
import httpx

from .._errors import ConfigError, ConnectFailed, ConnectionLost, DecodeError, RequestTimeout, TransportError
from .._util.redact import raise_unchained
from .call import UNREAD_BODY_HEADER, is_file
from .credentials import is_host, is_loopback
from .json_list import ListBody
from .retry import RETRIED_STATUSES
from .tls import TlsContext

CONNECT_TIMEOUT_SECONDS = 5.0
"""How long it may take to make a connection, TLS included."""

KEEPALIVE_SECONDS = 2.0
"""How long an idle connection may be reused. If the server closes it just then, the outcome of a start is unknown."""

MAX_READ_TIMEOUTS = 10
"""How many read timeouts a response may take in all, so that one that arrives byte by byte ends. A streamed file may
take any time."""

SMALL_BODY_BYTES = 1 << 16
"""A body up to this length is read at once, not piece by piece."""

READ_AHEAD_BYTES = 1 << 20
"""How much of a body is received while the pieces before it are processed."""

UNKNOWN_ISSUER_CODES = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's verification errors for a certificate whose issuer is unknown."""

ENCODINGS = ("gzip", "x-gzip", "deflate", "compress", "br", "zstd")
"""Content encodings that a message names; a header may say anything."""

UNREACHABLE_ERRNOS = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ETIMEDOUT}
)
"""Errors of the operating system if no host was reached. A refused connection means that a host was reached."""

NO_LENGTH = "the response has no length, so it may be cut short"


class Proxies:
    """The proxies that the environment names, read once and checked before anything is sent through them."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = urllib.request.getproxies()

    def __bool__(self) -> bool:
        return bool(self._urls)

    def find(self, scheme: str, host: str) -> str | None:
        """
        Return the proxy for a host, None if there is none; requests to this machine never use one.

        Raises:
            ConfigError: The URL of the proxy is invalid.
        """
        if is_loopback(host) or urllib.request.proxy_bypass(host):
            return None
        kind = scheme if self._urls.get(scheme) else "all"
        return _check_proxy(kind, self._urls[kind]) if self._urls.get(kind) else None


@functools.cache
def _check_proxy(kind: str, address: str) -> str:
    """Return the URL of a proxy; no message quotes it, because it may contain a password."""
    url = address if "://" in address else f"http://{address}"
    if problem := _proxy_problem(url):
        name = next((name for name in os.environ if name.lower() == f"{kind}_proxy"), f"{kind}_proxy")
        raise ConfigError(f"the proxy in the environment variable {name} cannot be used: {problem}")
    return url


def _proxy_problem(url: str) -> str:
    """Return the problem of a proxy URL; "" if it is valid."""
    try:
        parts: Any = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "invalid URL; write special characters in a password as %xx"
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme}:// is not supported, only http:// and https:// are"
    if not is_host(host):
        return "its host is invalid"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    try:
        f"{user}{password}".encode("latin-1")  # the encoding of HTTP
    except UnicodeEncodeError:
        return "its user and password may contain only Latin-1 characters"
    return "its user must not contain a colon" if ":" in user else ""


UNSENT_ERRORS = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
"""aiohttp's errors from before the first byte of a request."""

ENGINE_ERRORS = (aiohttp.ClientError, OSError)
"""All errors of aiohttp; a timeout is an OSError."""


def translate_error(error: BaseException, method: str, url: str) -> TransportError:
    """
    Return our error for one of aiohttp's.

    Only a failure to connect proves that nothing was sent. In all other cases the request may have arrived.
    """
    if isinstance(error, UNSENT_ERRORS):
        return translate_connect_error(error, method, url)
    if isinstance(error, TimeoutError):
        return RequestTimeout(method, url, "silence for longer than Config.timeout")
    if isinstance(error, aiohttp.ClientPayloadError):
        lost = ConnectionLost(method, url, "the response was cut short")
        lost.is_cut = True
        return lost
    return ConnectionLost(method, url, _reason(error))


def translate_connect_error(error: BaseException, method: str, url: str, *, is_proxied: bool = False) -> ConnectFailed:
    """
    Return our error for one of aiohttp's from before there was a connection, so that nothing was sent.

    A proxy that refuses or garbles the tunnel saw only the host name, not the request.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return ConnectFailed(method, url, _tls_reason(error), permanent=True)
    prefix = "the proxy of this machine's environment: " if is_proxied else ""
    if isinstance(error, UnicodeError | aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return ConnectFailed(method, url, f"{prefix}invalid URL", permanent=True)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        is_permanent = error.status < 500 and error.status not in RETRIED_STATUSES
        return ConnectFailed(method, url, f"{prefix}it refused ({error.status})", permanent=is_permanent)
    is_timeout = isinstance(error, TimeoutError)
    reason = f"no connection in time (at most {CONNECT_TIMEOUT_SECONDS:g} s)" if is_timeout else _reason(error)
    failure = ConnectFailed(method, url, f"{prefix}{reason}")
    failure.is_unresolved = isinstance(error, aiohttp.ClientConnectorDNSError)
    failure.is_silent = is_timeout or getattr(error, "errno", None) in UNREACHABLE_ERRNOS
    return failure


def _reason(error: BaseException) -> str:
    """Return the message of an aiohttp error, without any part of the request."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without a response"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the response is not HTTP"
    if isinstance(error, OSError) and error.strerror:
        # asyncio's own text has the address, which the URL says; names that do not resolve have negative codes.
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)
    return str(error) or type(error).__name__


def _tls_reason(error: Any) -> str:
    """Describe the TLS problem of a server, and how to fix it."""
    cause = getattr(error, "certificate_error", None) or error.os_error
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return f"the TLS handshake failed: {cause}; does this server speak https?"
    advice = "use the host name of the certificate, or ask the administrator of the server"
    if cause.verify_code in UNKNOWN_ISSUER_CODES:
        advice = "name the authority that signed it with Config(verify='ca.pem') or ST4SD_CA_FILE"
    return f"certificate verification failed: {cause.verify_message.rstrip('.')}; {advice}"


_on_connected: ContextVar[Callable[[], None]] = ContextVar("_on_connected")
"""Called when there is a connection for the request of the current task, and the request is about to be written."""


class _Connector(aiohttp.TCPConnector):
    """A connection pool whose errors prove that the request was not sent."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Return a connection for a request, through the tunnel of a proxy if there is one; raise `ConnectFailed`."""
        try:
            connection = await super().connect(req, traces, timeout)
        except (*ENGINE_ERRORS, UnicodeError) as error:  # asyncio raises the latter for an impossible host name
            is_proxied = req.proxy is not None
            raise_unchained(translate_connect_error(error, req.method, str(req.url), is_proxied=is_proxied))
        _on_connected.get()()
        return connection


class _CheckedConnector(_Connector):
    """
    A connection pool that discards a connection on which bytes arrived between two requests.

    aiohttp checks for such bytes when a connection returns to the pool, and not when it is taken out again.
    """

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEPALIVE_SECONDS)
        self._used: WeakSet[asyncio.BaseProtocol] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Return a new connection, or one from the pool without unread bytes."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert protocol is not None
            if protocol not in self._used:
                # A new connection is not checked: the session tickets of TLS 1.3 may be unread in it.
                self._used.add(protocol)
                return connection
            if not protocol.should_close and not _is_readable(connection.transport):
                return connection
            connection.close()


def _is_readable(transport: asyncio.Transport | None) -> bool:
    """Return whether the socket of a connection has unread bytes, or was closed or broken."""
    descriptor = -1 if transport is None else transport.get_extra_info("socket").fileno()
    if descriptor < 0:  # closed
        return True
    if not hasattr(select, "poll"):  # pragma: no cover -- Windows, where select() takes any socket number
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def _never_resend(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating GET, PUT and DELETE: retries are decided elsewhere."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise_unchained(translate_error(error, request.method, str(request.url)))


def _make_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        middlewares=(_never_resend,),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


class AiohttpTransport(httpx.AsyncBaseTransport):
    """
    Sends requests over aiohttp and raises our own `TransportError`, which holds no part of the request.

    Create it inside a running event loop. A connection that was idle for more than two seconds, or on which bytes
    arrived between two requests, is never used again. A request with ``own_connection`` gets a connection of its own:
    only there can no response to an earlier request arrive. Cookies are not kept, redirects not followed, requests not
    repeated.
    """

    def __init__(self, tls: TlsContext, proxies: Proxies) -> None:
        # The connections are not limited here: the session limits the requests, and none may time out in a queue.
        self._pooled = _make_session(_CheckedConnector())
        self._unpooled = _make_session(_Connector(limit=0, force_close=True))
        self._tls, self._proxies = tls, proxies

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send one request and return its response.

        The body is read and is the extension ``body`` of the response, unless ``stream`` is set and it is a file. If it
        is read as a list, that is only its beginning. An unacceptable body makes a successful response an error. An
        error response keeps its status.

        Raises:
            TransportError: No usable response arrived.
            DecodeError: The body of a successful response is too long, or encoded.
        """
        method, url, options = request.method, request.extensions["url"], request.extensions
        read_timeout = options["timeout"]["read"]
        proxy = self._proxies.find(request.url.scheme, request.url.host) if self._proxies else None
        uses_tls = url.startswith("https:") or (proxy or "").startswith("https:")
        tls = await self._load_tls(method, url) if uses_tls else True
        session = self._unpooled if options["own_connection"] else self._pooled
        _on_connected.set(options["on_connected"])
        limit_seconds = MAX_READ_TIMEOUTS * read_timeout
        limit = asyncio.timeout(limit_seconds)
        # The connect timeout is the shorter one, because only a failure to connect proves that nothing was sent.
        connect_timeout = min(CONNECT_TIMEOUT_SECONDS, limit_seconds / 2)
        try:
            async with limit:
                response = await session.request(
                    method,
                    url,
                    headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                    data=options["content"] or None,
                    allow_redirects=False,
                    timeout=_client_timeout(connect_timeout, read_timeout),
                    ssl=tls,
                    proxy=proxy,
                    read_bufsize=READ_AHEAD_BYTES,
                )
                problem = encoding_problem(response.headers.getall("Content-Encoding", ()))
                body = _Body(response, method, url)
                if not problem and options["stream"] and 200 <= response.status < 300 and is_file(response.headers):
                    limit.reschedule(None)
                    return build_response(request, response.status, response.raw_headers, body)
                list_body = choose_list_body(options["list_body"], response.status, response.headers)
                content = None if problem else await _read_body(response, body, options["max_body_bytes"], list_body)
        except ENGINE_ERRORS as error:  # they hold the headers of the request
            failure = translate_error(error, method, url)
            if limit.expired():
                reason = (
                    f"the response took more than {limit_seconds:g} s in all ({MAX_READ_TIMEOUTS} times Config.timeout)"
                )
                failure = RequestTimeout(method, url, reason)
            raise_unchained(failure)
        if content is None:
            await body.aclose()
            problem = problem or too_long(options["max_body_bytes"], list_body)
        return build_response(request, response.status, response.raw_headers, content, problem)

    async def _load_tls(self, method: str, url: str) -> ssl.SSLContext:
        try:
            return await self._tls.get()
        except ConfigError as error:  # only if the deployment is not https; otherwise it is built with the client
            raise_unchained(ConnectFailed(method, url, str(error), permanent=True))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pooled.close()
        await self._unpooled.close()


def build_response(
    request: httpx.Request,
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes | httpx.AsyncByteStream | None,
    problem: str = "",
) -> httpx.Response:
    """
    Return the response that the session gets.

    Args:
        request: The request.
        status: HTTP status.
        headers: All headers.
        body: The whole body, or its stream if it is a file. None means that it was not read.
        problem: Why the body was not read.

    Returns:
        The response, with the extensions ``headers`` and, unless it is a stream, ``body``. httpx itself sees no
        headers: it would parse a ``Location`` even if it does not follow it, and its error would hold the request.

    Raises:
        DecodeError: The body of a successful response was not read.
    """
    visible = httpx.Headers(headers)
    if body is None:
        if 200 <= status < 300:
            raise DecodeError(request.method, str(request.url), problem)
        visible[UNREAD_BODY_HEADER] = problem
        body = b""
    if isinstance(body, bytes):
        # As an extension, beside a stream of it: httpx would take a given content apart, and put it together again.
        return httpx.Response(status, stream=httpx.ByteStream(body), extensions={"headers": visible, "body": body})
    return httpx.Response(status, stream=body, extensions={"headers": visible})


def too_long(max_bytes: int, list_body: ListBody[Any] | None = None) -> str:
    """Return the problem of a body that is longer than ``Config.max_body_bytes``, or than a list may be."""
    problem = f"more than {max_bytes} bytes"
    if list_body is not None and list_body.too_long != problem:
        return list_body.too_long
    return f"{problem} (Config.max_body_bytes)"


def choose_list_body(list_body: ListBody[Any] | None, status: int, headers: Mapping[str, str]) -> ListBody[Any] | None:
    """Return the body that is read as a list; None if it is not, because of an error or the page of a proxy."""
    if list_body is None:
        return None
    is_list = 200 <= status < 300 and not headers.get("Content-Type", "").lower().startswith("text/html")
    return list_body if is_list else None


def encoding_problem(values: Iterable[str]) -> str:
    """Return the problem of a body's encoding, from the values of its header; "" if it has none."""
    encodings = ", ".join(values).lower()  # 1 MB of gzip can become 2 GB
    if encodings in ("", "identity"):
        return ""
    named = f"the encoding {encodings}" if encodings in ENCODINGS else "an encoding"
    return f"a body in {named}, which was not requested"


class AsyncStream(httpx.AsyncByteStream):
    """The body of a response, piece by piece as it arrives."""

    @abstractmethod
    def __aiter__(self) -> AsyncGenerator[bytes]: ...


class _Body(AsyncStream):
    """A body that arrives over aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse, method: str, url: str) -> None:
        self._response = response
        self._request = method, url

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        failure: TransportError | None = None
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
            if has_visible_end(self._response.status, self._response.headers):
                return
        except ENGINE_ERRORS as error:
            failure = translate_error(error, *self._request)
        failure = failure or ConnectionLost(*self._request, NO_LENGTH)
        if isinstance(failure, ConnectionLost):
            failure.is_cut = True
        raise failure

    async def aclose(self) -> None:
        self._response.close()


def has_visible_end(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a cut body would be noticed: by its length, or because cut JSON or HTML cannot be parsed."""
    if "Content-Length" in headers or "Transfer-Encoding" in headers or status == 204:
        return True
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in ("application/json", "text/html")


async def _read_body(
    response: aiohttp.ClientResponse, body: _Body, max_bytes: int, list_body: ListBody[Any] | None
) -> bytes | None:
    """Return the whole body, or the beginning of a list; None if it is too long. Then reading stops."""
    length = response.content_length
    if length is not None and length <= min(SMALL_BODY_BYTES, max_bytes):
        return await response.read()
    if length is not None and length > (max_bytes if list_body is None else list_body.max_bytes):
        return None
    return await read_pieces(body, max_bytes, list_body)


async def read_pieces(body: AsyncStream, max_bytes: int, list_body: ListBody[Any] | None = None) -> bytes | None:
    """Return the whole body, or the beginning of a list; None if it is too long. Then reading stops."""
    if list_body is not None:
        return await _read_list(body, list_body)
    pieces, size = [], 0
    async with aclosing(body), aclosing(aiter(body)) as arriving:
        async for piece in arriving:
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                return None
    return b"".join(pieces)


async def _read_list(body: AsyncStream, list_body: ListBody[Any]) -> bytes | None:
    async with aclosing(body), aclosing(aiter(body)) as arriving:
        async for piece in arriving:
            if not await list_body.add(piece):
                break
        else:
            await list_body.scan()
    return None if list_body.is_too_long else list_body.head


class _NoCookies(httpx.Cookies):
    """Keeps no cookies."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Ignore the cookies of a response."""


class HttpClient(httpx.AsyncClient):
    """The HTTP client of one deployment: no cookies, no redirects, no environment settings except proxies."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, follow_redirects=False, trust_env=False)
        self._no_cookies = _NoCookies()

    @property  # type: ignore[misc] # httpx allows to set it
    def cookies(self) -> httpx.Cookies:
        """An empty jar that stays empty."""
        return self._no_cookies

    async def exchange(
        self,
        method: str,
        url: str,
        headers: list[tuple[bytes, bytes]],
        content: bytes | None,
        *,
        read_timeout: float,
        max_body_bytes: int,
        list_body: ListBody[Any] | None,
        stream: bool,
        own_connection: bool,
        on_connected: Callable[[], None],
    ) -> httpx.Response:
        """
        Send one request and return its response; see `AiohttpTransport`.

        Args:
            method, url, headers, content: The request.
            read_timeout: Longest silence in seconds.
            max_body_bytes: Longest body that is read into memory.
            list_body: Takes the body of a successful response if it is not short. None means that it is read.
            stream: Leave the body to the caller if it is a file; then the response has no extension ``body``.
            own_connection: Use a new connection, and close it after the response.
            on_connected: Called when there is a connection and the request is about to be written.
        """
        parsed, text, host = _parse_url(url)
        options = {
            "url": text,
            "content": content,
            "timeout": {"read": read_timeout},
            "max_body_bytes": max_body_bytes,
            "list_body": list_body,
            "stream": stream,
            "own_connection": own_connection,
            "on_connected": on_connected,
        }
        # Not with ``content=``: httpx would build the headers three times, to add those that are complete here.
        headers = [host, *headers, *_length_headers(method, content)]
        request = httpx.Request(
            method, parsed, headers=headers, stream=httpx.ByteStream(content or b""), extensions=options
        )
        return await self.send(request, stream=True)


def make_client(tls: TlsContext, home: SplitResult) -> HttpClient:
    """
    Return the client over aiohttp.

    Args:
        tls: Which certificates to trust.
        home: The root of the deployment.

    Raises:
        ConfigError: The proxy that the environment names for the deployment is invalid.
    """
    proxies = Proxies()
    proxies.find(home.scheme, home.hostname or "")
    return HttpClient(AiohttpTransport(tls, proxies))


@functools.lru_cache(maxsize=1024)
def _parse_url(url: str) -> tuple[httpx.URL, str, tuple[bytes, bytes]]:
    """
    Return a URL, its text and its Host header.

    The same runs are polled again and again, and this takes as long as a request.
    """
    parsed = httpx.URL(url)
    return parsed, str(parsed), (b"Host", parsed.netloc)


def _length_headers(method: str, content: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the Content-Length header of a request, if it needs one."""
    if not content and method not in ("POST", "PUT", "PATCH"):
        return []
    return [(b"Content-Length", str(len(content or b"")).encode())]


@functools.lru_cache(maxsize=16)
def _client_timeout(connect: float, read: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=connect, sock_read=read)
