"""Status reports of components, whatever is in their cells."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st4sd_async.models import ComponentReport, ComponentState, StatusReport
from tests.tries import tries

COMPONENT = ("rowid", "reference", "consumesFrom", "isAlive", "state", "engine")
ENGINE = (
    *("rowid", "reference", "isAlive", "backend", "creationDate", "isWaitingOnOutput", "outputWaitTime", "isRunning"),
    *("runDate", "lastTaskLaunchDate", "lastTaskRunTime", "lastTaskRunState", "lastTaskFinishedDate"),
    *("lastTaskExitCode", "lastTaskExitReason", "engineExitCode", "engineExitReason", "schedulerId"),
)
REPEATING = (
    *ENGINE,
    *("repeatInterval", "lastKernelLaunchDate", "timeToNextKernelLaunch", "numberTaskLaunches"),
    "timeSinceLastTaskLaunch",
)
FAILED = {
    "rowid": "1",
    "reference": "stage0.Boom",
    "consumesFrom": "",
    "isAlive": "False",
    "state": "failed",
    "engine": "engine",
    "backend": "local",
    "creationDate": "2026-11-22 17:56:47.495134",
    "isWaitingOnOutput": "True",
    "outputWaitTime": "0:00:01.019489",
    "isRunning": "False",
    "runDate": "2026-11-22 17:56:47",
    "lastTaskLaunchDate": "2026-11-22 17:56:48.514619",
    "lastTaskRunTime": "1 day, 0:00:03.500000",
    "lastTaskRunState": "failed",
    "lastTaskFinishedDate": "2026-11-22 17:56:48.532038",
    "lastTaskExitCode": "3",
    "lastTaskExitReason": "KnownIssue",
    "engineExitCode": "1",
    "engineExitReason": "KnownIssue",
    "schedulerId": "",
}
STOPPED = FAILED | {
    "reference": "stage1.After",
    "consumesFrom": "stage0.Boom,stage0.Other",
    "state": "component_shutdown",
    **dict.fromkeys(("creationDate", "runDate", "lastTaskLaunchDate", "lastTaskFinishedDate"), "None"),
    **dict.fromkeys(("outputWaitTime", "lastTaskRunTime", "lastTaskRunState", "lastTaskExitReason"), "N/A"),
    "lastTaskExitCode": "N/A",
    "engineExitReason": "Killed",
    "schedulerId": "N/A",
}
REPEATS = FAILED | {
    "reference": "stage1.Watch",
    "state": "running",
    "engine": "repeatingEngine",
    "isAlive": "True",
    "outputWaitTime": "0.0",
    "schedulerId": "pod; 7",
    "repeatInterval": "10",
    "lastKernelLaunchDate": "None",
    "timeToNextKernelLaunch": "-1 day, 23:59:57.500000",
    "numberTaskLaunches": "0",
    "timeSinceLastTaskLaunch": "N/A",
}


def table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table as the orchestrator writes it."""
    return "\n".join("; ".join(line) for line in [columns, *([row[name] for name in columns] for row in rows)]).rstrip()


def tables(*rows: Mapping[str, str], engine: Sequence[str] = ENGINE) -> dict[str, str]:
    """Return both tables of some components."""
    return {"componentStates": table(COMPONENT, rows), "engineStates": table(engine, rows)}


def parse(report: Any) -> StatusReport:
    """Return the report of a file."""
    return StatusReport.parse(json.dumps(report))


REPORT = {
    "0": {"engine": tables(FAILED)},
    "1": {"engine": tables(STOPPED), "repeatingEngine": tables(REPEATS, engine=REPEATING)},
}


def test_a_component_is_a_row_with_types() -> None:
    """Both of its tables make one row; known columns have types, and `raw` has all cells unchanged."""
    (row,) = parse({"0": REPORT["0"]}).rows

    assert (row.stage, row.reference, row.name, row.engine) == (0, "stage0.Boom", "Boom", "engine")
    assert (row.producers, row.is_alive, row.backend) == ([], False, "local")
    assert row.state is row.task_state is ComponentState.FAILED
    assert row.created == datetime(2026, 11, 22, 17, 56, 47, 495134, UTC)
    assert row.started == datetime(2026, 11, 22, 17, 56, 47, tzinfo=UTC)
    assert row.output_wait_time == timedelta(seconds=1, microseconds=19489)
    assert row.task_run_time == timedelta(days=1, seconds=3.5)
    assert (row.task_exit_code, row.task_exit_reason) == (3, "KnownIssue")
    assert (row.engine_exit_code, row.scheduler_id) == (1, None)
    assert row.raw == {"stage": 0, **FAILED, "engine.rowid": "1", "engine.isAlive": "False"}


