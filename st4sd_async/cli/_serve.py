"""``st4sd-async serve``: the embedded ST4SD in the foreground."""

from __future__ import annotations

import asyncio
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._client import Client
from .._config import API_KEY, CA_FILE, URL, Config
from ._exits import ends_cleanly, say
from ._server import EngineName, embedded

if TYPE_CHECKING:
    from ..local import LocalServer

EXAMPLES = ("demo", "fail")
"""The experiments that a served registry begins with."""

A_WHILE = 3600.0
"""Seconds of one sleep; a signal ends it."""


def serve(
    engine: Annotated[
        EngineName, typer.Option(help="simulator plays the runs, elaunch executes them on this machine.")
    ] = EngineName.SIMULATOR,
    tls: Annotated[bool, typer.Option("--tls", help="Serve https, with a throw-away authority.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Where to listen; 0: on any free port.")] = 0,
    keep: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, metavar="DIR", help="Leave the instance directories here, for your eyes only (mode 0700)."
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Runs at once, the others wait.  [default: 2 a processor core, 2 to 8]"),
    ] = None,
) -> None:
    """
    Serve an embedded ST4SD on this machine until Ctrl-C.

    Its registry has the example experiments. Prints the settings to connect with as shell
    commands; another shell that has run them can use Client.from_env(). The key is random
    and of no use elsewhere. A server that is started again has another key and no runs,
    also with --keep, which keeps only files.
    """
    with ends_cleanly():
        server = embedded(engine, keep=keep, slots=slots, tls=tls, port=port)
        # Being told to end is how this command ends well.
        with suppress(KeyboardInterrupt), server:
            asyncio.run(stock(server))
            say(welcome(server, engine))
            # Last, so that a program that has read them knows that all is said.
            for line in settings(server):
                typer.echo(line)
            while True:
                time.sleep(A_WHILE)
        say("stopped")


async def stock(server: LocalServer) -> None:
    """Push the example experiments, so that there is something to start."""
    config = Config(verify=server.ca_file or True)
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        for name in EXAMPLES:
            await client.push(server.example(name))


def settings(server: LocalServer) -> list[str]:
    """Shell commands that set the environment variables that `Client.from_env` reads."""
    values = {URL: server.url, API_KEY: server.api_key, CA_FILE: server.ca_file}
    return [f"export {name}={shlex.quote(str(value))}" for name, value in values.items() if value is not None]


def welcome(server: LocalServer, engine: EngineName) -> str:
    """What serves where, and a snippet to connect with."""
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
