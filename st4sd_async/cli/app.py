"""The command's options, and the table of its subcommands."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from .._display.live_display import is_outage_shown
from . import batch, demo, experiments, packages, report, runs, serve
from .connect import keeps_connection, with_client
from .errors import COMMAND, Exit, message_of_log, write_error

EXIT_STATUSES = (
    "Exit status: 0 success; 1 a run failed, was deleted or did not end in time, or check found a problem; "
    "2 wrong usage, settings or files; "
    "3 the service failed, refused a request or cannot be reached; 4 a run may or may not have been started; "
    "130 interrupted. If several apply, the highest one."
)
"""The last paragraph of the command's help."""
WHERE_EXIT_STATUSES_ARE = f"Exit status: see {COMMAND} --help."
"""The last paragraph of each subcommand's help."""
_EXAMPLE = re.compile(r"^(?=Examples?:)", re.MULTILINE)


def help_of(function: Callable[..., object]) -> str:
    """Return the help in a docstring. The lines of its examples are not wrapped, so that they can be copied."""
    return _EXAMPLE.sub("\b\n", inspect.cleandoc(function.__doc__ or ""))


def _typer(name: str, *, completion: bool) -> typer.Typer:
    return typer.Typer(
        name=name,
        no_args_is_help=True,
        add_completion=completion,
        rich_markup_mode=None,
        # Tracebacks with the values of variables would show credentials.
        pretty_exceptions_enable=False,
    )


app: typer.Typer = _typer("st4sd-async", completion=True)
batch_app: typer.Typer = _typer("batch", completion=False)


class StandardErrorHandler(logging.Handler):
    """
    Writes the library's log records to standard error: warnings, and the beginning and end of outages.

    Args:
        is_verbose: Whether to write all records.
    """

    def __init__(self, *, is_verbose: bool) -> None:
        super().__init__()
        self._is_verbose = is_verbose

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record. If a display shows the outages, they are not written too."""
        if self._is_verbose:
            return True
        return not is_outage_shown() if hasattr(record, "outage") else record.levelno >= logging.WARNING

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


@keeps_connection
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
    logger.handlers = [StandardErrorHandler(is_verbose=verbose)]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


@keeps_connection
def batch_options() -> None:
    """
    Start many runs, each exactly once.

    Example: st4sd-async batch run launches.csv demo --output Energies

    Each line of a table is a launch. Its run is watched until it is over, and its results are downloaded.

    A journal beside the table records progress and survives a crash.
    """


Verb = Callable[..., Awaitable[Exit | None]]
"""The implementation of a subcommand."""


def _add(name: str, verb: Verb, *, to: typer.Typer = app, offline: bool = False) -> None:
    _add_offline(name, with_client(verb, validate=not offline), to=to)


def _add_offline(name: str, function: Callable[..., None], *, to: typer.Typer = app) -> None:
    to.command(name, help=help_of(function), epilog=WHERE_EXIT_STATUSES_ARE)(function)


app.callback(help=help_of(options), epilog=EXIT_STATUSES)(options)
batch_app.callback(help=help_of(batch_options), epilog=WHERE_EXIT_STATUSES_ARE)(batch_options)


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
_add("watch", batch.watch, to=batch_app, offline=True)
_add("retry", batch.retry, to=batch_app, offline=True)
_add("properties", batch.properties, to=batch_app)
_add_offline("report", report.report, to=batch_app)
_add("find", batch.find, to=batch_app)
_add("adopt", batch.adopt, to=batch_app)
_add("forget", batch.forget, to=batch_app, offline=True)
app.add_typer(batch_app, name="batch")
_add_offline("init", packages.init)
_add_offline("check", packages.check)
_add_offline("demo", demo.demo)
_add_offline("serve", serve.serve)
