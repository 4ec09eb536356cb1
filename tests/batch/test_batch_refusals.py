"""What a batch says of a refused launch is the same after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from st4sd_async import (
    BadRequest,
    Client,
    ConnectFailed,
    ConnectionLost,
    DownloadError,
    Item,
    JournalCorrupt,
    Launch,
    PayloadTooLarge,
    RequestTimeout,
    St4sdError,
    UnknownOutput,
    UnsafeArchive,
)
from st4sd_async._batch.item import item_summary, restore_error
from st4sd_async._errors import plain_message
from st4sd_async._render.html import to_html
from st4sd_async.local import Html, LocalServer, Reply

from .batches import run_all

pytestmark = pytest.mark.anyio

URL = "https://st4sd.example/rs/experiments/demo/start"
INPUTS = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]}


def shown(item: Item) -> tuple[str, str, str, str]:
    """Return all that a batch shows of an error."""
    return type(item.error).__name__, str(item.error), item_summary(item).reason, to_html(item._card())


async def test_the_reason_of_a_refusal_is_the_same_after_a_restart(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """In the table of the batch, on the card of the launch, and in the message."""
    await client.push(server.example("demo"))
    server.faults.add("POST /experiments/big/start", Reply(413))
    server.faults.add("POST /experiments/page/start", Html(405))
    launches = [
        Launch("unknown", "dem0", INPUTS),
        Launch("missing", "demo", {}),
        Launch("variable", "demo", {**INPUTS, "variables": {"scael": 1}}),
        Launch("big", "big", INPUTS),
        Launch("page", "page", INPUTS),
        Launch("output", "demo", INPUTS),
    ]
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches)
        await run_all(batch, outputs=["Nope"], to=tmp_path / "results")
        before = {item.key: shown(item) for item in batch.items}
    async with client.batch(tmp_path / "campaign.db") as batch:
        after = {item.key: shown(item) for item in batch.items}

    assert before == after
    assert "None" not in [kind for kind, *_ in after.values()]
    assert "did you mean 'demo'?" in after["unknown"][2]
    assert "was refused with" not in "".join(reason for *_, reason, _ in after.values())


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("no", status=400, method="POST", url=URL),
        PayloadTooLarge("big", status=413, method="POST", url=URL),
        UnknownOutput("no output", status=404, method="GET", url=URL),
        ConnectFailed("GET", URL, "Connection refused"),
        ConnectionLost("GET", URL, "reset: by (peer)"),
        RequestTimeout("GET", URL, "silence"),
        DownloadError("results/a.csv", "the file is too long"),
        UnsafeArchive("results/a.zip", "it leads out of the folder"),
        JournalCorrupt("the payload is damaged"),
        OSError("[Errno 28] No space left on device: 'a'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_its_class_and_message(error: Exception) -> None:
    """If its message has all that the class needs."""
    restored = restore_error(type(error).__name__, str(error))

    assert (type(restored), str(restored)) == (type(error), str(error))
    assert plain_message(restored) == plain_message(error)


@pytest.mark.parametrize("name", ["KeyError", "UnicodeDecodeError", "RunFailed", "Client", "print", "", None])
def test_any_other_error_keeps_its_name(name: str | None) -> None:
    """It may be of a class that needs more, or that no longer exists."""
    restored = restore_error(name, "no such thing")

    assert type(restored) is St4sdError
    assert str(restored) == f"{name}: no such thing"
