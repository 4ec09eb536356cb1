"""
The HTTP engine under `httpx.AsyncClient`, and the truth about *was it sent?*

aiohttp carries the requests: httpx's own pool looks through all its connections for each request,
which makes 100 requests in flight many times slower. The ready-made bridge between the two reports
a connection that broke after a POST was sent as a connect timeout, which a retry would take for
"never sent"; so the bridge is here, and says what it knows in our own errors.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import select
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any
from urllib.parse import SplitResult
from weakref import WeakSet

import aiohttp
import httpx

from .._errors import ConnectFailed, ConnectionLost, DecodeError, RequestTimeout, TransportError
from .cancellation import mark_sent
from .proxies import Proxies
from .responses import REDIRECT, UNREAD, is_file
from .retry import RETRIED_STATUSES

CONNECT_TIMEOUT = 5.0
"""Longest time in seconds for a connection to be made, TLS included."""

IDLE_LIMIT = 2.0
"""Seconds that a connection may lie idle and still be used: a server that closes it at that moment would leave a
start in doubt."""

MAX_READ_TIMEOUTS = 10
"""How many times the read timeout a reply may take that is read into memory: one that arrives byte by byte never ends.
A file that is streamed may take any time."""

SMALL = 1 << 16  # bytes; a body that is promised to be no longer is read before the reply is handed on
NO_AUTHORITY = frozenset({2, 18, 19, 20, 21})  # what OpenSSL says of a certificate whose issuer it does not know
ENCODINGS = (
    "gzip",
    "x-gzip",
    "deflate",
    "compress",
    "br",
    "zstd",
)  # those that a message names: a header may say anything
AHEAD = 1 << 20  # bytes of a body that are received while somebody is busy with those before them


async def _never_resend(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating GET, PUT and DELETE by itself: there is one retry layer, and it is not here."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = translate(error, request.method, str(request.url))
    raise failure


def _words(error: BaseException) -> str:
    """What an error of the engine says, without anything of the request."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return str(error) or type(error).__name__


def _tls_words(error: Any) -> str:
    """What is wrong with the certificate or the TLS of a server, and what to do."""
    cause = getattr(error, "certificate_error", None) or error.os_error
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return f"the TLS handshake failed: {cause}; does this server speak https?"
    advice = "use the name that it is for, or ask whoever runs the server"
    if cause.verify_code in NO_AUTHORITY:
        advice = "name the authority that signed it with Config(verify='ca.pem') or ST4SD_CA_FILE"
    return f"certificate verification failed: {cause.verify_message.rstrip('.')}; {advice}"


NOBODY_THERE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ETIMEDOUT})
"""Errors of the operating system that say that no host was reached; a refusal comes from one."""


