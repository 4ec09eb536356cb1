"""The commands about experiments: ``push``, ``list``, ``show`` and ``start``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .._batch.launch import Launch
from .._client import reasons_of
from .._display.show import reason_of
from .._payload.draft import Draft, common_default, default_of
from .._util.did_you_mean import did_you_mean
from .._util.printable import one_line
from ..models import Experiment, Status
from ..models.runs import STATES
from . import completion
from .connect import Command, Json
from .errors import COMMAND, Exit, UsageError, write_error, write_message
from .output import print_document, print_table, print_text
from .problems import LaunchMistake, place_of, report, with_words
from .runs import STATUS_COLUMNS, Interval, Timeout, cells, document, exit_status, follow, write_failures

LATEST = "latest"
"""The tag of the version that a name without a tag means."""
EXPERIMENT_COLUMNS = ("experiment", "tags", "created", "runs", "description")
"""Columns of a list of experiments. The first has what the other commands accept."""
SHOWN_STATUS_COLUMNS = (0, 1, 2, 4, 3)
"""Columns of a list of runs in the order in which a terminal shows them: the reason last, because it may be cut."""
OPTIONS = {
    "inputs": "--input {}=FILE",
    "data": "--data {}=FILE",
    "variables": "--variable {}=VALUE",
    "metadata": "--metadata {}=VALUE",
    "platform": "--platform",
}
"""Field of a payload -> the option for an entry of it."""

ExperimentName = Annotated[
    str,
    typer.Argument(metavar="EXPERIMENT", help="name, name:tag or name@digest.", autocompletion=completion.experiments),
]
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
        Path,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="The folder of a package, or a definition in JSON or YAML; '-' reads JSON from standard input.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """
    Add an experiment to the registry.

    Example: st4sd-async push my-experiment

    The definition is a parameterised virtual experiment package; see the documentation of ST4SD. A folder must be in
    a git repository, because the service clones it: the definition gets its URL and its commit. Without a
    definition.yaml in the folder, a start may set all its variables.

    Prints name@digest, which identifies exactly this content. With --json, prints the whole entry of the registry.
    """
    definition = read_json(package) if str(package) == "-" else package
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
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="List only runs in this state; repeat it for several.",
            autocompletion=completion.states,
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="List only runs of this experiment.", autocompletion=completion.experiments),
    ] = None,
    as_json: Json = False,
) -> None:
    """
    List experiments or runs.

    Examples:
      st4sd-async list
      st4sd-async list runs --state failed --state stopped --experiment demo

    The first column has what the other commands accept: a name for its latest version, name:tag, or name@digest for a
    version without a tag. With --json, print the whole entries.

    The list of runs does not show why a run is waiting for the cluster or failed to start. The command status does. It
    also lists the states. Runs of an experiment are those of all its versions, or of one: name@digest.
    """
    if what is Listed.RUNS:
        await _list_runs(command, states or (), experiment, as_json=as_json)
    elif states or experiment is not None:
        raise UsageError(f"--state and --experiment apply to runs: {COMMAND} list runs")
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
    # In the table of a terminal, a digest would be broken into lines that cannot be copied.
    untagged = [one for one in experiments if not one.tags] if sys.stdout.isatty() else []
    print_table(EXPERIMENT_COLUMNS, [_cells(one) for one in experiments if one not in untagged])
    for number, one in enumerate(untagged):
        print_text("" if number else "\nwithout a tag:\n", end="")
        print_text(one_line(_name_to_type(one)))


def _cells(experiment: Experiment) -> tuple[object, ...]:
    registry, description = experiment.metadata.registry, experiment.metadata.package.description
    created, tags = (registry.created_on or "")[:16], ",".join(experiment.tags)
    return _name_to_type(experiment), tags, created, registry.times_executed, description


def _name_to_type(experiment: Experiment) -> str:
    """Return the shortest name of this version that the commands accept."""
    if LATEST in experiment.tags:
        return str(experiment.name)
    return f"{experiment.name}:{experiment.tags[0]}" if experiment.tags else experiment.identifier


async def _list_runs(command: Command, states: Sequence[str], experiment: str | None, *, as_json: bool) -> None:
    wanted = {_state(word) for word in states} or None
    name, digest = _name_and_digest(experiment)
    instances = [
        one
        for one in await command.client.instances.list()
        if (wanted is None or one.status.state in wanted)
        and name in (None, one.labels.get("st4sd-package-name"))
        and digest in (None, one.labels.get("st4sd-package-digest"))
    ]
    if as_json:
        print_document([{**document(one.id, one.status), "labels": one.labels} for one in instances])
        return
    rows = [
        (*cells(one.id, one.status, reason_of(one.status)), one.labels.get("st4sd-package-name")) for one in instances
    ]
    print_table((*STATUS_COLUMNS, "experiment"), rows, shown=SHOWN_STATUS_COLUMNS, is_cut=True)


def _state(word: str) -> str:
    """Return a word of `Status.state`; raise UsageError if it is none."""
    if word.casefold() in STATES:
        return word.casefold()
    known = ", ".join(STATES)
    raise UsageError(f"--state: {word!r} is no state of a run{did_you_mean(word, STATES)} (states: {known})")


def _name_and_digest(experiment: str | None) -> tuple[str | None, str | None]:
    """Return the name of an experiment and the digest of its version; None means any."""
    if experiment is None:
        return None, None
    name, _, digest = experiment.partition("@")
    if ":" in name:
        raise UsageError(f"--experiment: runs have no tags; use name or name@digest in place of {experiment!r}")
    return name, digest or None


async def show(command: Command, experiment: ExperimentName, as_json: Json = False) -> None:
    """
    Show what a start of an experiment takes, and what its runs measure.

    Example: st4sd-async show demo

    The last line starts a run with the defaults. Its files are in the current folder.
    """
    entry = await command.client.experiments.get(experiment)
    if as_json:
        print_document(entry.raw)
        return
    draft = await command.client.draft(entry)
    title, *facts = _facts(entry, draft)
    if sys.stdout.isatty():  # in the table, the digest would be broken into lines that cannot be copied
        print_text("\n".join(map(one_line, filter(None, title[1:]))) + "\n")
    else:
        facts.insert(0, title)
    print_table(("what", "name", "details"), facts)
    write_message(f"\nstart it with: {one_line(shlex.join(_start_line(experiment, draft)))}")


def _start_line(experiment: str, draft: Draft) -> list[str]:
    """Return the words of a command that starts an experiment with its defaults, and with files in this folder."""
    known = {name: default for name, option in draft.options.items() if (default := common_default(option)) is not None}
    options = [
        *(("--input", name) for name in draft.inputs.allowed),
        *(("--variable", f"{name}={value}") for name, value in known.items()),
        *([("--platform", draft.platforms[0])] if len(draft.platforms) > 1 else []),
    ]
    return [COMMAND, "start", experiment, *(word for option in options for word in option)]


def _facts(experiment: Experiment, draft: Draft) -> list[tuple[str, str | None, str]]:
    description = experiment.metadata.package.description or ""
    facts: list[tuple[str, str | None, str]] = [("experiment", experiment.identifier, description)]
    facts += [("input", name, "required") for name in draft.inputs.allowed]
    for option in draft.options.values():
        choices = "" if option.choices is None else f"one of {', '.join(option.choices)}"
        default = f"default {known}" if (known := default_of(option)) else ""
        facts.append(("variable", option.name, ", ".join(filter(None, (choices, default)))))
    facts += [("data", name, "can be replaced") for name in draft.data.allowed]
    facts += [
        ("platform", name, "default" if number == 0 and len(draft.platforms) > 1 else "")
        for number, name in enumerate(draft.platforms)
    ]
    registry = experiment.metadata.registry
    facts += [("key-output", output.name, "") for output in registry.output]
    return facts + [("property", one.name, one.description) for one in registry.interface.properties]


async def start(
    command: Command,
    experiment: ExperimentName,
    inputs: InputFiles = None,
    data: DataFiles = None,
    variables: Variables = None,
    platform: Annotated[
        str | None,
        typer.Option(
            "--platform",
            "-p",
            metavar="NAME",
            help="The platform to execute on.",
            autocompletion=completion.platforms,
        ),
    ] = None,
    metadata: MetadataValues = None,
    payload: PayloadFile = None,
    watch: Annotated[bool, typer.Option("--watch", "--wait", "-w", help="Watch the run until it is over.")] = False,
    timeout: Timeout = None,
    interval: Interval = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the start, list everything that is wrong, and start nothing.")
    ] = False,
    as_json: Json = False,
) -> Exit:
    """
    Start a run of an experiment, and print its rest-uid.

    Examples:
      st4sd-async start demo -i molecules.csv -v scale=2 --dry-run
      st4sd-async start demo -i molecules.csv -v scale=2 --wait

    Put credentials, such as those of buckets, into the file of --payload, as the service documents them.

    If the connection breaks after the request was sent, the run may or may not have been started. The exit status is
    then 4.
    """
    content = _payload({} if payload is None else read_json(payload), inputs, data, variables, platform, metadata)
    if dry_run:
        return await _check(command, Launch("start", experiment, content), as_json=as_json)
    command.notes.experiment = experiment
    command.notes.interrupted = f"the run may have been started; look for it with: {COMMAND} list runs"
    run = await command.client.start(experiment, content)
    command.notes.interrupted = f"the run goes on; follow it with: {COMMAND} watch {run}"
    if not as_json:
        print_text(run.id)
    last: dict[str, Status] = {}
    if watch:
        last = await follow(command, [run.id], timeout, interval, None)
    failures = await reasons_of(command.client, last)
    if as_json:
        print_document(document(run.id, last.get(run.id, Status.pending()), failures.get(run.id)))
    write_failures(failures)
    return exit_status(last.values(), expected=int(watch))


async def _check(command: Command, launch: Launch, *, as_json: bool) -> Exit:
    """Print what is wrong with a start."""
    async with command.client.batch() as batch:
        problems = await batch.check([launch])
    mistakes = [LaunchMistake("", None, _option(one.where, launch), with_words(one.what, OPTIONS)) for one in problems]
    return report(mistakes, of=f"the start of {launch.identifier}", summary="no problem found", as_json=as_json)


def _option(where: str, launch: Launch) -> str:
    """Return the option for an entry of a payload; the entry itself if no option gives it."""
    assert isinstance(launch.payload, Mapping)
    field, name = place_of(where, launch.payload) or (where, "")
    option = OPTIONS.get(field, where).partition("=")[0]
    return option.format(name) if name else option.removesuffix(" {}")


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
        "inputs": [*(content.get("inputs") or []), *map(file_of, inputs or ())],
        "data": [*(content.get("data") or []), *map(file_of, data or ())],
        "variables": {**(content.get("variables") or {}), **_pairs(variables, "--variable")},
        "metadata": {**(content.get("metadata") or {}), **_pairs(metadata, "--metadata")},
        "platform": platform,
    }
    return {**content, **{name: value for name, value in added.items() if value}}


def file_of(argument: str) -> dict[str, Any]:
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
