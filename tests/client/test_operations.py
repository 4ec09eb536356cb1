"""Every operation of the services can be reached through the client, and the embedded server serves it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from st4sd_async import APIError, Client, DecodeError, OutcomeUnknown
from st4sd_async.local import LocalServer, Reply
from tests.client.definitions import DSL, LAMBDA, relationship

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BUCKET = {"accessKeyID": "an-id", "secretAccessKey": "a-secret", "bucket": "b", "endpoint": "https://s3.example"}
PULL = {"server": "quay.example", "username": "somebody", "password": "a-password"}
Call = Callable[[Client], Awaitable[Any]]

# As the services' OpenAPI documents list them.
RUNTIME = [
    "GET /authorisation/token",
    "GET /datasets/",
    "POST /datasets/s3/{id}",
    "GET /experiments/",
    "POST /experiments/",
    "POST /experiments/lambda/start",
    "DELETE /experiments/{identifier}",
    "GET /experiments/{identifier}",
    "GET /experiments/{identifier}/dsl",
    "GET /experiments/{identifier}/package-inheritance",
    "POST /experiments/{identifier}/start",
    "GET /experiments/{identifier}/start/payload/",
    "PUT /experiments/{identifier}/tag",
    "GET /experiments/{package_name}/history",
    "GET /image-pull-secrets/",
    "GET /image-pull-secrets/{id}",
    "POST /image-pull-secrets/{id}",
    "PUT /image-pull-secrets/{id}",
    "GET /instances/",
    "DELETE /instances/{id}",
    "GET /instances/{id}",
    "GET /instances/{id}/outputs",
    "GET /instances/{id}/outputs/{key}",
    "GET /instances/{id}/properties",
    "GET /instances/{id}/status",
    "POST /internal-experiments/",
    "GET /library/",
    "POST /library/",
    "DELETE /library/{name}/",
    "GET /library/{name}/",
    "POST /query/experiments/",
    "POST /query/relationships/",
    "GET /relationships/",
    "POST /relationships/",
    "DELETE /relationships/{identifier}/",
    "GET /relationships/{identifier}/",
    "GET /relationships/{identifier}/preview/synthesize/dsl/",
    "POST /relationships/{identifier}/synthesize/{new_package_name}/",
    "GET /url-map/",
    "GET /url-map/{service}",
    "POST /utilities/dsl/",
    "POST /utilities/pvep/",
]

DATASTORE = [
    "POST /documents/api/v1.0/may-insert",
    "POST /documents/api/v1.0/query",
    "POST /documents/api/v1.0/upsert",
    "GET /hello/",
]

REGISTRY = [
    "GET /gateway/api/v1.0/unique_id/{unique_id}",
    "POST /gateway/api/v1.0/unique_id/{unique_id}/host/{host}/label/{label}",
    "POST /gateways/api/v1.0/unique_ids",
    "GET /hello/",
]

GATEWAY = [
    "GET /experiment/",
    "GET /experiment/api/v1.0/location/{location}",
    "POST /experiment/api/v1.0/location/{location}",
    "GET /experiment/download",
    "GET /file/api/v1.0/{experiment}/location/{location}",
    "POST /files/api/v1.1",
    "GET /hello/",
]

OF_ORCHESTRATORS = {
    "POST /documents/api/v1.0/may-insert",
    "POST /gateway/api/v1.0/unique_id/{unique_id}/host/{host}/label/{label}",
    "GET /experiment/api/v1.0/location/{location}",
    "POST /experiment/api/v1.0/location/{location}",
}
"""Operations by which runs and gateways register themselves, which are no business of a client."""

SUPERSEDED = {
    "GET /gateway/api/v1.0/unique_id/{unique_id}",
    "GET /file/api/v1.0/{experiment}/location/{location}",
}
"""Operations whose place others took: a 500 for what is unknown; text only, cut without a word."""

METHODS: dict[str, Call] = {
    "GET /authorisation/token": lambda client: client.deployment.token(),
    "GET /datasets/": lambda client: client.datasets.list(),
    "POST /datasets/s3/{id}": lambda client: client.datasets.create("bucket", BUCKET),
    "GET /experiments/": lambda client: client.experiments.list(),
    "POST /experiments/": lambda client: client.experiments.push({"metadata": {"package": {"name": "x"}}}),
    "POST /experiments/lambda/start": lambda client: client.start_lambda(LAMBDA, validate=False),
    "DELETE /experiments/{identifier}": lambda client: client.experiments.delete("x"),
    "GET /experiments/{identifier}": lambda client: client.experiments.get("x"),
    "GET /experiments/{identifier}/dsl": lambda client: client.experiments.dsl("x"),
    "GET /experiments/{identifier}/package-inheritance": lambda client: client.experiments.inheritance("x"),
    "POST /experiments/{identifier}/start": lambda client: client.start("x"),
    "GET /experiments/{identifier}/start/payload/": lambda client: client.experiments.start_skeleton("x"),
    "PUT /experiments/{identifier}/tag": lambda client: client.experiments.tag("x", ["latest"]),
    "GET /experiments/{package_name}/history": lambda client: client.experiments.history("x"),
    "GET /image-pull-secrets/": lambda client: client.image_pull_secrets.list(),
    "GET /image-pull-secrets/{id}": lambda client: client.image_pull_secrets.get("x"),
    "POST /image-pull-secrets/{id}": lambda client: client.image_pull_secrets.create("x", **PULL),
    "PUT /image-pull-secrets/{id}": lambda client: client.image_pull_secrets.update("x", **PULL),
    "GET /instances/": lambda client: client.instances.list(),
    "DELETE /instances/{id}": lambda client: client.instances.delete("x"),
    "GET /instances/{id}": lambda client: client.instances.get("x"),
    "GET /instances/{id}/outputs": lambda client: client.instances.outputs("x"),
    "GET /instances/{id}/outputs/{key}": lambda client: client.instances.output("x", "y"),
    "GET /instances/{id}/properties": lambda client: client.instances.properties("x"),
    "GET /instances/{id}/status": lambda client: client.instances.status("x"),
    "POST /internal-experiments/": lambda client: client.internal_experiments.push(DSL, {}),
    "GET /library/": lambda client: client.library.list(),
    "POST /library/": lambda client: client.library.add(DSL),
    "DELETE /library/{name}/": lambda client: client.library.delete("x"),
    "GET /library/{name}/": lambda client: client.library.get("x"),
    "POST /query/experiments/": lambda client: client.experiments.query(),
    "POST /query/relationships/": lambda client: client.relationships.query(identifier="x"),
    "GET /relationships/": lambda client: client.relationships.list(),
    "POST /relationships/": lambda client: client.relationships.push(relationship()),
    "DELETE /relationships/{identifier}/": lambda client: client.relationships.delete("x"),
    "GET /relationships/{identifier}/": lambda client: client.relationships.get("x"),
    "GET /relationships/{identifier}/preview/synthesize/dsl/": lambda client: client.relationships.preview("x"),
    "POST /relationships/{identifier}/synthesize/{new_package_name}/": (
        lambda client: client.relationships.synthesize("x", "y")
    ),
    "GET /url-map/": lambda client: client.deployment.services(),
    "GET /url-map/{service}": lambda client: client.deployment.service("cdb-rest"),
    "POST /utilities/dsl/": lambda client: client.utilities.validate_dsl(DSL),
    "POST /utilities/pvep/": lambda client: client.utilities.package_for_dsl(DSL),
}
"""How each operation of the runtime service is reached."""

DATASTORE_METHODS: dict[str, Call] = {
    "POST /documents/api/v1.0/query": lambda client: client.datastore.query({}),
    "POST /documents/api/v1.0/upsert": lambda client: tag_a_run(client),
    "GET /hello/": lambda client: client.datastore.is_healthy(),
}
"""How those operations of the datastore's proxy are reached that are for clients."""

