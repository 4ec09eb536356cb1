"""A user's script with a batch, killed by tests at any moment. Arguments: url, key, journal, folder, count, timeout."""

from __future__ import annotations

import asyncio
import sys

from st4sd_async import Client, Config, Launch

SETTLE = 2.0
"""Seconds; longer than any request of the test is on its way."""


def launches(count: int) -> list[Launch]:
    """Return the launches that every process adds."""
    return [
        Launch(
            f"mol / {number}: \u00fc",
            "demo:latest",
            {
                "inputs": [{"filename": "molecules.csv", "content": f"smiles\n{'C' * (1 + number % 9)}O\n"}],
                "metadata": {"number": number},
            },
        )
        for number in range(count)
    ]


async def main(url: str, key: str, journal: str, folder: str, count: int, timeout: float) -> None:
    """Resume the batch and run it to its end."""
    config = Config(settle=SETTLE, poll_interval=0.1, grace=0.5, timeout=timeout)
    async with Client(url, api_key=key, config=config) as client:
        print("ready", flush=True)  # noqa: T201 -- the test may kill it now
        async with client.batch(journal, max_running=None) as batch:
            await batch.add(launches(count))
            async for item in batch.run(outputs=["Energies"], to=folder):
                assert item.error is None, item
            assert batch.counts["collected"] == count, batch.counts


if __name__ == "__main__":
    url, key, journal, folder, count, timeout = sys.argv[1:]
    asyncio.run(main(url, key, journal, folder, int(count), float(timeout)))
