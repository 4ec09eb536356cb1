"""The commands that README and the pages of the documentation show exist, and take the arguments that are shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import st4sd_async

from .conftest import COMMAND as WHOLE_COMMAND

ROOT = Path(st4sd_async.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "st4sd_async" / "docs").glob("*.md"))]
SHELL = re.compile(r"```sh\n(.*?)```|`(st4sd-async [^`]+)`", re.DOTALL)
COMMAND = re.compile(r"(?:^|[\s(/])st4sd-async ([^\n)&|>]+)", re.MULTILINE)


def shown(page: Path) -> list[str]:
    """Return the arguments of each command that a page shows."""
    found = SHELL.findall(page.read_text("utf-8"))
    code = [block or inline.replace("\n", " ") for block, inline in found]
    return [arguments.strip() for text in code for arguments in COMMAND.findall(re.sub(r" +#.*", "", text))]


def check(arguments: list[str]) -> None:
    """
    Parse arguments as the command does, without reading the files that they name.

    Raises:
        UsageError: There is no such subcommand or option, or an option lacks its value.
    """
    command = WHOLE_COMMAND
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_parser(command.context_class(command)).parse_args(arguments)


@pytest.mark.parametrize(
    "arguments", [pytest.param(line, id=f"{page.stem}: {line}") for page in PAGES for line in shown(page)]
)
def test_a_command_of_a_page_exists(arguments: str) -> None:
    """With its options. Values are not checked, because the files do not exist here."""
    check(shlex.split(arguments))


def test_a_mistake_would_be_found() -> None:
    """In the name of a subcommand or an option."""
    with pytest.raises(KeyError):
        check(["strat", "demo"])
    with pytest.raises(Exception, match="--ouput"):
        check(["batch", "run", "launches.csv", "--ouput", "Energies"])
