"""Documents about components, with measured properties, and as clients have written them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from st4sd_async.local import LocalServer
from tests.local.datastore.test_queries import query
from tests.local.helpers import MOLECULES, start

PROXY = "/ds-mongodb-proxy/documents/api/v1.0"
INTERFACE = {"propertiesSpec": [{"name": "energy"}]}


def components(server: LocalServer, web: httpx.Client, **wanted: Any) -> dict[str, dict[str, Any]]:
    """The documents about components by the references of those."""
    return {one["component-identifier"]: one for one in query(server, web, type="component", **wanted)}


def test_each_component_has_a_document_of_the_recorded_shape(server: LocalServer, web: httpx.Client) -> None:
    """It tells where the component ran, what files it left and whose files it needed."""
    web.post("/experiments/", json=server.example("demo"))
    rest_uid = start(web, "demo", inputs=[MOLECULES], variables={"scale": 3})
    server.advance(100)
    directory = server.directory(rest_uid)

    found = components(server, web)

    assert list(found) == ["stage0.Compute", "stage1.Report"]
    first, last = found.values()
    instance = f"file://example-cluster{directory}"
    folder = f"{directory}/stages/stage0/Compute"
    assert sorted(first) == [
        "component-identifier",
        "component-state",
        "files",
        "flowir",
        "instance",
        "location",
        "memoization-hash",
        "memoization-hash-fuzzy",
        "name",
        "producers",
        "stage",
        "type",
        "uid",
    ]
    assert (first["name"], first["stage"], first["location"]) == ("Compute", 0, folder)
    assert (first["instance"], first["uid"]) == (instance, f"{instance}&stage0.Compute")
    assert (first["component-state"], len(first["memoization-hash"])) == ("finished", 32)
    names = ("energies.csv", "molecules.csv", "out.stderr", "out.stdout")
    assert first["files"] == [f"{folder}/{name}" for name in names]
    assert first["flowir"]["command"]["arguments"] == "bin/compute.py:ref molecules.csv data/weights.csv:ref 3"
    references = ["bin/compute.py:ref", "input/molecules.csv:copy", "data/weights.csv:ref"]
    assert first["flowir"]["references"] == references
    assert first["producers"] == {}
    assert last["producers"] == {f"{instance}&stage0.Compute": ["energies.csv"]}
    assert f"{directory}/stages/stage1/Report/results/sub/b.bin" in last["files"]


def test_components_come_and_end_as_late_as_the_run(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """They have no files before the datastore knows that the run is over, and stay when it is deleted."""
    server.describe("toy", outputs={"A": b"a"})
    push()
    rest_uid = start(web)
    server.advance(10)
    early = components(server, web)
    server.advance(2)
    running = components(server, web)
    web.delete(f"/instances/{rest_uid}")
    server.advance(100)
    late = components(server, web)

    assert early == {}
    assert {one["component-state"] for one in running.values()} == {"running"}
    assert [one["files"] for one in running.values()] == [[], []]
    assert {one["component-state"] for one in late.values()} == {"finished"}
    assert [Path(path).name for path in late["stage1.Compute"]["files"]] == ["A", "out.stderr", "out.stdout"]
    assert late["stage1.Compute"]["memoization-hash"] != late["stage0.Compute"]["memoization-hash"]


def test_what_a_failed_component_left_is_listed(server: LocalServer, web: httpx.Client) -> None:
    """The component behind it never ran."""
    web.post("/experiments/", json=server.example("fail"))
    start(web, "fail")
    server.advance(100)

    found = components(server, web)

    assert [one["component-state"] for one in found.values()] == ["failed", "component_shutdown"]
    assert [Path(path).name for path in found["stage0.Boom"]["files"]] == ["out.stderr", "out.stdout"]
    assert (found["stage0.Boom"]["memoization-hash"], found["stage1.After"]["files"]) == ("", [])


def test_files_that_are_written_later_are_listed(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A test can give a component as many files as it likes, which no other run gets."""
    push()
    rest_uid, other = start(web), start(web)
    server.advance(100)
    directory = server.directory(rest_uid)
    assert directory is not None
    (directory / "stages/stage1/Compute/sub").mkdir()
    (directory / "stages/stage1/Compute/sub/more.csv").write_text("a,b\n")

    files = [one["files"] for one in query(server, web, type="component", stage=1)]

    assert str(directory / "stages/stage1/Compute/sub/more.csv") in files[0]
    assert [Path(path).name for path in files[1]] == ["out.stderr", "out.stdout"]
    assert server.directory(other) != directory
    assert server.directory("ghost") is None


