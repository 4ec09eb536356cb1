"""
The embedded server with runs that are over; prints its address, its key and the rest-uids in JSON.

    python benchmarks/_tables_server.py RUNS LINES

Each run has measured two rows, and has a log with so many lines as the key-output ``Log``. It exits at the end of its
standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys

from st4sd_async import Client
from st4sd_async.local import LocalServer

NAME = "table"
TABLE = "input-id;energy;weight;converged\na;-7.5;46.069;True\nb;-4.25;32.042;False\n"


async def push(server: LocalServer, lines: int) -> None:
    """Add the experiment."""
    log = "".join(
        f"step {step:6} energy {-step / 7:14.6f} force {step / 3:12.4f} time {step}\n" for step in range(lines)
    )
    spec = {"propertiesSpec": [{"name": name} for name in ("energy", "weight", "converged")]}
    server.describe(NAME, outputs={"Log": log.encode()}, properties=TABLE, interface=spec)
    location = {"url": f"https://git.example/{NAME}.git", "tag": "1"}
    base = {"packages": [{"source": {"git": {"location": location}}}]}
    async with Client(server.url, api_key=server.api_key) as client:
        await client.push({"base": base, "metadata": {"package": {"name": NAME}}, "parameterisation": {}})


if __name__ == "__main__":
    with LocalServer(speed=0) as server:
        asyncio.run(push(server, int(sys.argv[2])))
        runs = server.populate(NAME, int(sys.argv[1]))
        sys.stdout.write(json.dumps({"url": server.url, "key": server.api_key, "runs": runs}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
