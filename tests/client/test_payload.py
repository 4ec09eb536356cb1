"""A payload that knows what an experiment allows, from the registry to a run."""

from __future__ import annotations

import pytest

from st4sd_async import Client, InvalidPayload, UnknownExperiment
from st4sd_async.local import LocalServer

pytestmark = pytest.mark.anyio


async def test_a_payload_is_filled_in_and_started(server: LocalServer, client: Client) -> None:
    """It belongs to the version that it was made from, whatever is pushed later."""
    pushed = await client.push(server.example("demo"))

    draft = await client.payload("demo")
    draft.inputs["molecules.csv"] = b"smiles\nCO\n"
    draft.variables["scale"] = 2
    run = await client.start(draft.identifier, draft.filled({"metadata": {"campaign": "first"}}))
    await server.advance(100)

    status = await run.wait(timeout=10)
    assert draft.identifier == pushed.identifier
    assert status.meta is not None
    assert status.meta.variables["global"]["scale"] == "2"
    assert draft.data.allowed == ("weights.csv",)


async def test_a_payload_is_made_of_an_experiment_at_hand(server: LocalServer, client: Client) -> None:
    """Then nobody is asked; and what it does not allow never gets as far as the service."""
    pushed = await client.push(server.example("demo"))
    before = len(server.requests)

    draft = await client.payload(pushed)
    with pytest.raises(InvalidPayload, match="did you mean 'scale'"):
        draft.variables["scales"] = 2

    assert len(server.requests) == before
    with pytest.raises(UnknownExperiment):
        await client.payload("ghost")
