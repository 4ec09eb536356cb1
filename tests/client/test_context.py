"""A client with a login of ``stp``, against the embedded server."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from st4sd_async import Client, ConfigError, Unauthorized
from st4sd_async.local import LocalServer
from tests.keyrings import MemoryKeyring, in_use, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def ring(server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryKeyring:
    """A keyring with the token of the server, and a context that leads there."""
    made = in_use(monkeypatch)
    made.passwords[f"{server.url}/", "mine"] = server.auth_token
    write(tmp_path, active="mine", entries={"mine": {"name": "mine", "url": server.url}})
    for name, file in (("SETTINGS", "stp_settings.json"), ("CONTEXTS", "stp_contexts.json")):
        monkeypatch.setenv(f"STP_{name}_FILE", str(tmp_path / "stp" / file))
    return made


@pytest.fixture
def made(ring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.delenv("STP_DEFAULT_CONTEXT", raising=False)
    return Client.from_context()


async def test_a_context_logs_in(made: Client, ring: MemoryKeyring, server: LocalServer) -> None:
    """Entering asks the keyring, once."""
    assert (repr(made), ring.asked) == (f"Client('{server.url}/', not open)", [])

    async with made as client:
        assert await client.experiments.list() == []

    assert ring.asked == [(f"{server.url}/", "mine")]


async def test_another_login_is_noticed(made: Client, ring: MemoryKeyring, server: LocalServer) -> None:
    """A token that has expired is read anew."""
    async with made as client:
        server.renew()
        ring.passwords[f"{server.url}/", "mine"] = server.auth_token

        assert await client.experiments.list() == []
        server.renew()
        with pytest.raises(Unauthorized, match="authorisation/token"):
            await client.experiments.list()


async def test_a_keyring_without_the_token_is_an_error_on_entering(made: Client, ring: MemoryKeyring) -> None:
    """Nothing is sent."""
    ring.passwords.clear()

    with pytest.raises(ConfigError, match="stp login --force --context-name mine"):
        async with made:
            raise AssertionError("entered")


async def test_the_token_is_nowhere_to_be_seen(
    made: Client, ring: MemoryKeyring, server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in logs nor in reprs and errors."""
    caplog.set_level(logging.DEBUG)
    token = server.auth_token

    async with made as client:
        server.renew()
        with pytest.raises(Unauthorized) as caught:
            await client.experiments.list()
        shown = f"{client!r} {vars(client._session.shared)} {client._session.shared.credentials!r} {caught.value!r}"

    assert token not in shown + caplog.text
