"""Drafts and plain payloads, from the registry to a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, DecodeError, Draft, InvalidPayload, Launch, MissingInputs, UnknownExperiment
from st4sd_async._payload.prepare import prepare
from st4sd_async.local import Html, LocalServer, Reply
from tests.local.helpers import definition

pytestmark = pytest.mark.anyio


async def test_a_draft_is_filled_in_and_started(server: LocalServer, client: Client) -> None:
    """It starts the version that it was made from, whatever is pushed later."""
    pushed = await client.push(server.example("demo"))

    draft = await client.draft("demo")
    draft.inputs["molecules.csv"] = b"smiles\nCO\n"
    draft.variables["scale"] = 2
    run = await client.start(draft.identifier, draft.filled({"metadata": {"campaign": "first"}}))
    await server.advance(100)

    status = await run.wait(timeout=50)
    assert draft.identifier == pushed.identifier
    assert status.meta is not None
    assert status.meta.variables["global"]["scale"] == "2"
    assert draft.data.allowed == ("weights.csv",)


async def test_a_draft_is_made_from_an_experiment_without_a_request(server: LocalServer, client: Client) -> None:
    """An entry that is not allowed never reaches the service."""
    pushed = await client.push(server.example("demo"))
    before = len(server.requests)

    draft = await client.draft(pushed)
    with pytest.raises(InvalidPayload, match="did you mean 'scale'"):
        draft.variables["scales"] = 2

    assert len(server.requests) == before
    with pytest.raises(UnknownExperiment):
        await client.draft("ghost")


async def test_a_draft_sends_the_same_as_a_payload_written_by_hand(server: LocalServer, client: Client) -> None:
    """With choices, a platform, several inputs and a data file, by tag or by digest. Nothing is added."""
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

    draft = await client.draft("toy:v1")
    draft.inputs = {"a.csv": "a\n", "b.csv": b"b\n"}
    draft.data["d.txt"] = "d\n"
    draft.variables = {"n": 2, "free": "y"}
    draft.platform = "default"
    filled = draft.filled({"metadata": {"campaign": "first"}})
    runs = [await client.start(name, filled) for name in (draft.identifier, "toy:v1", "toy")]

    assert (await prepare(filled)).content == (await prepare(by_hand)).content
    assert len({run.id for run in runs}) == 3


MOLECULES = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]


async def test_a_refused_payload_is_explained_entry_by_entry(server: LocalServer, client: Client) -> None:
    """The definition of the experiment is requested after the refusal, and never otherwise."""
    server.describe("toy", inputs=["molecules.csv"], data=["d.txt"], variables={"scale": "1", "n": "1"})
    options = {
        "variables": [{"name": "scale"}, {"name": "n", "valueFrom": [{"value": "1"}, {"value": "2"}]}],
        "data": [{"name": "d.txt"}],
        "platform": ["gpu", "default"],
    }
    await client.push(definition("toy", options))
    before = len(server.requests)

    await client.start("toy", {"inputs": MOLECULES, "variables": {"scale": 2}})
    good = len(server.requests)
    with pytest.raises(InvalidPayload) as caught:
        await client.start(
            "toy",
            {
                "inputs": [{"filename": "molecule.csv", "content": "x"}],
                "data": [{"filename": "e.txt", "content": "x"}],
                "variables": {"scael": 2, "n": 3, "scale": 1},
                "platform": "gpo",
            },
        )

    message = dict(caught.value.problems)
    assert good - before == 1
    assert list(message) == ["variables.scael", "variables.n", "inputs.molecule.csv", "data.e.txt", "platform"]
    assert message["variables.scael"].endswith("only ['n', 'scale']: did you mean 'scale'?")
    assert message["inputs.molecule.csv"].endswith("did you mean 'molecules.csv'?")
    assert message["platform"].endswith("only on ['gpu', 'default']: did you mean 'gpu'?")
    assert "variables.scael: the experiment does not accept it" in str(caught.value)
    assert len(server.requests) - good == 2


async def test_a_refusal_is_raised_even_if_it_cannot_be_explained(server: LocalServer, client: Client) -> None:
    """Only the suggestion is lost. The definition is requested once."""
    await client.push(server.example("demo"))
    server.faults.add("GET /experiments/demo", Html(502))
    before = len(server.requests)

    with pytest.raises(InvalidPayload, match="Payload sets variable scael = 2") as caught:
        await client.start("demo", {"inputs": MOLECULES, "variables": {"scael": 2}})

    assert caught.value.problems == (("variables.scael", "the experiment does not accept it"),)
    assert "client.draft(experiment)" in str(caught.value)
    assert len(server.requests) - before == 2


async def test_the_explanation_contains_no_secrets(server: LocalServer, client: Client) -> None:
    """A value may be a secret of the environment too."""
    server.describe("toy", variables={"n": "1"})
    await client.push(definition("toy", {"variables": [{"name": "n", "valueFrom": [{"value": "1"}]}]}))

    with pytest.raises(InvalidPayload) as caught:
        await client.start("toy", {"variables": {"n": "xyzzy-plugh"}, "environmentVariables": {"KEY": "xyzzy-plugh"}})

    assert "xyzzy" not in f"{caught.value}{caught.value.problems}{caught.value.detail}"
    assert [problem.where for problem in caught.value.problems] == ["variables.n"]


@pytest.mark.parametrize("entry", [{}, {"metadata": {}}, {"metadata": {"registry": None}}], ids=str)
async def test_a_reply_without_the_facts_of_the_registry_is_a_decode_error(
    entry: dict[str, Any], server: LocalServer, client: Client
) -> None:
    """It says what is missing in which reply."""
    body = json.dumps({"entry": entry, "problems": []}).encode()
    server.faults.add("GET /experiments/*", Reply(200, {"Content-Type": "application/json"}, body))

    with pytest.raises(DecodeError, match=r"without its registry metadata at 'metadata.registry'") as caught:
        await client.draft("demo")

    assert caught.value.url == f"{client.url}rs/experiments/demo"


async def test_a_draft_is_accepted_in_place_of_an_experiment_or_a_payload(
    still_server: LocalServer, demo_client: Client
) -> None:
    """A launch keeps what is filled in at that moment."""
    client = demo_client
    draft = await client.draft("demo")
    with pytest.raises(MissingInputs, match=r"molecules\.csv"):
        await client.start(draft)
    with pytest.raises(MissingInputs, match=r"molecules\.csv"):
        Launch("none", draft)
    draft.inputs["molecules.csv"] = "smiles\nCO\n"
    launches = []
    for scale in (3, 4):
        draft.variables["scale"] = scale
        launches.append(Launch(f"mol {scale}", "demo", draft))
    draft.variables["scale"] = 5

    runs = [await client.start(draft), await client.start("demo", draft)]
    runs.append(await client.start(draft, {"metadata": {"a": "b"}}))
    await still_server.advance(100)
    metas = [status.meta for status in await client.wait(runs)]

    assert [meta.variables["global"]["scale"] for meta in metas if meta] == ["5", "5", "5"]
    assert metas[2] is not None
    assert metas[2].user_metadata["a"] == "b"
    assert [launch.payload.variables for launch in launches] == [{"scale": 3}, {"scale": 4}]  # type: ignore[union-attr]
    assert Launch("other", draft).identifier == draft.identifier
    async with client.batch() as batch:
        await batch.add(launches)
        assert {item.key async for item in batch.run()} == {"mol 3", "mol 4"}
    with pytest.raises(TypeError, match="the other fields of a payload must be a mapping, not Draft"):
        await client.start(draft, draft)


async def test_a_missing_file_is_an_error_before_anything_is_sent(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """The error names the input too, since the two rarely have the same name."""
    await client.push(server.example("demo"))
    draft = await client.draft("demo")
    draft.inputs["molecules.csv"] = tmp_path / "nothing.csv"
    before = len(server.requests)

    with pytest.raises(InvalidPayload) as caught:
        await client.start(draft)

    (problem,) = caught.value.problems
    assert problem.what.startswith(f"for 'molecules.csv', the file '{tmp_path}")
    assert "nothing.csv' cannot be read: No such file" in str(caught.value)
    assert len(server.requests) == before


async def test_a_draft_may_have_nothing_to_fill_in(server: LocalServer, client: Client) -> None:
    """An experiment may have no inputs."""
    server.describe("toy")
    draft = Draft(await client.push(definition("toy")))

    with pytest.raises(InvalidPayload, match=r"the experiment does not accept it, only \[\]"):
        draft.inputs["a.csv"] = "x"
    run = await client.start(draft.identifier, draft.filled())

    assert draft.missing == ()
    assert run.id.startswith("toy-")


async def test_a_changed_copy_of_an_experiment_can_be_pushed(server: LocalServer, client: Client) -> None:
    """The copy is sent, not the original. Fields that are unknown here are sent too."""
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
    assert (await client.draft(again)).variables.allowed == ("n",)
