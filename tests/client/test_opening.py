"""How a client is opened: addresses, credentials, authorities, options; against the embedded server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st4sd_async import Client, Config, ConfigError, DecodeError, St4sdError, Unauthorized
from st4sd_async.local import LocalServer, Reply
from tests.client.definitions import MOLECULES

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("suffix", ["", "/", "/rs", "/rs/"])
async def test_the_address_works_with_and_without_rs(server: LocalServer, suffix: str) -> None:
    """Users know the deployment by either address."""
    async with Client(server.url + suffix, api_key=server.api_key) as client:
        assert await client.instances.list() == []


async def test_a_key_and_a_token_open_the_client(server: LocalServer, tmp_path: Path) -> None:
    """As text, as a file, from a function and from a coroutine; the key wins over the token."""
    file = tmp_path / "key"
    file.write_text(server.api_key)

    async def provider() -> str:
        return server.api_key

    for key in (server.api_key, file, lambda: server.api_key, provider):
        async with Client(server.url, api_key=key, auth_token="wrong") as client:
            assert await client.instances.list() == []
    async with Client(server.url, auth_token=server.auth_token) as client:
        assert await client.instances.list() == []


@pytest.mark.parametrize("credentials", [{"api_key": "wrong"}, {"auth_token": "wrong"}, {}], ids=str)
async def test_entering_with_bad_credentials_is_refused(server: LocalServer, credentials: dict[str, str]) -> None:
    """The error names the page with a new token, and the client can be closed at once."""
    client = Client(server.url, **credentials)  # type: ignore[arg-type] # a table

    with pytest.raises(Unauthorized) as caught:
        await client.__aenter__()

    assert f"{server.url}/authorisation/token" in str(caught.value)
    assert repr(client).endswith("not open)")


async def test_nothing_touches_the_network_before_entering(server: LocalServer) -> None:
    """Making a client and a handle is free; validation can be left out."""
    client = Client(server.url, api_key="wrong", config=Config(validate=False))
    client.run("demo-1")
    assert server.requests == []

    with pytest.raises(St4sdError, match="this client is not open: use it inside 'async with"):
        await client.instances.list()
    async with client:
        assert server.requests == []
        with pytest.raises(St4sdError, match="open already"):
            await client.__aenter__()
    assert server.requests == []


async def test_a_client_can_be_opened_again(server: LocalServer) -> None:
    """After it was left; a notebook runs its cells more than once."""
    client = Client(server.url, api_key=server.api_key)
    for _ in range(2):
        async with client:
            assert await client.instances.list() == []


async def test_an_address_that_is_not_st4sd_is_an_error(server: LocalServer) -> None:
    """A web page where JSON is due is the likeliest sign of a wrong address."""
    server.faults.add("GET /url-map", Reply(200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"))

    with pytest.raises(DecodeError, match="is this the url of an ST4SD deployment"):
        await Client(server.url, api_key=server.api_key).__aenter__()


async def test_a_service_without_a_cluster_is_a_valid_login(server: LocalServer) -> None:
    """A local deployment has no map of services."""
    body = b'{"localDeployment": true, "message": "Local deployment"}'
    server.faults.add("GET /url-map", Reply(400, {"Content-Type": "application/json"}, body))

    async with Client(server.url, api_key=server.api_key) as client:
        assert await client.instances.list() == []


async def test_a_credential_that_expires_is_renewed_in_the_same_call(server: LocalServer) -> None:
    """A provider is called again, a file read again; a fixed value stays refused."""
    async with (
        Client(server.url, api_key=lambda: server.api_key) as client,
        Client(server.url, api_key=server.api_key) as fixed,
    ):
        await client.push(server.example("demo"))
        server.renew()
        run = await client.start("demo", MOLECULES)
        assert len(await client.instances.list()) == 1
        with pytest.raises(Unauthorized, match="get a new token at"):
            await fixed.status(run.id)


async def test_tls_is_verified_against_the_given_authority() -> None:
    """Refused without the CA file, accepted with it."""
    with LocalServer(tls=True) as server:
        assert server.url.startswith("https://")
        assert server.ca_file is not None
        with pytest.raises(St4sdError, match="ST4SD_CA_FILE"):
            await Client(server.url, api_key=server.api_key).__aenter__()
        async with Client(server.url, api_key=server.api_key, config=Config(verify=server.ca_file)) as client:
            await client.push(server.example("demo"))
            assert (await client.start("demo", MOLECULES)).id.startswith("demo-")


async def test_options_change_over_the_same_connections(client: Client, server: LocalServer) -> None:
    """The other client lives as long as the first and leaves it as it was."""
    quick = client.with_options(timeout=2, poll_interval=None)

    assert await quick.instances.list() == await client.instances.list() == []
    assert quick._config == Config(timeout=2)
    assert client._config.poll_interval == 0.02
    with pytest.raises(ConfigError, match="timeout"):
        client.with_options(timeout=0)


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ("https://127.0.0.1/ds-mongodb-proxy", "{home}/ds-mongodb-proxy/"),
        ("{home}/ds-mongodb-proxy/", "{home}/ds-mongodb-proxy/"),
        ("http://127.0.0.1:1/ds", "http://127.0.0.1:1/ds/"),
        ("https://data.example/ds", "https://data.example/ds/"),
    ],
    ids=["without the port", "as it is", "another port", "another host"],
)
async def test_services_are_reached_through_the_address_of_the_deployment(
    server: LocalServer, told: str, used: str
) -> None:
    """The map of services names the public address, which need not be the one that this machine can reach."""
    body = json.dumps({"cdb-rest": told.format(home=server.url)}).encode()
    server.faults.add("GET /url-map", Reply(200, {"Content-Type": "application/json"}, body))

    async with Client(server.url, api_key=server.api_key) as client:
        services = await client._session.services()

    assert services == {"cdb-rest": used.format(home=server.url)}


def test_a_plain_with_says_what_to_do() -> None:
    """It is the first thing that is mistyped."""
    with pytest.raises(TypeError, match="use 'async with'"), Client("https://st4sd.example"):
        pass
