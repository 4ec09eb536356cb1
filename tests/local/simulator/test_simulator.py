"""Simulated runs go through the sequences of statuses that real runs were seen to have."""

from __future__ import annotations

import inspect
import re
from typing import Any

import httpx
import pytest

from st4sd_async.local import DropAfter, LocalServer
from st4sd_async.local.simulator.outcomes import named_outcomes
from tests.local.helpers import definition, start

NOTHING = "nothing"
EMPTY = (None, None, None, None, 0.0)
INITIALISING = ("Initialising", "Initialising", "N/A", "None", 0.0)
FIRST = ("running", "running", "N/A", "stage0", 0.0)
RUNNING = ("running", "running", "N/A", "stage1", 0.0)
EXITED = ("running", "finished", "Success", "stage1", 1.0)
SUCCESS = ("finished", "finished", "Success", "stage1", 1.0)
UNSCHEDULED = ("unscheduled", "", "", "", 0.0)
NO_IMAGE = ("failed", "", "", "", 0.0)
WORK = [(0.0, NOTHING), (0.3, EMPTY), (1.0, INITIALISING), (1.5, FIRST), (2.0, RUNNING)]

EXPECTED: dict[str, list[tuple[float, Any]]] = {
    "success": [*WORK, (4.0, EXITED), (5.0, SUCCESS)],
    "state-first": [*WORK, (4.0, ("finished", "finished", "N/A", "stage1", 1.0)), (5.0, SUCCESS)],
    "component-failure": [
        *WORK,
        (4.0, ("running", "failed", "Failed", "stage1", 0.0)),
        (5.0, ("finished", "failed", "Failed", "stage1", 0.0)),
    ],
    "setup-failure": [*WORK[:2], (1.0, ("failed", "Initialising", "Failed", "None", 0.0))],
    "unscheduled": [(0.0, NOTHING), (0.3, UNSCHEDULED), (3.0, EMPTY), (4.0, INITIALISING), (8.0, SUCCESS)],
    "init-failure": [*WORK[:2], (1.0, ("failed", "", "", "", 0.0)), (999.0, ("failed", "", "", "", 0.0))],
    "killed": [*WORK, (3.0, ("Failed", "", "", "", 0.0)), (999.0, ("Failed", "", "", "", 0.0))],
    "image-pull": [
        *WORK[:2],
        (0.6, NO_IMAGE),
        (1.2, EMPTY),
        (1.8, NO_IMAGE),
        (2.4, EMPTY),
        (3.0, INITIALISING),
        (7.0, SUCCESS),
    ],
    "unschedulable": [*WORK[:2], (0.6, ("unschedulable", "", "", "", 0.0)), (3.0, EMPTY), (8.0, SUCCESS)],
    "killed-after-failure": [*WORK, (3.0, ("running", "failed", "Failed", "stage1", 0.0))],
    "monitor-stuck": [*WORK[:2], (4.9, EMPTY), (5.0, ("finished", "", "Success", "", 1.0))],
    "stuck": [*WORK, (999.0, RUNNING)],
    "stopped": [*WORK, (4.0, ("finished", "failed", "Stopped", "stage1", 0.0))],
}
LISTED_AT_THE_END = {
    "init-failure": EMPTY,
    "killed": RUNNING,
    "monitor-stuck": EMPTY,
    "killed-after-failure": ("running", "failed", "Failed", "stage1", 0.0),
    "success": SUCCESS,
}
"""What the list shows for ever, where that is not what a detail request shows."""


def essence(status: dict[str, Any]) -> tuple[Any, ...]:
    """The five fields that a sequence is about."""
    keys = ("experiment-state", "stage-state", "exit-status", "current-stage", "total-progress")
    return tuple(status[key] for key in keys)


def look(web: httpx.Client, rest_uid: str) -> Any:
    """What a detail request shows now."""
    reply = web.get(f"/instances/{rest_uid}/status")
    if reply.status_code == 400:
        assert reply.json() == {"message": f"Workflow instance {rest_uid} does not have a status yet"}
        return NOTHING
    return essence(reply.json())


def test_every_sequence_is_expected() -> None:
    """Each outcome that can be asked for is in the table of this file."""
    assert set(EXPECTED) == set(named_outcomes())


@pytest.mark.parametrize("outcome", named_outcomes())
def test_a_run_shows_its_sequence(server: LocalServer, web: httpx.Client, push: Any, outcome: str) -> None:
    """At each time, and just before the next, a detail request shows what the table says."""
    push()
    server.outcome("toy", outcome)
    rest_uid = start(web)

    now = 0.0
    seen = []
    for at, _ in EXPECTED[outcome]:
        server.advance(at - now)
        now = at
        seen.append((at, look(web, rest_uid)))

    assert seen == EXPECTED[outcome]


