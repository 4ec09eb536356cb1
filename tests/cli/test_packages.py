"""``st4sd-async init``, ``check`` and ``push`` of a folder, as docs/experiments.md shows them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import st4sd_async
from tests.tries import IS_FULL

from .conftest import Shell

PAGE = (Path(st4sd_async.__file__).parent / "docs" / "experiments.md").read_text("utf-8")
MISTAKE = "data-in: stage1.Sumarise/summary.txt:copy"


@pytest.fixture(autouse=True)
def own_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give git a user, without the configuration of this machine."""
    for name, value in {"GLOBAL": "/dev/null", "SYSTEM": "/dev/null"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "someone@example.com")


def shown(command: str) -> str:
    """Return what the page shows below a command."""
    (block,) = re.findall(rf"^\$ {re.escape(command)}\n((?:(?!\$|```).*\n)*)", PAGE, re.MULTILINE)
    return str(block)


@pytest.mark.slow
def test_the_page_shows_what_the_commands_print(shell: Shell) -> None:
    """From the new folder to the push; rest-uids and digests differ."""
    made = shell("init", "energies")
    assert (made.status, made.out, made.err) == (0, "", shown("st4sd-async init energies"))
    flowir = Path("energies/conf/flowir_package.yaml")
    text = flowir.read_text()

    flowir.write_text(text.replace("data-in: stage1.Summarise/summary.txt:copy", MISTAKE))
    wrong = shell("check", "energies")
    assert (wrong.status, wrong.out + wrong.err) == (1, shown("st4sd-async check energies"))

    flowir.write_text(text)
    if IS_FULL:  # it takes two seconds, and tests/package has checks of packages without problems
        right = shell("check", "energies", "--json")
        assert (right.status, right.document) == (0, [])

    unready = shell("push", "energies")
    assert (unready.status, unready.out) == (2, "")
    assert "commit them with git add -A && git commit" in unready.err
    subprocess.run("git add -A && git commit -q -m 'Add the experiment'", shell=True, cwd="energies", check=True)
    pushed = shell("push", "energies")
    assert pushed.status == 0
    assert re.sub(r"x\w{56}", "x", pushed.out + pushed.err) == re.sub(r"x\w{56}", "x", shown("st4sd-async push ."))


def test_a_bad_name_and_a_missing_folder_are_wrong_usage(shell: Shell) -> None:
    """Nothing is written."""
    named, checked = shell("init", "My Energies"), shell("check", "nothing")

    assert (named.status, checked.status) == (2, 2)
    assert "such as 'my-energies'" in named.err
    assert "there is no file or folder 'nothing'" in checked.err
    assert list(Path().iterdir()) == []


def test_the_words_of_git_come_first(shell: Shell) -> None:
    """In the service's message about a package that it cannot clone, they come after 400 other characters."""
    location = {"url": Path("nothing.git").absolute().as_uri(), "tag": "1"}
    definition = {"base": {"packages": [{"source": {"git": {"location": location}}}]}}
    Path("x.json").write_text(json.dumps({**definition, "metadata": {"package": {"name": "x"}}}))

    done = shell("push", "x.json")

    assert done.status == 3
    assert done.err.startswith("st4sd-async: fatal: ")
    assert "refused with 400" in done.err
