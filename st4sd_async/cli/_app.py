"""The command itself: its options, and its commands put together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from . import _demo, _serve

app = typer.Typer(
    name="st4sd-async",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    # A traceback with the values of variables would show credentials.
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"st4sd-async {version('st4sd_async')}")
    except PackageNotFoundError:
        typer.echo("st4sd-async, of unknown version: the package is not installed")
    raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """
    ST4SD, the Simulation Toolkit for Scientific Discovery, from the command line.

    Results go to standard output, progress and errors to standard error.
    """


app.command("demo")(_demo.demo)
app.command("serve")(_serve.serve)
