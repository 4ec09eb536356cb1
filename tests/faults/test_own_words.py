"""What this side shows and says by itself: reprs and refusals that quote no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import S3, Client, Config, ConfigError, FileContent, InvalidPayload, S3Store, StartPayload
from st4sd_async._api import experiments
from st4sd_async._http.credentials import Credential, Credentials
from tests.conftest import FakeClock
from tests.tries import combinations

from .clients import settings
from .marks import DATA, INPUT, KEY, PAYLOAD, TOKEN, all_texts, changed, leaks, logged, outcome, payload
from .raw import RawServer, reply

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "thing",
    [
        Config(),
        Client("https://st4sd.example", api_key=KEY, auth_token=TOKEN),
        Client("https://st4sd.example", auth_token=TOKEN).run("demo-1"),
        Client("https://st4sd.example", auth_token=TOKEN).with_options(timeout=3),
        Credential("api_key", KEY),
        Credentials(KEY, TOKEN),
        StartPayload.model_validate(payload()),
        S3.model_validate(PAYLOAD["s3"]),
        S3Store.model_validate(PAYLOAD["s3Store"]),
        FileContent.model_validate(PAYLOAD["inputs"][0]),
        experiments.start_call("demo", json.dumps(PAYLOAD).encode(), (KEY, INPUT)),
        experiments.push_call({"metadata": {"package": {"description": INPUT}}}),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_no_secret_in_a_repr(thing: object) -> None:
    """What a notebook or a debugger shows of an object is clean."""
    assert leaks(f"{thing!r} {thing!s} {[thing]}") == set()


REFUSED: dict[str, Any] = {
    "unknown field": changed(imputs=[{"filename": "x", "content": INPUT}]),
    "unknown field inside": changed(inputs=[{"filename": "x", "contents": INPUT}]),
    "a list for a text": changed(inputs=[{"filename": "x", "content": [INPUT]}]),
    "a text for a list": changed(inputs=INPUT),
    "no text": changed(inputs=[{"filename": "x", "content": b"\xff" + INPUT.encode()}]),
    "half a character": changed(inputs=[{"filename": "x", "content": f"{DATA}\ud800"}]),
    "twice": changed(data=[{"filename": "molecules.csv", "content": DATA}]),
    "a key that is no text": changed(s3={"secretAccessKey": {"QSECXD": "QSECXD"}, "bucket": "b"}),
    "a misspelt key": changed(s3={"secretAccesKey": "QSECXD", "bucket": "b"}),
    "environment inside": changed(environmentVariables={"PASSWORD": ["QENVXG"]}),
    "environment as a text": changed(environmentVariables="PASSWORD=QENVXG"),
    "half a character in the environment": changed(environmentVariables={"PASSWORD": "QENVXG\ud800"}),
    "two stores": changed(datasetStoreURI="dataset://x/y"),
    "a colon": changed(metadata={"a:b": "c"}),
    "empty": changed(inputs=[{"filename": "x", "content": ""}]),
    "too large": changed(inputs=[{"filename": "x", "content": INPUT * 300}]),
    "no file": changed(inputs=[{"filename": "x", "content": Path("nowhere.csv")}]),
}


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED)
async def test_no_secret_in_a_refusal_of_our_own(
    given: dict[str, Any], watched: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    """A payload that is not even sent is refused without being quoted."""
    async with (
        RawServer([reply(200, "demo-c52cd4-00000001")]) as server,
        Client(server.url, api_key=KEY, config=settings(clock)) as client,
    ):
        error = await outcome(lambda: client.start("demo", given))

    assert isinstance(error, InvalidPayload)
    assert server.requests == []
    assert leaks(all_texts(error)) == set()
    assert leaks(logged(watched)) == set()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Client("https://st4sd.example", api_key=KEY.encode()),  # type: ignore[arg-type] # on purpose
        lambda: Client("https://st4sd.example", api_key=[KEY]),  # type: ignore[arg-type] # on purpose
        lambda: Client("http://st4sd.example", api_key=KEY),
        lambda: Client("https://st4sd.example", api_key="QKEYXA two words"),
        lambda: Client("https://st4sd.example", api_key="QKEYXA\nX-Injected: 1"),
        lambda: Client("https://st4sd.example", auth_token="QKEYXA;x=1"),
        lambda: Client("https://st4sd.example", auth_token="QKEYXA\u00e9"),
        lambda: Client("https://user:QKEYXA@st4sd.example"),
        lambda: Client("http://user:QKEYXA@st4sd.example", auth_token=TOKEN),
        lambda: Client("ftp://user:QKEYXA@st4sd.example"),
        lambda: Client("https://user:QKEY@XA@st4sd.example:nonsense"),
        lambda: Client("//user:QKEYXA@st4sd.example"),
    ],
)
def test_no_secret_in_a_setting_that_is_refused(make: Callable[[], Client]) -> None:
    """The error says what is wrong without quoting a credential."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert leaks(all_texts(caught.value)) == set()


@pytest.mark.parametrize(
    ("form", "bad"),
    combinations(
        ["provider", "file"],
        ["QKEYXA two words", "QKEYXA\nX-Injected: 1", "QKEYXA;x=1", "QKEYXA\u00e9", "QKEYXA\x00"],
    ),
)
async def test_no_secret_in_the_refusal_of_a_credential(form: str, bad: str, tmp_path: Path) -> None:
    """A credential that cannot travel in a header is never sent, and not quoted."""
    file = tmp_path / "secret"
    file.write_text(bad, encoding="utf-8")
    source: Any = {"provider": lambda: bad, "file": file}[form]
    async with (
        RawServer([reply(200, [])]) as server,
        Client(server.url, api_key=source, config=settings()) as client,
    ):
        error = await outcome(client.instances.list)

    assert isinstance(error, ConfigError)
    assert server.requests == []
    assert leaks(all_texts(error)) == set()
