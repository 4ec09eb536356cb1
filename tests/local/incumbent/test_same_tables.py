"""Both clients get the same tables, texts and reports of the same runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from st4sd_async import Client, StatusReport
from st4sd_async.models.reports import OVERVIEW
from tests.local.incumbent.finished import INCUMBENT, Finished

pytestmark = [pytest.mark.anyio, *INCUMBENT]


def texts(cells: Iterable[Any]) -> list[str]:
    """Return the cells of a column; an empty cell is missing in ours and a text in the incumbent's."""
    return ["nan" if cell == "" else str(cell) for cell in cells]


async def test_tables_are_the_same(finished: Finished, client: Client) -> None:
    """All tables of components are the same cell by cell, in any order."""

    def theirs() -> list[tuple[str, dict[str, list[str]]]]:
        documents, matrices = finished.api.cdb_get_data(instance=finished.instances["demo"], _api_verbose=False)
        frames = [{name: texts(matrix.column(name)) for name in matrix.columnHeaders()} for matrix in matrices]
        return [(document["component-identifier"], frame) for document, frame in zip(documents, frames, strict=True)]

    expected = await to_thread.run_sync(theirs)
    found = await client.csv(finished.runs["demo"])

    assert {table.path.rpartition("/")[2] for table in found} >= {"energies.csv", "molecules.csv"}
    ours = [
        (table.document.reference, {name: texts(column) for name, column in table.dataframe().to_dict("list").items()})
        for table in found
    ]
    assert sorted(map(repr, ours)) == sorted(map(repr, expected))


async def test_a_filter_finds_the_same(finished: Finished, client: Client) -> None:
    """Filters are component, reference and file name."""
    filters: list[dict[str, Any]] = [
        {"component": "Comp.*", "filename": "energies.csv"},
        {"component": "stage0.Compute", "filename": "molecules.csv"},
        {"stage": 0, "filename": "energies.csv"},
    ]
    for selection in filters:
        (document,), _ = await to_thread.run_sync(
            partial(finished.api.cdb_get_data, instance=finished.instances["demo"], **selection)
        )
        (table,) = await client.csv(finished.instances["demo"], **selection)

        assert table.document.raw == document
        assert table.path.endswith(f"/{selection['filename']}")


@pytest.mark.parametrize(("name", "component"), [("demo", "Compute"), ("demo", "stage1.Report"), ("fail", "Boom")])
async def test_texts_are_the_same(finished: Finished, client: Client, name: str, component: str) -> None:
    """The output of a component is the same."""
    expected = await to_thread.run_sync(
        lambda: finished.api.cdb_get_components_last_stdout(finished.instances[name], component=component)
    )

    found = await client.stdout(finished.runs[name], component)

    assert found == {document["component-identifier"]: content.decode() for document, content in expected.values()}
    assert len(found) == 1


@pytest.mark.parametrize("name", ["demo", "fail"])
async def test_reports_are_the_same(finished: Finished, client: Client, name: str) -> None:
    """Tables have the same cells, texts the same rows and columns."""

    def ask(**how: Any) -> Any:
        return finished.api.cdb_get_detailed_status_report(finished.instances[name], print_too=False, **how)

    tables = await to_thread.run_sync(lambda: ask(pretty_print_instead=False))
    text = await to_thread.run_sync(ask)

    report = await client.status_report(finished.runs[name])

    assert same_cells(report, tables)
    assert shown(report) == printed(text)
    assert str(report).split("\n")[0].split() == [column for column in OVERVIEW if column in report.rows[0].raw]


async def test_the_log_is_the_same(finished: Finished, client: Client) -> None:
    """The whole log is the same."""
    expected = await to_thread.run_sync(
        finished.api.cdb_get_file_from_instance_uri, finished.instances["fail"], "output/experiment.log"
    )

    assert await client.log(finished.runs["fail"]) == expected.decode()


