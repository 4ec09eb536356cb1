"""Datasets, image pull secrets and what a deployment tells of itself, against the embedded server."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from st4sd_async import (
    S3,
    AlreadyExists,
    APIError,
    BadRequest,
    Client,
    LocalDeployment,
    NameTaken,
    NoToken,
    OutcomeUnknown,
    RetryPolicy,
    UnknownPullSecret,
    UnknownService,
)
from st4sd_async.local import DropAfter, Html, LocalServer, Reply

pytestmark = pytest.mark.anyio

KEY, PASSWORD = "a-secret-access-key", "a-very-secret-password"
BUCKET = S3(
    accessKeyID=SecretStr("an-access-key-id"),
    secretAccessKey=SecretStr(KEY),
    bucket="results",
    endpoint="https://s3.example",
)
PULL: dict[str, Any] = {"server": "quay.example/group", "username": "somebody", "password": PASSWORD}
JSON = {"Content-Type": "application/json"}


async def test_a_dataset_is_created_and_listed(client: Client) -> None:
    """From an `S3` or a mapping in the service's documented form."""
    assert await client.datasets.list() == []

    await client.datasets.create("first", BUCKET)
    given = {"accessKeyID": "i", "secretAccessKey": "k", "bucket": "b", "endpoint": "e", "region": "r"}
    await client.datasets.create("second", given)

    assert await client.datasets.list() == ["first", "second"]


async def test_a_dataset_that_cannot_be_is_an_error(client: Client) -> None:
    """One that exists already, or a name that the cluster refuses."""
    await client.datasets.create("first", BUCKET)

    with pytest.raises(AlreadyExists, match='"first" already exists'):
        await client.datasets.create("first", BUCKET)
    with pytest.raises(BadRequest, match="lower case alphanumeric") as caught:
        await client.datasets.create("Second_One", BUCKET)

    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("bucket", "words"),
    [
        ({"bucket": "b"}, r"lacks \['accessKeyID', 'secretAccessKey', 'endpoint'\]"),
        (S3(dataset="other"), "lacks"),
        (BUCKET.model_copy(update={"dataset": "other"}), "is a dataset itself"),
        ({"buckets": "b"}, "buckets: Extra inputs are not permitted"),
    ],
    ids=["short", "a dataset", "both", "misspelt"],
)
async def test_a_bucket_that_lacks_something_is_not_sent(
    bucket: Any, words: str, server: LocalServer, client: Client
) -> None:
    """The error names the missing fields, and never the values of the others."""
    before = len(server.requests)

    with pytest.raises(ValueError, match=words):
        await client.datasets.create("first", bucket)

    assert len(server.requests) == before
    with pytest.raises(TypeError, match="an S3 or a mapping of its fields, not str"):
        await client.datasets.create("first", "bucket")  # type: ignore[arg-type] # on purpose


async def test_datasets_need_datashim(server: LocalServer, client: Client) -> None:
    """A deployment without it says so."""
    server.faults.add("GET /datasets/", Reply(400, JSON, b'{"message": "Unable to list datasets because of (404)"}'))

    with pytest.raises(BadRequest, match="Unable to list datasets"):
        await client.datasets.list()


async def test_an_image_pull_secret_lives(client: Client) -> None:
    """Create, list, get and update; an update creates a missing one."""
    secrets = client.image_pull_secrets

    await secrets.create("quay", **PULL)
    assert await secrets.get("quay") == ["quay.example/group"]
    await secrets.update("quay", **{**PULL, "server": "quay.example/other"})
    await secrets.update("another", **{**PULL, "password": SecretStr(PASSWORD)})

    assert await secrets.list() == {"quay": ["quay.example/other"], "another": ["quay.example/group"]}


async def test_errors_of_image_pull_secrets_have_names(client: Client) -> None:
    """One that exists already, an unknown one (a 500), and a name taken by another Secret."""
    secrets = client.image_pull_secrets
    await secrets.create("quay", **PULL)

    with pytest.raises(AlreadyExists, match=r"; replace it with client.image_pull_secrets.update\('quay', \.\.\.\)"):
        await secrets.create("quay", **PULL)
    with pytest.raises(UnknownPullSecret, match=r"client.image_pull_secrets.list") as unknown:
        await secrets.get("ghost")
    with pytest.raises(NameTaken, match="choose another name"):
        await secrets.create("st4sd-internal-experiments", **PULL)
    with pytest.raises(BadRequest, match="is invalid"):
        await secrets.update("No_Name", **PULL)

    assert unknown.value.status == 500


