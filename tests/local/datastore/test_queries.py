"""The datastore has the last word about runs: late, in other notations, and after they are deleted."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from st4sd_async.local.simulator.simulator import DATASTORE_LAG
from tests.local.helpers import BAD_REQUEST, MOLECULES, start

QUERY = "/ds-mongodb-proxy/documents/api/v1.0/query"
WORDS = ("experiment-state", "stage-state", "exit-status", "current-stage")


def query(server: LocalServer, web: httpx.Client, **wanted: Any) -> list[dict[str, Any]]:
    """The documents that match."""
    reply = web.post(server.url + QUERY, json=wanted)
    assert reply.status_code == 200, reply.text
    assert reply.text.endswith("]}\n")
    found: list[dict[str, Any]] = reply.json()["document-descriptors"]
    return found


def last_words(server: LocalServer, web: httpx.Client, rest_uid: str) -> tuple[str, ...] | None:
    """The words of the status in the document about a run, None if there is none."""
    found = query(server, web, **{"type": "experiment", "metadata.userMetadata.rest-uid": rest_uid})
    assert len(found) <= 1
    return tuple(found[0]["status"][word] for word in WORDS) if found else None


def test_a_document_has_the_recorded_shape(server: LocalServer, web: httpx.Client) -> None:
    """Keys, types and notations are those of the recorded document."""
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


def test_documents_are_behind_the_run(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Each state is seen later than in the service, the first when the orchestrator has registered."""
    push()
    rest_uid = start(web)
    server.advance(DATASTORE_LAG + 0.9)
    assert web.get(f"/instances/{rest_uid}/status").json()["exit-status"] == "Success"
    seen = [last_words(server, web, rest_uid)]

    for seconds in (0.1, 3.0, 1.0):
        server.advance(seconds)
        seen.append(last_words(server, web, rest_uid))

    assert seen == [
        None,
        ("Initialising", "Initialising", "N/A", "None"),
        ("running", "finished", "Success", "stage1"),
        ("finished", "finished", "Success", "stage1"),
    ]


def test_a_deleted_run_is_stopped_in_the_end(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The document outlives the instance; what ran is Stopped once the datastore knows."""
    push()
    rest_uid = start(web)
    server.advance(3)
    web.delete(f"/instances/{rest_uid}")

    server.advance(DATASTORE_LAG - 0.1)
    before = last_words(server, web, rest_uid)
    server.advance(0.1)
    after = last_words(server, web, rest_uid)
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
def test_what_was_deleted_when_decides_about_the_last_word(
    server: LocalServer, web: httpx.Client, push: Any, outcome: str, deleted_at: float, expected: Any
) -> None:
    """A run that is over keeps its status, one that never registered has no document."""
    push()
    server.outcome("toy", outcome)
    rest_uid = start(web)
    server.advance(deleted_at)
    web.delete(f"/instances/{rest_uid}")
    server.advance(1000)

    assert last_words(server, web, rest_uid) == expected


def test_a_run_that_waits_has_no_document(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """It has not registered; neither has it when it is deleted before its turn."""
    push()
    server.outcome("toy", "stuck")
    runs = [start(web) for _ in range(4)]
    server.advance(100)
    web.delete(f"/instances/{runs[3]}")
    server.advance(100)

    words = [last_words(server, web, rest_uid) for rest_uid in runs]

    assert [word is None for word in words] == [False, False, True, True]


def test_queries_are_those_of_mongodb(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Keys lead down with dots, operators work, a text is no pattern; all that was ever started is looked at."""
    push()
    push("other")
    old = server.populate("toy", 2)
    new = start(web, "other", metadata={"campaign": "x"})
    server.advance(100)

    def uids(**wanted: Any) -> list[str]:
        found = query(server, web, **wanted)
        return [one.get("rest-uid") or one["metadata"]["userMetadata"]["rest-uid"] for one in found]

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
    """It has the metadata at its top, and is known by the experiment's instance."""
    push()
    rest_uid = start(web, metadata={"campaign": "x"})
    server.advance(100)

    (document,) = query(server, web, **{"type": "user-metadata", "rest-uid": rest_uid})
    (experiment,) = query(server, web, type="experiment")

    assert (document["campaign"], document["workflow"]) == ("x", rest_uid)
    assert document["instance"] == experiment["instance"]
    assert document["uid"] == f"{experiment['instance']}&user-metadata"


def test_queries_need_credentials_and_an_object(server: LocalServer, web: httpx.Client) -> None:
    """Strangers get the sign-in page; what is no JSON object is a bad request."""
    stranger = httpx.post(server.url + QUERY, json={})
    undeclared = web.post(server.url + QUERY, content=b'{"type": 1}')
    no_json = web.post(server.url + QUERY, content=b"{")

    assert (stranger.status_code, stranger.headers["content-type"]) == (403, "text/html")
    assert undeclared.json() == {"document-descriptors": []}
    assert (no_json.status_code, no_json.json()) == (400, BAD_REQUEST)
    assert web.get(server.url + QUERY).status_code == 405


@pytest.mark.parametrize(
    "wanted",
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
def test_queries_that_the_database_refuses_break_the_service(
    server: LocalServer, web: httpx.Client, push: Any, wanted: Any
) -> None:
    """Patterns and operators that are none are not foreseen."""
    push()
    server.populate("toy", 1)

    reply = web.post(server.url + QUERY, json=wanted)

    assert (reply.status_code, reply.json()) == (500, {"message": "Internal Server Error"})


def test_a_life_with_a_meta_of_its_own_is_known_by_it(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A recorded meta stands in the document as it is, even if most of it is missing."""
    push()
    row = {"experiment-state": "running", "exit-status": "N/A", "meta": {"pid": 7}}
    server.outcome("toy", [(0, None), (1, row)])
    start(web)
    server.advance(100)

    experiment, metadata, *components = query(server, web)

    assert [component["component-state"] for component in components] == ["running", "running"]
    assert (experiment["metadata"], experiment["status"]["current-stage"]) == ({"pid": 7}, "None")
    assert sorted(metadata) == ["instance", "type", "uid"]
