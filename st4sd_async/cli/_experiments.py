"""``st4sd-async push``, ``list`` and ``show``: what there is to start, and what was started."""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .._payload.draft import Draft
from .._util.printable import one_line
from ..models import Experiment
from ._connect import Here, Json
from ._exits import Unusable, complain, say
from ._print import print_document, print_table, print_text
from ._watching import COLUMNS, cells, document
from ._words import COMMAND, gist

DIGEST = 14
"""Characters of a digest that tell it from others; --json and show have it whole."""
TELLING = (0, 1, 2, 3, 5, 4)
"""Columns of a list of runs in the order in which a terminal gets them: the reasons last, where they are cut."""


class What(StrEnum):
    """What there are lists of."""

    EXPERIMENTS = "experiments"
    RUNS = "runs"


async def push(
    here: Here,
    package: Annotated[Path, typer.Argument(metavar="FILE", help="The definition, in JSON; '-': standard input.")],
    as_json: Json = False,
) -> None:
    """
    Add an experiment to the registry.

    It is a parameterised virtual experiment package, as the documentation of ST4SD describes it.

    Prints name@digest, which names exactly this content; with --json the whole entry of the registry.
    """
    definition = read_json(package)
    here.ending.farewell = "the package may have been pushed; pushing it again does no harm"
    experiment = await here.client.push(definition)
    if as_json:
        print_document(experiment.raw)
    else:
        print_text(experiment.identifier)
        name = shlex.quote(str(experiment.name))
        say(one_line(f"tagged {', '.join(experiment.tags)}; see what a start takes with: {COMMAND} show {name}"))


async def list_(
    here: Here,
    what: Annotated[What, typer.Argument(metavar="[experiments|runs]", show_default=False)] = What.EXPERIMENTS,
    everything: Annotated[
        bool, typer.Option("--all", help="Experiments that lost their tags to a newer push, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """
    List experiments, or runs.

    The list of runs tells neither that one waits for the cluster nor why one failed to start: status does.
    """
    await (_list_runs(here, as_json=as_json) if what is What.RUNS else _list_experiments(here, everything, as_json))


async def _list_experiments(here: Here, everything: bool, as_json: bool) -> None:
    found = await here.client.experiments.list()
    for problem in found.problems:
        complain(f"the registry has a problem: {json.dumps(problem, default=str)[:300]}")
    experiments = [one for one in found if everything or one.tags]
    if as_json:
        print_document([one.raw for one in experiments])
        return
    columns = ("experiment", "tags", "created", "runs", "digest", "description")
    print_table(columns, [_cells(one) for one in experiments])


def _cells(one: Experiment) -> tuple[object, ...]:
    registry = one.metadata.registry
    created, digest = (registry.created_on or "")[:16], (one.digest or "")[:DIGEST]
    return one.name, ",".join(one.tags), created, registry.times_executed, digest, one.metadata.package.description


async def _list_runs(here: Here, *, as_json: bool) -> None:
    instances = await here.client.instances.list()
    if as_json:
        print_document([{**document(one.id, one.status), "labels": one.labels} for one in instances])
        return
    rows = [(*cells(one.id, one.status), one.labels.get("st4sd-package-name")) for one in instances]
    print_table((*COLUMNS, "experiment"), rows, telling=TELLING, gist=gist)


async def show(
    here: Here,
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="name, name:tag or name@digest.")],
    as_json: Json = False,
) -> None:
    """Show what a start of an experiment takes."""
    known = await here.client.experiments.get(experiment)
    if as_json:
        print_document(known.raw)
        return
    draft = await here.client.draft(known)
    print_table(("what", "name", "to know"), _facts(known, draft))
    inputs = [f"--input {shlex.quote(name)}=FILE" for name in draft.inputs.allowed]
    values = [f"--variable {shlex.quote(name)}=VALUE" for name in draft.options]
    say(f"\nstart it with: {one_line(' '.join([COMMAND, 'start', shlex.quote(experiment), *inputs, *values]))}")


def _facts(known: Experiment, draft: Draft) -> list[tuple[str, str | None, str]]:
    facts: list[tuple[str, str | None, str]] = [
        ("experiment", known.identifier, known.metadata.package.description or "")
    ]
    facts += [("input", name, "every start needs it") for name in draft.inputs.allowed]
    for option in draft.options.values():
        choices = "" if option.choices is None else f"one of {', '.join(option.choices)}"
        default = "" if option.default is None else f"default {option.default}"
        facts.append(("variable", option.name, ", ".join(filter(None, (choices, default)))))
    facts += [("data", name, "may be replaced") for name in draft.data.allowed]
    facts += [
        ("platform", name, "default" if number == 0 and len(draft.platforms) > 1 else "")
        for number, name in enumerate(draft.platforms)
    ]
    return facts + [("key-output", output.name, "") for output in known.metadata.registry.output]


def read_json(file: Path) -> Any:
    """The JSON object in a file, "-" being standard input; raises `Unusable` if there is none."""
    try:
        content = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text("utf-8"))
    except ValueError as error:
        raise Unusable(f"{str(file)!r} holds no JSON: {error}") from error
    if not isinstance(content, dict):
        raise Unusable(f"{str(file)!r} holds no JSON object, but a {type(content).__name__}")
    return content
