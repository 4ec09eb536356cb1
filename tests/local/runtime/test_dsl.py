"""The checks of DSL find the same problems as the orchestrator's libraries."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from st4sd_async.local.runtime.dsl import InvalidDsl, check_without_core, parse, shown
from tests.client.definitions import DSL

Change = Callable[[dict[str, Any]], Any]


def call(dsl: dict[str, Any]) -> dict[str, Any]:
    """Return the only step of the workflow."""
    step: dict[str, Any] = dsl["workflows"][0]["execute"][0]
    return step


def nested(dsl: dict[str, Any], **arguments: Any) -> None:
    """Wrap the workflow in another one."""
    outer = {
        "signature": {"name": "outer", "parameters": []},
        "steps": {"in": "main"},
        "execute": [{"target": "<in>", "args": arguments}],
    }
    dsl["workflows"].append(outer)
    dsl["entrypoint"] = {"entry-instance": "outer", "execute": [{"target": "<entry-instance>"}]}


def nested_ghost(dsl: dict[str, Any]) -> None:
    nested(dsl, **{"greeting": "x", "input.names.csv": "y"})
    dsl["workflows"][0]["steps"]["more"] = "ghost"
    dsl["workflows"][0]["execute"].append({"target": "<more>"})


def cycle(dsl: dict[str, Any]) -> None:
    dsl["workflows"][0]["steps"]["again"] = "main"
    dsl["workflows"][0]["execute"].append({"target": "<again>", "args": {"input.names.csv": "x"}})


def needy(dsl: dict[str, Any]) -> None:
    """Add a parameter without a value."""
    dsl["workflows"][0]["signature"]["parameters"].append({"name": "more"})


CHANGES: dict[str, Change] = {
    "nothing": lambda dsl: None,
    "no entrypoint": lambda dsl: dsl.pop("entrypoint"),
    "no workflows": lambda dsl: dsl.pop("workflows"),
    "no components": lambda dsl: dsl.pop("components"),
    "nothing at all": lambda dsl: dsl.clear(),
    "a strange field": lambda dsl: dsl.update(more=1),
    "a strange field of a command": lambda dsl: dsl["components"][0]["command"].update(more=1),
    "no list": lambda dsl: dsl.update(workflows="x"),
    "null in place of a list": lambda dsl: dsl.update(components=None),
    "no mapping": lambda dsl: dsl.update(entrypoint=[]),
    "no signature": lambda dsl: dsl["components"][0].pop("signature"),
    "no name": lambda dsl: dsl["components"][0]["signature"]["parameters"].append({}),
    "a number as a name": lambda dsl: dsl["components"][0]["signature"].update(name=3),
    "an unknown entry": lambda dsl: dsl["entrypoint"].update({"entry-instance": "ghost"}),
    "an unknown argument of the entry": lambda dsl: dsl["entrypoint"]["execute"][0]["args"].update(more=1),
    "an entry without a value": needy,
    "an unknown template": lambda dsl: dsl["workflows"][0]["steps"].update(greet="ghost"),
    "an unknown step": lambda dsl: call(dsl).update(target="<ghost>"),
    "a step that is never executed": lambda dsl: dsl["workflows"][0].update(execute=[]),
    "an argument missing": lambda dsl: call(dsl).update(args={}),
    "no arguments": lambda dsl: call(dsl).pop("args"),
    "an argument too many": lambda dsl: call(dsl)["args"].update(more="x"),
    "one missing, one too many": lambda dsl: call(dsl).update(args={"more": 1}),
    "an argument that is a number": lambda dsl: call(dsl)["args"].update(message=3),
    "an unknown parameter": lambda dsl: call(dsl)["args"].update(message="%(more)s"),
    "an unknown reference": lambda dsl: dsl["components"][0]["command"].update(arguments="%(more)s"),
    "a reference to a variable": lambda dsl: dsl["components"][0].update(
        variables={"more": 1}, command={"executable": "echo", "arguments": "%(more)s"}
    ),
    "a component twice": lambda dsl: dsl["components"].append(dsl["components"][0]),
    "a workflow twice": lambda dsl: dsl["workflows"].append(dsl["workflows"][0]),
    "a component called like the workflow": lambda dsl: dsl["components"][0]["signature"].update(name="main"),
    "a data file": lambda dsl: dsl["workflows"][0]["signature"]["parameters"].append({"name": "data.a.csv"}),
    "no executable": lambda dsl: dsl["components"][0]["command"].pop("executable"),
    "a workflow inside": lambda dsl: nested(dsl, **{"greeting": "x", "input.names.csv": "y"}),
    "a workflow inside without its file": lambda dsl: nested(dsl, greeting="x"),
    "a workflow inside, unknown argument": lambda dsl: nested(dsl, more="x"),
    "an unknown template inside": nested_ghost,
    "a cycle": cycle,
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_problems_are_those_of_the_orchestrator(change: str) -> None:
    """Texts and locations are the same."""
    dsl = copy.deepcopy(DSL)
    CHANGES[change](dsl)

    assert ours(copy.deepcopy(dsl)) == theirs(dsl)


def test_defaults_are_those_of_the_orchestrator() -> None:
    """All defaults are the same, and removing them restores the input."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from experiment.model.frontends.dsl import Namespace

        complete = json.loads(json.dumps(Namespace(**copy.deepcopy(DSL)).model_dump(by_alias=True)))

    assert parse(DSL) == complete
    sparse = copy.deepcopy(DSL)
    del sparse["entrypoint"]["execute"][0]["target"]
    assert shown(parse(DSL), exclude_defaults=True) == sparse


@pytest.mark.parametrize("calls", [0, 2])
def test_an_entrypoint_has_one_call(calls: int) -> None:
    """The orchestrator's libraries fail without a call, and have other texts for several."""
    dsl = copy.deepcopy(DSL)
    dsl["entrypoint"]["execute"] *= calls

    assert [problem["location"] for problem in ours(dsl)] == [["entrypoint", "execute"]]


def ours(dsl: Any) -> list[dict[str, Any]]:
    """Return the problems that the embedded server finds without the libraries."""
    try:
        check_without_core(dsl)
    except InvalidDsl as error:
        return error.problems
    return []


def theirs(dsl: Any) -> list[dict[str, Any]]:
    """Return the problems that the libraries find, in the form of the service's responses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pydantic
        from experiment.model.errors import DSLInvalidError
        from experiment.model.frontends.dsl import Namespace, namespace_to_flowir

        try:
            flowir = namespace_to_flowir(Namespace(**dsl))
        except (pydantic.ValidationError, DSLInvalidError) as error:
            names = {"msg": "message", "loc": "location"}
            renamed = [{names.get(key, key): value for key, value in problem.items()} for problem in error.errors()]
            kept = [{key: problem[key] for key in problem if key not in ("ctx", "url")} for problem in renamed]
            plain: list[dict[str, Any]] = json.loads(json.dumps(kept))
            return plain
        return [{"problem": str(error)} for error in flowir.validate()]
