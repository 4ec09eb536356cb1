"""``st4sd-async outputs``, ``download``, ``properties``, ``logs`` and ``delete``: what runs leave, and their end."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .._run import place_of, rest_uid_of
from .._util.file_names import folder_name
from .._util.printable import one_line
from ..models import Download, DownloadFailed, Properties
from ._bar import bar
from ._connect import Here, Json, RunIds, complain_of, each, rest_uids
from ._exits import Exit, Unusable, complain, exit_of
from ._print import print_document, print_table, print_text
from ._words import COMMAND, told, way_back

MOMENT = "%Y-%m-%d %H:%M:%S"
"""How times are written, in UTC."""

OneRun = Annotated[str, typer.Argument(metavar="RUN", help="Its rest-uid.")]
Component = Annotated[
    str | None,
    typer.Option("--component", "-c", metavar="NAME", help="Components of this name, a regular expression."),
]
Stage = Annotated[int | None, typer.Option(min=0, metavar="N", help="Components of this stage.")]
Names = Annotated[list[str] | None, typer.Option("--name", "-n", metavar="NAME", help="Only these.")]
Formulas = Annotated[
    bool,
    typer.Option(
        "--formulas",
        help="Leave cells as they are in a pipe or file, those too that a spreadsheet computes: =1+1, not '=1+1.",
    ),
]
Folder = Annotated[
    Path, typer.Option("--to", file_okay=False, metavar="DIR", help="Folder, which gets a folder for each run.")
]


async def outputs(
    here: Here,
    run: OneRun,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print the content of this one.")] = None,
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="A file in it, if it is a folder.")] = None,
    as_json: Json = False,
) -> None:
    """List the key-outputs of a run, or print one of them."""
    if name is not None and as_json:
        raise Unusable("--json is for the list; the content of one comes as it is")
    if name is not None:
        await _print_output(here, run, name, path)
        return
    found = await here.client.outputs(run)
    if as_json:
        print_document({name: output.raw for name, output in found.items()})
        return
    columns = ("name", "file", "version", "created", "final", "description")
    rows = [
        (
            name,
            one.filepath,
            one.version,
            one.created and f"{one.created:{MOMENT}}",
            one.final,
            one.description,
        )
        for name, one in found.items()
    ]
    print_table(columns, rows)


async def _print_output(here: Here, run: str, name: str, path: str | None) -> None:
    output = await here.client.output(run, name, path)
    if output.is_folder and sys.stdout.isatty():
        raise Unusable(f"{name!r} is a folder, which comes as a zip: {COMMAND} download {run} --name {name} --unpack")
    if sys.stdout.isatty():
        print_text(output.content.decode("utf-8", "surrogateescape"), end="")
    else:
        typer.echo(output.content, nl=False)


async def download(
    here: Here,
    runs: RunIds,
    to: Folder = Path("results"),
    names: Names = None,
    unpack: Annotated[bool, typer.Option("--unpack", help="Unpack key-outputs that are folders.")] = False,
    files: Annotated[
        str | None,
        typer.Option("--files", "-f", metavar="REGEX", help="In place of key-outputs: files of components."),
    ] = None,
    component: Component = None,
    stage: Stage = None,
    as_json: Json = False,
) -> Exit:
    r"""
    Download key-outputs of runs, or files of components.

    Interrupted or repeated, it goes on where it was. Files of components are chosen by --files, as in
    --files '\.csv$', --component and --stage.
    """
    here.ending.farewell = f"what is whole is there; {way_back('go on')}"
    is_components = files is not None or component is not None or stage is not None
    if is_components and (names or unpack):
        raise Unusable("--name and --unpack are about key-outputs, --files, --component and --stage about components")
    with bar() as progress:
        client = here.client.with_options(progress=progress)

        async def fetch(run: str) -> list[Download | DownloadFailed]:
            folder = to / folder_name(run)  # which the user did not name, so it is not followed if it is a link
            downloads = client._downloads
            if not is_components:
                return await downloads.outputs(rest_uid_of(run), folder, names, unpack=unpack, is_chosen=False)
            return await downloads.files(place_of(run), folder, component, stage, files, is_chosen=False)

        found, worst = await each(rest_uids(runs), fetch)
    every = [file for one in found.values() for file in one]
    failed = [file for file in every if isinstance(file, DownloadFailed)]
    for file in failed:
        complain(told(file.error))
    good = [file for file in every if isinstance(file, Download)]
    if as_json:
        print_document([asdict(file) for file in good])
    elif good or not (worst or failed):
        rows = [(one.path, one.size, one.sha256, one.source) for one in good]
        print_table(("file", "bytes", "sha256", "source"), rows, telling=(0, 1))
    return max([worst, *(exit_of(file.error) for file in failed)])


async def properties(
    here: Here, runs: RunIds, names: Names = None, has_formulas: Formulas = False, as_json: Json = False
) -> Exit:
    """
    Print what runs measured, as one table.

    With --json a list with an object for each row; what was not measured is null.
    """
    order = rest_uids(runs)
    found = await here.client.properties(order[0] if len(order) == 1 else order, names)
    return print_properties(found, as_json=as_json, has_formulas=has_formulas)


def print_properties(found: Properties, *, as_json: bool, has_formulas: bool) -> Exit:
    """Print a table of properties, and say which runs have none."""
    complain_of(found.problems)
    if as_json:
        print_document(list(found))
    elif found or not found.problems:
        print_table(found.columns, found.rows, is_spreadsheet=not has_formulas)
    return max(map(exit_of, found.problems.values()), default=Exit.DONE)


async def logs(
    here: Here, run: OneRun, component: Component = None, stage: Stage = None, as_json: Json = False
) -> None:
    """
    Print the log of a run, or what components printed.

    The latter with --component or --stage, of those that are over.

    With --json one object: the texts by what they are of, the components by their references.
    """
    if component is None and stage is None:
        texts = {"experiment": await here.client.log(run)}
    else:
        texts = await here.client.stdout(run, component, stage=stage)
    if as_json:
        print_document(texts)
        return
    for what, text in texts.items():
        if len(texts) > 1:
            print_text(f"==> {one_line(what)} <==")
        print_text(text, end="" if text[-1:] in ("", "\n") else "\n")


async def delete(
    here: Here,
    runs: RunIds,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Only a terminal is asked.")] = False,
    as_json: Json = False,
) -> Exit:
    """Stop runs and delete them; their files stay."""
    order = rest_uids(runs)
    if sys.stdin.isatty() and not yes:
        what = order[0] if len(order) == 1 else f"{len(order)} runs"
        if not typer.confirm(f"stop and delete {what}?", err=True):
            complain("nothing was deleted")
            return Exit.INTERRUPTED
    found, worst = await each(order, here.client.delete)
    if as_json:
        print_document(list(found))
    else:
        for run in found:
            print_text(run)
    return worst
