"""
A loopback port that serves an ASGI application from its own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HOST = "127.0.0.1"
START_TIMEOUT = 20.0
"""Timeout of the start of the server, in seconds."""
STOP_TIMEOUT = 10.0
"""Timeout of the end of its thread, in seconds. The thread does not wait for clients."""
TICK = 0.1
"""Seconds between two ticks of uvicorn's main loop. uvicorn's code assumes 0.1 s."""
IDLE_TIMEOUT = 65
"""Seconds until an idle connection is closed."""


class Connections:
    """The open connections by client address."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}

    def protocol(self) -> type[asyncio.Protocol]:
        """Return a protocol class for uvicorn that records connections here."""
        transports = self._open

        class Recorded(H11Protocol):
            """The HTTP/1.1 protocol of uvicorn, which also records open connections."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
                """Record the connection."""
                self._peer = tuple(transport.get_extra_info("peername")[:2])
                transports[self._peer] = transport
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                """Remove the connection."""
                transports.pop(self._peer, None)
                super().connection_lost(exc)

        return Recorded

    def is_open(self, peer: tuple[str, int]) -> bool:
        """Return whether the connection to a client is open."""
        return peer in self._open

    def close(self, peer: tuple[str, int], *, abort: bool) -> None:
        """Close a connection, either at once (`abort`) or after the bytes that were already written."""
        transport = self._open.get(peer)
        if transport is not None and abort:
            transport.abort()
        elif transport is not None:
            transport.close()

    def abort_all(self) -> None:
        """Abort all connections."""
        for transport in list(self._open.values()):
            transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections
        self.ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        # uvicorn's own loop checks only every 0.1 s whether to stop, which adds up in a test suite.
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), TICK)

    def stop(self) -> None:
        """Stop the server. Called from another thread."""
        self.should_exit = True
        self.force_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is already closed
                self._loop.call_soon_threadsafe(self._stopped.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn would wait for clients, and at least 0.1 s; this aborts their connections.
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        self._connections.abort_all()


class Listener:
    """An HTTP server on a loopback port, which is bound in the constructor. Stopping does not wait for clients."""

    def __init__(self, application: ASGIApp, connections: Connections, certificate: Path | None, port: int = 0) -> None:
        # asyncio sets TCP_NODELAY only if the protocol is explicit. Without it, each response takes 40 ms longer.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError as error:
            self._socket.close()
            problem = f"cannot listen on {HOST}:{port}: {error.strerror}; choose another port, or 0 for a free one"
            raise OSError(error.errno, problem) from error
        self.port: int = self._socket.getsockname()[1]
        options: dict[str, Any] = {"ssl_certfile": str(certificate)} if certificate else {}
        config = uvicorn.Config(
            application,
            http=connections.protocol(),
            ws="none",
            lifespan="off",
            interface="asgi3",
            loop="asyncio",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_TIMEOUT,
            **options,
        )
        self._server = _Server(config, connections)
        self._thread = threading.Thread(target=self._run, name="st4sd-local", daemon=True)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        self._thread.start()
        if not self._server.ready.wait(START_TIMEOUT):
            self.stop()
            raise RuntimeError(f"the embedded server did not start within {START_TIMEOUT} s")

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        """Stop the server and its thread, and abort open connections."""
        self._server.stop()
        self._thread.join(STOP_TIMEOUT)
        self._socket.close()
