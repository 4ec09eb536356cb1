"""Experiments and graphs that are written as DSL, against the embedded server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from st4sd_async import (
    Client,
    Disabled,
    GraphExists,
    InvalidDSL,
    InvalidGraph,
    OutcomeUnknown,
    UnknownGraph,
)
from st4sd_async.local import DropAfter, LocalServer, Reply
from tests.client.definitions import DSL, dsl

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PACKAGE = {"metadata": {"package": {"name": "greeter"}}}


async def test_a_dsl_that_makes_sense_passes(client: Client) -> None:
    """The call returns nothing."""
    await client.utilities.validate_dsl(DSL)


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"entrypoint": None}, "entrypoint", "Missing entrypoint"),
        ({"components": []}, "workflows.0.execute.0", "has no matching template"),
        ({"workflow": []}, "workflow", "Extra inputs are not permitted"),
        ({"components": [{}]}, "components.0.signature", "Field required"),
    ],
    ids=str,
)
async def test_an_invalid_dsl_is_an_error_with_locations(change: Any, where: str, what: str, client: Client) -> None:
    """In the message, and as values; the same from this library and from the service."""
    calls = (
        client.utilities.validate_dsl(dsl(**change)),
        client.utilities.package_for_dsl(dsl(**change)),
        client.internal_experiments.push(dsl(**change), PACKAGE),
    )
    for call in calls:
        with pytest.raises(InvalidDSL, match=f"{where}: .*{what}") as caught:
            await call

        assert caught.value.problems[0].where == where
        assert what in caught.value.problems[0].what


async def test_a_package_is_made_for_a_dsl(client: Client) -> None:
    """It has the variables of the DSL, among which are its files, and no options."""
    made = await client.utilities.package_for_dsl(DSL)

    registry = made.experiment.metadata.registry
    assert made.experiment.name == "anonymous"
    assert registry.inputs == []  # no component refers to the file
    assert registry.platforms == ["default"]
    assert made.experiment.raw["metadata"]["registry"]["executionOptionsDefaults"]["variables"] == [
        {"name": "input.names.csv", "valueFrom": [{"value": "input/names.csv", "platform": "default"}]},
        {"name": "greeting", "valueFrom": [{"value": "hello", "platform": "default"}]},
    ]
    assert made.experiment.parameterisation.execution_options.variables == []
    assert made.changes == []


async def test_a_template_is_kept_as_far_as_it_fits(client: Client) -> None:
    """The result says what was taken from each part."""
    options = {"variables": [{"name": "greeting", "value": "welcome"}, {"name": "gone"}], "data": [{"name": "x.csv"}]}
    template = {
        "metadata": {"package": {"name": "greeter", "maintainer": "somebody", "keywords": ["polite"]}},
        "parameterisation": {"executionOptions": options},
    }

    made = await client.utilities.package_for_dsl(DSL, template)

    package = made.experiment.metadata.package
    assert (package.name, package.maintainer) == ("greeter", "somebody")
    assert package.keywords == ["polite", "internal-experiment"]
    (variable,) = made.experiment.parameterisation.execution_options.variables
    assert (variable.name, variable.value) == ("greeting", "welcome")
    assert [(change.message, change.location[-1]) for change in made.changes] == [
        ("Erased base.packages", "packages"),
        ("Updated metadata.registry", "registry"),
        ("Inherited metadata.package from template", "package"),
        ("Inherited executionOptions for variable greeting from template", 0),
        ("Removed executionOptions for variable gone", 1),
        ("Removed executionOptions for data x.csv", 0),
    ]
    with pytest.raises(InvalidDSL, match=r"metadata.name: Extra inputs are not permitted"):
        await client.utilities.package_for_dsl(DSL, {"metadata": {"name": "greeter"}})


async def test_an_internal_experiment_is_pushed_and_started(server: LocalServer, client: Client) -> None:
    """From the DSL to a run, by way of the package that was made for it."""
    made = await client.utilities.package_for_dsl(DSL, {**PACKAGE, "parameterisation": {}})
    assert made.experiment.raw["base"]["packages"][0]["source"] == {}
    package = {**PACKAGE, "parameterisation": {"executionOptions": {"variables": [{"name": "greeting"}]}}}

    experiment = await client.internal_experiments.push(DSL, package)
    run = await client.start(experiment, {"variables": {"greeting": "bye"}})
    await server.advance(100)

    assert experiment.tags == ["latest"]
    assert experiment.metadata.package.keywords == ["internal-experiment"]
    assert "s3" in experiment.raw["base"]["packages"][0]["source"]
    assert (await run.wait(timeout=50)).is_success
    assert (await client.experiments.dsl("greeter"))["workflows"][0]["steps"] == {"greet": "echo"}
    assert (await client.internal_experiments.push(DSL, experiment)).digest == experiment.digest


async def test_an_internal_experiment_needs_a_name(client: Client) -> None:
    """And a package that is one."""
    with pytest.raises(InvalidDSL, match=r'Missing "pvep.metadata.package.name"'):
        await client.internal_experiments.push(DSL, {})
    with pytest.raises(InvalidDSL, match="bases: Extra inputs are not permitted"):
        await client.internal_experiments.push(DSL, {"bases": {}})


async def test_a_graph_is_added_and_found(client: Client) -> None:
    """It loses the arguments of its entrypoint, and comes as completely as it is wanted."""
    added = await client.library.add(DSL)

    (listed,) = await client.library.list(exclude_unset=True)
    complete, short = await client.library.get("main"), await client.library.get("main", exclude_none=True)
    assert added == complete
    assert complete["entrypoint"]["execute"][0]["args"] == {}
    assert complete["components"][0]["command"]["interpreter"] is None
    assert "interpreter" not in short["components"][0]["command"]
    assert short["components"][0]["command"]["resolvePath"] is False
    assert listed["components"][0]["command"] == DSL["components"][0]["command"]
    shortest = await client.library.get("main", exclude_defaults=True)
    assert shortest["components"] == listed["components"]
    assert (listed["entrypoint"]["execute"][0]["target"], shortest["entrypoint"]["execute"]) == (
        "<entry-instance>",
        [{}],
    )
    await client.library.delete("main")
    assert await client.library.list() == []


async def test_a_component_alone_becomes_a_graph(client: Client) -> None:
    """A workflow of its name is put around it."""
    graph = await client.library.add({"components": DSL["components"]})

    assert graph["entrypoint"]["entry-instance"] == "echo"
    assert graph["workflows"][0]["steps"] == {"echo-wrapped": "echo-wrapped"}
    assert graph["components"][0]["signature"]["name"] == "echo-wrapped"


async def test_a_graph_begins_with_its_entry_workflow(client: Client) -> None:
    """In whatever order they were written."""
    outer = {
        "signature": {"name": "outer", "parameters": []},
        "steps": {"inner": "main"},
        "execute": [{"target": "<inner>", "args": {"input.names.csv": "input/names.csv"}}],
    }
    graph = dsl(workflows=[*DSL["workflows"], outer], entrypoint={"entry-instance": "outer"})

    added = await client.library.add(graph)

    assert [one["signature"]["name"] for one in added["workflows"]] == ["outer", "main"]


@pytest.mark.parametrize(
    ("graph", "what"),
    [
        ({}, "There must be at least 1 component template"),
        (dsl(components=[]), "There must be at least 1 component template"),
        (dsl(entrypoint={"entry-instance": "ghost"}), "The entrypoint points to an unknown template ghost"),
        (dsl(entrypoint={"entry-instance": "echo"}), "but echo is a Component"),
        (dsl(extra=1), "extra: Extra inputs are not permitted"),
        (dsl(workflows=[{**DSL["workflows"][0], "execute": []}]), "must execute at least 1 steps"),
        (dsl(workflows=[{**DSL["workflows"][0], "steps": {}}]), "must have at least 1 steps"),
        (dsl(workflows=[{**DSL["workflows"][0], "steps": {"greet": "ghost"}}]), "has no matching template"),
    ],
    ids=lambda value: str(value)[-40:],
)
async def test_a_graph_that_makes_no_sense_is_refused(graph: Any, what: str, client: Client) -> None:
    """The error says why, and nothing is added."""
    with pytest.raises(InvalidGraph, match=what) as caught:
        await client.library.add(graph)

    assert caught.value.problems
    assert await client.library.list() == []


async def test_errors_of_the_library_have_names(server: LocalServer, client: Client) -> None:
    """A name that is taken, an unknown graph in memory or in a bucket, a disabled library, an unknown outcome."""
    await client.library.add(DSL)

    with pytest.raises(GraphExists, match="delete that one first") as exists:
        await client.library.add(DSL)
    with pytest.raises(UnknownGraph, match=r"the service has no such object; list the existing ones .*library.list"):
        await client.library.get("ghost")
    await client.library.delete("ghost")
    memory = b'{"graphName": "ghost", "message": "Graph does not exist"}'
    server.faults.add("GET /library/ghost/", Reply(400, {"Content-Type": "application/json"}, memory))
    server.faults.add("DELETE /library/ghost/", Reply(404, {"Content-Type": "application/json"}, memory))
    for call in (client.library.get("ghost"), client.library.delete("ghost")):
        with pytest.raises(UnknownGraph, match=r"client.library.list"):
            await call
    broken = b'{"problem": "Unable to get Graph: no workflow", "message": "Invalid internal experiment payload"}'
    server.faults.add("GET /library/ghost/", Reply(400, {"Content-Type": "application/json"}, broken))
    with pytest.raises(InvalidGraph):
        await client.library.get("ghost")
    told = b'{"message": "Graph Library is disabled - contact the administrator of this ST4SD deployment"}'
    server.faults.add("GET /library/", Reply(400, {"Content-Type": "application/json"}, told))
    with pytest.raises(Disabled, match="ask the administrator"):
        await client.library.list()
    server.faults.add("POST /library/", DropAfter())
    with pytest.raises(OutcomeUnknown, match="it is unknown whether the graph was added to the library"):
        await client.library.add({"components": DSL["components"]})

    assert exists.value.name == "main"
    assert len(await client.library.list()) == 2


async def test_a_library_reports_graphs_that_it_cannot_read(server: LocalServer, client: Client) -> None:
    """One broken graph does not hide the others."""
    body = {"entries": [{"graph": {"components": []}}], "problems": [{"message": "Could not get graph old"}]}
    server.faults.add("GET /library/", Reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode()))

    graphs = await client.library.list()

    assert graphs == [{"components": []}]
    assert [problem.what for problem in graphs.problems] == ["Could not get graph old"]
    assert graphs.raw == body


async def test_a_definition_that_cannot_be_sent_is_an_error_of_the_same_kind(client: Client) -> None:
    """No mapping, nothing that JSON could say, more than the proxy lets through."""
    with pytest.raises(TypeError, match="a graph must be a mapping, not list"):
        await client.library.add([DSL])  # type: ignore[arg-type] # on purpose
    with pytest.raises(InvalidDSL, match="JSON cannot represent"):
        await client.utilities.validate_dsl({"entrypoint": object()})
    with pytest.raises(InvalidDSL, match="are more than the 1048576 allowed"):
        await client.utilities.validate_dsl({"entrypoint": "x" * (1 << 20)})
