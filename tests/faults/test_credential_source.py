"""A file or provider that gives no credential for a moment costs nothing but time."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import (
    Client,
    Config,
    ConfigError,
    CredentialUnavailable,
    RetryPolicy,
    Status,
    TransportError,
    WaitTimeout,
)
from st4sd_async._http.credentials import Credential
from st4sd_async.local import LocalServer
from tests.batch.batches import FACTOR, launches, once, run_all, started_numbers
from tests.batch.batches import connect as connect_quickly
from tests.conftest import FakeClock
from tests.tries import combinations, tries

from .clients import settings
from .raw import RawServer, reply

pytestmark = pytest.mark.anyio

KEY = "fake-key-0001"


class Source:
    """A provider that gives a key, but for some times does something else."""

    def __init__(self, key: Callable[[], str] = lambda: KEY) -> None:
        self._key = key
        self.failures: list[Callable[[], Any]] = []
        """What it does in place of giving the key, one after the other."""
        self.asked = 0

    def plain(self) -> Any:
        self.asked += 1
        return self.failures.pop(0)() if self.failures else self._key()

    async def coroutine(self) -> Any:
        await anyio.lowlevel.checkpoint()
        return self.plain()


def fail(error: Exception) -> Callable[[], Any]:
    """Something that raises."""

    def failing() -> Any:
        raise error

    return failing


def damage(file: Path, how: str) -> None:
    """Leave a file as a program does that is about to write it anew."""
    if how == "absent":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "half": b"fake key\nfake", "binary": b"\xff\xfe"}[how])


FAILURES: dict[str, Callable[[], Any]] = {
    "OSError": fail(OSError(5, "Input/output error")),
    "RuntimeError": fail(RuntimeError("the vault is sealed")),
    "TimeoutError": fail(TimeoutError()),
    "ConfigError": fail(ConfigError("the keyring is locked")),
    "nothing": lambda: None,
    "an empty text": lambda: "",
    "two lines": lambda: "a\nb",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["absent", "empty", "half", "binary"])
async def test_a_watch_outlasts_a_key_file_that_is_being_rewritten(
    server: LocalServer, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Missing, empty or half written for 150 ms: the watch continues to the end of the run."""
    caplog.set_level(logging.DEBUG, "st4sd_async")
    file = tmp_path / "key"
    await anyio.to_thread.run_sync(file.write_text, server.api_key)
    async with Client(server.url, api_key=file, config=Config(poll_interval=0.02)) as client:
        await client.push(server.example("demo"))
        run = await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]})
        seen: list[Status] = []

        async with anyio.create_task_group() as tasks:

            async def rewrite() -> None:
                await anyio.to_thread.run_sync(damage, file, how)
                for nap in range(200):
                    if nap >= 3 and "watching continues after" in caplog.text:
                        break
                    await anyio.sleep(0.05)
                await anyio.to_thread.run_sync(file.write_text, server.api_key)
                await anyio.to_thread.run_sync(server.advance, 1000)

            async for status in run.watch(timeout=20):
                if not seen:
                    tasks.start_soon(rewrite)
                seen.append(status)

    assert "watching continues after" in caplog.text
    assert seen[-1].is_success