def not_connected(error: BaseException, method: str, url: str, *, is_proxied: bool = False) -> ConnectFailed:
    """
    Our error for one of the engine's that came before there was a connection, so that nothing was sent.

    A proxy that refuses or garbles the tunnel has seen which host was asked for, and nothing of the request.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return ConnectFailed(method, url, _tls_words(error), permanent=True)
    by = "the proxy of this machine's environment: " if is_proxied else ""
    if isinstance(error, UnicodeError | aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return ConnectFailed(method, url, f"{by}invalid URL", permanent=True)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        is_final = error.status < 500 and error.status not in RETRIED_STATUSES
        return ConnectFailed(method, url, f"{by}it refused ({error.status})", permanent=is_final)
    words = (
        f"no connection in time (at most {CONNECT_TIMEOUT:g} s)" if isinstance(error, TimeoutError) else _words(error)
    )
    failure = ConnectFailed(method, url, f"{by}{words}")
    failure.is_unresolved = isinstance(error, aiohttp.ClientConnectorDNSError)
    failure.is_silent = isinstance(error, TimeoutError) or getattr(error, "errno", None) in NOBODY_THERE
    return failure


def translate(error: BaseException, method: str, url: str) -> TransportError:
    """
    Our error for one of the engine's.

    Only a failure to connect proves that nothing was sent. Everything else may have arrived.
    """
    if isinstance(error, UNSENT):
        return not_connected(error, method, url)
    if isinstance(error, TimeoutError):
        return RequestTimeout(method, url, "silence for longer than Config.timeout")
    if isinstance(error, aiohttp.ClientPayloadError):
        lost = ConnectionLost(method, url, "the answer was cut short")
        lost.is_cut = True
        return lost
    return ConnectionLost(method, url, _words(error))


UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
"""Errors of the engine that come before the first byte of a request."""
ENGINE_ERRORS = (aiohttp.ClientError, OSError)  # a time-out is an OSError


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """
    The headers of a reply as httpx may see them.

    httpx follows a ``Location`` so far that it parses it, which fails for a bad one with an error that holds the
    request.
    """
    renamed = {b"location": REDIRECT.encode()}
    return [(renamed.get(name.lower(), name), value) for name, value in headers if name.lower() != b"content-encoding"]


def _refused_encoding(reply: aiohttp.ClientResponse) -> str:
    """Return what is wrong with the encoding of a body, "" if nothing: 1 MB of gzip can become 2 GB."""
    encodings = ", ".join(reply.headers.getall("Content-Encoding", ())).lower()
    if encodings in ("", "identity"):
        return ""
    named = f"the encoding {encodings}" if encodings in ENCODINGS else "an encoding"
    return f"a body in {named}, which was not asked for"


def _shows_its_end(reply: aiohttp.ClientResponse) -> bool:
    """Whether it is known where a body ends; of words it shows, which cannot be read if they are cut."""
    is_told = bool({"Content-Length", "Transfer-Encoding"} & reply.headers.keys()) or reply.status == 204
    return is_told or reply.content_type in ("application/json", "text/html")


class _Body(httpx.AsyncByteStream):
    """The body of a reply, as it arrives."""

    def __init__(self, reply: aiohttp.ClientResponse, method: str, url: str) -> None:
        self._reply = reply
        self._where = method, url

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        failure: TransportError = ConnectionLost(*self._where, "the answer tells no length, so it may be cut short")
        try:
            async for chunk in self._reply.content.iter_any():
                yield chunk
            if _shows_its_end(self._reply):
                return
        except ENGINE_ERRORS as error:
            failure = translate(error, *self._where)
        if isinstance(failure, ConnectionLost):
            failure.is_cut = True
        raise failure

    async def aclose(self) -> None:
        self._reply.close()


async def _whole(reply: aiohttp.ClientResponse, body: _Body, largest: int) -> bytes | None:
    """Return the whole body of a reply; None if it is longer than it may be, of which no more is read than that."""
    length = reply.content_length
    if length is not None and length <= min(SMALL, largest):
        return await reply.read()
    if length is not None and length > largest:
        return None
    pieces, size = [], 0
    async with aclosing(body), aclosing(aiter(body)) as arriving:
        async for piece in arriving:
            pieces.append(piece)
            size += len(piece)
            if size > largest:
                return None
    return b"".join(pieces)


class _Connector(aiohttp.TCPConnector):
    """A connection pool that tells why no connection was made: whatever it was, the request was not sent."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Return a connection for a request, through a tunnel where a proxy is in between; raises `ConnectFailed`."""
        try:
            return await super().connect(req, traces, timeout)
        except (*ENGINE_ERRORS, UnicodeError) as error:  # asyncio says by the latter that there can be no such host
            failure = not_connected(error, req.method, str(req.url), is_proxied=req.proxy is not None)
        raise failure


class _OwnConnector(_Connector):
    """Makes a connection for each request, and notes that the request is about to be written."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(limit=0, ssl=tls, force_close=True)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Return a new connection."""
        connection = await super().connect(req, traces, timeout)
        mark_sent()
        return connection