REGISTRY_METHODS: dict[str, Call] = {
    "POST /gateways/api/v1.0/unique_ids": lambda client: client.gateways.resolve(["example-cluster"]),
    "GET /hello/": lambda client: client.gateways.is_healthy(),
}
"""How those operations of the registry of gateways are reached that are for clients."""

GATEWAY_METHODS: dict[str, Call] = {
    "GET /experiment/": lambda client: look_at_files(client, "has_component"),
    "GET /experiment/download": lambda client: look_at_files(client, "download_component"),
    "POST /files/api/v1.1": lambda client: look_at_files(client, "read_file"),
    "GET /hello/": lambda client: client.gateways.is_healthy("example-cluster"),
}
"""How those operations of a gateway are reached that are for clients."""


async def look_at_files(client: Client, how: str) -> None:
    """Look at the files of the run that there is."""
    component, *_ = await client.datastore.components(stage=0)
    if how == "has_component":
        assert await client.gateways.has_component(component.instance, 0, component.name)
    elif how == "download_component":
        with TemporaryDirectory() as folder:
            assert await client.download_component(component.instance, 0, component.name, folder, strict=True)
    else:
        assert await client.read_file(component.instance, "output/experiment.log")


async def tag_a_run(client: Client) -> None:
    """Tag the run that there is."""
    await client.datastore.tag(await client.datastore.experiments(), {"campaign": "first"})


