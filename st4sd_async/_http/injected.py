"""
The user's transport under the HTTP client (``Config.transport``), which still knows whether a request was sent.

A start is sent again only if it was certainly not sent. Only two transports can prove that, those of httpx itself: they
raise a `httpx.ConnectError` before they write. Others may raise the same for a connection that broke later, as bridges
to other libraries do, or may pass on the error of another request, as an application under `httpx.ASGITransport` does.
So after any exception of those the request may have arrived.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Collection
from typing import TYPE_CHECKING

import httpx

from .._errors import ConfigError, ConnectFailed, ConnectionLost, RequestTimeout, TransportError
from .._util.printable import shorten
from .._util.redact import quotes_secret, raise_unchained, redact
from .call import is_file
from .engine import (
    CONNECT_TIMEOUT_SECONDS,
    MAX_READ_TIMEOUTS,
    NO_LENGTH,
    AsyncStream,
    HttpClient,
    build_response,
    choose_list_body,
    encoding_problem,
    has_visible_end,
    read_pieces,
    too_long,
)

if TYPE_CHECKING:
    from .._config import Transport

PROVING_TRANSPORTS = (httpx.AsyncHTTPTransport, httpx.MockTransport)
"""Transports whose connect errors prove that nothing was sent. Their subclasses prove nothing."""

UNSENT_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
"""Errors of those transports from before the first byte of a request."""

NETWORK_ERRORS = (httpx.TransportError, OSError)
"""Errors after which another attempt may succeed. All others are bugs in the transport."""

MAX_ERROR_LENGTH = 250
"""Characters of a transport's exception that a message quotes."""


def inject(transport: Transport, known: Collection[str]) -> HttpClient:
    """
    Return an HTTP client over the user's transport.

    Args:
        transport: The transport.
        known: The secrets that no message may contain; more may be added later.

    Raises:
        ConfigError: It is not an asynchronous transport.
    """
    if not (hasattr(transport, "handle_async_request") and hasattr(transport, "aclose")):
        kind = type(transport).__name__
        raise ConfigError(f"Config.transport must return a httpx.AsyncBaseTransport, not an object of type {kind!r}")
    return HttpClient(_InjectedTransport(transport, known))


class _InjectedTransport(httpx.AsyncBaseTransport):
    """Sends requests through another transport, and raises our own errors."""

    def __init__(self, transport: Transport, known: Collection[str]) -> None:
        self._transport, self._known = transport, known
        self._proves_unsent = type(transport) in PROVING_TRANSPORTS

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send one request and return its response, as `AiohttpTransport` does.

        A request counts as sent from here on: nothing shows when there is a connection.
        """
        options, read_timeout = request.extensions, request.extensions["timeout"]["read"]
        await request.aread()  # some transports read `request.content` without that
        options["on_connected"]()
        limit_seconds = MAX_READ_TIMEOUTS * read_timeout
        limit = asyncio.timeout(limit_seconds)
        request.extensions = {
            "timeout": {
                "connect": min(CONNECT_TIMEOUT_SECONDS, limit_seconds / 2),
                "read": read_timeout,
                "write": read_timeout,
                "pool": None,  # the session limits the requests
            }
        }
        try:
            async with limit:
                response = await self._send(request)
                body, status = _Body(self, request, response), response.status_code
                problem = encoding_problem(response.headers.get_list("content-encoding"))
                if not problem and options["stream"] and 200 <= status < 300 and is_file(response.headers):
                    limit.reschedule(None)
                    return build_response(request, status, response.headers.raw, body)
                list_body = choose_list_body(options["list_body"], status, response.headers)
                content = None if problem else await read_pieces(body, options["max_body_bytes"], list_body)
        except TimeoutError:
            reason = f"it took more than {limit_seconds:g} s in all ({MAX_READ_TIMEOUTS} times Config.timeout)"
            raise_unchained(RequestTimeout(request.method, str(request.url), reason))
        if content is None:
            await body.aclose()
            problem = problem or too_long(options["max_body_bytes"], list_body)
        return build_response(request, status, response.headers.raw, content, problem)

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            response: httpx.Response = await self._transport.handle_async_request(request)
        except Exception as error:  # a transport may raise anything
            raise_unchained(self.translate(error, request), self.safe_cause(error))
        return response

    def translate(self, error: Exception, request: httpx.Request) -> TransportError:
        """Return our error for one of the transport's. It was not sent only if that is proved."""
        method, url = request.method, str(request.url)
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        reason = shorten(redact(text, self._known), MAX_ERROR_LENGTH)
        if self._proves_unsent and isinstance(error, UNSENT_ERRORS):
            failure = ConnectFailed(method, url, reason, permanent=_has_cause(error, ssl.SSLError))
            failure.is_unresolved = _has_cause(error, socket.gaierror)
            return failure
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return RequestTimeout(method, url, reason)
        if isinstance(error, NETWORK_ERRORS):
            return ConnectionLost(method, url, reason)
        mistake = TransportError(method, url, f"Config.transport raised {reason}")
        mistake.permanent = True
        return mistake

    def safe_cause(self, error: Exception) -> Exception | None:
        """Return an exception of the transport, None if it holds a request or quotes a secret."""
        return None if isinstance(error, NETWORK_ERRORS) or quotes_secret(error, self._known) else error


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Return whether an exception, or one of its causes, is of a type."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error is not None


class _Body(AsyncStream):
    """The body of a response of another transport, as it arrived: neither unpacked nor decoded."""

    def __init__(self, transport: _InjectedTransport, request: httpx.Request, response: httpx.Response) -> None:
        self._transport, self._request, self._response = transport, request, response

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        try:
            async for piece in self._response.stream:  # type: ignore[union-attr] # another one raises TypeError below
                yield piece
        except Exception as error:  # a transport may raise anything
            failure = self._transport.translate(error, self._request)
            failure.sent = None
            if isinstance(failure, ConnectionLost):
                failure.is_cut = True
            raise_unchained(failure, self._transport.safe_cause(error))
        # The end of a body is explicit in HTTP/2, and in an application in this process.
        is_http_1 = self._response.extensions.get("http_version", b"").startswith(b"HTTP/1")
        if is_http_1 and not has_visible_end(self._response.status_code, self._response.headers):
            lost = ConnectionLost(self._request.method, str(self._request.url), NO_LENGTH)
            lost.is_cut = True
            raise lost

    async def aclose(self) -> None:
        if isinstance(self._response.stream, httpx.AsyncByteStream):
            await self._response.stream.aclose()
