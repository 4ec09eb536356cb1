"""The commands about experiments: ``push``, ``list``, ``show`` and ``start``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .._payload.draft import Draft
from .._util.printable import one_line
from ..models import Experiment, Status
from .connect import Command, Json
from .errors import COMMAND, Exit, UsageError, without_request, write_error, write_message
from .output import print_document, print_table, print_text
from .runs import STATUS_COLUMNS, Interval, Timeout, cells, document, exit_status, follow

SHORT_DIGEST = 14
"""Characters of a digest in a list; --json and show print all of it."""
SHOWN_STATUS_COLUMNS = (0, 1, 2, 3, 5, 4)
"""Columns of a list of runs in the order in which a terminal shows them: the reason last, because it may be cut."""

ExperimentName = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="name, name:tag or name@digest.")]
InputFiles = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="[NAME=]FILE", help="An input file; the experiment sees it as NAME."),
]
DataFiles = Annotated[
    list[str] | None,
    typer.Option("--data", "-d", metavar="[NAME=]FILE", help="A file that replaces a data file of the package."),
]
Variables = Annotated[
    list[str] | None, typer.Option("--variable", "-v", metavar="NAME=VALUE", help="A variable to set.")
]
MetadataValues = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="NAME=VALUE", help="A label stored with the run, to find it by."),
]
PayloadFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A start payload in JSON; other options add to it. '-' is standard input."),
]


class Listed(StrEnum):
    """What can be listed."""

    EXPERIMENTS = "experiments"
    RUNS = "runs"


async def push(
    command: Command,
    package: Annotated[
        Path, typer.Argument(metavar="FILE", help="The definition in JSON; '-' reads it from standard input.")
    ],
    as_json: Json = False,
) -> None:
    """
    Add an experiment to the registry.

    The definition is a parameterised virtual experiment package; see the documentation of ST4SD.

    Prints name@digest, which identifies exactly this content. With --json, prints the whole entry of the registry.
    """
    definition = read_json(package)
    command.notes.interrupted = "the package may have been pushed; it is safe to push it again"
    experiment = await command.client.push(definition)
    if as_json:
        print_document(experiment.raw)
    else:
        print_text(experiment.identifier)
        name, tags = shlex.quote(str(experiment.name)), ", ".join(experiment.tags)
        write_message(one_line(f"tagged {tags}; see what a start takes with: {COMMAND} show {name}"))


async def list_(
    command: Command,
    what: Annotated[Listed, typer.Argument(metavar="[experiments|runs]", help="What to list.")] = Listed.EXPERIMENTS,
    everything: Annotated[
        bool, typer.Option("--all", help="Include old versions, whose tags were moved to a newer push.")
    ] = False,
    as_json: Json = False,
) -> None:
    """
    List experiments or runs.

    The list of runs does not show why a run is waiting for the cluster or failed to start. The command status does.
    """
    if what is Listed.RUNS:
        await _list_runs(command, as_json=as_json)
    else:
        await _list_experiments(command, everything, as_json)


async def _list_experiments(command: Command, everything: bool, as_json: bool) -> None:
    found = await command.client.experiments.list()
    for problem in found.problems:
        write_error(f"the registry reports a problem: {json.dumps(problem, default=str)[:300]}")
    experiments = [experiment for experiment in found if everything or experiment.tags]
    if as_json:
        print_document([experiment.raw for experiment in experiments])
        return
    columns = ("experiment", "tags", "created", "runs", "digest", "description")
    print_table(columns, map(_cells, experiments))


def _cells(experiment: Experiment) -> tuple[object, ...]:
    registry = experiment.metadata.registry
    created, digest = (registry.created_on or "")[:16], (experiment.digest or "")[:SHORT_DIGEST]
    description = experiment.metadata.package.description
    return experiment.name, ",".join(experiment.tags), created, registry.times_executed, digest, description


async def _list_runs(command: Command, *, as_json: bool) -> None:
    instances = await command.client.instances.list()
    if as_json:
        print_document([{**document(one.id, one.status), "labels": one.labels} for one in instances])
        return
    rows = [(*cells(one.id, one.status), one.labels.get("st4sd-package-name")) for one in instances]
    print_table((*STATUS_COLUMNS, "experiment"), rows, shown=SHOWN_STATUS_COLUMNS, shorten=without_request)


async def show(command: Command, experiment: ExperimentName, as_json: Json = False) -> None:
    """Show the inputs, variables and options that a start of an experiment takes."""
    entry = await command.client.experiments.get(experiment)
    if as_json:
        print_document(entry.raw)
        return
    draft = await command.client.draft(entry)
    print_table(("what", "name", "details"), _facts(entry, draft))
    inputs = [f"--input {shlex.quote(name)}=FILE" for name in draft.inputs.allowed]
    values = [f"--variable {shlex.quote(name)}=VALUE" for name in draft.options]
    line = " ".join([COMMAND, "start", shlex.quote(experiment), *inputs, *values])
    write_message(f"\nstart it with: {one_line(line)}")


def _facts(experiment: Experiment, draft: Draft) -> list[tuple[str, str | None, str]]:
    description = experiment.metadata.package.description or ""
    facts: list[tuple[str, str | None, str]] = [("experiment", experiment.identifier, description)]
    facts += [("input", name, "required") for name in draft.inputs.allowed]
    for option in draft.options.values():
        choices = "" if option.choices is None else f"one of {', '.join(option.choices)}"
        default = "" if option.default is None else f"default {option.default}"
        facts.append(("variable", option.name, ", ".join(filter(None, (choices, default)))))
    facts += [("data", name, "can be replaced") for name in draft.data.allowed]
    facts += [
        ("platform", name, "default" if number == 0 and len(draft.platforms) > 1 else "")
        for number, name in enumerate(draft.platforms)
    ]
    return facts + [("key-output", output.name, "") for output in experiment.metadata.registry.output]


async def start(
    command: Command,
    experiment: ExperimentName,
    inputs: InputFiles = None,
    data: DataFiles = None,
    variables: Variables = None,
    platform: Annotated[
        str | None, typer.Option("--platform", "-p", metavar="NAME", help="The platform to execute on.")
    ] = None,
    metadata: MetadataValues = None,
    payload: PayloadFile = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the run until it is over.")] = False,
    timeout: Timeout = None,
    interval: Interval = None,
    as_json: Json = False,
) -> Exit:
    """
    Start a run of an experiment, and print its rest-uid.

    Example: st4sd-async start demo -i molecules.csv -v scale=2

    Put credentials, such as those of buckets, into the file of --payload, as the service documents them.

    If the connection breaks after the request was sent, the run may or may not have been started. The exit status is
    then 4.
    """
    content = _payload({} if payload is None else read_json(payload), inputs, data, variables, platform, metadata)
    command.notes.experiment = experiment
    command.notes.interrupted = f"the run may have been started; look for it with: {COMMAND} list runs"
    run = await command.client.start(experiment, content)
    command.notes.interrupted = f"the run goes on; follow it with: {COMMAND} watch {run}"
    if not as_json:
        print_text(run.id)
    last: dict[str, Status] = {}
    if watch:
        last = await follow(command, [run.id], timeout, interval, None)
    if as_json:
        print_document(document(run.id, last.get(run.id, Status.pending())))
    return exit_status(last.values(), expected=int(watch))


def _payload(
    content: dict[str, Any],
    inputs: Iterable[str] | None,
    data: Iterable[str] | None,
    variables: Iterable[str] | None,
    platform: str | None,
    metadata: Iterable[str] | None,
) -> dict[str, Any]:
    """Return a start payload with the values of the options added."""
    added: dict[str, Any] = {
        "inputs": [*(content.get("inputs") or []), *map(_file, inputs or ())],
        "data": [*(content.get("data") or []), *map(_file, data or ())],
        "variables": {**(content.get("variables") or {}), **_pairs(variables, "--variable")},
        "metadata": {**(content.get("metadata") or {}), **_pairs(metadata, "--metadata")},
        "platform": platform,
    }
    return {**content, **{name: value for name, value in added.items() if value}}


def _file(argument: str) -> dict[str, Any]:
    """Return a file of a payload, from ``FILE`` or ``NAME=FILE``."""
    name, separator, path = argument.partition("=")
    if not separator or Path(argument).exists():
        return {"filename": Path(argument).name, "content": Path(argument)}
    return {"filename": name, "content": Path(path)}


def _pairs(arguments: Iterable[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for argument in arguments or ():
        name, separator, value = argument.partition("=")
        if not separator or not name:
            raise UsageError(f"{option} takes NAME=VALUE, not {argument!r}")
        pairs[name] = value
    return pairs


def read_json(file: Path) -> Any:
    """Return the JSON object in a file ("-" is standard input), or raise `UsageError`."""
    try:
        content = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text("utf-8"))
    except ValueError as error:
        raise UsageError(f"{str(file)!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{str(file)!r} must be a JSON object, not a {type(content).__name__}")
    return content
