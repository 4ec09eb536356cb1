"""Experiments are pushed, found, tagged, deleted and started as in the recorded service."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from tests.local.helpers import definition, start
from tests.tries import sample


def test_a_push_is_completed_and_stored(server: LocalServer, web: httpx.Client) -> None:
    """The response is the definition with its defaults and ``metadata.registry``, in the recorded order."""
    server.describe("toy", inputs=["in.csv"], data=["d.txt"], outputs={"B": b"", "A": b""}, variables={"n": "3"})
    options = {"variables": [{"name": "n"}], "data": [{"name": "d.txt"}]}

    result = web.post("/experiments/", json=definition(options=options)).json()["result"]

    registry = result["metadata"].pop("registry")
    assert list(result) == ["base", "metadata", "parameterisation"]
    assert list(result["base"]) == ["packages", "connections", "includePaths", "output"]
    assert list(result["base"]["packages"][0]) == ["name", "source", "dependencies", "config", "graphs"]
    assert result["base"]["packages"][0]["source"]["git"]["version"]
    assert result["parameterisation"]["presets"] == {
        "variables": [],
        "runtime": {"resources": {}, "args": []},
        "data": [],
        "environmentVariables": [],
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0000", registry.pop("createdOn"))
    assert re.fullmatch(r"sha256x[0-9a-f]{56}", registry.pop("digest"))
    assert registry == {
        "tags": ["v1", "latest"],
        "timesExecuted": 0,
        "interface": {},
        "inputs": [{"name": "in.csv"}],
        "data": [{"name": "d.txt"}],
        "containerImages": [],
        "executionOptionsDefaults": {
            "variables": [{"name": "n", "valueFrom": [{"value": "3", "platform": "default"}]}]
        },
        "platforms": ["default"],
        "output": [{"name": "A"}, {"name": "B"}],
        "applicationDependencies": {"default": []},
    }


def test_defaults_of_the_definition_win_on_every_platform(server: LocalServer, web: httpx.Client) -> None:
    """A value in the definition is the default on all platforms that it lists."""
    options = {"variables": [{"name": "n", "value": "1"}], "platform": ["openshift", "default"]}
    server.describe("toy", variables={"n": "9", "m": "2"})

    result = web.post("/experiments/", json=definition(options=options)).json()["result"]

    assert result["metadata"]["registry"]["executionOptionsDefaults"]["variables"] == [
        {
            "name": "n",
            "valueFrom": [{"value": "1", "platform": "openshift"}, {"value": "1", "platform": "default"}],
        },
        {"name": "m", "valueFrom": [{"value": "2", "platform": "default"}]},
    ]


def test_the_same_content_has_the_same_digest(web: httpx.Client, push: Any) -> None:
    """The same content with another description adds no entry; other content does, and moves the old one to the end."""
    first = push()
    described = definition()
    described["metadata"]["package"]["description"] = "another"

    second = web.post("/experiments/", json=described).json()["result"]
    third = push(variables=[{"name": "n"}])

    digests = [entry["metadata"]["registry"]["digest"] for entry in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]
    entries = web.get("/experiments/").json()["entries"]
    assert [entry["metadata"]["registry"]["tags"] for entry in entries] == [["v1", "latest"], []]
    history = web.get("/experiments/toy/history/").json()
    assert [entry["head"] for entry in history["tags"]] == [digests[2]] * 2
    assert [(entry["digest"], entry["originalTag"]) for entry in history["untagged"]] == [
        (digests[0], "v1"),
        (digests[0], "latest"),
    ]


def test_experiments_are_found_by_name_tag_and_digest(web: httpx.Client, push: Any) -> None:
    """All identifiers give the same entry; its beta fields and registry can be hidden."""
    digest = push()["metadata"]["registry"]["digest"]

    replies = [web.get(f"/experiments/{identifier}").text for identifier in ("toy", "toy/", "toy:v1", f"toy@{digest}")]
    bare = web.get("/experiments/toy?hideMetadataRegistry=y&hideBeta=n&hideNone=n").json()["entry"]

    assert len(set(replies)) == 1
    entry = json.loads(replies[0])
    assert list(entry) == ["entry", "problems"]
    assert list(entry["entry"]["base"]) == ["packages"]
    assert "graphs" not in entry["entry"]["base"]["packages"][0]
    assert list(bare["metadata"]) == ["package"]
    assert bare["metadata"]["package"]["license"] is None
    assert "connections" in bare["base"]
    assert web.get("/experiments/toy?outputFormat=python").json()["entry"].startswith("{'base': {'packages'")


def test_tags_move_and_latest_stays(web: httpx.Client, push: Any) -> None:
    """New tags replace old ones, unless latest would be lost."""
    push()

    lost = web.put("/experiments/toy:latest/tag", params={"newTags": "v2"})
    moved = web.put("/experiments/toy/tag", params={"newTags": "latest,v2"})

    assert (lost.status_code, lost.json()["cannotUntagLatestFrom"]) == (400, "toy:latest")
    assert (moved.status_code, moved.text) == (200, '"OK"\n')
    assert web.get("/experiments/toy:v2").status_code == 200
    assert web.get("/experiments/toy:v1").status_code == 404


def test_a_deleted_experiment_is_gone_and_its_siblings_stay(web: httpx.Client, push: Any) -> None:
    """Deletion by name removes only the latest entry."""
    digest = push()["metadata"]["registry"]["digest"]
    push(variables=[{"name": "n"}])

    first, second = web.delete("/experiments/toy"), web.delete("/experiments/toy")

    assert (first.status_code, first.json()) == (200, {"deleted": 1})
    assert second.status_code == 404
    assert web.get(f"/experiments/toy@{digest}").status_code == 200


REFUSED_PUSHES: list[tuple[str, Any, str, str]] = [
    (
        "not an object",
        [],
        "invalidVirtualExperimentDefinition",
        "dictionary or instance of ParameterisedPackage",
    ),
    (
        "unknown key",
        {"nope": 1},
        "invalidVirtualExperimentDefinition",
        "nope\n  Extra inputs are not permitted",
    ),
    (
        "unknown key deep inside",
        {"base": {"packages": [{"source": {"git": {"location": {"url": "u", "x": 1}}}}]}},
        "invalidVirtualExperimentDefinition",
        "base.packages.0.source.git.location.x\n  Extra inputs",
    ),
    (
        "branch and tag",
        {"base": {"packages": [{"source": {"git": {"location": {"url": "u", "tag": "a", "branch": "b"}}}}]}},
        "invalidVirtualExperimentDefinition",
        "more than 1 of branch, tag, or commit",
    ),
    (
        "no package",
        {"base": {"packages": []}},
        "invalidVirtualExperimentDefinition",
        "at least 1 base package",
    ),
    (
        "bad name",
        {"metadata": {"package": {"name": "Not_Valid"}}},
        "invalidVirtualExperimentDefinition",
        "Invalid metadata.package.name Not_Valid",
    ),
    ("no name", {}, "problem", "The virtual experiment does not have a name"),
]


@pytest.mark.parametrize(
    ("value", "key", "text"), [row[1:] for row in REFUSED_PUSHES], ids=[row[0] for row in REFUSED_PUSHES]
)
def test_invalid_definitions_are_rejected(web: httpx.Client, value: Any, key: str, text: str) -> None:
    """A definition that does not match the schema or has no name is 400 with the reason."""
    reply = web.post("/experiments/", json=value)

    assert reply.status_code == 400
    assert list(reply.json()) == [key, "message"]
    assert text in reply.json()[key]


def test_unreadable_packages_are_rejected(server: LocalServer, web: httpx.Client) -> None:
    """A described problem, a missing repository and missing data files reject a push."""
    server.describe("broken", problem="Invalid platform default in base package main")
    server.describe("known", data=["a.txt"])
    missing = definition("missing")
    missing["base"]["packages"][0]["source"]["git"]["location"]["url"] = "file:///does/not/exist"

    described = web.post("/experiments/", json=definition("broken")).json()
    absent = web.post("/experiments/", json=missing).json()
    other = web.post("/experiments/", json=definition("known", {"data": [{"name": "b.txt"}]})).json()

    assert described == {
        "problem": "Invalid platform default in base package main",
        "message": "Invalid payload, reason: Invalid platform default in base package main",
    }
    assert absent["problem"].startswith("Cannot git-clone with location {'url': 'file:///does/not/exist'")
    assert "data[0].name=b.txt is not part of metadata.registry.data" in other["problem"]


IN = {"filename": "in.csv", "content": "x"}
BUCKET = {"accessKeyID": "a", "secretAccessKey": "b", "bucket": "c", "endpoint": "http://127.0.0.1:9"}
REFUSED_STARTS: list[tuple[str, Any, int, dict[str, Any]]] = [
    (
        "null",
        None,
        400,
        {"invalidStartPayload": "1 validation error for DeprecatedExperimentStartPayload\n  Input"},
    ),
    (
        "not a list",
        {"inputs": "nope"},
        400,
        {"invalidStartPayload": "inputs\n  Input should be a valid list"},
    ),
    ("unknown field", {"bogus": 1}, 400, {"invalidStartPayload": "bogus\n  Extra inputs are not permitted"}),
    ("missing", {}, 400, {"missingInputs": ["in.csv"], "message": "Missing inputs: ['in.csv']."}),
    (
        "extra",
        {"inputs": [IN, {"filename": "x", "content": "x"}]},
        400,
        {"extraInputs": ["x"], "message": "Extra inp"},
    ),
    ("conflict", {"inputs": [IN], "data": [IN]}, 400, {"reason": "conflicting names: ['in.csv']"}),
    (
        "empty content",
        {"inputs": [{"filename": "in.csv", "content": ""}]},
        400,
        {
            "reason": "{'filename': 'in.csv', 'content': ''} is invalid because there is no S3/Dataset "
            "security configuration"
        },
    ),
    (
        "no content",
        {"inputs": [{"filename": "in.csv"}]},
        400,
        {"reason": "no S3/Dataset"},
    ),
    (
        "half a bucket",
        {"inputs": [{"filename": "in.csv"}], "s3": {"bucket": "b", "endpoint": "e"}},
        400,
        {"reason": "security.s3Input.s3Ref is missing accessKeyID, secretAccessKey"},
    ),
    (
        "no name there",
        {"inputs": [{"filename": "folder/"}], "s3": BUCKET},
        400,
        {"reason": "Could not determine the name of the inputs file"},
    ),
    (
        "unknown volume",
        {"inputs": [{"filename": "in.csv", "volume": "v"}]},
        400,
        {"reason": "There is no volume v definition for inputs file"},
    ),
    (
        "volume of no kind",
        {"inputs": [IN], "volumes": [{"type": {}}]},
        400,
        {
            "invalidStartPayload": "1 validation error for PayloadVolume\ntype\n  Field required [type=missing, "
            "input_value={}, input_type=dict]\n    For further information visit https://errors.pydantic.dev/2.14/v/missing"
        },
    ),
    (
        "folder of a configMap",
        {"inputs": [IN], "volumes": [{"type": {"configMap": "c"}, "subPath": "x"}]},
        400,
        {"invalidStartPayload": "type.configMap.subPath\n  Extra inputs are not permitted"},
    ),
    (
        "volume mounted twice",
        {"inputs": [IN], "volumes": [{"type": {"dataset": "c"}}, {"type": {"persistentVolumeClaim": "c"}}]},
        400,
        {"reason": "The following volumes are mounted multiple times: pvc-c"},
    ),
    (
        "two volumes of one identifier",
        {
            "inputs": [IN],
            "volumes": [{"type": {"secret": kind}, "identifier": "v"} for kind in ("a", "b")],
        },
        400,
        {"reason": "The following volumes have been defined multiple times ['v']"},
    ),
    (
        "volume repeated with its identifier",
        {
            "inputs": [{"filename": "in.csv", "volume": "v"}],
            "volumes": [{"type": {"secret": "a"}, "identifier": "v"}] * 2,
        },
        400,
        {"reason": "There is no volume v definition for inputs file"},
    ),
    ("no credentials", {"inputs": [IN], "s3Store": {}}, 400, {"reason": "has no attribute 'model_dump'"}),
    (
        "dataset as credentials",
        {"inputs": [IN], "s3Store": {"credentials": {"dataset": "d"}}},
        400,
        {"invalidStartPayload": "dataset\n  Extra inputs are not permitted"},
    ),
    (
        "half a store",
        {"inputs": [IN], "s3Store": {"credentials": {**BUCKET, "bucket": None}}},
        400,
        {"reason": "security.s3Output.s3Ref is missing bucket"},
    ),
    (
        "two stores",
        {"inputs": [IN], "s3Store": {"credentials": BUCKET}, "datasetStoreURI": "dataset://d"},
        400,
        {"reason": "does not contain PayloadExecutionOptions.security.s3Output.s3Ref"},
    ),
    (
        "the store's own variables",
        {"inputs": [IN], "s3Store": {"credentials": BUCKET}, "environmentVariables": {"S3_END_POINT": "x"}},
        400,
        {"reason": "injects env vars S3_ACCESS_KEY_ID, S3_END_POINT, S3_SECRET_ACCESS_KEY"},
    ),
    (
        "no address of a dataset",
        {"inputs": [IN], "datasetStoreURI": "s3://d"},
        400,
        {"reason": "it should begin with dataset://"},
    ),
    (
        "variable",
        {"inputs": [IN], "variables": {"nope": 1}},
        400,
        {"message": "Payload sets variable nope = 1 for which parameterisation.executionOptions.variables has no rule"},
    ),
    (
        "choice",
        {"inputs": [IN], "variables": {"mode": "c"}},
        400,
        {"message": "mode = c does not have an allowed value. Valid choices are"},
    ),
    (
        "data",
        {"inputs": [IN], "data": [{"filename": "z", "content": "x"}]},
        400,
        {"message": "Filenames are ['z']"},
    ),
    (
        "platform",
        {"inputs": [IN], "platform": "p"},
        400,
        {"message": "executionOptions.platform=['default']"},
    ),
    ("policy", {"inputs": [IN], "runtimePolicy": {"name": "zzz"}}, 500, {"message": "Internal Server Error"}),
]


@pytest.mark.parametrize(
    ("payload", "status", "facts"),
    [row[1:] for row in sample(REFUSED_STARTS, 14)],
    ids=[row[0] for row in sample(REFUSED_STARTS, 14)],
)
def test_invalid_payloads_are_rejected(
    server: LocalServer, web: httpx.Client, push: Any, payload: Any, status: int, facts: dict[str, Any]
) -> None:
    """Each error has the recorded status, keys and text, and nothing is started."""
    server.describe("toy", inputs=["in.csv"], data=["d.txt"])
    choices = [{"value": "a"}, {"value": "b"}]
    push(variables=[{"name": "mode", "valueFrom": choices}], data=[{"name": "d.txt"}], platform=["default"])

    headers = {"Content-Type": "application/json"}
    reply = web.post("/experiments/toy/start", content=json.dumps(payload), headers=headers)

    body = reply.json()
    assert reply.status_code == status
    assert set(body) == {*facts, "message"}
    for key, value in facts.items():
        assert body[key] == value if isinstance(value, list) else value in body[key]
    assert web.get("/instances/").json() == []


def test_a_start_returns_an_id_and_is_counted(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The response is a bare string: name, six digits of the digest, eight characters. Values become text."""
    digest = push(variables=[{"name": "n", "value": "1"}])["metadata"]["registry"]["digest"]

    reply = web.post("/experiments/toy/start", json={"variables": {"n": True}, "metadata": {"a": 1.5}})

    rest_uid = reply.json()
    assert re.fullmatch(f'"toy-{digest[7:13]}-[0-9a-z]{{8}}"\n', reply.text)
    assert web.get("/experiments/toy").json()["entry"]["metadata"]["registry"]["timesExecuted"] == 1
    assert web.get(f"/instances/{rest_uid}").json()["k8s-labels"] == {
        "rest-uid": rest_uid,
        "workflow": rest_uid,
        "st4sd-package-name": "toy",
        "st4sd-package-digest": digest,
    }


