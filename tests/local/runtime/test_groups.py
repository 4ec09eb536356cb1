"""Relationships, library, datasets, secrets and lambda starts have the responses of the service."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from tests.client.definitions import DSL, LAMBDA, dsl, related, relationship
from tests.local.helpers import definition
from tests.tries import sample

BUCKET = {"accessKeyID": "i", "secretAccessKey": "k", "bucket": "b", "endpoint": "e"}
PULL = {"username": "somebody", "password": "a-password", "server": "quay.example"}
NOT_A_GRAPH = (
    "Unexpected validation error: experiment.model.frontends.dsl.Namespace() argument after ** must be a mapping, "
    "not list"
)
NOT_CREATED = "Unable to create dataset because of dataset_create() "


@pytest.fixture
def both(web: httpx.Client) -> None:
    """Push the experiments `reports` and `surrogate`."""
    for package in related():
        assert web.post("/experiments/", json=package).status_code == 200


YES_OR_NO = {"hideNone": "Whether to hide fields whose value is None", "hideBeta": "Whether to hide Beta fields"}


@pytest.mark.parametrize(
    ("path", "name", "value", "meaning"),
    [
        ("/experiments/", "outputFormat", "xml", "Output format"),
        ("/experiments/", "hideMetadataRegistry", "Y", "Whether to hide hte registry metadata or not"),
        ("/experiments/", "hideNone", "true", YES_OR_NO["hideNone"]),
        ("/experiments/toy", "hideBeta", "", YES_OR_NO["hideBeta"]),
        ("/experiments/toy/dsl", "outputFormat", "python", "Output format"),
        ("/library/", "exclude_unset", "1", "Whether to exclude fields that are unset or None from the output."),
        ("/library/x/", "exclude_none", "1", "Whether to exclude fields that have a value of `None` from the output."),
    ],
)
def test_parameters_have_few_values(
    web: httpx.Client, push: Any, path: str, name: str, value: str, meaning: str
) -> None:
    """Others are refused with the meaning of the parameter; of repeated ones the first counts."""
    push()
    problem = f"{meaning} The value '{value}' is not a valid choice for '{name}'."

    refused = web.get(path, params={name: [value, "y"]})

    assert refused.status_code == 400
    assert refused.json() == {"errors": {name: problem}, "message": "Input payload validation failed"}


def test_parameters_of_a_query_are_refused_without_a_reason(web: httpx.Client) -> None:
    """Even if there are no experiments to show, as opposed to a list."""
    refused = web.post("/query/experiments/?hideNone=maybe", json={})

    assert (refused.status_code, refused.json()) == (400, {"message": "Invalid document formatting arguments"})
    assert web.get("/experiments/?hideNone=maybe").status_code == 200


ERRORS: list[tuple[str, str, Any, int, dict[str, Any]]] = [
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
    (
        "GET",
        "/library/ghost/",
        None,
        400,
        {
            "problem": "Unable to get Graph under library/ghost/dsl.yaml due to Failed to download "
            "s3://https://s3.example@library:library/ghost/dsl.yaml due to An error occurred "
            "(NoSuchKey) when calling the GetObject operation: The specified key does not exist.",
            "message": "Invalid internal experiment payload",
        },
    ),
    (
        "POST",
        "/library/",
        [],
        400,
        {
            "problems": [{"message": NOT_A_GRAPH}],
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
            "problems": [{"message": "'NoneType' object is not subscriptable"}],
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
    (
        "POST",
        "/datasets/s3/x",
        {"more": 1},
        400,
        {"message": f"{NOT_CREATED}got an unexpected keyword argument 'more'"},
    ),
    (
        "POST",
        "/datasets/s3/x",
        {"bucket": "b"},
        400,
        {
            "message": f"{NOT_CREATED}missing 3 required positional arguments: "
            "'accessKeyID', 'secretAccessKey', and 'endpoint'"
        },
    ),
    (
        "POST",
        "/datasets/s3/x",
        {key: BUCKET[key] for key in ("accessKeyID", "secretAccessKey", "bucket")},
        400,
        {"message": f"{NOT_CREATED}missing 1 required positional argument: 'endpoint'"},
    ),
    (
        "POST",
        "/datasets/s3/x",
        [],
        400,
        {
            "message": "Unable to create dataset because of apis.datasets.dataset_create() argument after ** must be "
            "a mapping, not list"
        },
    ),
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
    ("method", "path", "body", "status", "expected"),
    sample(ERRORS, 14),
    ids=[f"{row[0]} {row[1]} {row[2]}"[:60] for row in sample(ERRORS, 14)],
)
def test_errors_are_those_of_the_service(
    web: httpx.Client, method: str, path: str, body: Any, status: int, expected: dict[str, Any]
) -> None:
    """Status, keys and texts are the same, including oddities."""
    reply = web.request(method, path, json=body)

    assert (reply.status_code, reply.json()) == (status, expected)


@pytest.mark.parametrize(
    ("path", "body", "location"),
    [
        ("/relationships/x/synthesize/new", {"more": 1}, ["more"]),
        ("/relationships/x/synthesize/new", {"options": {"generateParameterisation": []}}, None),
        ("/query/relationships/", {"transform": {"inputGraph": {"more": 1}}}, ["transform", "inputGraph", "more"]),
        ("/relationships/", {"identifier": 1}, ["identifier"]),
    ],
    ids=str,
)
def test_a_schema_error_has_a_location(web: httpx.Client, path: str, body: Any, location: list[str] | None) -> None:
    """Problems are listed one by one with their locations."""
    reply = web.post(path, json=body)

    assert reply.status_code == 400
    (problem,) = reply.json()["problems"]
    assert problem["location"] == (location or ["options", "generateParameterisation"])
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
def test_unhandled_input_is_a_server_error(web: httpx.Client, path: str, body: Any) -> None:
    """It is 500 in the service too."""
    reply = web.post(path, json=body)

    assert reply.status_code == 500
    assert reply.json()["message"]


def test_flowir_must_be_a_mapping(web: httpx.Client) -> None:
    """This is checked before its components."""
    reply = web.post("/experiments/lambda/start", json={"lambdaFlowIR": []})

    assert reply.status_code == 400
    assert "Found 1 errors" in reply.json()["flowirErrors"]


@pytest.mark.usefixtures("both")
def test_a_synthesized_experiment_has_no_single_base_package(web: httpx.Client) -> None:
    """So no relationship can name it without a package. Its inheritance stays if a parent is deleted."""
    web.post("/relationships/", json=relationship()).raise_for_status()
    platforms = {"parameterisation": {"executionOptions": {"platform": ["default"]}}}
    synthesis = web.post("/relationships/cheaper/synthesize/both", json=platforms).json()
    made = synthesis["result"]
    body = relationship()
    body["transform"]["inputGraph"] = {"identifier": "both"}

    reply = web.post("/relationships/", json=body)
    web.delete("/experiments/surrogate").raise_for_status()

    assert made["parameterisation"]["executionOptions"]["platform"] == ["default"]
    assert reply.status_code == 400
    assert "points to a package with 2 base packages" in reply.json()["problem"]
    assert list(synthesis["package-inheritance"]["variables"]) == ["scale"]
    assert web.get("/experiments/both/package-inheritance").json() == {"result": synthesis["package-inheritance"]}


@pytest.mark.slow
@pytest.mark.usefixtures("both")
def test_items_are_served_with_and_without_a_slash(web: httpx.Client) -> None:
    """Collections and graphs need a slash, datasets must not have one."""
    web.post("/relationships/", json=relationship()).raise_for_status()
    web.post("/library/", json=DSL).raise_for_status()
    web.post("/image-pull-secrets/x", json=PULL).raise_for_status()
    paths = [
        "/relationships/cheaper",
        "/relationships/cheaper/preview/synthesize/dsl",
        "/image-pull-secrets/x",
        "/experiments/reports/dsl",
    ]

    assert [web.get(path).status_code for path in paths] == [200] * 4
    assert [web.get(f"{path}/").status_code for path in paths] == [200] * 4
    needed = ["/relationships", "/library", "/library/main", "/datasets", "/image-pull-secrets"]
    assert [web.get(path).status_code for path in needed] == [308] * 5
    assert web.post("/datasets/s3/x/", json=BUCKET).status_code == 404


@pytest.mark.usefixtures("both")
def test_relationships_are_shown_in_three_forms(web: httpx.Client) -> None:
    """As JSON, or as the text of a Python dictionary in one line or in several."""
    entry = web.post("/relationships/", json=relationship()).json()["entry"]
    forms = ("json", "python", "python-pretty")

    shown, line, pretty = (
        web.get("/relationships/", params={"outputFormat": form}).json()["entries"][0] for form in forms
    )

    assert entry == shown == web.get("/relationships/cheaper").json()["entry"]
    assert "description" not in shown
    assert web.get("/relationships/", params={"hideNone": "n"}).json()["entries"][0]["description"] is None
    assert line == str(shown)
    assert "\n" in pretty


def test_the_policy_decides_whose_variables_win(web: httpx.Client, server: LocalServer) -> None:
    """By default those of the output graph; the components of these packages are unknown."""
    for name, value in (("reports", "1"), ("surrogate", "7")):
        server.describe(name, variables={"scale": value})
        web.post("/experiments/", json=definition(name)).raise_for_status()
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
def test_invalid_graphs_are_rejected(web: httpx.Client, graph: dict[str, Any], words: str) -> None:
    """The problem has a location and a text."""
    body = relationship()
    body["transform"]["outputGraph"] = graph

    reply = web.post("/relationships/", json=body)

    assert reply.status_code == 400
    (problem,) = reply.json()["problems"]
    assert problem["location"] == ["transform", "outputGraph"]
    assert words in problem["message"]


def test_datasets_and_secrets_have_separate_names(server: LocalServer, web: httpx.Client) -> None:
    """A dataset and an image pull secret may have the same name; a second secret is a conflict."""
    assert web.post("/datasets/s3/x", json=BUCKET).json() == "OK"
    assert web.post("/image-pull-secrets/x", json=PULL).json() == "Success"

    again = web.post("/image-pull-secrets/x", json=PULL)

    assert (again.status_code, again.json()["message"]) == (
        409,
        "imagePullSecret already exists but has not become available yet",
    )
    assert web.get("/datasets/").json() == ["x"]
    assert web.get("/image-pull-secrets/").json() == {"x": ["quay.example"]}


def test_a_lambda_uses_the_last_of_two_files(web: httpx.Client, server: LocalServer) -> None:
    """The service does not report duplicate names either."""
    files = [{"filename": "msg.txt", "content": text} for text in ("one", "two")]
    body = {**LAMBDA, "data": files, "validate_flowir": False, "environmentVariables": {"A": 1}}

    reply = web.post("/experiments/lambda/start", json=body)
    server.advance(100)

    assert reply.status_code == 200
    instance = web.get(f"/instances/{reply.json()}").json()
    assert instance["status"]["exit-status"] == "Success"
    assert instance["experiment"] == {}
    assert instance["status"]["meta"]["instanceName"].startswith(f"{reply.json()}-")


def test_a_graph_gets_an_entrypoint_without_arguments(web: httpx.Client) -> None:
    """If there is only one workflow, it becomes the entrypoint."""
    graph = dsl()
    del graph["entrypoint"]

    added = web.post("/library/", json=graph).json()["graph"]

    assert added["entrypoint"]["entry-instance"] == "main"
    assert added["entrypoint"]["execute"] == [{"target": "<entry-instance>", "args": {}}]


def test_conflicts_are_as_recorded(web: httpx.Client) -> None:
    """A dataset and an image pull secret are created twice."""
    calls: dict[str, dict[str, str]] = {"/datasets/s3/rigset": BUCKET, "/image-pull-secrets/sec1": PULL}

    created = [web.post(path, json=body) for path, body in calls.items()]
    again = [web.post(path, json=body) for path, body in calls.items()]

    assert [reply.status_code for reply in created] == [200, 200]
    assert [(reply.status_code, reply.json()) for reply in again] == [
        (409, {"message": 'datasets "rigset" already exists'}),
        (409, {"message": "imagePullSecret already exists but has not become available yet"}),
    ]


def test_an_invalid_query_is_as_recorded(web: httpx.Client) -> None:
    """The message contains the problems as indented JSON."""
    reply = web.post("/query/experiments/", json={"package": {"definition": "git"}})
    extra: dict[str, Any] = web.post("/query/experiments/", json={"nope": 1}).json()

    assert reply.status_code == 400
    assert reply.json() == {
        "message": 'Invalid request, problems: [\n  {\n    "type": "model_type",\n    "loc": [\n      '
        '"package",\n      "definition"\n    ],\n    "msg": "Input should be a valid dictionary or instance of '
        'BasePackage",\n    "input": "git",\n    "ctx": {\n      "class_name": "BasePackage"\n    },\n    '
        '"url": "https://errors.pydantic.dev/2.14/v/model_type"\n  }\n]'
    }
    assert '"ctx"' not in extra["message"]


def test_an_internal_experiment_is_recorded_like_any_other(web: httpx.Client) -> None:
    """With the inputs, images and variables of its components, a keyword, and without nulls."""
    graph = dsl()
    component, (call,) = graph["components"][0], graph["workflows"][0]["execute"]
    call["args"]["message"] = "%(input.names.csv)s"
    component["command"]["arguments"] = "%(message)s:ref"
    component["resourceManager"] = {"config": {"backend": "kubernetes"}, "kubernetes": {"image": "quay.io/x/y:1"}}

    result = web.post("/internal-experiments/", json={"workflow": {"dsl": graph}, "pvep": pvep()}).json()["result"]

    registry = result["metadata"]["registry"]
    assert (registry["inputs"], registry["data"]) == ([{"name": "names.csv"}], [])
    assert registry["containerImages"] == [{"name": "quay.io/x/y:1"}]
    assert [variable["name"] for variable in registry["executionOptionsDefaults"]["variables"]] == [
        "input.names.csv",
        "greeting",
    ]
    assert result["metadata"]["package"] == {"name": "inner", "tags": [], "keywords": ["internal-experiment"]}
    assert "None" not in str(result)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"platform": ["default", "big"]},
            (
                "The experiment parameterisation involves platforms ['big', 'default'] but the base package(s) contain "
                "only these valid platforms ['default']"
            ),
        ),
        ({"variables": [{"name": "ghost"}]}, "There is no ghost variable in platform default"),
        (
            {"data": [{"name": "x.csv"}]},
            (
                "Invalid parameterised package due to The data file parameterisation.executionOptions.data[0].name="
                "x.csv is not part of metadata.registry.data"
            ),
        ),
    ],
    ids=str,
)
def test_options_of_an_internal_experiment_must_exist(options: dict[str, Any], problem: str, web: httpx.Client) -> None:
    """In the words of the service."""
    package = {**pvep(), "parameterisation": {"executionOptions": options}}

    reply = web.post("/internal-experiments/", json={"workflow": {"dsl": DSL}, "pvep": package})

    expected = {"message": "Invalid internal experiment payload", "problems": [{"message": problem}]}
    assert (reply.status_code, reply.json()) == (400, expected)


def pvep() -> dict[str, Any]:
    """Return a package without a definition."""
    return {"metadata": {"package": {"name": "inner"}}}
