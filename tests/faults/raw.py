"""An HTTP server on a raw socket that does exactly what a test scripts, byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

REASONS = {200: "OK", 403: "Forbidden"}
"""Reason phrases; nobody reads them."""

SIGN_IN = b"<!doctype html><html><body>Log in with OpenShift</body></html>"
"""The page that the sign-in proxy answers with."""


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    """HTTP method."""
    path: str
    """Path and query as they were sent."""
    headers: dict[str, str]
    """Headers by lower-case name."""
    body: bytes
    """The body, read to its end."""
    connection: int
    """Number of the connection, counted from 0."""
    idle: float | None
    """Seconds the connection lay idle before this request; None for its first one."""


@dataclass
class Exchange:
    """One request and the connection on which it waits for its answer."""

    seen: Seen
    """The request."""
    reader: asyncio.StreamReader
    """What the client sends after it."""
    writer: asyncio.StreamWriter
    """Where the answer goes."""

    async def send(self, data: bytes) -> None:
        """Write these bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """End the connection in order."""
        self.writer.close()

    def reset(self) -> None:
        """End the connection with a reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Answer = Callable[[Exchange], Awaitable[None]]
"""What the server does about one request."""


def head(status: int, headers: dict[str, str]) -> bytes:
    """Status line and headers."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Whatever')}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def encoded(body: Any) -> bytes:
    """A body: bytes as they are, everything else as JSON."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def reply(status: int = 200, body: Any = b"{}", *, media: str = "application/json", **headers: str) -> Answer:
    """Answer in order and keep the connection; ``retry_after="3"`` is the header ``retry-after: 3``."""
    data = encoded(body)
    extra = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(exchange: Exchange) -> None:
        lead = {"Content-Type": media, "Content-Length": str(len(data)), **extra}
        await exchange.send(head(status, lead) + data)

    return answer


def sign_in() -> Answer:
    """Refuse like the sign-in proxy, which also deletes its cookie."""
    return reply(
        403, SIGN_IN, media="text/html", set_cookie="oauth-proxy=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    )


def close() -> Answer:
    """Close the connection without an answer."""

    async def answer(exchange: Exchange) -> None:
        exchange.close()

    return answer


def reset() -> Answer:
    """Reset the connection without an answer."""

    async def answer(exchange: Exchange) -> None:
        exchange.reset()

    return answer


def never() -> Answer:
    """Say nothing until the client hangs up."""

    async def answer(exchange: Exchange) -> None:
        await exchange.reader.read()

    return answer


def cut(body: bytes = b'"demo-', *, missing: int = 10, then: Answer | None = None) -> Answer:
    """Answer 200, promise more bytes than come, then close (or do ``then``)."""

    async def answer(exchange: Exchange) -> None:
        lead = {"Content-Type": "application/json", "Content-Length": str(len(body) + missing)}
        await exchange.send(head(200, lead) + body)
        await (then or close())(exchange)

    return answer


def cut_chunk() -> Answer:
    """Answer 200 in chunks and close inside one."""

    async def answer(exchange: Exchange) -> None:
        lead = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        await exchange.send(head(200, lead) + b'20\r\n"demo-')
        exchange.close()

    return answer


def raw(data: bytes) -> Answer:
    """Send these bytes and close."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.close()

    return answer


def after(event: asyncio.Event, answer: Answer) -> Answer:
    """Answer once the event is set."""

    async def late(exchange: Exchange) -> None:
        await event.wait()
        await answer(exchange)

    return late


def then_close(answer: Answer) -> Answer:
    """Answer as if the connection were kept, then close it."""

    async def both(exchange: Exchange) -> None:
        await answer(exchange)
        exchange.close()

    return both


@dataclass
class RawServer:
    """
    A server on a loopback port, scripted per request.

    The n-th request gets the n-th answer, every further one the last. Used as ``async with``; with
    ``listening=False`` the port refuses connections until ``listen`` is called.
    """

    answers: list[Answer]
    """What to do, request by request."""
    listening: bool = True
    """Whether connections are accepted from the beginning."""
    tls: ssl.SSLContext | None = None
    """Makes it https."""
    requests: list[Seen] = field(default_factory=list)
    """What arrived, in order."""
    in_flight: int = 0
    """Requests that wait for their answer now."""
    most_in_flight: int = 0
    """The highest that number has been."""
    connections: int = 0
    """Connections accepted in all."""

    def __post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        """Accept connections from now on."""
        self._server = await asyncio.start_server(self._accepted, sock=self.socket, ssl=self.tls)

    async def __aenter__(self) -> Self:
        if self.listening:
            await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.socket.close()

    @property
    def open_connections(self) -> int:
        """Connections that neither side has ended."""
        return len(self._open)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait at most 15 s until something about this server holds."""
        async with asyncio.timeout(15):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    @property
    def methods(self) -> list[str]:
        """Methods of the requests, in order."""
        return [seen.method for seen in self.requests]

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        number, self.connections = self.connections, self.connections + 1
        try:
            await self._serve(number, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a cancelled handler would be reported as an unhandled exception
        finally:
            self._open.discard(writer)
            self._tasks.discard(task)
            writer.close()
            self._changed.set()

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        rested: float | None = None
        while not writer.is_closing():
            first = await reader.readexactly(1)
            seen = await _read(first, reader, number, None if rested is None else loop.time() - rested)
            answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
            self.requests.append(seen)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self._changed.set()
            try:
                await answer(Exchange(seen, reader, writer))
            finally:
                self.in_flight -= 1
                self._changed.set()
            rested = loop.time()


async def _read(first: bytes, reader: asyncio.StreamReader, connection: int, idle: float | None) -> Seen:
    lines = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, path, headers, body, connection, idle)