def test_the_skeleton_shows_what_a_start_needs(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The skeleton contains inputs, data and variables as magic values with an explanation of each."""
    server.describe("toy", inputs=["in.csv"], data=["d.txt"], variables={"n": "3"})
    choices = [{"value": "a"}, {"value": "b"}]
    push(
        variables=[{"name": "n"}, {"name": "mode", "valueFrom": choices}],
        data=[{"name": "d.txt"}],
        platform=["default", "openshift"],
    )

    skeleton = web.get("/experiments/toy/start/payload/").json()

    payload, magic = skeleton["payload"], skeleton["magicValues"]
    assert list(skeleton) == ["payload", "magicValues", "problems", "message"]
    assert payload["inputs"] == [{"filename": "in.csv", "content": "{{RequiredInputs_in.csv}}"}]
    assert payload["data"] == [{"filename": "d.txt", "content": "{{OptionalData_d.txt}}"}]
    assert payload["platform"] == "{{OptionalPlatform}}"
    assert payload["variables"] == {"n": "{{OptionalVariable_n}}", "mode": "{{OptionalVariable_mode}}"}
    assert {**magic["{{OptionalVariable_n}}"], "message": ""} == {
        "message": "",
        "choices": None,
        "defaultFromPlatform": {"default": "3", "openshift": "3"},
    }
    assert magic["{{OptionalVariable_n}}"]["message"] == (
        "You **may** set the field variables.n to override its default value. You **may** set the value of the field "
        "to any string. The default value of this variable depends on experiment platform you select: "
        "{'default': '3', 'openshift': '3'}"
    )
    assert magic["{{OptionalVariable_mode}}"]["message"] == (
        "You **may** set the field variables.mode to override its default value. You **must** set the value of the "
        "field to one of ['a', 'b']. The default value of this variable is a"
    )
    assert magic["{{OptionalPlatform}}"]["message"] == (
        "You **may** configure the experiment platform using one of the values ['default', 'openshift']"
    )
    assert magic["{{RequiredInputs_in.csv}}"]["message"].startswith("You **must** set the content of the input file")
    assert magic["{{OptionalData_d.txt}}"]["message"].startswith("You **may** set the content of the data file d.txt")
    assert magic["{{OptionalVariable_mode}}"]["choices"] == ["a", "b"]
    assert magic["{{OptionalVariable_mode}}"]["default"] == "a"


@pytest.mark.parametrize(
    ("inputs", "data", "beginning"),
    [
        (["in.csv"], [], "You **must** fill in the inputs field. You"),
        ([], ["d.txt"], "You **may** fill in the inputs field. You"),
        (["in.csv"], ["d.txt"], "You **must** fill in the inputs field and **may** fill in the data field. You"),
    ],
)
def test_the_skeleton_says_which_files_to_fill_in(
    server: LocalServer, web: httpx.Client, push: Any, inputs: list[str], data: list[str], beginning: str
) -> None:
    """The text depends on the kinds of files; one of them is about inputs in any case."""
    server.describe("toy", inputs=inputs, data=data)
    push(data=[{"name": name} for name in data])

    magic = web.get("/experiments/toy/start/payload/").json()["magicValues"]

    assert magic["{{OptionalS3OrDatasetDownload}}"]["message"].startswith(beginning)


@pytest.mark.parametrize(
    "source",
    [
        {"inputs": [{"filename": "in.csv"}], "s3": {"dataset": "d"}},
        {
            "inputs": [{"filename": "in.csv", "volume": "v"}],
            "volumes": [{"type": {"configMap": "d"}, "identifier": "v"}],
        },
    ],
)
def test_files_of_an_unknown_dataset_fail_in_an_init_container(
    server: LocalServer, web: httpx.Client, push: Any, source: dict[str, Any]
) -> None:
    """The start is accepted, as only the cluster knows datasets and volumes; the list never shows the failure."""
    server.describe("toy", inputs=["in.csv"])
    push()

    rest_uid = start(web, **source)
    server.advance(5)
    status = web.get(f"/instances/{rest_uid}/status").json()

    assert (status["experiment-state"], status["exit-status"], status["meta"]) == ("failed", "", {})
    assert status["error-description"].startswith("initContainer failure: s3-fetch failed with exit code 1")
    assert "'d': create it with server.mount()" in status["error-description"]
    listed = web.get("/instances/").json()[0]["status"]
    assert (listed["experiment-state"], listed["meta"]) == (None, None)


def test_a_volume_with_two_identifiers_is_known_by_both(
    server: LocalServer, web: httpx.Client, push: Any, tmp_path: Path
) -> None:
    """Entries that differ only in the identifier are one volume."""
    (tmp_path / "in.csv").write_text("x")
    server.describe("toy", inputs=["in.csv"])
    server.mount("dataset", "d", tmp_path)
    push()
    volumes = [{"type": {"dataset": "d"}, "identifier": identifier} for identifier in ("v", "w")]

    for identifier in ("v", "w"):
        start(web, inputs=[{"filename": "in.csv", "volume": identifier}], volumes=volumes)

    assert [accepted.problem for accepted in server.started] == [None, None]


@pytest.mark.parametrize(("platforms", "is_kept"), [([], True), (["big"], True), (["big", "default"], False)])
def test_interface_is_lost_with_several_platforms(
    platforms: list[str], is_kept: bool, server: LocalServer, push: Any
) -> None:
    """The service does not merge the interfaces of the platforms that a definition allows."""
    interface = {"propertiesSpec": [{"name": "energy"}]}
    server.describe("toy", interface=interface)

    registry = push(platform=platforms)["metadata"]["registry"]

    assert registry["interface"] == (interface if is_kept else {})
