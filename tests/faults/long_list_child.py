"""A program that watches a few runs of a service with many, and prints what that took: argument is its address."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from pathlib import Path

from st4sd_async import Client, Config

WATCHED = [f"demo-c52cd4-{number:08}" for number in range(10)]


def peak_bytes() -> int:
    """The most memory that this process has had; not that of its parent before it, as ``ru_maxrss`` is."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


async def main(url: str) -> None:
    """Watch until each run has a status."""
    client = Client(url, config=Config(validate=False))
    async with client:
        await client.status(WATCHED[0])
        before, seen = peak_bytes(), set()
        async with aclosing(client.watch_many(WATCHED)) as statuses:
            async for run, _ in statuses:
                seen.add(run.id)
                if len(seen) == len(WATCHED):
                    break
    known = client._poller._reader._list
    print(json.dumps({"grown": peak_bytes() - before, "kept": len(known._wanted) + len(known._others)}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
