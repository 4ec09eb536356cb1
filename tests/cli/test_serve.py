"""``st4sd-async serve`` as a user runs it."""

from __future__ import annotations

import logging
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from st4sd_async import Client, Config, Unauthorized
from st4sd_async.cli.serve import installed_engine, log_shown
from tests.forks import Forked
from tests.tries import IS_FULL, tries

from .conftest import Command, Shell

pytestmark = pytest.mark.timeout(60)  # some processes import all of it anew, on a machine that may be busy


@contextmanager
def serving(
    command: Command, *arguments: str, is_fresh: bool = False
) -> Iterator[tuple[Forked | subprocess.Popen[str], dict[str, str]]]:
    """Yield the server's process, and the settings that it printed; then end it."""
    process = command.popen("serve", *arguments, is_fresh=is_fresh)
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


SIMULATED_HTTPS = ("--engine", "simulator", "--tls")
WAYS = [
    pytest.param((), signal.SIGINT, id="http-Ctrl-C"),
    pytest.param(SIMULATED_HTTPS, signal.SIGTERM, id="https-SIGTERM"),
    pytest.param((), signal.SIGTERM, id="http-SIGTERM"),
    pytest.param(SIMULATED_HTTPS, signal.SIGINT, id="https-Ctrl-C"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "number"), WAYS[: tries(4, 2)])
def test_it_serves_until_a_signal_and_leaves_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], number: signal.Signals
) -> None:
    """The printed settings are enough to connect; after a signal, no file and no port are left."""
    with serving(command, *arguments, is_fresh=IS_FULL and (arguments, number) == ((), signal.SIGINT)) as (
        process,
        settings,
    ):
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


@pytest.mark.slow
def test_a_key_in_a_file_survives_a_restart(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made once, readable by its owner only; so scripts need no new setting."""
    keys = []
    for _ in range(2):
        with serving(command, "--engine", "simulator", "--api-key-file", "st4sd.key") as (process, settings):
            keys.append(settings["ST4SD_API_KEY"])
            assert anyio.run(greet, settings, monkeypatch)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=40)

    file = command.folder / "st4sd.key"
    assert keys[0] == keys[1] == file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_empty_key_is_wrong_usage(shell: Shell) -> None:
    """A server that accepts it would accept every request without one."""
    Path("st4sd.key").write_text("\n")

    done = shell("serve", "--engine", "simulator", "--api-key-file", "st4sd.key")

    assert (done.status, done.out) == (2, "")
    assert "'st4sd.key' must contain one API key" in done.err


async def _finish(settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Start 20 runs at once and return their exit statuses."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    async with Client.from_env(config=Config(poll_interval=0.1)) as client:
        files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
        runs = [await client.start("demo", {"inputs": files}) for _ in range(20)]
        return [str(status.exit_status) for status in await client.wait(runs, timeout=50)]


def test_simulated_runs_can_be_fast_and_many(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated run takes 5 s; with --speed 100, 20 of them at once take a moment."""
    with serving(command, "--engine", "simulator", "--speed", "100") as (_, settings):
        began = time.monotonic()
        assert anyio.run(_finish, settings, monkeypatch) == ["Success"] * 20
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("is_installed", [True, False], ids=["elaunch", "simulator"])
def test_the_engine_is_the_one_that_is_installed(is_installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which it is, and why."""
    if not is_installed:
        monkeypatch.setattr("sys.executable", "/nowhere/python")
        monkeypatch.setenv("PATH", "")

    engine, why = installed_engine()

    assert engine.value == ("elaunch" if is_installed else "simulator")
    assert ("elaunch.py was found" if is_installed else "elaunch.py was not found: for real runs, pip install") in why


@pytest.mark.parametrize("option", [("--speed", "2"), ("--fetch",)])
def test_options_of_simulated_runs_are_refused_for_real_ones(shell: Shell, option: tuple[str, ...]) -> None:
    """The message says which engine has the option."""
    done = shell("serve", "--engine", "elaunch", *option)

    assert (done.status, done.out) == (2, "")
    assert f"{option[0]} needs --engine simulator" in done.err


@pytest.mark.slow
def test_the_printed_key_is_needed_and_the_snippet_is_python(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key is refused. The snippet compiles as it stands."""
    with serving(command, "--engine", "simulator", "--tls") as (process, settings):
        with pytest.raises(Unauthorized):
            anyio.run(greet, {**settings, "ST4SD_API_KEY": "not-the-key"}, monkeypatch)
        process.terminate()
        _, err = process.communicate(timeout=40)

    snippet = "\n".join(line[4:] for line in err.splitlines() if line.startswith("    "))
    assert 'client.start("demo", inputs={' in snippet
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


def test_the_log_of_the_server_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A message about a push to the simulator says what is made up in its runs."""
    logger = logging.getLogger("st4sd_async.local")
    with log_shown():
        logger.info("the simulator executes no programs of %s", "x")
        logger.debug("hidden")

    assert capsys.readouterr().err == "the simulator executes no programs of x\n"
    assert logger.propagate
