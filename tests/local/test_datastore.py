"""The datastore has the last word about runs: late, in other notations, and after they are deleted."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from st4sd_async.local._simulator import DATASTORE_LAG
from tests.local.helpers import MOLECULES, UNREADABLE, start

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
    name = listed["status"]["meta"]["instanceName"]
    assert document["instance"] == f"file://example-cluster/tmp/workdir/{name}"
    assert (document["uid"], document["name"]) == (f"file:///tmp/workdir/{name}", "demo")
    assert document["metadata"] == listed["status"]["meta"]
    assert document["interface"] == listed["experiment"]["metadata"]["registry"]["interface"]
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


def test_queries_match_on_dotted_keys(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Values must be equal, patterns are no patterns; all that was ever started is looked at."""
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
    wrong = web.post(server.url + QUERY, json=["type"])
    undeclared = web.post(server.url + QUERY, content=b"{}")

    assert (stranger.status_code, stranger.headers["content-type"]) == (403, "text/html")
    assert (wrong.status_code, wrong.json()) == (400, UNREADABLE)
    assert undeclared.status_code == 415
    assert web.get(server.url + QUERY).status_code == 405


def test_a_life_with_a_meta_of_its_own_is_known_by_it(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A recorded meta stands in the document as it is, even if most of it is missing."""
    push()
    row = {"experiment-state": "running", "exit-status": "N/A", "meta": {"pid": 7}}
    server.outcome("toy", [(0, None), (1, row)])
    start(web)
    server.advance(100)

    experiment, metadata = query(server, web)

    assert (experiment["metadata"], experiment["status"]["current-stage"]) == ({"pid": 7}, "None")
    assert sorted(metadata) == ["instance", "type", "uid"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_real_runs_have_documents_too() -> None:
    """What the orchestrator wrote is in the document, that it was stopped after the deletion as well."""
    with LocalServer(engine="elaunch") as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as web:
            web.post("/experiments/", json=server.example("demo"))
            rest_uid = start(web, "demo", inputs=[MOLECULES])
            while (words := last_words(server, web, rest_uid)) is None:
                time.sleep(0.05)
            web.delete(f"/instances/{rest_uid}")
            while words is not None and words[0] != "finished":
                time.sleep(0.05)
                words = last_words(server, web, rest_uid)
            (document,) = query(server, web, type="experiment")

    assert words is not None
    assert (words[0], words[2]) == ("finished", "Stopped")
    assert document["status"]["created-on"] < document["status"]["updated-on"]
    assert document["name"] == "demo"
