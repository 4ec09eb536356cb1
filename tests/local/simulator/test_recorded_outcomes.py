"""Recorded statuses are replayed literally, and malformed ones are rejected."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from st4sd_async.local.engine.instance_files import FROM_CLUSTER, NO_STATUS
from tests.local.helpers import start

RUNNING: dict[str, Any] = {
    "experiment-state": "running",
    "stage-state": "running",
    "exit-status": "N/A",
    "current-stage": "stage1",
}
EXITED = {**RUNNING, "exit-status": "Success", "stage-state": "finished", "total-progress": 1.0}
SUCCESS = {**EXITED, "experiment-state": "finished"}


def detail(web: httpx.Client, rest_uid: str) -> Any:
    """Return the status that a request for the run shows, or the HTTP status of an error."""
    reply = web.get(f"/instances/{rest_uid}/status")
    return reply.json() if reply.status_code == 200 else reply.status_code


def test_recorded_rows_are_shown_literally(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Each row is shown from its time on, including values that no named outcome has."""
    push()
    whole = {**NO_STATUS, **RUNNING, "meta": {"pid": 7}, "stages": ["a", "b"], "error-description": "x\\n\ny"}
    server.outcome("toy", [(0, None), (0.31, {}), (2.4, whole), (3, None), (4, SUCCESS)])
    rest_uid = start(web)

    seen = [detail(web, rest_uid)]
    for seconds in (0.31, 2.09, 0.6, 1.0):
        server.advance(seconds)
        seen.append(detail(web, rest_uid))

    assert seen[:4] == [400, NO_STATUS, whole, 400]
    assert list(seen[2]) == list(NO_STATUS)
    assert {key: seen[4][key] for key in SUCCESS} == SUCCESS


