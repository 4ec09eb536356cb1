"""The command's options, and the table of its subcommands."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from . import batch, demo, experiments, runs, serve
from .connect import with_client
from .errors import EXIT_STATUSES, Exit, message_of_log, write_error


def _typer(name: str, *, completion: bool) -> typer.Typer:
    return typer.Typer(
        name=name,
        no_args_is_help=True,
        add_completion=completion,
        rich_markup_mode=None,
        # Tracebacks with the values of variables would show credentials.
        pretty_exceptions_enable=False,
    )


app = _typer("st4sd-async", completion=True)
batch_app = _typer("batch", completion=False)


class StandardErrorHandler(logging.Handler):
    """Writes the library's log records to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if message := message_of_log(record):
            write_error(message)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"st4sd-async {version('st4sd_async')}")
    except PackageNotFoundError:
        typer.echo("st4sd-async, unknown version: the package is not installed")
    raise typer.Exit


@app.callback(epilog=EXIT_STATUSES)
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log each request to standard error.")] = False,
) -> None:
    """
    ST4SD, the Simulation Toolkit for Scientific Discovery, on the command line.

    Example: st4sd-async start demo -i molecules.csv --watch

    To connect, set ST4SD_URL to the address of the deployment, and ST4SD_API_KEY or ST4SD_AUTH_TOKEN to your
    credential. Set ST4SD_CA_FILE to the certificate of a private authority, if there is one. Without a deployment,
    try st4sd-async demo.

    Results go to standard output, progress and errors to standard error.
    """
    logger = logging.getLogger("st4sd_async")
    logger.handlers = [StandardErrorHandler()]
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)


@batch_app.callback(epilog=EXIT_STATUSES)
def batch_options() -> None:
    """
    Start many runs, each exactly once.

    Each line of a table is a launch. Its run is watched until it is over, and its results are downloaded.

    A journal beside the table records progress and survives a crash.
    """


Verb = Callable[..., Awaitable[Exit | None]]
"""The implementation of a subcommand."""


def _add(name: str, verb: Verb, *, to: typer.Typer = app, offline: bool = False) -> None:
    to.command(name, epilog=EXIT_STATUSES)(with_client(verb, validate=not offline))


_add("push", experiments.push)
_add("list", experiments.list_)
_add("show", experiments.show)
_add("start", experiments.start)
_add("status", runs.status)
_add("watch", runs.watch)
_add("outputs", runs.outputs)
_add("download", runs.download)
_add("properties", runs.properties)
_add("logs", runs.logs)
_add("delete", runs.delete)
_add("run", batch.run, to=batch_app)
_add("status", batch.status, to=batch_app, offline=True)
_add("retry", batch.retry, to=batch_app, offline=True)
_add("properties", batch.properties, to=batch_app)
_add("adopt", batch.adopt, to=batch_app)
_add("forget", batch.forget, to=batch_app, offline=True)
app.add_typer(batch_app, name="batch")
app.command("demo")(demo.demo)
app.command("serve")(serve.serve)
