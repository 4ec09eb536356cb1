"""However large a file is, little of it is in memory at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from st4sd_async import Client
from st4sd_async.local import LocalServer
from tests.results.s3.conftest import ROOT
from tests.results.s3.storage import KEY_ID, SECRET, Storage, demo
from tests.tries import tries

pytestmark = pytest.mark.slow

SIZES = [24, tries(256, 48)]
"""Mebibytes of the files: the first fills all buffers that there are."""
GROWTH = 16
"""Mebibytes by which the memory may be higher with the second."""


@pytest.mark.anyio
@pytest.mark.timeout(120)
async def test_memory_does_not_grow_with_the_file(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """Up and down, in a process of its own, byte for byte."""
    run = await demo(client, server, storage.store())
    bucket = {"accessKeyID": KEY_ID, "secretAccessKey": SECRET, "bucket": storage.name, "endpoint": storage.url}
    arguments = [server.url, server.api_key, run.id, json.dumps(bucket), str(tmp_path), *map(str, SIZES)]

    done = measured(arguments)

    lines = [line.split() for line in done.splitlines()]
    assert [int(line[0]) for line in lines] == SIZES
    first, second = (int(line[1]) for line in lines)
    assert second - first < GROWTH, done


def measured(arguments: list[str]) -> str:
    """What the process prints."""
    command = [sys.executable, "-m", "tests.results.s3.large", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=100).stdout
