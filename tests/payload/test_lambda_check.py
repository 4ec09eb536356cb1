"""Definitions of lambda experiments, checked by the orchestrator's libraries and by the embedded server."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from st4sd_async._payload.lambda_check import check
from st4sd_async.local.engine.flowir import find_problems
from tests.client.definitions import DSL, LAMBDA

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries and of what they import

FLOWIR: dict[str, Any] = {
    "components": [
        {
            "name": "make",
            "command": {"executable": "echo", "arguments": "%(word)s %(replica)s"},
            "workflowAttributes": {"replicate": "%(copies)s"},
            "variables": {"word": "hello"},
        },
        {
            "name": "use",
            "stage": 1,
            "command": {"executable": "cat", "arguments": "stage0.make/out.stdout:ref"},
            "references": ["stage0.make/out.stdout:ref"],
            "workflowAttributes": {"aggregate": True},
        },
    ],
    "variables": {"default": {"global": {"copies": 2}}},
    "output": {"Said": {"data-in": "stage1.use/out.stdout:copy"}},
}
CIRCLE = "the components wait for each other: stage0.make <- stage1.use <- stage0.make"


def changed(definition: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a definition with the value at a path (``components/0/name``) replaced, or removed if it is None."""
    made: dict[str, Any] = copy.deepcopy(definition)
    *parents, last = path.split("/")
    here: Any = made
    for part in parents:
        here = here[int(part)] if part.isdigit() else here.setdefault(part, {})
    if value is None:
        del here[last]
    elif isinstance(here, list):
        here[int(last)] = value
    else:
        here[last] = value
    return made


VALID = {
    "FlowIR": FLOWIR,
    "DSL": DSL,
    "data": LAMBDA["lambdaFlowIR"],
    "a script": changed(FLOWIR, "components/0/references", ["bin/say.sh:ref"]),
    "environment": changed(
        changed(FLOWIR, "components/0/command/environment", "mine"), "environments/default", {"mine": {"A": "1"}}
    ),
    "nothing": {},
}
FIRST, SECOND = "components/0", "components/1"
BROKEN_FLOWIR: dict[str, tuple[str, Any, str, str]] = {
    "unknown component": (f"{SECOND}/references", ["stage0.ghost:ref"], "stage1.use.references", "['stage0.ghost']"),
    "reference in arguments only": (f"{SECOND}/references", [], "stage1.use.command.arguments", "Unknown reference to"),
    "no method": (f"{SECOND}/references", ["stage0.make"], "", "missing reference method"),
    "missing variable": (f"{FIRST}/command/arguments", "%(ghost)s", "stage0.make.command.arguments", 'resolve "ghost"'),
    "cut variable": (f"{FIRST}/command/arguments", "%(word)", "stage0.make.command.arguments", "Incomplete variable"),
    "unknown platform": (f"{FIRST}/override", {"ghost": {}}, "", 'Unknown platform "ghost"'),
    "unknown environment": (f"{FIRST}/command/environment", "ghost", "", 'Unknown environment "ghost"'),
    "circle": (f"{FIRST}/references", ["stage1.use:ref"], "stage0.make.references", CIRCLE),
    "bad number of replicas": (
        f"{FIRST}/workflowAttributes/replicate",
        "many",
        "stage0.make.workflowAttributes.replicate",
        "cannot be converted",
    ),
    "variable of replicas without a number": (
        "variables/default/global/copies",
        "many",
        "stage0.make.workflowAttributes.replicate",
        "cannot be converted",
    ),
    "unknown backend": (
        f"{FIRST}/resourceManager/config/backend",
        "moon",
        "stage0.make.resourceManager.config.backend",
        "'moon'",
    ),
    "backend without an image": (
        f"{FIRST}/resourceManager/config/backend",
        "kubernetes",
        "stage0.make.resourceManager.kubernetes.image",
        "does not specify",
    ),
    "unknown field of a backend": (
        f"{FIRST}/resourceManager/kubernetes/imagee",
        "x",
        "stage0.make.resourceManager.kubernetes.imagee",
        "did you mean image?",
    ),
    "wrong type": (f"{FIRST}/stage", "zero", "stagezero.make.stage", "Invalid value"),
    "wrong type of all": ("components", {"make": 1}, "", "the orchestrator cannot read it: AttributeError"),
    "unknown field": (f"{FIRST}/comand", {}, "stage0.make.comand", "did you mean command?"),
    "unknown part": ("componentz", [], "componentz", "did you mean components?"),
    "no name": (f"{FIRST}/name", None, "", "Missing fields: {'name': 'str'}"),
    "no executable": (f"{FIRST}/command/executable", None, "stage0.make.command.executable", "Invalid value"),
    "twice": (SECOND, FLOWIR["components"][0], "", "stage0.make exists multiple times"),
    "half of an interface": ("interface", {"inputSpec": {}}, "interface.propertiesSpec", "is missing"),
}
BROKEN_DSL: dict[str, tuple[str, Any, str, str]] = {
    "template not found": ("workflows/0/steps/greet", "ghost", "workflows[0].execute[0]", "has no matching template"),
    "entry not found": ("entrypoint/entry-instance", "ghost", "entrypoint.entry-instance", "No template with name"),
    "step not found": ("workflows/0/execute/0/target", "<ghost>", "workflows[0].execute[0]", "has no matching step"),
    "unknown argument": ("workflows/0/execute/0/args/ghost", 1, "workflows[0].execute[0]", "not contain parameter"),
    "missing argument": ("workflows/0/execute/0/args", {}, "workflows[0].execute[0].args", "is not given a value"),
    "unknown parameter": (
        f"{FIRST}/command/arguments",
        "%(ghost)s",
        "components[0].command.arguments",
        'unknown parameter "ghost"',
    ),
    "a circle": ("workflows/0/steps/greet", "main", "workflows[0].execute[0]", "contains a cycle"),
    "no entrypoint": ("entrypoint", None, "entrypoint", "Missing entrypoint"),
    "unknown field": (f"{FIRST}/extra", 1, "components[0].extra", "Extra inputs are not permitted"),
    "no executable": (f"{FIRST}/command/executable", None, "stage0.greet.command.executable", "Invalid value"),
    "bad number of replicas": (
        f"{FIRST}/workflowAttributes/replicate",
        "many",
        "components[0].workflowAttributes.replicate.int",
        "valid integer",
    ),
}


