"""Instances have the outputs, properties and list items of the recorded service."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import httpx

from st4sd_async.local import LocalServer
from tests.local.helpers import BAD_REQUEST, MOLECULES, start


def test_key_outputs_are_served_as_by_the_service(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Files, zips and folders have their types and names; sub-paths cannot leave the folder."""
    folder = {"a.txt": b"a", "sub/b.bin": b"\0\1", 'sub/caf\u00e9 "x".txt': b"unicode\n"}
    server.describe("toy", outputs={"Table": b"x,y\n", "bundle.zip": b"PK", "Folder": folder})
    push()
    run = f"/instances/{start(web)}"
    server.advance(10)

    listed = web.get(f"{run}/outputs").json()
    assert listed["Table"]["filepath"].startswith("stages/")
    assert all(isinstance(value, str) for value in listed["Table"].values())
    table = web.get(f"{run}/outputs/Table/")
    assert (table.content, table.headers["content-type"]) == (b"x,y\n", "application/octet-stream")
    assert table.headers["content-disposition"] == 'attachment; filename="Table"'
    assert web.head(f"{run}/outputs/Table").headers["content-length"] == "4"
    assert web.get(f"{run}/outputs/bundle.zip").headers["content-type"] == "application/.zip"
    assert web.get(f"{run}/outputs/Folder/sub/b.bin").content == b"\0\1"
    odd = web.get(f"{run}/outputs/Folder/sub/caf%C3%A9%20%22x%22.txt")
    raw = dict(odd.headers.raw)[b"content-disposition"]
    assert raw == 'attachment; filename="caf\u00e9 "x".txt"'.encode()
    errors = {
        f"{run}/outputs/Folder/..%2f..%2f..%2felaunch.yaml": (400, "fileInFolder"),
        f"{run}/outputs/Folder/..%2fTable": (400, "fileInFolder"),
        f"{run}/outputs/Folder/none.txt": (404, "missingPath"),
        f"{run}/outputs/Table/x": (400, "isFolder"),
        f"{run}/outputs/Nope": (404, "unknownOutput"),
    }
    for path, (status, key) in errors.items():
        reply = web.get(path)
        assert (reply.status_code, list(reply.json())) == (status, [key, "message"])


def test_folders_are_zips_with_slashes_and_without_empty_directories(
    server: LocalServer, web: httpx.Client, push: Any
) -> None:
    """Members start with a slash and have zip64 sizes and data descriptors."""
    server.describe("toy", outputs={"Folder": {"sub/b.bin": b"b" * 100, "a.txt": b"a"}})
    push()
    run = f"/instances/{start(web)}"
    server.advance(10)

    reply = web.get(f"{run}/outputs/Folder")

    assert reply.headers["content-type"] == "application/zip"
    assert reply.headers["content-disposition"] == 'attachment; filename="Folder.zip"'
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.namelist() == ["/a.txt", "/sub/b.bin"]
        assert archive.read("/sub/b.bin") == b"b" * 100
        assert all(member.flag_bits & 0x08 for member in archive.infolist())
    assert reply.content[18:26] == b"\xff" * 8


