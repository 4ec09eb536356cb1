"""The datastore has documents about runs: they lag, have other formats, and outlive deleted runs."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from st4sd_async.local.simulator.simulator import DATASTORE_LAG
from tests.local.helpers import BAD_REQUEST, MOLECULES, start

QUERY = "/ds-mongodb-proxy/documents/api/v1.0/query"
STATUS_KEYS = ("experiment-state", "stage-state", "exit-status", "current-stage")


def query(server: LocalServer, web: httpx.Client, **condition: Any) -> list[dict[str, Any]]:
    """Return the documents that match a query."""
    reply = web.post(server.url + QUERY, json=condition)
    assert reply.status_code == 200, reply.text
    assert reply.text.endswith("]}\n")
    found: list[dict[str, Any]] = reply.json()["document-descriptors"]
    return found


def final_status(server: LocalServer, web: httpx.Client, rest_uid: str) -> tuple[str, ...] | None:
    """Return the status in the document about a run; None if there is no document."""
    found = query(server, web, **{"type": "experiment", "metadata.userMetadata.rest-uid": rest_uid})
    assert len(found) <= 1
    return tuple(found[0]["status"][key] for key in STATUS_KEYS) if found else None


def test_a_document_has_the_recorded_shape(server: LocalServer, web: httpx.Client) -> None:
    """Keys, types and formats are those of a recorded document."""
    web.post("/experiments/", json=server.example("demo"))
    rest_uid = start(web, "demo", inputs=[MOLECULES], metadata={"campaign": "demo"})
    server.advance(100)
    listed = web.get("/instances/").json()[0]

    (document,) = query(server, web, type="experiment", **{"metadata.userMetadata.rest-uid": rest_uid})

    assert list(document) == ["instance", "uid", "name", "type", "metadata", "status", "output", "interface"]
    directory = server.directory(rest_uid)
    assert directory is not None
    assert directory.name == listed["status"]["meta"]["instanceName"]
    assert document["instance"] == f"file://example-cluster{directory}"
    assert (document["uid"], document["name"]) == (f"file://{directory}", "demo")
    assert document["metadata"] == listed["status"]["meta"]
    assert document["interface"] == {
        **listed["experiment"]["metadata"]["registry"]["interface"],
        "inputs": ["CCO", "NAN", "CCCC"],
        "additionalInputData": {},
        "outputFiles": ["output/input-ids.json", "output/properties.csv"],
    }
    status = document["status"]
    assert sorted(status) == [
        "completed-on",
        "cost",
        "created-on",
        "current-stage",
        "exit-status",
        "experiment-state",
        "stage-progress",
        "stage-state",
        "stages",
        "total-progress",
        "updated",
        "updated-on",
    ]
    assert all(isinstance(value, str) for value in status.values())
    assert (status["stages"], status["total-progress"], status["cost"]) == ("['stage0', 'stage1']", "1.0", "0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", status["completed-on"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}\.\d{6}", status["updated"])
    assert status["created-on"] < status["completed-on"] == status["updated-on"]
    energies = document["output"]["Energies"]
    assert (energies["version"], energies["filepath"]) == (1, "stages/stage0/Compute/energies.csv")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}\.\d{6}", energies["creationtime"])


def test_documents_lag_behind_the_run(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Each state appears later than in the service, the first one after the orchestrator has registered the run."""
    push()
    rest_uid = start(web)
    server.advance(DATASTORE_LAG + 0.9)
    assert web.get(f"/instances/{rest_uid}/status").json()["exit-status"] == "Success"
    seen = [final_status(server, web, rest_uid)]

    for seconds in (0.1, 3.0, 1.0):
        server.advance(seconds)
        seen.append(final_status(server, web, rest_uid))

    assert seen == [
        None,
        ("Initialising", "Initialising", "N/A", "None"),
        ("running", "finished", "Success", "stage1"),
        ("finished", "finished", "Success", "stage1"),
    ]


