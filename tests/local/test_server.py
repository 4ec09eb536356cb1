"""The embedded server responds like the recorded services."""

from __future__ import annotations

import errno
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from st4sd_async.local import Delay, LocalServer
from tests.local.helpers import BAD_REQUEST, definition
from tests.tries import sample

NOT_ALLOWED = {"message": "The method is not allowed for the requested URL."}


def test_serves_synchronously(server: LocalServer, web: httpx.Client) -> None:
    """As a plain context manager it provides a URL, credentials and the page at the root."""
    home = web.get("/")

    assert home.status_code == 200
    assert home.headers["content-type"] == "text/html; charset=utf-8"
    assert server.requests == [("GET", "/rs/")]
    assert server.ca_file is None


@pytest.mark.anyio
async def test_serves_asynchronously() -> None:
    """As an asynchronous context manager it closes its port at the end."""
    async with httpx.AsyncClient(verify=False) as client:
        async with LocalServer() as server:
            cookies = {"Cookie": f"oauth-proxy={server.auth_token}"}
            reply = await client.get(f"{server.url}/rs/authorisation/token", headers=cookies)

        assert reply.json() == server.auth_token
        with pytest.raises(httpx.ConnectError):
            await client.get(server.url)


def test_a_port_that_is_in_use_is_named(server: LocalServer) -> None:
    """The error contains the port and what to do."""
    port = int(server.url.rpartition(":")[2])

    with (
        pytest.raises(OSError, match=f"127.0.0.1:{port}.*another port, or 0 for a free one") as caught,
        LocalServer(port=port),
    ):
        pass

    assert caught.value.errno == errno.EADDRINUSE


def test_tls_is_trusted_through_its_own_ca() -> None:
    """With TLS the server has a certificate of a temporary CA; redirects are to http, and from there to https."""
    with LocalServer(tls=True) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=server.url, headers=headers, verify=context) as web:
            addresses = web.get("/url-map/").json()
            moved = web.get("/experiments?a=b")
            plain = moved.headers["location"]
            back = web.get(plain)
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)

    assert set(addresses.values()) == {f"{server.url}{path}" for path in ("/rs", "/ds-mongodb-proxy", "/ds-registry")}
    assert moved.status_code == 308
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/rs/experiments/\?a=b", plain)
    assert (back.status_code, back.headers["location"]) == (302, f"{server.url}/rs/experiments/?a=b")
    assert "<title>302 Found</title>" in back.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Cookie": "oauth-proxy=wrong"},
        {"Authorization": "Bearer wrong", "Cookie": "oauth-proxy={token}"},
        {"Cookie": "oauth-proxy={key}"},
    ],
    ids=["nothing", "wrong key", "wrong token", "wrong key beside right token", "key as token"],
)
@pytest.mark.parametrize("path", ["/rs/experiments/", "/nope", "/ds-registry/hello/"])
def test_invalid_credentials_get_the_sign_in_page(server: LocalServer, path: str, headers: dict[str, str]) -> None:
    """Every path is 403 with HTML and deletes the cookie."""
    filled = {name: value.format(token=server.auth_token, key=server.api_key) for name, value in headers.items()}

    reply = httpx.get(server.url + path, headers=filled, verify=False)

    assert reply.status_code == 403
    assert reply.headers["content-type"] == "text/html"
    assert reply.headers["set-cookie"].startswith("oauth-proxy=; Path=/; Expires=Thu, 01 Jan 1970")
    assert "<title>Log In</title>" in reply.text


def test_renewed_credentials_replace_the_old_ones(server: LocalServer, web: httpx.Client) -> None:
    """After a renewal the old key and token are rejected, and the new ones accepted."""
    old = server.api_key, server.auth_token

    server.renew()

    assert web.get("/url-map/").status_code == 403
    assert not {server.api_key, server.auth_token} & set(old)
    headers = {"Authorization": f"Bearer {server.api_key}"}
    assert httpx.get(f"{server.url}/rs/", headers=headers, verify=False).status_code == 200


@pytest.mark.anyio
async def test_tokens_expire_and_keys_do_not() -> None:
    """A token is rejected once its lifetime on the virtual clock is over."""
    async with LocalServer(speed=0, token_lifetime=60) as server, httpx.AsyncClient(verify=False) as client:
        token = {"Cookie": f"oauth-proxy={server.auth_token}"}
        key = {"Authorization": f"Bearer {server.api_key}"}
        before = await client.get(f"{server.url}/rs/url-map/", headers=token)
        await server.advance(60)
        after = await client.get(f"{server.url}/rs/url-map/", headers=token)
        with_key = await client.get(f"{server.url}/rs/url-map/", headers=key)

    assert [before.status_code, after.status_code, with_key.status_code] == [200, 403, 200]