async def test_a_call_outlasts_a_key_file_that_is_being_rewritten(server: LocalServer, tmp_path: Path) -> None:
    """A start too, which is not sent until there is a key."""
    file = tmp_path / "key"
    await anyio.to_thread.run_sync(file.write_text, server.api_key)
    async with Client(server.url, api_key=file) as client:
        await client.push(server.example("demo"))
        await anyio.to_thread.run_sync(damage, file, "empty")

        async with anyio.create_task_group() as tasks:

            async def rewrite() -> None:
                for _ in range(3):
                    await anyio.sleep(0.05)
                await anyio.to_thread.run_sync(file.write_text, server.api_key)

            tasks.start_soon(rewrite)
            await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]})

        assert len(await client.instances.list()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_batch_outlasts_a_provider_that_fails(kind: str) -> None:
    """While a token is renewed, nothing is sent, so no outcome is unknown; each launch is started once."""
    with LocalServer(speed=FACTOR, slots=1000) as server:
        source, count = Source(lambda: server.api_key), tries(16, 6)
        async with connect_quickly(server) as opened:
            await opened.push(server.example("demo"))
            client = Client(server.url, api_key=getattr(source, kind), config=opened._config)
            async with client, client.batch() as batch:
                await batch.add(launches(count))
                server.renew()
                source.failures = [*FAILURES.values()] * 3
                doubts: list[int] = []
                source._key = lambda: doubts.append(batch.counts["unknown"]) or server.api_key  # type: ignore[func-returns-value]

                items = await run_all(batch)

                assert doubts == [0]
                assert source.failures == []
                assert all(item.error is None for item in items.values())
                assert await started_numbers(client) == once(count)


@pytest.mark.parametrize(("kind", "failure"), combinations(["plain", "coroutine"], FAILURES))
async def test_a_provider_that_fails_for_good_is_reported(kind: str, failure: str, clock: FakeClock) -> None:
    """It is retried for as long as an unreachable service; then the error says that nothing was sent, and why."""
    source, policy = Source(), RetryPolicy(attempts=4)
    async with RawServer([reply(200, [])]) as server:
        config = settings(clock, retry=policy)
        async with Client(server.url, api_key=getattr(source, kind), config=config) as client:
            assert await client.instances.list() == []
            source.failures = [FAILURES[failure]] * 100
            client._session.shared.credentials._key._value = None  # type: ignore[union-attr] # as after a refusal
            for call in (client.start("demo"), client.instances.list(), client.delete("demo-1")):
                with pytest.raises(CredentialUnavailable) as caught:
                    await call
                assert caught.value.attempts == 4
            assert source.asked == 1 + 3 * 4

    error = caught.value
    assert isinstance(error, ConfigError)
    assert isinstance(error, TransportError)
    assert not error.sent
    assert "api_key" in str(error)
    assert "was not sent" in str(error)
    assert len(server.requests) == 1
    if failure in ("OSError", "RuntimeError", "TimeoutError"):
        assert type(error.__cause__).__name__ == failure
        assert f"failed with {failure}" in str(error)


async def test_a_watch_reports_what_it_lacked(server: LocalServer, clock: FakeClock) -> None:
    """It is tolerated until the timeout, as an unreachable service is, and then it is the cause."""
    source = Source(lambda: server.api_key)
    config = Config(clock=clock, poll_interval=1)
    async with Client(server.url, api_key=source.plain, config=config) as client:
        await client.push(server.example("demo"))
        run = await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]})
        server.renew()
        source.failures = [FAILURES["RuntimeError"]] * 1000

        with pytest.raises(WaitTimeout) as caught:
            await run.wait(timeout=60)

    assert isinstance(caught.value.__cause__, CredentialUnavailable)
    assert "the vault is sealed" in str(caught.value.__cause__)


@pytest.mark.parametrize("source", ["an absent file", "an empty file", *FAILURES])
async def test_what_never_gave_a_credential_fails_at_once(source: str, tmp_path: Path, clock: FakeClock) -> None:
    """On opening a client: a mistyped path is not retried."""
    file = tmp_path / "key"
    if source == "an empty file":
        await anyio.to_thread.run_sync(file.write_text, "\n")
    given: Any = file if source.endswith("file") else FAILURES[source]
    async with RawServer([reply(200, {})]) as server:
        with pytest.raises(ConfigError, match=r"api_key|keyring is locked"):
            await Client(server.url, api_key=given, config=Config(clock=clock)).open()

    assert clock.slept == []
    assert server.requests == []


@pytest.mark.parametrize("kind", ["plain", "coroutine", "file"])
async def test_a_source_that_hangs_is_given_up(kind: str, tmp_path: Path) -> None:
    """All calls that wait for it share one timeout."""
    release = threading.Event()

    async def coroutine() -> str:
        await anyio.sleep_forever()
        return KEY

    def plain() -> str:
        release.wait()
        return KEY

    sources: dict[str, Any] = {"plain": plain, "coroutine": coroutine, "file": tmp_path / "fifo"}
    if kind == "file":
        os.mkfifo(sources["file"])
    credential = Credential("api_key", sources[kind], timeout=0.1)
    errors: list[Exception] = []

    async def ask() -> None:
        try:
            await credential.value()
        except ConfigError as error:
            errors.append(error)

    try:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(ask)
    finally:
        release.set()
        if kind == "file":
            os.close(os.open(sources[kind], os.O_RDWR))  # lets all who read it see its end

    assert len(errors) == 20
    assert all("gave no credential within 0.1 s" in str(error) for error in errors)


async def test_what_a_provider_raises_does_not_bring_a_credential_out(clock: FakeClock) -> None:
    """If it quotes one, it is not the cause, and its text is redacted."""
    source = Source()
    inner, outer = ValueError(f"cannot renew {KEY}"), RuntimeError("renewal failed")
    outer.__cause__ = inner
    async with (
        RawServer([reply(200, [])]) as server,
        Client(server.url, api_key=source.plain, config=settings(clock)) as client,
    ):
        await client.instances.list()
        client._session.shared.credentials._key._value = None  # type: ignore[union-attr] # as after a refusal
        for error in (inner, outer):
            source.failures = [fail(error)] * 2
            with pytest.raises(CredentialUnavailable) as caught:
                await client.instances.list()
            assert caught.value.__cause__ is None
            assert KEY not in str(caught.value)
