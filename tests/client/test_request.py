"""Requests of the user's own, with the credentials, errors and retries of all others."""

from __future__ import annotations

import pytest

from st4sd_async import (
    APIError,
    BadRequest,
    Client,
    DecodeError,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    UnknownExperiment,
    UnknownService,
)
from st4sd_async.local import DropAfter, Html, LocalServer, Reply
from tests.client.definitions import relationship

pytestmark = pytest.mark.anyio


async def test_each_method_does_what_it_says(server: LocalServer, client: Client) -> None:
    """The reply is returned as JSON."""
    pushed = await client.request("post", "/experiments/", json=server.example("demo"))
    assert pushed["result"]["metadata"]["package"]["name"] == "demo"

    tagged = await client.request("PUT", "experiments/demo/tag", params={"newTags": "latest,best"})
    assert tagged is not None
    assert (await client.request("GET", "experiments/demo:best"))["entry"]["base"]
    assert await client.request("DELETE", "experiments/demo") == {"deleted": 1}
    assert (await client.request("GET", "experiments/", params={"hideNone": "y"}))["entries"] == []


async def test_another_service_is_named(server: LocalServer, client: Client) -> None:
    """As the deployment names it; the path is below that one."""
    query = {"type": "experiment"}

    assert await client.request("GET", "hello/", service="cdb-rest") == "hello"
    found = await client.request("POST", "documents/api/v1.0/query", json=query, service="cdb-rest")
    assert found == {"document-descriptors": []}
    with pytest.raises(UnknownService, match=r"no service 'moon', only \['cdb-gateway-registry'"):
        await client.request("GET", "hello/", service="moon")


async def test_refusals_have_their_own_errors(server: LocalServer, client: Client) -> None:
    """By the keys in them, and else by their status."""
    with pytest.raises(UnknownExperiment):
        await client.request("DELETE", "experiments/ghost")
    with pytest.raises(NotFound):
        await client.request("GET", "nothing/here")
    with pytest.raises(APIError) as caught:
        await client.request("PUT", "url-map/")
    assert caught.value.status == 405
    server.faults.add("GET /datasets", Html(200))
    with pytest.raises(DecodeError):
        await client.request("GET", "datasets/")


async def test_only_what_does_no_harm_is_sent_again(server: LocalServer, client: Client) -> None:
    """A POST that may have arrived is never one of these."""
    server.faults.add("GET /datasets", DropAfter())
    assert await client.request("GET", "datasets/") == []

    await client.push(server.example("demo"))
    server.faults.add("POST /relationships", DropAfter())
    with pytest.raises(OutcomeUnknown, match="it is unknown whether POST relationships/ was carried out: "):
        await client.request("POST", "relationships/", json=relationship())
    assert server.requests.count(("POST", "/rs/relationships/")) == 1


async def test_secrets_of_the_body_are_not_quoted(server: LocalServer, client: Client) -> None:
    """Whatever the service says of them."""
    body = {"s3": {"secretAccessKey": "my-secret-key"}, "environmentVariables": {"TOKEN": ["my-other-token"]}}
    echo = b'{"message": "bad: my-secret-key my-other-token"}'
    server.faults.add("POST /experiments/*/start", Reply(400, {"Content-Type": "application/json"}, echo))

    with pytest.raises(BadRequest, match="bad: ") as caught:
        await client.request("POST", "experiments/demo/start", json=body)

    assert "my-" not in f"{caught.value} {caught.value.detail}"


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("PATCH", "experiments/", "method must be one of"),
        ("GET", "", "path must be relative to the service"),
        ("GET", "//elsewhere.example/x", "path must be relative"),
        ("GET", "experiments/../../other", "path must be relative"),
        ("GET", "experiments/?hideNone=y", "the query in params"),
        ("GET", "https://elsewhere.example/", "path must be relative"),
    ],
)
async def test_a_path_out_of_the_service_is_not_sent(
    method: str, path: str, told: str, server: LocalServer, client: Client
) -> None:
    """The credentials would go with it."""
    before = len(server.requests)

    with pytest.raises(ValueError, match=told):
        await client.request(method, path)

    assert len(server.requests) == before


async def test_a_body_that_is_too_large_is_not_sent(client: Client) -> None:
    """The proxy would refuse it."""
    with pytest.raises(PayloadTooLarge, match="more than the 1048576"):
        await client.request("POST", "library/", json={"text": "x" * (1 << 20)})


async def test_a_reply_that_is_not_json_is_an_error(server: LocalServer, client: Client) -> None:
    """As of a route for files."""
    await client.push(server.example("demo"))
    run = await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]})
    await server.advance(100)

    with pytest.raises(DecodeError):
        await client.request("GET", f"instances/{run}/outputs/Energies")


@pytest.mark.parametrize("url", ["https://st4sd.example", "https://st4sd.example/", "https://st4sd.example/rs/"])
def test_the_address_is_that_of_the_deployment(url: str) -> None:
    """However it was given."""
    assert Client(url).url == "https://st4sd.example/"