def test_missing_values_are_none() -> None:
    """For a component that never ran, and for one that runs repeatedly."""
    report = parse(REPORT)
    stopped, repeats = report.rows[1:]

    assert stopped.producers == ["stage0.Boom", "stage0.Other"]
    assert stopped.state is ComponentState.COMPONENT_SHUTDOWN
    assert [stopped.created, stopped.task_run_time, stopped.task_state, stopped.task_exit_code] == [None] * 4
    assert [stopped.repeat_interval, stopped.task_launches, stopped.scheduler_id] == [None] * 3
    assert (repeats.is_alive, repeats.repeat_interval, repeats.task_launches) == (True, timedelta(seconds=10), 0)
    assert (repeats.next_launch_in, repeats.last_launch) == (timedelta(seconds=-2.5), None)
    assert (repeats.output_wait_time, repeats.since_last_task) == (timedelta(0), None)
    assert report.failed == report.rows[:1]


def test_the_table_shows_failed_components_first() -> None:
    """It has the columns of the service's own tools, and others on request."""
    report = parse({"1": REPORT["1"], "0": REPORT["0"]})

    assert [row.stage for row in report.rows] == [0, 1, 1]
    assert str(parse({"0": {"engine": tables(STOPPED, FAILED)}})) == (
        "reference     state               backend  isWaitingOnOutput  engineExitReason  lastTaskRunTime        "
        "lastTaskRunState\n"
        "stage0.Boom   failed              local    True               KnownIssue        1 day, 0:00:03.500000  "
        "failed\n"
        "stage1.After  component_shutdown  local    True               Killed            N/A                    N/A"
    )
    assert "repeatInterval  timeToNextKernelLaunch   numberTaskLaunches" in str(report)
    assert report.table(["reference", "stage", "ghost", "lastTaskExitCode"]).splitlines() == [
        "reference     stage  lastTaskExitCode",
        "stage0.Boom   0      3",
        "stage1.After  1      N/A",
        "stage1.Watch  1      3",
    ]
    assert report.table(["ghost"]) == "no component has such columns"


def test_a_table_contains_no_control_characters() -> None:
    """They are replaced, and a row is one line."""
    report = parse({"0": {"engine": tables({**FAILED, "state": "\x1b[2Jbad\tnews\nhere"})}})

    assert report.table(["state"]) == "state\n\\x1b[2Jbad news here"


def test_the_frame_has_the_names_of_the_service() -> None:
    """Its columns are typed although some cells are empty."""
    frame = parse(REPORT).dataframe()

    assert list(frame.columns[:8]) == ["stage", *COMPONENT, "engine.rowid"]
    assert frame["stage"].tolist() == [0, 1, 1]
    assert frame["lastTaskExitCode"].tolist() == [3, pandas.NA, 3]
    assert frame["lastTaskRunTime"].iloc[0] == timedelta(days=1, seconds=3.5)
    assert frame["runDate"].iloc[0] == pandas.Timestamp("2026-11-22 17:56:47", tz="UTC")
    assert frame["isAlive"].tolist() == [False, False, True]
    assert frame["numberTaskLaunches"].isna().tolist() == [True, True, False]
    assert frame["consumesFrom"].tolist() == [None, "stage0.Boom,stage0.Other", None]
    assert str(frame["timeSinceLastTaskLaunch"].dtype) == "timedelta64[us]"


def test_the_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ImportError, match=r"StatusReport\.dataframe\(\) needs pandas"):
        parse(REPORT).dataframe()


def test_a_report_without_stages_has_no_rows() -> None:
    """As in the first seconds of a run."""
    report = parse({})

    assert (report.rows, report.failed) == ((), ())
    assert str(report) == "no component has been reported on yet"
    assert report.dataframe().columns.tolist() == ["stage"]


def test_unknown_values_are_kept() -> None:
    """An unknown kind of engine, state, column or stage."""
    cells = "reference; state; colour\nstage0.A; thawing; blue"
    (row,) = parse({"early": {"quantumEngine": {"componentStates": cells, "engineStates": ""}}}).rows

    assert (row.stage, row.engine, row.name) == (None, "quantumEngine", "A")
    assert row.state is not None
    assert (row.state, row.state.is_known) == ("thawing", False)
    assert row.raw["colour"] == "blue"