def test_properties_are_a_table_with_bare_nan(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Missing numbers are bare NaN, or text on request; unknown columns are dropped, input-id is kept."""
    interface = {"inputSpec": {"namingScheme": "SMILES"}}
    text = "input-id;smiles;energy;n;ok\nCCO;CCO;-4.5;1;True\nNAN;NAN;;2;False\n"
    server.describe("toy", interface=interface, properties=text)
    push()
    run = f"/instances/{start(web)}"
    server.advance(10)

    everything = web.get(f"{run}/properties")
    one = web.get(f"{run}/properties?includeProperties=Energy,zzz&stringifyNaN=True")
    within = web.get(f"{run}?includeProperties=&stringifyNaN=true").json()

    assert everything.text == (
        '{"input-id": ["CCO", "NAN"], "smiles": ["CCO", "NAN"], "energy": [-4.5, NaN], "n": [1, 2], '
        '"ok": [true, false]}\n'
    )
    assert one.json() == {"input-id": ["CCO", "NAN"], "energy": [-4.5, "NaN"]}
    table = within["experiment"]["metadata"]["registry"]["interface"]["propertyTable"]
    assert table["energy"] == [-4.5, "NaN"]
    refused = web.get(f"{run}/properties?stringifyNaN=maybe")
    text = (
        "A boolean flag that allows converting NaN and infinite values to strings. Invalid literal for boolean(): maybe"
    )
    assert (refused.status_code, refused.json()["errors"]) == (400, {"stringifyNaN": text})


def test_properties_depend_on_the_state_of_the_run(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """500 without a status, 400 without meta, 400 with a key while running, 404 once finished."""
    push()
    run = f"/instances/{start(web)}"
    seen = []
    for seconds in (0.0, 0.5, 1.0, 10.0):
        server.advance(seconds)
        alone, within = web.get(f"{run}/properties"), web.get(f"{run}?includeProperties=*")
        seen.append((alone.status_code, list(alone.json()), within.status_code, list(within.json())))

    assert seen == [
        (500, ["message"], 500, ["message"]),
        (400, ["message"], 500, ["message"]),
        (400, ["propertiesNotAvailableYet", "message"], 400, ["propertiesNotAvailableYet", "message"]),
        (404, ["unknownProperties", "message"], 404, ["unknownProperties", "message"]),
    ]


def test_the_list_is_marshalled(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Items have all fields with null if missing, no name, and the whole definition."""
    push(variables=[{"name": "n"}])
    start(web)
    early = web.get("/instances/").json()
    server.advance(10)
    late = web.get("/instances/").json()

    assert list(early[0]) == ["id", "experiment", "status", "k8s-labels", "outputs"]
    assert set(early[0]["status"].values()) == {None}
    assert late[0]["status"]["exit-status"] == "Success"
    experiment = late[0]["experiment"]
    assert experiment["base"]["packages"][0]["source"]["dataset"] == {
        "location": {"dataset": None},
        "version": None,
        "security": {"dataset": None},
    }
    assert experiment["parameterisation"]["executionOptions"]["variables"] == [
        {"name": "n", "value": None, "valueFrom": None}
    ]
    assert "platforms" not in experiment["metadata"]["registry"]


def test_a_deleted_instance_is_unknown_at_once(web: httpx.Client, push: Any) -> None:
    """A deletion returns OK; then the instance is unknown, and a second deletion is a bad request."""
    push()
    rest_uid = start(web)

    first, second = web.delete(f"/instances/{rest_uid}"), web.delete(f"/instances/{rest_uid}")

    assert (first.status_code, first.text) == (200, '"OK"\n')
    assert (second.status_code, second.json()) == (400, BAD_REQUEST)
    assert web.get(f"/instances/{rest_uid}").json()["unknownRestUID"] == rest_uid
    assert web.get("/instances/").json() == []


def test_an_example_has_the_files_of_its_programs(server: LocalServer, web: httpx.Client) -> None:
    """The results of the example depend on its input and variables."""
    web.post("/experiments/", json=server.example("demo"))
    run = f"/instances/{start(web, 'demo', inputs=[MOLECULES], variables={'scale': 2})}"
    server.advance(10)

    energies = web.get(f"{run}/outputs/Energies").text
    properties = web.get(f"{run}/properties").json()

    assert energies.splitlines()[0] == "input-id,smiles,energy,weight"
    assert "CCO,CCO,-9.0," in energies
    assert sorted(properties["input-id"]) == ["CCCC", "CCO", "NAN"]
    assert web.get(f"{run}/outputs/Folder/sub/b.bin").status_code == 200


def test_the_failing_example_fails(server: LocalServer, web: httpx.Client) -> None:
    """By default the failing example fails in its component, without key-outputs."""
    web.post("/experiments/", json=server.example("fail"))
    run = f"/instances/{start(web, 'fail')}"
    server.advance(10)

    status = web.get(f"{run}/status").json()

    assert (status["experiment-state"], status["exit-status"]) == ("finished", "Failed")
    assert "Job: stage0.Boom" in status["error-description"]
    assert web.get(f"{run}/outputs").json() == {}
