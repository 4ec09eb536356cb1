"""Relationships are completed and joined as the service does; what is expected here was computed with its code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from st4sd_async.local import LocalServer
from tests.local.helpers import definition, repository

pytestmark = pytest.mark.slow

INPUT = """
variables:
  default: {global: {x: 1, own: in, n: 3}}
  big: {global: {x: 10}}
components:
- name: Guess
  command: {executable: bin/run.sh, arguments: smiles.txt %(x)s %(own)s}
  variables: {local: 5}
  references: ['input/smiles.txt:copy', 'data/a.txt:copy']
"""
OUTPUT = """
variables:
  default: {global: {x: 2, other: out, n: 4, y: '%(x)s0'}}
  big: {global: {x: 20, other: out}}
components:
- name: Optimize
  command: {executable: bin/run.sh, arguments: smiles.txt %(x)s}
  references: ['input/smiles.txt:copy', 'data/a.txt:copy']
- name: Report
  stage: 1
  command: {executable: bin/other.sh, arguments: 'stage0.Optimize:output %(n)s %(y)s'}
  references: ['stage0.Optimize:output', 'data/b.txt:copy']
output:
  R: {data-in: 'stage1.Report/out.stdout:copy'}
  O: {data-in: 'stage0.Optimize/x.csv:copy'}
