"""
The HTTP client: `httpx.AsyncClient` over aiohttp, which knows whether a request was sent.

aiohttp carries the requests: the pool of httpx searches all its connections for each request, which makes 100 requests
in flight many times slower. The ready-made bridges between the two report a connection that broke after a POST was sent
as a connect timeout, which a retry would take for "never sent". So the bridge is here, and raises our own errors.

This is the only module that imports httpx, or aiohttp.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import select
import ssl
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from weakref import WeakSet

import aiohttp
import httpx

from .._config import CA_FILE_VARIABLE
from .._errors import ConfigError, ConnectFailed, ConnectionLost, DecodeError, RequestTimeout, TransportError
from .._util.redact import raise_unchained
from .call import REDIRECT_HEADER, UNREAD_BODY_HEADER, is_file
from .credentials import is_host, is_loopback
from .retry import RETRIED_STATUSES

log = logging.getLogger("st4sd_async")

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

KEY_LOG_VARIABLE = "SSLKEYLOGFILE"
"""Environment variable that names the file in which `ssl` logs the keys of connections."""


def build_tls_context(verify: bool | str | Path | ssl.SSLContext) -> ssl.SSLContext:
    """
    Return the TLS context for ``Config.verify``; reads files, so call it in a worker thread.

    Raises:
        ConfigError: The file is missing or contains no certificate; the message names the setting.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is False:
        log.warning("TLS is not verified (Config.verify is False): others can read your credentials")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    setting = f"the CA file {str(verify)!r} (Config.verify or {CA_FILE_VARIABLE})"
    if verify is True:
        setting = _default_authorities()
    try:
        return httpx.create_ssl_context() if verify is True else ssl.create_default_context(cafile=str(verify))
    except (OSError, ValueError) as error:
        if getattr(error, "filename", None) == os.environ.get(KEY_LOG_VARIABLE, ""):
            setting = f"the file of the environment variable {KEY_LOG_VARIABLE}"
        raise_unchained(ConfigError(f"{setting} cannot be used: {error}"))


def _default_authorities() -> str:
    """
    Describe the setting that names the default certificate authorities.

    Raises:
        ConfigError: It names no existing folder, which OpenSSL would silently ignore.
    """
    if file := os.environ.get("SSL_CERT_FILE"):
        return f"the CA file {file!r} (environment variable SSL_CERT_FILE)"
    folders = os.environ.get("SSL_CERT_DIR", "")
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise ConfigError(f"there is no folder {folders!r} (environment variable SSL_CERT_DIR)")
    return f"the CA folder {folders!r} (environment variable SSL_CERT_DIR)" if folders else "the CA file of certifi"


class Proxies:
    """The proxies that the environment names, read once and checked before anything is sent through them."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = urllib.request.getproxies()

    def find(self, scheme: str, host: str) -> str | None:
        """
        Return the proxy for a host, None if there is none; requests to this machine never use one.

        Raises:
            ConfigError: The URL of the proxy is invalid.
        """
        if not self._urls or is_loopback(host) or urllib.request.proxy_bypass(host):
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
        lost = ConnectionLost(method, url, "the answer was cut short")
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
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
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


class _Connector(aiohttp.TCPConnector):
    """A connection pool whose errors prove that the request was not sent."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Return a connection for a request, through the tunnel of a proxy if there is one; raise `ConnectFailed`."""
        try:
            return await super().connect(req, traces, timeout)
        except (*ENGINE_ERRORS, UnicodeError) as error:  # asyncio raises the latter for an impossible host name
            is_proxied = req.proxy is not None
            raise_unchained(translate_connect_error(error, req.method, str(req.url), is_proxied=is_proxied))


class _CheckedConnector(_Connector):
    """
    A connection pool that discards a connection on which bytes arrived between two requests.

    aiohttp checks for such bytes when a connection returns to the pool, and not when it is taken out again.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(limit=0, ssl=tls, keepalive_timeout=KEEPALIVE_SECONDS)
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


async def _report_connected(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    """Call the ``on_connected`` of a request when its connection is ready, before the request is written."""
    context.trace_request_ctx()


def _make_session(connector: aiohttp.TCPConnector, trace: aiohttp.TraceConfig | None = None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        middlewares=(_never_resend,),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        trace_configs=[] if trace is None else [trace],
    )


class AiohttpTransport(httpx.AsyncBaseTransport):
    """
    Sends requests over aiohttp and raises our own `TransportError`, which holds no part of the request.

    Create it inside a running event loop. A connection that was idle for more than two seconds, or on which bytes
    arrived between two requests, is never used again. A request with an ``on_connected`` gets a connection of its own:
    only there can no response to an earlier request arrive. Cookies are not kept, redirects not followed, requests not
    repeated.
    """

    def __init__(self, tls: ssl.SSLContext, proxies: Proxies) -> None:
        # The connections are not limited here: the session limits the requests, and none may time out in a queue.
        self._pooled = _make_session(_CheckedConnector(tls))
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_report_connected)
        self._unpooled = _make_session(_Connector(limit=0, ssl=tls, force_close=True), trace)
        self._proxies = proxies

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send one request and return its response.

        The body is read, unless ``stream`` is set and it is a file: then the response has the extension ``stream``. An
        unacceptable body makes a successful response an error. An error response keeps its status.

        Raises:
            TransportError: No usable response arrived.
            DecodeError: The body of a successful response is longer than ``max_body_bytes``, or encoded.
        """
        method, url, options = request.method, str(request.url), request.extensions
        read_timeout, on_connected = options["timeout"]["read"], options["on_connected"]
        session = self._unpooled if on_connected else self._pooled
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
                    data=request.content or None,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(connect=connect_timeout, sock_read=read_timeout),
                    proxy=self._proxies.find(request.url.scheme, request.url.host),
                    read_bufsize=READ_AHEAD_BYTES,
                    trace_request_ctx=on_connected,
                )
                headers, is_success = _visible_headers(response.raw_headers), 200 <= response.status < 300
                problem, body = _encoding_problem(response), _Body(response, method, url)
                if not problem and is_success and options["stream"] and is_file(response.headers):
                    limit.reschedule(None)
                    return httpx.Response(response.status, headers=headers, stream=body, extensions={"stream": True})
                content = None if problem else await _read_body(response, body, options["max_body_bytes"])
        except ENGINE_ERRORS as error:  # they hold the headers of the request
            failure = translate_error(error, method, url)
            if limit.expired():
                reason = (
                    f"the answer took more than {limit_seconds:g} s in all ({MAX_READ_TIMEOUTS} times Config.timeout)"
                )
                failure = RequestTimeout(method, url, reason)
            raise_unchained(failure)
        if content is not None:
            return httpx.Response(response.status, headers=headers, content=content)
        await body.aclose()
        problem = problem or f"more than {options['max_body_bytes']} bytes (Config.max_body_bytes)"
        if is_success:
            raise DecodeError(method, url, problem)
        headers.append((UNREAD_BODY_HEADER.encode(), problem.encode()))
        return httpx.Response(response.status, headers=headers, content=b"")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pooled.close()
        await self._unpooled.close()


