"""``st4sd-async batch report``."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import st4sd_async
from st4sd_async._util.file_lock import FileLock
from st4sd_async.local import LocalServer
from tests.batch.html_page import facts_of, read, table_of

from .conftest import MOLECULES, Command, Shell

pytestmark = pytest.mark.slow

JOURNAL = "launches.csv.journal"


@pytest.fixture
def table(shell: Shell) -> Path:
    """A table whose launches are over: one succeeded, one failed, one was refused."""
    Path("molecules.csv").write_text(MOLECULES)
    table = Path("launches.csv")
    table.write_text("key,experiment,input:molecules.csv,scale\none,demo,molecules.csv,2\ntwo,fail,,\nthree,demo,,3\n")
    shell("batch", "run", table, "--campaign", "Water 2026")
    return table


def test_the_page_of_a_table_and_of_its_journal_are_the_same(shell: Shell, table: Path) -> None:
    """Also while another process runs the batch. The page has the rows of ``batch properties``."""
    lock = FileLock(Path(JOURNAL))
    done = shell("batch", "report", table)
    same = shell("batch", "report", JOURNAL, "-o", "other.html", "--title", "For you")
    lock.release()
    measured = shell("batch", "properties", table, "--to", "all.csv")

    page, other = read(Path("launches.csv.report.html")), read(Path("other.html"))
    assert (done.status, done.out, measured.out) == (0, "", "")
    assert done.err.startswith("report of 3 launches in 'launches.csv.report.html' (")
    assert (page.one("h1").text, other.one("h1").text, same.status) == ("Water 2026", "For you", 0)
    assert table_of(page) == table_of(other)
    with Path("all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = {"key": "key", "variable scale": "variable:scale", "state": "state", "run": "rest-uid", "energy": "energy"}
    assert [{name: row[name] for name in pairs} for row in table_of(page)] == [
        {name: f"{float(row[of]):.10g}" if name == "energy" and row[of] else row[of] for name, of in pairs.items()}
        for row in rows
    ]
    failed, refused = page.all("article")
    assert failed.one("pre").text
    assert refused.one("h3").text == "refused Invalid experiment start payload. Missing inputs: ['molecules.csv']"


def test_a_page_is_made_of_the_journal_alone(command: Command, shell: Shell, table: Path) -> None:
    """It needs no deployment, no settings and no other file. It has what the journal keeps of the failure."""
    (command.folder / "campaign.db").write_bytes(Path(JOURNAL).read_bytes())

    done = command("batch", "report", "campaign.db", "-o", "page.html", "--offline")

    page = read(command.folder / "page.html")
    assert (done.returncode, done.stdout) == (0, "")
    assert [row["state"] for row in table_of(page)] == ["succeeded", "failed", "refused"]
    assert facts_of(page)["Deployment"].startswith(shell.server.url)
    assert "journal alone" in page.one("header").text
    assert page.all("article")[0].one("pre").text


def test_the_page_is_written_if_the_login_fails(shell: Shell, table: Path) -> None:
    """The exit status says so. A journal of another deployment, and other kinds of files, are refused."""
    refused = shell("batch", "report", table, "-o", "page.html", ST4SD_API_KEY="wrong")
    with LocalServer() as other:
        elsewhere = Shell(other)("batch", "report", table, "-o", "elsewhere.html")
    wrong = shell("batch", "report", table, "-o", table)
    missing = shell("batch", "report", "none.csv", "--offline")

    assert refused.status == 3
    assert "the report lacks the measured properties" in refused.err
    assert len(table_of(read(Path("page.html")))) == 3
    assert elsewhere.status == wrong.status == missing.status == 2
    assert "; connect with --url " in elsewhere.err
    assert "the name of a report must end in .html or .htm, not 'launches.csv'" in wrong.err
    assert "there is no journal 'none.csv.journal'" in missing.err
    assert not Path("elsewhere.html").exists()


def test_the_commands_of_the_documentation_work(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/experiments.md has them; only the size differs. The simulator measures no properties of a package."""
    page = (Path(st4sd_async.__file__).parent / "docs" / "experiments.md").read_text("utf-8")
    section = page.partition("## Run a campaign")[2].partition("```sh\n")[2].partition("```")[0]
    *commands, printed = section.splitlines()
    shell("init", "energies")
    git = ["git", "-C", "energies", "-c", "user.name=someone", "-c", "user.email=someone@example.com"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "Add the experiment"], check=True)
    monkeypatch.chdir("energies")
    assert shell("push", ".").status == 0

    done = [shell(*shlex.split(command.removeprefix("$ st4sd-async "))) for command in commands]

    assert (done[0].status, done[-1].status) == (0, 0)
    assert re.sub(r"[\d.]+ kB", "", done[-1].err.strip()) == re.sub(r"[\d.]+ kB", "", printed)
    rows = table_of(read(Path("report.html")))
    assert [(row["variable scale"], row["state"]) for row in rows] == [(n, "succeeded") for n in "123"]
