"""Options, client and error handling of the commands that connect to a deployment."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import anyio
import pydantic
import typer

from .._client import Client
from .._config import API_KEY_VARIABLE, AUTH_TOKEN_VARIABLE, URL_VARIABLE, Config, from_environment
from .._errors import ConfigError, St4sdError
from .._http.credentials import origin, parse_http_url
from .errors import COMMAND, Exit, Notes, UsageError, discard, exit_of, exits_on_errors, message_of, write_error

P = ParamSpec("P")
T = TypeVar("T")

HOW_TO_CONNECT = (
    f"export {URL_VARIABLE}=https://..., the address of the deployment; "
    f"without a deployment, run {COMMAND} serve in another terminal and type the commands that it prints"
)
"""Advice if no deployment is given."""
MAX_ERRORS = 5
"""Runs whose errors are reported; those of further runs are counted."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


@dataclass
class Command:
    """What a subcommand works with."""

    client: Client
    """The client, open."""
    notes: Notes
    """What its last message adds."""


@dataclass(frozen=True)
class Connection:
    """Options that select the deployment and the credential. They stand before or after the name of a subcommand."""

    url: Annotated[str | None, typer.Option(metavar="URL", help="Address of the deployment, instead of ST4SD_URL.")] = (
        None
    )
    context: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use this login of the command stp, and ignore other credentials."),
    ] = None
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the API key; '-' prompts for the key.")
    ] = None
    auth_token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the auth-token; '-' prompts for the token.")
    ] = None

    def over(self, outer: Connection | None) -> Connection:
        """Return these options, completed by those before the name of the subcommand, if there are any."""
        if outer is None:
            return self
        login = self if self.context or self.api_key_file or self.auth_token_file else outer
        return replace(login, url=self.url or outer.url)

    def client(self, config: Config) -> Client:
        """
        Return a client that is not open yet.

        Raises:
            ConfigError: A setting is missing or invalid, or the credential belongs to another deployment.
        """
        if self.context is not None:
            return Client.from_context(self.context, config=config)
        environment = {**os.environ, URL_VARIABLE: self.url} if self.url else os.environ
        if not environment.get(URL_VARIABLE):
            raise ConfigError(f"{URL_VARIABLE} is not set: {HOW_TO_CONNECT}")
        url, api_key, auth_token, settings = from_environment(config, environment)
        if self.api_key_file is not None:
            return Client(url, api_key=_secret(self.api_key_file, "API key"), config=settings)
        if self.auth_token_file is not None:
            return Client(url, auth_token=_secret(self.auth_token_file, "auth-token"), config=settings)
        client = Client(url, api_key=api_key, auth_token=auth_token, config=settings)
        if self.url and (api_key or auth_token):
            _check_owner(API_KEY_VARIABLE if api_key else AUTH_TOKEN_VARIABLE, url, os.environ.get(URL_VARIABLE))
        return client


def _check_owner(name: str, url: str, owner: str | None) -> None:
    """Raise ConfigError if, by the environment, its credential belongs to another deployment."""
    if not owner:
        return
    target, known = parse_http_url(url), parse_http_url(owner)
    if target is not None and known is not None and origin(target) == origin(known):
        return
    options = "--api-key-file FILE, --auth-token-file FILE or --context NAME"
    advice = f"give {options}; or set {URL_VARIABLE} to the address instead"
    place = "an invalid address" if known is None else repr(known.hostname)
    raise ConfigError(f"{name} is not sent to {url!r}, because {URL_VARIABLE} says it belongs to {place}: {advice}")


def _secret(file: Path, what: str) -> Path | str:
    """Return the file, which the client reads each time it needs it, or what the user types or pipes in."""
    if str(file) != "-":
        return file
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True, err=True))
    return sys.stdin.readline()


