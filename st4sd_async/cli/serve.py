"""The command ``st4sd-async serve``: the embedded ST4SD in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .._client import Client
from .._config import API_KEY_VARIABLE, CA_FILE_VARIABLE, URL_VARIABLE, Config
from .._render.cards import counted
from ..local import LocalServer, StateError
from ..local.engine.orchestrator import find_orchestrator
from ..local.saved_state import SavedState
from .errors import UsageError, exits_on_errors, write_message

EXAMPLES = ("demo", "fail")
"""The experiments that are in the registry of a new server."""
MIN_SLOTS = 2
"""Lower bound of the default number of concurrent runs: a real run is idle half of the time."""
MAX_SLOTS = 8
"""Upper bound of the default: a real run takes about 200 MB."""
SLEEP = 0.5
"""Seconds of one sleep. The kernel may deliver a signal to another thread, which does not interrupt it."""

Keep = Annotated[
    Path | None,
    typer.Option(
        file_okay=False, metavar="DIR", help="Keep the instance directories here, readable by you only (mode 0700)."
    ),
]


class EngineName(StrEnum):
    """How the embedded ST4SD runs experiments."""

    ELAUNCH = "elaunch"
    SIMULATOR = "simulator"


def embedded(
    engine: EngineName,
    *,
    keep: Path | None,
    slots: int | None = None,
    speed: float = 1.0,
    tls: bool = False,
    port: int = 0,
    api_key: str | None = None,
    fetch: bool = False,
    state: Path | None = None,
) -> LocalServer:
    """
    Return an embedded server, not entered yet.

    Args:
        engine: How it runs experiments.
        keep: Where the instance directories are kept. None means they are deleted.
        slots: Number of concurrent runs. None means 100 simulated ones, or two real ones for each processor core, 2 to
            8 in all.
        speed: Seconds of simulated runs per second.
        tls: Whether it serves https.
        port: The port to listen on. 0 means the earlier port of the state if it is free, or any free port.
        api_key: The key that it accepts. None means a random one.
        fetch: Whether the simulator reads packages from git repositories on other machines too.
        state: Where everything that survives a restart is kept. None means nowhere.

    Raises:
        ImportError: A package is missing; the text says which extra installs it.
    """
    if slots is None and engine is EngineName.ELAUNCH:
        slots = min(MAX_SLOTS, max(MIN_SLOTS, 2 * (os.cpu_count() or 1)))
    return LocalServer(
        engine="elaunch" if engine is EngineName.ELAUNCH else "simulator",
        keep=keep,
        slots=slots,
        speed=speed,
        tls=tls,
        port=port,
        api_key=api_key,
        fetch=fetch,
        state=state,
    )


def installed_engine() -> tuple[EngineName, str]:
    """Return the engine to use if none was chosen, and why."""
    try:
        found = find_orchestrator()
    except ImportError:
        return EngineName.SIMULATOR, 'elaunch.py was not found: for real runs, pip install "st4sd_async[engine]"'
    return EngineName.ELAUNCH, f"{found.script} was found"


def engine_of(state: Path) -> tuple[EngineName, str] | None:
    """
    Return the engine that wrote a state, and why to use it; None if the state is new.

    Raises:
        UsageError: The state is in use, or cannot be read.
    """
    try:
        with closing(SavedState(state)) as saved:
            engine = saved.table("server").get("engine")
    except StateError as error:
        raise UsageError(str(error)) from error
    return engine and (EngineName(engine), f"it wrote the state in {state}")


def read_api_key(file: Path) -> str:
    """
    Return the key in a file; write a new one, readable by its owner only, if the file does not exist.

    Raises:
        UsageError: The file is empty or cannot be sent in a header.
    """
    with suppress(FileExistsError), os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.write(f"key-{secrets.token_urlsafe(24)}\n")
    key = file.read_text("utf-8").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"{str(file)!r} must contain one API key, of visible ASCII characters: delete it for a new one"
        )
    return key


def serve(
    engine: Annotated[
        EngineName | None,
        typer.Option(
            help="simulator simulates the runs, elaunch executes them on this machine.  [default: elaunch if installed]"
        ),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Serve https, with a temporary certificate authority.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port to listen on; 0 means any free port.")
    ] = 0,
    keep: Keep = None,
    slots: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Concurrent runs; others wait.  [default: 100 simulated, or 2 real ones per processor core, 2 to 8]",
        ),
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=0.0, metavar="X", help="Speed of simulated runs.  [default: 1]")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Accept the API key in this file; a new one is written if it is missing.",
        ),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch", help="Read packages from git repositories on other machines too, when they are simulated."
        ),
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            metavar="DIR",
            help="Keep runs, experiments and the API key here, readable by you only, for later servers.",
        ),
    ] = None,
) -> None:
    """
    Serve an embedded ST4SD on this machine until Ctrl-C.

    Example: st4sd-async serve --engine simulator --speed 100 --port 8080 --api-key-file st4sd.key

    Prints shell commands that set the address and the API key. Run them in a shell, and Client.from_env() and the
    other commands connect to this server. Its registry contains the example experiments.

    With --state, experiments, runs with their files, the API key and the address survive a restart, even after the
    server was killed. Real runs that waited are executed. Real runs that were executing when the server was killed are
    shown as failed. Simulated runs continue as if the server had not stopped.

    Without --state and --api-key-file, each server has a new random key. --keep keeps only files.
    """
    with exits_on_errors():
        if state is not None and keep is not None:
            raise UsageError("--state keeps the instance directories too: leave out --keep")
        if engine is None:
            engine, why = installed_engine() if state is None else engine_of(state) or installed_engine()
            write_message(f"engine {engine.value}, because {why}")
        if speed is not None and engine is not EngineName.SIMULATOR:
            raise UsageError("--speed needs --engine simulator: real runs take real time")
        if fetch and engine is not EngineName.SIMULATOR:
            raise UsageError("--fetch needs --engine simulator: packages of real runs are always fetched")
        api_key = None if api_key_file is None else read_api_key(api_key_file)
        server = embedded(
            engine,
            keep=keep,
            slots=slots,
            speed=1.0 if speed is None else speed,
            tls=tls,
            port=port,
            api_key=api_key,
            fetch=fetch,
            state=state,
        )
        try:
            # An interrupt is the normal way to stop this command.
            with suppress(KeyboardInterrupt), server:
                experiments, runs = asyncio.run(push_examples(server))
                if state is not None:
                    write_message(f"state in {state}: {counted(experiments, 'experiment')}, {counted(runs, 'run')}")
                write_message(welcome(server, engine))
                # Last, so that a program that has read the settings knows that the server is ready.
                for line in settings(server):
                    typer.echo(line)
                with log_shown():
                    while True:
                        time.sleep(SLEEP)
        except StateError as error:
            raise UsageError(str(error)) from error
        write_message("stopped")


class LogHandler(logging.Handler):
    """Writes messages to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        write_message(record.getMessage())


