"""``st4sd-async status`` and ``watch``, away from a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from st4sd_async.local.simulator.outcomes import Row

from .conftest import MOLECULES, Shell

pytestmark = pytest.mark.slow

QUICK = ("--interval", "0.02")


WAITING = [(0.0, {"experiment-state": "unscheduled", "exit-status": "", "error-description": "no room"})]
"""The statuses of a run that waits forever."""


SUCCESS = {"experiment-state": "finished", "exit-status": "Success"}


def start(shell: Shell, outcome: str | Sequence[Row]) -> str:
    """Start a run with this outcome, and return its rest-uid."""
    Path("molecules.csv").write_text(MOLECULES)
    shell.server.outcome("demo", outcome, times=1)
    return shell("start", "demo", "-i", "molecules.csv").out.strip()


def test_a_run_is_watched_to_its_end(shell: Shell) -> None:
    """Standard error has a line for each change, standard output the final table, without control characters."""
    run = start(shell, "success")

    done = shell("watch", run, *QUICK)

    assert done.status == 0
    assert [(row["rest-uid"], row["state"], row["progress"]) for row in done.table] == [(run, "succeeded", "100%")]
    assert done.err.splitlines()[-1].split()[1:] == [run, "succeeded", "100%"]
    assert done.err.count("no status yet") == 1
    assert "\x1b" not in done.out + done.err


def test_a_run_without_a_status_is_reported_once(shell: Shell) -> None:
    """However often the service is asked before it has one."""
    run = start(shell, [(0.0, None), (40.0, SUCCESS)])

    done = shell("watch", run, *QUICK)

    assert [line.split("  ")[2] for line in done.err.splitlines()] == ["no status yet", "succeeded"]


def test_commands_and_python_use_the_same_words(shell: Shell) -> None:
    """For runs that are over and for one that waits."""
    names = {"succeeded": "success", "failed": "component-failure", "stopped": "stopped"}
    runs = {start(shell, outcome): word for word, outcome in names.items()}
    shell("watch", *runs, *QUICK)
    waiting = start(shell, WAITING)

    table, document = shell("status", *runs, waiting), shell("status", *runs, waiting, "--json").document
    listed = {row["rest-uid"]: row["state"] for row in shell("list", "runs").table}

    expected = {**runs, waiting: "unscheduled"}
    assert {row["rest-uid"]: row["state"] for row in table.table} == expected
    assert {one["rest-uid"]: one["state"] for one in document} == expected
    assert listed.items() >= expected.items()


def test_changes_are_json_lines_and_the_last_is_final(shell: Shell) -> None:
    """With --json, standard output has objects, standard error the progress."""
    runs = [start(shell, "success"), start(shell, "component-failure")]

    done = shell("watch", *runs, *QUICK, "--json")

    final = {one["rest-uid"]: one for one in done.lines if one["is-final"]}
    assert done.status == 1
    assert [final[run]["is-success"] for run in runs] == [True, False]
    assert final[runs[1]]["hint"].startswith("component failed: ")
    assert len(final) == sum(one["is-final"] for one in done.lines) == 2


def test_a_timeout_is_not_a_success(shell: Shell) -> None:
    """After --timeout, the exit status is 1, and standard error has the command to follow the run again."""
    run = start(shell, WAITING)

    done = shell("watch", run, *QUICK, "--timeout", "1")

    assert done.status == 1
    message = f"not ended after 1 s: 1 of 1 run; follow it again with: st4sd-async watch {run}\n"
    assert done.err.endswith(message)
    assert [row["state"] for row in done.table] == ["unscheduled"]


def test_the_status_of_runs_has_the_reasons(shell: Shell) -> None:
    """Each run has a row; a failed one sets the exit status."""
    failed, waiting = shell.started("fail"), start(shell, WAITING)

    both, one = shell("status", failed, waiting), shell("status", waiting, "--json")

    assert (both.status, one.status) == (1, 0)
    assert [row["rest-uid"] for row in both.table] == [failed, waiting]
    assert both.table[0]["why"].startswith("component failed: ")
    assert both.table[1]["why"].startswith("unscheduled: waits for resources")
    assert one.document == [{**one.document[0], "rest-uid": waiting, "is-final": False}]


def test_an_unknown_run_does_not_hide_the_others(shell: Shell) -> None:
    """Its error is one line, the others are shown, and the exit status is the highest."""
    run = shell.started()

    done = shell("status", "nothing", run, "a/b")

    assert done.status == 3
    assert [row["rest-uid"] for row in done.table] == [run]
    message = "Workflow instance nothing not found; list the runs with: st4sd-async list runs (GET http"
    assert f"st4sd-async: {message}" in done.err
    assert "not a rest-uid: 'a/b'" in done.err
    assert done.err.count("\n") == 2


def test_an_empty_list_is_still_json(shell: Shell) -> None:
    """A program that reads JSON gets a document."""
    assert shell("status", "nothing", "--json").document == []


def test_many_errors_are_counted(shell: Shell) -> None:
    """A wrong list of runs does not fill the terminal."""
    done = shell("status", *(f"nothing-{number}" for number in range(9)))

    assert (done.status, done.out) == (3, "")
    assert done.err.splitlines()[-1] == "st4sd-async: ... and 4 more runs"
    assert done.err.count("\n") == 6


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("nothing",), 3, "list the runs with: st4sd-async list runs"),
        (("a/b",), 2, "not a rest-uid"),
        (("x", "--interval", "0"), 2, "interval must be a number of seconds above 0"),
        (("-",), 2, "there are no rest-uids on standard input"),
        ((), 2, "Missing argument"),
    ],
    ids=["unknown", "no rest-uid", "no interval", "nothing piped", "none"],
)
def test_a_wrong_argument_of_watch_is_one_clear_line(
    shell: Shell, arguments: tuple[str, ...], status: int, message: str
) -> None:
    """There is no traceback."""
    done = shell("watch", *arguments)

    assert (done.status, done.out) == (status, "")
    assert message in done.err