"""
FILES = dict.fromkeys(("bin/run.sh", "bin/other.sh", "data/a.txt", "data/b.txt"), "x")
EXPLICIT = {
    "inferParameters": False,
    "inferResults": False,
    "graphParameters": [
        {"inputGraphParameter": {"name": "own"}, "outputGraphParameter": {"value": "text %(other)s"}},
        {"inputGraphParameter": {"name": "input/smiles.txt:copy"}, "outputGraphParameter": {"name": "data/b.txt:copy"}},
    ],
    "graphResults": [
        {"outputGraphResult": {"name": "stage0.Optimize:ref"}, "inputGraphResult": {"name": "stage0.Guess:ref"}}
    ],
}


def push(web: httpx.Client, folder: Path, **packages: str) -> None:
    """Push experiments whose packages have these definitions in FlowIR."""
    for name, flowir in packages.items():
        url = repository(folder / name, {**FILES, "conf/flowir_package.yaml": flowir}).as_uri()
        reply = web.post("/experiments/", json=definition(name, url=url))
        assert reply.status_code == 200, reply.text


def transform(inputs: list[str], outputs: list[str], **relationship: Any) -> dict[str, Any]:
    """Return a relationship between components of the experiments `in` and `out`."""
    graphs = {
        "inputGraph": {"identifier": "in", "components": inputs},
        "outputGraph": {"identifier": "out", "components": outputs},
    }
    return {"identifier": "r", "transform": {**graphs, "relationship": relationship}}


def related(web: httpx.Client, **relationship: Any) -> Any:
    """Push a relationship that replaces Optimize by Guess; return its links."""
    reply = web.post("/relationships/", json=transform(["Guess"], ["Optimize"], **relationship))
    assert reply.status_code == 200, reply.text
    return reply.json()["entry"]["transform"]["relationship"]


def previewed(web: httpx.Client, version: str = "1") -> Any:
    """Return the preview of a synthesis in a version of the DSL; 1 is FlowIR."""
    return web.get("/relationships/r/preview/synthesize/dsl/", params={"dslVersion": version}).json()


def test_links_of_single_components_are_inferred(web: httpx.Client, tmp_path: Path) -> None:
    """Files of the same name, variables of the same name, and the output of the component."""
    push(web, tmp_path, **{"in": INPUT, "out": OUTPUT})

    links = related(web)

    names = ("data/a.txt:copy", "input/smiles.txt:copy", "x")
    assert links["graphParameters"] == [
        {"outputGraphParameter": {"name": name}, "inputGraphParameter": {"name": name}} for name in names
    ]
    assert links["graphResults"] == EXPLICIT["graphResults"]


def test_components_of_both_experiments_are_joined(web: httpx.Client, tmp_path: Path) -> None:
    """References and key-outputs follow the component that is replaced; linked variables are those of the other one."""
    push(web, tmp_path, **{"in": INPUT, "out": OUTPUT})
    related(web)

    preview = previewed(web)

    flowir, experiment = preview["dsl"], preview["experiment"]
    guess, report = flowir["components"]
    assert (guess["name"], guess["command"]["arguments"]) == ("Guess", "smiles.txt %(x)s %(own)s")
    assert report["references"] == ["stage0.Guess/out.stdout:output", "data/b.txt:copy"]
    assert report["command"]["arguments"] == "stage0.Guess/out.stdout:output %(n)s %(y)s"
    assert flowir["variables"]["default"]["global"] == {"x": 2, "own": "in", "n": "4", "y": "%(x)s0"}
    assert flowir["variables"]["big"]["global"] == {"x": 20}
    assert {name: entry["data-in"] for name, entry in flowir["output"].items()} == {
        "R": "stage1.Report/out.stdout:copy",
        "O": "stage0.Guess/x.csv:copy",
    }
    graphs = {package["name"]: package["graphs"][0] for package in experiment["base"]["packages"]}
    assert graphs["out:latest"]["nodes"] == [{"reference": "stage1.Report"}]
    assert graphs["in:latest"]["bindings"]["input"][-1] == {"name": "x", "text": "x", "type": "input"}
    assert [path["dest"]["path"] for path in experiment["base"]["includePaths"]] == [".git", "bin", "data"] * 2
    assert experiment["parameterisation"]["executionOptions"]["platform"] == ["big", "default"]


def test_variables_of_the_input_graph_can_win(web: httpx.Client, tmp_path: Path) -> None:
    """Then they are results of the input graph."""
    push(web, tmp_path, **{"in": INPUT, "out": OUTPUT})

    links = related(web, variablesMergePolicy="inputGraphOverridesOutputGraph")

    assert links["graphResults"][-1] == {"outputGraphResult": {"name": "x"}, "inputGraphResult": {"name": "x"}}
    variables = previewed(web)["dsl"]["variables"]
    assert (variables["default"]["global"]["x"], variables["big"]["global"]["x"]) == ("1", "10")


def test_text_and_another_file_are_fed(web: httpx.Client, tmp_path: Path) -> None:
    """Given links replace a variable by a text, and a file by another one."""
    push(web, tmp_path, **{"in": INPUT, "out": OUTPUT})
    related(web, **EXPLICIT)

    preview = previewed(web)

    (guess, _), variables = preview["dsl"]["components"], preview["dsl"]["variables"]
    assert guess["command"]["arguments"] == "smiles.txt %(x)s text %(other)s"
    assert guess["references"] == ["data/b.txt:copy", "data/a.txt:copy"]
    assert variables["default"]["global"]["other"] == "out"
    values = [{"value": "out", "platform": platform} for platform in ("big", "default")]
    inherited = {"fromBasePackage": "out:latest", "values": values, "preset": "out"}
    assert preview["package-inheritance"] == {"variables": {"other": inherited}}


def test_inheritance_of_numbers_is_missing(web: httpx.Client, tmp_path: Path) -> None:
    """The service fails if the value that is overridden is a number in its package."""
    push(web, tmp_path, **{"in": INPUT, "out": OUTPUT})
    related(web)
    message = {"message": "Unable to explain package inheritance"}

    preview = previewed(web)
    synthesis = web.post("/relationships/r/synthesize/both", json={}).json()
    explained = web.get("/experiments/both/package-inheritance")

    assert preview["package-inheritance"] == message
    assert (synthesis["package-inheritance"], synthesis["problems"]) == ({}, [message])
    assert explained.status_code == 500
    assert explained.json()["message"].endswith("error while explaining package-inheritance in both:latest")


def test_synthesized_experiment_has_the_dsl_of_its_components(web: httpx.Client, tmp_path: Path) -> None:
    """As the preview has, with the variables of its first platform."""
    pytest.importorskip("experiment")
    push(web, tmp_path, **{"in": INPUT, "out": OUTPUT})
    related(web)
    web.post("/relationships/r/synthesize/both", json={}).raise_for_status()

    dsl = web.get("/experiments/both/dsl").json()["dsl"]

    assert dsl == previewed(web, "2.0.0_0.1.0")["dsl"]
    assert list(dsl["workflows"][0]["steps"]) == ["stage0.Guess", "stage1.Report"]
    assert dsl["entrypoint"]["execute"][0]["args"]["x"] == 20


def test_interface_is_that_of_the_output_graph(web: httpx.Client, tmp_path: Path) -> None:
    """If its methods have arguments; the service adds empty ones otherwise, and then rejects them."""
    pytest.importorskip("experiment")
    interface = (
        "interface: {inputSpec: {namingScheme: SMILES, inputExtractionMethod: {csvColumn: {source: {path: "
        "input/smiles.txt}, args: {column: s}}}}, propertiesSpec: [{name: e, propertyExtractionMethod: {csvDataFrame: "
        "{source: {keyOutput: R}%s}}}]}\n"
    )
    push(web, tmp_path, **{"in": INPUT, "out": OUTPUT + interface % ", args: {renameColumns: {a: b}}"})
    related(web)

    base = previewed(web)["experiment"]["base"]
    push(web, tmp_path / "2", out=OUTPUT + interface % "")
    refused = web.post("/relationships/", json=transform(["Guess"], ["Optimize"]))

    assert base["interface"]["propertiesSpec"][0]["name"] == "e"
    assert "additionalInputData" not in base["interface"]
    assert refused.json()["problem"].startswith(
        "There are 1 problems. Problems follow:\nKey FlowIR.interface.propertiesSpec[0].propertyExtractionMethod."
    )


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of a server with both experiments, for relationships that change nothing."""
    late = {
        "name": "Late",
        "stage": 1,
        "command": {"executable": "cat"},
        "references": ["stage0.Guess/out.stdout:ref"],
    }
    flowir = yaml.safe_load(INPUT)
    flowir["components"].append(late)
    with LocalServer(speed=0) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=f"{server.url}/rs", headers=headers, timeout=30, verify=False) as client:
            push(client, tmp_path_factory.mktemp("packages"), **{"in": yaml.safe_dump(flowir), "out": OUTPUT})
            yield client