def test_a_deleted_run_is_stopped_after_the_lag(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The document outlives the instance; a run that was running becomes Stopped."""
    push()
    rest_uid = start(web)
    server.advance(3)
    web.delete(f"/instances/{rest_uid}")

    server.advance(DATASTORE_LAG - 0.1)
    before = final_status(server, web, rest_uid)
    server.advance(0.1)
    after = final_status(server, web, rest_uid)
    (document,) = query(server, web, type="experiment")

    assert web.get(f"/instances/{rest_uid}").status_code == 404
    assert before == ("running", "running", "N/A", "stage1")
    assert after == ("finished", "failed", "Stopped", "stage1")
    assert document["status"]["error-description"] == "Killed by user signal"
    assert document["status"]["completed-on"] == document["status"]["updated-on"]
    assert document["output"] == {}


@pytest.mark.parametrize(
    ("outcome", "deleted_at", "expected"),
    [
        ("success", 6.0, ("finished", "finished", "Success", "stage1")),
        ("component-failure", 6.0, ("finished", "failed", "Failed", "stage1")),
        ("killed", 6.0, ("running", "running", "N/A", "stage1")),
        ("stuck", 6.0, ("finished", "failed", "Stopped", "stage1")),
        ("setup-failure", 6.0, None),
        ("init-failure", 6.0, None),
        ("monitor-stuck", 6.0, None),
        ("success", 0.9, None),
        ("success", 0.0, None),
    ],
)
def test_the_final_document_depends_on_when_a_run_was_deleted(
    server: LocalServer, web: httpx.Client, push: Any, outcome: str, deleted_at: float, expected: Any
) -> None:
    """A finished run keeps its status; one that was not registered has no document."""
    push()
    server.outcome("toy", outcome)
    rest_uid = start(web)
    server.advance(deleted_at)
    web.delete(f"/instances/{rest_uid}")
    server.advance(1000)

    assert final_status(server, web, rest_uid) == expected


def test_an_unscheduled_run_has_no_document(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """It is not registered, even if it is deleted before it is scheduled."""
    push()
    server.outcome("toy", "stuck")
    runs = [start(web) for _ in range(4)]
    server.advance(100)
    web.delete(f"/instances/{runs[3]}")
    server.advance(100)

    statuses = [final_status(server, web, rest_uid) for rest_uid in runs]

    assert [status is None for status in statuses] == [False, False, True, True]


def test_queries_are_those_of_mongodb(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Keys may contain dots, operators work, a string is not a pattern, and deleted and populated runs are included."""
    push()
    push("other")
    old = server.populate("toy", 2)
    new = start(web, "other", metadata={"campaign": "x"})
    server.advance(100)

    def uids(**condition: Any) -> list[str]:
        found = query(server, web, **condition)
        return [document.get("rest-uid") or document["metadata"]["userMetadata"]["rest-uid"] for document in found]

    assert uids(type="experiment") == [*old, new]
    assert uids(type="user-metadata", campaign="x") == uids(**{"metadata.userMetadata.campaign": "x"}) == [new]
    assert uids(**{"type": "user-metadata", "rest-uid": old[1]}) == [old[1]]
    assert uids(**{"type": "experiment", "name": "toy", "status.exit-status": "Success"}) == old
    assert uids(**{"rest-uid": old[0], "type": "experiment"}) == []
    assert uids(type="nope") == uids(name="(") == uids(name="to.") == uids(**{"name.x.y": "toy"}) == []
    assert uids(type={"$regex": "^exp"}, name={"$regex": "o.h"}) == [new]
    assert uids(type="experiment", **{"metadata.userMetadata.campaign": {"$exists": False}}) == old
    assert uids(type="experiment", **{"metadata.userMetadata.rest-uid": {"$in": [new, old[1], 7]}}) == [new, old[1]]
    instance = query(server, web, **{"rest-uid": new})[0]["instance"]
    assert uids(type="user-metadata", instance=instance) == uids(type="user-metadata", instance={"$regex": instance})
    assert uids(type="user-metadata", instance={"$not": {"$regex": instance}}) == old
    files = {"$elemMatch": {"$regex": ".*/stage1/.*out.stdout"}}
    (component,) = query(server, web, type="component", instance={"$regex": f"^{instance}$"}, files=files)
    assert (component["name"], component["stage"]) == ("Compute", 1)


def test_the_users_metadata_have_a_document(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Its top level contains the metadata, and it has the same instance as the experiment."""
    push()
    rest_uid = start(web, metadata={"campaign": "x"})
    server.advance(100)

    (document,) = query(server, web, **{"type": "user-metadata", "rest-uid": rest_uid})
    (experiment,) = query(server, web, type="experiment")

    assert (document["campaign"], document["workflow"]) == ("x", rest_uid)
    assert document["instance"] == experiment["instance"]
    assert document["uid"] == f"{experiment['instance']}&user-metadata"


def test_queries_need_credentials_and_an_object(server: LocalServer, web: httpx.Client) -> None:
    """Without credentials the response is the sign-in page; invalid JSON is a bad request."""
    unauthenticated = httpx.post(server.url + QUERY, json={}, verify=False)
    without_type = web.post(server.url + QUERY, content=b'{"type": 1}')
    invalid = web.post(server.url + QUERY, content=b"{")

    assert (unauthenticated.status_code, unauthenticated.headers["content-type"]) == (403, "text/html")
    assert without_type.json() == {"document-descriptors": []}
    assert (invalid.status_code, invalid.json()) == (400, BAD_REQUEST)
    assert web.get(server.url + QUERY).status_code == 405


@pytest.mark.parametrize(
    "condition",
    [
        ["type"],
        {"type": {"$regex": "("}},
        {"instance": {"$regex": "("}},
        {"instance": {"$regex": 1}},
        {"name": {"$regex": "("}},
        {"name": {"$wonder": 1}},
        {"name": {"$in": 1}},
        {"$where": "1"},
    ],
)
def test_invalid_queries_are_internal_server_errors(
    server: LocalServer, web: httpx.Client, push: Any, condition: Any
) -> None:
    """The service does not handle invalid patterns and operators."""
    push()
    server.populate("toy", 1)

    reply = web.post(server.url + QUERY, json=condition)

    assert (reply.status_code, reply.json()) == (500, {"message": "Internal Server Error"})


def test_a_recorded_meta_is_part_of_the_document(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """It is copied literally, even if most of it is missing."""
    push()
    row = {"experiment-state": "running", "exit-status": "N/A", "meta": {"pid": 7}}
    server.outcome("toy", [(0, None), (1, row)])
    start(web)
    server.advance(100)

    experiment, metadata, *components = query(server, web)

    assert [component["component-state"] for component in components] == ["running", "running"]
    assert (experiment["metadata"], experiment["status"]["current-stage"]) == ({"pid": 7}, "stage1")
    assert sorted(metadata) == ["instance", "type", "uid"]