def test_directories_belong_to_a_server_that_runs() -> None:
    """Before it is entered there are none."""
    with pytest.raises(RuntimeError, match="directory needs a server that was entered"):
        LocalServer().directory("toy")


@pytest.mark.parametrize(
    ("columns", "stringify", "expected"),
    [
        ("*", "False", {"input-id": ["a", "b"], "energy": [1.5, "NaN"], "weight": ["Infinity", 2.0]}),
        ("*", "true", {"input-id": ["a", "b"], "energy": [1.5, "NaN"], "weight": ["inf", 2.0]}),
        ("Energy,zzz", "1", {"input-id": ["a", "b"], "energy": [1.5, "NaN"]}),
        ("", "false", {"input-id": ["a", "b"]}),
    ],
)
def test_measured_properties_are_included(
    server: LocalServer, web: httpx.Client, push: Any, columns: str, stringify: str, expected: Any
) -> None:
    """Numbers that JSON does not have are bare words unless they are asked for as texts."""
    table = "input-id,energy,weight\na,1.5,inf\nb,,2.0\n"
    server.describe("toy", interface=INTERFACE, properties=table)
    push()
    start(web)
    server.advance(100)

    params = {"includeProperties": columns, "stringifyNaN": stringify}
    reply = web.post(f"{server.url}{PROXY}/query", json={"type": "experiment"}, params=params)

    (document,) = json.loads(reply.text, parse_constant=str)["document-descriptors"]
    assert document["interface"]["propertyTable"] == expected
    assert ("NaN" in reply.text.replace('"NaN"', "")) == (columns == "*" and stringify == "False")
    assert "propertyTable" not in query(server, web, type="experiment")[0]["interface"]


