"""Relationships, the library, the cluster's part and lambda starts over plain HTTP: what the service answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from tests.client.definitions import DSL, LAMBDA, dsl, relationship

BUCKET = {"accessKeyID": "i", "secretAccessKey": "k", "bucket": "b", "endpoint": "e"}
PULL = {"username": "somebody", "password": "a-password", "server": "quay.example"}
DISABLED = "Unable to create dataset because of dataset_create() "


@pytest.fixture
def both(web: httpx.Client, server: LocalServer) -> None:
    """The experiments `demo` and `surrogate`."""
    other = server.example("demo")
    other["metadata"]["package"]["name"] = "surrogate"
    for definition in (server.example("demo"), other):
        assert web.post("/experiments/", json=definition).status_code == 200


REFUSED: list[tuple[str, str, Any, int, dict[str, Any]]] = [
    ("GET", "/relationships/ghost", None, 404, {"unknownRelationship": "ghost", "message": "Unknown relationship"}),
    ("DELETE", "/relationships/ghost/", None, 404, {"unknownRelationship": "ghost", "message": "Unknown relationship"}),
    ("POST", "/relationships/ghost/synthesize/new", {}, 400, {"message": "ghost"}),
    (
        "GET",
        "/relationships/ghost/preview/synthesize/dsl/",
        None,
        400,
        {"problem": "ghost", "message": "Invalid payload, reason: ghost"},
    ),
    (
        "GET",
        "/relationships/x/preview/synthesize/dsl/?dslVersion=3",
        None,
        400,
        {
            "errors": {"dslVersion": "DSL version to return The value '3' is not a valid choice for 'dslVersion'."},
            "message": "Input payload validation failed",
        },
    ),
    (
        "POST",
        "/relationships/",
        {"identifier": "r"},
        500,
        {"message": "Internal error while registering relationship"},
    ),
    (
        "POST",
        "/relationships/",
        relationship(),
        400,
        {
            "problem": 'Cannot find Parameterised Virtual Experiment Package "surrogate:latest"',
            "message": "Invalid relationship",
        },
    ),
    ("POST", "/query/relationships/", {}, 500, {"message": "Internal Server Error"}),
    ("POST", "/query/relationships/", {"identifier": "("}, 500, {"message": "Internal Server Error"}),
    (
        "POST",
        "/query/experiments/",
        {"relationship": {"identifier": "r"}},
        400,
        {"message": 'Unknown relationship "r"'},
    ),
    (
        "POST",
        "/query/experiments/",
        {"common": {"mustHaveOnePackage": False}},
        400,
        {
            "message": "Invalid query for parameterised virtual experiments "
            "{'common': {'matchPackageVersion': False, 'mustHaveOnePackage': False}}"
        },
    ),
    ("GET", "/library/ghost/", None, 400, {"message": "Graph does not exist"}),
    ("DELETE", "/library/ghost/", None, 404, {"graphName": "ghost", "message": "Graph does not exist"}),
    (
        "POST",
        "/library/",
        [],
        400,
        {
            "problems": [{"message": "Unexpected type of parameter to validate() <class 'list'>"}],
            "message": "Invalid graph",
        },
    ),
    (
        "POST",
        "/utilities/pvep/",
        {},
        400,
        {
            "problems": [
                {"problem": 'Expected a dictionary with key "dsl" that contains the DSL 2.0 definition of a workflow'}
            ],
            "message": "Invalid payload",
        },
    ),
    (
        "POST",
        "/internal-experiments/",
        {"workflow": {}},
        400,
        {"problems": [{"message": "Missing field 'dsl'"}], "message": "Invalid payload to endpoint"},
    ),
    (
        "POST",
        "/internal-experiments/",
        {"workflow": None},
        500,
        {
            "problems": [
                {
                    "problem": "'NoneType' object is not subscriptable",
                    "message": "Internal error while registering internal-experiment - contact the administrator of "
                    "this ST4SD deployment",
                }
            ],
            "message": "Internal error while registering internal-experiment - contact the administrator of this ST4SD "
            "deployment",
        },
    ),
    (
        "POST",
        "/image-pull-secrets/st4sd-internal-experiments",
        PULL,
        422,
        {"message": "imagePullSecret <built-in function id> conflicts with existing Secret object with the same name"},
    ),
    ("POST", "/datasets/s3/x", {"more": 1}, 400, {"message": f"{DISABLED}got an unexpected keyword argument 'more'"}),
    (
        "POST",
        "/datasets/s3/x",
        {"bucket": "b"},
        400,
        {
            "message": f"{DISABLED}missing 3 required positional arguments: "
            "'accessKeyID', 'secretAccessKey', and 'endpoint'"
        },
    ),
    (
        "POST",
        "/datasets/s3/x",
        {key: BUCKET[key] for key in ("accessKeyID", "secretAccessKey", "bucket")},
        400,
        {"message": f"{DISABLED}missing 1 required positional argument: 'endpoint'"},
    ),
    ("POST", "/datasets/s3/x", [], 500, {"message": "Internal Server Error"}),
    ("POST", "/image-pull-secrets/x", {"username": "u"}, 500, {"message": "Internal Server Error"}),
    ("PUT", "/image-pull-secrets/x", [], 500, {"message": "Internal Server Error"}),
    (
        "GET",
        "/image-pull-secrets/ghost/",
        None,
        500,
        {
            "message": "Exception when listing imagePullSecret ghost - 404 Not Found: The requested URL was not found "
            "on the server. If you entered the URL manually please check your spelling and try again."
        },
    ),
    (
        "POST",
        "/experiments/lambda/start",
        {**LAMBDA, "bogus": 1},
        500,
        {
            "message": "Exception when creating lambda instance - LambdaExperimentFactory.__init__() got an unexpected "
            "keyword argument 'bogus'"
        },
    ),
    (
        "POST",
        "/experiments/lambda/start",
        {},
        500,
        {
            "message": "Exception when creating lambda instance - LambdaExperimentFactory.__init__() missing 1 "
            "required positional argument: 'lambdaFlowIR'"
        },
    ),
    (
        "POST",
        "/experiments/lambda/start",
        {"lambdaFlowIR": {"components": [{"name": "hi"}]}},
        400,
        {
            "flowirErrors": "Inconsistent FlowIR: Found 1 errors:\nInvalid value stage0.hi.command.executable=None - "
            "valid choices are [\"<class 'str'>\"]",
            "message": "Invalid lambda FlowIR",
        },
    ),
    (
        "GET",
        "/experiments/ghost/dsl",
        None,
        404,
        {"message": "There is no entry in the experiment registry that matches ghost:latest"},
    ),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"), REFUSED, ids=[f"{one[0]} {one[1]} {one[2]}"[:60] for one in REFUSED]
)
def test_a_refusal_is_that_of_the_service(
    web: httpx.Client, method: str, path: str, body: Any, status: int, told: dict[str, Any]
) -> None:
    """Status, keys and words, oddities included."""
    reply = web.request(method, path, json=body)

    assert (reply.status_code, reply.json()) == (status, told)


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/relationships/x/synthesize/new", {"more": 1}, ["more"]),
        ("/relationships/x/synthesize/new", {"options": {"generateParameterisation": []}}, None),
        ("/query/relationships/", {"transform": {"inputGraph": {"more": 1}}}, ["transform", "inputGraph", "more"]),
        ("/relationships/", {"identifier": 1}, ["identifier"]),
    ],
    ids=str,
)
def test_a_body_that_fits_no_schema_is_told_where(
    web: httpx.Client, path: str, body: Any, where: list[str] | None
) -> None:
    """The problems come one by one, each with its place."""
    reply = web.post(path, json=body)

    assert reply.status_code == 400
    (problem,) = reply.json()["problems"]
    assert problem["location"] == (where or ["options", "generateParameterisation"])
    assert set(problem) == {"type", "input", "message", "location"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/utilities/dsl/", []),
        ("/experiments/lambda/start", []),
        ("/experiments/lambda/start", {**LAMBDA, "data": [{"filename": "a"}]}),
    ],
    ids=str,
)
def test_what_the_service_did_not_foresee_breaks_it(web: httpx.Client, path: str, body: Any) -> None:
    """It is a 500 there, and so it is here."""
    reply = web.post(path, json=body)

    assert reply.status_code == 500
    assert reply.json()["message"]


def test_flowir_that_is_none_is_refused(web: httpx.Client) -> None:
    """Before its components are looked at."""
    reply = web.post("/experiments/lambda/start", json={"lambdaFlowIR": []})

    assert reply.status_code == 400
    assert "Found 1 errors" in reply.json()["flowirErrors"]


@pytest.mark.usefixtures("both")
def test_a_synthesized_experiment_has_no_single_base_package(web: httpx.Client) -> None:
    """So that no relationship can name it without saying which; and its inheritance goes with its parents."""
    web.post("/relationships/", json=relationship()).raise_for_status()
    platforms = {"parameterisation": {"executionOptions": {"platform": ["default"]}}}
    made = web.post("/relationships/cheaper/synthesize/both", json=platforms).json()["result"]
    body = relationship()
    body["transform"]["inputGraph"] = {"identifier": "both"}

    reply = web.post("/relationships/", json=body)
    web.delete("/experiments/surrogate").raise_for_status()

    assert made["parameterisation"]["executionOptions"]["platform"] == ["default"]
    assert reply.status_code == 400
    assert "points to a package with 2 base packages" in reply.json()["problem"]
    assert web.get("/experiments/both/package-inheritance").json() == {"result": {"variables": {}}}


@pytest.mark.usefixtures("both")
def test_items_are_served_with_and_without_a_slash(web: httpx.Client) -> None:
    """Collections and graphs need it, datasets never have one."""
    web.post("/relationships/", json=relationship()).raise_for_status()
    web.post("/library/", json=DSL).raise_for_status()
    web.post("/image-pull-secrets/x", json=PULL).raise_for_status()
    paths = [
        "/relationships/cheaper",
        "/relationships/cheaper/preview/synthesize/dsl",
        "/image-pull-secrets/x",
        "/experiments/demo/dsl",
    ]

    assert [web.get(path).status_code for path in paths] == [200] * 4
    assert [web.get(f"{path}/").status_code for path in paths] == [200] * 4
    needed = ["/relationships", "/library", "/library/main", "/datasets", "/image-pull-secrets"]
    assert [web.get(path).status_code for path in needed] == [308] * 5
    assert web.post("/datasets/s3/x/", json=BUCKET).status_code == 404


@pytest.mark.usefixtures("both")
def test_relationships_are_shown_in_three_forms(web: httpx.Client) -> None:
    """As JSON, and as the text of a Python dictionary in one line or in several."""
    entry = web.post("/relationships/", json=relationship()).json()["entry"]
    forms = ("json", "python", "python-pretty")

    shown, line, pretty = (
        web.get("/relationships/", params={"outputFormat": form}).json()["entries"][0] for form in forms
    )

    assert entry["description"] is None
    assert "description" not in shown
    assert line == str(shown)
    assert "\n" in pretty


@pytest.mark.usefixtures("both")
def test_the_policy_says_whose_variables_win(web: httpx.Client, server: LocalServer) -> None:
    """Those of the output graph unless the relationship wants it the other way round."""
    other = server.example("demo")
    other["metadata"]["package"]["name"] = "surrogate"
    other["parameterisation"]["presets"] = {"variables": [{"name": "scale", "value": "7"}]}
    other["parameterisation"]["executionOptions"]["variables"] = []
    web.post("/experiments/", json=other).raise_for_status()
    values = []

    for policy in ("outputGraphOverridesInputGraph", "inputGraphOverridesOutputGraph"):
        body = relationship()
        body["transform"]["relationship"] = {"variablesMergePolicy": policy, "inferParameters": False}
        entry = web.post("/relationships/", json=body).json()["entry"]
        assert entry["transform"]["relationship"]["graphParameters"] == []
        registry = web.post("/relationships/cheaper/synthesize/new", json={}).json()["result"]["metadata"]["registry"]
        values.append(registry["executionOptionsDefaults"]["variables"][0]["valueFrom"][0]["value"])

    assert values == ["1", "7"]


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ({"identifier": ""}, "Identifier cannot be empty"),
        ({"identifier": "demo", "components": ["a", "stage0.a"]}, "multiple references to components ['stage0.a']"),
        ({"identifier": "demo", "components": ["a/b"]}, 'invalid [stage<index>.]<componentName> = "a/b"'),
    ],
    ids=str,
)
def test_a_graph_that_is_none_is_refused(web: httpx.Client, graph: dict[str, Any], words: str) -> None:
    """The problem says where and what."""
    body = relationship()
    body["transform"]["outputGraph"] = graph

    reply = web.post("/relationships/", json=body)

    assert reply.status_code == 400
    (problem,) = reply.json()["problems"]
    assert problem["location"] == ["transform", "outputGraph"]
    assert words in problem["message"]


def test_a_secret_of_another_kind_is_left_alone(server: LocalServer, web: httpx.Client) -> None:
    """A dataset and an image pull secret of one name do not disturb each other; a second one is a conflict."""
    assert web.post("/datasets/s3/x", json=BUCKET).json() == "OK"
    assert web.post("/image-pull-secrets/x", json=PULL).json() == "Success"

    again = web.post("/image-pull-secrets/x", json=PULL)

    assert (again.status_code, again.json()["message"]) == (
        409,
        "imagePullSecret already exists but has not become available yet",
    )
    assert web.get("/datasets/").json() == ["x"]
    assert web.get("/image-pull-secrets/").json() == {"x": ["quay.example"]}


def test_a_lambda_takes_the_last_of_two_files(web: httpx.Client, server: LocalServer) -> None:
    """As the service does, which tells nobody."""
    files = [{"filename": "msg.txt", "content": text} for text in ("one", "two")]
    body = {**LAMBDA, "data": files, "validate_flowir": False, "environmentVariables": {"A": 1}}

    reply = web.post("/experiments/lambda/start", json=body)
    server.advance(100)

    assert reply.status_code == 200
    instance = web.get(f"/instances/{reply.json()}").json()
    assert instance["status"]["exit-status"] == "Success"
    assert instance["experiment"] == {}
    assert instance["status"]["meta"]["instanceName"].startswith(f"{reply.json()}-")


def test_the_arguments_of_a_graph_are_dropped(web: httpx.Client) -> None:
    """And an entrypoint is made up where there is one workflow to begin with."""
    graph = dsl()
    del graph["entrypoint"]

    added = web.post("/library/", json=graph).json()["graph"]

    assert added["entrypoint"]["entry-instance"] == "main"
    assert added["entrypoint"]["execute"] == [{"target": "<entry-instance>", "args": {}}]
