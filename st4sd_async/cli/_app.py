"""The command itself: its options, and its commands put together."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from . import _batching, _collecting, _demo, _experiments, _serve, _starting, _watching
from ._connect import with_client
from ._exits import EXITS, Exit, complain
from ._words import logged


def _typer(name: str, *, completion: bool) -> typer.Typer:
    return typer.Typer(
        name=name,
        no_args_is_help=True,
        add_completion=completion,
        rich_markup_mode=None,
        # A traceback with the values of variables would show credentials.
        pretty_exceptions_enable=False,
    )


app = _typer("st4sd-async", completion=True)
batch = _typer("batch", completion=False)


class Messages(logging.Handler):
    """What the library logs, as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        if told := logged(record):
            complain(told)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"st4sd-async {version('st4sd_async')}")
    except PackageNotFoundError:
        typer.echo("st4sd-async, of unknown version: the package is not installed")
    raise typer.Exit


@app.callback(epilog=EXITS)
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell of each request on standard error.")] = False,
) -> None:
    """
    ST4SD, the Simulation Toolkit for Scientific Discovery, from the command line.

    Results go to standard output, progress and errors to standard error. The deployment and the login come from
    the environment: ST4SD_URL, and ST4SD_API_KEY or ST4SD_AUTH_TOKEN; ST4SD_CA_FILE names a private authority.
    """
    logger = logging.getLogger("st4sd_async")
    logger.handlers = [Messages()]
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)


@batch.callback(epilog=EXITS)
def many() -> None:
    """
    Start many runs, each exactly once.

    The launches are the lines of a table; their runs are watched to their ends, and their results are collected.

    What became of them is noted in a journal beside the table, which survives any death.
    """


Verb = Callable[..., Awaitable[Exit | None]]
"""What a command does."""


def _add(name: str, verb: Verb, *, to: typer.Typer = app, offline: bool = False) -> None:
    to.command(name, epilog=EXITS)(with_client(verb, validate=not offline))


_add("push", _experiments.push)
_add("list", _experiments.list_)
_add("show", _experiments.show)
_add("start", _starting.start)
_add("status", _watching.status)
_add("watch", _watching.watch)
_add("outputs", _collecting.outputs)
_add("download", _collecting.download)
_add("properties", _collecting.properties)
_add("logs", _collecting.logs)
_add("delete", _collecting.delete)
_add("run", _batching.run, to=batch)
_add("status", _batching.status, to=batch, offline=True)
_add("retry", _batching.retry, to=batch, offline=True)
_add("properties", _batching.properties, to=batch)
_add("adopt", _batching.adopt, to=batch)
_add("forget", _batching.forget, to=batch, offline=True)
app.add_typer(batch, name="batch")
app.command("demo")(_demo.demo)
app.command("serve")(_serve.serve)
