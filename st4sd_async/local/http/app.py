"""
The ASGI application of the embedded ST4SD: faults, authentication, the size limit of bodies, and dispatch.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import sys
import time
from concurrent.futures import Executor
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from st4sd_async.local.http.credentials import REGISTRY_PREFIX
from st4sd_async.local.http.faults import (
    BadJson,
    BreakOff,
    CutBody,
    Delay,
    DropAfter,
    DropBefore,
    Fault,
    Html,
    Reply,
    ShortList,
    shorten,
)
from st4sd_async.local.http.messages import HTML, Request, Response, Router, json_response, proxy_page, sign_in_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

    from st4sd_async.local.http.credentials import Credentials
    from st4sd_async.local.http.faults import Faults
    from st4sd_async.local.http.listener import Connections
    from st4sd_async.local.http.traffic import RequestLog

logger: logging.Logger = logging.getLogger("st4sd_async.local")

MAX_BODY_SIZE = 1024 * 1024
"""Maximum size of a request body in bytes. The proxy in front of the services rejects larger bodies."""
SERVICES = ("/rs/", "/ds-mongodb-proxy/", "/ds-registry/", "/ds-gateway/")
"""Paths of the services. The proxy redirects requests to such a path without its last slash."""
MIN_COMPRESSED_SIZE = 20
"""Minimum size of a page that the proxy compresses, in bytes."""
COMPRESSED_STATUSES = (200, 403, 404)
"""Statuses of the pages that the proxy compresses."""
_TITLES = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Temporarily Unavailable"}
_TITLES |= {504: "Gateway Time-out", 413: "Request Entity Too Large", 429: "Too Many Requests"}


class Application:
    """The ASGI application."""

    def __init__(
        self,
        credentials: Credentials,
        faults: Faults,
        runtime: Router,
        datastore: Router,
        threads: Executor,
        connections: Connections,
        log: RequestLog,
        plain_port: int | None,
    ) -> None:
        self._credentials = credentials
        self._faults = faults
        self._runtime = runtime
        self._datastore = datastore
        self._threads = threads
        self._connections = connections
        self._log = log
        self._plain_port = plain_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        method, path = scope["method"], scope["path"]
        router, _, inner = self._find_service(path)
        kind = f"{method} {router.kind(inner)}"
        self._log.record_request(method, path, kind)
        fault = self._faults.take(method, path)
        if isinstance(fault, DropBefore):
            await self._drop(scope, receive, abort=True)
            return
        body = await _read_body(receive)
        if body is None:
            return
        if isinstance(fault, Delay):
            # The body was read before, so that the request is handled even if the client disconnects.
            await asyncio.sleep(fault.seconds)
        response = _fault_response(fault)
        if response is None or (isinstance(fault, Reply) and fault.handled):
            loop = asyncio.get_running_loop()
            handled = await loop.run_in_executor(
                self._threads, self._handle, _request(scope, body, self._plain_port), kind, fault
            )
            response = response or handled
        if isinstance(fault, DropAfter):
            await self._drop(scope, receive, abort=True)
            return
        if not await self._send(scope, send, response, kind, fault):
            await self._drop(scope, receive, abort=False)

    def _find_service(self, path: str) -> tuple[Router, str, str]:
        """Return the router for a path, the prefix of its service, and the path without this prefix."""
        if path.startswith("/ds-"):
            return self._datastore, "", path
        if path.startswith(REGISTRY_PREFIX):
            return self._runtime, "", path
        return self._runtime, "/rs", path[3:] if path.startswith("/rs/") else path

    def _handle(self, request: Request, kind: str, fault: Fault | None) -> Response:
        """Return the response, damaged if the fault damages responses, and record its cost."""
        begin = time.thread_time()
        response = _compressed(self._respond(request), request)
        self._log.record_cost(kind, seconds=time.thread_time() - begin)
        if isinstance(fault, BadJson):
            whole = response.body if response.stream is None else b"".join(response.stream)
            return replace(response, body=whole[: len(whole) // 2], stream=None)
        if isinstance(fault, ShortList | BreakOff) and response.status == 200:
            return replace(response, body=shorten(response.body, fault))
        return response

    def _respond(self, request: Request) -> Response:
        try:
            if not self._credentials.permit(request):
                return sign_in_page()
            if len(request.body) > MAX_BODY_SIZE:
                return proxy_page(413, _TITLES[413])
            if f"{request.path}/" in (*SERVICES, REGISTRY_PREFIX):
                return proxy_page(301, "Moved Permanently", ("location", f"{request.origin}{request.path}/"))
            router, prefix, path = self._find_service(request.path)
            return router.handle(replace(request, prefix=prefix, path=path))
        except Exception:
            logger.exception("%s %s failed inside the embedded server", request.method, request.path)
            return json_response({"message": "Internal Server Error"}, 500)

    async def _send(self, scope: Scope, send: Send, response: Response, kind: str, fault: Fault | None) -> bool:
        """Send a response; return False if its body was cut."""
        await send(_head(response))
        peer, head_only = tuple(scope["client"]), scope["method"] == "HEAD"
        remaining = fault.after_bytes if isinstance(fault, CutBody) else sys.maxsize
        try:
            chunk = response.body or await self._next(response.stream, kind)
            while chunk and remaining and not head_only and self._connections.is_open(peer):
                chunk = chunk[:remaining]
                # Counted before it is sent, so that `traffic` includes every response that a client has received.
                self._log.record_cost(kind, sent=len(chunk))
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                remaining -= len(chunk)
                chunk = await self._next(response.stream, kind)
        except OSError as error:
            logger.warning("the response to %s was cut: %s", kind, error)
            return False
        await send({"type": "http.response.body", "more_body": isinstance(fault, CutBody)})
        return not isinstance(fault, CutBody)

    async def _next(self, stream: Iterator[bytes] | None, kind: str) -> bytes:
        """Return the next chunk of a stream, produced in a worker thread; b"" at the end of the stream."""
        if stream is None:
            return b""

        def produce() -> bytes:
            begin = time.thread_time()
            chunk = next(stream, b"")
            self._log.record_cost(kind, seconds=time.thread_time() - begin)
            return chunk

        return await asyncio.get_running_loop().run_in_executor(self._threads, produce)

    async def _drop(self, scope: Scope, receive: Receive, *, abort: bool) -> None:
        self._connections.close(tuple(scope["client"]), abort=abort)
        # If this returned before the client was disconnected, uvicorn would send a response.
        while (await receive())["type"] != "http.disconnect":
            pass


def _fault_response(fault: Fault | None) -> Response | None:
    if isinstance(fault, Html):
        return proxy_page(fault.status, _TITLES.get(fault.status, "Error"))
    if isinstance(fault, Reply):
        headers = {name.lower(): value for name, value in fault.headers.items()}
        content_type = headers.pop("content-type", HTML)
        return Response(fault.status, fault.body, content_type, tuple(headers.items()))
    return None


async def _read_body(receive: Receive) -> bytes | None:
    """Return the body, cut to one byte more than the limit; None if the client disconnected."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        body += chunk[: MAX_BODY_SIZE + 1 - len(body)]
        if not message.get("more_body"):
            return body


