"""
A service with many instances that fails on demand, for `bench_scale.py`; prints its port.

    python benchmarks/_scale_server.py OPTIONS

OPTIONS are the fields of `Options` in JSON. ``POST /set`` changes some of them, and ``/tally`` returns the counts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from _server import EXPERIMENT, STATUS
from _start_server import FINAL, LENGTH

PIECE = 500
"""Items of the list that are written at once."""
PAGE = b"<html><body><h1>504 Gateway Time-out</h1></body></html>"
BROKEN = b'[{"id": "demo-c52cd4-00000000", "status": {"experiment-state": "runn'
KILLED = {**STATUS, "experiment-state": "failed", "stage-state": "failed", "exit-status": ""}
"""What only a request for the run shows, never the list."""
SMALL, ENDED = ({key: value for key, value in status.items() if key != "meta"} for status in (STATUS, FINAL))
PAST, LIVE, NEW = "demo-000000", "demo-111111", "demo-c52cd4"
"""How the ids of old, running and started instances begin; all ids have the same length."""
HEAD, ID_LENGTH = b'{"id": "', 20


def uids(kind: str, count: int) -> Iterator[str]:
    """Yield the ids of that many instances."""
    return (f"{kind}-{index:08}" for index in range(count))


@dataclass
class Options:
    """What the service has, and how it fails."""

    old: int = 0
    """Instances that ended long ago."""
    runs: int = 0
    """Instances that run and never change."""
    item_bytes: int = 0
    """Length of an item of the list; 0: as short as it can be."""
    lists: list[str] = field(default_factory=lambda: ["ok"])
    """What the lists are, one after the other: "ok", "504", "html" or "broken"; the last one is repeated."""
    list_delay: float = 0.0
    """Seconds until the first byte of a list."""
    is_changing: bool = False
    """Whether every item of the list differs from the list before."""
    killed: int = 0
    """Each run with an index divisible by it was killed; 0: none."""
    dropped: int = -1
    """Index of the start whose connection is closed without a response, and which leaves no trace; -1: none."""
    ends_at_once: bool = False
    """Whether runs that are started here succeed at once."""
    is_down: bool = False
    """Whether all requests for runs get 503."""


class Service:
    """State shared by all connections."""

    port = 0

    def __init__(self, options: Options) -> None:
        self.options = options
        self.started: list[str] = []
        self.received = 0
        """Number of starts received."""
        self.counts: Counter[str] = Counter()
        self.looked: set[str] = set()
        """rest-uids that were requested one by one."""
        self.list_times: list[tuple[float, float]] = []
        """When each list was requested, and when it was written."""
        self.first_start: float | None = None

    def tally(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "counts": self.counts,
            "looked": len(self.looked),
            "lists": self.list_times,
            "started": len(self.started),
            "first_start": self.first_start,
            "cpu_s": time.process_time(),
        }

    def next_list(self) -> str:
        """Return what the next list is."""
        index = min(self.counts["list"], len(self.options.lists)) - 1
        return self.options.lists[index]

    def items(self) -> tuple[int, Iterator[bytes]]:
        """Return the length of the list in bytes, and its pieces."""
        options = self.options
        turn = self.counts["list"] % 2 if options.is_changing else 0
        running, final = _tail(SMALL, options, turn), _tail(ENDED, options, turn)
        groups = [
            (uids(PAST, options.old), options.old, final),
            (uids(LIVE, options.runs), options.runs, running),
            (iter(self.started[:]), len(self.started), final if options.ends_at_once else running),
        ]
        count = sum(count for _, count, _ in groups)
        length = sum((len(HEAD) + ID_LENGTH + len(tail)) * count for _, count, tail in groups)
        return length + 2 * max(1, count), _pieces([(ids, tail) for ids, _, tail in groups])

    def status(self, rest_uid: str) -> dict[str, Any]:
        """Return the status of a run."""
        self.looked.add(rest_uid)
        kind, _, index = rest_uid.rpartition("-")
        if kind == PAST or (kind == NEW and self.options.ends_at_once):
            return FINAL
        is_killed = kind == LIVE and self.options.killed and int(index) % self.options.killed == 0
        return KILLED if is_killed else STATUS


def _tail(status: dict[str, Any], options: Options, turn: int) -> bytes:
    """Return an item without its id, filled up with the definition of an experiment."""
    rest: dict[str, Any] = {"status": {**status, "stage-progress": turn / 10}, "outputs": {}, "experiment": {}}
    if options.item_bytes:
        rest["status"]["meta"] = STATUS["meta"]
        rest["experiment"] = {**EXPERIMENT, "description": ""}
        missing = options.item_bytes - len(json.dumps(rest))
        rest["experiment"]["description"] = "x" * max(0, missing)
    return b'"' + json.dumps(rest).replace("{", ", ", 1).encode()


def _pieces(groups: list[tuple[Iterator[str], bytes]]) -> Iterator[bytes]:
    """Yield the bytes of a list."""
    yield b"["
    piece: list[bytes] = []
    is_first = True
    for ids, tail in groups:
        for rest_uid in ids:
            piece.append((b"" if is_first else b", ") + HEAD + rest_uid.encode() + tail)
            is_first = False
            if len(piece) == PIECE:
                yield b"".join(piece)
                piece.clear()
    yield b"".join(piece) + b"]"


class Serving(asyncio.Protocol):
    """Handles requests, one after the other on each connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, _: Exception | None) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        length = int(found[1]) if found else 0
        if end and len(rest) >= length:
            self._buffer = rest[length:]
            method, path = head.decode().split(" ", 2)[:2]
            self._take(method, path, rest[:length])

    def _take(self, method: str, path: str, body: bytes) -> None:
        service = self._service
        if path == "/set":
            for name, value in json.loads(body).items():
                setattr(service.options, name, value)
            self._send(b"{}")
        elif path == "/tally":
            self._send(json.dumps(service.tally()).encode())
        elif path.endswith("/start"):
            self._start()
        elif path.endswith("/instances/"):
            self._list()
        elif path.endswith("/status"):
            service.counts["status"] += 1
            if service.options.is_down:
                self._send(PAGE, 503)
            else:
                self._send(json.dumps(service.status(path.split("/")[-2])).encode())
        elif method == "POST":
            self._send(b"[]")  # a query of the datastore
        else:
            url = f"http://127.0.0.1:{service.port}"
            self._send(json.dumps({"consumable-computing": f"{url}/rs", "cdb-rest": f"{url}/cdb"}).encode())

    def _start(self) -> None:
        service = self._service
        service.received += 1
        service.counts["start"] += 1
        if service.first_start is None:
            service.first_start = time.monotonic()
        if service.received - 1 == service.options.dropped:
            self._transport.close()
            return
        service.started.append(f"{NEW}-{len(service.started):08}")
        self._send(json.dumps(service.started[-1]).encode())

    def _list(self) -> None:
        service = self._service
        service.counts["list"] += 1
        kind = "504" if service.options.is_down else service.next_list()
        if kind == "ok":
            task = asyncio.get_running_loop().create_task(self._stream())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == "broken":
            self._send(BROKEN)
        else:
            self._send(PAGE, 504 if kind == "504" else 200, b"text/html")

    async def _stream(self) -> None:
        service, began = self._service, time.monotonic()
        length, pieces = service.items()
        await asyncio.sleep(service.options.list_delay)
        self._transport.write(_head(200, b"application/json", length))
        for piece in pieces:
            self._transport.write(piece)
            await self._may_write.wait()
            if self._transport.is_closing():
                return
        service.list_times.append((began, time.monotonic()))

    def _send(self, body: bytes, status: int = 200, kind: bytes = b"application/json") -> None:
        self._transport.write(_head(status, kind, len(body)) + body)


def _head(status: int, kind: bytes, length: int) -> bytes:
    return b"HTTP/1.1 %d Reply\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, kind, length)


async def _serve(service: Service) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Serving(service), "127.0.0.1", 0, backlog=512)
    service.port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"{service.port}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Service(Options(**json.loads(sys.argv[1])))))
