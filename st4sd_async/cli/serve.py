"""The command ``st4sd-async serve``: the embedded ST4SD in the foreground."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .._client import Client
from .._config import API_KEY_VARIABLE, CA_FILE_VARIABLE, URL_VARIABLE, Config
from ..local import LocalServer
from .errors import exits_on_errors, write_message

EXAMPLES = ("demo", "fail")
"""The experiments that are in the registry of a new server."""
MIN_SLOTS = 2
"""Lower bound of the default number of concurrent runs: a real run is idle half of the time."""
MAX_SLOTS = 8
"""Upper bound of the default: a real run takes about 200 MB."""
SLEEP = 3600.0
"""Seconds of one sleep; a signal interrupts it."""

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
    engine: EngineName, *, keep: Path | None, slots: int | None = None, tls: bool = False, port: int = 0
) -> LocalServer:
    """
    Return an embedded server, not entered yet.

    Args:
        engine: How it runs experiments.
        keep: Where the instance directories are kept. None means they are deleted.
        slots: Number of concurrent runs. None means two for each processor core, 2 to 8 in all.
        tls: Whether it serves https.
        port: The port to listen on. 0 means any free port.

    Raises:
        ImportError: A package is missing; the text says which extra installs it.
    """
    return LocalServer(
        engine="elaunch" if engine is EngineName.ELAUNCH else "simulator",
        keep=keep,
        slots=min(MAX_SLOTS, max(MIN_SLOTS, 2 * (os.cpu_count() or 1))) if slots is None else slots,
        tls=tls,
        port=port,
    )


def serve(
    engine: Annotated[
        EngineName, typer.Option(help="simulator simulates the runs, elaunch executes them on this machine.")
    ] = EngineName.SIMULATOR,
    tls: Annotated[bool, typer.Option("--tls", help="Serve https, with a temporary certificate authority.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port to listen on; 0 means any free port.")
    ] = 0,
    keep: Keep = None,
    slots: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Concurrent runs; others wait.  [default: 2 per processor core, 2 to 8]"),
    ] = None,
) -> None:
    """
    Serve an embedded ST4SD on this machine until Ctrl-C.

    Prints shell commands that set the address and the API key. Run them in a shell, and Client.from_env() and the
    other commands connect to this server. Its registry contains the example experiments.

    Each server has a new random key and no runs, even after a restart with --keep, which keeps only files.
    """
    with exits_on_errors():
        server = embedded(engine, keep=keep, slots=slots, tls=tls, port=port)
        # An interrupt is the normal way to stop this command.
        with suppress(KeyboardInterrupt), server:
            asyncio.run(push_examples(server))
            write_message(welcome(server, engine))
            # Last, so that a program that has read the settings knows that the server is ready.
            for line in settings(server):
                typer.echo(line)
            while True:
                time.sleep(SLEEP)
        write_message("stopped")


async def push_examples(server: LocalServer) -> None:
    """Push the example experiments."""
    config = Config(verify=server.ca_file or True)
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        for name in EXAMPLES:
            await client.push(server.example(name))


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
        files = [{{"filename": "molecules.csv", "content": "smiles\\nCO\\n"}}]
        run = await client.start("demo", {{"inputs": files}})
        print(await run.wait())
"""
