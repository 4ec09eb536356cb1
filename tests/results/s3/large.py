"""A process of its own that brings files to a bucket and back, and prints how high its memory was after each."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import sys
import time
from pathlib import Path

from st4sd_async import S3, Client, Download, S3Store

MIB = 1 << 20


def write(path: Path, mebibytes: int) -> str:
    """Make a file of bytes that repeat only after a mebibyte; its digest."""
    digest, block = hashlib.sha256(), hashlib.sha512(b"block").digest() * (MIB // 64)
    with path.open("wb") as file:
        for number in range(mebibytes):
            piece = number.to_bytes(8, "big") + block[8:]
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


async def main(url: str, key: str, rest_uid: str, bucket: S3, folder: Path, sizes: list[int]) -> None:
    """Replace the first key-output of a run by files of some sizes, one after the other, and fetch it."""
    async with Client(url, api_key=key) as client:
        for size in sizes:
            digest = write(folder / "energies.csv", size)
            before = time.monotonic()
            await client.stage_inputs([folder / "energies.csv"], bucket, prefix="workflow_instances")
            up = time.monotonic()
            store = S3Store(credentials=bucket)
            (found,) = await client.fetch_s3_outputs(rest_uid, folder / "back", store=store, names="Energies")
            down = time.monotonic()
            assert isinstance(found, Download)
            assert (found.sha256, found.size) == (digest, size * MIB)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(size, peak, round(up - before, 2), round(down - up, 2), flush=True)  # noqa: T201 -- it is read


if __name__ == "__main__":
    url, key, rest_uid, bucket, folder, *sizes = sys.argv[1:]
    asyncio.run(main(url, key, rest_uid, S3.model_validate_json(bucket), Path(folder), [int(one) for one in sizes]))
