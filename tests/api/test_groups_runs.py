"""Lambda experiments, and what instances show on demand, against the embedded server."""

from __future__ import annotations

import math
from typing import Any

import pytest

from st4sd_async import (
    Client,
    InputConflict,
    InvalidFlowIR,
    InvalidPayload,
    LambdaPayload,
    NoProperties,
    NotAFolder,
    NotReady,
    Run,
    ServerError,
    StartOutcomeUnknown,
    UnknownOutput,
    UnknownRun,
)
from st4sd_async.local import DropAfter, LocalServer
from tests.client.definitions import LAMBDA

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(60),
    pytest.mark.slow,
]  # the orchestrator's library is slow to import

INPUTS = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\nNAN\n"}]}


async def test_a_lambda_experiment_runs(server: LocalServer, client: Client) -> None:
    """It has a name of its own, the metadata it was given, key-outputs, and no experiment in the registry."""
    payload = LambdaPayload.model_validate({**LAMBDA, "metadata": {"campaign": "first"}})

    run = await client.start_lambda(payload, validate=False)
    await server.advance(100)
    status = await run.wait(timeout=50)

    assert isinstance(run, Run)
    assert run.id.startswith("lambda-")
    assert status.is_success
    assert status.meta is not None
    assert status.meta.user_metadata["campaign"] == "first"
    assert list(await client.outputs(run)) == ["Hi"]
    instance = await client.instances.get(run.id)
    assert instance.experiment is None
    assert instance.labels == {"workflow": run.id, "package-name": run.id, "rest-uid": run.id}
    assert [one.id for one in await client.instances.list()] == [run.id]
    assert await client.experiments.list() == []


@pytest.mark.slow(seconds=9)
@pytest.mark.timeout(120)
async def test_a_lambda_experiment_is_really_executed() -> None:
    """Its data and scripts are where its components look for them."""
    component = {
        "name": "hi",
        "command": {"executable": "bin/shout.sh", "arguments": "msg.txt"},
        "references": ["data/msg.txt:copy"],
    }
    flowir = {**LAMBDA["lambdaFlowIR"], "components": [component]}
    script = {"filename": "shout.sh", "content": '#!/bin/sh\ntr a-z A-Z < "$1"\n'}

    async with LocalServer(engine="elaunch") as server, Client(server.url, api_key=server.api_key) as client:
        run = await client.start_lambda({**LAMBDA, "lambdaFlowIR": flowir, "scripts": [script]}, validate=False)
        await run.wait(timeout=90, check=True)
        output = await client.output(run, "Hi")

    assert output.text() == "FROM LAMBDA\n"


async def test_an_invalid_lambda_experiment_is_refused(server: LocalServer, client: Client) -> None:
    """By the service, with all that is wrong; nothing was started."""
    with pytest.raises(InvalidFlowIR, match=r"stage0.hi.command.executable=None") as caught:
        await client.start_lambda({"lambdaFlowIR": {"components": [{"name": "hi"}]}}, validate=False)

    assert caught.value.errors.startswith("Inconsistent FlowIR: Found 1 errors:\n")
    assert await client.instances.list() == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"lambdaFlowIR": None}, InvalidPayload, "lambdaFlowIR: must be a mapping, YAML or a Path, not NoneType$"),
        ({"inputs": []}, InvalidPayload, "inputs: unknown field"),
        ({"variable": {}}, InvalidPayload, "did you mean 'variables'"),
        ({"data": [{"filename": "a", "content": "x"}] * 2}, InputConflict, r"files \['a'\] occur twice"),
        ({"scripts": [{"filename": "a"}]}, InvalidPayload, r"scripts\[0\].content"),
    ],
    ids=str,
)
async def test_a_lambda_payload_is_checked_before_it_is_sent(
    change: Any, error: Any, words: str, server: LocalServer, client: Client
) -> None:
    """The service would break on a field that it does not know, and keep one of two files of the same name."""
    before = len(server.requests)

    with pytest.raises(error, match=words):
        await client.start_lambda({**LAMBDA, **change})

    assert len(server.requests) == before
    with pytest.raises(TypeError, match="a Path or a LambdaPayload, not int"):
        await client.start_lambda(7)  # type: ignore[arg-type] # on purpose


async def test_a_lambda_start_is_never_repeated(server: LocalServer, client: Client) -> None:
    """If it may have arrived, that is an error, and the instance exists once."""
    server.faults.add("POST /experiments/lambda/start", DropAfter())

    with pytest.raises(
        StartOutcomeUnknown, match="it is unknown whether an instance of a lambda experiment was started"
    ):
        await client.start_lambda(LAMBDA, validate=False)

    assert len(await client.instances.list()) == 1


async def test_properties_have_the_requested_columns(server: LocalServer, client: Client) -> None:
    """By themselves or with the instance, some columns or all, missing numbers as NaN or as a text."""
    await client.push(server.example("demo"))
    run = await client.start("demo", INPUTS)
    await server.advance(100)
    await run.wait(timeout=50)
    properties = client.instances.properties

    everything = await properties(run.id)
    some = await properties(run.id, include_properties=["ENERGY", "nope"], stringify_nan=True)
    plain = await client.instances.get(run.id)
    whole = await client.instances.get(run.id, include_properties=["*"])
    text = await client.instances.get(run.id, include_properties="energy", stringify_nan=True)

    assert {"input-id", "energy"} < set(everything)
    assert sum(math.isnan(value) for value in everything["energy"]) == 1
    assert list(some) == ["input-id", "energy"]
    assert "NaN" in some["energy"]
    assert plain.property_table is None
    assert whole.property_table is not None
    assert set(whole.property_table) == set(everything)
    assert text.property_table == some
    with pytest.raises(ValueError, match="without commas, not 'a,b'"):
        await properties(run.id, include_properties=["a,b"])


async def test_missing_properties_have_their_own_errors(server: LocalServer, client: Client) -> None:
    """Not yet, and never; the service fails before there is a status."""
    await client.push(server.example("demo"))
    run = await client.start("demo", INPUTS)
    with pytest.raises(ServerError):
        await client.instances.get(run.id, include_properties=["*"])
    await server.advance(2)
    with pytest.raises(NotReady):
        await client.instances.properties(run.id)
    other = await client.start_lambda(LAMBDA, validate=False)
    await server.advance(100)

    with pytest.raises(NoProperties) as caught:
        await client.instances.properties(other.id, include_properties=["energy"])

    assert caught.value.columns == ("energy",)
    with pytest.raises(UnknownRun):
        await client.instances.properties("ghost")


async def test_a_key_output_is_fetched_by_its_group(server: LocalServer, client: Client) -> None:
    """In one request, also if the key-output does not exist."""
    await client.push(server.example("demo"))
    run = await client.start("demo", INPUTS)
    await server.advance(100)
    before = len(server.requests)

    output = await client.instances.output(run.id, "Energies")
    inside = await client.instances.output(run.id, "Folder", "sub/b.bin")
    with pytest.raises(UnknownOutput) as unknown:
        await client.instances.output(run.id, "Nope")
    with pytest.raises(NotAFolder):
        await client.instances.output(run.id, "Energies", "sub")
    with pytest.raises(UnknownRun) as ghost:
        await client.instances.output("ghost", "Energies")

    assert (output.filename, inside.filename) == ("energies.csv", "b.bin")
    assert unknown.value.name == "Nope"
    assert ghost.value.rest_uid == "ghost"
    assert len(server.requests) == before + 5
