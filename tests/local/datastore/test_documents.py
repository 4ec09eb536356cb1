"""Documents about components, documents with measured properties, and documents that clients write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from tests.local.datastore.test_queries import query
from tests.local.helpers import MOLECULES, start

PROXY = "/ds-mongodb-proxy/documents/api/v1.0"
INTERFACE = {"propertiesSpec": [{"name": "energy"}]}


def components(server: LocalServer, web: httpx.Client, **condition: Any) -> dict[str, dict[str, Any]]:
    """Return the documents about components by reference."""
    return {
        document["component-identifier"]: document for document in query(server, web, type="component", **condition)
    }


def test_each_component_has_a_document_of_the_recorded_shape(server: LocalServer, web: httpx.Client) -> None:
    """It contains the directory of the component, its files, and the files that it needed of others."""
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


def test_documents_about_components_lag_like_the_run(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """They list no files until the run is finished in the datastore, and outlive a deleted run."""
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
    assert {document["component-state"] for document in running.values()} == {"running"}
    assert [document["files"] for document in running.values()] == [[], []]
    assert {document["component-state"] for document in late.values()} == {"finished"}
    assert [Path(path).name for path in late["stage1.Compute"]["files"]] == ["A", "out.stderr", "out.stdout"]
    assert late["stage1.Compute"]["memoization-hash"] != late["stage0.Compute"]["memoization-hash"]


@pytest.mark.slow
def test_the_files_of_a_failed_component_are_listed(server: LocalServer, web: httpx.Client) -> None:
    """The component after it was never executed."""
    web.post("/experiments/", json=server.example("fail"))
    start(web, "fail")
    server.advance(100)

    found = components(server, web)

    assert [document["component-state"] for document in found.values()] == ["failed", "component_shutdown"]
    assert [Path(path).name for path in found["stage0.Boom"]["files"]] == ["out.stderr", "out.stdout"]
    assert (found["stage0.Boom"]["memoization-hash"], found["stage1.After"]["files"]) == ("", [])


def test_files_that_a_test_adds_are_listed(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """They belong to one run only."""
    push()
    rest_uid, other = start(web), start(web)
    server.advance(100)
    directory = server.directory(rest_uid)
    assert directory is not None
    (directory / "stages/stage1/Compute/sub").mkdir()
    (directory / "stages/stage1/Compute/sub/more.csv").write_text("a,b\n")

    files = [document["files"] for document in query(server, web, type="component", stage=1)]

    assert str(directory / "stages/stage1/Compute/sub/more.csv") in files[0]
    assert [Path(path).name for path in files[1]] == ["out.stderr", "out.stdout"]
    assert server.directory(other) != directory
    assert server.directory("ghost") is None


def test_directories_need_a_server_that_was_entered() -> None:
    """Otherwise `directory` is a `RuntimeError`."""
    with pytest.raises(RuntimeError, match="directory needs a running server: enter it first"):
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
    """NaN and Infinity are invalid JSON literals unless they are requested as strings."""
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


def test_properties_are_left_out_without_a_table(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """This is no error: the run is not finished, the table is missing, or there is no interface."""
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

    interfaces = [document["interface"] for document in [*early, *late] if document["type"] == "experiment"]
    files: list[list[str]] = [[], ["output/properties.csv"]]
    assert interfaces == [{**INTERFACE, "outputFiles": files[0]}, {}, {**INTERFACE, "outputFiles": files[1]}, {}]
    assert (wrong.status_code, sorted(wrong.json()["errors"])) == (400, ["stringifyNaN"])


def test_clients_can_replace_documents(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Tags that a client writes exist until the orchestrator replaces the document."""
    push()
    rest_uid = start(web)
    server.advance(12)
    tagged = query(server, web, type="experiment") + query(server, web, type="user-metadata")
    tagged[0]["metadata"]["userMetadata"]["tag"] = tagged[1]["tag"] = "x"
    unknown = {"type": "component", "instance": "file://elsewhere/x", "name": "A", "stage": 0}

    reply = web.post(f"{server.url}{PROXY}/upsert", json={"documents": [*tagged, unknown]})
    soon = query(server, web, **{"metadata.userMetadata.tag": "x"})
    server.advance(100)

    assert reply.json() == "OK"
    assert soon == tagged[:1]
    assert query(server, web, **{"metadata.userMetadata.tag": "x"}) == []
    assert query(server, web, tag={"$exists": True}) == tagged[1:]
    assert query(server, web, **{"type": "user-metadata", "rest-uid": rest_uid}) == tagged[1:]
    assert query(server, web, name="A") == [unknown]


def test_a_document_is_inserted_if_it_is_new_or_an_update(server: LocalServer, web: httpx.Client) -> None:
    """It is not inserted if the query finds one, unless it may replace that."""
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
def test_incomplete_payloads_are_internal_server_errors(
    server: LocalServer, web: httpx.Client, path: str, payload: Any
) -> None:
    """The service does not handle them."""
    reply = web.post(f"{server.url}{PROXY}/{path}", json=payload)

    assert (reply.status_code, reply.json()) == (500, {"message": "Internal Server Error"})
