"""Whatever goes wrong with a bucket, and however its service quotes requests: no secret is shown."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path

import pytest

from st4sd_async import S3, Client, S3Error, S3Store
from st4sd_async.local import LocalServer
from st4sd_async.local.engine.buckets import Bucket
from tests.faults.marks import all_texts, logged, outcome
from tests.faults.raw import Exchange, RawServer, head
from tests.results.s3.storage import KEY_ID, MOLECULES, SECRET, Storage, demo

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.slow]  # the service is slow where the machine is

MARKS = (KEY_ID[:8], SECRET[:8])


def leaks(text: str) -> list[str]:
    """The secrets that stand in a text, whole or cut."""
    return [mark for mark in MARKS if mark in text]


async def quoting(exchange: Exchange, code: str = "SignatureDoesNotMatch") -> None:
    """Refuse as S3 does, with all that was sent: it names the key, and what was signed."""
    body = f"<Error><Code>{code}</Code><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>"
    body += f"<StringToSign>{exchange.seen.headers} {SECRET}</StringToSign></Error>"
    await exchange.send(head(403, {"Content-Length": str(len(body.encode()))}) + body.encode())


@pytest.mark.parametrize("listening", [True, False], ids=["refused", "unreachable"])
async def test_no_secret_in_any_message(
    client: Client,
    server: LocalServer,
    storage: Storage,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    listening: bool,
) -> None:
    """Errors to their last attribute, logs of both sides, reprs, the files of the run, what the service shows of it."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    (tmp_path / "molecules.csv").write_bytes(MOLECULES)
    run = await demo(client, server, storage.store("out"))
    async with RawServer([quoting], listening=listening) as other:
        bucket = storage.s3(endpoint=other.url)
        store = S3Store(credentials=bucket, bucketPath="out")
        refused = await outcome(lambda: client.stage_inputs([tmp_path / "molecules.csv"], bucket))
        found = await client.fetch_s3_outputs(run, tmp_path / "to", store=store)
        strict = await outcome(lambda: client.fetch_s3_outputs(run, tmp_path / "to", store=store, strict=True))
        begun = await client.start("demo", {"inputs": [{"filename": "a/molecules.csv"}], "s3": bucket})
        uploading = await demo(client, server, store)
    staged = await client.stage_inputs([tmp_path / "molecules.csv"], storage.s3())
    shown = [await client.instances.get(one) for one in (run.id, begun.id, uploading.id)]
    documents = await client.datastore.experiments(query={})

    assert isinstance(refused, S3Error)
    assert isinstance(strict, S3Error)
    assert refused.code == ("SignatureDoesNotMatch" if listening else "")
    for thing in (refused, strict, *found, *shown, documents):
        assert leaks(all_texts(thing)) == []
    assert leaks(f"{staged} {staged.as_inputs()} {store} {client} {server} {parsed(bucket)}") == []
    assert leaks(logged(caplog)) == []
    assert leaks("".join(path.read_text(errors="replace") for path in everything(server.directory(run.id)))) == []


def parsed(given: S3) -> Bucket:
    """The bucket as the embedded server keeps it."""
    assert given.secretAccessKey is not None
    return Bucket(given.bucket or "", given.endpoint or "", KEY_ID, given.secretAccessKey.get_secret_value())


def everything(folder: Path | None) -> list[Path]:
    """The files of a run."""
    assert folder is not None
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_no_secret_in_the_word_of_a_service(client: Client, storage: Storage, tmp_path: Path) -> None:
    """What stands where S3 has its word for an error may be anything."""
    (tmp_path / "a").write_bytes(b"a")
    async with RawServer([partial(quoting, code=f"Bad{KEY_ID}")]) as other:
        error = await outcome(lambda: client.stage_inputs([tmp_path / "a"], storage.s3(endpoint=other.url)))

    assert isinstance(error, S3Error)
    assert error.status == 403
    assert leaks(all_texts(error)) == []


async def test_they_did_reach_the_bucket(client: Client, storage: Storage, tmp_path: Path) -> None:
    """The test above hides nothing that was not there; the secret key itself is only signed with."""
    (tmp_path / "a").write_bytes(b"a")
    async with RawServer([quoting]) as other:
        await outcome(lambda: client.stage_inputs([tmp_path / "a"], storage.s3(endpoint=other.url)))

    (seen, *_) = other.requests
    assert KEY_ID in seen.headers["authorization"]
    assert SECRET not in f"{seen}"


async def test_other_programs_settings_do_not_count(
    client: Client, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment says for other programs is neither sent nor followed."""
    for name, value in (
        ("AWS_SESSION_TOKEN", "of-another"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_SKIP_SIGNATURE", "true"),
        ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
    ):
        monkeypatch.setenv(name, value)
    (tmp_path / "a").write_bytes(b"a")
    async with RawServer([quoting]) as other:
        await outcome(lambda: client.stage_inputs([tmp_path / "a"], storage.s3(endpoint=other.url), prefix="p"))

    (seen, *_) = other.requests
    assert (seen.method, seen.path) == ("PUT", f"/{storage.name}/p/a")
    assert seen.headers["authorization"].startswith("AWS4-HMAC-SHA256")
    assert "x-amz-security-token" not in seen.headers
