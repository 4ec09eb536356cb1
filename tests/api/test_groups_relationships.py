"""Relationships between experiments, against the embedded server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import (
    Client,
    InvalidRelationship,
    RelationshipPayload,
    ServerError,
    UnknownExperiment,
    UnknownRelationship,
)
from st4sd_async.local import LocalServer, Reply
from st4sd_async.models import MergePolicy
from tests.client.definitions import MOLECULES, push_both, relationship
from tests.local.helpers import definition, package_files, repository

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_relationship_is_stored_complete(server: LocalServer, client: Client) -> None:
    """The service looks up base packages and finds links between files, variables and components."""
    reports, _ = await push_both(client)

    pushed = await client.relationships.push(relationship(description="a quick guess"))

    assert (pushed.identifier, pushed.description) == ("cheaper", "a quick guess")
    assert pushed.transform is not None
    source, target = pushed.transform.input_graph, pushed.transform.output_graph
    assert source is not None
    assert target is not None
    assert (source.identifier, source.components) == ("surrogate:latest", ["stage0.Compute"])
    assert (target.identifier, target.components) == ("reports:latest", ["stage0.Compute"])
    assert target.package is not None
    assert (target.package.name, target.package.source) == ("reports:latest", reports.base.packages[0].source)
    links = pushed.transform.links
    assert [(link.input and link.input.name, link.output and link.output.name) for link in links.parameters] == [
        (name, name) for name in ("input/molecules.csv:copy", "scale")
    ]
    assert [(link.input and link.input.name, link.output and link.output.name) for link in links.results] == [
        ("stage0.Compute:ref", "stage0.Compute:ref")
    ]
    assert (links.infers_parameters, links.merge_policy) == (True, MergePolicy.OUTPUT_OVERRIDES)
    assert await client.relationships.get("cheaper") == pushed


async def test_relationships_are_listed_replaced_and_deleted(server: LocalServer, client: Client) -> None:
    """One that was got from a registry can be pushed again; one of the same name is replaced."""
    await push_both(client)
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
    await push_both(client)
    await client.relationships.push(relationship())
    presets = {"presets": {"variables": [{"name": "scale", "value": "3"}]}}

    synthesis = await client.relationships.synthesize("cheaper", "both", presets)
    bare = await client.relationships.synthesize("cheaper", "bare", generate=False)
    run = await client.start("both", MOLECULES)

    assert (synthesis.experiment.name, synthesis.experiment.tags) == ("both", ["latest"])
    assert [one.name for one in synthesis.experiment.base.packages] == ["reports:latest", "surrogate:latest"]
    assert [one.value for one in synthesis.experiment.parameterisation.presets.variables] == ["3"]
    assert synthesis.experiment.parameterisation.execution_options.variables == []
    assert bare.experiment.parameterisation.presets.variables == []
    assert list(synthesis.inheritance.variables) == ["scale"]
    assert synthesis.inheritance.message is None
    assert synthesis.complaints == []
    assert (await client.experiments.get("both")).digest == synthesis.experiment.digest
    assert run.id.startswith("both-")


async def test_a_preview_stores_nothing(server: LocalServer, client: Client) -> None:
    """It has the definition in both forms of the DSL."""
    await push_both(client)
    await client.relationships.push(relationship())

    preview = await client.relationships.preview("cheaper", platform="default")
    old = await client.relationships.preview("cheaper", dsl_version="1")

    assert list(preview.dsl["workflows"][0]["steps"]) == ["stage0.Compute", "stage1.Report"]
    assert preview.experiment.name == "synthetic"
    assert "components" in old.dsl
    assert "entrypoint" not in old.dsl
    assert list(preview.inheritance.variables) == ["scale"]
    assert len(await client.experiments.list()) == 2


async def test_inheritance_that_cannot_be_explained_has_a_message(client: Client, tmp_path: Path) -> None:
    """The service fails to explain a number that is overridden; it still synthesizes."""
    for name in ("reports", "surrogate"):
        files = {path: text.replace('"1"', "1") for path, text in package_files("reports").items()}
        await client.push(definition(name, url=repository(tmp_path / name, files).as_uri()))
    await client.relationships.push(relationship())
    message = "Unable to explain package inheritance"

    preview = await client.relationships.preview("cheaper")
    synthesis = await client.relationships.synthesize("cheaper", "both")

    assert (preview.inheritance.variables, preview.inheritance.message) == ({}, message)
    assert (synthesis.inheritance.variables, synthesis.complaints) == ({}, [{"message": message}])
    with pytest.raises(ServerError, match="while explaining package-inheritance"):
        await client.experiments.inheritance("both")


async def test_a_graph_without_components_has_none(client: Client, tmp_path: Path) -> None:
    """It does not stand for the whole experiment: nothing is replaced, and nothing is added."""
    files = package_files("reports")
    for name in ("reports", "surrogate"):
        await client.push(definition(name, url=repository(tmp_path / name, files).as_uri()))
    whole = relationship()
    for graph in whole["transform"].values():
        del graph["components"]
    await client.relationships.push(whole)

    preview = await client.relationships.preview("cheaper", dsl_version="1")

    assert [one["name"] for one in preview.dsl["components"]] == ["Compute", "Report"]
    ghost = relationship()
    ghost["transform"]["inputGraph"]["components"] = ["Ghost"]
    with pytest.raises(ServerError, match="Internal error while registering relationship"):
        await client.relationships.push(ghost)


async def test_a_query_finds_relationships_by_their_beginnings(server: LocalServer, client: Client) -> None:
    """Each expression has to fit the beginning of its identifier."""
    await push_both(client)
    for name in ("cheaper", "cheapest"):
        await client.relationships.push(relationship(name))
    query = client.relationships.query

    assert [one.identifier for one in await query(identifier="cheaper")] == ["cheaper"]
    assert [one.identifier for one in await query(identifier="cheap")] == ["cheaper", "cheapest"]
    assert len(await query(input_graph="surrogate:", output_graph="reports:latest$")) == 2
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
    reports, _ = await push_both(client)
    transform = relationship()["transform"]

    misspelt = {**transform, "inputGraph": {"identifier": "surrogat"}}
    with pytest.raises(InvalidRelationship, match=r'Cannot find .* "surrogat:latest"') as unknown:
        await client.relationships.push({**relationship(), "transform": misspelt})
    one = {**transform, "inputGraph": {"identifier": "reports"}}
    with pytest.raises(InvalidRelationship, match="must be different") as same:
        await client.relationships.push({**relationship(), "transform": one})
    await client.relationships.push(relationship())
    with pytest.raises(InvalidRelationship, match=r"metadata.package: Value error, Invalid metadata.package.name"):
        await client.relationships.synthesize("cheaper", "No Name")
    await client.experiments.delete(reports.identifier)
    with pytest.raises(InvalidRelationship, match=r'Cannot find .* "reports:latest"'):
        await client.relationships.synthesize("cheaper", "both")
    with pytest.raises(InvalidRelationship, match=r'Cannot find .* "reports:latest"'):
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
