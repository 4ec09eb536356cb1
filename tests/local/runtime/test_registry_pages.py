"""The web pages of the registry and their backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from tests.local.helpers import definition

BACKEND = "/registry-ui/backend/experiments"


@pytest.fixture
def pages(server: LocalServer) -> Iterator[httpx.Client]:
    """Return an authenticated client."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30, verify=False) as client:
        yield client


def test_the_backend_forwards_the_response_of_the_service(pages: httpx.Client, web: httpx.Client, push: Any) -> None:
    """The query is forwarded."""
    push()

    for query in ("", "?outputFormat=json&hideMetadataRegistry=y&hideNone=y", "?hideBeta=n"):
        reply = pages.get(f"{BACKEND}/toy:v1{query}")

        assert (reply.status_code, reply.json()) == (200, web.get(f"/experiments/toy:v1{query}").json())
    assert "registry" not in pages.get(f"{BACKEND}/toy?hideMetadataRegistry=y").json()["entry"]["metadata"]


def test_the_backend_lists_and_finds_experiments(
    server: LocalServer, pages: httpx.Client, web: httpx.Client, push: Any
) -> None:
    """By a text in their names, descriptions, maintainers or properties. Keys are sorted."""
    push()
    listed = pages.get(f"{BACKEND}/?hideBeta=n")

    assert listed.json() == web.get("/experiments/").json()
    assert listed.text.startswith('{"entries":[{"base":{"packages":[{"config":{},')
    assert _found(pages, "name", "OY") == ["toy"]
    assert _found(pages, "description", "toy") == ["toy"]
    assert _found(pages, "maintainer", "toy") == []
    assert _found(pages, "property_name", "energy") == []
    server.describe("toy", interface={"propertiesSpec": [{"name": "Energy"}]})
    push()
    assert _found(pages, "property_name", "energy") == ["toy"]
    assert pages.get(f"{BACKEND}/", params={"searchQuery": "toy", "searchSelector": "tags"}).json() == {}
    assert pages.get(f"{BACKEND}/toy/history").json() == web.get("/experiments/toy/history").json()


def _found(pages: httpx.Client, selector: str, text: str) -> list[str]:
    """Return the names of the experiments that a search finds."""
    reply = pages.get(f"{BACKEND}/", params={"searchQuery": text, "searchSelector": selector})
    return [entry["metadata"]["package"]["name"] for entry in reply.json()["entries"]]


@pytest.mark.parametrize(("identifier", "status"), [("ghost", 404), ("toy:v1@sha256x0", 500)])
def test_an_error_has_no_text(identifier: str, status: int, pages: httpx.Client) -> None:
    """Only the status is forwarded."""
    reply = pages.get(f"{BACKEND}/{identifier}")

    assert (reply.status_code, reply.json()) == (status, {})


@pytest.mark.parametrize("path", ["/registry-ui/", "/registry-ui/experiment/toy", "/registry-ui/no/such/thing"])
def test_every_other_path_is_the_page(path: str, pages: httpx.Client) -> None:
    """All other paths are 200 with the same page."""
    reply = pages.get(path)

    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html")
    assert "ST4SD Registry" in reply.text


def test_the_pages_need_credentials(server: LocalServer) -> None:
    """By default the registry is not open."""
    with httpx.Client(base_url=server.url, verify=False) as stranger:
        assert stranger.get(f"{BACKEND}/toy").status_code == 403
        assert stranger.get("/registry-ui/").status_code == 403


def test_an_open_registry_needs_no_credentials() -> None:
    """The services still need credentials, and the pages accept no other methods."""
    with LocalServer(open_registry=True) as server, httpx.Client(base_url=server.url, verify=False) as stranger:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        stranger.post("/rs/experiments/", json=definition(), headers=headers).raise_for_status()

        assert stranger.get(f"{BACKEND}/toy").json()["entry"]["metadata"]["package"]["name"] == "toy"
        assert stranger.get("/experiments/toy").status_code == 403
        assert stranger.get("/rs/registry-ui/").status_code == 403
        assert stranger.get("/registry-ui/../rs/experiments/").status_code == 403
        assert stranger.delete(f"{BACKEND}/toy").status_code == 405
