"""Another registry is asked for an experiment, and told nothing."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import Client, Unauthorized

from .clients import settings
from .raw import RawServer, Seen, reply, sign_in

pytestmark = pytest.mark.anyio

KEY, TOKEN = "fake-key-0001", "fake-token-0002"
CREDENTIALS = [pytest.param({"api_key": KEY}, id="key"), pytest.param({"auth_token": TOKEN}, id="token")]
ENTRY = {"base": {"packages": []}, "metadata": {"package": {"name": "demo"}}, "parameterisation": {}}

HISTORY: dict[str, Any] = {"tags": [], "untagged": []}


def _is_clean(seen: Seen) -> bool:
    """Whether a request holds no credential anywhere."""
    return KEY not in f"{seen}" and TOKEN not in f"{seen}" and not {"authorization", "cookie"} & seen.headers.keys()


@pytest.mark.parametrize("given", CREDENTIALS)
async def test_a_registry_is_asked_what_its_pages_ask_and_sent_no_credentials(given: dict[str, Any]) -> None:
    """It is another origin, if only by its port; the push to this deployment has them."""
    async with (
        RawServer([reply(200, {"entry": ENTRY, "problems": []})]) as registry,
        RawServer(
            [reply(200, HISTORY), reply(200, {"result": ENTRY}), reply(), reply(200, {"entry": ENTRY})]
        ) as server,
        Client(server.url, config=settings(), **given) as client,
    ):
        await client.import_experiment(registry.url, "demo:1.0")

    path = "/registry-ui/backend/experiments/demo:1.0"
    query = "outputFormat=json&hideMetadataRegistry=n&hideNone=y&hideBeta=n"
    assert [(seen.method, seen.path, _is_clean(seen)) for seen in registry.requests] == [
        ("GET", f"{path}?{query}", True)
    ]
    assert [(seen.method, seen.path.partition("?")[0], _is_clean(seen)) for seen in server.requests] == [
        ("GET", "/rs/experiments/demo/history", False),
        ("POST", "/rs/experiments/", False),
        ("PUT", "/rs/experiments/demo/tag", False),
        ("GET", "/rs/experiments/demo", False),
    ]


@pytest.mark.parametrize("kind", ["api_key", "auth_token"])
async def test_a_private_registry_does_not_bring_the_credentials_out(kind: str) -> None:
    """Nor are they renewed for it."""
    asked: list[str] = []

    def provide() -> str:
        asked.append(KEY)
        return KEY

    given: dict[str, Any] = {kind: provide}
    async with RawServer([sign_in()]) as registry, Client(registry.url, config=settings(), **given) as client:
        with pytest.raises(Unauthorized):
            await client.fetch_experiment(f"http://localhost:{registry.port}", "demo")

    assert asked == []
    assert [_is_clean(seen) for seen in registry.requests] == [True]


async def test_each_deployment_is_sent_its_own_credentials() -> None:
    """A client as the source sends its own requests."""
    async with (
        RawServer([reply(200, {"entry": ENTRY, "problems": []})]) as there,
        RawServer([reply(200, HISTORY), reply(200, {"result": ENTRY})]) as here,
        Client(there.url, api_key="key-of-there", config=settings()) as other,
        Client(here.url, api_key="key-of-here", config=settings()) as client,
    ):
        await client.import_experiment(other, "demo")

    assert [seen.headers["authorization"] for seen in there.requests] == ["Bearer key-of-there"]
    assert [seen.headers["authorization"] for seen in here.requests] == ["Bearer key-of-here"] * 2
    assert there.requests[0].path.startswith("/rs/experiments/demo?hideBeta=n")