def _visible_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """
    Return the headers of a response that httpx may see.

    httpx parses a ``Location`` even if it does not follow it; if that fails, its error holds the request.
    """
    renamed = {b"location": REDIRECT_HEADER.encode()}
    return [(renamed.get(name.lower(), name), value) for name, value in headers if name.lower() != b"content-encoding"]


def _encoding_problem(response: aiohttp.ClientResponse) -> str:
    """Return the problem of a body's encoding; "" if it has none. 1 MB of gzip can become 2 GB."""
    encodings = ", ".join(response.headers.getall("Content-Encoding", ())).lower()
    if encodings in ("", "identity"):
        return ""
    named = f"the encoding {encodings}" if encodings in ENCODINGS else "an encoding"
    return f"a body in {named}, which was not requested"


class _Body(httpx.AsyncByteStream):
    """The body of a response, piece by piece as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse, method: str, url: str) -> None:
        self._response = response
        self._request = method, url

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        failure: TransportError | None = None
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
            if _has_visible_end(self._response):
                return
        except ENGINE_ERRORS as error:
            failure = translate_error(error, *self._request)
        failure = failure or ConnectionLost(*self._request, "the answer has no length, so it may be cut short")
        if isinstance(failure, ConnectionLost):
            failure.is_cut = True
        raise failure

    async def aclose(self) -> None:
        self._response.close()


def _has_visible_end(response: aiohttp.ClientResponse) -> bool:
    """Return whether a cut body would be noticed: by its length, or because cut JSON or HTML cannot be parsed."""
    is_delimited = bool({"Content-Length", "Transfer-Encoding"} & response.headers.keys()) or response.status == 204
    return is_delimited or response.content_type in ("application/json", "text/html")


async def _read_body(response: aiohttp.ClientResponse, body: _Body, max_bytes: int) -> bytes | None:
    """Return the whole body; None if it is longer than ``max_bytes``, at which reading stops."""
    length = response.content_length
    if length is not None and length <= min(SMALL_BODY_BYTES, max_bytes):
        return await response.read()
    if length is not None and length > max_bytes:
        return None
    pieces, size = [], 0
    async with aclosing(body), aclosing(aiter(body)) as arriving:
        async for piece in arriving:
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                return None
    return b"".join(pieces)


class _NoCookies(httpx.Cookies):
    """Keeps no cookies."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Ignore the cookies of a response."""


class HttpClient(httpx.AsyncClient):
    """The HTTP client of one deployment: no cookies, no redirects, no environment settings except proxies."""

    def __init__(self, tls: ssl.SSLContext, home: SplitResult) -> None:
        """
        Args:
            tls: Which certificates to trust.
            home: The root of the deployment.

        Raises:
            ConfigError: The proxy that the environment names for the deployment is invalid.
        """
        proxies = Proxies()
        proxies.find(home.scheme, home.hostname or "")
        super().__init__(transport=AiohttpTransport(tls, proxies), follow_redirects=False, trust_env=False)
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
        stream: bool,
        on_connected: Callable[[], None] | None,
    ) -> httpx.Response:
        """
        Send one request and return its response; see `AiohttpTransport`.

        Args:
            method, url, headers, content: The request.
            read_timeout: Longest silence in seconds.
            max_body_bytes: Longest body that is read into memory.
            stream: Leave the body to the caller if it is a file; then the response has the extension ``stream``.
            on_connected: Called when there is a connection and the request is about to be written. The request then
                gets a connection of its own.
        """
        options = {
            "timeout": {"read": read_timeout},
            "max_body_bytes": max_body_bytes,
            "stream": stream,
            "on_connected": on_connected,
        }
        request = httpx.Request(method, _parse_url(url), headers=headers, content=content, extensions=options)
        return await self.send(request, stream=stream)


# The same runs are polled again and again, and parsing a URL takes as long as all else that a request needs.
_parse_url = functools.lru_cache(maxsize=1024)(httpx.URL)
