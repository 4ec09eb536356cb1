"""How a launch is stored in the journal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from st4sd_async import S3, InvalidPayload, Launch, Staged
from st4sd_async._batch.launch import describe_differences, lacks_credentials, payload_to_send, prepare_launch
from st4sd_async._batch.schema import digest
from st4sd_async._payload.prepare import prepare
from st4sd_async._util.file_names import key_folder_name

pytestmark = pytest.mark.anyio


SECRETIVE: dict[str, Any] = {
    "variables": {"scale": 2},
    "environmentVariables": {"PASSWORD": "fake-1", "THREADS": 4},
    "s3": {"accessKeyID": "fake-2", "secretAccessKey": "fake-3", "bucket": "mine", "endpoint": "e"},
    "s3Store": {
        "credentials": {"accessKeyID": "fake-4", "secretAccessKey": "fake-5", "bucket": "yours", "endpoint": "e"}
    },
    "metadata": {"campaign": "first"},
}


async def test_credentials_are_left_out_and_put_back() -> None:
    """Names, buckets and the rest stay. The sent payload is the original one plus the token."""
    prepared = await prepare_launch(Launch("mol", "demo", SECRETIVE), 1.0)
    sent = payload_to_send(json.loads(prepared.content), prepared.credentials, "abc")

    assert "fake-" not in prepared.content
    assert "THREADS" in prepared.content
    assert "yours" in prepared.content
    assert len(prepared.credentials) == 6
    assert lacks_credentials(json.loads(prepared.content))
    assert sent == {**SECRETIVE, "metadata": {"campaign": "first", "st4sd-async-key": "abc"}}


async def test_renewed_credentials_are_not_another_payload() -> None:
    """Credentials are renewed regularly."""
    renewed = {**SECRETIVE, "environmentVariables": {"PASSWORD": "fake-9", "THREADS": 8}}

    first, second = [
        (await prepare_launch(Launch("mol", "demo", payload), 1.0)).record for payload in (SECRETIVE, renewed)
    ]

    assert first == second


@pytest.mark.parametrize(
    "payload", [None, {}, {"variables": {"a": "[not kept]"}}, {"s3": {"dataset": "mine"}}], ids=str
)
async def test_a_payload_without_credentials_needs_none(payload: Any) -> None:
    """Even if it looks as if some were left out."""
    prepared = await prepare_launch(Launch("mol", "demo", payload), 1.0)

    assert not lacks_credentials(json.loads(prepared.content))
    assert prepared.record.payload == digest(prepared.content)
    sent = payload_to_send(json.loads(prepared.content), {}, "abc")
    assert sent == {
        **(payload or {}),
        "metadata": {"st4sd-async-key": "abc"},
    }


async def test_the_order_of_a_payload_does_not_matter() -> None:
    """Equal payloads have equal digests."""
    first = await prepare_launch(Launch("mol", "demo", {"variables": {"a": 1, "b": 2}, "platform": "x"}), 1.0)
    second = await prepare_launch(Launch("mol", "demo", {"platform": "x", "variables": {"b": 2, "a": 1}}), 1.0)

    assert first.record == second.record


async def test_differences_are_described_by_path() -> None:
    """Values are quoted, file contents are not. Only the first few are listed."""
    before = await prepare_launch(Launch("mol", "demo", {"variables": {"a": 1}, "platform": "x"}), 1.0)
    after = await prepare_launch(Launch("mol", "demo:2", {"variables": {str(n): n for n in range(9)}}), 1.0)

    message = describe_differences(before.record, json.loads(before.content), after.record, json.loads(after.content))

    assert message.startswith(
        "experiment was 'demo' and is 'demo:2'; platform was 'x' and is absent; variables.a was 1"
    )
    assert message.endswith("; and 7 more")


@pytest.mark.parametrize(
    ("key", "experiment", "error"),
    [
        ("", "demo", ValueError),
        ("a\0b", "demo", ValueError),
        ("\ud800", "demo", ValueError),
        (3, "demo", TypeError),
        ("a", "de/mo", ValueError),
        ("a", "", ValueError),
        ("a", 3, TypeError),
    ],
)
def test_an_invalid_launch_is_refused_at_once(key: Any, experiment: Any, error: type[Exception]) -> None:
    """Before anything is opened."""
    with pytest.raises(error, match="must be"):
        Launch(key, experiment)


def test_a_launch_with_a_convertible_payload_says_how_to_convert_it() -> None:
    """The error has the call to make."""
    staged = Staged(S3(bucket="mine"), {})

    with pytest.raises(TypeError, match=r"not Staged: call its \.as_inputs\(\)"):
        Launch("a", "demo", staged)  # type: ignore[call-overload] # on purpose


async def test_a_start_with_a_convertible_payload_says_how_to_convert_it() -> None:
    """As for a launch. Other types are only named."""
    values: list[Any] = [Staged(S3(bucket="mine"), {}), 3]
    ways = [r"not Staged: call its \.as_inputs\(\)", "not int$"]
    for one, way in zip(values, ways, strict=True):
        with pytest.raises(TypeError, match=way):
            await prepare(one)


async def test_the_name_of_the_token_is_reserved() -> None:
    """Runs are recognised by it."""
    with pytest.raises(InvalidPayload, match="use another"):
        await prepare_launch(Launch("mol", "demo", {"metadata": {"st4sd-async-key": "x"}}), 1.0)


@pytest.mark.parametrize("key", ["..", ".", "a/b", "a ", "con" * 60, "\u00fc", "a.", "-", "mol / 7: \u00fc"])
def test_a_key_that_is_not_a_valid_name_gets_a_hashed_folder(key: str) -> None:
    """Never a path, never equal to another name except for case, always valid on every file system."""
    name = key_folder_name(key, has_twin=False)

    assert name != key
    assert len(name) < 80
    assert name.replace("-", "").replace("~", "").isalnum()
    assert key_folder_name("Mol-1.a", has_twin=False) == "Mol-1.a"
    assert key_folder_name("Mol-1.a", has_twin=True) != "Mol-1.a"


def test_no_two_keys_share_a_folder() -> None:
    """Even if a key equals the folder name of another."""
    folder = key_folder_name("a:b", has_twin=False)
    keys = ["a:b", "a-b", folder, folder.replace("~", "-"), key_folder_name(folder, has_twin=False)]

    assert len({key_folder_name(key, has_twin=False).casefold() for key in keys}) == len(keys)
    assert key_folder_name(folder.replace("~", "-"), has_twin=False) == folder.replace("~", "-")
