"""``st4sd-async demo``: real virtual experiments on this machine, from the push to the properties."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._client import Client
from .._render.cards import counted
from ._board import Board, shown
from ._campaign import Attempt, Changed, conduct, exit_status
from ._exits import Unusable, ends_cleanly, say
from ._inputs import plan
from ._print import print_document, print_table
from ._report import DETAILS, document, row, table
from ._server import EngineName, embedded
from ._words import told

if TYPE_CHECKING:
    from ..local import LocalServer
    from ..models import Experiment

EXPERIMENT = "demo"
"""The example experiment that is run."""
OTHER_WAY = "or play the runs instead of executing them: st4sd-async demo --engine simulator"


def demo(
    engine: Annotated[
        EngineName, typer.Option(help="elaunch executes the runs on this machine, simulator only plays them.")
    ] = EngineName.ELAUNCH,
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="How many runs, all at once.")] = 3,
    to: Annotated[
        Path, typer.Option(file_okay=False, metavar="DIR", help="Where the key-outputs go, one folder a run.")
    ] = Path("results"),
    keep: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, metavar="DIR", help="Leave the instance directories here, for your eyes only (mode 0700)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """
    Run an example experiment a few times with different inputs, without a cluster.

    Starts an embedded ST4SD, pushes the example, starts all runs at once, shows how they are doing,
    downloads what they leave, and prints the properties that they measured.

    Exit status: 0 all succeeded, 1 a run failed, 2 wrong usage or something is missing on this machine, 3 the
    service failed, 4 a run may or may not have been started, 130 interrupted.
    """
    attempts = plan(runs)
    with ends_cleanly(advice=OTHER_WAY if engine is EngineName.ELAUNCH else ""):
        to.mkdir(parents=True, exist_ok=True)
        say(f"starting an embedded ST4SD (engine {engine.value})")
        with embedded(engine, keep=keep) as server:
            package = _example(server)
            say(f"experiment {EXPERIMENT!r}, {counted(runs, 'run')} at once, results go to {to}")
            with shown(Board("run", "run", DETAILS)) as show:
                experiment = asyncio.run(_campaign(server, package, attempts, to, lambda attempt: show(row(attempt))))
        _report(engine, experiment, attempts, to, as_json=as_json)
    raise typer.Exit(exit_status(attempts))


def _example(server: LocalServer) -> dict[str, Any]:
    """The definition of the example; raises `Unusable` without git, which makes it."""
    try:
        return server.example(EXPERIMENT)
    except RuntimeError as error:
        raise Unusable(str(error)) from error


async def _campaign(
    server: LocalServer, package: Mapping[str, Any], attempts: Sequence[Attempt], to: Path, changed: Changed
) -> Experiment:
    async with Client(server.url, api_key=server.api_key) as client:
        return await conduct(client, package, attempts, to, changed)


def _report(
    engine: EngineName, experiment: Experiment, attempts: Sequence[Attempt], to: Path, *, as_json: bool
) -> None:
    """Print what was found, and on standard error what went wrong and where the files are."""
    for attempt in attempts:
        if attempt.error is not None:
            say(f"{attempt.name}: {told(attempt.error)}")
        elif attempt.status is not None and not attempt.status.is_success:
            say(f"{attempt.name}: {attempt.status}")
    say(f"{sum(len(attempt.files) for attempt in attempts)} files in {to}, a folder for each run")
    if as_json:
        print_document(document(engine.value, experiment, attempts))
    else:
        print_table(*table(attempts), is_spreadsheet=True)
