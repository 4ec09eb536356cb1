"""Definitions are checked by st4sd-runtime-core, and by the server where that is not installed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from st4sd_async.local.engine.core_checks import dsl_from_flowir, find_flowir_problems
from st4sd_async.local.engine.flowir import with_defaults
from tests.client.definitions import DSL

pytestmark = pytest.mark.slow

FLOWIR = {"components": [{"name": "hi", "command": {"executable": "cat", "arguments": "%(ghost)s"}}]}
"""Only the libraries find that there is no variable "ghost"."""
MANY = copy.deepcopy(DSL)
"""Only the libraries find that the number of replicas is no number."""
MANY["components"][0]["workflowAttributes"] = {"replicate": "many"}
RECORDED_DSL: dict[str, Any] = {
    "entrypoint": {"entry-instance": "main", "execute": [{"target": "<entry-instance>", "args": {"foo": "world"}}]},
    "workflows": [
        {
            "signature": {"name": "main", "parameters": [{"name": "foo", "default": "world"}]},
            "steps": {"greet": "greeter"},
            "execute": [{"target": "<greet>", "args": {"message": "%(foo)s"}}],
        }
    ],
    "components": [
        {
            "signature": {"name": "greeter", "parameters": [{"name": "message", "default": "hello"}]},
            "command": {"executable": "echo", "arguments": "hello %(message)s"},
        }
    ],
}
NO_STEP = copy.deepcopy(RECORDED_DSL)
NO_STEP["workflows"][0]["execute"][0]["target"] = "<none>"
NO_EXECUTABLE = copy.deepcopy(RECORDED_DSL)
del NO_EXECUTABLE["components"][0]["command"]["executable"]
RECORDED: dict[str, tuple[str, Any, str]] = {
    "DSL without a step": (
        "/utilities/dsl/",
        NO_STEP,
        (
            """{"problems": [{"message": "Node ['entry-instance', 'none'] has no matching step", "location":"""
            """ ["workflows", 0, "execute", 0]}, {"message": "Workflow [] does not contain an execute entry for its"""
            """ step greet", "location": ["workflows", 0, "execute"]}], "message": "Invalid DSL definition"}\n"""
        ),
    ),
    "DSL without an executable": (
        "/utilities/dsl/",
        NO_EXECUTABLE,
        (
            """{"problems": [{"problem": "Invalid value stage0.greet.command.executable=None - valid choices are"""
            """ [\\"<class 'str'>\\"]"}], "message": "Invalid DSL definition"}\n"""
        ),
    ),
    "DSL with an unknown field": (
        "/utilities/dsl/",
        {**RECORDED_DSL, "nope": 1},
        (
            """{"problems": [{"type": "extra_forbidden", "input": 1, "message": "Extra inputs are not permitted","""
            """ "location": ["nope"]}], "message": "Invalid DSL definition"}\n"""
        ),
    ),
    "FlowIR without an executable": (
        "/experiments/lambda/start",
        {"lambdaFlowIR": {"components": [{"name": "hi"}]}},
        (
            """{"flowirErrors": "Inconsistent FlowIR: Found 1 errors:"""
            """\\nInvalid value stage0.hi.command.executable=None"""
            """ - valid choices are [\\"<class 'str'>\\"]", "message": "Invalid lambda FlowIR"}\n"""
        ),
    ),
    "DSL in place of FlowIR": (
        "/experiments/lambda/start",
        {"lambdaFlowIR": RECORDED_DSL},
        (
            """{"flowirErrors": "Inconsistent FlowIR: Found 1 errors:"""
            """\\nstage0.None is invalid. Missing fields: {'name':"""
            """ 'str'}. Extra fields: {}. Invalid fields: {}.Component does not have a valid ID", "message": "Invalid"""
            """ lambda FlowIR"}\n"""
        ),
    ),
}
WITHOUT_CORE = """
import json, sys

sys.modules["experiment"] = None  # it cannot be imported
import httpx
from st4sd_async.local import LocalServer

with LocalServer() as server, httpx.Client(headers={"Authorization": f"Bearer {server.api_key}"}, verify=False) as web:
    for path, body in json.load(sys.stdin):
        reply = web.post(f"{server.url}/rs{path}", json=body)
        print(json.dumps([reply.status_code, reply.text]))
"""


@pytest.mark.parametrize("name", RECORDED)
def test_replies_are_as_recorded(web: httpx.Client, name: str) -> None:
    """Byte for byte."""
    path, body, text = RECORDED[name]

    reply = web.post(path, json=body)

    assert (reply.status_code, reply.text) == (400, text)


