"""An invalid bucket is an error before anything is sent; later errors name the file."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from st4sd_async import (
    S3,
    BadRequest,
    Client,
    Config,
    DownloadError,
    DownloadFailed,
    RetryPolicy,
    Run,
    S3Error,
    S3Store,
    Status,
    UnknownOutput,
)
from st4sd_async.local import LocalServer
from tests.faults.raw import Answer, Exchange, RawServer, head, never, reply, reset
from tests.results.s3.storage import MOLECULES, Storage, demo
from tests.tries import sample

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.slow]  # the service is slow where the machine is


@pytest.fixture
def strict_storage(storage: Storage) -> Iterator[Storage]:
    """A bucket in a service that refuses all credentials, during a test."""
    storage.web.post("/moto-api/reset-auth", content=b"0").raise_for_status()
    yield storage
    storage.web.post("/moto-api/reset-auth", content=b"inf").raise_for_status()


@pytest.fixture
async def hasty(server: LocalServer) -> AsyncIterator[Client]:
    """A client that gives up soon on buckets; the deployment is not asked for anything."""
    config = Config(timeout=0.3, retry=RetryPolicy(attempts=1), validate=False)
    async with Client(server.url, api_key=server.api_key, config=config) as opened:
        yield opened


async def over(server: LocalServer, run: Run) -> Status:
    """How it ended, be it that only the cluster knows."""
    await server.advance(10)
    return await run.status()


def below(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder."""
    return sorted(folder.glob(pattern))


async def test_a_break_down_of_the_library_is_an_error_of_the_bucket(
    client: Client, storage: Storage, tmp_path: Path
) -> None:
    """A host that its two halves understand differently makes it panic, with words that quote what was sent."""
    (tmp_path / "a").write_bytes(b"a")

    with pytest.raises(S3Error, match=r"obstore failed \(RustPanic\): is the endpoint a valid URL\?$") as caught:
        await client.stage_inputs([tmp_path / "a"], storage.s3(endpoint="http://0x100000000"), allow_http=True)

    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_clear_text_may_be_asked_for(hasty: Client, tmp_path: Path) -> None:
    """A request is sent then; ``invalid`` is a name that never exists."""
    (tmp_path / "a").write_bytes(b"a")
    bucket = S3.model_validate(
        {"accessKeyID": "k", "secretAccessKey": "s", "bucket": "mine", "endpoint": "http://s3.invalid"}
    )

    with pytest.raises(S3Error, match="cannot be reached"):
        await hasty.stage_inputs([tmp_path / "a"], bucket, allow_http=True)


async def test_refused_credentials(
    client: Client, server: LocalServer, strict_storage: Storage, tmp_path: Path
) -> None:
    """The file is named, and S3's word for it; of outputs, each fails; a run cannot begin, one that began goes on."""
    (tmp_path / "m.csv").write_bytes(MOLECULES)
    run = await demo(client, server, strict_storage.store())

    with pytest.raises(S3Error, match=r"m.csv.*403 InvalidAccessKeyId: the credentials were refused") as caught:
        await client.stage_inputs([tmp_path / "m.csv"], strict_storage.s3())
    found = await client.fetch_s3_outputs(run, tmp_path / "to", store=strict_storage.store())
    begun = await client.start("demo", {"inputs": [{"filename": "m/molecules.csv"}], "s3": strict_storage.s3()})

    assert (caught.value.status, caught.value.code) == (403, "InvalidAccessKeyId")
    assert [type(one) for one in found] == [DownloadFailed, DownloadFailed]
    assert (await run.status()).is_success
    status = await over(server, begun)
    assert "initContainer failure: s3-fetch failed with exit code 1" in (status.error_description or "")