def _request(scope: Scope, body: bytes, plain_port: int | None) -> Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    host, port = scope["server"]
    raw_query = scope["query_string"].decode("latin-1")
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw_query, keep_blank_values=True):
        query.setdefault(name, value)
    return Request(
        method=scope["method"],
        path=scope["path"],
        origin=f"{scope['scheme']}://{headers.get('host', f'{host}:{port}')}",
        plain_port=plain_port,
        query=query,
        raw_query=raw_query,
        headers=headers,
        cookies=_cookies(headers.get("cookie", "")),
        body=body,
    )


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _compressed(response: Response, request: Request) -> Response:
    """
    Return a response as the proxy forwards it: pages are compressed if the client accepts that.

    A compressed page has no Content-Length. Source: the defaults of nginx with ``gzip on``.
    """
    if not response.content_type.startswith("text/html") or response.status not in COMPRESSED_STATUSES:
        return response
    is_accepted = "gzip" in request.headers.get("accept-encoding", "")
    if not is_accepted or request.method == "HEAD" or len(response.body) < MIN_COMPRESSED_SIZE:
        return response
    chunks = iter((gzip.compress(response.body, 1),))
    return replace(response, body=b"", stream=chunks, headers=(*response.headers, ("content-encoding", "gzip")))


def _head(response: Response) -> dict[str, Any]:
    length = len(response.body) if response.stream is None else response.length
    lengths = [] if length is None else [("content-length", str(length))]
    headers = [("content-type", response.content_type), *lengths, *response.headers]
    # File names in Content-Disposition are raw UTF-8, as in the services.
    raw = [(name.encode("latin-1"), value.encode("utf-8")) for name, value in headers]
    return {"type": "http.response.start", "status": response.status, "headers": raw}