class _CheckedConnector(_Connector):
    """
    A connection pool that closes a connection on which bytes arrived before a request was sent.

    aiohttp looks for such bytes when a connection goes back to the pool, and not when it is taken out again.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(limit=0, ssl=tls, keepalive_timeout=IDLE_LIMIT)
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
                # Not checked: the session tickets of TLS 1.3 may still be unread in a new connection.
                self._used.add(protocol)
                return connection
            if not protocol.should_close and not _is_readable(connection.transport):
                return connection
            connection.close()


def _is_readable(transport: asyncio.Transport | None) -> bool:
    """Return whether the socket of a connection holds unread bytes, or its end or an error."""
    descriptor = -1 if transport is None else transport.get_extra_info("socket").fileno()
    if descriptor < 0:  # closed
        return True
    if not hasattr(select, "poll"):  # pragma: no cover -- Windows, where select() knows any number of a socket
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _make_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        middlewares=(_never_resend,),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


class Engine(httpx.AsyncBaseTransport):
    """
    Sends requests over aiohttp and raises our own `TransportError`, which holds nothing of the request.

    Make it inside a running event loop. A connection that was idle for more than two seconds, or on which bytes
    arrived between two requests, is never used again. A request with the extension ``fresh`` gets a connection of its
    own: only there no answer to an earlier request can arrive while it is in flight. Cookies are not kept, redirects
    not followed, requests not repeated.
    """

    def __init__(self, tls: ssl.SSLContext, proxies: Proxies) -> None:
        # No limit of connections: the session bounds what is in flight, and a request must not die of queueing.
        self._pooled = _make_session(_CheckedConnector(tls))
        self._fresh = _make_session(_OwnConnector(tls))
        self._proxies = proxies

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send one request and return its reply.

        The body is read already, unless the extension ``streamed`` allows to leave that to the caller and it is a file:
        then the reply has this extension too. A body that is refused is the end of a good reply; of a bad one the
        status still counts.

        Raises:
            TransportError: No usable reply came.
            DecodeError: The body of a good reply is longer than the extension ``largest``, or in an encoding that was
                not asked for.
        """
        url, extensions = str(request.url), request.extensions
        session, silence = self._fresh if extensions["fresh"] else self._pooled, extensions["timeout"]["read"]
        limit_seconds = MAX_READ_TIMEOUTS * silence
        limit = asyncio.timeout(limit_seconds)
        # The shorter of the two, because only a failure to connect proves that nothing was sent.
        connect = min(CONNECT_TIMEOUT, limit_seconds / 2)
        failure: TransportError | DecodeError
        try:
            async with limit:
                reply = await session.request(
                    request.method,
                    url,
                    headers=request.headers.multi_items(),
                    data=request.content or None,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(connect=connect, sock_read=silence),
                    proxy=self._proxies.find(request.url.scheme, request.url.host),
                    read_bufsize=AHEAD,
                )
                headers, is_good = _kept(reply.raw_headers), 200 <= reply.status < 300
                problem, body = _refused_encoding(reply), _Body(reply, request.method, url)
                if not problem and is_good and extensions["streamed"] and is_file(reply.headers):
                    limit.reschedule(None)
                    return httpx.Response(reply.status, headers=headers, stream=body, extensions={"streamed": True})
                content = None if problem else await _whole(reply, body, extensions["largest"])
            if content is not None:
                return httpx.Response(reply.status, headers=headers, content=content)
            await body.aclose()
            problem = problem or f"more than {extensions['largest']} bytes (Config.max_body_bytes)"
            if not is_good:
                return httpx.Response(
                    reply.status, headers=[*headers, (UNREAD.encode(), problem.encode())], content=b""
                )
            failure = DecodeError(request.method, url, problem)
        except ENGINE_ERRORS as error:
            failure = translate(error, request.method, url)
            if limit.expired():
                words = (
                    f"the answer took more than {limit_seconds:g} s in all ({MAX_READ_TIMEOUTS} times Config.timeout)"
                )
                failure = RequestTimeout(request.method, url, words)
        # Raised out here, because the engine's errors hold the headers of the request.
        raise failure

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pooled.close()
        await self._fresh.close()


def make_client(tls: ssl.SSLContext, home: SplitResult) -> httpx.AsyncClient:
    """
    An HTTP client over the engine; cookies that it is sent never leave it, because requests are made by hand.

    Args:
        tls: Which certificates to trust.
        home: The root of the deployment.

    Raises:
        ConfigError: The proxy that the environment names for the deployment cannot be used.
    """
    proxies = Proxies()
    proxies.find(home.scheme, home.hostname or "")
    return httpx.AsyncClient(transport=Engine(tls, proxies), follow_redirects=False, trust_env=False)


# The same runs are asked for again and again, and to parse an address takes as long as all else that a request needs.
parsed = functools.lru_cache(maxsize=1024)(httpx.URL)