async def test_a_secret_without_a_password_is_not_sent(server: LocalServer, client: Client) -> None:
    """Nothing that the service would break on."""
    before = len(server.requests)

    with pytest.raises(ValueError, match="'quay' needs a password"):
        await client.image_pull_secrets.create("quay", **{**PULL, "password": ""})
    with pytest.raises(ValueError, match="'quay' needs a server"):
        await client.image_pull_secrets.update("quay", **{**PULL, "server": None})

    assert len(server.requests) == before


@pytest.mark.parametrize("fault", [DropAfter(), Html(502)], ids=str)
async def test_what_may_exist_already_is_not_created_again(fault: Any, server: LocalServer, client: Client) -> None:
    """A dataset or a secret whose creation may have arrived is sent once; an update is sent again."""
    for path in ("POST /datasets/s3/*", "POST /image-pull-secrets/*", "PUT /image-pull-secrets/*"):
        server.faults.add(path, fault)

    with pytest.raises(OutcomeUnknown, match="it is unknown whether the dataset 'first' was created"):
        await client.datasets.create("first", BUCKET)
    with pytest.raises(OutcomeUnknown, match="it is unknown whether the image pull secret 'quay' was created"):
        await client.image_pull_secrets.create("quay", **PULL)
    quick = client.with_options(retry=RetryPolicy(first_wait=0.01))
    await quick.image_pull_secrets.update("other", **PULL)

    assert server.requests.count(("POST", "/rs/datasets/s3/first")) == 1
    assert server.requests.count(("POST", "/rs/image-pull-secrets/quay")) == 1
    assert server.requests.count(("PUT", "/rs/image-pull-secrets/other")) == 2


CREATIONS: dict[str, tuple[str, Callable[[Client], Awaitable[None]]]] = {
    "POST /datasets/s3/first": (KEY, lambda client: client.datasets.create("first", BUCKET)),
    "POST /image-pull-secrets/quay": (PASSWORD, lambda client: client.image_pull_secrets.create("quay", **PULL)),
    "PUT /image-pull-secrets/quay": (PASSWORD, lambda client: client.image_pull_secrets.update("quay", **PULL)),
}


@pytest.mark.parametrize("path", CREATIONS)
async def test_secrets_stay_secret(
    path: str, server: LocalServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys and passwords stay out of errors and logs, even if the service quotes the request."""
    caplog.set_level(logging.DEBUG)
    secret, create = CREATIONS[path]
    echo = f'{{"message": "cannot use {secret}", "sent": ["{secret}"], "{secret}": 1}}'.encode()
    server.faults.add(path, Reply(400, JSON, echo))

    with pytest.raises(APIError) as caught:
        await create(client)

    error = caught.value
    told = f"{error}{error!r}{error.detail}{''.join(traceback.format_exception(error))}{caplog.text}"
    assert "cannot use [secret]" in str(error)
    assert secret not in told
    assert KEY not in repr(BUCKET)


async def test_a_deployment_names_its_services(server: LocalServer, client: Client) -> None:
    """All of them, or one by name."""
    services = await client.deployment.services()

    assert services["cdb-rest"] == f"{server.url}/ds-mongodb-proxy"
    assert await client.deployment.service("cdb-rest") == services["cdb-rest"]
    with pytest.raises(UnknownService, match="valid options consumable-computing"):
        await client.deployment.service("nope")


async def test_a_service_without_a_cluster_knows_no_others(server: LocalServer, client: Client) -> None:
    """That has an error of its own, though it is a good login."""
    body = b'{"localDeployment": true, "message": "The API is running in LOCAL_DEPLOYMENT mode"}'
    server.faults.add("GET /url-map*", Reply(400, JSON, body), times=2)

    for call in (client.deployment.services(), client.deployment.service("cdb-rest")):
        with pytest.raises(LocalDeployment):
            await call


async def test_the_token_is_that_of_the_cookie(server: LocalServer, client: Client) -> None:
    """A client with an API key has none; a token never shows by accident."""
    async with Client(server.url, auth_token=server.auth_token) as other:
        token = await other.deployment.token()

    assert token.get_secret_value() == server.auth_token
    assert server.auth_token not in repr(token)
    with pytest.raises(NoToken, match="open the page in a browser"):
        await client.deployment.token()
