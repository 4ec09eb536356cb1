"""Files that are read while something breaks: what comes is whole, or an error of ours, and fills no memory."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import DownloadError, St4sdError
from st4sd_async.local import LocalServer
from tests.tries import sample

from .answers import BROKEN, patience
from .gateways import archive, gateway, register
from .raw import RawServer, close
from .scenes import COMPUTE, Scene, assert_ours_or_system, staged

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_an_archive_of_more_than_was_asked_for_does_not_fill_the_memory(scene: Scene) -> None:
    """A limit on a file is a limit on what is kept of the answer to it."""
    scene.write("a.txt")
    zeros = b"\0" * 1_000_000
    answer = archive(lambda members: [*members, *((f"/{n}", zeros) for n in range(60))])
    async with gateway(scene.server, answer):
        tracemalloc.start()
        with suppress(DownloadError):
            await scene.client.read_file(scene.run, f"{COMPUTE}/a.txt", limit=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 20_000_000


FIRST, *OTHERS = BROKEN  # a sample that begins with the second, because `test_downloads_broken` begins with the first


@pytest.mark.parametrize("broken", sample([*OTHERS, FIRST], 14))
async def test_a_file_is_not_read_from_a_broken_answer(shared_server: LocalServer, broken: str, tmp_path: Path) -> None:
    """What comes is whole, or an error of ours comes."""
    async with staged(shared_server, tmp_path, timeout=patience(broken)) as scene:
        content = scene.write("a.txt", b"abc\n" * 500).read_bytes()
        answer = BROKEN[broken]
        async with RawServer([answer or close()], listening=answer is not None) as bad:
            register(scene.server, bad.url)
            try:
                assert await scene.client.read_file(scene.run, f"{COMPUTE}/a.txt") == content
            except St4sdError as error:
                assert_ours_or_system(error)
            else:
                pytest.fail("it was read")
        gc.collect()


ADDRESSES: list[Any] = ["", "nonsense", "ftp://127.0.0.1", "//", "http://", "http://a b/", "http://a\nb/", 7, None, {}]
ADDRESSES += ["http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:x", "http://user:word@127.0.0.1:1"]


@pytest.mark.parametrize("address", sample(ADDRESSES, 7), ids=repr)
async def test_a_registry_with_invalid_addresses(scene: Scene, address: Any) -> None:
    """It is an error of ours, of each file."""
    register(scene.server, address)

    with pytest.raises(St4sdError):
        await scene.client.read_file(scene.run, "output/experiment.log")
    with pytest.raises(St4sdError):
        await scene.files(strict=True)
    with pytest.raises(St4sdError):
        await scene.client.download_component(scene.run, 1, "Report", scene.target, strict=True)

    scene.check("files")
