"""
The embedded server with runs that are over; prints its address and the paths of their files in JSON.

    python benchmarks/_results_server.py RUNS

It exits at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from st4sd_async import Client
from st4sd_async.local import LocalServer


async def _runs(server: LocalServer, count: int) -> list[dict[str, Any]]:
    """Return the ids and folders of that many runs of the example, which are over."""
    async with Client(server.url, api_key=server.api_key) as client:
        await client.push(server.example("demo"))
        runs = server.populate("demo", count, "success")
        documents = [await client.datastore.document(run) for run in runs]
    return [
        {"run": run, "instance": document.instance, "folder": str(server.directory(run))}
        for run, document in zip(runs, documents, strict=True)
    ]


if __name__ == "__main__":
    with LocalServer(speed=0) as server:
        runs = asyncio.run(_runs(server, int(sys.argv[1])))
        sys.stdout.write(json.dumps({"url": server.url, "key": server.api_key, "runs": runs}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
