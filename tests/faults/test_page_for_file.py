"""What a proxy puts in place of a file is never handed on as the file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, DecodeError, DownloadFailed
from st4sd_async.models import Output
from tests.tries import combinations

from .clients import connect
from .gateways import files_in
from .raw import RawServer, head, raw, reply

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = b"<!doctype html><html><body>The proxy is being upgraded</body></html>"
OTHER_TYPES = ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml", "application/json", "text/plain"]
READERS: dict[str, Callable[[Client], Awaitable[Output]]] = {
    "client.output": lambda client: client.output("demo-1", "Energies"),
    "client.output of a path": lambda client: client.output("demo-1", "Energies", "sub/b.bin"),
    "run.output": lambda client: client.run("demo-1").output("Energies"),
    "client.instances.output": lambda client: client.instances.output("demo-1", "Energies"),
}


@pytest.mark.parametrize(("reader", "media"), combinations(READERS, OTHER_TYPES))
async def test_a_web_page_is_no_key_output(reader: str, media: str) -> None:
    """The service sends a file under one of three types; anything else is refused, and says what came."""
    async with RawServer([reply(200, PAGE, media=media)]) as server, connect(server.url) as client:
        with pytest.raises(DecodeError, match=r"HTML instead of a file|other than the expected file") as caught:
            await READERS[reader](client)

    assert "The proxy is being upgraded" in str(caught.value)


async def test_a_body_without_a_type_is_no_key_output() -> None:
    """The service always names one."""
    answer = raw(head(200, {"Content-Length": str(len(PAGE))}) + PAGE)
    async with RawServer([answer]) as server, connect(server.url) as client:
        with pytest.raises(DecodeError, match="other than the expected file"):
            await client.output("demo-1", "Energies")


@pytest.mark.parametrize(
    "media", ["application/octet-stream", "application/zip", "application/.zip", "APPLICATION/ZIP"]
)
async def test_a_file_may_hold_a_web_page(media: str) -> None:
    """The type decides, not what is in it: a run may well write a report in HTML."""
    async with RawServer([reply(200, PAGE, media=media)]) as server, connect(server.url) as client:
        output = await client.output("demo-1", "Report")

    assert (output.content, output.media_type) == (PAGE, media.lower())
    assert output.is_folder == (media.lower() == "application/zip")


@pytest.mark.parametrize("media", OTHER_TYPES)
async def test_a_download_refuses_what_a_read_refuses(media: str, tmp_path: Path) -> None:
    """Nothing is left on disk."""
    entries: Any = {"Energies": {"filename": "energies.csv", "final": "yes"}}
    answers = [reply(200, entries), reply(200, PAGE, media=media)]
    async with RawServer(answers) as server, connect(server.url) as client:
        (outcome,) = await client.download_outputs("demo-1", tmp_path / "target")

    assert isinstance(outcome, DownloadFailed)
    assert isinstance(outcome.error, DecodeError)
    assert files_in(tmp_path) == {}
