"""The table of mistakes in the documentation: each message is exactly so, and each solution works."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest
import trustme

import st4sd_async
from st4sd_async import (
    Client,
    Config,
    ConnectFailed,
    DecodeError,
    InvalidPayload,
    MissingInputs,
    PayloadTooLarge,
    RetryPolicy,
    Unauthorized,
    UnknownExperiment,
    UnknownOutput,
)
from st4sd_async.local import LocalServer

from .faults.raw import RawServer, reply

pytestmark = pytest.mark.anyio

MOLECULES = {"filename": "molecules.csv", "content": "smiles\nCO\n"}
GOOD = {"inputs": [MOLECULES]}
KEY = "fake-key-0001"
HASTY = Config(retry=RetryPolicy(attempts=1))
TEXT = (Path(st4sd_async.__file__).parent / "docs" / "troubleshooting.md").read_text("utf-8")
WEB_PAGE = reply(200, "<html>It works!</html>", media="text/html")


def rows() -> dict[str, list[str]]:
    """Return mistake -> the messages that the page shows for it."""
    table = TEXT.split("| mistake | message | solution |")[1].split("\n\n")[0].splitlines()[2:]
    return {
        mistake.strip(): re.findall("`([^`]+)`", seen) for _, mistake, seen, *_ in (row.split("|") for row in table)
    }


ROWS = rows()


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A service whose clock stands still, with the experiment of the page."""
    with LocalServer(speed=0) as running:
        anyio.run(push, running)
        yield running


async def push(server: LocalServer) -> None:
    async with Client(server.url, api_key=server.api_key) as client:
        await client.push(server.example("demo"))


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[Client]:
    async with Client(server.url, api_key=server.api_key) as opened:
        yield opened


async def wrong_url(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """There is no server, or another one."""
    async with RawServer([WEB_PAGE]) as other:
        with pytest.raises(DecodeError) as web_page:
            async with Client(other.url, config=HASTY) as lost:
                await lost.status("demo-1")
    with pytest.raises(ConnectFailed) as refused:
        async with Client(other.url, config=HASTY) as lost:
            await lost.status("demo-1")
    return [message_of(refused.value), message_of(web_page.value)]


async def expired_token(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """An open client reads the new token from the file."""
    key = folder / "st4sd.key"
    key.write_text(server.api_key)
    async with Client(server.url, api_key=key) as lasting:
        await lasting.start("demo", GOOD)
        server.renew()
        with pytest.raises(Unauthorized) as caught:
            await lasting.start("demo", GOOD)
        key.write_text(server.api_key)
        await lasting.start("demo", GOOD)
    return [message_of(caught.value)]


async def wrong_CA(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """Naming the authority is the solution; the check stays on."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    async with RawServer([reply(200, {}), reply(200, "demo-c52cd4-00000001")], tls=context) as private:
        with pytest.raises(ConnectFailed) as caught:
            async with Client(private.url, api_key=KEY, config=HASTY) as untrusting:
                await untrusting.start("demo")
        async with Client(private.url, api_key=KEY, config=Config(verify=folder / "ca.pem")) as trusting:
            await trusting.start("demo")
    return [message_of(caught.value)]


async def unknown_experiment(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """The list has the known ones."""
    with pytest.raises(UnknownExperiment) as caught:
        await client.start("dem0", GOOD)
    assert [one.name for one in await client.experiments.list()] == ["demo"]
    return [message_of(caught.value)]


async def missing_input(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """A draft lists what is missing."""
    with pytest.raises(MissingInputs) as caught:
        await client.start("demo", {})
    draft = await client.draft("demo")
    assert list(draft.missing) == ["molecules.csv"]
    draft.inputs["molecules.csv"] = "smiles\nCO\n"
    await client.start("demo", draft)
    return [message_of(caught.value)]


async def misspelt_variable(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """The error suggests the right name."""
    with pytest.raises(InvalidPayload) as caught:
        await client.start("demo", {**GOOD, "variables": {"scael": 2}})
    assert [where for where, _ in caught.value.problems] == ["variables.scael"]
    await client.start("demo", {**GOOD, "variables": {"scale": 2}})
    return [message_of(caught.value)]


async def empty_file(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """A line break is enough."""
    with pytest.raises(InvalidPayload) as caught:
        await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": ""}]})
    await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "\n"}]})
    return [message_of(caught.value)]


async def big_file(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """Passing it through a bucket is tested with the buckets."""
    with pytest.raises(PayloadTooLarge) as caught:
        await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "x" * (1 << 20)}]})
    return [message_of(caught.value)]


async def output_not_there_yet(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """It exists once the run is over."""
    run = await client.start("demo", GOOD)
    with pytest.raises(UnknownOutput) as caught:
        await run.output("Energies")
    await server.advance(60)
    await run.wait()
    assert (await run.output("Energies")).text()
    return [message_of(caught.value)]


async def cluster_full(client: Client, server: LocalServer, folder: Path) -> list[str]:
    """It starts when there is room."""
    server.outcome("demo", "unscheduled", times=1)
    run = await client.start("demo", GOOD)
    await server.advance(1)
    hint = (await run.status()).hint
    await server.advance(60)
    assert (await run.wait()).is_success
    return [f"status.hint: {hint}"]


def message_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


MISTAKES: list[Callable[[Client, LocalServer, Path], Awaitable[list[str]]]] = [
    wrong_url,
    expired_token,
    wrong_CA,
    unknown_experiment,
    missing_input,
    misspelt_variable,
    empty_file,
    big_file,
    output_not_there_yet,
    cluster_full,
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
async def test_the_message_is_as_the_page_shows_it(
    mistake: Callable[..., Awaitable[list[str]]], client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Word for word, except for ellipses."""
    shown = ROWS[mistake.__name__.replace("_", " ")]

    messages = await mistake(client, server, tmp_path)

    assert len(shown) == len(messages)
    for message, error in zip(shown, messages, strict=True):
        assert re.fullmatch(".*".join(map(re.escape, message.split("\u2026"))), error, re.DOTALL), error


def test_each_mistake_of_the_table_is_made() -> None:
    """In the order of the table."""
    assert list(ROWS) == [mistake.__name__.replace("_", " ") for mistake in MISTAKES]