@contextmanager
def log_shown() -> Generator[None]:
    """Show what the embedded server logs, such as what it does not read of a package that is pushed."""
    logger, handler = logging.getLogger("st4sd_async.local"), LogHandler(logging.INFO)
    level, logger.propagate = logger.level, False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = True


async def push_examples(server: LocalServer) -> tuple[int, int]:
    """Push the example experiments if there are no experiments; return the number of experiments and runs."""
    async with Client(server.url, api_key=server.api_key, config=Config(verify=server.ca_file or True)) as client:
        if not await client.experiments.list():
            for name in EXAMPLES:
                await client.push(server.example(name))
        return len(await client.experiments.list()), len(await client.instances.list())


def settings(server: LocalServer) -> list[str]:
    """Return shell commands that set the environment variables that `Client.from_env` reads."""
    values = {URL_VARIABLE: server.url, API_KEY_VARIABLE: server.api_key, CA_FILE_VARIABLE: server.ca_file}
    return [f"export {name}={shlex.quote(str(value))}" for name, value in values.items() if value is not None]


def welcome(server: LocalServer, engine: EngineName) -> str:
    """Return the address, and a snippet to connect with."""
    names, more = "Client", ""
    if server.ca_file is not None:
        names, more = "Client, Config", f", config=Config(verify={str(server.ca_file)!r})"
    return f"""
ST4SD (engine {engine.value}) serves {server.url}, Ctrl-C stops it

    from st4sd_async import {names}

    async with Client({server.url!r}, api_key={server.api_key!r}{more}) as client:
        molecules = "smiles\\nCO\\n"  # or Path("molecules.csv")
        run = await client.start("demo", inputs={{"molecules.csv": molecules}}, variables={{"scale": 2}})
        print(await run.wait())
"""
