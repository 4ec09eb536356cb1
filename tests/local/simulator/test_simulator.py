"""Simulated runs show the sequences of statuses that were observed in real runs."""

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
"""What the list shows in the end, if it differs from a request for the run."""


def main_fields(status: dict[str, Any]) -> tuple[Any, ...]:
    """Return the five fields that the table contains."""
    keys = ("experiment-state", "stage-state", "exit-status", "current-stage", "total-progress")
    return tuple(status[key] for key in keys)


def detail(web: httpx.Client, rest_uid: str) -> Any:
    """Return the main fields that a request for the run shows now."""
    reply = web.get(f"/instances/{rest_uid}/status")
    if reply.status_code == 400:
        assert reply.json() == {"message": f"Workflow instance {rest_uid} does not have a status yet"}
        return NOTHING
    return main_fields(reply.json())


def test_the_table_contains_every_outcome() -> None:
    """Each named outcome is in the table of this file."""
    assert set(EXPECTED) == set(named_outcomes())


@pytest.mark.parametrize("outcome", named_outcomes())
def test_a_run_shows_its_outcome(server: LocalServer, web: httpx.Client, push: Any, outcome: str) -> None:
    """At each time, a request for the run shows the status in the table."""
    push()
    server.outcome("toy", outcome)
    rest_uid = start(web)

    now = 0.0
    seen = []
    for at, _ in EXPECTED[outcome]:
        server.advance(at - now)
        now = at
        seen.append((at, detail(web, rest_uid)))

    assert seen == EXPECTED[outcome]


@pytest.mark.parametrize("outcome", LISTED_AT_THE_END)
def test_the_list_does_not_show_the_state_of_the_cluster(
    server: LocalServer, web: httpx.Client, push: Any, outcome: str
) -> None:
    """The list shows only what the orchestrator reported, so it may differ from a request for the run."""
    push()
    server.outcome("toy", outcome)
    start(web)
    server.advance(1000)

    (listed,) = web.get("/instances/").json()

    assert main_fields(listed["status"]) == LISTED_AT_THE_END[outcome]


def test_a_new_run_has_only_a_warning(web: httpx.Client, push: Any) -> None:
    """Before the first status, the instance has a warning instead."""
    push()

    status = web.get(f"/instances/{start(web)}").json()["status"]

    assert list(status) == ["warning"]
    assert status["warning"].startswith("Workflow has no status and there is no Pod for it")


