"""``st4sd-async start``: a run of an experiment, with what the command line says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..models import Status
from ._connect import Here, Json
from ._exits import Exit, Unusable
from ._experiments import read_json
from ._print import print_document, print_text
from ._watching import Interval, Timeout, document, exit_status, follow
from ._words import COMMAND

Files = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="[NAME=]FILE", help="An input file; the experiment sees it as NAME."),
]
DataFiles = Annotated[
    list[str] | None, typer.Option("--data", "-d", metavar="[NAME=]FILE", help="A file to replace one of the package.")
]
Variables = Annotated[
    list[str] | None, typer.Option("--variable", "-v", metavar="NAME=VALUE", help="A variable to set.")
]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", metavar="NAME=VALUE", help="Kept with the run, to find it by.")
]
Payload = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A start payload in JSON, which the other options add to; '-': standard input."),
]


async def start(
    here: Here,
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="name, name:tag or name@digest.")],
    inputs: Files = None,
    data: DataFiles = None,
    variables: Variables = None,
    platform: Annotated[str | None, typer.Option("--platform", "-p", metavar="NAME", help="Where to execute.")] = None,
    metadata: Metadata = None,
    payload: Payload = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the run until it is over.")] = False,
    timeout: Timeout = None,
    interval: Interval = None,
    as_json: Json = False,
) -> Exit:
    """
    Start a run of an experiment, and print its rest-uid.

    Credentials of buckets and the like belong into the file of --payload, in the service's documented form. If the
    connection breaks at the wrong moment, the run may have been started or not: exit status 4.
    """
    content = _payload({} if payload is None else read_json(payload), inputs, data, variables, platform, metadata)
    here.ending.experiment = experiment
    here.ending.farewell = f"the run may have been started: look with {COMMAND} list runs"
    run = await here.client.start(experiment, content)
    here.ending.farewell = f"the run goes on; come back with: {COMMAND} watch {run}"
    if not as_json:
        print_text(run.id)
    last: dict[str, Status] = {}
    if watch:
        last = await follow(here, [run.id], timeout, interval, None)
    if as_json:
        print_document(document(run.id, last.get(run.id, Status.pending())))
    return exit_status(last.values(), of=int(watch))


def _payload(
    content: dict[str, Any],
    inputs: Iterable[str] | None,
    data: Iterable[str] | None,
    variables: Iterable[str] | None,
    platform: str | None,
    metadata: Iterable[str] | None,
) -> dict[str, Any]:
    """A start payload with what the options add to it."""
    added: dict[str, Any] = {
        "inputs": [*(content.get("inputs") or []), *map(file, inputs or ())],
        "data": [*(content.get("data") or []), *map(file, data or ())],
        "variables": {**(content.get("variables") or {}), **dict(_pair(one, "--variable") for one in variables or ())},
        "metadata": {**(content.get("metadata") or {}), **dict(_pair(one, "--metadata") for one in metadata or ())},
        "platform": platform,
    }
    return {**content, **{name: value for name, value in added.items() if value}}


def file(given: str) -> dict[str, Any]:
    """A file for a payload, from ``FILE`` or ``NAME=FILE``."""
    name, separator, path = given.partition("=")
    if not separator or Path(given).exists():
        return {"filename": Path(given).name, "content": Path(given)}
    return {"filename": name, "content": Path(path)}


def _pair(given: str, option: str) -> tuple[str, str]:
    name, separator, value = given.partition("=")
    if not separator or not name:
        raise Unusable(f"{option} takes NAME=VALUE, not {given!r}")
    return name, value