def same_cells(report: StatusReport, tables: dict[str, Any]) -> bool:
    """Return whether our rows consist of exactly the cells of the incumbent's tables."""
    seen: dict[str, dict[str, str]] = {}
    for stage, kinds in tables.items():
        for matrices in kinds.values():
            for which, prefix in (("componentStates", ""), ("engineStates", "engine.")):
                matrix = matrices[which]
                for number in range(matrix.numberOfRows()):
                    row = matrix.getElements(number)
                    cells = seen.setdefault(row["reference"], {"stage": str(stage)})
                    for column, cell in row.items():
                        name = f"{prefix}{column}" if column in cells and column != "reference" else column
                        cells[name] = str(cell)
    return seen == {row.reference: {name: str(cell) for name, cell in row.raw.items()} for row in report.rows}


def shown(report: StatusReport) -> list[dict[str, str]]:
    """Return the cells of our table, only those that each row has."""
    rows = [{name: str(row.raw[name]) for name in OVERVIEW if name in row.raw} for row in report.rows]
    assert {word for row in rows for cell in row.values() for word in cell.split()} <= set(str(report).split())
    return rows


def printed(text: str) -> list[dict[str, str]]:
    """Return the cells in the incumbent's text."""
    rows, header = [], [""]
    for line in text.splitlines():
        if line.startswith("reference, "):
            header = line.split(", ")
        elif line.startswith("stage"):
            rows.append(dict(zip(header, line.split(", "), strict=True)))
    return rows


def test_a_database_written_by_the_orchestrator_is_read(tmp_path: Path) -> None:
    """It has both kinds of engines, values of each type and missing ones, and several stages."""
    from experiment.runtime.status import StatusDB

    now, wait = datetime(2026, 11, 22, 17, 56, 17, 911473), timedelta(days=1, seconds=3.5)  # noqa: DTZ001 -- as there
    engine: dict[str, Any] = {
        "isAlive": True,
        "backend": "lsf",
        "creationDate": now,
        "isWaitingOnOutput": False,
        "outputWaitTime": 0,
        "isRunning": True,
        "runDate": now,
        "lastTaskLaunchDate": None,
        "lastTaskRunTime": wait,
        "lastTaskRunState": "N/A",
        "lastTaskFinishedDate": None,
        "lastTaskExitCode": "N/A",
        "lastTaskExitReason": "N/A",
        "engineExitCode": None,
        "engineExitReason": None,
        "schedulerId": "12; 13",
    }
    again = {
        "repeatInterval": 10.0,
        "lastKernelLaunchDate": now,
        "timeToNextKernelLaunch": -timedelta(seconds=2.5),
        "numberTaskLaunches": 0,
        "timeSinceLastTaskLaunch": 0,
    }
    kinds = {"stage0.A": "engine", "stage0.R": "repeatingEngine", "stage10.B": "engine", "stage2.C": "engine"}
    database = StatusDB(str(tmp_path / "status.db"))
    for reference, kind in kinds.items():
        state = {"reference": reference, "isAlive": True, "state": "running", "engine": kind}
        database.setComponentStatus({**state, "consumesFrom": "stage0.A,stage0.R"})
        more = again if kind == "repeatingEngine" else {}
        database.setEngineStatus({"sourceType": kind, "reference": reference, **engine, **more})
    database.close()
    assert database.event_finished.wait(30)

    text = json.dumps(database.getWorkflowStatus(json_friendly=True), sort_keys=True)
    report = StatusReport.parse(text)

    assert [row.reference for row in report.rows] == ["stage0.A", "stage0.R", "stage2.C", "stage10.B"]
    assert same_cells(report, database.getWorkflowStatus())
    plain, repeating = report.rows[:2]
    assert (plain.task_run_time, plain.output_wait_time, plain.task_exit_code) == (wait, timedelta(0), None)
    assert (plain.producers, plain.scheduler_id) == (["stage0.A", "stage0.R"], "12; 13")
    assert (repeating.repeat_interval, repeating.task_launches) == (timedelta(seconds=10), 0)
    assert repeating.next_launch_in == timedelta(seconds=-2.5)
    assert repeating.last_launch == repeating.created
    assert [list(row.raw) for row in report.rows[2:]] == [list(plain.raw)] * 2