@pytest.mark.parametrize(
    ("components", "engines", "expected"),
    [
        ("rowid; reference\n1; stage0.A", "rowid; reference\n1; stage0.B", [["stage0.A", None], ["stage0.B", None]]),
        ("rowid; state\n1; failed\n2; failed", "rowid; backend\n1; lsf\n2; lsf", [["", "lsf"], ["", "lsf"]]),
        ("rowid; reference; state\n1; stage0.A", "reference; backend\nstage0.A; lsf", [["stage0.A", "lsf"]]),
        ("", "reference; backend\nstage0.A; lsf", [["stage0.A", "lsf"]]),
        ("rowid; reference", "", []),
    ],
)
def test_missing_cells_are_missing(components: str, engines: str, expected: list[list[str | None]]) -> None:
    """Rows that only one table has, tables without references, short rows, and missing tables."""
    report = parse({"0": {"engine": {"componentStates": components, "engineStates": engines}}})

    assert [[row.reference, row.backend] for row in report.rows] == expected


def test_separators_and_new_lines_in_a_cell_stay_in_it() -> None:
    """The service does not quote: surplus separators belong to the id of the backend, or else to the last cell."""
    row = {**REPEATS, "schedulerId": "a; b; c", "engine": "odd; one"}
    second = {**REPEATS, "reference": "stage1.B", "schedulerId": "first\nsecond; third;\nfourth"}
    found = parse({"1": {"repeatingEngine": tables(row, second, engine=REPEATING)}}).rows

    assert [one.scheduler_id for one in found] == ["a; b; c", "first\nsecond; third;\nfourth"]
    assert [one.engine for one in found] == ["odd; one", "repeatingEngine"]
    assert [one.task_launches for one in found] == [0, 0]


def test_cells_stripped_from_the_end_of_the_table_are_empty() -> None:
    """Only the last row lacks them."""
    rows = [{**FAILED, "reference": "stage0.A"}, {**FAILED, "reference": "stage0.B"}]

    found = parse({"0": {"engine": tables(*rows)}}).rows

    assert [(one.engine_exit_reason, one.raw["schedulerId"]) for one in found] == [("KnownIssue", "")] * 2


@pytest.mark.parametrize("length", range(0, len(json.dumps(REPORT)), 97))
def test_an_incomplete_report_is_refused(length: int) -> None:
    """Wherever it is cut."""
    with pytest.raises(ValueError, match="incomplete or damaged"):
        StatusReport.parse(json.dumps(REPORT)[:length].encode())


@pytest.mark.parametrize(
    "report",
    [[], None, "engine", {"0": []}, {"0": {"engine": "x"}}, {"0": {"engine": {"componentStates": 1}}}],
)
def test_any_other_value_is_refused(report: Any) -> None:
    """A value that is not a report raises only ValueError."""
    with pytest.raises(ValueError, match="status report"):
        parse(report)
    with pytest.raises(ValueError, match="incomplete or damaged"):
        StatusReport.parse("[" * 100_000)


CELLS = st.text(st.characters(exclude_characters=";\n", exclude_categories=["Cs"]), max_size=12).map(str.strip)
VALUES = st.sampled_from(["None", "N/A", "", "0", "-9", "99999999999999999999", "nan", "inf", "1e300", "2026-11-22"])


@pytest.mark.slow
@pytest.mark.timeout(60)
@settings(max_examples=tries(100, 10))
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(REPEATING + COMPONENT, CELLS | VALUES)), max_size=4))
def test_any_cells_can_be_read(rows: list[dict[str, str]]) -> None:
    """`raw` has what was written, and no cell breaks the typed fields, the table or the data frame."""
    numbered = [row | {"rowid": str(number), "reference": f"stage3.C{number}"} for number, row in enumerate(rows)]

    report = parse({"3": {"repeatingEngine": tables(*numbered, engine=REPEATING)}})

    apart = [{"engine.rowid": row["rowid"], "engine.isAlive": row["isAlive"]} for row in numbered]
    assert [row.raw for row in report.rows] == [
        {"stage": 3, **row, **more} for row, more in zip(numbered, apart, strict=True)
    ]
    assert len(report.table(REPEATING).splitlines()) == len(rows) + 1
    assert len(report.dataframe()) == len(rows)


def test_rows_can_be_made_by_the_names_of_fields() -> None:
    """For tests of users that make rows."""
    row = ComponentReport(reference="stage0.A", task_exit_code=2)

    assert (row.name, row.task_exit_code, row.raw) == ("A", 2, {"reference": "stage0.A", "task_exit_code": 2})