def test_an_unscheduled_run_has_a_reason(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The error description says that resources are missing; other values are empty, in the order of the service."""
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


def test_line_feeds_in_error_descriptions_are_escaped_in_the_final_status(
    server: LocalServer, web: httpx.Client, push: Any
) -> None:
    """Before, they are real line feeds."""
    push()
    server.outcome("toy", "component-failure")
    rest_uid = start(web)

    server.advance(4)
    before = web.get(f"/instances/{rest_uid}/status").json()["error-description"]
    server.advance(1)
    after = web.get(f"/instances/{rest_uid}/status").json()["error-description"]

    assert before.startswith("Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.")
    assert after == before.replace("\n", "\\n")


def test_meta_contains_strings_and_the_users_metadata(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Metadata and variables are strings; meta is part of the orchestrator's first status."""
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
    assert meta["variables"]["stage"]["1"] == {"n": "5"}
    assert meta["instanceName"].endswith(".instance")


def test_a_described_example_keeps_its_package(server: LocalServer, web: httpx.Client) -> None:
    """A description sets key-outputs and properties. Inputs and other key-outputs are those of the example."""
    outputs: dict[str, Any] = {"Folder": {"a.txt": b"a"}, "Ghost": b"not in the package"}
    server.describe("demo", outputs=outputs, properties="input-id;energy\nCO;1.5\n")
    assert web.post("/experiments/", json=server.example("demo")).status_code == 200
    refused = web.post("/experiments/demo/start", json={})
    rest_uid = start(web, "demo", inputs=[{"filename": "molecules.csv", "content": "smiles\nCO\n"}])
    server.advance(60)

    assert "Missing inputs: ['molecules.csv']" in refused.json()["message"]
    assert set(web.get(f"/instances/{rest_uid}/outputs").json()) == {"Energies", "Folder"}
    assert web.get(f"/instances/{rest_uid}/outputs/Folder/a.txt").text == "a"
    assert web.get(f"/instances/{rest_uid}/outputs/Energies").text.startswith("input-id,smiles,energy")
    assert web.get(f"/instances/{rest_uid}/properties").json() == {"input-id": ["CO"], "energy": [1.5]}


def test_key_outputs_exist_when_the_components_have_finished(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Before, a request for one says that it is unknown."""
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


def test_outcomes_apply_in_order(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Outcomes with a number of starts apply first, then the one for all others. Other experiments are not affected."""
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

    assert detail(web, runs[0])[0] == "failed"
    assert detail(web, runs[1])[0] == "Failed"
    assert detail(web, third) == RUNNING
    server.advance(1000)
    assert detail(web, others) == SUCCESS


def test_stretched_runs_take_longer(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A stretch multiplies all times."""
    push()
    server.outcome("toy", "success", stretch=10)
    rest_uid = start(web)

    server.advance(49)
    before = detail(web, rest_uid)
    server.advance(1)

    assert before == EXITED
    assert detail(web, rest_uid) == SUCCESS


def test_runs_without_a_slot_are_unscheduled(web: httpx.Client, server: LocalServer, push: Any) -> None:
    """With two slots, a third run starts when the first ends. From then on it always has a status."""
    push()
    first = start(web)
    server.advance(1)
    second, third = start(web), start(web)

    server.advance(0.1)
    assert detail(web, third) == NOTHING
    server.advance(0.9)
    assert [detail(web, run) for run in (first, second, third)] == [RUNNING, INITIALISING, UNSCHEDULED]
    (_, _, listed) = web.get("/instances/").json()
    assert main_fields(listed["status"]) == EMPTY
    server.advance(3)
    assert [detail(web, run) for run in (first, second, third)] == [SUCCESS, EXITED, EMPTY]
    server.advance(1)
    assert detail(web, third) == INITIALISING
    server.advance(4)
    assert detail(web, third) == SUCCESS


def test_a_deleted_run_frees_its_slot(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A waiting run starts when a running one is deleted, but not when a waiting one is."""
    push()
    server.outcome("toy", "stuck", times=2)
    stuck = [start(web), start(web)]
    waiting, last = start(web), start(web)
    server.advance(100)

    assert web.delete(f"/instances/{waiting}").status_code == 200
    assert detail(web, last) == UNSCHEDULED
    assert web.delete(f"/instances/{stuck[0]}").status_code == 200
    server.advance(5)

    assert detail(web, last) == SUCCESS
    assert detail(web, stuck[1]) == RUNNING


def test_the_clock_advances_with_its_speed() -> None:
    """At a high speed, a run ends at once."""
    with LocalServer(speed=10_000) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=f"{server.url}/rs", headers=headers, verify=False) as web:
            web.post("/experiments/", json=definition())
            rest_uid = start(web)
            web.get("/url-map/")

            assert detail(web, rest_uid) == SUCCESS


def test_instance_directories_can_be_kept(tmp_path: Any) -> None:
    """They stay in the requested folder."""
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
def test_invalid_outcomes_are_rejected(
    server: LocalServer, outcome: str, times: int | None, stretch: float, text: str
) -> None:
    """The error names the bad value."""
    with pytest.raises(ValueError, match=text):
        server.outcome("toy", outcome, times=times, stretch=stretch)


def test_the_clock_cannot_be_set_back(server: LocalServer) -> None:
    """A negative number of seconds is a `ValueError`."""
    with pytest.raises(ValueError, match="seconds must be 0 or above, not -1"):
        server.advance(-1)


def test_the_server_lists_all_starts(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """It includes deleted and populated runs, and those whose response was lost, in order."""
    push()
    first = start(web, metadata={"number": "1"})
    server.faults.add("POST /experiments/*/start", DropAfter())
    with pytest.raises(httpx.TransportError):
        web.post("/experiments/toy/start", json={"metadata": {"number": "2"}})
    web.delete(f"/instances/{first}")
    (old,) = server.populate("toy", 1)

    started = server.started

    assert [accepted.metadata.get("number") for accepted in started] == ["1", "2", None]
    assert (started[0].rest_uid, started[2].rest_uid) == (first, old)


def test_metadata_is_stored_as_by_the_orchestrator(web: httpx.Client, server: LocalServer, push: Any) -> None:
    """A colon in a value stays. A name is cut at its colon, and the rest becomes part of the value."""
    push("toy")
    rest_uid = start(web, metadata={"when": "10:30", "a:b": "c"})
    server.advance(100)

    kept = web.get(f"/instances/{rest_uid}").json()["status"]["meta"]["userMetadata"]

    assert (kept["when"], kept["a"]) == ("10:30", "b:c")
    assert "a:b" not in kept


def test_the_docstring_describes_each_named_outcome() -> None:
    """`help` shows all that can be chosen."""
    described = re.findall(r'"([a-z-]+)": ', inspect.getdoc(LocalServer.outcome) or "")

    assert sorted(set(described) - {"experiment-state", "exit-status"}) == sorted(named_outcomes())
