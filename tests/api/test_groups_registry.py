"""What the registry tells of experiments besides their definitions, against the embedded server."""

from __future__ import annotations

import ast
import json

import pytest
import yaml

from st4sd_async import (
    BadRequest,
    CannotUntagLatest,
    Client,
    DecodeError,
    InvalidDSL,
    InvalidPackage,
    InvalidQuery,
    UnknownExperiment,
    UnknownRelationship,
)
from st4sd_async.local import LocalServer, Reply
from tests.client.definitions import push_both, relationship

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_experiments_have_the_requested_fields(server: LocalServer, client: Client) -> None:
    """Without what the registry added, with null fields, with fields in development."""
    await client.push(server.example("demo"))

    (plain,) = await client.experiments.list()
    (bare,) = await client.experiments.list(with_registry=False)
    (full,) = await client.experiments.list(with_nulls=True, with_beta=True)
    one = await client.experiments.get("demo", with_registry=False, with_nulls=True, with_beta=True)

    assert plain.digest is not None
    assert bare.digest is None
    assert "registry" not in bare.raw["metadata"]
    assert "connections" not in plain.raw["base"]
    assert full.raw["base"]["connections"] == []
    assert "license" not in plain.raw["metadata"]["package"]
    assert full.raw["metadata"]["package"]["license"] is None
    assert ("registry" in one.raw["metadata"], one.raw["base"]["connections"]) == (False, [])


async def test_an_experiment_is_printed_for_a_program(server: LocalServer, client: Client) -> None:
    """The text is a Python dictionary, in one line or in many."""
    pushed = await client.push(server.example("demo"))

    pretty, line = await client.experiments.printed("demo"), await client.experiments.printed("demo", pretty=False)

    assert ast.literal_eval(pretty) == ast.literal_eval(line)
    assert ast.literal_eval(line)["metadata"]["registry"]["digest"] == pushed.digest
    assert ("\n" in pretty, "\n" in line) == (True, False)
    with pytest.raises(UnknownExperiment):
        await client.experiments.printed("ghost")


async def test_a_definition_that_is_no_longer_valid_says_where(server: LocalServer, client: Client) -> None:
    """An entry of the registry that an older service took."""
    problem = {"location": ["base", "packages", 0, "name"], "message": "Field required"}
    body = {"message": "Parameterised virtual experiment package demo is invalid", "problems": [problem]}
    reply = Reply(400, {"Content-Type": "application/json"}, json.dumps(body).encode())
    server.faults.add("GET /experiments/demo", reply)

    with pytest.raises(InvalidPackage, match="demo is invalid") as caught:
        await client.experiments.get("demo")

    assert caught.value.problems == (("base.packages.0.name", "Field required"),)


async def test_a_query_finds_experiments_by_their_base_package(server: LocalServer, client: Client) -> None:
    """By the package, or by the relationship that has it; a query for nothing finds all."""
    reports, _ = await push_both(client)
    slow = await client.push(server.example("fail"))
    await client.relationships.push(relationship())
    package = reports.raw["base"]["packages"][0]

    by_package = await client.experiments.query(package={"source": package["source"]})
    by_version = await client.experiments.query(package=package, match_version=True)
    by_relationship = await client.experiments.query(relationship="cheaper", side="output")
    other_commit = {"git": {**package["source"]["git"], "version": "another"}}

    assert [one.digest for one in by_package] == [reports.digest]
    assert [one.digest for one in by_version] == [reports.digest]
    assert [one.digest for one in by_relationship] == [reports.digest]
    assert len(await client.experiments.query()) == 3
    assert await client.experiments.query(package={"source": slow.raw["base"]["packages"][0]["source"]}) != by_package
    assert len(await client.experiments.query(package={"source": other_commit})) == 1
    assert await client.experiments.query(package={"source": other_commit}, match_version=True) == []


async def test_a_query_can_include_experiments_of_several_packages(server: LocalServer, client: Client) -> None:
    """They are found only if the package need not be the only one."""
    reports, _ = await push_both(client)
    await client.relationships.push(relationship())
    await client.relationships.synthesize("cheaper", "both")
    package = {"source": reports.raw["base"]["packages"][0]["source"]}

    assert len(await client.experiments.query(package=package)) == 1
    assert [one.name for one in await client.experiments.query(package=package, alone=False)][-1] == "both"


async def test_a_bad_query_is_refused(client: Client) -> None:
    """By the service, or before it is sent."""
    with pytest.raises(InvalidQuery, match="Extra inputs are not permitted"):
        await client.experiments.query(package={"sauce": {}})
    with pytest.raises(UnknownRelationship, match=r"client.relationships.list"):
        await client.experiments.query(relationship="ghost")
    with pytest.raises(ValueError, match="not both"):
        await client.experiments.query(package={}, relationship="cheaper")
    with pytest.raises(ValueError, match="'input' or 'output', not 'both'"):
        await client.experiments.query(relationship="cheaper", side="both")  # type: ignore[arg-type] # on purpose


