"""``st4sd-async start``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st4sd_async.local import DropAfter

from .conftest import MOLECULES, Shell


def test_files_variables_and_metadata_are_sent(shell: Shell) -> None:
    """A file can have another name, a variable changes the properties, metadata are stored."""
    Path("mine.csv").write_text("smiles\nCO\n")

    done = shell(
        *("start", "demo", "-i", "molecules.csv=mine.csv", "-v", "scale=3", "-m", "at=10:30", "-p", "default"),
        *("--watch", "--interval", "0.02"),
    )

    assert done.status == 0, done.err
    run = done.out.strip()
    assert [row["energy"] for row in shell("properties", run).table] == ["-9.0"]
    log = [line for line in shell.server.requests if line[0] == "POST"]
    assert len([path for _, path in log if path.endswith("/demo/start")]) >= 1


def test_options_are_added_to_a_payload_from_a_file(shell: Shell) -> None:
    """Options take precedence; everything else is kept."""
    files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
    payload = {"inputs": files, "variables": {"scale": 2}, "metadata": {"who": "me"}}

    done = shell(
        *("start", "demo", "--payload", "-", "-v", "scale=5", "-w", "--interval", "0.02", "--json"),
        stdin=json.dumps(payload),
    )

    assert done.status == 0, done.err
    assert done.document["is-success"]
    assert [row["energy"] for row in shell("properties", done.document["rest-uid"]).table] == ["-15.0"]


def test_a_start_prints_the_rest_uid_and_nothing_else(shell: Shell) -> None:
    """It can be assigned to a shell variable; --json prints an object."""
    Path("molecules.csv").write_text(MOLECULES)

    plain, as_json = (shell("start", "demo", "-i", "molecules.csv", *more) for more in ((), ("--json",)))

    assert (plain.status, plain.err) == (0, "")
    assert plain.out.startswith("demo-")
    assert len(plain.out.split()) == 1
    assert as_json.document["rest-uid"].startswith("demo-")


@pytest.mark.slow
def test_a_failed_run_sets_the_exit_status(shell: Shell) -> None:
    """With --watch, the exit status is 1, and standard error has the reason."""
    done = shell("start", "fail", "--watch", "--interval", "0.02")

    assert done.status == 1
    assert done.out.startswith("fail-")
    assert "component failed: Job: stage0.Boom" in done.err


MISTAKES = [
    (("dmeo", "-i", "molecules.csv"), 3, "list the experiments with: st4sd-async list (POST http"),
    (("demo",), 3, "Missing inputs: ['molecules.csv']; see what a start takes with: st4sd-async show demo (POST http"),
    (("demo", "-i", "molecules.csv", "-v", "scael=2"), 3, "Payload sets variable scael = 2"),
    (("demo", "-i", "molecules.csv", "-v", "scale"), 2, "--variable takes NAME=VALUE, not 'scale'"),
    (("demo", "-i", "molecules.csv", "-m", "=me"), 2, "--metadata takes NAME=VALUE, not '=me'"),
    (("demo", "-i", "molecules.csv", "-m", "who:a=b"), 2, "cannot contain a colon"),
    (("demo", "-i", "nothing.csv"), 2, "'nothing.csv' cannot be read: No such file or directory"),
    (("demo", "-i", "empty.csv"), 2, "refuses an empty file"),
    (("demo", "-i", "big.csv"), 2, "over the 1048576"),
    (("demo", "--payload", "molecules.csv"), 2, "is not JSON"),
    (("",), 2, "the identifier of an experiment"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_typical_mistake_is_one_clear_line(
    shell: Shell, arguments: tuple[str, ...], status: int, message: str
) -> None:
    """Nothing is started, there is no traceback, and the exit status shows the cause."""
    Path("molecules.csv").write_text(MOLECULES)
    Path("empty.csv").touch()
    Path("big.csv").write_text("x" * (1 << 20))
    before = list(shell.server.started)

    done = shell("start", *arguments)

    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("st4sd-async: ")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert list(shell.server.started) == before


def test_a_start_of_unknown_outcome_has_its_own_exit_status(shell: Shell) -> None:
    """The connection breaks after the start: exit status 4, advice to look for the run, and one run."""
    Path("molecules.csv").write_text(MOLECULES)
    before = len(shell("list", "runs").table)
    shell.server.faults.add("POST /experiments/*/start", DropAfter())

    done = shell("start", "demo", "-i", "molecules.csv")

    assert (done.status, done.out) == (4, "")
    assert done.err.endswith("look for the run before you start it again: st4sd-async list runs\n")
    assert len(shell("list", "runs").table) == before + 1


def test_an_existing_path_may_contain_an_equals_sign(shell: Shell) -> None:
    """Otherwise the argument is NAME=FILE."""
    Path("a=b.csv").write_text(MOLECULES)

    done = shell("start", "demo", "-i", "a=b.csv")

    assert "Missing inputs" in done.err
    assert "b.csv' cannot be read" not in done.err
