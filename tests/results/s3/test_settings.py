"""What cannot work with a bucket is refused before anything is sent."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import (
    S3,
    Client,
    Config,
    ConfigError,
    S3Error,
    S3Store,
)
from st4sd_async.local import LocalServer
from tests.results.s3.storage import KEY_ID, MOLECULES, SECRET, Storage, demo

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]  # the service is slow where the machine is


NOT_HERE: list[tuple[dict[str, Any], str]] = [
    ({"accessKeyID": None}, "accessKeyID=..."),
    ({"secretAccessKey": None, "endpoint": None}, "secretAccessKey=..., endpoint=..."),
    ({"bucket": ""}, "bucket=..."),
    ({"dataset": "mine", "bucket": None}, "a dataset names a bucket only in a payload"),
    ({"endpoint": "s3.example"}, "must look like https://s3.example"),
    ({"endpoint": "https://me:word@s3.example"}, "without user or password"),
    (
        {"endpoint": "http://s3.example"},
        "would be sent unencrypted to the endpoint 'http://s3.example': use https://, or pass allow_http=True",
    ),
    ({"accessKeyID": f"{KEY_ID}\nx"}, "accessKeyID must be visible ASCII"),
    ({"secretAccessKey": f"{KEY_ID} x"}, "secretAccessKey must be visible ASCII"),
    ({"region": "x\n"}, "region must be visible ASCII"),
    ({"bucket": "No pe"}, "bucket must be letters, digits and any of"),
    ({"bucket": "mine\n"}, "bucket must be letters, digits and"),
    ({"endpoint": "https://s3.example#"}, "endpoint must be a URL without whitespace, '?' and '#'"),
    ({"endpoint": "https://s3.example?x=1"}, "endpoint must be a URL without whitespace, '?'"),
    ({"endpoint": "http://127.0.0.1 :80"}, "endpoint must be a URL without whitespace"),
    ({"endpoint": "http://127.0.0.1:80\n"}, "endpoint must be a URL without"),
]


NOWHERE = {"accessKeyID": KEY_ID, "secretAccessKey": SECRET, "bucket": "mine", "endpoint": "http://127.0.0.1:9"}
"""A bucket at a port that refuses connections."""


@pytest.fixture
async def client_of_nobody() -> AsyncIterator[Client]:
    """A client whose requests would be refused."""
    async with Client("http://127.0.0.1:9", config=Config(validate=False)) as opened:
        yield opened


async def test_a_bucket_that_cannot_be_used_is_refused_before_anything_is_sent(
    client_of_nobody: Client, tmp_path: Path
) -> None:
    """The error says what is missing, for both ways."""
    client = client_of_nobody

    for changes, words in NOT_HERE:
        bucket = S3.model_validate({**NOWHERE, **changes})
        with pytest.raises(ConfigError, match=re.escape(words)) as staging:
            await client.stage_inputs([tmp_path], bucket)
        with pytest.raises(ConfigError, match=re.escape(words)) as fetching:
            await client.fetch_s3_outputs("run", tmp_path, store=S3Store(credentials=bucket))

        assert KEY_ID not in f"{staging.value} {fetching.value}", changes


async def test_keys_may_come_from_a_file_and_mappings(
    client: Client, server: LocalServer, storage: Storage, tmp_path: Path
) -> None:
    """As for a credential of the deployment, the line break at the end of the file is no part of a key."""
    (tmp_path / "m.csv").write_bytes(MOLECULES)
    bucket = {
        "accessKeyID": f"{KEY_ID}\n",
        "secretAccessKey": f"{SECRET}\r\n",
        "bucket": storage.name,
        "endpoint": storage.url,
    }
    run = await demo(client, server, storage.store())

    staged = await client.stage_inputs([tmp_path / "m.csv"], bucket, prefix="p")
    found = await client.fetch_s3_outputs(run, tmp_path / "to", store={"credentials": bucket}, names="Energies")

    assert staged.s3 == storage.s3()
    assert storage.get("p/m.csv") == MOLECULES
    assert [type(one).__name__ for one in found] == ["Download"]


WRONG_TYPES: list[Any] = [
    pytest.param(
        lambda client, s3: client.stage_inputs([], None),
        "bucket must be an S3 or a mapping",
        id="no",
    ),
    pytest.param(
        lambda client, s3: client.stage_inputs(None, s3), "files must be paths, or a mapping from names", id="no files"
    ),
    pytest.param(lambda client, s3: client.stage_inputs(b"x", s3), "files must be paths.* not bytes", id="bytes"),
    pytest.param(
        lambda client, s3: client.stage_inputs(Path("x"), s3), "files must be paths.* not .*Path", id="a path"
    ),
    pytest.param(
        lambda client, s3: client.stage_inputs([b"x"], s3), "a file must be a str or a Path", id="bytes as a path"
    ),
    pytest.param(
        lambda client, s3: client.stage_inputs({3: "x"}, s3), "the name must be a string, not int", id="a number"
    ),
    pytest.param(
        lambda client, s3: client.fetch_s3_outputs("run", "to", store=s3), r"an S3Store\(.* not S3$", id="a bucket"
    ),
    pytest.param(
        lambda client, s3: client.fetch_s3_outputs("run", "to", store=None), "an S3Store.* not NoneType", id="no store"
    ),
]


@pytest.mark.parametrize(("operation", "words"), WRONG_TYPES)
async def test_wrong_types_raise_type_errors(client_of_nobody: Client, operation: Any, words: str) -> None:
    """Before any request."""
    with pytest.raises(TypeError, match=words):
        await operation(client_of_nobody, S3.model_validate(NOWHERE))


async def test_the_error_for_an_invalid_store_has_no_keys(client_of_nobody: Client, tmp_path: Path) -> None:
    """The field is named."""
    with pytest.raises(ValueError, match=r"invalid store: credentials.accessKey: Extra inputs") as caught:
        await client_of_nobody.fetch_s3_outputs("run", tmp_path, store={"credentials": {"accessKey": KEY_ID}})

    assert KEY_ID not in f"{caught.value!r} {caught.value.__context__!r}"


async def test_a_store_without_credentials_is_an_error(client_of_nobody: Client, tmp_path: Path) -> None:
    """Outputs come from somewhere."""
    with pytest.raises(ConfigError, match=r"S3Store\(credentials="):
        await client_of_nobody.fetch_s3_outputs("run", tmp_path, store=S3Store())


async def test_a_missing_extra_is_named(
    client: Client, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the line to type."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)

    with pytest.raises(ConfigError, match=r'pip install "st4sd_async\[s3\]"') as caught:
        await client.stage_inputs([tmp_path], storage.s3())

    assert caught.value.__context__ is None


WRONG_FILES: list[Any] = [
    pytest.param(lambda folder: [folder / "x/a", folder / "y/a"], "several files have the names ['a']", id="twice"),
    pytest.param(lambda folder: [folder / "x/a", folder / "none"], "no such files: [", id="no file"),
    pytest.param(lambda folder: [folder / "x"], "no such files: [", id="a folder"),
    pytest.param(lambda folder: {"b/a": folder / "x/a"}, "has a folder", id="a folder in a name"),
    pytest.param(lambda folder: {"": folder / "x/a"}, "the name '' is invalid", id="no name"),
    pytest.param(lambda folder: {"..": folder / "x/a"}, "the name '..' is invalid", id="up"),
    pytest.param(lambda folder: {"a\n": folder / "x/a"}, "is invalid", id="a line break"),
]


@pytest.mark.parametrize(("files", "words"), WRONG_FILES)
async def test_invalid_files_are_rejected_before_any_upload(
    client_of_nobody: Client, tmp_path: Path, files: Callable[[Path], Any], words: str
) -> None:
    """There would be another error from a port that refuses connections."""
    for name in ("x/a", "y/a"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"a")

    with pytest.raises(ValueError, match=re.escape(words)):
        await client_of_nobody.stage_inputs(files(tmp_path), S3.model_validate(NOWHERE), allow_http=True)


@pytest.mark.parametrize("prefix", ["../up", "a//b", "a/./b"])
async def test_an_invalid_prefix_is_rejected(client_of_nobody: Client, prefix: str) -> None:
    """It is a path like others."""
    with pytest.raises(ValueError, match=r"the prefix .* is invalid"):
        await client_of_nobody.stage_inputs([__file__], S3.model_validate(NOWHERE), prefix=prefix)


async def test_one_text_is_no_list_of_files(client_of_nobody: Client) -> None:
    """Else each letter of it would be a file."""
    with pytest.raises(TypeError, match=r"not a string: pass \['file'\]"):
        await client_of_nobody.stage_inputs("file", S3.model_validate(NOWHERE))


async def test_a_file_that_cannot_be_read_is_named(client: Client, storage: Storage) -> None:
    """It is there, and reading it is an error of the system: the memory of a process from its beginning."""
    with pytest.raises(S3Error, match=r"'/proc/self/mem' .* it cannot be read: Input/output error"):
        await client.stage_inputs(["/proc/self/mem"], storage.s3())
