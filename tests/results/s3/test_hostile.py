"""A bucket whose service lies: about sizes, about what is in a folder, about the same key twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import anyio
import anyio.lowlevel
import pytest

from st4sd_async import Client, Download, DownloadFailed, RetryPolicy, Run, S3Store
from st4sd_async._results import buckets
from st4sd_async.local import LocalServer, Reply
from tests.faults.raw import Answer, Exchange, RawServer, head
from tests.results.s3.storage import Storage, demo
from tests.tries import sample

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.slow]  # the service is slow where the machine is

ROOT = "workflow_instances/results"
"""The folder of the demo's second key-output."""
STAMP = {"ETag": '"1"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"}
JSON = {"Content-Type": "application/json"}
Listing = Sequence[tuple[str, int]]


def listing(objects: Listing) -> bytes:
    """The answer to a request for a list."""
    items = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>1</ETag>"
        f"<LastModified>2026-11-22T10:00:00.000Z</LastModified></Contents>"
        for key, size in objects
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()


def bucket(objects: Listing, contents: Mapping[str, bytes]) -> Answer:
    """A service that lists these objects, whatever is asked for, and has these contents by the ends of their keys."""

    async def answer(exchange: Exchange) -> None:
        path, _, query = exchange.seen.path.partition("?")
        found = next((data for key, data in contents.items() if path.endswith(key)), None)
        if "list-type" in query:
            body = listing(objects)
            await exchange.send(head(200, {"Content-Length": str(len(body)), "Content-Type": "application/xml"}) + body)
        elif found is None:
            await exchange.send(head(404, {"Content-Length": "0"}))
        else:
            await exchange.send(head(200, {"Content-Length": str(len(found)), **STAMP}))
            if exchange.seen.method == "GET":
                await exchange.send(found)

    return answer


async def fetched(client: Client, run: Run, storage: Storage, to: Path, answer: Answer, **more: Any) -> Any:
    """What becomes of the key-outputs at such a service, and what it was asked for."""
    async with RawServer([answer]) as service:
        store = S3Store(credentials=storage.s3(endpoint=service.url))
        found = await client.fetch_s3_outputs(run, to, store=store, **more)
    return found, [one.path for one in service.requests if one.method == "GET" and "list-type" not in one.path]


def files(folder: Path) -> list[Path]:
    """All files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


class Endless:
    """A body that goes on and on."""

    def __init__(self, promised: int) -> None:
        self.promised = promised
        self.sent = 0

    async def __call__(self, exchange: Exchange) -> None:
        """Promise some bytes in the list, and send as many as are taken."""
        _, _, query = exchange.seen.path.partition("?")
        if "list-type" in query:
            await bucket([(f"{ROOT}/file", self.promised)], {})(exchange)
        elif exchange.seen.method == "HEAD":
            await exchange.send(head(404, {"Content-Length": "0"}))
        else:
            await exchange.send(head(200, {"Content-Length": str(600 << 20), **STAMP}))
            for _ in range(600):
                await exchange.send(bytes(1 << 20))
                self.sent += 1 << 20
                await anyio.lowlevel.checkpoint()


async def test_a_body_is_cut_at_the_size_that_was_promised(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """Of 600 MB for 10 bytes next to nothing is taken, and nothing is stored."""
    run = await demo(client, server, None)
    body = Endless(10)

    found, _ = await fetched(client, run, storage, tmp_path, body, names="Folder")

    (failed,) = found
    assert isinstance(failed, DownloadFailed)
    assert "has 10 bytes in the list, and more were sent" in str(failed.error)
    assert body.sent < 64 << 20
    assert files(tmp_path) == []


OUTSIDE = ["secret", "workflow_instances/other/x", f"{ROOT}.bak/x", f"{ROOT}x", "x/workflow_instances/results/y"]


@pytest.mark.parametrize("key", sample(OUTSIDE, 3))
async def test_a_key_that_is_not_in_the_folder_is_refused(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path, key: str
) -> None:
    """It is never asked for; what is in the folder is there."""
    run = await demo(client, server, None)
    answer = bucket([(key, 4), (f"{ROOT}/good", 4)], {key: b"evil", f"{ROOT}/good": b"good"})

    found, asked = await fetched(client, run, storage, tmp_path, answer, names="Folder")

    (failed,) = (one for one in found if isinstance(one, DownloadFailed))
    assert "but its key is outside of it: it was not fetched" in str(failed.error)
    assert repr(key) in str(failed.error)
    assert [one.path for one in found if isinstance(one, Download)] == [tmp_path / "Folder/good"]
    assert [path.rpartition("/")[2] for path in asked] == ["good"]


@pytest.mark.parametrize("keys", [("same", "same"), (".st4sd-x", "_.st4sd-x")], ids=["listed twice", "reserved"])
async def test_two_keys_for_one_file_are_an_error(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """Neither is taken for the other; the others are there."""
    run = await demo(client, server, None)
    contents = {f"{ROOT}/{key}": key.encode() for key in (*keys, "good")}
    answer = bucket([(f"{ROOT}/{key}", len(key)) for key in (*keys, "good")], contents)

    found, _ = await fetched(client, run, storage, tmp_path, answer, names="Folder")

    assert [one.path.name for one in found if isinstance(one, Download)] == ["good"]
    errors = [str(one.error) for one in found if isinstance(one, DownloadFailed)]
    assert len(errors) == 2
    assert all("there are several objects for this file" in error for error in errors)


@pytest.mark.usefixtures("blind")
async def test_of_keys_that_the_disk_does_not_distinguish_the_second_is_a_failure(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """It names the first, which is there, and it is not asked for; so it is the next time."""
    run = await demo(client, server, None)
    contents = {f"{ROOT}/Sub/x": b"1", f"{ROOT}/good": b"2", f"{ROOT}/sub/X": b"3"}
    answer = bucket([(key, 1) for key in contents], contents)

    for expected in (["good", "x"], []):
        found, asked = await fetched(client, run, storage, tmp_path, answer, names="Folder")

        assert [type(one) for one in found] == [Download, Download, DownloadFailed]
        assert "'Folder/sub/X' would be in the same place as 'Folder/Sub/x'" in str(found[-1].error)
        assert sorted(path.rpartition("/")[2] for path in asked) == expected
    assert (tmp_path / "folder/sub/x").read_bytes() == b"1"


async def test_a_key_of_ours_gets_another_name(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """The manifest stays, and nothing is fetched again."""
    run = await demo(client, server, storage.store())
    storage.put(f"{ROOT}/.st4sd-downloads.jsonl", b"forged")
    storage.put(f"{ROOT}/.ST4SD-x.part/y", b"forged")

    found = await client.fetch_s3_outputs(run, tmp_path, store=storage.store(), strict=True)
    again = await client.fetch_s3_outputs(run, tmp_path, store=storage.store(), strict=True)

    assert again == found
    places = {one.path.relative_to(tmp_path / "Folder").as_posix() for one in found if "Folder" in one.path.parts}
    assert places == {"_.st4sd-downloads.jsonl", "_.ST4SD-x.part/y", "sub/b.bin", "summary.json"}


@pytest.mark.parametrize("size", [100, 0], ids=["objects", "empty pages"])
async def test_a_list_without_end_is_an_error(
    client: Client,
    server: LocalServer,
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    """Of memory and of time no more is taken than some."""
    monkeypatch.setattr(buckets, "MAX_LISTED_OBJECTS", 1000)
    hasty = client.with_options(timeout=1, retry=RetryPolicy(attempts=1, total=1))

    async def answer(exchange: Exchange) -> None:
        if "list-type" not in exchange.seen.path:
            await exchange.send(head(404, {"Content-Length": "0"}))
            return
        more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
        body = listing([(f"{ROOT}/{number}", 1) for number in range(size)])
        body = body.replace(b"<IsTruncated>false</IsTruncated>", more)
        await anyio.sleep(0.0 if size else 0.02)
        await exchange.send(head(200, {"Content-Length": str(len(body)), "Content-Type": "application/xml"}) + body)

    run = await demo(client, server, None)
    found, asked = await fetched(hasty, run, storage, tmp_path, answer, names="Folder")

    (failed,) = found
    assert isinstance(failed, DownloadFailed)
    told = "lists more than 1000 objects" if size else "returned nothing for 2 s"
    assert told in str(failed.error)
    assert asked == []


async def test_folders_that_a_console_noted_are_no_files(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """Empty objects whose keys end in a slash; an empty file is one."""
    run = await demo(client, server, storage.store())
    for key in ("", "sub/", "sub/empty"):
        storage.put(f"{ROOT}/{key}", b"")

    found = await client.fetch_s3_outputs(run, tmp_path, store=storage.store(), names="Folder", strict=True)

    assert [one.path.relative_to(tmp_path / "Folder").as_posix() for one in found] == [
        "sub/b.bin",
        "sub/empty",
        "summary.json",
    ]


@pytest.mark.parametrize("path", ["", "/", None])
async def test_a_key_output_without_a_file_is_not_the_folder_of_all(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path, path: str | None
) -> None:
    """What other runs have uploaded there is not fetched."""
    run = await demo(client, server, None)
    entries = {"Folder": {"filename": "", "filepath": path}}
    server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, json.dumps(entries).encode()))
    key = "workflow_instances/of another run"
    answer = bucket([(key, 1)], {key: b"1"})

    (failed,), asked = await fetched(client, run, storage, tmp_path, answer)

    assert "the service does not name the file of the key-output 'Folder'" in str(failed.error)
    assert (asked, files(tmp_path)) == ([], [])


@pytest.mark.parametrize("folder", sample(["a b", "漢字", "ü#?&+=", "100%", "a~b*'()!"], 3))
async def test_a_folder_of_any_name_holds_what_is_in_it(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path, folder: str
) -> None:
    """No honest key is refused."""
    store = storage.store(folder)
    run = await demo(client, server, store)

    found = await client.fetch_s3_outputs(run, tmp_path, store=store, strict=True)

    assert [one.path.relative_to(tmp_path).as_posix() for one in found] == [
        "Energies/energies.csv",
        "Folder/sub/b.bin",
        "Folder/summary.json",
    ]
