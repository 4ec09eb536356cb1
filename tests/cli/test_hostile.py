"""Texts of a hostile service are printable in a terminal, and exact in a pipe."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest

from st4sd_async._util.printable import printable
from st4sd_async.local import LocalServer, Reply
from tests.tries import combinations

from .conftest import Command, Result, Shell, environment_of
from .terminal import CONTROL, Terminal

pytestmark = pytest.mark.timeout(60)  # some processes import all of it anew, on a machine that may be busy

ORDERS = "\x1b[2J\x1b]0;owned\x07\x9b31m\x7f\u202eexe.\u2066[red]\x00"
"""Texts that a terminal, a reader or a markup language may interpret."""
GOOD = "demo-abcdef-01234567"
JSON = {"Content-Type": "application/json"}


def answer(server: LocalServer, path: str, body: object, status: int = 200) -> None:
    """Let the server respond like this from now on."""
    server.faults.add(path, Reply(status, JSON, json.dumps(body).encode()))


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "demo-1"),
        ("status", "demo-1", "--json"),
        ("list", "runs"),
        ("list", "--all", "--json"),
        ("outputs", "demo-1"),
    ],
    ids=" ".join,
)
def test_texts_of_the_service_cannot_control_the_terminal(
    arguments: tuple[str, ...], command: Command, shell: Shell, deadline: float
) -> None:
    """Neither in a table nor in JSON."""
    command.settings.update(environment_of(shell.server))
    status = {"experiment-state": f"odd{ORDERS}", "exit-status": "N/A", "error-description": ORDERS}
    answer(shell.server, "GET /rs/instances/demo-1/status", status)
    answer(shell.server, "GET /rs/instances/", [{"id": "demo-1", "status": status}])
    answer(shell.server, "GET /rs/instances/demo-1/outputs", {ORDERS: {"description": ORDERS, "filepath": ORDERS}})
    answer(shell.server, "GET /rs/experiments/", {"entries": [{"metadata": {"package": {"name": ORDERS}}}]})

    terminal = Terminal(command, *arguments)
    terminal.end(time.monotonic() + 50)

    shown = terminal.shown.replace("\r\n", "\n")
    styled = CONTROL.sub(lambda found: "" if found[0].endswith("m") else found[0], shown)  # our own bold headers
    assert printable(styled, "\n\t") == styled
    assert "owned" in shown
    assert r"\x1b[2J" in shown or r"\u001b[2J" in shown


def test_texts_of_an_error_cannot_control_the_terminal(shell: Shell) -> None:
    """Standard error is always printable."""
    answer(shell.server, "GET /rs/instances/demo-1/status", {"message": ORDERS}, 400)

    done = shell("status", "demo-1")

    assert printable(done.err, "\n\t") == done.err
    assert r"\x1b[2J" in done.err


def test_json_in_a_pipe_is_exact(shell: Shell) -> None:
    """A program gets exactly the characters that the service sent."""
    answer(shell.server, "GET /rs/instances/demo-1/outputs", {"a": {"description": ORDERS}})

    done = shell("outputs", "demo-1", "--json")

    assert done.document == {"a": {"description": ORDERS}}
    assert "\u202e" in done.out


@pytest.mark.parametrize(
    ("verb", "run"),
    combinations(
        ["status", "watch", "outputs", "download", "properties", "logs", "delete"],
        ["../../.ssh", "a b", "a/b", "\x1b[2J", ".ssh"],
    ),
    ids=ascii,
)
def test_what_is_not_a_rest_uid_is_wrong_usage(verb: str, run: str, shell: Shell, tmp_path: Path) -> None:
    """No request is sent, and no folder is made."""
    done = shell(verb, run)

    assert (done.status, done.out) == (2, "")
    assert "not a rest-uid" in done.err
    assert printable(done.err, "\n\t") == done.err
    assert list(tmp_path.iterdir()) == []


def test_half_a_surrogate_pair_can_be_written(shell: Shell) -> None:
    """No encoding has it, so it is escaped, in JSON by JSON's own escape."""
    answer(shell.server, "GET /rs/instances/demo-1/outputs", {"a": {"description": "\ud800"}})
    answer(shell.server, "GET /rs/instances/demo-1/outputs", {"a": {"description": "\ud800"}})

    done = shell("outputs", "demo-1", "--json")
    table = shell("outputs", "demo-1")

    assert (done.status, table.status) == (0, 0)
    assert done.document == {"a": {"description": "\ud800"}}
    assert r"\ud800" in table.out


def test_a_table_of_properties_computes_nothing_in_a_spreadsheet(shell: Shell, tmp_path: Path) -> None:
    """This includes headers. ``--formulas`` and JSON keep the cells as they are."""
    table = {"input-id": ["=1+1", "C"], "energy": [-1.5, "@SUM(A1)"], "=cmd": ["\t+1+1", "-2"]}
    paths = [f"GET /rs/instances/{GOOD}", f"GET /rs/instances/{GOOD}/properties"]

    def asked(*arguments: str) -> Result:
        for path in paths:
            answer(shell.server, path, table)
        done = shell("properties", GOOD, *arguments)
        shell.server.faults.clear()
        return done

    assert asked().out == "input-id\tenergy\t'=cmd\n'=1+1\t-1.5\t'+1+1\nC\t'@SUM(A1)\t-2\n"
    assert asked("--formulas").out == "input-id\tenergy\t=cmd\n=1+1\t-1.5\t+1+1\nC\t@SUM(A1)\t-2\n"
    assert asked("--json").document[0] == {"input-id": "=1+1", "energy": -1.5, "=cmd": "\t+1+1"}


@pytest.mark.parametrize("existing", [False, True])
def test_a_kept_folder_is_readable_by_its_owner_only(existing: bool, tmp_path: Path) -> None:
    """It contains inputs and results of runs."""
    keep = tmp_path / "a" / "kept"
    if existing:
        keep.mkdir(parents=True)
        keep.chmod(0o755)

    with LocalServer(keep=keep):
        assert stat.S_IMODE(keep.stat().st_mode) == 0o700