@pytest.mark.parametrize("outcome", LISTED_AT_THE_END)
def test_the_list_never_looks_at_the_cluster(server: LocalServer, web: httpx.Client, push: Any, outcome: str) -> None:
    """The list shows only what the orchestrator reported, so that it differs from the detail for ever."""
    push()
    server.outcome("toy", outcome)
    start(web)
    server.advance(1000)

    (listed,) = web.get("/instances/").json()

    assert essence(listed["status"]) == LISTED_AT_THE_END[outcome]


def test_a_new_run_has_a_warning_and_nothing_else(web: httpx.Client, push: Any) -> None:
    """Before there is a status, the instance has a warning in its place."""
    push()

    status = web.get(f"/instances/{start(web)}").json()["status"]

    assert list(status) == ["warning"]
    assert status["warning"].startswith("Workflow has no status and there is no Pod for it")


def test_an_unscheduled_run_explains_itself(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Waiting for resources has a text that is no error, and empty values in the order of the wire."""
    push()
    server.outcome("toy", "unscheduled")
    rest_uid = start(web)
    server.advance(1)

    status = web.get(f"/instances/{rest_uid}/status").json()

    assert list(status) == [
        "current-stage",
        "exit-status",
        "experiment-state",
        "error-description",
        "meta",
        "stage-progress",
        "stage-state",
        "stages",
        "total-progress",
    ]
    assert status["error-description"].startswith("Workflow scheduler is unscheduled, reason: 0/1 nodes")
    assert (status["meta"], status["stages"]) == ({}, [])


def test_error_descriptions_change_their_line_feeds(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The error has real line feeds first, and two characters for each in the final status."""
    push()
    server.outcome("toy", "component-failure")
    rest_uid = start(web)

    server.advance(4)
    before = web.get(f"/instances/{rest_uid}/status").json()["error-description"]
    server.advance(1)
    after = web.get(f"/instances/{rest_uid}/status").json()["error-description"]

    assert before.startswith("Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.")
    assert after == before.replace("\n", "\\n")


def test_meta_carries_strings_and_the_users_metadata(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Metadata and variables are strings in meta, which comes with the orchestrator's first status."""
    server.describe("toy", inputs=["in.csv"], variables={"n": "1", "m": "2"})
    push(variables=[{"name": "n"}])
    file = {"filename": "in.csv", "content": "x"}
    rest_uid = start(web, inputs=[file], variables={"n": 5}, metadata={"campaign": 7})

    server.advance(0.5)
    early = web.get(f"/instances/{rest_uid}/status").json()["meta"]
    server.advance(1)
    meta = web.get(f"/instances/{rest_uid}/status").json()["meta"]

    assert early is None
    assert sorted(meta) == [
        "arguments",
        "data",
        "hybridPlatform",
        "inputs",
        "instanceName",
        "pid",
        "platform",
        "userMetadata",
        "userVariables",
        "variables",
        "version",
    ]
    assert meta["userMetadata"]["campaign"] == "7"
    assert meta["userMetadata"]["rest-uid"] == rest_uid
    assert meta["userVariables"] == {"global": {"n": "5"}}
    assert meta["variables"]["global"] == {"n": "5", "m": "2"}
    assert meta["variables"]["stage"]["1"] == {"n": "5", "m": "2"}
    assert meta["instanceName"].endswith(".instance")


def test_key_outputs_appear_when_the_work_is_done(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Until then there are none, and asking for one says not yet."""
    server.describe("toy", outputs={"A": b"a"})
    push()
    rest_uid = start(web)
    server.advance(3.9)
    before = web.get(f"/instances/{rest_uid}/outputs").json()
    early = web.get(f"/instances/{rest_uid}/outputs/A")
    server.advance(0.1)

    assert before == {}
    assert early.json()["unknownOutput"] == "A"
    assert web.get(f"/instances/{rest_uid}/outputs/A").content == b"a"


def test_outcomes_are_used_up_in_order(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Outcomes for some starts come first, then the one for all others; other experiments have none."""
    push()
    push("other")
    server.outcome("toy", "stuck")
    server.outcome("toy", "setup-failure", times=1)
    server.outcome("toy", "killed", times=1)
    runs = [start(web) for _ in range(2)]

    server.advance(1000)
    third = start(web)
    server.advance(1000)
    others = start(web, "other")

    assert look(web, runs[0])[0] == "failed"
    assert look(web, runs[1])[0] == "Failed"
    assert look(web, third) == RUNNING
    server.advance(1000)
    assert look(web, others) == SUCCESS


def test_stretched_runs_take_longer(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A stretch multiplies all times of a run."""
    push()
    server.outcome("toy", "success", stretch=10)
    rest_uid = start(web)

    server.advance(49)
    before = look(web, rest_uid)
    server.advance(1)

    assert before == EXITED
    assert look(web, rest_uid) == SUCCESS


def test_runs_without_a_slot_wait_unscheduled(web: httpx.Client, server: LocalServer, push: Any) -> None:
    """With two slots a third run begins when the first ends, and is never without a status again."""
    push()
    first = start(web)
    server.advance(1)
    second, third = start(web), start(web)

    server.advance(0.1)
    assert look(web, third) == NOTHING
    server.advance(0.9)
    assert [look(web, run) for run in (first, second, third)] == [RUNNING, INITIALISING, UNSCHEDULED]
    (_, _, listed) = web.get("/instances/").json()
    assert essence(listed["status"]) == EMPTY
    server.advance(3)
    assert [look(web, run) for run in (first, second, third)] == [SUCCESS, EXITED, EMPTY]
    server.advance(1)
    assert look(web, third) == INITIALISING
    server.advance(4)
    assert look(web, third) == SUCCESS


def test_a_deleted_run_frees_its_slot(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A waiting run begins when a running one is deleted; deleting a waiting one changes nothing else."""
    push()
    server.outcome("toy", "stuck", times=2)
    stuck = [start(web), start(web)]
    waiting, last = start(web), start(web)
    server.advance(100)

    assert web.delete(f"/instances/{waiting}").status_code == 200
    assert look(web, last) == UNSCHEDULED
    assert web.delete(f"/instances/{stuck[0]}").status_code == 200
    server.advance(5)

    assert look(web, last) == SUCCESS
    assert look(web, stuck[1]) == RUNNING


def test_real_time_moves_the_clock_by_its_speed() -> None:
    """With a high speed a run is over in a moment."""
    with LocalServer(speed=10_000) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=f"{server.url}/rs", headers=headers, verify=False) as web:
            web.post("/experiments/", json=definition())
            rest_uid = start(web)
            web.get("/url-map/")

            assert look(web, rest_uid) == SUCCESS


def test_instances_can_be_kept(tmp_path: Any) -> None:
    """The directories of runs stay where they were asked for."""
    with LocalServer(speed=0, keep=tmp_path) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=f"{server.url}/rs", headers=headers, verify=False) as web:
            server.describe("toy", outputs={"A": b"a"})
            web.post("/experiments/", json=definition())
            rest_uid = start(web)
            server.advance(10)
            web.get(f"/instances/{rest_uid}/outputs/A")

    kept = {path.name for path in tmp_path.glob("*.instance/stages/stage1/Compute/*")}
    assert kept == {"A", "out.stdout", "out.stderr"}


@pytest.mark.parametrize(
    ("outcome", "times", "stretch", "text"),
    [
        ("wonder", None, 1.0, "no outcome 'wonder': use one of success, state-first"),
        ("success", 0, 1.0, "times must be at least 1 or None, not 0"),
        ("success", 1, 0.0, "stretch must be above 0, not 0.0"),
    ],
)
def test_impossible_outcomes_are_refused(
    server: LocalServer, outcome: str, times: int | None, stretch: float, text: str
) -> None:
    """A value that makes no sense is named."""
    with pytest.raises(ValueError, match=text):
        server.outcome("toy", outcome, times=times, stretch=stretch)


def test_time_does_not_go_back(server: LocalServer) -> None:
    """The clock refuses to be set back."""
    with pytest.raises(ValueError, match="seconds must be 0 or above, not -1"):
        server.advance(-1)


def test_the_server_knows_all_that_it_ever_started(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """In its order: the answered, the unanswered, the deleted and the populated."""
    push()
    first = start(web, metadata={"number": "1"})
    server.faults.add("POST /experiments/*/start", DropAfter())
    with pytest.raises(httpx.TransportError):
        web.post("/experiments/toy/start", json={"metadata": {"number": "2"}})
    web.delete(f"/instances/{first}")
    (old,) = server.populate("toy", 1)

    started = server.started

    assert [one.metadata.get("number") for one in started] == ["1", "2", None]
    assert (started[0].rest_uid, started[2].rest_uid) == (first, old)


def test_metadata_is_kept_as_the_orchestrator_keeps_it(web: httpx.Client, server: LocalServer, push: Any) -> None:
    """A colon in a value stays; a name is cut at its colon and the rest goes before the value."""
    push("toy")
    rest_uid = start(web, metadata={"when": "10:30", "a:b": "c"})
    server.advance(100)

    kept = web.get(f"/instances/{rest_uid}").json()["status"]["meta"]["userMetadata"]

    assert (kept["when"], kept["a"]) == ("10:30", "b:c")
    assert "a:b" not in kept


def test_each_outcome_with_a_name_is_described() -> None:
    """So that a user of `help` can choose one."""
    described = re.findall(r'"([a-z-]+)": ', inspect.getdoc(LocalServer.outcome) or "")

    assert sorted(set(described) - {"experiment-state", "exit-status"}) == sorted(named_outcomes())
