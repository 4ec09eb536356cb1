"""A server that answers every request with the same finished instance, after a fixed delay; prints its port."""

from __future__ import annotations

import asyncio
import json
import sys

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


def _reply(value: object) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


REPLIES = {
    b"status": _reply(STATUS),
    b"instance": _reply({"id": "demo-c52cd4-76k4hf87", "status": STATUS, "outputs": {}, "experiment": {}}),
    b"url-map": _reply({"consumable-computing": "http://127.0.0.1/rs", "cdb-rest": "http://127.0.0.1/cdb"}),
}


class Answering(asyncio.Protocol):
    """Answers requests without a body, one after the other on each connection."""

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
            kind = next((kind for kind in (b"status", b"url-map") if kind in target), b"instance")
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._transport.write, REPLIES[kind])
            else:
                self._transport.write(REPLIES[kind])


async def _serve(delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Answering(delay), "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