@pytest.mark.parametrize("service", ["ds-mongodb-proxy", "ds-registry", "ds-gateway"])
def test_datastore_services_say_hello(server: LocalServer, web: httpx.Client, service: str) -> None:
    """Each service of the datastore has a greeting under its own path."""
    reply = web.get(f"{server.url}/{service}/hello/")

    assert (reply.status_code, reply.text) == (200, '"hello"\n')
    assert web.get(f"{server.url}/{service}/hello").status_code == 308


GHOST = [
    ("GET", "/experiments/ghost", 404, {"packageNotFound": "ghost", "message": "..."}),
    ("GET", "/experiments/demo@sha256xnope", 404, {"packageNotFound": "demo@sha256xnope", "message": "..."}),
    (
        "DELETE",
        "/experiments/ghost",
        404,
        {"unknownExperiment": "ghost", "message": "Experiment ghost is unknown"},
    ),
    ("PUT", "/experiments/ghost/tag?newTags=v2", 404, {"unknownExperiment": "ghost", "message": "..."}),
    ("PUT", "/experiments/ghost/tag", 400, {"message": "Invalid tags"}),
    ("GET", "/experiments/ghost/history", 200, {"tags": [], "untagged": []}),
    (
        "GET",
        "/experiments/ghost/start/payload/",
        404,
        {"unknownExperiment": "ghost:latest", "message": "No parameterised package ghost:latest"},
    ),
    ("POST", "/experiments/ghost/start", 404, {"unknownExperiment": "ghost:latest", "message": "..."}),
    ("GET", "/experiments/a:b@c", 500, {"message": "..."}),
    ("GET", "/instances/ghost", 404, {"unknownRestUID": "ghost", "message": "Instance ghost is not found"}),
    ("GET", "/instances/ghost/status", 404, {"message": "Workflow instance ghost not found"}),
    ("GET", "/instances/ghost/outputs", 404, {"message": "Workflow instance ghost not found"}),
    ("GET", "/instances/ghost/properties", 404, {"message": "Instance ghost not found"}),
    (
        "GET",
        "/instances/ghost/outputs/x",
        404,
        {"unknownInstanceId": "ghost", "message": "unknown workflow instance ghost"},
    ),
    ("DELETE", "/instances/ghost", 400, BAD_REQUEST),
    ("DELETE", "/instances/ghost/", 400, BAD_REQUEST),
    (
        "GET",
        "/url-map/nope",
        404,
        {"message": "Unknown service nope, valid options consumable-computing, cdb-rest, cdb-gateway-registry"},
    ),
    ("GET", "/authorisation/token", 500, {"message": "Exception while retrieving token"}),
    ("PATCH", "/experiments/demo", 405, NOT_ALLOWED),
    ("GET", "/experiments/demo/start", 405, NOT_ALLOWED),
]


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "prefix"),
    [
        pytest.param(*row, prefix, id=f"{prefix} {row[0]} {row[1]}")
        for row, prefix in sample([(row, prefix) for row in GHOST for prefix in ("", "/rs")], 14)
    ],
)
def test_unknown_objects_have_the_recorded_responses(
    server: LocalServer,
    web: httpx.Client,
    prefix: str,
    method: str,
    path: str,
    status: int,
    body: dict[str, Any],
) -> None:
    """Status and body are as recorded, under both paths to the service."""
    reply = web.request(method, f"{server.url}{prefix}{path}")

    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/json"
    assert reply.text.endswith("}\n")
    found = reply.json()
    assert list(found) == list(body)
    assert {key: value for key, value in found.items() if body[key] != "..."} == {
        key: value for key, value in body.items() if value != "..."
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("GET", "/authorisation/"),
        ("POST", "/experiments/demo/start/"),
        ("GET", "/experiments/demo/start/"),
        ("PUT", "/experiments/demo/tag/"),
        ("GET", "/elaunch.yaml"),
    ],
)
def test_unknown_routes_are_html(web: httpx.Client, method: str, path: str) -> None:
    """A path without a route is 404 with HTML."""
    reply = web.request(method, path)

    assert reply.status_code == 404
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>404 Not Found</title>" in reply.text


@pytest.mark.parametrize("path", ["experiments", "instances", "url-map", "experiments/demo/start/payload"])
def test_collections_redirect_to_plain_http(server: LocalServer, web: httpx.Client, path: str) -> None:
    """A collection without its slash is 308 to an absolute http URL, including the query."""
    reply = web.request("POST", f"/{path}?a=b")

    assert reply.status_code == 308
    assert reply.headers["location"] == f"{server.url}/rs/{path}/?a=b"
    assert reply.headers["content-type"] == "text/html; charset=utf-8"


