"""A payload that knows what an experiment allows, from the registry to a run."""

from __future__ import annotations

import pytest

from st4sd_async import Client, Draft, InvalidPayload, UnknownExperiment
from st4sd_async._payload import prepare
from st4sd_async.local import LocalServer
from tests.local.helpers import definition

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


async def test_a_draft_sends_what_one_would_write_by_hand(server: LocalServer, client: Client) -> None:
    """With choices, a platform, several inputs and a data file, by tag or by digest; nothing is added."""
    options = {
        "variables": [{"name": "n", "valueFrom": [{"value": "1"}, {"value": "2"}]}, {"name": "free"}],
        "data": [{"name": "d.txt"}],
        "platform": ["gpu", "default"],
    }
    server.describe("toy", inputs=["a.csv", "b.csv"], data=["d.txt"], variables={"n": "1", "free": "x"})
    await client.push(definition("toy", options))
    by_hand = {
        "inputs": [{"filename": "a.csv", "content": "a\n"}, {"filename": "b.csv", "content": "b\n"}],
        "data": [{"filename": "d.txt", "content": "d\n"}],
        "variables": {"n": 2, "free": "y"},
        "platform": "default",
        "metadata": {"campaign": "first"},
    }

    draft = await client.payload("toy:v1")
    draft.inputs = {"a.csv": "a\n", "b.csv": b"b\n"}
    draft.data["d.txt"] = "d\n"
    draft.variables = {"n": 2, "free": "y"}
    draft.platform = "default"
    filled = draft.filled({"metadata": {"campaign": "first"}})
    runs = [await client.start(name, filled) for name in (draft.identifier, "toy:v1", "toy")]

    assert (await prepare(filled)).content == (await prepare(by_hand)).content
    assert len({run.id for run in runs}) == 3


async def test_a_draft_without_anything_to_fill_in_is_a_payload(server: LocalServer, client: Client) -> None:
    """An experiment may take no inputs at all."""
    server.describe("toy")
    draft = Draft(await client.push(definition("toy")))

    with pytest.raises(InvalidPayload, match=r"the experiment does not take it, only \[\]"):
        draft.inputs["a.csv"] = "x"
    run = await client.start(draft.identifier, draft.filled())

    assert draft.missing == ()
    assert run.id.startswith("toy-")


async def test_a_changed_copy_of_an_experiment_is_what_is_pushed(server: LocalServer, client: Client) -> None:
    """And not the one that it was copied from; what is unknown here goes with it."""
    server.describe("toy", variables={"n": "1"})
    pushed = await client.push(definition("toy"))
    options = pushed.parameterisation.execution_options.model_copy(update={"variables": [{"name": "n"}]})
    changed = pushed.model_copy(
        update={"parameterisation": pushed.parameterisation.model_copy(update={"execution_options": options})}
    )

    again = await client.push(changed)
    same = await client.push(pushed.model_copy())

    assert [one.name for one in again.parameterisation.execution_options.variables] == ["n"]
    assert again.digest != pushed.digest == same.digest
    assert changed.raw["base"] == pushed.raw["base"]
    assert (await client.payload(again)).variables.allowed == ("n",)
