"""A relay in front of the embedded server, so that the server seems to stop and start while its runs go on."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

BUFFER = 65536


class Relay:
    """Forwards connections to a server until it is stopped: then they are refused, as by a machine without a server."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", urlsplit(url).port)
        self._port = 0
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._is_held = False

    @property
    def url(self) -> str:
        """Its address, the same after each start."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Accept connections."""
        self._is_held = False
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and break those that are open."""
        listener, self._listener = self._listener, None
        for one in (*([listener] if listener else []), *self._open):
            self._break(one)

    def hold(self) -> None:
        """Accept connections and leave requests unanswered, until `start` after a `stop`."""
        self._is_held = True
        for one in list(self._open):
            self._break(one)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = listener.accept()
                self._open.add(ours)
                if self._is_held:
                    continue
                theirs = socket.create_connection(self._target)
                self._open.add(theirs)
                for ends in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(BUFFER):
                target.sendall(data)
        self._break(source)
        self._break(target)

    def _break(self, one: socket.socket) -> None:
        self._open.discard(one)
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
