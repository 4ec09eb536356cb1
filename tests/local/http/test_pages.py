"""The pages of the services, and what the proxy in front of them does to pages."""

from __future__ import annotations

import gzip

import httpx
import pytest

from st4sd_async.local import LocalServer

TITLES = {
    "/rs": "Runtime Service of the Simulation Toolkit for Scientific Discovery (ST4SD)",
    "/ds-mongodb-proxy": "ST4SD Datastore MongoDB Proxy",
    "/ds-gateway": "Centralized Database - Gateway",
    "/ds-registry": "Centralized Database - Registry of gateways",
}
"""Prefix of a service -> the recorded title of its root page."""


@pytest.mark.parametrize("prefix", TITLES)
def test_each_service_has_a_root_page_and_a_document(server: LocalServer, web: httpx.Client, prefix: str) -> None:
    """The page loads the document, which describes the paths of the service."""
    page = web.get(f"{server.url}{prefix}/")
    document = web.get(f"{server.url}{prefix}/swagger.json")

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"<title>{TITLES[prefix]}</title>" in page.text
    assert f'"{prefix}/swagger.json"' in page.text
    assert document.json()["basePath"] == prefix
    assert document.json()["info"]["title"] == TITLES[prefix]
    assert document.json()["paths"]


@pytest.mark.parametrize("prefix", TITLES)
def test_the_path_of_a_service_needs_a_slash(server: LocalServer, web: httpx.Client, prefix: str) -> None:
    """The proxy redirects it, and keeps the scheme."""
    reply = web.get(f"{server.url}{prefix}")

    assert (reply.status_code, reply.headers["location"]) == (301, f"{server.url}{prefix}/")


@pytest.mark.parametrize(("path", "status"), [("/rs/", 200), ("/rs/nope", 404), ("/ds-gateway/files/api/v1.0", 404)])
def test_pages_are_compressed_for_clients_that_accept_it(
    server: LocalServer, web: httpx.Client, path: str, status: int
) -> None:
    """Then their length is unknown; other clients get the plain page and its length."""
    with web.stream("GET", f"{server.url}{path}") as compressed:
        raw = b"".join(compressed.iter_raw())
    plain = web.get(f"{server.url}{path}", headers={"Accept-Encoding": "identity"})

    assert (compressed.status_code, plain.status_code) == (status, status)
    assert compressed.headers["content-encoding"] == "gzip"
    assert compressed.headers["transfer-encoding"] == "chunked"
    assert gzip.decompress(raw) == plain.content
    assert plain.headers["content-length"] == str(len(plain.content))
    assert "content-encoding" not in plain.headers


def test_the_sign_in_page_is_compressed_too(server: LocalServer) -> None:
    """It is a page with a status that the proxy compresses."""
    reply = httpx.get(f"{server.url}/rs/experiments/", verify=False)

    assert (reply.status_code, reply.headers["transfer-encoding"]) == (403, "chunked")
    assert "Log In" in reply.text


def test_json_redirections_and_head_are_not_compressed(server: LocalServer, web: httpx.Client) -> None:
    """They have a length."""
    answers = [web.get("/url-map/"), web.get("/url-map"), web.get("/url-map/nope"), web.head("/")]

    assert [answer.status_code for answer in answers] == [200, 308, 404, 200]
    assert all("content-length" in answer.headers for answer in answers)


def test_doubled_slashes_are_merged_by_a_redirect(server: LocalServer, web: httpx.Client) -> None:
    """Only if the path has a route then; the names in it are quoted again."""
    doubled = web.get("/instances//a%20b//status?x=1")
    unknown = web.get("/nope//nope")

    assert (doubled.status_code, unknown.status_code) == (308, 404)
    assert doubled.headers["location"] == f"{server.url}/rs/instances/a%20b/status?x=1"
