"""A recorded life is played again word for word, and a malformed one is refused."""

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


def look(web: httpx.Client, rest_uid: str) -> Any:
    """The status of a detail request, or the number of its refusal."""
    reply = web.get(f"/instances/{rest_uid}/status")
    return reply.json() if reply.status_code == 200 else reply.status_code


def test_a_recorded_life_is_shown_word_for_word(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Each row holds from its time on, in its own words, also those that no outcome has."""
    push()
    whole = {**NO_STATUS, **RUNNING, "meta": {"pid": 7}, "stages": ["a", "b"], "error-description": "x\\n\ny"}
    server.outcome("toy", [(0, None), (0.31, {}), (2.4, whole), (3, None), (4, SUCCESS)])
    rest_uid = start(web)

    seen = [look(web, rest_uid)]
    for seconds in (0.31, 2.09, 0.6, 1.0):
        server.advance(seconds)
        seen.append(look(web, rest_uid))

    assert seen[:4] == [400, NO_STATUS, whole, 400]
    assert list(seen[2]) == list(NO_STATUS)
    assert {key: seen[4][key] for key in SUCCESS} == SUCCESS


def test_no_status_is_a_warning_in_the_instance(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A row without a status is the warning in the instance and nulls in the list, also for a run that waited."""
    push()
    server.outcome("toy", [(0, None), (1, SUCCESS)])
    uids = [start(web), start(web), start(web)]
    server.advance(1.5)

    assert list(web.get(f"/instances/{uids[2]}").json()["status"]) == ["warning"]
    assert set(web.get("/instances/").json()[2]["status"].values()) == {None}
    server.advance(0.5)
    assert look(web, uids[2])["exit-status"] == "Success"


def test_what_a_row_leaves_out_is_as_usual(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Words of the orchestrator come with meta and stages, those about a pod with empty values."""
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
        seen.append(look(web, rest_uid))
        server.advance(1)

    assert seen[0] == {**FROM_CLUSTER, **rows[0][1]}
    assert seen[1]["meta"]["userMetadata"]["rest-uid"] == rest_uid
    assert (seen[1]["stages"], seen[1]["stage-state"]) == (["stage0", "stage1"], None)
    assert seen[2] == {**NO_STATUS, **rows[2][1]}
    assert seen[3] == {**FROM_CLUSTER, **rows[3][1]}


def test_the_list_may_show_something_else(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A third entry of a row is for the list alone; None are nulls."""
    push()
    server.outcome("toy", [(0, RUNNING, None), (1, {"experiment-state": "Failed", "exit-status": ""}, RUNNING)])
    rest_uid = start(web)

    (early,) = web.get("/instances/").json()
    assert look(web, rest_uid)["experiment-state"] == "running"
    server.advance(1)
    (late,) = web.get("/instances/").json()

    assert set(early["status"].values()) == {None}
    assert look(web, rest_uid)["experiment-state"] == "Failed"
    assert (late["status"]["experiment-state"], late["status"]["exit-status"]) == ("running", "N/A")


def test_a_scripted_run_gives_its_slot_back_at_its_last_final_row(
    server: LocalServer, web: httpx.Client, push: Any
) -> None:
    """Neither one final word nor a final row that is taken back frees the slot; a stretch lengthens all."""
    push()
    rows = [(0, RUNNING), (1, SUCCESS), (2, RUNNING), (3, EXITED), (4, SUCCESS), (5, SUCCESS), (6, EXITED)]
    server.outcome("toy", rows, times=1, stretch=2)
    server.outcome("toy", [(0, RUNNING)], times=1)
    runs = [start(web) for _ in range(3)]

    server.advance(9.9)
    assert look(web, runs[2])["experiment-state"] == "unscheduled"
    server.advance(0.1)
    assert look(web, runs[2])["experiment-state"] is None
    server.advance(1000)
    assert look(web, runs[0])["experiment-state"] == "running"


def test_key_outputs_follow_the_exit_status(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """They are there, files included, while the row says Success."""
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
def test_malformed_lives_are_refused(server: LocalServer, rows: Any, text: str) -> None:
    """What is wrong is named before anything starts."""
    with pytest.raises(ValueError, match=text):
        server.outcome("toy", rows)


def test_the_example_of_the_docstring_is_a_life(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The code in the docstring runs and shows what its comments say."""
    code = (LocalServer.outcome.__doc__ or "").partition("::")[2].partition("The run releases")[0]
    exec("if True:\n" + code, {"server": server})
    web.post("/experiments/", json=server.example("demo"))
    payload = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nC\n"}]}
    rest_uid = json.loads(web.post("/experiments/demo/start", json=payload).text)

    assert look(web, rest_uid) == 400
    server.advance(0.3)
    assert look(web, rest_uid) == NO_STATUS
    server.advance(8.7)
    assert look(web, rest_uid)["experiment-state"] == "Failed"
    assert web.get("/instances/").json()[0]["status"]["experiment-state"] == "running"
