"""``st4sd-async status`` and ``watch``, away from a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from st4sd_async.local.simulator.scripts import Row

from .conftest import MOLECULES, Shell

QUICK = ("--interval", "0.02")


WAITING = [(0.0, {"experiment-state": "unscheduled", "exit-status": "", "error-description": "no room"})]
"""The life of a run that waits for ever."""


def start(shell: Shell, outcome: str | Sequence[Row]) -> str:
    """A run that goes as it is told."""
    Path("molecules.csv").write_text(MOLECULES)
    shell.server.outcome("demo", outcome, times=1)
    return shell("start", "demo", "-i", "molecules.csv").out.strip()


def test_a_run_is_watched_to_its_end(shell: Shell) -> None:
    """Changes are lines on standard error, the end is a table on standard output, without control characters."""
    run = start(shell, "success")

    done = shell("watch", run, *QUICK)

    assert done.status == 0
    assert [(row["rest-uid"], row["exit-status"], row["progress"]) for row in done.table] == [(run, "Success", "100%")]
    assert done.said.splitlines()[-1].split()[1:] == [run, "Success", "100%"]
    assert "\x1b" not in done.out + done.said


def test_changes_are_json_lines_and_the_last_is_final(shell: Shell) -> None:
    """With --json standard output is a stream of objects, standard error is progress."""
    runs = [start(shell, "success"), start(shell, "component-failure")]

    done = shell("watch", *runs, *QUICK, "--json")

    final = {one["rest-uid"]: one for one in done.lines if one["is-final"]}
    assert done.status == 1
    assert [final[run]["is-success"] for run in runs] == [True, False]
    assert final[runs[1]]["hint"].startswith("component failed: ")
    assert len(final) == sum(one["is-final"] for one in done.lines) == 2


def test_a_wait_that_takes_too_long_is_no_success(shell: Shell) -> None:
    """After --timeout the exit status is 1, and standard error has the line to come back with."""
    run = start(shell, WAITING)

    done = shell("watch", run, *QUICK, "--timeout", "1")

    assert done.status == 1
    told = f"1 of 1 runs are not over after 1 s and go on; follow it again with: st4sd-async watch {run}\n"
    assert done.said.endswith(told)
    assert [row["experiment-state"] for row in done.table] == ["unscheduled"]


def test_the_status_of_runs_says_why(shell: Shell) -> None:
    """A row for each run, with the reason; a failed one is told by the exit status."""
    failed, waiting = shell.started("fail"), start(shell, WAITING)

    both, one = shell("status", failed, waiting), shell("status", waiting, "--json")

    assert (both.status, one.status) == (1, 0)
    assert [row["rest-uid"] for row in both.table] == [failed, waiting]
    assert both.table[0]["why"].startswith("component failed: ")
    assert both.table[1]["why"].startswith("unscheduled: waits for resources")
    assert one.document == [{**one.document[0], "rest-uid": waiting, "is-final": False}]


def test_an_unknown_run_does_not_hide_the_others(shell: Shell) -> None:
    """What is wrong with one is a line, the others are shown, and the exit status is that of the worst."""
    run = shell.started()

    done = shell("status", "nothing", run, "a/b")

    assert done.status == 3
    assert [row["rest-uid"] for row in done.table] == [run]
    assert "instances/nothing/status found no such run (404)" in done.said
    assert "not a rest-uid: 'a/b'" in done.said
    assert done.said.count("\n") == 2


def test_an_empty_list_is_still_json(shell: Shell) -> None:
    """A program that reads JSON gets some."""
    assert shell("status", "nothing", "--json").document == []


def test_many_complaints_of_one_kind_are_counted(shell: Shell) -> None:
    """A wrong list of runs does not flood the terminal."""
    done = shell("status", *(f"nothing-{number}" for number in range(9)))

    assert (done.status, done.out) == (3, "")
    assert done.said.splitlines()[-1] == "st4sd-async: ... and 4 more runs"
    assert done.said.count("\n") == 6


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("nothing",), 3, "list the runs with: st4sd-async list runs"),
        (("a/b",), 2, "not a rest-uid"),
        (("x", "--interval", "0"), 2, "interval must be a number of seconds above 0"),
        (("-",), 2, "standard input names no runs"),
        ((), 2, "Missing argument"),
    ],
    ids=["unknown", "no rest-uid", "no interval", "nothing piped", "none"],
)
def test_a_watch_of_nothing_is_one_clear_line(shell: Shell, arguments: tuple[str, ...], status: int, told: str) -> None:
    """Typical mistakes are said without a traceback."""
    done = shell("watch", *arguments)

    assert (done.status, done.out) == (status, "")
    assert told in done.said