async def test_a_bucket_that_is_not_there(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """Both ways tell it apart from a missing key."""
    (tmp_path / "m.csv").write_bytes(MOLECULES)
    run = await demo(client, server, storage.store())
    other = storage.s3(bucket="nobodys")

    with pytest.raises(S3Error, match="there is no such bucket") as caught:
        await client.stage_inputs([tmp_path / "m.csv"], other)
    (found,) = await client.fetch_s3_outputs(run, tmp_path, store=S3Store(credentials=other), names="Energies")

    assert caught.value.code == "NoSuchBucket"
    assert isinstance(found, DownloadFailed)
    assert isinstance(found.error, S3Error)
    assert found.error.code == "NoSuchBucket"


async def test_a_key_that_is_not_there(client: Client, server: LocalServer, storage: Storage, tmp_path: Path) -> None:
    """A run without its input fails at set-up; an output that was not uploaded fails, and the others are there."""
    failing = await client.start("demo", {"inputs": [{"filename": "no/molecules.csv"}], "s3": storage.s3()})
    status = await over(server, failing)
    run = await demo(client, server, storage.store())
    storage.web.delete(f"/{storage.name}/workflow_instances/energies.csv").raise_for_status()

    found = await client.fetch_s3_outputs(run, tmp_path, store=storage.store(), names=["Energies", "Folder", "None"])

    assert "No such file or directory" in (status.error_description or "")
    assert [type(one).__name__ for one in found] == ["DownloadFailed", "Download", "Download", "DownloadFailed"]
    assert isinstance(found[0], DownloadFailed)
    assert "client.log(run) says why" in str(found[0].error)
    assert isinstance(found[3], DownloadFailed)
    assert isinstance(found[3].error, UnknownOutput)
    assert found[3].error.known == ("Energies", "Folder")
    with pytest.raises(S3Error, match="does not exist"):
        await client.fetch_s3_outputs(run, tmp_path, store=storage.store(), strict=True)


async def test_outputs_that_share_a_place_are_not_taken_for_each_other(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """The service uploads by the last part of the path alone, so that the later one is there."""
    flowir = {
        "components": [{"name": "A", "command": {"executable": "echo"}}],
        "output": {"x": {"data-in": "stage0.A/x/same:copy"}, "y": {"data-in": "stage0.A/y/same:copy"}},
    }
    payload = {"lambdaFlowIR": flowir, "s3Store": S3Store(credentials=storage.s3(), bucketPath="out")}
    run = await client.start_lambda(payload, validate=False)
    await over(server, run)

    found = await client.fetch_s3_outputs(run, tmp_path, store=storage.store("out"))

    assert [str(one.error) for one in found if isinstance(one, DownloadFailed)] == [
        f"'out/same' and the bucket {storage.name!r}: the key-outputs ['{other}'] have the same key, so "
        "it may be one of them: download_outputs() has it"
        for other in ("y", "x")
    ]


async def test_a_service_that_does_not_listen(
    hasty: Client, client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """The endpoint is named as what may be wrong."""
    (tmp_path / "a").write_bytes(b"a")
    async with RawServer([], listening=False) as nobody:
        bucket = storage.s3(endpoint=nobody.url)
        with pytest.raises(S3Error, match=r"/a' .* it cannot be reached: is the endpoint right") as caught:
            await hasty.stage_inputs([tmp_path / "a"], bucket)
        run = await client.start("demo", {"inputs": [{"filename": "in/molecules.csv"}], "s3": bucket})
        status = await over(server, run)

    assert (caught.value.status, caught.value.code) == (None, "")
    assert "s3-fetch failed with exit code 1" in (status.error_description or "")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(never(), "it did not respond in time", id="silent"),
        pytest.param(reset(), "the connection broke", id="reset"),
        pytest.param(reply(500, b"<Error/>"), "the service responded with 500", id="500"),
        pytest.param(reply(200, b"<html>", media="text/html"), "", id="no S3"),
    ],
)
async def test_an_upload_that_breaks_names_the_file(
    hasty: Client, storage: Storage, tmp_path: Path, answer: Answer, words: str
) -> None:
    """Whatever stands at the endpoint."""
    (tmp_path / "a").write_bytes(b"a")
    client = hasty if "in time" in words else hasty.with_options(timeout=10)
    async with RawServer([answer]) as broken:
        with pytest.raises(S3Error, match="/a'") as caught:
            await client.stage_inputs([tmp_path / "a"], storage.s3(endpoint=broken.url))

    assert words in str(caught.value)


def promising(size: int, come: int, then: Answer | None = None) -> Answer:
    """An object of some size, of which less comes before a reset or something else, however often it is asked for."""

    async def answer(exchange: Exchange) -> None:
        lead = {"Content-Length": str(size), "ETag": '"1"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"}
        await exchange.send(head(200, lead))
        if exchange.seen.method == "GET":
            await exchange.send(b"x" * come)
            await (then or reset())(exchange)

    return answer


async def test_a_reset_in_the_middle_leaves_nothing_half(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """What came is gone, the file that was there before is as it was, and a later call fetches it."""
    run = await demo(client, server, storage.store())
    (tmp_path / "Energies").mkdir()
    (tmp_path / "Energies/energies.csv").write_bytes(b"before")
    async with RawServer([promising(3 << 20, 1 << 20)]) as broken:
        store = S3Store(credentials=storage.s3(endpoint=broken.url))
        (found,) = await client.fetch_s3_outputs(run, tmp_path, store=store, names="Energies")

    assert isinstance(found, DownloadFailed)
    assert isinstance(found.error, S3Error)
    assert [path.name for path in below(tmp_path, "*")] == ["Energies"]
    assert (tmp_path / "Energies/energies.csv").read_bytes() == b"before"
    await client.fetch_s3_outputs(run, tmp_path, store=storage.store(), names="Energies", strict=True)
    assert (tmp_path / "Energies/energies.csv").read_bytes() == storage.get("workflow_instances/energies.csv")


async def test_what_is_cancelled_leaves_nothing_half(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """Neither under the name of a file nor beside it."""
    run = await demo(client, server, storage.store())
    stalled = promising(3 << 20, 1 << 20, then=never())
    async with RawServer([stalled]) as broken:
        store = S3Store(credentials=storage.s3(endpoint=broken.url))
        task = asyncio.create_task(client.fetch_s3_outputs(run, tmp_path, store=store, names="Energies"))
        await broken.until(lambda: "GET" in broken.methods)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert below(tmp_path, "*") == []


@pytest.mark.parametrize("form", ["default", "file", "context", "off"])
async def test_certificates_are_checked_as_the_settings_say(storage: Storage, tmp_path: Path, form: str) -> None:
    """An unknown authority is refused unless it is named or checks are off; the error says what to do."""
    authority, served = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    verify: Any = {"default": True, "file": tmp_path / "ca.pem", "context": trusting, "off": False}[form]
    config = Config(verify=verify, validate=False, retry=RetryPolicy(attempts=1))
    async with RawServer([reply(403)], tls=served) as other, Client("https://127.0.0.1:9", config=config) as client:
        with pytest.raises(S3Error) as caught:
            await client.stage_inputs([tmp_path / "ca.pem"], storage.s3(endpoint=other.url))

    assert caught.value.status == (None if form == "default" else 403)
    assert ("name its authority in Config.verify" in str(caught.value)) == (form == "default")


HOSTILE = ["../x", "a/../../x", "/x", "a//x", "./x", "back\\slash", "C:/x\\y", "a\x01b"]


@pytest.mark.parametrize("name", sample(HOSTILE, 4))
async def test_a_hostile_key_never_leads_out_of_the_folder(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path, name: str
) -> None:
    """Below the folder of a key-output anybody may put anything: that fails, and what is elsewhere stays as it was."""
    run = await demo(client, server, storage.store())
    storage.put(f"workflow_instances/results/{name}", b"evil")
    target = tmp_path / "one/two/three"

    found = await client.fetch_s3_outputs(run, target, store=storage.store())

    failed = [one for one in found if isinstance(one, DownloadFailed)]
    assert failed
    assert all(isinstance(one.error, (S3Error, DownloadError)) for one in failed)
    assert (target / "Energies/energies.csv").is_file()
    files = [path for path in below(tmp_path, "**/*") if path.is_file()]
    assert all(path.is_relative_to(target) for path in files)
    assert not any(path.read_bytes() == b"evil" for path in files)


async def test_the_server_says_what_it_needs_for_buckets(
    client: Client, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra a start that needs a bucket is refused, for the way in and for the way out."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    given = {"inputs": [{"filename": "molecules.csv", "content": "index,smiles\n0,CCO\n"}]}

    for payload in (
        {"inputs": [{"filename": "molecules.csv"}], "s3": storage.s3()},
        {**given, "s3Store": storage.store()},
    ):
        with pytest.raises(BadRequest, match=r'pip install "st4sd_async\[s3\]"'):
            await client.start("demo", payload)


async def test_a_folder_for_a_volume_must_be_one(server: LocalServer, tmp_path: Path) -> None:
    """Whatever is mounted is of a known kind."""
    with pytest.raises(ValueError, match="not 'hostPath'"):
        server.mount("hostPath", "mine", tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        server.mount("secret", "mine", tmp_path / "none")
    with pytest.raises(RuntimeError, match="running server"):
        LocalServer().mount("secret", "mine", tmp_path)


async def test_a_path_never_leads_out_of_a_volume(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """The file is not there, as far as the run can tell."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "secret").write_bytes(MOLECULES)
    server.mount("configMap", "mine", tmp_path / "volume")
    inputs = [{"sourceFilename": "../secret", "targetFilename": "molecules.csv", "volume": "v"}]

    run = await client.start(
        "demo", {"inputs": inputs, "volumes": [{"type": {"configMap": "mine"}, "identifier": "v"}]}
    )

    assert "No such file or directory" in ((await over(server, run)).error_description or "")
