"""
A server that starts runs and responds to each start after a delay; prints its port.

    python benchmarks/_start_server.py DELAY PARALLEL UNTIL

It handles PARALLEL starts at a time (0: all) for DELAY seconds each; others wait. The next start begins when the one
before was due, not when a late timer responded to it, so the limit is PARALLEL / DELAY starts per second. All runs are
running until UNTIL of them were started, and have succeeded from then on. Other requests get a response immediately;
``/tally`` returns the counts.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any

from _server import EXPERIMENT, OUTPUT, SERVICES, STATUS

FINAL = {
    **STATUS,
    "experiment-state": "finished",
    "stage-state": "finished",
    "exit-status": "Success",
    "total-progress": 1.0,
    "stage-progress": 1.0,
}
OUTPUTS = {f"Output{index}": OUTPUT for index in range(5)}
RUNNING_TAIL, FINAL_TAIL = (
    json.dumps({"experiment": EXPERIMENT, "status": status, "outputs": OUTPUTS}).removeprefix("{").encode()
    for status in (STATUS, FINAL)
)
"""The common part of all instances, 5 KB, while they run and when they are over."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Service:
    """State shared by all connections."""

    delay: float
    """Seconds of a start."""
    parallel: int
    """Starts handled at a time; 0: all."""
    until: int
    """Starts after which all runs are over."""
    free: list[float] = field(init=False)
    """When each of them is due, in this order."""
    ids: list[str] = field(default_factory=list)
    """Rest-uids of the runs that were started."""
    in_flight: int = 0
    most: int = 0
    """Maximum number of starts in flight."""
    bodies: set[bytes] = field(default_factory=set)
    """Bodies of the starts."""
    lists: int = 0
    """Number of requests for the list."""

    def __post_init__(self) -> None:
        self.free = [0.0] * self.parallel

    def due(self, now: float) -> float:
        """Return when the response to a start that arrives now is due."""
        if not self.parallel:
            return now + self.delay
        due = max(now, self.free[0]) + self.delay
        heapq.heapreplace(self.free, due)
        return due

    def began(self, body: bytes) -> None:
        """Count a start."""
        self.bodies.add(body)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)

    def started(self) -> bytes:
        """Return a new rest-uid."""
        self.in_flight -= 1
        self.ids.append(f"demo-c52cd4-{len(self.ids):08}")
        return json.dumps(self.ids[-1]).encode()

    def answer(self, path: str) -> bytes:
        """Return the response for a path."""
        if path.endswith("/instances/"):
            self.lists += 1
            return b"[" + b", ".join(map(self._instance, self.ids)) + b"]"
        if path.endswith("/status"):
            return json.dumps(FINAL if self.is_over else STATUS).encode()
        return json.dumps(self.tally() if path == "/tally" else SERVICES).encode()

    def tally(self) -> dict[str, Any]:
        """Return the counts."""
        return {"starts": len(self.ids), "different": len(self.bodies), "most": self.most, "lists": self.lists}

    @property
    def is_over(self) -> bool:
        """Return whether the runs are over."""
        return len(self.ids) >= self.until

    def _instance(self, rest_uid: str) -> bytes:
        return b'{"id": "%s", %s' % (rest_uid.encode(), FINAL_TAIL if self.is_over else RUNNING_TAIL)


class Serving(asyncio.Protocol):
    """Handles requests, one after the other on each connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        length = int(found[1]) if found else 0
        if end and len(rest) >= length:
            self._buffer = rest[length:]
            self._take(head, rest[:length])

    def _take(self, head: bytes, body: bytes) -> None:
        method, path = head.decode().split(" ", 2)[:2]
        if method != "POST":
            self._reply(self._service.answer(path))
            return
        loop = asyncio.get_running_loop()
        self._service.began(body)
        loop.call_at(self._service.due(loop.time()), lambda: self._reply(self._service.started()))

    def _reply(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def _serve(service: Service) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Serving(service), "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Service(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
