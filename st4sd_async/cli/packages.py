"""The commands ``init`` and ``check`` for experiments in local folders. They need no service."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Annotated

import typer

from .._package.check import PackageProblem
from .._package.check import check as check_package
from .._package.create import create_experiment
from .._render.cards import counted
from .connect import Json
from .errors import COMMAND, Exit, UsageError, exits_on_errors, write_message
from .output import print_document, print_text


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="NAME", file_okay=False, help="The new folder, whose name the experiment gets.")
    ],
) -> None:
    """
    Create a folder with a small experiment to start from. It runs unchanged.

    Example: st4sd-async init energies

    The experiment has two components, an input, a variable, two key-outputs and a property, each with a comment. If
    the folder is not in a git repository, one is created in it.
    """
    with exits_on_errors():
        try:
            is_repository_new = create_experiment(folder)
        except ValueError as error:
            raise UsageError(str(error)) from error
        name = shlex.quote(str(folder))
        write_message(
            f"created {folder}{' with a git repository' if is_repository_new else ''}; README.md describes its files"
        )
        write_message(
            f"next:\n    {COMMAND} check {name}\n    cd {name} && git add -A && git commit -m 'Add the experiment'\n"
            f"    {COMMAND} push ."
        )


def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder of a package, or a definition in it.")] = (
        Path()
    ),
    as_json: Json = False,
) -> None:
    """
    Check an experiment before it is pushed.

    Example: st4sd-async check energies

    The libraries of the orchestrator (extra engine) check the package on each platform. More checks cover files,
    key-outputs, the interface, and the options of the definition. Prints FILE:LINE: ENTRY: PROBLEM for each problem.
    """
    with exits_on_errors():
        problems = asyncio.run(check_package(path))
        if as_json:
            print_document([problem._asdict() for problem in problems])
        else:
            for problem in problems:
                print_text(str(problem))
        write_message(summary(path, problems))
    raise typer.Exit(Exit.RUN_FAILED if problems else Exit.DONE)


def summary(path: Path, problems: list[PackageProblem]) -> str:
    """Return the last line of a check."""
    if problems:
        return f"{counted(len(problems), 'problem')} in {path}"
    return f"no problem found in {path}; only a run shows whether its programs work"
