"""Errors about unknown names suggest the names that were probably meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from st4sd_async import Client, Experiment, Launch, UnknownExperiment, UnknownProperty
from st4sd_async._api.experiments import similar_identifier
from st4sd_async.local import Html, LocalServer

pytestmark = pytest.mark.anyio

ADVICE = "did you mean 'demo'? list the existing ones with client.experiments.list()"
GOOD = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]}

CALLS: dict[str, Callable[[Client, str], Awaitable[Any]]] = {
    "start": lambda client, name: client.start(name, GOOD),
    "draft": lambda client, name: client.draft(name),
    "experiments.get": lambda client, name: client.experiments.get(name),
}


@pytest.fixture
async def demo(client: Client, server: LocalServer) -> Client:
    """A client of a deployment with one experiment."""
    await client.push(server.example("demo"))
    return client


@pytest.mark.parametrize("call", CALLS)
async def test_an_unknown_experiment_is_compared_with_the_registry(
    call: str, server: LocalServer, demo: Client
) -> None:
    """One list is requested, and only after the refusal."""
    before = len(server.requests)

    with pytest.raises(UnknownExperiment) as caught:
        await CALLS[call](demo, "dmeo")
    await CALLS[call](demo, "demo")

    assert f"{ADVICE} (" in str(caught.value)
    sent = [(method, path.partition("/rs")[2]) for method, path in server.requests[before:]]
    assert [path for _, path in sent][1] == "/experiments/"
    assert [path for _, path in sent].count("/experiments/") == 1


@pytest.mark.parametrize("call", CALLS)
async def test_nothing_is_suggested_if_the_list_fails_or_has_nothing_similar(
    call: str, server: LocalServer, demo: Client
) -> None:
    """The refusal is raised as it is."""
    with pytest.raises(UnknownExperiment, match="; list the existing ones"):
        await CALLS[call](demo, "nothing-like-it")
    server.faults.add("GET /experiments/$", Html(502), times=None)
    with pytest.raises(UnknownExperiment) as caught:
        await CALLS[call](demo, "dmeo")

    assert caught.value.advice == UnknownExperiment.advice


@pytest.mark.slow
async def test_a_batch_requests_the_list_once(server: LocalServer, demo: Client) -> None:
    """However many launches were refused."""
    before = len(server.requests)

    async with demo.batch() as batch:
        await batch.add(Launch(f"mol {number}", "dmeo", GOOD) for number in range(20))
        errors = [str(item.error) async for item in batch.run()]

    assert len(errors) == 20
    assert all(f"{ADVICE} (" in error for error in errors)
    assert [path.partition("/rs")[2] for _, path in server.requests[before:]].count("/experiments/") == 1


def entry(name: str, digest: str, *tags: str) -> Experiment:
    registry = {"digest": digest, "tags": list(tags)}
    return Experiment.model_validate({"metadata": {"package": {"name": name}, "registry": registry}})


REGISTRY = [
    entry("demo", "sha256xaa1111", "latest", "v1"),
    entry("demo", "sha256xbb2222"),
    entry("energies", "sha256xcc3333", "v2"),
]


@pytest.mark.parametrize(
    ("identifier", "similar"),
    [
        ("dmeo", "demo"),
        ("Demo", "demo"),
        ("demo:v2", "demo:v1"),
        ("demo:latst", "demo:latest"),
        ("energies", "energies:v2"),
        ("demo@sha256xbb", "demo@sha256xbb2222"),
        ("demo@sha256xaa1112", "demo@sha256xaa1111"),
        ("else", None),
        ("else@sha256xzzzzzzzzzzzzzzz", None),
    ],
)
def test_names_tags_and_digests_are_suggested(identifier: str, similar: str | None) -> None:
    """Untagged versions only by digest; a digest that was cut off is completed."""
    assert similar_identifier(identifier, REGISTRY) == similar


async def test_an_unknown_property_is_compared_with_the_measured_ones(server: LocalServer, demo: Client) -> None:
    """So is a column of the table."""
    run = await demo.start("demo", GOOD)
    await server.advance(60)
    await run.wait()

    with pytest.raises(UnknownProperty, match=r"it measured \[.*\]: did you mean 'energy'\?$"):
        await run.properties(["enrgy"])
    with pytest.raises(KeyError, match="did you mean 'weight'"):
        (await run.properties()).column("wieght")