async def test_tags_replace_those_there_were(server: LocalServer, client: Client) -> None:
    """A tag is in one place at a time, and the latest version keeps ``latest``."""
    first = await client.push(server.example("demo"))

    await client.experiments.tag("demo", ["latest", "1.0", "stable"])
    await client.experiments.tag(first.identifier, iter(["stable", "latest"]))

    assert (await client.experiments.get("demo:stable")).digest == first.digest
    assert (await client.experiments.get("demo")).tags == ["stable", "latest"]
    with pytest.raises(UnknownExperiment):
        await client.experiments.get("demo:1.0")


async def test_invalid_tags_are_refused(server: LocalServer, client: Client) -> None:
    """By the service, or before they are sent."""
    await client.push(server.example("demo"))

    with pytest.raises(CannotUntagLatest, match="keep 'latest'") as caught:
        await client.experiments.tag("demo", ["1.0"])
    with pytest.raises(UnknownExperiment):
        await client.experiments.tag("ghost", ["1.0"])
    with pytest.raises(TypeError, match="not the text 'latest'"):
        await client.experiments.tag("demo", "latest")
    with pytest.raises(ValueError, match="without commas, not 'a,b'"):
        await client.experiments.tag("demo", ["a,b"])
    with pytest.raises(ValueError, match="at least one tag"):
        await client.experiments.tag("demo", [])

    assert caught.value.identifier == "demo"
    assert (await client.experiments.get("demo")).tags == ["latest"]


async def test_the_history_has_all_versions(server: LocalServer, client: Client) -> None:
    """Those with tags, and those that lost them, once for each tag."""
    first = await client.push(server.example("demo"))
    changed = server.example("demo")
    changed["parameterisation"]["executionOptions"]["variables"] = []
    second = await client.push(changed)

    history = await client.experiments.history("demo")

    assert [(one.tag, one.digest, one.times_executed) for one in history.tags] == [("latest", second.digest, 0)]
    assert [(one.digest, one.original_tag) for one in history.untagged] == [(first.digest, "latest")]
    assert history.tags[0].created_on is not None
    assert (await client.experiments.history("ghost")).tags == []
    with pytest.raises(ValueError, match="without tag and digest, not 'demo:latest'"):
        await client.experiments.history("demo:latest")


async def test_a_definition_comes_as_dsl(server: LocalServer, client: Client) -> None:
    """It has the real components with their commands, and comes as the text of a YAML file too."""
    await client.push(server.example("demo"))

    dsl = await client.experiments.dsl("demo")
    text = await client.experiments.dsl_text("demo")

    (workflow,) = dsl["workflows"]
    assert dsl["entrypoint"]["execute"][0]["args"]["input.molecules.csv"] == "input/molecules.csv"
    assert [one["name"] for one in workflow["signature"]["parameters"]][-1] == "scale"
    assert list(workflow["steps"]) == ["stage0.Compute", "stage1.Report"]
    assert [one["command"]["executable"] for one in dsl["components"]] == ["python3", "python3"]
    assert text.startswith("entrypoint:\n  entry-instance: main\n")
    assert yaml.safe_load(text) == dsl
    for method in (client.experiments.dsl, client.experiments.dsl_text):
        with pytest.raises(UnknownExperiment):
            await method("ghost")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, {"dsl": None, "problems": ["there is no package"]}, "there is no package"),
        (200, {"problems": [{"location": ["base"], "message": "Field required"}]}, "base: Field required"),
    ],
    ids=["refused", "in a good reply"],
)
async def test_a_dsl_that_cannot_be_made_is_an_error(
    status: int, body: object, words: str, server: LocalServer, client: Client
) -> None:
    """In each form that the service uses."""
    fault = Reply(status, {"Content-Type": "application/json"}, json.dumps(body).encode())
    server.faults.add("GET /experiments/demo/dsl", fault)

    with pytest.raises(InvalidDSL, match=words) as caught:
        await client.experiments.dsl("demo")

    assert caught.value.problems[0].what in words


async def test_a_definition_of_another_type_is_an_error(server: LocalServer, client: Client) -> None:
    """A text or a mapping is expected."""
    reply = Reply(200, {"Content-Type": "application/json"}, b'{"dsl": 7, "entry": 7}')
    server.faults.add("GET /experiments/demo", reply, times=3)

    for call in (client.experiments.dsl, client.experiments.dsl_text, client.experiments.printed):
        with pytest.raises(DecodeError):
            await call("demo")


async def test_inheritance_shows_where_values_come_from(server: LocalServer, client: Client) -> None:
    """For an experiment with two base packages; with one it is an error."""
    await push_both(client)
    await client.relationships.push(relationship())
    options = {"executionOptions": {"variables": [{"name": "scale", "value": "3"}]}}
    await client.relationships.synthesize("cheaper", "both", options)

    inheritance = await client.experiments.inheritance("both")

    scale = inheritance.variables["scale"]
    assert (scale.preset, scale.option) == (None, "3")
    assert scale.base_package == "reports:latest"
    assert [(one.value, one.platform) for one in scale.values] == [("1", "default")]
    assert [(one.base_package, one.value) for one in scale.values[0].overrides] == [("surrogate:latest", "7")]
    with pytest.raises(BadRequest, match="single base package"):
        await client.experiments.inheritance("reports")
    with pytest.raises(UnknownExperiment):
        await client.experiments.inheritance("ghost")
