"""What the commands that talk to a deployment have in common: how to reach it, and how they end."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import anyio
import pydantic
import typer

from .._client import Client
from .._config import API_KEY, AUTH_TOKEN, URL, Config, from_environment, split_address
from .._errors import ConfigError, St4sdError
from .._http.credentials import origin
from ._exits import Ending, Exit, Unusable, complain, ends_cleanly, exit_of, silence
from ._words import told

P = ParamSpec("P")
T = TypeVar("T")

MOST_COMPLAINTS = 5
"""Lines about runs with which something went wrong; the rest is counted."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
RunIds = Annotated[list[str], typer.Argument(metavar="RUN...", help="Rest-uids; '-' reads them from standard input.")]


@dataclass
class Here:
    """What a command works with."""

    client: Client
    """The client, open."""
    ending: Ending
    """What is to be said at the end."""


@dataclass(frozen=True)
class Connection:
    """What a user says of the deployment, in options that all commands have."""

    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of the deployment, in place of ST4SD_URL.")
    ] = None
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use this login of the command stp, in place of all others.")
    ] = None
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The API key is in this file; '-' asks for it.")
    ] = None
    auth_token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The auth-token is in this file; '-' asks for it.")
    ] = None

    def client(self, config: Config) -> Client:
        """
        The client for it, not open yet.

        Raises:
            ConfigError: A setting is missing or will not do, or the credentials there are belong elsewhere.
        """
        if self.context is not None:
            return Client.from_context(self.context, config=config)
        environment = {**os.environ, URL: self.url} if self.url else os.environ
        url, api_key, auth_token, settings = from_environment(config, environment)
        if self.api_key_file is not None:
            return Client(url, api_key=_secret(self.api_key_file, "API key"), config=settings)
        if self.auth_token_file is not None:
            return Client(url, auth_token=_secret(self.auth_token_file, "auth-token"), config=settings)
        client = Client(url, api_key=api_key, auth_token=auth_token, config=settings)
        if self.url and (api_key or auth_token):
            _check_owner(API_KEY if api_key else AUTH_TOKEN, url, os.environ.get(URL))
        return client


def _check_owner(name: str, url: str, owner: str | None) -> None:
    """Raise ConfigError if the environment says that its credential is that of another deployment."""
    if not owner:
        return
    asked, meant = split_address(url), split_address(owner)
    if asked is not None and meant is not None and origin(asked) == origin(meant):
        return
    way = f"give --api-key-file FILE, --auth-token-file FILE or --context NAME; or set {URL} to the address instead"
    place = "an address that makes no sense" if meant is None else repr(meant.hostname)
    raise ConfigError(f"{name} is not sent to {url!r}, because {URL} says that it is of {place}: {way}")


def _secret(file: Path, what: str) -> Path | str:
    """A file, which is read whenever its content is needed; or what the user types, or pipes in."""
    if str(file) != "-":
        return file
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True, err=True))
    return sys.stdin.readline()


def with_client(
    verb: Callable[Concatenate[Here, P], Awaitable[Exit | None]], *, validate: bool = True
) -> Callable[..., None]:
    """
    The command that calls a verb with an open client, and ends with the exit status that it gives.

    Its options are those of the verb and of `Connection`. What makes no sense to the library is wrong usage.

    Args:
        verb: What to do; None is `Exit.DONE`.
        validate: Whether the login is proven first; if not, the network is left to the verb.
    """

    def command(url: Any, context: Any, api_key_file: Any, auth_token_file: Any, **arguments: Any) -> None:
        with ends_cleanly() as ending:
            ending.farewell = ""
            connection = Connection(url, context, api_key_file, auth_token_file)
            here = Here(connection.client(Config(validate=validate)), ending)
            try:
                status = asyncio.run(_call(here, verb, arguments))
            except BrokenPipeError:
                silence(sys.stdout)  # whoever reads the output, as head, has enough
                status = Exit.CLOSED_PIPE
        raise typer.Exit(status or Exit.DONE)

    # What the command line framework looks at.
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(Connection, eval_str=True).parameters.values())
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *shared)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = verb.__doc__
    return command


async def _call(here: Here, verb: Callable[..., Awaitable[Exit | None]], arguments: dict[str, Any]) -> Exit | None:
    try:
        async with here.client:
            return await verb(here, **arguments)
    except ValueError as error:
        if isinstance(error, St4sdError | pydantic.ValidationError):
            raise
        raise Unusable(str(error)) from error


def rest_uids(given: Iterable[str]) -> list[str]:
    """
    The runs that are meant, each once.

    Standard input, for "-", has one on each line, followed by whatever else: what ``list runs`` and ``status`` print.
    """
    found: list[str] = []
    for one in given:
        if one == "-":
            found += (line.split()[0] for line in sys.stdin if line.strip())
        else:
            found.append(one)
    order = [one for one in dict.fromkeys(found) if one != "rest-uid"]
    if not order:
        raise Unusable("no runs: standard input named none")
    return order


async def each(runs: Iterable[str], verb: Callable[[str], Awaitable[T]]) -> tuple[dict[str, T], Exit]:
    """
    What a verb gives for each of several runs, in their order, and how the command must end on account of the others.

    What went wrong with one is said, and does not touch the others.
    """
    given: dict[str, T | Exception] = {}

    async def one(run: str) -> None:
        try:
            given[run] = await verb(run)
        except (St4sdError, OSError, ValueError) as error:
            given[run] = error

    order = list(runs)
    async with anyio.create_task_group() as tasks:
        for run in order:
            tasks.start_soon(one, run)
    errors = {run: result for run in order if isinstance(result := given[run], Exception)}
    complain_of(errors)
    found = {run: result for run in order if not isinstance(result := given[run], Exception)}
    return found, max(map(exit_of, errors.values()), default=Exit.DONE)


def complain_of(errors: Mapping[str, Exception]) -> None:
    """Say what went wrong with some runs; of many of them a few."""
    for run, error in list(errors.items())[:MOST_COMPLAINTS]:
        text = told(error)
        complain(text if run in text else f"{run}: {text}")
    if len(errors) > MOST_COMPLAINTS:
        complain(f"... and {len(errors) - MOST_COMPLAINTS} more runs")
