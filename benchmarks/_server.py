"""
A server that responds to every request with the same instance, after a fixed delay; prints its port.

    python benchmarks/_server.py DELAY [ITEMS SHARE]

With ITEMS, its list of instances has that many, of which SHARE (0-1) differ from the list before.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import cycle
from typing import Any

META = {
    "arguments": "elaunch.py -i /tmp/inputs/input/molecules.csv --registerWorkflow=y " + "-mname:value " * 30,
    "data": ["/tmp/inputs/data/extra.txt"],
    "hybridPlatform": None,
    "inputs": ["/tmp/inputs/input/molecules.csv"],
    "instanceName": "demo-c52cd4-2026-11-22T100507.603242.instance",
    "pid": 16671,
    "platform": "default",
    "userMetadata": {"campaign": "demo", "rest-uid": "demo-c52cd4-76k4hf87", "st4sd-package-name": "demo"},
    "userVariables": {"global": {"delay": "3", "greeting": "bonjour"}},
    "variables": {"global": {"delay": "3"}, "stage": {str(i): {"delay": "3", "greeting": "hi"} for i in range(16)}},
    "version": "2.7.0",
}
STATUS = {
    "experiment-state": "running",
    "stage-state": "running",
    "stages": ["stage0", "stage1"],
    "current-stage": "stage1",
    "exit-status": "N/A",
    "meta": META,
    "total-progress": 0.5,
    "stage-progress": 0.5,
    "error-description": "",
}
EXPERIMENT = {
    "base": {"packages": [{"name": "main", "source": {"git": {"location": {"tag": "1.0.0", "url": "file:///demo"}}}}]},
    "metadata": {
        "package": {"name": "demo", "tags": ["latest"], "description": "Computes the properties of molecules. " * 5},
        "registry": {
            "digest": f"sha256x{'0123456789abcdef' * 3}",
            "inputs": [{"name": f"input{i}.csv"} for i in range(10)],
            "executionOptionsDefaults": {
                "variables": [
                    {"name": f"variable{i}", "valueFrom": [{"value": "3", "platform": "default"}]} for i in range(20)
                ]
            },
        },
    },
}
OUTPUT = {"creationtime": "1795341529.33", "filepath": "stages/stage1/Cat/out.stdout", "final": "yes", "version": "1"}


def lists(count: int, share: float) -> list[bytes]:
    """Return two lists of that many instances of 5 KB, which differ in a share of them."""

    def item(index: int, progress: float) -> dict[str, Any]:
        status = {**STATUS, "total-progress": progress if index < share * count else 0.5}
        outputs = {f"Output{i}": OUTPUT for i in range(5)}
        return {"id": f"demo-{index:08}", "experiment": EXPERIMENT, "status": status, "outputs": outputs}

    return [json.dumps([item(index, progress) for index in range(count)]).encode() for progress in (0.5, 0.6)]


def _reply(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


INSTANCE = {"id": "demo-c52cd4-76k4hf87", "status": STATUS, "outputs": {}, "experiment": {}}
SERVICES = {"consumable-computing": "http://127.0.0.1/rs", "cdb-rest": "http://127.0.0.1/cdb"}
REPLIES = {
    kind: cycle([_reply(json.dumps(value).encode())])
    for kind, value in ((b"status", STATUS), (b"url-map", SERVICES), (b"", INSTANCE))
}
"""Part of a path -> its responses, used alternately; the first match counts."""


class Answering(asyncio.Protocol):
    """Handles requests without a body, one after the other on each connection."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1]
            reply = next(next(replies for kind, replies in REPLIES.items() if kind in target))
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._transport.write, reply)
            else:
                self._transport.write(reply)


async def _serve(delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Answering(delay), "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    delay, *list_options = map(float, sys.argv[1:])
    if list_options:
        count, share = list_options
        REPLIES[b""] = cycle(_reply(body) for body in lists(int(count), share))
    asyncio.run(_serve(delay))