def with_client(
    verb: Callable[Concatenate[Command, P], Awaitable[Exit | None]], *, validate: bool = True
) -> Callable[..., None]:
    """
    Return a subcommand that calls a verb with an open client, and exits with the status it returns.

    Its options are those of the verb and of `Connection`. A ValueError of the library is wrong usage.

    Args:
        verb: The implementation; None returned means `Exit.DONE`.
        validate: Whether the credential is checked first. If not, no request is sent before the verb's own.
    """

    def command(caller: typer.Context, connection: Connection, **arguments: Any) -> None:
        with exits_on_errors() as notes:
            notes.interrupted = ""
            client = connection.over(caller.obj).client(Config(validate=validate))
            try:
                status = asyncio.run(_call(Command(client, notes), verb, arguments))
            except BrokenPipeError:
                discard(sys.stdout)  # the reader of the output, such as head, has enough
                status = Exit.CLOSED_PIPE
        raise typer.Exit(status or Exit.DONE)

    own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
    return _with_connection_options(command, own, verb.__doc__)


def keeps_connection(callback: Callable[..., None]) -> Callable[..., None]:
    """Return the callback of a group of subcommands, with the options of `Connection`, which the subcommands use."""

    def group(caller: typer.Context, connection: Connection, **arguments: Any) -> None:
        caller.obj = connection.over(caller.obj)
        callback(**arguments)

    own = list(inspect.signature(callback, eval_str=True).parameters.values())
    return _with_connection_options(group, own, callback.__doc__)


def _with_connection_options(
    function: Callable[..., None], own: Iterable[inspect.Parameter], doc: str | None
) -> Callable[..., None]:
    """
    Return a function with the parameters of which typer makes options: its own and those of `Connection`.

    Args:
        function: Called with the typer.Context, the `Connection` and its own parameters.
        own: Its own parameters.
        doc: The docstring of the function that is returned.
    """
    shared = inspect.signature(Connection, eval_str=True).parameters

    def parsed(caller: typer.Context, **arguments: Any) -> None:
        function(caller, Connection(**{name: arguments.pop(name) for name in shared}), **arguments)

    caller = inspect.Parameter("caller", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    options = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *shared.values())]
    parsed.__signature__ = inspect.Signature([caller, *options])  # type: ignore[attr-defined] # typer reads it
    parsed.__annotations__ = {one.name: one.annotation for one in (caller, *options)}
    parsed.__doc__ = doc
    return parsed


async def _call(
    command: Command, verb: Callable[..., Awaitable[Exit | None]], arguments: dict[str, Any]
) -> Exit | None:
    try:
        async with command.client:
            return await verb(command, **arguments)
    except ValueError as error:
        if isinstance(error, St4sdError | pydantic.ValidationError):
            raise
        raise UsageError(str(error)) from error


def rest_uids(arguments: Iterable[str]) -> list[str]:
    """
    Return the runs that are named, each once.

    For "-", the first word of each line of standard input, so that the output of ``list runs`` and ``status`` can be
    piped in.
    """
    names: list[str] = []
    for argument in arguments:
        if argument == "-":
            names += (line.split()[0] for line in sys.stdin if line.strip())
        else:
            names.append(argument)
    order = [name for name in dict.fromkeys(names) if name != "rest-uid"]
    if not order:
        raise UsageError("there are no rest-uids on standard input")
    return order


async def for_each_run(runs: Iterable[str], verb: Callable[[str], Awaitable[T]]) -> tuple[dict[str, T], Exit]:
    """
    Call a verb for several runs at once, and report the errors; an error of one run does not affect the others.

    Returns:
        The results by rest-uid, in the order given, and the exit status that the errors require.
    """
    outcomes: dict[str, T | Exception] = {}

    async def call(run: str) -> None:
        try:
            outcomes[run] = await verb(run)
        except (St4sdError, OSError, ValueError) as error:
            outcomes[run] = error

    order = list(runs)
    async with anyio.create_task_group() as tasks:
        for run in order:
            tasks.start_soon(call, run)
    errors = {run: outcome for run in order if isinstance(outcome := outcomes[run], Exception)}
    write_errors(errors)
    results = {run: outcome for run in order if not isinstance(outcome := outcomes[run], Exception)}
    return results, max(map(exit_of, errors.values()), default=Exit.DONE)


def write_errors(errors: Mapping[str, Exception]) -> None:
    """Report the errors of runs; of many, the first few."""
    for run, error in list(errors.items())[:MAX_ERRORS]:
        text = message_of(error)
        write_error(text if run in getattr(error, "message", text) else f"{run}: {text}")
    if len(errors) > MAX_ERRORS:
        write_error(f"... and {len(errors) - MAX_ERRORS} more runs")
