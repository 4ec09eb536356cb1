"""Relationships between experiments, against the embedded server."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from st4sd_async import Client, InvalidRelationship, RelationshipPayload, UnknownExperiment, UnknownRelationship
from st4sd_async.local import LocalServer, Reply
from st4sd_async.models import MergePolicy
from tests.client.definitions import MOLECULES, push_both, relationship

pytestmark = pytest.mark.anyio


async def test_a_relationship_is_stored_complete(server: LocalServer, client: Client) -> None:
    """The service looks up base packages and finds links between variables of the same name."""
    demo, _ = await push_both(server, client)

    pushed = await client.relationships.push(relationship(description="a quick guess"))

    assert (pushed.identifier, pushed.description) == ("cheaper", "a quick guess")
    assert pushed.transform is not None
    source, target = pushed.transform.input_graph, pushed.transform.output_graph
    assert source is not None
    assert target is not None
    assert (source.identifier, source.components) == ("surrogate:latest", [])
    assert (target.identifier, target.components) == ("demo:latest", ["stage0.Compute"])
    assert target.package == demo.base.packages[0]
    links = pushed.transform.links
    assert [(link.input and link.input.name, link.output and link.output.name) for link in links.parameters] == [
        ("scale", "scale")
    ]
    assert (links.infers_parameters, links.merge_policy) == (True, MergePolicy.OUTPUT_OVERRIDES)
    assert await client.relationships.get("cheaper") == pushed


async def test_relationships_are_listed_replaced_and_deleted(server: LocalServer, client: Client) -> None:
    """One that was got from a registry can be pushed again; one of the same name is replaced."""
    await push_both(server, client)
    first = await client.relationships.push(relationship())
    await client.relationships.push(first)
    await client.relationships.push(RelationshipPayload.model_validate(relationship(description="later")))

    listed = await client.relationships.list()

    assert [one.description for one in listed] == ["later"]
    assert listed.problems == ()
    assert "value" not in str(listed.raw)
    assert "value" in str((await client.relationships.list(nulls=True)).raw)
    await client.relationships.delete("cheaper")
    assert await client.relationships.list() == []


async def test_an_unknown_relationship_has_its_own_error(server: LocalServer, client: Client) -> None:
    """The service reports it in three ways: by a key, by the bare name, and by a reason."""
    relationships = client.relationships

    for call in (
        relationships.get("ghost"),
        relationships.delete("ghost"),
        relationships.synthesize("ghost", "new"),
        relationships.preview("ghost"),
    ):
        with pytest.raises(UnknownRelationship, match=r"client.relationships.list"):
            await call


@pytest.mark.parametrize(
    ("key", "error"),
    [("relationshipNotFound", UnknownRelationship), ("parameterisedPackageNotFound", UnknownExperiment)],
)
async def test_the_documented_errors_are_understood_too(
    key: str, error: Any, server: LocalServer, client: Client
) -> None:
    """Their keys are in the code of the service, though it takes another way today."""
    body = json.dumps({key: "ghost", "message": "m"}).encode()
    server.faults.add("POST /relationships/*", Reply(404, {"Content-Type": "application/json"}, body))

    with pytest.raises(error) as caught:
        await client.relationships.synthesize("ghost", "new")

    assert caught.value.identifier == "ghost"


async def test_an_experiment_is_synthesized_and_started(server: LocalServer, client: Client) -> None:
    """It is in the registry, with both base packages and the given parameterisation."""
    await push_both(server, client)
    await client.relationships.push(relationship())
    presets = {"presets": {"variables": [{"name": "scale", "value": "3"}]}}

    synthesis = await client.relationships.synthesize("cheaper", "both", presets)
    bare = await client.relationships.synthesize("cheaper", "bare", generate=False)
    run = await client.start("both", MOLECULES)

    assert (synthesis.experiment.name, synthesis.experiment.tags) == ("both", ["latest"])
    assert [one.name for one in synthesis.experiment.base.packages] == ["demo:latest", "surrogate:latest"]
    assert [one.value for one in synthesis.experiment.parameterisation.presets.variables] == ["3"]
    assert synthesis.experiment.parameterisation.execution_options.variables == []
    assert bare.experiment.parameterisation.presets.variables == []
    assert list(synthesis.inheritance.variables) == ["scale"]
    assert synthesis.complaints == []
    assert (await client.experiments.get("both")).digest == synthesis.experiment.digest
    assert run.id.startswith("both-")


async def test_a_preview_stores_nothing(server: LocalServer, client: Client) -> None:
    """It has the definition in both forms of the DSL."""
    await push_both(server, client)
    await client.relationships.push(relationship())

    preview = await client.relationships.preview("cheaper", platform="default")
    old = await client.relationships.preview("cheaper", dsl_version="1")

    await client.utilities.validate_dsl(preview.dsl)
    assert preview.experiment.name == "synthetic"
    assert "components" in old.dsl
    assert "entrypoint" not in old.dsl
    assert list(preview.inheritance.variables) == ["scale"]
    assert len(await client.experiments.list()) == 2


async def test_a_query_finds_relationships_by_their_beginnings(server: LocalServer, client: Client) -> None:
    """Each expression has to fit the beginning of its identifier."""
    await push_both(server, client)
    for name in ("cheaper", "cheapest"):
        await client.relationships.push(relationship(name))
    query = client.relationships.query

    assert [one.identifier for one in await query(identifier="cheaper")] == ["cheaper"]
    assert [one.identifier for one in await query(identifier="cheap")] == ["cheaper", "cheapest"]
    assert len(await query(input_graph="surrogate:", output_graph="demo:latest$")) == 2
    assert await query(identifier="aper") == []
    assert await query(identifier="cheap", output_graph="surrogate") == []
    with pytest.raises(ValueError, match="at least one"):
        await query()
    with pytest.raises(ValueError, match="input_graph is not a regular expression"):
        await query(input_graph="(")


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"transform": None}, "transform", "valid dictionary"),
        ({"tranform": {}}, "tranform", "Extra inputs"),
        ({"transform": {"inputGraph": {"identifier": "a"}}}, "transform.outputGraph", "Field required"),
    ],
    ids=str,
)
async def test_an_invalid_relationship_is_not_sent(
    change: Any, where: str, what: str, server: LocalServer, client: Client
) -> None:
    """All problems are reported at once, with locations."""
    before = len(server.requests)

    with pytest.raises(InvalidRelationship, match="the relationship was not sent") as caught:
        await client.relationships.push({**relationship(), **change})

    assert caught.value.problems[0].where == where
    assert what in caught.value.problems[0].what
    assert len(server.requests) == before
    with pytest.raises(TypeError, match="a mapping or a RelationshipPayload, not str"):
        await client.relationships.push("cheaper")  # type: ignore[arg-type] # on purpose


async def test_the_service_reports_what_is_wrong_with_a_relationship(server: LocalServer, client: Client) -> None:
    """An unknown experiment, two equal graphs, components that do not exist."""
    demo, _ = await push_both(server, client)
    transform = relationship()["transform"]

    misspelt = {**transform, "inputGraph": {"identifier": "surrogat"}}
    with pytest.raises(InvalidRelationship, match=r'Cannot find .* "surrogat:latest"') as unknown:
        await client.relationships.push({**relationship(), "transform": misspelt})
    one = {**transform, "inputGraph": {"identifier": "demo"}}
    with pytest.raises(InvalidRelationship, match="must be different") as same:
        await client.relationships.push({**relationship(), "transform": one})
    await client.relationships.push(relationship())
    with pytest.raises(InvalidRelationship, match=r"metadata.package: Value error, Invalid metadata.package.name"):
        await client.relationships.synthesize("cheaper", "No Name")
    await client.experiments.delete(demo.identifier)
    with pytest.raises(InvalidRelationship, match=r'Cannot find .* "demo:latest"'):
        await client.relationships.synthesize("cheaper", "both")
    with pytest.raises(InvalidRelationship, match=r'Cannot find .* "demo:latest"'):
        await client.relationships.preview("cheaper")

    assert unknown.value.problems[0].what.startswith("Cannot find")
    assert same.value.problems[0].where == "transform"


async def test_invalid_relationships_do_not_hide_the_others(server: LocalServer, client: Client) -> None:
    """They are problems, by name, beside those that the service found."""
    body = {
        "entries": [{"identifier": "good"}, {"identifier": "bad", "transform": "x"}, "worse"],
        "problems": [{"identifier": "old", "problems": [{"location": ["transform", "x"], "message": "m"}]}],
    }
    fault = Reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode())
    server.faults.add("GET /relationships/", fault)

    server.faults.add("POST /query/relationships/", replace(fault, body=json.dumps(body["entries"]).encode()))

    listed = await client.relationships.list()
    found = await client.relationships.query(identifier="good")

    assert found == listed
    assert [problem.where for problem in found.problems] == ["bad", ""]
    assert [one.identifier for one in listed] == ["good"]
    assert [problem.where for problem in listed.problems] == ["old: transform.x", "bad", ""]
    assert listed.raw == body
