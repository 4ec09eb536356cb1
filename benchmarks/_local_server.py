"""
The embedded server with runs of one experiment, or a bare ASGI application; prints where it listens in JSON.

    python benchmarks/_local_server.py embedded RUNS [FOLDER]
    python benchmarks/_local_server.py bare

With FOLDER, the experiment is the package in it, a git repository. For each line of its standard input it prints the
seconds of processor time that its process has used; it exits at the end of the input.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import httpx

from st4sd_async.local import LocalServer
from st4sd_async.local.http.listener import Connections, Listener

NAME, MOLECULES = "demo", "index,smiles\n0,C\n"
BODY = b'{"experiment-state": "running"}' + b" " * 1800
"""What the bare application responds; as long as the status of a run."""


def _definition(server: LocalServer, folder: str | None) -> dict[str, Any]:
    if folder is None:
        return server.example("demo")
    return {
        "base": {"packages": [{"source": {"git": {"location": {"url": f"file://{folder}", "branch": "main"}}}}]},
        "metadata": {"package": {"name": NAME}},
    }


def _answer() -> None:
    """Print the processor time for each line of the input."""
    for _ in sys.stdin:
        sys.stdout.write(f"{time.process_time()}\n")
        sys.stdout.flush()


def _announce(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def serve_embedded(runs: int, folder: str | None) -> None:
    """Push the experiment, populate its runs, and serve."""
    with LocalServer(speed=0) as server:
        web = httpx.Client(base_url=f"{server.url}/rs", headers={"Authorization": f"Bearer {server.api_key}"})
        began = time.perf_counter()
        pushed = web.post("/experiments/", json=_definition(server, folder)).raise_for_status()
        seconds = time.perf_counter() - began
        web.close()
        inputs = pushed.json()["result"]["metadata"]["registry"]["inputs"]
        start = {"inputs": [{"filename": entry["name"], "content": MOLECULES} for entry in inputs]}
        run = server.populate(NAME, runs)[0]
        _announce(url=server.url, key=server.api_key, run=run, push=seconds, start=start)
        _answer()


async def _bare(scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def serve_bare() -> None:
    """Serve an application that does nothing, on the listener of the embedded server."""
    listener = Listener(_bare, Connections(), None)
    listener.start()
    _announce(url=f"http://127.0.0.1:{listener.port}", key="", run="run", push=0.0, start={})
    _answer()
    listener.stop()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        serve_bare()
    else:
        serve_embedded(int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