def test_what_measures_nothing_has_no_properties(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Nothing is added, and nothing is wrong, before the table is there, without one and without an interface."""
    server.describe("toy", interface=INTERFACE, properties="input-id\na\n")
    push()
    push("plain")
    start(web)
    start(web, "plain")
    server.advance(12)
    params = {"includeProperties": "*"}

    early = web.post(f"{server.url}{PROXY}/query", json={}, params=params).json()["document-descriptors"]
    wrong = web.post(f"{server.url}{PROXY}/query", json={}, params={"stringifyNaN": "perhaps"})
    server.advance(100)
    directory = server.directory(query(server, web, type="user-metadata")[0]["rest-uid"])
    assert directory is not None
    (directory / "output/properties.csv").unlink()
    late = web.post(f"{server.url}{PROXY}/query", json={}, params=params).json()["document-descriptors"]

    interfaces = [one["interface"] for one in [*early, *late] if one["type"] == "experiment"]
    files: list[list[str]] = [[], ["output/properties.csv"]]
    assert interfaces == [{**INTERFACE, "outputFiles": files[0]}, {}, {**INTERFACE, "outputFiles": files[1]}, {}]
    assert (wrong.status_code, sorted(wrong.json()["errors"])) == (400, ["stringifyNaN"])


def test_documents_can_be_replaced(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Tags that a client writes are there until the orchestrator reports anew, which knows nothing of them."""
    push()
    rest_uid = start(web)
    server.advance(12)
    tagged = query(server, web, type="experiment") + query(server, web, type="user-metadata")
    tagged[0]["metadata"]["userMetadata"]["tag"] = tagged[1]["tag"] = "x"
    stranger = {"type": "component", "instance": "file://elsewhere/x", "name": "A", "stage": 0}

    reply = web.post(f"{server.url}{PROXY}/upsert", json={"documents": [*tagged, stranger]})
    soon = query(server, web, **{"metadata.userMetadata.tag": "x"})
    server.advance(100)

    assert reply.json() == "OK"
    assert soon == tagged[:1]
    assert query(server, web, **{"metadata.userMetadata.tag": "x"}) == []
    assert query(server, web, tag={"$exists": True}) == tagged[1:]
    assert query(server, web, **{"type": "user-metadata", "rest-uid": rest_uid}) == tagged[1:]
    assert query(server, web, name="A") == [stranger]


def test_a_document_is_inserted_if_it_may_be(server: LocalServer, web: httpx.Client) -> None:
    """Not when a query finds one, unless it may be replaced."""
    document = {"type": "component", "instance": "file://elsewhere/x", "name": "A", "stage": 0}

    def insert(n: int, update: bool) -> Any:
        payload = {"doc": {**document, "n": n}, "query": {"name": "A"}, "update": update}
        return web.post(f"{server.url}{PROXY}/may-insert", json=payload).json()

    replies = [insert(1, False), insert(2, False), insert(3, True)]

    assert replies == [{"updated": True}, {"updated": False}, {"updated": True}]
    assert query(server, web) == [{**document, "n": 3}]


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("upsert", []),
        ("upsert", {}),
        ("upsert", {"documents": [{"type": "experiment"}]}),
        ("upsert", {"documents": [{"type": "wonder", "instance": "x"}]}),
        ("upsert", {"documents": [{"type": "component", "instance": "x", "name": "A"}]}),
        ("may-insert", {"doc": {"type": "experiment", "instance": "x"}}),
        ("may-insert", {"doc": {}, "query": {}, "update": True}),
        ("may-insert", 7),
    ],
)
def test_payloads_without_what_they_need_break_the_service(
    server: LocalServer, web: httpx.Client, path: str, payload: Any
) -> None:
    """None of them is foreseen."""
    reply = web.post(f"{server.url}{PROXY}/{path}", json=payload)

    assert (reply.status_code, reply.json()) == (500, {"message": "Internal Server Error"})


def wait(server: LocalServer, web: httpx.Client, wanted: Callable[[Any], bool], **of: Any) -> list[dict[str, Any]]:
    """The documents that match, once they are as wanted."""
    while not wanted(found := query(server, web, **of)):
        time.sleep(0.05)
    return found


def shape(documents: list[dict[str, Any]]) -> list[Any]:
    """What does not depend on the engine: some values, and the names of all."""
    keys = ("type", "name", "stage", "component-state", "interface")
    return [({key: one.get(key) for key in keys}, bool(one.get("memoization-hash")), sorted(one)) for one in documents]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_simulated_documents_are_like_real_ones() -> None:
    """The same is said of the same experiments, failed and never started components included."""
    shapes: list[Any] = []
    engines: list[Literal["simulator", "elaunch"]] = ["simulator", "elaunch"]
    for engine in engines:
        with LocalServer(engine=engine) as server:
            headers = {"Authorization": f"Bearer {server.api_key}"}
            with httpx.Client(base_url=server.url, headers=headers, timeout=60) as web:
                web.post("/experiments/", json=server.example("demo"))
                web.post("/experiments/", json=server.example("fail"))
                runs = [start(web, "demo", inputs=[MOLECULES]), start(web, "fail")]
                if engine == "simulator":
                    server.advance(100)
                finished = {"type": "experiment", "status.experiment-state": "finished"}
                wait(server, web, lambda found: len(found) == 2, **finished)
                wait(server, web, lambda found: len(found) == 4, type="component")
                metadata = [query(server, web, **{"type": "user-metadata", "rest-uid": uid})[0] for uid in runs]
                found = [query(server, web, instance=one["instance"]) for one in metadata]
        others = [one for documents in found for one in documents if one["type"] != "user-metadata"]
        shapes.append((shape(others), [sorted(one) for one in metadata]))

    assert shapes[0] == shapes[1]
