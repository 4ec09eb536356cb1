"""``st4sd-async serve`` as a user runs it."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from st4sd_async import Client, Unauthorized

from .conftest import Command

pytestmark = pytest.mark.timeout(60)  # processes that import all of it anew, on a machine that may be busy


@contextmanager
def serving(command: Command, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Yield the server's process, and the settings that it printed; then end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "st4sd_async", "serve", *arguments],
        cwd=command.folder,
        env=command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    with process:
        try:
            lines = [process.stdout.readline() for _ in range(3 if "--tls" in arguments else 2)]
            yield process, dict(shlex.split(line)[1].split("=", 1) for line in lines)
        finally:
            if process.poll() is None:
                process.kill()


async def greet(settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the identifiers of the experiments, with a client that has only the settings."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    async with Client.from_env() as client:
        return [experiment.identifier for experiment in await client.experiments.list()]


@pytest.mark.parametrize("arguments", [(), ("--tls",)], ids=["http", "https"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_it_serves_until_a_signal_and_leaves_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], number: signal.Signals
) -> None:
    """The printed settings are enough to connect; after a signal, no file and no port are left."""
    with serving(command, *arguments) as (process, settings):
        assert [name.partition("@")[0] for name in anyio.run(greet, settings, monkeypatch)] == ["demo", "fail"]

        process.send_signal(number)
        out, err = process.communicate(timeout=40)

    assert process.returncode == 0
    assert out == ""
    assert settings["ST4SD_URL"] in err
    assert err.endswith("stopped\n")
    assert "Traceback" not in err
    assert command.left_behind() == []
    address = urlsplit(settings["ST4SD_URL"])
    with socket.socket() as probe:
        assert probe.connect_ex((address.hostname, address.port)) != 0


def test_the_printed_key_is_needed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key is refused."""
    with serving(command) as (process, settings):
        with pytest.raises(Unauthorized):
            anyio.run(greet, {**settings, "ST4SD_API_KEY": "not-the-key"}, monkeypatch)
        process.terminate()
        process.communicate(timeout=40)


def test_the_printed_snippet_is_python(command: Command) -> None:
    """The snippet compiles as it stands."""
    with serving(command, "--tls") as (process, _):
        process.terminate()
        _, err = process.communicate(timeout=40)

    snippet = "\n".join(line[4:] for line in err.splitlines() if line.startswith("    "))
    body = "\n".join(f"    {line}" for line in snippet.splitlines())
    compile(f"async def main():\n{body}\n", "snippet", "exec")
    assert Path(snippet.partition("verify='")[2].partition("'")[0]).name == "ca.pem"


def test_a_port_that_is_in_use_is_named(command: Command) -> None:
    """The command exits, and says which port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("serve", "--port", str(port))

    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "choose another port, or 0 for a free one" in done.stderr
    assert "Traceback" not in done.stderr
