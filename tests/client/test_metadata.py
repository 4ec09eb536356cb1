"""Values of metadata may hold a colon, as times and urls do; names may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, Config, InvalidPayload, Launch
from st4sd_async.local import LocalServer
from tests.conftest import ServersClock

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TAGS = {"source": "https://lab.example:8443/notebook?page=1", "at": "10:30", "both": ":a::b:"}
FILES = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]


async def payload_of(client: Client, form: str) -> Any:
    """A payload with the tags, written in one of two ways."""
    if form == "mapping":
        return {"inputs": FILES, "metadata": TAGS}
    draft = await client.draft("demo")
    draft.inputs["molecules.csv"] = "smiles\nCO\n"
    return draft.filled({"metadata": TAGS})


@pytest.mark.parametrize("form", ["mapping", "draft"])
async def test_times_and_urls_are_kept_with_a_run(
    form: str, still_server: LocalServer, servers_clock: ServersClock
) -> None:
    """The status, the list and the datastore give them back as they were, and the datastore finds the run by them."""
    async with Client(still_server.url, api_key=still_server.api_key, config=Config(clock=servers_clock)) as client:
        await client.push(still_server.example("demo"))

        run = await client.start("demo", await payload_of(client, form))

        meta = (await client.wait(run)).meta
        await still_server.advance(100)
        (listed,) = await client.instances.list()
        (document,) = await client.datastore.user_metadata(query={"source": TAGS["source"]})
        assert meta is not None
        assert listed.status.meta is not None
        for kept in (meta.user_metadata, listed.status.meta.user_metadata, document.metadata):
            assert {name: kept[name] for name in TAGS} == TAGS
        assert document.rest_uid == run.id


async def test_a_batch_starts_launches_with_such_tags(
    still_server: LocalServer, servers_clock: ServersClock, tmp_path: Path
) -> None:
    """The journal keeps them too."""
    async with Client(still_server.url, api_key=still_server.api_key, config=Config(clock=servers_clock)) as client:
        await client.push(still_server.example("demo"))
        async with client.batch(tmp_path / "journal") as batch:
            await batch.add([Launch("it", "demo", {"inputs": FILES, "metadata": TAGS})])

            (item,) = [item async for item in batch.run()]

        assert item.run is not None
        meta = (await item.run.status()).meta
        assert meta is not None
        assert {name: meta.user_metadata[name] for name in TAGS} == TAGS


async def test_a_colon_in_a_name_is_refused_before_anything_is_sent(server: LocalServer) -> None:
    """The orchestrator would cut the name at the colon and move the rest into the value."""
    async with Client(server.url, api_key=server.api_key) as client:
        with pytest.raises(InvalidPayload, match="names of metadata cannot contain a colon"):
            await client.start("demo", {"metadata": {"a:b": "c"}})

    assert not [path for method, path in server.requests if method == "POST"]