def definition_of(name: str) -> dict[str, Any]:
    """Return a definition by its name in the table of valid ones or of broken FlowIR."""
    return VALID[name] if name in VALID else changed(FLOWIR, *BROKEN_FLOWIR[name][:2])


@cache
def answer_to(name: str) -> Mapping[str, Any]:
    """Return what the libraries find in a definition; two tests look at each."""
    return check(definition_of(name), {})


@pytest.mark.parametrize("name", VALID)
def test_valid_definitions_have_no_problems(name: str) -> None:
    """With replicas, aggregation, data and scripts. DSL is converted to FlowIR that is valid too."""
    answer = answer_to(name)

    assert answer["problems"] == []
    assert (answer["flowir"] is not None) is (name == "DSL")
    assert check(json.loads(json.dumps(answer["flowir"] or {})), {})["problems"] == []


@pytest.mark.parametrize("name", BROKEN_FLOWIR)
def test_problems_of_flowir_have_a_place_and_a_text(name: str) -> None:
    """Each entry by its name, in the orchestrator's words, without copies of whole components."""
    _, _, where, what = BROKEN_FLOWIR[name]
    problems = answer_to(name)["problems"]

    assert any(found == where and what in text for found, text in problems), problems
    assert not any("\n" in text for _, text in problems)


@pytest.mark.parametrize(("path", "value", "where", "what"), BROKEN_DSL.values(), ids=BROKEN_DSL)
def test_problems_of_dsl_have_a_place_and_a_text(path: str, value: Any, where: str, what: str) -> None:
    """The place in the DSL, if the DSL causes the problem."""
    answer = check(changed(DSL, path, value), {})

    assert any(found == where and what in text for found, text in answer["problems"]), answer
    assert answer["flowir"] is None


def test_variables_of_the_start_are_used() -> None:
    """They replace those of the definition, and are arguments of the entrypoint of a DSL."""
    assert check(FLOWIR, {"copies": "3"})["problems"] == []
    assert check(FLOWIR, {"copies": "few"})["problems"] == [
        ("", 'Failed to convert "few" to appropriate type for replicate')
    ]
    made = check(DSL, {"greeting": "good morning"})["flowir"]
    assert made["components"][0]["command"]["arguments"] == "good morning"
    assert check(DSL, {"ghost": "1"})["problems"] == [("entrypoint.execute[0]", "Unknown parameter ghost")]


@pytest.mark.parametrize("name", [*(name for name in VALID if name != "DSL"), *BROKEN_FLOWIR])
def test_the_embedded_server_refuses_no_valid_definition(name: str) -> None:
    """It checks less than the libraries do, and reports in their words."""
    there = [_without_list(one) for one in find_problems(definition_of(name))]
    here = [_without_list(what) for _, what in answer_to(name)["problems"]]

    if name != "wrong type of all":
        assert {one.removeprefix("Inconsistent FlowIR: ") for one in there} <= set(here)
    found = ("unknown part", "no name", "no executable", "twice", "wrong type of all", "unknown component")
    assert bool(there) is (name in found)


def _without_list(problem: str) -> str:
    """Return a problem without the list of valid values, whose order differs."""
    return problem.partition(" - valid choices")[0].partition(". Known components")[0]
