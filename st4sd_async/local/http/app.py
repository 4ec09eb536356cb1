"""
The front of the embedded ST4SD: faults, the limit of the body, the sign-in, and the way to a handler.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from concurrent.futures import Executor
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

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
from st4sd_async.local.http.messages import HTML, Answer, Request, Router, proxy_page, reply, sign_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

    from st4sd_async.local.http.access import Access
    from st4sd_async.local.http.faults import Faults
    from st4sd_async.local.http.listener import Connections
    from st4sd_async.local.http.traffic import Log

logger = logging.getLogger("st4sd_async.local")

BODY_LIMIT = 1024 * 1024
"""Bytes of a request; the proxy in front of the services refuses more."""
_TITLES = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Temporarily Unavailable"}
_TITLES |= {504: "Gateway Time-out", 413: "Request Entity Too Large", 429: "Too Many Requests"}


class Application:
    """The ASGI application: one call per request."""

    def __init__(
        self,
        access: Access,
        faults: Faults,
        runtime: Router,
        datastore: Router,
        threads: Executor,
        connections: Connections,
        log: Log,
    ) -> None:
        self._access = access
        self._faults = faults
        self._runtime = runtime
        self._datastore = datastore
        self._threads = threads
        self._connections = connections
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        method, path = scope["method"], scope["path"]
        router, _, inner = self._service(path)
        kind = f"{method} {router.kind(inner)}"
        self._log.arrive(method, path, kind)
        fault = self._faults.take(method, path)
        if isinstance(fault, DropBefore):
            await self._drop(scope, receive, at_once=True)
            return
        body = await _read(receive)
        if body is None:
            return
        if isinstance(fault, Delay):
            # After the reading: what has arrived is handled, even if the client gives up in the meantime.
            await asyncio.sleep(fault.seconds)
        answer = _instead(fault)
        if answer is None or (isinstance(fault, Reply) and fault.handled):
            loop = asyncio.get_running_loop()
            handled = await loop.run_in_executor(self._threads, self._handle, _request(scope, body), kind, fault)
            answer = answer or handled
        if isinstance(fault, DropAfter):
            await self._drop(scope, receive, at_once=True)
            return
        if not await self._send(scope, send, answer, kind, fault):
            await self._drop(scope, receive, at_once=False)

    def _service(self, path: str) -> tuple[Router, str, str]:
        """Who serves a path, the prefix that it has, and the rest of it."""
        prefix = "/rs" if path.startswith("/rs/") else ""
        router = self._datastore if path.startswith("/ds-") else self._runtime
        return router, prefix, path.removeprefix(prefix)

    def _handle(self, request: Request, kind: str, fault: Fault | None) -> Answer:
        """The answer, or what a fault leaves of it; what it cost is counted."""
        begin = time.thread_time()
        answer = self._answer(request)
        self._log.spend(kind, seconds=time.thread_time() - begin)
        if isinstance(fault, BadJson):
            whole = answer.body if answer.stream is None else b"".join(answer.stream)
            return replace(answer, body=whole[: len(whole) // 2], stream=None)
        if isinstance(fault, ShortList | BreakOff) and answer.status == 200:
            return replace(answer, body=shorten(answer.body, fault))
        return answer

    def _answer(self, request: Request) -> Answer:
        try:
            if not self._access.permits(request):
                return sign_in()
            if len(request.body) > BODY_LIMIT:
                return proxy_page(413, _TITLES[413])
            if request.path == "/rs":
                return proxy_page(301, "Moved Permanently", ("location", f"{request.origin}/rs/"))
            router, prefix, path = self._service(request.path)
            return router.handle(replace(request, prefix=prefix, path=path))
        except Exception:
            logger.exception("%s %s failed inside the embedded server", request.method, request.path)
            return reply({"message": "Internal Server Error"}, 500)

    async def _send(self, scope: Scope, send: Send, answer: Answer, kind: str, fault: Fault | None) -> bool:
        """Send an answer; False if its body breaks off in the middle."""
        await send(_head(answer))
        peer, head_only = tuple(scope["client"]), scope["method"] == "HEAD"
        left = fault.after_bytes if isinstance(fault, CutBody) else sys.maxsize
        try:
            piece = answer.body or await self._next(answer.stream, kind)
            while piece and left and not head_only and self._connections.is_open(peer):
                piece = piece[:left]
                # Before it is sent: whoever has the answer finds it counted.
                self._log.spend(kind, sent=len(piece))
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                left -= len(piece)
                piece = await self._next(answer.stream, kind)
        except OSError as error:
            logger.warning("the answer to %s broke off: %s", kind, error)
            return False
        await send({"type": "http.response.body", "more_body": isinstance(fault, CutBody)})
        return not isinstance(fault, CutBody)

    async def _next(self, stream: Iterator[bytes] | None, kind: str) -> bytes:
        """The next piece of a body, made in a worker thread; nothing after the last one."""
        if stream is None:
            return b""

        def make() -> bytes:
            begin = time.thread_time()
            piece = next(stream, b"")
            self._log.spend(kind, seconds=time.thread_time() - begin)
            return piece

        return await asyncio.get_running_loop().run_in_executor(self._threads, make)

    async def _drop(self, scope: Scope, receive: Receive, *, at_once: bool) -> None:
        self._connections.hang_up(tuple(scope["client"]), at_once)
        # Returning without an answer would make the server write one, so that the client must be gone first.
        while (await receive())["type"] != "http.disconnect":
            pass


def _instead(fault: Fault | None) -> Answer | None:
    if isinstance(fault, Html):
        return proxy_page(fault.status, _TITLES.get(fault.status, "Error"))
    if isinstance(fault, Reply):
        headers = {name.lower(): value for name, value in fault.headers.items()}
        content_type = headers.pop("content-type", HTML)
        return Answer(fault.status, fault.body, content_type, tuple(headers.items()))
    return None


async def _read(receive: Receive) -> bytes | None:
    """The body, of which at most one byte above the limit is kept; None if the client went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        body += chunk[: BODY_LIMIT + 1 - len(body)]
        if not message.get("more_body"):
            return body


def _request(scope: Scope, body: bytes) -> Request:
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


def _head(answer: Answer) -> dict[str, Any]:
    length = len(answer.body) if answer.stream is None else answer.length
    lengths = [] if length is None else [("content-length", str(length))]
    headers = [("content-type", answer.content_type), *lengths, *answer.headers]
    # File names travel as raw UTF-8 in Content-Disposition, as the service sends them.
    raw = [(name.encode("latin-1"), value.encode("utf-8")) for name, value in headers]
    return {"type": "http.response.start", "status": answer.status, "headers": raw}
