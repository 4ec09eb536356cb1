"""The incumbent's methods for relationships, datasets, secrets and lambdas work and agree with ours."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from st4sd_async import S3, Client
from st4sd_async.local import LocalServer
from tests.client.definitions import LAMBDA, related, relationship

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the incumbent and its dependencies
    pytest.mark.timeout(60),  # the import takes seconds, more on a busy machine
    pytest.mark.slow,
]

T = TypeVar("T")
PULL = {"username": "somebody", "password": "a-password"}


@pytest.fixture
def incumbent(server: LocalServer) -> Any:
    """Return the client of st4sd-runtime-core, after pushing both experiments of the relationship."""
    from experiment.service.db import ExperimentRestAPI

    api = ExperimentRestAPI(f"{server.url}/rs", max_retries=2, secs_between_retries=0.01, cc_bearer_key=server.api_key)
    for definition in related():
        api.api_experiment_push(definition)
    return api


@pytest.fixture
def ours(server: LocalServer) -> Callable[[Callable[[Client], Awaitable[T]]], T]:
    """Return a function that calls our client."""

    def run(call: Callable[[Client], Awaitable[T]]) -> T:
        async def call_client() -> T:
            async with Client(server.url, api_key=server.api_key) as client:
                return await call(client)

        return asyncio.run(call_client())

    return run


def test_relationships_agree(incumbent: Any, ours: Any) -> None:
    """Each client can get, list, synthesize and delete what the other pushed."""
    pushed = incumbent.api_relationship_push(relationship())
    again = ours(lambda client: client.relationships.push(relationship("other")))

    assert ours(lambda client: client.relationships.get("cheaper")).raw == pushed
    assert incumbent.api_relationship_get("other") == again.raw
    listed = ours(lambda client: client.relationships.list())
    assert {entry.identifier: entry.raw for entry in listed} == incumbent.api_relationship_list(
        treat_problems_as_errors=True
    )
    theirs = incumbent.api_relationship_synthesize("cheaper", {"parameterisation": {}}, "both")
    made = ours(lambda client: client.relationships.synthesize("cheaper", "both"))
    assert made.experiment.digest == theirs["metadata"]["registry"]["digest"]
    assert made.experiment.base.raw == theirs["base"]
    incumbent.api_relationship_delete("cheaper")
    ours(lambda client: client.relationships.delete("other"))
    assert incumbent.api_relationship_list() == {}


def test_unknown_relationships_agree(incumbent: Any, ours: Any) -> None:
    """Both clients raise an error with the same HTTP status."""
    from experiment.service.errors import InvalidHTTPRequest

    from st4sd_async import UnknownRelationship

    pairs: list[tuple[Callable[[], Any], Callable[[Client], Any]]] = [
        (lambda: incumbent.api_relationship_get("ghost"), lambda client: client.relationships.get("ghost")),
        (lambda: incumbent.api_relationship_delete("ghost"), lambda client: client.relationships.delete("ghost")),
        (
            lambda: incumbent.api_relationship_synthesize("ghost", {}, "both"),
            lambda client: client.relationships.synthesize("ghost", "both"),
        ),
    ]

    for theirs, call in pairs:
        with pytest.raises(InvalidHTTPRequest) as refused:
            theirs()
        with pytest.raises(UnknownRelationship) as caught:
            ours(call)
        assert refused.value.response.status_code == caught.value.status


def test_datasets_agree(incumbent: Any, ours: Any) -> None:
    """Each client lists what the other created, and cannot create it again."""
    bucket = S3(accessKeyID="i", secretAccessKey="k", bucket="b", endpoint="e")

    incumbent.api_datasets_create("theirs", "e", "b", "i", "k")
    ours(lambda client: client.datasets.create("ours", bucket))

    assert incumbent.api_datasets_list() == ours(lambda client: client.datasets.list()) == ["theirs", "ours"]
    with pytest.raises(ValueError, match="Dataset ours already exists"):
        incumbent.api_datasets_create("ours", "e", "b", "i", "k")


def test_pull_secrets_agree(incumbent: Any, ours: Any) -> None:
    """Each client lists and updates what the other created."""
    from experiment.service.errors import InvalidHTTPRequest

    incumbent.api_image_pull_secrets_create("theirs", "quay.example", **PULL)
    ours(lambda client: client.image_pull_secrets.create("ours", server="quay.example", **PULL))
    incumbent.api_image_pull_secrets_upsert("ours", "docker.example", **PULL)
    ours(lambda client: client.image_pull_secrets.update("theirs", server="docker.example", **PULL))

    known = incumbent.api_image_pull_secrets_list()

    assert known == ours(lambda client: client.image_pull_secrets.list())
    assert known == {"theirs": ["docker.example"], "ours": ["docker.example"]}
    with pytest.raises(InvalidHTTPRequest, match="ImagePullSecret already exists"):
        incumbent.api_image_pull_secrets_create("ours", "quay.example", **PULL)


def test_lambda_experiments_agree(incumbent: Any, ours: Any, server: LocalServer) -> None:
    """Each client sees the runs of the other; the incumbent checks FlowIR with the orchestrator's libraries."""
    theirs = incumbent.api_experiment_start_lambda(copy.deepcopy(LAMBDA))
    mine = ours(lambda client: client.start_lambda(LAMBDA, validate=False)).id  # no second process with them
    server.advance(100)

    states = [
        incumbent.api_rest_uid_status(rest_uid, print_too=False)["status"]["experiment-state"]
        for rest_uid in (theirs, mine)
    ]

    assert states == ["finished", "finished"]
    assert {run.id for run in ours(lambda client: client.instances.list())} == {theirs, mine}