def test_the_prefix_alone_is_redirected(server: LocalServer, web: httpx.Client) -> None:
    """The proxy redirects the prefix without a slash."""
    reply = web.get(f"{server.url}/rs")

    assert (reply.status_code, reply.headers["location"]) == (301, f"{server.url}/rs/")


def test_allowed_methods_are_listed(web: httpx.Client) -> None:
    """OPTIONS and 405 list the methods of a route."""
    options = web.options("/experiments/")
    not_allowed = web.patch("/experiments/demo")

    assert (options.status_code, options.text) == (200, "")
    assert sorted(options.headers["allow"].split(", ")) == ["GET", "HEAD", "OPTIONS", "POST"]
    assert sorted(not_allowed.headers["allow"].split(", ")) == ["DELETE", "GET", "HEAD", "OPTIONS"]


def test_the_proxy_rejects_bodies_over_one_mebibyte(web: httpx.Client) -> None:
    """A large body is 413 with HTML, whether with Content-Length or chunked."""
    large = b'{"inputs": "' + b"x" * 1024 * 1024 + b'"}'

    whole = web.post("/experiments/", content=large)
    chunked = web.post("/experiments/", content=iter([large]))

    for reply in (whole, chunked):
        assert reply.status_code == 413
        assert reply.headers["content-type"] == "text/html"
        assert reply.text.startswith("<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n")


def test_bodies_must_be_json_with_its_content_type(web: httpx.Client, push: Any) -> None:
    """Another content type is 415, invalid JSON 400; an unknown experiment is checked before both."""
    push()

    undeclared = web.post("/experiments/toy/start", content=b"{}")
    broken = web.post("/experiments/toy/start", content=b"{", headers={"Content-Type": "application/json"})
    unknown = web.post("/experiments/ghost/start", content=b"{")

    assert undeclared.status_code == 415
    assert undeclared.json()["message"].startswith("Did not attempt to load JSON data")
    assert (broken.status_code, broken.json()) == (400, BAD_REQUEST)
    assert unknown.status_code == 404


def test_invalid_arguments_are_errors() -> None:
    """A ValueError contains the invalid value."""
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        LocalServer(slots=0)
    with pytest.raises(ValueError, match="speed must be 0"):
        LocalServer(speed=-1)
    with pytest.raises(ValueError, match="engine must be 'simulator', 'elaunch' or an engine"):
        LocalServer(engine="cluster")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(RuntimeError, match="needs a running server: enter it first"):
        LocalServer().example("demo")
    with pytest.raises(RuntimeError, match="needs a running server: enter it first"):
        LocalServer().outcome("demo", "killed")


@pytest.mark.parametrize(
    ("tls", "module"), [(False, "uvicorn"), (False, "mongomock"), (False, "yaml"), (True, "trustme")]
)
def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch, tls: bool, module: str) -> None:
    """Without its extra the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, module, None)

    with pytest.raises(ImportError, match=re.escape('pip install "st4sd_async[local]"')):
        LocalServer(tls=tls)


class BrokenEngine:
    """An engine whose methods all fail."""

    def __getattr__(self, name: str) -> Any:
        """Return a method that fails, unless the server is closing."""

        def method(*_: object) -> None:
            if name != "close":
                raise ZeroDivisionError(name)

        return method


def test_a_custom_engine_is_used_and_its_errors_are_500() -> None:
    """Any object with the methods of an engine works; its exceptions become internal errors."""
    with LocalServer(engine=BrokenEngine()) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        reply = httpx.post(f"{server.url}/rs/experiments/", json=definition(), headers=headers, verify=False)
        with pytest.raises(RuntimeError, match="advance needs the simulator"):
            server.advance(1)

    assert (reply.status_code, reply.json()) == (500, {"message": "Internal Server Error"})


def test_leaving_does_not_wait_for_clients() -> None:
    """A server with an open connection and a slow request is left at once."""
    with ThreadPoolExecutor(1) as pool:
        with LocalServer() as server:
            server.faults.add("* /", Delay(60))
            waiting = pool.submit(httpx.get, server.url, timeout=30)
            while not server.requests:
                assert not waiting.done()
            begin = time.monotonic()

        assert time.monotonic() - begin < 15
        assert isinstance(waiting.exception(15), httpx.TransportError)


def test_a_server_can_be_entered_again() -> None:
    """The second time it is a new server with the same credentials."""
    server = LocalServer()
    for _ in range(2):
        with server:
            headers = {"Authorization": f"Bearer {server.api_key}"}
            reply = httpx.get(f"{server.url}/experiments/", headers=headers, verify=False)
            assert reply.json() == {"entries": [], "problems": []}