def test_a_row_without_a_status_is_a_warning_in_the_instance(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The instance has a warning and the list nulls, also for a run that waited."""
    push()
    server.outcome("toy", [(0, None), (1, SUCCESS)])
    uids = [start(web), start(web), start(web)]
    server.advance(1.5)

    assert list(web.get(f"/instances/{uids[2]}").json()["status"]) == ["warning"]
    assert set(web.get("/instances/").json()[2]["status"].values()) == {None}
    server.advance(0.5)
    assert detail(web, uids[2])["exit-status"] == "Success"


def test_missing_keys_of_a_row_have_usual_values(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Statuses of the orchestrator get meta and stages, those from a pod get empty values."""
    push()
    rows: list[tuple[float, dict[str, Any]]] = [
        (0, {"experiment-state": "unscheduled"}),
        (1, {"experiment-state": "running", "exit-status": "N/A"}),
        (2, {"experiment-state": "failed", "exit-status": "Failed"}),
        (3, {"experiment-state": "Failed", "exit-status": ""}),
    ]
    server.outcome("toy", rows)
    rest_uid = start(web)

    seen = []
    for _ in rows:
        seen.append(detail(web, rest_uid))
        server.advance(1)

    assert seen[0] == {**FROM_CLUSTER, **rows[0][1]}
    assert seen[1]["meta"]["userMetadata"]["rest-uid"] == rest_uid
    assert seen[1]["stages"] == ["stage0", "stage1"]
    assert seen[2] == {**NO_STATUS, **rows[2][1], "stage-state": "Initialising", "current-stage": "None"}
    assert seen[3] == {**FROM_CLUSTER, **rows[3][1]}


@pytest.mark.parametrize(
    ("experiment_state", "exit_status", "usual"),
    [
        (None, None, (None, None, 0.0, 0.0, "")),
        ("Initialising", "N/A", ("Initialising", "None", 0.0, 0.0, "")),
        ("running", "N/A", ("running", "stage1", 0.0, 0.0, "")),
        ("running", "Success", ("finished", "stage1", 1.0, 1.0, "")),
        ("finished", "Success", ("finished", "stage1", 1.0, 1.0, "")),
        ("running", "Failed", ("failed", "stage1", 0.0, 0.0, "Stage 0 failed. Reason:\n1 jobs failed")),
        ("finished", "Failed", ("failed", "stage1", 0.0, 0.0, "Stage 0 failed. Reason:\\n1 jobs failed")),
        ("finished", "Stopped", ("failed", "stage1", 0.0, 0.0, "Killed by user signal")),
        ("failed", "Failed", ("Initialising", "None", 0.0, 0.0, "")),
    ],
)
def test_two_states_imply_the_rest_as_in_recorded_runs(
    server: LocalServer, web: httpx.Client, push: Any, experiment_state: Any, exit_status: Any, usual: tuple[Any, ...]
) -> None:
    """stage-state, current-stage, progress and the error are those that the real servers showed beside both states."""
    push()
    server.outcome("toy", [(0, {"experiment-state": experiment_state, "exit-status": exit_status})])

    status = detail(web, start(web))

    *others, error = usual
    keys = ("stage-state", "current-stage", "total-progress", "stage-progress")
    assert [status[key] for key in keys] == others
    assert status["error-description"].startswith(error)
    assert bool(status["error-description"]) is bool(error)


def test_the_list_may_show_another_status(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The third entry of a row is what the list shows; None means nulls."""
    push()
    server.outcome("toy", [(0, RUNNING, None), (1, {"experiment-state": "Failed", "exit-status": ""}, RUNNING)])
    rest_uid = start(web)

    (early,) = web.get("/instances/").json()
    assert detail(web, rest_uid)["experiment-state"] == "running"
    server.advance(1)
    (late,) = web.get("/instances/").json()

    assert set(early["status"].values()) == {None}
    assert detail(web, rest_uid)["experiment-state"] == "Failed"
    assert (late["status"]["experiment-state"], late["status"]["exit-status"]) == ("running", "N/A")


def test_a_recorded_run_releases_its_slot_at_its_last_final_row(
    server: LocalServer, web: httpx.Client, push: Any
) -> None:
    """One final value or a final row that is revoked does not release the slot; a stretch applies to all times."""
    push()
    rows = [(0, RUNNING), (1, SUCCESS), (2, RUNNING), (3, EXITED), (4, SUCCESS), (5, SUCCESS), (6, EXITED)]
    server.outcome("toy", rows, times=1, stretch=2)
    server.outcome("toy", [(0, RUNNING)], times=1)
    runs = [start(web) for _ in range(3)]

    server.advance(9.9)
    assert detail(web, runs[2])["experiment-state"] == "unscheduled"
    server.advance(0.1)
    assert detail(web, runs[2])["experiment-state"] is None
    server.advance(1000)
    assert detail(web, runs[0])["experiment-state"] == "running"


def test_key_outputs_follow_the_exit_status(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """They and their files exist while the exit-status of the row is Success."""
    server.describe("toy", outputs={"A": b"a"})
    push()
    server.outcome("toy", [(0, RUNNING), (1, EXITED)])
    rest_uid = start(web)

    before = web.get(f"/instances/{rest_uid}/outputs").json()
    server.advance(1)

    assert before == {}
    assert web.get(f"/instances/{rest_uid}/outputs/A").content == b"a"


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], "the first row must be at 0 s, got 'no rows'"),
        ([(0.1, None)], r"the first row must be at 0 s, got \(0.1, None\)"),
        ([(0, None), (2, {}), (2, {})], "the times of rows must rise, but 2.0 s comes after 2.0 s"),
        ([(0,)], r"a row must be \(seconds, status\) or \(seconds, status, listed\), not \(0,\)"),
        ([(0, None, None, None)], "a row must be"),
        ([None], "a row must be"),
        ([("0", None)], "a row must begin with seconds, not with '0'"),
        ([(0, None), (float("nan"), None)], "a row must begin with seconds, not with nan"),
        ([(0, "running")], "a status must be a mapping or None, not 'running'"),
        ([(0, None, [])], r"a status must be a mapping or None, not \[\]"),
        ([(0, {"state": "x"})], "a status has no 'state'; its keys are experiment-state, stage-state"),
    ],
)
def test_malformed_rows_are_rejected(server: LocalServer, rows: Any, text: str) -> None:
    """The error names the bad value before any run starts."""
    with pytest.raises(ValueError, match=text):
        server.outcome("toy", rows)


def test_the_example_of_the_docstring_works(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The code in the docstring runs and shows what its comments say."""
    code = (LocalServer.outcome.__doc__ or "").partition("::")[2].partition("The run releases")[0]
    exec("if True:\n" + code, {"server": server})
    web.post("/experiments/", json=server.example("demo"))
    payload = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nC\n"}]}
    rest_uid = json.loads(web.post("/experiments/demo/start", json=payload).text)

    assert detail(web, rest_uid) == 400
    server.advance(0.3)
    assert detail(web, rest_uid) == NO_STATUS
    server.advance(8.7)
    assert detail(web, rest_uid)["experiment-state"] == "Failed"
    assert web.get("/instances/").json()[0]["status"]["experiment-state"] == "running"