def test_the_libraries_find_more(web: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    """Their problems are in the replies, and not in the log."""
    flowir = web.post("/experiments/lambda/start", json={"lambdaFlowIR": FLOWIR})
    dsl = [
        web.post("/utilities/dsl/", json=MANY),
        web.post("/utilities/pvep/", json={"dsl": MANY}),
        web.post("/internal-experiments/", json={"workflow": {"dsl": MANY}, "pvep": named("a")}),
    ]

    assert flowir.status_code == 400
    assert 'Attempted to resolve "ghost"' in flowir.json()["flowirErrors"]
    assert {reply.status_code for reply in dsl} == {400}
    location = ["components", 0, "workflowAttributes", "replicate", "int"]
    assert all(reply.json()["problems"][0]["location"] == location for reply in dsl)
    assert not [record for record in caplog.records if record.name == "flowir"]


@pytest.mark.parametrize(
    ("part", "value", "location", "message"),
    [
        ("workflows.0.signature.name", "a b", ["workflows", 0, "signature", "name"], "String should match pattern"),
        ("components.0.command.executable", 3, ["components", 0, "command", "executable", "str"], "be a valid string"),
        ("components.0.command.arguments", "%(x)s", ["components", 0, "command", "arguments"], 'or variable "x"'),
        ("workflows.0.steps.greet", "main", ["workflows", 0, "execute", 0], "graph contains a cycle"),
    ],
)
def test_graphs_of_the_library_are_checked_too(
    web: httpx.Client, part: str, value: Any, location: list[Any], message: str
) -> None:
    """In the words of the libraries."""
    graph = copy.deepcopy(RECORDED_DSL)
    *path, last = [int(name) if name.isdecimal() else name for name in part.split(".")]
    target: Any = graph
    for name in path:
        target = target[name]
    target[last] = value

    problem = web.post("/library/", json=graph).json()["problems"][-1]

    assert problem["location"] == location
    assert message in problem["message"]


def test_a_definition_may_be_started_unchecked(web: httpx.Client) -> None:
    """As in the service."""
    reply = web.post("/experiments/lambda/start", json={"lambdaFlowIR": FLOWIR, "validate_flowir": False})

    assert reply.status_code == 200


def test_dsl_on_which_the_libraries_fail_is_accepted(web: httpx.Client) -> None:
    """They raise a `TypeError` for an argument that is a float."""
    dsl = copy.deepcopy(DSL)
    dsl["entrypoint"]["execute"][0]["args"]["greeting"] = 1.5

    assert web.post("/utilities/dsl/", json=dsl).json() == {"problems": []}


def test_without_the_libraries_the_server_checks_less() -> None:
    """It accepts what only they reject, and gives the recorded replies."""
    accepted = [
        ("/experiments/lambda/start", {"lambdaFlowIR": FLOWIR}),
        ("/utilities/dsl/", DSL),
        ("/utilities/dsl/", MANY),
        ("/utilities/pvep/", {"dsl": DSL}),
        ("/internal-experiments/", {"workflow": {"dsl": DSL}, "pvep": named("greeter")}),
        ("/experiments/greeter/start", {}),
        ("/library/", MANY),
    ]
    rejected = [(path, body) for path, body, _ in RECORDED.values()]

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CORE],
        input=json.dumps([*accepted, *rejected]),
        capture_output=True,
        text=True,
        check=True,
    )

    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [status for status, _ in replies[: len(accepted)]] == [200] * len(accepted)
    assert replies[len(accepted) :] == [[400, text] for _, _, text in RECORDED.values()]


def named(name: str) -> dict[str, Any]:
    """Return a package without a definition."""
    return {"metadata": {"package": {"name": name}}}


def test_dsl_is_made_from_flowir_in_the_order_of_the_definition() -> None:
    """With the defaults of the orchestrator; None if it is invalid."""
    names = [f"Step{number}" for number in (3, 1, 2)]
    components = [{"name": name, "command": {"executable": "echo", "arguments": "%(x)s"}} for name in names]
    last = {"name": "Last", "command": {"executable": "cat"}, "references": ["stage0.Step2/out.stdout:copy"]}
    flowir = with_defaults(
        {
            "components": [last, *components],
            "variables": {"default": {"global": {"x": 1}}, "big": {"stages": {"0": {"y": 2}}, "global": {"x": 5}}},
        }
    )

    dsl = dsl_from_flowir(flowir, ["data"], "big")

    assert dsl is not None
    assert list(dsl["workflows"][0]["steps"]) == [f"stage0.{name}" for name in [*names, "Last"]]
    assert dsl["workflows"][0]["execute"][0]["target"] == "<stage0.Step3>"
    assert dsl["entrypoint"]["execute"][0]["args"] == {"x": 5}
    assert [component["command"]["executable"] for component in dsl["components"]] == ["echo", "echo", "echo", "cat"]
    assert dsl["components"][0]["workflowAttributes"]["repeatRetries"] == 3
    assert dsl_from_flowir({**flowir, "components": [last]}, [], None) is None


def test_results_are_those_of_the_arguments_and_belong_to_the_caller() -> None:
    """They are remembered by the content of the arguments."""
    first = find_flowir_problems(FLOWIR)
    assert first is not None
    assert len(first) == 1
    first.clear()

    assert len(find_flowir_problems(copy.deepcopy(FLOWIR)) or ()) == 1
    assert find_flowir_problems({**FLOWIR, "variables": {"default": {"global": {"ghost": 1}}}}) == []


def test_arguments_may_be_of_any_type() -> None:
    """Views of dictionaries and generators cannot be compared by their content."""
    flowir, folders = (
        with_defaults({"components": [{"name": "hi", "command": {"executable": "cat"}}]}),
        {"data": "copy"},
    )
    dsl = dsl_from_flowir(flowir, list(folders), None)

    assert dsl is not None
    assert dsl_from_flowir(flowir, folders.keys(), None) == dsl
    assert dsl_from_flowir(flowir, (name for name in folders), None) == dsl


def test_pushed_dsl_gets_the_defaults_of_flowir(web: httpx.Client) -> None:
    """Its files become arguments of the entrypoint."""
    package = {"metadata": {"package": {"name": "inner"}}}
    web.post("/internal-experiments/", json={"workflow": {"dsl": DSL}, "pvep": package}).raise_for_status()

    dsl = web.get("/experiments/inner/dsl").json()["dsl"]

    assert dsl["entrypoint"]["execute"][0]["args"] == {"greeting": "hello", "input.names.csv": "input/names.csv"}
    assert dsl["components"][0]["workflowAttributes"]["repeatRetries"] == 3