GHOST = {"outputGraphParameter": {"name": "ghost"}, "inputGraphParameter": {"name": "own"}}
SPOOK = {"outputGraphParameter": {"name": "other"}, "inputGraphParameter": {"name": "spook"}}
UNKNOWN = "The package {} does not contain the variable {}. graphParameters entry {} references the variable"
NO_GHOST, NO_SPOOK = UNKNOWN.format("outputGraph", "ghost", GHOST), UNKNOWN.format("inputGraph", "spook", SPOOK)


@pytest.mark.parametrize(
    ("relationship", "problem"),
    [
        (transform(["Guess"], ["Optimize"], graphParameters=[GHOST]), NO_GHOST),
        (
            transform(["Guess"], ["Optimize"], graphParameters=[GHOST, SPOOK]),
            f"There are 2 problems. Problems follow:\n{NO_GHOST}\n{NO_SPOOK}",
        ),
        (
            transform(["Guess", "Ghost"], ["Optimize"]),
            "Could not extract parameters of inputGraph - underlying error Unknown component stage0.Ghost",
        ),
        (
            transform(["Guess"], ["Optimize", "Ghost"]),
            "out:latest cannot exclude components {'stage0.Ghost'} - it does not contain them in the first place",
        ),
        (
            transform([], ["Optimize"]),
            (
                "Could not rewrite keyOutput O of out:latestfrom stage0.Optimize/x.csv:copy candidates "
                "{'graphParameters': [], 'graphResults': [], 'inferParameters': True, 'inferResults': True, "
                "'variablesMergePolicy': 'outputGraphOverridesInputGraph'}"
            ),
        ),
        (
            transform(["stage1.Late"], ["Optimize"]),
            (
                "Run into 1 problems:\nUnknown parameter stage0.Guess/out.stdout:ref for surrogate component "
                "stage1.Late in in:latest"
            ),
        ),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_impossible_relationships_are_refused(
    relationship: dict[str, Any], problem: str, refusing: httpx.Client
) -> None:
    """In the words of the service."""
    reply = refusing.post("/relationships/", json=relationship)

    assert (reply.status_code, reply.json()) == (400, {"problem": problem, "message": "Invalid relationship"})


@pytest.mark.parametrize(("inputs", "outputs"), [(["Ghost"], ["Optimize"]), (["Guess"], ["Ghost"])])
def test_unknown_single_component_is_a_server_error(
    inputs: list[str], outputs: list[str], web: httpx.Client, tmp_path: Path
) -> None:
    """It is 500 in the service too."""
    push(web, tmp_path, **{"in": INPUT, "out": OUTPUT})

    reply = web.post("/relationships/", json=transform(inputs, outputs))

    assert (reply.status_code, reply.json()) == (500, {"message": "Internal error while registering relationship"})