def test_every_operation_has_a_method() -> None:
    """No operation is missing, and none is invented."""
    assert len(RUNTIME) == 42
    assert set(METHODS) == set(RUNTIME)
    for methods, operations in (
        (DATASTORE_METHODS, DATASTORE),
        (REGISTRY_METHODS, REGISTRY),
        (GATEWAY_METHODS, GATEWAY),
    ):
        assert set(methods) == set(operations) - OF_ORCHESTRATORS - SUPERSEDED


async def test_each_method_reaches_its_operation(server: LocalServer, client: Client) -> None:
    """Each method sends the one request that it stands for, with the slash that the route wants."""
    lost = []

    for operation, call in METHODS.items():
        before = len(server.requests)
        with suppress(APIError):
            await call(client)
        if not reached(operation, "/rs", server.requests[before:]):
            lost.append(operation)

    assert lost == []


OF_DATASTORE = [
    *(("/ds-mongodb-proxy", operation, call) for operation, call in DATASTORE_METHODS.items()),
    *(("/ds-registry", operation, call) for operation, call in REGISTRY_METHODS.items()),
    *(("/ds-gateway", operation, call) for operation, call in GATEWAY_METHODS.items()),
]


async def test_each_method_reaches_its_operation_of_the_datastore(server: LocalServer, client: Client) -> None:
    """The same for the services of the datastore, which know something of one run."""
    await client.start_lambda(LAMBDA, validate=False)
    await server.advance(100)
    lost = []

    for prefix, operation, call in OF_DATASTORE:
        before = len(server.requests)
        await call(client)
        if not reached(operation, prefix, server.requests[before:]):
            lost.append((prefix, operation))

    assert lost == []


def reached(operation: str, prefix: str, requests: list[tuple[str, str]]) -> bool:
    """Whether a request of these is one for an operation."""
    method, _, path = operation.partition(" ")
    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(prefix + path))
    return any(verb == method and re.fullmatch(pattern, where) for verb, where in requests)


async def test_the_embedded_server_serves_each_operation(server: LocalServer) -> None:
    """The route is there and takes the method; a method that no operation has is refused in JSON."""
    refusal = {"message": "The method is not allowed for the requested URL."}
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {server.api_key}"}) as web:
        for operation in RUNTIME:
            method, _, path = operation.partition(" ")
            url = f"{server.url}/rs{re.sub(r'{[a-z_]+}', 'x', path)}"

            options = await web.options(url)
            refused = await web.patch(url)

            assert options.status_code == 200, operation
            assert method in options.headers["allow"].split(", "), operation
            assert (refused.status_code, refused.json()) == (405, refusal), operation


SAYS_NOTHING = {one for one in METHODS if one.startswith(("DELETE", "PUT"))} | {
    "POST /datasets/s3/{id}",
    "POST /image-pull-secrets/{id}",
    "POST /utilities/dsl/",
}
"""Operations whose good replies say no more than that it was done."""
ANY_BYTES = {"GET /instances/{id}/outputs/{key}"}
"""Operations that anything may come from."""


@pytest.mark.parametrize("body", [b'{"half": ', b"7"], ids=["half of it", "a number"])
async def test_an_unexpected_reply_is_not_a_result(body: bytes, server: LocalServer, client: Client) -> None:
    """An unexpected reply is never a result; for a start or an addition the outcome is unknown."""
    fault = Reply(200, {"Content-Type": "application/json"}, body)
    wrong: dict[str, object] = {}

    for operation in sorted(set(METHODS) - SAYS_NOTHING - ANY_BYTES):
        server.faults.add(re.sub(r"{\w+}", "*", operation), fault)
        outcome: object
        try:
            outcome = await METHODS[operation](client)
        except (DecodeError, OutcomeUnknown) as error:
            outcome = error
        server.faults.clear()
        once = operation.endswith("/start") or operation == "POST /library/"
        is_error = isinstance(outcome, DecodeError | OutcomeUnknown)
        if not is_error or isinstance(outcome, OutcomeUnknown) is not once:
            wrong[operation] = outcome

    assert wrong == {}
